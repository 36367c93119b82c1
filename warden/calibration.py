"""The calendar: rules in, windows out. Pure: the same rules and the same clock give the same windows anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from warden.model import HORIZON, ConfigurationError, Micros, State, Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_FOREVER: Micros = 2**62


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A window that comes back: at epoch + offset + n * every, for duration. Times in microseconds."""

    every: Micros
    duration: Micros
    offset: Micros = 0
    kind: State = State.CALIBRATING
    reason: str = "calibration"

    def __post_init__(self) -> None:
        if self.duration <= 0:
            raise ConfigurationError("a calibration rule needs a duration above 0")
        if self.every <= self.duration:
            raise ConfigurationError(
                "a calibration rule must leave the QPU some time: make 'every' longer than 'duration'"
            )
        if self.kind not in {State.CALIBRATING, State.MAINTENANCE}:
            raise ConfigurationError("a calibration rule's kind is 'calibrating' or 'maintenance'")

    def windows(self, time: Micros) -> Iterator[Window]:
        """The windows that end after `time`, in order, without end."""
        n = (time - self.offset - self.duration) // self.every + 1
        while True:
            start = self.offset + n * self.every
            yield Window(start, start + self.duration, self.kind, self.reason)
            n += 1


class Calendar(msgspec.Struct, frozen=True):
    """Rules that come back, and windows that an operator added."""

    rules: tuple[Rule, ...] = ()
    single: tuple[Window, ...] = ()

    def windows(self, time: Micros, until: Micros) -> list[Window]:
        """Windows that end after `time` and start before `until`, in order, overlapping and touching ones joined."""
        found = [w for w in self.single if (w.end is None or w.end > time) and w.start < until]
        for rule in self.rules:
            for window in rule.windows(time):
                if window.start >= until:
                    break
                found.append(window)
        return _joined(found)

    def block(self, time: Micros) -> Window | None:
        """The window that covers `time`, if any, with all that follows it without a gap."""
        covering = [w for w in self.windows(time, time + 1) if w.covers(time)]
        return self._whole(covering[0]) if covering else None

    def next(self, time: Micros) -> Window | None:
        """The first window that opens after `time` (after the block that covers `time`) and within HORIZON."""
        block = self.block(time)
        if block is not None:
            return None if block.end is None else self.next(block.end)
        opening = [w for w in self.single if w.start >= time]
        opening += [next(w for w in rule.windows(time) if w.start >= time) for rule in self.rules]
        first = min(opening, key=_order, default=None)
        return None if first is None or first.start > time + HORIZON else self._whole(first)

    def _whole(self, window: Window) -> Window:
        """The window, prolonged by those that it runs into; rules that never leave a gap are followed for HORIZON."""
        while window.end is not None and window.end < window.start + HORIZON:
            longer = self.windows(window.start, window.end + 1)[0]
            if longer.end == window.end:
                break
            window = longer
        return window

    def with_window(self, window: Window) -> Calendar:
        return msgspec.structs.replace(self, single=tuple(sorted({*self.single, window}, key=_order)))

    def without(self, window: Window) -> Calendar:
        return msgspec.structs.replace(self, single=tuple(w for w in self.single if w != window))


def _joined(windows: Iterable[Window]) -> list[Window]:
    joined: list[Window] = []
    for window in sorted(windows, key=_order):
        if joined and _end(joined[-1]) >= window.start:
            last = joined[-1]
            if _end(window) > _end(last):
                joined[-1] = msgspec.structs.replace(last, end=window.end)
        else:
            joined.append(window)
    return joined


def _end(window: Window) -> Micros:
    return _FOREVER if window.end is None else window.end


def _order(window: Window) -> tuple[Micros, Micros, str, str]:
    return window.start, _end(window), window.kind, window.reason
