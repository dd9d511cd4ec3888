"""Kept progress: nothing lost, nothing counted twice, whatever happens to the file."""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from servinglab import progress
from servinglab.errors import ProgressError
from tests.helpers import need, small_disk, wait_for

VERSION_1 = """
CREATE TABLE attempts (id INTEGER PRIMARY KEY, lesson TEXT NOT NULL, kind TEXT NOT NULL, item TEXT NOT NULL,
    is_right INTEGER NOT NULL, at TEXT NOT NULL);
INSERT INTO attempts (lesson, kind, item, is_right, at) VALUES ('00', 'exercise', '00-1', 0, '2026-11-20T10:00:00+00:00');
INSERT INTO attempts (lesson, kind, item, is_right, at) VALUES ('00', 'exercise', '00-1', 1, '2026-11-20T10:01:00+00:00');
INSERT INTO attempts (lesson, kind, item, is_right, at) VALUES ('00', 'quiz', 'port', 1, '2026-11-20T10:02:00+00:00');
PRAGMA user_version = 1;
"""
"""A file as version 1 of the schema left it: learners may have one."""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A data directory whose name holds what paths may hold."""
    folder = tmp_path / "내 기록 #1 100%?"
    monkeypatch.setenv("SERVINGLAB_HOME", str(folder))
    monkeypatch.setattr(progress, "_waiting", [])
    monkeypatch.setattr(progress, "_untold", [])
    return folder


def kept() -> list[tuple[str, str, str, bool]]:
    """What is in the file, without what this process only remembers."""
    if not progress.file().exists():
        return []
    with closing(sqlite3.connect(progress.file())) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = connection.execute("SELECT lesson, kind, item, is_right FROM attempts ORDER BY id").fetchall()
        return [(lesson, kind, item, bool(right)) for lesson, kind, item, right in rows]


def sql(script: str) -> None:
    progress.folder().mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(progress.file())) as connection:
        connection.executescript(script)


def told(error: pytest.ExceptionInfo[ProgressError]) -> str:
    """The message, once it is sure that it says what happened, why, and what to do."""
    assert error.value.what and error.value.why and error.value.todo
    return str(error.value)


def start(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    )


def together(processes: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    """The same, each of them told to begin once all are ready."""
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return processes


# --- what is kept -----------------------------------------------------------------------------------------------------


def test_the_first_attempt_counts_and_all_are_kept():
    for item, right in [("port", False), ("port", True), ("key", True), ("key", False)]:
        assert progress.record("00", "quiz", item, right) == ""
    progress.record("00", "exercise", "port", True)
    progress.record("01", "quiz", "port", True)
    assert progress.first_attempts("00", "quiz") == {"port": False, "key": True}
    assert progress.first_attempts("00", "exercise") == {"port": True}
    assert progress.first_attempts("02", "quiz") == {}
    assert [attempt.right for attempt in progress.attempts("00")] == [False, True, True, False, True]
    assert len(progress.attempts()) == len(kept()) == 6


def test_times_are_now_in_utc_and_tokens_differ():
    progress.record("00", "quiz", "a", True)
    progress.record("00", "quiz", "a", True)
    first, second = progress.attempts()
    assert first.at.tzinfo is UTC and timedelta(0) <= datetime.now(UTC) - first.at < timedelta(minutes=1)
    assert first.at <= second.at and first.token != second.token


def test_other_processes_see_it(home):
    progress.record("01", "quiz", "a", False)
    code = "from servinglab import progress\nprogress.record('01', 'quiz', 'a', True)\nprint(progress.first_attempts('01', 'quiz'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, encoding="utf-8", check=True)
    assert done.stdout == "{'a': False}\n"
    assert [attempt.right for attempt in progress.attempts()] == [False, True]


def test_looking_makes_nothing(home):
    assert progress.attempts() == [] and progress.first_attempts("00", "quiz") == {}
    assert not home.exists()


def test_the_folder_is_the_users_data_directory_unless_named(monkeypatch, tmp_path):
    assert progress.file().parent == tmp_path / "내 기록 #1 100%?"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("SERVINGLAB_HOME", " ")
    if sys.platform == "linux":
        assert progress.folder() == tmp_path / "data" / "servinglab"
    monkeypatch.setenv("SERVINGLAB_HOME", "~/기록")
    assert progress.folder() == Path.home() / "기록"


def test_a_relative_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SERVINGLAB_HOME", "여기")
    progress.record("00", "quiz", "a", True)
    assert (tmp_path / "여기" / "progress.sqlite3").is_file() and len(progress.attempts()) == 1


def test_an_attempt_written_twice_counts_once():
    """As after a commit that was done although the disk reported an error."""
    progress.record("00", "quiz", "a", True)
    progress._waiting.extend(progress.attempts())
    assert len(progress.attempts()) == 1
    progress.record("00", "quiz", "b", True)
    assert [item for _, _, item, _ in kept()] == ["a", "b"]


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_the_journal_is_a_rollback_journal(mode):
    """Also where some other program has left the file with a write-ahead log, which NFS homes cannot have."""
    progress.record("00", "quiz", "a", True)
    sql(f"PRAGMA journal_mode = {mode};")
    progress.record("00", "quiz", "b", True)
    with closing(sqlite3.connect(progress.file())) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert {path.name for path in progress.folder().iterdir()} == {"progress.sqlite3", "progress.lock"}


def test_knows_no_widgets():
    code = "import sys, servinglab.progress\nassert not {'ipywidgets', 'IPython', 'servinglab.exercises'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# --- versions ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("look_first", [True, False], ids=["read first", "write first"])
def test_an_older_file_is_brought_up_to_date(look_first):
    sql(VERSION_1)
    if look_first:
        assert progress.first_attempts("00", "exercise") == {"00-1": False}
    progress.record("01", "quiz", "new", True)
    assert [item for _, _, item, _ in kept()] == ["00-1", "00-1", "port", "new"]
    assert progress.attempts()[0].at == datetime(2026, 11, 20, 10, tzinfo=UTC)
    assert len({attempt.token for attempt in progress.attempts()}) == 4
    with closing(sqlite3.connect(progress.file())) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (len(progress.MIGRATIONS),)


def test_a_migration_that_fails_leaves_the_file_as_it_was(monkeypatch):
    sql(VERSION_1)
    before = progress.file().read_bytes()
    broken = (*progress.MIGRATIONS, ("DELETE FROM attempts", "ALTER TABLE no_table ADD COLUMN x"))
    monkeypatch.setattr(progress, "MIGRATIONS", broken)
    with pytest.raises(ProgressError, match="no such table: no_table"):
        progress.record("01", "quiz", "new", True)
    assert progress.file().read_bytes() == before


def test_a_newer_file_is_not_touched():
    progress.record("00", "quiz", "a", True)
    sql("ALTER TABLE attempts ADD COLUMN later TEXT; PRAGMA user_version = 7;")
    before = progress.file().read_bytes()
    for call in (lambda: progress.record("00", "quiz", "b", True), progress.attempts, progress.reset):
        with pytest.raises(ProgressError, match="7판") as error:
            call()
        assert "새로운 판" in told(error) and "커널을 다시 시작" in told(error)
    assert progress.file().read_bytes() == before
    assert [path.name for path in progress.folder().glob("*damaged*")] == []


# --- damage -----------------------------------------------------------------------------------------------------------


def junk_page(content: bytes) -> bytes:
    """The table's own page overwritten, as by a failing disk; the header is whole."""
    return content[:4096] + b"\xa5" * 4096 + content[8192:]


