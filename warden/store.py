"""What must outlive a crash: sessions, tasks with their sequences, the almanac, what users used. SQLite.

The columns are what questions are asked by; everything else of a record is one JSON text, so that a record can be
read with the `sqlite3` command when everything else is down. Nothing is durable before `commit` has returned.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from warden import schema
from warden.events import Almanac, Calibrating, Device, Keep, KeepAlmanac, Prune, Remark, Remembered, Usage
from warden.model import (
    Calibration,
    ConfigurationError,
    PastWindow,
    Quality,
    Session,
    Task,
    TaskStatus,
    WardenError,
    Window,
)
from warden.wire import PART, Bitstrings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from warden.events import Effect

log = logging.getLogger("warden.broker")

replace = msgspec.structs.replace

# Records that one Prune forgets, at most: others wait for their answers meanwhile.
_BITE = 500


class StoreError(Exception):
    """The disk does not do what it must: full, read-only, or failing."""


class DamagedError(StoreError, WardenError):
    """What was asked for is on the disk and cannot be read: the request is refused, and all others go on."""


class Store:
    """One broker's memory. `apply` and `commit` raise StoreError; nothing of a turn is kept then."""

    def __init__(self, path: Path | str) -> None:
        """Open or make the file, for this process alone.

        Raises:
            ConfigurationError: It cannot be opened, is no store, is newer than this program, or has another holder.
        """
        self._rotten = False
        try:
            if isinstance(path, Path):
                # Everybody's sequences and results are in it, and in the files that SQLite makes beside it.
                path.touch(mode=0o600)
            self._db = sqlite3.connect(path, isolation_level=None, timeout=0)
            # Whether a record is text at all is found out with the rest of it.
            self._db.text_factory = bytes
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
            schema.bring_up(self._db, path)
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
                case Keep():
                    self._keep(effect)
                case KeepAlmanac(almanac=almanac, past=past):
                    self._run("INSERT OR REPLACE INTO state VALUES ('almanac', ?)", _encode(almanac))
                    for one in past:
                        self._keep_past(one)
                case Remark(window=window, text=text):
                    self._remark(window, text)
                case Prune(before=before):
                    self._prune(before)
                case _:
                    pass

    def _keep(self, effect: Keep) -> None:
        match effect.what:
            case Session() as session:
                self._keep_session(session)
            case Task() as task:
                self._keep_task(task, effect.sequence, effect.bitstrings)
            case Usage() as usage:
                self._run("INSERT OR REPLACE INTO usage VALUES (?, ?, ?)", usage.name, usage.uid, _encode(usage))
            case Device() as device:
                self._run("INSERT OR REPLACE INTO state VALUES ('device', ?)", _encode(device))
            case Calibrating() as calibrating:
                self._run("INSERT OR REPLACE INTO state VALUES ('calibrating', ?)", _encode(calibrating))
            case Calibration() as one:
                self._run("INSERT OR REPLACE INTO calibrations VALUES (?, ?, ?)", one.id, one.time, _encode(one))
            case Quality() as quality:
                self._run("INSERT OR REPLACE INTO quality VALUES (?, ?)", quality.time, _encode(quality))

    def commit(self) -> None:
        self._run("COMMIT")

    def rollback(self) -> None:
        if self._db.in_transaction:
            self._run("ROLLBACK")

    def probe(self) -> None:
        """Write something that nobody needs, and make it durable: to know whether the disk is well again."""
        self.begin()
        self._run("INSERT OR REPLACE INTO state VALUES ('probe', datetime())")
        self.commit()

    def remember(self) -> Remembered:
        """What a starting broker goes on with."""
        highest = self._rows("SELECT max(id) FROM tasks")[0][0]
        return Remembered(
            sessions=tuple(self._read(Session, "SELECT record FROM sessions WHERE open ORDER BY acquired, id")),
            tasks=tuple(self._read(Task, "SELECT record FROM tasks WHERE live ORDER BY id")),
            almanac=next(iter(self._read(Almanac, "SELECT record FROM state WHERE name = 'almanac'")), Almanac()),
            # What cannot be read of it, the worker says again.
            device=next(iter(self._legible(Device, "SELECT record FROM state WHERE name = 'device'")), None),
            calibrating=next(
                iter(self._read(Calibrating, "SELECT record FROM state WHERE name = 'calibrating'")), Calibrating()
            ),
            calibration=next(iter(self.calibrations(1)), None),
            usage=tuple(self._read(Usage, "SELECT record FROM usage ORDER BY name, uid")),
            next_task=1 if highest is None else highest + 1,
        )

    def sequence(self, task: int) -> str:
        rows = self._rows("SELECT sequence FROM sequences WHERE task = ?", task)
        # A damaged one is the worker's to refuse: that fails its own task, and nothing else.
        return str(rows[0][0], "utf-8", "replace") if rows else ""

    # --- the core's archive: of one record DamagedError is raised, from lists it is left out ---

    def task(self, number: int) -> Task | None:
        return next(iter(self._read(Task, "SELECT record FROM tasks WHERE id = ?", number)), None)

    def task_by_key(self, session: str, key: str) -> Task | None:
        query = "SELECT record FROM tasks WHERE session = ? AND key = ?"
        return next(iter(self._read(Task, query, session, key)), None)

    def session(self, identifier: str) -> Session | None:
        return next(iter(self._read(Session, "SELECT record FROM sessions WHERE id = ?", identifier)), None)

    def tasks(self, *, uid: int | None, session: str | None, before: int | None, limit: int) -> list[Task]:
        # A plus hides a column from SQLite's planner: a session has few tasks, its user may have very many.
        whose = "uid = ?" if session is None else "+uid = ?"
        where, values = _where({whose: uid, "session = ?": session, "id < ?": before}, always="json_valid(record)")
        # A page of results would be megabytes.
        record = "json_remove(record, '$.counts', '$.log', '$.metadata', '$.calibration')"
        query = f"SELECT {record} FROM tasks {where} ORDER BY id DESC LIMIT ?"  # noqa: S608 - names of columns, all ours
        return self._legible(Task, query, *values, limit)

    def sessions(
        self, *, uid: int | None, job: str | None, ended: bool, before: str | None, limit: int
    ) -> list[Session]:
        older = "(acquired, id) < (SELECT acquired, id FROM sessions WHERE id = ?)"
        # As above; and a partial index is used only where its own condition stands.
        whose = "uid = ?" if ended and job is None else "+uid = ?"
        always = f"{'TRUE' if ended else 'open'} AND json_valid(record)"
        where, values = _where({whose: uid, "job = ?": job, older: before}, always=always)
        query = f"SELECT record FROM sessions {where} ORDER BY acquired DESC, id DESC LIMIT ?"  # noqa: S608 - as above
        return self._legible(Session, query, *values, limit)

    def past_windows(self, limit: int) -> list[PastWindow]:
        return self._legible(PastWindow, "SELECT record FROM past ORDER BY rowid DESC LIMIT ?", limit)

    def calibrations(self, limit: int) -> list[Calibration]:
        query = "SELECT record FROM calibrations WHERE json_valid(record) ORDER BY id DESC LIMIT ?"
        return self._legible(Calibration, query, limit)

    def quality(self, since: int, limit: int) -> list[Quality]:
        return self._legible(Quality, "SELECT record FROM quality WHERE time >= ? ORDER BY time LIMIT ?", since, limit)

    def bitstrings(self, task: int, first: int) -> Bitstrings | None:
        query = "SELECT first, shots, qubits, data FROM bitstrings WHERE task = ? AND first <= ? ORDER BY first DESC LIMIT 1"
        rows = self._rows(query, task, first)
        if not rows or first >= rows[0][0] + rows[0][1]:
            return None
        begin, shots, qubits, data = rows[0]
        width = -(-qubits // 8)
        skipped = first - begin
        taken = min(shots - skipped, max(1, PART // width))
        cut = data[skipped * width : (skipped + taken) * width]
        return Bitstrings(qubits=qubits, first=first, shots=taken, data=cut)

    # --- how records are kept ---

    def _keep_session(self, session: Session) -> None:
        self._run(
            "INSERT INTO sessions (id, uid, job, acquired, open, ended, record) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET open = excluded.open, ended = excluded.ended, record = excluded.record",
            session.id,
            session.uid,
            session.job,
            session.acquired,
            session.ended is None,
            session.ended,
            _encode(session),
        )

    def _keep_task(self, task: Task, sequence: str | None, bitstrings: Bitstrings | None) -> None:
        # A cancelled task's run is at the QPU until the worker says otherwise, also to a broker that starts anew.
        live = not task.status.final or task.run is not None
        self._run(
            "INSERT INTO tasks (id, session, uid, live, key, finished, record) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET live = excluded.live, finished = excluded.finished,"
            " record = excluded.record",
            task.id,
            task.session,
            task.uid,
            live,
            task.key,
            task.finished,
            _encode(task),
        )
        if sequence is not None:
            self._run("INSERT INTO sequences VALUES (?, ?)", task.id, sequence)
        if bitstrings is not None:
            self._run(
                "INSERT OR REPLACE INTO bitstrings VALUES (?, ?, ?, ?, ?)",
                task.id,
                bitstrings.first,
                bitstrings.shots,
                bitstrings.qubits,
                bitstrings.data,
            )
        if task.status.final:
            self._run("DELETE FROM sequences WHERE task = ?", task.id)
            if task.bitstrings and task.status is not TaskStatus.COMPLETED:
                # They are no result, as its counts are none.
                self._run("DELETE FROM bitstrings WHERE task = ?", task.id)

    def _keep_past(self, past: PastWindow) -> None:
        window = past.window
        if window.id:
            # It was written down when it opened, and ends otherwise than it was to.
            for before in self._legible(PastWindow, "SELECT record FROM past WHERE window = ?", window.id):
                past = replace(past, remark=before.remark)
            self._run("DELETE FROM past WHERE window = ?", window.id)
        self._run("INSERT INTO past VALUES (?, ?, ?)", window.id, window.start, _encode(past))

    def _remark(self, window: Window, text: str) -> None:
        rows = self._rows("SELECT rowid, record FROM past WHERE window = ? AND start = ?", window.id, window.start)
        for row, record in rows:
            with contextlib.suppress(DamagedError):
                past = _decode(PastWindow, record)
                # One with a number may have been ended before its time; those of rules have none.
                if window.id or past.window == window:
                    self._run("UPDATE past SET record = ? WHERE rowid = ?", _encode(replace(past, remark=text)), row)

    def _prune(self, before: int) -> None:
        if self._rotten:
            return
        try:
            self._forget(before)
        except StoreError as error:
            # This transaction is lost. What is damaged stays from now on, so that no other one is.
            self._rotten = _damaged(error.__cause__)
            raise

    def _forget(self, before: int) -> None:
        # The newest task stays: numbers go on from it. Those of open sessions do too: a request may still be repeated.
        self._run(
            "DELETE FROM tasks WHERE id IN (SELECT id FROM tasks WHERE NOT live AND finished < ? AND session NOT IN"
            " (SELECT id FROM sessions WHERE open) ORDER BY finished LIMIT ?) AND id < (SELECT max(id) FROM tasks)",
            before,
            _BITE,
        )
        # Of a session its tasks go first.
        self._run(
            "DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE NOT open AND ended < ? ORDER BY ended"
            " LIMIT ?) AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.session = sessions.id)",
            before,
            _BITE,
        )
        self._run("DELETE FROM bitstrings WHERE task NOT IN (SELECT id FROM tasks)")
        self._run("DELETE FROM past WHERE start < ?", before)
        self._run("DELETE FROM quality WHERE time < ?", before)
        # The newest one is in force.
        self._run("DELETE FROM calibrations WHERE time < ? AND id < (SELECT max(id) FROM calibrations)", before)

    def _run(self, statement: str, *values: Any) -> None:
        try:
            self._db.execute(statement, values)
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def _read(self, kind: type[Any], query: str, *values: Any) -> list[Any]:
        return [_decode(kind, row[0]) for row in self._rows(query, *values)]

    def _legible(self, kind: type[Any], query: str, *values: Any) -> list[Any]:
        found = []
        for row in self._rows(query, *values):
            with contextlib.suppress(DamagedError):
                found.append(_decode(kind, row[0]))
        return found

    def _rows(self, query: str, *values: Any) -> list[Any]:
        try:
            return self._db.execute(query, values).fetchall()
        except sqlite3.Error as error:
            if _damaged(error):
                raise _damage(error) from error
            raise StoreError(str(error)) from error


def _decode(kind: type[Any], record: bytes) -> Any:
    try:
        return msgspec.json.decode(record, type=kind)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise _damage(error) from error


def _damage(error: Exception) -> DamagedError:
    """For the operator in full; the user whose request meets it may not know whose record it is."""
    log.error("a record of the store cannot be read: %s", error)
    return DamagedError("a record of the broker's store cannot be read: tell the operator of the QPU")


def _damaged(error: BaseException | None) -> bool:
    """Whether SQLite has met a damaged page. It leaves the transaction alone then, as after no other error."""
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK)
    return code & 0xFF == sqlite3.SQLITE_CORRUPT


def _why(error: Exception) -> str:
    return str((isinstance(error, OSError) and error.strerror) or error)


def _encode(record: msgspec.Struct) -> str:
    return msgspec.json.encode(record).decode()


def _where(conditions: dict[str, Any], always: str = "TRUE") -> tuple[str, list[Any]]:
    """The conditions that have a value, as a clause, and their values."""
    given = {condition: value for condition, value in conditions.items() if value is not None}
    return f"WHERE {' AND '.join([always, *given])}", list(given.values())
