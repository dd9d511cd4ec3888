"""What is said of a model file that cannot be read: which field, at which byte, why, and what to do."""

from __future__ import annotations

from pathlib import Path

from servinglab.errors import ModelFileError

AGAIN = "파일을 지우고 다시 받거나 만드세요."


def require_file(path: Path) -> int:
    """Size of the file in bytes. Raises ModelFileError where it is missing, empty or a folder."""
    if path.is_dir():
        raise ModelFileError(f"파일이 아니라 폴더입니다: {path}", "모델 파일 하나가 필요합니다.", "폴더 안의 파일 이름까지 적으세요.")
    if not path.is_file():
        raise ModelFileError(
            f"모델 파일이 없습니다: {path}",
            "경로가 틀렸거나 아직 만들지 않은 파일입니다.",
            '경로를 확인하세요. 내장 모델의 파일은 models.gguf_path("tutor")에 있고, 서버를 켤 때는 model="tutor" 라고 적습니다.',
        )
    size = path.stat().st_size
    if size == 0:
        raise ModelFileError(f"모델 파일이 비어 있습니다: {path}", "크기가 0바이트입니다.", "파일을 지우고 다시 받으세요.")
    return size


def damaged(path: Path, field: str, at: int, why: str, todo: str = AGAIN) -> ModelFileError:
    """The error of one field, found `at` so many bytes from the beginning of the file."""
    return ModelFileError(f"모델 파일이 중간에 잘렸거나 손상됐습니다: {path}", f"{at:,}바이트 위치의 {field}: {why}", todo)


def shown(name: str, most: int = 60) -> str:
    """A name out of a file that may be hostile, fit for a message: one short line of printable characters."""
    clean = "".join(letter if letter.isprintable() else "\ufffd" for letter in name[: most + 1])
    return clean if len(name) <= most else f"{clean[:most]}…"
