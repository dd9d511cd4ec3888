"""The learner's copies in `work/`: made without outputs, never overwritten, never edited upstream."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import nbformat

from servinglab.curriculum import Lesson, lessons
from servinglab.errors import ServingLabError, SettingError, disk_errors
from servinglab.paths import INDEX, WORK

ANSWERS_TAG = "quiz-answers"
"""Cells with this tag hold a quiz's folded answers, which would spoil the learner's score."""

RECORD = ".copied.json"
"""In `work/`: for each notebook the digest of the lesson it was copied from."""

DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, nbformat.ValidationError)
"""What nbformat raises for a file that is no notebook; which of them depends on what is wrong."""


def learner_version(lesson: Lesson) -> dict[str, Any]:
    """The lesson without outputs and without the quiz's answers. Raises SettingError where the file is damaged."""
    try:
        notebook = nbformat.read(lesson.path, as_version=4)  # type: ignore[no-untyped-call]
        nbformat.validate(notebook)
    except DAMAGE as error:
        reason = str(error).partition("\n")[0][:200]
        raise SettingError(
            f"레슨 파일을 읽을 수 없습니다: {lesson.path.name}", reason, f"git checkout {lesson.path} 로 되살리세요."
        ) from error
    plain = copy.deepcopy(notebook)
    plain.cells = [cell for cell in plain.cells if ANSWERS_TAG not in cell.metadata.get("tags", [])]
    for cell in plain.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
            cell.metadata.pop("execution", None)
    result: dict[str, Any] = plain
    return result


def digest(lesson: Lesson) -> str:
    """Of what a learner gets: outputs may change upstream without a new version being announced."""
    cells = [(cell["cell_type"], cell["source"]) for cell in learner_version(lesson)["cells"]]
    return hashlib.sha256(json.dumps(cells, ensure_ascii=False).encode("utf-8")).hexdigest()[:16]


def read_record(work: Path) -> dict[str, str]:
    """Which version each copy was made from. A damaged record is forgotten: the copies themselves stay."""
    try:
        record = json.loads((work / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def write(path: Path, text: str) -> None:
    """Write whole or not at all."""
    part = path.with_name(path.name + ".part")
    with disk_errors(path, "SERVINGLAB_WORK"):
        try:
            part.write_text(text, encoding="utf-8")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


def copy_lesson(lesson: Lesson, work: Path) -> Path:
    """Write a fresh copy and note its version."""
    target = work / lesson.path.name
    write(target, nbformat.writes(learner_version(lesson)))  # type: ignore[no-untyped-call]
    write(work / RECORD, json.dumps({**read_record(work), lesson.path.name: digest(lesson)}, indent=2))
    return target


def prepare(work: Path = WORK) -> list[str]:
    """Copy the lessons that are missing in `work/` and write the table of lessons. Returns what to tell the learner.

    A damaged lesson is among what is told, and keeps nobody from the others.
    """
    with disk_errors(work / INDEX, "SERVINGLAB_WORK"):
        work.mkdir(parents=True, exist_ok=True)
    messages = []
    for lesson in lessons():
        if lesson.status != "ready":
            continue
        try:
            current = digest(lesson)
        except SettingError as error:
            messages.append(f"레슨 {lesson.id} {lesson.title}: {error.what} {error.todo}")
            continue
        if not (work / lesson.path.name).exists():
            messages.append(f"레슨 {lesson.id} {lesson.title}: 새로 복사한 파일은 {copy_lesson(lesson, work).name}입니다.")
        elif read_record(work).get(lesson.path.name) not in (None, current):
            messages.append(
                f"레슨 {lesson.id} {lesson.title}: 새 판이 나왔습니다. 쓰던 파일은 그대로 두었습니다. "
                f"새 판은 servinglab reset {lesson.id} 로 받습니다(쓰던 파일도 남습니다)."
            )
    write(work / INDEX, index())
    return messages


def reset(lesson: Lesson, work: Path = WORK) -> tuple[Path, Path | None]:
    """A fresh copy; the old one stays beside it under a dated name. Returns (fresh, old or None).

    Where the fresh one cannot be written, the old one keeps its name.
    """
    with disk_errors(work / INDEX, "SERVINGLAB_WORK"):
        work.mkdir(parents=True, exist_ok=True)
    target, old = work / lesson.path.name, None
    learner_version(lesson)  # a damaged lesson must fail before the learner's file is moved
    if target.exists():
        old = work / f"{target.stem}.{time.strftime('%Y%m%d-%H%M%S')}.ipynb"
        if old.exists():
            raise SettingError(f"{old.name} 파일이 이미 있습니다.", "방금 되돌린 레슨입니다.", "1초 뒤에 다시 실행하세요.")
        with disk_errors(target, "SERVINGLAB_WORK"):
            target.rename(old)
    try:
        return copy_lesson(lesson, work), old
    except ServingLabError:
        if old is not None:
            old.replace(target)
        raise


def index() -> str:
    """The table of lessons that JupyterLab opens on."""
    rows = []
    for lesson in lessons():
        link = f"[{lesson.title}]({lesson.path.name})" if lesson.status == "ready" else lesson.title
        time_needed = f"{lesson.minutes}분" if lesson.status == "ready" else "준비 중"
        rows.append(f"| {lesson.id} | {link} | {lesson.question} | {time_needed} |")
    return "\n".join([
        "# LLM 서빙, 직접 해 보기",
        "",
        "아래 표에서 제목을 누르면 레슨이 열립니다. 처음이라면 **00 워밍업**부터 시작하세요.",
        "",
        "| 번호 | 레슨 | 묻는 것 | 걸리는 시간 |",
        "|---|---|---|---|",
        *rows,
        "",
        "- 이 폴더(`work`)의 파일은 여러분의 것입니다. 마음껏 고치고 실행하세요.",
        "- 처음 상태로 되돌리려면 노트북 탭을 닫고 터미널(탭 이름들 오른쪽 끝의 +를 누르면 있습니다)에서 "
        "`servinglab reset 00`처럼 적습니다. 쓰던 파일은 날짜가 붙은 이름으로 남습니다.",
        "- 무언가 안 되면 터미널에서 `servinglab doctor`를 실행해 보세요. 무엇이 없는지, 어떻게 고치는지 알려 줍니다.",
        "",
        "이 차례는 과정을 열 때마다 새로 만들어집니다.",
        "",
    ])
