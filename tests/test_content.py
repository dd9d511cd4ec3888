"""Content that is not code: lessons, terms and the study group's facts fit their schemas, and the texts agree with them."""

from __future__ import annotations

import re
import sys

import pytest

from servinglab import curriculum
from servinglab.errors import SettingError
from servinglab.paths import NOTEBOOKS
from tests.helpers import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import readme_table

READERS = {"curriculum.yaml": curriculum.lessons, "glossary.yaml": curriculum.glossary, "group.yaml": curriculum.group}
LESSON = 'id: "00"\n    notebook: 00_warmup\n    title: 워밍업\n    question: 왜?\n    subject: 포트\n    mirrors: 워밍업'
TERM = "term: 포트\n    english: port\n    meaning: 번호"


# --- as shipped -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READERS)
def test_fits_its_schema(name):
    assert READERS[name]()


def test_lessons_are_complete():
    lessons = curriculum.lessons()
    assert [lesson.id for lesson in lessons] == sorted({lesson.id for lesson in lessons})
    assert all(lesson.notebook.startswith(f"{lesson.id}_") for lesson in lessons)
    assert all(lesson.title and lesson.question.endswith("?") and lesson.subject for lesson in lessons)
    assert all(lesson.minutes for lesson in lessons if lesson.status == "ready")


def test_terms_are_unique_and_belong_to_a_lesson():
    terms = curriculum.glossary()
    for names in ([term.term for term in terms], [term.term.casefold().replace(" ", "") for term in terms]):
        assert sorted({name for name in names if names.count(name) > 1}) == []
    assert {term.lesson for term in terms} <= {lesson.id for lesson in curriculum.lessons()}
    assert all(re.search("[가-힣]", term.meaning) and term.meaning.endswith("다.") for term in terms)


def test_group_is_shipped_empty():
    """What the sources do not say is not invented."""
    assert set(curriculum.group().model_dump().values()) == {None}


@pytest.mark.parametrize("lesson", [one for one in curriculum.lessons() if one.status == "ready"], ids=lambda one: one.id)
def test_lesson_explains_its_terms(lesson):
    """Each term of the glossary that belongs to the lesson stands in its prose (not only in code)."""
    text = (NOTEBOOKS / "text" / f"{lesson.notebook}.md").read_text(encoding="utf-8")
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    terms = [term.term for term in curriculum.glossary() if term.lesson == lesson.id]
    assert terms and [term for term in terms if term not in prose] == []


def test_readme_holds_the_table_of_lessons():
    """`tools/readme_table.py --write` makes them agree again."""
    if not readme_table.README.exists():
        pytest.skip("README.md is not written yet")
    text = readme_table.README.read_text(encoding="utf-8")
    assert readme_table.with_table(text) == text
    rows = re.findall(r"^\| (\d\d) \| (.+?) \|", readme_table.table(), re.MULTILINE)
    assert [number for number, _ in rows] == [lesson.id for lesson in curriculum.lessons()]
    links = [link for _, title in rows for link in re.findall(r"\((.+?)\)", title)]
    assert links == [f"notebooks/{lesson.path.name}" for lesson in curriculum.lessons() if lesson.status == "ready"]


# --- as a person may have left it -------------------------------------------------------------------------------------

