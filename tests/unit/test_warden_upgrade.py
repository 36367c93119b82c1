"""A new Warden on the store of an older one: sessions and tasks live on, and an older Warden keeps its hands off."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from warden_site import AFM

from warden.model import Outcome, TaskStatus
from warden.schema import SCHEMA
from warden.store import Store

if TYPE_CHECKING:
    from warden_site import Site

    from warden.client import Client

STORES = Path(__file__).parent.parent / "samples" / "stores"


class Left(msgspec.Struct, frozen=True):
    """What is in a store of that schema: jobs with sessions, and tasks that have to be done yet."""

    jobs: tuple[str, ...]
    tasks: dict[int, int]
    """Their shots."""
    done: dict[str, int]
    suspended: dict[str, int] = {}
    """Of a suspended job the task that waits."""


LEFT = {
    1: Left(jobs=("1", "2.3"), tasks={3: 200, 4: 50}, done={"01": 60, "10": 40}),
    2: Left(
        jobs=("1", "2.3", "3"),
        tasks={3: 500, 4: 50},
        done={"0101": 60, "1010": 40},
        suspended={"3": 5},
    ),
}


def put(site: Site, schema: int) -> Path:
    """Have this site go on with the store that a broker of that schema left."""
    path = site.room / "state" / "warden.db"
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript((STORES / f"schema-{schema}.sql").read_text(encoding="utf-8"))
    return path


def test_each_schema_that_was_ever_used_has_a_store_here() -> None:
    assert set(LEFT) == set(range(1, SCHEMA))


@pytest.mark.skipif(os.geteuid() != 0, reason="asks for others' jobs as their hosts do")
@pytest.mark.parametrize("schema", LEFT)
def test_a_new_broker_goes_on_where_the_old_one_stopped(site: Site, schema: int) -> None:
    left = LEFT[schema]
    put(site, schema)
    # As fast as can be: whether counts are right is for others to say.
    fast = {"device": "AnalogDevice", "emulator": "echo", "overhead": 0, "loading": 0, "shot_rate": 0}
    site.configure(qpu=fast, broker={"heartbeat": 0.5})
    site.start_broker()
    with site.client() as client:
        assert {one.job for one in client.sessions(everybody=True)} == set(left.jobs)
        # Which are still to come, or on, is for this day to say.
        for window in client.plan().added:
            client.cancel_window(window.id)
        site.start_worker(at_once=True)
        for number, shots in left.tasks.items():
            task = client.task(number, wait=30)
            assert (task.status, task.shots_done, sum(task.counts.values())) == (TaskStatus.COMPLETED, shots, shots)
        assert client.task(1).counts == left.done
        for job, number in left.suspended.items():
            assert client.task(number).status is TaskStatus.QUEUED
            client.renew(host="node1", jobs=(job,))
            assert client.task(number, wait=30).status is TaskStatus.COMPLETED
        _go_on_with_new_ones(client, after=max([*left.tasks, *left.suspended.values()]))


def _go_on_with_new_ones(client: Client, after: int) -> None:
    session = client.acquire(job="99", uid=0)
    task = client.task_start(session.id, AFM, 10)
    assert task.id == after + 1
    assert client.task(task.id, wait=30).status is TaskStatus.COMPLETED


def test_what_a_broker_of_schema_2_knew_of_windows_shares_and_jobs_is_kept(site: Site) -> None:
    store = Store(put(site, 2))
    remembered = store.remember()
    past = store.past_windows(9)
    store.close()
    assert [(one.outcome, one.window.id) for one in past] == [(Outcome.MISSED, 0), (Outcome.HELD, 0), (Outcome.HELD, 1)]
    assert {(one.name, one.uid, one.used) for one in remembered.usage} == {
        ("everybody", 1002, 18_000_000),
        ("production", 1001, 10_000_000),
    }
    assert (remembered.almanac.shots, remembered.almanac.opened, len(remembered.almanac.accounted)) == (280, (1,), 1)
    alice, bob, carol = remembered.sessions
    assert (alice.queue, alice.project, alice.max_shots, alice.shots) == ("prod.q", "physics", 5000, 100)
    assert (bob.start, bob.max_qpu_time, bob.qpu_time) == ("7:1", 3_600_000_000, 18_000_000)
    assert carol.suspended == "node1"
    cut = next(task for task in remembered.tasks if task.id == 3)
    assert (cut.shots_done, cut.counts, cut.run and cut.run.first_shot) == (180, {"0101": 100, "1010": 80}, 180)


def test_an_older_broker_leaves_the_store_of_a_newer_one_alone(site: Site) -> None:
    path = site.room / "state" / "warden.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    before = path.read_bytes()
    done = site.warden("serve")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"warden: {path} was written by a newer Warden (schema {SCHEMA + 1}, this one knows {SCHEMA}): update this one\n"
    )
    assert path.read_bytes() == before
