"""Several workers at one QPU, and orders that are long under way: one run at a time, and none after its time."""

from __future__ import annotations

import pytest
from warden_machine import SETTINGS, Qpu, ready

from warden import orders
from warden.model import SECOND, TaskStatus


def test_after_a_restart_a_standby_waits_until_the_worker_that_was_known_has_had_its_time() -> None:
    machine, first = ready()
    task = machine.start(machine.session())
    first.take()
    machine.qpus.remove(first)
    machine.restart()
    standby = Qpu(machine, "w2")
    assert isinstance(standby.heard[0], orders.Unwelcome)
    assert standby.runs == []
    first.hello()
    assert isinstance(machine.told[first.peer][0], orders.Welcome)
    standby.hello()
    assert standby.runs == []
    first.finish()
    done = machine.task(task.id)
    assert (done.status, done.repeats) == (TaskStatus.COMPLETED, 0)


def test_after_a_restart_a_standby_gets_the_run_of_a_worker_that_does_not_come_back() -> None:
    machine, first = ready()
    task = machine.start(machine.session())
    first.take()
    first.die()
    machine.restart()
    standby = Qpu(machine, "w2")
    machine.later(3 * SETTINGS.heartbeat / SECOND + 1)
    standby.hello()
    assert [run.task for run in standby.runs] == [task.id]


def test_the_time_of_the_worker_that_was_known_is_as_long_where_the_clock_is_set() -> None:
    machine, first = ready()
    machine.start(machine.session())
    first.take()
    first.die()
    machine.restart()
    silence = 3 * SETTINGS.heartbeat / SECOND
    standby = Qpu(machine, "w2")
    machine.step_clock(-3600)
    machine.later(silence + 1)
    standby.hello()
    assert len(standby.runs) == 1


def test_the_clock_that_is_set_forth_takes_the_time_of_the_worker_that_was_known_from_nobody() -> None:
    machine, first = ready()
    machine.start(machine.session())
    first.take()
    first.die()
    machine.restart()
    standby = Qpu(machine, "w2")
    machine.step_clock(3600)
    standby.hello()
    assert standby.runs == []


def test_a_run_whose_worker_comes_back_late_has_time_to_be_handed_in() -> None:
    machine, qpu = ready(lease=10**6 * SECOND)
    task = machine.start(machine.session())
    qpu.take()
    qpu.die()
    # Much later than the run's limit.
    machine.later(2 * SETTINGS.longest_run / SECOND)
    machine.qpus.append(qpu)
    qpu.hello()
    machine.later(1)
    qpu.finish()
    done = machine.task(task.id)
    assert (done.status, done.repeats) == (TaskStatus.COMPLETED, 0)


def test_an_order_has_a_date_though_our_clock_went_back_since_a_worker_that_has_just_begun_said_hello() -> None:
    machine, qpu = ready()
    qpu.ahead = -machine.now
    qpu.hello()
    machine.now -= SECOND
    machine.start(machine.session())
    assert qpu.runs[-1].issued == 0


def test_a_run_that_never_ends_is_given_up_in_time_where_the_clock_went_back_while_the_broker_was_down() -> None:
    machine, qpu = ready(lease=10**6 * SECOND)
    task = machine.start(machine.session())
    qpu.take()
    back = 50 * SETTINGS.longest_run
    machine.now -= back
    qpu.ahead += back
    qpu.next_beat -= back
    machine.restart()
    qpu.hello()
    machine.later(SETTINGS.longest_run / SECOND + 60)
    assert any("did not end" in line for line in machine.task(task.id).log)


@pytest.mark.parametrize("says", ["hello", "beat"])
def test_a_worker_whose_run_was_given_to_another_is_told_to_stop(says: str) -> None:
    machine, first = ready()
    machine.start(machine.session())
    token = first.take().token
    first.die()
    machine.later(12)
    second = Qpu(machine, "w2")
    running = second.take().token
    getattr(first, says)()
    assert first.told_to_stop(token)
    assert isinstance(
        next(body for body in reversed(first.heard) if isinstance(body, orders.Unwelcome)), orders.Unwelcome
    )
    assert not second.told_to_stop(running)


def test_a_worker_that_is_to_say_hello_again_goes_on_with_its_run() -> None:
    machine, qpu = ready()
    machine.start(machine.session())
    token = qpu.take().token
    machine.restart()
    qpu.beat()
    assert qpu.heard == [orders.Unwelcome(text="say hello again")]
    qpu.hello()
    assert not qpu.told_to_stop(token)


# --- when an order was made ---


def test_an_order_says_when_it_was_made_by_the_worker_s_own_clock() -> None:
    machine, qpu = ready()
    machine.later(7)
    machine.start(machine.session())
    assert qpu.runs[-1].issued == qpu.clock


def test_whatever_was_under_way_an_order_is_dated_no_later_than_it_was_made() -> None:
    machine, qpu = ready()
    # Its beat took three seconds to come.
    qpu.ahead -= 3 * SECOND
    qpu.beat()
    qpu.ahead += 3 * SECOND
    machine.start(machine.session())
    assert qpu.runs[-1].issued == qpu.clock - 3 * SECOND


@pytest.mark.parametrize("by", [3600, -3600])
def test_who_sets_the_broker_s_clock_changes_no_order_s_date(by: int) -> None:
    machine, qpu = ready()
    machine.step_clock(by)
    machine.start(machine.session())
    assert qpu.runs[-1].issued == qpu.clock
