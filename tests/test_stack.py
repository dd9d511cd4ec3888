"""The picture of the five layers: its words, and in real Chromium that pointer and keyboard open it."""

from __future__ import annotations

import pytest

from servinglab.errors import SettingError
from servinglab.stack import Stack
from tests.helpers import need
from tests.test_browser import CHROMIUM, OPTIONS


def test_every_layer_says_what_it_does_who_else_does_it_and_which_lesson_runs_it():
    stack = Stack()
    assert [layer.name for layer in stack.layers] == ["모델 허브", "모델 포맷", "서빙 엔진", "API 표준", "배포와 운영"]
    for shown in (repr(stack), stack._repr_html_()):
        for layer in stack.layers:
            assert all(text in shown for text in (layer.does, layer.others, layer.here))
            assert all(stack.titles[number] in shown for number in layer.lessons) and layer.lessons


def test_top_layer_stands_on_top():
    shown = repr(Stack())
    assert shown.index("⑤") < shown.index("④") < shown.index("③") < shown.index("②") < shown.index("①")


def test_a_layer_that_lacks_something_is_named(tmp_path):
    (tmp_path / "stack.yaml").write_text("layers:\n  - name: 허브\n", encoding="utf-8")
    with pytest.raises(SettingError, match=r"stack\.yaml 파일의 layers\.0\."):
        Stack(tmp_path / "stack.yaml")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    need(CHROMIUM.exists(), "Chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = tmp_path_factory.mktemp("stack") / "stack.html"
    path.write_text(f"<!DOCTYPE html><meta charset='utf-8'><body>{Stack()._repr_html_()}", encoding="utf-8")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=OPTIONS)
        page = browser.new_page()
        page.goto(path.as_uri())
        yield page
        browser.close()


def open_layers(page) -> list[str]:
    return page.locator("details[open] summary").all_inner_texts()


def test_a_click_opens_a_layer_and_shuts_the_other(page):
    page.locator("summary", has_text="서빙 엔진").click()
    assert [text[0] for text in open_layers(page)] == ["③"]
    page.locator("summary", has_text="모델 허브").click()
    assert [text[0] for text in open_layers(page)] == ["①"]
    page.locator("summary", has_text="모델 허브").click()
    assert open_layers(page) == []


def test_the_keyboard_alone_opens_every_layer(page):
    page.reload()
    for place, key in zip("⑤④③②①", ("Enter", "Space", "Enter", "Space", "Enter"), strict=True):
        page.keyboard.press("Tab")
        page.keyboard.press(key)
        assert [text[0] for text in open_layers(page)] == [place]


def test_jupyterlab_is_told_to_leave_the_keys_of_each_heading_alone(page):
    assert page.locator("summary").count() == page.locator("summary[data-lm-suppress-shortcuts='true']").count() == 5
