"""The streaming client: what it writes down of a live answer, and of one that breaks off."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socketserver
import threading
import time
from collections.abc import Iterator

import httpx2
import psutil
import pytest

from servinglab import engines
from servinglab.bench import Record, ask, ask_all, client
from servinglab.engines import llama_server
from servinglab.errors import SettingError, StreamBroken

QUESTION = [{"role": "user", "content": "포트가 뭐예요?"}]
ENDLESS = {"ignore_eos": True, "max_tokens": 1_000_000}
"""With `--context-shift`: an answer that goes on until somebody ends it."""


@pytest.fixture(scope="module")
def server():
    with engines.start(options=("--context-shift",)) as running:
        yield running


def go(*arguments, **settings) -> Record:
    """`ask`, with a limit that no test may reach."""
    return asyncio.run(ask(*arguments, **{"timeout": 60.0, "temperature": 0, **settings}))


# --- a live answer ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def record(server) -> Record:
    return go(server.url, QUESTION, max_tokens=40, ignore_eos=True)


def test_text_and_usage_are_those_of_the_openai_client(server, record):
    whole = server.client.chat.completions.create(
        model="tutor", messages=QUESTION, max_tokens=40, temperature=0, extra_body={"ignore_eos": True}
    )
    assert record.ok and record.status == 200 and record.require() is record
    assert record.text == whole.choices[0].message.content
    assert record.usage["completion_tokens"] == whole.usage.completion_tokens == record.n_out == 40
    assert record.usage["prompt_tokens"] == whole.usage.prompt_tokens
    assert record.finish_reason == whole.choices[0].finish_reason == "length"


def test_times_of_a_live_answer(record):
    assert len(record.times) == len(record.texts) >= 10 and all(record.texts)
    assert record.due <= record.t0 < record.times[0]
    assert all(earlier < later for earlier, later in itertools.pairwise(record.times))
    assert 0 < record.ttft < record.e2el


def test_metrics_of_a_live_answer_by_hand(record):
    assert record.ttft == record.times[0] - record.t0
    assert record.e2el == record.times[-1] - record.t0
    assert record.tpot == pytest.approx((record.e2el - record.ttft) / 39)
    assert len(record.itl) == len(record.times) - 1 and min(record.itl) > 0
    assert sum(record.itl) == pytest.approx(record.e2el - record.ttft)


def test_latency_lies_between_the_servers_own_reading_and_the_wall_time(server):
    began = time.perf_counter()
    record = go(server.url, QUESTION, max_tokens=200, ignore_eos=True)
    spent = time.perf_counter() - began
    assert began <= record.t0 and record.e2el < spent
    assert record.timings["predicted_n"] == 200
    assert record.e2el > 0.9 * record.timings["predicted_ms"] / 1000


def test_answer_ends_by_itself(server):
    record = go(server.url, QUESTION, max_tokens=400)
    assert record.finish_reason == "stop" and record.n_out < 400


def test_settings_and_key_are_sent():
    with engines.start(api_key="sk-bench") as locked:
        assert go(locked.url, QUESTION, key="sk-bench", max_tokens=3).n_out == 3


# --- answers that fail ------------------------------------------------------------------------------------------------


def test_error_status_is_kept():
    """A load test counts failures; it does not stop at the first."""
    with engines.start(api_key="sk-bench") as locked:
        record = go(locked.url, QUESTION, key="sk-wrong")
    assert record.status == 401 and not record.ok and "401" in record.error and "Invalid API Key" in record.error
    assert record.text == "" and record.ttft is record.e2el is record.tpot is record.n_out is None and record.itl == []
    with pytest.raises(StreamBroken, match="401"):
        record.require()


def test_refused_request_is_kept(server):
    record = go(server.url, [{"role": "user"}])
    assert record.status == 400 and "400" in record.error and "content" in record.error


def test_nobody_there():
    record = go(f"http://127.0.0.1:{llama_server.free_port()}", QUESTION)
    assert record.status == 0 and "연결이 끊겼습니다" in record.error


@pytest.mark.parametrize("url", ["", "127.0.0.1:8080", "http://127.0.0.1:99999", "http://no-such-host.invalid"])
def test_address_that_cannot_be_reached(url):
    assert go(url, QUESTION).error


def test_server_killed_in_the_middle_of_an_answer(monkeypatch):
    """What had arrived is kept and quoted; the next call works after a new start, also on the same port."""
    server = engines.start(options=("--context-shift",))
    engine = psutil.Process(server.process.pid).children()[0]
    note = client.note_event

    def note_and_kill(event, now, record):
        note(event, now, record)
        if len(record.texts) == 3 and engine.is_running():
            engine.kill()

    with monkeypatch.context() as patch:
        patch.setattr(client, "note_event", note_and_kill)
        record = go(server.url, QUESTION, **ENDLESS)
    server.stop()
    assert len(record.texts) >= 3 and record.status == 200 and record.finish_reason == ""
    assert "끊겼습니다" in record.error or "닫았습니다" in record.error
    with pytest.raises(StreamBroken) as error:
        record.require()
    assert repr(record.text) in str(error.value) and f"{len(record.text)}자" in str(error.value)
    with engines.start(port=server.port) as again:
        assert go(again.url, QUESTION, max_tokens=5).require().n_out == 5


def test_slow_answer_is_cut_off_and_kept(server):
    began = time.monotonic()
    record = go(server.url, QUESTION, timeout=1.5, **ENDLESS)
    assert 1.4 < time.monotonic() - began < 10
    assert record.error == "1.5초 안에 끝나지 않았습니다." and record.text and record.ttft < 1.5
    assert go(server.url, QUESTION, max_tokens=2).ok, "the server must have noticed that nobody listens any more"


@contextlib.contextmanager
def raw_server(says: bytes, pause: float = 0.0) -> Iterator[str]:
    """A server that gives the same bytes to every visitor, then hangs up after `pause` seconds."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            with contextlib.suppress(OSError):
                self.request.sendall(says)
                time.sleep(pause)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def http(body: bytes, status: str = "200 OK", kind: str = "text/event-stream") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def events(*data: object) -> bytes:
    return b"".join(b"data: " + (d if isinstance(d, bytes) else json.dumps(d).encode()) + b"\n\n" for d in data)


