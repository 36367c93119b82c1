"""The state machine, event by event: sessions, tasks, runs and windows, and workers that lie, die or come twice."""

from __future__ import annotations

import pytest
from warden_machine import ALICE, BOB, OPERATOR, ROOT, SETTINGS, T0, Machine, Qpu, sequence

from warden import wire
from warden.calibration import Calendar, Rule
from warden.model import (
    SECOND,
    BadRequestError,
    BusyError,
    ConflictError,
    ForbiddenError,
    LimitError,
    NotFoundError,
    State,
    TaskStatus,
    UnauthenticatedError,
    UnavailableError,
    Window,
)
from warden.qpu.timing import Timing


def ready(**settings: object) -> tuple[Machine, Qpu]:
    machine = Machine(**settings)
    return machine, Qpu(machine)


# --- sessions ---


def test_the_same_job_gets_the_same_session_again() -> None:
    machine, _ = ready(places=1)
    first = machine.session(ALICE, "7")
    machine.later(10)
    again = machine.session(ALICE, "7")
    assert again.id == first.id
    assert again.expires == first.expires + 10 * SECOND
    assert machine.core.availability(machine.now).used == 1


def test_the_owner_finds_the_session_that_the_prolog_acquired() -> None:
    machine, _ = ready()
    session = machine.session(ALICE, "7")
    assert machine.ask(wire.Acquire(job="7", uid=ALICE), ALICE).id == session.id


@pytest.mark.parametrize(("uid", "for_uid"), [(ALICE, ALICE), (BOB, ALICE), (OPERATOR, OPERATOR)])
def test_a_user_cannot_make_a_session(uid: int, for_uid: int) -> None:
    machine, _ = ready()
    machine.session(ALICE, "6")
    with pytest.raises(ForbiddenError, match="qsub -l qpu=1"):
        machine.ask(wire.Acquire(job="7", uid=for_uid), uid)


def test_nobody_finds_the_session_of_another_user_s_job() -> None:
    machine, _ = ready()
    machine.session(ALICE, "7")
    for pretended in (ALICE, BOB):
        with pytest.raises(ForbiddenError):
            machine.ask(wire.Acquire(job="7", uid=pretended), BOB)


def test_a_job_number_that_comes_again_for_another_user_ends_the_old_session() -> None:
    machine, _ = ready(places=1)
    old = machine.session(ALICE, "7")
    new = machine.session(BOB, "7")
    assert new.id != old.id
    assert machine.disk.session(old.id).ended == T0


def test_places_are_counted_and_a_release_gives_one_back() -> None:
    machine, _ = ready(places=2)
    first, _second = machine.session(job="1"), machine.session(job="2")
    with pytest.raises(BusyError, match="all places on the QPU fresnel are taken"):
        machine.session(job="3")
    machine.ask(wire.Release(session=first.id))
    assert machine.session(job="3").job == "3"


def test_no_session_while_the_qpu_is_away_or_blocked() -> None:
    machine = Machine()
    with pytest.raises(BusyError, match="offline"):
        machine.session()
    Qpu(machine)
    machine.block(duration=60)
    with pytest.raises(BusyError, match=r"maintenance until 20\d\d-"):
        machine.session()
    machine.later(60)
    machine.session()


def test_a_job_that_has_a_session_finds_it_while_the_qpu_is_blocked() -> None:
    machine, _ = ready()
    session = machine.session(job="7")
    machine.block()
    assert machine.session(job="7").id == session.id


def test_release_can_be_repeated() -> None:
    machine, _ = ready()
    session = machine.session()
    assert machine.ask(wire.Release(session=session.id)) == machine.ask(wire.Release(session=session.id))


def test_a_lease_that_nobody_renews_runs_out_and_takes_the_tasks_with_it() -> None:
    machine, qpu = ready()
    session = machine.session()
    running, waiting = machine.start(session, 1000), machine.start(session)
    token = qpu.take().token
    machine.later(SETTINGS.lease / SECOND)
    assert "lease ran out" in machine.disk.session(session.id).end_reason
    assert [machine.task(t.id).status for t in (running, waiting)] == [TaskStatus.CANCELLED] * 2
    assert qpu.told_to_stop(token)
    with pytest.raises(ForbiddenError, match="the session has ended: its lease ran out"):
        machine.start(session)


def test_the_execution_host_that_sees_the_job_keeps_its_lease_alive() -> None:
    machine, _ = ready()
    here, elsewhere = machine.session(job="1", host="node1"), machine.session(job="2", host="node2")
    for _ in range(10):
        machine.later(SETTINGS.lease / SECOND / 2)
        assert machine.ask(wire.Renew(host="node1", jobs=("1", "3"))) == 1
    assert machine.disk.session(here.id).ended is None
    assert machine.disk.session(elsewhere.id).ended is not None


