"""Calibrations happen in their windows, at most once in each; what the worker finds is in force from then on."""

from __future__ import annotations

from typing import Any

import pytest
from warden_machine import ALICE, OPERATOR, T0, Machine, Qpu, ready

from warden import orders, wire
from warden.calibration import Calendar, Rule, ShotRule
from warden.events import Reported, Tick
from warden.model import SECOND, Calibration, State, Task, TaskStatus

HOURLY = Rule(every=3600 * SECOND, duration=180 * SECOND, offset=1800 * SECOND, make_up=True)
AT = T0 + 1800 * SECOND


def hourly(**settings: Any) -> tuple[Machine, Qpu]:
    return ready(calendar=Calendar((HOURLY,)), lease=10**9 * SECOND, **settings)


def in_a_window(**settings: Any) -> tuple[Machine, Qpu, orders.StartCalibration]:
    """The worker has begun with the calibration of the first window."""
    machine, qpu = hourly(**settings)
    machine.session()
    machine.later(1800)
    return machine, qpu, qpu.calibrate()


def submit(machine: Machine) -> Task:
    """A task of the session that there is already: none is given in a window."""
    (session,) = machine.ask(wire.ListSessions(everybody=True), OPERATOR)
    return machine.start(session, 100)


def kept(machine: Machine) -> list[Calibration]:
    found: list[Calibration] = machine.ask(wire.GetCalibrations(), None)
    return found


def remarks(machine: Machine) -> list[str]:
    return [one.remark for one in machine.ask(wire.GetHistory(), None)]


def test_a_window_has_its_calibration_and_that_is_in_force_from_then_on() -> None:
    machine, qpu, order = in_a_window()
    assert (order.number, order.at, order.calibration, order.limit) == (1, AT, None, 180 * SECOND)
    assert order.issued == AT + qpu.ahead
    machine.later(60)
    qpu.calibrated(log=("two scans",))
    assert orders.ForgetRun(token=order.token) in qpu.heard
    (one,) = kept(machine)
    assert (one.id, one.time, one.duration) == (1, AT + 60 * SECOND, 60 * SECOND)
    assert (one.reason, one.before, one.after, one.log) == ("calibration", 0.93, 0.99, ("two scans",))
    assert (one.measured, one.left) == ({"rabi_error": 0.02}, {"rabi_error": 0.001})
    assert remarks(machine) == ["number 1"]
    welcome = [body for body in qpu.heard if isinstance(body, orders.Welcome)][-1]
    assert welcome.calibration is not None
    assert welcome.calibration.id == 1
    # The rest of the window is quiet, and the next window begins from there.
    machine.later(3600)
    assert [order.number for order in qpu.calibrations] == [1, 2]
    assert qpu.calibrations[-1].calibration == welcome.calibration


def test_a_worker_hears_which_calibration_is_in_force_and_what_time_it_is() -> None:
    machine, qpu, _ = in_a_window()
    qpu.calibrated()
    machine.restart()
    qpu.hello()
    (welcome,) = [body for body in qpu.heard if isinstance(body, orders.Welcome)]
    assert welcome.calibration == kept(machine)[0]
    qpu.beat()
    assert qpu.heard[-1] == orders.BrokerBeat(time=machine.now)


def test_what_a_calibration_says_of_its_work_is_not_sent_with_every_run() -> None:
    machine, qpu, _ = in_a_window()
    qpu.calibrated(log=("a long story",) * 100)
    machine.later(200)
    task = machine.start(machine.session())
    (run,) = qpu.runs
    assert run.calibration is not None
    assert run.calibration.log == ()
    stored = machine.task(task.id).calibration
    assert stored is not None
    assert stored.log == ()


def test_all_runs_of_a_task_are_taken_as_at_its_first_one() -> None:
    machine, qpu = hourly(longest_run=20 * SECOND)
    machine.later(1785)
    task = machine.start(machine.session(), 300)
    first = qpu.take()
    assert (first.at, first.calibration) == (machine.now, None)
    machine.later(15)
    qpu.finish()
    qpu.calibrate()
    machine.later(30)
    qpu.calibrated()
    machine.restart()
    qpu.hello()
    machine.step_clock(5)
    machine.later(146)
    second = qpu.take()
    assert second.token != first.token
    assert (second.at, second.calibration) == (first.at, None)
    # Lost, and repeated by another worker.
    qpu.die()
    machine.later(10)
    other = Qpu(machine, "w2")
    machine.later(1)
    third = other.take()
    assert (third.at, third.calibration, third.first_shot) == (first.at, None, second.first_shot)
    another = machine.start(machine.session(job="2"), 10)
    for _ in range(20):
        if machine.task(task.id).status is TaskStatus.COMPLETED:
            break
        other.finish()
        other.take()
    assert machine.task(another.id).calibration == kept(machine)[0]
    assert machine.task(another.id).at == other.runs[-1].at == machine.now


