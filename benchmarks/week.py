"""A week of an emulated QPU in less than a minute: its noise wanders, tasks run, windows open, calibrations set it back.

The real core and its store and a worker's half of the protocol, with a simulated clock; each task and each scan is sampled
from the QPU as it is then, which here is the model of one atom: Pulser's emulator would take minutes for the scans of all
calibrations. Prints how long the week took, and exits with 1 if that is a minute or more; draws docs/week.svg.

    python benchmarks/week.py [--out docs/week.svg]
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

sys.path.append(str(Path(__file__).resolve().parent.parent))
sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "unit"))

from warden_machine import ALICE, BOB, DEVICE, Machine, sequence

from warden import orders
from warden.actions import Action, Begin, Calibrate, Send
from warden.calibration import Calendar, QualityRule, Rule
from warden.events import Reported
from warden.model import SECOND, Calibration, PastWindow, State, Task, TaskStatus
from warden.qpu import atom, calibrate, quality
from warden.qpu.atom import Pulses
from warden.qpu.drift import DAY, Drift, Survey
from warden.qpu.noise import Noise
from warden.qpu.timing import Timing
from warden.runner import Runner

HOUR = 3600 * SECOND
# A Monday.
START = 1_803_600_000 * SECOND - 1_803_600_000 * SECOND % DAY
SEED = 7
BELOW = 0.96
DRIFT = Drift(
    base=Noise(
        state_prep_error=0.005,
        p_false_pos=0.01,
        p_false_neg=0.05,
        amp_sigma=0.02,
        temperature=30.0,
        dephasing_rate=0.02,
    ),
    per_day=Noise(
        p_false_pos=0.004, p_false_neg=0.02, temperature=8.0, dephasing_rate=0.02, rabi_error=0.02, detuning_error=0.25
    ),
    seed=SEED,
)
CALENDAR = Calendar(
    (
        Rule(every=12 * HOUR, duration=20 * 60 * SECOND, offset=6 * HOUR, reason="morning and evening"),
        Rule(every=7 * DAY, duration=3 * HOUR, offset=(START + 2 * DAY + 9 * HOUR) % (7 * DAY), kind=State.MAINTENANCE),
    ),
    quality_rules=(QualityRule(below=BELOW, duration=20 * 60 * SECOND, at_least=HOUR, reason="quality low"),),
)
TIMING = Timing(overhead=2 * SECOND, loading=10 * SECOND, shot_rate=1.0)
SHOTS = 200
# What every task is: the pulse by which quality is told, so that results can be looked at beside it.
PULSE = Pulses(np.array([quality.AMPLITUDE]), np.zeros(1), np.array([quality.DURATION]))


class Device:
    """A worker at the machine: the runner and what it has done, at once."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.peer, self.ahead = machine, b"worker", 5 * SECOND - START
        # As those of the tests it is asked for its verdicts at once (`Machine.send`).
        self.prompt = True
        self._runner = Runner(
            instance="worker",
            device_json="{}",
            device_name=DEVICE,
            qubits=8,
            timing=TIMING,
            heartbeat=60 * SECOND,
            drift=DRIFT,
        )
        machine.qpus.append(self)
        self._do(self._runner.start(self._clock))
        self.listen()

    @property
    def _clock(self) -> int:
        return self.machine.now + self.ahead

    @property
    def next_beat(self) -> int:
        return self._runner.next_wakeup(self._clock) - self.ahead

    def beat(self) -> None:
        self._do(self._runner.tick(self._clock))
        self.listen()

    def listen(self) -> None:
        """Take in what the core has told since, and what it tells because of that."""
        told = self.machine.told.get(self.peer, [])
        while told:
            self._do(self._runner.hear(told.pop(0), self._clock))

    def check_all(self) -> list[Any]:
        """Say of each sequence that it was asked about that it can run it."""
        told = self.machine.told.get(self.peer, [])
        asked = [body for body in told if isinstance(body, orders.CheckSequence)]
        told[:] = [body for body in told if not isinstance(body, orders.CheckSequence)]
        for check in asked:
            self.machine.send(Reported(self.peer, orders.SequenceChecked(instance="worker", token=check.token)))
        return []

    def _do(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(body=body):
                    self.machine.send(Reported(self.peer, body))
                case Begin(run=run):
                    self._do(self._runner.computed(run.token, sampled(run), self._clock))
                case Calibrate(order=order):
                    survey = Survey(
                        drift=DRIFT,
                        number=order.number,
                        at=order.at,
                        calibration=order.calibration,
                        shot_rate=TIMING.shot_rate,
                    )
                    found = calibrate.calibrate(survey, SEED, atom.excited)
                    self._do(self._runner.calibrated(order.token, found, self._clock))


def sampled(run: orders.StartRun) -> list[str]:
    """Shots of a run, of the QPU as it was when its task began."""
    [likely] = atom.distribution(PULSE, DRIFT.noise(run.at, run.calibration))
    drawn = np.random.default_rng([SEED, run.task]).random(run.first_shot + run.shots)[run.first_shot :]
    return ["1" if one else "0" for one in drawn < likely]


class Week(msgspec.Struct):
    """What the core's store says of it."""

    calibrations: list[Calibration]
    past: list[PastWindow]
    tasks: list[Task]
    curve: list[tuple[int, float, Noise]]


def live(days: float = 7) -> Week:
    """Some days, in which two people's jobs send a task every now and then."""
    machine = Machine(
        CALENDAR,
        now=START,
        timing=TIMING,
        heartbeat=60 * SECOND,
        lease=8 * DAY,
        keep=30 * DAY,
        max_queued=1000,
        max_queued_per_user=1000,
    )
    device = Device(machine)
    sessions = [machine.session(uid, job=str(uid)) for uid in (ALICE, BOB)]
    chance = np.random.default_rng(SEED)
    while machine.now < START + days * DAY:
        machine.later(float(chance.exponential(300)))
        machine.start(sessions[int(chance.integers(2))], SHOTS, text=sequence(1))
        device.listen()
    archive = machine.disk
    calibrations = archive.calibrations(1000)[::-1]
    listed = archive.tasks(uid=None, session=None, before=None, limit=10_000)
    tasks = [machine.task(task.id) for task in listed if task.status is TaskStatus.COMPLETED]
    samples = archive.quality(0, 10_000)
    known = {one.id: one for one in calibrations}
    curve = [(one.time, one.value, DRIFT.noise(one.time, known.get(one.calibration))) for one in samples]
    return Week(calibrations, archive.past_windows(1000), tasks, curve)


def main() -> None:
    parser = argparse.ArgumentParser(description="A week of an emulated QPU.")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent.parent / "docs" / "week.svg", help="the plot (docs/week.svg)"
    )
    arguments = parser.parse_args()
    began = time.perf_counter()
    week = live()
    took = time.perf_counter() - began
    print(
        f"a week in {took:.1f} s: {len(week.tasks)} tasks of {SHOTS} shots, {len(week.calibrations)} calibrations, "
        f"{sum(one.reason == 'quality low' for one in week.calibrations)} of them early"
    )
    from week_plot import draw  # noqa: PLC0415 - matplotlib takes a while, and is no part of the week

    draw(week, arguments.out)
    sys.exit(0 if took < 60 else 1)


if __name__ == "__main__":
    main()
