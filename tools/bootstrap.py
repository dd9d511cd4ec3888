#!/usr/bin/env python3
"""Make .venv with the course and llama.cpp in it. Called by `make`; may be interrupted and run again at any time.

Standard library only, and no newer syntax than Python 3.6 reads: whoever has too old a Python must get our
sentence and not a SyntaxError.
"""

import argparse
import errno
import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BUILD = ROOT / ".build"
WINDOWS = os.name == "nt"
PYTHON = VENV / ("Scripts/python.exe" if WINDOWS else "bin/python")
OLDEST = (3, 11)
DISK_GB = 3.0
EVERY = 10.0  # seconds between two lines while a step runs
FULL_DISK = "디스크가 가득 찼습니다. 자리를 비운 뒤 같은 명령을 다시 실행하면 이어서 합니다."

# An RPATH lets the programs find their libraries from any terminal, without LD_LIBRARY_PATH. Without AMX, because GCC 12
# drops the stores of ggml's tile configuration and every Q8_0 model then ends in SIGILL (llama.cpp pull request 26954).
CMAKE_ARGS = " ".join([
    "-DLLAMA_BUILD_TOOLS=ON", "-DLLAMA_BUILD_SERVER=ON", "-DLLAMA_TOOLS_INSTALL=ON", "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF", "-DLLAVA_BUILD=OFF", "-DCMAKE_C_FLAGS=-U__AMX_INT8__", "-DCMAKE_CXX_FLAGS=-U__AMX_INT8__",
    "-DCMAKE_INSTALL_RPATH=" + ("@loader_path/../lib" if sys.platform == "darwin" else "$ORIGIN/../lib"),
])


class Stop(Exception):
    """A reason why set-up cannot go on: what is wrong, and the command that mends it."""


def say(text):
    try:
        print(text, flush=True)
    except UnicodeEncodeError:  # Python 3.6 in the locale "C"
        sys.stdout.buffer.write((text + "\n").encode("utf-8"))
        sys.stdout.flush()


def clock(seconds):
    minutes, seconds = divmod(int(seconds), 60)
    return "%d분 %02d초" % (minutes, seconds) if minutes else "%d초" % seconds


# --- what must be there before anything is begun -----------------------------------------------------------------------


def check_python():
    if sys.version_info < OLDEST:
        raise Stop(
            "Python이 너무 오래됐습니다(지금 %d.%d, 필요한 것은 3.11 이상). 새 Python을 설치한 뒤 "
            "make lab PYTHON=python3.11 처럼 그 이름을 적어 다시 실행하세요." % sys.version_info[:2]
        )


def check_venv():
    probe = subprocess.run([sys.executable, "-c", "import venv, ensurepip"], stderr=subprocess.DEVNULL)
    if probe.returncode != 0:
        raise Stop(
            "가상 환경을 만드는 python3-venv 꾸러미가 없습니다. sudo apt install python%d.%d-venv 를 실행한 뒤 "
            "다시 시도하세요." % sys.version_info[:2]
        )


def check_compiler():
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "c++", "g++", "clang++")):
        fix = "xcode-select --install" if sys.platform == "darwin" else "sudo apt install build-essential"
        raise Stop("llama.cpp를 만들 C++ 컴파일러가 없습니다. %s 를 실행한 뒤 다시 시도하세요." % fix)


def check_disk():
    free = shutil.disk_usage(str(ROOT)).free / 1e9
    if free < DISK_GB:
        raise Stop(
            "디스크에 자리가 모자랍니다(%.1f GB 남음, %.1f GB 필요). du -sh ~/.cache 로 큰 폴더를 찾아 비운 뒤 "
            "다시 시도하세요." % (free, DISK_GB)
        )


# --- running one step ----------------------------------------------------------------------------------------------------


class Log:
    """A step's output, in a file that we also read for signs of progress."""

    def __init__(self, name):
        (BUILD / "logs").mkdir(parents=True, exist_ok=True)
        self.path = BUILD / "logs" / (name + ".log")

    def text(self):
        return self.path.read_text(encoding="utf-8", errors="replace")

    def progress(self):
        """Ninja's "[12/268]", if there is one."""
        found = re.findall(r"\[(\d+)/(\d+)\]", self.text()[-4000:])
        return " (%s/%s)" % found[-1] if found else ""


def run(label, log, commands, environment=None):
    """Run commands one after another, their output in the log; a line at least every 15 s. Raises Stop if one fails."""
    began = time.time()
    with open(str(log.path), "wb") as output:
        for command in commands:
            child = subprocess.Popen(
                [str(word) for word in command], stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                cwd=str(ROOT), env=environment, start_new_session=True,
            )
            try:
                wait(child, label, log, began)
            except BaseException:
                end_group(child)
                raise
            if child.returncode != 0:
                raise Stop(reason(label, log))
    say("  %s 끝 (%s)" % (label, clock(time.time() - began)))


def wait(child, label, log, began):
    spoken = time.time()
    while child.poll() is None:
        time.sleep(0.2)
        if time.time() - spoken >= EVERY:
            spoken = time.time()
            say("  %s … %s 지남%s" % (label, clock(spoken - began), log.progress()))


def end_group(child):
    """End a step and everything it started (pip, CMake, a dozen compilers)."""
    if WINDOWS:
        child.kill()
    else:
        try:
            os.killpg(child.pid, signal.SIGTERM)
        except ProcessLookupError:
            return
    child.wait()


