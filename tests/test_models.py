"""The tutor's files, their conversion, the NumPy forward pass, the speed model, and files that no engine could load."""

from __future__ import annotations

import inspect
import json
import shutil
import time
import tracemalloc

import gguf
import httpx2
import numpy as np
import pytest
from tokenizers import Tokenizer

from servinglab import cli, engines, models, programs
from servinglab.errors import ModelFileError, NotEnoughRoom, SettingError
from servinglab.models import convert, files, forward, speed
from servinglab.models.shapes import Shape, shapes
from servinglab.models.tutor import corpus as text
from servinglab.models.tutor import vocabulary as vocab
from servinglab.paths import TUTOR
from tests.helpers import small_disk

QUESTIONS = ["KV 캐시가 뭐예요?", "슬롯이 뭐야", "양자화는 왜 하나요?", "오늘 점심 뭐 먹지?", "너는 누구야?", "포트 뜻"]


@pytest.fixture(scope="module")
def server():
    with engines.start() as running:
        yield running


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.from_file(str(TUTOR / "tokenizer.json"))


@pytest.fixture(scope="module")
def config():
    return json.loads((TUTOR / "config.json").read_text(encoding="utf-8"))


def test_shape_is_the_one_that_lessons_build_on(config):
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["head_dim"] == 64
    assert config["max_position_embeddings"] == 2048
    assert config["vocab_size"] <= 4096
    matrices = [t for t in gguf.GGUFReader(models.gguf_path("tutor")).tensors if len(t.shape) == 2]
    assert all(int(t.shape[0]) % 256 == 0 for t in matrices), "K-quants need rows that are multiples of 256"


def test_committed_files_are_small():
    names = ("model.safetensors", "tokenizer.json", "tokenizer_config.json", "config.json")
    assert sum((TUTOR / name).stat().st_size for name in names) <= 15e6


def test_conversion_takes_seconds_and_is_cached():
    path = models.gguf_path("tutor")
    before = path.stat().st_mtime_ns
    assert models.gguf_path("tutor") == path and path.stat().st_mtime_ns == before
    path.unlink()
    began = time.perf_counter()
    assert models.gguf_path("tutor") == path and path.exists()
    assert time.perf_counter() - began < 30


def test_damaged_cache_is_made_again():
    path = models.gguf_path("tutor", "Q8_0")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert models.gguf_path("tutor", "Q8_0").read_bytes() == whole


def test_other_weights_get_another_file(tmp_path):
    shutil.copytree(TUTOR, tmp_path / "tutor", ignore=shutil.ignore_patterns("*.yaml", "*.md"))
    first = files.tutor_gguf(folder=tmp_path / "tutor")
    blob = bytearray((tmp_path / "tutor" / "model.safetensors").read_bytes())
    blob[-1] ^= 1
    (tmp_path / "tutor" / "model.safetensors").write_bytes(blob)
    assert files.tutor_gguf(folder=tmp_path / "tutor") != first


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_missing_part_of_the_model_is_named(name, tmp_path):
    shutil.copytree(TUTOR, tmp_path / "tutor", ignore=shutil.ignore_patterns("*.yaml", "*.md"))
    (tmp_path / "tutor" / name).unlink()
    with pytest.raises(ModelFileError, match=name):
        files.tutor_gguf(folder=tmp_path / "tutor")


def test_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    with small_disk(tmp_path / "가득 찬 디스크", "4m") as disk:
        monkeypatch.setenv("SERVINGLAB_CACHE", str(disk))
        with pytest.raises(NotEnoughRoom):
            models.gguf_path("tutor")
        assert list(disk.iterdir()) == []


# --- tokens and forward pass against llama.cpp ------------------------------------------------------------------------

TEXTS = [
    "포트가 뭐예요?",
    "llama-server --parallel 4 -c 8192",
    "  두 칸  띄움\n\n줄바꿈\t탭",
    "It's 3.14 and 1,024 tokens; don't!",
    "뷁쀍 漢字 emoji🙂 ½",
    "http://127.0.0.1:8080/v1/models",
    "ㅋㅋㅋ 안냥하세욥~~",
    " ",
    "a",
]


def llama_tokens(server, content):
    reply = httpx2.post(f"{server.url}/tokenize", json={"content": content, "parse_special": True}, trust_env=False)
    return reply.json()["tokens"]


