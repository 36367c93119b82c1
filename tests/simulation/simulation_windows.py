"""When the QPU is blocked, by arithmetic of the harness's own: what the calendar says is under test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warden.model import State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from warden.calibration import Rule
    from warden.model import Micros, Window


def closing(rules: Iterable[Rule], single: Iterable[Window], time: Micros) -> Micros | None:
    """When the windows of kind calibrating are over that are open at `time`; None where none is, or a maintenance is on."""
    ends = []
    for rule in rules:
        start = time - (time - rule.offset) % rule.every
        ends.append((rule.kind, start + rule.duration))
    ends += [(window.kind, window.end) for window in single if window.start <= time]
    there = [(kind, end) for kind, end in ends if end is None or end > time]
    if any(kind is State.MAINTENANCE for kind, _ in there):
        return None
    return max((end for _, end in there if end is not None), default=None)


def next_opening(rules: Iterable[Rule], single: Iterable[Window], time: Micros) -> Micros | None:
    """When the first window begins that ends after `time`: at or before `time` where one is open."""
    starts = []
    for rule in rules:
        start = time - (time - rule.offset) % rule.every
        starts.append(start if time < start + rule.duration else start + rule.every)
    starts += [window.start for window in single if window.end is None or window.end > time]
    return min(starts, default=None)
