"""A quiz without widgets: printed, and answered with `quiz.answer("01", 3, "b")`."""

from __future__ import annotations

import re
import textwrap

from servinglab.quiz.grading import LETTERS, Given, Judgement, Unreadable, named, read_number
from servinglab.quiz.schema import Matching, Multiple, Number, Ordering, Question, Single, shuffled
from servinglab.quiz.session import KINDS, Session, sections

WIDTH = 48
"""Letters a line; one of Hangul is as wide as two."""


def opening(session: Session) -> str:
    """What is said before the first question."""
    kept = "연습으로 보여 주는 퀴즈라서 답을 기록하지 않습니다." if session.practice else "이미 답한 것은 그대로 남아 있습니다."
    return (
        "틀려도 괜찮습니다. 틀린 답을 고르면 왜 아닌지 설명이 나오고, 맞힐 때까지 다시 답할 수 있습니다. "
        f"점수는 첫 시도만 셉니다. {kept}"
    )


def questions(session: Session) -> str:
    """All questions with how to answer them."""
    parts = [question_text(session, question) for question in session.quiz.questions]
    return "\n\n".join([*parts, *([session.told] if session.told else []), session.score()])


def question_text(session: Session, question: Question) -> str:
    number = session.quiz.questions.index(question) + 1
    head = f"{session.place(question)} · {KINDS[question.kind]} · {session.state(question)}"
    how = f'답하기: quiz.answer("{session.quiz.lesson}", {number}, {example(question)})'
    return "\n".join([head, *wrapped(question.text), *choices(question), how])


def choices(question: Question) -> list[str]:
    match question:
        case Single() | Multiple():
            rows = [named(question, i) for i in range(len(question.options))]
        case Number():
            rows = [f"단위: {question.unit}"]
        case Ordering():
            rows = [f"{LETTERS[row]}. {question.items[i]}" for row, i in enumerate(shuffled(question))]
        case Matching():
            rows = [f"{row + 1}. {pair.left}" for row, pair in enumerate(question.pairs)]
            rows += [f"{LETTERS[row]}. {question.pairs[i].right}" for row, i in enumerate(shuffled(question))]
    return [line for row in rows for line in wrapped(row, "  ")]


def example(question: Question) -> str:
    """An answer of the right form. It is the same for every question of a kind, so that it gives nothing away."""
    match question:
        case Single():
            return '"a"'
        case Multiple():
            return '"a, b"'
        case Number():
            return f'"100 {question.unit}"'
        case Ordering():
            return '"' + ", ".join(LETTERS[: len(question.items)]) + '"'
        case Matching():
            return '"' + ", ".join(LETTERS[: len(question.pairs)]) + '"'


def read(question: Question, answer: object) -> Given:
    """What the learner gave to `quiz.answer`. Raises Unreadable, saying which form is meant."""
    if isinstance(question, Number):
        return read_number(answer, question.unit)
    if isinstance(question, Single | Multiple):
        places = _letters(answer, len(question.options), question)
        if isinstance(question, Multiple):
            return frozenset(places)
        if len(places) != 1:
            raise Unreadable(f"하나만 고르는 문제입니다. 글자 하나를 적어 주세요. 예: {example(question)}")
        return places[0]
    mixed = shuffled(question)
    places = _letters(answer, len(mixed), question)
    if len(places) != len(mixed):
        raise Unreadable(f"글자 {len(mixed)}개를 한 번씩 모두 적어 주세요. 예: {example(question)}")
    return tuple(mixed[place] for place in places)


def _letters(answer: object, count: int, question: Question) -> list[int]:
    """Places of letters: "b", "a, c", "ac", ["a", "c"]."""
    letters = LETTERS[:count]
    if isinstance(answer, str):
        given = list(re.sub(r"[\s,]", "", answer).lower())
    elif isinstance(answer, list | tuple | set | frozenset) and all(isinstance(part, str) for part in answer):
        given = [part.strip().lower() for part in answer]
    else:
        raise Unreadable(f"보기의 글자를 따옴표로 감싸 적어 주세요. 예: {example(question)}")
    if not given:
        raise Unreadable(f"답이 비어 있습니다. 보기의 글자를 적어 주세요. 예: {example(question)}")
    for letter in given:
        if letter not in list(letters):
            raise Unreadable(f"보기에 없는 글자입니다: {letter}. {', '.join(letters)} 가운데에서 적어 주세요.")
    if len(set(given)) != len(given):
        raise Unreadable(f"같은 글자를 두 번 적었습니다. 한 글자는 한 번만 적어 주세요. 예: {example(question)}")
    return [letters.index(letter) for letter in given]


def outcome(session: Session, question: Question, judgement: Judgement) -> str:
    """What is printed after an answer; after the last solved question the summary too."""
    lines = [f"{session.place(question)} · {judgement.title}", *wrapped(judgement.text)]
    if judgement.others:
        lines += ["다른 답은 왜 아닐까요?", *(line for text in judgement.others for line in wrapped(text, "  "))]
    lines += [*wrapped(session.told), session.score()]
    if not judgement.right:
        lines.append("몇 번이든 다시 답할 수 있습니다.")
    return "\n".join(lines if session.unsolved() else [*lines, "", summary(session)])


def summary(session: Session) -> str:
    """What to read again."""
    known = sections(session.quiz.lesson)
    lines = ["문제를 모두 풀었습니다."]
    for number, places in session.reread().items():
        lines.append(f"다시 읽을 곳: {known.get(number, f'{number} 절')} ({numbers(places)})")
    if len(lines) == 1:
        lines.append("모두 첫 시도에 맞혔습니다. 다시 읽을 곳은 없습니다.")
    return "\n".join(lines)


def numbers(places: list[int]) -> str:
    return "문제 " + ", ".join(str(place + 1) for place in places)


def wrapped(text: str, indent: str = "") -> list[str]:
    return [
        line
        for part in text.replace("`", "").splitlines()
        for line in textwrap.wrap(part, WIDTH, initial_indent=indent, subsequent_indent=indent and indent + "   ") or [""]
    ]
