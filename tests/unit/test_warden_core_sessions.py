"""Sessions: who gets one, what keeps it alive, and what ends it."""

from __future__ import annotations

from typing import Any

import pytest
from warden_machine import ALICE, BOB, OPERATOR, ROOT, SETTINGS, T0, Machine, Qpu, ready, sequence

from warden import wire
from warden.events import Class, Started, Tick
from warden.model import (
    SECOND,
    BusyError,
    ForbiddenError,
    LimitError,
    NotFoundError,
    State,
    TaskStatus,
    UnauthenticatedError,
)


def test_the_same_job_gets_the_same_session_again() -> None:
    machine, _ = ready(places=1)
    first = machine.session(ALICE, "7")
    machine.later(10)
    again = machine.session(ALICE, "7")
    assert again.id == first.id
    assert again.expires == first.expires + 10 * SECOND
    assert machine.core.availability(machine.now).used == 1


def test_a_job_that_nobody_sees_ends_however_often_the_broker_is_started() -> None:
    machine, _ = ready()
    machine.session(ALICE, "7")
    for _ in range(10):
        machine.later(500)
        machine.restart()
    assert machine.core.availability(machine.now).used == 0


def test_a_job_that_is_seen_outlives_any_number_of_starts() -> None:
    machine, _ = ready()
    machine.session(ALICE, "7")
    for _ in range(20):
        machine.later(500)
        machine.restart()
        machine.later(30)
        assert machine.ask(wire.Renew(host="node1", jobs=("7",))).sessions == 1


@pytest.mark.parametrize("stalls", [1, 50])
def test_a_broker_that_was_stopped_gives_each_lease_that_time_and_no_more(stalls: int) -> None:
    machine, _ = ready()
    session = machine.session(ALICE, "7")
    for _ in range(stalls):
        machine.now += 1000 * SECOND
        machine.send(Started(away=1000 * SECOND))
        machine.send(Tick())
        machine.later(10)
    [kept] = machine.disk.remember().sessions
    assert kept.expires - session.expires == stalls * 1000 * SECOND
    machine.later(600)
    assert machine.core.availability(machine.now).used == 0


@pytest.mark.parametrize(
    ("uid", "told"), [(OPERATOR, "ended by an operator"), (ROOT, "ended by an operator"), (ALICE, "released")]
)
def test_a_user_reads_that_an_operator_has_ended_his_session(uid: int, told: str) -> None:
    machine, _ = ready()
    session = machine.session(ALICE, "7")
    task = machine.start(session)
    machine.ask(wire.Release(session=session.id, reason="ended by an operator"), uid)
    assert machine.task(task.id).error == f"its session ended: {told}"


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
        assert machine.ask(wire.Renew(host="node1", jobs=("1", "3"))).sessions == 1
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


def test_a_page_that_begins_below_what_is_forgotten_is_refused_where_nobody_knows_what_is_older() -> None:
    machine, qpu = ready(keep=3600 * SECOND, lease=86400 * SECOND)
    first, second = machine.session(job="1"), machine.session(job="2")
    older, forgotten, newer = machine.start(first), machine.start(second), machine.start(first)
    machine.ask(wire.Release(session=second.id))
    qpu.die()
    machine.later(3700)
    assert machine.disk.session(second.id) is machine.disk.task(forgotten.id) is None
    with pytest.raises(NotFoundError, match="not kept any more: list anew"):
        machine.ask(wire.ListSessions(ended=True, before=second.id), ALICE)
    # Of tasks everybody knows: their numbers say it.
    assert [task.id for task in machine.ask(wire.ListTasks(before=newer.id), ALICE)] == [older.id]
    assert [task.id for task in machine.ask(wire.ListTasks(before=forgotten.id), ALICE)] == [older.id]


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


# --- one start of a job and another ---


def test_a_prolog_that_asks_again_gets_the_session_of_its_start() -> None:
    machine, _ = ready(places=1)
    session = machine.session(start="node1/1")
    assert machine.session(start="node1/1").id == session.id


def test_a_job_that_is_started_again_gets_a_new_session_and_the_old_one_ends() -> None:
    machine, qpu = ready(places=1)
    old = machine.session(start="node1/1")
    task = machine.start(old)
    token = qpu.take().token
    new = machine.session(start="node2/1", host="node2")
    assert new.id != old.id
    assert machine.disk.session(old.id).end_reason == "its job was started again"
    assert machine.task(task.id).status is TaskStatus.CANCELLED
    assert qpu.told_to_stop(token)