def test_llama_cpp_cuts_text_into_the_same_tokens(server, tokenizer):
    corpus = text.load()
    samples = TEXTS + [question for question, _ in list(corpus.phrasings())[::97]] + corpus.prose[0].split("\n\n")[:5]
    for sample in samples:
        assert llama_tokens(server, sample) == tokenizer.encode(sample).ids, sample


def test_llama_cpp_renders_the_chat_template_alike(server, tokenizer):
    turns = [
        {"role": "system", "content": "한 문장으로 답하세요."},
        {"role": "user", "content": "슬롯이 뭐예요?"},
        {"role": "assistant", "content": "자리입니다."},
        {"role": "user", "content": "왜요?"},
    ]
    reply = httpx2.post(f"{server.url}/apply-template", json={"messages": turns}, trust_env=False).json()
    assert reply["prompt"] == vocab.render(turns)


def test_numpy_forward_pass_says_what_llama_cpp_says(server, tokenizer):
    """Greedy output token by token, for questions of every kind."""
    llama = forward.Llama(TUTOR)
    for question in QUESTIONS:
        prompt = tokenizer.encode(vocab.render([{"role": "user", "content": question}])).ids
        body = {"prompt": prompt, "n_predict": 48, "temperature": 0, "return_tokens": True, "cache_prompt": False}
        reply = httpx2.post(f"{server.url}/completion", json=body, timeout=60, trust_env=False).json()
        end = tokenizer.token_to_id(vocab.END)
        theirs = [token for token in reply["tokens"] if token != end]
        assert llama.greedy(prompt, 48, end) == theirs, question


def test_forward_pass_is_short_enough_to_read():
    assert len(inspect.getsource(forward).splitlines()) <= 100


def test_forward_pass_refuses_more_than_the_context():
    with pytest.raises(ValueError, match="context"):
        forward.Llama(TUTOR).logits([5] * 2049)


def test_transformers_loads_and_agrees(tokenizer):
    transformers = pytest.importorskip("transformers", reason="the extra `train` is not installed")
    torch = pytest.importorskip("torch", reason="the extra `train` is not installed")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(TUTOR, dtype=torch.float32)
    their_tokenizer = transformers.AutoTokenizer.from_pretrained(TUTOR)
    turns = [{"role": "user", "content": QUESTIONS[0]}]
    ids = their_tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert list(ids) == tokenizer.encode(vocab.render(turns)).ids
    with torch.no_grad():
        logits = theirs(torch.tensor([list(ids)])).logits[0].numpy()
    np.testing.assert_allclose(forward.Llama(TUTOR).logits(list(ids)), logits, atol=2e-3)


# --- the speed model --------------------------------------------------------------------------------------------------


SMALL = Shape(
    id="small", name="small", parameters=1, layers=2, hidden=512, heads=8, kv_heads=2, head_size=64, feed_forward=768,
    vocabulary=4096, tied=False, context=512,
)


def weights_of(path) -> dict[str, np.ndarray]:
    """The matrices of a GGUF file in float32, as the `gguf` package reads them, with the norms."""
    return {tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type) for tensor in gguf.GGUFReader(path).tensors}


def bench(path) -> dict:
    """What `llama-bench` says of a file after it has read and written a few tokens."""
    done = programs.run("llama-bench", "-m", path, "-p", "8", "-n", "2", "-r", "1", "-t", "1", "-o", "json", doing="재기")
    return json.loads(done.all[done.all.index("[\n") : done.all.rindex("]") + 1])[-1]


def test_speed_model_has_half_a_billion_weights_and_says_that_they_are_random():
    path = models.gguf_path("speed")
    reader = gguf.GGUFReader(path)
    assert 0.4e9 < sum(tensor.n_elements for tensor in reader.tensors) == shapes()["speed"].parameters < 0.6e9
    for field in ("general.name", "general.description"):
        assert "random" in reader.fields[field].contents().lower()


@pytest.mark.parametrize("kind", speed.KINDS)
def test_random_weights_of_every_type_are_finite_and_as_small_as_trained_ones(kind, tmp_path):
    """Standard deviation 1 / sqrt(columns), as a trained matrix has; MXFP4 can only take the nearest power of two."""
    speed.write(tmp_path / "a.gguf", SMALL, kind)
    assert (tmp_path / "a.gguf").stat().st_size - speed.size(SMALL, kind) < 200_000, "header and tokenizer"
    for name, weights in weights_of(tmp_path / "a.gguf").items():
        assert np.isfinite(weights).all(), name
        if weights.ndim == 1:
            assert (weights == 1).all()
            continue
        spread = weights.std() * np.sqrt(weights.shape[1])
        assert spread == pytest.approx(1, rel=0.42 if kind == "MXFP4" else 0.02), name
        assert abs(weights.mean()) < 0.12 * weights.std(), name
        assert len(np.unique(weights[:256], axis=0)) == min(256, len(weights)), "different rows, repeated"
    kinds = {tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "a.gguf").tensors if len(tensor.shape) == 2}
    assert kinds == {kind}


