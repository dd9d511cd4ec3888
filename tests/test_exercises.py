"""Every exercise is fed right, wrong, foreign, malformed and unattempted answers."""

from __future__ import annotations

import itertools
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest

from servinglab import engines, progress
from servinglab.bench import Record
from servinglab.exercises import EXERCISES, exercise
from servinglab.exercises.core import CheckFailed, Exercise, Outcome
from servinglab.models import gguf_file, gguf_path, memory, tools


@pytest.fixture(scope="module")
def server():
    with engines.start() as running:
        yield running


def kept(reused: int, read: int, pace: float, wait: float) -> Record:
    """A request due at 10 s: 24 tokens, one every `pace` seconds, the first after `wait`; as `llama-server` tells of it."""
    times = [10 + wait + i * pace for i in range(24)]
    timings = {"cache_n": reused, "prompt_n": read, "prompt_ms": 41.5, "prompt_per_token_ms": 5.9, "predicted_n": 24, "predicted_ms": 73.2}
    usage = {"prompt_tokens": reused + read, "completion_tokens": 24}
    return Record(due=10.0, t0=10.0, times=times, texts=["토큰"] * 24, usage=usage, timings=timings)


def evidence_of_lesson_01() -> dict[str, tuple[object, ...]]:
    one, four = [kept(0, 7, 0.05, 1.5 * i) for i in range(8)], [kept(0, 7, 0.09, 3.0 * (i // 4)) for i in range(8)]
    return {
        "01-1": (),
        "01-2": (kept(0, 7, 0.003, 0.04),),
        "01-3": (4.1, 0.066, 150),
        "01-4": (kept(298, 5, 0.05, 0.1),),
        "01-5": (memory.shapes()["speed"], 3072),
        "01-6": (one, four),
        "01-7": (),
        "01-8": (320.0, 2.26),
        "01-9": (),
    }


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """The tutor as a Q4_K_M file: three types of tensors in it."""
    out = tmp_path_factory.mktemp("섞인 파일") / "tutor.gguf"
    tools.quantize(gguf_path("tutor"), out, "Q4_K_M")
    return gguf_file.read(out)


def evidence_of_lesson_02(mixed) -> dict[str, tuple[object, ...]]:
    block = np.linspace(-0.1, 0.1, 32, dtype=np.float32)
    block[-1] = -0.83
    return {
        "02-1": (next(tensor for tensor in mixed.tensors if len(tensor.shape) == 2),),
        "02-2": (),
        "02-3": (),
        "02-4": (block,),
        "02-5": (),
        "02-6": (mixed,),
        "02-7": (),
        "02-8": (17.3e9, 2.41e9),
        "02-9": ("qwen3-4b", 4096, ["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"]),
    }


def make_all(server, mixed) -> dict[str, Exercise]:
    record = Record(due=0.0, t0=10.0, times=[10.0213, 10.0245, 10.0291, 10.0332], texts=["가", "나", "다", "라"])
    usage = SimpleNamespace(prompt_tokens=9, completion_tokens=31, total_tokens=40)
    message = SimpleNamespace(content="글자 수가 토큰 수와 다르도록 넉넉하게 적은 답입니다. 이만하면 되겠지요.")
    response = SimpleNamespace(usage=usage, choices=[SimpleNamespace(message=message)])
    evidence = {"00-1": (321,), "00-2": (), "00-3": (server,), "00-4": (404,), "00-5": (response,), "00-7": (record,)}
    evidence |= evidence_of_lesson_01() | evidence_of_lesson_02(mixed)
    return {name: exercise(name, *evidence.get(name, (server,))) for name in EXERCISES}


@pytest.fixture(scope="module")
def exercises(server, mixed):
    return make_all(server, mixed)


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


@pytest.mark.parametrize(("lesson", "least"), [("00", 5), ("01", 6), ("02", 8)])
def test_at_least_half_depend_on_the_run(lesson, least):
    kinds = [kind for kind in EXERCISES.values() if kind.id.startswith(lesson)]
    assert sum(kind.live for kind in kinds) * 2 >= len(kinds) >= least


def test_live_answers_follow_the_evidence(server):
    """No literal passes: other evidence, other right answer."""
    assert exercise("00-1", 100).right() != exercise("00-1", 101).right()
    assert exercise("00-4", 401).right() != exercise("00-4", 404).right()
    with engines.start() as second:
        assert exercise("00-3", second).right() != exercise("00-3", server).right()
    assert exercise("01-2", kept(0, 7, 0.1, 0.1)).right() == 41.5
    assert exercise("01-3", 2.0, 0.1, 11).right() == pytest.approx(3.0)
    assert exercise("01-4", kept(12, 5, 0.1, 0.1)).right() == 12
    assert exercise("01-5", memory.shapes()["speed"], 1024).right() == 40, "what llama-server logs for 1024 cells"
    assert exercise("01-6", [kept(0, 7, 0.2, 0.1)], [kept(0, 7, 0.1, 0.05)]).right() == pytest.approx(2.0)
    assert exercise("01-8", 300.0, 3.0).right() == 100


def test_live_answers_of_lesson_02_follow_the_evidence(mixed):
    one, other = mixed.tensors[0], next(tensor for tensor in mixed.tensors if tensor.size != mixed.tensors[0].size)
    assert exercise("02-1", one).right() != exercise("02-1", other).right()
    assert exercise("02-4", np.array([0.1] * 31 + [-0.8])).right() == pytest.approx(0.1)
    assert exercise("02-8", 300.0, 3.0).right() == 100
    kinds = ["F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K"]
    found = {exercise("02-9", name, 4096, kinds).right() for name in ("llama-3.2-1b", "qwen3-1.7b", "qwen3-4b", "gemma-3-4b")}
    assert len(found) >= 3, "no one type is right for all"


def test_average_bits_of_a_mix_by_another_way(mixed):
    """From the bytes of the tensors, which the exercise does not look at."""
    weights = sum(tensor.weights for tensor in mixed.tensors)
    assert exercise("02-6", mixed).right() == pytest.approx(sum(tensor.size for tensor in mixed.tensors) * 8 / weights)


def test_functions_are_judged_by_what_they_return_each_time_anew():
    def gaps(data):
        return ...

    assert exercise("02-2").grade(gaps).outcome is Outcome.NOT_ATTEMPTED
    assert exercise("02-2").grade(lambda data: 1 / 0).outcome is Outcome.ERROR
    entry = exercise("02-2")
    kept = {bytes(data): entry.right()(data) for data in entry.examples}
    assert entry.grade(lambda data: kept.get(data, (3, 0, 0))).outcome is Outcome.WRONG, "answers learnt by heart are of no use"
    assert exercise("02-5").grade(lambda block: np.zeros(32)).outcome is Outcome.WRONG
    assert exercise("02-5").grade(lambda block: list(exercise("02-5").right()(block))).outcome is Outcome.RIGHT


def test_order_of_steps_may_be_written_with_arrows_and_capitals():
    assert exercise("01-1").grade("B -> D -> A -> E -> C").outcome is Outcome.RIGHT
    assert "한 번씩" in exercise("01-1").grade("bdaee").text
    assert "차례가 다릅니다" in exercise("01-1").grade("edcba").text


def test_conversation_is_really_sent(server):
    turns = [{"role": "system", "content": "쉽게 설명해 주세요."}, {"role": "user", "content": "토큰이 뭐예요?"}]
    verdict = exercise("00-6", server).grade(turns)
    assert verdict.outcome is Outcome.RIGHT and re.match(r"서버의 답: \S.*[다요]\.", verdict.text), "what it answered is shown"
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


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Progress of its own."""
    monkeypatch.setenv("SERVINGLAB_HOME", str(tmp_path / "기록"))
    monkeypatch.delenv("CI", raising=False)


def test_answers_are_kept_right_and_wrong(exercises, home):
    for answer in ("a", "c"):
        exercises["00-2"].check(answer)
    exercises["00-4"].check(404)
    assert progress.first_attempts("00", "exercise") == {"00-2": False, "00-4": True}
    assert [attempt.right for attempt in progress.attempts()] == [False, True, True]


def test_no_attempt_is_counted_for_a_gap_a_slip_of_form_or_a_check_that_failed(exercises, home):
    exercises["00-2"].check(...)
    exercises["00-2"].check(None)
    exercises["00-4"].check("404")
    with engines.start() as gone:
        pass
    entry = exercise("00-6", gone)
    entry.check(entry.right())
    assert progress.attempts() == []


def test_looking_at_hints_and_grading_keeps_nothing(exercises, home):
    exercises["00-2"].hint()
    exercises["00-2"].grade("c")
    assert progress.attempts() == []


def test_what_cannot_be_kept_is_said_below_the_verdict(exercises, home, tmp_path, capsys, monkeypatch):
    """The folder cannot be made, then the file is damaged: the verdict is shown all the same."""
    (tmp_path / "파일").touch()
    monkeypatch.setenv("SERVINGLAB_HOME", str(tmp_path / "파일" / "기록"))
    exercises["00-2"].check("c")
    shown = capsys.readouterr().out
    assert "맞았습니다" in shown and "저장하지 못했습니다" in shown and "SERVINGLAB_HOME" in shown
    monkeypatch.setenv("SERVINGLAB_HOME", str(tmp_path))
    (tmp_path / "progress.sqlite3").write_bytes(b"junk" * 1000)
    exercises["00-2"].check("a")
    shown = capsys.readouterr().out
    assert "아직 아닙니다" in shown and "progress.damaged-" in shown
    exercises["00-2"].check("a")
    assert "progress" not in capsys.readouterr().out
    assert progress.first_attempts("00", "exercise") == {"00-2": True}, "the one that waited came first"


def test_hints_come_one_by_one(exercises, capsys):
    entry = exercises["00-3"]
    entry.hint()
    entry.hint()
    shown = capsys.readouterr().out
    assert all(hint in shown for hint in entry.hints)
    entry.solution()
    assert str(entry.right()) in capsys.readouterr().out
