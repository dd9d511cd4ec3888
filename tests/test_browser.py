"""Lesson 00 as a learner meets it: real JupyterLab, real Chromium, real llama-server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from servinglab.engines.llama_server import free_port
from tests.helpers import ROOT, need, wait_for

CHROMIUM = Path("/usr/bin/chromium")
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
SHOTS = ROOT / ".build" / "screenshots"
TOKEN = "browser-test"
LIMIT = 60_000  # ms that one step in the browser may take on a busy machine


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """`servinglab lab`, with a home and a work folder of its own whose names hold a space and Hangul."""
    home = tmp_path_factory.mktemp("홈 폴더")
    port = free_port()
    environment = {**os.environ, "HOME": str(home), "SERVINGLAB_WORK": str(home / "내 작업"), "JUPYTER_TOKEN": TOKEN}
    environment["SERVINGLAB_HOME"] = str(home / "내 기록")  # what other tests have answered is no progress of this learner
    environment.pop("IPYTHONDIR", None)
    environment.pop("CI", None)  # a learner's wrong answer must not raise
    with (home / "lab.log").open("wb") as log:
        command = [sys.executable, "-m", "servinglab.cli", "lab", "--no-browser", "--port", str(port)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: answers(port), 60, "JupyterLab answers")
        yield process, f"http://127.0.0.1:{port}/?token={TOKEN}", home / "내 작업"
    finally:
        children = psutil.Process(process.pid).children(recursive=True)
        process.terminate()
        process.wait(20)
        psutil.wait_procs(children, timeout=10)


def answers(port: int) -> bool:
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/api", timeout=2).status == 200
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def page(lab):
    need(CHROMIUM.exists(), "Chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    SHOTS.mkdir(parents=True, exist_ok=True)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=OPTIONS)
        page = browser.new_page(viewport={"width": 1360, "height": 850}, locale="ko-KR")
        page.set_default_timeout(LIMIT)
        page.goto(lab[1])
        yield page
        page.screenshot(path=SHOTS / "last.png")
        browser.close()


def cell_with(page, text: str):
    """The code cell that holds a text now, by its place: it stays the same cell when the text is changed."""
    cells = page.locator(".jp-NotebookPanel .jp-CodeCell")
    # JupyterLab draws the cells one after another, those out of sight last.
    place = page.wait_for_function(
        """text => { const cells = [...document.querySelectorAll('.jp-NotebookPanel .jp-CodeCell')];
            const place = cells.findIndex(c => c.querySelector('.jp-InputArea-editor')?.textContent.includes(text));
            return place < 0 ? null : place + 1; }""",
        arg=text,
    ).json_value() - 1
    cells.nth(place).scroll_into_view_if_needed()
    return cells.nth(place)


def run(page, cell) -> str:
    """Shift+Enter in a cell; returns its output when the kernel is done."""
    cell.locator(".cm-content").click()
    page.keyboard.press("Shift+Enter")
    return done(page, cell)


def done(page, cell) -> str:
    """Wait until the cell shows a number in place of the star."""
    page.wait_for_function(
        "cell => /\\[\\d+\\]/.test(cell.querySelector('.jp-InputPrompt').textContent)", arg=cell.element_handle()
    )
    output = cell.locator(".jp-OutputArea")
    return output.inner_text() if output.count() else ""


def answer(page, cell, text: str) -> None:
    """Put a text in place of `...` (or of the last answer) in an exercise's cell and run it."""
    line = cell.locator(".cm-line", has_text=re.compile(r"^answer ="))
    line.click()
    page.keyboard.press("End")
    page.keyboard.press("Shift+Home")
    page.keyboard.type(f"answer = {text}")
    page.keyboard.press("Shift+Enter")


def kernel_is_there(page) -> None:
    """As the status bar tells it: JupyterLab drops what is run before."""
    page.get_by_text("Python 3 (ipykernel) | 대기").wait_for()


