"""GGUF files on this machine: checked before an engine sees them, made at first use, cached."""

from __future__ import annotations

import hashlib
from pathlib import Path

from servinglab.errors import ModelFileError, SettingError
from servinglab.models import convert, gguf_file, speed
from servinglab.models.shapes import known, shapes
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


def speed_gguf(shape: str = "speed", kind: str = "Q8_0") -> Path:
    """A model of random weights in the shape of a known model, for measuring time only (its answers mean nothing).

    `kind` is the block type of every matrix, as "Q4_K". Raises SettingError for what is unknown.
    """
    found = known("shape", shape, shapes())
    path = cache_dir() / f"speed-random-{found.id}-{known('kind', kind, speed.KINDS)}-{speed.VERSION}.gguf"
    if not usable(path):
        speed.write(path, found, kind)
    return path


def usable(path: Path) -> bool:
    """Whether a cached file is there and whole; a damaged one will be made again."""
    try:
        check(path)
    except ModelFileError:
        return False
    return True


def check(path: Path) -> Path:
    """Return `path` if it is a whole GGUF file; else raise ModelFileError saying what is wrong with it, and where.

    A download cut short and a file that would end the process that loads it fail here rather than inside the engine.
    """
    gguf_file.read(path)
    return path
