"""A broker's turns on a real store: what a client hears, what a worker hears, and what a failing disk leaves of it."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace
from warden_machine import ALICE, BOB, ROOT, SETTINGS, T0, sequence

from warden import engine, frames, orders, wire
from warden.calibration import Calendar
from warden.core import Core
from warden.engine import Engine, Outgoing
from warden.events import Asked, Door, Garbled, Reported, Started, Stepped, Tick
from warden.model import SECOND, BadRequestError
from warden.store import Store, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from warden.events import Effect, Event


class Disk(Store):
    """A store whose disk can be full."""

    full = False
    full_for_data = False
    """As a real one is: what writes nothing succeeds."""

    def _run(self, statement: str, *values: Any) -> None:
        if self.full_for_data and statement.startswith("INSERT"):
            raise StoreError("database or disk is full")
        super()._run(statement, *values)

    def commit(self) -> None:
        if self.full:
            raise StoreError("database or disk is full")
        super().commit()


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk(":memory:")
    yield disk
    disk.close()


@pytest.fixture
def broker(disk: Disk) -> Engine:
    return fresh(disk)


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    """The events that the core has taken in."""
    events: list[Event] = []
    handle = Core.handle

    def watched(core: Core, event: Event, now: int) -> list[Effect]:
        events.append(event)
        return handle(core, event, now)

    monkeypatch.setattr(Core, "handle", watched)
    return events


def fresh(disk: Disk, **settings: Any) -> Engine:
    ids = map(str, itertools.count(1))
    return Engine(replace(SETTINGS, **settings), Calendar(), disk, lambda: f"id-{next(ids)}")


def answers(sent: list[Outgoing]) -> dict[bytes, dict[str, Any]]:
    assert {outgoing.door for outgoing in sent} <= {Door.CLIENTS}
    return {outgoing.peer: frames._unpackb(outgoing.frame) for outgoing in sent}


def hello(peer: bytes = b"w") -> Reported:
    return Reported(peer, orders.WorkerHello(instance="i", device="{}", device_name="AnalogDevice", qubits=4, clock=0))


def start_checked(broker: Engine, asked: Asked, now: int) -> list[Outgoing]:
    """Submit a task, and have the worker say that it can run its sequence."""
    (told,) = broker.turn([asked], now)
    check = frames.unpack(told.frame, orders.ToWorker)
    return broker.turn([Reported(b"w", orders.SequenceChecked(instance="i", token=check.token))], now)


ACQUIRE = wire.Acquire(job="7", uid=ALICE, host="node1")


def test_one_turn_answers_all_that_was_asked_and_its_times_are_the_turn_s(broker: Engine) -> None:
    asked = [Asked(b"a", 1, ROOT, wire.GetAvailability()), Asked(b"b", 2, ROOT, wire.GetPlan())]
    heard = answers(broker.turn(asked, T0))
    assert heard[b"a"]["id"] == 1
    assert heard[b"a"]["ok"]["time"] == T0
    assert heard[b"b"] == {"v": frames.VERSION, "id": 2, "ok": {"windows": [], "added": []}}


def test_all_that_is_asked_in_one_turn_shares_one_commit(disk: Disk) -> None:
    broker = fresh(disk, places=50)
    broker.turn([hello(), Tick()], T0)
    statements: list[str] = []
    disk._db.set_trace_callback(statements.append)
    jobs = [str(number) for number in range(50)]
    asked = [Asked(job.encode(), 1, ROOT, wire.Acquire(job=job, uid=ALICE, host="node1")) for job in jobs]
    heard = answers(broker.turn(asked, T0 + 1))
    assert [heard[job.encode()]["ok"]["job"] for job in jobs] == jobs
    assert sum(statement.startswith("INSERT INTO sessions") for statement in statements) == 50
    # The first and the last are all of their kind: nothing is written outside.
    assert (statements[0], statements[-1]) == ("BEGIN IMMEDIATE", "COMMIT")
    assert sum(statement.startswith(("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE")) for statement in statements) == 2


def test_a_run_leaves_with_its_sequence(broker: Engine) -> None:
    session = answers(broker.turn([hello(), Asked(b"a", 1, ROOT, ACQUIRE)], T0)[-1:])[b"a"]["ok"]["id"]
    body = wire.TaskStart(session=session, sequence=sequence(2), shots=5, key="k")
    sent = start_checked(broker, Asked(b"a", 2, ALICE, body), T0 + 1)
    (order,) = [outgoing for outgoing in sent if outgoing.door is Door.WORKERS]
    assert order.peer == b"w"
    run = frames.unpack(order.frame, orders.ToWorker)
    assert (run.shots, run.sequence) == (5, sequence(2))


def test_on_a_full_disk_nothing_is_told_but_that_nothing_was_accepted(broker: Engine, disk: Disk) -> None:
    disk.full = True
    heard = answers(broker.turn([hello(), Asked(b"a", 1, ROOT, ACQUIRE), Tick()], T0))
    assert heard[b"a"]["error"]["code"] == "unavailable"
    assert "cannot write its store" in heard[b"a"]["error"]["text"]
    assert broker.failing
    assert broker.next_wakeup(T0) is None
    disk.full = False
    heard = answers(broker.turn([Asked(b"a", 2, ROOT, wire.ListSessions(everybody=True))], T0))
    assert heard[b"a"]["ok"] == []
    assert not broker.failing


def test_what_waits_for_the_worker_s_word_when_the_disk_fails_was_not_accepted(broker: Engine, disk: Disk) -> None:
    session = answers(broker.turn([hello(), Asked(b"a", 1, ROOT, ACQUIRE)], T0)[-1:])[b"a"]["ok"]["id"]
    start = wire.TaskStart(session=session, sequence=sequence(2), shots=5, key="k")
    (told,) = broker.turn([Asked(b"a", 2, ALICE, start)], T0 + 1)
    check = frames.unpack(told.frame, orders.ToWorker)
    disk.full = True
    heard = answers(broker.turn([Reported(b"w", orders.SequenceChecked(instance="i", token=check.token))], T0 + 2))
    assert "nothing was accepted" in heard[b"a"]["error"]["text"]
    disk.full = False
    assert disk.task(1) is None
    # It is asked again, and the worker as well: nobody remembers what it said.
    heard = answers(broker.turn([hello(), Asked(b"a", 3, ALICE, start)], T0 + 3)[:0])
    assert heard == {}
    assert disk.task(1) is None
    broker.turn([Tick()], T0 + 20 * SECOND)
    assert disk.task(1) is not None


def test_while_the_disk_fails_nothing_waits_for_the_worker(broker: Engine, disk: Disk) -> None:
    session = answers(broker.turn([hello(), Asked(b"a", 1, ROOT, ACQUIRE)], T0)[-1:])[b"a"]["ok"]["id"]
    start = wire.TaskStart(session=session, sequence=sequence(2), shots=5, key="k")
    disk.full = disk.full_for_data = True
    broker.turn([Tick()], T0 + 1)
    heard = answers(broker.turn([hello(), Asked(b"a", 2, ALICE, start)], T0 + 2))
    assert "nothing was accepted" in heard[b"a"]["error"]["text"]


def test_what_was_acknowledged_is_there_for_the_next_broker(broker: Engine, disk: Disk) -> None:
    broker.turn([hello(), Asked(b"a", 1, ROOT, ACQUIRE)], T0)
    heard = answers(fresh(disk).turn([Asked(b"b", 1, ROOT, wire.ListSessions(everybody=True))], T0))
    assert [session["job"] for session in heard[b"b"]["ok"]] == ["7"]


def test_a_request_that_hits_a_bug_is_refused_and_those_of_the_same_turn_are_not(
    broker: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = Core.handle

    def buggy(core: Core, event: Event, now: int) -> list[Effect]:
        if isinstance(event, Asked) and isinstance(event.body, wire.GetTarget):
            raise ZeroDivisionError
        return handle(core, event, now)

    monkeypatch.setattr(Core, "handle", buggy)
    asked = [
        Asked(b"a", 1, ROOT, wire.GetPlan()),
        Asked(b"b", 1, ROOT, wire.GetTarget()),
        Asked(b"c", 1, ROOT, wire.ListSessions()),
    ]
    heard = answers(broker.turn(asked, T0))
    assert heard[b"a"]["ok"] == {"windows": [], "added": []}
    assert "bug" in heard[b"b"]["error"]["text"]
    assert "ok" in heard[b"c"]
    assert not broker.failing


@pytest.mark.parametrize("said", [2**64, "\ud800", object()])
def test_an_answer_that_cannot_be_sent_is_refused_to_who_asked_and_the_others_have_theirs(
    broker: Engine, monkeypatch: pytest.MonkeyPatch, said: Any
) -> None:
    monkeypatch.setattr(Core, "availability", lambda *_: said)
    monkeypatch.setattr(Core, "_target", refuse)
    asked = [
        Asked(b"a", 1, ROOT, wire.GetAvailability()),
        Asked(b"b", 2, ROOT, wire.GetTarget()),
        Asked(b"c", 3, ROOT, ACQUIRE),
    ]
    heard = answers(broker.turn([hello(), *asked], T0)[-3:])
    assert "cannot be sent" in heard[b"a"]["error"]["text"]
    assert "cannot be sent" in heard[b"b"]["error"]["text"]
    assert "ok" in heard[b"c"]
    assert not broker.failing


def refuse(*_: Any) -> None:
    """With words that no wire takes."""
    raise BadRequestError("\ud800")


def test_a_record_that_cannot_be_read_is_the_trouble_of_who_asks_for_it_alone(broker: Engine, disk: Disk) -> None:
    session = answers(broker.turn([hello(), Asked(b"a", 1, ROOT, ACQUIRE)], T0)[-1:])[b"a"]["ok"]["id"]
    start = wire.TaskStart(session=session, sequence=sequence(2), shots=5, key="k")
    start_checked(broker, Asked(b"a", 2, ALICE, start), T0 + 1)
    task = disk.task(1)
    assert task is not None
    assert task.run is not None
    finished = orders.RunFinished(instance="i", token=task.run.token, shots=5, counts={"01": 5}, time=1)
    broker.turn([Reported(b"w", finished)], T0 + 2)
    disk._db.execute("UPDATE tasks SET record = '{broken'")
    asked = [
        Asked(b"a", 3, ALICE, wire.GetTask(task=1)),
        Asked(b"b", 4, ALICE, start),
        Asked(b"c", 5, ALICE, wire.ListTasks()),
        Asked(b"d", 6, ROOT, wire.Acquire(job="8", uid=BOB, host="node1")),
        Asked(b"e", 7, None, wire.GetAvailability()),
    ]
    heard = answers(broker.turn(asked, T0 + 3))
    for alone in (heard[b"a"], heard[b"b"]):
        assert "cannot be read: tell the operator" in alone["error"]["text"]
    assert heard[b"c"]["ok"] == []
    assert heard[b"d"]["ok"]["job"] == "8"
    assert heard[b"e"]["ok"]["state"] == "ready"
    assert not broker.failing


def test_the_last_run_of_a_session_that_cannot_be_read_any_more_ends_like_any_other(broker: Engine, disk: Disk) -> None:
    session = answers(broker.turn([hello(), Asked(b"a", 1, ROOT, ACQUIRE)], T0)[-1:])[b"a"]["ok"]["id"]
    start = wire.TaskStart(session=session, sequence=sequence(2), shots=5, key="k")
    start_checked(broker, Asked(b"a", 2, ALICE, start), T0 + 1)
    task = disk.task(1)
    assert task is not None
    assert task.run is not None
    broker.turn([Asked(b"a", 3, ROOT, wire.Release(session=session))], T0 + 2)
    disk._db.execute("UPDATE sessions SET record = '{broken'")
    finished = orders.RunFinished(instance="i", token=task.run.token, shots=0, counts={}, time=1)
    (told,) = broker.turn([Reported(b"w", finished)], T0 + 3)
    assert frames.unpack(told.frame, orders.ToWorker) == orders.ForgetRun(token=task.run.token)
    assert not broker.failing
    assert disk.remember().tasks == ()


def test_what_nobody_says_again_is_taken_in_when_the_disk_is_back(
    broker: Engine, disk: Disk, handled: list[Event]
) -> None:
    disk.full = True
    broker.turn([Started(), hello(), Tick()], T0)
    broker.turn([Stepped(5), Tick()], T0 + 1)
    disk.full = False
    handled.clear()
    broker.turn([Tick()], T0 + 2)
    assert handled == [Stepped(5), Started(), Started(away=0), Tick()]
    handled.clear()
    broker.turn([Tick()], T0 + 3)
    assert handled == [Tick()]


@pytest.mark.parametrize("step", [0, 3600 * SECOND, -3600 * SECOND])
def test_a_disk_that_fails_for_longer_than_a_lease_ends_no_session(broker: Engine, disk: Disk, step: int) -> None:
    broker.turn([hello(), Asked(b"a", 1, ROOT, ACQUIRE), Tick()], T0)
    disk.full = True
    for minute in range(1, 60):
        now = T0 + minute * 60 * SECOND
        broker.turn([Asked(b"a", 2, ROOT, wire.Renew(host="node1", jobs=("7",))), Tick()], now)
    broker.turn([*([Stepped(step)] if step else []), Tick()], now + step)
    disk.full = False
    now += step + 60 * SECOND
    heard = answers(broker.turn([Asked(b"a", 3, ROOT, wire.Renew(host="node1", jobs=("7",))), Tick()], now))
    assert heard[b"a"]["ok"]["sessions"] == 1
    broker.turn([Tick()], now + 601 * SECOND)
    heard = answers(broker.turn([Asked(b"a", 4, ROOT, wire.ListSessions(everybody=True))], now + 602 * SECOND))
    assert heard[b"a"]["ok"] == []


@pytest.mark.parametrize("kind", ["of the start", "of the step"])
def test_a_clock_that_is_set_while_the_disk_fails_ends_no_lease(broker: Engine, disk: Disk, kind: str) -> None:
    broker.turn([hello(), Asked(b"a", 1, ROOT, ACQUIRE), Tick()], T0)
    disk.full = True
    back = -700 * SECOND
    broker.turn([Started() if kind == "of the start" else Stepped(back), Tick()], T0 + (kind == "of the step") * back)
    disk.full = False
    now = T0 + back + 2 * SECOND
    broker.turn([*([Stepped(back)] if kind == "of the start" else []), Tick()], now)
    heard = answers(broker.turn([Asked(b"a", 4, ROOT, wire.ListSessions(everybody=True))], now))
    assert [session["job"] for session in heard[b"a"]["ok"]] == ["7"]


def test_while_the_disk_is_full_whoever_asks_is_told_what_is(broker: Engine, disk: Disk) -> None:
    """Nothing that time brings by itself may fail the turns of those who only want to know."""
    operator = [
        wire.AddWindow(kind="maintenance", start=T0 + 9000 * SECOND, duration=SECOND),
        wire.AddWindow(kind="maintenance", duration=SECOND),
        wire.AddWindow(kind="calibrating", start=T0 + 300 * SECOND, duration=SECOND),
    ]
    broker.turn(
        [Started(), hello(), Asked(b"a", 1, ROOT, ACQUIRE), *(Asked(b"o", n, ROOT, b) for n, b in enumerate(operator))],
        T0,
    )
    disk.full_for_data = True
    refused = answers(broker.turn([Asked(b"a", 2, ROOT, operator[0]), Tick()], T0 + 2 * SECOND))
    assert refused[b"a"]["error"]["code"] == "unavailable"
    # A window ends, another opens, a lease runs out, all is old enough to be forgotten.
    for later in (3, 10, 301, 700, 4000, 10**8):
        now = T0 + later * SECOND
        told = answers(broker.turn([Asked(b"a", 3, None, wire.GetAvailability()), Tick()], now))
        assert (told[b"a"]["ok"]["state"], "cannot be written" in told[b"a"]["ok"]["reason"]) == ("offline", True)
        told = answers(broker.turn([Asked(b"a", 4, ROOT, wire.ListSessions(everybody=True)), Tick()], now))
        assert [session["job"] for session in told[b"a"]["ok"]] == ["7"]
    assert broker.troubled


def test_a_request_is_read_with_whose_it_is() -> None:
    frame = frames.pack_request(7, wire.GetPlan(count=3))
    assert engine.read_request(b"p", ALICE, frame) == Asked(b"p", 7, ALICE, wire.GetPlan(count=3))


@pytest.mark.parametrize("frame", [b"", b"\xc1", frames.pack(orders.BrokerBeat())])
def test_what_is_no_request_can_be_refused_all_the_same(frame: bytes) -> None:
    with pytest.raises(BadRequestError) as refused:
        engine.read_request(b"p", ALICE, frame)
    _, error = frames.unpack_answer(engine.refusal(frame, refused.value))
    assert isinstance(error, BadRequestError)


def test_a_worker_s_words_are_understood_or_garbled() -> None:
    beat = orders.WorkerBeat(instance="i", clock=0)
    assert engine.read_report(b"w", frames.pack(beat)) == Reported(b"w", beat)
    garbled = engine.read_report(b"w", b"\xc1" * 9)
    assert isinstance(garbled, Garbled)
    assert garbled.peer == b"w"
    assert "not a message" in garbled.text


def test_the_engine_knows_no_socket_and_no_clock() -> None:
    tree = ast.parse(Path(engine.__file__).read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not names & {"zmq", "time", "datetime", "socket", "uuid", "random", "os"}


def test_a_disk_that_takes_nothing_is_the_state_of_the_qpu_until_it_does(broker: Engine, disk: Disk) -> None:
    def state(now: int) -> tuple[str, str]:
        heard = answers(broker.turn([Asked(b"a", 1, None, wire.GetAvailability())], now))[b"a"]["ok"]
        return heard["state"], heard["reason"]

    broker.turn([hello(), Tick()], T0)
    disk.full_for_data = True
    broker.turn([Asked(b"a", 1, ROOT, ACQUIRE)], T0)
    for second in range(3):
        assert state(T0 + second) == ("offline", "its store cannot be written: database or disk is full")
    disk.full_for_data = False
    broker.turn([hello(), Tick()], T0 + 5)
    assert state(T0 + 5) == ("ready", "")
