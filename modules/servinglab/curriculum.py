"""The lists that several places read: lessons, terms, and what is known of the study group."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from servinglab.errors import SettingError
from servinglab.paths import DATA, NOTEBOOKS


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Lesson(Strict):
    """One lesson: its notebook's name, what it is about, and whether it can be taken yet."""

    id: Annotated[str, Field(pattern=r"^\d\d$")]
    notebook: Annotated[str, Field(pattern=r"^\d\d_[a-z_]+$")]
    title: str
    question: str
    subject: str
    mirrors: str
    minutes: int | None = None
    status: Literal["ready", "planned"]

    @property
    def path(self) -> Path:
        return NOTEBOOKS / f"{self.notebook}.ipynb"


class Term(Strict):
    """A term as the course uses it; `english` is given where the term first appears."""

    term: str
    english: str
    meaning: str
    lesson: Annotated[str, Field(pattern=r"^\d\d$")]


class _Lessons(Strict):
    lessons: list[Lesson]


class _Terms(Strict):
    terms: list[Term]


class Group(Strict):
    """What the operator of a study group fills in; None is "not told"."""

    name: str | None = None
    members: int | None = None
    server_address: str | None = None
    server_model: str | None = None
    server_slots: int | None = None
    server_gpu: str | None = None
    hub_address: str | None = None
    module_2_title: str | None = None


def read(path: Path) -> Any:
    """A YAML file of `data/`. Raises SettingError that names file and line."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingError(f"{path.name} 파일을 열 수 없습니다.", str(error), f"git checkout {path} 로 되살리세요.") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        why, todo = f"YAML의 꼴이 아닙니다 ({error.problem}).", "따옴표, 쌍점(:) 뒤의 빈칸, 들여쓰기를 살펴보세요."
        if "\\t" in str(error.problem):
            why, todo = "탭이 들어 있습니다.", "들여쓰기는 탭이 아니라 빈칸으로 하세요."
        raise SettingError(f"{path.name} 파일 {line}번째 줄을 읽을 수 없습니다.", why, todo) from error
    except yaml.YAMLError as error:
        raise SettingError(f"{path.name} 파일에 쓸 수 없는 글자가 있습니다.", str(error), "그 글자를 지우고 저장하세요.") from error
    except UnicodeDecodeError as error:
        raise SettingError(f"{path.name} 파일이 UTF-8이 아닙니다.", str(error), "편집기에서 UTF-8로 저장하세요.") from error


WHY = {
    "missing": "꼭 있어야 하는데 없습니다.",
    "extra_forbidden": "모르는 이름입니다.",
    "int_parsing": "정수여야 합니다.",
    "int_type": "정수여야 합니다.",
    "int_from_float": "정수여야 합니다.",
    "float_parsing": "수여야 합니다.",
    "float_type": "수여야 합니다.",
    "greater_than": "0보다 커야 합니다.",
    "greater_than_equal": "0 이상이어야 합니다.",
    "bool_parsing": "true 또는 false여야 합니다.",
    "bool_type": "true 또는 false여야 합니다.",
    "string_type": "글이어야 합니다. 숫자나 날짜라면 따옴표로 감싸세요.",
    "list_type": "- 로 시작하는 줄을 모은 목록이어야 합니다.",
    "model_type": "이름: 값 꼴의 줄을 모은 것이어야 합니다.",
}


Kind = TypeVar("Kind", bound=BaseModel)


def checked(path: Path, kind: type[Kind], raw: Any) -> Kind:
    """`raw` as `kind`. Raises SettingError that names file and field; it never repeats what may be a whole record or a key."""
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "맨 위"
        whole = first["type"] in ("missing", "extra_forbidden")
        todo = "이름의 철자를 살펴보고 고치세요." if whole else f"지금 값: {first['input']!r:.80}"
        why = WHY.get(first["type"], first["msg"])
        raise SettingError(f"{path.name} 파일의 {where} 값이 맞지 않습니다.", why, todo) from error


def lessons(path: Path = DATA / "curriculum.yaml") -> list[Lesson]:
    """All lessons in order, those still planned too."""
    return checked(path, _Lessons, read(path)).lessons


def glossary(path: Path = DATA / "glossary.yaml") -> list[Term]:
    return checked(path, _Terms, read(path)).terms


def group(path: Path = DATA / "group.yaml") -> Group:
    content = read(path)
    return checked(path, Group, {} if content is None else content)


def find(name: str) -> Lesson:
    """The lesson called "00" or "00_warmup". Raises SettingError, naming those that can be taken."""
    ready = [lesson for lesson in lessons() if lesson.status == "ready"]
    for lesson in ready:
        if name in (lesson.id, lesson.notebook, f"{lesson.notebook}.ipynb"):
            return lesson
    raise SettingError(
        f"{name} 이라는 레슨이 없습니다.", "번호가 틀렸거나 아직 열리지 않은 레슨입니다.",
        f"열려 있는 레슨: {', '.join(lesson.id for lesson in ready)}",
    )
