"""Set-up: exact pins in one place, and a bootstrap that says what is missing, can be stopped and run again."""

from __future__ import annotations

import ast
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tomllib
from importlib import metadata
from pathlib import Path

import psutil
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from servinglab import doctor
from tests.helpers import ROOT, can_isolate, descendants, need, small_disk, wait_for

sys.path.insert(0, str(ROOT / "tools"))
import bootstrap

SOURCE = ROOT / "tools" / "bootstrap.py"
MINUTE = 60
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"matplotlib-base": "matplotlib", "ollama-python": "ollama"}
"""conda-forge's name of a package, and PyPI's, where they differ."""
CONDA_ONLY = {"python", "pip", "llama.cpp", "ollama", "ollama-python"}
"""What environment.yml names and constraints.txt does not pin: not from PyPI, or (the client of Ollama) not used yet."""


# --- exact pins, and the ranges of the conda-forge route --------------------------------------------------------------


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("==") for line in lines if line and not line.startswith("#")]
    assert len({canonicalize_name(name) for name, _, _ in pairs}) == len(pairs), "a package is pinned twice"
    return {canonicalize_name(name): version for name, _, version in pairs}


def conda_specs() -> dict[str, str]:
    """Name and range of every conda package in environment.yml."""
    entries = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    words = [entry.split(maxsplit=1) for entry in entries if isinstance(entry, str)]
    return {name: "".join(rest) for name, *rest in words}


def named(*extras: str) -> set[str]:
    """What pyproject.toml asks for by name: the dependencies, and those of some extras."""
    listed = PROJECT["dependencies"] + [name for extra in extras for name in PROJECT["optional-dependencies"][extra]]
    return {canonicalize_name(Requirement(name).name) for name in listed}


def test_every_pin_is_one_exact_version():
    """Version() refuses wildcards and ranges."""
    assert pins() and [str(Version(version)) for version in pins().values()]


def test_everything_that_pyproject_names_is_pinned():
    assert named(*PROJECT["optional-dependencies"]) <= set(pins())


