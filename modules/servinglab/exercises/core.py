"""How an exercise behaves: `check`, `hint`, `solution`, and four outcomes.

An exercise is given the evidence of the live run (a server, an answer, a record) when it is made, and computes what is right
when it is checked. A wrong answer is told what it is likely to be, never what would be right.
"""

from __future__ import annotations

import html
import math
import numbers
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from IPython.display import display

from servinglab import progress
from servinglab.errors import ProgressError, ServingLabError, in_ci


class Outcome(Enum):
    """What came of a check; the value is the word that the learner sees."""

    RIGHT = "맞았습니다"
    WRONG = "아직 아닙니다"
    ERROR = "채점하지 못했습니다"
    NOT_ATTEMPTED = "아직 풀지 않았습니다"


@dataclass(frozen=True)
class Verdict:
    """An outcome and what to say about it. `counts` says whether it is an attempt: a slip of form is none."""

    outcome: Outcome
    text: str
    counts: bool = False


@dataclass(frozen=True)
class Mistake:
    """A plausible wrong answer: how to recognise it, what to say of it, and one example for the tests."""

    example: object
    feedback: str
    matches: Callable[[Any], bool] | None = None


class CheckFailed(ServingLabError):
    """In CI a check that says wrong must turn its cell red."""


class Note:
    """A framed message: words and a frame, so that colour alone carries nothing."""

    def __init__(self, title: str, text: str) -> None:
        self.title, self.text = title, text

    def __repr__(self) -> str:
        return f"[{self.title}] {self.text}"

    def _repr_html_(self) -> str:
        body = html.escape(self.text).replace("\n", "<br>")
        return (
            '<div role="alert" style="border:1px solid currentColor;border-left-width:6px;border-radius:4px;'
            f'padding:8px 12px;margin:4px 0;max-width:46em"><b>{html.escape(self.title)}</b><br>{body}</div>'
        )


class Exercise(ABC):
    """One exercise. Subclasses say what is right, which mistakes are plausible, and how it is solved."""

    id: ClassVar[str]
    title: ClassVar[str]
    hints: ClassVar[tuple[str, ...]]
    live: ClassVar[bool]
    """Whether the right answer differs from run to run."""

    def __init__(self) -> None:
        self.hints_shown = 0

    @abstractmethod
    def right(self) -> object:
        """The right answer, computed from the evidence now."""

    @abstractmethod
    def mistakes(self) -> list[Mistake]:
        """At least three plausible wrong answers, each with feedback of its own."""

    @abstractmethod
    def praise(self) -> str:
        """What a right answer has shown."""

    @abstractmethod
    def how(self) -> str:
        """The way to the answer, for `solution()`."""

    @abstractmethod
    def read(self, answer: object) -> object:
        """The answer in the form that is compared. Raises WrongType, saying what was expected."""

    def same(self, answer: Any, other: Any) -> bool:
        return bool(answer == other)

    def attempted(self, answer: object) -> bool:
        """A cell as shipped holds `...`."""
        return answer is not ...

    def grade(self, answer: object) -> Verdict:
        """Judge an answer without showing anything."""
        if not self.attempted(answer):
            return Verdict(Outcome.NOT_ATTEMPTED, "점 세 개(...)를 지우고 그 자리에 답을 적은 뒤 셀을 다시 실행하세요.")
        try:
            given = self.read(answer)
            if self.same(given, self.right()):
                return Verdict(Outcome.RIGHT, self.praise(), counts=True)
            for mistake in self.mistakes():
                if mistake.matches(given) if mistake.matches else self.same(given, mistake.example):
                    return Verdict(Outcome.WRONG, mistake.feedback, counts=True)
        except WrongType as error:
            return Verdict(Outcome.WRONG, str(error))
        except Exception as error:  # whatever a learner's answer provokes is shown, never a traceback
            return Verdict(Outcome.ERROR, f"답을 살펴보다가 오류가 났습니다: {type(error).__name__}: {error}")
        return Verdict(Outcome.WRONG, self.otherwise(answer), counts=True)

    def otherwise(self, answer: object) -> str:
        """What to say of a wrong answer that is no known mistake."""
        real = isinstance(answer, numbers.Real) and not isinstance(answer, numbers.Integral)  # NumPy's floats too
        shown = f"{answer:.6g}" if real else repr(answer)
        return (
            f"적은 답은 {shown}인데 맞지 않습니다. 막히면 새 셀에 q{self.id[3:]}.hint()를 적고 실행하세요. "
            "위 셀을 다시 실행했다면 이 연습 셀도 다시 실행해 보세요."
        )

    def check(self, answer: object) -> None:
        """Judge an answer, keep the attempt and show the outcome. In CI a wrong answer raises CheckFailed."""
        verdict = self.grade(answer)
        text = f"{verdict.text}\n{self.keep(verdict)}".rstrip()
        display(Note(f"연습 {self.id} · {verdict.outcome.value}", text))  # type: ignore[no-untyped-call]
        if in_ci() and verdict.outcome in (Outcome.WRONG, Outcome.ERROR):
            raise CheckFailed(f"연습 {self.id}: {verdict.outcome.value}", verdict.text)

    def keep(self, verdict: Verdict) -> str:
        """Record an attempt. Returns what the learner must be told about the recording, "" if nothing."""
        if not verdict.counts:
            return ""
        try:
            return progress.record(self.id[:2], "exercise", self.id, verdict.outcome is Outcome.RIGHT)
        except ProgressError as error:  # the answer has been judged; the lesson goes on
            return str(error)

    def hint(self) -> None:
        """Show the next hint; the last one again when there are no more."""
        number = min(self.hints_shown, len(self.hints) - 1)
        self.hints_shown += 1
        title = f"연습 {self.id} · 힌트 {number + 1} / {len(self.hints)}"
        last = number == len(self.hints) - 1
        more = f"\n마지막 힌트입니다. 풀이를 보려면 q{self.id[3:]}.solution()을 실행하세요." if last else ""
        display(Note(title, self.hints[number] + more))  # type: ignore[no-untyped-call]

    def solution(self) -> None:
        """Show the way and, last, the right answer of this run."""
        right = self.right()
        shown = f"약 {right:.4g}" if isinstance(right, float) else right
        display(Note(f"연습 {self.id} · 풀이", f"{self.how()}\n답: {shown}"))  # type: ignore[no-untyped-call]


