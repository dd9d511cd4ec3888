"""The lessons as files: text twin and notebook agree, nothing is missing, and a fault turns a cell red."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from servinglab import engines, programs
from servinglab.curriculum import lessons
from servinglab.paths import DATA, NOTEBOOKS
from tests.helpers import ROOT, can_isolate, need

sys.path.insert(0, str(ROOT / "tools"))
import build_lessons

READY = [lesson for lesson in lessons() if lesson.status == "ready"]


def sources(notebook) -> list[tuple[str, str, str, list[str]]]:
    return [(c["id"], c.cell_type, c.source, c.metadata.get("tags", [])) for c in notebook.cells]


@pytest.mark.parametrize("lesson", READY, ids=lambda lesson: lesson.id)
def test_no_drift_between_text_and_notebook(lesson):
    """Sources and ids, not outputs. `make lessons` makes them agree again."""
    assert sources(nbformat.read(lesson.path, as_version=4)) == sources(build_lessons.from_text(lesson))


def test_curriculum_lists_every_notebook_and_text():
    names = {lesson.notebook for lesson in READY}
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == names
    assert {path.stem for path in (NOTEBOOKS / "text").glob("*.md")} == names
    assert [lesson.id for lesson in lessons()] == [f"{n:02d}" for n in range(9)]


@pytest.mark.parametrize("lesson", READY, ids=lambda lesson: lesson.id)
def test_lesson_begins_and_was_run_from_top_to_bottom(lesson):
    notebook = nbformat.read(lesson.path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert any(f'lesson.begin("{lesson.id}")' in cell.source for cell in code)
    assert not [output for cell in code for output in cell.outputs if output.output_type == "error"]
    assert notebook.metadata["recorded"]["date"]


@pytest.mark.parametrize("lesson", READY, ids=lambda lesson: lesson.id)
def test_outputs_hold_no_key_and_no_folder_of_the_builder(lesson):
    text = lesson.path.read_text(encoding="utf-8")
    assert str(ROOT) not in text and f"{Path.home()}/" not in text.replace("/home/learner", "")
    assert not re.search(r"Bearer [A-Za-z0-9_-]{16,}", text)


@pytest.mark.parametrize("lesson", READY, ids=lambda lesson: lesson.id)
def test_every_section_predicts_runs_explains_and_checks(lesson):
    text = (NOTEBOOKS / "text" / f"{lesson.notebook}.md").read_text(encoding="utf-8")
    for word in ("**예측.**", "**실행", "**왜?**", "**확인.**", "비유", "용어 짚기", "실무 감각", "교훈", "심화 학습"):
        assert word in text, word
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert not re.search(r"\d+(\.\d+)? ?(ms|tok/s|토큰/초|밀리초)", prose), "measured numbers belong to a cell"


def parts(lesson) -> list[tuple[str, bool, str]]:
    """Of every code cell its section, whether that or its part of it is marked 더 깊이, and its source."""
    cells, section, part = [], "", ""
    for cell in build_lessons.from_text(lesson).cells:
        for heading in re.findall(r"^###+ .*", cell.source, re.MULTILINE) if cell.cell_type == "markdown" else ():
            section, part = (heading, "") if heading.startswith("### ") else (section, heading)
        if cell.cell_type == "code":
            cells.append((section, "(더 깊이)" in section + part, cell.source))
    return cells


LEFT_OUT = [
    (lesson, section)
    for lesson in READY
    for section in [None, *dict.fromkeys(section for section, deep, _ in parts(lesson) if deep)]
]


@pytest.mark.parametrize(("lesson", "section"), LEFT_OUT, ids=[f"{lesson.id} {(section or 'all')[:6]}" for lesson, section in LEFT_OUT])
def test_whoever_leaves_out_the_deeper_parts_lacks_no_name(lesson, section, tmp_path):
    """All of them or those of one section. Ruff reads the cells that remain, and finds each name that the others would have made."""
    rest = [source for place, deep, source in parts(lesson) if not (deep and section in (None, place))]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in rest])
    nbformat.write(notebook, tmp_path / "short.ipynb")
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache", "--select", "F821", str(tmp_path / "short.ipynb")]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_short_way_through_lesson_02():
    """An hour by the lesson's own table, with five of the nine exercises."""
    lesson = next(lesson for lesson in READY if lesson.id == "02")
    text = (NOTEBOOKS / "text" / f"{lesson.notebook}.md").read_text(encoding="utf-8")
    whole = dict(re.findall(r"(\d\d|CHECK)절? (\d+)분", re.search(r"^\| 걸리는 시간 .+$", text, re.MULTILINE).group()))
    short = dict(re.findall(r"(\d\d|CHECK)절? (\d+)분", re.search(r"^\| 모두 하는 곳 .+$", text, re.MULTILINE).group()))
    assert sum(map(int, whole.values())) == 120 and sum(map(int, short.values())) == 60
    deep = {section[4:6] for section, deep, _ in parts(lesson) if deep}
    assert {section for section in short if short[section] != whole[section]} == deep & set(short), "what has no deeper part takes as long"
    sheet = (DATA / "facilitator" / "02.md").read_text(encoding="utf-8").split("**더 깊이**")[0]
    assert dict(re.findall(r"(\d\d|CHECK)\D*? (\d+)분", sheet.split("60분입니다")[1])) == short
    assert len(re.findall(r'exercise\("02-\d"', "\n".join(source for _, deep, source in parts(lesson) if not deep))) == 5
    assert len(re.findall(r'exercise\("02-\d"', text)) == 9


