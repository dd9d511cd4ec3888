"""One learner at one quiz: what was answered, the score of first attempts, and what to read again."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from servinglab import curriculum, progress
from servinglab.errors import ProgressError
from servinglab.paths import NOTEBOOKS
from servinglab.quiz.grading import Given, Judgement, grade
from servinglab.quiz.schema import Question, Quiz

KINDS = {
    "single": "하나 고르기",
    "multiple": "모두 고르기",
    "number": "수 적기",
    "ordering": "차례 맞추기",
    "matching": "짝 맞추기",
}


@dataclass
class Session:
    """The state of a quiz in this kernel. In practice nothing is kept and nothing that was kept is shown."""

    quiz: Quiz
    practice: bool = False
    first: dict[str, bool] = field(default_factory=dict)
    """For each question that was tried: whether the first attempt was right."""
    solved: set[str] = field(default_factory=set)
    told: str = ""
    """What the last reading or keeping of progress has to say to the learner."""

    def note(self, item: str, right: bool) -> None:
        self.first.setdefault(item, right)
        if right:
            self.solved.add(item)

    def answer(self, question: Question, given: Given) -> Judgement:
        """Judge an answer and keep it. A learner whose progress cannot be kept is told so, and goes on."""
        judgement = grade(question, given)
        self.note(question.id, judgement.right)
        self.told = ""
        if not self.practice:
            try:
                self.told = progress.record(self.quiz.lesson, "quiz", question.id, judgement.right)
            except ProgressError as error:
                self.told = str(error)
        return judgement

    def place(self, question: Question) -> str:
        return f"문제 {self.quiz.questions.index(question) + 1} / {len(self.quiz.questions)}"

    def state(self, question: Question) -> str:
        """In words, because colour alone says nothing to some."""
        if question.id in self.solved:
            return "이미 푼 문제 (첫 시도에 맞힘)" if self.first[question.id] else "이미 푼 문제 (다시 풀어 맞힘)"
        return "아직 맞히지 못한 문제" if question.id in self.first else "아직 풀지 않은 문제"

    def score(self) -> str:
        right = sum(self.first.get(question.id, False) for question in self.quiz.questions)
        tried = sum(question.id in self.first for question in self.quiz.questions)
        return f"첫 시도 점수: {right} / {len(self.quiz.questions)} (답해 본 문제 {tried}개)"

    def unsolved(self) -> list[int]:
        """Places of the questions that are still to be solved."""
        return [i for i, question in enumerate(self.quiz.questions) if question.id not in self.solved]

    def reread(self) -> dict[str, list[int]]:
        """The sections to read again: number, and the places of the questions that were not right at once."""
        again: dict[str, list[int]] = {}
        for i, question in enumerate(self.quiz.questions):
            if self.first.get(question.id) is False:
                again.setdefault(question.reread, []).append(i)
        return dict(sorted(again.items()))


def begin(quiz: Quiz, practice: bool = False) -> Session:
    """A session that goes on where the learner's kept progress ends."""
    session = Session(quiz, practice)
    if not practice:
        try:
            kept = progress.attempts(quiz.lesson)
        except ProgressError as error:
            session.told, kept = str(error), []
        for attempt in kept:
            if attempt.kind == "quiz":
                session.note(attempt.item, attempt.right)
    return session


def sections(lesson: str) -> dict[str, str]:
    """The headings of a lesson's numbered sections, as {"06": "06 한 조각씩 받기"}; empty where the lesson is not written."""
    paths = [NOTEBOOKS / "text" / f"{entry.notebook}.md" for entry in curriculum.lessons() if entry.id == lesson]
    text = "".join(path.read_text(encoding="utf-8") for path in paths if path.exists())
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#{2,6} +((\d\d) .+?) *$", prose, flags=re.MULTILINE)
    return {number: heading.replace("`", "").replace("**", "") for heading, number in headings}
