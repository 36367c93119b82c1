"""The store's tables, and how an older store becomes one of today. A step never changes once it has been released."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warden.model import ConfigurationError

if TYPE_CHECKING:
    import sqlite3
    from pathlib import Path

_FIRST = """
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

# Keys and ends become columns, operators' windows get numbers in the almanac, shares and past windows are kept.
_ALMANAC = """
ALTER TABLE sessions ADD COLUMN ended INTEGER;
UPDATE sessions SET ended = json_extract(record, '$.ended'),
    record = json_set(record, '$.seen', json_extract(record, '$.acquired'));
CREATE INDEX ended_sessions ON sessions (ended) WHERE NOT open;
ALTER TABLE tasks ADD COLUMN key TEXT NOT NULL DEFAULT '';
ALTER TABLE tasks ADD COLUMN finished INTEGER;
UPDATE tasks SET key = json_extract(record, '$.key'), finished = json_extract(record, '$.finished'),
    record = json_set(record, '$.since', json_extract(record, '$.submitted'));
CREATE UNIQUE INDEX tasks_by_key ON tasks (session, key);
CREATE INDEX finished_tasks ON tasks (finished) WHERE NOT live;
CREATE TABLE usage (name TEXT NOT NULL, uid INTEGER NOT NULL, record TEXT NOT NULL, PRIMARY KEY (name, uid));
CREATE TABLE past (window INTEGER NOT NULL, start INTEGER NOT NULL, record TEXT NOT NULL);
CREATE INDEX past_by_window ON past (window);
CREATE INDEX past_by_time ON past (start);
CREATE TABLE state (name TEXT PRIMARY KEY, record TEXT NOT NULL);
INSERT INTO state SELECT 'almanac', json_object(
    'windows', json_group_array(json_set(record, '$.id', rowid)), 'next_window', coalesce(max(rowid), 0) + 1)
    FROM windows;
DROP TABLE windows;
"""

# Calibrations, the quality that they restore, and shots in their order.
_CALIBRATIONS = """
CREATE TABLE calibrations (id INTEGER PRIMARY KEY, time INTEGER NOT NULL, record TEXT NOT NULL);
CREATE TABLE quality (time INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE bitstrings (task INTEGER NOT NULL, first INTEGER NOT NULL, shots INTEGER NOT NULL,
                         qubits INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (task, first));
"""

_STEPS = (_FIRST, _ALMANAC, _CALIBRATIONS)

SCHEMA = len(_STEPS)


def bring_up(db: sqlite3.Connection, path: Path | str) -> None:
    """Make the tables, or make those of an older store like today's: all of it or nothing.

    Raises:
        ConfigurationError: The store was written by a newer program.
    """
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA:
        raise ConfigurationError(
            f"{path} was written by a newer Warden (schema {version}, this one knows {SCHEMA}): update this one"
        )
    db.execute("BEGIN IMMEDIATE")
    try:
        for step in _STEPS[version:]:
            for statement in step.split(";"):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {SCHEMA}")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
