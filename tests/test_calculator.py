"""The memory calculator: its words and picture, in the kernel and as a learner meets it in real JupyterLab and Chromium."""

from __future__ import annotations

import base64
import io
import math
import re

import nbformat
import pytest
from matplotlib.image import imread

from servinglab.calculator import Calculator, told
from servinglab.errors import SettingError
from servinglab.models import memory
from servinglab.models.mixes import MIXES
from tests import test_browser
from tests.helpers import need
from tests.test_browser import CHROMIUM, LIMIT, OPTIONS, SHOTS
from tests.test_quiz_browser import CONTRAST, OVERFLOW, cells, focus, press
from tests.test_quiz_browser import run as run_cell

lab = test_browser.lab

CELLS = (
    "from servinglab.calculator import Calculator\nCalculator(model='qwen3-4b', kind='Q8_0', machine='office-8', users=4)  # calculator",
    "print(repr(Calculator(machine='t4')))  # plain",
    "import time\ntime.sleep(1)  # busy",
)


# --- in the kernel ----------------------------------------------------------------------------------------------------


def test_it_says_the_parts_the_verdict_and_the_smallest_change():
    """Qwen3 4B as Q4_K_M: 4.022e9 weights at 4.95 bits, 147456 bytes a token * 4096 * 4 users."""
    assert repr(Calculator("qwen3-4b", "Q4_K_M", "office-8", 4096, 4)).splitlines() == [
        "안 됩니다: 사무실 PC 8 GB에서 Qwen3 4B Q4_K_M, 4명",
        "가중치 2.3 GiB (가중치 하나에 평균 4.95비트)",
        "KV 캐시 2.2 GiB (한 사람에 4,096토큰, 4명)",
        "버퍼 83.3 MiB (어림)",
        "모두 4.7 GiB, 쓸 수 있는 메모리 4.0 GiB",
        "막는 것: 메모리가 0.7 GiB 모자랍니다. 4.7 GiB가 필요한데 이 장비에서 쓸 수 있는 것은 4.0 GiB입니다.",
        "가장 적게 고쳐서 되게 하려면: 컨텍스트 4,096토큰 → 2,816토큰",
    ]
    shown = repr(Calculator("qwen3-4b", "Q4_K_M", "office-8"))
    assert shown.startswith("됩니다: ") and "한 사람이 받는 속도는 빨라야 초당" in shown and "막는 것" not in shown


def test_every_change_is_answered(capfd):
    calculator = Calculator("qwen3-4b", "F16", "office-8", 4096, 1)
    for field, value, word in (
        (calculator.kind, "Q4_K_M", "됩니다: 사무실 PC 8 GB에서 Qwen3 4B Q4_K_M, 1명"),
        (calculator.users, 4, "Q4_K_M, 4명"),
        (calculator.context, 2048, "한 사람에 2,048토큰"),
        (calculator.model, "gpt-oss-20b", "gpt-oss 20B (전문가 혼합)"),
        (calculator.machine, "h200", "H200 141 GB"),
    ):
        picture = calculator.picture.value
        field.value = value
        assert word in repr(calculator) and calculator.picture.value != picture
        told = re.sub("<.*?>", "\n", calculator.said.value)
        assert all(line in told for line in repr(calculator).splitlines())
    assert capfd.readouterr() == ("", ""), "JupyterLab would drop it"


def test_answer_is_announced_and_the_picture_has_words():
    calculator = Calculator()
    assert "role='alert'" in calculator.said.value
    assert "KV 캐시" in re.search('alt="([^"]+)"', calculator.picture.value).group(1)
    data = re.search("base64,([^\"]+)", calculator.picture.value).group(1)
    height, width, _ = imread(io.BytesIO(base64.b64decode(data))).shape
    assert width >= 700 and height >= 200


@pytest.mark.parametrize("name", memory.shapes())
def test_no_choice_of_model_type_and_machine_raises(name):
    for kind in MIXES:
        for machine in memory.machines():
            verdict = memory.judge(machine, name, "llama.cpp", kind, 4096, 8)
            lines = told(verdict)
            assert lines[0].startswith("됩니다: " if verdict.ok else "안 됩니다: ") and len(lines) >= 6
            assert verdict.ok or verdict.change, verdict


def test_the_form_offers_all_that_is_known():
    calculator = Calculator()
    assert [name for _, name in calculator.model._options_full] == list(memory.shapes())
    assert [name for _, name in calculator.machine._options_full] == list(memory.machines())
    assert [name for name, _ in calculator.kind._options_full] == list(MIXES)


