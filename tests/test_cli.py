"""The `servinglab` command: what it prints, what it leaves alone, and the JupyterLab that it opens."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.parse
import urllib.request
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import psutil
import pytest

from servinglab import cli, curriculum, doctor, paths, plots, progress, workspace
from servinglab.engines.llama_server import free_port
from servinglab.errors import EngineNotFound
from tests.helpers import ROOT, listening, need, small_disk, wait_for

MINUTE = 60
KEY = "sk-cli-test-71c5d2"
COMMAND = [sys.executable, "-m", "servinglab.cli"]
CHECKED = ["Python", "메모리", "코어", "CPU 명령어", "디스크", "GPU", "llama.cpp", "Ollama", "vLLM", "한글 글꼴", "위젯"]


def servinglab(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end, without a keyboard; `changes` go into its environment."""
    return subprocess.run(
        [*COMMAND, *arguments], env={**os.environ, **changes}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        encoding="utf-8", timeout=MINUTE,
    )  # fmt: skip


# --- doctor -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An environment with keys in it, and with no program on PATH."""
    settings = {"LLAMA_API_KEY": KEY, "OPENAI_API_KEY": KEY + "-2", "LLAMA_SERVER_URL": "http://10.1.2.3:8080"}
    return {"PATH": str(tmp_path_factory.mktemp("empty")), **settings}


@pytest.fixture(scope="module")
def report(bare):
    return servinglab("doctor", **bare)


def test_doctor_has_a_line_for_everything_and_a_fix_for_what_is_missing(report):
    lines = report.stdout.splitlines()
    heads = [line for line in lines if line.startswith(("[OK]", "[없음]"))]
    assert [re.match(r"\[(?:OK|없음)\](?: \(없어도 됨\))? +([^:]+): \S", line).group(1) for line in heads] == CHECKED
    missing = [line for line in heads if line.startswith("[없음]")]
    assert {"GPU", "Ollama"} <= {name for name in CHECKED for line in missing if line.startswith(f"[없음] (없어도 됨) {name}:")}
    for line in missing:
        assert re.fullmatch(r" +고치기: \S.+", lines[lines.index(line) + 1]), line
    assert len(lines) == len(heads) + len(missing) + 1 and re.search("필요한 것은 모두|고칠 것이", lines[-1])
    assert report.stderr == ""


def test_doctor_finds_llama_server_without_path(report):
    """The terminal of somebody who has not activated anything."""
    assert re.search(r"^\[OK\] +llama\.cpp: .*llama-server \(.+\)$", report.stdout, re.MULTILINE)


def test_doctors_json_names_settings_and_holds_no_value_of_them(bare):
    done = servinglab("doctor", "--json", **bare)
    content = json.loads(done.stdout)
    assert {"LLAMA_API_KEY", "OPENAI_API_KEY", "LLAMA_SERVER_URL"} <= set(content["settings"])
    assert [finding["name"] for finding in content["findings"]] == CHECKED
    assert KEY not in done.stdout + done.stderr and "10.1.2.3" not in done.stdout + done.stderr
    assert content["servinglab"] == importlib.metadata.version("servinglab") and content["system"] and content["machine"]


@pytest.mark.parametrize("needed", [True, False])
def test_doctors_exit_status_is_for_what_is_needed(needed, monkeypatch, capsys):
    monkeypatch.setattr(doctor, "CHECKS", (lambda: doctor.Finding("것", False, "없음", "고치기", needed=needed),))
    assert cli.main(["doctor"]) == (1 if needed else 0)
    assert re.match(r"\[없음\] (\(없어도 됨\) )?것: 없음", capsys.readouterr().out)


def without_package(name: str):
    def version(asked: str) -> str:
        if asked == name:
            raise importlib.metadata.PackageNotFoundError(name)
        return "8.1.0" if asked == "ipywidgets" else "3.0.0"

    return version


def raises(error: BaseException):
    def call(*_: object, **__: object) -> None:
        raise error

    return call


