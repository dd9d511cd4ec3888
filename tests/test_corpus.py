"""What the tutor learns and is tested with: counts, and a fair evaluation."""

from __future__ import annotations

import itertools
import json

import pytest

from servinglab.bench import tutor_eval
from servinglab.models.tutor import corpus as text
from servinglab.paths import TUTOR


@pytest.fixture(scope="module")
def corpus() -> text.Corpus:
    return text.load()


def test_at_least_400_facts_with_4_phrasings(corpus):
    assert len(corpus.items) >= 400
    assert len({item.id for item in corpus.items}) == len(corpus.items)
    assert min(len(item.questions) for item in corpus.items) >= 4
    assert {item.id[:2] for item in corpus.items} == {f"c{n}" for n in range(9)}, "every lesson's subject is covered"


def test_two_turn_follow_ups(corpus):
    assert len(corpus.followups) >= 60
    ids = {item.id for item in corpus.items}
    for follow in corpus.followups:
        assert follow.first in ids
        assert text.says(follow.fact, follow.answer)


def test_three_system_prompts(corpus):
    assert set(corpus.systems) == set(text.STYLES)
    assert all(len(lines) >= 3 for lines in corpus.systems.values())


def test_every_answer_states_its_fact(corpus):
    for item in corpus.items:
        for style in text.STYLES:
            assert text.says(item.fact, item.reply(style)), (item.id, style)


def test_a_fact_matches_no_question_of_its_own(corpus):
    asked = {q.question: q.item for q in tutor_eval.load().questions}
    for item in corpus.items:
        for question in [*item.questions, *(q for q, name in asked.items() if name == item.id)]:
            assert not text.says(item.fact, question), (item.id, question)


def test_a_fact_matches_no_other_items_answer(corpus):
    for one, other in itertools.permutations(corpus.items, 2):
        for style in text.STYLES:
            assert not text.says(one.fact, other.reply(style)), (one.id, other.id, other.reply(style))


def test_evaluation_is_large_enough():
    asked = tutor_eval.load()
    assert len(asked.questions) >= 150
    assert sum(question.group == "confusable" for question in asked.questions) >= 30
    assert len(set(asked.offtopic)) >= 40


def test_evaluation_is_not_the_training_text(corpus):
    """Character-trigram overlap with every training phrasing at most 0.5."""
    asked = tutor_eval.load()
    trained = [(phrasing, text.trigrams(phrasing)) for phrasing, _ in corpus.phrasings()]
    for question in [q.question for q in asked.questions] + asked.offtopic:
        own = text.trigrams(question)
        worst = max(trained, key=lambda pair: len(own & pair[1]))
        assert len(own & worst[1]) / len(own) <= 0.5, (question, worst[0])


def test_confusable_questions_have_neighbours(corpus):
    items = {item.id: item for item in corpus.items}
    for question in tutor_eval.load().questions:
        assert question.item in items
        if question.group == "confusable":
            neighbours = [items[name] for name in items[question.item].neighbours]
            assert neighbours
            for other in neighbours:
                assert not tutor_eval.is_right(items[question.item], neighbours, other.answer), "the neighbour's fact is wrong"


def test_held_out_prose_was_not_trained_on(corpus):
    held_out = text.sentences((TUTOR / "holdout.md").read_text(encoding="utf-8"))
    trained = "\n".join(corpus.prose)
    assert len(held_out) > 50
    assert not [sentence for sentence in held_out if sentence in trained]


def test_a_fifth_of_the_training_tokens_is_prose():
    seen = json.loads((TUTOR / "training.json").read_text(encoding="utf-8"))["tokens"]
    assert seen["prose"] / (seen["prose"] + seen["conversation"]) >= 0.20


def test_noise_keeps_a_question_recognisable(corpus):
    writer = text.Writer(corpus, seed=1)
    noisy = [writer.noisy("컨텍스트 길이를 두 배로 늘리면 어떻게 되나요?") for _ in range(300)]
    assert len(set(noisy)) > 50
    assert all(text.overlap("컨텍스트 길이를 두 배로 늘리면 어떻게 되나요?", line) > 0.3 for line in noisy)


def test_off_topic_words_get_the_particles_that_fit(corpus):
    assert text.fill("{}이/가 뭐예요?", "김밥") == "김밥이 뭐예요?" and text.fill("{}이/가 뭐예요?", "피자") == "피자가 뭐예요?"
    assert text.fill("{}을/를 배워요", "체스") == "체스를 배워요"
    made = [question for part in corpus.offtopic_frames for question in part.questions()]
    assert len(set(made)) == len(made) and not any(sign in question for question in made for sign in "{}/")


def test_every_epoch_draws_other_off_topic_questions(corpus):
    writer = text.Writer(corpus, 1)
    first, second = (set(writer.off_topic(500)) - set(corpus.offtopic) for _ in range(2))
    assert first and second and first != second
    assert first | second <= {question for question, topic in corpus.phrasings() if topic == text.OFF_TOPIC}
