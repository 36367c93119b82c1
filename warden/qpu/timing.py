"""How long the QPU takes: one set of figures for Warden's admission and for the device that keeps it. Pure.

A run is prepared by `overhead`, and by `loading` the register; then it takes its shots one after the other, for each of
which the atoms are rearranged. All of it is counted in integers and fractions, so that whoever asks gets the same answer.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import msgspec

from warden.model import SECOND, Micros, Task


class Pace(msgspec.Struct, frozen=True):
    """Of one register: what goes before the first shot, and what each shot takes (0: all at once), in microseconds."""

    setup: Micros
    shot: Fraction

    def estimate(self, shots: int) -> Micros:
        """Duration of a run of `shots` shots, rounded up."""
        return self.setup + self.shooting(shots)

    def shooting(self, shots: int) -> Micros:
        """How long the shots themselves take, rounded up."""
        return math.ceil(shots * self.shot)

    def shots_within(self, time: Micros) -> int | None:
        """The most shots whose estimate is at most `time`; None where any number fits."""
        return self.shots_done(time - self.setup)

    def shots_done(self, shooting: Micros) -> int | None:
        """Shots that are complete when the QPU has been shooting for so long; None: all."""
        if shooting < 0:
            return 0
        return None if self.shot == 0 else shooting // self.shot


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """The configured figures. `shot_rate` 0 has no pace; `rearrangement` is per atom and shot.

    `time_scale` divides them all.
    """

    overhead: Micros = 0
    loading: Micros = 0
    shot_rate: float = 0.0
    rearrangement: Micros = 0
    time_scale: float = 1.0

    def pace(self, qubits: int, preparation: Micros = 0) -> Pace:
        """Of a register of so many atoms, whose first shot needs a `preparation` that no scale makes shorter."""
        return _pace(self, qubits, preparation)

    def pace_of(self, task: Task) -> Pace:
        return _pace(self, task.qubits, task.preparation)

    def scaled(self, time: Micros) -> Micros:
        """A time of the device as it passes here, rounded up."""
        return math.ceil(time / _exact(self.time_scale))


@functools.lru_cache
def _pace(timing: Timing, qubits: int, preparation: Micros) -> Pace:
    between = SECOND / _exact(timing.shot_rate) if timing.shot_rate else Fraction(0)
    shot = (between + qubits * timing.rearrangement) / _exact(timing.time_scale)
    return Pace(timing.scaled(timing.overhead + timing.loading) + preparation, shot)


def _exact(number: float) -> Fraction:
    """What the operator wrote, and not the nearest binary number to it: 0.1 is a tenth."""
    return Fraction(repr(number))
