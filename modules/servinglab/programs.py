"""llama.cpp's programs: found, and run to their end while the learner sees the command and how far it is."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from IPython.core.getipython import get_ipython
from IPython.display import display

from servinglab.errors import EngineFailed, EngineNotFound, SettingError

WATCHER = Path(__file__).with_name("engines") / "watcher.py"
"""Runs a program and ends it when the kernel is gone, however that ended."""

TIME_LIMIT = 1800.0
"""Seconds that a program may take: an importance matrix of a large model takes minutes."""

END_LIMIT = 5.0
"""Seconds that watcher and program may take to end when they are asked to; the watcher gives the program two."""

LOOK = 0.1
"""Seconds between looks at a running program."""

COUNTED = re.compile(rb"\[ *(\d+)/ *(\d+)\]")
"""How `llama-quantize` numbers its tensors: [  12/  38]."""


class ProgramFailed(EngineFailed):
    """A program was run and ended with an error, was ended, or took too long.

    Attributes:
        output: what it had printed.
    """

    def __init__(self, what: str, why: str, todo: str, output: str) -> None:
        super().__init__(what, why, todo)
        self.output = output


@dataclass(frozen=True)
class Printed:
    """What a program printed: results on `out`, messages on `err`, as a rule."""

    out: str = field(repr=False)
    err: str = field(repr=False)

    @property
    def all(self) -> str:
        return self.out + "\n" + self.err

    @property
    def last(self) -> str:
        """Its last lines, for a message."""
        return "\n".join([line for line in self.all.splitlines() if line.strip()][-6:])


def find(program: str = "llama-server") -> Path:
    """The program on PATH, else the one that `make lab` compiled into this environment. Raises EngineNotFound."""
    own = Path(sysconfig.get_path("purelib")) / "bin"
    found = shutil.which(program) or shutil.which(program, path=str(own))
    if found is None:
        raise EngineNotFound(
            f"{program} 프로그램을 찾지 못했습니다.",
            f"PATH에도, 이 과정의 환경({own})에도 없습니다.",
            "저장소 폴더의 터미널에서 make lab 을 실행하면 만들어집니다. "
            "conda를 쓴다면 conda install -c conda-forge llama.cpp 를 실행하세요.",
        )
    return Path(found)


def run(program: str, *arguments: str | Path, doing: str, limit: float = TIME_LIMIT) -> Printed:
    """Run a program to its end; prints the exact command line, then how far it is on one line that is written anew.

    Args:
        arguments: as they would be typed, one by one.
        doing: what the line of progress says, in Korean.
        limit: seconds that it may take.

    Raises:
        EngineNotFound, SettingError for an argument that no command line can hold, ProgramFailed.
    """
    command = [str(find(program)), *map(str, arguments)]
    if any("\0" in argument for argument in command):
        raise SettingError("파일 이름에 쓸 수 없는 글자가 있습니다.", "값이 0인 글자(NUL)입니다.", "이름을 고치세요.")
    print(f"$ {command_line(command)}", flush=True)
    out, err = bytearray(), bytearray()
    line, began = Line(), time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-I", str(WATCHER), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=child_environment(),
        start_new_session=True,  # or Jupyter's "interrupt kernel", a signal to the whole group, would reach the program first
    )
    readers = [
        threading.Thread(target=gather, args=pair, daemon=True) for pair in ((process.stdout, out), (process.stderr, err))
    ]
    try:
        for reader in readers:
            reader.start()
        while process.poll() is None and time.monotonic() - began < limit:
            line.write(f"  {doing}: {count(err)}{time.monotonic() - began:.0f}초째")
            time.sleep(LOOK)
        in_time = process.poll() is not None
    finally:
        end(process)
        line.close()
    for reader in readers:
        reader.join(END_LIMIT)
    printed = Printed(out.decode(errors="replace"), err.decode(errors="replace"))
    took = time.monotonic() - began
    if not in_time:
        why, todo = "모델이 크거나 컴퓨터가 몹시 바쁩니다.", "다른 프로그램을 끄거나 더 작은 모델로 해 보세요."
        raise ProgramFailed(f"{limit:.0f}초 안에 끝나지 않아 멈추었습니다: {program}", why, todo, printed.all)
    if process.returncode != 0:
        raise failure(program, process.returncode, printed)
    print(f"  {doing}: {count(err)}{took:.1f}초 걸렸습니다.", flush=True)
    return printed


def failure(program: str, code: int, printed: Printed) -> ProgramFailed:
    """The error for an exit code; the watcher reports signal n as 128 + n, and -n where it was itself ended."""
    signal = -code if code < 0 else code - 128
    if signal == 4:
        why, todo = "이 컴퓨터의 CPU에 없는 명령어로 만들어졌습니다.", "make lab 을 다시 실행하세요."
    elif signal in (9, 15):
        why = f"다른 프로그램이 끝냈거나, 메모리가 모자라 운영체제가 끝냈습니다 (신호 {signal})."
        todo = "쓰지 않는 노트북의 커널을 끄고 다시 실행하세요."
    else:
        why, todo = printed.last, "위의 말이 무엇을 가리키는지 보고, 파일과 값을 확인하세요."
    return ProgramFailed(f"오류로 끝난 프로그램: {program} (종료 코드 {code})", why, todo, printed.all)


def count(printed: bytearray) -> str:
    """The last "[  12/  38]" that the program printed, as "12/38, "; "" where it counts nothing."""
    found = COUNTED.findall(bytes(printed))
    return f"{int(found[-1][0])}/{int(found[-1][1])}, " if found else ""


def gather(stream: IO[bytes], into: bytearray) -> None:
    """Read a pipe to its end: a full pipe would make the program wait."""
    with stream:
        while piece := os.read(stream.fileno(), 1 << 16):
            into += piece


class Line:
    """A line that is written anew: in a notebook an output that is updated, in a terminal the same line of it.

    Nothing where the output goes into a file, in which every state would stay.
    """

    def __init__(self) -> None:
        self.notebook = getattr(get_ipython(), "kernel", None) is not None
        self.terminal = not self.notebook and sys.stdout.isatty()
        self.shown: Any = None

    def write(self, text: str) -> None:
        if self.terminal:
            print(f"\r{text}", end="", flush=True)
        elif self.notebook and self.shown is None:
            self.shown = display({"text/plain": text}, raw=True, display_id=True)  # type: ignore[no-untyped-call]
        elif self.notebook:
            self.shown.update({"text/plain": text}, raw=True)

    def close(self) -> None:
        """Leave nothing of it: what is printed next takes its place."""
        if self.terminal:
            print("\r\033[K", end="", flush=True)
        elif self.shown is not None:
            self.shown.update({"text/plain": ""}, raw=True)


def end(process: subprocess.Popen[bytes]) -> None:
    """Tell the watcher through its pipe to end the program, if it still runs; end both by force if that takes too long.

    A byte, because closing our end closes nothing while a forked child of ours holds the pipe too.
    """
    if process.stdin is not None and not process.stdin.closed:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(b".")
            process.stdin.flush()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
    try:
        process.wait(END_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()  # on Linux the program dies with its watcher
        process.wait(END_LIMIT)


def child_environment() -> dict[str, str]:
    """Our environment without `LLAMA_*`: llama.cpp reads them as options (a `LLAMA_API_KEY` meant for the shared server
    would lock the learner's own), and the printed command line would no longer be the whole truth."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")}


def command_line(command: list[str]) -> str:
    """The command as it can be typed in a terminal of this system."""
    return subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)