DAMAGE = {
    "text": lambda content: "이것은 데이터베이스가 아닙니다".encode(),
    "zeros": lambda content: bytes(len(content)),
    "cut short": lambda content: content[: len(content) // 2],
    "a spoilt page": junk_page,
    "its header only": lambda content: content[:100],
}


@pytest.mark.parametrize("spoil", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_set_aside_and_a_new_one_begun(spoil, home):
    for number in range(200):
        progress._waiting.append(progress.Attempt("00", "quiz", f"{number}", True, datetime.now(UTC), f"{number}"))
    progress.record("00", "quiz", "old", True)
    spoilt = spoil(progress.file().read_bytes())
    progress.file().write_bytes(spoilt)
    with pytest.raises(ProgressError, match="망가졌습니다"):
        progress.first_attempts("00", "quiz")
    assert progress.file().read_bytes() == spoilt, "looking changes nothing"
    said = progress.record("00", "quiz", "new", False)
    (aside,) = home.glob("progress.damaged-*.sqlite3")
    assert aside.name in said and str(home) in said and aside.read_bytes() == spoilt
    assert kept() == [("00", "quiz", "new", False)]
    assert progress.record("00", "quiz", "next", True) == "", "said once"


def test_an_empty_file_is_no_damage(home):
    """What a full disk may leave of a file just begun."""
    home.mkdir()
    progress.file().touch()
    assert progress.attempts() == [] and progress.record("00", "quiz", "a", True) == ""
    assert len(kept()) == 1 and not list(home.glob("*damaged*"))


READY = "import sys\nfrom servinglab import progress\nprint('ready', flush=True)\nsys.stdin.readline()\n"


def test_several_notebooks_find_the_damage_at_once(home):
    """None of them may set aside what another has just begun."""
    home.mkdir()
    progress.file().write_bytes(b"junk" * 5000)
    code = READY + "print(progress.record('00', 'quiz', sys.argv[1], True))"
    writers = together([start(code, str(number)) for number in range(8)])
    said = [writer.communicate(timeout=60)[0] for writer in writers]
    assert len(list(home.glob("*damaged*"))) == 1 and sum("망가져" in text for text in said) == 1
    assert sorted(item for _, _, item, _ in kept()) == [str(number) for number in range(8)]


# --- other programs, and what a disk may be ---------------------------------------------------------------------------


@contextmanager
def held(seconds: str = "60", name: str = "progress.sqlite3"):
    """Another program holds the file."""
    code = (
        "import sqlite3, sys, time\nconnection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('BEGIN EXCLUSIVE')\nprint('held', flush=True)\ntime.sleep(float(sys.argv[2]))"
    )
    process = start(code, str(progress.folder() / name), seconds)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    try:
        yield
    finally:
        process.kill()
        process.wait(10)


def test_a_file_locked_for_long(monkeypatch):
    progress.record("00", "quiz", "a", False)
    monkeypatch.setattr(progress, "WAIT", 0.2)
    with held():
        began = time.monotonic()
        with pytest.raises(ProgressError) as error:
            progress.record("00", "quiz", "b", True)
        assert time.monotonic() - began < 2
        assert "다른 프로그램" in told(error) and "다음 답과 함께 저장" in told(error)
        with pytest.raises(ProgressError, match="다른 프로그램"):
            progress.attempts()
        with pytest.raises(ProgressError, match="다른 프로그램"):
            progress.reset()
    assert progress.first_attempts("00", "quiz") == {"a": False, "b": True}, "remembered, though not in the file"
    assert len(kept()) == 1
    progress.record("00", "quiz", "c", True)
    assert [item for _, _, item, _ in kept()] == ["a", "b", "c"]


def test_a_notebook_that_hangs_in_mid_write_stops_no_other(monkeypatch):
    progress.record("00", "quiz", "a", False)
    monkeypatch.setattr(progress, "WAIT", 0.2)
    with held(name="progress.lock"):
        began = time.monotonic()
        with pytest.raises(ProgressError, match="다른 프로그램"):
            progress.record("00", "quiz", "b", True)
        assert time.monotonic() - began < 2
        assert progress.first_attempts("00", "quiz") == {"a": False, "b": True}, "reading goes on"


@pytest.mark.parametrize("name", ["progress.sqlite3", "progress.lock"])
def test_a_short_lock_is_waited_for(name):
    progress.record("00", "quiz", "a", True)
    with held("1", name):
        assert progress.record("00", "quiz", "b", True) == ""
    assert len(kept()) == 2


def test_a_read_only_folder(tmp_path, monkeypatch):
    with small_disk(tmp_path / "읽기 전용", "1m") as disk:
        monkeypatch.setenv("SERVINGLAB_HOME", str(disk))
        progress.record("00", "quiz", "a", False)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(ProgressError) as error:
            progress.record("00", "quiz", "b", True)
        assert "읽기 전용" in told(error) and str(disk) in told(error) and "SERVINGLAB_HOME" in told(error)
        assert progress.first_attempts("00", "quiz") == {"a": False, "b": True}, "reading goes on"
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        progress.record("00", "quiz", "c", True)
        assert [item for _, _, item, _ in kept()] == ["a", "b", "c"]


def test_a_folder_that_cannot_be_made(tmp_path, monkeypatch):
    (tmp_path / "파일").touch()
    monkeypatch.setenv("SERVINGLAB_HOME", str(tmp_path / "파일" / "기록"))
    with pytest.raises(ProgressError, match="SERVINGLAB_HOME"):
        progress.record("00", "quiz", "a", True)
    monkeypatch.setenv("SERVINGLAB_HOME", str(tmp_path / "다른 곳"))
    progress.record("00", "quiz", "b", True)
    assert len(kept()) == 2, "the advice was followed, and nothing was lost"


@pytest.mark.parametrize("begun", [True, False], ids=["file there", "no file yet"])
def test_a_full_disk(begun, tmp_path, monkeypatch):
    with small_disk(tmp_path / "작은 디스크", "256k") as disk:
        monkeypatch.setenv("SERVINGLAB_HOME", str(disk))
        if begun:
            progress.record("00", "quiz", "a", False)
        before = kept()
        fill(disk / "filler")
        with pytest.raises(ProgressError) as error:
            progress.record("00", "quiz", "b", True)
        assert "가득 찼습니다" in told(error) and str(disk) in told(error)
        if begun:
            assert kept() == before and progress.first_attempts("00", "quiz") == {"a": False, "b": True}
        (disk / "filler").unlink()
        progress.record("00", "quiz", "c", True)
        assert kept() == [*before, ("00", "quiz", "b", True), ("00", "quiz", "c", True)]
        assert not list(disk.glob("*damaged*"))


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(1024))


def test_damage_on_a_full_disk_is_told_when_there_is_room(tmp_path, monkeypatch):
    with small_disk(tmp_path / "작은 디스크", "256k") as disk:
        monkeypatch.setenv("SERVINGLAB_HOME", str(disk))
        progress.file().write_bytes(b"junk" * 1000)
        fill(disk / "filler")
        with pytest.raises(ProgressError, match="가득"):
            progress.record("00", "quiz", "a", True)
        (disk / "filler").unlink()
        assert "progress.damaged-" in progress.record("00", "quiz", "b", True)
        assert [item for _, _, item, _ in kept()] == ["a", "b"]


# --- many at once -----------------------------------------------------------------------------------------------------

WRITER = READY + """
import time
from pathlib import Path
from servinglab.errors import ProgressError

name, folder, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
tried = (folder / f"{name}.tried").open("w", encoding="utf-8", buffering=1)
acknowledged = (folder / f"{name}.acknowledged").open("w", encoding="utf-8", buffering=1)
open_items = []
end = time.monotonic() + seconds
number = 0
while time.monotonic() < end or open_items:
    open_items.append(f"{name}-{number}")
    number += 1
    print(open_items[-1], file=tried)
    try:
        progress.record("01", "quiz", open_items[-1], True)
    except ProgressError:
        pass  # the machine is busy: it is kept with the next one
    else:
        acknowledged.writelines(f"{item}\\n" for item in open_items)
        open_items.clear()
"""


def stopped_in_mid_write(pid: int) -> bool:
    """Stop the process, and see whether it holds the journal open: it has begun to write and has not committed."""
    if not holds_journal(pid):
        return False
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: re.search(r"^State:\s+T", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"), re.MULTILINE), 5, "stopped")
    if holds_journal(pid) and Path(f"{progress.file()}-journal").stat().st_size > 0:
        return True
    os.kill(pid, signal.SIGCONT)
    return False


def holds_journal(pid: int) -> bool:
    journal = Path(f"{progress.file()}-journal")
    try:
        return any(entry.readlink() == journal for entry in Path(f"/proc/{pid}/fd").iterdir())
    except FileNotFoundError:  # closed while we looked
        return False


def test_ten_notebooks_write_for_ten_seconds_and_one_is_killed_in_mid_write(tmp_path):
    need(Path("/proc/self/fd").exists(), "/proc, to see who is in mid-write")
    seconds = {f"writer{number}": 10 for number in range(1, 10)}
    names = ["killed", *seconds]
    writers = together([start(WRITER, name, str(tmp_path), str(seconds.get(name, 60))) for name in names])
    time.sleep(2)
    wait_for(lambda: stopped_in_mid_write(writers[0].pid), 50, "the first writer is caught in mid-write")
    writers[0].kill()
    assert [writer.wait(60) for writer in writers] == [-signal.SIGKILL, *[0] * 9]
    count = Counter(item for _, _, item, _ in kept())
    assert set(count.values()) == {1}, "nothing is counted twice"

    def lines(name: str, what: str) -> set[str]:
        return set((tmp_path / f"{name}.{what}").read_text(encoding="utf-8").split())

    for name in seconds:
        assert lines(name, "tried") == lines(name, "acknowledged"), "every notebook had its turn"
    acknowledged = set().union(*(lines(name, "acknowledged") for name in names))
    assert acknowledged <= set(count), "nothing is lost"
    assert set(count) - acknowledged <= lines("killed", "tried")
    assert {path.name for path in progress.folder().iterdir()} == {"progress.sqlite3", "progress.lock"}


# --- shown, exported, removed -----------------------------------------------------------------------------------------


def test_table_and_csv():
    for lesson, kind, item, right in [
        ("01", "quiz", "b", True), ("00", "exercise", "00-1", False), ("00", "exercise", "00-1", True), ("00", "exercise", "00-2", True),
    ]:  # fmt: skip
        progress.record(lesson, kind, item, right)
    today = f"{progress.attempts()[-1].at.astimezone():%Y-%m-%d}"
    assert [line.split() for line in progress.table().splitlines()[1:]] == [
        ["00", "1/2", "-", "3", today], ["01", "-", "1/1", "1", today],
    ]  # fmt: skip
    lines = progress.as_csv().splitlines()
    assert lines[0] == "레슨,종류,문제,맞음,시각"
    assert re.fullmatch(r"01,퀴즈,b,예,\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", lines[1])
    assert lines[2].startswith("00,연습,00-1,아니요,") and len(lines) == 5


def test_reset_removes_one_lesson_or_all(monkeypatch):
    for lesson in ("00", "01", "00", "02"):
        progress.record(lesson, "quiz", "a", True)
    assert progress.reset("00") == 2 and progress.reset("00") == 0
    assert [attempt.lesson for attempt in progress.attempts()] == ["01", "02"]
    assert progress.reset() == 2 and progress.attempts() == [] and kept() == []


def test_reset_forgets_what_waits(monkeypatch):
    progress.record("00", "quiz", "a", True)
    monkeypatch.setattr(progress, "WAIT", 0.1)
    with held(), pytest.raises(ProgressError):
        progress.record("00", "quiz", "b", True)
    progress.reset("00")
    progress.record("01", "quiz", "c", True)
    assert [item for _, _, item, _ in kept()] == ["c"]