@pytest.mark.parametrize("kind", ["operator", "shots", "made up"])
def test_every_kind_of_window_has_a_calibration(kind: str) -> None:
    shots = (ShotRule(after_shots=100, duration=30 * SECOND, reason="worn"),)
    machine = Machine(Calendar((HOURLY,), shot_rules=shots), lease=10**9 * SECOND)
    if kind == "made up":
        machine.later(1)
        machine.now += 2000 * SECOND
        machine.restart()
    qpu = Qpu(machine)
    if kind == "operator":
        machine.block(duration=60, kind="calibrating")
    elif kind == "shots":
        machine.start(machine.session(), 100)
        qpu.take()
        qpu.finish()
    assert machine.status() == "calibrating"
    (order,) = qpu.calibrations
    assert order.limit == {"operator": 60, "shots": 30, "made up": 180}[kind] * SECOND


def test_a_maintenance_has_none() -> None:
    machine, qpu = ready()
    machine.block(duration=60)
    machine.later(100)
    assert qpu.calibrations == []
    assert remarks(machine) == [""]


def test_a_calibration_begins_when_the_run_before_has_ended() -> None:
    machine, qpu = hourly()
    task = machine.start(machine.session(), 100)
    run = qpu.take()
    # An operator's window does not ask how far the run is.
    machine.block(duration=60, kind="calibrating")
    assert qpu.told_to_stop(run.token)
    machine.later(3)
    assert qpu.calibrations == []
    qpu.finish(shots=10)
    (order,) = qpu.calibrations
    assert order.limit == 57 * SECOND
    assert machine.task(task.id).status is TaskStatus.QUEUED


def test_a_late_calibration_is_given_up_at_the_end_of_its_window_and_tasks_go_on() -> None:
    machine, qpu, order = in_a_window()
    task = submit(machine)
    machine.later(179)
    assert not qpu.told_to_stop(order.token)
    machine.later(1)
    assert qpu.told_to_stop(order.token)
    stopped, started = (qpu.heard.index(body) for body in (orders.StopRun(token=order.token), qpu.runs[-1]))
    assert stopped < started
    assert machine.task(task.id).status is TaskStatus.RUNNING
    qpu.calibrated()
    assert kept(machine) == []
    assert remarks(machine) == ["was not done in its window"]
    assert orders.ForgetRun(token=order.token) in qpu.heard


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"error": "no atom was seen"}, "failed: no atom was seen"),
        ({"measured": {"charm": 1.0}}, "failed: the QPU returned figures that nobody knows: charm"),
        ({"left": {"rabi_error": float("nan")}}, "failed: the QPU returned figures that are no numbers"),
        ({"left": {"rabi_error": float("inf")}}, "failed: the QPU returned figures that are no numbers"),
    ],
)
def test_a_calibration_that_failed_leaves_the_one_before_in_force(said: dict[str, Any], why: str) -> None:
    machine, qpu, _ = in_a_window()
    qpu.calibrated()
    machine.later(3600)
    order = qpu.calibrate()
    qpu.calibrated(**said)
    assert [one.id for one in kept(machine)] == [1]
    assert remarks(machine) == [why, "number 1"]
    assert machine.core.availability(machine.now).calibration == 1
    # One in a window: the next one is for the next, and may have the number.
    machine.later(100)
    assert qpu.calibrations[-1] == order
    machine.later(3600)
    assert qpu.calibrations[-1].number == 2


def test_a_calibration_is_lost_with_its_worker() -> None:
    machine, qpu, _ = in_a_window()
    qpu.die()
    machine.later(7)
    other = Qpu(machine, "w2")
    assert remarks(machine) == ["was lost with its worker"]
    machine.later(200)
    assert other.calibrations == []
    assert machine.status() == "ready"


