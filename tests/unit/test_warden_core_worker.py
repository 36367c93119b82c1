"""The worker: one run at a time, whatever it does, loses, or pretends."""

from __future__ import annotations

import pytest
from warden_machine import ALICE, OPERATOR, SETTINGS, T0, Machine, Qpu, ready, sequence

from warden import orders, wire
from warden.model import (
    SECOND,
    BadRequestError,
    State,
    TaskStatus,
    UnavailableError,
    Window,
)
from warden.qpu.timing import Timing


def test_a_second_worker_is_refused_while_the_first_is_alive() -> None:
    machine, first = ready()
    machine.start(machine.session())
    first.take()
    second = Qpu(machine, "w2")
    assert any(isinstance(body, orders.Unwelcome) for body in second.heard)
    machine.later(60)
    assert second.runs == []
    assert len(first.runs) == 1


def test_a_second_worker_takes_over_when_the_first_is_gone() -> None:
    machine, first = ready()
    first.die()
    second = Qpu(machine, "w2")
    machine.later(10)
    assert machine.status() == "offline"
    second.hello()
    machine.start(machine.session())
    assert len(second.runs) == 1


def test_a_worker_that_vanishes_is_noticed_within_three_heartbeats() -> None:
    machine, qpu = ready()
    machine.later(100)
    assert machine.status() == "ready"
    qpu.die()
    machine.later(3 * SETTINGS.heartbeat / SECOND)
    assert machine.status() == "offline"


def test_the_device_is_known_from_its_first_worker_on() -> None:
    machine = Machine()
    with pytest.raises(UnavailableError, match="never there"):
        machine.ask(wire.GetTarget(), None)
    Qpu(machine, qubits=4).die()
    machine.later(60)
    machine.restart()
    assert machine.status() == "offline"
    assert machine.ask(wire.GetTarget(), None) == "{}"
    session = machine.disk  # what was refused is in no store
    assert machine.core.availability(machine.now).qubits == 4
    assert session.remember().tasks == ()


def test_what_the_device_cannot_do_is_refused_while_its_worker_is_away() -> None:
    machine, qpu = ready()
    session = machine.session()
    qpu.die()
    machine.later(60)
    for text in (sequence(9), sequence(2, device="DigitalAnalogDevice")):
        with pytest.raises(BadRequestError):
            machine.start(session, text=text)


def test_a_task_that_another_worker_s_device_cannot_do_fails_in_words() -> None:
    machine, qpu = ready()
    session = machine.session()
    machine.block()
    large, small = machine.start(session, text=sequence(6)), machine.start(session, text=sequence(2))
    qpu.die()
    machine.later(60)
    smaller = Qpu(machine, "w2", qubits=4)
    machine.ask(wire.Resume(), OPERATOR)
    assert machine.task(large.id).status is TaskStatus.FAILED
    assert "it has 6 atoms, and the QPU takes 4 by now" in machine.task(large.id).error
    assert [run.task for run in smaller.runs] == [small.id]


def test_a_planned_maintenance_explains_a_missing_worker() -> None:
    machine = Machine()
    machine.block()
    assert machine.status() == "maintenance"


def test_a_worker_that_was_silent_for_too_long_has_to_say_hello_again() -> None:
    machine, qpu = ready()
    qpu.die()
    machine.later(60)
    qpu.beat()
    assert qpu.heard[-1] == orders.Unwelcome(text="say hello again")
    assert machine.status() == "offline"
    qpu.hello()
    assert machine.status() == "ready"


def test_a_worker_that_comes_back_with_its_run_hands_it_in() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session())
    qpu.take()
    qpu.die()
    machine.later(60)
    assert machine.status() == "offline"
    machine.qpus.append(qpu)
    qpu.hello()
    assert len(qpu.runs) == 1
    qpu.finish()
    done = machine.task(task.id)
    assert (done.status, done.runs, done.repeats) == (TaskStatus.COMPLETED, 1, 0)


