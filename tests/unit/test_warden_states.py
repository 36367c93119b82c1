"""The table of states is what the core does: each way by its cause, and the page shows them."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from warden_machine import ALICE, BOB, OPERATOR, SETTINGS, T0, Machine, Qpu
from warden_watched import Watched, ready

from warden import wire
from warden.calibration import Calendar, Rule, ShotRule
from warden.events import Class, Tick
from warden.model import SECOND, Session, Task, Window
from warden.states import LIVES, SESSION, TASK, Transition

if TYPE_CHECKING:
    from collections.abc import Callable

    from warden.states import Lives

DOCS = Path(__file__).parent.parent.parent / "docs"
SILENCE = 3 * SETTINGS.heartbeat / SECOND


# --- each way by its cause: a play ends with the step that its cause names ---

PLAYS: dict[str, Callable[[], Watched]] = {}


def plays(cause: str) -> Callable[[Callable[[], Watched]], Callable[[], Watched]]:
    def kept(play: Callable[[], Watched]) -> Callable[[], Watched]:
        assert cause not in PLAYS
        PLAYS[cause] = play
        return play

    return kept


def running(**settings: Any) -> tuple[Watched, Qpu, Task, Session]:
    machine, qpu = ready(**settings)
    session = machine.session()
    task = machine.start(session)
    qpu.take()
    return machine, qpu, task, session


def waiting(**settings: Any) -> tuple[Watched, Qpu, Task, Session]:
    """A task that waits behind another one that has the QPU."""
    machine, qpu, _, session = running(**settings)
    return machine, qpu, machine.start(session), session


def says(machine: Machine, task: Task, text: str) -> None:
    assert text in machine.task(task.id).log[-1]


def fail(qpu: Qpu) -> None:
    qpu.take()
    qpu.finish(0, error="no laser", fault="device")


def failing() -> tuple[Watched, Qpu]:
    """A QPU that is left alone after its failures."""
    machine, qpu, _, _ = running()
    for _ in range(SETTINGS.failures):
        fail(qpu)
    return machine, qpu


@plays("its user submits it")
def _() -> Watched:
    return waiting()[0]


@plays("it is its turn, and a shot fits before the next window")
def _() -> Watched:
    return running()[0]


@plays("its run ends with shots left: a window, a drain or the longest run cut it")
def _() -> Watched:
    machine, qpu, task, _ = running()
    machine.block()
    qpu.finish(40)
    says(machine, task, "40 of 100 shots")
    return machine


@plays("its run is lost with the worker, or on its way to it")
def _() -> Watched:
    machine, qpu, task, _ = running(failures=1)
    qpu.die()
    machine.later(SILENCE)
    Qpu(machine, "w2")
    says(machine, task, "was lost with its worker")
    return machine


@plays("the QPU fails in its run, or answers what cannot be true")
def _() -> Watched:
    machine, qpu, task, _ = running(failures=1)
    fail(qpu)
    says(machine, task, "failed: no laser and will be repeated")
    return machine


@plays("its run does not end")
def _() -> Watched:
    machine, _, task, _ = running(failures=1, longest_run=20 * SECOND)
    machine.later(60)
    says(machine, task, "did not end")
    return machine


@plays("all its shots are done")
def _() -> Watched:
    machine, qpu, task, _ = running()
    qpu.finish()
    says(machine, task, "completed in 1 run")
    return machine


@plays("the device refuses its sequence")
def _() -> Watched:
    machine, qpu, task, _ = running()
    qpu.finish(0, error="Pulser refuses it", fault="task")
    says(machine, task, "Pulser refuses it")
    return machine


@plays("the QPU failed in too many of its runs")
def _() -> Watched:
    machine, qpu, task, _ = running(failures=100)
    while not machine.task(task.id).status.final:
        fail(qpu)
    says(machine, task, "the QPU failed in 6 of its runs")
    return machine


@plays("its runs end again and again without a shot")
def _() -> Watched:
    machine, qpu, task, _ = running(longest_run=20 * SECOND)
    while not machine.task(task.id).status.final:
        qpu.take()
        machine.later(20)
        qpu.finish(0)
    says(machine, task, "without a shot")
    return machine


@plays("its deadline passes during a run")
def _() -> Watched:
    machine, qpu = ready()
    task = machine.start(machine.session(), within=20)
    qpu.take()
    machine.later(20)
    says(machine, task, "it was not done by its deadline")
    return machine


@plays("its deadline cannot be kept any more")
def _() -> Watched:
    machine, qpu, _, session = running()
    late = machine.start(session, within=20)
    machine.later(15)
    qpu.finish()
    says(machine, late, "it cannot be done by its deadline any more")
    return machine


@plays("its session has used up its time at the QPU")
def _() -> Watched:
    machine, qpu, task, _ = waiting(classes=(Class(name="all", max_qpu_time=24 * SECOND),))
    machine.later(30)
    qpu.finish(time=30 * SECOND)
    says(machine, task, "its session has used the 24 s")
    return machine


@plays("another worker comes, whose device is too small for it")
def _() -> Watched:
    machine, qpu, task, _ = waiting()
    qpu.die()
    machine.later(60)
    Qpu(machine, "w2", qubits=1)
    machine.later(60)
    says(machine, task, "it has 2 atoms, and the QPU takes 1 by now")
    return machine


@plays("its user stops it before its run")
def _() -> Watched:
    machine, _, task, _ = waiting()
    machine.ask(wire.TaskStop(task=task.id), ALICE)
    says(machine, task, "stopped by its user")
    return machine


@plays("its session ends before its run")
def _() -> Watched:
    machine, _, task, session = waiting()
    machine.ask(wire.Release(session=session.id))
    says(machine, task, "its session ended")
    return machine


@plays("its user stops it during its run")
def _() -> Watched:
    machine, _, task, _ = running()
    machine.ask(wire.TaskStop(task=task.id), ALICE)
    says(machine, task, "stopped by its user")
    return machine


@plays("its session ends during its run")
def _() -> Watched:
    machine, _, task, session = running()
    machine.ask(wire.Release(session=session.id))
    says(machine, task, "its session ended")
    return machine


def ended(machine: Machine, session: Session, reason: str) -> None:
    record = machine.disk.session(session.id)
    assert record is not None
    assert reason in record.end_reason


@plays("the prolog acquires it for a job")
def _() -> Watched:
    machine, _ = ready()
    machine.session()
    return machine


@plays("the epilog, its owner or an operator releases it")
def _() -> Watched:
    machine, _ = ready()
    session = machine.session()
    machine.ask(wire.Release(session=session.id))
    ended(machine, session, "released")
    return machine


@plays("its lease runs out: nobody has seen its job")
def _() -> Watched:
    machine, _ = ready()
    session = machine.session()
    machine.later(SETTINGS.lease / SECOND)
    ended(machine, session, "its lease ran out")
    return machine


def ends_before_the_next(uid: int, start: str, reason: str) -> Watched:
    machine, _ = ready(places=1)
    session = machine.session(ALICE, "7", start="first")
    machine.session(uid, "7", start=start)
    ended(machine, session, reason)
    opened = machine.steps[SESSION.name].pop()
    assert opened[0] is None
    return machine


@plays("its job is started again")
def _() -> Watched:
    return ends_before_the_next(ALICE, "second", "was started again")


@plays("its job's number comes again for another user")
def _() -> Watched:
    return ends_before_the_next(BOB, "first", "belongs to another user")


@plays("the broker starts, and no worker is connected yet")
def _() -> Watched:
    machine, _ = ready()
    machine.restart()
    return machine


@plays("the broker starts during a maintenance")
def _() -> Watched:
    machine, _ = ready()
    machine.block()
    machine.restart()
    return machine


@plays("its worker connects")
def _() -> Watched:
    return ready()[0]


@plays("it is tried again some time after its failures")
def _() -> Watched:
    machine, _ = failing()
    machine.later(SETTINGS.retry / SECOND)
    return machine


@plays("an operator resumes after its failures")
def _() -> Watched:
    machine, _ = failing()
    machine.ask(wire.Resume(), OPERATOR)
    return machine


@plays("its worker connects during a calibration")
def _() -> Watched:
    machine = Watched()
    machine.block(0, 60, "calibrating")
    Qpu(machine)
    return machine


@plays("a calibration begins while it is left alone after failures")
def _() -> Watched:
    machine, _ = failing()
    machine.block(0, 60, "calibrating")
    return machine


@plays("a maintenance begins while it is offline")
def _() -> Watched:
    machine = Watched()
    machine.send(Tick())
    machine.block(10)
    machine.later(10)
    return machine


@plays("a calibration begins")
def _() -> Watched:
    machine, _ = ready(Calendar((Rule(every=100 * SECOND, duration=10 * SECOND),)), now=T0 + 50 * SECOND)
    machine.later(50)
    return machine


@plays("a calibration is due, and its task is done")
def _() -> Watched:
    machine, qpu, _, _ = running(calendar=Calendar(shot_rules=(ShotRule(after_shots=100, duration=10 * SECOND),)))
    qpu.finish()
    return machine


@plays("a maintenance begins")
def _() -> Watched:
    machine, _ = ready()
    machine.block(10, 60)
    machine.later(10)
    return machine


@plays("an operator drains it")
def _() -> Watched:
    machine, _ = ready()
    machine.block()
    return machine


@plays("its worker is silent for three heartbeats")
def _() -> Watched:
    machine, qpu = ready()
    qpu.die()
    machine.later(SILENCE)
    return machine


@plays("its runs fail several times in a row")
def _() -> Watched:
    return failing()[0]


def calibrating() -> tuple[Watched, Qpu, Window]:
    machine, qpu = ready()
    return machine, qpu, machine.block(0, 60, "calibrating")


@plays("the calibration ends")
def _() -> Watched:
    machine, _, _ = calibrating()
    machine.later(60)
    return machine


@plays("an operator takes the calibration back")
def _() -> Watched:
    machine, _, window = calibrating()
    machine.ask(wire.CancelWindow(window=window.id), OPERATOR)
    return machine


@plays("a maintenance begins during the calibration")
def _() -> Watched:
    machine, _, _ = calibrating()
    machine.block(10)
    machine.later(10)
    return machine


@plays("its worker is silent during the calibration")
def _() -> Watched:
    machine, qpu, _ = calibrating()
    qpu.die()
    machine.later(SILENCE)
    return machine


@plays("the calibration ends before it is tried again")
def _() -> Watched:
    machine, _ = failing()
    machine.block(0, 60, "calibrating")
    machine.later(60)
    return machine


@plays("the maintenance ends")
def _() -> Watched:
    machine, _ = ready()
    machine.block(0, 60)
    machine.later(60)
    return machine


@plays("an operator resumes")
def _() -> Watched:
    machine, _ = ready()
    machine.block()
    machine.ask(wire.Resume(), OPERATOR)
    return machine


@plays("the maintenance ends during a calibration")
def _() -> Watched:
    machine, _, _ = calibrating()
    machine.block(0, 30)
    machine.later(30)
    return machine


@plays("the maintenance ends, and no worker is connected")
def _() -> Watched:
    machine = Watched()
    machine.block(0, 60)
    machine.later(60)
    return machine


EVERY = [(lives, transition) for lives in LIVES for transition in lives.transitions]


def test_each_cause_stands_in_the_table_once_and_has_its_play() -> None:
    assert sorted(transition.cause for _, transition in EVERY) == sorted(PLAYS)


@pytest.mark.parametrize(("lives", "transition"), EVERY, ids=lambda value: getattr(value, "cause", ""))
def test_the_core_goes_each_way_of_the_table_by_its_cause(lives: Lives, transition: Transition) -> None:
    steps = PLAYS[transition.cause]().steps[lives.name]
    assert steps[-1] == (transition.before, transition.after), steps


def test_what_has_ended_stays_as_it_is() -> None:
    assert [sorted(lives.final) for lives in LIVES] == [["cancelled", "completed", "failed"], ["ended"], []]
    for state in TASK.final:
        assert state.final  # type: ignore[attr-defined]
    assert {state for state in TASK.states if state.final} == set(TASK.final)  # type: ignore[attr-defined]


def test_the_page_is_what_is_written_from_the_table() -> None:
    written = runpy.run_path(str(DOCS / "states.py"))["page"]()
    assert (DOCS / "states.md").read_text(encoding="utf-8") == written, "run docs/states.py"
