"""Starting, finding, connecting to and ending engines, always with a real `llama-server`; what a learner is told when it fails."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import httpx2
import openai
import psutil
import pytest
from jupyter_client.manager import KernelManager

from servinglab import engines, lesson, models, programs
from servinglab.engines import llama_server, probe
from servinglab.errors import (
    EngineFailed,
    EngineNotFound,
    ModelFileError,
    ModelLoading,
    NotAnLLMServer,
    NotEnoughRoom,
    NothingListening,
    PortTaken,
    ServingLabError,
    SettingError,
    StreamBroken,
    UnknownModel,
    WrongKey,
)
from servinglab.paths import cache_dir, log_dir
from tests.helpers import descendants, listening, small_disk, wait_for

KEY = "sk-test-3f9c51"
QUESTION = [{"role": "user", "content": "포트가 뭐예요?"}]
ENDLESS = {"max_tokens": 1_000_000, "extra_body": {"ignore_eos": True}}
"""With `--context-shift`: an answer that goes on until somebody ends it."""
ONE_THREAD = ("-t", "1")
"""`start` sets it for "tutor", but not for a file; two threads crawl on a busy machine."""


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    """An empty working directory, no `.env` of the developer's, no proxy settings; the embedded servers end with the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engines, "ROOT", tmp_path / "저장소")
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    yield
    for server in engines._embedded.values():
        server.stop()
    engines._embedded.clear()


@pytest.fixture(scope="module")
def server():
    """A running tutor, for the tests that only ask."""
    with engines.start() as running:
        yield running


@pytest.fixture(scope="module")
def locked():
    """A running tutor that demands KEY."""
    with engines.start(api_key=KEY) as running:
        yield running


def told(error: pytest.ExceptionInfo[ServingLabError]) -> str:
    """The message, after checking its form: what, why, what next, in Korean, and no stack."""
    text = str(error.value)
    assert "무슨 일: " in text and "왜: " in text and "이렇게 하세요: " in text, text
    assert any("가" <= letter <= "힣" for letter in error.value.what), text
    assert "Traceback" not in text and 'File "' not in text, text
    return text


def gone(processes: list[psutil.Process]) -> bool:
    """Whether all have ended. A dead orphan that nobody collects (in a container without an init) counts as ended."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                return False
    return True


def wait_until_gone(processes: list[psutil.Process], port: int) -> None:
    """Within 5 s, as promised. A killed program is a zombie already while its threads still hold the port."""
    try:
        wait_for(lambda: gone(processes) and not listening(port), 5, "the end of watcher and engine, and a free port")
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()  # a test that fails leaves nothing behind either


def processes_of(server: engines.Server) -> list[psutil.Process]:
    """The watcher and the engine."""
    watcher = psutil.Process(server.process.pid)
    return [watcher, *watcher.children(recursive=True)]


def key_files() -> set[str]:
    return {path.name for path in log_dir().glob("key-*")}


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Whatever happens inside: no process and no key file of ours more than before."""
    before, keys = {process.pid for process in descendants(os.getpid())}, key_files()
    yield
    more = [process for process in descendants(os.getpid()) if process.pid not in before]
    wait_for(lambda: gone(more), 5, "the end of what had been started")
    assert key_files() == keys


# --- start ------------------------------------------------------------------------------------------------------------


def test_start_returns_when_the_engine_answers(server):
    assert httpx2.get(f"{server.url}/health", trust_env=False).status_code == 200
    reply = server.client.chat.completions.create(model=server.model, messages=QUESTION, max_tokens=8)
    assert reply.choices[0].message.content


def test_every_attribute_of_a_server(server):
    assert server.url == f"http://127.0.0.1:{server.port}"
    assert isinstance(server.client, openai.OpenAI) and str(server.client.base_url) == f"{server.url}/v1/"
    assert server.client is server.client
    assert server.model == "tutor" == server.client.models.list().data[0].id
    assert Path(shlex.split(server.command)[0]).name == "llama-server"
    assert "listening on" in server.log.read_text(encoding="utf-8")
    assert server.headers == {} and server.alive


def test_slots_context_and_options_reach_the_engine():
    """`-np` divides `-c`: the learner's context is that of one slot."""
    with engines.start(slots=2, context=512, options=("--no-warmup",)) as small:
        props = httpx2.get(f"{small.url}/props", trust_env=False).json()
        assert props["total_slots"] == 2
        assert props["default_generation_settings"]["n_ctx"] == 512
        assert small.command.endswith("--no-warmup")


