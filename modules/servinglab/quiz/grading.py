"""Whether an answer is right, and what is said about it. Knows neither widgets nor files."""

from __future__ import annotations

import math
import numbers
import re
import unicodedata
from dataclasses import dataclass

from servinglab.quiz.schema import Matching, Multiple, Number, Ordering, Pair, Question, Single, close

LETTERS = "abcdefgh"
"""The names of options, of an ordering's items and of a matching's right sides, in the order in which they are shown."""

Given = int | float | frozenset[int] | tuple[int, ...]
"""An answer. Single: the option's place. Multiple: the places. Number: the value. Ordering: places in `items`, in the
learner's order. Matching: for each left side the place of the pair whose right side was chosen."""


class Unreadable(Exception):
    """The answer cannot be judged and does not count as an attempt; the text tells the learner what is missing."""


@dataclass(frozen=True)
class Judgement:
    """The outcome, what is said of the answer given, and what is said of the other options once the question is solved."""

    right: bool
    text: str
    others: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return "맞았습니다" if self.right else "아직 아닙니다"


def grade(question: Question, given: Given) -> Judgement:
    """Judge an answer that `Given` describes for this kind of question. Raises TypeError for any other."""
    match question, given:
        case Single(), int():
            return _single(question, given)
        case Multiple(), frozenset():
            return _multiple(question, given)
        case Number(), int() | float():
            return _number(question, given)
        case Ordering(), tuple():
            return _ordering(question, given)
        case Matching(), tuple():
            return _matching(question, given)
    raise TypeError(f"no answer to a question of kind {question.kind}: {given!r}")


def named(question: Single | Multiple, place: int) -> str:
    return f"{LETTERS[place]}. {question.options[place].text}"


def _single(question: Single, given: int) -> Judgement:
    chosen = question.options[given]
    others = [i for i in range(len(question.options)) if i != given]
    return Judgement(chosen.right, chosen.why, _explained(question, others) if chosen.right else ())


def _multiple(question: Multiple, given: frozenset[int]) -> Judgement:
    right = {i for i, option in enumerate(question.options) if option.right}
    if given == right:
        others = [i for i in range(len(question.options)) if i not in given]
        return Judgement(True, "\n".join(_explained(question, sorted(given))), _explained(question, others))
    lines = list(_explained(question, sorted(given - right)))
    if right - given:
        lines.append("맞는 보기 가운데 아직 고르지 않은 것이 있습니다.")
    return Judgement(False, "\n".join(lines))


def _explained(question: Single | Multiple, places: list[int]) -> tuple[str, ...]:
    return tuple(f"{named(question, i)} — {question.options[i].why}" for i in places)


def _number(question: Number, given: float) -> Judgement:
    if close(given, question.value, question.tolerance):
        others = tuple(f"{figure(wrong.value)} {question.unit} — {wrong.why}" for wrong in question.wrong)
        return Judgement(True, question.why, others)
    for wrong in question.wrong:
        if close(given, wrong.value, min(question.tolerance, 0.01)):
            return Judgement(False, wrong.why)
    side = "큽니다" if given > question.value else "작습니다"
    return Judgement(False, f"적은 값은 {figure(given)} {question.unit}인데, 맞는 값보다 {side}. 빠뜨린 단계나 두 번 셈한 단계가 없는지 살펴보세요.")


def figure(value: float) -> str:
    return f"{value:,.10g}"


def _ordering(question: Ordering, given: tuple[int, ...]) -> Judgement:
    right = tuple(range(len(question.items)))
    if given == right:
        others = tuple(f"{_arrows(question, wrong.order)} — {wrong.why}" for wrong in question.wrong)
        return Judgement(True, question.why, others)
    for wrong in question.wrong:
        if given == tuple(wrong.order):
            return Judgement(False, wrong.why)
    good = next(i for i in right if given[i] != i)
    place = "맨 앞부터" if good == 0 else f"앞의 {good}개는 맞았고, 그다음부터"
    return Judgement(False, f"{place} 차례가 어긋났습니다. ‘{question.items[given[good]]}’보다 앞에 와야 할 것이 있습니다.")


