"""The questions of a lesson as `data/quizzes/<lesson>.yaml` holds them. What does not fit is named by file, line and field."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from servinglab import curriculum
from servinglab.errors import SettingError
from servinglab.paths import DATA

QUIZZES = DATA / "quizzes"
KINDS = ("single", "multiple", "number", "ordering", "matching")

Line = Annotated[str, Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
LessonNumber = Annotated[str, Field(pattern=r"^\d\d$")]
Place = tuple[str | int, ...]
"""Where in a file a value stands, as ("questions", 0, "options", 2, "why")."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, frozen=True)


class _Question(_Strict):
    id: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    text: Line
    reread: LessonNumber
    """Number of the lesson's section that answers the question."""


class Option(_Strict):
    """One of several choices; `why` says why it is right, or what it really is."""

    text: Line
    why: Line
    right: bool = False


class Single(_Question):
    """Exactly one option is right."""

    kind: Literal["single"]
    options: Annotated[list[Option], Field(min_length=3, max_length=8)]


class Multiple(_Question):
    """One or more options are right, and all of them are to be chosen."""

    kind: Literal["multiple"]
    options: Annotated[list[Option], Field(min_length=3, max_length=8)]


class WrongValue(_Strict):
    """A plausible wrong number and the slip that leads to it."""

    value: Finite
    why: Line


class Number(_Question):
    """A number with its unit. `tolerance`: how far off, as a share of the value, still counts as right."""

    kind: Literal["number"]
    unit: Line
    value: Finite
    tolerance: Annotated[float, Field(ge=0, lt=1)]
    why: Line
    wrong: Annotated[list[WrongValue], Field(min_length=1)]


class WrongOrder(_Strict):
    """A typical wrong order, as places in `items`, and why it cannot be."""

    order: list[int]
    why: Line


class Ordering(_Question):
    """`items` stand in the right order; the learner sees them shuffled."""

    kind: Literal["ordering"]
    items: Annotated[list[Line], Field(min_length=3, max_length=8)]
    why: Line
    wrong: list[WrongOrder] = []


class Pair(_Strict):
    """What belongs together; `why` says why these two do."""

    left: Line
    right: Line
    why: Line


class Matching(_Question):
    """Each left side has one right side, which no other has."""

    kind: Literal["matching"]
    pairs: Annotated[list[Pair], Field(min_length=3, max_length=8)]


Question = Single | Multiple | Number | Ordering | Matching


class Quiz(_Strict):
    """A lesson's questions in the order in which they are asked."""

    lesson: LessonNumber
    questions: Annotated[list[Annotated[Question, Field(discriminator="kind")]], Field(min_length=1)]


def available() -> list[str]:
    """The lessons that have a quiz."""
    return sorted(path.stem for path in QUIZZES.glob("[0-9][0-9].yaml"))


def load(lesson: str) -> Quiz:
    """The quiz of lesson "01". Raises SettingError: no such quiz, or the file, line and field that do not fit."""
    if lesson not in available():
        known = ", ".join(available()) or "없음"
        raise SettingError(
            f"{lesson!r} 레슨의 퀴즈가 없습니다.", "번호가 틀렸거나 아직 만들지 않은 퀴즈입니다.",
            f'두 자리 번호를 따옴표로 감싸 적으세요. 있는 퀴즈: {known}',
        )
    path = QUIZZES / f"{lesson}.yaml"
    raw = curriculum.read(path)
    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    for place in _repeated(root):
        raise _unfit(path, root, place, "같은 이름이 두 번 나옵니다. 항목을 나누는 - 를 빠뜨렸을 수 있습니다.")
    try:
        quiz = Quiz.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        raise _unfit(path, root, first["loc"], _reason(first["type"], first["msg"], first.get("ctx", {}))) from error
    for place, why in _flaws(quiz, lesson):
        raise _unfit(path, root, place, why)
    return quiz


WHY = {
    **curriculum.WHY,
    "dict_type": "이름: 값 꼴의 줄을 모은 것이어야 합니다.",
    "finite_number": "셀 수 있는 수여야 합니다.",
    "less_than": "1보다 작아야 합니다. 정답의 5 %까지 맞다고 하려면 0.05로 적습니다.",
    "model_attributes_type": "이름: 값 꼴의 줄을 모은 것이어야 합니다.",
    "string_pattern_mismatch": "정해진 꼴이 아닙니다. lesson과 reread는 \"01\" 같은 두 자리 번호, id는 영어 소문자와 숫자와 - 로 적습니다.",
    "string_too_short": "비어 있습니다.",
    "too_long": "너무 많습니다. 여덟 개까지 적을 수 있습니다.",
    "union_tag_invalid": "kind는 single, multiple, number, ordering, matching 가운데 하나여야 합니다.",
    "union_tag_not_found": "kind가 없습니다. single, multiple, number, ordering, matching 가운데 하나를 적으세요.",
}
"""What pydantic's types of error mean for a person who writes questions."""


def _reason(kind: str, message: str, context: dict[str, Any]) -> str:
    if kind == "too_short":
        return f"너무 적습니다. 적어도 {context['min_length']}개가 있어야 합니다."
    return WHY.get(kind, message)


