"""Whatever happens, in whatever order: the core goes no way that is not in the table of states."""

from __future__ import annotations

import contextlib
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from warden_machine import ALICE, BOB, OPERATOR, T0, Qpu
from warden_watched import Watched

from warden import wire
from warden.calibration import Calendar, Rule, ShotRule
from warden.events import Class, Tick
from warden.model import SECOND, Task, WardenError
from warden.states import LIVES

MOVES = st.one_of(
    st.tuples(st.sampled_from(["task", "task", "hurried", "stop", "acquire", "release"]), st.integers(0, 3)),
    st.tuples(st.sampled_from(["finish", "half", "nothing", "refuse", "burn", "lie", "babble"]), st.just(0)),
    st.tuples(st.sampled_from(["forget", "die", "connect", "stranger", "restart"]), st.just(0)),
    st.tuples(st.sampled_from(["drain", "maintain", "calibrate", "resume"]), st.integers(0, 60)),
    st.tuples(st.sampled_from(["wait", "wait", "step", "back"]), st.integers(1, 700)),
)


class Walk:
    def __init__(self, machine: Watched) -> None:
        self.machine = machine
        self.qpu = Qpu(machine)
        self.sessions = [machine.session(uid, str(uid)) for uid in (ALICE, BOB)]
        self.tasks: list[Task] = []
        self.numbers = itertools.count()
        self.taken = 0

    def go(self, move: str, value: int) -> None:
        with contextlib.suppress(WardenError):
            self._go(move, value)
        # A worker takes what it is told to at once, if it is there.
        if self.qpu in self.machine.qpus and len(self.qpu.runs) > self.taken:
            self.taken = len(self.qpu.runs)
            self.qpu.take()

    def _go(self, move: str, value: int) -> None:  # noqa: C901, PLR0912, PLR0915 - the table of all that may happen
        machine, qpu = self.machine, self.qpu
        match move:
            case "acquire":
                self.sessions.append(machine.session((ALICE, BOB)[value % 2], str(value), start=str(value % 2)))
            case "release" if self.sessions:
                machine.ask(wire.Release(session=self.sessions[value % len(self.sessions)].id))
            case "task" if self.sessions:
                self.tasks.append(machine.start(self.sessions[value % len(self.sessions)], 1 + 300 * value))
            case "hurried" if self.sessions:
                self.tasks.append(machine.start(self.sessions[value % len(self.sessions)], 10, within=4 + 5 * value))
            case "stop" if self.tasks:
                machine.ask(wire.TaskStop(task=self.tasks[value % len(self.tasks)].id))
            case "forget":
                qpu.token = ""
            case "finish" if qpu.runs:
                qpu.finish()
            case "half" if qpu.runs:
                qpu.finish(qpu.runs[-1].shots // 2)
            case "nothing" if qpu.runs:
                qpu.finish(0)
            case "refuse" if qpu.runs:
                qpu.finish(0, error="no", fault="task")
            case "burn" if qpu.runs:
                qpu.finish(0, error="it burns", fault="device")
            case "lie" if qpu.runs:
                qpu.finish(counts={"0": 10**6})
            case "babble":
                qpu.babble()
            case "die" if qpu in machine.qpus:
                qpu.die()
            case "connect" if qpu not in machine.qpus:
                machine.qpus.append(qpu)
                qpu.hello()
            case "stranger":
                if qpu in machine.qpus:
                    qpu.die()
                self.qpu, self.taken = Qpu(machine, f"w{next(self.numbers)}"), 0
            case "restart":
                self.taken = 0
                machine.restart()
            case "drain":
                machine.block()
            case "maintain" | "calibrate":
                machine.block(value, 1 + value, "maintenance" if move == "maintain" else "calibrating")
            case "resume":
                machine.ask(wire.Resume(), OPERATOR)
            case "wait":
                machine.later(value)
            case "step" | "back":
                machine.step_clock(value if move == "step" else -value)
            case _:
                pass


CLASSES = (Class(name="short", uids=frozenset({BOB}), max_qpu_time=40 * SECOND), Class(name="rest"))
RULES = Calendar(
    (Rule(every=300 * SECOND, duration=20 * SECOND, make_up=True),),
    shot_rules=(ShotRule(after_shots=500, duration=5 * SECOND),),
)


@settings(max_examples=150)
@given(st.sampled_from([Calendar(), RULES]), st.lists(MOVES, min_size=10, max_size=60))
def test_the_core_goes_no_way_that_is_not_in_the_table(calendar: Calendar, moves: list[tuple[str, int]]) -> None:
    machine = Watched(
        calendar, now=T0 + 100 * SECOND, classes=CLASSES, longest_run=50 * SECOND, places=4, lease=2000 * SECOND
    )
    machine.send(Tick())
    walk = Walk(machine)
    for move, value in moves:
        walk.go(move, value)
    for lives in LIVES:
        ways = {(transition.before, transition.after) for transition in lives.transitions}
        assert set(machine.steps[lives.name]) <= ways
