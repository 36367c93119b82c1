"""The quality that the worker tells: what is kept of it, and calibrations that it asks for before their time."""

from __future__ import annotations

from typing import Any

import pytest
from warden_machine import OPERATOR, T0, Machine, Qpu

from warden import wire
from warden.calibration import Calendar, QualityRule, Rule
from warden.events import Note, Tick
from warden.model import SECOND, Quality, TaskStatus

LOW = QualityRule(below=0.95, duration=60 * SECOND, at_least=600 * SECOND, reason="quality below 0.95")


def measured(quality: float | None, *rules: Rule, **settings: Any) -> tuple[Machine, Qpu]:
    machine = Machine(Calendar(rules, quality_rules=(LOW,)), lease=10**9 * SECOND, **settings)
    qpu = Qpu(machine)
    qpu.quality = quality
    qpu.beat()
    return machine, qpu


def samples(machine: Machine) -> list[Quality]:
    found: list[Quality] = machine.ask(wire.GetQuality(), None)
    return found


def openings(machine: Machine) -> list[float]:
    """Seconds at which a window opened, oldest first."""
    return [(one.window.start - T0) / SECOND for one in reversed(machine.ask(wire.GetHistory(limit=1000), None))]


# --- what is kept ---


def test_a_sample_is_kept_every_few_minutes_and_under_each_calibration() -> None:
    machine, qpu = measured(0.99)
    machine.later(1000)
    assert [(one.time - T0) // SECOND for one in samples(machine)] == [0, 300, 600, 900]
    machine.block(duration=60, kind="calibrating")
    qpu.calibrate()
    qpu.quality = 0.96
    machine.later(20)
    qpu.calibrated(after=0.995)
    assert samples(machine)[-1] == Quality(time=machine.now, value=0.995, calibration=1)
    machine.restart()
    assert len(samples(machine)) == 5


def test_a_qpu_that_says_nothing_has_no_quality() -> None:
    machine, _ = measured(None)
    machine.later(4000)
    assert samples(machine) == []
    assert machine.core.availability(machine.now).quality is None
    assert machine.status() == "ready"


def test_everybody_sees_how_good_the_qpu_is_as_long_as_its_worker_is_there() -> None:
    machine, qpu = measured(0.97)
    assert machine.core.availability(machine.now).quality == 0.97
    qpu.die()
    machine.later(10)
    assert machine.core.availability(machine.now).quality is None


def test_samples_and_calibrations_are_forgotten_with_the_rest_but_the_one_in_force() -> None:
    machine, qpu = measured(0.99, keep=7200 * SECOND)
    for _ in range(2):
        machine.block(duration=60, kind="calibrating")
        qpu.calibrate()
        qpu.calibrated()
        machine.later(100)
    qpu.quality = 0.99
    machine.later(20000)
    assert len(samples(machine)) <= 7200 // 300 + 1
    assert [one.id for one in machine.ask(wire.GetCalibrations(), None)] == [2]


# --- calibrations that are asked for early ---


def test_a_quality_below_the_threshold_opens_a_window_between_two_tasks() -> None:
    machine, qpu = measured(0.96)
    session = machine.session()
    first, second = machine.start(session, 100), machine.start(session, 100)
    qpu.token = qpu.take().token
    machine.later(5)
    qpu.quality = 0.94
    machine.later(5)
    # The task goes on, and people know what comes after it.
    assert machine.status() == "ready"
    window = machine.core.availability(machine.now).next_window
    assert window is not None
    assert (window.start, window.reason) == (T0 + 12 * SECOND, "quality below 0.95")
    qpu.finish()
    assert machine.status() == "calibrating"
    assert machine.task(first.id).status is TaskStatus.COMPLETED
    assert machine.task(second.id).status is TaskStatus.QUEUED
    qpu.calibrate()
    qpu.calibrated()
    qpu.quality = 0.99
    machine.later(60)
    assert qpu.take().task == second.id
    assert openings(machine) == [10]


def test_an_idle_qpu_is_calibrated_as_soon_as_it_says_that_its_quality_is_low() -> None:
    machine, qpu = measured(0.96)
    machine.later(10)
    qpu.quality = 0.9
    qpu.beat()
    assert machine.status() == "calibrating"
    assert len(qpu.calibrations) == 1


def test_a_quality_that_stays_low_asks_less_and_less_often_and_says_so() -> None:
    machine, qpu = measured(0.5, heartbeat=100 * SECOND, keep=10**6 * SECOND)
    machine.later(200_000)
    gaps = [later - sooner - 60 for sooner, later in zip(openings(machine), openings(machine)[1:], strict=False)]
    wanted = [600 * 2**n for n in range(7)]
    assert [round(gap / 600) * 600 for gap in gaps[:7]] == wanted
    assert {round(gap / 600) * 600 for gap in gaps[7:]} == {600 * 64}
    qpu.quality = 0.99
    machine.later(100)
    qpu.quality = 0.5
    began = len(openings(machine))
    machine.later(5000)
    # It was good in between: the pause is what it was at first.
    assert 2 <= len(openings(machine)) - began <= 4


def test_the_log_says_how_long_nobody_asks_again() -> None:
    machine, qpu = measured(0.97)
    qpu.quality = 0.5
    effects = []
    keep = machine.disk.apply
    machine.disk.apply = lambda found: (effects.extend(found), keep(found))[1]  # type: ignore[method-assign]
    qpu.beat()
    notes = [one.facts for one in effects if isinstance(one, Note) and one.event == "quality low"]
    assert notes == [{"quality": 0.5, "below": 0.95, "again_after_seconds": 600}]


@pytest.mark.parametrize("restart", [False, True])
def test_no_two_early_calibrations_come_closer_than_they_may(restart: bool) -> None:
    machine, qpu = measured(0.5)
    machine.later(60)
    if restart:
        machine.restart()
        qpu.hello()
    machine.later(590)
    assert machine.status() == "ready"
    assert machine.core.availability(machine.now).next_window is None
    machine.later(20)
    assert openings(machine) == [0, pytest.approx(660, abs=5)]


def test_a_calibration_of_another_rule_counts_as_one() -> None:
    hourly = Rule(every=3600 * SECOND, duration=180 * SECOND, offset=1800 * SECOND)
    machine, qpu = measured(0.96, hourly)
    machine.later(1980)
    qpu.quality = 0.9
    machine.later(590)
    assert openings(machine) == [1800]
    machine.later(20)
    assert len(openings(machine)) == 2


def test_an_early_calibration_that_is_taken_back_does_not_come_again_at_once() -> None:
    machine, _ = measured(0.5)
    (added,) = machine.ask(wire.GetPlan(), None).added
    machine.ask(wire.CancelWindow(window=added.id), OPERATOR)
    assert machine.status() == "ready"
    machine.later(500)
    assert machine.status() == "ready"


def test_a_clock_that_is_set_back_does_not_put_them_off_for_long() -> None:
    machine, _ = measured(0.5)
    machine.later(100)
    machine.step_clock(-86400)
    machine.later(700)
    assert len(openings(machine)) >= 2


def test_a_worker_that_is_gone_asks_for_nothing() -> None:
    machine, qpu = measured(0.97)
    qpu.die()
    machine.later(20)
    machine.send(Tick())
    assert openings(machine) == []
