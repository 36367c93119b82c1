"""The QPUs that a job may have, and when their windows leave it the time that it asks for. Pure."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec

from gridengine import patterns
from warden.model import Availability, Micros, Window

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Sight(msgspec.Struct, frozen=True, kw_only=True):
    """A QPU that the site offers, as its Warden says it is now."""

    name: str
    availability: Availability | None = None
    trouble: str = ""
    """Why there is no availability."""
    windows: tuple[Window, ...] = ()
    more: bool = False
    """Whether there are more windows than these."""


class Fit(msgspec.Struct, frozen=True):
    """Where the windows leave a job the time it asks for: a moment, or None; `never` if no gap can be so long."""

    at: Micros | None
    never: bool = False


def usable(sights: Iterable[Sight], requests: dict[str, str]) -> tuple[Sight, ...]:
    """The QPUs whose name the job does not rule out."""
    wanted = requests.get("qpu_name", "*")
    return tuple(sight for sight in sights if patterns.matches(wanted, sight.name))


def first_fit(sight: Sight, start: Micros, need: Micros) -> Fit:
    """The first moment from `start` at which the QPU is free and stays so for `need`, as far as windows are known."""
    longest = 0
    at = start
    for window in sight.windows:
        if window.end is not None and window.end <= at:
            continue
        if window.start > at:
            if window.start - at >= need:
                return Fit(at)
            longest = max(longest, window.start - at)
        if window.end is None:
            return Fit(None)
        at = max(at, window.end)
    # Behind the last one nobody knows of a window: within a week, or ever.
    return Fit(None, never=True) if sight.more else Fit(at)


def longest_gap(windows: Sequence[Window]) -> Micros:
    gaps = [later.start - earlier.end for earlier, later in itertools.pairwise(windows) if earlier.end]
    return max(gaps, default=0)
