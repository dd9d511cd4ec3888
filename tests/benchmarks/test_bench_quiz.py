"""`make bench`: how soon a quiz appears, in the kernel and on the screen. Printed, never asserted."""

from __future__ import annotations

import time

import pytest

from servinglab import quiz
from servinglab.quiz.schema import available
from tests import test_quiz_browser
from tests.benchmarks.test_bench import say, spread

lab, page = test_quiz_browser.lab, test_quiz_browser.page


@pytest.mark.parametrize("lesson", available())
def test_kernel_side(lesson, monkeypatch):
    """Reading, checking and making the widgets, without what the browser does."""
    monkeypatch.setattr("servinglab.quiz.form.display", lambda *things: None)
    quiz.show(lesson)  # the first one imports ipywidgets
    seconds = []
    for _ in range(10):
        began = time.perf_counter()
        quiz.show(lesson)
        seconds.append(time.perf_counter() - began)
    print()
    say(f"quiz {lesson}, {len(quiz.load(lesson).questions)} questions, in the kernel: {spread(seconds)}")


def test_on_the_screen(page):
    """From Ctrl+Enter to the first question, with the shipped quiz of lesson 01. Wanted: within 0.3 s."""
    shown = test_quiz_browser.run(page, "shipped")
    seconds = []
    for _ in range(10):
        shown.evaluate("quiz => quiz.remove()")
        began = time.perf_counter()
        page.keyboard.press("Control+Enter")
        shown.wait_for()
        seconds.append(time.perf_counter() - began)
        page.wait_for_timeout(500)
    print()
    say(f"quiz 01 in JupyterLab, from Ctrl+Enter to the first question: {spread(seconds)}, wanted within 300 ms")
