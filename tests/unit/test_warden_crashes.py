"""What is promised of crashes, on real processes that are killed at all moments, hundreds of times in one run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest
from warden_account import Account
from warden_customers import HEARTBEAT, SHOT_RATE, Customer, ImpatientCustomer, PatientCustomer, ask_with_key
from warden_killer import BROKER, MARK, WORKER, Killer, left_over, new_mark
from warden_site import AFM, LIMIT, SESSION, Site, wait_until

from warden import connection, wire
from warden.events import Keep
from warden.model import SECOND, Session, State
from warden.store import Store

if TYPE_CHECKING:
    from pathlib import Path


KILLS = int(os.environ.get("WARDEN_CRASHES_KILLS", "200"))
SEED = int(os.environ.get("WARDEN_CRASHES_SEED") or random.SystemRandom().randrange(2**32))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_no_task_is_lost_and_none_runs_twice_unrecorded_whatever_is_killed_and_when(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One life of a site with KILLS times kill -9, and with brokers and workers that freeze for a while.

    A failure prints its seed and keeps the logs and the store. The same cards are dealt again with

        WARDEN_CRASHES_SEED=... pytest tests/unit/test_warden_crashes.py

    which comes near the failure, but not to the microsecond: the processes are real. WARDEN_CRASHES_KILLS makes the
    run shorter or longer.
    """
    mark = new_mark()
    monkeypatch.setenv(MARK, mark)
    # A killed worker leaves the socket of its fork server; here it goes with the room.
    monkeypatch.setenv("TMPDIR", str(site.room))
    # A client that hears nothing asks again after seconds. Nearly each request here meets a broker that is killed.
    monkeypatch.setattr(connection, "_AGAIN", 0.5)
    # No physics: with Pulser, a worker that was killed takes seconds to come up again.
    site.configure(
        qpu={"emulator": "echo", "shot_rate": SHOT_RATE, "overhead": 0.02, "failures": 10**6},
        broker={"heartbeat": HEARTBEAT},
    )
    gate = threading.Event()
    kinds = [PatientCustomer, ImpatientCustomer, PatientCustomer, ImpatientCustomer]
    # The last two share a session.
    sessions = ["session-0", "session-1", "session-2", "session-2"]
    open_sessions(site, set(sessions))
    customers: list[Customer] = [
        kind(site, session, f"{SEED} {number}", gate)
        for number, (kind, session) in enumerate(zip(kinds, sessions, strict=True))
    ]
    killer = Killer(site, SEED, customers, gate)
    began = time.monotonic()
    said = "no account"
    try:
        live(site, killer, customers, gate, mark)
        account = Account(site, killer, customers)
        said = str(account)
        if account.problems:
            pytest.fail("\n".join([said, *account.problems]), pytrace=False)
    except BaseException:
        keep(site, tmp_path)
        raise
    finally:
        for customer in customers:
            customer.stop()
        print(f"the cards: {dict(killer.cards)}")  # noqa: T201 - pytest shows it with a failure
        print(  # noqa: T201
            f"seed {SEED}: {killer.kills.total()} kills ({killer.kills[BROKER]} of a broker, {killer.kills[WORKER]} of "
            f"a worker), {killer.stops.total()} stops, {time.monotonic() - began:.0f} s: {said}"
        )
    assert killer.kills.total() >= KILLS


def test_a_worker_that_waited_for_its_broker_costs_no_task_a_repeat(site: Site) -> None:
    """Its hellos of all that time come at once, and all were said before it could know of a run."""
    site.configure(qpu={"emulator": "echo"}, broker={"heartbeat": HEARTBEAT})
    site.start_broker()
    with site.resource() as resource:
        task = resource.task_start(AFM, 10)
    site.kill(site.broker)
    site.start_worker(wait=False)
    wait_until(lambda: "is ready" in site.log_of(site.worker), "the worker is up")
    # More beats than a task has repeats.
    time.sleep(8 * HEARTBEAT)
    site.start_broker()
    with site.resource() as resource:
        assert sum(resource.wait(task, 30).values()) == 10
        log = resource.task_logs(task)
    assert "lost" not in log


def test_a_broker_that_is_restarted_between_hello_and_request_is_told_again_who_asks(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.start_broker()
    exchange = connection.Connection._exchange
    exchanged: list[str] = []

    def exchange_and_kill(self: connection.Connection, body: wire.Message, patience: float) -> object:
        result = exchange(self, body, patience)
        exchanged.append(type(body).__name__)
        if exchanged == ["Hello"]:
            site.kill(site.broker)
            site.start_broker()
        return result

    with site.client() as client:
        monkeypatch.setattr(connection.Connection, "_exchange", exchange_and_kill)
        assert client.task_start(SESSION, AFM, 10).shots == 10


def live(site: Site, killer: Killer, customers: list[Customer], gate: threading.Event, mark: str) -> None:
    """Kill while the customers work; then let all that they have asked for end, and the processes too."""
    killer.start(BROKER, WORKER)
    gate.set()
    for customer in customers:
        customer.start()
    killer.play(KILLS)
    gate.clear()
    wait_until(lambda: all(customer.idle for customer in customers), "all tasks end after the last kill")
    for customer in customers:
        customer.stop()
        customer.join(LIMIT)
        assert not customer.error, customer.error
    ask_again(site, customers)
    # The last card may have left some that are just coming up.
    site.wait_for(State.READY)
    for process in (site.worker, site.broker):
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT) == 0, site.log_of(process)
    wait_until(lambda: not left_over(mark), f"no process is left over: {left_over(mark)}")


def open_sessions(site: Site, names: set[str]) -> None:
    """Only root can acquire them; the store has them already, so that others can run this test too."""
    now = time.time_ns() // 1000
    store = Store(site.room / "state" / "warden.db")
    store.begin()
    for name in sorted(names):
        session = Session(id=name, uid=os.getuid(), job=name, host="", acquired=now, expires=now + 3600 * SECOND)
        store.apply([Keep(session)])
    store.commit()
    store.close()


def ask_again(site: Site, customers: list[Customer]) -> None:
    """A key is its task's for as long as the session is open, however often the broker was killed since."""
    with site.client() as client:
        for told in (told for customer in customers for told in customer.told if told.key):
            task = ask_with_key(client, told.session, told.key, told.shots)
            assert task.id == told.number, f"key {told.key} was task {told.number} and is task {task.id} now"


def keep(site: Site, folder: Path) -> None:
    """The room goes with the test; what a failure is understood by stays."""
    for file in (*site.room.glob("*.log"), *(site.room / "state").glob("*")):
        shutil.copy(file, folder)
    print(f"logs and store: {folder}")  # noqa: T201
