"""The list of formats: complete, sourced, and a table that Markdown renders."""

from __future__ import annotations

import re
from datetime import date

import pytest

from servinglab.errors import SettingError
from servinglab.models import formats
from servinglab.models.gguf_file import BLOCKS
from servinglab.paths import DATA


def test_what_the_lesson_names_is_there():
    assert list(formats.formats()) == ["gguf", "safetensors", "awq", "gptq", "fp8", "mxfp4", "nvfp4", "exl2", "exl3"]


@pytest.mark.parametrize("entry", formats.formats().values(), ids=lambda entry: entry.id)
def test_every_engine_is_told_of_and_every_claim_has_a_source(entry):
    assert list(entry.reads) == list(formats.ENGINES)
    assert any(source.checked for source in entry.sources)
    assert all(source.date <= date.today() for source in entry.sources)
    assert any(reading.how in ("yes", "part") for reading in entry.reads.values())


def test_bits_agree_with_the_blocks_of_ggml():
    blocks = {name: size * 8 / weights for name, weights, size in BLOCKS.values()}
    known = formats.formats()
    assert float(known["mxfp4"].bits) == blocks["MXFP4"] and float(known["nvfp4"].bits) == blocks["NVFP4"]
    assert known["gguf"].bits.startswith(f"{min(blocks.values()):.1f}~{blocks['F32']:.0f} ")
    assert not any("FP8" in name for name in blocks) and known["fp8"].reads["llama.cpp"].how == "no"


def test_tables_have_a_row_for_each_and_the_sources_below():
    table, sources = formats.table().split("<details>")
    told = re.findall(r"^- (.+)$", sources, re.MULTILINE)
    first, second, note = table.strip().split("\n\n")
    assert "—" in second and note.startswith("—")
    what, who = ([re.split(r"(?<!\\)\|", row)[1:-1] for row in part.splitlines()] for part in (first, second))
    assert {len(row) for row in what} == {4} and {len(row) for row in who} == {7}
    for first, second, line, entry in zip(what[2:], who[2:], told, formats.formats().values(), strict=True):
        assert first[0] == second[0] == f" **{entry.name}**<br>{formats.WHAT[entry.what]} "
        assert line.startswith(entry.name) and entry.summary in first[1]
        assert re.findall(r"\]\((https://[^)]+)\)", line) == [source.url for source in entry.sources]
        assert line.count("확인 전") == sum(not source.checked for source in entry.sources)
    assert not re.search(r"(?<!\\)~", table), "two of them would strike the text between them through"


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        ("what: container", "what: box", "formats.0.what"),
        ('{how: "yes"}', "{how: maybe}", "formats.0.reads.llama.cpp.how"),
        ("https://github.com", "ftp://github.com", "formats.0.sources.0.url"),
        ("date: 2026-11-26", "date: soon", "formats.0.sources.0.date"),
        ("      Ollama:", "      Olama:", "formats.0.reads"),
    ],
)
def test_a_mistake_in_the_list_is_told_by_its_place(old, new, field, tmp_path):
    path = tmp_path / "formats.yaml"
    path.write_text((DATA / "formats.yaml").read_text(encoding="utf-8").replace(old, new, 1), encoding="utf-8")
    with pytest.raises(SettingError, match=field.replace(".", r"\.")):
        formats.formats(path)