def piece(text: object) -> dict:
    return {"choices": [{"delta": {"content": text}}]}


DONE = b"[DONE]"


def test_only_chunks_with_text_count():
    """The first chunk of an OpenAI stream holds a role and no text: it is no first token."""
    role = {"choices": [{"delta": {"role": "assistant", "content": None}}]}
    last = {"choices": [{"delta": {}, "finish_reason": "stop"}], "usage": {"completion_tokens": 2}}
    stream = b": a comment\n\nevent: x\n" + events(role, piece(""), piece("가"), piece("나"), last, {"choices": []}, DONE)
    with raw_server(http(stream)) as url:
        record = go(url, QUESTION)
    assert record.ok and record.texts == ["가", "나"] and len(record.times) == 2
    assert record.usage == {"completion_tokens": 2} and record.finish_reason == "stop"


def test_stream_that_just_ends_is_no_answer():
    with raw_server(http(events(piece("여기까지")))) as url:
        record = go(url, QUESTION)
    assert record.text == "여기까지" and "끝맺지 않고" in record.error


def test_error_inside_a_stream_is_kept():
    with raw_server(http(events(piece("여기까지"), {"error": {"message": "out of memory"}}, piece("더")))) as url:
        record = go(url, QUESTION)
    assert record.text == "여기까지" and "out of memory" in record.error


def test_server_that_never_answers():
    with raw_server(b"", pause=20) as url:
        record = go(url, QUESTION, timeout=0.5)
    assert record.error.startswith("0.5초") and record.status == 0


@pytest.mark.parametrize(
    "data",
    [b"not json", b"5", b"null", b"[]", b"\xff\xfe", {"choices": 5}, {"choices": [5]}, {"choices": [{"delta": 5}]},
     piece(5), piece(["가"]), b"x" * 3_000_000],
    ids=["text", "number", "null", "list", "no UTF-8", "choices", "choice", "delta", "number as text", "list as text", "huge"],
)  # fmt: skip
def test_malformed_pieces_never_raise(data):
    with raw_server(http(events(piece("앞"), data))) as url:
        record = go(url, QUESTION)
    assert record.text == "앞" and not record.ok


