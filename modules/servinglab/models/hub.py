"""Models from the hub: which can be had, where they lie once pulled, and the download itself.

`servinglab pull` and `SERVINGLAB_MODEL` stand on this. The requests are `huggingface_hub`'s; its address is `HF_ENDPOINT`'s.
`huggingface_hub` is imported where it is used: every kernel imports this file, and hardly any pulls a model.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx2
import psutil
from filelock import FileLock, Timeout

from servinglab.errors import HubError, ModelFileError, NotEnoughRoom, SettingError, disk_errors
from servinglab.models.files import check
from servinglab.models.memory import gib, need
from servinglab.models.shapes import HubFile, Shape, known, shapes
from servinglab.paths import home_dir

USERS, CONTEXT = 4, 2048
"""The slots that `engines.connect` opens, and the tokens of each: what the memory is told for."""

SPARE = 1.05
"""A disk filled to the last byte stops JupyterLab too."""

AGAIN = "받은 만큼은 남아 있습니다. 같은 명령을 다시 실행하면 이어서 받습니다."


@dataclass(frozen=True)
class Offer:
    """A model's file as the hub describes it now.

    Attributes:
        size: bytes.
        sha256: digest of the content, in hexadecimal.
        commit: version of the repository, so that what is fetched is what was shown.
    """

    name: str
    shape: Shape
    file: HubFile
    size: int
    sha256: str
    commit: str

    @property
    def path(self) -> Path:
        return path_of(self.name)

    @property
    def part(self) -> Path:
        """The download while it is incomplete. Its name holds the digest: parts of another version are never mixed in."""
        return self.path.with_name(f"{self.path.name}.{self.sha256[:12]}.part")

    @property
    def begun(self) -> int:
        """Bytes that an earlier, interrupted download has left."""
        return self.part.stat().st_size if self.part.is_file() else 0

    def __str__(self) -> str:
        """What to know before it is fetched, in Korean."""
        memory, free = psutil.virtual_memory(), free_disk(self.path)
        wanted = replace(need(self.shape, 16, CONTEXT, USERS), weights=self.size).total
        lines = [
            f"모델: {self.shape.name} ({self.name})",
            f"저장소: {endpoint()}/{self.file.repo}",
            f"파일: {self.file.file}, {megabytes(self.size)}",
            f"라이선스: {self.file.licence}",
            f"메모리: 네 사람이 {CONTEXT:,}토큰씩 쓰면 약 {gib(wanted)}가 필요합니다. "
            f"이 컴퓨터에는 {gib(memory.total)}가 있고, 지금 {gib(memory.available)}가 비어 있습니다.",
            f"디스크: {megabytes(free)}가 비어 있습니다.",
            f"담을 곳: {self.path}",
        ]
        if wanted > memory.available:
            lines.append("메모리가 모자랄 수 있습니다. 다른 프로그램을 닫거나 더 작은 모델을 고르세요.")
        if self.begun:
            lines.append(f"전에 받다 만 {megabytes(self.begun)}가 있습니다. 그 뒤부터 이어서 받습니다.")
        return "\n".join(lines)


# --- what there is ----------------------------------------------------------------------------------------------------


def offered() -> dict[str, Shape]:
    """The models that can be pulled, by name."""
    return {name: shape for name, shape in shapes().items() if shape.gguf is not None}


def folder() -> Path:
    """Where pulled models lie: with what is the learner's own, because a shared cache may be read-only."""
    return home_dir() / "models"


def path_of(name: str) -> Path:
    """Where the model lies once pulled. Raises SettingError for a name that cannot be pulled."""
    known("model", name, offered())
    return folder() / f"{name}.gguf"


def kept() -> list[Path]:
    """The pulled files on this machine, incomplete downloads too."""
    return [*sorted(folder().glob("*.gguf")), *parts("*")]


def parts(name: str) -> list[Path]:
    """Incomplete downloads of a model."""
    return sorted(folder().glob(f"{name}.gguf.*.part"))


def pulled(name: str) -> Path:
    """The file of the model that `SERVINGLAB_MODEL` names. Raises SettingError where it is unknown or not pulled yet."""
    if name not in offered():
        raise SettingError(
            f"SERVINGLAB_MODEL에 적힌 {name} 모델을 모릅니다.",
            "목록에 없거나 철자가 다릅니다.",
            f"쓸 수 있는 이름: {', '.join(offered())}. 튜터를 쓰려면 SERVINGLAB_MODEL을 비우세요.",
        )
    path = path_of(name)
    if not path.is_file():
        raise SettingError(
            f"SERVINGLAB_MODEL에 적힌 {name} 모델을 아직 받지 않았습니다.",
            f"{path} 파일이 없습니다.",
            f"터미널에서 servinglab pull {name} 명령을 실행하세요. 튜터를 쓰려면 SERVINGLAB_MODEL을 비우세요.",
        )
    return check(path)


