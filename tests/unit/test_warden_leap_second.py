"""A leap second: the wall clock shows a second twice, or it is slowed down for a while. No window suffers by it."""

from __future__ import annotations

import pytest
from warden_machine import T0, Machine, Qpu

from warden import wire
from warden.calibration import Calendar, Rule
from warden.model import SECOND

OPENS, LASTS = 120, 60
RULE = Rule(every=600 * SECOND, duration=LASTS * SECOND, offset=OPENS * SECOND)


@pytest.fixture(params=["of a rule", "of an operator"])
def machine(request: pytest.FixtureRequest) -> Machine:
    """Whose QPU is there, and has one window ahead."""
    machine = Machine(Calendar((RULE,) if request.param == "of a rule" else ()))
    Qpu(machine)
    if request.param == "of an operator":
        machine.block(OPENS, LASTS)
    return machine


def tenths_blocked(machine: Machine, steps: dict[int, float]) -> int:
    """How long the QPU takes nothing in five minutes of a clock that nobody sets; `steps`: when which way it is set."""
    blocked = 0
    for tenth in range(3_000):
        if tenth in steps:
            machine.step_clock(steps[tenth])
        machine.later(0.1)
        blocked += machine.status() != "ready"
    return blocked


def assert_held_once(machine: Machine) -> None:
    past = machine.ask(wire.GetHistory(), None)
    start = T0 + OPENS * SECOND
    assert [(one.outcome, one.window.start, one.window.end) for one in past] == [
        ("held", start, start + LASTS * SECOND)
    ]


@pytest.mark.parametrize("tenth", [600, 1195, 1200, 1201, 1205, 1209, 1210, 1500, 1795, 1800, 1801, 1805, 1809, 1900])
def test_a_second_that_comes_twice_leaves_each_window_one_and_whole(machine: Machine, tenth: int) -> None:
    # What lies in the second comes twice with it.
    assert LASTS * 10 <= tenths_blocked(machine, {tenth: -1}) <= LASTS * 10 + 10
    assert_held_once(machine)


def test_a_second_that_is_smeared_over_minutes_leaves_each_window_one_and_whole(machine: Machine) -> None:
    assert LASTS * 10 <= tenths_blocked(machine, {25 * n: -0.01 for n in range(100)}) <= LASTS * 10 + 10
    assert_held_once(machine)