FAULTS = {
    "tab": ("group.yaml", "name: null\nmembers:\n\t- 3\n", r"group\.yaml 파일 3번째 줄"),
    "tab in a list": ("curriculum.yaml", f"lessons:\n  - {LESSON}\n\tstatus: ready\n", r"curriculum\.yaml 파일 8번째 줄"),
    "open quote": ("glossary.yaml", 'terms:\n  - term: "포트\n', r"glossary\.yaml 파일 \d+번째 줄"),
    "wrong key": ("group.yaml", "server_adress: http://10.0.0.5\n", r"group\.yaml 파일의 server_adress"),
    "wrong key of a lesson": ("curriculum.yaml", f"lessons:\n  - {LESSON}\n    state: ready\n", r"lessons\.0\.(status|state)"),
    "wrong key at the top": ("curriculum.yaml", f"lesson:\n  - {LESSON}\n    status: ready\n", r"curriculum\.yaml 파일의 lessons?"),
    "missing key": ("glossary.yaml", f'terms:\n  - {TERM}\n    lesson: "00"\n  - term: 토큰\n', r"terms\.1\.english"),
    "wrong type": ("group.yaml", "members: 서른\n", r"group\.yaml 파일의 members"),
    "address as a number": ("group.yaml", "server_address: 8080\n", r"group\.yaml 파일의 server_address"),
    "unquoted id": ("glossary.yaml", f"terms:\n  - {TERM}\n    lesson: 00\n", r"glossary\.yaml 파일의 terms\.0\.lesson"),
    "unknown status": ("curriculum.yaml", f"lessons:\n  - {LESSON}\n    status: soon\n", r"lessons\.0\.status"),
    "notebook's name in Korean": ("curriculum.yaml", "lessons:\n  - notebook: 00_워밍업\n", r"lessons\.0\.(id|notebook)"),
    "list instead of names": ("group.yaml", "- name\n- members\n", r"group\.yaml"),
    "text instead of names": ("group.yaml", "연구회\n", r"group\.yaml"),
    "terms are no list": ("glossary.yaml", "terms: 포트\n", r"glossary\.yaml 파일의 terms"),
    "empty curriculum": ("curriculum.yaml", "", r"curriculum\.yaml"),
    "empty glossary": ("glossary.yaml", "# 아직 없음\n", r"glossary\.yaml"),
    "control character": ("group.yaml", "name: \x07\n", r"group\.yaml"),
}


@pytest.mark.parametrize(("name", "text", "where"), FAULTS.values(), ids=FAULTS)
def test_fault_names_file_and_place(name, text, where, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(SettingError, match=where) as caught:
        READERS[name](tmp_path / name)
    assert re.search("[가-힣]", caught.value.what) and caught.value.why and caught.value.todo


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("encoding", ["cp949", "utf-16"])
def test_wrong_encoding(name, encoding, tmp_path):
    (tmp_path / name).write_text("# 연구회\nname: 서빙 연구회\n", encoding=encoding)
    with pytest.raises(SettingError, match=rf"{name} 파일이 UTF-8이 아닙니다"):
        READERS[name](tmp_path / name)


@pytest.mark.parametrize("name", READERS)
def test_missing_file(name, tmp_path):
    with pytest.raises(SettingError, match=rf"{name}(?s:.)*git checkout"):
        READERS[name](tmp_path / name)


def test_a_key_written_by_mistake_is_not_repeated(tmp_path):
    """Lessons read group.yaml: the message appears in a notebook that others will see."""
    (tmp_path / "group.yaml").write_text("server_key: sk-secret-123\n", encoding="utf-8")
    with pytest.raises(SettingError, match="server_key") as caught:
        curriculum.group(tmp_path / "group.yaml")
    assert "sk-secret-123" not in str(caught.value)


def test_what_an_operator_may_write(tmp_path):
    """Windows' mark at the beginning of the file, some names left out; an empty file is a group that told nothing."""
    path = tmp_path / "group.yaml"
    path.write_bytes("\ufeffname: 서빙 연구회\nmembers: 30\nserver_slots: null\n".encode())
    group = curriculum.group(path)
    assert (group.name, group.members, group.server_slots, group.hub_address) == ("서빙 연구회", 30, None, None)
    path.write_text("", encoding="utf-8")
    assert curriculum.group(path) == curriculum.Group()


@pytest.mark.parametrize("name", ["00", "00_warmup", "00_warmup.ipynb"])
def test_find_by_number_or_name(name):
    assert curriculum.find(name).id == "00"


@pytest.mark.parametrize("name", ["99", "08", "", "../00", "0"])
def test_find_says_which_lessons_there_are(name):
    with pytest.raises(SettingError, match="열려 있는 레슨: 00"):
        curriculum.find(name)