def test_a_run_is_repeated_when_its_worker_comes_without_it_and_the_log_says_so() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session())
    lost = qpu.take().token
    qpu.die()
    machine.later(10)
    again = Qpu(machine, "w2")
    run = again.take()
    assert (run.task, run.first_shot) == (task.id, 0)
    assert run.token != lost
    again.finish()
    done = machine.task(task.id)
    assert (done.status, done.repeats, done.counts) == (TaskStatus.COMPLETED, 1, {"01": 100})
    assert any("was lost with its worker and will be repeated" in line for line in done.log)


def test_a_task_that_loses_its_worker_again_and_again_gives_the_qpu_to_others() -> None:
    machine, qpu = ready(lease=10**7 * SECOND)
    session = machine.session()
    deadly, harmless = machine.start(session), machine.start(session)
    for life in range(2, 20):
        if qpu.runs and qpu.runs[-1].task == harmless.id:
            break
        qpu.die()
        machine.later(1000)
        qpu = Qpu(machine, instance=f"w{life}")
        machine.later(10_000)
    else:
        pytest.fail("the task behind it never ran")
    assert machine.task(deadly.id).status is TaskStatus.FAILED
    assert "was lost" in machine.task(deadly.id).error


def test_a_lost_worker_s_run_keeps_the_qpu_until_a_worker_is_there() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session())
    qpu.die()
    machine.later(300)
    assert machine.task(task.id).status is TaskStatus.RUNNING


def test_an_order_that_was_lost_on_its_way_is_repeated() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session())
    assert qpu.token == ""  # the connection broke: the worker never saw the order, and beats on
    machine.later(10)
    assert [run.task for run in qpu.runs] == [task.id, task.id]
    qpu.take()
    machine.later(30)
    assert len(qpu.runs) == 2
    qpu.finish()
    assert machine.task(task.id).status is TaskStatus.COMPLETED


def test_what_a_worker_said_before_it_got_its_order_does_not_lose_the_run() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session())
    # A queue that the broker had left alone for long: the worker did not know better when it said this.
    machine.now += 100 * SECOND
    for _ in range(3):
        qpu.hello()
        qpu.beat()
    qpu.take()
    qpu.beat()
    machine.later(100)
    assert [run.task for run in qpu.runs] == [task.id]
    qpu.finish()
    assert (machine.task(task.id).status, machine.task(task.id).repeats) == (TaskStatus.COMPLETED, 0)


def test_an_order_to_stop_that_was_lost_on_its_way_is_repeated() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session())
    token = qpu.take().token
    machine.ask(wire.TaskStop(task=task.id), ALICE)
    machine.told.clear()
    machine.later(10)
    assert qpu.told_to_stop(token)


def test_a_result_is_taken_after_the_broker_was_killed_and_the_run_is_not_repeated() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session())
    token = qpu.take().token
    machine.restart()
    qpu.hello()
    assert qpu.runs == []
    qpu._say(orders.RunFinished(instance=qpu.instance, token=token, shots=100, counts={"01": 100}, time=SECOND))
    done = machine.task(task.id)
    assert (done.status, done.runs, done.repeats) == (TaskStatus.COMPLETED, 1, 0)
    assert orders.ForgetRun(token=token) in qpu.heard


def test_a_result_under_an_old_token_changes_nothing() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session())
    old = qpu.take().token
    qpu.die()
    machine.later(10)
    again = Qpu(machine, "w2")
    before = machine.task(task.id)
    qpu._say(orders.RunFinished(instance=qpu.instance, token=old, shots=100, counts={"10": 100}, time=SECOND))
    assert machine.task(task.id) == before
    assert orders.ForgetRun(token=old) in qpu.heard
    again.take()
    again.finish()
    assert machine.task(task.id).counts == {"01": 100}


def test_a_result_that_comes_twice_counts_once() -> None:
    machine, qpu = ready()
    session = machine.session()
    task = machine.start(session)
    run = qpu.take()
    finished = orders.RunFinished(instance=qpu.instance, token=run.token, shots=100, counts={"01": 100}, time=SECOND)
    qpu._say(finished)
    qpu._say(finished)
    assert machine.task(task.id).counts == {"01": 100}
    assert machine.disk.session(session.id).shots == 100


def test_a_worker_that_holds_an_unknown_run_is_told_to_stop_it() -> None:
    machine = Machine()
    qpu = Qpu(machine)
    qpu.token = "of another life"
    qpu.hello()
    assert qpu.told_to_stop("of another life")


