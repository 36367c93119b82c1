"""How requests say how much, as Grid Engine writes it. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Grid Engine's own: k is 1000, K is 1024, and so on.
_MULTIPLIERS = {"": 1, "k": 1000, "K": 1024, "m": 1000**2, "M": 1024**2, "g": 1000**3, "G": 1024**3}


def asks(requests: Mapping[str, str]) -> bool:
    """Whether a job asks for a place on a QPU."""
    return requests.get("qpu", "0") not in {"0", "0.000000"}


def places(text: str) -> int | None:
    """A whole number of places; None: Grid Engine takes `0x0`, `00` or `0.5`, too, and books no place for it."""
    found = re.fullmatch(r"([1-9][0-9]{0,8})(\.0+)?", text)
    return int(found[1]) if found else None


def amount(text: str) -> int | None:
    """In whole units; None: it is no number that we can read, although Grid Engine could."""
    found = re.fullmatch(r"([0-9]{1,12})(?:\.[0-9]*)?([kKmMgG]?)", text)
    return int(found[1]) * _MULTIPLIERS[found[2]] if found else None


def seconds(text: str) -> int:
    """A time such as `90` or `1:30:00`, rounded up; 0: there is no end, or it is left to Grid Engine."""
    if not re.fullmatch(r"([0-9]{0,9}:){0,2}[0-9]{0,9}(\.[0-9]{1,6})?", text):
        return 0
    total = 0.0
    for part in text.split(":"):
        total = total * 60 + float(part or 0)
    return -int(-total // 1)
