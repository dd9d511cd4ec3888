"""Serving engines: start one here, or connect to one that runs elsewhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from servinglab.engines import llama_server, probe
from servinglab.engines.server import Server, is_local
from servinglab.errors import SettingError
from servinglab.models import hub
from servinglab.paths import ROOT

__all__ = ["Server", "connect", "start"]

STARTERS = {"llama-server": llama_server.start}

_embedded: dict[str, Server] = {}


def start(engine: str = "llama-server", model: str = "tutor", **settings: Any) -> Server:
    """Start an engine on this machine; prints the exact command line.

    Where `SERVINGLAB_MODEL` names a pulled model, that one takes the tutor's place, and answers to the tutor's name too.
    Settings are those of the engine's own `start` (for "llama-server": slots, context, port, api_key, options, …).
    Raises SettingError for an engine that the course cannot start, and what the engine's `start` raises.
    """
    if engine not in list(STARTERS):
        raise SettingError(f"이 과정에서 켤 수 없는 엔진입니다: {engine!r}", f"켤 수 있는 엔진: {', '.join(STARTERS)}", "이름을 확인하세요.")
    bypass_proxy()
    name = served(model)
    if name != model:
        print(f"SERVINGLAB_MODEL에 적힌 대로 튜터 대신 {name} 모델을 켭니다.")
        server = STARTERS[engine](str(hub.pulled(name)), stands_for=model, **settings)
    else:
        server = STARTERS[engine](model, **settings)
    note = " (무작위 가중치: 속도만 재는 모델이라 답에는 뜻이 없습니다)" if model == "speed" else ""
    print(f"{engine}를 켰습니다. 모델: {server.model}{note}, 주소: {server.url}\n$ {server.command}")
    return server


def served(model: str) -> str:
    """The name of what is served where `model` is asked for: a model in `SERVINGLAB_MODEL` takes the tutor's place."""
    return (setting("SERVINGLAB_MODEL").strip() or model) if model == "tutor" else model


def connect(model: str | None = None) -> Server:
    """The shared server of `LLAMA_SERVER_URL` / `LLAMA_API_KEY` (environment or `.env`), else the embedded tutor.

    Says which. Called again in the same kernel it returns the embedded server that already runs with that model.
    Raises what tells the failures apart: NothingListening, WrongKey, ModelLoading, UnknownModel, NotAnLLMServer, SettingError.
    """
    address = setting("LLAMA_SERVER_URL")
    if not address.strip(" "):
        name = model or "tutor"
        running = _embedded.get(served(name))
        if running is not None and running.alive:
            print(f"이미 켜 둔 내장 서버를 씁니다. 모델: {running.model}, 주소: {running.url}")
        else:
            running = _embedded[served(name)] = start(model=name)
        return running
    url, key = probe.clean_url(address), setting("LLAMA_API_KEY").strip()
    if is_local(url):
        bypass_proxy()
    found = probe.identify(url, key, model)
    print(f"공용 서버에 연결했습니다. 엔진: {found.engine}, 모델: {', '.join(found.models)}, 주소: {url}")
    return Server(url, model or found.models[0], key)


def read_env(path: Path) -> dict[str, str | None]:
    """The settings of a `.env` file, {} where there is none. Raises SettingError for one that cannot be read."""
    try:
        return dotenv_values(path, encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(
            f"설정 파일을 읽을 수 없습니다: {path.absolute()}",
            f"읽을 권한이 없거나, UTF-8이 아닌 방식으로 저장한 파일입니다 ({type(error).__name__}).",
            "메모장이라면 다른 이름으로 저장에서 인코딩을 UTF-8로 고르세요.",
        ) from error


def setting(name: str) -> str:
    """A setting of the learner's. The environment goes before `.env`, the notebook's folder before the repository.

    Raises SettingError for a `.env` that cannot be read.
    """
    values = {**read_env(ROOT / ".env"), **read_env(Path(".env")), **os.environ}
    return values.get(name) or ""


def shared_address() -> str:
    """Where the shared server is, as typed; "" where none is set."""
    return setting("LLAMA_SERVER_URL").strip(" ")


def bypass_proxy() -> None:
    """Let `curl` and `urllib` in this kernel reach 127.0.0.1 directly where a company sets HTTP_PROXY."""
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        if hosts == ["*"]:  # no proxy for anybody, which holds only as long as it stands alone
            continue
        os.environ[name] = ",".join(dict.fromkeys([*hosts, "127.0.0.1", "localhost"]))