@pytest.mark.parametrize(
    ("lie", "complaint"),
    [
        ({"shots": 101, "counts": {"01": 101}}, "101 shots where 100 were asked for"),
        ({"shots": 100, "counts": {"01": 99}}, "counts that do not add up"),
        ({"shots": 100, "counts": {"01": 101}}, "counts that do not add up"),
        ({"shots": 100, "counts": {}}, "counts that do not add up"),
        ({"shots": 100, "counts": {"011": 100}}, "bitstrings of another length"),
        ({"shots": 100, "counts": {"0": 50, "01": 50}}, "bitstrings of another length"),
        ({"shots": 0, "counts": {}, "error": "it burns", "fault": "device"}, "it burns"),
    ],
)
def test_a_result_that_cannot_be_true_is_repeated_and_said(lie: dict[str, object], complaint: str) -> None:
    machine, qpu = ready()
    session = machine.session()
    task = machine.start(session)
    qpu.take()
    qpu.finish(**lie)
    qpu.take()
    qpu.finish()
    done = machine.task(task.id)
    assert (done.status, done.counts, done.repeats) == (TaskStatus.COMPLETED, {"01": 100}, 1)
    assert any(complaint in line and line.endswith("and will be repeated") for line in done.log)
    assert machine.disk.session(session.id).shots == 100


def test_a_sequence_that_the_device_refuses_fails_its_task_alone() -> None:
    machine, qpu = ready()
    session = machine.session()
    victim, other = machine.start(session), machine.start(session)
    qpu.take()
    qpu.finish(shots=0, error="Pulser refuses it", fault="task")
    failed = machine.task(victim.id)
    assert (failed.status, failed.error, failed.counts) == (TaskStatus.FAILED, "Pulser refuses it", {})
    qpu.take()
    qpu.finish()
    assert machine.task(other.id).status is TaskStatus.COMPLETED
    assert machine.status() == "ready"


def test_a_qpu_that_fails_again_and_again_is_left_alone_for_a_while_and_the_queue_lives() -> None:
    machine, qpu = ready()
    session = machine.session()
    tasks = [machine.start(session) for _ in range(4)]

    def fail() -> None:
        qpu.take()
        qpu.finish(shots=0, error="no laser", fault="device")

    for _ in range(SETTINGS.failures):
        fail()
    answer = machine.core.availability(machine.now)
    assert (answer.state, answer.until) == (State.OFFLINE, T0 + SETTINGS.retry)
    assert "3 runs in a row failed" in answer.reason
    assert "no laser" in answer.reason
    assert len(qpu.runs) == SETTINGS.failures
    assert {machine.task(task.id).status for task in tasks} == {TaskStatus.QUEUED}
    machine.ask(wire.Renew(host="node1", jobs=("1",)))
    machine.later(SETTINGS.retry / SECOND)
    fail()
    assert machine.core.availability(machine.now).until == machine.now + 2 * SETTINGS.retry
    machine.ask(wire.Resume(), OPERATOR)
    for _ in tasks:
        qpu.take()
        qpu.finish()
    assert {machine.task(task.id).status for task in tasks} == {TaskStatus.COMPLETED}
    assert machine.status() == "ready"


def test_a_worker_that_talks_nonsense_in_a_run_has_failed_it() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session())
    qpu.take()
    machine.later(10)
    qpu.babble()
    # It says so again, before it has heard that nobody wants it.
    qpu.babble()
    assert len(qpu.runs) == 2
    qpu.take()
    qpu.finish()
    done = machine.task(task.id)
    assert (done.status, done.repeats) == (TaskStatus.COMPLETED, 1)
    assert any("garbage" in line for line in done.log)


def test_a_run_that_does_not_end_is_given_up_and_the_queue_moves_on() -> None:
    machine, qpu = ready(longest_run=60 * SECOND)
    session = machine.session()
    hanging = machine.start(session)
    qpu.take()
    machine.later(60 + 3 * SETTINGS.heartbeat / SECOND + 10)
    assert qpu.told_to_stop(qpu.runs[0].token)
    assert len(qpu.runs) == 2
    late = orders.RunFinished(
        instance=qpu.instance, token=qpu.runs[0].token, shots=100, counts={"10": 100}, time=SECOND
    )
    qpu._say(late)
    qpu.take()
    qpu.finish()
    done = machine.task(hanging.id)
    assert (done.counts, done.repeats) == ({"01": 100}, 1)
    assert any("did not end" in line for line in done.log)