def test_opens_in_korean_on_the_table_of_lessons(page):
    page.locator(".jp-RenderedMarkdown h1", has_text="LLM 서빙, 직접 해 보기").wait_for()
    assert page.locator(".lm-MenuBar-itemLabel").first.inner_text() == "파일"
    page.wait_for_timeout(1500)
    assert page.locator(".Toastify__toast").count() == 0, "no toast asks about news"
    page.screenshot(path=SHOTS / "index.png")


def test_lesson_opens_from_the_table(page):
    page.locator(".jp-RenderedMarkdown a", has_text="워밍업").click()
    page.locator(".jp-NotebookPanel h1", has_text="터미널도 포트도").wait_for()
    kernel_is_there(page)
    page.screenshot(path=SHOTS / "lesson00.png")


def test_exercise_1_change_a_number_and_run_again(page):
    cell = cell_with(page, "people = 3")
    first = run(page, cell)
    assert int(re.findall(r"\d+", first)[1]) == 3 * int(re.findall(r"\d+", first)[0])
    line = cell.locator(".cm-line", has_text="people = 3")
    line.click()
    page.keyboard.press("Home")
    for _ in "people = ":
        page.keyboard.press("ArrowRight")
    page.keyboard.press("Delete")
    page.keyboard.type("7")
    page.keyboard.press("Shift+Enter")
    page.wait_for_function("([cell, old]) => !cell.innerText.includes(old)", arg=[cell.element_handle(), first.strip()])
    bag, total = map(int, re.findall(r"\d+", done(page, cell)))
    assert total == 7 * bag
    exercise = cell_with(page, 'exercise("00-1"')
    run(page, exercise)
    exercise.get_by_text("아직 풀지 않았습니다").wait_for()
    answer(page, exercise, str(bag * 3))
    exercise.get_by_text("아직 아닙니다").wait_for()
    answer(page, exercise, str(total))
    exercise.get_by_text("맞았습니다").wait_for()
    page.screenshot(path=SHOTS / "exercise.png")


def test_exercise_2_choose(page):
    cell = cell_with(page, 'exercise("00-2")')
    answer(page, cell, '"a"')
    cell.get_by_text("아직 아닙니다").wait_for()
    answer(page, cell, '"c"')
    cell.get_by_text("맞았습니다").wait_for()


def test_whole_lesson_runs(page):
    """Run all cells; the learner's own changes stay, no cell fails, the plot is drawn."""
    page.get_by_role("menuitem", name="실행").first.click()
    page.get_by_text("모든 셀 실행", exact=True).click()
    last = cell_with(page, "server.stop()")
    last.get_by_text("서버를 껐습니다").wait_for(timeout=120_000)
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0
    plot = cell_with(page, "plots.arrivals")
    plot.locator("img").wait_for()
    plot.locator("img").scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / "plot.png")


def test_port_is_read_off_a_live_server(page):
    start = cell_with(page, "engines.connect()")
    text = run(page, start)
    wait_for(lambda: "127.0.0.1:" in start.inner_text(), 30, "the server's address is shown")
    port = re.findall(r"http://127\.0\.0\.1:(\d+)", start.inner_text())[-1]
    assert "llama-server" in text
    cell = cell_with(page, 'exercise("00-3"')
    answer(page, cell, "8080")
    cell.get_by_text("아직 아닙니다").wait_for()
    answer(page, cell, port)
    cell.get_by_text("맞았습니다").wait_for()


def test_restarting_the_kernel_ends_its_server(page, lab):
    engines = [p for p in psutil.Process(lab[0].pid).children(recursive=True) if p.name() == "llama-server"]
    assert engines, "the previous test left one running"
    page.get_by_role("menuitem", name="커널").first.click()
    page.locator(".lm-Menu-item", has_text="커널 재시작").first.click()
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    _, alive = psutil.wait_procs(engines, timeout=5 + 10)  # ten more for the restart itself on a busy machine
    assert not alive


