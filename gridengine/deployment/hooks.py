"""Our hooks in a queue's prolog and epilog, with the site's own behind them. Pure.

`root@/opt/bin/qpu-prolog $job_id $ja_task_id $job_owner $host -- user@/site/prolog $host`: what stood there before is
in the setting itself, so it can be given back whatever else is lost.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gridengine.deployment.state import HOOKS
from gridengine.qconf_text import NONE, Layered, is_none

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# Grid Engine fills these in itself.
_ARGUMENTS = "$job_id $ja_task_id $job_owner $host"
_CHAINED = re.compile(r"root@/(?:\S+/)?(qpu-(?:prolog|epilog))(?: \$\w+)*(?: -- (.+))?")


def chained(hook: str, programs: Path, original: str) -> str:
    """Our hook, which runs the original, too."""
    ours = f"root@{programs}/{HOOKS[hook]} {_ARGUMENTS}"
    return ours if is_none(original) else f"{ours} -- {original}"


def is_ours(hook: str, text: str) -> bool:
    found = _CHAINED.fullmatch(text)
    return found is not None and found[1] == HOOKS[hook]


def any_ours(hook: str, text: str) -> bool:
    """Whether ours is in it for any of the queue's hosts."""
    return any(is_ours(hook, each) for each in Layered.parse(text).texts)


def original(hook: str, text: str) -> str:
    """What runs without us."""
    found = _CHAINED.fullmatch(text)
    return text if found is None or found[1] != HOOKS[hook] else found[2] or NONE


def unchained(hook: str, value: Layered, inherited: Mapping[str, str]) -> Layered:
    """Take ours out. What the configurations say anyway need not stand in the queue."""

    def without_ours(key: str, text: str) -> str:
        if not is_ours(hook, text):
            return text
        found = original(hook, text)
        return NONE if found == inherited.get(key, inherited.get("global")) else found

    return value.map(without_ours)
