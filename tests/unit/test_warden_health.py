"""Whose fault a run without a shot is, and when the QPU is left alone for it."""

from __future__ import annotations

from typing import Any

from warden_machine import ALICE, BOB, CAROL, Machine, Qpu, ready

from warden.health import Health
from warden.model import SECOND


def blame(machine: Machine, qpu: Qpu, uid: int, job: str, **result: Any) -> str:
    """A task of the user, whose run brings nothing; the QPU's state then."""
    machine.start(machine.session(uid, job))
    qpu.take()
    machine.later(5)
    qpu.finish(0, **({"error": "nonsense", "fault": "task"} | result))
    return machine.status()


def test_a_qpu_that_blames_the_tasks_of_several_users_is_taken_offline() -> None:
    machine, qpu = ready(places=9)
    states = [blame(machine, qpu, uid, str(uid)) for uid in (ALICE, BOB, CAROL)]
    assert states == ["ready", "ready", "offline"]
    assert "3 runs in a row failed, the last: by the fault of its task" in machine.core.availability(machine.now).reason
    assert "nonsense" not in machine.core.availability(machine.now).reason


def test_a_device_s_long_words_are_cut_short_for_everybody() -> None:
    health = Health(1, SECOND)
    health.failed("x" * 5000, 0)
    assert health.reason == f"1 runs in a row failed, the last: {'x' * 200}; `warden resume` tries at once"


def test_nobody_takes_the_qpu_offline_with_bad_tasks_of_his_own() -> None:
    machine, qpu = ready(places=9)
    assert {blame(machine, qpu, ALICE, "1") for _ in range(20)} == {"ready"}


def test_another_pause_needs_another_two_users_and_the_first_is_a_short_one() -> None:
    machine, qpu = ready(places=9)
    assert {blame(machine, qpu, ALICE, "1") for _ in range(20)} == {"ready"}
    assert blame(machine, qpu, BOB, "2") == "offline"
    machine.later(300)
    assert machine.status() == "ready"
    assert {blame(machine, qpu, ALICE, "1") for _ in range(20)} == {"ready"}


def test_a_run_with_shots_ends_the_count_of_whoever_was_blamed() -> None:
    machine, qpu = ready(places=9)
    blame(machine, qpu, ALICE, "1")
    blame(machine, qpu, BOB, "2")
    machine.start(machine.session(ALICE, "1"))
    qpu.take()
    qpu.finish()
    assert [blame(machine, qpu, uid, str(uid)) for uid in (BOB, CAROL)] == ["ready", "ready"]


def test_runs_that_end_at_their_limit_without_a_shot_take_the_qpu_offline_too() -> None:
    machine, qpu = ready(places=9, longest_run=5 * SECOND, failures=4)
    states = [blame(machine, qpu, uid, str(uid), error="", fault="") for uid in (ALICE, BOB)]
    assert states == ["ready", "ready"]
    for _ in range(2):
        qpu.take()
        machine.later(5)
        qpu.finish(0)
    assert machine.status() == "offline"
