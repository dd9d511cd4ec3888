"""llama.cpp's `llama-server`: found, started, waited for."""

from __future__ import annotations

import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx2
import psutil

from servinglab import models
from servinglab.engines.server import Server, direct_http, spawn
from servinglab.errors import EngineFailed, ModelFileError, PortTaken, SettingError, disk_errors
from servinglab.paths import log_dir
from servinglab.programs import child_environment, command_line, find

READY_LIMIT = 120.0
"""Seconds that a model may take to load: a large one from a slow disk takes more than one minute."""

STAND_IN = ("-n", "256", "--reasoning", "off")
"""Options of a model that stands in for the tutor, whose answers are short and come at once. Lessons wait a minute for an
answer, and time its first words: a model that talks long is cut short, and one that thinks first answers without."""


def free_port() -> int:
    """A port that is free now. Asked for as late as possible, because another program may take it meanwhile."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def require_free(port: int) -> None:
    """Raise PortTaken, or SettingError for a number that is no port."""
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise SettingError(f"쓸 수 없는 포트입니다: {port!r}", "포트는 1부터 65535까지의 정수입니다.", "예: port=8080")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError as error:
            raise SettingError(
                f"쓸 수 없는 포트입니다: {port}", "1024보다 작은 포트는 관리자만 열 수 있습니다.", "8080처럼 큰 번호를 쓰세요."
            ) from error
        except OSError as error:
            raise PortTaken(
                f"포트 {port}번은 이미 다른 프로그램이 쓰고 있습니다.",
                "한 포트에는 프로그램 하나만 들어갈 수 있습니다.",
                "port=를 빼면 빈 포트를 저절로 고릅니다. 쓰고 있는 프로그램은 터미널에서 ss -ltnp 로 볼 수 있습니다.",
            ) from error


def start(
    model: str = "tutor",
    *,
    slots: int = 4,
    context: int = 2048,
    port: int | None = None,
    api_key: str = "",
    file_type: str = "F16",
    options: tuple[str, ...] = (),
    timeout: float = READY_LIMIT,
    stands_for: str = "",
) -> Server:
    """Start `llama-server` on 127.0.0.1 and return when it answers.

    Args:
        model: "tutor", "speed" or the path of a GGUF file.
        slots: requests that are worked on at once (`-np`).
        context: tokens per slot; `-c` is `slots * context`, because `-np N` divides it.
        port: a fixed port; by default a free one is chosen.
        api_key: the key that requests must carry; handed over in a file, so that it appears in no process list.
        file_type: "F16" or "Q8_0", for the tutor.
        options: further options of `llama-server`, as typed.
        timeout: seconds to wait until it is ready.
        stands_for: another name that requests may use for the model, whose place it takes.

    Raises:
        EngineNotFound, PortTaken, ModelFileError, NotEnoughRoom, SettingError, EngineFailed.
    """
    check_settings(slots, context, options, timeout)
    program = find()
    path = models.gguf_path(model, file_type).absolute()
    alias = model if model in models.NAMES else path.stem.replace(",", " ")  # a comma would begin a second alias
    names = f"{alias},{stands_for}" if stands_for else alias
    folder = log_dir()
    with disk_errors(folder / "log"):
        folder.mkdir(parents=True, exist_ok=True)
    if port is not None:
        require_free(port)
    for attempt in range(3):
        key_file = None if api_key in ("", None) else write_key(api_key, folder)
        chosen = port or free_port()
        command = [str(program), "-m", str(path), "--alias", names, "--host", "127.0.0.1", "--port", str(chosen)]
        command += ["-np", str(slots), "-c", str(slots * context), "--metrics"]
        # The tutor is too small to gain by a second thread, and on a busy machine threads that wait for each other crawl:
        # beside a training run on two cores one token took 640 ms with two threads and 1 ms with one.
        command += ["-t", "1"] if model == "tutor" else []
        command += STAND_IN if stands_for else ()
        command += ["--api-key-file", str(key_file)] if key_file else []
        command += options
        log = folder / f"llama-server-{chosen}.log"
        server = Server(f"http://127.0.0.1:{chosen}", alias, api_key, command_line(command), log, key_file=key_file)
        try:
            with disk_errors(log):
                server.process = spawn(command, log, child_environment(), litter=key_file)
            wait_until_ready(server, path, timeout)
            return server
        except BaseException as error:
            server.stop()
            if port is not None or attempt == 2 or not isinstance(error, PortTaken):
                raise
    raise AssertionError("unreachable")


def check_settings(slots: int, context: int, options: Sequence[str], timeout: float) -> None:
    """Raise SettingError for a value of the wrong type: notebooks are not checked by mypy."""
    for name, value in (("slots", slots), ("context", context)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SettingError(f"쓸 수 없는 값입니다: {name}={value!r}", "1 이상의 정수여야 합니다.", f"예: {name}=4")
    if not isinstance(options, (tuple, list)) or not all(isinstance(option, str) for option in options):
        raise SettingError(
            f"쓸 수 없는 값입니다: options={options!r}", "문자열을 모은 튜플이어야 합니다.", '예: options=("-t", "2")'
        )
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not timeout > 0:
        raise SettingError(f"쓸 수 없는 값입니다: timeout={timeout!r}", "0보다 큰 초 수여야 합니다.", "예: timeout=60")


def write_key(key: str, folder: Path) -> Path:
    """Put the key into a file that only this user can read."""
    if not isinstance(key, str) or not key.isascii() or not key.isprintable() or key.strip() != key:
        raise SettingError("API 키에 쓸 수 없는 글자가 있습니다.", "키에는 영문, 숫자, 기호만 들어갑니다.", "빈칸과 줄바꿈을 빼세요.")
    with disk_errors(folder / "key"):
        handle, name = tempfile.mkstemp(dir=folder, prefix="key-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(key + "\n")
        except OSError:
            Path(name).unlink()
            raise
    return Path(name)


def wait_until_ready(server: Server, path: Path, timeout: float) -> None:
    """Poll `/health` until it answers 200. Raises the error that fits the log when the program ends before."""
    began = time.monotonic()
    told = 5.0
    with direct_http(server.url, timeout=2.0) as http:
        while time.monotonic() - began < timeout:
            if not server.alive:
                raise reason_for_exit(server, path)
            try:
                if http.get(f"{server.url}/health").status_code == 200 and has_port(server):
                    return
            except httpx2.TransportError:
                pass  # not listening yet: keep waiting, the loop is limited
            if time.monotonic() - began > told:
                print(f"  모델을 읽고 있습니다 … {told:.0f}초", flush=True)
                told += 5.0
            time.sleep(0.03)
    raise EngineFailed(
        f"llama-server가 {timeout:.0f}초 안에 준비되지 않았습니다.",
        "모델이 크거나 컴퓨터가 몹시 바쁩니다.",
        f"기록을 보세요: {server.log}",
    )


def has_port(server: Server) -> bool:
    """Whether it is our program that answers: another one may have taken the port since `free_port`, and answers while
    ours has not yet noticed that it came too late."""
    assert server.process is not None
    try:
        ours = psutil.Process(server.process.pid).children(recursive=True)
        open_ports = [c.laddr.port for process in ours for c in process.net_connections("inet") if c.status == "LISTEN"]
    except psutil.Error:
        return False  # it has just ended: the next look finds out why
    return server.port in open_ports


def reason_for_exit(server: Server, path: Path) -> PortTaken | ModelFileError | EngineFailed:
    assert server.log is not None and server.process is not None
    log = server.log.read_text(encoding="utf-8", errors="replace")
    if "bind" in log and "HTTP server" in log:
        return PortTaken(
            f"포트 {server.port}번을 다른 프로그램이 먼저 차지했습니다.",
            "비어 있던 포트를 서버가 켜지는 짧은 사이에 빼앗겼습니다.",
            "셀을 다시 실행하세요.",
        )
    tail = "\n".join(line for line in log.splitlines()[-8:])
    if "failed to load model" in log or "error loading model" in log:
        return ModelFileError(f"llama-server가 {path.name} 모델을 읽지 못했습니다.", tail, "모델 파일을 다시 받거나 만드세요.")
    code = server.process.returncode
    why = "이 컴퓨터의 CPU에 없는 명령어로 만들어졌습니다." if code == 128 + 4 else tail
    return EngineFailed(
        f"llama-server가 켜지다가 꺼졌습니다 (종료 코드 {code}).",
        why,
        f"전체 기록은 {server.log} 에 있습니다. 터미널에서 servinglab doctor 를 실행해 보세요.",
    )


def version(program: Path) -> str:
    """What `--version` prints, on one line. Raises EngineFailed where the program cannot run here."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=20, encoding="utf-8")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EngineFailed(f"실행할 수 없는 프로그램입니다: {program}", str(error), "make lab 을 다시 실행하세요.") from error
    if done.returncode != 0:
        raise EngineFailed(
            f"프로그램이 오류로 끝났습니다(종료 코드 {done.returncode}): {program}", done.stderr[-300:], "make lab 을 다시 실행하세요."
        )
    return " ".join((done.stdout + done.stderr).split())


__all__ = ["start", "version"]
