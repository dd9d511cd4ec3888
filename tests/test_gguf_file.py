"""Model files: what their headers say, what is refused and why, and that no file kills the process that reads it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import gguf
import numpy as np
import pytest

from servinglab import models
from servinglab.errors import ModelFileError
from servinglab.models import convert, gguf_file, safetensors_file
from servinglab.paths import TUTOR
from tests import mutants
from tests.helpers import ROOT, need

PLACE = re.compile(r"^왜: [\d,]+바이트 위치의 \S.*: ", re.MULTILINE)
"""Every refusal names a field and where it stands."""


@pytest.fixture(scope="module")
def tutor():
    return models.gguf_path("tutor")


def written(folder, data):
    path = folder / "모델.gguf"
    path.write_bytes(data)
    return path


def outcomes(kind, folder, cases):
    """(label, must be refused, seconds, error) of every case, read in a process of its own; and its memory in bytes."""
    need(sys.platform == "linux", "Linux, to limit a process's memory")
    folder.mkdir()
    told = mutants.write_cases(folder, cases)
    done = subprocess.run([sys.executable, "-m", "tests.mutants", kind, folder], cwd=ROOT, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr[-2000:]
    found, memory = json.loads(done.stdout)
    shutil.rmtree(folder)
    return [(label, bad, seconds, error) for (label, bad), (seconds, error) in zip(told, found, strict=True)], memory


HANGS = 10.0
"""Seconds of processor time that tell a reader that hangs from one on a busy machine. `make bench` prints how long it takes."""


def require_refusals(found, least):
    """Enough of them must be refused; those that must are, and every refusal names field and place."""
    assert len(found) >= least
    assert len({label for label, *_ in found}) > 0.9 * len(found)
    assert [label for label, bad, _, error in found if bad and not error] == []
    assert [(label, error) for label, _, _, error in found if error and not PLACE.search(error)] == []
    assert max(seconds for _, _, seconds, _ in found) < HANGS


# --- what is read -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_type", ["F16", "Q8_0"])
def test_reads_what_the_gguf_package_reads(file_type):
    path = models.gguf_path("tutor", file_type)
    ours, theirs = gguf_file.read(path), gguf.GGUFReader(path)
    fields = {name: field for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert [entry.key for entry in ours.metadata] == list(fields)
    for entry in ours.metadata:
        assert list(entry.value) == fields[entry.key].contents() if "array" in entry.kind else entry.value == fields[entry.key].contents()
        assert entry.offset == fields[entry.key].offset
    assert (ours.version, ours.alignment, ours.data_offset, ours.size) == (3, 32, theirs.data_offset, path.stat().st_size)
    for tensor, other in zip(ours.tensors, theirs.tensors, strict=True):
        assert (tensor.name, tensor.kind, tensor.offset, tensor.size) == (
            other.name, other.tensor_type.name, other.data_offset, other.n_bytes,
        )
        assert list(tensor.shape) == other.shape.tolist()[::-1] and tensor.weights == other.n_elements
        assert np.array_equal(ours.blocks(tensor), other.data.view(np.uint8).reshape(ours.blocks(tensor).shape))


def test_shapes_and_bits_are_worked_by_hand(tutor):
    file = gguf_file.read(models.gguf_path("tutor", "Q8_0"))
    tensors = {tensor.name: tensor for tensor in file.tensors}
    down, norm = tensors["blk.0.ffn_down.weight"], tensors["output_norm.weight"]
    assert down.shape == (256, 768) and file.blocks(down).shape == (256, 768 // 32 * 34) and down.bits_per_weight == 8.5
    assert norm.shape == (256,) and file.blocks(norm).shape == (1, 1024) and norm.bits_per_weight == 32
    assert file.bits_per_weight == 8 * sum(t.size for t in file.tensors) / 4_196_608
    assert file.get("llama.block_count") == 4 and file.get("no.such.key") is None


def test_every_type_of_value_is_read(tmp_path):
    entries = [
        ("u8", "uint8", 255), ("i8", "int8", -128), ("u16", "uint16", 65535), ("i16", "int16", -32768), ("u32", "uint32", 2**32 - 1),
        ("i32", "int32", -(2**31)), ("u64", "uint64", 2**64 - 1), ("i64", "int64", -(2**63)), ("f32", "float32", 0.5),
        ("f64", "float64", 0.1), ("yes", "bool", True), ("text", "string", "가나다 abc 🙂"), ("words", "array[string]", ["", "가", "b"]),
        ("bools", "array[bool]", [True, False]), ("none", "array[uint32]", []), ("nested", "array[array[int16]]", [[1, -2], []]),
    ]
    _, tensors = mutants.parts(models.gguf_path("tutor"))
    file = gguf_file.read(written(tmp_path, bytes(mutants.Writer(entries, tensors).out)))
    for (key, kind, value), entry in zip(entries, file.metadata, strict=True):
        got = [np.asarray(item).tolist() for item in entry.value] if isinstance(value, list) else entry.value
        assert (entry.key, got) == (key, value) and type(got) is type(value)
        assert entry.kind == ("array[array]" if key == "nested" else kind)


def test_version_2_is_read_and_others_are_explained(tutor, tmp_path):
    whole = tutor.read_bytes()
    assert gguf_file.read(written(tmp_path, whole[:4] + b"\2\0\0\0" + whole[8:])).version == 2
    for version, word in ((b"\1\0\0\0", "버전 1"), (b"\0\0\0\3", "빅 엔디언"), (b"\4\0\0\0", "새로운 llama.cpp")):
        with pytest.raises(ModelFileError, match=word) as error:
            gguf_file.read(written(tmp_path, whole[:4] + version + whole[8:]))
        assert "4바이트 위치의 version" in str(error.value)


# --- what is refused --------------------------------------------------------------------------------------------------


def test_mutants_are_refused_by_field_and_place(tutor, tmp_path):
    found, memory = outcomes("gguf", tmp_path / "m", mutants.gguf_cases(tutor))
    require_refusals(found, 600)
    sound = ("whole", "nested", "alignment 64", "the last tensor 32 later")
    assert {label: error for label, _, _, error in found if label in sound} == dict.fromkeys(sound, "")
    assert memory < 50e6


def test_large_headers_do_not_hang_and_take_200_mb_at_most(tmp_path):
    """Processor time; the memory is a limit of the process, and measured as its resident peak over what it began with."""
    found, memory = outcomes("gguf", tmp_path / "m", mutants.extremes())
    assert [label for label, bad, _, error in found if bool(error) != bad] == []
    assert max(seconds for _, _, seconds, _ in found) < HANGS
    assert memory < mutants.MEMORY


@pytest.mark.parametrize(
    ("place", "raw", "field", "at"),
    [
        ("tensor_count", b"\xff" * 8, "tensor_count", "8바이트"),
        ("metadata_kv_count", b"\0\0\0\1\0\0\0\0", "metadata_kv_count", "16바이트"),
        ("length of key 0", b"\0\0\0\0\0\0\0\x80", "metadata_kv[0].key의 길이", "24바이트"),
        ("tag of value 0", b"\x0d\0\0\0", "general.architecture의 value_type", "52바이트"),
        ("dims 0", b"\5\0\0\0", "token_embd.weight의 n_dimensions", None),
        ("type 0", b"\x63\0\0\0", "token_embd.weight의 type", None),
        ("offset 1", b"\0" * 8, "blk.0.attn_norm.weight의 offset", None),
    ],
)
def test_the_place_is_the_fields_own(place, raw, field, at, tutor, tmp_path):
    whole = mutants.Writer(*mutants.parts(tutor))
    with pytest.raises(ModelFileError) as error:
        gguf_file.read(written(tmp_path, mutants.changed(whole, place, raw)))
    assert f"{at or f'{whole.places[place][0]:,}바이트'} 위치의 {field}: " in str(error.value)


def test_names_in_messages_are_short_and_printable(tutor, tmp_path):
    _, tensors = mutants.parts(tutor)
    data = mutants.Writer([("\x1b[31m" + "k" * 500, "bool", 0)], tensors)
    with pytest.raises(ModelFileError) as error:
        gguf_file.read(written(tmp_path, mutants.changed(data, "value 0", b"\7")))
    assert "\x1b" not in str(error.value) and max(map(len, str(error.value).splitlines())) < 250


def test_missing_and_forbidden_files(tmp_path):
    with pytest.raises(ModelFileError, match="없습니다"):
        gguf_file.read(tmp_path / "없음.gguf")
    with pytest.raises(ModelFileError, match="폴더입니다"):
        gguf_file.read(tmp_path)


def test_a_path_may_be_text(tutor):
    assert gguf_file.read(str(tutor)).tensors == gguf_file.read(tutor).tensors


LOADER = """
import os, resource, sys, llama_cpp
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
for path in sys.argv[1:]:
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        try:
            llama_cpp.Llama(path, n_ctx=64, n_batch=64, n_threads=1, verbose=False).create_completion("안녕", max_tokens=1)
        except Exception:
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    print(-os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
"""


def load(folder, files):
    """What became of a process that loaded each file and asked for a token: 0, 1 (refused), or the signal that killed it."""
    paths = [folder / f"{i}.gguf" for i in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    command = [sys.executable, "-c", LOADER, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", env=os.environ | {"GGML_NO_BACKTRACE": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    return [int(line) for line in done.stdout.split()]


def test_what_is_accepted_does_not_kill_llama_cpp(tutor, tmp_path):
    chosen = mutants.accepted(tutor)
    statuses = load(tmp_path, [data for _, data in chosen])
    assert [label for (label, _), status in zip(chosen, statuses, strict=True) if status < 0] == []
    assert 0 in statuses and 1 in statuses


def test_what_is_called_deadly_is(tutor, tmp_path):
    """Else the reader would refuse files for nothing. The newest llama.cpp may have learnt to refuse some: then drop the check."""
    deadly = list(mutants.deadly(*mutants.parts(tutor)))
    chosen = [case for case in deadly if "of type" not in case[0]] + [case for case in deadly if "of type" in case[0]][::6]
    statuses = load(tmp_path, [data for _, data, _ in chosen])
    assert [label for (label, _, _), status in zip(chosen, statuses, strict=True) if status >= 0] == []


# --- what is shown ----------------------------------------------------------------------------------------------------


class Tags(HTMLParser):
    """Which tags and styles are there, and the text of every cell."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.cells, self.depth = [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.depth.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.depth.pop() == tag

    def handle_data(self, data):
        if self.depth and self.depth[-1] == "td":
            self.cells[-1] += data


def test_view_shows_every_entry_and_tensor_and_shortens_arrays(tutor):
    file = gguf_file.read(tutor)
    page, plain = Tags(file._repr_html_()), repr(file)
    for name in [entry.key for entry in file.metadata] + [tensor.name for tensor in file.tensors]:
        assert name in page.cells and name in plain
    row = page.cells.index("tokenizer.ggml.tokens")
    assert page.cells[row + 1] == "array[string]" and page.cells[row + 2].startswith("4,096개: [<|pad|>")
    row = page.cells.index("blk.0.ffn_down.weight")
    assert page.cells[row : row + 6] == ["blk.0.ffn_down.weight", "F16", "256 × 768", "2,266,304", "393,216", "16"]
    assert "4,196,608" in plain and "16.01비트" in plain
    assert len(plain) < 10_000 and page.depth == []


def test_view_has_no_colours_of_its_own(tutor):
    source = gguf_file.read(tutor)._repr_html_()
    assert not re.search(r"#[0-9a-fA-F]{3}|rgb|background|(?<![-\w])color: (?!inherit)", source)
    assert source.count('data-lm-suppress-shortcuts="true"') == source.count("<summary") == 2


def test_view_of_a_hostile_file_is_only_text(tutor, tmp_path):
    _, tensors = mutants.parts(tutor)
    evil = "<script>alert(1)</script><b onclick='x'>&"
    entries = [(evil, "string", evil + "\x1b[31m\n"), ("words", "array[string]", [evil, "\0"])]
    tensors = [(evil, *tensors[0][1:]), *tensors[1:]]
    file = gguf_file.read(written(tmp_path, bytes(mutants.Writer(entries, tensors).out)))
    page = Tags(file._repr_html_())
    assert {"script", "b"}.isdisjoint(page.tags) and evil in page.cells
    assert "\x1b" not in repr(file) + file._repr_html_()


def test_where_the_bytes_are(tutor, tmp_path):
    file = gguf_file.read(tutor)
    sizes = gguf_file.where(file)
    assert sum(sizes.values()) == file.size
    assert sizes == {
        "머리말과 메타데이터": file.data_offset, "임베딩": 4096 * 256 * 2, "정규화": 9 * 256 * 4,
        "어텐션": 4 * 256 * (256 + 256 + 128 + 128) * 2, "피드포워드": 4 * 3 * 256 * 768 * 2,
    }


def test_where_knows_an_output_and_what_it_does_not_know(tmp_path):
    tensors = [(name, (8,), 0, bytes(32)) for name in ("output.weight", "rope_freqs.weight", "blk.0.attn_q_norm.weight", "blk.0.attn_q.weight")]
    tensors[1] = ("rope_freqs.weight", (5,), 0, bytes(20))
    file = gguf_file.read(written(tmp_path, bytes(mutants.Writer([], tensors).out)))
    padding = 12
    assert gguf_file.where(file) == {
        "머리말과 메타데이터": file.data_offset, "출력": 32, "그 밖의 것": 20 + padding, "정규화": 32, "어텐션": 32,
    }


# --- safetensors, and the converter that reads it ---------------------------------------------------------------------


def test_safetensors_header_is_read():
    path = TUTOR / "model.safetensors"
    file = safetensors_file.read(path)
    tensors = {tensor.name: tensor for tensor in file.tensors}
    down = tensors["model.layers.0.mlp.down_proj.weight"]
    assert (down.kind, down.shape, down.size) == ("F16", (256, 768), 256 * 768 * 2)
    data = path.read_bytes()[down.offset : down.offset + down.size]
    from safetensors.numpy import load_file

    assert data == load_file(path)[down.name].tobytes()
    assert len(tensors) == 38 and file.metadata == {"format": "pt"} and file.size == path.stat().st_size


def test_mutants_of_safetensors_are_refused_by_field_and_place(tmp_path):
    found, memory = outcomes("safetensors", tmp_path / "m", mutants.safetensors_cases(TUTOR / "model.safetensors"))
    require_refusals(found, 150)
    sound = ("whole", "padded", "no metadata")
    assert {label: error for label, _, _, error in found if label in sound} == dict.fromkeys(sound, "")
    assert memory < mutants.MEMORY


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(TUTOR, tmp_path / "tutor", ignore=shutil.ignore_patterns("*.yaml", "*.md", "items", "p*", "f*"))
    return tmp_path / "tutor"


JSONS = [
    ("config.json", lambda c: c | {"hidden_size": "256"}, "hidden_size"),
    ("config.json", lambda c: c | {"hidden_size": 0}, "hidden_size"),
    ("config.json", lambda c: c | {"num_hidden_layers": 10**9}, "num_hidden_layers"),
    ("config.json", lambda c: c | {"num_hidden_layers": 5}, "blk.4"),
    ("config.json", lambda c: c | {"num_hidden_layers": 3}, "model.layers.3"),
    ("config.json", lambda c: c | {"num_attention_heads": 8}, "_proj.weight의 shape"),
    ("config.json", lambda c: c | {"head_dim": 63}, "head_dim"),
    ("config.json", lambda c: c | {"rms_norm_eps": float("nan")}, "rms_norm_eps"),
    ("config.json", lambda c: c | {"rope_theta": None}, "rope_theta"),
    ("config.json", lambda c: c | {"max_position_embeddings": 2**40}, "max_position_embeddings"),
    ("config.json", lambda c: {name: value for name, value in c.items() if name != "vocab_size"}, "vocab_size"),
    ("config.json", lambda c: [c], "config.json"),
    ("tokenizer.json", lambda t: t | {"model": []}, "model"),
    ("tokenizer.json", lambda t: t | {"model": t["model"] | {"vocab": {"a": "0"}}}, "model.vocab.a"),
    ("tokenizer.json", lambda t: t | {"model": t["model"] | {"merges": ["a b"]}}, "model.merges.0"),
    ("tokenizer.json", lambda t: t | {"model": t["model"] | {"vocab": t["model"]["vocab"] | {"새": 9999}}}, "model.vocab"),
    ("tokenizer.json", lambda t: t | {"added_tokens": None}, "added_tokens"),
    ("tokenizer.json", lambda t: 7, "tokenizer.json"),
    ("tokenizer_config.json", lambda s: s | {"eos_token": {"content": "x"}}, "eos_token"),
    ("tokenizer_config.json", lambda s: s | {"eos_token": "없는 토큰"}, "eos_token"),
    ("tokenizer_config.json", lambda s: s | {"chat_template": None}, "chat_template"),
]


@pytest.mark.parametrize(("name", "change", "word"), JSONS)
def test_wrong_json_of_a_model_folder_is_told(name, change, word, folder, tmp_path):
    raw = json.loads((folder / name).read_text(encoding="utf-8"))
    (folder / name).write_text(json.dumps(change(raw)), encoding="utf-8")
    with pytest.raises(ModelFileError) as error:
        convert.convert(folder, tmp_path / "out.gguf")
    assert word in str(error.value) and not (tmp_path / "out.gguf").exists()


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"hidden_size": ' + b"9" * 10_000 + b"}"])
@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"])
def test_broken_parts_of_a_model_folder_are_told(name, raw, folder, tmp_path):
    (folder / name).write_bytes(raw)
    with pytest.raises(ModelFileError, match=name):
        convert.convert(folder, tmp_path / "out.gguf")
    assert list(tmp_path.glob("out.gguf*")) == []


def test_converter_refuses_safetensors_that_lie(folder, tmp_path):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    norm, embedding = "model.norm.weight", "model.embed_tokens.weight"
    for changed, word in (
        (header | {norm: header[norm] | {"dtype": "BF16"}}, "BF16"),
        (header | {embedding: header[embedding] | {"shape": [2048, 512]}}, "shape"),
        ({name if name != norm else "model.other.weight": said for name, said in header.items()}, "model.other.weight"),
        (header | {norm: header[norm] | {"data_offsets": [0, 512]}}, "data_offsets"),
    ):
        path.write_bytes(mutants.packed(changed, whole[8 + length :]))
        with pytest.raises(ModelFileError, match=word) as error:
            convert.convert(folder, tmp_path / "out.gguf")
        assert PLACE.search(str(error.value))