def reason(label, log):
    text = log.text()
    full = shutil.disk_usage(str(BUILD)).free < 2 ** 20  # then the log itself may have been cut short
    if full or re.search("No space left on device|남은 공간이 없", text):  # compilers speak the user's language
        return "%s: %s" % (label, FULL_DISK)
    if re.search(r"Temporary failure in name resolution|NewConnectionError|Network is unreachable", text[-8000:]):
        return "%s: 인터넷에 연결되지 않았습니다. 설치할 때만 인터넷이 필요합니다. 연결한 뒤 다시 실행하세요." % label
    tail = "\n".join("    " + line for line in text.splitlines()[-12:])
    return "%s: 실패했습니다. 기록의 끝부분입니다 (전체: %s).\n%s" % (label, log.path, tail)


# --- the steps -----------------------------------------------------------------------------------------------------------


def digest(*parts):
    return hashlib.sha256("\0".join(parts).encode("utf-8")).hexdigest()[:16]


def pinned(name):
    """The exact version of a package, from the one place where versions stand."""
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    return re.search(r"(?m)^%s==(\S+)" % re.escape(name), text).group(1)


class Step:
    """Something to do once: skipped while its stamp, a digest of what it depends on, still fits."""

    def __init__(self, name, label, minutes, inputs, action):
        self.name, self.label, self.minutes, self.action = name, label, minutes, action
        self.stamp, self.inputs = VENV / (".done-" + name), inputs

    def stamped(self):
        there = PYTHON.exists() and self.stamp.exists()
        return self.stamp.read_text(encoding="utf-8").split() if there else []

    def done(self):
        return self.stamped() == [self.inputs]

    def __call__(self):
        self.action(self.label, Log(self.name))
        self.stamp.write_text(self.inputs, encoding="utf-8")


class PackageStep(Step):
    """The Python packages. Groups that are there already stay: `make lab` after `make test` must not install anew."""

    def __init__(self, extras, inputs):
        super().__init__("package", "Python 꾸러미 설치", "1~2분", inputs, self.install)
        self.extras = extras

    def done(self):
        return self.stamped()[:1] == [self.inputs] and set(self.extras) <= set(self.stamped()[1:])

    def __call__(self):
        self.extras = sorted(set(self.extras) | set(self.stamped()[1:]))
        super().__call__()
        self.stamp.write_text(" ".join([self.inputs] + self.extras), encoding="utf-8")

    def install(self, label, log):
        run(label, log, [[PYTHON, "-m", "pip", "--disable-pip-version-check", "install", "-c", "constraints.txt",
                          "-e", ".[%s]" % ",".join(self.extras)]])


def make_venv(label, log):
    outside = getattr(sys, "_base_executable", sys.executable)  # we may run on the .venv that is to be made anew
    run(label, log, [[outside, "-m", "venv", "--clear", VENV]])


def build_llama(label, log):
    """Compile in .build, which survives an interruption: ninja goes on where it was."""
    version = pinned("llama-cpp-python")
    source = BUILD / ("llama_cpp_python-" + version)
    pip = [PYTHON, "-m", "pip", "--disable-pip-version-check"]
    if not (source / ".unpacked").exists():
        run(label + " (소스 받기)", Log("llama-source"), [pip + [
            "download", "--no-deps", "--no-binary", "llama-cpp-python", "-d", BUILD, "llama-cpp-python==" + version,
        ]])
        with tarfile.open(str(BUILD / ("llama_cpp_python-%s.tar.gz" % version))) as archive:
            if hasattr(tarfile, "data_filter"):
                archive.extractall(str(BUILD), filter="data")
            else:  # Python 3.11.0 to 3.11.3, Debian 12's among them
                archive.extractall(str(BUILD))
        (source / ".unpacked").touch()
    environment = dict(os.environ, CMAKE_ARGS=CMAKE_ARGS)
    run(label, log, [pip + [
        "install", "-v", "--no-deps", "--force-reinstall", "-C", "build-dir=" + str(BUILD / "llama-build"), source,
    ]], environment)


def steps(extras):
    here = digest(sys.version, str(ROOT))
    cpu = digest(here, pinned("llama-cpp-python"), CMAKE_ARGS, platform.machine())
    files = [(ROOT / name).read_text(encoding="utf-8") for name in ("pyproject.toml", "constraints.txt")]
    return [
        Step("venv", "가상 환경(.venv) 만들기", "10초쯤", here, make_venv),
        Step("llama", "llama.cpp 컴파일", "2코어에서 6~9분", cpu, build_llama),
        PackageStep(extras, digest(here, *files)),
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extras", default="lab", help="optional dependency groups of pyproject.toml, with commas")
    extras = sorted(set(filter(None, parser.parse_args().extras.split(","))))
    began = time.time()
    check_python()
    todo = [step for step in steps(extras) if not step.done()]
    if not todo:
        return
    check_venv()
    check_disk()
    if any(step.name == "llama" for step in todo):
        check_compiler()
    say("과정을 준비합니다. 할 일:")
    for number, step in enumerate(todo, 1):
        say("  %d. %s: %s" % (number, step.label, step.minutes))
    say("중간에 Ctrl+C로 멈춰도 됩니다. 같은 명령을 다시 실행하면 남은 일만 합니다.")
    for step in todo:
        step()
    say("준비가 끝났습니다. 걸린 시간: %s" % clock(time.time() - began))


def stop_for(number, frame):
    """SIGHUP (a closed terminal) and SIGTERM (a CI time-out) end the compilers too, as Ctrl+C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs deaf to it
    signal.signal(signal.SIGTERM, stop_for)
    if not WINDOWS and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup wants us to go on
        signal.signal(signal.SIGHUP, stop_for)
    try:
        main()
    except Stop as stop:
        say(str(stop))
        sys.exit(1)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        say(FULL_DISK)
        sys.exit(1)
    except KeyboardInterrupt:
        say("\n멈췄습니다. 같은 명령을 다시 실행하면 이어서 합니다.")
        sys.exit(130)
