"""A serving engine that a lesson talks to: started here, or found at an address."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import httpx2

from servinglab.engines import watcher
from servinglab.programs import end

if TYPE_CHECKING:
    import openai


def is_local(url: str) -> bool:
    return httpx2.URL(url).host in ("127.0.0.1", "localhost", "::1")


def direct_http(url: str, timeout: float) -> httpx2.Client:
    """An HTTP client. A company's proxy (HTTP_PROXY) must not stand between a learner and their own machine."""
    return httpx2.Client(trust_env=not is_local(url), timeout=timeout)


@dataclass
class Server:
    """An engine that answers at `url`.

    Attributes:
        url: address without `/v1`, as "http://127.0.0.1:8080".
        model: the model's name in requests.
        command: the exact command line, "" for a server that somebody else started.
        log: file with everything the engine printed, None for somebody else's server.
    """

    url: str
    model: str
    key: str = field(default="", repr=False)
    command: str = ""
    log: Path | None = None
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    key_file: Path | None = field(default=None, repr=False)

    @property
    def port(self) -> int:
        url = httpx2.URL(self.url)
        return url.port or (443 if url.scheme == "https" else 80)

    @property
    def headers(self) -> dict[str, str]:
        """The `Authorization` header for requests made by hand; empty where no key is needed."""
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    @cached_property
    def client(self) -> openai.OpenAI:
        """OpenAI's client, pointed here. No silent retries: a lesson shows what happens the first time."""
        import openai  # not above: it takes most of the time in which a command that asks no server would start

        return openai.OpenAI(
            base_url=f"{self.url}/v1",
            api_key=self.key or "none",
            max_retries=0,
            timeout=120,
            http_client=direct_http(self.url, timeout=120),
        )

    @property
    def alive(self) -> bool:
        """Whether the engine that was started here still runs."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """End the engine; returns when it is gone. Somebody else's server is left alone. May be called again.

        The client stays open: a closed one raises RuntimeError, where an open one says that nobody answers.
        """
        if self.process is not None:
            end(self.process)
        if self.key_file is not None:
            self.key_file.unlink(missing_ok=True)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()


def spawn(
    command: list[str], log: Path, environment: dict[str, str], litter: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a program under the watcher, its output in `log`. The watcher removes the file `litter` when it ends.

    It gets a session of its own, or Jupyter's "interrupt kernel" (a signal to the whole process group) would end it.
    """
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-I", watcher.__file__, *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment if litter is None else {**environment, "SERVINGLAB_LITTER": str(litter)},
            start_new_session=True,
        )