def test_printed_command_is_exact_and_runs_in_a_terminal(tmp_path, capsys):
    """A learner copies the line out of the notebook; also with Hangul, spaces and quotes in the path."""
    model = tmp_path / "내 모델's" / "튜터 (사본).gguf"
    model.parent.mkdir()
    shutil.copy(models.gguf_path("tutor"), model)
    with engines.start(model=str(model), options=ONE_THREAD) as server:
        assert processes_of(server)[-1].cmdline() == shlex.split(server.command)
        assert server.model == "튜터 (사본)" == server.client.models.list().data[0].id
    lines = capsys.readouterr().out.splitlines()
    assert f"$ {server.command}" in lines and any(server.url in line for line in lines)
    typed = subprocess.Popen(["bash", "-c", f"exec {server.command}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: listening(server.port), 20, "the typed command answering")
    finally:
        typed.terminate()
        typed.wait(10)


def test_a_relative_path_is_printed_in_full(tmp_path):
    """JupyterLab's terminal opens in another folder than the notebook's."""
    shutil.copy(models.gguf_path("tutor"), tmp_path / "여기.gguf")
    with engines.start(model="여기.gguf", options=ONE_THREAD) as server:
        assert str(tmp_path / "여기.gguf") in shlex.split(server.command)


def test_comma_in_a_file_name_keeps_the_model_findable(tmp_path):
    """`--alias a,b` would be two names, and `Server.model` neither."""
    shutil.copy(models.gguf_path("tutor"), tmp_path / "a,b.gguf")
    with engines.start(model=str(tmp_path / "a,b.gguf"), options=ONE_THREAD) as server:
        assert server.model in [entry.id for entry in server.client.models.list()]


def test_program_on_path_goes_before_the_environments_own(tmp_path, monkeypatch):
    own = programs.find()
    folder = tmp_path / "내 프로그램"
    folder.mkdir()
    (folder / "llama-server").write_text(f'#!/bin/sh\nexec "{own}" "$@"\n', encoding="utf-8")
    (folder / "llama-server").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    with engines.start() as server:
        assert shlex.split(server.command)[0] == str(folder / "llama-server")


def test_two_at_once_get_ports_of_their_own():
    """Two notebooks start in the same moment."""
    started: list[engines.Server] = []
    threads = [threading.Thread(target=lambda: started.append(engines.start())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    try:
        assert len({server.port for server in started}) == 2
        assert all(httpx2.get(f"{s.url}/health", trust_env=False).status_code == 200 for s in started)
    finally:
        for server in started:
            server.stop()


def test_port_lost_at_the_last_moment_to_another_llama_server(server, monkeypatch):
    """The other one answers `/health` while ours has not yet noticed: it must not be taken for ours."""
    ports = iter([server.port, llama_server.free_port()])
    monkeypatch.setattr(llama_server, "free_port", lambda: next(ports))
    with engines.start(slots=1) as other:
        assert other.port != server.port
        assert httpx2.get(f"{other.url}/props", trust_env=False).json()["total_slots"] == 1


def test_port_lost_again_and_again_is_told(server, monkeypatch):
    monkeypatch.setattr(llama_server, "free_port", lambda: server.port)
    with nothing_left(), pytest.raises(PortTaken) as error:
        engines.start(api_key=KEY)
    assert "다른 프로그램이 먼저" in told(error) and server.alive


def test_port_is_chosen_after_the_model_is_ready(tmp_path, monkeypatch):
    """Making the GGUF takes seconds, in which a port chosen before could be lost."""
    monkeypatch.setenv("SERVINGLAB_CACHE", str(tmp_path / "새 캐시"))
    choose = llama_server.free_port

    def free_port() -> int:
        assert list(cache_dir().glob("tutor-*.gguf")), "chosen before the file was made"
        return choose()

    monkeypatch.setattr(llama_server, "free_port", free_port)
    engines.start().stop()


def test_fixed_port_is_used():
    port = llama_server.free_port()
    with engines.start(port=port) as server:
        assert server.port == port and listening(port)


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_taken_port_is_told(address):
    with socket.create_server((address, 0)) as other, nothing_left(), pytest.raises(PortTaken) as error:
        engines.start(port=other.getsockname()[1], api_key=KEY)
    assert "이미 다른 프로그램" in told(error) and "port=" in told(error)


@pytest.mark.parametrize("port", ["8080", 8080.0, True, 0, -1, 65536, 10**12, float("nan"), [8080], ""])
def test_port_that_is_no_port(port):
    with nothing_left(), pytest.raises(SettingError) as error:
        engines.start(port=port, api_key=KEY)
    assert "1부터 65535" in told(error)


@pytest.mark.parametrize("name", ["slots", "context"])
@pytest.mark.parametrize("value", ["4", None, 0, -1, 2.0, True, float("nan"), []])
def test_slots_and_context_of_the_wrong_type(name, value):
    with nothing_left(), pytest.raises(SettingError, match=name) as error:
        engines.start(**{name: value})
    assert "1 이상의 정수" in told(error)


@pytest.mark.parametrize(
    ("name", "value"),
    [("model", None), ("model", 3), ("model", []), ("file_type", "Q4"), ("file_type", None), ("file_type", []),
     ("options", "-fa"), ("options", ("-t", 2)), ("options", None), ("api_key", 123), ("api_key", []),
     ("timeout", "3"), ("timeout", None), ("timeout", float("nan")), ("timeout", 0), ("engine", "olama"), ("engine", [])],
)  # fmt: skip
def test_other_settings_of_the_wrong_type(name, value):
    with nothing_left(), pytest.raises(SettingError) as error:
        engines.start(**{name: value})
    told(error)


def test_option_that_the_engine_does_not_know_is_quoted():
    with nothing_left(), pytest.raises(EngineFailed) as error:
        engines.start(options=("--no-such-option",), api_key=KEY)
    assert "--no-such-option" in told(error) and "servinglab doctor" in told(error)


def test_not_ready_in_time_is_told_and_leaves_nothing():
    with nothing_left(), pytest.raises(EngineFailed) as error:
        engines.start(timeout=0.001, api_key=KEY)
    assert "준비되지 않았습니다" in told(error)


def test_missing_program_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(programs.sysconfig, "get_path", lambda name: str(tmp_path / "환경"))
    with nothing_left(), pytest.raises(EngineNotFound) as error:
        engines.start()
    assert "make lab" in told(error) and "conda install" in told(error)


def test_program_that_cannot_run_here_is_told(tmp_path, monkeypatch):
    """As one that was compiled for another machine."""
    (tmp_path / "llama-server").write_bytes(b"\x7fELF" + bytes(60))
    (tmp_path / "llama-server").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with nothing_left(), pytest.raises(EngineFailed) as error:
        engines.start()
    assert "Exec format error" in told(error)


# --- model files, folders and disks -----------------------------------------------------------------------------------


def test_missing_model_file():
    with nothing_left(), pytest.raises(ModelFileError) as error:
        engines.start(model="없는 파일.gguf")
    assert "없습니다" in told(error) and 'model="tutor"' in told(error)


@pytest.mark.parametrize(
    ("content", "word"),
    [(b"", "비어"), (b"PK\x03\x04 a zip file", "GGUF 파일이 아닙니다"), (b"GG", "GGUF 파일이 아닙니다"), (b"GGUF", "잘렸거나")],
)
def test_empty_and_foreign_model_files(content, word, tmp_path):
    path = tmp_path / "모델 파일.gguf"
    path.write_bytes(content)
    with nothing_left(), pytest.raises(ModelFileError) as error:
        engines.start(model=str(path))
    assert word in told(error) and str(path) in told(error)


@pytest.mark.parametrize("keep", [5, 20, 200, 50_000, 0.5, -1])
def test_model_file_cut_short(keep, tmp_path):
    """After so many bytes, in the middle, or one byte before its end."""
    whole = models.gguf_path("tutor").read_bytes()
    path = tmp_path / "잘림.gguf"
    path.write_bytes(whole[: int(len(whole) * keep) if isinstance(keep, float) else keep])
    with nothing_left(), pytest.raises(ModelFileError) as error:
        engines.start(model=str(path))
    assert "잘렸거나 손상" in told(error)


def test_whole_file_that_the_engine_refuses(tmp_path):
    """The check of the header passes; the engine's own words are quoted."""
    whole = models.gguf_path("tutor").read_bytes()
    path = tmp_path / "다른 구조.gguf"
    path.write_bytes(whole.replace(b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0lxxma", 1))
    models.check(path)
    with nothing_left(), pytest.raises(ModelFileError) as error:
        engines.start(model=str(path), api_key=KEY)
    assert "unknown model architecture" in told(error)


def test_home_with_spaces_and_hangul(tmp_path, monkeypatch):
    """The default folders, as a learner has them."""
    home = tmp_path / "홍 길동"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for name in ("SERVINGLAB_CACHE", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with engines.start(api_key=KEY) as server:
        assert home in server.log.parents and home in server.key_file.parents
        assert [path.suffix for path in home.rglob("tutor-*")] == [".gguf"]
        assert server.client.chat.completions.create(model="tutor", messages=QUESTION, max_tokens=2).choices
    file = next(home.rglob("*.gguf")).relative_to(home)
    with engines.start(model=f"~/{file}", options=ONE_THREAD) as server:
        assert server.alive


def test_named_folders_with_spaces_and_hangul(tmp_path, monkeypatch):
    monkeypatch.setenv("SERVINGLAB_CACHE", str(tmp_path / "모델 창고"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "상태 기록"))
    with engines.start(api_key=KEY) as server:
        assert tmp_path / "상태 기록" in server.log.parents
        assert len(list((tmp_path / "모델 창고").glob("*.gguf"))) == 1
        assert server.client.models.list().data


@pytest.mark.parametrize("size", ["64k", "400k", "5m", "8m"])
def test_full_disk_leaves_nothing_half_written_and_room_cures_it(size, tmp_path, monkeypatch):
    """Full in the header, in the vocabulary, in the first and in the last tensors."""
    with small_disk(tmp_path / "가득 찬 디스크", size) as disk:
        monkeypatch.setenv("SERVINGLAB_CACHE", str(disk))
        with nothing_left(), pytest.raises(NotEnoughRoom) as error:
            engines.start()
        assert "디스크가 가득" in told(error) and str(disk) in told(error)
        assert list(disk.iterdir()) == []
        subprocess.run(["mount", "-o", "remount,size=40m", str(disk)], check=True)
        with engines.start() as server:
            assert server.alive and len(list(disk.iterdir())) == 1


def test_full_disk_under_the_logs_leaves_no_key_behind(tmp_path, monkeypatch):
    with small_disk(tmp_path / "기록", "1m") as disk:
        monkeypatch.setenv("XDG_STATE_HOME", str(disk))
        log_dir().mkdir(parents=True)
        with contextlib.suppress(OSError), (disk / "사진").open("wb") as file:
            file.write(bytes(2 << 20))
        with nothing_left(), pytest.raises(NotEnoughRoom) as error:
            engines.start(api_key=KEY)
        assert str(disk) in told(error)
        (disk / "사진").unlink()
        engines.start(api_key=KEY).stop()


def test_read_only_cache_that_holds_the_file_is_enough(tmp_path, monkeypatch):
    """A hub's learners share a cache that they cannot write."""
    with small_disk(tmp_path / "공용 캐시", "40m") as disk:
        monkeypatch.setenv("SERVINGLAB_CACHE", str(disk))
        models.gguf_path("tutor")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with engines.start() as server:
            assert str(disk) in server.command and server.alive


def test_read_only_cache_without_the_file_is_told(tmp_path, monkeypatch):
    with small_disk(tmp_path / "빈 캐시", "40m") as disk:
        monkeypatch.setenv("SERVINGLAB_CACHE", str(disk))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with nothing_left(), pytest.raises(SettingError) as error:
            engines.start()
        assert "SERVINGLAB_CACHE" in told(error)


# --- keys, environment, proxies ---------------------------------------------------------------------------------------


def test_key_stands_in_one_private_file_and_nowhere_else(capsys):
    """Notebooks are shared with their outputs, and everybody on a hub can read the process list."""
    with engines.start(api_key=KEY) as server:
        assert server.key_file.read_text(encoding="utf-8").strip() == KEY
        assert server.key_file.stat().st_mode & 0o777 == 0o600
        server.client.models.list()
        for process in processes_of(server):
            assert KEY not in " ".join(process.cmdline())
            assert KEY not in "".join(process.environ().values())
        shown = [server.command, repr(server), str(server), repr(server.client), capsys.readouterr().out]
        shown += [server.log.read_text(encoding="utf-8", errors="replace")]
        assert not [text for text in shown if KEY in text]
    assert not server.key_file.exists()


def test_key_is_demanded(locked):
    assert locked.client.models.list().data
    stranger = httpx2.get(f"{locked.url}/v1/models", trust_env=False)
    assert stranger.status_code == 401
    assert httpx2.get(f"{locked.url}/v1/models", headers=locked.headers, trust_env=False).status_code == 200


@pytest.mark.parametrize("key", ["두 글자", "a\nb", "a\n", " a", "\x00"])
def test_key_that_no_request_could_carry(key):
    with nothing_left(), pytest.raises(SettingError) as error:
        engines.start(api_key=key)
    assert "API 키" in told(error) and key not in told(error)


def test_llama_variables_of_ours_do_not_reach_the_engine(monkeypatch):
    """A key meant for the shared server would lock the learner's own, and the printed command would not be the truth."""
    foreign = {"LLAMA_API_KEY": KEY, "LLAMA_ARG_N_PARALLEL": "1", "LLAMA_ARG_CTX_SIZE": "256", "LLAMA_ARG_ALIAS": "남의것",
               "LLAMA_ARG_ENDPOINT_METRICS": "0", "LLAMA_ARG_API_PREFIX": "/x"}  # fmt: skip
    for name, value in foreign.items():
        monkeypatch.setenv(name, value)
    with engines.start(slots=3, timeout=20) as server:
        assert httpx2.get(f"{server.url}/v1/models", trust_env=False).json()["data"][0]["id"] == "tutor"
        assert httpx2.get(f"{server.url}/props", trust_env=False).json()["total_slots"] == 3
        assert not [name for name in processes_of(server)[-1].environ() if name.startswith("LLAMA_")]


def test_dead_proxy_stands_in_nobodys_way(monkeypatch):
    """A company's HTTP_PROXY knows nothing of a learner's own machine."""
    dead = f"http://127.0.0.1:{llama_server.free_port()}"
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, dead)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen("http://192.0.2.1/", timeout=5)
    with engines.start() as server:
        assert urllib.request.urlopen(f"{server.url}/health", timeout=5).status == 200
        assert subprocess.run(["curl", "-sf", f"{server.url}/health"], capture_output=True, timeout=10).returncode == 0
        shared(monkeypatch, server.url)
        assert engines.connect().url == server.url
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name)
        assert server.client.models.list().data, "our own client goes straight in any case"


def test_no_proxy_of_the_learner_is_kept(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "example.com")
    monkeypatch.setenv("no_proxy", "*")
    engines.bypass_proxy()
    engines.bypass_proxy()
    assert os.environ["NO_PROXY"] == "example.com,127.0.0.1,localhost"
    assert os.environ["no_proxy"] == "*", "a star counts only as long as it stands alone"


# --- nothing is left behind -------------------------------------------------------------------------------------------

OWNER = """
import json, os, sys, threading, time
from pathlib import Path
from servinglab import engines
server = engines.start(api_key="sk-owner", options=("--context-shift",))
def report(**more):
    Path("owner.new").write_text(json.dumps({"port": server.port, "key_file": str(server.key_file), **more}))
    os.replace("owner.new", "owner.json")
def answer_for_ever():
    server.client.chat.completions.create(model="tutor", messages=[{"role": "user", "content": "안녕"}],
                                          max_tokens=1_000_000, extra_body={"ignore_eos": True})
"""


@contextlib.contextmanager
def owner(folder: Path, then: str) -> Iterator[SimpleNamespace]:
    """A process that starts an engine, does `then`, reports and waits. Yields its pid, port, engine and watcher."""
    process = subprocess.Popen([sys.executable, "-c", OWNER + then], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        wait_for(lambda: (folder / "owner.json").exists() or process.poll() is not None, 60, "the owner's report")
        report = json.loads((folder / "owner.json").read_text(encoding="utf-8"))
        family = [p for p in descendants(process.pid) if p.pid != report.get("fork")]
        assert [p.name() for p in family][-1] == "llama-server" and listening(report["port"])
        yield SimpleNamespace(process=process, family=family, **report)
    finally:
        process.kill()
        process.wait(10)


def all_gone(it: SimpleNamespace) -> None:
    """Processes ended, port free, no key on the disk."""
    wait_until_gone(it.family, it.port)
    assert not Path(it.key_file).exists()


def test_stop_ends_everything_and_may_be_called_again():
    server = engines.start(api_key=KEY)
    family = processes_of(server)
    assert len(family) == 2
    server.client.models.list()
    began = time.monotonic()
    server.stop()
    assert time.monotonic() - began < 3, "the watcher must react to its pipe; to be killed is its last resort"
    assert gone(family) and not listening(server.port) and not server.alive
    server.stop()
    with pytest.raises(openai.APIConnectionError):
        server.client.models.list()


def test_context_manager_stops_also_after_an_error():
    with pytest.raises(ZeroDivisionError), engines.start() as server:
        family = processes_of(server)
        _ = 1 / 0
    assert gone(family)


def test_stop_does_not_wait_for_an_endless_answer():
    server = engines.start(options=("--context-shift",))
    stream = server.client.chat.completions.create(model="tutor", messages=QUESTION, stream=True, **ENDLESS)
    assert next(iter(stream))
    family, began = processes_of(server), time.monotonic()
    server.stop()
    assert gone(family) and time.monotonic() - began < 5


def test_stop_leaves_somebody_elses_server_alone(server, monkeypatch):
    monkeypatch.setenv("LLAMA_SERVER_URL", server.url)
    with engines.connect() as shared:
        assert shared.client.models.list().data
    assert server.alive and server.client.models.list().data


def test_new_start_after_stop_works_on_the_same_port():
    port = llama_server.free_port()
    for _ in range(2):
        with engines.start(port=port) as server:
            assert server.client.models.list().data


@pytest.mark.parametrize("answering", [False, True])
def test_killed_owner_takes_its_engine_along(answering, tmp_path):
    """`kill -9`, as when the kernel runs out of memory; also in the middle of an answer."""
    busy = "threading.Thread(target=answer_for_ever, daemon=True).start(); time.sleep(1)\n" if answering else ""
    with owner(tmp_path, f"{busy}report(); time.sleep(120)") as it:
        it.process.kill()
        all_gone(it)


def test_owner_that_just_ends_takes_its_engine_along(tmp_path):
    """The learner's script reaches its last line without `stop()`."""
    with owner(tmp_path, "report(); time.sleep(1)") as it:
        it.process.wait(30)
        all_gone(it)


def test_forked_child_that_holds_the_pipe_keeps_nothing_alive(tmp_path):
    """As `multiprocessing` leaves behind: the pipe stays open when the owner dies."""
    fork = "pid = os.fork()\nif pid == 0:\n    time.sleep(60)\n    os._exit(0)\nreport(fork=pid); time.sleep(120)"
    with owner(tmp_path, fork) as it:
        child = psutil.Process(it.fork)
        try:
            it.process.kill()
            all_gone(it)
            assert child.is_running(), "it was meant to hold the pipe all the time"
        finally:
            child.kill()


def test_forked_child_that_holds_the_pipe_does_not_slow_stop(tmp_path):
    fork = """
pid = os.fork()
if pid == 0:
    time.sleep(60)
    os._exit(0)
began = time.monotonic()
threading.Timer(0.5, lambda: [server.stop(), report(fork=pid, took=time.monotonic() - began)]).start()
report(fork=pid); time.sleep(120)"""
    with owner(tmp_path, fork) as it:
        try:
            wait_for(lambda: "took" in (tmp_path / "owner.json").read_text(encoding="utf-8"), 15, "stop() returning")
            assert json.loads((tmp_path / "owner.json").read_text(encoding="utf-8"))["took"] < 3
            all_gone(it)
        finally:
            os.kill(it.fork, signal.SIGKILL)


def test_killed_watcher_takes_the_engine_along():
    server = engines.start(api_key=KEY)
    family = processes_of(server)
    family[0].kill()
    wait_until_gone(family, server.port)
    wait_for(lambda: not server.alive, 5, "the server knowing it")
    server.stop()
    assert not server.key_file.exists()


def test_engine_that_dies_by_itself_takes_its_watcher_along():
    server = engines.start()
    family = processes_of(server)
    family[-1].kill()
    wait_until_gone(family, server.port)
    wait_for(lambda: not server.alive, 5, "the server knowing it")
    server.stop()


def test_engine_outlives_the_thread_that_started_it():
    """A parent-death signal would follow the thread, and widgets start engines in threads."""
    started: list[engines.Server] = []
    thread = threading.Thread(target=lambda: started.append(engines.start()))
    thread.start()
    thread.join(60)
    with started[0] as server:
        time.sleep(1.5)
        assert server.alive and server.client.models.list().data


# --- in a real kernel -------------------------------------------------------------------------------------------------


class Kernel:
    """A Jupyter kernel. `run` returns what a cell printed and what its error showed ("" if none)."""

    def __init__(self, folder: Path) -> None:
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(folder))
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def run(self, code: str) -> tuple[str, str]:
        printed, shown = [], []

        def note(message: dict) -> None:
            content = message["content"]
            if message["msg_type"] == "stream":
                printed.append(content["text"])
            elif message["msg_type"] == "error":
                shown.append("\n".join([content["ename"], content["evalue"], *content["traceback"]]))

        self.client.execute_interactive(code, timeout=60, output_hook=note, allow_stdin=False)
        return "".join(printed), "\n".join(shown)

    def pid(self) -> int:
        return int(self.run("import os; print(os.getpid())")[0])

    def engine(self) -> tuple[int, list[psutil.Process]]:
        """Start an engine in the kernel. Its port, and watcher and engine."""
        printed, error = self.run("from servinglab import engines\nserver = engines.start()\nprint('port', server.port)")
        assert not error, error
        family = [p for p in descendants(self.pid()) if "llama-server" in " ".join(p.cmdline())]
        return int(printed.split()[-1]), family

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def kernel(tmp_path):
    running = Kernel(tmp_path)
    yield running
    running.close()


@pytest.fixture(scope="module")
def lesson_kernel(tmp_path_factory):
    """A kernel after the first cell of a lesson."""
    running = Kernel(tmp_path_factory.mktemp("레슨"))
    printed, error = running.run("from servinglab import engines, lesson\nlesson.begin('00')\nimport openai, psutil, urllib.request")
    assert "준비됐습니다" in printed and not error, error
    yield running
    running.close()


@pytest.mark.parametrize("now", [False, True], ids=["asked to end", "killed"])
def test_kernel_restart_leaves_nothing(kernel, now):
    """The learner's most frequent click; `now` is what JupyterLab does when the kernel does not react."""
    port, family = kernel.engine()
    assert len(family) == 2 and listening(port)
    kernel.manager.restart_kernel(now=now)
    kernel.client.wait_for_ready(timeout=60)
    wait_until_gone(family, port)
    assert kernel.run("print(1 + 1)") == ("2\n", "")


def test_kernel_killed_leaves_nothing(kernel):
    port, family = kernel.engine()
    os.kill(kernel.pid(), signal.SIGKILL)
    wait_until_gone(family, port)


def test_interrupted_kernel_keeps_its_engine(kernel):
    """Jupyter's stop button signals the whole process group."""
    port, family = kernel.engine()
    began = time.monotonic()
    threading.Timer(1.0, kernel.manager.interrupt_kernel).start()
    _, error = kernel.run("import time; time.sleep(30)")
    assert "KeyboardInterrupt" in error and time.monotonic() - began < 20
    time.sleep(1)
    assert listening(port) and not gone(family[:1]) and not gone(family[1:])
    printed, error = kernel.run("print(server.client.models.list().data[0].id)")
    assert (printed, error) == ("tutor\n", "")


def test_cells_that_meet_a_stopped_server_show_sentences_in_place_of_stacks(lesson_kernel):
    """What the learner did not do wrong must not frighten them."""
    run = lesson_kernel.run
    run("server = engines.start()\nserver.client.models.list()\nserver.stop()")
    ask = "server.client.chat.completions.create(model='tutor', messages=[{'role': 'user', 'content': '안녕'}])"
    fresh = "openai.OpenAI(base_url=server.url + '/v1', api_key='x', max_retries=0).models.list()"
    for code in (ask, fresh, "urllib.request.urlopen(server.url + '/health')"):
        error = run(code)[1]
        assert "NothingListening" in error and "서버를 켜는 셀을 다시 실행" in error, error
        assert "Traceback" not in error and "File " not in error
    printed, error = run("server = engines.start()\nprint(server.client.models.list().data[0].id)")
    assert not error and printed.endswith("tutor\n")
    run("server.stop()")


def test_cell_with_a_wrong_key_shows_a_sentence(lesson_kernel):
    lesson_kernel.run("server = engines.start(api_key='sk-kernel')")
    client = "openai.OpenAI(base_url=server.url + '/v1', api_key='x').models.list()"
    for code in (client, "urllib.request.urlopen(server.url + '/v1/models')"):
        error = lesson_kernel.run(code)[1]
        assert "WrongKey" in error and "401" in error and "Traceback" not in error
    assert lesson_kernel.run("print(server.client.models.list().data[0].id)\nserver.stop()") == ("tutor\n", "")


def test_cell_run_too_early_says_to_run_those_above(lesson_kernel):
    error = lesson_kernel.run("messgaes")[1]
    assert "messgaes" in error and "위쪽 셀을 실행하지 않았거나" in error and "Traceback" not in error


def test_server_killed_under_a_streaming_cell_keeps_what_it_printed(lesson_kernel):
    lesson_kernel.run("server = engines.start(options=('--context-shift',))")
    printed, error = lesson_kernel.run(
        "stream = server.client.chat.completions.create(model='tutor', stream=True, max_tokens=1_000_000,\n"
        "    messages=[{'role': 'user', 'content': '안녕'}], extra_body={'ignore_eos': True})\n"
        "for n, part in enumerate(stream):\n"
        "    print(part.choices[0].delta.content or '', end='')\n"
        "    if n == 5: psutil.Process(server.process.pid).children()[0].kill()"
    )
    assert printed.strip() and "StreamBroken" in error and "Traceback" not in error, error
    printed, error = lesson_kernel.run("server = engines.start()\nprint(server.client.models.list().data[0].id)")
    assert not error and printed.endswith("tutor\n")
    lesson_kernel.run("server.stop()")


def test_our_own_errors_show_no_stack_even_without_a_lesson(kernel):
    error = kernel.run("from servinglab import engines\nengines.start(model='없음.gguf')")[1]
    assert "ModelFileError" in error and "무슨 일: " in error and "Traceback" not in error and "File " not in error


def test_other_errors_keep_their_stack(lesson_kernel):
    """A learner who writes Python needs it."""
    assert "Traceback" in lesson_kernel.run("1 / 0")[1]


def test_explanations_are_told_apart():
    request = httpx2.Request("GET", "http://127.0.0.1:1")
    refused = lesson.explain(openai.APIConnectionError(request=request))
    cut = openai.APIConnectionError(request=request)
    cut.__cause__ = httpx2.ReadError("gone")
    not_found = urllib.error.HTTPError("http://x", 404, "Not Found", None, None)
    no_key = urllib.error.HTTPError("http://x", 401, "Unauthorized", None, None)
    assert type(refused) is NothingListening
    assert type(lesson.explain(cut)) is StreamBroken
    assert "404" in str(lesson.explain(not_found))
    assert type(lesson.explain(no_key)) is WrongKey
    assert type(lesson.explain(ConnectionResetError())) is StreamBroken
    assert type(lesson.explain(ConnectionRefusedError())) is NothingListening
    assert "이름" in str(lesson.explain(NameError("name 'q' is not defined", name="q")))
    unquoted = lesson.explain(NameError("name 'b' is not defined", name="b"), "q = 1\nanswer = b      # 예\n")
    assert 'answer = "b"' in str(unquoted)
    assert "수를 적으세요" in str(lesson.explain(NameError("…", name="크게"), "outlier = 크게      # 배\n"))
    assert "모르는 이름" in str(lesson.explain(NameError("…", name="weights"), "block = weights\n")), "a cell was left out"
    assert "멈추었습니다" in str(lesson.explain(KeyboardInterrupt()))
    assert "환경 변수" in str(lesson.explain(subprocess.CalledProcessError(3, "curl")))


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("answer = “c”", "둥근 따옴표"), ("answer = 10.79ms", "단위를 빼고"), ("answer = 8192 바이트", "단위를 빼고"),
        ("answer =      # 바이트", "비어 있습니다"), ("x =\n", "비어 있습니다"), ("print(", "괄호"),
    ],
)  # fmt: skip
def test_syntax_errors_are_told_in_a_sentence(cell, said):
    with pytest.raises(SyntaxError) as caught:
        compile(cell, "cell", "exec")
    assert said in lesson.syntax_note(caught.value)


# --- connect ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def web_server(reply: Callable[[str], tuple[int, str, bytes]]) -> Iterator[str]:
    """An HTTP server whose every GET is answered by `reply(path)`: status, type, body. Yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, body = reply(self.path)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@contextlib.contextmanager
def tcp_server(says: bytes) -> Iterator[str]:
    """A server that says the same to every visitor and hangs up, as one of another protocol."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(says)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def json_reply(value: object, status: int = 200) -> Callable[[str], tuple[int, str, bytes]]:
    return lambda path: (status, "application/json", json.dumps(value).encode())


def shared(monkeypatch: pytest.MonkeyPatch, url: str, key: str = "") -> None:
    monkeypatch.setenv("LLAMA_SERVER_URL", url)
    monkeypatch.setenv("LLAMA_API_KEY", key)


def test_nothing_set_starts_the_embedded_one_and_reuses_it(capsys):
    first = engines.connect()
    assert first.model == "tutor" and first.alive and "켰습니다" in capsys.readouterr().out
    assert engines.connect() is first and "내장 서버를 씁니다" in capsys.readouterr().out
    assert engines.connect("tutor") is first
    first.stop()
    second = engines.connect()
    assert second is not first and second.alive


def test_another_embedded_model_is_not_answered_with_the_tutor(tmp_path):
    shutil.copy(models.gguf_path("tutor"), tmp_path / "다른.gguf")
    tutor, other = engines.connect(), engines.connect(str(tmp_path / "다른.gguf"))
    assert other.model == "다른" and other.url != tutor.url
    assert engines.connect() is tutor


@pytest.mark.parametrize("ending", ["", "/", "/v1", "/v1/", "/#/chat/17"])
def test_shared_server_of_the_environment(ending, locked, monkeypatch, capsys):
    """Also as copied out of another program's settings or a browser's address bar."""
    shared(monkeypatch, f" {locked.url}{ending} ", KEY)
    server = engines.connect()
    assert server.url == locked.url and server.model == "tutor" and server.process is None
    assert server.client.chat.completions.create(model="tutor", messages=QUESTION, max_tokens=2).choices
    printed = capsys.readouterr().out
    assert "공용 서버" in printed and locked.url in printed and "llama.cpp" in printed and KEY not in printed


@pytest.mark.parametrize("line", ["LLAMA_SERVER_URL={}", "export LLAMA_SERVER_URL = '{}'", "\ufeffLLAMA_SERVER_URL={}\r"])
def test_shared_server_of_a_file(line, locked, tmp_path, capsys):
    """The third is what Windows' Notepad writes."""
    text = f"{line.format(locked.url)}\nLLAMA_API_KEY={KEY}\n"
    (tmp_path / ".env").write_bytes(text.encode())
    assert engines.connect().url == locked.url
    assert "공용 서버" in capsys.readouterr().out


def test_environment_goes_before_the_file_and_the_folder_before_the_repository(server, locked, tmp_path, monkeypatch):
    (tmp_path / "저장소").mkdir()
    (tmp_path / "저장소" / ".env").write_text("LLAMA_SERVER_URL=http://127.0.0.1:1\n", encoding="utf-8")
    (tmp_path / ".env").write_text(f"LLAMA_SERVER_URL={server.url}\n", encoding="utf-8")
    assert engines.connect().url == server.url
    shared(monkeypatch, locked.url, KEY)
    assert engines.connect().url == locked.url
    monkeypatch.setenv("LLAMA_SERVER_URL", "")
    assert engines.connect().alive, "an empty variable turns the file off"


@pytest.mark.parametrize("encoding", ["utf-16", "cp949"])
def test_file_in_another_encoding_is_told(encoding, server, tmp_path):
    (tmp_path / ".env").write_text(f"# 우리 서버\nLLAMA_SERVER_URL={server.url}\n", encoding=encoding)
    with pytest.raises(SettingError) as error:
        engines.connect()
    assert ".env" in told(error) and "UTF-8" in told(error)


def test_nothing_listening(monkeypatch):
    shared(monkeypatch, f"http://127.0.0.1:{llama_server.free_port()}")
    with nothing_left(), pytest.raises(NothingListening) as error:
        engines.connect()
    assert "아무 프로그램도 답하지 않습니다" in told(error)


def test_host_that_does_not_exist(monkeypatch):
    for host in ("no-such-host.invalid", "a" * 300):
        shared(monkeypatch, f"http://{host}:8080")
        with pytest.raises(NothingListening) as error:
            engines.connect()
        assert host in told(error)


@pytest.mark.parametrize(("key", "why"), [("sk-wrong", "틀렸거나"), ("", "키를 보내지 않았습니다")])
def test_wrong_key_and_no_key(key, why, locked, monkeypatch):
    shared(monkeypatch, locked.url, key)
    with pytest.raises(WrongKey) as error:
        engines.connect()
    assert why in told(error) and "401" in told(error) and "LLAMA_API_KEY" in told(error)
    assert "sk-wrong" not in told(error)


@pytest.mark.parametrize("key", ["sk-\nnew-line", "열쇠", "sk-\x07"])
def test_key_that_http_cannot_carry(key, locked, monkeypatch):
    shared(monkeypatch, locked.url, key)
    with pytest.raises(SettingError) as error:
        engines.connect()
    assert "API 키" in told(error) and key not in told(error)


def test_line_end_copied_with_the_key_is_forgiven(locked, monkeypatch):
    shared(monkeypatch, locked.url, f" {KEY}\n")
    assert engines.connect().key == KEY


def test_loading_server_is_waited_for(monkeypatch):
    ready = time.monotonic() + 1
    loading = json_reply({"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}, 503)
    listed = json_reply({"object": "list", "data": [{"id": "big", "owned_by": "vllm"}]})
    with web_server(lambda path: (listed if time.monotonic() > ready else loading)(path)) as url:
        shared(monkeypatch, url)
        assert engines.connect().model == "big"
        assert time.monotonic() >= ready


def test_server_that_loads_too_long():
    with web_server(json_reply({"error": {"message": "Loading model", "code": 503}}, 503)) as url:
        began = time.monotonic()
        with pytest.raises(ModelLoading) as error:
            probe.identify(url, timeout=1)
        assert 1 <= time.monotonic() - began < 10
    assert "아직 모델을 읽고" in told(error)


def test_unknown_model(locked, monkeypatch):
    """`llama-server` itself answers 200 to any name."""
    shared(monkeypatch, locked.url, KEY)
    with pytest.raises(UnknownModel) as error:
        engines.connect("gpt-9")
    assert "gpt-9" in told(error) and "tutor" in error.value.todo
    assert locked.client.chat.completions.create(model="gpt-9", messages=QUESTION, max_tokens=2).choices


@pytest.mark.parametrize(
    "reply",
    [
        lambda path: (200, "text/html", b"<!doctype html><title>nginx</title>"),
        lambda path: (404, "text/html", b"Not Found"),
        lambda path: (500, "text/plain", b"oops"),
        json_reply({"models": ["a"]}), json_reply([]), json_reply(None), json_reply({"data": [1]}), json_reply({"data": None}),
        lambda path: (200, "application/json", b"\xff\xfe{"),
        lambda path: (200, "application/json", b"[" * 100_000),
    ],
    ids=["page", "404", "500", "other object", "list", "null", "numbers", "data null", "no UTF-8", "deep"],
)  # fmt: skip
def test_web_server_that_is_no_llm_server(reply, monkeypatch):
    with web_server(reply) as url:
        shared(monkeypatch, url)
        with pytest.raises(NotAnLLMServer) as error:
            engines.connect()
    assert "LLM 서버가 아닙니다" in told(error) and "LLAMA_SERVER_URL" in told(error)


@pytest.mark.parametrize(
    "says",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"", b"\x00\x01\x02\x03" * 100,
     b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\njunk",
     b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"],
    ids=["ssh", "silent", "binary", "false gzip", "cut short"],
)  # fmt: skip
def test_program_that_speaks_something_else(says, monkeypatch):
    with tcp_server(says) as url:
        shared(monkeypatch, url)
        with pytest.raises(NotAnLLMServer) as error:
            engines.connect()
    told(error)


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8080", "localhost:8080", "server", "//host:8080", "http:/host:8080", "http://", "http:///v1", "http://:8080",
     "http://127.0.0.1:8080\n", "http://127.0.0.1\n:8080", "http://127.0.0.1:80 80", "\thttp://host", "http://host\x00",
     "ftp://127.0.0.1:21", "http://host:99999", "http://host:0", "http://host:-1", "http://host:port", "http://[::1:8080"],
)  # fmt: skip
def test_malformed_address(url, monkeypatch):
    with contextlib.suppress(ValueError):  # no environment variable can hold \x00
        monkeypatch.setenv("LLAMA_SERVER_URL", url)
        with nothing_left(), pytest.raises(SettingError) as error:
            engines.connect()
        assert "서버 주소" in told(error) and "http://127.0.0.1:8080" in error.value.todo
    with pytest.raises(SettingError):
        probe.clean_url(url)


@pytest.mark.parametrize(
    "url",
    ["http://user:hunter2@127.0.0.1:8080", "user:hunter2@127.0.0.1:8080", "http://user:hunter2@host:99999",
     "http://user:hunter2@host:port", "ftp://user:hunter2@host", "http://user:hun ter2@host", "http://hunter2@host",
     "https://user:hunter2@", "http://user:hunter2#@host"],
)  # fmt: skip
def test_password_in_an_address_is_refused_and_never_shown(url, monkeypatch):
    shared(monkeypatch, url)
    with pytest.raises(SettingError) as error:
        engines.connect()
    assert "hunter2" not in told(error) and "user" not in told(error)


def test_answer_of_another_engine_is_named(monkeypatch, capsys):
    with web_server(json_reply({"object": "list", "data": [{"id": "qwen", "owned_by": "vllm"}]})) as url:
        shared(monkeypatch, url)
        assert engines.connect().model == "qwen"
    assert "vLLM" in capsys.readouterr().out


def test_server_without_any_model(monkeypatch):
    with web_server(json_reply({"object": "list", "data": []})) as url:
        shared(monkeypatch, url)
        with pytest.raises(UnknownModel) as error:
            engines.connect()
    told(error)