GIB = 2**30
Usage = namedtuple("Usage", "total used free")
ENDED = subprocess.CompletedProcess([], -signal.SIGILL, "", "")
FAULTS = {
    "old Python": (doctor.python, doctor.sys, "version_info", (3, 10)),
    "little memory": (
        doctor.memory, doctor.psutil, "virtual_memory", lambda: SimpleNamespace(total=4 * GIB, available=GIB)
    ),
    "one core": (doctor.cores, doctor.psutil, "cpu_count", lambda logical=True: 1),
    "llama.cpp for another CPU": (doctor.instructions, doctor.subprocess, "run", lambda *_, **__: ENDED),
    "full disk": (doctor.disk, doctor.shutil, "disk_usage", lambda _: Usage(10**10, 10**10, 10**6)),
    "no GPU": (doctor.gpu, doctor.shutil, "which", lambda _: None),
    "no llama-server": (
        doctor.llama_programs, doctor.programs, "find", raises(EngineNotFound("없습니다", "", "make lab"))
    ),
    "no Ollama": (doctor.ollama, doctor.shutil, "which", lambda _: None),
    "no vLLM": (doctor.vllm, doctor, "ROOT", Path("/nonexistent")),
    "no font": (doctor.korean_font, plots, "FONT", Path("/nonexistent/NanumGothic.ttf")),
    "damaged font": (doctor.korean_font, plots, "FONT", ROOT / "pyproject.toml"),
    "font without Korean": (doctor.korean_font, plots, "FONT", None),
    "no widgets": (doctor.widgets, doctor.importlib.metadata, "version", without_package("jupyterlab_widgets")),
    "front end of another generation": (
        doctor.widgets, doctor.importlib.metadata, "version", lambda name: "8.1.0" if name == "ipywidgets" else "1.1.0"
    ),
    "front end not installed": (doctor.widgets, doctor.sys, "prefix", "/nonexistent"),
}  # fmt: skip


@pytest.mark.parametrize(("check", "module", "name", "value"), FAULTS.values(), ids=FAULTS)
def test_each_fault_is_found_and_has_a_fix(check, module, name, value, monkeypatch):
    if value is None:
        import matplotlib

        value = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    monkeypatch.setattr(doctor, "CHECKS", (check,))
    monkeypatch.setattr(module, name, value)
    (finding,) = doctor.examine()
    monkeypatch.undo()
    assert not finding.ok and finding.detail and finding.fix
    assert re.match(r"\[없음\] (\(없어도 됨\) )?" + re.escape(finding.name), finding.line()) and "\n       고치기: " in finding.line()
    assert finding.name in CHECKED


def test_a_check_that_fails_itself_is_a_finding(monkeypatch):
    monkeypatch.setattr(doctor, "CHECKS", (raises(RuntimeError("unknown file format")),))
    (finding,) = doctor.examine()
    assert not finding.ok and "unknown file format" in finding.detail and finding.fix


