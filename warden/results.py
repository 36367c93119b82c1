"""What a worker says of a run: a worker's words are checked like a user's. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warden import wire
    from warden.model import Micros, Run, Task


def merged(counts: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    """The counts of two runs as those of one."""
    return {bits: counts.get(bits, 0) + more.get(bits, 0) for bits in {**counts, **more}}


def problem(task: Task, run: Run, finished: wire.RunFinished, now: Micros, *, stopping: bool) -> str:
    """Why a run does not count and has to be repeated, or nothing. `stopping`: the worker was told to end it early."""
    counts = finished.counts
    lies = {
        f"returned {finished.shots} shots where {run.shots} were asked for": finished.shots > run.shots,
        "returned counts that do not add up to its shots": sum(counts.values()) != finished.shots,
        "returned results that never came up": not all(counts.values()),
        "returned bitstrings of another length than the register": any(len(bits) != task.qubits for bits in counts),
    }
    if finished.error:
        return finished.error
    if found := [f"the QPU {lie}" for lie, told in lies.items() if told]:
        return found[0]
    early = not stopping and run.deadline is not None and now < run.deadline
    return "it ended before its limit, without a shot" if early and not finished.shots else ""
