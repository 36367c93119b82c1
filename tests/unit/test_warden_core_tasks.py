"""Tasks: what is taken, how it runs, who hears of it."""

from __future__ import annotations

import pytest
from warden_machine import ALICE, BOB, CAROL, SETTINGS, Machine, Qpu, ready, sequence

from warden import orders, wire
from warden.events import Class
from warden.model import (
    SECOND,
    BadRequestError,
    LimitError,
    TaskStatus,
)


def test_a_task_runs_and_its_owner_gets_the_counts() -> None:
    machine, qpu = ready()
    session = machine.session()
    task = machine.start(session, 100)
    assert task.status is TaskStatus.QUEUED
    run = qpu.take()
    assert (run.task, run.first_shot, run.shots, run.limit) == (task.id, 0, 100, SETTINGS.longest_run)
    machine.later(5)
    qpu.finish(counts={"01": 60, "10": 40})
    done = machine.task(task.id, ALICE)
    assert (done.status, done.counts, done.shots_done) == (TaskStatus.COMPLETED, {"01": 60, "10": 40}, 100)
    assert "completed in 1 run" in done.log[-1]
    assert machine.disk.session(session.id).shots == 100


def test_first_come_first_served_across_sessions_and_one_at_a_time() -> None:
    machine, qpu = ready()
    alice, bob = machine.session(ALICE, "1"), machine.session(BOB, "2")
    order = [machine.start(session).id for session in (alice, bob, alice)]
    for number, task in enumerate(order, 1):
        assert [run.task for run in qpu.runs] == order[:number]
        assert machine.task(task).status is TaskStatus.RUNNING
        qpu.take()
        qpu.finish()


def test_counts_are_shown_only_when_they_are_complete() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session(), 100)
    machine.block(start=5)
    qpu.take()
    machine.later(5)
    qpu.finish(30)
    half = machine.task(task.id, ALICE)
    assert (half.status, half.counts, half.shots_done) == (TaskStatus.QUEUED, {}, 30)


def test_a_request_that_is_repeated_by_its_key_is_one_task() -> None:
    machine, qpu = ready()
    session = machine.session()
    first = machine.start(session, key="same")
    assert machine.start(session, key="same").id == first.id
    qpu.take()
    qpu.finish()
    assert machine.start(session, key="same").status is TaskStatus.COMPLETED
    machine.restart()
    assert machine.start(session, key="same").id == first.id
    assert machine.start(session, key="other").id != first.id


def test_the_same_key_in_another_session_is_another_task() -> None:
    machine, _ = ready()
    alice, bob = machine.session(ALICE, "1"), machine.session(BOB, "2")
    assert machine.start(alice, key="k").id != machine.start(bob, key="k").id


@pytest.mark.parametrize("shots", [0, -1, SETTINGS.max_shots + 1, 10**9, 2**63 - 1])
def test_shots_out_of_range_are_refused(shots: int) -> None:
    machine, qpu = ready()
    with pytest.raises(BadRequestError, match="shots must be between 1 and 1000"):
        machine.start(machine.session(), shots)
    assert qpu.runs == []


def test_a_sequence_for_another_device_or_too_many_atoms_is_refused() -> None:
    machine, qpu = ready(qubits=10)
    session = machine.session()
    with pytest.raises(BadRequestError, match="for the device 'DigitalAnalogDevice'"):
        machine.start(session, text=sequence(device="DigitalAnalogDevice"))
    with pytest.raises(BadRequestError, match="9 atoms, this QPU takes at most 8"):
        machine.start(session, text=sequence(qpu.qubits + 1))
    assert qpu.runs == []


def test_a_sequence_that_is_too_large_is_refused() -> None:
    machine, _ = ready()
    with pytest.raises(LimitError, match="larger than 10000 bytes"):
        machine.start(machine.session(), text=sequence() + " " * 10_000)


