"""llama.cpp's tools, always the real ones: what they make and measure, and what a learner is told when they cannot."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
from nbclient import NotebookClient
from tokenizers import Tokenizer

from servinglab import models, programs
from servinglab.errors import EngineNotFound, ModelFileError, NotEnoughRoom, ServingLabError, SettingError
from servinglab.models import forward, gguf_file, speed, tools
from servinglab.paths import TUTOR
from tests.helpers import ROOT, descendants, small_disk, wait_for

HOLDOUT = TUTOR / "holdout.md"


@pytest.fixture(scope="module")
def tutor():
    return models.gguf_path("tutor")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Hangul, spaces and a quote in the path of everything that is made."""
    folder = tmp_path_factory.mktemp("재기") / "내 모델's 결과"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def text(folder):
    """Text that is long enough for four pieces, under an awkward name."""
    path = folder / "읽을 글 (하나).md"
    path.write_text(HOLDOUT.read_text(encoding="utf-8")[:2200], encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def base(tutor, text, folder):
    return tools.logits(tutor, text, folder / "기준.kld")


@pytest.fixture(scope="module")
def importance(tutor, text, folder):
    return tools.imatrix(tutor, text, folder / "중요도.gguf")


@pytest.fixture(scope="module")
def files(tutor, importance, folder):
    return {
        kind: tools.quantize(tutor, folder / f"튜터 {kind}.gguf", kind, importance if kind == "IQ3_XXS" else None)
        for kind in tools.KINDS
    }


def told(error):
    """The message, after checking its form: what, why, what next, in Korean, and no stack."""
    shown = str(error.value)
    assert "무슨 일: " in shown and "왜: " in shown and "이렇게 하세요: " in shown, shown
    assert any("가" <= letter <= "힣" for letter in error.value.what), shown
    assert "Traceback" not in shown, shown
    return shown


def gone(processes):
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                return False
    return True


# --- what they make ---------------------------------------------------------------------------------------------------


def test_every_kind_is_made_and_smaller_than_the_one_before(files, tutor):
    sizes = [gguf_file.read(path).bits_per_weight for path in files.values()]
    whole = gguf_file.read(tutor)
    assert max(sizes) < whole.bits_per_weight
    for path in files.values():
        assert [t.name for t in gguf_file.read(path).tensors if len(t.shape) == 2]
    order = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
    ordered = [files[kind].stat().st_size for kind in order]
    assert ordered == sorted(ordered, reverse=True) and len(set(ordered)) == len(ordered)


def test_nothing_but_the_results_is_left(files, base, importance, text):
    names = {path.name for path in text.parent.iterdir()}
    assert names == {path.name for path in [*files.values(), base, importance, text]}


def test_without_an_importance_matrix_the_tool_refuses_in_its_own_words(tutor, tmp_path):
    with pytest.raises(ServingLabError, match="중요도 행렬") as error:
        tools.quantize(tutor, tmp_path / "x.gguf", "IQ3_XXS")
    assert "requires an imatrix" in told(error) and "tools.imatrix" in told(error)
    assert list(tmp_path.iterdir()) == []


def test_the_importance_matrix_reaches_the_file(tutor, importance, tmp_path):
    with_it = tools.quantize(tutor, tmp_path / "mit.gguf", "Q2_K", importance)
    without = tools.quantize(tutor, tmp_path / "ohne.gguf", "Q2_K")
    assert gguf_file.read(with_it).get("quantize.imatrix.entries_count")
    assert gguf_file.read(without).get("quantize.imatrix.entries_count") is None
    assert with_it.read_bytes()[-10000:] != without.read_bytes()[-10000:]


def test_an_existing_file_is_replaced_only_by_a_whole_one(tutor, tmp_path):
    out = tmp_path / "x.gguf"
    out.write_bytes(b"old")
    with pytest.raises(ServingLabError):
        tools.quantize(tutor, out, "IQ3_XXS")
    assert out.read_bytes() == b"old"
    assert tools.quantize(tutor, out, "Q8_0") == out
    assert gguf_file.read(out).tensors


# --- what they measure ------------------------------------------------------------------------------------------------


def test_the_holdout_is_long_enough():
    """At least 4,000 tokens are scored."""
    tokens = len(Tokenizer.from_file(str(TUTOR / "tokenizer.json")).encode(HOLDOUT.read_text(encoding="utf-8")).ids)
    assert tokens // tools.CONTEXT * tools.SCORED >= 4000, f"{tokens} tokens"


def test_quality_against_the_base(files, base, text, tutor):
    same = tools.perplexity(tutor, text, base)
    assert same.kl == pytest.approx(0, abs=1e-3) and same.same_top > 0.99
    good, bad = (tools.perplexity(files[kind], text, base) for kind in ("Q8_0", "Q2_K"))
    assert same.kl < good.kl < bad.kl and good.same_top > bad.same_top
    assert bad.kl_error > 0 and bad.perplexity_error > 0 and bad.base_perplexity == good.base_perplexity
    assert good.tokens == 4 * tools.SCORED


def test_a_run_that_loses_its_last_lines_is_repeated(tutor, text, tmp_path, monkeypatch):
    """As every second one does on a busy machine."""
    real, count = programs.find("llama-perplexity"), tmp_path / "count"
    script = f'echo x >> "{count}"\nif [ $(wc -l < "{count}") -lt 3 ]; then echo "[1]9.9,"; else exec "{real}" "$@"; fi'
    slow_program(tmp_path, script, "llama-perplexity")
    monkeypatch.setenv("PATH", path_with(tmp_path))
    assert tools.perplexity(tutor, text).perplexity > 1
    assert len(count.read_text(encoding="utf-8").splitlines()) >= 3


def test_perplexity_is_that_of_our_own_forward_pass(tutor, text):
    """The second half of each piece is scored, given all of the piece before it."""
    ids = Tokenizer.from_file(str(TUTOR / "tokenizer.json")).encode(text.read_text(encoding="utf-8")).ids
    llama, losses = forward.Llama(TUTOR), []
    for start in range(0, len(ids) - tools.CONTEXT + 1, tools.CONTEXT):
        piece = ids[start : start + tools.CONTEXT]
        scores = llama.logits(piece).astype(np.float64)
        scores -= scores.max(axis=-1, keepdims=True)
        logs = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
        losses += [-logs[i, piece[i + 1]] for i in range(tools.CONTEXT // 2, tools.CONTEXT - 1)]
    measured = tools.perplexity(tutor, text)
    assert measured.tokens == len(losses)
    assert measured.perplexity == pytest.approx(np.exp(np.mean(losses)), rel=5e-3)
    assert measured.kl is None and measured.base_perplexity is None


def test_speed_is_that_of_one_user(tutor, capsys):
    speed = tools.bench(tutor, tokens=8, threads=1)
    assert speed.tokens_per_second > 0 and speed.deviation >= 0
    (command,) = commands(capsys)
    assert command[command.index("-n") + 1] == "8" and command[command.index("-t") + 1] == "1"


# --- what is shown ----------------------------------------------------------------------------------------------------


def commands(capsys):
    return [shlex.split(line[2:]) for line in capsys.readouterr().out.splitlines() if line.startswith("$ ")]


def test_the_printed_command_is_exact_and_runs_in_a_terminal(tutor, folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    shutil.copy(tutor, "원본 's.gguf")
    out = tools.quantize(Path("원본 's.gguf"), Path("여기.gguf"), "Q4_0")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("$ ")]
    part = shlex.split(line[2:])[2]
    typed = line[2:].replace(Path(part).name, "typed.gguf")
    subprocess.run(["bash", "-c", typed], check=True, capture_output=True, cwd="/")
    assert (folder / "typed.gguf").read_bytes() == out.read_bytes()
    for name in ("원본 's.gguf", "여기.gguf", "typed.gguf"):
        Path(name).unlink()


def test_only_the_cpu_works(tutor, text, capsys):
    tools.perplexity(tutor, text)
    command, *_ = commands(capsys)  # again where its last lines were lost
    assert command[command.index("--device") + 1] == "none" and command[command.index("-ngl") + 1] == "0"


def test_settings_of_the_machine_do_not_reach_the_tool(tutor, text, monkeypatch):
    """`LLAMA_ARG_CTX_SIZE` would change what is measured without being seen in the command."""
    monkeypatch.setenv("LLAMA_ARG_MODEL", "/nonexistent")
    monkeypatch.setenv("LLAMA_ARG_CHUNKS", "1")
    monkeypatch.setenv("LLAMA_ARG_OVERRIDE_TENSOR", "nonsense")
    assert tools.perplexity(tutor, text).tokens == 4 * tools.SCORED


def test_output_in_a_file_is_two_lines(tutor, tmp_path):
    code = "import sys; from pathlib import Path; from servinglab.models import tools\n"
    code += f"tools.quantize(Path({str(tutor)!r}), Path({str(tmp_path / 'x.gguf')!r}), 'Q8_0')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)
    command, line = done.stdout.splitlines()
    assert command.startswith("$ ") and re.search(r"→ Q8_0: 38/38, \d+\.\d초 걸렸습니다\.$", line)
    assert done.stderr == ""


def test_in_a_notebook_one_output_is_updated_and_vanishes(tmp_path):
    """The program is a slow one of the test's own, on PATH under the tool's name."""
    slow_program(tmp_path, 'for i in 1 2 3; do echo "[  $i/  3] tensor" >&2; sleep 0.6; done')
    code = "from servinglab import programs\nprograms.run('llama-quantize', doing='해 보기')"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    updates = []
    client = NotebookClient(notebook, timeout=60)
    handle = client.process_message

    def listen(message, *rest):
        if message["msg_type"] in ("display_data", "update_display_data"):
            updates.append(message["content"]["data"]["text/plain"])
        return handle(message, *rest)

    client.process_message = listen
    client.execute(env={**os.environ, "PATH": path_with(tmp_path)})
    assert any("1/3" in update for update in updates) and any("2/3" in update for update in updates)
    shown = [output["data"]["text/plain"] for output in notebook.cells[0].outputs if output.output_type == "display_data"]
    assert shown == [""]
    printed = "".join(output.text for output in notebook.cells[0].outputs if output.output_type == "stream")
    assert len(printed.splitlines()) == 2 and "3/3" in printed


def path_with(folder):
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def slow_program(folder, script, name="llama-quantize"):
    (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (folder / name).chmod(0o755)


# --- what a learner is told -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Q9_9", "q4_0", "", None, 3, ["Q8_0"]])
def test_a_wrong_kind_is_told_with_the_right_ones(kind, tutor, tmp_path):
    with pytest.raises(SettingError) as error:
        tools.quantize(tutor, tmp_path / "x.gguf", kind)
    assert all(name in told(error) for name in tools.KINDS)


def test_a_folder_as_the_result_is_told_before_the_work(tutor, tmp_path, capsys):
    for work in (lambda: tools.quantize(tutor, tmp_path, "Q8_0"), lambda: speed.write(str(tmp_path), "speed", "Q8_0")):
        with pytest.raises(SettingError, match="폴더입니다"):
            work()
    assert capsys.readouterr().out == "" and list(tmp_path.iterdir()) == []


def test_the_source_is_never_overwritten(tutor, tmp_path):
    copy = tmp_path / "x.gguf"
    shutil.copy(tutor, copy)
    with pytest.raises(SettingError, match="이름이 같습니다"):
        tools.quantize(copy, tmp_path / "." / "x.gguf", "Q8_0")
    assert copy.read_bytes() == tutor.read_bytes()


def test_what_is_quantized_already_is_refused_by_the_tool(files, tmp_path):
    with pytest.raises(programs.ProgramFailed) as error:
        tools.quantize(files["Q4_0"], tmp_path / "x.gguf", "Q8_0")
    assert "requantizing" in told(error) and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.3, 0.999])
def test_a_damaged_source_never_reaches_a_tool(share, tutor, text, tmp_path, capsys):
    broken, whole = tmp_path / "깨진.gguf", tutor.read_bytes()
    broken.write_bytes(whole[: int(len(whole) * share)])
    for use in (
        lambda: tools.quantize(broken, tmp_path / "x.gguf", "Q8_0"),
        lambda: tools.quantize(tutor, tmp_path / "x.gguf", "Q8_0", imatrix=broken),
        lambda: tools.imatrix(broken, text, tmp_path / "i.gguf"),
        lambda: tools.logits(broken, text, tmp_path / "b"),
        lambda: tools.perplexity(broken, text),
        lambda: tools.bench(broken),
    ):
        with pytest.raises(ModelFileError) as error:
            use()
        told(error)
    assert commands(capsys) == [] and list(tmp_path.iterdir()) == [broken]


def test_a_model_is_no_importance_matrix(tutor, tmp_path):
    with pytest.raises(programs.ProgramFailed) as error:
        tools.quantize(tutor, tmp_path / "x.gguf", "IQ3_XXS", imatrix=tutor)
    assert "imatrix" in told(error) and list(tmp_path.iterdir()) == []


def test_a_text_that_is_missing_or_short_is_told(tutor, tmp_path):
    short = tmp_path / "짧은 글.md"
    short.write_text("짧습니다. " * 20, encoding="utf-8")
    for use in (tools.perplexity, lambda m, t: tools.logits(m, t, tmp_path / "b"), lambda m, t: tools.imatrix(m, t, tmp_path / "i")):
        with pytest.raises(ServingLabError) as error:
            use(tutor, short)
        assert "512토큰" in told(error)
        with pytest.raises(SettingError, match="글 파일이 없습니다"):
            use(tutor, tmp_path / "없는 글.md")
    assert list(tmp_path.iterdir()) == [short]


def test_a_base_that_is_cut_short_or_of_another_kind_is_told(tutor, text, base, tmp_path):
    whole = base.read_bytes()
    heads = (whole[:16] + b"\0\0\0\x80", whole[:12] + b"\xff" * 8, whole[:12] + bytes(8))
    for content in (*heads, whole[:-2], whole[:10], b"", b"\0" * 20, whole + b"\0", tutor.read_bytes()):
        (tmp_path / "b").write_bytes(content)
        with pytest.raises(ModelFileError) as error:
            tools.perplexity(tutor, text, tmp_path / "b")
        assert "tools.logits" in told(error)
    with pytest.raises(ModelFileError, match="파일이 없습니다"):
        tools.perplexity(tutor, text, tmp_path / "없음")


def test_a_base_of_another_vocabulary_is_told(tutor, text, base, tmp_path):
    """One that says so in its head, and is as long as it says."""
    wrong = tmp_path / "b"
    head = base.read_bytes()[:16]
    pieces, vocabulary = 4, 5000
    size = pieces * (4 * tools.CONTEXT + tools.SCORED * (8 + 2 * vocabulary))
    wrong.write_bytes(head[:12] + vocabulary.to_bytes(4, "little") + pieces.to_bytes(4, "little") + bytes(size))
    with pytest.raises(SettingError, match="어휘가 다릅니다") as error:
        tools.perplexity(tutor, text, wrong)
    assert "5000" in told(error)


@pytest.mark.parametrize("settings", [{"tokens": 0}, {"tokens": "8"}, {"tokens": True}, {"threads": 0}, {"threads": 1.5}])
def test_a_measurement_that_makes_no_sense_is_told(settings, tutor):
    with pytest.raises(SettingError) as error:
        tools.bench(tutor, **settings)
    told(error)


@pytest.mark.parametrize(
    ("program", "script", "use"),
    [
        ("llama-perplexity", "echo nothing here", lambda m, t: tools.perplexity(m, t)),
        ("llama-bench", "echo '[]'", lambda m, t: tools.bench(m)),
        ("llama-bench", """echo '[{"avg_ts": 1}]'""", lambda m, t: tools.bench(m)),
        ("llama-bench", "echo no JSON", lambda m, t: tools.bench(m)),
    ],
)
def test_a_missing_figure_is_told(program, script, use, tutor, text, tmp_path, monkeypatch):
    """Another release of the tool may print something else."""
    slow_program(tmp_path, script, program)
    monkeypatch.setenv("PATH", path_with(tmp_path))
    with pytest.raises(ServingLabError, match="값이 없습니다") as error:
        use(tutor, text)
    told(error)


def test_a_missing_tool_is_told(tutor, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs.sysconfig, "get_path", lambda name: str(tmp_path / "환경"))
    with pytest.raises(EngineNotFound, match="llama-quantize") as error:
        tools.quantize(tutor, tmp_path / "x.gguf", "Q8_0")
    assert "make lab" in told(error) and list(tmp_path.iterdir()) == []


def test_a_program_for_another_machine_is_told(tutor, tmp_path, monkeypatch):
    (tmp_path / "llama-bench").write_bytes(b"\x7fELF" + bytes(60))
    (tmp_path / "llama-bench").chmod(0o755)
    monkeypatch.setenv("PATH", path_with(tmp_path))
    with pytest.raises(programs.ProgramFailed) as error:
        tools.bench(tutor)
    told(error)


# --- a full disk, an interruption, a killed tool ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "use",
    [
        lambda m, t, d: tools.quantize(m, d / "x.gguf", "Q8_0"),
        lambda m, t, d: tools.logits(m, t, d / "b"),
        lambda m, t, d: tools.imatrix(m, t, d / "i.gguf"),
    ],
    ids=["quantize", "logits", "imatrix"],
)
def test_a_full_disk_leaves_nothing(use, tutor, text, tmp_path):
    with small_disk(tmp_path / "가득 찬 디스크", "1m") as disk:
        (disk / "자리").write_bytes(bytes((1 << 20) - 8192))
        with pytest.raises(NotEnoughRoom) as error:
            use(tutor, text, disk)
        assert "디스크가 가득" in told(error)
        assert [path.name for path in disk.iterdir()] == ["자리"]


@pytest.fixture
def working(tutor, tmp_path):
    """A Python process inside `tools.quantize`, which waits for a tool that never ends, its tool, and where it writes."""
    slow_program(tmp_path, 'echo half > "$2"; trap "" TERM INT; while true; do sleep 0.2; done')
    out = tmp_path / "결과"
    out.mkdir()
    code = "from pathlib import Path; from servinglab.models import tools\n"
    code += f"tools.quantize(Path({str(tutor)!r}), Path({str(out / 'x.gguf')!r}), 'Q8_0')"
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PATH": path_with(tmp_path), "PYTHONPATH": str(ROOT / "modules")},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )
    try:
        wait_for(lambda: any(part.stat().st_size for part in out.glob("*.part")), 60, "the tool writing")
        yield process, descendants(process.pid), out
    finally:
        process.kill()
        process.communicate()


def test_an_interruption_leaves_no_child_and_no_file(working):
    """The tool ignores being asked to end: it is ended by force."""
    process, children, out = working
    assert len(children) >= 2
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert b"KeyboardInterrupt" in errors
    wait_for(lambda: gone(children), 5, "the end of watcher and tool")
    assert list(out.iterdir()) == []


def test_a_killed_kernel_leaves_no_child(working):
    """Its temporary file stays, but under no name that anybody would take for a model's."""
    process, children, out = working
    process.kill()
    process.wait(10)
    wait_for(lambda: gone(children), 10, "the end of watcher and tool")
    assert [path.suffix for path in out.iterdir()] == [".part"]


def test_a_killed_tool_is_told_and_leaves_no_file(tutor, tmp_path, monkeypatch):
    slow_program(tmp_path, 'echo half > "$2"; kill -9 $$')
    monkeypatch.setenv("PATH", path_with(tmp_path))
    out = tmp_path / "결과"
    out.mkdir()
    with pytest.raises(programs.ProgramFailed) as error:
        tools.quantize(tutor, out / "x.gguf", "Q8_0")
    assert "신호 9" in told(error) and list(out.iterdir()) == []


def test_a_tool_that_takes_too_long_is_ended(tmp_path, monkeypatch):
    slow_program(tmp_path, "echo still here; exec sleep 600")
    monkeypatch.setenv("PATH", path_with(tmp_path))
    before, began = set(descendants(os.getpid())), time.monotonic()
    with pytest.raises(programs.ProgramFailed, match="1초 안에") as error:
        programs.run("llama-quantize", doing="기다리기", limit=1)
    assert time.monotonic() - began < 20 and "still here" in error.value.output
    told(error)
    wait_for(lambda: gone(set(descendants(os.getpid())) - before), 5, "the end of the tool")


def test_a_tool_that_prints_much_does_not_stop(tmp_path, monkeypatch):
    """More than a pipe holds, on both channels."""
    slow_program(tmp_path, "head -c 3000000 /dev/zero | tr '\\0' o; head -c 3000000 /dev/zero | tr '\\0' e >&2")
    monkeypatch.setenv("PATH", path_with(tmp_path))
    printed = programs.run("llama-quantize", doing="받아 적기", limit=60)
    assert len(printed.out) == len(printed.err) == 3_000_000


def test_a_tool_that_succeeds_but_writes_no_model_leaves_no_file(tutor, tmp_path, monkeypatch):
    slow_program(tmp_path, 'head -c 1000 "$1" > "$2"')
    monkeypatch.setenv("PATH", path_with(tmp_path))
    out = tmp_path / "결과"
    out.mkdir()
    with pytest.raises(ModelFileError):
        tools.quantize(tutor, out / "x.gguf", "Q8_0")
    assert list(out.iterdir()) == []


def test_a_nul_in_a_name_is_told(tmp_path):
    with pytest.raises(SettingError) as error:
        programs.run("llama-quantize", "a\0b", doing="해 보기")
    told(error)
