"""A quiz as widgets: one question at a time, usable by keyboard alone. Handlers never print: JupyterLab would drop it."""

from __future__ import annotations

import asyncio
import html
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets  # type: ignore[import-untyped]
from IPython.display import HTML, Javascript, display

from servinglab.quiz import plain
from servinglab.quiz.grading import LETTERS, Given, Judgement, Unreadable, named, read_number
from servinglab.quiz.schema import Matching, Multiple, Number, Ordering, Question, Single, shuffled
from servinglab.quiz.session import KINDS, Session, sections

HERE = Path(__file__).parent

SETTLED = 0.3
"""Seconds after a change in which a click waits: while the kernel is busy JupyterLab holds the last change back, not the click."""

DEAD = "끊어진 사슬 그림이 보이거나 눌러도 반응이 없으면 이 셀을 다시 실행하세요. 커널을 다시 시작하면 그렇게 됩니다."
"""Stands outside the widget: after a restart of the kernel the widget stays on the screen and does nothing."""

OPEN = -1
"""The value of a list in which nothing is chosen yet. With None ipywidgets would empty the list under the learner's hands."""


def display_form(session: Session) -> None:
    """Show a quiz in the cell's output."""
    style = (HERE / "form.css").read_text(encoding="utf-8")
    script = (HERE / "form.js").read_text(encoding="utf-8")
    opening = marked(f"{plain.opening(session)}\n{DEAD}")
    display(HTML(f"<style>{style}</style><p class='servinglab-quiz-opening'>{opening}</p>"))  # type: ignore[no-untyped-call]
    display(Javascript(script), Form(session).box)  # type: ignore[no-untyped-call]


def marked(text: str) -> str:
    """Plain text as HTML; what stands in backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text)).replace("\n", "<br>")


class Panel:
    """The fields of one question."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.fields = fields(question)
        self.changed = 0.0
        self.said = ""
        """The last feedback, as HTML."""
        for one in self.fields:
            one.observe(self._changed, names="value")

    def _changed(self, change: object) -> None:
        self.changed = time.monotonic()

    def given(self) -> Given:
        """What the learner has put in. Raises Unreadable where something is missing."""
        values = [one.value for one in self.fields]
        match self.question:
            case Single():
                if values[0] is None:
                    raise Unreadable("아직 고르지 않았습니다. 보기를 하나 고른 뒤 확인을 누르세요.")
                return int(values[0])
            case Multiple():
                if not any(values):
                    raise Unreadable("아직 고르지 않았습니다. 맞는 보기를 모두 고른 뒤 확인을 누르세요.")
                return frozenset(i for i, value in enumerate(values) if value)
            case Number():
                return read_number(values[0], self.question.unit)
            case Ordering():
                return _order(values, shuffled(self.question))
            case Matching():
                return _chosen(values)


def _chosen(values: list[Any]) -> tuple[int, ...]:
    if OPEN in values:
        raise Unreadable("아직 고르지 않은 칸이 있습니다. 모든 칸을 고른 뒤 확인을 누르세요.")
    return tuple(values)


def _order(values: list[Any], mixed: list[int]) -> tuple[int, ...]:
    """Places in `items` in the order of the numbers that the learner gave to the shuffled rows."""
    places = _chosen(values)
    twice = sorted({place + 1 for place in places if places.count(place) > 1})
    if twice:
        raise Unreadable(f"{', '.join(f'{place}번째' for place in twice)}로 고른 것이 둘 이상입니다. 자리를 하나씩 나누어 주세요.")
    return tuple(mixed[row] for row in sorted(range(len(places)), key=places.__getitem__))


def fields(question: Question) -> list[Any]:
    """The widgets that take the answer. Nothing of them is ever changed from here: that would take the focus away."""
    wide = {"layout": widgets.Layout(width="auto"), "style": {"description_width": "auto"}}
    match question:
        case Single():
            options = [(shown(named(question, i)), i) for i in range(len(question.options))]
            return [widgets.RadioButtons(options=options, value=None, layout=widgets.Layout(width="auto"))]
        case Multiple():
            return [
                widgets.Checkbox(description=shown(named(question, i)), indent=False, **wide)
                for i in range(len(question.options))
            ]
        case Number():
            return [widgets.Text(description=f"답 ({shown(question.unit)})", continuous_update=False, **wide)]
        case Ordering():
            ranks = [("몇 번째인지 고르세요", OPEN), *[(f"{i + 1}번째", i) for i in range(len(question.items))]]
            return [
                widgets.Dropdown(options=ranks, description=f"{LETTERS[row]}. {shown(question.items[i])}", **wide)
                for row, i in enumerate(shuffled(question))
            ]
        case Matching():
            rights = [(f"{LETTERS[row]}. {shown(question.pairs[i].right)}", i) for row, i in enumerate(shuffled(question))]
            return [
                widgets.Dropdown(
                    options=[("짝을 고르세요", OPEN), *rights], description=f"{i + 1}. {shown(pair.left)}", **wide
                )
                for i, pair in enumerate(question.pairs)
            ]


def shown(text: str) -> str:
    """Labels hold plain text."""
    return text.replace("`", "")