def _unfit(path: Path, root: yaml.Node | None, place: Place, why: str) -> SettingError:
    line, field = _line(root, place)
    return SettingError(
        f"{path.name} 파일 {line}번째 줄의 {field or '맨 위'} 값이 맞지 않습니다.", why, "그 줄을 고치고 저장한 뒤 다시 실행하세요."
    )


def _line(node: yaml.Node | None, place: Place) -> tuple[int, str]:
    """Line (from 1) and dotted name of a place. Of what is missing, the line of that in which it is missing."""
    line, names = 1, []
    for part in place:
        if isinstance(node, yaml.MappingNode):
            keys = {key.value: (key, value) for key, value in node.value}
            if part not in keys:
                if part in KINDS:  # pydantic puts the question's kind into the place; the file has no such level
                    continue
                names.append(str(part))
                break
            key, node = keys[part]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        names.append(str(part))
    return line, ".".join(names)


def _repeated(node: yaml.Node | None, place: Place = ()) -> Iterator[Place]:
    """Names that occur twice in one mapping: YAML keeps the last and forgets the others without a word."""
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value]
        for key, value in node.value:
            if names.count(key.value) > 1:
                yield (*place, key.value)
            yield from _repeated(value, (*place, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for i, value in enumerate(node.value):
            yield from _repeated(value, (*place, i))


def _flaws(quiz: Quiz, lesson: str) -> Iterator[tuple[Place, str]]:
    """What is wrong although every value has the right type."""
    if quiz.lesson != lesson:
        yield ("lesson",), f"파일 이름에는 {lesson} 레슨이라고 되어 있습니다."
    for i in _doubles([question.id for question in quiz.questions]):
        yield ("questions", i, "id"), "다른 문제가 이미 쓰는 id입니다."
    for i, question in enumerate(quiz.questions):
        for place, why in _question_flaws(question):
            yield ("questions", i, *place), why
        for place in _doubled_whys(question):
            yield ("questions", i, *place), "같은 문제의 다른 설명과 똑같습니다. 설명은 하나하나 달라야 합니다."


def _question_flaws(question: Question) -> Iterator[tuple[Place, str]]:
    if isinstance(question, Single | Multiple):
        count = sum(option.right for option in question.options)
        if count == 0:
            yield ("options",), "맞는 보기가 없습니다. 맞는 보기에 right: true를 적으세요."
        elif count == len(question.options):
            yield ("options",), "틀린 보기가 없습니다."
        elif count > 1 and isinstance(question, Single):
            yield ("options",), "맞는 보기가 여럿입니다. 하나만 두거나 kind를 multiple로 바꾸세요."
        for i in _doubles([option.text for option in question.options]):
            yield ("options", i, "text"), "다른 보기와 글이 같습니다."
    elif isinstance(question, Number):
        for i, wrong in enumerate(question.wrong):
            if close(wrong.value, question.value, question.tolerance):
                yield ("wrong", i, "value"), "맞는 값의 허용 범위 안에 있습니다."
    elif isinstance(question, Ordering):
        for i in _doubles(question.items):
            yield ("items", i), "다른 항목과 글이 같습니다."
        right = list(range(len(question.items)))
        for i, entry in enumerate(question.wrong):
            if sorted(entry.order) != right or entry.order == right:
                yield ("wrong", i, "order"), f"0부터 {right[-1]}까지를 한 번씩, 맞는 차례와 다르게 적어야 합니다."
    else:
        for side in ("left", "right"):
            for i in _doubles([getattr(pair, side) for pair in question.pairs]):
                yield ("pairs", i, side), "다른 짝과 글이 같습니다."


def _doubled_whys(question: Question) -> Iterator[Place]:
    places = list(whys(question))
    for i in _doubles([text for _, text in places]):
        yield places[i][0]


def whys(question: Question) -> Iterator[tuple[Place, str]]:
    """Every explanation of a question with its place."""
    if isinstance(question, Single | Multiple):
        yield from ((("options", i, "why"), option.why) for i, option in enumerate(question.options))
    elif isinstance(question, Matching):
        yield from ((("pairs", i, "why"), pair.why) for i, pair in enumerate(question.pairs))
    else:
        yield ("why",), question.why
        wrongs: Sequence[WrongValue | WrongOrder] = question.wrong
        yield from ((("wrong", i, "why"), wrong.why) for i, wrong in enumerate(wrongs))


def _doubles(texts: Sequence[str]) -> list[int]:
    """Places of texts that occurred before, whatever their spacing."""
    plain = [re.sub(r"\s", "", text).casefold() for text in texts]
    return [i for i, text in enumerate(plain) if text in plain[:i]]


def close(value: float, other: float, tolerance: float) -> bool:
    """Whether `value` is `other` within a share of `other`."""
    return abs(value - other) <= tolerance * abs(other) + 1e-9 * max(1.0, abs(other))


def shuffled(question: Ordering | Matching) -> list[int]:
    """The order in which items, or right sides, are shown: the same at every run, never the right one."""
    places = list(range(len(question.items if isinstance(question, Ordering) else question.pairs)))
    mixed = places.copy()
    random.Random(question.id).shuffle(mixed)
    return mixed if mixed != places else [*mixed[1:], mixed[0]]
