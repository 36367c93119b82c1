"""What must outlive a crash, and what a broker says when its disk will not have it."""

from __future__ import annotations

import os
import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest

from warden.events import Keep, KeepWindows
from warden.model import ConfigurationError, Run, Session, State, Task, TaskStatus, Window
from warden.store import SCHEMA, Store, StoreError

if TYPE_CHECKING:
    from pathlib import Path

SESSION = Session(id="s1", uid=1001, job="7", host="node1", acquired=10, expires=20)
TASK = Task(id=1, session="s1", uid=1001, shots=100, qubits=2, key="k1", submitted=11, log=("queued",))
RUN = Run(token="t", first_shot=0, shots=100, started=12, deadline=None)


def keep(store: Store, *effects: Keep | KeepWindows) -> None:
    store.begin()
    store.apply(effects)
    store.commit()


def reopened(store: Store, path: Path) -> Store:
    store.close()
    return Store(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "warden.db"


def test_open_sessions_unfinished_tasks_and_windows_are_remembered(path: Path) -> None:
    store = Store(path)
    window = Window(5, None, State.MAINTENANCE, "repair")
    keep(store, Keep(SESSION), Keep(TASK, "the sequence"), KeepWindows((window,)))
    store = reopened(store, path)
    remembered = store.remember()
    assert remembered.sessions == (SESSION,)
    assert remembered.tasks == (TASK,)
    assert remembered.windows == (window,)
    assert remembered.next_task == 2
    assert store.sequence(1) == "the sequence"
    store.close()


def test_what_has_ended_is_kept_for_reading_only(path: Path) -> None:
    store = Store(path)
    ended = Session(id="s0", uid=1, job="6", host="", acquired=1, expires=2, ended=2)
    done = Task(
        id=2,
        session="s0",
        uid=1,
        shots=1,
        qubits=2,
        key="k",
        submitted=1,
        status=TaskStatus.COMPLETED,
        counts={"01": 1},
    )
    keep(store, Keep(ended), Keep(done, "the sequence"))
    store = reopened(store, path)
    remembered = store.remember()
    assert (remembered.sessions, remembered.tasks, remembered.next_task) == ((), (), 3)
    assert store.session("s0") == ended
    assert store.task(2) == done
    assert store.sequence(2) == ""
    store.close()


def test_the_keys_of_ended_tasks_are_remembered_while_their_session_is_open(path: Path) -> None:
    store = Store(path)
    keep(store, Keep(SESSION), Keep(TASK, "x"))
    keep(store, Keep(Task(**{**_fields(TASK), "status": TaskStatus.COMPLETED})))
    assert store.remember().keys == {("s1", "k1"): 1}
    keep(store, Keep(Session(**{**_fields(SESSION), "ended": 15})))
    assert store.remember().keys == {}
    store.close()


def test_the_run_of_a_cancelled_task_is_remembered_until_it_has_ended(path: Path) -> None:
    store = Store(path)
    cancelled = Task(**{**_fields(TASK), "status": TaskStatus.CANCELLED, "run": RUN})
    keep(store, Keep(TASK, "x"), Keep(cancelled))
    assert store.remember().tasks == (cancelled,)
    keep(store, Keep(Task(**{**_fields(cancelled), "run": None})))
    assert store.remember().tasks == ()
    store.close()


def test_nothing_of_a_turn_is_kept_without_its_commit(path: Path) -> None:
    store = Store(path)
    store.begin()
    store.apply([Keep(SESSION), Keep(TASK, "x")])
    store = reopened(store, path)
    assert store.remember().sessions == ()
    store.begin()
    store.apply([Keep(SESSION)])
    store.rollback()
    assert store.remember().sessions == ()
    store.close()


def test_lists_are_one_user_s_or_everybody_s_newest_first(path: Path) -> None:
    store = Store(path)
    other = Session(id="s2", uid=1002, job="8", host="", acquired=30, expires=40)
    keep(
        store,
        Keep(SESSION),
        Keep(other),
        Keep(TASK, "x"),
        Keep(Task(**{**_fields(TASK), "id": 2, "uid": 1002, "session": "s2"}), "y"),
    )
    assert [s.id for s in store.sessions(uid=None, job=None, ended=False, limit=9)] == ["s2", "s1"]
    assert [s.id for s in store.sessions(uid=1001, job=None, ended=False, limit=9)] == ["s1"]
    assert [s.id for s in store.sessions(uid=None, job="8", ended=True, limit=9)] == ["s2"]
    assert [t.id for t in store.tasks(uid=None, session=None, limit=9)] == [2, 1]
    assert [t.id for t in store.tasks(uid=None, session=None, limit=1)] == [2]
    assert [t.id for t in store.tasks(uid=1001, session="s2", limit=9)] == []
    store.close()


def test_a_second_broker_is_told_that_the_store_is_in_use(path: Path) -> None:
    store = Store(path)
    with pytest.raises(ConfigurationError, match=r"^.*warden\.db is in use by another broker: stop that one first$"):
        Store(path)
    keep(store, Keep(SESSION))
    store.close()


def test_only_the_broker_s_user_can_read_what_users_computed(path: Path) -> None:
    before = os.umask(0)
    try:
        store = Store(path)
        keep(store, Keep(SESSION))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(before)
        store.close()
    assert modes
    assert set(modes.values()) == {0o600}


def test_a_file_that_is_no_store_is_named(path: Path) -> None:
    path.write_bytes(b"this is no database, but long enough to be looked at as one\n" * 20)
    assert_refused(path, "is not a database")


def test_a_store_of_a_newer_warden_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    db.close()
    assert_refused(path, "newer Warden")


def test_a_damaged_store_is_reported_and_not_used(path: Path) -> None:
    store = Store(path)
    keep(store, Keep(SESSION), *(Keep(Task(**{**_fields(TASK), "id": n}), "x" * 5000) for n in range(1, 50)))
    store.close()
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    try:
        damaged = Store(path)
    except ConfigurationError as error:
        assert_line(error.text)
        return
    with pytest.raises(StoreError):
        damaged.remember()
    damaged.close()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere" / "warden.db", "No such file")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(path: Path) -> None:
    path.parent.chmod(0o500)
    assert_refused(path, "Permission denied")
    path.parent.chmod(0o700)


def test_a_full_disk_is_an_error_and_the_store_goes_on_afterwards(path: Path) -> None:
    store = Store(path)
    keep(store, Keep(SESSION))
    full_after(store, pages=2)
    store.begin()
    with pytest.raises(StoreError, match="full"):
        store.apply([Keep(TASK, "x" * 1_000_000)])
    store.rollback()
    assert store.remember().tasks == ()
    full_after(store, pages=10_000)
    keep(store, Keep(TASK, "x" * 1_000_000))
    assert store.remember().tasks == (TASK,)
    store.close()


def full_after(store: Store, pages: int) -> None:
    used = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count = {used + pages}")


def assert_refused(path: Path, why: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Store(path)
    assert_line(caught.value.text)
    assert str(path) in caught.value.text
    assert why in caught.value.text


def assert_line(text: str) -> None:
    assert text
    assert "\n" not in text


def _fields(record: Session | Task) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__struct_fields__}
