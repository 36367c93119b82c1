"""What must outlive a crash, and what a broker says when its disk will not have it."""

from __future__ import annotations

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from warden.events import Almanac, Due, Keep, KeepAlmanac, Prune, Usage
from warden.model import (
    ConfigurationError,
    Outcome,
    PastWindow,
    Run,
    Session,
    State,
    Task,
    TaskStatus,
    Window,
)
from warden.schema import SCHEMA
from warden.store import DamagedError, Store, StoreError

STORES = Path(__file__).parent.parent / "samples" / "stores"
SESSION = Session(id="s1", uid=1001, job="7", host="node1", acquired=10, expires=20)
TASK = Task(id=1, session="s1", uid=1001, shots=100, qubits=2, key="k1", submitted=11, log=("queued",))
RUN = Run(token="t", first_shot=0, shots=100, started=12, deadline=None)


def keep(store: Store, *effects: Keep | KeepAlmanac | Prune) -> None:
    store.begin()
    store.apply(effects)
    store.commit()


def reopened(store: Store, path: Path) -> Store:
    store.close()
    return Store(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "warden.db"


def test_open_sessions_unfinished_tasks_the_almanac_and_shares_are_remembered(path: Path) -> None:
    store = Store(path)
    almanac = Almanac(
        windows=(Window(5, None, State.MAINTENANCE, "repair", 3),),
        opened=(3,),
        next_window=4,
        accounted={"a rule": 7},
        due=(Due(rule="a rule", duration=5, reason="calibration"),),
        shots=12,
    )
    usage = Usage(name="production", uid=1001, used=5, time=6)
    keep(store, Keep(SESSION), Keep(TASK, "the sequence"), KeepAlmanac(almanac), Keep(usage))
    store = reopened(store, path)
    remembered = store.remember()
    assert remembered.sessions == (SESSION,)
    assert remembered.tasks == (TASK,)
    assert remembered.almanac == almanac
    assert remembered.usage == (usage,)
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


def test_a_task_is_found_by_its_key_as_long_as_it_is_kept(path: Path) -> None:
    store = Store(path)
    done = Task(**{**_fields(TASK), "status": TaskStatus.COMPLETED})
    keep(store, Keep(SESSION), Keep(TASK, "x"), Keep(done), Keep(Session(**{**_fields(SESSION), "ended": 15})))
    assert store.task_by_key("s1", "k1") == done
    assert store.task_by_key("s2", "k1") is None
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

    def sessions(
        uid: int | None = None, job: str | None = None, before: str | None = None, *, ended: bool = False
    ) -> list[str]:
        return [s.id for s in store.sessions(uid=uid, job=job, ended=ended, before=before, limit=9)]

    def tasks(
        uid: int | None = None, session: str | None = None, before: int | None = None, limit: int = 9
    ) -> list[int]:
        return [t.id for t in store.tasks(uid=uid, session=session, before=before, limit=limit)]

    assert sessions() == ["s2", "s1"]
    assert sessions(uid=1001) == ["s1"]
    assert sessions(job="8", ended=True) == ["s2"]
    assert sessions(before="s2") == ["s1"]
    assert sessions(before="s1") == sessions(before="nobody's") == []
    assert tasks() == [2, 1]
    assert tasks(limit=1) == [2]
    assert tasks(before=2) == [1]
    assert tasks(uid=1001, session="s2") == []
    store.close()


def test_past_windows_are_kept_newest_first(path: Path) -> None:
    store = Store(path)
    held = PastWindow(Window(5, 6, State.CALIBRATING), Outcome.HELD)
    missed = PastWindow(Window(7, 20, State.CALIBRATING), Outcome.MISSED, 3)
    keep(store, KeepAlmanac(Almanac(), (held,)), KeepAlmanac(Almanac(shots=1), (missed,)))
    store = reopened(store, path)
    assert store.past_windows(9) == [missed, held]
    assert store.past_windows(1) == [missed]
    store.close()


def test_what_ended_long_ago_is_forgotten_in_bites_and_what_lives_stays(path: Path) -> None:
    store = Store(path)
    old = Session(id="s0", uid=1, job="6", host="", acquired=1, expires=2, ended=1300)
    ended = Task(id=0, session="s0", uid=1, shots=1, qubits=1, key="", submitted=1, status=TaskStatus.FAILED)
    gone = [Task(**{**_fields(ended), "id": n, "key": f"k{n}", "finished": n}) for n in range(2, 1202)]
    living = Task(**{**_fields(TASK), "id": 1500, "key": "living"})
    recent = Task(**{**_fields(gone[0]), "id": 1600, "session": "s1", "finished": 3000})
    newest = Task(**{**_fields(gone[0]), "id": 2000, "session": "s1", "key": "newest"})
    keep(
        store,
        Keep(SESSION),
        Keep(old),
        Keep(TASK, "x"),
        *map(Keep, gone),
        Keep(living, "y"),
        Keep(recent),
        Keep(newest),
    )

    def left() -> list[int]:
        return [t.id for t in store.tasks(uid=None, session=None, before=None, limit=3000)]

    counts = [len(left())]
    while store.session("s0") is not None:
        keep(store, Prune(2000))
        counts.append(len(left()))
        assert counts[-1] < counts[-2]
    assert len(counts) > 2
    assert left() == [2000, 1600, 1500, 1]
    assert store.remember().next_task == 2001
    assert store.session("s1") == SESSION
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


def old_store(path: Path, schema: int) -> None:
    """A store as a broker of that schema left it."""
    with sqlite3.connect(path) as db:
        db.executescript((STORES / f"schema-{schema}.sql").read_text(encoding="utf-8"))
    db.close()


def dump(path: Path) -> list[str]:
    with sqlite3.connect(path) as db:
        lines = [*db.iterdump(), str(db.execute("PRAGMA user_version").fetchall())]
    db.close()
    return lines


# Of schema 2, and of brokers on either: test_warden_upgrade.py.
def test_a_store_of_an_older_warden_is_brought_up_to_date_and_nothing_is_lost(path: Path) -> None:
    old_store(path, 1)
    store = Store(path)
    store = reopened(store, path)
    remembered = store.remember()
    assert [(s.id, s.seen) for s in remembered.sessions] == [(s.id, s.acquired) for s in remembered.sessions]
    assert [s.id for s in remembered.sessions] == ["id-1", "id-2"]
    assert [(t.id, t.status, t.since - t.submitted) for t in remembered.tasks] == [
        (3, TaskStatus.RUNNING, 0),
        (4, TaskStatus.QUEUED, 0),
    ]
    assert remembered.tasks[0].run is not None
    assert store.sequence(3) == store.sequence(4) != ""
    assert [(w.id, w.kind, w.end is None) for w in remembered.almanac.windows] == [
        (1, State.CALIBRATING, False),
        (2, State.MAINTENANCE, True),
    ]
    assert remembered.almanac.next_window == 3
    assert remembered.next_task == 5
    assert store.task_by_key("id-1", "the-key") == remembered.tasks[0]
    done = store.task(1)
    assert done is not None
    assert done.counts == {"01": 60, "10": 40}
    keep(store, Prune(done.submitted + 10**12))
    assert [t.id for t in store.tasks(uid=None, session=None, before=None, limit=9)] == [4, 3, 1]
    store.close()


def test_an_update_of_the_store_happens_as_a_whole_or_not_at_all(path: Path) -> None:
    old_store(path, 1)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE tasks SET record = 'no json' WHERE id = 4")
    db.close()
    before = dump(path)
    assert_refused(path, "malformed JSON")
    assert dump(path) == before


def test_a_store_of_a_newer_warden_is_left_alone(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    db.close()
    assert_refused(path, "newer Warden")


def test_a_damaged_store_is_reported_and_not_used(path: Path) -> None:
    store = Store(path)
    keep(
        store,
        Keep(SESSION),
        *(Keep(Task(**{**_fields(TASK), "id": n, "key": str(n)}), "x" * 5000) for n in range(1, 50)),
    )
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


BROKEN = ["{broken", "{}", "[]", "", "text", b"{\xff}"]


@pytest.mark.parametrize("record", BROKEN)
def test_a_record_that_cannot_be_read_is_left_out_of_lists_and_refused_alone(path: Path, record: str | bytes) -> None:
    store = Store(path)
    ended = Session(**{**_fields(SESSION), "id": "s0", "acquired": 5, "ended": 15})
    done = [Task(**{**_fields(TASK), "id": n, "key": str(n), "status": TaskStatus.FAILED}) for n in (1, 2, 3)]
    past = PastWindow(Window(5, 6, State.CALIBRATING), Outcome.HELD)
    keep(store, Keep(SESSION), Keep(ended), *map(Keep, done), KeepAlmanac(Almanac(), (past, past)))
    for statement in (
        "UPDATE tasks SET record = ? WHERE id = 2",
        "UPDATE sessions SET record = ? WHERE id = 's0'",
        "UPDATE past SET record = ? WHERE rowid = 1",
    ):
        store._db.execute(statement, (record,))
    for look in (lambda: store.task(2), lambda: store.task_by_key("s1", "2"), lambda: store.session("s0")):
        with pytest.raises(DamagedError, match="cannot be read: tell the operator") as caught:
            look()
        assert_line(caught.value.text)
    assert [task.id for task in store.tasks(uid=None, session=None, before=None, limit=9)] == [3, 1]
    assert store.sessions(uid=None, job=None, ended=True, before=None, limit=9) == [SESSION]
    assert store.past_windows(9) == [past]
    assert store.remember().sessions == (SESSION,)
    store.close()


@pytest.mark.parametrize("table", ["sessions", "tasks", "state"])
def test_without_what_a_broker_goes_on_with_it_does_not_start(path: Path, table: str) -> None:
    store = Store(path)
    keep(store, Keep(SESSION), Keep(TASK, "x"), KeepAlmanac(Almanac()))
    store._db.execute(f"UPDATE {table} SET record = '{{broken'")
    with pytest.raises(StoreError, match="cannot be read"):
        store.remember()
    store.close()


def test_a_damaged_page_is_trouble_for_what_stood_on_it_only(path: Path) -> None:
    store = Store(path)
    done = [
        Task(
            **{**_fields(TASK), "id": n, "key": str(n), "finished": n, "status": TaskStatus.FAILED, "error": "x" * 3000}
        )
        for n in range(1, 9)
    ]
    keep(store, *map(Keep, done))
    store.close()
    content = bytearray(path.read_bytes())
    page = content.index(_mark(done[1])) // 4096 * 4096
    content[page : page + 16] = bytes(16)
    path.write_bytes(content)
    store = Store(path)
    assert store.remember().next_task == 9
    keep(store, Keep(TASK, "x"))
    with pytest.raises(DamagedError, match="cannot be read: tell the operator"):
        store.task(2)
    assert store.task(8) == done[7]
    # To forget what is old meets that page, and is tried once.
    with pytest.raises(StoreError, match="malformed"):
        keep(store, Keep(SESSION), Prune(100))
    store.rollback()
    assert store.session("s1") is None
    keep(store, Keep(SESSION), Prune(100))
    assert store.session("s1") == SESSION
    store.close()


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


def _mark(task: Task) -> bytes:
    """How its record begins on the disk."""
    return f'{{"id":{task.id},"session"'.encode()


def _fields(record: Session | Task) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__struct_fields__}