def test_nothing_that_an_installed_package_needs_is_missing():
    """llama-cpp-python is compiled with --no-deps; what it imports must come with the package all the same."""
    done = subprocess.run([sys.executable, "-m", "pip", "check"], capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stdout


def test_versions_stand_in_one_place():
    """pyproject.toml lists bare names: a range there would be a second place."""
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    assert [name for names in lists for name in names if Requirement(name).specifier] == []


@pytest.mark.skipif(sys.platform != "linux", reason="the pins were made on Linux; elsewhere packages differ")
def test_indirect_packages_are_pinned_too():
    """All that the installed packages require in turn. Those of an extra that is not installed here are left out."""
    todo = [("servinglab", extra) for extra in ("", *PROJECT["optional-dependencies"])]
    seen: set[tuple[str, str]] = set()
    while todo:
        name, extra = todo.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            requirements = [Requirement(line) for line in metadata.requires(name) or []]
        except metadata.PackageNotFoundError:
            continue
        for needed in requirements:
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                todo += [(canonicalize_name(needed.name), inner) for inner in ("", *needed.extras)]
    # PyTorch's build for CUDA pins its own libraries exactly; the one for the CPU has none.
    ours = {name for name, _ in seen if not re.match(r"(nvidia|cuda)-|triton$", name)}
    assert ours - {"servinglab"} - set(pins()) == set()


@pytest.mark.parametrize("name", sorted(set(conda_specs()) - CONDA_ONLY))
def test_conda_range_holds_the_pin(name):
    pin = pins()[canonicalize_name(CONDA_NAMES.get(name, name))]
    assert conda_specs()[name], "a range is wanted"
    assert SpecifierSet(conda_specs()[name]).contains(pin, prereleases=True), f"{name}: {pin}"


def test_conda_route_has_all_that_the_course_needs():
    conda = {canonicalize_name(CONDA_NAMES.get(name, name)) for name in conda_specs()}
    assert named("lab") | {"jupytext", "nbval", "pytest"} <= conda
    assert {"llama-cpp-python", "llama.cpp", "ollama", "ollama-python"} <= set(conda_specs())
    assert [name for name, spec in conda_specs().items() if not spec and name != "pip"] == [], "each has a range"


def test_conda_and_bootstrap_want_the_python_that_pyproject_wants():
    oldest = ".".join(map(str, bootstrap.OLDEST))
    assert PROJECT["requires-python"] == f">={oldest}"
    assert conda_specs()["python"].startswith(f">={oldest},")


def test_environment_says_that_nobody_has_resolved_it():
    assert "Unresolved" in (ROOT / "environment.yml").read_text(encoding="utf-8")


# --- what is missing, found before anything is begun ------------------------------------------------------------------


def copied(folder: Path) -> Path:
    """What set-up reads, in a folder of its own."""
    (folder / "tools").mkdir(parents=True)
    for name in ("tools/bootstrap.py", "constraints.txt", "pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def started(folder: Path, interpreter: str | Path = sys.executable, **changes: str) -> subprocess.CompletedProcess[str]:
    """`tools/bootstrap.py` of a copy, run to its end. `changes` go into its environment."""
    environment = {name: value for name, value in os.environ.items() if name not in ("CXX", "PYTHONPATH")}
    command = [str(interpreter), str(folder / "tools" / "bootstrap.py"), "--extras", "lab"]
    return subprocess.run(
        command, env={**environment, **changes}, capture_output=True, text=True, encoding="utf-8", timeout=MINUTE
    )


def only_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that a set-up which cannot begin says, and its exit status 1; nothing was made."""
    assert done.returncode == 1 and done.stderr == "", done
    lines = done.stdout.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def old_pythons() -> list[Path]:
    """Interpreters older than 3.11 on this machine (pyenv's shims stand for versions that may not be active)."""
    names = [f"python3.{minor}" for minor in range(6, 11)]
    found = [shutil.which(name) for name in names]
    paths = [Path(path) for path in found if path and ".pyenv" not in path]
    return paths + [path for name in names for path in sorted(Path.home().glob(f".pyenv/versions/3.*/bin/{name}"))]


def test_bootstrap_is_plain_enough_for_an_old_python():
    """Syntax of 3.6 and the standard library alone: too old a Python must reach our sentence."""
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 6))
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    names = {alias.name for node in imports for alias in node.names if isinstance(node, ast.Import)}
    names |= {node.module for node in imports if isinstance(node, ast.ImportFrom)}
    assert names <= sys.stdlib_module_names | {"pathlib"}


@pytest.mark.parametrize("locale", ["C.UTF-8", "POSIX"])
@pytest.mark.parametrize("interpreter", old_pythons() or [None], ids=lambda path: path.name if path else "none")
def test_old_python_gets_one_korean_sentence(interpreter, locale, tmp_path):
    """With a locale that cannot spell Korean, too: Python 3.6 would die of it."""
    if interpreter is None:
        pytest.skip("needs a Python older than 3.11: none on PATH or under ~/.pyenv")
    line = only_line(started(copied(tmp_path / "새 폴더"), interpreter, LC_ALL=locale))
    assert "너무 오래됐습니다" in line and "make lab PYTHON=" in line
    assert re.search(rf"(?<![\d.]){re.escape(interpreter.name[6:])}(?!\d)", line), "it names the version that is here"


def test_no_compiler(tmp_path):
    (tmp_path / "bin").mkdir()
    line = only_line(started(copied(tmp_path / "새 폴더"), PATH=str(tmp_path / "bin")))
    assert "C++ 컴파일러가 없습니다" in line and re.search("apt install build-essential|xcode-select --install", line)
    assert not (tmp_path / "새 폴더" / ".venv").exists()


def test_no_python3_venv(tmp_path):
    """Debian's python3 without python3-venv: `import ensurepip` fails."""
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "ensurepip.py").write_text("raise ImportError('not installed')\n", encoding="utf-8")
    line = only_line(started(copied(tmp_path / "새 폴더"), PYTHONPATH=str(hidden)))
    assert f"apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv" in line


def test_no_disk_space(tmp_path):
    with small_disk(tmp_path / "작은 디스크", "1m") as disk:
        line = only_line(started(copied(disk / "course")))
    assert "디스크에 자리가 모자랍니다" in line and "3.0 GB 필요" in line and "du -sh" in line


# --- a whole set-up, with stand-ins for its slow steps ----------------------------------------------------------------

