"""Make `notebooks/*.ipynb` from `notebooks/text/*.md` (MyST), execute them, keep the outputs.

    python tools/build_lessons.py        all lessons
    python tools/build_lessons.py 00     one
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from servinglab import quiz
from servinglab.curriculum import Lesson, lessons
from servinglab.paths import NOTEBOOKS, ROOT
from servinglab.workspace import ANSWERS_TAG

TEXT = NOTEBOOKS / "text"
CELL_LIMIT = 120
QUIZ = re.compile(r'quiz\.show\("(\d\d)"\)')


def from_text(lesson: Lesson) -> Any:
    """The notebook that the text twin describes, without outputs. A cell's id is a digest of its content: stable."""
    notebook = jupytext.read(TEXT / f"{lesson.notebook}.md", fmt="md:myst")
    notebook.cells = [part for cell in notebook.cells for part in (cell, *answers(cell))]
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        name = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:8]
        seen[name] = seen.get(name, 0) + 1
        cell["id"] = name if seen[name] == 1 else f"{name}-{seen[name]}"
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def answers(cell: Any) -> list[Any]:
    """Behind a quiz's cell the same questions with folded answers, for those who read without a kernel."""
    found = QUIZ.search(cell.source) if cell.cell_type == "code" else None
    if found is None:
        return []
    return [nbformat.v4.new_markdown_cell(quiz.markdown(quiz.load(found[1])), metadata={"tags": [ANSWERS_TAG]})]


def neutral(value: Any) -> Any:
    """Outputs without the builder's own folders, which mean nothing to a reader."""
    if isinstance(value, str):
        for folder, shown in ((ROOT, "/home/learner/llm-serving"), (Path.home(), "/home/learner")):
            value = value.replace(str(folder), shown)
        return value
    if isinstance(value, list):
        return [neutral(part) for part in value]
    if isinstance(value, dict):
        return {key: neutral(part) for key, part in value.items()}
    return value


def build(lesson: Lesson) -> None:
    """Write one lesson, executed. Raises CellExecutionError with the cell that failed."""
    notebook = from_text(lesson)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SERVINGLAB_HOME"] = folder  # the builder's own progress must not show in a lesson
        client = NotebookClient(
            notebook, timeout=CELL_LIMIT, kernel_name="python3", record_timing=False, resources={"metadata": {"path": folder}}
        )
        client.on_cell_start = lambda cell, cell_index: print(f"  셀 {cell_index + 1}/{len(notebook.cells)}", flush=True)
        client.execute()
    seconds = time.perf_counter() - began
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [nbformat.from_dict(neutral(output)) for output in cell.outputs]
            for output in cell.outputs:  # beside a widget stands its plain form, which a reader without a kernel can read
                output.get("data", {}).pop("application/vnd.jupyter.widget-view+json", None)
            if QUIZ.search(cell.source):
                cell.outputs = []  # a saved widget shows "model not found"; the answers behind it stand in its place
    notebook.metadata["recorded"] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, no GPU",
    }
    notebook.metadata.pop("widgets", None)  # a saved widget shows "model not found" where no kernel runs
    nbformat.validate(notebook)
    nbformat.write(notebook, lesson.path)
    print(f"{lesson.path.name}: {len(notebook.cells)}개 셀, {seconds:.1f}초", flush=True)


def main() -> int:
    wanted = sys.argv[1:]
    os.environ["CI"] = "true"  # a lesson is only built from a run without fallbacks
    for lesson in lessons():
        if lesson.status == "ready" and (not wanted or lesson.id in wanted):
            try:
                build(lesson)
            except CellExecutionError as error:
                print(f"{lesson.notebook}: 셀이 실패했습니다.\n{error}", file=sys.stderr)
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
