"""README's table of lessons, from `data/curriculum.yaml`.

    python tools/readme_table.py            print the table
    python tools/readme_table.py --write    put it into README.md, between the two markers
"""

from __future__ import annotations

import sys

from servinglab.curriculum import Lesson, lessons
from servinglab.paths import ROOT

README = ROOT / "README.md"
BEGIN, END = "<!-- lessons -->", "<!-- /lessons -->"
STATUS = {"ready": "열려 있음", "planned": "준비 중"}


def row(lesson: Lesson) -> str:
    title = f"[{lesson.title}](notebooks/{lesson.path.name})" if lesson.status == "ready" else lesson.title
    time_needed = "미정" if lesson.minutes is None else f"{lesson.minutes}분"
    return f"| {lesson.id} | {title} | {lesson.question} | {time_needed} | {STATUS[lesson.status]} |"


def table() -> str:
    """The table in Markdown, without a newline at its end; lessons that can be taken are links."""
    return "\n".join(["| 번호 | 레슨 | 묻는 것 | 시간 | 상태 |", "|---|---|---|---|---|", *map(row, lessons())])


def with_table(text: str) -> str:
    """README's text with the table between the markers. Raises ValueError unless each marker occurs once, in order."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"README.md must hold {BEGIN} and, after it, {END}, each once")
    head, rest = text.split(BEGIN)
    return f"{head}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


def main() -> int:
    if sys.argv[1:] not in ([], ["--write"]):
        print(__doc__, file=sys.stderr)
        return 2
    if sys.argv[1:]:
        README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