VENV_STAND_IN = """\
# Stands in for the module `venv`: makes a .venv whose `python` notes how it was called and sleeps for $SLOW seconds.
import os, sys
from pathlib import Path
if __name__ == "__main__":
    program = Path(sys.argv[-1]) / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\\necho "$@" >> "$CALLS"\\nsleep "${SLOW:-0}" &\\nwait\\n', encoding="utf-8")
    program.chmod(0o755)
    exec(os.environ.get("THEN", ""))
"""


@pytest.fixture
def course(tmp_path):
    """A copy whose llama.cpp is unpacked already, with the environment that puts the stand-ins in place."""
    folder = copied(tmp_path / "새 폴더" / "course")
    source = folder / ".build" / f"llama_cpp_python-{bootstrap.pinned('llama-cpp-python')}"
    source.mkdir(parents=True)
    (source / ".unpacked").touch()
    stand_ins, programs = tmp_path / "stand-ins", tmp_path / "bin"
    stand_ins.mkdir()
    (stand_ins / "venv.py").write_text(VENV_STAND_IN, encoding="utf-8")
    programs.mkdir()
    (programs / "c++").touch(mode=0o755)
    need(shutil.disk_usage(folder).free > bootstrap.DISK_GB * 1e9, "3 GB of free disk")
    path = os.pathsep.join([str(programs), os.environ["PATH"]])
    return folder, {"PYTHONPATH": str(stand_ins), "PATH": path, "CALLS": str(tmp_path / "calls")}


def calls(environment: dict[str, str]) -> list[str]:
    path = Path(environment["CALLS"])
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def test_says_beforehand_what_it_will_do_and_how_long_it_takes(course):
    folder, environment = course
    done = started(folder, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    plan, _, rest = done.stdout.partition("중간에 Ctrl+C")
    steps = re.findall(r"^  (\d)\. (.+): .*(?:초|분)", plan, re.MULTILINE)
    assert [number for number, _ in steps] == ["1", "2", "3"]
    assert all(f"{label} 끝 (" in rest for _, label in steps), done.stdout
    assert "걸린 시간" in rest
    assert any("llama_cpp_python-" in call and "--no-deps" in call for call in calls(environment))
    assert any("-c constraints.txt" in call and ".[lab]" in call for call in calls(environment))


def test_second_run_does_nothing_and_says_nothing(course):
    folder, environment = course
    started(folder, **environment)
    before = calls(environment)
    again = started(folder, **environment)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "") and calls(environment) == before


def test_a_changed_pin_installs_the_packages_anew_and_does_not_compile(course):
    folder, environment = course
    started(folder, **environment)
    text = (folder / "constraints.txt").read_text(encoding="utf-8")
    (folder / "constraints.txt").write_text(text.replace("numpy==", "numpy==9."), encoding="utf-8")
    again = started(folder, **environment)
    assert "Python 꾸러미 설치" in again.stdout and "컴파일" not in again.stdout


def test_doctors_fix_for_a_foreign_cpu_compiles_again(course, monkeypatch):
    """What `servinglab doctor` says to remove must be what set-up looks at."""
    folder, environment = course
    started(folder, **environment)
    killed = subprocess.CompletedProcess([], -signal.SIGILL, "", "")
    monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: killed)
    fix = re.search(r"rm -rf ([\w./ -]+?) 뒤 make lab", doctor.instructions().fix)
    monkeypatch.undo()
    assert fix is not None
    for name in fix.group(1).split():
        shutil.rmtree(folder / name)
    source = folder / ".build" / f"llama_cpp_python-{bootstrap.pinned('llama-cpp-python')}"
    source.mkdir(parents=True, exist_ok=True)
    (source / ".unpacked").touch()
    again = started(folder, **environment)
    assert again.returncode == 0 and "llama.cpp 컴파일 끝" in again.stdout, again.stdout + again.stderr


