"""Promises that must hold whatever the calendar, the tasks and the hour: random lives of one QPU."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from warden_machine import ALICE, OPERATOR, Machine, Qpu, sequence

from warden import orders, wire
from warden.calibration import Calendar, Rule
from warden.events import Reported, Tick
from warden.model import SECOND, BadRequestError, LimitError, Task, TaskStatus
from warden.qpu.timing import Pace, Timing

pytestmark = pytest.mark.long

QUBITS = 10


@dataclasses.dataclass(frozen=True)
class Stay:
    """A run's time at the QPU."""

    start: int
    end: int
    stopped: bool


class Life:
    """A QPU that keeps the estimate to the microsecond, under whatever its users and operators do."""

    def __init__(self, calendar: Calendar, timing: Timing) -> None:
        self.machine = Machine(calendar, timing=timing, lease=10**9 * SECOND, heartbeat=10**8 * SECOND, places=1)
        self.qpu = Qpu(self.machine, qubits=QUBITS)
        self.session_id = ""
        self.stays: list[Stay] = []
        self.seen = 0
        self.run: orders.StartRun | None = None
        self.began = 0
        self.tasks: list[Task] = []

    def look(self) -> None:
        """What the worker does as soon as it hears something."""
        if self.run is not None and self.qpu.told_to_stop(self.run.token):
            self.end(self.pace.shots_done(self.elapsed - self.pace.setup), stopped=True)
        if len(self.qpu.runs) > self.seen:
            assert self.run is None, "a run was started while another was on"
            self.seen += 1
            assert len(self.qpu.runs) == self.seen
            self.run, self.began = self.qpu.take(), self.machine.now
            for window in self.machine.ask(wire.GetPlan(count=1)).windows:
                assert self.began + self.pace.estimate(self.run.shots) <= window.start, "it cannot end in time"

    @property
    def pace(self) -> Pace:
        return self.machine.settings.timing.pace(QUBITS)

    @property
    def elapsed(self) -> int:
        return self.machine.now - self.began

    def end(self, shots: int | None, *, stopped: bool = False) -> None:
        run = self.run
        assert run is not None
        shots = run.shots if shots is None else min(shots, run.shots)
        if self.elapsed < self.pace.setup:
            shots = 0
        self.stays.append(Stay(self.began, self.machine.now, stopped))
        self.run = None
        body = orders.RunFinished(
            instance=self.qpu.instance,
            token=run.token,
            shots=shots,
            # Each shot is its own result, so that what is lost or counted twice shows.
            counts={f"{run.first_shot + i:0{QUBITS}b}": 1 for i in range(shots)},
            time=self.elapsed,
        )
        self.qpu.token = ""
        self.machine.send(Reported(self.qpu.peer, body))
        self.look()

    def live(self, until: int) -> None:
        while self.machine.now < until:
            wakeup = self.machine.core.next_wakeup(self.machine.now)
            ends = None if self.run is None else self.began + self.pace.estimate(self.run.shots)
            moments = [until, *(moment for moment in (wakeup, ends) if moment is not None)]
            self.machine.now = max(self.machine.now, min(moments))
            if ends is not None and self.machine.now >= ends:
                self.end(None)
            self.machine.send(Tick())
            self.look()


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    every = draw(st.integers(5, 200))
    return Rule(
        every=every * SECOND,
        duration=draw(st.integers(1, max(1, every // 2))) * SECOND,
        offset=draw(st.integers(0, 200)) * SECOND,
    )


timings = st.builds(
    Timing,
    overhead=st.integers(0, 3 * SECOND),
    loading=st.integers(0, 3 * SECOND),
    shot_rate=st.sampled_from([0.0, 0.25, 0.7, 1.0, 10.0, 33.3]),
    rearrangement=st.integers(0, SECOND // 20),
    time_scale=st.sampled_from([1.0, 1.0, 7.0]),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("task"), st.integers(1, 300)),
        st.tuples(st.just("window"), st.tuples(st.integers(0, 100), st.integers(1, 100))),
        st.tuples(st.just("stop"), st.integers(0, 5)),
        st.tuples(st.just("drain"), st.integers(1, 50)),
        st.tuples(st.just("wait"), st.integers(1, 100)),
    ),
    min_size=3,
    max_size=15,
)


def play(calendar: Calendar, timing: Timing, script: list[tuple[str, object]]) -> tuple[Life, list[tuple[int, int]]]:
    life = Life(calendar, timing)
    machine = life.machine
    windows: list[tuple[int, int]] = []
    for _ in range(1000):
        if machine.status() == "ready":
            break
        life.live(machine.now + SECOND)
    assume(machine.status() == "ready")
    session = machine.session()
    for what, value in script:
        match what, value:
            case "task", int(shots):
                # Refused where no gap has room for a shot, or where too many tasks wait.
                with contextlib.suppress(BadRequestError, LimitError):
                    life.tasks.append(machine.start(session, shots, text=sequence(QUBITS)))
            case "window", (delay, length):
                window = machine.block(delay, length, "calibrating")
                windows.append((window.start, window.end or 0))
            case "stop", int(which) if life.tasks:
                machine.ask(wire.TaskStop(task=life.tasks[which % len(life.tasks)].id), ALICE)
            case "drain", int(length):
                start = machine.now
                machine.block()
                life.look()
                life.live(machine.now + length * SECOND)
                machine.ask(wire.Resume(), OPERATOR)
                windows.append((start, machine.now))
            case "wait", int(length):
                life.live(machine.now + length * SECOND)
        life.look()
    life.live(machine.now + 50 * SECOND)
    return life, windows


@settings(max_examples=150)
@given(st.lists(rules(), max_size=2).map(tuple), timings, steps)
def test_no_run_ever_overlaps_a_window_or_another_run(
    rules_: tuple[Rule, ...], timing: Timing, script: list[tuple[str, object]]
) -> None:
    calendar = Calendar(rules_)
    life, added = play(calendar, timing, script)
    for stay in life.stays:
        for window in calendar.windows(stay.start, stay.end):
            assert window.start >= stay.end
        for start, end in added:
            assert stay.end <= start or stay.start >= end
    for earlier, later in itertools.pairwise(life.stays):
        assert earlier.end <= later.start


@settings(max_examples=150)
@given(st.lists(rules(), max_size=2).map(tuple), timings, steps)
def test_every_shot_counts_once_however_a_task_is_cut(
    rules_: tuple[Rule, ...], timing: Timing, script: list[tuple[str, object]]
) -> None:
    life, _ = play(Calendar(rules_), timing, script)
    life.live(life.machine.now + 7200 * SECOND)
    for task in life.tasks:
        now = life.machine.task(task.id)
        if now.status is TaskStatus.COMPLETED:
            assert now.counts == {f"{shot:0{QUBITS}b}": 1 for shot in range(task.shots)}
        if not rules_:
            assert now.status.final
            assert now.status is not TaskStatus.FAILED or "ended without a shot" in now.error


@settings(max_examples=100)
@given(st.lists(rules(), max_size=2).map(tuple), timings, steps)
def test_the_same_events_give_the_same_life(
    rules_: tuple[Rule, ...], timing: Timing, script: list[tuple[str, object]]
) -> None:
    (one, _), (other, _) = (play(Calendar(rules_), timing, script) for _ in range(2))
    assert one.stays == other.stays
    assert [one.machine.task(t.id) for t in one.tasks] == [other.machine.task(t.id) for t in other.tasks]
