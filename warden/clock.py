"""The broker's clock, and whether somebody has set it."""

from __future__ import annotations

import time

import msgspec

from warden.model import Micros

# Leases, windows and heartbeats are seconds, so less does no harm; and time daemons that step by less would have the
# core move all its times again and again. Slewing moves both clocks alike.
_STEP: Micros = 500_000
# Readings of two clocks that are further apart are no pair: we were not running in between.
_TOGETHER: Micros = 10_000


class Reading(msgspec.Struct, frozen=True):
    """Both clocks at one moment: the one that people set, and the one that nobody can."""

    wall: Micros
    steady: Micros


def step(before: Reading, after: Reading) -> Micros:
    """By how much the wall clock was set between two readings; 0 where that is too little to matter."""
    moved = (after.wall - before.wall) - (after.steady - before.steady)
    return moved if abs(moved) > _STEP else 0


class Moment(msgspec.Struct, frozen=True):
    """The time of a turn; by how much the clock was set since the turn before, and how long that is ago."""

    now: Micros
    step: Micros
    passed: Micros


class Clock:
    """UTC, with an eye on those who set it."""

    def __init__(self) -> None:
        # Steps are told against the first reading; small ones add up until they are one.
        self._reference = self._last = _read()

    def now(self) -> Micros:
        return _wall()

    def turn(self) -> Moment:
        reading = _read()
        by = step(self._reference, reading)
        if by:
            self._reference = reading
        passed, self._last = reading.steady - self._last.steady, reading
        return Moment(reading.wall, by, passed)


def _read() -> Reading:
    while True:
        steady = time.monotonic_ns() // 1000
        wall = _wall()
        if time.monotonic_ns() // 1000 - steady < _TOGETHER:
            return Reading(wall, steady)


def _wall() -> Micros:
    return time.time_ns() // 1000