def test_no_time_is_accounted_that_has_not_passed() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session())
    qpu.take()
    machine.later(3)
    qpu.finish(time=10**15)
    assert machine.task(task.id).qpu_time == 3 * SECOND


def test_a_qpu_that_gives_nothing_at_once_is_taken_offline_and_no_task_fails_by_it() -> None:
    machine, qpu = ready()
    session = machine.session()
    tasks = [machine.start(session) for _ in range(4)]
    for _ in range(SETTINGS.failures):
        qpu.take()
        qpu.finish(0)
    assert machine.status() == "offline"
    assert {machine.task(task.id).status for task in tasks} == {TaskStatus.QUEUED}


def test_a_worker_that_comes_back_again_and_again_does_not_keep_its_run_for_ever() -> None:
    machine, qpu = ready(longest_run=60 * SECOND, lease=10**6 * SECOND)
    task = machine.start(machine.session())
    qpu.take()
    for _ in range(1000):
        if machine.task(task.id).repeats:
            return
        machine.later(1)
        qpu.hello()
    pytest.fail("it has the run still")


@pytest.mark.parametrize("end", [wire.TaskStop(task=1), wire.Release(session="id-1")])
def test_what_ends_in_the_moment_in_which_its_run_is_given_up_stays_ended(end: wire.Message) -> None:
    machine, qpu = ready(longest_run=60 * SECOND)
    session = machine.session()
    task = machine.start(session)
    assert (task.id, session.id) == (1, "id-1")
    qpu.take()
    machine.later(70)
    qpu.beat()
    machine.now += 7 * SECOND
    machine.ask(end, ALICE)
    machine.later(60)
    assert machine.task(task.id).status is TaskStatus.CANCELLED
    assert len(qpu.runs) == 1
    assert (machine.disk.session(session.id).ended is None) == isinstance(end, wire.TaskStop)


def test_a_task_whose_runs_never_yield_a_shot_does_not_keep_the_qpu_for_ever() -> None:
    machine, qpu = ready(longest_run=13 * SECOND)
    session = machine.session()
    task, other = machine.start(session), machine.start(session)
    for _ in range(100):
        if machine.task(task.id).status.final:
            break
        qpu.take()
        machine.later(13)
        qpu.finish(0)
    assert "ended at their limit without a shot" in machine.task(task.id).error
    assert qpu.runs[-1].task == other.id


def test_an_endless_shot_rate_puts_no_limit_on_a_gap() -> None:
    machine = Machine(timing=Timing(overhead=0, shot_rate=0.0))
    qpu = Qpu(machine)
    machine.block(start=1, duration=60)
    machine.start(machine.session(), 1000)
    assert qpu.runs[0].shots == 1000


def test_a_window_seen_from_inside_and_outside_gives_the_seconds_for_the_scheduler() -> None:
    machine, _ = ready()
    machine.block(start=90.5, duration=10)
    assert machine.core.availability(machine.now).seconds_to_window() == 90
    assert machine.core.availability(machine.now).open_places == 2
    machine.later(90.5)
    assert machine.core.availability(machine.now).seconds_to_window() == 0
    assert machine.core.availability(machine.now).open_places == 0


def test_the_state_says_until_when() -> None:
    machine, _ = ready()
    machine.block(duration=60)
    answer = machine.core.availability(machine.now)
    assert (answer.state, answer.until) == (State.MAINTENANCE, T0 + 60 * SECOND)
    assert answer.next_window is None
    machine.ask(wire.AddWindow(kind="calibrating", start=T0 + 100 * SECOND, duration=SECOND), OPERATOR)
    assert machine.core.availability(machine.now).next_window == Window(
        T0 + 100 * SECOND, T0 + 101 * SECOND, State.CALIBRATING, "calibrating", 2
    )