def test_queues_are_limited_for_one_and_for_all() -> None:
    machine = Machine(max_queued=7, max_queued_per_user=4)
    Qpu(machine)
    alice, bob = machine.session(ALICE, "1"), machine.session(BOB, "2")
    machine.block()
    for _ in range(4):
        machine.start(alice)
    with pytest.raises(LimitError, match="4 of your tasks wait"):
        machine.start(alice)
    for _ in range(3):
        machine.start(bob)
    with pytest.raises(LimitError, match="7 tasks wait"):
        machine.start(bob)


def test_a_waiting_task_that_is_stopped_never_runs() -> None:
    machine, qpu = ready()
    session = machine.session()
    machine.start(session)
    second = machine.start(session)
    assert machine.ask(wire.TaskStop(task=second.id), ALICE).status is TaskStatus.CANCELLED
    qpu.take()
    qpu.finish()
    assert second.id not in {run.task for run in qpu.runs}
    assert "stopped by its user" in machine.task(second.id).error


def test_the_qpu_is_free_when_the_worker_says_so_and_not_when_a_task_is_cancelled() -> None:
    machine, qpu = ready()
    session = machine.session()
    first, second = machine.start(session), machine.start(session)
    token = qpu.take().token
    assert machine.ask(wire.TaskStop(task=first.id), ALICE).status is TaskStatus.CANCELLED
    assert qpu.told_to_stop(token)
    machine.later(10)
    assert [run.task for run in qpu.runs] == [first.id]
    qpu.finish(10)
    assert [run.task for run in qpu.runs] == [first.id, second.id]
    stopped = machine.task(first.id)
    assert (stopped.status, stopped.counts) == (TaskStatus.CANCELLED, {})
    assert stopped.qpu_time == SECOND


def test_the_run_of_a_cancelled_task_still_has_the_qpu_after_the_broker_was_killed() -> None:
    machine, qpu = ready()
    session = machine.session()
    first, second = machine.start(session), machine.start(session)
    token = qpu.take().token
    machine.ask(wire.TaskStop(task=first.id), ALICE)
    machine.later(1)
    machine.restart()
    qpu.hello()
    assert qpu.told_to_stop(token)
    assert qpu.runs == []
    qpu._say(orders.RunFinished(instance=qpu.instance, token=token, shots=10, counts={"01": 10}, time=SECOND))
    assert [run.task for run in qpu.runs] == [second.id]
    assert machine.task(first.id).qpu_time == SECOND


def test_a_task_that_has_ended_stays_as_it_is_when_it_is_stopped() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session())
    qpu.take()
    qpu.finish()
    assert machine.ask(wire.TaskStop(task=task.id), ALICE).status is TaskStatus.COMPLETED


def test_releasing_a_session_stops_its_run_and_cancels_what_waits() -> None:
    machine, qpu = ready()
    session = machine.session()
    running, waiting = machine.start(session), machine.start(session)
    token = qpu.take().token
    machine.later(1)
    machine.ask(wire.Release(session=session.id), ALICE)
    assert qpu.told_to_stop(token)
    assert {machine.task(t.id).status for t in (running, waiting)} == {TaskStatus.CANCELLED}
    qpu.finish(0)
    assert len(qpu.runs) == 1
    assert machine.disk.session(session.id).qpu_time == SECOND


# --- waiting for a task ---


def test_a_long_poll_is_answered_when_the_task_is_final() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session())
    qpu.take()
    poll = machine.post(wire.GetTask(task=task.id, wait=20 * SECOND), ALICE)
    machine.later(5)
    assert poll not in machine.answers
    qpu.finish()
    assert machine.answers[poll].status is TaskStatus.COMPLETED


def test_a_long_poll_is_answered_when_its_time_is_up() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session())
    qpu.take()
    poll = machine.post(wire.GetTask(task=task.id, wait=20 * SECOND), ALICE)
    machine.later(19.9)
    assert poll not in machine.answers
    machine.later(0.1)
    assert machine.answers[poll].status is TaskStatus.RUNNING


