"""The learner's copies in `work/`: without outputs and answers, never overwritten, never lost."""

from __future__ import annotations

import re
import subprocess

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from servinglab import curriculum, workspace
from servinglab.curriculum import Lesson
from servinglab.errors import NotEnoughRoom, SettingError
from tests.helpers import need, small_disk

EDITED = "배우는 사람이 고친 파일"
DAMAGED = {
    "empty": b"",
    "no object": b"[]",
    "null": b"null",
    "an empty object": b"{}",
    "no cells": b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}}',
    "a cell that is none": b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [5]}',
    "a cell without source": b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [{"cell_type": "code"}]}',
    "cut short": b'{"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [',
    "conflict": b"<<<<<<< HEAD\n{}\n=======\n",
    "not UTF-8": b"\xff\xfe{\x00",
}


def entry(number: str, status: str = "ready") -> Lesson:
    return Lesson(
        id=number, notebook=f"{number}_lesson", title=f"제목 {number}", question=f"질문 {number}?", subject="", mirrors="",
        minutes=30, status=status,
    )  # fmt: skip


LESSONS = [entry("00"), entry("01"), entry("02", "planned")]


def publish(lesson: Lesson, text: str = "첫 판", output: str = "출력", size: int = 0) -> None:
    """Write a lesson upstream: executed, with a quiz's folded answers, `size` bytes of prose."""
    executed = new_code_cell(
        "1 + 1",
        id="code",
        execution_count=7,
        outputs=[new_output("execute_result", {"text/plain": output}, execution_count=7)],
        metadata={"execution": {"iopub.status.busy": "2026-11-21T00:00:00Z"}, "tags": ["kept"]},
    )
    cells = [
        new_markdown_cell(f"# {text}" + "가" * (size // 3), id="title"),
        executed,
        new_markdown_cell("정답은 c입니다", id="answers", metadata={"tags": ["quiz-answers"]}),
        new_code_cell("answer = 'c'", id="code-answers", metadata={"tags": ["other", "quiz-answers"]}),
        new_markdown_cell("끝", id="end"),
    ]
    nbformat.write(new_notebook(cells=cells), lesson.path)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A learner's folder, with a space and Hangul in its path, and a course of two ready lessons."""
    monkeypatch.setattr(curriculum, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(workspace, "lessons", lambda: LESSONS)
    (tmp_path / "notebooks").mkdir()
    for lesson in LESSONS[:2]:
        publish(lesson)
    return tmp_path / "홈 폴더" / "내 작업"


FIRST = LESSONS[0]


def files(work) -> set[str]:
    return {path.name for path in work.iterdir()}


# --- what a copy holds ------------------------------------------------------------------------------------------------


def test_copies_what_is_ready_and_says_so(work):
    messages = workspace.prepare(work)
    assert files(work) == {"00_lesson.ipynb", "01_lesson.ipynb", workspace.INDEX, workspace.RECORD}
    assert len(messages) == 2 and "제목 00" in messages[0] and "00_lesson.ipynb" in messages[0]
    assert workspace.prepare(work) == [], "the second time there is nothing to say"


def test_copy_has_no_outputs_counts_or_answers(work):
    workspace.prepare(work)
    copy = nbformat.read(work / "00_lesson.ipynb", as_version=4)
    nbformat.validate(copy)
    assert [cell.id for cell in copy.cells] == ["title", "code", "end"]
    assert [cell.source for cell in copy.cells] == ["# 첫 판", "1 + 1", "끝"]
    code = copy.cells[1]
    assert code.outputs == [] and code.execution_count is None and code.metadata == {"tags": ["kept"]}
    text = (work / "00_lesson.ipynb").read_text(encoding="utf-8")
    assert "출력" not in text and "정답은" not in text and "2026-11-21" not in text


def test_making_a_copy_leaves_the_lesson_as_it_is(work):
    before = FIRST.path.read_bytes()
    workspace.prepare(work)
    workspace.reset(FIRST, work)
    assert FIRST.path.read_bytes() == before


@pytest.mark.parametrize("lesson", [one for one in curriculum.lessons() if one.status == "ready"], ids=lambda one: one.id)
def test_real_lesson(lesson, tmp_path):
    """The published lesson, as `make lab` copies it."""
    need(lesson.path.exists(), f"{lesson.path.name} (make lessons)")
    workspace.prepare(tmp_path / "내 작업")
    copy = nbformat.read(tmp_path / "내 작업" / lesson.path.name, as_version=4)
    nbformat.validate(copy)
    upstream = nbformat.read(lesson.path, as_version=4).cells
    assert any(cell.get("outputs") for cell in upstream), "upstream outputs are kept"
    wanted = [cell.source for cell in upstream if "quiz-answers" not in cell.metadata.get("tags", [])]
    assert [cell.source for cell in copy.cells] == wanted
    code = [cell for cell in copy.cells if cell.cell_type == "code"]
    assert code and all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_index_lists_all_lessons_and_links_the_ready_ones(work):
    workspace.prepare(work)
    index = (work / workspace.INDEX).read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d\d) \| (.+?) \| (.+?) \| (.+?) \|$", index, re.MULTILINE)
    assert rows == [
        ("00", "[제목 00](00_lesson.ipynb)", "질문 00?", "30분"),
        ("01", "[제목 01](01_lesson.ipynb)", "질문 01?", "30분"),
        ("02", "제목 02", "질문 02?", "준비 중"),
    ]
    links = re.findall(r"\]\((.+?)\)", index)
    assert links and all((work / link).is_file() for link in links)


def test_index_follows_the_curriculum(work, monkeypatch):
    """It is ours: written anew each time."""
    workspace.prepare(work)
    (work / workspace.INDEX).write_text("옛 차례", encoding="utf-8")
    monkeypatch.setattr(workspace, "lessons", lambda: LESSONS[:1])
    workspace.prepare(work)
    assert "01_lesson" not in (work / workspace.INDEX).read_text(encoding="utf-8")


# --- the learner's file is the learner's ------------------------------------------------------------------------------


def test_never_overwrites_an_edited_copy(work):
    workspace.prepare(work)
    (work / "00_lesson.ipynb").write_text(EDITED, encoding="utf-8")
    publish(FIRST, "둘째 판")
    workspace.prepare(work)
    assert (work / "00_lesson.ipynb").read_text(encoding="utf-8") == EDITED


def test_copies_again_what_the_learner_deleted(work):
    workspace.prepare(work)
    (work / "00_lesson.ipynb").unlink()
    assert len(workspace.prepare(work)) == 1 and (work / "00_lesson.ipynb").is_file()


def test_a_changed_lesson_is_announced_until_it_is_fetched(work):
    workspace.prepare(work)
    publish(FIRST, "둘째 판")
    for _ in range(2):
        (message,) = workspace.prepare(work)
        assert "제목 00" in message and "새 판" in message and "servinglab reset 00" in message
    workspace.reset(FIRST, work)
    assert workspace.prepare(work) == []


def test_changed_outputs_or_answers_are_not_announced(work):
    workspace.prepare(work)
    publish(FIRST, output="다른 출력")
    notebook = nbformat.read(FIRST.path, as_version=4)
    notebook.cells[2].source, notebook.cells[1].execution_count = "정답 설명을 고침", 9
    nbformat.write(notebook, FIRST.path)
    assert workspace.prepare(work) == []


def test_reset_gives_a_fresh_copy_and_keeps_the_old_beside_it(work):
    workspace.prepare(work)
    (work / "00_lesson.ipynb").write_text(EDITED, encoding="utf-8")
    fresh, old = workspace.reset(FIRST, work)
    assert fresh == work / "00_lesson.ipynb" and nbformat.read(fresh, as_version=4).cells[0].source == "# 첫 판"
    assert old is not None and old.parent == work and re.fullmatch(r"00_lesson\.\d{8}-\d{6}\.ipynb", old.name)
    assert old.read_text(encoding="utf-8") == EDITED


def test_reset_where_there_is_nothing_yet(work):
    fresh, old = workspace.reset(FIRST, work)
    assert fresh.is_file() and old is None


def test_two_resets_within_a_second_lose_nothing(work, monkeypatch):
    workspace.prepare(work)
    monkeypatch.setattr(workspace.time, "strftime", lambda _: "20261121-120000")
    (work / "00_lesson.ipynb").write_text(EDITED, encoding="utf-8")
    _, old = workspace.reset(FIRST, work)
    (work / "00_lesson.ipynb").write_text("그 뒤에 고친 파일", encoding="utf-8")
    with pytest.raises(SettingError, match="이미 있습니다"):
        workspace.reset(FIRST, work)
    assert old is not None and old.read_text(encoding="utf-8") == EDITED
    assert (work / "00_lesson.ipynb").read_text(encoding="utf-8") == "그 뒤에 고친 파일"


# --- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damaged_lesson_leaves_the_learners_file_alone(work, content):
    """And holds nobody up: `make lab` says which file it is and goes on to the other lessons."""
    workspace.prepare(work)
    (work / "00_lesson.ipynb").write_text(EDITED, encoding="utf-8")
    (work / "01_lesson.ipynb").unlink()
    FIRST.path.write_bytes(content)
    damaged, copied = workspace.prepare(work)
    assert "00_lesson.ipynb" in damaged and "읽을 수 없습니다" in damaged and "git checkout" in damaged
    assert "제목 01" in copied and (work / "01_lesson.ipynb").is_file()
    with pytest.raises(SettingError, match=r"00_lesson\.ipynb"):
        workspace.reset(FIRST, work)
    assert (work / "00_lesson.ipynb").read_text(encoding="utf-8") == EDITED
    assert [name for name in files(work) if name.startswith("00_")] == ["00_lesson.ipynb"]


def test_missing_lesson(work):
    FIRST.path.unlink()
    messages = workspace.prepare(work)
    assert "00_lesson.ipynb" in messages[0] and not (work / "00_lesson.ipynb").exists()
    assert (work / "01_lesson.ipynb").is_file()


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b'{"00_lesson.ipynb": ', b"\xff\xfe", b'{"00_lesson.ipynb": 5}'])
def test_damaged_record_costs_no_copy(work, content):
    workspace.prepare(work)
    (work / "00_lesson.ipynb").write_text(EDITED, encoding="utf-8")
    (work / workspace.RECORD).write_bytes(content)
    workspace.prepare(work)
    assert (work / "00_lesson.ipynb").read_text(encoding="utf-8") == EDITED
    workspace.reset(FIRST, work)
    publish(FIRST, "둘째 판")
    assert any("새 판" in message for message in workspace.prepare(work)), "the record is whole again"


