"""What a worker says of a run: a worker's words are checked like a user's. Pure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from warden import bitstrings, orders, wire
from warden.model import SECOND, few, one_line
from warden.qpu.noise import Noise

if TYPE_CHECKING:
    from warden.model import Micros, Run, Task

# Lines of a worker's own that the log of a task takes in for each run.
_LINES = 5


def merged(counts: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    """The counts of two runs as those of one."""
    return {bits: counts.get(bits, 0) + more.get(bits, 0) for bits in {**counts, **more}}


def problem(task: Task, run: Run, finished: orders.RunFinished, now: Micros, *, stopping: bool) -> str:
    """Why a run does not count and has to be repeated, or nothing. `stopping`: the worker was told to end it early."""
    counts = finished.counts
    lies = {
        f"returned {finished.shots} shots where {run.shots} were asked for": finished.shots > run.shots,
        "returned counts that do not add up to its shots": sum(counts.values()) != finished.shots,
        "returned results that never came up": not all(counts.values()),
        "returned bitstrings of another length than the register": any(len(bits) != task.qubits for bits in counts),
        "returned other shots than it counted": task.bitstrings
        and not bitstrings.agree(finished.bitstrings, counts, task.qubits),
    }
    if finished.error:
        return finished.error
    if found := [f"the QPU {lie}" for lie, told in lies.items() if told]:
        return found[0]
    early = not stopping and run.deadline is not None and now < run.deadline
    return "it ended before its limit, without a shot" if early and not finished.shots else ""


def in_order(task: Task, run: Run, finished: orders.RunFinished) -> wire.Bitstrings | None:
    """The shots of a run that counts, if they are to be kept in their order."""
    if not task.bitstrings or not finished.shots:
        return None
    return wire.Bitstrings(
        qubits=task.qubits, first=run.first_shot, shots=finished.shots, data=finished.bitstrings, total=task.shots
    )


def metadata(task: Task, finished: orders.RunFinished, qpu: str) -> dict[str, Any]:
    """What is told of a result: by the worker, and by us, who know the task."""
    told = {**finished.metadata, "qpu": qpu, "qubits": task.qubits, "shots": task.shots_done}
    if task.calibration is None:
        return told
    return {**told, "calibration": task.calibration.id, "calibration_age": _age(task) / SECOND}


def lines(finished: orders.RunFinished) -> list[str]:
    """What the worker has for the log of the task."""
    return [one_line(line) for line in finished.log[:_LINES]]


def calibrated(task: Task) -> str:
    """With which calibration a run of the task is done, for its log."""
    if task.calibration is None:
        return ""
    return f", with calibration {task.calibration.id}, {_age(task) / SECOND:.0f} s old"


def _age(task: Task) -> Micros:
    """Of its calibration, when its first run started."""
    assert task.calibration is not None  # noqa: S101 - whoever asks has looked
    return max(0, task.at - task.calibration.time)


def flaw(finished: orders.CalibrationFinished) -> str:
    """Why a calibration does not count, or nothing."""
    figures = {**finished.measured, **finished.left}
    if finished.error:
        return finished.error
    if unknown := set(figures) - set(Noise.__struct_fields__):
        return f"the QPU returned figures that nobody knows: {few(sorted(unknown))}"
    return "" if all(map(math.isfinite, figures.values())) else "the QPU returned figures that are no numbers"
