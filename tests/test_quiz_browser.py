"""The quiz as a learner meets it: real JupyterLab, real Chromium; all kinds of question, by mouse and by keyboard alone."""

from __future__ import annotations

import nbformat
import pytest
import yaml

from servinglab.quiz import load, schema
from servinglab.quiz.session import sections
from tests import test_browser
from tests.helpers import need
from tests.quiz_sample import SAMPLE
from tests.test_browser import CHROMIUM, LIMIT, OPTIONS, SHOTS, cell_with

lab = test_browser.lab

QUESTIONS = schema.Quiz.model_validate(yaml.safe_load(SAMPLE)).questions
RIGHT = [1, frozenset({0, 2}), "3,072", (0, 1, 2, 3), (0, 1, 2)]
WRONG = [0, frozenset({1}), "1536 바이트", (1, 0, 2, 3), (1, 0, 2)]
"""Answers to the sample's questions, as `grade` takes them; the number as it is typed."""

HERE = "from pathlib import Path\nfrom servinglab import quiz\nfrom servinglab.quiz import schema\nschema.QUIZZES = Path.cwd()\n"
CELLS = {
    "mouse": f'{HERE}quiz.show("00")  # mouse',
    "keyboard": f'{HERE}quiz.show("01")  # keyboard',
    "practice": f'{HERE}quiz.show("00", practice=True)  # practice',
    "shipped": f'{HERE}schema.QUIZZES = schema.DATA / "quizzes"\nquiz.show("01", practice=True)  # shipped',
    "busy": "import time\ntime.sleep(3)  # busy",
}


def notebook():
    """Headings as in lesson 00, so that the summary's links lead somewhere, and the cells above."""
    heading = [nbformat.v4.new_markdown_cell(f"### {text}" + "\n\n글" * 40) for text in sections("00").values()]
    code = [nbformat.v4.new_code_cell(text) for text in CELLS.values()]
    made = nbformat.v4.new_notebook(cells=[*heading, *code])
    made.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return made


@pytest.fixture(scope="module")
def page(lab):
    need(CHROMIUM.exists(), "Chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    SHOTS.mkdir(parents=True, exist_ok=True)
    work = lab[2]
    for lesson in ("00", "01"):
        (work / f"{lesson}.yaml").write_text(SAMPLE.replace('lesson: "00"', f'lesson: "{lesson}"'), encoding="utf-8")
    nbformat.write(notebook(), work / "quiz.ipynb")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=OPTIONS)
        page = browser.new_page(viewport={"width": 1360, "height": 850}, locale="ko-KR")
        page.set_default_timeout(LIMIT)
        page.goto(lab[1].replace("/?token", "/lab/tree/quiz.ipynb?token"))
        loaded(page)
        yield page
        page.screenshot(path=SHOTS / "quiz-last.png")
        browser.close()


def loaded(page) -> None:
    page.locator(".jp-CodeCell .cm-content", has_text="# busy").wait_for()


def run(page, name: str):
    """Run a cell by Ctrl+Enter and return its quiz. Repeated, because JupyterLab drops what comes before the kernel is there."""
    cell = cell_with(page, f"# {name}")
    before = cell.locator(".jp-InputPrompt").inner_text()
    for _ in range(20):
        cell.locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
        page.wait_for_timeout(1500)
        if cell.locator(".jp-InputPrompt").inner_text() != before:
            break
    quiz = cell.locator(".servinglab-quiz")
    if name != "busy":
        quiz.wait_for()
    return quiz


def cells(page) -> list[str]:
    return page.evaluate(
        "[...document.querySelectorAll('.jp-Notebook .jp-Cell')].map(c => c.querySelector('.jp-InputArea-editor').textContent)"
    )


def button(quiz, label: str):
    return quiz.get_by_role("button", name=label, exact=True)


def said(quiz, text: str) -> None:
    quiz.locator(".servinglab-quiz-said [role=alert]", has_text=text).wait_for()


# --- by mouse ---------------------------------------------------------------------------------------------------------