def test_the_tasks_of_an_array_are_jobs_of_their_own() -> None:
    machine, _ = ready(places=3)
    sessions = [machine.session(job=job, start="node1/1") for job in ("7", "7.1", "7.2")]
    assert len({session.id for session in sessions}) == 3
    assert {machine.disk.session(session.id).ended for session in sessions} == {None}


def test_a_user_has_so_many_sessions_and_his_next_job_waits() -> None:
    machine, _ = ready(places=9, max_sessions_per_user=2)
    first = machine.session(ALICE, "1")
    machine.session(ALICE, "2")
    with pytest.raises(BusyError, match="2 of your jobs are on the QPU fresnel already"):
        machine.session(ALICE, "3")
    machine.session(BOB, "4")
    machine.ask(wire.Release(session=first.id))
    machine.session(ALICE, "3")


# --- what keeps a session alive ---


def test_use_alone_keeps_a_session_only_for_a_while() -> None:
    machine, _ = ready(unseen=1800 * SECOND)
    session = machine.session()
    task = machine.start(session)
    for _ in range(40):
        machine.later(100)
        if machine.disk.session(session.id).ended is not None:
            break
        machine.task(task.id, ALICE)
    ended = machine.disk.session(session.id)
    assert ended.ended == T0 + 1800 * SECOND
    assert "lease ran out" in ended.end_reason


def test_a_session_that_is_used_lives_as_long_as_its_host_vouches_for_it() -> None:
    machine, _ = ready(unseen=1800 * SECOND)
    session = machine.session()
    for _ in range(40):
        machine.later(300)
        machine.ask(wire.Renew(host="node1", jobs=("1",)))
    assert machine.disk.session(session.id).ended is None


def test_leases_begin_anew_when_a_broker_comes_up_after_a_long_time() -> None:
    machine, _ = ready()
    session = machine.session()
    machine.now += 10 * SETTINGS.lease
    machine.restart()
    machine.later(SETTINGS.lease / SECOND - 1)
    assert machine.disk.session(session.id).ended is None
    machine.later(1)
    assert machine.disk.session(session.id).ended == machine.now


@pytest.mark.parametrize("step", [-86400.0, -30.0, 30.0, 7200.0, 10.0**8])
def test_a_clock_that_is_set_neither_ends_a_session_nor_prolongs_it(step: float) -> None:
    machine, _ = ready()
    session = machine.session()
    machine.later(100)
    machine.step_clock(step)
    machine.later(SETTINGS.lease / SECOND - 101)
    assert machine.disk.session(session.id).ended is None
    machine.later(1)
    assert machine.disk.session(session.id).ended == machine.now


# --- budgets ---


def budget(**most: Any) -> tuple[Machine, Qpu]:
    return ready(classes=(Class(name="everybody", **most),))


def test_a_session_takes_no_more_shots_than_it_may() -> None:
    machine, qpu = budget(max_shots=250)
    session = machine.session()
    machine.start(session, 100)
    machine.start(session, 100)
    with pytest.raises(LimitError, match="this job may take 250 shots, and 50 are left of them"):
        machine.start(session, 51)
    qpu.take()
    qpu.finish()
    with pytest.raises(LimitError, match="50 are left"):
        machine.start(session, 51)
    machine.start(session, 50)


def test_shots_that_were_not_taken_are_free_again() -> None:
    machine, _ = budget(max_shots=100)
    session = machine.session()
    machine.start(session, 60)
    waiting = machine.start(session, 40)
    machine.ask(wire.TaskStop(task=waiting.id), ALICE)
    machine.start(session, 40)


def test_a_session_uses_the_qpu_no_longer_than_it_may() -> None:
    machine, qpu = budget(max_qpu_time=30 * SECOND)
    session = machine.session()
    machine.start(session, 100)  # 2 s of overhead, 10 shots a second
    with pytest.raises(LimitError, match=r"for 30 s, 18 s are left of them, and 170 shots take 19 s"):
        machine.start(session, 170)
    second = machine.start(session, 160)
    assert qpu.take().limit == 30 * SECOND
    machine.later(29)
    qpu.finish(time=29 * SECOND)
    failed = machine.task(second.id)
    assert (failed.status, failed.runs) == (TaskStatus.FAILED, 0)
    assert "has used the 30 s of the QPU" in failed.error


def test_a_class_has_a_budget_of_its_own() -> None:
    machine, _ = ready(
        classes=(Class(name="production", queues=frozenset({"prod.q"})), Class(name="development", max_shots=10))
    )
    machine.start(machine.session(job="1", queue="prod.q"), 100)
    with pytest.raises(LimitError, match="may take 10 shots"):
        machine.start(machine.session(job="2"), 11)