# --- what turns a cell red --------------------------------------------------------------------------------------------


def verdict(folder: Path, source: str, environment: dict[str, str] | None = None, prefix: tuple[str, ...] = ()) -> str:
    """Run one cell through nbval as CI does; returns pytest's output, whose last line counts."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    nbformat.write(notebook, folder / "probe.ipynb")
    return nbval(folder / "probe.ipynb", environment, prefix)


def nbval(path: Path, environment: dict[str, str] | None = None, prefix: tuple[str, ...] = ()) -> str:
    command = [*prefix, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(ROOT)]
    command += ["-c", str(ROOT / "pyproject.toml"), "--confcutdir", str(ROOT), "-p", "conftest", str(path)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "CI": "true", **(environment or {})},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )
    return done.stdout + done.stderr


def test_a_plain_cell_is_green(tmp_path):
    assert "1 passed" in verdict(tmp_path, "print(1)\n!echo good")


@pytest.mark.parametrize(
    "source",
    [
        "!curl -sS http://127.0.0.1:9/",
        "lines = !ls /no/such/folder",
        "%no_such_magic",
        "%%bash\nfalse",
        'from servinglab.exercises import exercise\nexercise("00-2").check("a")',
        'from servinglab import lesson, curriculum\nlesson.show_recording(curriculum.find("00"))',
        "1 / 0",
    ],
    ids=["failing !curl", "failing x = !", "unknown magic", "failing %%bash", "wrong check", "shown recording", "exception"],
)
def test_a_fault_turns_its_cell_red(source, tmp_path):
    assert "1 failed" in verdict(tmp_path, source)


def test_without_llama_server_the_notebooks_are_red(tmp_path):
    """The programs are hidden for real: an empty folder is mounted over theirs in a namespace of its own."""
    need(can_isolate(), "unshare, to hide llama-server")
    folder = programs.find().parent
    hide = f'mount -t tmpfs tmpfs "{folder}" && exec "$@"'
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if Path(part) != folder)
    shown = nbval(READY[0].path, {"PATH": path}, ("unshare", "-rm", "sh", "-c", hide, "sh"))
    assert re.search(r"\d+ failed", shown) and "EngineNotFound" in shown


def test_without_llama_server_a_learner_sees_the_recording(tmp_path):
    """Outside CI: no traceback, what is missing, how to get it, and the recorded run with date and machine."""
    need(can_isolate(), "unshare, to hide llama-server")
    folder = programs.find().parent
    hide = f'mount -t tmpfs tmpfs "{folder}" && exec "$@"'
    environment = {**os.environ, "PATH": os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if Path(p) != folder)}
    environment.pop("CI", None)
    code = 'from servinglab import lesson; lesson.begin("00")'
    command = ["unshare", "-rm", "sh", "-c", hide, "sh", sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=60)
    recorded = nbformat.read(READY[0].path, as_version=4).metadata["recorded"]
    assert "[없음]" in done.stdout and "make lab" in done.stdout
    assert "기록된 실행" in done.stdout and recorded["date"] in done.stdout and recorded["machine"] in done.stdout
    assert "Traceback" not in done.stderr


def test_lesson_and_browser_need_no_network():
    """Once with nothing but loopback."""
    need(can_isolate(), "unshare, to cut the network")
    if os.environ.get("SERVINGLAB_OFFLINE_RUN"):
        pytest.skip("this is the run without network")
    up = 'ip link set lo up && exec "$@"'
    command = ["unshare", "-rn", "sh", "-c", up, "sh", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    command += [str(READY[0].path), "tests/test_browser.py", "-k", "not lesson_0"]  # the others start nothing else than the first
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=420)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "skipped" not in done.stdout.splitlines()[-1], done.stdout[-2000:]


def test_prints_the_exact_command(capsys):
    with engines.start() as server:
        assert server.command in capsys.readouterr().out
