"""What the learner has answered: every attempt, in one SQLite file in the learner's own data directory.

The file is opened for each operation and closed again, so that several notebooks can write to it. Its journal is a rollback
journal: a write-ahead log needs shared memory, which the NFS homes of many hubs do not have.
"""

from __future__ import annotations

import csv
import errno
import io
import random
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Literal

from servinglab.errors import ProgressError
from servinglab.paths import home_dir

Kind = Literal["quiz", "exercise"]

WAIT = 5.0
"""Seconds that one operation waits for another program's."""

MIGRATIONS = (
    (
        "CREATE TABLE attempts (id INTEGER PRIMARY KEY, lesson TEXT NOT NULL, kind TEXT NOT NULL, item TEXT NOT NULL, "
        "is_right INTEGER NOT NULL, at TEXT NOT NULL)",
    ),
    (
        "ALTER TABLE attempts ADD COLUMN token TEXT",
        "UPDATE attempts SET token = lower(hex(randomblob(16)))",
        "CREATE UNIQUE INDEX one_attempt ON attempts (token)",
    ),
)
"""What makes version n of the file out of version n - 1. Entries are added, never changed: learners' files hold them."""


@dataclass(frozen=True)
class Attempt:
    """One answer to one question. `at` is in UTC; `token` tells the attempt from all others, however often it is written."""

    lesson: str
    kind: Kind
    item: str
    right: bool
    at: datetime
    token: str


_waiting: list[Attempt] = []
"""Attempts of this process that are not in the file yet: what could not be kept is kept with the next one."""

_untold: list[str] = []
"""What `record` has still to say of files that were set aside."""


def folder() -> Path:
    """The learner's own data directory; `SERVINGLAB_HOME` names another."""
    return home_dir()


def file() -> Path:
    return folder() / "progress.sqlite3"


def record(lesson: str, kind: Kind, item: str, right: bool) -> str:
    """Keep one attempt. Returns what the learner must be told, which is nearly always "".

    Raises ProgressError where it cannot be kept now. It then waits in this process, and is kept together with the next one.
    """
    _waiting.append(Attempt(lesson, kind, item, right, datetime.now(UTC), uuid.uuid4().hex))
    later = "이 답은 커널이 켜져 있는 동안 기억해 두었다가 다음 답과 함께 저장합니다."
    with _told("진행 기록에 저장하지 못했습니다.", later), _alone():
        _keep(tuple(_waiting))
    told = "\n".join(_untold)
    _untold.clear()
    return told


def attempts(lesson: str | None = None) -> list[Attempt]:
    """All attempts, or one lesson's, oldest first. Raises ProgressError where the file cannot be read."""
    with _told("진행 기록을 읽지 못했습니다."):
        kept = _read() if file().exists() else []
    tokens = {attempt.token for attempt in kept}
    known = kept + [attempt for attempt in _waiting if attempt.token not in tokens]
    return [attempt for attempt in known if lesson in (None, attempt.lesson)]


def first_attempts(lesson: str, kind: Kind) -> dict[str, bool]:
    """For each item that was tried: whether the first attempt was right. Raises ProgressError as `attempts` does."""
    return _first(attempts(lesson), kind)


def _first(known: list[Attempt], kind: Kind) -> dict[str, bool]:
    first: dict[str, bool] = {}
    for attempt in known:
        if attempt.kind == kind:
            first.setdefault(attempt.item, attempt.right)
    return first


def reset(lesson: str | None = None) -> int:
    """Remove one lesson's attempts, or all. Returns how many there were. Raises ProgressError where that cannot be done."""
    with _told("진행 기록을 지우지 못했습니다."), _alone(), _transaction() as connection:
        removed = connection.execute("DELETE FROM attempts WHERE ?1 IS NULL OR lesson = ?1", (lesson,)).rowcount
    _waiting[:] = [attempt for attempt in _waiting if lesson not in (None, attempt.lesson)]
    return removed


def table() -> str:
    """Per lesson: how many questions were right at the first attempt of those tried, all attempts, the last one's local date."""
    lessons: dict[str, list[Attempt]] = {}
    for attempt in attempts():
        lessons.setdefault(attempt.lesson, []).append(attempt)
    lines = ["레슨  연습    퀴즈    답한 횟수  마지막 날"]
    for lesson, known in sorted(lessons.items()):
        exercises, quiz = _score(_first(known, "exercise")), _score(_first(known, "quiz"))
        lines.append(f"{lesson:<6}{exercises:<8}{quiz:<8}{len(known):<11}{known[-1].at.astimezone():%Y-%m-%d}")
    return "\n".join(lines)


def _score(first: dict[str, bool]) -> str:
    return f"{sum(first.values())}/{len(first)}" if first else "-"