def put(quiz, question, given) -> None:
    """Fill in an answer as one does with a mouse."""
    match question.kind:
        case "single":
            quiz.locator("label", has_text=question.options[given].text).click()
        case "multiple":
            for i, option in enumerate(question.options):
                quiz.locator("label", has_text=option.text).locator("input").set_checked(i in given)
        case "number":
            quiz.locator("input").click()
            quiz.locator("input").fill(given)
        case _:
            for row, index in enumerate(indices(question, given)):
                quiz.locator("select").nth(row).select_option(index=index)


def indices(question, given) -> list[int]:
    """Which entry of each row's list to choose; the first entry asks to choose."""
    mixed = schema.shuffled(question)
    if question.kind == "ordering":
        return [given.index(item) + 1 for item in mixed]
    return [mixed.index(pair) + 1 for pair in given]


def test_all_kinds_by_mouse(page):
    quiz = run(page, "mouse")
    quiz.get_by_text("문제 1 / 5").wait_for()
    above = cell_with(page, "# mouse").locator(".jp-OutputArea").inner_text()
    assert above.index("틀려도 괜찮습니다") < above.index("이 셀을 다시 실행하세요") < above.index("문제 1 / 5")
    for number, question in enumerate(QUESTIONS, start=1):
        quiz.get_by_text(f"문제 {number} / 5").wait_for()
        put(quiz, question, WRONG[number - 1])
        button(quiz, "확인").click()
        said(quiz, "아직 아닙니다")
        if number == 1:
            said(quiz, question.options[0].why)
            quiz.locator("input").nth(0).evaluate("input => { input.same = true }")
        put(quiz, question, RIGHT[number - 1])
        button(quiz, "확인").click()
        said(quiz, "맞았습니다")
        quiz.get_by_text(f"첫 시도 점수: 0 / 5 (답해 본 문제 {number}개)").wait_for()
        if number == 1:
            assert quiz.locator("input").nth(0).evaluate("input => input.same === true"), "the radio group was rebuilt"
            page.screenshot(path=SHOTS / "quiz.png")
        button(quiz, "결과 보기" if number == len(QUESTIONS) else "다음 문제").click()
    quiz.locator("a", has_text=sections("00")["05"]).wait_for()
    page.screenshot(path=SHOTS / "quiz-summary.png")


def test_link_of_the_summary_leads_to_the_section(page):
    quiz = cell_with(page, "# mouse").locator(".servinglab-quiz")
    quiz.locator("a", has_text=sections("00")["05"]).click()
    heading = page.locator(".jp-Notebook h3", has_text=sections("00")["05"])
    top, panel = heading.bounding_box()["y"], page.locator(".jp-WindowedPanel-outer").bounding_box()
    assert panel["y"] - 5 <= top < panel["y"] + panel["height"] / 2
    assert page.locator(".jp-Notebook .jp-Cell.jp-mod-active").inner_text().startswith(sections("00")["05"])


# --- by keyboard ------------------------------------------------------------------------------------------------------