def test_use_keeps_a_lease_alive_but_an_operator_s_look_does_not() -> None:
    machine, _ = ready()
    used, watched = machine.session(ALICE, "1"), machine.session(BOB, "2")
    tasks = {ALICE: machine.start(used), BOB: machine.start(watched)}
    for _ in range(3):
        machine.later(SETTINGS.lease / SECOND / 2)
        machine.task(tasks[ALICE].id, ALICE)
        machine.task(tasks[BOB].id, OPERATOR)
    assert machine.disk.session(used.id).ended is None
    assert machine.disk.session(watched.id).ended is not None


def test_another_user_s_tasks_and_sessions_do_not_exist() -> None:
    machine, _ = ready()
    session = machine.session(ALICE)
    task = machine.start(session)
    missing = task.id + 1000
    for body in (wire.GetTask(task=task.id), wire.GetTask(task=missing), wire.TaskStop(task=task.id)):
        with pytest.raises(NotFoundError, match=r"^there is no such task of yours$"):
            machine.ask(body, BOB)
    for identifier in (session.id, "missing"):
        with pytest.raises(NotFoundError, match=r"^there is no such session of yours$"):
            machine.ask(wire.Release(session=identifier), BOB)
        with pytest.raises(ForbiddenError, match=r"^there is no such session of yours"):
            machine.ask(wire.TaskStart(session=identifier, sequence=sequence(), shots=1, key="k"), BOB)
    assert machine.ask(wire.ListTasks(), BOB) == []
    assert machine.ask(wire.ListTasks(session=session.id), BOB) == []
    assert machine.ask(wire.ListSessions(ended=True), BOB) == []
    assert machine.ask(wire.ListSessions(job=session.job), BOB) == []
    assert machine.task(task.id).status is TaskStatus.RUNNING


def test_an_operator_sees_and_stops_everybody_s_but_starts_nothing_in_their_name() -> None:
    machine, _ = ready()
    session = machine.session(ALICE)
    task = machine.start(session)
    assert [t.id for t in machine.ask(wire.ListTasks(everybody=True), OPERATOR)] == [task.id]
    assert [s.id for s in machine.ask(wire.ListSessions(everybody=True), OPERATOR)] == [session.id]
    assert machine.ask(wire.TaskStop(task=task.id), OPERATOR).status is TaskStatus.CANCELLED
    for uid in (OPERATOR, ROOT):
        with pytest.raises(ForbiddenError):
            machine.ask(wire.TaskStart(session=session.id, sequence=sequence(), shots=1, key="k"), uid)


@pytest.mark.parametrize("body", [wire.ListTasks(everybody=True), wire.ListSessions(everybody=True)])
def test_everybody_s_lists_are_for_operators(body: wire.Message) -> None:
    machine, _ = ready()
    with pytest.raises(ForbiddenError, match="only operators"):
        machine.ask(body, ALICE)


def test_who_has_not_said_who_he_is_learns_only_what_is_public() -> None:
    machine, _ = ready()
    session = machine.session()
    assert machine.ask(wire.GetAvailability(), None).state is State.READY
    assert machine.ask(wire.GetTarget(), None) == "{}"
    with pytest.raises(UnauthenticatedError):
        machine.ask(wire.Release(session=session.id), None)


# --- tasks ---


def test_a_task_runs_and_its_owner_gets_the_counts() -> None:
    machine, qpu = ready()
    session = machine.session()
    task = machine.start(session, 100)
    assert task.status is TaskStatus.QUEUED
    run = qpu.take()
    assert (run.task, run.first_shot, run.shots, run.limit) == (task.id, 0, 100, None)
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
    machine.later(60)
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
    qpu._say(wire.RunFinished(instance=qpu.instance, token=token, shots=10, counts={"01": 10}, time=SECOND))
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


# --- windows ---


def test_a_task_too_long_for_the_gap_is_cut_and_its_counts_are_merged() -> None:
    rule = Rule(every=20 * SECOND, duration=10 * SECOND, offset=12 * SECOND)  # free from :02 to :12 of each 20 s
    machine = Machine(Calendar((rule,)), now=T0 + 2 * SECOND)
    qpu = Qpu(machine)
    task = machine.start(machine.session(), 150)
    parts = [{"01": 50, "10": 30}, {"01": 1, "11": 69}]
    assert qpu.take().shots == 80  # 2 s of overhead, 8 s at 10 shots a second
    machine.later(10)
    qpu.finish(counts=parts[0])
    assert machine.status() == "calibrating"
    machine.later(9.9)
    assert len(qpu.runs) == 1
    machine.later(0.1)
    second = qpu.take()
    assert (second.first_shot, second.shots) == (80, 70)
    machine.later(9)
    qpu.finish(counts=parts[1])
    done = machine.task(task.id)
    assert (done.status, done.counts, done.runs) == (TaskStatus.COMPLETED, {"01": 51, "10": 30, "11": 69}, 2)


