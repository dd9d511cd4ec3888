"""A streaming client that writes down when every piece of an answer arrived.

Definitions are those of `vllm bench serve`, with two deviations: the time a request waited in the client is shown
(`queue`), and only a chunk with text counts as the first one. All clocks are `time.perf_counter()`, in seconds.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp.http_exceptions import HttpProcessingError

from servinglab.errors import SettingError, StreamBroken

Message = dict[str, str]


@dataclass
class Record:
    """One request and its answer.

    Attributes:
        due: when the request was to be sent.
        t0: read just before the POST.
        times: arrival of every chunk with text.
        texts: the chunks' text, in step with `times`.
        usage: the server's own token counts, {} if it sent none.
        timings: `llama-server`'s own clock readings, {} elsewhere.
        error: why the answer is incomplete, "" if it is complete. What had arrived is kept.
    """

    due: float
    t0: float
    times: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    usage: dict[str, int] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    status: int = 0
    finish_reason: str = ""
    error: str = ""

    @property
    def ok(self) -> bool:
        return not self.error

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def queue(self) -> float:
        """Seconds between due and sent."""
        return self.t0 - self.due

    @property
    def ttft(self) -> float | None:
        """Time to first token: first chunk with text − t0, in seconds; None if none came."""
        return self.times[0] - self.t0 if self.times else None

    @property
    def e2el(self) -> float | None:
        """End-to-end latency: last chunk with text − t0, in seconds."""
        return self.times[-1] - self.t0 if self.times else None

    @property
    def n_out(self) -> int | None:
        """Output tokens as the server counted them; None where it did not say. A chunk is not always one token."""
        return self.usage.get("completion_tokens")

    @property
    def tpot(self) -> float | None:
        """Time per output token: (e2el − ttft) / (n_out − 1), in seconds; None for fewer than two tokens."""
        n = self.n_out
        if n is None or n < 2 or not self.times:
            return None
        return (self.times[-1] - self.times[0]) / (n - 1)

    @property
    def itl(self) -> list[float]:
        """Inter-token latencies: every gap between chunks with text, in seconds."""
        return [later - earlier for earlier, later in zip(self.times, self.times[1:], strict=False)]

    def require(self) -> Record:
        """Return self if the answer is complete, else raise StreamBroken, which quotes what had arrived."""
        if self.error:
            if not self.text:
                raise StreamBroken(
                    "서버가 답을 보내지 않았습니다.", self.error, "서버를 켜는 셀(engines.start가 든 셀)을 다시 실행한 뒤 이 셀을 실행하세요."
                )
            raise StreamBroken(
                "답을 끝까지 받지 못했습니다.",
                f"{self.error} 그때까지 받은 글자는 {len(self.text)}자입니다: {self.text!r}",
                "받은 부분은 Record의 text에 남아 있습니다. 서버를 다시 켠 뒤 같은 요청을 다시 보내세요.",
            )
        return self


def body_of(messages: Sequence[Message], model: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "model": model,
        "messages": list(messages),
        "stream": True,
        "stream_options": {"include_usage": True},
        **settings,
    }


async def ask(
    url: str,
    messages: Sequence[Message],
    *,
    model: str = "tutor",
    key: str = "",
    due: float | None = None,
    timeout: float = 120.0,
    session: aiohttp.ClientSession | None = None,
    **settings: Any,
) -> Record:
    """Send one streaming chat request to `url` (without `/v1`) and record it. Never raises for what the server does:
    failures stand in `Record.error`, because a load test counts them.

    Args:
        messages: OpenAI-style turns.
        due: when the request was to be sent (`time.perf_counter()`), default now.
        timeout: seconds for the whole request.
        settings: further fields of the request body (max_tokens, temperature, …).
    """
    if session is None:
        async with new_session() as own:
            return await ask(
                url, messages, model=model, key=key, due=due, timeout=timeout, session=own, **settings
            )
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    now = time.perf_counter()
    record = Record(due=now if due is None else due, t0=now)
    try:
        async with asyncio.timeout(timeout):
            record.t0 = time.perf_counter()
            async with session.post(
                f"{url}/v1/chat/completions", json=body_of(messages, model, settings), headers=headers
            ) as answer:
                record.status = answer.status
                if answer.status != 200:
                    record.error = f"상태 코드 {answer.status}: {(await answer.text(errors='replace'))[:200]}"
                    return record
                await read_stream(answer.content, record)
    except TimeoutError:
        record.error = f"{timeout:g}초 안에 끝나지 않았습니다."
    except (aiohttp.ClientError, HttpProcessingError) as error:
        record.error = f"연결이 끊겼습니다 ({type(error).__name__})."
    return record


def new_session() -> aiohttp.ClientSession:
    """One connection per request: `llama-server` closes kept-alive connections after a stream."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=True), timeout=aiohttp.ClientTimeout(total=None)
    )


async def read_stream(stream: aiohttp.StreamReader, record: Record) -> None:
    """Read server-sent events until `[DONE]`. A stream that ends before is an error."""
    async for line in stream:
        now = time.perf_counter()
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        try:
            note_event(json.loads(data), now, record)
        except (ValueError, TypeError, AttributeError) as error:
            record.error = f"서버가 알아볼 수 없는 조각을 보냈습니다 ({type(error).__name__})."
        if record.error:
            return
    record.error = "서버가 답을 끝맺지 않고 연결을 닫았습니다."


def note_event(event: dict[str, Any], now: float, record: Record) -> None:
    """Add one parsed event to the record. `usage` may stand in a chunk that also has choices."""
    if "error" in event:
        record.error = f"서버가 스트림 안에서 오류를 보냈습니다: {event['error']}"
    record.usage = event.get("usage") or record.usage
    record.timings = event.get("timings") or record.timings
    for choice in event.get("choices") or []:
        record.finish_reason = choice.get("finish_reason") or record.finish_reason
        text = (choice.get("delta") or {}).get("content")
        if text and isinstance(text, str):
            record.times.append(now)
            record.texts.append(text)


async def ask_all(
    url: str, conversations: Sequence[Sequence[Message]], *, concurrency: int, **settings: Any
) -> list[Record]:
    """Ask many questions, at most `concurrency` at a time; all are due at once. Records in the questions' order.

    Raises SettingError for a `concurrency` under 1, with which no question would ever be sent.
    """
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise SettingError(f"쓸 수 없는 값입니다: concurrency={concurrency!r}", "1 이상의 정수여야 합니다.", "예: concurrency=4")
    gate = asyncio.Semaphore(concurrency)
    due = time.perf_counter()
    async with new_session() as session:

        async def one(messages: Sequence[Message]) -> Record:
            async with gate:
                return await ask(url, messages, due=due, session=session, **settings)

        return list(await asyncio.gather(*(one(messages) for messages in conversations)))