def test_a_program_that_hangs_is_a_finding(tmp_path, monkeypatch):
    """`nvidia-smi` with a broken driver."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(doctor, "CHECKS", (doctor.gpu,))
    monkeypatch.setattr(doctor, "LOOK_LIMIT", 0.3)
    monkeypatch.setattr(doctor.shutil, "which", lambda _: str(program))
    (finding,) = doctor.examine()
    assert not finding.ok and finding.fix


# --- instruction sets -------------------------------------------------------------------------------------------------

X86 = "processor\t: 0\nflags\t\t: fpu pni ssse3 avx avx2 f16c fma bmi2\nbugs\t\t: spectre\n\nprocessor\t: 1\nflags\t\t: fpu\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp i8mm\nCPU part\t: 0xd4f\n"


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (X86, {"fpu", "pni", "ssse3", "avx", "avx2", "f16c", "fma", "bmi2"}),
        (ARM, {"fp", "asimd", "asimdhp", "asimddp", "i8mm"}),
        ("processor\t: 0\nmodel name\t: with flags\n", set()),
        (None, set()),
    ],
    ids=["x86", "arm", "no flags", "no /proc"],
)
def test_cpu_flags(text, flags, tmp_path, monkeypatch):
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text, encoding="utf-8")
    monkeypatch.setattr(doctor, "Path", lambda name: tmp_path / Path(name).name)
    assert doctor.cpu_flags() == flags


@pytest.mark.parametrize(
    ("system_info", "wanted"),
    [
        ("CPU : SSE3 = 1 | SSSE3 = 1 | AVX = 1 | AVX2 = 1 | F16C = 1 | FMA = 1 | BMI2 = 1 | LLAMAFILE = 1 | OPENMP = 1 | ",
         {"pni", "ssse3", "avx", "avx2", "f16c", "fma", "bmi2"}),
        ("CPU : AVX2 = 1 | AVX512 = 1 | AVX512_VBMI = 1 | AVX512_VNNI = 1 | AVX512_BF16 = 1 | AVX_VNNI = 1 | AMX_INT8 = 1",
         {"avx2", "avx512f", "avx512vbmi", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8"}),
        ("CPU : AVX = 1 | AVX2 = 0 | FMA = 0 | ", {"avx"}),
        ("CPU : NEON = 1 | ARM_FMA = 1 | FP16_VA = 1 | MATMUL_INT8 = 1 | DOTPROD = 1 | SVE = 1 | REPACK = 1 | ",
         {"asimd", "asimdhp", "i8mm", "asimddp", "sve"}),
        ("", set()),
    ],
    ids=["usual", "newest", "zeros", "arm", "nothing"],
)  # fmt: skip
def test_built_for(system_info, wanted):
    assert doctor.built_for(system_info) == wanted


@pytest.mark.parametrize(
    ("flags", "ok", "said"),
    [
        ({"avx", "avx2", "fma"}, True, "모두 있습니다"),
        ({"avx"}, False, "avx2, fma 명령어가 이 CPU에 없습니다"),
        (set(), True, "견주지 못했습니다"),
    ],
    ids=["fits", "too new", "unknown"],
)
def test_programs_for_another_cpu_are_reported(flags, ok, said, monkeypatch):
    built = subprocess.CompletedProcess([], 0, "CPU : AVX = 1 | AVX2 = 1 | FMA = 1 | ", "")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: built)
    monkeypatch.setattr(doctor, "cpu_flags", lambda: flags)
    finding = doctor.instructions()
    assert finding.ok is ok and said in finding.detail


def test_the_real_llama_cpp_is_asked():
    finding = doctor.instructions()
    assert finding.ok, finding
    assert sys.platform != "linux" or not doctor.cpu_flags() or re.search("avx|asimd", finding.detail)


# --- clean ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def caches(tmp_path):
    """A shared cache folder and a log folder, each with files of ours (1.5 MB in all) and of others."""
    cache, logs = tmp_path / "함께 쓰는 캐시", tmp_path / "state" / "servinglab" / "logs"
    for folder in (cache / "hub", logs):
        folder.mkdir(parents=True)
    ours = [cache / "tutor-f16-0123456789ab.gguf", cache / "speed-random-1.gguf", cache / "speed-random-1.gguf.x1.part"]
    ours += [logs / "llama-server-8080.log", logs / "key-abcd"]
    others = [cache / "Qwen3-4B-Q4_K_M.gguf", cache / "notes.txt", cache / "hub" / "model.gguf", logs / "diary.log"]
    for path in ours:
        path.write_bytes(bytes(300_000))
    for path in others:
        path.write_bytes(bytes(1_000_000))
    return ours, others, {"SERVINGLAB_CACHE": str(cache), "XDG_STATE_HOME": str(tmp_path / "state")}


def there(files) -> list[bool]:
    return [path.exists() for path in files]


@pytest.fixture
def clean(caches, monkeypatch, capsys):
    """`servinglab clean` in this process, for speed: with what is typed ("" is no keyboard). Returns what it shows."""
    for name, value in caches[2].items():
        monkeypatch.setenv(name, value)

    def run(*arguments: str, typed: str = "") -> str:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        assert cli.main(["clean", *arguments]) == 0
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("typed", ["", "\n", "n\n", "아니요\n", "yep\n"])
def test_clean_removes_nothing_without_a_yes(typed, caches, clean):
    """What would go, and how large it is, has been shown before."""
    shown = clean(typed=typed)
    assert "아무것도 지우지 않았습니다" in shown
    assert re.search(r"^ +0\.9 MB  .*함께 쓰는 캐시  \S", shown, re.MULTILINE), shown
    assert re.search(r"^ +0\.6 MB  .*logs  \S", shown, re.MULTILINE)
    assert all(there(caches[0])) and all(there(caches[1]))


def test_clean_without_a_keyboard(caches):
    """For real: nothing is typed because there is nowhere to type."""
    done = servinglab("clean", **caches[2])
    assert done.returncode == 0 and "아무것도 지우지 않았습니다" in done.stdout and done.stderr == ""
    assert all(there(caches[0]))


@pytest.mark.parametrize(("arguments", "typed"), [(["--yes"], ""), ([], "y\n"), ([], " 네 \n")])
def test_clean_removes_only_its_own(arguments, typed, caches, clean):
    assert "1.5 MB를 비웠습니다" in clean(*arguments, typed=typed)
    assert not any(there(caches[0])) and all(there(caches[1]))
    assert "지울 것이 없습니다" in clean("--yes") and all(there(caches[1]))


def test_ctrl_c_at_the_question_removes_nothing(caches, tmp_path):
    ours, _, environment = caches
    environment = {**os.environ, **environment, "PYTHONUNBUFFERED": "1"}
    shown = tmp_path / "shown"
    with shown.open("wb") as output:
        process = subprocess.Popen(
            [*COMMAND, "clean"], env=environment, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job would be deaf to it
        )
    try:
        wait_for(lambda: "지울까요?" in shown.read_text(encoding="utf-8"), 20, "the question is asked")
        time.sleep(0.3)  # until the answer is waited for
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait(10)
    text = shown.read_text(encoding="utf-8")
    assert "Traceback" not in text and "아무것도 지우지 않았습니다" in text
    assert all(there(ours))


def test_ctrl_c_elsewhere_shows_no_traceback(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "examine", raises(KeyboardInterrupt()))
    assert cli.main(["doctor"]) == 130 and "멈췄습니다" in capsys.readouterr().err


def test_clean_knows_what_the_package_really_writes(tmp_path):
    """Model and log of a real server, made and removed."""
    environment = {"SERVINGLAB_CACHE": str(tmp_path / "cache"), "XDG_STATE_HOME": str(tmp_path / "state")}
    code = "from servinglab import engines\nwith engines.start(api_key='k'): pass"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, timeout=MINUTE)
    need(done.returncode == 0, "llama-server and the tutor's weights")
    folders = [tmp_path / "cache", tmp_path / "state" / "servinglab" / "logs"]
    assert all(any(folder.iterdir()) for folder in folders)
    servinglab("clean", "--yes", **environment)
    assert [path for folder in folders for path in folder.iterdir()] == []


def test_clean_where_removing_is_not_allowed(tmp_path, monkeypatch, capsys):
    """A hub's shared cache is read-only for learners."""
    with small_disk(tmp_path / "읽기 전용", "1m") as disk:
        (disk / "tutor-f16-0.gguf").write_bytes(bytes(1000))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        monkeypatch.setenv("SERVINGLAB_CACHE", str(disk))
        assert cli.main(["clean", "--yes"]) == 1
        assert (disk / "tutor-f16-0.gguf").exists()
    said = capsys.readouterr()
    assert "지우지 못했습니다" in said.err and "운영자" in said.err and "비웠습니다" not in said.out


