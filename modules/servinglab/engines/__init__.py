"""Serving engines: start one here, or connect to one that runs elsewhere."""

from __future__ import annotations

import os
from typing import Any

from dotenv import dotenv_values

from servinglab.engines import llama_server, probe
from servinglab.engines.server import Server, is_local
from servinglab.errors import SettingError
from servinglab.paths import ROOT

__all__ = ["Server", "connect", "start"]

STARTERS = {"llama-server": llama_server.start}

_embedded: Server | None = None


def start(engine: str = "llama-server", model: str = "tutor", **settings: Any) -> Server:
    """Start an engine on this machine; prints the exact command line.

    Settings are those of the engine's own `start` (for "llama-server": slots, context, port, api_key, options, …).
    Raises SettingError for an engine that the course cannot start, and what the engine's `start` raises.
    """
    if engine not in STARTERS:
        raise SettingError(f"{engine!r} 엔진은 켤 줄 모릅니다.", f"켤 수 있는 엔진: {', '.join(STARTERS)}", "이름을 확인하세요.")
    bypass_proxy()
    server = STARTERS[engine](model, **settings)
    note = " (무작위 가중치: 속도만 재는 모델이라 답에는 뜻이 없습니다)" if model == "speed" else ""
    print(f"{engine}를 켰습니다. 모델: {server.model}{note}, 주소: {server.url}\n$ {server.command}")
    return server


def connect(model: str | None = None) -> Server:
    """The shared server of `LLAMA_SERVER_URL` / `LLAMA_API_KEY` (environment or `.env`), else the embedded tutor.

    Says which. Called again in the same kernel it returns the embedded server that is already running.
    Raises what tells the failures apart: NothingListening, WrongKey, ModelLoading, UnknownModel, NotAnLLMServer, SettingError.
    """
    global _embedded
    # The environment goes before the file, and the folder of the notebook before that of the repository.
    settings = {**dotenv_values(ROOT / ".env"), **dotenv_values(".env"), **os.environ}
    address = settings.get("LLAMA_SERVER_URL") or ""
    if not address.strip(" "):
        if _embedded is None or not _embedded.alive:
            _embedded = start(model=model or "tutor")
        else:
            print(f"이미 켜 둔 내장 서버를 씁니다. 모델: {_embedded.model}, 주소: {_embedded.url}")
        return _embedded
    url, key = probe.clean_url(address), (settings.get("LLAMA_API_KEY") or "").strip()
    if is_local(url):
        bypass_proxy()
    found = probe.identify(url, key, model)
    print(f"공용 서버에 연결했습니다. 엔진: {found.engine}, 모델: {', '.join(found.models)}, 주소: {url}")
    return Server(url, model or found.models[0], key)


def bypass_proxy() -> None:
    """Let `curl` and `urllib` in this kernel reach 127.0.0.1 directly where a company sets HTTP_PROXY."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join(dict.fromkeys([*hosts, "127.0.0.1", "localhost"]))
