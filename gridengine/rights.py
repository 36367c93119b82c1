"""Who may write what root runs and believes: root alone, and the same of all folders on the way there."""

from __future__ import annotations

import pwd
import stat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from pathlib import Path

_OTHERS = 0o022


class Fault(NamedTuple):
    """What is wrong, and the command that puts it right."""

    seen: str
    fix: str


def on_the_way(path: Path, *, may_be_anybodys: Callable[[Path], bool] = lambda _: False) -> Fault | None:
    """What is wrong with a file or any folder above it, wherever links lead.

    Raises:
        OSError: It is not there.
    """
    real = path.resolve(strict=True)
    places = dict.fromkeys((real, *real.parents, *path.absolute().parents))
    faults = (fault(place, place.stat(), anybodys=may_be_anybodys(place)) for place in places)
    return next((one for one in faults if one is not None), None)


def fault(place: Path, found: os.stat_result, *, anybodys: bool = False) -> Fault | None:
    """What is wrong with this one; `anybodys`: whoever owns it."""
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    if found.st_uid != 0 and not anybodys:
        return Fault(f"{place} belongs to {user(found.st_uid)}, and root believes it", f"chown root {place}")
    if found.st_mode & _OTHERS and not sticky:
        seen = f"{place} may be written by others than its owner, and root believes it"
        return Fault(seen, f"chmod go-w {place}")
    return None


def user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
