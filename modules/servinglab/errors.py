"""What a learner is told when something goes wrong: what happened, why, what to do next."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ServingLabError(Exception):
    """An expected failure, told in Korean.

    Args:
        what: what happened, one sentence.
        why: the likely reason.
        todo: what to do next, with the command where there is one.
    """

    def __init__(self, what: str, why: str = "", todo: str = "") -> None:
        self.what, self.why, self.todo = what, why, todo
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [("무슨 일", self.what), ("왜", self.why), ("이렇게 하세요", self.todo)]
        return "\n".join(f"{label}: {text}" for label, text in parts if text)

    def _render_traceback_(self) -> list[str]:
        """IPython's hook: the message alone, because a stack of frames frightens a beginner."""
        return [f"{type(self).__name__}", *str(self).splitlines()]


class SettingError(ServingLabError):
    """A setting (environment variable, `.env`, an argument) cannot be used as it is."""


class EngineNotFound(ServingLabError):
    """The engine's program is not on this machine."""


class EngineFailed(ServingLabError):
    """The engine was started and ended, or did not become ready in time."""


class PortTaken(ServingLabError):
    """The port that was asked for belongs to another program."""


class NothingListening(ServingLabError):
    """No program answers at the address."""


class WrongKey(ServingLabError):
    """The server demands a key; none or a wrong one was given."""


class ModelLoading(ServingLabError):
    """The server is there but its model is still being loaded."""


class UnknownModel(ServingLabError):
    """The server does not list the model that was asked for."""


class NotAnLLMServer(ServingLabError):
    """Something answers at the address, but not in the OpenAI API's form."""


class ModelFileError(ServingLabError):
    """A model file is missing, empty, cut short or of another format."""


class HubError(ServingLabError):
    """The model hub is out of reach, refuses, or sent something else than it promised."""


class NotEnoughRoom(ServingLabError):
    """Too little disk or memory."""


class StreamBroken(ServingLabError):
    """The server went away in the middle of an answer."""


class ProgressError(ServingLabError):
    """The learner's progress could not be kept, read or removed; the lesson goes on."""


@contextmanager
def disk_errors(path: Path, setting: str = "SERVINGLAB_CACHE") -> Iterator[None]:
    """Turn a full, read-only or forbidden disk into a `ServingLabError` that names the folder.

    `setting` is the environment variable that names another folder.
    """
    try:
        yield
    except OSError as error:
        cut_short = error.errno is None and "requested and" in str(error)  # NumPy's tofile() keeps the reason to itself
        if cut_short or error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NotEnoughRoom(
                f"디스크가 가득 차서 {path} 파일을 끝까지 쓰지 못했습니다.",
                "쓰다 만 파일은 지웠으므로 잃은 것은 없습니다.",
                f"{path.parent} 폴더가 있는 디스크에서 자리를 비운 뒤 다시 실행하세요. "
                "캐시가 차지한 크기는 터미널에서 servinglab clean 명령으로 볼 수 있습니다.",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise SettingError(
                f"{path} 파일을 쓸 권한이 없습니다.",
                "폴더가 읽기 전용이거나 다른 사용자의 것입니다.",
                f"쓸 수 있는 폴더를 환경 변수 {setting}에 적어 주세요 (지금 폴더: {path.parent}).",
            ) from error
        if error.errno in (errno.EEXIST, errno.ENOTDIR):
            raise SettingError(
                f"{path.parent} 폴더를 만들 수 없습니다.",
                "폴더가 있어야 할 자리에 같은 이름의 파일이 있습니다.",
                f"그 파일을 옮기거나, 다른 폴더를 환경 변수 {setting}에 적어 주세요.",
            ) from error
        raise


def in_ci() -> bool:
    """Whether this is a CI run, where falling back or failing a check must turn a cell red."""
    return os.environ.get("CI", "").lower() in ("1", "true", "yes")
