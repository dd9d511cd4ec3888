"""Every exercise is fed right, wrong, foreign, malformed and unattempted answers."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest

from servinglab import engines
from servinglab.bench import Record
from servinglab.exercises import EXERCISES, exercise
from servinglab.exercises.core import CheckFailed, Exercise, Outcome


@pytest.fixture(scope="module")
def server():
    with engines.start() as running:
        yield running


def make_all(server) -> dict[str, Exercise]:
    record = Record(due=0.0, t0=10.0, times=[10.0213, 10.0245, 10.0291, 10.0332], texts=["가", "나", "다", "라"])
    usage = SimpleNamespace(prompt_tokens=9, completion_tokens=31, total_tokens=40)
    message = SimpleNamespace(content="글자 수가 토큰 수와 다르도록 넉넉하게 적은 답입니다. 이만하면 되겠지요.")
    response = SimpleNamespace(usage=usage, choices=[SimpleNamespace(message=message)])
    evidence = {"00-1": (321,), "00-2": (), "00-3": (server,), "00-4": (404,), "00-5": (response,), "00-7": (record,)}
    return {name: exercise(name, *evidence.get(name, (server,))) for name in EXERCISES}


@pytest.fixture(scope="module")
def exercises(server):
    return make_all(server)


@pytest.mark.parametrize("name", EXERCISES)
def test_right_answer_is_right(name, exercises):
    assert exercises[name].grade(exercises[name].right()).outcome is Outcome.RIGHT


@pytest.mark.parametrize("name", EXERCISES)
def test_unattempted_is_not_wrong(name, exercises):
    assert exercises[name].grade(...).outcome is Outcome.NOT_ATTEMPTED


def test_a_gap_left_open_in_the_list_is_not_attempted(exercises):
    gaps = [{"role": "system", "content": "짧게"}, {"role": ..., "content": ...}]
    assert exercises["00-6"].grade(gaps).outcome is Outcome.NOT_ATTEMPTED


@pytest.mark.parametrize("name", EXERCISES)
def test_three_plausible_mistakes_each_with_its_own_feedback(name, exercises):
    mistakes = exercises[name].mistakes()
    assert len(mistakes) >= 3
    said = [exercises[name].grade(mistake.example) for mistake in mistakes]
    assert all(verdict.outcome is Outcome.WRONG for verdict in said)
    assert [verdict.text for verdict in said] == [mistake.feedback for mistake in mistakes]
    assert len({verdict.text for verdict in said}) == len(mistakes)


def test_feedback_never_gives_the_answer_away(exercises):
    for entry in exercises.values():
        right = entry.right()
        if isinstance(right, (int, float)):
            assert not any(str(right) in mistake.feedback.replace("200은", "") for mistake in entry.mistakes()), entry.id


def test_each_rejects_the_right_answers_of_all_others(exercises):
    for one, other in itertools.permutations(exercises.values(), 2):
        assert one.grade(other.right()).outcome is not Outcome.RIGHT, (one.id, other.id)


@pytest.mark.parametrize("name", EXERCISES)
@pytest.mark.parametrize("answer", ["3", None, [], {}, math.nan, math.inf, True, b"x", object(), "", [[]], [None], -1])
def test_answers_of_the_wrong_type_are_explained(name, answer, exercises):
    verdict = exercises[name].grade(answer)
    assert verdict.outcome is Outcome.WRONG
    assert len(verdict.text) > 10


def test_at_least_half_depend_on_the_run():
    live = [kind for kind in EXERCISES.values() if kind.live]
    assert len(live) * 2 >= len(EXERCISES) >= 5


def test_live_answers_follow_the_evidence(server):
    """No literal passes: other evidence, other right answer."""
    assert exercise("00-1", 100).right() != exercise("00-1", 101).right()
    assert exercise("00-4", 401).right() != exercise("00-4", 404).right()
    with engines.start() as second:
        assert exercise("00-3", second).right() != exercise("00-3", server).right()


def test_conversation_is_really_sent(server):
    turns = [{"role": "system", "content": "쉽게 설명해 주세요."}, {"role": "user", "content": "토큰이 뭐예요?"}]
    assert exercise("00-6", server).grade(turns).outcome is Outcome.RIGHT
    with engines.start() as gone:
        pass
    assert exercise("00-6", gone).grade(turns).outcome is Outcome.ERROR


def test_check_shows_a_verdict_and_in_ci_a_wrong_one_raises(exercises, capsys, monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    exercises["00-2"].check("a")
    assert "아직 아닙니다" in capsys.readouterr().out
    monkeypatch.setenv("CI", "true")
    exercises["00-2"].check("c")
    assert "맞았습니다" in capsys.readouterr().out
    exercises["00-2"].check(...)
    with pytest.raises(CheckFailed):
        exercises["00-2"].check("a")


def test_hints_come_one_by_one(exercises, capsys):
    entry = exercises["00-3"]
    entry.hint()
    entry.hint()
    shown = capsys.readouterr().out
    assert all(hint in shown for hint in entry.hints)
    entry.solution()
    assert str(entry.right()) in capsys.readouterr().out