def test_a_long_poll_for_a_task_that_has_ended_is_answered_at_once() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session())
    qpu.take()
    qpu.finish()
    assert machine.ask(wire.GetTask(task=task.id, wait=20 * SECOND), ALICE).status is TaskStatus.COMPLETED


def test_a_long_poll_is_answered_when_the_session_ends() -> None:
    machine, qpu = ready()
    session = machine.session()
    task = machine.start(session)
    qpu.take()
    polls = [machine.post(wire.GetTask(task=task.id, wait=20 * SECOND), ALICE) for _ in range(3)]
    machine.ask(wire.Release(session=session.id))
    assert {machine.answers[poll].status for poll in polls} == {TaskStatus.CANCELLED}


# --- whose turn it is ---

CLASSES = (
    Class(name="production", projects=frozenset({"prod"})),
    Class(name="test", queues=frozenset({"test.q"}), uids=frozenset({CAROL})),
    Class(name="development"),
)


def serve(machine: Machine, qpu: Qpu, runs: int = 1, seconds: float = 10) -> list[int]:
    """Let the QPU work off so many runs, and say whose they were."""
    order = []
    for _ in range(runs):
        order.append(qpu.take().task)
        machine.later(seconds)
        qpu.finish(time=round(seconds * SECOND))
    return order


def test_a_higher_class_waits_for_the_running_run_and_for_nothing_else() -> None:
    machine, qpu = ready(classes=CLASSES, places=9)
    development, test = machine.session(ALICE, "1"), machine.session(ALICE, "2", queue="test.q")
    production, by_user = machine.session(BOB, "3", project="prod"), machine.session(CAROL, "4")
    low = [machine.start(development).id for _ in range(3)]
    middle = [machine.start(session).id for session in (test, by_user)]
    high = [machine.start(production).id for _ in range(2)]
    assert serve(machine, qpu, 7) == [low[0], *high, *middle, *low[1:]]


def test_a_long_task_is_cut_so_that_a_higher_class_gets_its_turn() -> None:
    machine, qpu = ready(classes=CLASSES, places=9, longest_run=22 * SECOND)
    long = machine.start(machine.session(ALICE, "1"), 500)
    assert (qpu.take().shots, qpu.runs[-1].limit) == (200, 22 * SECOND)
    urgent = machine.start(machine.session(BOB, "2", project="prod"), 10)
    qpu.finish()
    assert serve(machine, qpu, 3) == [urgent.id, long.id, long.id]
    done = machine.task(long.id)
    assert (done.status, done.runs, done.counts) == (TaskStatus.COMPLETED, 3, {"01": 500})


def test_who_has_used_less_goes_first_and_his_own_tasks_stay_in_order() -> None:
    machine, qpu = ready(places=9)
    alice, bob = machine.session(ALICE, "1"), machine.session(BOB, "2")
    hers = [machine.start(alice).id for _ in range(4)]
    his = [machine.start(bob).id for _ in range(2)]
    assert serve(machine, qpu, 6) == [hers[0], his[0], hers[1], his[1], *hers[2:]]


def test_what_was_used_long_ago_counts_little_and_survives_the_broker() -> None:
    machine, qpu = ready(places=9, half_life=100 * SECOND, lease=10**6 * SECOND)
    alice, bob = machine.session(ALICE, "1"), machine.session(BOB, "2")
    machine.start(alice)
    serve(machine, qpu, seconds=90)
    machine.later(300)
    machine.restart()
    qpu.hello()
    machine.start(bob)
    serve(machine, qpu, seconds=30)
    machine.block(duration=1)
    his, hers = machine.start(bob).id, machine.start(alice).id
    machine.later(1)
    assert serve(machine, qpu, 2) == [hers, his]