def test_a_calibration_whose_worker_does_not_come_back_is_lost_at_the_end_of_the_window() -> None:
    machine, qpu, _ = in_a_window()
    qpu.die()
    machine.later(200)
    assert remarks(machine) == ["was lost with its worker"]
    Qpu(machine, "w2")
    machine.start(machine.session())
    assert machine.status() == "ready"


def test_an_order_that_the_worker_never_got_is_lost() -> None:
    machine, _, order = in_a_window()
    (qpu,) = machine.qpus
    qpu.token = ""
    machine.later(20)
    assert remarks(machine) == ["was lost on its way to the worker"]
    qpu.token = order.token
    qpu.beat()
    assert qpu.told_to_stop(order.token)


def test_a_window_without_a_worker_says_so() -> None:
    machine = Machine(Calendar((HOURLY,)))
    machine.later(2200)
    assert remarks(machine) == ["none: no worker was there"]
    assert machine.disk.remember().calibrating.waiting == ()


def test_a_worker_that_comes_during_the_window_has_the_rest_of_it() -> None:
    machine = Machine(Calendar((HOURLY,)))
    machine.later(1900)
    qpu = Qpu(machine)
    (order,) = qpu.calibrations
    assert order.limit == 80 * SECOND


def test_a_window_that_is_taken_back_stops_its_calibration_and_its_end_stands_in_the_history() -> None:
    machine, qpu = ready()
    window = machine.block(duration=600, kind="calibrating")
    order = qpu.calibrate()
    machine.later(10)
    machine.ask(wire.CancelWindow(window=window.id), OPERATOR)
    assert qpu.told_to_stop(order.token)
    (past,) = machine.ask(wire.GetHistory(), None)
    assert (past.window.end, past.remark) == (machine.now, "was not done in its window")
    # What was written down before it was taken back stays.
    again = machine.block(duration=600, kind="calibrating")
    qpu.calibrate()
    qpu.calibrated()
    machine.later(10)
    machine.ask(wire.CancelWindow(window=again.id), OPERATOR)
    assert remarks(machine)[0] == "number 1"


def test_a_maintenance_ends_a_calibration_and_holds_up_one_that_waits() -> None:
    machine, qpu, order = in_a_window()
    machine.block(duration=10)
    assert qpu.told_to_stop(order.token)
    machine.later(2000)
    machine.block(duration=3600)
    machine.later(1400)
    assert machine.status() == "maintenance"
    machine.ask(wire.AddWindow(kind="calibrating", duration=60 * SECOND), OPERATOR)
    machine.later(10)
    assert len(qpu.calibrations) == 1
    machine.ask(wire.Resume(), OPERATOR)
    assert machine.status() == "calibrating"
    assert qpu.calibrations[-1].limit == 50 * SECOND


def test_windows_that_open_together_have_one_calibration_and_one_that_opens_meanwhile_has_its_own() -> None:
    second = Rule(every=3600 * SECOND, duration=60 * SECOND, offset=1800 * SECOND, reason="short")
    machine, qpu = ready(calendar=Calendar((HOURLY, second)))
    machine.later(1800)
    order = qpu.calibrate()
    machine.later(10)
    assert order.limit == 180 * SECOND
    added = machine.block(duration=300, kind="calibrating")
    machine.later(10)
    assert len(qpu.calibrations) == 1
    qpu.calibrated()
    assert sorted(remarks(machine)) == ["", "number 1", "number 1"]
    assert added.end is not None
    assert (qpu.calibrate().limit, qpu.calibrate().number) == (added.end - machine.now, 2)
    qpu.calibrated()
    assert sorted(remarks(machine)) == ["number 1", "number 1", "number 2"]
    machine.later(400)
    assert len(qpu.calibrations) == 2


def test_a_result_that_is_handed_in_again_or_made_up_counts_for_nothing() -> None:
    machine, qpu, order = in_a_window()
    body = orders.CalibrationFinished(instance="w9", token="guessed", time=1)
    machine.send(Reported(b"w9", body))
    assert kept(machine) == []
    qpu.calibrated()
    for _ in range(2):
        machine.send(Reported(qpu.peer, orders.CalibrationFinished(instance=qpu.instance, token=order.token, time=1)))
    assert [one.duration for one in kept(machine)] == [0]
    machine.restart()
    qpu.hello()
    machine.send(Reported(qpu.peer, orders.CalibrationFinished(instance=qpu.instance, token=order.token, time=1)))
    assert len(kept(machine)) == 1
    assert machine.disk.remember().calibrating.commission is None