def test_nothing_starts_when_not_one_shot_fits_before_the_window() -> None:
    machine, qpu = ready()
    machine.block(start=2.05, duration=60)  # the overhead alone is 2 s, a shot 0.1 s
    machine.start(machine.session())
    assert qpu.runs == []
    machine.later(62.05)
    assert len(qpu.runs) == 1


def test_a_run_knows_the_time_that_it_has() -> None:
    machine, qpu = ready()
    machine.block(start=30, duration=60)
    machine.start(machine.session(), 100)
    assert qpu.runs[0].limit == 30 * SECOND


def test_a_window_that_is_added_during_a_run_stops_it_when_it_opens_and_its_shots_count() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session(), 100)
    run = qpu.take()
    machine.block(start=5, duration=60)
    machine.later(4.9)
    assert not qpu.told_to_stop(run.token)
    machine.later(0.1)
    assert qpu.told_to_stop(run.token)
    qpu.finish(40)
    machine.later(60)
    assert (qpu.take().first_shot, qpu.runs[-1].shots) == (40, 60)
    qpu.finish()
    assert machine.task(task.id).counts == {"01": 100}


def test_drain_stops_the_run_and_resume_goes_on_with_the_rest() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session(), 100)
    run = qpu.take()
    machine.block()
    assert machine.status() == "maintenance"
    assert qpu.told_to_stop(run.token)
    qpu.finish(10)
    machine.later(3600 / 10)
    assert len(qpu.runs) == 1
    assert machine.ask(wire.Resume(), OPERATOR).state is State.READY
    assert qpu.take().shots == 90
    qpu.finish()
    assert machine.task(task.id).status is TaskStatus.COMPLETED


def test_a_drain_outlives_the_broker() -> None:
    machine, qpu = ready()
    machine.block()
    machine.restart()
    qpu.hello()
    assert machine.status() == "maintenance"
    machine.ask(wire.Resume(), OPERATOR)
    machine.restart()
    qpu.hello()
    assert machine.status() == "ready"


def test_resume_without_a_maintenance_is_a_conflict() -> None:
    machine, _ = ready()
    with pytest.raises(ConflictError, match="no maintenance is on"):
        machine.ask(wire.Resume(), OPERATOR)


def test_a_window_ends_by_itself_and_the_waiting_task_starts() -> None:
    machine, qpu = ready()
    machine.block(duration=30)
    session = None
    with pytest.raises(BusyError):
        session = machine.session()
    assert session is None
    machine.later(30)
    machine.start(machine.session())
    assert len(qpu.runs) == 1


def test_the_plan_shows_the_block_that_is_on_first() -> None:
    machine = Machine(Calendar((Rule(every=3600 * SECOND, duration=60 * SECOND, offset=1800 * SECOND),)))
    now = machine.block(duration=60)
    plan = machine.ask(wire.GetPlan(count=3), None)
    assert plan[0] == now
    assert [w.start - T0 for w in plan[1:]] == [1800 * SECOND, 5400 * SECOND]


def test_an_operator_takes_back_a_window_but_not_a_rule_s() -> None:
    machine = Machine(Calendar((Rule(every=3600 * SECOND, duration=60 * SECOND),)))
    window = machine.block(start=100, duration=60)
    assert machine.ask(wire.CancelWindow(start=window.start), OPERATOR) == window
    with pytest.raises(NotFoundError, match="no window that an operator added"):
        machine.ask(wire.CancelWindow(start=window.start), OPERATOR)
    with pytest.raises(NotFoundError, match="comes from a rule"):
        machine.ask(wire.CancelWindow(start=T0 + 3600 * SECOND), OPERATOR)


def test_a_window_far_in_the_future_can_be_asked_to_be_taken_back() -> None:
    machine = Machine(Calendar((Rule(every=3600 * SECOND, duration=60 * SECOND),)))
    with pytest.raises(NotFoundError):
        machine.ask(wire.CancelWindow(start=2**57), OPERATOR)


def test_windows_that_make_no_sense_are_refused() -> None:
    machine, _ = ready()
    with pytest.raises(BadRequestError, match="in the past"):
        machine.block(start=-100, duration=10)
    with pytest.raises(BadRequestError, match="a calibration needs a duration"):
        machine.block(kind="calibrating")


def test_a_block_until_the_end_of_time_can_be_told_about() -> None:
    machine, _ = ready()
    for start, duration in [(T0, 2**59), (2**61, 1), (2**61, None)]:
        with pytest.raises(BadRequestError, match="too far"):
            machine.ask(wire.AddWindow(kind="maintenance", start=start, duration=duration), OPERATOR)
    machine.block(duration=10**10)
    with pytest.raises(BusyError, match="until 2"):
        machine.session()


