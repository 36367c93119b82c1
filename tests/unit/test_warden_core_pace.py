"""Each task takes what its register and its preparation take, wherever Warden reckons with its time."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from warden_machine import OPERATOR, T0, Machine, Qpu, sequence

from warden import wire
from warden.calibration import Calendar, Rule, ShotRule
from warden.events import Class, Keep
from warden.model import SECOND, BadRequestError, LimitError, Task, TaskStatus
from warden.qpu.timing import Timing

# 2 s and 0.1 s a shot, and 0.05 s for each atom.
TIMING = Timing(overhead=SECOND, loading=SECOND, shot_rate=10.0, rearrangement=50_000)


def machine_with(calendar: Calendar = Calendar(), **settings: object) -> tuple[Machine, Qpu]:  # noqa: B008 - frozen
    machine = Machine(calendar, timing=TIMING, **settings)
    return machine, Qpu(machine)


def gaps_of(seconds: float) -> Calendar:
    """Minutes with so many seconds for tasks; T0 is the beginning of one."""
    gap = round(seconds * SECOND)
    return Calendar((Rule(every=60 * SECOND, duration=60 * SECOND - gap, offset=gap),))


def prepared(machine: Machine, task: Task, preparation: int) -> None:
    """As if its check had said so."""
    (kept,) = (one for one in machine.disk.remember().tasks if one.id == task.id)
    machine.disk.begin()
    machine.disk.apply([Keep(replace(kept, preparation=preparation))])
    machine.disk.commit()


@pytest.mark.parametrize(("qubits", "shots"), [(2, 40), (6, 20)])
def test_a_larger_register_has_fewer_shots_before_a_window(qubits: int, shots: int) -> None:
    machine, qpu = machine_with()
    machine.block(start=10, duration=60)
    machine.start(machine.session(), 100, text=sequence(qubits))
    assert qpu.take().shots == shots


def test_a_preparation_leaves_less_time_for_shots_and_is_announced() -> None:
    machine, qpu = machine_with(Calendar(shot_rules=(ShotRule(after_shots=30, duration=SECOND),)))
    session = machine.session()
    machine.block()
    task = machine.start(session, 30)
    prepared(machine, task, 4 * SECOND)
    machine.restart()
    qpu.hello()
    machine.ask(wire.Resume(), OPERATOR)
    due = machine.core.availability(machine.now).next_window
    assert due is not None
    assert due.start == T0 + 12 * SECOND
    qpu.take()
    machine.block(start=1, duration=60)
    machine.later(1)
    qpu.finish(0)
    machine.block(start=70, duration=60)
    machine.later(60)
    assert qpu.take().shots == 20  # and 40 without it


def test_it_is_told_what_a_run_of_the_largest_register_takes() -> None:
    machine, _ = machine_with()
    answer = machine.core.availability(machine.now)
    assert (answer.qubits, answer.setup, answer.shot) == (8, 2 * SECOND, 500_000)


def test_what_is_wanted_within_a_time_is_judged_by_its_register() -> None:
    machine, _ = machine_with()
    session = machine.session()
    machine.start(session, 20, text=sequence(2), within=6.0)
    with pytest.raises(BadRequestError, match="20 shots take 8 s, and you want them within 6 s"):
        machine.start(session, 20, text=sequence(4), within=6.0)


def test_a_budget_is_promised_to_each_task_by_its_register() -> None:
    machine, _ = machine_with(classes=(Class(name="everybody", max_qpu_time=20 * SECOND),))
    session = machine.session()
    machine.start(session, 20, text=sequence(4))
    with pytest.raises(LimitError, match="12 s are left of them, and 40 shots take 14 s"):
        machine.start(session, 40, text=sequence(4))
    machine.start(session, 40, text=sequence(2))


def test_a_register_that_fits_between_no_two_windows_is_refused_with_its_time_and_the_longest_gap() -> None:
    machine, _ = machine_with(gaps_of(seconds=2.4))
    session = machine.session()
    machine.start(session, text=sequence(6))
    with pytest.raises(BadRequestError) as refused:
        machine.start(session, text=sequence(8))
    assert refused.value.text == (
        "not one shot fits between two calibration windows of this QPU: with its preparation it takes 2.5 s, and the "
        "longest gap is 2.4 s"
    )


def test_a_register_that_takes_longer_than_a_run_may_is_refused() -> None:
    machine, _ = machine_with(longest_run=2_400_000)
    session = machine.session()
    machine.start(session, text=sequence(6))
    with pytest.raises(BadRequestError, match=r"it takes 2.45 s, and the longest run is 2.4 s"):
        machine.start(session, text=sequence(7))


def test_a_task_that_fits_no_more_fails_when_its_turn_comes_and_keeps_nobody_waiting() -> None:
    """The configuration was changed while it waited."""
    machine, qpu = machine_with(gaps_of(seconds=10))
    session = machine.session()
    machine.block()
    large, small = machine.start(session, 1, text=sequence(8)), machine.start(session, 1, text=sequence(2))
    machine.settings = replace(machine.settings, timing=replace(TIMING, rearrangement=SECOND))
    machine.restart()
    qpu.hello()
    machine.ask(wire.Resume(), OPERATOR)
    assert machine.task(large.id).status is TaskStatus.FAILED
    assert "it takes 10.1 s, and the longest gap is 10 s" in machine.task(large.id).error
    assert qpu.take().task == small.id
