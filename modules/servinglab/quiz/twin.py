"""The quiz as Markdown with folded answers: it stands where a saved widget would show nothing, as on GitHub."""

from __future__ import annotations

import re

from servinglab.quiz.grading import LETTERS, figure, named
from servinglab.quiz.schema import Matching, Multiple, Number, Ordering, Question, Quiz, Single, shuffled
from servinglab.quiz.session import KINDS


def markdown(quiz: Quiz) -> str:
    """All questions, each followed by its answer and explanations in a fold."""
    intro = (
        "**문제와 풀이** · 노트북을 실행하지 않고 읽는 분을 위한 글입니다. 실행하면 위 셀에서 같은 문제를 직접 풀 수 있습니다."
    )
    parts = [_question(quiz, place) for place in range(len(quiz.questions))]
    return "\n\n".join([intro, *parts])


def _question(quiz: Quiz, place: int) -> str:
    question = quiz.questions[place]
    head = f"**문제 {place + 1} / {len(quiz.questions)}** · {KINDS[question.kind]}"
    fold = ["<details><summary>정답과 설명 보기</summary>", *_answer(question), "</details>"]
    return "\n\n".join([head, escaped(question.text), *_asked(question), *fold])


def _asked(question: Question) -> list[str]:
    """What there is to choose from, one Markdown block each."""
    match question:
        case Single() | Multiple():
            return [_list([named(question, i) for i in range(len(question.options))])]
        case Number():
            return [f"단위: {escaped(question.unit)}"]
        case Ordering():
            return [_list([f"{LETTERS[row]}. {question.items[i]}" for row, i in enumerate(shuffled(question))])]
        case Matching():
            left = "\n".join(f"{row + 1}. {escaped(pair.left)}" for row, pair in enumerate(question.pairs))
            return [left, _list([f"{LETTERS[row]}. {question.pairs[i].right}" for row, i in enumerate(shuffled(question))])]


def _answer(question: Question) -> list[str]:
    match question:
        case Single() | Multiple():
            rows = [
                f"{named(question, i)} — {'맞음' if option.right else '틀림'}. {option.why}"
                for i, option in enumerate(question.options)
            ]
            return [_list(rows)]
        case Number():
            rows = [f"{figure(wrong.value)} {question.unit} — 틀림. {wrong.why}" for wrong in question.wrong]
            return [escaped(f"{figure(question.value)} {question.unit}. {question.why}"), _list(rows)]
        case Ordering():
            rows = [" → ".join(question.items[i] for i in wrong.order) + f" — 틀림. {wrong.why}" for wrong in question.wrong]
            return [escaped(" → ".join(question.items) + f". {question.why}"), *([_list(rows)] if rows else [])]
        case Matching():
            return [_list([f"{pair.left} — {pair.right}. {pair.why}" for pair in question.pairs])]


def _list(rows: list[str]) -> str:
    return "\n".join(f"- {escaped(row)}" for row in rows)


def escaped(text: str) -> str:
    """Text whose signs Markdown would take for its own, except code in backticks."""
    parts = re.split(r"(`[^`]+`)", " ".join(text.split()))
    return "".join(part if part.startswith("`") else re.sub(r"([\\*_<>$|~\[\]#])", r"\\\1", part) for part in parts)