def test_windows_that_are_over_are_not_kept_for_ever() -> None:
    machine, _ = ready()
    for _ in range(50):
        machine.block(duration=1)
        machine.later(2)
    assert len(machine.disk.remember().windows) <= 1


@pytest.mark.parametrize("uid", [ALICE, BOB])
@pytest.mark.parametrize("body", [wire.AddWindow(kind="maintenance"), wire.CancelWindow(start=T0), wire.Resume()])
def test_only_operators_plan(uid: int, body: wire.Message) -> None:
    machine, _ = ready()
    with pytest.raises(ForbiddenError, match="only operators"):
        machine.ask(body, uid)


def test_a_task_that_fits_between_no_two_windows_is_refused() -> None:
    rule = Rule(every=10 * SECOND, duration=9 * SECOND)
    machine = Machine(Calendar((rule,)), now=T0 + 9 * SECOND)
    Qpu(machine)
    with pytest.raises(BadRequestError, match="not one shot fits between two calibration windows"):
        machine.start(machine.session())


# --- the worker ---


def test_a_second_worker_is_refused_while_the_first_is_alive() -> None:
    machine, first = ready()
    machine.start(machine.session())
    first.take()
    second = Qpu(machine, "w2")
    assert any(isinstance(body, wire.Unwelcome) for body in second.heard)
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
    with pytest.raises(UnavailableError):
        machine.ask(wire.GetTarget(), None)


def test_a_planned_maintenance_explains_a_missing_worker() -> None:
    machine = Machine()
    machine.block()
    assert machine.status() == "maintenance"


def test_a_worker_that_was_silent_for_too_long_has_to_say_hello_again() -> None:
    machine, qpu = ready()
    qpu.die()
    machine.later(60)
    qpu.beat()
    assert qpu.heard[-1] == wire.Unwelcome(text="say hello again")
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
    machine, qpu = ready()
    session = machine.session()
    deadly, harmless = machine.start(session), machine.start(session)
    for life in range(2, 20):
        if qpu.runs[-1].task == harmless.id:
            break
        qpu.die()
        machine.later(10)
        qpu = Qpu(machine, instance=f"w{life}")
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
    qpu._say(wire.RunFinished(instance=qpu.instance, token=token, shots=100, counts={"01": 100}, time=SECOND))
    done = machine.task(task.id)
    assert (done.status, done.runs, done.repeats) == (TaskStatus.COMPLETED, 1, 0)
    assert wire.ForgetRun(token=token) in qpu.heard


def test_a_result_under_an_old_token_changes_nothing() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session())
    old = qpu.take().token
    qpu.die()
    machine.later(10)
    again = Qpu(machine, "w2")
    before = machine.task(task.id)
    qpu._say(wire.RunFinished(instance=qpu.instance, token=old, shots=100, counts={"10": 100}, time=SECOND))
    assert machine.task(task.id) == before
    assert wire.ForgetRun(token=old) in qpu.heard
    again.take()
    again.finish()
    assert machine.task(task.id).counts == {"01": 100}


def test_a_result_that_comes_twice_counts_once() -> None:
    machine, qpu = ready()
    session = machine.session()
    task = machine.start(session)
    run = qpu.take()
    finished = wire.RunFinished(instance=qpu.instance, token=run.token, shots=100, counts={"01": 100}, time=SECOND)
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
        ({"shots": 0, "counts": {}, "error": "it burns"}, "it burns"),
    ],
)
def test_a_result_that_cannot_be_true_fails_its_task_alone(lie: dict[str, object], complaint: str) -> None:
    machine, qpu = ready()
    session = machine.session()
    victim, other = machine.start(session), machine.start(session)
    qpu.take()
    qpu.finish(**lie)
    failed = machine.task(victim.id)
    assert failed.status is TaskStatus.FAILED
    assert complaint in failed.error
    assert (failed.counts, failed.shots_done) == ({}, 0)
    qpu.take()
    qpu.finish()
    assert machine.task(other.id).status is TaskStatus.COMPLETED
    assert machine.disk.session(session.id).shots == 100


def test_no_time_is_accounted_that_has_not_passed() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session())
    qpu.take()
    machine.later(3)
    qpu.finish(time=10**15)
    assert machine.task(task.id).qpu_time == 3 * SECOND


def test_a_task_whose_runs_never_yield_a_shot_does_not_keep_the_qpu_for_ever() -> None:
    machine, qpu = ready()
    session = machine.session()
    task, other = machine.start(session), machine.start(session)
    for _ in range(100):
        if machine.task(task.id).status.final:
            break
        qpu.take()
        qpu.finish(0)
    assert machine.task(task.id).status is TaskStatus.FAILED
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
        T0 + 100 * SECOND, T0 + 101 * SECOND, State.CALIBRATING, "calibrating"
    )
