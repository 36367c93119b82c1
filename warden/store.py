"""What must outlive a crash: open sessions, tasks with their sequences, the operator's windows. SQLite.

The columns are what questions are asked by; everything else of a record is one JSON text, so that a record can be
read with the `sqlite3` command when everything else is down. Nothing is durable before `commit` has returned.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from warden.events import Keep, KeepWindows, Remembered
from warden.model import ConfigurationError, Session, Task, Window

if TYPE_CHECKING:
    from collections.abc import Iterable

    from warden.events import Effect

SCHEMA = 1

_TABLES = """
CREATE TABLE sessions (id TEXT PRIMARY KEY, uid INTEGER NOT NULL, job TEXT NOT NULL, acquired INTEGER NOT NULL,
                       open INTEGER NOT NULL, record TEXT NOT NULL);
CREATE INDEX open_sessions ON sessions (acquired) WHERE open;
CREATE INDEX sessions_by_user ON sessions (uid, acquired);
CREATE INDEX sessions_by_job ON sessions (job);
CREATE INDEX sessions_by_time ON sessions (acquired);
CREATE TABLE tasks (id INTEGER PRIMARY KEY, session TEXT NOT NULL, uid INTEGER NOT NULL, live INTEGER NOT NULL,
                    record TEXT NOT NULL);
CREATE INDEX live_tasks ON tasks (id) WHERE live;
CREATE INDEX tasks_by_user ON tasks (uid, id);
CREATE INDEX tasks_by_session ON tasks (session, id);
CREATE TABLE sequences (task INTEGER PRIMARY KEY, sequence TEXT NOT NULL);
CREATE TABLE windows (record TEXT NOT NULL);
"""

_KEYS = """
SELECT tasks.session, json_extract(tasks.record, '$.key'), tasks.id FROM sessions
JOIN tasks ON tasks.session = sessions.id WHERE sessions.open
"""


class StoreError(Exception):
    """The disk does not do what it must: full, read-only, or failing."""


class Store:
    """One broker's memory. `apply` and `commit` raise StoreError; nothing of a turn is kept then."""

    def __init__(self, path: Path | str) -> None:
        """Open or make the file, for this process alone.

        Raises:
            ConfigurationError: It cannot be opened, is no store, is newer than this program, or has another holder.
        """
        try:
            if isinstance(path, Path):
                # Everybody's sequences and results are in it, and in the files that SQLite makes beside it.
                path.touch(mode=0o600)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=0)
        except (OSError, sqlite3.Error) as error:
            raise ConfigurationError(f"cannot use the store {path}: {_why(error)}") from None
        try:
            self._prepare(path)
        except BaseException:
            self._db.close()
            raise

    def _prepare(self, path: Path | str) -> None:
        try:
            # The lock is the proof that one broker only works on this store; the kernel drops it when we die.
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            if version > SCHEMA:
                raise ConfigurationError(f"{path} was written by a newer Warden (schema {version}): update this one")
            self._db.execute("BEGIN IMMEDIATE")
            if version == 0:
                for statement in _TABLES.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {SCHEMA}")
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if "locked" in str(error):
                raise ConfigurationError(f"{path} is in use by another broker: stop that one first") from None
            raise ConfigurationError(f"cannot use the store {path}: {error}") from None

    def close(self) -> None:
        self._db.close()

    def begin(self) -> None:
        self._run("BEGIN IMMEDIATE")

    def apply(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            match effect:
                case Keep(what=Session() as session):
                    self._keep_session(session)
                case Keep(what=Task() as task, sequence=sequence):
                    self._keep_task(task, sequence)
                case KeepWindows(windows=windows):
                    self._run("DELETE FROM windows")
                    for window in windows:
                        self._run("INSERT INTO windows VALUES (?)", _encode(window))
                case _:
                    pass

    def commit(self) -> None:
        self._run("COMMIT")

    def rollback(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def remember(self) -> Remembered:
        """What a starting broker goes on with."""
        highest = self._rows("SELECT max(id) FROM tasks")[0][0]
        return Remembered(
            sessions=tuple(self._read(Session, "SELECT record FROM sessions WHERE open ORDER BY acquired")),
            tasks=tuple(self._read(Task, "SELECT record FROM tasks WHERE live ORDER BY id")),
            windows=tuple(self._read(Window, "SELECT record FROM windows")),
            next_task=1 if highest is None else highest + 1,
            keys={(session, key): task for session, key, task in self._rows(_KEYS)},
        )

    def sequence(self, task: int) -> str:
        rows = self._rows("SELECT sequence FROM sequences WHERE task = ?", task)
        return str(rows[0][0]) if rows else ""

    # --- the core's archive ---

    def task(self, number: int) -> Task | None:
        return next(iter(self._read(Task, "SELECT record FROM tasks WHERE id = ?", number)), None)

    def session(self, identifier: str) -> Session | None:
        return next(iter(self._read(Session, "SELECT record FROM sessions WHERE id = ?", identifier)), None)

    def tasks(self, *, uid: int | None, session: str | None, limit: int) -> list[Task]:
        where, values = _where({"uid": uid, "session": session})
        return self._read(Task, f"SELECT record FROM tasks {where} ORDER BY id DESC LIMIT ?", *values, limit)  # noqa: S608

    def sessions(self, *, uid: int | None, job: str | None, ended: bool, limit: int) -> list[Session]:
        where, values = _where({"uid": uid, "job": job, "open": None if ended else 1})
        query = f"SELECT record FROM sessions {where} ORDER BY acquired DESC LIMIT ?"  # noqa: S608
        return self._read(Session, query, *values, limit)

    def _keep_session(self, session: Session) -> None:
        self._run(
            "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?)",
            session.id,
            session.uid,
            session.job,
            session.acquired,
            session.ended is None,
            _encode(session),
        )

    def _keep_task(self, task: Task, sequence: str | None) -> None:
        # A cancelled task's run is at the QPU until the worker says otherwise, also to a broker that starts anew.
        live = not task.status.final or task.run is not None
        self._run(
            "INSERT OR REPLACE INTO tasks VALUES (?, ?, ?, ?, ?)", task.id, task.session, task.uid, live, _encode(task)
        )
        if sequence is not None:
            self._run("INSERT INTO sequences VALUES (?, ?)", task.id, sequence)
        if task.status.final:
            self._run("DELETE FROM sequences WHERE task = ?", task.id)

    def _run(self, statement: str, *values: Any) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def _read(self, kind: type[Any], query: str, *values: Any) -> list[Any]:
        try:
            return [msgspec.json.decode(row[0], type=kind) for row in self._rows(query, *values)]
        except msgspec.DecodeError as error:
            raise StoreError(f"a record cannot be read: {error}") from error

    def _rows(self, query: str, *values: Any) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error


def _why(error: Exception) -> str:
    return str((isinstance(error, OSError) and error.strerror) or error)


def _encode(record: msgspec.Struct) -> str:
    return msgspec.json.encode(record).decode()


def _where(conditions: dict[str, Any]) -> tuple[str, list[Any]]:
    given = {column: value for column, value in conditions.items() if value is not None}
    clause = " AND ".join(f"{column} = ?" for column in given)
    return (f"WHERE {clause}" if clause else ""), list(given.values())
