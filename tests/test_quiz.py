"""Quizzes: the schema and its complaints, grading, the printed form, the widgets without a browser, and the shipped questions."""

from __future__ import annotations

import math
import re
import sqlite3
from collections import Counter
from contextlib import closing

import pytest

from servinglab import progress, quiz
from servinglab.errors import SettingError
from servinglab.quiz import grading, schema
from servinglab.quiz.form import Form
from servinglab.quiz.grading import Unreadable, grade, read_number
from servinglab.quiz.schema import Matching, Multiple, Ordering, Single
from servinglab.quiz.session import begin, sections
from tests.quiz_sample import SAMPLE

SHIPPED = [quiz.load(lesson) for lesson in schema.available()]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of quizzes that holds one, and a learner without progress."""
    quizzes = tmp_path / "퀴즈"
    quizzes.mkdir()
    (quizzes / "00.yaml").write_text(SAMPLE, encoding="utf-8")
    monkeypatch.setattr(schema, "QUIZZES", quizzes)
    monkeypatch.setattr(quiz, "_shown", {})
    monkeypatch.setattr(progress, "_waiting", [])
    monkeypatch.setenv("SERVINGLAB_HOME", str(tmp_path / "내 기록"))
    return quizzes


@pytest.fixture
def sample(folder):
    return quiz.load("00")


def by_kind(sample, kind: str):
    return next(question for question in sample.questions if question.kind == kind)


# --- the schema -------------------------------------------------------------------------------------------------------

LAST_OPTION = "      - text: 줄을 선 요청\n        right: true\n        why: 기다리던 요청도 함께 끝납니다.\n"
FAULTS = {
    "tab": ("  - id: kept", "\t- id: kept", r"번째 줄을 읽을 수 없습니다"),
    "duplicate id": ("id: kept", "id: job", r"questions\.1\.id"),
    "no right option": ("        right: true  # job\n", "", r"questions\.0\.options 값"),
    "two right options": ("why: 컴파일러가 빌드", "right: true\n        why: 컴파일러가 빌드", r"questions\.0\.options 값"),
    "option without explanation": ("        why: 컴파일러가 빌드할 때 하는 일입니다.\n", "", r"questions\.0\.options\.0\.why"),
    "empty explanation": ("why: 컴파일러가 빌드할 때 하는 일입니다.", 'why: "  "', r"questions\.0\.options\.0\.why"),
    "explanation used twice": ("여러 모델 앞에 선 라우터가 하는", "컴파일러가  빌드할 때 하는", r"questions\.0\.options\.3\.why"),
    "equal options": ("text: 모델 파일 # kept", "text: KV 캐시", r"questions\.1\.options\.1\.text"),
    "too few options": (LAST_OPTION, "", r"questions\.1\.options"),
    "forgotten dash": ("      - text: 모델 파일 # kept", "        text: 모델 파일 # kept", r"questions\.1\.options\.0\.text"),
    "unknown kind": ("kind: ordering", "kind: sorting", r"questions\.3 값"),
    "missing kind": ("    kind: ordering\n", "", r"questions\.3 값"),
    "unknown name": ("    unit: 바이트", "    units: 바이트", r"questions\.2\.(unit|units)"),
    "missing unit": ("    unit: 바이트\n", "", r"questions\.2\.unit"),
    "text as a number": ("    text: 하는 일끼리 짝지으세요.", "    text: 3", r"questions\.4\.text"),
    "value as text": ("    value: 3072", "    value: 삼천", r"questions\.2\.value"),
    "value that is no number": ("    value: 3072", "    value: .nan", r"questions\.2\.value"),
    "tolerance of more than all": ("tolerance: 0.01", "tolerance: 5", r"questions\.2\.tolerance"),
    "wrong value within tolerance": ("- value: 1536", "- value: 3073", r"questions\.2\.wrong\.0\.value"),
    "wrong order that is right": ("order: [1, 0, 2, 3]", "order: [0, 1, 2, 3]", r"questions\.3\.wrong\.0\.order"),
    "wrong order with a gap": ("order: [1, 0, 2, 3]", "order: [1, 0, 2, 9]", r"questions\.3\.wrong\.0\.order"),
    "equal items": ("      - 질문을 읽는다", "      - 첫 토큰을 만든다", r"questions\.3\.items\.2"),
    "equal right sides": ("right: 파일을 작게 만든다", "right: 코드를 기계어로 옮긴다", r"questions\.4\.pairs\.1\.right"),
    "right is no yes or no": ("right: true  # job", "right: 네", r"questions\.0\.options\.1\.right"),
    "id in Korean": ("id: kept", "id: 남는-것", r"questions\.1\.id"),
    "section without zero": ('reread: "05"', "reread: 5", r"questions\.2\.reread"),
    "another lesson's number": ('lesson: "00"', 'lesson: "01"', r"00\.yaml 파일 1번째 줄의 lesson"),
    "no questions": ("questions:", "question:", r"의 questions?"),
}


@pytest.mark.parametrize(("old", "new", "where"), FAULTS.values(), ids=FAULTS)
def test_fault_names_file_line_and_field(old, new, where, folder):
    assert SAMPLE.count(old) == 1
    text = SAMPLE.replace(old, new)
    (folder / "00.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingError, match=where) as caught:
        quiz.load("00")
    line = re.search(r"00\.yaml 파일 (\d+)번째 줄", caught.value.what)
    assert line and re.search("[가-힣]", caught.value.why + caught.value.todo) and caught.value.todo
    around = SAMPLE[: SAMPLE.index(old)].count("\n") + 1
    assert abs(int(line.group(1)) - around) <= 8, (int(line.group(1)), around)


@pytest.mark.parametrize(
    ("old", "new", "on"),
    [
        ("why: 컴파일러가 빌드할 때 하는 일입니다.", 'why: ""', 'why: ""'),
        ("id: kept", "id: job", "id: job\n    kind: multiple"),
        ("order: [1, 0, 2, 3]", "order: [3]", "order: [3]"),
        ("right: 파일을 작게 만든다", "right: 코드를 기계어로 옮긴다", "right: 코드를 기계어로 옮긴다\n        why: 양자화"),
        ("        why: 컴파일러가 빌드할 때 하는 일입니다.\n", "", "- text: 소스 코드를"),
    ],
)
def test_the_line_is_exact(old, new, on, folder):
    text = SAMPLE.replace(old, new)
    (folder / "00.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingError) as caught:
        quiz.load("00")
    assert f" {text[: text.index(on)].count(chr(10)) + 1}번째 줄" in caught.value.what


@pytest.mark.parametrize("text", ["", "# 아직 없음\n", "- 문제\n", "문제\n", "lesson: '00'\nquestions: 문제\n", "lesson: '00'\nquestions: []\n"])
def test_files_without_questions(text, folder):
    (folder / "00.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(SettingError, match=r"00\.yaml 파일 \d+번째 줄"):
        quiz.load("00")


@pytest.mark.parametrize("encoding", ["cp949", "utf-16"])
def test_wrong_encoding(encoding, folder):
    (folder / "00.yaml").write_text(SAMPLE, encoding=encoding, errors="replace")
    with pytest.raises(SettingError, match=r"00\.yaml 파일이 UTF-8이 아닙니다"):
        quiz.load("00")


@pytest.mark.parametrize("lesson", ["01", "0", "", "../00", "00.yaml", 0, None])
def test_unknown_lesson_is_told_which_there_are(lesson, folder):
    with pytest.raises(SettingError, match="있는 퀴즈: 00"):
        quiz.show(lesson)


def test_shuffled_is_the_same_every_time_and_never_right(sample):
    for kind in ("ordering", "matching"):
        question = by_kind(sample, kind)
        mixed = schema.shuffled(question)
        assert mixed == schema.shuffled(question) != sorted(mixed)
        for name in ("a", "b", "c", "d", "e", "f"):
            renamed = question.model_copy(update={"id": name})
            assert sorted(schema.shuffled(renamed)) == sorted(mixed) != schema.shuffled(renamed)


# --- grading ----------------------------------------------------------------------------------------------------------


def test_single_explains_the_option_chosen_and_the_others_when_solved(sample):
    question = by_kind(sample, "single")
    for i, option in enumerate(question.options):
        judgement = grade(question, i)
        assert judgement.right == option.right and judgement.text == option.why
        assert bool(judgement.others) == option.right
    right = next(i for i, option in enumerate(question.options) if option.right)
    others = " ".join(grade(question, right).others)
    assert all((option.why in others) != option.right for option in question.options)


def test_multiple_needs_all_and_only_the_right_ones(sample):
    question = by_kind(sample, "multiple")
    solved = grade(question, frozenset({0, 2}))
    assert solved.right and all(question.options[i].why in solved.text for i in (0, 2))
    assert question.options[1].why in solved.others[0]
    missing = grade(question, frozenset({0}))
    assert not missing.right and "고르지 않은 것" in missing.text and question.options[2].text not in missing.text
    wrong = grade(question, frozenset({0, 1, 2}))
    assert not wrong.right and question.options[1].why in wrong.text and "고르지 않은 것" not in wrong.text


def test_number_within_tolerance_and_plausible_slips(sample):
    question = by_kind(sample, "number")
    assert all(grade(question, value).right for value in (3072, 3072.0, 3072 * 1.0099, 3072 * 0.9901))
    assert not any(grade(question, value).right for value in (3072 * 1.011, 3072 * 0.989, -3072, 0))
    assert grade(question, 1536).text == question.wrong[0].why
    assert "큽니다" in grade(question, 9999).text and "작습니다" in grade(question, 10).text
    assert "3,072" not in grade(question, 9999).text and "3072" not in grade(question, 9999).text


def test_ordering_explains_typical_orders_and_says_where_another_goes_astray(sample):
    question = by_kind(sample, "ordering")
    assert grade(question, (0, 1, 2, 3)).right
    assert grade(question, (1, 0, 2, 3)).text == question.wrong[0].why
    assert "앞의 2개는 맞았고" in grade(question, (0, 1, 3, 2)).text
    assert "맨 앞부터" in grade(question, (3, 2, 1, 0)).text


def test_matching_explains_each_wrong_pair(sample):
    question = by_kind(sample, "matching")
    assert grade(question, (0, 1, 2)).right
    wrong = grade(question, (0, 2, 1))
    assert not wrong.right and "3개 가운데 1개" in wrong.text
    assert question.pairs[1].why in wrong.text and question.pairs[2].why in wrong.text and question.pairs[0].why not in wrong.text


def test_an_answer_of_another_kind_is_a_fault_of_the_program(sample):
    with pytest.raises(TypeError):
        grade(by_kind(sample, "single"), frozenset({1}))


NUMBERS = {
    "12": 12, " 12 ": 12, "12.5": 12.5, "1,024": 1024, "1,234,567.5": 1234567.5, "12 MiB": 12, "12MiB": 12, "12 mib": 12,
    "1,024 M i B": 1024, "-3": -3, "−3": -3, "+3": 3, "1e3": 1000, "１２": 12, "012": 12, "0.5": 0.5,
}  # fmt: skip


@pytest.mark.parametrize(("typed", "value"), NUMBERS.items(), ids=NUMBERS)
def test_numbers_as_people_type_them(typed, value):
    assert read_number(typed, "MiB") == value


UNREADABLE = {
    "": "아직 적지 않았습니다", "  ": "아직 적지 않았습니다", "12,5": "쉼표", "1,02": "쉼표", "1,0245": "쉼표", "0,500": "쉼표",
    "1,024,5": "쉼표", "12,5 MiB": "쉼표", "1 024": "수 하나", "12 13": "수 하나", "1.2.3": "수 하나", "12 MB": "단위가 다릅니다: MB",
    "12 GiB": "MiB 단위로", "12개": "단위가 다릅니다: 개", "MiB": "수로 읽을 수 없습니다", "열둘": "수로 읽을 수 없습니다",
    "약 12": "수로 읽을 수 없습니다", ",5": "수로 읽을 수 없습니다", "12?": "단위가 다릅니다", "nan": "수로 읽을 수 없습니다",
    "1e999": "너무 큰 수", True: "bool", None: "NoneType", math.nan: "셀 수 있는 수", math.inf: "셀 수 있는 수", (1, 24): "수 하나만",
}  # fmt: skip


@pytest.mark.parametrize(("typed", "said"), UNREADABLE.items(), ids=repr)
def test_numbers_that_could_be_read_in_two_ways_are_asked_back(typed, said):
    with pytest.raises(Unreadable, match=said):
        read_number(typed, "MiB")


# --- printed ----------------------------------------------------------------------------------------------------------

ANSWERS = [("b", "a"), ("a, c", "a"), ("3,072 바이트", "1536"), ("a, d, b, c", "abcd"), ("a, c, b", "a, b, c")]
"""For each question of the sample a right and a wrong answer as they are typed."""


def test_printed_quiz_reassures_before_the_first_question(folder, capsys):
    quiz.show("00", widgets=False)
    said = capsys.readouterr().out
    before = said[: said.index("문제 1 / 5")]
    assert all(word in before for word in ("틀려도 괜찮습니다", "설명이 나오고", "다시 답할 수 있습니다", "첫 시도만", "남아 있습니다"))
    assert all(f"문제 {n} / 5" in said and f'quiz.answer("00", {n}, ' in said for n in range(1, 6))
    assert "`" not in said


def test_every_question_is_answered_wrong_then_right(folder, capsys):
    quiz.show("00", widgets=False)
    for number, (right, wrong) in enumerate(ANSWERS, start=1):
        capsys.readouterr()
        quiz.answer("00", number, wrong)
        assert f"문제 {number} / 5 · 아직 아닙니다" in capsys.readouterr().out
        quiz.answer("00", number, right)
        said = capsys.readouterr().out
        assert f"문제 {number} / 5 · 맞았습니다" in said and f"첫 시도 점수: 0 / 5 (답해 본 문제 {number}개)" in said
    assert "문제를 모두 풀었습니다" in said and f"다시 읽을 곳: {sections('00')['05']} (문제 3)" in said
    assert progress.first_attempts("00", "quiz") == dict.fromkeys(["job", "kept", "bytes", "life", "who"], False)
    assert len(progress.attempts("00")) == 10


def test_score_counts_first_attempts(folder, capsys):
    for number, (right, wrong) in enumerate(ANSWERS, start=1):
        quiz.answer("00", number, right)
        quiz.answer("00", number, wrong)
    assert "첫 시도 점수: 5 / 5" in capsys.readouterr().out
    assert all(progress.first_attempts("00", "quiz").values())


@pytest.mark.parametrize("number", range(1, 6))
@pytest.mark.parametrize(
    "answer", [None, {}, [], "", 3.5j, object(), [1], ["a", None], "z", "가", "aa", b"a", ...],
    ids=lambda answer: f"{type(answer).__name__} {str(answer)[:6]}",  # of an object without its address, which changes
)  # fmt: skip
def test_answers_of_the_wrong_type_are_explained_and_do_not_count(number, answer, folder, capsys):
    quiz.answer("00", number, answer)
    said = capsys.readouterr().out
    assert "아직 채점하지 않았습니다" in said and re.search(r"적어 주세요|적은 뒤 확인", said)
    assert progress.attempts("00") == []


def test_too_few_letters(folder, capsys):
    for number, letters in ((1, "ab"), (4, "abc"), (5, ["a", "b"])):
        quiz.answer("00", number, letters)
        assert "아직 채점하지 않았습니다" in capsys.readouterr().out


@pytest.mark.parametrize("number", [0, 6, -1, "1", None, 1.0, True])
def test_question_that_does_not_exist(number, folder):
    with pytest.raises(SettingError, match="1번부터 5번까지"):
        quiz.answer("00", number, "a")


# --- widgets, without a browser ---------------------------------------------------------------------------------------


def fill(form: Form, given) -> None:
    """Put an answer, in the form that `grade` takes, into the fields of the question that is shown."""
    panel = form.current()
    match panel.question:
        case Single():
            panel.fields[0].value = given
        case Multiple():
            for i, box in enumerate(panel.fields):
                box.value = i in given
        case Ordering():
            for row, item in enumerate(schema.shuffled(panel.question)):
                panel.fields[row].value = given.index(item)
        case Matching():
            for field, pair in zip(panel.fields, given, strict=True):
                field.value = pair
        case _:
            panel.fields[0].value = given


GIVEN = [(1, 0), (frozenset({0, 2}), frozenset({1})), ("3,072", "1536"), ((0, 1, 2, 3), (1, 0, 2, 3)), ((0, 1, 2), (1, 0, 2))]
"""For each question of the sample a right and a wrong answer as the fields take them."""


def test_all_kinds_wrong_then_right_by_click(sample):
    form = Form(begin(sample))
    for number, (right, wrong) in enumerate(GIVEN, start=1):
        assert f"문제 {number} / 5" in form.head.value and "아직 풀지 않은" in form.state.value
        fill(form, wrong)
        form.check.click()
        assert "아직 아닙니다" in form.feedback.value and "role='alert'" in form.feedback.value
        assert "아직 맞히지 못한" in form.state.value
        fill(form, right)
        form.check.click()
        assert "맞았습니다" in form.feedback.value and "다시 풀어 맞힘" in form.state.value
        assert f"첫 시도 점수: 0 / 5 (답해 본 문제 {number}개)" in form.score.value
        form.on.click()
    assert "결과" in form.head.value
    shown = form.panel.children[0].value
    assert "0 / 5" in shown and "href='#05-" in shown and sections("00")["05"] in shown


def test_nothing_of_the_fields_is_sent_when_an_answer_is_judged(sample, monkeypatch):
    """ipywidgets rebuilds a radio group, and so drops the focus, whenever the kernel sends any of its state."""
    form = Form(begin(sample))
    sent: list[str] = []
    for given in (0, 1):
        fill(form, given)
        monkeypatch.setattr(type(form.current().fields[0]), "send_state", lambda self, key=None: sent.append(key))
        children = form.panel.children
        form.check.click()
        monkeypatch.undo()
        assert sent == [] and form.panel.children is children


def test_unanswered_does_not_count(sample):
    form = Form(begin(sample))
    for _ in sample.questions:
        form.check.click()
        assert "아직 채점하지 않았습니다" in form.feedback.value and "답해 본 문제 0개" in form.score.value
        form.on.click()
    assert progress.attempts("00") == []


def test_two_items_in_one_place_are_asked_back(sample):
    form = Form(begin(sample))
    form.go(3)
    for field in form.current().fields:
        field.value = 1
    form.check.click()
    assert "2번째" in form.feedback.value and progress.attempts("00") == []


def test_progress_is_there_in_a_new_kernel(sample):
    form = Form(begin(sample))
    fill(form, 1)
    form.check.click()
    form.on.click()
    fill(form, frozenset({1}))
    form.check.click()
    again = Form(begin(sample))
    assert "문제 2 / 5" in again.head.value, "the first question is solved"
    assert "첫 시도 점수: 1 / 5 (답해 본 문제 2개)" in again.score.value and "아직 맞히지 못한" in again.state.value
    again.back.click()
    assert "이미 푼 문제 (첫 시도에 맞힘)" in again.state.value
    fill(again, 0)
    again.check.click()
    assert "1 / 5" in again.score.value and progress.first_attempts("00", "quiz") == {"job": True, "kept": False}


def test_all_solved_opens_on_the_summary(sample):
    for question in sample.questions:
        progress.record("00", "quiz", question.id, True)
    form = Form(begin(sample))
    assert "다시 읽을 곳은 없습니다" in form.panel.children[0].value
    form.check.click()
    assert "결과 화면입니다" in form.feedback.value
    form.back.click()
    assert "문제 5 / 5" in form.head.value


def test_first_question_has_none_before_it(sample):
    form = Form(begin(sample))
    form.back.click()
    assert "첫 문제입니다" in form.feedback.value and "문제 1 / 5" in form.head.value and not form.back.disabled


def test_practice_records_nothing_and_shows_nothing_kept(sample, capsys):
    progress.record("00", "quiz", "job", True)
    form = Form(begin(sample, practice=True))
    assert "문제 1 / 5" in form.head.value and "0 / 5" in form.score.value
    fill(form, 1)
    form.check.click()
    assert "1 / 5" in form.score.value
    quiz.show("00", practice=True, widgets=False)
    assert "기록하지 않습니다" in capsys.readouterr().out
    quiz.answer("00", 2, "b")
    assert len(progress.attempts("00")) == 1


def test_progress_that_cannot_be_kept_is_told_and_the_quiz_goes_on(sample, tmp_path, monkeypatch, capsys):
    (tmp_path / "파일").write_text("폴더가 있을 자리", encoding="utf-8")
    monkeypatch.setenv("SERVINGLAB_HOME", str(tmp_path / "파일"))
    form = Form(begin(sample))
    fill(form, 1)
    form.check.click()
    assert "맞았습니다" in form.feedback.value and "진행 기록" in form.feedback.value and "1 / 5" in form.score.value
    quiz.answer("00", 1, "b")
    assert "진행 기록" in capsys.readouterr().out


def test_a_damaged_file_is_set_aside_and_the_learner_is_told(sample, tmp_path):
    home = tmp_path / "내 기록"
    home.mkdir()
    progress.file().write_bytes(b"no database" * 500)
    form = Form(begin(sample))
    fill(form, 1)
    form.check.click()
    assert "맞았습니다" in form.feedback.value and "진행 기록" in form.feedback.value
    assert progress.first_attempts("00", "quiz") == {"job": True}


def test_progress_of_a_newer_version_is_told_and_the_quiz_goes_on(sample, capsys):
    progress.record("00", "quiz", "job", True)
    with closing(sqlite3.connect(progress.file())) as newer:
        newer.execute("PRAGMA user_version = 99")
    form = Form(begin(sample))
    assert "진행 기록" in form.feedback.value and "문제 1 / 5" in form.head.value
    fill(form, 1)
    form.check.click()
    assert "맞았습니다" in form.feedback.value and "진행 기록" in form.feedback.value
    quiz.show("00", widgets=False)
    assert "진행 기록" in capsys.readouterr().out


def test_show_displays_the_opening_the_script_and_the_widget(folder, capsys, monkeypatch):
    shown = []
    monkeypatch.setattr("servinglab.quiz.form.display", lambda *things: shown.extend(things))
    quiz.show("00")
    opening, script, box = shown
    assert "틀려도 괜찮습니다" in opening.data and "이 셀을 다시 실행" in opening.data
    assert "data-lm-suppress-shortcuts" in script.data and "servinglab-quiz" in box._dom_classes
    assert capsys.readouterr().out == "", "what a handler prints is lost in JupyterLab"


def test_texts_are_escaped(folder):
    text = SAMPLE.replace("서빙 엔진이 맡는 일은 무엇입니까?", "'`<script>`는 <b>무엇</b>입니까?'")
    (folder / "00.yaml").write_text(text, encoding="utf-8")
    head = Form(begin(quiz.load("00"))).head.value
    assert "<code>&lt;script&gt;</code>는 &lt;b&gt;무엇" in head and "<script>" not in head


# --- the Markdown twin ------------------------------------------------------------------------------------------------


def test_twin_holds_every_question_and_folds_every_answer(sample):
    text = quiz.markdown(sample)
    assert text.count("<details>") == text.count("</details>") == len(sample.questions)
    open_text = re.sub(r"<details>.*?</details>", "", text, flags=re.DOTALL)
    for question in sample.questions:
        plain = text.replace("\\", "")
        assert question.text in plain
        for _, why in schema.whys(question):
            assert why in plain and why not in open_text.replace("\\", "")
    assert "맞음" not in open_text and "3,072 바이트" not in open_text


def test_twin_escapes_what_markdown_would_take_for_its_own(folder):
    text = SAMPLE.replace("서빙 엔진이 맡는 일은 무엇입니까?", "2 * 3 * 4와 `a_b`와 <b>와 $x$는?")
    (folder / "00.yaml").write_text(text, encoding="utf-8")
    assert r"2 \* 3 \* 4와 `a_b`와 \<b\>와 \$x\$는?" in quiz.markdown(quiz.load("00"))


# --- the shipped questions --------------------------------------------------------------------------------------------


def spread(quizzes) -> list[str]:
    """In one quiz no place holds the right option of more than half of the single choices."""
    faults = []
    for one in quizzes:
        places = [next(i for i, option in enumerate(q.options) if option.right) for q in one.questions if isinstance(q, Single)]
        most = max(Counter(places).values(), default=0)
        if len(places) > 1 and most * 2 > len(places):
            faults.append(f"{one.lesson}: right options stand at {places}")
    return faults


def longest(quizzes) -> list[str]:
    """The choice questions whose longest option is a right one: at most 40 % of all may be."""
    asked = [(one.lesson, q) for one in quizzes for q in one.questions if isinstance(q, Single | Multiple)]
    told = [f"{lesson} {q.id}" for lesson, q in asked if max(q.options, key=lambda option: len(option.text)).right]
    return told if len(told) > 0.4 * len(asked) else []


def explanations(quizzes) -> list[str]:
    """Explanations that stand twice, or only say that an option is wrong and not what it is."""
    texts = [(f"{one.lesson} {q.id}", why) for one in quizzes for q in one.questions for _, why in schema.whys(q)]
    count = Counter(re.sub(r"\s", "", why) for _, why in texts)
    return [where for where, why in texts if count[re.sub(r"\s", "", why)] > 1 or len(why) < 15 or re.match(r"오답|틀[렸린]", why)]


def test_there_are_quizzes_with_enough_questions():
    assert SHIPPED and all(len(one.questions) >= 6 for one in SHIPPED)


def test_lint_right_options_are_spread():
    assert spread(SHIPPED) == []


def test_lint_right_option_is_seldom_the_longest():
    assert longest(SHIPPED) == []


def test_lint_explanations_differ_and_say_what_the_distractor_does():
    assert explanations(SHIPPED) == []


@pytest.mark.parametrize("one", SHIPPED, ids=lambda one: one.lesson)
def test_lint_sections_to_read_again_exist(one):
    assert {question.reread for question in one.questions} <= set(sections(one.lesson))


@pytest.mark.parametrize("one", SHIPPED, ids=lambda one: one.lesson)
def test_lint_style(one):
    text = str(one.model_dump())
    assert "!" not in text and not re.search("[\U0001f300-\U0001faff]", text)


def test_lint_finds_what_it_looks_for(sample):
    """The sample with its flaws: one quiz whose right options all stand second and are the longest."""
    job = by_kind(sample, "single")
    same = sample.model_copy(update={"questions": [job, job.model_copy(update={"id": "again"})]})
    assert spread([same]) and longest([same]) and explanations([same])
    assert not spread([sample]) and not explanations([sample])


def test_letters_are_enough_for_the_longest_list():
    fields = [(Single, "options"), (Multiple, "options"), (Ordering, "items"), (Matching, "pairs")]
    limits = [limit.max_length for kind, name in fields for limit in kind.model_fields[name].metadata if hasattr(limit, "max_length")]
    assert limits == [len(grading.LETTERS)] * 4


@pytest.mark.parametrize("typed", ["2 * 16 * 8", "3072/32", "12 x 8", "5 + 7"])
def test_a_sum_is_told_apart_from_a_unit(typed):
    with pytest.raises(grading.Unreadable, match="계산하지 않습니다"):
        grading.read_number(typed, "MiB")