# --- reset ------------------------------------------------------------------------------------------------------------


def test_reset_of_an_unknown_lesson(tmp_path):
    done = servinglab("reset", "99", SERVINGLAB_WORK=str(tmp_path / "work"))
    assert done.returncode == 1 and done.stdout == ""
    assert "레슨이 없습니다" in done.stderr and "열려 있는 레슨: 00" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "work").exists()


def test_reset_says_where_the_old_file_is(tmp_path):
    lesson = curriculum.find("00")
    need(lesson.path.exists(), f"{lesson.path.name} (make lessons)")
    work = tmp_path / "홈 폴더" / "내 작업"
    assert "쓰던 파일" not in servinglab("reset", "00", SERVINGLAB_WORK=str(work)).stdout
    (work / lesson.path.name).write_text("고친 파일", encoding="utf-8")
    done = servinglab("reset", "00_warmup", SERVINGLAB_WORK=str(work))
    old = re.search(r"쓰던 파일은 (\S+\.ipynb) 로 남겨 두었습니다", done.stdout)
    assert done.returncode == 0 and old and (work / old.group(1)).read_text(encoding="utf-8") == "고친 파일"
    assert f"새 파일: {work / lesson.path.name}" in done.stdout


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_documents_name_only_commands_that_exist(document):
    if not (ROOT / document).exists():
        pytest.skip(f"{document} is not written yet")
    asked = set(re.findall(r"(?:`|^)servinglab ([a-z]+)", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE))
    shown = cli.parser().format_help()
    assert asked and all(re.search(rf"^ +{name} +\S", shown, re.MULTILINE) for name in asked)