def as_csv() -> str:
    """All attempts, one a line, in local time."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["레슨", "종류", "문제", "맞음", "시각"])
    for attempt in attempts():
        kind = {"quiz": "퀴즈", "exercise": "연습"}[attempt.kind]
        at = attempt.at.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        writer.writerow([attempt.lesson, kind, attempt.item, "예" if attempt.right else "아니요", at])
    return text.getvalue()


def _keep(batch: tuple[Attempt, ...]) -> None:
    """Write to the file, or to a new one where it is damaged."""
    try:
        _insert(batch)
    except sqlite3.DatabaseError as error:
        if _code(error) not in DAMAGE:
            raise
        _untold.append(_set_aside())
        _insert(batch)
    _waiting[:] = [attempt for attempt in _waiting if attempt not in batch]


def _insert(batch: tuple[Attempt, ...]) -> None:
    rows = [(a.lesson, a.kind, a.item, a.right, a.at.isoformat(), a.token) for a in batch]
    with _transaction() as connection:
        connection.executemany(
            "INSERT INTO attempts (lesson, kind, item, is_right, at, token) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (token) DO NOTHING",
            rows,
        )


def _read() -> list[Attempt]:
    with closing(_connect(file(), "rw")) as connection:
        if _version(connection) == len(MIGRATIONS):
            rows = connection.execute("SELECT lesson, kind, item, is_right, at, token FROM attempts ORDER BY id")
            return [
                Attempt(lesson, kind, item, bool(right), datetime.fromisoformat(at), token)
                for lesson, kind, item, right, at, token in rows
            ]
    with _alone(), _transaction():
        pass  # brings an older file up to date
    return _read()


def _set_aside() -> str:
    """Give the damaged file another name. Returns what to tell the learner."""
    aside = file().with_name(f"progress.damaged-{datetime.now():%Y%m%d-%H%M%S-%f}.sqlite3")
    file().rename(aside)
    return (
        f"진행 기록 파일이 망가져 있어 새 파일로 시작했습니다. 망가진 파일은 지우지 않고 {aside.name} 이라는 이름으로 남겨 두었습니다. "
        f"폴더: {aside.parent}"
    )


def _connect(path: Path, mode: Literal["rw", "rwc"] = "rwc") -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=WAIT, isolation_level=None)


@contextmanager
def _alone() -> Iterator[None]:
    """One writer at a time: were a damaged file renamed under a writer, that writer's journal would spoil the new file."""
    folder().mkdir(mode=0o700, parents=True, exist_ok=True)  # on a shared machine nobody else's business
    with closing(_connect(folder() / "progress.lock")) as lock:
        _take(lock)
        yield


def _take(lock: sqlite3.Connection) -> None:
    """Lock an empty database, which serves as a lock on every system. All who wait have the same chance: SQLite's own
    waiting grows to 0.1 s, so that newcomers overtake whoever has waited long."""
    lock.execute("PRAGMA busy_timeout = 0")
    end = time.monotonic() + WAIT
    while True:
        try:
            lock.execute("BEGIN EXCLUSIVE")
            return
        except sqlite3.OperationalError as error:
            if _code(error) != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
        time.sleep(random.uniform(0.001, 0.02))


@contextmanager
def _transaction() -> Iterator[sqlite3.Connection]:
    """The file, made or brought up to date, in one transaction: all of it is kept, or nothing."""
    with closing(_connect(file())) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("BEGIN IMMEDIATE")
        for statement in chain.from_iterable(MIGRATIONS[_version(connection) :]):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        yield connection
        connection.execute("COMMIT")


def _version(connection: sqlite3.Connection) -> int:
    """The file's version; 0 is an empty file. Raises ProgressError where it is newer than this package."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise ProgressError(
            "진행 기록이 이 과정보다 새로운 판의 것이라 건드리지 않았습니다.",
            f"기록 파일은 {version}판인데, 지금 쓰는 과정은 {len(MIGRATIONS)}판까지 압니다.",
            "과정을 새 판으로 바꾼 다음 커널을 다시 시작하세요. 그때까지의 답은 기록에 남지 않지만 레슨은 그대로 할 수 있습니다.",
        )
    return version


DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _code(error: BaseException) -> int | None:
    """SQLite's primary result code."""
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


@contextmanager
def _told(what: str, after: str = "") -> Iterator[None]:
    """Turn what SQLite and the disk say into a ProgressError."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        why, todo = _reason(error)
        raise ProgressError(what, why, f"{todo} {after}".strip()) from error


def _reason(error: sqlite3.Error | OSError) -> tuple[str, str]:
    """Why, and what to do."""
    code = _code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"다른 프로그램이 기록 파일을 {WAIT:g}초 넘게 붙잡고 있습니다.", f"{folder()} 폴더의 파일을 연 프로그램이 있으면 닫으세요."
    if code == sqlite3.SQLITE_FULL or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return "디스크가 가득 찼습니다.", f"{folder()} 폴더가 있는 디스크에서 자리를 비우세요."
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM) or isinstance(error, OSError):
        return (
            f"{folder()} 폴더가 읽기 전용이거나, 다른 사용자의 것이거나, 폴더를 만들 수 없는 자리입니다.",
            "쓸 수 있는 폴더를 환경 변수 SERVINGLAB_HOME에 적어 주세요.",
        )
    if code == sqlite3.SQLITE_IOERR:
        return f"디스크를 읽거나 쓰다가 오류가 났습니다: {error}", f"{folder()} 폴더가 있는 디스크와 할당량을 살펴보세요."
    if code in DAMAGE:
        return f"{file()} 파일이 망가졌습니다.", "다음에 답을 저장할 때 이 파일을 다른 이름으로 남겨 두고 새 파일로 시작합니다."
    return f"{type(error).__name__}: {error}", f"{file()} 파일을 살펴보세요."