class WrongType(Exception):
    """The answer has a form that cannot be judged; the text tells the learner which form is meant."""


class Choice(Exercise):
    """One of several letters."""

    options: ClassVar[dict[str, str]]
    """What to say of each wrong letter."""
    letter: ClassVar[str]
    live = False

    def right(self) -> str:
        return self.letter

    def mistakes(self) -> list[Mistake]:
        return [Mistake(letter, feedback) for letter, feedback in self.options.items() if letter != self.letter]

    def read(self, answer: object) -> str:
        letters = ", ".join(f'"{letter}"' for letter in self.options)
        if not isinstance(answer, str):
            raise WrongType(f"보기의 글자 하나를 따옴표로 감싸 적어 주세요: {letters} 가운데 하나.")
        given = answer.strip().lower()
        if given not in self.options:
            raise WrongType(f"보기에 없는 답입니다: {answer!r}. {letters} 가운데 하나를 적어 주세요.")
        return given


class Number(Exercise):
    """A number read off or computed."""

    unit: ClassVar[str]
    tolerance: ClassVar[float] = 0.0
    """How far off, as a share of the right value, still counts as right."""

    def read(self, answer: object) -> float:
        if isinstance(answer, str):
            raise WrongType(f"따옴표를 빼고 수만 적어 주세요. 따옴표로 감싸면 수가 아니라 글자가 됩니다: {answer!r}")
        if isinstance(answer, tuple):
            raise WrongType("수 하나만 적어 주세요. 1,137처럼 쉼표를 넣거나 함수가 값을 여럿 돌려주면 수 두 개로 읽힙니다.")
        if isinstance(answer, bool) or not isinstance(answer, numbers.Real):
            raise WrongType(f"수 하나를 적어 주세요(단위: {self.unit}). 지금은 {type(answer).__name__} 꼴입니다.")
        value = float(answer)
        if not math.isfinite(value):
            raise WrongType(f"셀 수 있는 수가 아닙니다: {answer!r}. 위 셀이 찍은 수를 적어 주세요.")
        return value

    def same(self, answer: Any, other: Any) -> bool:
        return math.isclose(answer, other, rel_tol=self.tolerance, abs_tol=1e-9)
