"""`servinglab pull` and `SERVINGLAB_MODEL`, against a hub of our own on 127.0.0.1: the real command, the real library, real HTTP."""

from __future__ import annotations

import fcntl
import hashlib
import inspect
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gguf
import httpx2
import numpy as np
import pytest

from servinglab import cli, engines, models
from servinglab.engines import llama_server
from servinglab.engines.llama_server import free_port
from servinglab.errors import SettingError
from servinglab.models import hub, memory
from servinglab.models.shapes import shapes
from tests.helpers import need, small_disk, wait_for

MINUTE = 60
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "qwen3-0.6b"
REPO, FILE = "Qwen/Qwen3-0.6B-GGUF", "Qwen3-0.6B-Q8_0.gguf"
MIB = 2**20


# --- the hub ----------------------------------------------------------------------------------------------------------


class Hub(ThreadingHTTPServer):
    """The endpoints that `huggingface_hub` asks, as huggingface.co answers: a file is a redirection to another server.

    Attributes:
        content: the file in the repository; its size and digest are told.
        sent: what is really sent, by default the content.
        cut: bytes after which the next download is broken off, once.
        stop: bytes after which a download waits for `go`.
        faults: status, or a page, by the first part of a path ("/api", "/Qwen", "/cdn").
        requests: method, path and headers of all requests, in order.
    """

    daemon_threads = True

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.content, self.sent = content, content
        self.cut: int | None = None
        self.stop: int | None = None
        self.go = threading.Event()
        self.faults: dict[str, int | bytes] = {}
        self.gated: object = False
        self.files = [FILE]
        self.requests: list[tuple[str, str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def ranges(self) -> list[str | None]:
        """The part asked for in each download."""
        return [headers.get("range") for _, path, headers in self.requests if path.startswith("/cdn")]


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        hub = self.server
        hub.requests.append((self.command, self.path, {name.lower(): value for name, value in self.headers.items()}))
        fault = hub.faults.get("/" + self.path.split("/")[1])
        if fault == 0:
            hub.go.wait(MINUTE)  # says nothing
        elif isinstance(fault, bytes):
            self.reply(200, fault, {"Content-Type": "text/html"})
        elif fault is not None:
            self.reply(fault, b"", {"X-Error-Code": "GatedRepo"} if fault == 403 else {})
        elif self.path == f"/api/models/{REPO}/revision/main?blobs=true":
            self.reply(200, json.dumps(self.description()).encode(), {"Content-Type": "application/json"})
        elif self.path == f"/{REPO}/resolve/{COMMIT}/{FILE}":
            digest = hashlib.sha256(hub.content).hexdigest()
            facts = {"X-Repo-Commit": COMMIT, "X-Linked-Size": str(len(hub.content)), "X-Linked-Etag": f'"{digest}"'}
            self.reply(302, b"", {"Location": f"http://localhost:{hub.server_port}/cdn/{digest}", **facts})
        elif self.path.startswith("/cdn/"):
            self.send_file()
        else:
            self.reply(404, b"", {"X-Error-Code": "RepoNotFound"})

    def reply(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def description(self) -> dict[str, object]:
        lfs = {"sha256": hashlib.sha256(self.server.content).hexdigest(), "size": len(self.server.content), "pointerSize": 134}
        siblings = [{"rfilename": "README.md", "size": 9, "blobId": "1"}]
        siblings += [{"rfilename": name, "size": lfs["size"], "blobId": "2", "lfs": lfs} for name in self.server.files]
        return {"id": REPO, "modelId": REPO, "sha": COMMIT, "gated": self.server.gated, "private": False, "siblings": siblings}

    def send_file(self) -> None:
        hub, start = self.server, 0
        if asked := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", "")):
            start = int(asked.group(1))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(hub.sent) - 1}/{len(hub.sent)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(hub.sent) - start))
        self.end_headers()
        end = len(hub.sent)
        if hub.cut is not None:
            end, hub.cut = hub.cut, None
        for at in range(start, end, MIB):
            if hub.stop is not None and at >= hub.stop:
                hub.go.wait(MINUTE)
            self.wfile.write(hub.sent[at : min(at + MIB, end)])
        self.close_connection = True


def small_gguf(megabytes: int) -> bytes:
    """A GGUF file with one tensor of random weights. The library writes 10 MiB at a time: less would be no interrupted download."""
    writer = gguf.GGUFWriter(None, "llama")
    writer.add_name("stand-in")
    writer.add_tensor("token_embd.weight", np.random.default_rng(5).random((megabytes * MIB // 4096, 1024), dtype=np.float32))
    file = Path(f"{os.environ['SERVINGLAB_HOME']}.gguf")
    file.parent.mkdir(parents=True, exist_ok=True)
    writer.write_header_to_file(file)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content = file.read_bytes()
    file.unlink()
    return content


@pytest.fixture(scope="module")
def content() -> bytes:
    return small_gguf(32)


@pytest.fixture
def local_hub(content) -> Iterator[Hub]:
    server = Hub(content)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.go.set()
    server.shutdown()
    server.server_close()


class Learner:
    """Somebody with a folder of their own at a terminal."""

    def __init__(self, home: Path, address: str) -> None:
        self.home, self.address = home, address

    @property
    def model(self) -> Path:
        return self.home / "models" / f"{NAME}.gguf"

    @property
    def left(self) -> list[str]:
        """What lies in the models' folder, but for the lock."""
        return sorted(path.name for path in (self.home / "models").glob("[!.]*"))

    def environment(self, **changes: str) -> dict[str, str]:
        own = {"SERVINGLAB_HOME": str(self.home), "HF_ENDPOINT": self.address, "NO_PROXY": "*", "HF_HOME": str(self.home / "hf")}
        return {**os.environ, **own, "HF_TOKEN": "hf_must_not_be_sent", "PYTHONUNBUFFERED": "1", **changes}

    def pull(self, *arguments: str, typed: str | None = None, **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "servinglab.cli", "pull", *arguments], env=self.environment(**changes), capture_output=True,
            text=True, encoding="utf-8", timeout=2 * MINUTE, **({"stdin": subprocess.DEVNULL} if typed is None else {"input": typed}),
        )  # fmt: skip

    def begin(self, **changes: str) -> subprocess.Popen[str]:
        """The same without waiting for its end. A hub that pauses is waited for."""
        changes = {"HF_HUB_DOWNLOAD_TIMEOUT": str(MINUTE), **changes}
        return subprocess.Popen(
            [sys.executable, "-m", "servinglab.cli", "pull", NAME, "--yes"], env=self.environment(**changes), text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job would be deaf to it
        )  # fmt: skip


@pytest.fixture
def learner(tmp_path, local_hub) -> Learner:
    return Learner(tmp_path / "홈 폴더" / "내 자료", local_hub.url)


def failed(done: subprocess.CompletedProcess[str]) -> str:
    """The message of a command that failed as it should."""
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert re.search(r"^무슨 일: .+\n왜: .+\n이렇게 하세요: .+", done.stderr, re.MULTILINE), done.stderr
    return done.stderr


# --- a pull that succeeds ---------------------------------------------------------------------------------------------


def test_pull_shows_everything_first_and_fetches_the_file(learner, local_hub, content):
    done = learner.pull(NAME, typed="y\n")
    assert done.returncode == 0, done.stderr
    before, _, after = done.stdout.partition("받을까요?")
    for shown in ("Qwen3 0.6B", f"{local_hub.url}/{REPO}", FILE, hub.megabytes(len(content)), "Apache-2.0", str(learner.model)):
        assert shown in before, shown
    assert re.search(r"메모리: .*2,048토큰.* 약 \d+\.\d .iB가 필요합니다\. .*\d+\.\d GiB가 있고, 지금 \d+\.\d GiB가 비어", before)
    assert re.search(r"디스크: \d+\.\d .B가 비어 있습니다", before)
    assert learner.model.read_bytes() == content and learner.left == [f"{NAME}.gguf"]
    assert str(learner.model) in after and f"SERVINGLAB_MODEL={NAME}" in after and done.stderr == ""


def test_the_hub_learns_nothing_of_the_learner(learner, local_hub):
    """No token, no telemetry, nothing about the machine's packages, and no file but the one that was asked for."""
    assert learner.pull(NAME, "--yes").returncode == 0
    assert [path.split("/")[1] for _, path, _ in local_hub.requests] == ["api", "Qwen", "cdn"]
    for _, path, headers in local_hub.requests:
        assert "authorization" not in headers, path
        assert not re.search("torch|agent/", headers["user-agent"]), headers["user-agent"]


@pytest.mark.parametrize("typed", [None, "\n", "n\n", "아니요\n"])
def test_no_leaves_nothing(typed, learner, local_hub):
    done = learner.pull(NAME, typed=typed)
    assert done.returncode == 0 and "받지 않았습니다" in done.stdout
    assert not learner.home.exists() and local_hub.ranges() == []


def test_progress_is_shown_in_a_terminal(learner):
    terminal, far_end = pty.openpty()
    fcntl.ioctl(far_end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))  # one without columns has no room for a bar
    process = subprocess.Popen(
        [sys.executable, "-m", "servinglab.cli", "pull", NAME, "--yes"], env=learner.environment(TERM="xterm"),
        stdin=far_end, stdout=far_end, stderr=far_end,
    )  # fmt: skip
    os.close(far_end)
    shown = b""
    while select.select([terminal], [], [], MINUTE)[0]:
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # the far end is closed
            break
    os.close(terminal)
    assert process.wait(MINUTE) == 0
    text = shown.decode("utf-8")
    assert re.search(rf"{NAME}\.gguf: 100%\|█+\| 33\.6M/33\.6M \[.+B/s\]", text), text
    assert "Ctrl+C" in text and "받았습니다" in text


def test_pulled_already(learner, local_hub):
    assert learner.pull(NAME, "--yes").returncode == 0
    local_hub.requests.clear()
    done = learner.pull(NAME)
    assert done.returncode == 0 and "이미 받아 둔 모델" in done.stdout and str(learner.model) in done.stdout
    assert local_hub.requests == [], "needs no internet"


def test_a_damaged_file_is_fetched_again(learner, content):
    learner.model.parent.mkdir(parents=True)
    learner.model.write_bytes(content[:1000])
    done = learner.pull(NAME, "--yes")
    assert done.returncode == 0 and "새로 받습니다" in done.stdout and learner.model.read_bytes() == content


def test_a_read_only_shared_cache_does_not_matter(learner, tmp_path, content):
    with small_disk(tmp_path / "함께 쓰는 캐시", "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        done = learner.pull(NAME, "--yes", SERVINGLAB_CACHE=str(disk), HF_HOME=str(disk / "hf"), HF_HUB_CACHE=str(disk / "hub"))
    assert done.returncode == 0 and done.stderr == "" and learner.model.read_bytes() == content


# --- interrupted ------------------------------------------------------------------------------------------------------


def test_a_broken_connection_is_resumed(learner, local_hub, content):
    local_hub.cut = 25 * MIB
    done = learner.pull(NAME, "--yes")
    assert done.returncode == 0 and learner.model.read_bytes() == content
    first, second = local_hub.ranges()
    assert first is None and re.fullmatch(r"bytes=[12]\d{7}-", second), "only what is missing is asked for"
    assert "이어서 받습니다" in done.stderr and not re.search("Error|resume|Retry", done.stderr), "told in Korean"


def test_ctrl_c_and_again(learner, local_hub, content):
    local_hub.stop = 24 * MIB
    process = learner.begin()
    wait_for(lambda: any(path.stat().st_size >= 20 * MIB for path in learner.model.parent.glob("*.part")), MINUTE, "20 MiB came")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=MINUTE)
    assert process.returncode == 130 and "Traceback" not in err and "이어서 받습니다" in err and "멈췄습니다" in err
    assert not learner.model.exists() and [name for name in learner.left if not name.endswith(".part")] == []
    begun = next(learner.model.parent.glob("*.part")).stat().st_size
    assert f"받다 만 것 {hub.megabytes(begun)}" in learner.pull().stdout
    local_hub.stop = None
    done = learner.pull(NAME, "--yes")
    assert done.returncode == 0 and f"받다 만 {hub.megabytes(begun)}" in done.stdout
    assert local_hub.ranges() == [None, f"bytes={begun}-"] and learner.model.read_bytes() == content
    assert learner.left == [f"{NAME}.gguf"]


def test_a_part_of_another_version_is_not_gone_on_with(learner, local_hub, content):
    learner.model.parent.mkdir(parents=True)
    (learner.model.parent / f"{NAME}.gguf.ffffffffffff.part").write_bytes(bytes(MIB))
    done = learner.pull(NAME, "--yes")
    assert done.returncode == 0 and "받다 만" not in done.stdout and local_hub.ranges() == [None]
    assert learner.left == [f"{NAME}.gguf"] and learner.model.read_bytes() == content


def test_two_at_once(learner, local_hub):
    local_hub.stop = 24 * MIB
    process = learner.begin()
    try:
        wait_for(lambda: any(learner.model.parent.glob("*.part")), MINUTE, "the first has begun")
        assert "이미 받고 있습니다" in failed(learner.pull(NAME, "--yes"))
        local_hub.go.set()
        assert process.wait(MINUTE) == 0
    finally:
        process.kill()
        process.communicate()


# --- refused, wrong, out of reach -------------------------------------------------------------------------------------


def test_a_wrong_checksum(learner, local_hub, content):
    local_hub.sent = content[:-1] + bytes([content[-1] ^ 1])
    message = failed(learner.pull(NAME, "--yes"))
    assert "체크섬" in message and "지웠습니다" in message and f"servinglab pull {NAME}" in message
    assert learner.left == []


@pytest.mark.parametrize("change", [lambda content: content + b"more", lambda content: content[:-5]], ids=["longer", "shorter"])
def test_another_size_than_promised(change, learner, local_hub, content):
    local_hub.sent = change(content)
    assert "체크섬" in failed(learner.pull(NAME, "--yes")) and learner.left == []


def test_what_is_no_gguf_file(learner, local_hub):
    """As the hub promised, and useless all the same."""
    local_hub.content = local_hub.sent = b"not a model" * 1000
    assert "GGUF 파일이 아닙니다" in failed(learner.pull(NAME, "--yes")) and learner.left == []


@pytest.mark.parametrize(
    ("where", "status", "told"),
    [
        ("/api", 401, "로그인"), ("/api", 404, "이름이 바뀌었거나 지워졌습니다"), ("/api", 429, "너무 많이"), ("/api", 500, "허브에 문제"),
        ("/api", 418, "HF_ENDPOINT"), ("/Qwen", 403, "로그인"), ("/Qwen", 404, "지워졌습니다"), ("/cdn", 403, "로그인"),
    ],
)  # fmt: skip
def test_a_refusal_is_explained(where, status, told, learner, local_hub):
    local_hub.faults[where] = status
    message = failed(learner.pull(NAME, "--yes"))
    assert told in message and f"상태 코드 {status}" in message
    assert not learner.model.exists()


def test_a_model_that_has_become_gated(learner, local_hub):
    """The hub describes it to anybody, and would refuse the file."""
    local_hub.gated = "manual"
    assert "이용 약관" in failed(learner.pull(NAME, "--yes")) and local_hub.ranges() == [] and not learner.home.exists()


def test_a_file_that_has_been_renamed(learner, local_hub):
    local_hub.files = ["qwen3-0.6b-q8.gguf"]
    assert FILE in failed(learner.pull(NAME, "--yes")) and not learner.home.exists()


@pytest.mark.parametrize("page", [b"<html>Wi-Fi login</html>", b"[]", b'{"id": 1, "siblings": [1]}', b'{"id": "x"}', b"\xff\xfe{"])
def test_somebody_else_answers(page, learner, local_hub):
    """A café's login page, a proxy."""
    local_hub.faults["/api"] = page
    message = failed(learner.pull(NAME, "--yes"))
    assert ("로그인 화면" in message or FILE in message) and not learner.home.exists()


@pytest.mark.parametrize("address", ["closed port", "http://no-such-host.invalid", "huggingface"])
def test_offline(address, learner):
    learner.address = f"http://127.0.0.1:{free_port()}" if address == "closed port" else address
    message = failed(learner.pull(NAME, "--yes"))
    assert "연결하지 못했습니다" in message and learner.address in message and "HF_ENDPOINT" in message and "튜터" in message
    assert not learner.home.exists()


@pytest.mark.parametrize("address", ["http://[broken", "http://127.0.0.1:99999"])
def test_an_address_that_is_none(address, learner):
    assert "HF_ENDPOINT" in failed(learner.pull(NAME, "--yes", HF_ENDPOINT=address)) and not learner.home.exists()


def test_offline_by_setting(learner, local_hub):
    assert "HF_HUB_OFFLINE" in failed(learner.pull(NAME, "--yes", HF_HUB_OFFLINE="1")) and local_hub.requests == []


@pytest.mark.parametrize(("where", "limit"), [("/api", "HF_HUB_ETAG_TIMEOUT"), ("/cdn", "HF_HUB_DOWNLOAD_TIMEOUT")])
def test_a_hub_that_says_nothing(where, limit, learner, local_hub):
    """Waited for as long as the library's settings say, not for ever."""
    local_hub.faults[where] = 0
    message = failed(learner.pull(NAME, "--yes", **{limit: "1"}))
    assert "답이 오지 않습니다" in message and ("이어서 받습니다" in message) is (where == "/cdn") and not learner.model.exists()


# --- disk -------------------------------------------------------------------------------------------------------------


def test_a_disk_too_small_is_noticed_before(learner, local_hub, tmp_path):
    with small_disk(tmp_path / "작은 디스크", "20m") as disk:
        learner.home = disk
        message = failed(learner.pull(NAME, typed="y\n"))
        assert "자리가 모자라" in message and "35.2 MB" in message and "SERVINGLAB_HOME" in message
        assert local_hub.ranges() == [] and learner.left == []


def test_a_disk_that_fills_up_in_the_middle(learner, local_hub, tmp_path):
    with small_disk(tmp_path / "찬 디스크", "40m") as disk:
        learner.home, local_hub.stop = disk, 24 * MIB
        process = learner.begin()
        wait_for(lambda: any(path.stat().st_size >= 20 * MIB for path in disk.glob("models/*.part")), MINUTE, "20 MiB came")
        (disk / "다른 프로그램의 파일").write_bytes(bytes(15 * MIB))
        local_hub.go.set()
        _, err = process.communicate(timeout=MINUTE)
        assert process.returncode == 1 and "디스크가 가득" in err and "Traceback" not in err
        assert learner.left == [], "the part would keep the disk full"


def test_a_home_that_cannot_be_written(learner, tmp_path):
    with small_disk(tmp_path / "읽기 전용", "40m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        learner.home = disk / "자료"
        assert "권한이 없습니다" in (message := failed(learner.pull(NAME, "--yes"))) and "SERVINGLAB_HOME" in message


# --- what can be had --------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SERVINGLAB_HOME", str(tmp_path / "내 자료"))
    (tmp_path / "내 자료" / "models").mkdir(parents=True)
    return tmp_path / "내 자료"


def test_the_list_says_what_is_there(home, capsys):
    (home / "models" / f"{NAME}.gguf").write_bytes(bytes(2_500_000))
    assert cli.main(["pull"]) == 0
    shown = capsys.readouterr().out
    assert set(re.findall(r"^  ([\w.-]+): .+\.gguf, \S", shown, re.MULTILINE)) == set(hub.offered()) >= {NAME, "qwen3-1.7b"}
    assert re.search(rf"^  {NAME}: .+Apache-2\.0, 받아 둠 \(2\.5 MB\)$", shown, re.MULTILINE) and str(home / "models") in shown


def test_an_unknown_name(home, capsys):
    assert cli.main(["pull", "gpt-5"]) == 1
    assert "gpt-5" in (told := capsys.readouterr().err) and NAME in told
    assert cli.main(["pull", "../../etc"]) == 1 and cli.main(["pull", "tutor"]) == 1


def test_clean_shows_pulled_models_and_leaves_them(home, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SERVINGLAB_CACHE", str(tmp_path / "캐시"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "상태"))  # other tests' servers have left logs in theirs
    (tmp_path / "캐시").mkdir()
    (tmp_path / "캐시" / "tutor-f16-0.gguf").write_bytes(bytes(300_000))
    kept = [home / "models" / f"{NAME}.gguf", home / "models" / f"{NAME}.gguf.0123456789ab.part"]
    for path in kept:
        path.write_bytes(bytes(1_000_000))
    assert cli.main(["clean", "--yes"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^ +2\.0 MB  .*models  내려받은 모델 \(이 명령으로는 지우지 않습니다", shown, re.MULTILINE)
    assert all(path.exists() for path in kept) and not list((tmp_path / "캐시").iterdir())
    assert "0.3 MB를 비웠습니다" in shown


def test_every_offer_is_a_small_model_with_a_licence():
    for name, shape in hub.offered().items():
        assert shape.gguf is not None and shape.gguf.licence and shape.parameters < 2e9, name
        assert shape.gguf.repo.endswith("-GGUF") and name.split("-")[0] in shape.gguf.file.lower()


def test_the_memory_shown_is_that_of_the_server_which_connect_starts():
    defaults = {name: entry.default for name, entry in inspect.signature(llama_server.start).parameters.items()}
    assert (defaults["slots"], defaults["context"]) == (hub.USERS, hub.CONTEXT)
    shape = shapes()[NAME]
    offer = hub.Offer(NAME, shape, shape.gguf, 639_000_000, "0" * 64, COMMIT)
    wanted = 639_000_000 + memory.kv_bytes_per_token(shape) * hub.USERS * hub.CONTEXT
    shown = float(re.search(r"약 ([\d.]+) GiB가 필요", str(offer)).group(1)) * memory.GIB
    assert wanted < shown < wanted * 1.4, "buffers come on top"


# --- SERVINGLAB_MODEL -------------------------------------------------------------------------------------------------


@pytest.fixture
def chosen(home, monkeypatch, tmp_path) -> Path:
    """A stand-in for the real model: the tutor's own weights under its name, as if pulled. No `.env` of anybody's is read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(engines, "ROOT", tmp_path)
    monkeypatch.setattr(engines, "_embedded", {})
    monkeypatch.delenv("SERVINGLAB_MODEL", raising=False)  # all other tests have it empty, which goes before any `.env`
    path = home / "models" / f"{NAME}.gguf"
    shutil.copy(models.gguf_path("tutor", "Q8_0"), path)
    return path


def ask(server: engines.Server, model: str) -> str:
    reply = server.client.chat.completions.create(
        model=model, temperature=0, max_tokens=8, messages=[{"role": "user", "content": "포트가 뭐예요?"}]
    )
    return reply.choices[0].message.content or ""


def test_the_model_of_the_setting_takes_the_tutors_place(chosen, monkeypatch, capsys):
    monkeypatch.setenv("SERVINGLAB_MODEL", f" {NAME} ")
    with engines.start("llama-server", model="tutor", slots=1, context=512, api_key="sk-1") as server:
        said = capsys.readouterr().out
        assert said.startswith(f"SERVINGLAB_MODEL에 적힌 대로 튜터 대신 {NAME} 모델을 켭니다.\n") and said.count(NAME) >= 2
        assert server.model == NAME and str(chosen) in server.command.replace("'", "")
        listed = httpx2.get(f"{server.url}/v1/models", headers=server.headers, trust_env=False).json()["data"]
        names = {name for entry in listed for name in (entry["id"], *entry.get("aliases", []))}
        assert {NAME, "tutor"} <= names, listed
        assert ask(server, NAME) and ask(server, "tutor") == ask(server, NAME)
        assert " -t 1" not in server.command, "the tutor's own setting"


def test_connect_serves_it_and_keeps_it(chosen, monkeypatch, tmp_path, capsys):
    """Named in the `.env` of the notebook's folder."""
    (tmp_path / ".env").write_text(f"SERVINGLAB_MODEL={NAME}\n", encoding="utf-8")
    with engines.connect() as server:
        assert server.model == NAME
        assert engines.connect() is server and "이미 켜 둔" in capsys.readouterr().out
        monkeypatch.setenv("SERVINGLAB_MODEL", "tutor")
        with engines.connect() as tutor:
            assert tutor.model == "tutor" and tutor is not server and "SERVINGLAB_MODEL" not in capsys.readouterr().out
            assert "--reasoning" not in tutor.command and " -t 1" in tutor.command, "as ever"


def test_it_leaves_the_speed_model_and_files_alone(chosen, monkeypatch):
    monkeypatch.setenv("SERVINGLAB_MODEL", NAME)
    assert engines.served("speed") == "speed" and engines.served("/a/b.gguf") == "/a/b.gguf" and engines.served("tutor") == NAME
    assert models.gguf_path("tutor").name.startswith("tutor-"), "what takes the tutor's file apart gets the tutor's"


@pytest.mark.parametrize(
    ("name", "told"),
    [("qwen3-1.7b", "servinglab pull qwen3-1.7b"), ("qwen4-9b", f"쓸 수 있는 이름: {NAME}"), ("speed", "쓸 수 있는 이름"),
     ("../qwen3-0.6b", "쓸 수 있는 이름")],
)  # fmt: skip
def test_a_model_that_is_not_there(name, told, chosen, monkeypatch):
    monkeypatch.setenv("SERVINGLAB_MODEL", name)
    for call in (engines.start, engines.connect):
        with pytest.raises(SettingError, match=re.escape(told)) as error:
            call()
        assert name in str(error.value) and "튜터를 쓰려면" in str(error.value)


def test_a_settings_file_that_cannot_be_read(chosen, tmp_path):
    (tmp_path / ".env").write_text(f"SERVINGLAB_MODEL={NAME}\n", encoding="utf-16")
    with pytest.raises(SettingError, match="UTF-8"):
        engines.start()


THINKS = (
    "{%- for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{%- endfor %}"
    "{%- if add_generation_prompt %}<|assistant|>"
    "{%- if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{%- endif %}{%- endif %}"
)
"""A chat template that reads `enable_thinking` as Qwen3's does."""


def test_a_thinking_model_answers_without_thinking(chosen, monkeypatch, tmp_path):
    """Its thoughts would come as `reasoning_content`: minutes in which a lesson's cells show nothing."""
    monkeypatch.setenv("SERVINGLAB_MODEL", NAME)
    template = tmp_path / "think.jinja"
    template.write_text(THINKS, encoding="utf-8")
    question = {"messages": [{"role": "user", "content": "포트가 뭐예요?"}]}
    with engines.start(slots=1, context=512, options=("--jinja", "--chat-template-file", str(template))) as server:
        prompt = httpx2.post(f"{server.url}/apply-template", json=question, timeout=MINUTE, trust_env=False).json()["prompt"]
        assert prompt.rstrip().endswith("<|assistant|><think>\n\n</think>")


def test_a_model_that_talks_long_is_cut_short(chosen, monkeypatch):
    """`ignore_eos` makes the stand-in talk for ever; a cell of a lesson asks for no limit and waits a minute."""
    monkeypatch.setenv("SERVINGLAB_MODEL", NAME)
    with engines.start(slots=1, context=1024) as server:
        body = {"model": "tutor", "messages": [{"role": "user", "content": "포트가 뭐예요?"}], "ignore_eos": True}
        answer = httpx2.post(f"{server.url}/v1/chat/completions", json=body, timeout=MINUTE, trust_env=False).json()
        assert answer["choices"][0]["finish_reason"] == "length" and answer["usage"]["completion_tokens"] == 256


def test_pulled_for_real_then_served(learner, local_hub, monkeypatch, tmp_path):
    """The whole way: the hub has a model that runs, the command fetches it, the setting serves it."""
    need(shutil.which("llama-server") or llama_server.find(), "llama-server")
    local_hub.content = local_hub.sent = models.gguf_path("tutor").read_bytes()
    assert learner.pull(NAME, "--yes").returncode == 0
    code = "from servinglab import engines\nwith engines.connect() as server: print(server.client.models.list().data[0].id)"
    environment = learner.environment(SERVINGLAB_MODEL=NAME)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, encoding="utf-8", timeout=MINUTE
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == NAME
