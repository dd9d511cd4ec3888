"""What is at an address: a serving engine, one still loading, one that wants a key, or something else."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

import httpx2

from servinglab.engines.server import direct_http
from servinglab.errors import ModelLoading, NotAnLLMServer, NothingListening, SettingError, UnknownModel, WrongKey


@dataclass(frozen=True)
class Found:
    """What a server says of itself in `/v1/models`."""

    models: list[str]
    engine: str


ENGINES = {"llamacpp": "llama.cpp", "vllm": "vLLM", "library": "Ollama"}
"""`owned_by` of `/v1/models`, and the engine that writes it."""


def clean_url(text: str) -> str:
    """Check an address typed by a person. Returns it without a final "/" or "/v1". Raises SettingError."""
    example = "http://127.0.0.1:8080 처럼 적어 주세요."
    shown = text.rpartition("@")[2]  # what stands before "@" may be a password
    if re.search(r"[\s\x00-\x1f\x7f]", text.strip(" ")):
        raise SettingError("서버 주소에 빈칸이나 줄바꿈이 들어 있습니다.", "복사할 때 함께 붙었을 수 있습니다.", example)
    try:
        url = httpx2.URL(text.strip(" "))
    except (httpx2.InvalidURL, ValueError) as error:
        raise SettingError(f"읽을 수 없는 서버 주소입니다: {shown}", "주소나 포트 번호의 꼴이 아닙니다.", example) from error
    if url.scheme not in ("http", "https") or not url.host or "@" in text:
        raise SettingError(
            f"쓸 수 없는 꼴의 서버 주소입니다: {shown}",
            "http:// 또는 https:// 로 시작하고, 사용자 이름이나 키를 담지 않아야 합니다.",
            example,
        )
    if url.port is not None and not 1 <= url.port <= 65535:
        raise SettingError(f"서버 주소 {shown} 의 포트를 쓸 수 없습니다.", "포트는 1부터 65535까지의 정수입니다.", example)
    return re.sub(r"/v1$", "", str(url.copy_with(query=None, fragment=None)).rstrip("/"))


def ask(url: str, key: str, timeout: float) -> httpx2.Response:
    """GET /v1/models. Raises NothingListening where no HTTP answer comes, SettingError for a key that HTTP cannot carry."""
    if not key.isascii() or not (key or "x").isprintable():
        raise SettingError(
            "API 키에 쓸 수 없는 글자가 있습니다.", "키에는 영문, 숫자, 기호만 들어갑니다.", "키를 다시 복사해 .env 파일에 적어 주세요."
        )
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with direct_http(url, timeout) as http:
            return http.get(f"{url}/v1/models", headers=headers)
    except (httpx2.RemoteProtocolError, httpx2.DecodingError) as error:
        raise not_an_llm(url, f"HTTP가 아닌 답이 왔습니다 ({error}).") from error
    except (httpx2.TransportError, UnicodeError) as error:  # UnicodeError: a host name longer than names may be
        raise NothingListening(
            f"{url} 에서 아무 프로그램도 답하지 않습니다.",
            f"서버가 꺼져 있거나, 주소나 포트가 다르거나, 방화벽이 막고 있습니다 ({type(error).__name__}).",
            "주소를 확인하고, 공용 서버라면 운영자에게 켜져 있는지 물어보세요. "
            "내 컴퓨터에서 혼자 하려면 .env 파일에서 LLAMA_SERVER_URL= 뒤를 비우세요.",
        ) from error


def not_an_llm(url: str, why: str) -> NotAnLLMServer:
    return NotAnLLMServer(
        f"{url} 에 있는 것은 LLM 서버가 아닙니다.", why, "LLAMA_SERVER_URL의 주소와 포트가 맞는지 확인하세요."
    )


def identify(url: str, key: str = "", model: str | None = None, timeout: float = 60.0) -> Found:
    """Ask the server at `url` what it is; waits up to `timeout` seconds for a model that is being loaded.

    Raises NothingListening, WrongKey, ModelLoading, NotAnLLMServer or, where `model` is absent from `/v1/models`,
    UnknownModel (`llama-server` itself answers 200 to any name).
    """
    end = time.monotonic() + timeout
    while (answer := ask(url, key, min(timeout, 10.0))).status_code == 503:
        if time.monotonic() > end:
            raise ModelLoading(
                f"{url} 의 서버가 아직 모델을 읽고 있습니다.",
                f"{timeout:.0f}초를 기다렸지만 준비가 끝나지 않았습니다.",
                "큰 모델은 몇 분이 걸립니다. 잠시 뒤에 셀을 다시 실행하세요.",
            )
        time.sleep(0.2)
    if answer.status_code in (401, 403):
        raise WrongKey(
            f"{url} 서버가 API 키를 받아 주지 않았습니다 (상태 코드 {answer.status_code}).",
            "키가 틀렸거나 지워진 키입니다." if key else "이 서버는 키가 필요한데 키를 보내지 않았습니다.",
            "운영자에게 받은 키를 .env 파일의 LLAMA_API_KEY= 뒤에 적고 셀을 다시 실행하세요. 노트북에는 키를 적지 마세요.",
        )
    found = read_models(url, answer)
    if model is not None and model not in found.models:
        raise UnknownModel(
            f"서버에 없는 모델입니다: {model}",
            "이름이 다르거나 서버가 다른 모델을 열어 두었습니다.",
            f"이 서버의 모델 이름: {', '.join(found.models)}",
        )
    return found


def read_models(url: str, answer: httpx2.Response) -> Found:
    """Read an answer of `/v1/models`. Raises NotAnLLMServer for anything else."""
    if answer.status_code != 200:
        raise not_an_llm(url, f"/v1/models 를 물었더니 돌아온 상태 코드는 {answer.status_code}입니다.")
    try:
        entries = answer.json()["data"]
        models = [str(entry["id"]) for entry in entries]
        owner = str(entries[0].get("owned_by", "")) if entries else ""
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise not_an_llm(url, "/v1/models 의 답이 모델 목록의 꼴이 아닙니다.") from error
    if not models:
        raise UnknownModel(f"{url} 서버에 열려 있는 모델이 없습니다.", "모델을 아직 올리지 않았습니다.", "운영자에게 물어보세요.")
    return Found(models, ENGINES.get(owner, "알려지지 않은 엔진"))