def press(page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def focus(page) -> str:
    """What has the focus within a quiz: its type, or a button's label; "" outside."""
    return page.evaluate(
        "(e => e.closest('.servinglab-quiz') ? (e.tagName === 'BUTTON' ? e.textContent : e.type ?? e.tagName) : '')"
        "(document.activeElement)"
    )


def keyed(page, question, given) -> None:
    """Fill in an answer with the focus on the first field, and leave it on the last."""
    match question.kind:
        case "single":
            now = page.evaluate("[...document.activeElement.closest('.widget-radio-box').querySelectorAll('input')]"
                                ".findIndex(input => input.checked)")
            press(page, *(["Space"] if now < 0 else []), *["ArrowDown"] * (given - max(now, 0)))
        case "multiple":
            for i in range(len(question.options)):
                if page.evaluate("document.activeElement.checked") != (i in given):
                    press(page, "Space")
                press(page, *(["Tab"] if i < len(question.options) - 1 else []))
        case "number":
            press(page, "Control+a")
            page.keyboard.type(given)
        case _:
            wanted = indices(question, given)
            for row, index in enumerate(wanted):
                press(page, "Home", *["ArrowDown"] * index, *(["Tab"] if row < len(wanted) - 1 else []))


STOPS = {"single": 1, "multiple": 3, "number": 1, "ordering": 4, "matching": 3}
"""How often Shift+Tab is pressed from the button back to the first field."""


def test_all_kinds_by_keyboard_alone(page):
    quiz = run(page, "keyboard")
    before = cells(page)
    for _ in range(40):
        press(page, "Tab")
        if focus(page):
            break
    for number, question in enumerate(QUESTIONS, start=1):
        quiz.get_by_text(f"문제 {number} / 5").wait_for()
        page.wait_for_function("document.activeElement.matches('.servinglab-quiz-panel :is(input, select)')")
        keyed(page, question, WRONG[number - 1])
        press(page, "Tab")
        assert focus(page) == "확인"
        press(page, "Space")
        said(quiz, "아직 아닙니다")
        assert focus(page) == "확인", "the focus stays where it was"
        press(page, *["Shift+Tab"] * STOPS[question.kind])
        keyed(page, question, RIGHT[number - 1])
        press(page, "Tab", "Enter")
        said(quiz, "맞았습니다")
        press(page, "Tab", "Tab")
        assert focus(page) == ("결과 보기" if number == len(QUESTIONS) else "다음 문제")
        press(page, "Enter")
    quiz.get_by_text("결과", exact=True).wait_for()
    assert "0 / 5 (답해 본 문제 5개)" in quiz.inner_text() and "다시 읽을 곳" in quiz.inner_text()
    page.wait_for_function("document.activeElement.matches('.servinglab-quiz-panel a')")
    assert cells(page) == before


def test_keys_in_a_focused_quiz_leave_the_cells_alone(page):
    quiz = run(page, "practice")
    before = cells(page)
    for _ in QUESTIONS:
        fields = quiz.locator("input, select, button")
        for i in range(fields.count()):
            fields.nth(i).focus()
            press(page, "ArrowDown", "b", "d", "d", "x")
            assert cells(page) == before, fields.nth(i).evaluate("e => e.outerHTML")
        quiz.locator(".widget-html-content").first.click()
        press(page, "ArrowDown", "b", "d", "d", "x")
        assert cells(page) == before, "after a click on the question's text"
        button(quiz, "다음 문제").or_(button(quiz, "결과 보기")).click()
        page.wait_for_timeout(500)


def test_without_the_cure_the_keys_would_change_the_cells(page):
    """The tests above must not pass because JupyterLab leaves buttons alone anyway."""
    cell = cell_with(page, "# practice")
    before = cells(page)
    cell.locator(".servinglab-quiz").evaluate("quiz => quiz.classList.remove('servinglab-quiz')")
    check = cell.locator("button", has_text="확인")
    check.evaluate("e => e.removeAttribute('data-lm-suppress-shortcuts')")
    check.focus()
    for key, count in (("b", len(before) + 1), ("d", len(before) + 1), ("d", len(before))):
        press(page, key)
        page.wait_for_function("count => document.querySelectorAll('.jp-Notebook .jp-Cell').length === count", arg=count)
    assert cells(page) == before


# --- what else a learner meets ----------------------------------------------------------------------------------------


def test_the_last_choice_counts_while_the_kernel_is_busy(page):
    quiz = run(page, "practice")
    run(page, "busy")
    put(quiz, QUESTIONS[0], 0)
    put(quiz, QUESTIONS[0], 1)
    button(quiz, "확인").click()
    said(quiz, "맞았습니다")


def test_after_a_restart_the_progress_is_there(page):
    page.get_by_role("menuitem", name="커널").first.click()
    page.locator(".lm-Menu-item", has_text="커널 재시작").first.click()
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    page.wait_for_timeout(3000)
    cell = cell_with(page, "# mouse")
    dead = cell.locator(".servinglab-quiz")
    dead.locator("button", has_text="이전 문제").click()
    page.wait_for_timeout(1000)
    assert "결과" in dead.inner_text(), "a widget of the old kernel does nothing"
    assert cell.get_by_text("이 셀을 다시 실행하세요").is_visible()
    quiz = run(page, "mouse")
    quiz.get_by_text("첫 시도 점수: 0 / 5 (답해 본 문제 5개)").wait_for()
    button(quiz, "이전 문제").click()
    quiz.get_by_text("이미 푼 문제 (다시 풀어 맞힘)").wait_for()


def test_saving_works_in_a_quiz_and_so_do_keys_after_the_page_was_loaded_anew(page):
    quiz = run(page, "mouse")
    button(quiz, "확인").focus()
    press(page, "Control+s")
    page.locator(".lm-TabBar-tab.jp-mod-dirty").wait_for(state="detached", timeout=10_000)
    page.reload()
    loaded(page)
    quiz.wait_for()
    before = cells(page)
    button(quiz, "확인").focus()
    press(page, "ArrowDown", "b", "d", "d", "x")
    assert cells(page) == before
    button(quiz, "확인").click()
    said(quiz, "결과 화면입니다")


CONTRAST = """quiz => {
  const parse = text => { const c = text.match(/[\\d.]+/g).map(Number); return c.length > 3 ? c : [...c, 1]; };
  const over = (top, ground) => top.slice(0, 3).map((c, i) => c * top[3] + ground[i] * (1 - top[3]));
  const ground = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c[3] === 1) return c; }
    return [255, 255, 255, 1]; };
  const light = rgb => rgb.map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ratios = [...quiz.querySelectorAll('*')].filter(e => e.checkVisibility() && e.textContent.trim() && !e.children.length).map(e => {
    const back = ground(e), [a, b] = [light(over(parse(getComputedStyle(e).color), back)), light(back.slice(0, 3))];
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05); });
  return Math.min(...ratios); }"""
OVERFLOW = """quiz => [...quiz.querySelectorAll('*')].filter(e => e.checkVisibility() && e.tagName !== 'OPTION')
  .filter(e => e.getBoundingClientRect().right > quiz.getBoundingClientRect().right + 1
    || (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible' && e.tagName !== 'INPUT'))
  .map(e => e.outerHTML.slice(0, 200))"""


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_legible_in_both_themes_and_at_150_percent(page, theme):
    page.set_viewport_size({"width": 1360, "height": 850})
    page.get_by_role("menuitem", name="설정").first.click()
    page.locator(".lm-Menu-item", has_text="테마").first.hover()
    page.locator(".lm-Menu-item", has_text=theme).first.click()
    page.wait_for_timeout(1500)
    page.set_viewport_size({"width": 1360 * 2 // 3, "height": 850 * 2 // 3})  # what a zoom of 150 % leaves
    quiz = run(page, "practice")
    for number, question in enumerate(QUESTIONS, start=1):
        quiz.get_by_text(f"문제 {number} / 5").wait_for()
        put(quiz, question, RIGHT[number - 1])
        button(quiz, "확인").click()
        said(quiz, "맞았습니다")
        assert quiz.evaluate(CONTRAST) >= 4.5
        assert quiz.evaluate(OVERFLOW) == []
        box, screen = quiz.locator(".servinglab-quiz-said").bounding_box(), page.viewport_size
        assert box["y"] < screen["height"] - 40, "the verdict is on the screen"
        page.screenshot(path=SHOTS / f"quiz-{theme.split()[1].lower()}-{number}.png")
        button(quiz, "다음 문제").or_(button(quiz, "결과 보기")).click()
    long = run(page, "shipped")
    for number in range(1, len(load("01").questions) + 1):
        long.get_by_text(f"문제 {number} / ").wait_for()
        assert long.evaluate(OVERFLOW) == []
        page.screenshot(path=SHOTS / f"quiz-{theme.split()[1].lower()}-01-{number}.png")
        button(long, "다음 문제").or_(button(long, "결과 보기")).click()
