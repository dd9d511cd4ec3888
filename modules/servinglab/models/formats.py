"""Formats of model files and ways of quantizing, and which engine reads what. The list is `data/formats.yaml`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import date
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, Field

from servinglab.curriculum import Strict, checked, read
from servinglab.models import shapes
from servinglab.paths import DATA

Engine = Literal["llama.cpp", "Ollama", "vLLM", "ExLlama", "SGLang", "MLX"]

ENGINES: tuple[Engine, ...] = ("llama.cpp", "Ollama", "vLLM", "ExLlama", "SGLang", "MLX")

HOW = {"yes": "읽음", "part": "일부만", "convert": "바꾸어서", "plugin": "플러그인으로", "no": "못 읽음", "unknown": "—"}
"""How an engine takes a format, in words."""

WHAT = {"container": "그릇", "quantization": "방법"}


class Source(shapes.Source):
    """Where it stands, and when somebody looked."""

    date: date


class Reading(Strict):
    """How one engine takes a format; `note` says what a word cannot."""

    model_config = ConfigDict(frozen=True)
    how: Literal["yes", "part", "convert", "plugin", "no", "unknown"]
    note: str = ""

    def __str__(self) -> str:
        return f"{HOW[self.how]} ({self.note})" if self.note else HOW[self.how]


class Format(Strict):
    """A container for weights or a way of making them small."""

    model_config = ConfigDict(frozen=True)
    id: str
    name: str
    what: Literal["container", "quantization"]
    summary: str
    bits: str
    made_with: str
    reads: dict[Engine, Reading]
    sources: list[Source] = Field(min_length=1)


class _Formats(Strict):
    formats: list[Format]


@cache
def formats(path: Path = DATA / "formats.yaml") -> dict[str, Format]:
    """The known formats by id, as "gguf". Raises SettingError that names file and field."""
    return {entry.id: entry for entry in checked(path, _Formats, read(path)).formats}


def table(path: Path = DATA / "formats.yaml") -> str:
    """Two Markdown tables, what each is and which engine reads it; the sources are folded below, or they would fill the screen."""
    known = formats(path).values()
    what = rows(("이름", "하는 일", "가중치당 비트", "만드는 도구"), [(e.summary, e.bits, e.made_with) for e in known], known)
    who = rows(("이름", *ENGINES), [[str(entry.reads[engine]) for engine in ENGINES] for entry in known], known)
    sources = "\n".join(f"- {entry.name}: {cited(entry)}" for entry in known)
    note = "—는 읽는다는 근거도 읽지 못한다는 근거도 찾지 못한 칸입니다."
    return f"{what}\n\n{who}\n\n{note}\n\n<details><summary>출처</summary>\n\n{sources}\n\n</details>"


def rows(heads: Sequence[str], cells: Iterable[Sequence[str]], entries: Iterable[Format]) -> str:
    """A Markdown table whose first column names the entries."""
    lines = [heads, ("---",) * len(heads), *((f"**{entry.name}**<br>{WHAT[entry.what]}", *line) for entry, line in zip(entries, cells, strict=True))]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("~", r"\~")  # two of them would strike out


def cited(entry: Format) -> str:
    """The sources of an entry as links, those that nobody has opened marked."""
    links = [f"[{source.name}]({source.url})" + ("" if source.checked else " (확인 전)") for source in entry.sources]
    latest = max(source.date for source in entry.sources)
    return f"{', '.join(links)} · {latest:%Y-%m-%d}"