class Running:
    """A set-up in the middle of its slow second step."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]):
        everything = {**os.environ, **environment, "SLOW": "600", "PYTHONUNBUFFERED": "1"}
        self.process = subprocess.Popen(
            command, cwd=folder, env=everything, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
        )
        wait_for(lambda: calls(environment), 20, "the second step is under way")
        wait_for(lambda: any(child.name() == "sleep" for child in self.children()), 5, "its own child too")
        self.below = self.children()

    def children(self) -> list[psutil.Process]:
        return descendants(self.process.pid)

    def end(self) -> tuple[int, str, list[psutil.Process]]:
        """Exit status, output, and what still runs a little later (and is then ended)."""
        try:
            output = self.process.communicate(timeout=20)[0].decode("utf-8")
        finally:
            _, alive = psutil.wait_procs(self.below, timeout=5)
            for process in [*alive, self.process]:
                process.kill()
        return self.process.returncode, output, alive


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_interruption_is_said_and_leaves_no_process(course, number):
    """Ctrl+C, `kill`, and a terminal window that is closed: no compiler works on in the background."""
    folder, environment = course
    running = Running([sys.executable, str(folder / "tools" / "bootstrap.py")], folder, environment)
    running.process.send_signal(number)
    status, output, alive = running.end()
    assert alive == []
    assert status == 130 and "멈췄습니다" in output and "Traceback" not in output, output


def test_ctrl_c_on_make_lab(course):
    """The terminal signals make and all its children at once."""
    folder, environment = course
    need(shutil.which("make"), "make")
    running = Running(["make", "lab", f"PYTHON={sys.executable}"], folder, environment)
    os.killpg(running.process.pid, signal.SIGINT)
    status, output, alive = running.end()
    assert alive == [] and status != 0 and "멈췄습니다" in output and "Traceback" not in output, output


def test_after_an_interruption_only_the_rest_is_done(course):
    folder, environment = course
    running = Running([sys.executable, str(folder / "tools" / "bootstrap.py")], folder, environment)
    running.process.send_signal(signal.SIGINT)
    running.end()
    marker = folder / ".venv" / "made by the first run"
    marker.touch()
    again = started(folder, **environment)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "가상 환경" not in again.stdout and "llama.cpp 컴파일 끝" in again.stdout and marker.exists()


FILL = """
with (Path(sys.argv[-1]).parent / 'filler').open('wb', buffering=0) as file:
    try:
        while file.write(bytes(4096)): pass
    except OSError as error:
        failed = error
"""


@pytest.mark.parametrize("ending", ["raise failed", ""], ids=["step fails", "step ends and its stamp has no room"])
def test_disk_that_fills_up_meanwhile(course, ending, tmp_path):
    """The log lies on the same disk, so the reason may never have been written down."""
    _, environment = course
    with small_disk(tmp_path / "작은 디스크", "1m") as disk:
        small = copied(disk / "course")
        text = SOURCE.read_text(encoding="utf-8").replace(f"DISK_GB = {bootstrap.DISK_GB}", "DISK_GB = 0.0")
        (small / "tools" / "bootstrap.py").write_text(text, encoding="utf-8")
        done = started(small, **{**environment, "THEN": f"{FILL}\n{ending}"})
    assert done.returncode == 1 and "디스크가 가득 찼습니다" in done.stdout, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


# --- one step ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def logs(tmp_path, monkeypatch):
    monkeypatch.setattr(bootstrap, "BUILD", tmp_path)
    return bootstrap.Log("step")


def test_a_long_step_shows_its_name_and_time_again_and_again(logs, monkeypatch, capsys):
    """At least every 15 s, with ninja's count where there is one."""
    assert bootstrap.EVERY + 1 <= 15
    monkeypatch.setattr(bootstrap, "EVERY", 0.6)
    bootstrap.run("잠자기", logs, [[sys.executable, "-c", "import time; print('[3/7] cc', flush=True); time.sleep(3)"]])
    *during, last = capsys.readouterr().out.splitlines()
    seconds = [int(match.group(1)) for line in during if (match := re.fullmatch(r"  잠자기 … (\d+)초 지남(?: \(3/7\))?", line))]
    assert len(seconds) == len(during) >= 3 and seconds == sorted(seconds) and seconds[-1] >= 2, during
    assert "(3/7)" in during[-1]
    assert re.fullmatch(r"  잠자기 끝 \([3-9]초\)", last)


def test_a_failed_step_shows_the_end_of_its_log(logs):
    with pytest.raises(bootstrap.Stop, match=r"(?s)잠자기: 실패했습니다.*step.log.*what went wrong"):
        bootstrap.run("잠자기", logs, [[sys.executable, "-c", "print('what went wrong'); raise SystemExit(3)"]])