def _arrows(question: Ordering, order: list[int]) -> str:
    return " → ".join(question.items[i] for i in order)


def _matching(question: Matching, given: tuple[int, ...]) -> Judgement:
    wrong = [(pair.left, question.pairs[i]) for pair, i in zip(question.pairs, given, strict=True) if question.pairs[i] != pair]
    if not wrong:
        return Judgement(True, "\n".join(f"{pair.left} — {pair.right}. {pair.why}" for pair in question.pairs))
    right = len(question.pairs) - len(wrong)
    lines = [f"{len(question.pairs)}개 가운데 {right}개가 제 짝입니다."]
    chosen: dict[Pair, list[str]] = {}
    for left, other in wrong:
        chosen.setdefault(other, []).append(f"‘{left}’")
    lines += [f"{', '.join(lefts)}의 짝으로 고른 것은 ‘{other.right}’입니다. {other.why}" for other, lefts in chosen.items()]
    return Judgement(False, "\n".join(lines))


NUMBER = re.compile(r"([+-]?(?:[1-9]\d{0,2}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][+-]?\d+)?)\s*(.*)")


def read_number(answer: object, unit: str) -> float:
    """A number as a person types it: 1024, "1,024", "12 MiB". Raises Unreadable where it could be read in two ways."""
    if isinstance(answer, str):
        return _read_typed(unicodedata.normalize("NFKC", answer).replace("−", "-").strip(), unit)
    if isinstance(answer, tuple):
        raise Unreadable("수 하나만 적어 주세요. 따옴표 없이 1,024처럼 적으면 수 두 개로 읽힙니다.")
    if isinstance(answer, bool) or not isinstance(answer, numbers.Real):
        raise Unreadable(f"수 하나를 적어 주세요(단위: {unit}). 지금은 {type(answer).__name__} 꼴입니다.")
    if not math.isfinite(answer):
        raise Unreadable("셀 수 있는 수가 아닙니다. 수 하나를 적어 주세요.")
    return float(answer)


def _read_typed(text: str, unit: str) -> float:
    if not text:
        raise Unreadable(f"아직 적지 않았습니다. 수를 적은 뒤 확인하세요(단위: {unit}).")
    found = NUMBER.fullmatch(text)
    if found is None:
        raise Unreadable(f"수로 읽을 수 없습니다: {text}. 숫자로 시작하게 적어 주세요. 예: 12.5 {unit}")
    digits, rest = found.groups()
    if "," in text and rest[:1] in ",0123456789" and rest:
        raise Unreadable(
            f"쉼표가 무슨 뜻인지 분명하지 않습니다: {text}. 소수점이라면 12.5처럼 점을 찍고, 천 단위라면 1,024처럼 세 자리마다 넣어 주세요."
        )
    if rest[:1].isdigit() or rest.startswith("."):
        raise Unreadable(f"수가 하나로 읽히지 않습니다: {text}. 수 하나를 빈칸 없이 붙여 적어 주세요.")
    if re.match(r"[*/+×÷x-]\s*\d", rest):
        raise Unreadable("여기서는 식을 계산하지 않습니다. 빈 셀에서 계산한 다음, 나온 수만 적어 주세요.")
    if rest and _plain(rest) != _plain(unit):
        raise Unreadable(f"단위가 다릅니다: {rest}. 이 문제는 {unit} 단위로 묻습니다. 고쳐서 다시 적어 주세요.")
    value = float(digits.replace(",", ""))
    if not math.isfinite(value):
        raise Unreadable(f"너무 큰 수입니다: {text}.")
    return value


def _plain(unit: str) -> str:
    return re.sub(r"\s", "", unicodedata.normalize("NFKC", unit)).casefold()
