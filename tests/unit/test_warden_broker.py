"""The broker's loop: its sockets and its clock meet its engine."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from warden_machine import sequence
from warden_site import LIMIT

from warden import broker as module
from warden import clock, frames, keyring, orders, wire
from warden.broker import Broker
from warden.clock import Clock, Reading, step
from warden.engine import Engine
from warden.events import Asked, Started, Stepped, Tick
from warden.model import SECOND

if TYPE_CHECKING:
    from warden_site import Site

    from warden.engine import Outgoing

HOUR = 3600 * SECOND
# In whose time a test is not stopped for three of them, of which a broker would tell.
SLOW = {"heartbeat": 100}


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The events of each turn that an engine takes."""
    seen: list[list[Any]] = []
    turn = Engine.turn

    def watched(engine: Engine, events: Any, now: int) -> list[Outgoing]:
        seen.append(list(events))
        return turn(engine, events, now)

    monkeypatch.setattr(Engine, "turn", watched)
    return seen


def test_a_turn_s_answers_go_to_the_clients_that_asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[bytes, dict[str, Any]] = {}

    def send(outgoing: Outgoing) -> None:
        answers[outgoing.peer] = frames._unpackb(outgoing.frame)

    with Broker(site.configure()) as broker:
        monkeypatch.setattr(broker, "_send", send)
        broker._turn([Asked(b"a", 1, 0, wire.GetPlan()), Asked(b"b", 2, 0, wire.ListSessions())])
    assert answers[b"a"]["ok"] == {"windows": [], "added": []}
    assert answers[b"b"]["id"] == 2


def test_a_result_is_handed_in_however_much_smaller_the_sequences_are(site: Site) -> None:
    config = site.configure(qpu={"qubits": 20}, limits={"sequence_bytes": 2**16})
    site.start_broker()
    counts = {f"{number:020b}": 1 for number in range(60_000)}
    context = zmq.Context()
    try:
        worker = context.socket(zmq.DEALER)
        worker.linger = 0
        worker.curve_publickey, worker.curve_secretkey = keyring.key_pair(config.broker.keys / "worker.key_secret")
        worker.curve_serverkey = keyring.public_key(config.broker_key)
        worker.connect(config.worker_endpoint)
        with site.resource() as qpu:
            task = qpu.task_start(sequence(20), len(counts))
            worker.send(
                frames.pack(
                    orders.WorkerHello(instance="w", device="{}", device_name="AnalogDevice", qubits=20, clock=0)
                )
            )
            run = None
            while not isinstance(run, orders.StartRun):
                assert worker.poll(LIMIT * 1000), "the broker orders the run"
                run = frames.unpack(worker.recv(), orders.ToWorker)
            result = orders.RunFinished(instance="w", token=run.token, shots=len(counts), counts=counts, time=1)
            worker.send(frames.pack(result))
            assert qpu.wait(task, LIMIT) == counts
    finally:
        context.destroy(linger=0)


def test_before_all_else_the_core_hears_that_the_broker_has_come_up(
    site: Site, turns: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Engine.turn

    def only(engine: Engine, events: Any, now: int) -> list[Outgoing]:
        os.kill(os.getpid(), signal.SIGTERM)
        return watched(engine, events, now)

    monkeypatch.setattr(Engine, "turn", only)
    with Broker(site.configure(broker=SLOW)) as broker:
        broker.serve()
    assert turns == [[Started(), Tick()]]


def test_who_is_told_that_it_serves_can_tell_it_to_stop(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def tell(text: str, *_: object) -> None:
        told.append(text)
        if "serving" in text:
            os.kill(os.getpid(), signal.SIGTERM)

    def unheard(*_: object) -> None:
        pytest.fail("it would have been killed")

    monkeypatch.setattr(module.log, "info", tell)
    before = signal.signal(signal.SIGTERM, unheard)
    try:
        with Broker(site.configure(broker=SLOW)) as broker:
            broker.serve()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told[-1] == "told to stop: goodbye"


def test_a_clock_that_is_set_is_the_first_news_of_a_turn_and_told_once(
    site: Site, turns: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    wall = clock._wall
    with Broker(site.configure(broker=SLOW)) as broker:
        broker._turn([Tick()])
        monkeypatch.setattr(clock, "_wall", lambda: wall() - HOUR)
        broker._turn([Tick()])
        broker._turn([Tick()])
    assert turns[0] == turns[2] == [Tick()]
    stepped, tick = turns[1]
    assert isinstance(stepped, Stepped)
    assert abs(stepped.by + HOUR) < SECOND
    assert tick == Tick()


def test_a_broker_that_was_stopped_for_a_while_knows_that_nobody_could_renew_anything(
    site: Site, turns: list[list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    away = 0
    read = clock._read
    monkeypatch.setattr(clock, "_read", lambda: Reading(read().wall + away, read().steady + away))
    with Broker(site.configure(broker=SLOW)) as broker:
        broker._turn([Tick()])
        away = HOUR
        broker._turn([Tick()])
        broker._turn([Tick()])
    [started, _] = turns[1]
    assert isinstance(started, Started)
    assert HOUR <= started.away < HOUR + 45 * SECOND
    assert (turns[0], turns[2]) == ([Tick()], [Tick()])


# --- the clock ---


@pytest.mark.parametrize("by", [HOUR, -HOUR, 500_001, -500_001])
def test_a_wall_clock_that_leaves_the_steady_one_has_been_set(by: int) -> None:
    assert step(Reading(HOUR, 50), Reading(HOUR + 70 * SECOND + by, 50 + 70 * SECOND)) == by


@pytest.mark.parametrize("by", [0, 500_000, -500_000])
def test_time_that_passes_is_no_step_and_neither_is_what_harms_nobody(by: int) -> None:
    assert step(Reading(HOUR, 50), Reading(HOUR + 70 * SECOND + by, 50 + 70 * SECOND)) == 0


def test_small_steps_add_up_until_they_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    wall, steady = 1_000 * HOUR, 0
    monkeypatch.setattr(clock, "_read", lambda: Reading(wall, steady))
    watch = Clock()
    told = []
    for _ in range(5):
        wall, steady = wall + SECOND + 200_000, steady + SECOND
        told.append(watch.turn().step)
    assert told == [0, 0, 600_000, 0, 0]