def test_after_the_restart_errors_are_still_told_in_korean(page):
    """The kernel that `servinglab lab` starts explains them before the lesson's first cell was run."""
    kernel_is_there(page)
    cell = cell_with(page, "q3.check(")
    answer(page, cell, "8080")
    cell.get_by_text("아직 모르는 이름입니다").wait_for()
    assert "Traceback" not in cell.inner_text()


def test_terminal_knows_the_courses_commands(page, lab):
    """The terminal draws on a canvas, so what it printed is read from a file."""
    page.get_by_role("menuitem", name="파일").first.click()
    page.locator(".lm-Menu-item", has_text="새로 만들기").first.hover()
    page.locator(".lm-Menu-item", has_text="터미널").first.click()
    page.locator(".jp-Terminal .xterm-helper-textarea").wait_for(state="attached")
    page.wait_for_timeout(1500)
    page.locator(".jp-Terminal").click()
    page.keyboard.type("(servinglab doctor; llama-server --version) > said.txt 2>&1; touch finished\n")
    work = lab[2]
    wait_for((work / "finished").exists, 60, "the command in the terminal ends")
    said = (work / "said.txt").read_text(encoding="utf-8")
    assert "[OK]   llama.cpp" in said and "version:" in said and "not found" not in said
    page.screenshot(path=SHOTS / "terminal.png")


def test_lesson_01_runs(page, lab):
    """From top to bottom by the menu, in a workspace without the other tabs: no cell fails, its charts and its quiz are drawn."""
    page.goto(lab[1].replace("/?token", "/lab/workspaces/one/tree/01_serving_concepts.ipynb?token"))
    page.locator(".jp-NotebookPanel h1", has_text="모델 파일은 있는데").wait_for()
    kernel_is_there(page)
    page.get_by_role("menuitem", name="실행").first.click()
    page.get_by_text("모든 셀 실행", exact=True).click()
    check = cell_with(page, 'quiz.show("01")')
    check.get_by_text("문제 1 / 8").wait_for(timeout=300_000)
    page.screenshot(path=SHOTS / "lesson01-quiz.png")
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0
    for chart in ("plots.repeats", "plots.growth", "plots.gantt"):
        picture = cell_with(page, chart).locator("img")
        picture.scroll_into_view_if_needed()
        page.screenshot(path=SHOTS / f"lesson01-{chart.removeprefix('plots.')}.png")


def test_lesson_02_draws(page, lab):
    """The cells that draw something or answer to the mouse. All cells are run by nbval, and would take minutes here too."""
    page.goto(lab[1].replace("/?token", "/lab/workspaces/two/tree/02_gguf_and_quantization.ipynb?token"))
    page.locator(".jp-NotebookPanel h1", has_text="모델을 절반으로").wait_for()
    kernel_is_there(page)
    run(page, cell_with(page, 'lesson.begin("02")'))
    view = cell_with(page, "gguf_file.read(path)")
    run(page, view)
    view.get_by_text("token_embd.weight").first.scroll_into_view_if_needed()
    page.screenshot(path=SHOTS / "lesson02-view.png")
    for place, shown in (("where_bytes", "bytes"), ("load_file(TUTOR", ""), ("outlier = 8", "block")):
        cell = cell_with(page, place)
        run(page, cell)
        if shown:
            cell.locator("img").scroll_into_view_if_needed()
            page.screenshot(path=SHOTS / f"lesson02-{shown}.png")
    calculator = cell_with(page, "Calculator(")
    run(page, calculator)
    calculator.locator("select").nth(1).select_option(label="Q2_K")
    calculator.get_by_text("Q2_K, 4명").wait_for()
    page.screenshot(path=SHOTS / "lesson02-calculator.png")
    check = cell_with(page, 'quiz.show("02")')
    run(page, check)
    check.get_by_text("문제 1 / 10").wait_for()
    assert page.locator(".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.error']").count() == 0