@pytest.mark.parametrize(
    "says",
    [http(b"<html>hello</html>", kind="text/html"), http(b"\xff\xff", "500 No", "text/plain; charset=utf-8"),
     http(b"x", "404 No", "text/plain; charset=no-such"), b"SSH-2.0-OpenSSH\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"],
    ids=["page", "500 in no charset", "404 in an unknown charset", "ssh", "silence", "cut short"],
)  # fmt: skip
def test_something_that_is_no_llm_server_never_raises(says):
    with raw_server(says) as url:
        record = go(url, QUESTION)
    assert record.error and record.text == ""


# --- metrics of hand-made records -------------------------------------------------------------------------------------


def test_metrics_by_hand():
    record = Record(due=10.0, t0=10.5, times=[11.0, 11.2, 12.0], texts=["가", "나다", "라"], usage={"completion_tokens": 6})
    assert record.queue == 0.5
    assert record.ttft == 0.5
    assert record.e2el == 1.5
    assert record.tpot == pytest.approx(1.0 / 5), "six tokens have five gaps, however many chunks they came in"
    assert record.itl == pytest.approx([0.2, 0.8])
    assert record.text == "가나다라" and record.n_out == 6


@pytest.mark.parametrize("tokens", [None, 0, 1])
def test_no_time_per_token_without_two_tokens(tokens):
    usage = {} if tokens is None else {"completion_tokens": tokens}
    record = Record(due=0, t0=0, times=[1.0], texts=["가"], usage=usage)
    assert record.tpot is None and record.n_out == tokens
    assert record.ttft == record.e2el == 1.0 and record.itl == []


def test_no_metrics_without_text():
    record = Record(due=0, t0=1, usage={"completion_tokens": 5})
    assert record.ttft is record.e2el is record.tpot is None and record.itl == [] and record.queue == 1


# --- many questions ---------------------------------------------------------------------------------------------------


def conversations(*lengths: int) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": "포트 " * length}] for length in lengths]


def test_records_come_in_the_questions_order(server):
    asked = conversations(40, 3, 20, 10, 30)
    records = asyncio.run(ask_all(server.url, asked, concurrency=5, max_tokens=20, ignore_eos=True))
    sizes = [record.require().usage["prompt_tokens"] for record in records]
    assert [sorted(sizes).index(size) for size in sizes] == [4, 0, 2, 1, 3] and len(set(sizes)) == 5


def test_one_at_a_time_shows_the_queue(server):
    """All are due at once: waiting in the client is shown, and is no part of the time to first token."""
    records = asyncio.run(ask_all(server.url, conversations(5, 5, 5), concurrency=1, max_tokens=50, ignore_eos=True))
    assert len({record.due for record in records}) == 1
    for earlier, later in itertools.pairwise(records):
        assert later.t0 >= earlier.times[-1]
        assert later.queue >= earlier.queue + earlier.e2el
        assert later.ttft == later.times[0] - later.t0 < later.times[0] - later.due


def test_several_at_a_time_overlap_but_no_more_than_asked(server):
    records = asyncio.run(ask_all(server.url, conversations(5, 5, 5, 5), concurrency=2, max_tokens=100, ignore_eos=True))
    spans = [(record.t0, record.times[-1]) for record in records]
    together = [sum(start <= moment < end for start, end in spans) for moment, _ in spans]
    assert max(together) == 2


def test_one_failure_leaves_the_others_whole(server):
    asked = [*conversations(5), [{"role": "no-such-role"}], *conversations(6)]
    records = asyncio.run(ask_all(server.url, asked, concurrency=3, max_tokens=5))
    assert [record.ok for record in records] == [True, False, True]
    assert records[1].status in (400, 500)


@pytest.mark.parametrize("concurrency", [0, -1, "3", None, 2.0, True])
def test_concurrency_with_which_nothing_would_be_sent(concurrency, server):
    with pytest.raises(SettingError, match="concurrency"):
        asyncio.run(asyncio.wait_for(ask_all(server.url, conversations(1), concurrency=concurrency), 10))


def test_client_reads_no_proxy_settings(server, monkeypatch):
    """A load test of one's own machine must not run through a company's proxy."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert go(server.url, QUESTION, max_tokens=2).ok


def test_stream_closes_its_connection(server):
    """`llama-server` closes kept-alive connections after a stream; a client that reuses one sees it break."""
    for _ in range(3):
        assert go(server.url, QUESTION, max_tokens=2).require()
    assert httpx2.get(f"{server.url}/health", trust_env=False).status_code == 200
