"""The QPUs that a job may have, and when their windows leave it the time that it asks for. Pure."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import msgspec

from gridengine.patterns import fits
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


def asks(requests: dict[str, str]) -> bool:
    """Whether a job asks for a place on a QPU, as the prolog sees it."""
    return requests.get("qpu", "0") not in {"0", "0.000000"}


def usable(sights: Iterable[Sight], requests: dict[str, str]) -> tuple[Sight, ...]:
    """The QPUs whose name the job does not rule out."""
    wanted = requests.get("qpu_name", "*")
    return tuple(sight for sight in sights if matches(wanted, sight.name))


def matches(pattern: str, name: str) -> bool:
    """Grid Engine's expression of names: `fres*`, `a|b`, `!emu*&!test`; `&` binds closer than `|`."""

    def one(part: str) -> bool:
        part = part.strip().strip("()")
        plain = part.lstrip("! ()")
        return fits(plain, name) ^ (part.removesuffix(plain).count("!") % 2 == 1)

    return any(all(map(one, group.split("&"))) for group in pattern.split("|"))


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


def number(text: str) -> int:
    """What Grid Engine takes for a number or a length of time (`1:30:00`); 0 where nobody knows."""
    if re.fullmatch(r"\d{0,9}(:\d{0,9}){2}", text):
        hours, minutes, seconds = (int(part or 0) for part in text.split(":"))
        return hours * 3600 + minutes * 60 + seconds
    found = re.match(r"\d{1,15}", text)
    return int(found[0]) if found else 0