# --- progress ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """Three answers to two lessons, in a folder of their own. Returns that folder."""
    home = tmp_path / "내 기록"
    monkeypatch.setenv("SERVINGLAB_HOME", str(home))
    progress.record("00", "exercise", "00-1", False)
    progress.record("00", "exercise", "00-1", True)
    progress.record("01", "quiz", "engine-job", True)
    return home


def test_progress_is_printed(answers):
    done = servinglab("progress")
    assert done.returncode == 0 and done.stderr == ""
    assert re.search(r"^00 +0/1 +- +2 +\d{4}-\d\d-\d\d$", done.stdout, re.MULTILINE)
    assert re.search(r"^01 +- +1/1 +1 +\d{4}-\d\d-\d\d$", done.stdout, re.MULTILINE)
    assert str(answers / "progress.sqlite3") in done.stdout


@pytest.fixture
def run(monkeypatch, capsys):
    """The command in this process, for speed: with what is typed ("" is no keyboard). Returns status, output, errors."""

    def call(*arguments: str, typed: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
        status = cli.main(["progress", *arguments])
        return status, *capsys.readouterr()

    return call


def test_progress_before_anything_was_answered(run, tmp_path, monkeypatch):
    monkeypatch.setenv("SERVINGLAB_HOME", str(tmp_path / "없는 폴더"))
    status, shown, _ = run()
    assert status == 0 and "아직 기록이 없습니다" in shown and not (tmp_path / "없는 폴더").exists()


def test_progress_as_a_file_for_excel(run, answers, tmp_path):
    target = tmp_path / "내 기록.csv"
    assert "적었습니다" in run("--csv", str(target))[1]
    content = target.read_bytes()
    assert content.startswith(b"\xef\xbb\xbf"), "without the mark Excel shows broken Hangul"
    rows = list(csv.reader(io.StringIO(content.decode("utf-8-sig"))))
    assert rows[0] == ["레슨", "종류", "문제", "맞음", "시각"]
    assert [row[:4] for row in rows[1:]] == [
        ["00", "연습", "00-1", "아니요"], ["00", "연습", "00-1", "예"], ["01", "퀴즈", "engine-job", "예"],
    ]  # fmt: skip
    assert run("--csv", "-")[1] == content.decode("utf-8-sig"), "no mark where a program reads it"


def test_progress_overwrites_no_file_and_leaves_none_half_written(run, answers, tmp_path):
    mine = tmp_path / "보고서.csv"
    mine.write_text("내 글", encoding="utf-8")
    status, _, error = run("--csv", str(mine))
    assert status == 1 and "이미 있습니다" in error and mine.read_text(encoding="utf-8") == "내 글"
    status, _, error = run("--csv", str(tmp_path / "없는 폴더" / "a.csv"))
    assert status == 1 and "쓰지 못했습니다" in error
    with small_disk(tmp_path / "작은 디스크", "4k") as disk:
        (disk / "filler").write_bytes(bytes(4096))
        status, _, error = run("--csv", str(disk / "a.csv"))
        assert status == 1 and "쓰지 못했습니다" in error and not (disk / "a.csv").exists()


@pytest.mark.parametrize("typed", ["", "\n", "n\n", "아니요\n"])
def test_progress_reset_removes_nothing_without_a_yes(typed, run, answers):
    status, shown, _ = run("--reset", "all", typed=typed)
    assert status == 0 and "답 3개" in shown and "되살릴 수 없습니다" in shown and "아무것도 지우지 않았습니다" in shown
    assert len(progress.attempts()) == 3


@pytest.mark.parametrize(
    ("arguments", "typed", "left"),
    [(["00"], "y\n", ["01"]), (["00", "--yes"], "", ["01"]), (["all"], "네\n", []), (["99"], "", ["00", "00", "01"])],
)
def test_progress_reset(arguments, typed, left, run, answers):
    status, shown, _ = run("--reset", *arguments, typed=typed)
    assert status == 0 and [attempt.lesson for attempt in progress.attempts()] == left
    assert ("지웠습니다" if len(left) < 3 else "지울 것이 없습니다") in shown


def test_progress_of_a_newer_or_damaged_file_is_a_message(run, answers):
    connection = sqlite3.connect(answers / "progress.sqlite3")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    status, _, error = run()
    assert status == 1 and "99판" in error
    (answers / "progress.sqlite3").write_bytes(b"junk" * 1000)
    for arguments in ([], ["--csv", "-"], ["--reset", "all", "--yes"]):
        status, _, error = run(*arguments)
        assert status == 1 and "망가졌습니다" in error
    assert (answers / "progress.sqlite3").read_bytes() == b"junk" * 1000


# --- lab: its settings ------------------------------------------------------------------------------------------------


def test_path_of_the_lab_ends_with_the_programs_we_compiled(monkeypatch):
    """This environment's Python first; a `llama-server` of the machine's own goes before ours; nothing twice."""
    own, ours = str(Path(sys.executable).parent), str(Path(sysconfig.get_path("purelib")) / "bin")
    monkeypatch.setenv("PATH", os.pathsep.join([ours, "/usr/local/bin", own, "", "/usr/bin"]))
    assert cli.program_path().split(os.pathsep) == [own, "/usr/local/bin", "/usr/bin", ours]
    monkeypatch.delenv("PATH")
    assert cli.program_path().split(os.pathsep) == [own, ours]


def test_lab_without_jupyterlab(monkeypatch, capsys):
    monkeypatch.setattr(workspace, "prepare", lambda: [])
    monkeypatch.setattr(cli.shutil, "which", lambda *_, **__: None)
    assert cli.main(["lab"]) == 1
    assert "JupyterLab이 설치되어 있지 않습니다" in (shown := capsys.readouterr()).err and "make lab" in shown.err


OVERRIDES = json.loads((paths.DATA / "jupyterlab" / "overrides.json").read_text(encoding="utf-8"))
SCHEMAS = Path(sys.prefix) / "share" / "jupyter" / "lab" / "schemas"


@pytest.mark.parametrize("plugin", OVERRIDES)
def test_overrides_fit_the_installed_jupyterlab(plugin):
    """JupyterLab ignores what it does not know: a renamed setting would go unnoticed."""
    package, _, name = plugin.partition(":")
    schema = json.loads((SCHEMAS / package / f"{name}.json").read_text(encoding="utf-8"))
    assert set(OVERRIDES[plugin]) <= set(schema["properties"])
    jsonschema.validate(OVERRIDES[plugin], schema)


def test_overrides_say_korean_no_news_no_subshells():
    settings = {key: value for plugin in OVERRIDES.values() for key, value in plugin.items()}
    assert settings["locale"] == "ko_KR" and settings["fetchNews"] == "false" and not settings["checkForUpdates"]
    assert settings["commsOverSubshells"] == "disabled"


# --- lab, really opened -----------------------------------------------------------------------------------------------

TOKEN = "cli-test-token"


class KeepRedirect(urllib.request.HTTPRedirectHandler):
    """Show a redirection instead of following it."""

    def redirect_request(self, *_: object) -> None:
        return None


class Lab:
    """`servinglab lab` with a home of its own."""

    def __init__(self, home: Path):
        self.home, self.port, self.work = home, free_port(), home / "내 작업"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
        environment.update(HOME=str(home), SERVINGLAB_WORK=str(self.work), JUPYTER_TOKEN=TOKEN)
        with (home / "lab.log").open("wb") as log:
            command = [*COMMAND, "lab", "--no-browser", "--port", str(self.port)]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)

    def get(self, path: str, token: str | None = TOKEN) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body; redirections are not followed."""
        headers = {"Authorization": f"token {token}"} if token else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=headers)
        try:
            with urllib.request.build_opener(KeepRedirect, urllib.request.ProxyHandler({})).open(request, timeout=15) as reply:
                return reply.status, dict(reply.headers), reply.read()
        except urllib.error.HTTPError as error:
            return error.code, dict(error.headers), error.read()

    def answers(self) -> bool:
        assert self.process.poll() is None, (self.home / "lab.log").read_text(encoding="utf-8")
        try:
            return self.get("/api")[0] == 200
        except OSError:
            return False

    def end(self) -> None:
        children = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        for child in psutil.wait_procs(children, timeout=10)[1]:
            child.kill()


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    lesson = curriculum.find("00")
    need(lesson.path.exists(), f"{lesson.path.name} (make lessons)")
    running = Lab(tmp_path_factory.mktemp("홈 폴더"))
    try:
        wait_for(running.answers, 30, "JupyterLab answers")
        yield running
    finally:
        running.end()
    assert not listening(running.port)


def test_lab_says_what_it_copied_and_how_to_end_it(lab):
    said = (lab.home / "lab.log").read_text(encoding="utf-8")
    assert "복사" in said and "00_warmup.ipynb" in said and "Ctrl+C" in said and "Traceback" not in said
    assert (lab.work / curriculum.find("00").path.name).is_file()


def test_lab_opens_on_the_table_of_lessons(lab):
    status, headers, _ = lab.get("/")
    assert status == 302 and headers["Location"].isascii(), "HTTP's headers are ASCII"
    assert urllib.parse.unquote(headers["Location"]).rstrip("?") == "/lab/tree/차례.md"
    assert lab.get(headers["Location"])[0] == 200
    shown = json.loads(lab.get("/api/contents/")[2])
    assert {"차례.md", "00_warmup.ipynb"} <= {entry["name"] for entry in shown["content"]}


def test_lab_speaks_korean(lab):
    """The setting as the front end asks for it, and the language pack that it needs."""
    settings = {entry["id"]: entry["settings"] for entry in json.loads(lab.get("/lab/api/settings")[2])["settings"]}
    for plugin, wanted in OVERRIDES.items():
        schema = json.loads(lab.get(f"/lab/api/settings/{plugin}")[2])["schema"]["properties"]
        assert settings[plugin] == {}, "nothing set by the learner yet"
        assert {key: schema[key]["default"] for key in wanted} == wanted
    pack = json.loads(lab.get("/lab/api/translations/ko_KR")[2])
    assert pack["message"] == "" and pack["data"]["jupyterlab"]["menu\x04File"] == ["파일"]


def test_lab_is_open_to_nobody_else(lab):
    """A token is asked for, and only this machine is listened to."""
    assert lab.get("/api/contents/", token=None)[0] == 403
    assert lab.get("/api/contents/", token="wrong")[0] == 403
    own = [c for c in psutil.Process(lab.process.pid).net_connections("inet") if c.status == psutil.CONN_LISTEN]
    assert own and {connection.laddr.ip for connection in own} == {"127.0.0.1"}


def test_a_command_that_is_missing_or_misspelt_is_told_in_korean():
    for arguments in ((), ("doctr",), ("reset",)):
        done = servinglab(*arguments)
        assert done.returncode == 1 and "알아듣지 못했습니다" in done.stderr and "servinglab doctor" in done.stderr
        assert "Traceback" not in done.stderr
