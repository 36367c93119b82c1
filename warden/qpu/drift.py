"""How the QPU's noise wanders between calibrations: the same for whoever asks, and however often. Pure.

Each figure takes a random walk of its own, in steps of five minutes, that begins with what the last calibration left: it
has no aim and no memory, as slow drifts of lasers and alignments have none. A walk is not walked: halving the time until
the step in question is met finds it (Levy's construction of Brownian motion), as fast after a year as after an hour.
"""

from __future__ import annotations

import functools
import hashlib
import math

import msgspec
from msgspec.structs import asdict, replace

from warden.model import HORIZON, SECOND, Calibration, Micros
from warden.qpu import quality
from warden.qpu.noise import Noise

# As long the noise stays as it is: tasks of the same sequence share its distribution meanwhile.
STEP: Micros = 300 * SECOND
DAY: Micros = 86400 * SECOND

# What a calibration measures and corrects; an alignment restores the others.
SIGNED = ("rabi_error", "detuning_error")
# Between these bounds they wander. A calibration's scans find them there.
BOUNDS = {"rabi_error": 0.5, "detuning_error": 4.0}
_PROBABILITIES = frozenset({"state_prep_error", "p_false_pos", "p_false_neg", "amp_sigma"})

# No figure is larger when a calibration ends.
_MOST = 1000.0
# 2^20 steps are ten years without a calibration; then nothing moves any more.
_LONGEST = 1 << 20


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What a calibration is asked to do: measure the QPU as it is `at` that time, by the broker's clock.

    `number`: the id that it will have. `calibration`: the one in force. `shot_rate`: shots a second of the device, whose time
    `drift.time_scale` divides; 0 if they take none. `limit`: how long the calibration may take.
    """

    drift: Drift
    number: int
    at: Micros
    calibration: Calibration | None
    shot_rate: float = 0.0
    limit: Micros | None = None


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: the fields of `Calibration`, or why there is nothing, in one line."""

    measured: dict[str, float] = {}
    left: dict[str, float] = {}
    before: float = 1.0
    after: float = 1.0
    log: tuple[str, ...] = ()
    error: str = ""


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """The true noise at any time. `per_day`: the standard deviation of each figure a day after a calibration.

    `base` is the QPU as it was built and aligned. Errors that a calibration corrects wander around it; all others can only
    be worse than it, for an alignment is an optimum.
    """

    base: Noise = Noise()
    per_day: Noise = Noise()
    seed: int = 0
    time_scale: float = 1.0

    @property
    def off(self) -> bool:
        return self.base.off and self.per_day.off

    @property
    def ideal(self) -> Noise:
        """What the best calibration leaves."""
        return replace(self.base, rabi_error=0.0, detuning_error=0.0)

    @property
    def foreseen(self) -> Noise:
        """Noise of every kind that there may be at any time: from that follows what it takes to emulate a sequence."""
        moves = asdict(self.per_day)
        return Noise(**{name: value or moves[name] for name, value in asdict(self.base).items()})

    def noise(self, time: Micros, calibration: Calibration | None) -> Noise:
        """How the QPU is at `time`, by the broker's clock, with this calibration in force."""
        if self.off:
            return Noise()
        number, age = self._since(time, calibration)
        left = {} if calibration is None else calibration.left
        steps = int(age * self.time_scale) // STEP
        moves = asdict(self.per_day)
        return Noise(
            **{
                name: _within(name, base, base + _known(left, name) + self._walk(number, name, steps, moves[name]))
                for name, base in asdict(self.base).items()
            }
        )

    def quality(self, time: Micros, calibration: Calibration | None) -> float:
        """How good the QPU is then, from 0 to 1."""
        return self.rate(self.noise(time, calibration))

    def rate(self, noise: Noise) -> float:
        """How good the QPU is with this noise: 1 after the best calibration, 0 useless."""
        return quality.compare(noise, self.ideal)

    def left(self, true: Noise, measured: dict[str, float]) -> dict[str, float]:
        """What deviates from the base once the measured errors are corrected and all else is aligned."""
        base, was, moves = asdict(self.base), asdict(true), asdict(self.per_day)
        return {
            name: was[name] - measured[name] - base[name]
            for name in SIGNED
            # An error that this QPU does not have needs no correction.
            if name in measured and (base[name] or moves[name])
        }

    def after(self, left: dict[str, float]) -> Noise:
        """How the QPU is when a calibration has just left that."""
        return self.noise(0, Calibration(id=0, time=0, left=left))

    def _since(self, time: Micros, calibration: Calibration | None) -> tuple[str, Micros]:
        """Which walk it is, and since when."""
        if calibration is None:
            # Nobody has calibrated it yet: somebody aligned it at the beginning of the week, as the epoch counts weeks.
            week, age = divmod(max(0, time), max(1, int(HORIZON / self.time_scale)))
            return f"week {week}", age
        return str(calibration.id), max(0, time - calibration.time)

    def _walk(self, number: str, name: str, steps: int, per_day: float) -> float:
        if not per_day or not steps:
            return 0.0
        return per_day * math.sqrt(STEP / DAY) * _brownian(f"{self.seed}/{number}/{name}", steps)


def at_once(survey: Survey) -> Findings:
    """Set everything back without a look at it, as a QPU without physics does."""
    drift = survey.drift
    true = drift.noise(survey.at, survey.calibration)
    known = {name: getattr(true, name) for name in SIGNED}
    return Findings(left=drift.left(true, known), before=drift.rate(true), log=("set back to its best, without scans",))


def _known(left: dict[str, float], name: str) -> float:
    """What can be true of it."""
    value = left.get(name, 0.0)
    return value if abs(value) <= _MOST else 0.0


def _within(name: str, base: float, value: float) -> float:
    """Turn a walk back at its bounds, which leaves it a random walk."""
    if name in BOUNDS:
        return _folded(value, -BOUNDS[name], BOUNDS[name])
    return _folded(value, base, 1.0 if name in _PROBABILITIES else math.inf)


def _folded(value: float, low: float, high: float) -> float:
    if low <= value <= high:
        return value
    if low == high:
        return low
    if high == math.inf:
        return 2 * low - value
    span = high - low
    beyond = (value - low) % (2 * span)
    return min(high, max(low, low + min(beyond, 2 * span - beyond)))


# The worker asks with each beat, and the answer is another one after each step.
@functools.lru_cache(maxsize=1024)
def _brownian(walk: str, steps: int) -> float:
    """Where this walk is after so many steps of variance 1."""
    low, high = 0, _LONGEST
    at_low, at_high = 0.0, math.sqrt(high) * _normal(walk, high)
    if steps >= high:
        return at_high
    while low < steps:
        middle = (low + high) // 2
        at_middle = (at_low + at_high) / 2 + math.sqrt(high - low) / 2 * _normal(walk, middle)
        if steps < middle:
            high, at_high = middle, at_middle
        else:
            low, at_low = middle, at_middle
    return at_low


def _normal(walk: str, number: int) -> float:
    """One of a walk's numbers, normally distributed (Box and Muller's)."""
    drawn = hashlib.blake2b(f"{walk}/{number}".encode(), digest_size=16).digest()
    first, second = (int.from_bytes(drawn[part : part + 8]) >> 11 for part in (0, 8))
    return math.sqrt(-2 * math.log((first + 1) / 2**53)) * math.cos(2 * math.pi * second / 2**53)