def test_tasks_that_have_waited_too_long_get_every_other_run() -> None:
    machine, qpu = ready(classes=CLASSES, places=9, longest_wait=55 * SECOND)
    production, development = machine.session(BOB, "1", project="prod"), machine.session(ALICE, "2")
    machine.start(production)
    low = [machine.start(development).id for _ in range(3)]
    order = []
    for _ in range(12):
        # A flood of a higher class: there is always one more that has just come.
        machine.start(production)
        order += serve(machine, qpu)
    assert [position for position, task in enumerate(order) if task in low] == [6, 8, 10]
    assert [task for task in order if task in low] == low


def test_first_come_first_served_where_the_site_wants_it() -> None:
    machine, qpu = ready(classes=CLASSES, places=9, fair=False)
    sessions = [machine.session(ALICE, "1"), machine.session(BOB, "2", project="prod"), machine.session(CAROL, "3")]
    order = [machine.start(session).id for session in (*sessions, *sessions)]
    assert serve(machine, qpu, 6) == order


# --- deadlines ---


def test_a_task_that_is_not_done_in_time_fails_and_its_run_is_stopped() -> None:
    machine, qpu = ready()
    session = machine.session()
    late, other = machine.start(session, 100, within=20), machine.start(session)
    run = qpu.take()
    assert run.limit == 20 * SECOND
    poll = machine.post(wire.GetTask(task=late.id, wait=60 * SECOND), ALICE)
    machine.later(20)
    assert machine.answers[poll].status is TaskStatus.FAILED
    assert machine.task(late.id).error == "it was not done by its deadline"
    assert qpu.told_to_stop(run.token)
    qpu.finish(50)
    assert machine.task(late.id).counts == {}
    assert qpu.runs[-1].task == other.id


def test_a_task_that_cannot_make_it_any_more_does_not_waste_the_qpu() -> None:
    machine, qpu = ready()
    session = machine.session()
    first, late = machine.start(session, 100), machine.start(session, 100, within=15)
    qpu.take()
    machine.later(10)
    qpu.finish()
    assert machine.task(first.id).status is TaskStatus.COMPLETED
    assert len(qpu.runs) == 1
    assert "by its deadline" in machine.task(late.id).error


def test_a_deadline_that_no_estimate_meets_is_refused() -> None:
    machine, _ = ready()
    with pytest.raises(BadRequestError, match="100 shots take 12 s, and you want them within 11 s"):
        machine.start(machine.session(), 100, within=11)


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_deadline_is_so_far_away_as_it_was_when_the_clock_is_set(step: int) -> None:
    machine, qpu = ready()
    task = machine.start(machine.session(), 100, within=20)
    qpu.take()
    machine.later(5)
    machine.step_clock(step)
    machine.later(14)
    assert machine.task(task.id).status is TaskStatus.RUNNING
    machine.later(1)
    assert machine.task(task.id).status is TaskStatus.FAILED


# --- lists ---


def test_a_list_comes_in_pages() -> None:
    machine, _ = ready()
    session = machine.session()
    tasks = [machine.start(session).id for _ in range(5)]
    seen: list[int] = []
    before = None
    while page := machine.ask(wire.ListTasks(limit=2, before=before), ALICE):
        seen += [task.id for task in page]
        before = seen[-1]
    assert seen == tasks[::-1]
    sessions = [session.id, machine.session(job="2").id]
    first = machine.ask(wire.ListSessions(limit=1), ALICE)
    second = machine.ask(wire.ListSessions(limit=1, before=first[0].id), ALICE)
    assert {one.id for one in (*first, *second)} == set(sessions)


def test_the_log_of_a_task_with_many_runs_stays_short() -> None:
    machine, qpu = ready(longest_run=3 * SECOND)
    task = machine.start(machine.session(), 1000)
    for _ in range(100):
        qpu.take()
        qpu.finish()
    done = machine.task(task.id)
    assert (done.runs, done.counts) == (100, {"01": 1000})
    assert "queued" in done.log[0]
    assert "completed in 100 runs" in done.log[-1]
    assert len(done.log) < 150
