"""The calendar: rules in, windows out. Pure: the same rules and the same clock give the same windows anywhere."""

from __future__ import annotations

import functools
import heapq
import itertools
import math
from typing import TYPE_CHECKING

import msgspec

from warden.model import HORIZON, ConfigurationError, Micros, Outcome, PastWindow, State, Window

if TYPE_CHECKING:
    from collections.abc import Iterator

_FOREVER: Micros = 2**62
# Windows that are followed one after the other before we believe that they never leave a gap, or do not know how long.
_PARTS = 10_000


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A window that comes back: at epoch + offset + n * every, for duration. Times in microseconds.

    `make_up`: when one was missed, because no broker was there to open it, the QPU gets its time as soon as it is free.
    """

    every: Micros
    duration: Micros
    offset: Micros = 0
    kind: State = State.CALIBRATING
    reason: str = "calibration"
    make_up: bool = False

    def __post_init__(self) -> None:
        if self.duration <= 0:
            raise ConfigurationError("a calibration rule needs a duration above 0")
        if self.every <= self.duration:
            raise ConfigurationError(
                "a calibration rule must leave the QPU some time: make 'every' longer than 'duration'"
            )
        if self.kind not in {State.CALIBRATING, State.MAINTENANCE}:
            raise ConfigurationError("a calibration rule's kind is 'calibrating' or 'maintenance'")

    @property
    def name(self) -> str:
        """By which the almanac knows it; a rule that is changed is another one."""
        again = ", made up for" if self.make_up else ""
        return f"{self.kind} every {self.every} for {self.duration} at {self.offset}{again}: {self.reason}"

    def windows(self, time: Micros) -> Iterator[Window]:
        """The windows that end after `time`, in order, without end."""
        n = (time - self.offset - self.duration) // self.every + 1
        while True:
            start = self.offset + n * self.every
            yield Window(start, start + self.duration, self.kind, self.reason)
            n += 1

    def missed(self, after: Micros, now: Micros) -> PastWindow | None:
        """Those that ended after `after` and by `now`, as one record."""
        first = next(self.windows(after))
        if first.end is None or first.end > now:
            return None
        count = (now - first.end) // self.every + 1
        whole = msgspec.structs.replace(first, end=first.end + (count - 1) * self.every)
        return PastWindow(whole, Outcome.MISSED, count)


class ShotRule(msgspec.Struct, frozen=True, kw_only=True):
    """A calibration that is due when the QPU has taken `after_shots` shots since its last one."""

    after_shots: int
    duration: Micros
    reason: str = "calibration"

    def __post_init__(self) -> None:
        if self.after_shots <= 0 or self.duration <= 0:
            raise ConfigurationError("a calibration rule by shots needs 'after_shots' and a duration above 0")


class QualityRule(msgspec.Struct, frozen=True, kw_only=True):
    """A calibration that is due when the quality falls below `below`, and the last one ended `at_least` ago."""

    below: float
    duration: Micros
    at_least: Micros
    reason: str = "calibration"

    def __post_init__(self) -> None:
        if not 0 < self.below < 1 or self.duration <= 0 or self.at_least <= 0:
            raise ConfigurationError(
                "a calibration rule by quality needs 'below_quality' between 0 and 1, and 'duration' and 'at_least' above 0"
            )


class Calendar(msgspec.Struct, frozen=True):
    """Rules that come back, and windows that were added one by one."""

    rules: tuple[Rule, ...] = ()
    single: tuple[Window, ...] = ()
    shot_rules: tuple[ShotRule, ...] = ()
    quality_rules: tuple[QualityRule, ...] = ()

    def windows(self, time: Micros, until: Micros) -> list[Window]:
        """Windows that end after `time` and start before `until`, in order, overlapping and touching ones joined."""
        return list(itertools.takewhile(lambda window: window.start < until, self._joined(time)))

    def block(self, time: Micros) -> Window | None:
        """The window that covers `time`, if any, with all that follows it without a gap; its kind is that of `time`."""
        whole = next(self._joined(time), None)
        if whole is None or not whole.covers(time):
            return None
        covering = list(itertools.takewhile(lambda window: window.start <= time, self._all(time)))
        told = next((window for window in covering if window.kind is State.MAINTENANCE), covering[0])
        return msgspec.structs.replace(whole, kind=told.kind, reason=told.reason)

    def next(self, time: Micros) -> Window | None:
        """The first window that opens after `time` (after the block that covers `time`) and within HORIZON."""
        for window in self._joined(time):
            if not window.covers(time):
                return window if window.start <= time + HORIZON else None
            if window.end is None:
                break
            time = max(time, window.end - 1)
        return None

    def ahead(self, time: Micros) -> Iterator[Window]:
        """The block that covers `time`, if any, and the windows after it, each within HORIZON of the one before."""
        end = time
        for window in self._joined(time):
            if window.start > end + HORIZON:
                return
            yield (self.block(time) or window) if window.covers(time) else window
            if window.end is None:
                return
            end = window.end

    def next_change(self, time: Micros) -> Micros | None:
        """When the first window opens or closes after `time`, one inside another included."""
        changes = []
        for window in self._all(time):
            changes.append(window.start if window.start > time else _end(window))
            if window.start > time:
                break
        return min((change for change in changes if change != _FOREVER), default=None)

    def longest_gap(self) -> Micros | None:
        """The longest time that the rules ever leave between two windows, 0 if they leave none.

        None without rules, and for rules that come together too seldom for us to look at all windows between.
        """
        return _longest_gap(self.rules) if self.rules else None

    def _joined(self, time: Micros) -> Iterator[Window]:
        """Windows that end after `time`, overlapping and touching ones joined; ends where the end of one is unknown."""
        whole, parts = None, 0
        for window in self._all(time):
            if whole is None or window.start > _end(whole):
                if whole is not None:
                    yield whole
                whole, parts = window, 1
            else:
                whole = msgspec.structs.replace(whole, end=_later(whole, window).end, id=0)
                parts += 1
            if whole.end is None or parts == _PARTS:
                break
        if whole is not None:
            yield whole

    def _all(self, time: Micros) -> Iterator[Window]:
        """The windows that end after `time`, one by one, by their start."""
        single = sorted((window for window in self.single if _end(window) > time), key=_order)
        return heapq.merge(single, *(rule.windows(time) for rule in self.rules), key=_order)

    def with_window(self, window: Window) -> Calendar:
        return msgspec.structs.replace(self, single=tuple(sorted({*self.single, window}, key=_order)))

    def without(self, window: Window) -> Calendar:
        return msgspec.structs.replace(self, single=tuple(w for w in self.single if w != window))


@functools.cache
def _longest_gap(rules: tuple[Rule, ...]) -> Micros | None:
    period = math.lcm(*(rule.every for rule in rules))
    longest, end = 0, None
    for window in itertools.islice(Calendar(rules)._joined(0), _PARTS):  # noqa: SLF001 - the same module's
        if end is not None:
            longest = max(longest, window.start - end)
        # From the first window's end on, after a period all comes again; a window of a period has no gap behind it.
        if window.start > 2 * period or _end(window) - window.start >= period:
            return longest
        end = window.end
    return None


def _later(one: Window, other: Window) -> Window:
    return other if _end(other) > _end(one) else one


def _end(window: Window) -> Micros:
    return _FOREVER if window.end is None else window.end


def _order(window: Window) -> tuple[Micros, Micros, str, str, int]:
    return window.start, _end(window), window.kind, window.reason, window.id