@pytest.mark.parametrize("kind", speed.KINDS)
def test_llama_cpp_computes_with_every_type(kind, tmp_path):
    speed.write(tmp_path / "a.gguf", SMALL, kind)
    result = bench(tmp_path / "a.gguf")
    assert result["avg_ts"] > 0 and kind in result["model_type"].replace("_MOE", "")


@pytest.mark.parametrize("name", [shape.id for shape in shapes().values() if shape.memory_only is None])
def test_llama_cpp_loads_the_shape_of_every_model(name, tmp_path):
    """In the real widths, with two layers (Gemma: one that looks back at everything among six) and a small vocabulary."""
    shape = shapes()[name]
    fewer = {"layers": 6, "full_layers": 1} if shape.window else {"layers": 2}
    speed.write(tmp_path / "a.gguf", shape.model_copy(update={**fewer, "vocabulary": 4096}), "IQ1_S")
    assert bench(tmp_path / "a.gguf")["avg_ts"] > 0
    fields = gguf.GGUFReader(tmp_path / "a.gguf").fields
    assert fields["general.architecture"].contents() == shape.architecture
    assert (f"{shape.architecture}.attention.sliding_window" in fields) == (shape.window is not None)


def test_rows_that_do_not_suit_the_type_get_what_llama_quantize_gives_them(tmp_path):
    """Gemma 3 1B has 1152 columns: no multiple of 256."""
    narrow = SMALL.model_copy(update={"hidden": 1152})
    speed.write(tmp_path / "a.gguf", narrow, "Q4_K")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in gguf.GGUFReader(tmp_path / "a.gguf").tensors}
    assert kinds["blk.0.attn_q.weight"] == "Q5_0" and kinds["blk.0.ffn_down.weight"] == "Q4_K"
    assert bench(tmp_path / "a.gguf")["avg_ts"] > 0


def test_placeholders_fill_a_large_vocabulary_and_are_streamed(tmp_path):
    """Only 4096 of Qwen3's 151,936 tokens are real ones: nearly all that the model says are placeholders, a piece each."""
    shape = shapes()["qwen3-0.6b"].model_copy(update={"layers": 1})
    tracemalloc.start()
    speed.write(tmp_path / "a.gguf", shape, "F32")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert speed.size(shape, "F32") > 600e6 and peak < 150e6, "written piece by piece"
    with engines.start(model=str(tmp_path / "a.gguf"), slots=1, context=256, options=("-t", "1", "--no-warmup")) as server:
        stream = server.client.completions.create(
            model=server.model, prompt="안녕", max_tokens=16, seed=1, stream=True, extra_body={"ignore_eos": True, "top_k": 0}
        )
        pieces = [chunk.choices[0].text for chunk in stream if chunk.choices and chunk.choices[0].text]
    assert sum(piece.startswith("<random-") for piece in pieces) >= 12, pieces


def test_the_same_model_twice_is_the_same_file(tmp_path):
    for name in ("a", "b"):
        speed.write(tmp_path / name, SMALL, "Q4_K")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_cached_speed_model_carries_shape_and_type_in_its_name_and_is_cleaned_away(tmp_path, monkeypatch):
    monkeypatch.setenv("SERVINGLAB_CACHE", str(tmp_path))
    path = files.speed_gguf("tutor", "Q2_K")
    assert path.name == f"speed-random-tutor-q2_k-{speed.VERSION}.gguf"
    written = path.stat().st_mtime_ns
    assert files.speed_gguf("tutor", "Q2_K").stat().st_mtime_ns == written
    assert files.speed_gguf("tutor", "Q3_K") != path
    assert sorted(cli.own_files(tmp_path)) == sorted(tmp_path.iterdir()) and len(cli.own_files(tmp_path)) == 2


