"""When the QPU is blocked, by arithmetic of the harness's own: what the calendar says is under test."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from warden.calibration import Rule
    from warden.model import Micros, Window


def next_opening(rules: Iterable[Rule], single: Iterable[Window], time: Micros) -> Micros | None:
    """When the first window begins that ends after `time`: at or before `time` where one is open."""
    starts = []
    for rule in rules:
        start = time - (time - rule.offset) % rule.every
        starts.append(start if time < start + rule.duration else start + rule.every)
    starts += [window.start for window in single if window.end is None or window.end > time]
    return min(starts, default=None)