# --- the disk ---------------------------------------------------------------------------------------------------------


def fill(work) -> None:
    """Leave not one free block."""
    with (work / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError):
        while filler.write(bytes(4096)):
            pass


def test_full_disk_leaves_no_half_copy(work):
    publish(FIRST, size=200_000)
    with small_disk(work, "100k"):
        with pytest.raises(NotEnoughRoom, match=r"디스크가 가득 차서(?s:.)*자리를 비운 뒤"):
            workspace.prepare(work)
        assert not [name for name in files(work) if name.startswith("00_")]


def test_full_disk_at_reset_leaves_the_learners_file_in_its_place(work):
    with small_disk(work, "100k"):
        workspace.prepare(work)
        (work / "00_lesson.ipynb").write_text(EDITED, encoding="utf-8")
        fill(work)
        with pytest.raises(NotEnoughRoom):
            workspace.reset(FIRST, work)
        assert (work / "00_lesson.ipynb").read_text(encoding="utf-8") == EDITED
        (work / "filler").unlink()
        _, old = workspace.reset(FIRST, work)
        assert old is not None and old.read_text(encoding="utf-8") == EDITED


def test_read_only_folder_is_told(work):
    """A hub's learner whose folder was mounted read-only; the message names the setting that helps."""
    with small_disk(work, "1m"):
        workspace.prepare(work)
        subprocess.run(["mount", "-o", "remount,ro", str(work)], check=True)
        for attempt in (lambda: workspace.prepare(work), lambda: workspace.reset(FIRST, work)):
            with pytest.raises(SettingError, match=r"권한이 없습니다(?s:.)*SERVINGLAB_WORK"):
                attempt()
        assert (work / "00_lesson.ipynb").is_file()


@pytest.mark.parametrize("below", ["", "더 아래"])
def test_a_file_where_the_folder_should_be(work, below):
    work.parent.mkdir(parents=True)
    work.write_text("폴더가 아닙니다", encoding="utf-8")
    with pytest.raises(SettingError, match="내 작업"):
        workspace.prepare(work / below if below else work)
    assert work.read_text(encoding="utf-8") == "폴더가 아닙니다"