def test_a_failed_command_ends_the_step(logs, tmp_path):
    """The commands after it are not run."""
    after = [sys.executable, "-c", f"open({str(tmp_path / 'after')!r}, 'w')"]
    with pytest.raises(bootstrap.Stop):
        bootstrap.run("잠자기", logs, [[sys.executable, "-c", "raise SystemExit(1)"], after])
    assert not (tmp_path / "after").exists()


def test_no_network(logs, tmp_path):
    """Real pip, cut off from the network."""
    need(can_isolate(), "unshare, to cut the network")
    pip = [sys.executable, "-m", "pip", "download", "--no-deps", "-d", tmp_path / "got", "six"]
    environment = {name: value for name, value in os.environ.items() if not name.upper().startswith(("PIP_", "HTTP"))}
    environment.update(PIP_CONFIG_FILE=os.devnull, PIP_RETRIES="1")
    with pytest.raises(bootstrap.Stop, match=r"잠자기: 인터넷에 연결되지 않았습니다"):
        bootstrap.run("잠자기", logs, [["unshare", "-rn", *pip]], environment)


@pytest.mark.parametrize(
    "text",
    [
        "error: [Errno 28] No space left on device: '/x'",
        "fatal error: error writing to /tmp/cc.s: No space left on device\n" + "[9/268] cc\n" * 2000,
        "as: BFD (GNU Binutils) 2.40: 장치에 남은 공간이 없음",
    ],
    ids=["pip", "far above the end", "compiler in Korean"],
)
def test_full_disk_is_known_from_the_log(logs, text):
    logs.path.write_text(text, encoding="utf-8")
    assert bootstrap.reason("잠자기", logs).startswith("잠자기: 디스크가 가득 찼습니다.")


def test_a_retry_that_helped_is_no_missing_network(logs):
    """pip noted a hiccup and went on; much later something else failed."""
    hiccup = "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(...)'\n"
    logs.path.write_text(hiccup + "[9/268] building\n" * 2000 + "error: expected ';'", encoding="utf-8")
    assert "인터넷" not in bootstrap.reason("잠자기", logs)


def test_unpacks_with_a_python_whose_tarfile_has_no_filters(logs, tmp_path, monkeypatch):
    """3.11.0 to 3.11.3, and so Debian 12's 3.11.2, do not know `extractall(filter=…)`."""
    name = "llama_cpp_python-" + bootstrap.pinned("llama-cpp-python")
    (tmp_path / "sdist" / name).mkdir(parents=True)
    (tmp_path / "sdist" / name / "CMakeLists.txt").touch()

    def run(label, log, commands, environment=None):
        if "download" in commands[0]:
            with tarfile.open(tmp_path / f"{name}.tar.gz", "w:gz") as archive:
                archive.add(tmp_path / "sdist" / name, name)

    newer = tarfile.TarFile.extractall
    monkeypatch.setattr(tarfile.TarFile, "extractall", lambda self, path=".": newer(self, path))
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    monkeypatch.setattr(bootstrap, "run", run)
    bootstrap.build_llama("컴파일", logs)
    assert (tmp_path / name / "CMakeLists.txt").is_file() and (tmp_path / name / ".unpacked").is_file()


# --- the Makefile -----------------------------------------------------------------------------------------------------


def targets() -> set[str]:
    """Every target with a recipe."""
    return set(re.findall(r"^([a-z]+):.*\n\t", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))


def test_make_help_lists_every_target():
    need(shutil.which("make"), "make")
    done = subprocess.run(["make", "-C", str(ROOT), "help"], capture_output=True, text=True, encoding="utf-8", timeout=MINUTE)
    shown = dict(re.findall(r"^  make ([a-z]+) +(\S.*)$", done.stdout, re.MULTILINE))
    assert set(shown) == targets() == {"lab", "test", "lessons", "bench", "clean", "help"}
    assert all(re.search("[가-힣]", text) for text in shown.values()) and "LESSON=00" in done.stdout


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_documents_name_only_targets_that_exist(name):
    if not (ROOT / name).exists():
        pytest.skip(f"{name} is not written yet")
    asked = set(re.findall(r"(?:`|^)make ([a-z]+)", (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE))
    assert asked and asked <= targets()
