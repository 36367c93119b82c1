"""What has gone wrong in another broker of this kind, case by case, and what happens here instead.

Each test says first what happened there. Left out are the cases about an HTTP API: requests for methods that it
announced and did not have, and numbers or credentials that ended in a status 500. What is behind the last two is here:
numbers that fit nowhere and credentials that are none get a refusal, and the broker goes on.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
import zmq
from warden_machine import ALICE, BOB, OPERATOR, SETTINGS, T0, Machine, Qpu, sequence

from warden import frames, keyring, orders, trust, wire
from warden.client import task_number
from warden.model import (
    SECOND,
    BadRequestError,
    BusyError,
    ConfigurationError,
    ForbiddenError,
    LimitError,
    State,
    TaskStatus,
    UnauthenticatedError,
    clock,
)
from warden.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from warden_site import Site

MINUTE = 60.0


def ready(**settings: Any) -> tuple[Machine, Qpu]:
    machine = Machine(**settings)
    return machine, Qpu(machine)


def statuses(machine: Machine, *tasks: Any) -> list[str]:
    return [str(machine.task(task.id).status) for task in tasks]


def breaks(qpu: Qpu, answered: int) -> int:
    """The QPU fails whatever it was told to run since it has answered so many; how many that makes."""
    while len(qpu.runs) > answered:
        qpu.take()
        qpu.finish(0, error="ERROR", fault="device")
        answered += 1
    return answered


# --- killed, and two at once ---


def test_a_broker_that_is_killed_during_a_task_does_not_run_it_twice() -> None:
    # There: the scheduler that came back sent the task to the QPU again, beside the run that was still on.
    machine, qpu = ready()
    task = machine.start(machine.session())
    run = qpu.take()
    for _ in range(5):
        machine.later(1)
        machine.restart()
        qpu.hello()
    assert qpu.runs == []
    # The fifth life of the broker takes the first one's result.
    finished = orders.RunFinished(instance="w1", token=run.token, shots=100, counts={"01": 100}, time=5 * SECOND)
    qpu._say(finished)
    done = machine.task(task.id)
    assert (done.status, done.runs, done.repeats, done.counts) == (TaskStatus.COMPLETED, 1, 0, {"01": 100})


def test_two_brokers_cannot_work_on_one_store(tmp_path: Path) -> None:
    # There: two schedulers on one database ran most of the tasks twice.
    path = tmp_path / "warden.db"
    store = Store(path)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="in use by another broker"):
            Store(path)
    store.close()
    Store(path).close()


def test_two_workers_never_have_one_task() -> None:
    machine, first = ready()
    session = machine.session()
    tasks = [machine.start(session) for _ in range(5)]
    second = Qpu(machine, "w2")
    for _ in tasks:
        first.take()
        machine.later(10)
        second.hello()
        first.finish()
    assert second.runs == []
    assert [run.task for run in first.runs] == [task.id for task in tasks]
    assert statuses(machine, *tasks) == ["completed"] * 5


# --- a QPU in trouble ---


def test_garbage_for_an_answer_leaves_neither_the_task_nor_the_queue_stuck() -> None:
    # There: the task stayed as it was for ever, and so did all behind it.
    machine, qpu = ready()
    session = machine.session()
    tasks = [machine.start(session) for _ in range(2)]
    qpu.take()
    machine.later(10)
    qpu.babble("<html>502 Bad Gateway</html>")
    for _ in tasks:
        qpu.take()
        qpu.finish()
    assert statuses(machine, *tasks) == ["completed"] * 2
    assert "garbage" in "\n".join(machine.task(tasks[0].id).log)


def test_a_qpu_that_forgets_its_run_is_given_it_again() -> None:
    # There: the task waited for ever for a job that the QPU did not know any more.
    machine, qpu = ready()
    session = machine.session()
    tasks = [machine.start(session) for _ in range(2)]
    qpu.take()
    qpu.token = ""
    machine.later(10)
    for _ in tasks:
        qpu.take()
        qpu.finish()
    assert statuses(machine, *tasks) == ["completed"] * 2
    assert machine.task(tasks[0].id).repeats == 1


def test_an_error_of_the_qpu_does_not_fail_the_user_s_task() -> None:
    # There: a status 500 of the QPU was the end of the task.
    machine, qpu = ready()
    task = machine.start(machine.session())
    qpu.take()
    qpu.finish(0, error="internal error", fault="device")
    qpu.take()
    qpu.finish()
    assert statuses(machine, task) == ["completed"]


@pytest.mark.parametrize("gone", ["silent", "failing"])
def test_an_outage_of_a_minute_fails_no_task(gone: str) -> None:
    # There: all that waited ended as errors, one after the other.
    machine, qpu = ready(max_queued_per_user=10)
    session = machine.session()
    tasks = [machine.start(session) for _ in range(6)]
    qpu.take()
    if gone == "silent":
        qpu.die()
        machine.later(MINUTE)
        qpu = Qpu(machine, "w2")
    else:
        answered = 0
        for _ in range(60):
            answered = breaks(qpu, answered)
            machine.later(1)
        machine.later(SETTINGS.retry / SECOND - MINUTE)
    for _ in tasks:
        qpu.take()
        qpu.finish()
    assert statuses(machine, *tasks) == ["completed"] * 6


def test_a_qpu_that_fails_again_and_again_is_not_asked_in_a_hot_loop() -> None:
    # There: the same task was sent some eighty times a second.
    machine, qpu = ready(lease=10**6 * SECOND)
    task = machine.start(machine.session())
    answered = 0
    for _ in range(400):
        answered = breaks(qpu, answered)
        machine.later(0.01)
    assert answered == SETTINGS.failures
    # Later it is tried now and then, and after a few attempts the task fails and says why.
    for _ in range(3600):
        answered = breaks(qpu, answered)
        machine.later(1)
    assert answered == 6
    failed = machine.task(task.id)
    assert (failed.status, "ERROR" in failed.error) == (TaskStatus.FAILED, True)


# --- sessions ---


def test_the_tasks_of_a_released_session_never_run() -> None:
    # There: they ran all the same.
    machine, qpu = ready()
    session = machine.session()
    first, second = machine.start(session), machine.start(session)
    token = qpu.take().token
    machine.ask(wire.Release(session=session.id), ALICE)
    assert qpu.told_to_stop(token)
    qpu.finish(0)
    machine.later(MINUTE)
    assert [run.task for run in qpu.runs] == [first.id]
    assert statuses(machine, first, second) == ["cancelled"] * 2
    with pytest.raises(ForbiddenError, match="has ended"):
        machine.start(session)


def test_a_session_of_which_nothing_is_heard_ends() -> None:
    # There: a session was for ever, and so was its place.
    machine, _ = ready(places=1)
    session = machine.session(job="1")
    machine.later(SETTINGS.lease / SECOND)
    ended = machine.disk.session(session.id)
    assert ended is not None
    assert ended.ended is not None
    machine.session(job="2")


def test_a_qpu_that_is_blocked_takes_neither_sessions_nor_runs() -> None:
    # There: what operators said of the QPU's accessibility was shown, and nothing else came of it.
    machine, qpu = ready()
    session = machine.session(job="1")
    machine.block()
    task = machine.start(session)
    with pytest.raises(BusyError, match="maintenance"):
        machine.session(job="2")
    machine.later(MINUTE)
    assert (qpu.runs, statuses(machine, task)) == ([], ["queued"])
    machine.ask(wire.Resume(), OPERATOR)
    assert len(qpu.runs) == 1


def test_one_user_s_thirty_tasks_do_not_keep_another_one_s_waiting() -> None:
    # There: first come, first served, so one was served after thirty.
    machine, qpu = ready(max_queued_per_user=30, max_queued=100)
    alice, bob = machine.session(ALICE, "1"), machine.session(BOB, "2")
    many = [machine.start(alice) for _ in range(30)]
    machine.later(1)
    one = machine.start(bob)
    qpu.take()
    machine.later(10)
    qpu.finish(time=10 * SECOND)
    assert [run.task for run in qpu.runs] == [many[0].id, one.id]


# --- requests ---


@pytest.mark.parametrize("text", ["", " ", "not JSON", "{}", "[]", "null", '"text"', "[" * 5000])
def test_what_is_no_sequence_reaches_no_qpu(text: str) -> None:
    # There: whatever it was, it was queued, and the QPU got it.
    machine, qpu = ready()
    session = machine.session()
    body = wire.TaskStart(session=session.id, sequence=text, shots=1, key="k")
    with pytest.raises(BadRequestError):
        machine.ask(body, ALICE)
    assert qpu.runs == []


def test_fifty_megabytes_reach_no_qpu() -> None:
    machine, qpu = ready(max_sequence=8 * 2**20)
    session = machine.session()
    body = wire.TaskStart(session=session.id, sequence=sequence() + " " * 50 * 2**20, shots=1, key="k")
    with pytest.raises(LimitError, match="larger than 8388608 bytes"):
        machine.ask(body, ALICE)
    assert qpu.runs == []


@pytest.mark.parametrize("shots", [0, -1, 10**9, 2**31, 2**63, 2**64 - 1, -(2**63)])
def test_shots_that_make_no_sense_reach_no_qpu(shots: int) -> None:
    # There: some reached the QPU, and one number more than a column holds was a crash.
    machine, qpu = ready()
    session = machine.session()
    request = wire.TaskStart(session=session.id, sequence=sequence(), shots=shots, key="k")
    body = frames.unpack_request(frames.pack_request(1, request))
    with pytest.raises(BadRequestError, match="shots must be between 1 and 1000"):
        machine.ask(body, ALICE)
    assert qpu.runs == []


def test_a_number_that_no_store_holds_is_no_task() -> None:
    # There: it was a crash of the request.
    with pytest.raises(BadRequestError, match="is no task"):
        task_number(str(10**30))
    with pytest.raises(BadRequestError, match="cannot be sent"):
        frames.pack_request(1, wire.GetTask(task=10**30))
    for number in (2**63, 2**64 - 1):
        frame = msgpack.packb({"v": frames.VERSION, "id": 1, "body": {"op": "get_task", "task": number}})
        with pytest.raises(BadRequestError, match="malformed message"):
            frames.unpack_request(frame)


def test_a_task_can_be_stopped_and_its_log_can_be_read() -> None:
    # There: a client could ask for both, and the broker knew neither.
    machine, _ = ready()
    task = machine.start(machine.session())
    assert machine.ask(wire.TaskStop(task=task.id), ALICE).status is TaskStatus.CANCELLED
    assert [line.split(" ", 1)[1].split(":")[0] for line in machine.task(task.id, ALICE).log] == [
        "queued",
        "run 1 started",
        "cancelled",
    ]


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns", "XYZ+11"])
def test_times_are_utc_wherever_the_broker_stands(zone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # There: some dates were local ones, without a word of the zone.
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        machine, _ = ready()
        task = machine.start(machine.session())
        assert clock(T0) == "2027-01-15T08:00:00Z"
        assert all(line.startswith("2027-01-15T08:00:00Z ") for line in task.log)
        machine.block(duration=60)
        with pytest.raises(BusyError, match="until 2027-01-15T08:01:00Z"):
            machine.session(job="2")
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


# --- credentials ---


@pytest.fixture
def stranger(standing_site: Site) -> Iterator[tuple[Site, zmq.Socket[bytes], bytes]]:
    """A connection to a broker, before anybody has said whose it is; with its public key."""
    context = zmq.Context()
    connection = context.socket(zmq.DEALER)
    public, secret = zmq.curve_keypair()
    connection.curve_publickey, connection.curve_secretkey = public, secret
    connection.curve_serverkey = keyring.public_key(standing_site.config.broker_key)
    connection.linger = 0
    connection.connect(standing_site.config.client_endpoint)
    yield standing_site, connection, public
    context.destroy(linger=0)


def ask(connection: zmq.Socket[bytes], body: wire.Message) -> Any:
    connection.send(frames.pack_request(1, body))
    assert connection.poll(30_000), "the broker answers"
    return frames.unpack_answer(connection.recv())[1]


def test_a_credential_that_was_overheard_opens_nothing(stranger: tuple[Site, zmq.Socket[bytes], bytes]) -> None:
    # There: root's credential, sent again by somebody else, was root.
    site, connection, _ = stranger
    broker_key = keyring.public_key(site.config.broker_key)
    other, _ = zmq.curve_keypair()
    overheard = trust.prove(other, broker_key, site.munge_socket)
    answer = ask(connection, wire.Hello(credential=overheard))
    assert answer.code == "unauthenticated"
    assert ask(connection, wire.Acquire(job="1", uid=ALICE)).code == "unauthenticated"
    # Nor does it open its own connection twice: munged has seen it.
    with pytest.raises(UnauthenticatedError, match="works only once"):
        trust.verify(overheard, other, broker_key, site.config.access)


@pytest.mark.parametrize("credential", ["", "x", "MUNGE:", "MUNGE:AAAA:", "MUNGE:" + "A" * 4000 + ":", "\0", "é"])
def test_a_credential_that_is_none_is_refused_and_the_broker_goes_on(
    stranger: tuple[Site, zmq.Socket[bytes], bytes], credential: str
) -> None:
    # There: a status 500.
    site, connection, public = stranger
    assert ask(connection, wire.Hello(credential=credential)).code == "unauthenticated"
    proof = trust.prove(public, keyring.public_key(site.config.broker_key), site.munge_socket)
    assert ask(connection, wire.Hello(credential=proof))["name"] == "fresnel"
    with site.client() as client:
        assert client.availability().state is State.READY
