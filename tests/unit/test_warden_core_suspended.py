"""Suspended jobs: their tasks have no turn, others have the QPU meanwhile, and they go on when the job does."""

from __future__ import annotations

import pytest
from warden_machine import ALICE, BOB, SETTINGS, Machine, Qpu, ready

from warden import wire
from warden.model import SECOND, Session, TaskStatus


def say(machine: Machine, *jobs: str, suspended: tuple[str, ...] = (), host: str = "node1") -> None:
    machine.ask(wire.Renew(host=host, jobs=jobs, suspended=suspended))


def kept(machine: Machine, session: Session) -> Session:
    return machine.disk.session(session.id) or session


def statuses(machine: Machine, *numbers: int) -> list[TaskStatus]:
    return [machine.task(number).status for number in numbers]


@pytest.fixture
def site() -> tuple[Machine, Qpu, Session, Session]:
    machine, qpu = ready()
    return machine, qpu, machine.session(ALICE, "1"), machine.session(BOB, "2")


def test_tasks_of_a_suspended_job_wait_and_others_have_the_qpu(site: tuple[Machine, Qpu, Session, Session]) -> None:
    machine, qpu, alice, bob = site
    say(machine, "1", "2", suspended=("1",))
    assert kept(machine, alice).suspended == "node1"
    waiting = machine.start(alice)
    assert not qpu.runs
    other = machine.start(bob)
    assert qpu.take().task == other.id
    qpu.finish()
    assert statuses(machine, waiting.id, other.id) == [TaskStatus.QUEUED, TaskStatus.COMPLETED]
    say(machine, "1", "2")
    assert kept(machine, alice).suspended == ""
    assert qpu.take().task == waiting.id
    qpu.finish()
    assert statuses(machine, waiting.id) == [TaskStatus.COMPLETED]


def test_a_run_may_end_and_what_is_left_of_its_task_waits() -> None:
    machine, qpu = ready(longest_run=10 * SECOND)
    session = machine.session(ALICE, "1")
    task, behind = machine.start(session, shots=100), machine.start(session)
    run = qpu.take()
    say(machine, "1", suspended=("1",))
    assert not qpu.told_to_stop(run.token)
    qpu.finish()
    assert len(qpu.runs) == 1
    assert machine.task(task.id).shots_done == run.shots < 100
    assert any("suspended" in line for line in machine.task(behind.id).log)
    say(machine, "1")
    assert qpu.take().first_shot == run.shots


def test_it_stays_suspended_when_the_broker_is_started_again(site: tuple[Machine, Qpu, Session, Session]) -> None:
    machine, qpu, alice, _ = site
    say(machine, "1", suspended=("1",))
    task = machine.start(alice)
    machine.restart()
    qpu.hello()
    machine.later(5)
    assert statuses(machine, task.id) == [TaskStatus.QUEUED]
    say(machine, "1")
    assert statuses(machine, task.id) == [TaskStatus.RUNNING]


def test_its_deadline_counts_and_its_end_is_an_end(site: tuple[Machine, Qpu, Session, Session]) -> None:
    machine, _, alice, _ = site
    say(machine, "1", suspended=("1",))
    late, cancelled = machine.start(alice, within=60), machine.start(alice)
    machine.later(60)
    assert "deadline" in machine.task(late.id).error
    ended = machine.ask(wire.Release(session=alice.id))
    assert ended.suspended == ""
    assert statuses(machine, late.id, cancelled.id) == [TaskStatus.FAILED, TaskStatus.CANCELLED]


def test_what_waits_while_suspended_counts_for_the_limits(site: tuple[Machine, Qpu, Session, Session]) -> None:
    machine, _, alice, _ = site
    say(machine, "1", suspended=("1",))
    for _ in range(SETTINGS.max_queued_per_user):
        machine.start(alice)
    assert machine.core.availability(machine.now).queued == SETTINGS.max_queued_per_user
    with pytest.raises(Exception, match="wait"):
        machine.start(alice)


def test_another_host_of_a_parallel_job_does_not_make_it_go_on(site: tuple[Machine, Qpu, Session, Session]) -> None:
    machine, _, alice, _ = site
    say(machine, "1", suspended=("1",))
    say(machine, "1", host="node2")
    assert kept(machine, alice).suspended == "node1"
    # Until the one that saw it is gone, so that nothing waits for ever.
    machine.later(SETTINGS.lease / SECOND / 2)
    say(machine, "1", host="node2")
    assert kept(machine, alice).suspended == ""


def test_tasks_that_were_suspended_have_not_waited_for_their_turn() -> None:
    """Else a job that is suspended for a day gets every other run after that."""
    machine, qpu = ready(longest_wait=60 * SECOND)
    alice, bob = machine.session(ALICE, "1"), machine.session(BOB, "2")
    say(machine, "1", "2", suspended=("1",))
    machine.start(alice)
    machine.later(300)
    first, second = machine.start(bob), machine.start(bob)
    assert qpu.take().task == first.id
    say(machine, "1", "2")
    machine.later(1)
    assert machine.task(second.id).status is TaskStatus.QUEUED
    assert machine.task(1).since > machine.now - 2 * SECOND


def test_being_suspended_is_no_news_each_time(site: tuple[Machine, Qpu, Session, Session]) -> None:
    machine, _, alice, _ = site
    task = machine.start(alice), machine.start(alice)
    for _ in range(5):
        say(machine, "1", suspended=("1",))
    assert len([line for line in machine.task(task[1].id).log if "suspended" in line]) == 1
