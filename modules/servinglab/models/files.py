"""GGUF files on this machine: checked before an engine sees them, made at first use, cached."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import gguf
import psutil

from servinglab.errors import ModelFileError, NotEnoughRoom, SettingError
from servinglab.models import convert, speed
from servinglab.paths import TUTOR, cache_dir

NAMES = ("tutor", "speed")
"""The models that the course brings along."""


def gguf_path(model: str, file_type: str = "F16") -> Path:
    """The GGUF file of "tutor" (in `file_type`), of "speed", or of a path; the first two are made at first use.

    Raises ModelFileError for a file that no engine could load, NotEnoughRoom where disk or memory is short.
    """
    if not isinstance(model, (str, Path)):
        raise SettingError(f"쓸 수 없는 값입니다: model={model!r}", "이름이나 파일의 경로여야 합니다.", '예: model="tutor"')
    if model == "tutor":
        return tutor_gguf(file_type)
    if model == "speed":
        return speed_gguf()
    return check(Path(model).expanduser())


def tutor_gguf(file_type: str = "F16", folder: Path = TUTOR) -> Path:
    """The tutor as GGUF, "F16" or "Q8_0". The name holds a digest of the weights: new weights, new file."""
    if file_type not in list(convert.FILE_TYPES):
        raise SettingError(
            f"쓸 수 없는 값입니다: file_type={file_type!r}", f"쓸 수 있는 값: {', '.join(convert.FILE_TYPES)}", '예: file_type="F16"'
        )
    digest = hashlib.sha256()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise ModelFileError(
                f"튜터 모델의 {name} 파일이 없습니다.",
                f"{folder} 폴더에 있어야 하는데 지워졌거나 덜 받아졌습니다.",
                "저장소 폴더의 터미널에서 git checkout data/tutor 를 실행하세요.",
            )
        digest.update((folder / name).read_bytes())
    path = cache_dir() / f"tutor-{file_type.lower()}-{digest.hexdigest()[:12]}.gguf"
    if not usable(path):
        convert.convert(folder, path, file_type)
    return path


def speed_gguf() -> Path:
    """The speed model: random weights, for measuring time only (its answers mean nothing)."""
    path = cache_dir() / f"speed-random-{speed.VERSION}.gguf"
    if not usable(path):
        require_room(path, speed.BYTES)
        speed.write(path, TUTOR)
    return path


def require_room(path: Path, size: int) -> None:
    """Raise NotEnoughRoom unless disk (for the file) and memory (to run it) have `size` bytes and some to spare."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    free, memory = shutil.disk_usage(folder).free, psutil.virtual_memory().available
    for have, what, todo in (
        (free, f"{folder} 폴더가 있는 디스크", "자리를 비우거나 환경 변수 SERVINGLAB_CACHE로 다른 폴더를 정하세요."),
        (memory, "메모리", "다른 프로그램이나 쓰지 않는 노트북의 커널을 끄고 다시 실행하세요."),
    ):
        if have < size * 1.3:
            raise NotEnoughRoom(
                f"{what}에 자리가 모자라 속도 모델을 만들지 않았습니다.",
                f"{size * 1.3 / 1e9:.1f} GB가 필요한데 {have / 1e9:.1f} GB가 남아 있습니다.",
                todo,
            )


def usable(path: Path) -> bool:
    """Whether a cached file is there and whole; a damaged one will be made again."""
    try:
        check(path)
    except ModelFileError:
        return False
    return True


def check(path: Path) -> Path:
    """Return `path` if it is a whole GGUF file; else raise ModelFileError saying what is wrong with it.

    The end of the last tensor, read from the header, must lie inside the file: a download cut short fails here
    rather than inside the engine.
    """
    if not path.is_file():
        raise ModelFileError(
            f"모델 파일이 없습니다: {path}",
            "경로가 틀렸거나 아직 만들지 않은 파일입니다.",
            '경로를 확인하거나, 내장 모델을 쓰려면 model="tutor" 라고 적으세요.',
        )
    size = path.stat().st_size
    if size == 0:
        raise ModelFileError(f"모델 파일이 비어 있습니다: {path}", "크기가 0바이트입니다.", "파일을 지우고 다시 받으세요.")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ModelFileError(
            f"GGUF 파일이 아닙니다: {path}",
            f"GGUF 파일은 GGUF라는 네 글자로 시작하는데 이 파일의 첫머리는 다릅니다: {magic!r}",
            "확장자가 .gguf인 모델 파일을 고르세요. 다른 형식은 lesson 02에서 바꾸는 법을 배웁니다.",
        )
    try:
        tensors = gguf.GGUFReader(path).tensors
        end = max((int(t.data_offset) + int(t.n_bytes) for t in tensors), default=0)
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        raise cut_short(path, f"머리말을 끝까지 읽을 수 없습니다 ({type(error).__name__}).") from error
    if end > size or not tensors:
        raise cut_short(path, f"머리말에는 {end:,}바이트라고 적혀 있는데 파일은 {size:,}바이트입니다.")
    return path


def cut_short(path: Path, why: str) -> ModelFileError:
    return ModelFileError(f"모델 파일이 중간에 잘렸거나 손상됐습니다: {path}", why, "파일을 지우고 다시 받거나 만드세요.")