# --- the hub ----------------------------------------------------------------------------------------------------------


def endpoint() -> str:
    """The hub's address. Raises SettingError for an HF_ENDPOINT that is no address: the library stumbles over it at import."""
    try:
        from huggingface_hub import HfApi
    except ValueError as error:
        raise SettingError(
            "환경 변수 HF_ENDPOINT에 적힌 주소를 읽을 수 없습니다.", str(error), "https://huggingface.co 처럼 적거나, 그 환경 변수를 지우세요."
        ) from error
    return HfApi().endpoint


def look_up(name: str) -> Offer:
    """Ask the hub about a model's file. Raises HubError, or SettingError for a name that cannot be pulled."""
    shape = known("model", name, offered())
    assert shape.gguf is not None
    file, address = shape.gguf, endpoint()
    from huggingface_hub import HfApi, constants

    with hub_errors(file), quietly():
        try:
            info = HfApi(address, token=False).model_info(
                file.repo, revision="main", files_metadata=True, timeout=constants.HF_HUB_ETAG_TIMEOUT
            )
            found = {entry.rfilename: entry.lfs for entry in info.siblings or []}
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise not_the_hub(f"모델을 설명하는 답의 꼴이 아닙니다 ({type(error).__name__}).") from error
    if info.gated:
        raise refused(403, file)
    if file.file not in found:
        raise refused(404, file)
    lfs = found[file.file]
    if lfs is None or not info.sha:
        raise not_the_hub("파일의 크기와 체크섬이 답에 없습니다.")
    return Offer(name, shape, file, lfs.size, lfs.sha256, info.sha)


def fetch(offer: Offer) -> Path:
    """Download the file, going on where an earlier run stopped, and check it. Returns its path.

    Raises HubError, NotEnoughRoom, SettingError, ModelFileError. Nothing incomplete or wrong ever has the final name.
    """
    with disk_errors(offer.part, "SERVINGLAB_HOME"):
        offer.path.parent.mkdir(parents=True, exist_ok=True)
        with alone(offer.path):
            for part in parts(offer.name):
                if part != offer.part or offer.begun > offer.size:
                    part.unlink()
            require_disk(offer)
            download(offer)
            verify(offer)
            offer.part.replace(offer.path)
    return offer.path


def download(offer: Offer) -> None:
    """Fetch what is missing of `offer.part`. A full disk removes the part: it helps nobody there."""
    from huggingface_hub import hf_hub_url

    # hf_hub_download() throws an interrupted download away (its issue 4196); the function below it can go on.
    from huggingface_hub.file_download import http_get

    url = hf_hub_url(offer.file.repo, offer.file.file, revision=offer.commit)
    try:
        with hub_errors(offer.file, AGAIN), quietly(), offer.part.open("ab") as part:
            headers = {"Accept-Encoding": "identity"}  # a packed answer has no ranges
            http_get(
                url, part, resume_size=offer.begun, headers=headers, expected_size=offer.size, displayed_filename=offer.path.name
            )
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            offer.part.unlink()
        if error.errno is not None:
            raise
        # The library found another size than promised: verify() finds it too, and says so in Korean.


def verify(offer: Offer) -> None:
    """Raise HubError unless the part is what the hub promised, ModelFileError unless it is a GGUF file. A wrong file is removed."""
    with offer.part.open("rb") as part:
        digest = hashlib.file_digest(part, "sha256").hexdigest()
    if digest != offer.sha256:
        offer.part.unlink()
        raise HubError(
            f"받은 파일의 체크섬이 {offer.file.file} 파일의 것과 다릅니다.",
            "내려받는 동안 내용이 바뀌었거나, 중간의 프록시가 다른 것을 보냈습니다. 잘못된 파일은 지웠습니다.",
            f"터미널에서 servinglab pull {offer.name} 명령을 다시 실행하세요. 또 이러면 다른 네트워크에서 받아 보세요.",
        )
    try:
        check(offer.part)
    except ModelFileError:
        offer.part.unlink()
        raise


def require_disk(offer: Offer) -> None:
    """Raise NotEnoughRoom unless the rest of the file fits on the disk."""
    wanted, free = (offer.size - offer.begun) * SPARE, free_disk(offer.path)
    if free < wanted:
        raise NotEnoughRoom(
            f"{offer.path.parent} 폴더가 있는 디스크에 자리가 모자라 받지 않았습니다.",
            f"{megabytes(wanted)}가 필요한데 {megabytes(free)}가 남아 있습니다.",
            "자리를 비우거나 환경 변수 SERVINGLAB_HOME으로 다른 폴더를 정하세요.",
        )


