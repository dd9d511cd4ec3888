"""What the learner is asked at the end of a lesson, and what is said about each answer."""

from __future__ import annotations

from servinglab.errors import SettingError
from servinglab.quiz import plain
from servinglab.quiz.grading import Unreadable
from servinglab.quiz.schema import Quiz, load
from servinglab.quiz.session import Session, begin
from servinglab.quiz.twin import markdown

__all__ = ["Quiz", "answer", "load", "markdown", "show"]

_shown: dict[str, Session] = {}
"""For each lesson the session that was shown last: `answer` goes on with it."""


def show(lesson: str, practice: bool = False, widgets: bool = True) -> None:
    """Show the quiz of lesson "01". Answers that were given before are kept and shown as such.

    Args:
        lesson: the lesson's two digits.
        practice: record nothing, begin anew each time: for a projector.
        widgets: False prints the questions, to be answered with `answer`.

    Raises SettingError where there is no such quiz or its file does not fit.
    """
    session = _shown[lesson] = begin(load(lesson), practice)
    if widgets:
        from servinglab.quiz.form import display_form  # here, because the printed form needs no ipywidgets

        display_form(session)
    else:
        print(plain.opening(session), plain.questions(session), sep="\n\n")


def answer(lesson: str, number: int, answer: object) -> None:
    """Answer a question of the printed quiz, as `answer("01", 3, "b")`. Raises SettingError where there is no such question."""
    session = _shown.get(lesson) or _shown.setdefault(lesson, begin(load(lesson)))
    questions = session.quiz.questions
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= len(questions):
        raise SettingError(
            f"{number!r}번 문제가 없습니다.", f"이 퀴즈의 문제는 1번부터 {len(questions)}번까지입니다.",
            f'quiz.answer("{lesson}", 1, "a")처럼 문제의 번호를 따옴표 없이 적으세요.',
        )
    question = questions[number - 1]
    try:
        given = plain.read(question, answer)
    except Unreadable as error:
        print(f"{session.place(question)} · 아직 채점하지 않았습니다\n{error}")
        return
    print(plain.outcome(session, question, session.answer(question, given)))