class Form:
    """The whole quiz. `place` is the question that is shown; one past the last is the summary."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.panels: dict[int, Panel] = {}
        self.head, self.state, self.feedback, self.score = (widgets.HTML() for _ in range(4))
        self.panel = widgets.VBox()
        self.panel.add_class("servinglab-quiz-panel")
        self.feedback.add_class("servinglab-quiz-said")
        self.check = button("확인", "servinglab-quiz-check", self._check)
        self.back = button("이전 문제", "servinglab-quiz-move", lambda: self.go(self.place - 1))
        self.on = button("다음 문제", "servinglab-quiz-move", lambda: self.go(self.place + 1))
        buttons = widgets.HBox([self.check, self.back, self.on])
        self.box = widgets.VBox([self.head, self.state, self.panel, buttons, self.feedback, self.score])
        self.box.add_class("servinglab-quiz")
        self.go(min(session.unsolved(), default=len(session.quiz.questions)))
        if session.told:
            self.feedback.value = alert("진행 기록", session.told)

    @property
    def last(self) -> int:
        return len(self.session.quiz.questions)

    def go(self, place: int) -> None:
        """Show a question or the summary. The buttons stay usable, because a disabled one drops the focus into the notebook."""
        self.place = max(0, min(place, self.last))
        self.on.description = "결과 보기" if self.place >= self.last - 1 else "다음 문제"
        if self.place == self.last:
            self.head.value = "<b>결과</b>"
            self.panel.children = [widgets.HTML(summary(self.session))]
            self.state.value = self.feedback.value = self.score.value = ""
        else:
            panel = self.current()
            self.head.value = asked(self.session, panel.question)
            self.panel.children = panel.fields
            self.feedback.value = panel.said
            self.refresh()
        if place < 0:
            self.feedback.value = alert("첫 문제입니다", "앞에는 문제가 없습니다.")

    def current(self) -> Panel:
        if self.place not in self.panels:
            self.panels[self.place] = Panel(self.session.quiz.questions[self.place])
        return self.panels[self.place]

    def refresh(self) -> None:
        """What an answer changes. The question itself stays as it is: a screen reader would read it out again."""
        self.state.value = f"이 문제: {self.session.state(self.current().question)}"
        self.score.value = marked(self.session.score())

    def _check(self) -> None:
        if self.place == self.last:
            self.feedback.value = alert("결과 화면입니다", "이전 문제를 누르면 문제로 돌아갑니다.")
            return
        panel = self.current()
        if time.monotonic() - panel.changed < SETTLED:
            later(SETTLED, lambda: self.grade(panel))
        else:
            self.grade(panel)

    def grade(self, panel: Panel) -> None:
        try:
            judgement = self.session.answer(panel.question, panel.given())
        except Unreadable as error:
            panel.said = alert("아직 채점하지 않았습니다", str(error))
        else:
            panel.said = feedback(judgement, self.session.told)
        if self.place < self.last and self.current() is panel:
            self.feedback.value = panel.said
            self.refresh()


def asked(session: Session, question: Question) -> str:
    head = f"{session.place(question)} · {KINDS[question.kind]}"
    return f"<div role='alert'><b>{head}</b><br>{marked(question.text)}</div>"


def later(seconds: float, call: Callable[[], None]) -> None:
    """Call after a while where an event loop runs, as in a kernel; else at once."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        call()
    else:
        loop.call_later(seconds, call)


def button(label: str, kind: str, pressed: Callable[[], None]) -> Any:
    made = widgets.Button(description=label, layout=widgets.Layout(width="auto"))
    made.on_click(lambda _: pressed())
    return made.add_class(kind)


def alert(title: str, text: str) -> str:
    """A framed message that a screen reader reads out: words and a frame, so that colour alone carries nothing."""
    return f"<div role='alert' class='servinglab-quiz-note'><b>{html.escape(title)}</b><br>{marked(text)}</div>"


def feedback(judgement: Judgement, told: str) -> str:
    again = "" if judgement.right else "\n몇 번이든 다시 답할 수 있습니다."
    parts = [alert(judgement.title, judgement.text + again)]
    if judgement.others:
        rows = "".join(f"<li>{marked(text)}</li>" for text in judgement.others)
        parts.append(f"<div>다른 답은 왜 아닐까요?<ul>{rows}</ul></div>")
    if told:
        parts.append(alert("진행 기록", told))
    return "".join(parts)


def summary(session: Session) -> str:
    """Score, what is still open, and links to what to read again."""
    known = sections(session.quiz.lesson)
    lines = [f"<b>{marked(session.score())}</b>"]
    if session.unsolved():
        lines.append(f"아직 맞히지 못한 문제가 있습니다: {plain.numbers(session.unsolved())}. 이전 문제를 누르면 돌아갑니다.")
    rows = "".join(f"<li>{link(number, known)} ({plain.numbers(places)})</li>" for number, places in session.reread().items())
    if rows:
        lines.append(f"다시 읽을 곳:<ul>{rows}</ul>")
    elif not session.unsolved():
        lines.append("모두 첫 시도에 맞혔습니다. 다시 읽을 곳은 없습니다.")
    return f"<div role='alert'>{'<br>'.join(lines)}</div>"


def link(number: str, known: dict[str, str]) -> str:
    """To a section of this notebook: JupyterLab's anchors are the headings with hyphens for spaces."""
    if number not in known:
        return f"{number} 절"
    heading = html.escape(known[number])
    return f"<a href='#{heading.replace(' ', '-')}'>{heading}</a>"