@pytest.mark.parametrize(("wrong", "pattern"), [
    ({"model": "qwen4"}, "모델 이름입니다: 'qwen4'(?s:.)*qwen3-4b"),
    ({"model": None}, "모델 이름입니다: None"),
    ({"kind": "Q4"}, "타입 이름입니다: 'Q4'(?s:.)*Q4_K_M"),
    ({"kind": 4.5}, "타입 이름입니다: 4.5"),
    ({"machine": "office-32"}, "장비 이름입니다: 'office-32'(?s:.)*office-16"),
    ({"context": 0}, "context=0(?s:.)*1 이상의 정수"),
    ({"context": math.nan}, "context=nan"),
    ({"context": 10**30}, "1,000,000,000 이하"),
    ({"users": -1}, "users=-1"),
    ({"users": True}, "users=True"),
    ({"users": "4"}, "users='4'"),
])
def test_bad_start_is_told_in_korean(wrong, pattern):
    with pytest.raises(SettingError, match=pattern) as caught:
        Calculator(**wrong)
    assert re.search("[가-힣]", caught.value.what) and caught.value.why and caught.value.todo


# --- as a learner meets it --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(lab):
    need(CHROMIUM.exists(), "Chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    SHOTS.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in CELLS])
    notebook.metadata["kernelspec"] = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nbformat.write(notebook, lab[2] / "calculator.ipynb")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=OPTIONS)
        page = browser.new_page(viewport={"width": 1360, "height": 850}, locale="ko-KR")
        page.set_default_timeout(LIMIT)
        page.goto(lab[1].replace("/?token", "/lab/tree/calculator.ipynb?token"))
        page.locator(".jp-CodeCell .cm-content", has_text="# busy").wait_for()
        yield page
        page.screenshot(path=SHOTS / "calculator-last.png")
        browser.close()


def said(form, text: str) -> None:
    form.locator("[role=alert]", has_text=text).wait_for()


def test_by_keyboard_alone(page):
    form = run_cell(page, "calculator")
    said(form, "안 됩니다: 사무실 PC 8 GB에서 Qwen3 4B Q8_0, 4명")
    before = cells(page)
    for _ in range(40):
        press(page, "Tab")
        if focus(page):
            break
    assert focus(page) == "select-one"
    press(page, "Tab", "ArrowDown")
    said(form, "Qwen3 4B Q6_K, 4명")
    press(page, "Tab", "Tab", "Control+a")
    page.keyboard.type("1024")
    press(page, "Tab")
    said(form, "한 사람에 1,024토큰")
    press(page, "Control+a")
    page.keyboard.type("1")
    press(page, "Enter")
    said(form, "됩니다: 사무실 PC 8 GB에서 Qwen3 4B Q6_K, 1명")
    assert cells(page) == before
    labels = form.locator(".widget-label").all_inner_texts()
    assert [label for label in labels if label] == ["모델", "타입", "장비", "한 사람의 컨텍스트 (1토큰 이상)", "함께 쓰는 사람 (1명 이상)"]


def test_keys_leave_the_cells_alone(page):
    form = page.locator(".servinglab-calculator")
    before, fields = cells(page), form.locator("input, select")
    assert fields.count() == 5
    for i in range(fields.count()):
        fields.nth(i).focus()
        press(page, "ArrowDown", "b", "d", "d", "x")
        assert cells(page) == before, fields.nth(i).evaluate("e => e.outerHTML")


def test_a_number_out_of_range_is_put_right(page):
    form = page.locator(".servinglab-calculator")
    field = form.locator("input").nth(1)
    for typed, kept in (("-3", "1"), ("", "1"), ("99999999999", "1000000000")):
        field.fill(typed)
        press(page, "Enter")
        page.wait_for_function("([e, kept]) => e.value === kept", arg=[field.element_handle(), kept])
    said(form, "1,000,000,000명")


@pytest.mark.parametrize("theme", ["JupyterLab Dark", "JupyterLab Light"])
def test_legible_in_both_themes_and_at_150_percent(page, theme):
    page.set_viewport_size({"width": 1360, "height": 850})
    page.get_by_role("menuitem", name="설정").first.click()
    page.locator(".lm-Menu-item", has_text="테마").first.hover()
    page.locator(".lm-Menu-item", has_text=theme).first.click()
    page.wait_for_timeout(1500)
    page.set_viewport_size({"width": 1360 * 2 // 3, "height": 850 * 2 // 3})  # what a zoom of 150 % leaves
    form = run_cell(page, "calculator")
    said(form, "Q8_0, 4명")
    assert form.evaluate(CONTRAST) >= 4.5 and form.evaluate(OVERFLOW) == []
    form.locator("select").first.focus()
    page.screenshot(path=SHOTS / f"calculator-{theme.split()[1].lower()}.png")


def test_plain_form_is_printed(page):
    page.set_viewport_size({"width": 1360, "height": 850})
    cell = test_browser.cell_with(page, "# plain")
    cell.locator(".cm-content").click()
    page.keyboard.press("Control+Enter")
    cell.locator(".jp-OutputArea-output", has_text="됩니다: T4 16 GB (Turing)에서 Qwen3 4B Q4_K_M, 1명").wait_for()