def test_a_broker_that_is_started_again_during_a_calibration_goes_on_with_it() -> None:
    machine, qpu, order = in_a_window()
    machine.later(10)
    machine.restart()
    qpu.hello()
    assert not qpu.told_to_stop(order.token)
    assert qpu.calibrations == []
    machine.later(30)
    qpu.calibrated(time=40 * SECOND)
    (one,) = kept(machine)
    assert one.time == AT + 40 * SECOND
    assert remarks(machine) == ["number 1"]


def test_a_calibration_that_was_done_while_the_broker_was_away_counts() -> None:
    machine, qpu, order = in_a_window()
    submit(machine)
    machine.now += 1000 * SECOND
    machine.restart()
    # Its result is kept, and offered as soon as the worker is welcome: no run drives it out before.
    qpu.hello()
    assert not qpu.told_to_stop(order.token)
    assert qpu.runs == []
    qpu.calibrated()
    (one,) = kept(machine)
    assert one.time == AT + 60 * SECOND
    assert len(qpu.runs) == 1


def test_a_worker_that_never_says_what_it_did_does_not_keep_the_qpu_after_a_restart() -> None:
    machine, qpu, order = in_a_window()
    submit(machine)
    machine.now += 1000 * SECOND
    machine.restart()
    qpu.hello()
    machine.later(20)
    assert qpu.told_to_stop(order.token)
    assert len(qpu.runs) == 1
    assert remarks(machine) == ["was not done in its window"]


def test_another_worker_waits_for_the_one_that_was_at_a_calibration_when_the_broker_was_killed() -> None:
    machine, qpu, order = in_a_window()
    machine.restart()
    other = Qpu(machine, "w2")
    assert isinstance(other.heard[-1], orders.Unwelcome)
    qpu.hello()
    qpu.calibrated()
    assert len(kept(machine)) == 1
    assert order.token


def test_a_beat_of_a_worker_that_the_broker_forgot_does_not_stop_its_calibration() -> None:
    machine, qpu, order = in_a_window()
    machine.restart()
    qpu.beat()
    assert qpu.heard == [orders.Unwelcome(text="say hello again")]
    assert not qpu.told_to_stop(order.token)


def test_a_clock_that_is_set_makes_a_calibration_neither_older_nor_younger() -> None:
    machine, qpu, _ = in_a_window()
    machine.later(60)
    qpu.calibrated()
    machine.later(100)
    age = machine.now - (machine.core.availability(machine.now).calibrated or 0)
    assert age == 100 * SECOND
    machine.step_clock(-7200)
    assert machine.now - (machine.core.availability(machine.now).calibrated or 0) == age
    machine.now -= 7200 * SECOND
    machine.restart()
    assert machine.core.availability(machine.now).calibrated == machine.now
    assert kept(machine)[0].time == machine.now


def test_a_clock_that_is_set_during_a_calibration_out_of_the_window_ends_it() -> None:
    machine, qpu, order = in_a_window()
    machine.step_clock(-100)
    assert qpu.told_to_stop(order.token)
    assert machine.status() == "ready"


def test_a_pause_after_failures_keeps_nobody_from_calibrating() -> None:
    machine, qpu = hourly(failures=1, retry=7200 * SECOND)
    machine.start(machine.session())
    qpu.take()
    qpu.finish(0, error="the laser is off", fault="device")
    assert machine.status() == "offline"
    machine.later(1800)
    qpu.calibrate()
    qpu.calibrated()
    assert machine.core.availability(machine.now).state is State.CALIBRATING
    assert [one.id for one in kept(machine)] == [1]


def test_the_broker_does_not_begin_with_a_calibration_that_it_cannot_keep() -> None:
    machine, qpu = hourly()
    machine.later(1799)
    machine.now += SECOND
    machine.core.trouble = "the disk is full"
    machine.send(Tick())
    assert qpu.calibrations == []
    machine.core.trouble = ""
    machine.send(Tick())
    assert len(qpu.calibrations) == 1


def test_a_user_sees_which_calibration_his_task_was_run_with() -> None:
    machine, qpu, _ = in_a_window()
    qpu.calibrated()
    machine.later(500)
    task = machine.start(machine.session())
    qpu.take()
    qpu.finish()
    seen = machine.task(task.id, ALICE)
    assert seen.calibration is not None
    assert (seen.calibration.id, seen.at - seen.calibration.time) == (1, 500 * SECOND)