@pytest.mark.parametrize(("shape", "kind", "pattern"), [
    ("qwen4", "Q8_0", "모델 이름입니다: 'qwen4'(?s:.)*적으세요: tutor, speed"),
    (None, "Q8_0", "모델 이름입니다: None"),
    ("tutor", "Q4_K_M", "타입 이름입니다: 'Q4_K_M'(?s:.)*적으세요: F32, F16, BF16, Q8_0"),
    ("tutor", "q8_0", "타입 이름입니다: 'q8_0'"),
    ("tutor", 8, "타입 이름입니다: 8"),
    ("tutor", ["Q8_0"], "타입 이름입니다: "),
    ("gpt-oss-20b", "MXFP4", "전문가 32개 가운데 4개"),
    (SMALL.model_copy(update={"architecture": "mamba"}), "Q8_0", "llama, qwen3, gemma3(?s:.)*mamba"),
    (SMALL.model_copy(update={"vocabulary": 100}), "Q8_0", "어휘가 너무 작습니다: 100개"),
])
def test_what_cannot_be_written_is_said_and_leaves_nothing(shape, kind, pattern, tmp_path):
    with pytest.raises(SettingError, match=pattern):
        speed.write(tmp_path / "a.gguf", shape, kind)
    assert list(tmp_path.iterdir()) == []


def test_speed_model_runs_and_its_start_says_random(capsys):
    with engines.start(model="speed", slots=1, context=512) as server:
        reply = server.client.chat.completions.create(
            model="speed", messages=[{"role": "user", "content": "안녕"}], max_tokens=4, extra_body={"ignore_eos": True}
        )
        assert reply.usage.completion_tokens == 4
    assert "무작위" in capsys.readouterr().out


def test_too_little_room_is_said_before_writing(tmp_path, monkeypatch):
    with small_disk(tmp_path / "작은 디스크", "50m") as disk:
        monkeypatch.setenv("SERVINGLAB_CACHE", str(disk))
        with pytest.raises(NotEnoughRoom, match=r"디스크에 자리가 모자라(?s:.)*0\.7 GB가 필요한데 0\.1 GB가"):
            models.gguf_path("speed")
        with pytest.raises(NotEnoughRoom, match=r"0\.8 GB가 필요한데 0\.1 GB가"):
            speed.write(disk / "a.gguf", "qwen3-0.6b", "Q8_0")
        assert list(disk.iterdir()) == []


def test_too_little_memory_is_said(tmp_path):
    """The disk promises a terabyte, Llama 3.1 70B in F16 would need 183 GB to run. Nothing here would write it."""
    with small_disk(tmp_path / "큰 디스크", "1t") as disk, pytest.raises(NotEnoughRoom, match=r"^무슨 일: 메모리에(?s:.)*183\.4 GB가 필요한데"):
        speed.require_room(disk / "a.gguf", speed.size(shapes()["llama-3.1-70b"], "F16"))


def test_a_read_only_cache_that_is_filled_is_enough(tmp_path, monkeypatch):
    """A hub's learners share one file that they cannot write."""
    with small_disk(tmp_path / "공용", "40m") as disk:
        monkeypatch.setenv("SERVINGLAB_CACHE", str(disk))
        path = models.gguf_path("tutor")
        import subprocess

        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        assert models.gguf_path("tutor") == path


# --- files that no engine could load ----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.3, 0.9, 0.9999])
def test_truncated_file_is_found_before_an_engine_starts(share, tmp_path):
    whole = models.gguf_path("tutor").read_bytes()
    path = tmp_path / "잘린 파일.gguf"
    path.write_bytes(whole[: max(5, int(len(whole) * share))])
    with pytest.raises(ModelFileError):
        models.check(path)


def test_missing_empty_and_foreign_files_are_told_apart(tmp_path):
    for name, content, word in (("없음", None, "없습니다"), ("빈", b"", "비어"), ("그림", b"\x89PNG....", "GGUF 파일이 아닙니다")):
        path = tmp_path / f"{name}.gguf"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ModelFileError, match=word):
            models.check(path)


def test_interleave_is_undone_by_llama_cpps_pairing():
    """Rows i and i + d/2 of Transformers become the neighbours 2i and 2i + 1."""
    rows = np.arange(128)[:, None].repeat(2, axis=1)
    mixed = convert.interleave(rows, heads=2)[:, 0]
    assert mixed[:4].tolist() == [0, 32, 1, 33]
    assert mixed[64:68].tolist() == [64, 96, 65, 97]
