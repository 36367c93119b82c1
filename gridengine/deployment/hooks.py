"""Our hooks in a queue's prolog and epilog, with the site's own. Pure.

`root@/opt/bin/qpu-chain prolog 2 user@/site/prolog $host $job_id $ja_task_id $job_owner $host`: what stood there before,
two words here, is in the setting itself, so it can be given back whatever else is lost. It stands before our variables:
what Grid Engine fills in for those a job's owner can make longer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gridengine.deployment.state import CHAIN, HOOKS
from gridengine.qconf_text import NONE, Layered, is_none
from warden.model import ConflictError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_ARGUMENTS = "$job_id $ja_task_id $job_owner $host"
_OURS = re.compile(r"root@/(?:\S+/)?(qpu-(?:prolog|epilog))(?: \$\w+)*")
_CHAINED = re.compile(rf"root@/(?:\S+/)?{CHAIN} (prolog|epilog) ([1-9]\d?) (.+)")
_MOST_WORDS = 99  # of qpu-chain


def chained(hook: str, programs: Path, original: str) -> str:
    """Our hook; if there is another one, the program that runs both.

    Raises:
        ConflictError: The other one is more than that program takes.
    """
    if is_none(original):
        return f"root@{programs}/{HOOKS[hook]} {_ARGUMENTS}"
    words = original.split()
    # In a list of hosts a bracket begins the next one.
    if "[" in original or len(words) > _MOST_WORDS:
        raise ConflictError(f"the {hook} {original} cannot stand in a queue beside ours: put it into a script")
    return f"root@{programs}/{CHAIN} {hook} {len(words)} {original} {_ARGUMENTS}"


def is_ours(hook: str, text: str) -> bool:
    return _read(hook, text) is not None


def any_ours(hook: str, text: str) -> bool:
    """Whether ours is in it for any of the queue's hosts."""
    return any(is_ours(hook, each) for each in Layered.parse(text).texts)


def original(hook: str, text: str) -> str:
    """What runs without us."""
    found = _read(hook, text)
    return text if found is None else found


def unchained(hook: str, value: Layered, inherited: Mapping[str, str]) -> Layered:
    """Take ours out. What the configurations say anyway need not stand in the queue."""

    def without_ours(key: str, text: str) -> str:
        if not is_ours(hook, text):
            return text
        found = original(hook, text)
        return NONE if found == inherited.get(key, inherited.get("global")) else found

    return value.map(without_ours)


def _read(hook: str, text: str) -> str | None:
    """What stands there besides ours: NONE if nothing does, nothing if it is not ours at all."""
    alone = _OURS.fullmatch(text)
    if alone is not None and alone[1] == HOOKS[hook]:
        return NONE
    both = _CHAINED.fullmatch(text)
    if both is None or both[1] != hook:
        return None
    words = both[3].split()
    theirs = words[: int(both[2])]
    ours = words[int(both[2]) :]
    return " ".join(theirs) if ours and all(word.startswith("$") for word in ours) else None