def free_disk(path: Path) -> int:
    """Free bytes on the disk of `path`, whose folder need not be there yet."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def megabytes(size: float) -> str:
    """Bytes as "639.4 MB", large ones as "1.8 GB" (10**6 and 10**9 bytes, as hubs count)."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """One download of a file at a time. Raises HubError while another process is at it."""
    try:
        with FileLock(path.with_name(f".{path.stem}.lock"), timeout=1.0):
            yield
    except Timeout as error:
        raise HubError(
            f"{path.name} 파일을 다른 곳에서 이미 받고 있습니다.",
            "다른 터미널이나 노트북에서 같은 명령이 돌고 있습니다.",
            "그쪽이 끝나기를 기다리세요.",
        ) from error


# --- what can go wrong ------------------------------------------------------------------------------------------------


class Hiccup(logging.Handler):
    """Tells in Korean what the library warns of in English: that it tries again."""

    def emit(self, record: logging.LogRecord) -> None:
        if "Max retries" not in record.getMessage():
            print("\n허브와의 연결이 고르지 않습니다. 잠시 뒤에 이어서 받습니다 …", file=sys.stderr, flush=True)


@contextmanager
def quietly() -> Iterator[None]:
    """The library as this course wants it: nothing is reported to anybody, and its warnings are in Korean."""
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = True  # asked at every request; the environment variable only at import
    logger = logging.getLogger("huggingface_hub")
    handlers, logger.handlers = logger.handlers, [Hiccup()]
    try:
        yield
    finally:
        logger.handlers = handlers


@contextmanager
def hub_errors(file: HubFile, after: str = "") -> Iterator[None]:
    """Turn what the library raises into a HubError. `after` is what to add to the advice."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        yield
    except HfHubHTTPError as error:
        raise refused(error.response.status_code, file, after) from error
    except OfflineModeIsEnabled as error:
        raise HubError(
            "모델 허브에 물어보지 않았습니다.", "환경 변수 HF_HUB_OFFLINE이 인터넷을 쓰지 말라고 합니다.", "그 환경 변수를 지우고 다시 실행하세요."
        ) from error
    except (httpx2.RequestError, httpx2.InvalidURL) as error:
        silent = isinstance(error, httpx2.TimeoutException)
        raise HubError(
            f"모델 허브({endpoint()})에서 답이 오지 않습니다." if silent else f"모델 허브({endpoint()})에 연결하지 못했습니다.",
            f"인터넷이 끊겼거나, 방화벽이 막고 있거나, HF_ENDPOINT에 적은 주소가 다릅니다 ({type(error).__name__}).",
            f"인터넷 연결을 확인하고 다시 실행하세요. {after} 인터넷이 없어도 이 과정은 튜터로 모두 할 수 있습니다.".replace("  ", " "),
        ) from error


def refused(status: int, file: HubFile, after: str = "") -> HubError:
    """What an HTTP status of the hub means."""
    other = "터미널에서 servinglab pull 명령으로 다른 모델을 골라 보세요."
    what, why, todo = f"모델 허브가 {file.repo} 저장소의 파일을 내주지 않았습니다", "허브에 문제가 있습니다.", "몇 분 뒤에 다시 실행하세요."
    if status in (401, 403):
        why, todo = "로그인하고 이용 약관에 동의한 사람만 받을 수 있게 바뀌었습니다.", other
    elif status == 404:
        what = f"모델 허브의 {file.repo} 저장소에 {file.file} 파일이 없습니다"
        why, todo = "저장소나 파일의 이름이 바뀌었거나 지워졌습니다.", other
    elif status == 429:
        why, todo = "짧은 시간에 너무 많이 물었습니다. 모임처럼 여럿이 같은 인터넷을 쓰면 함께 셉니다.", "몇 분 뒤에 다시 실행하세요."
    elif status < 500:
        why, todo = "허브가 요청을 알아듣지 못했습니다.", "HF_ENDPOINT에 적은 주소가 맞는지 확인하세요."
    return HubError(f"{what} (상태 코드 {status}).", why, f"{todo} {after}".strip())


def not_the_hub(why: str) -> HubError:
    return HubError(
        f"{endpoint()} 에서 온 답이 모델 허브의 것이 아닙니다.",
        f"{why} 와이파이 로그인 화면이나 프록시가 대신 답했을 수 있습니다.",
        "브라우저로 그 주소를 열어 보고, 인터넷을 쓸 수 있게 되면 다시 실행하세요.",
    )
