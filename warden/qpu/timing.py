"""How long the QPU takes: one set of figures for Warden's admission and for the device that keeps it. Pure."""

from __future__ import annotations

import msgspec

from warden.model import SECOND, Micros


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """A run takes `overhead` (loading, and emulation) and then delivers `shot_rate` shots a second; 0: all at once."""

    overhead: Micros
    shot_rate: float

    def estimate(self, shots: int) -> Micros:
        """Duration of a run of `shots` shots, rounded up."""
        return self.overhead + self._shooting(shots)

    def shots_within(self, time: Micros) -> int | None:
        """The most shots whose estimate is at most `time`; None where any number fits."""
        if time < self.overhead:
            return 0
        if self.shot_rate == 0:
            return None
        # Floating point may be off by one shot either way; the estimate decides.
        shots = int((time - self.overhead) / SECOND * self.shot_rate) + 1
        while shots > 0 and self.estimate(shots) > time:
            shots -= 1
        return shots

    def shots_done(self, shooting: Micros) -> int | None:
        """Shots that are complete when the QPU has been shooting for so long; None: all."""
        # By the same arithmetic as the estimate: a run that took it must not be a shot short.
        return self.shots_within(self.overhead + shooting)

    def _shooting(self, shots: int) -> Micros:
        return 0 if self.shot_rate == 0 else -int(-shots * SECOND // self.shot_rate)
