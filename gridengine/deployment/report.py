"""A plan for people, and for programs. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gridengine.deployment.order import hosts_to_restart
from gridengine.deployment.state import Change, Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Paint = Callable[[str, str], str]

# What a change does, and has done.
_WORDS = {"+": ("add", "added"), "~": ("change", "changed"), "-": ("remove", "removed")}


class Step(msgspec.Struct, frozen=True):
    """A change as programs read it."""

    object: str
    attribute: str
    action: str
    before: str | None
    after: str | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `--json` prints."""

    changed: bool
    changes: tuple[Step, ...]
    restart: tuple[str, ...] = ()
    """Hosts whose sge_execd has to be restarted for its new load sensor."""
    warnings: tuple[str, ...] = ()


def report(changes: Sequence[Change], warnings: Sequence[str] = (), *, restart: bool = False) -> Report:
    """Put it together; `restart` where this Grid Engine needs it."""
    return Report(
        changed=bool(changes),
        changes=tuple(
            Step(each.item.object, each.item.name, _WORDS[each.sign][0], each.before, each.after) for each in changes
        ),
        restart=tuple(hosts_to_restart(changes)) if restart else (),
        warnings=tuple(warnings),
    )


def diff(changes: Sequence[Change], paint: Paint = lambda _, text: text) -> str:
    """Lines as of a diff, under the object that they belong to. `paint` gets a line's sign and its text."""
    groups: dict[str, list[Change]] = {}
    for change in sorted(changes, key=lambda change: list(Kind).index(change.item.kind)):
        groups.setdefault(_heading(change), []).append(change)
    lines = []
    for heading, group in groups.items():
        width = max(len(change.item.name) for change in group)
        lines.append(heading)
        for change in group:
            begin = f"  {change.sign} {change.item.name:<{width}}  "
            before, after = (_shown(change, text) for text in (change.before, change.after))
            if change.sign == "~":
                shown = f"{begin}{before}\n{'->':>{len(begin) - 1}} {after}"
            else:
                shown = begin + (after if change.sign == "+" else before)
            lines.append(paint(change.sign, shown))
    return "\n".join(lines)


def summary(changes: Sequence[Change], *, done: bool) -> str:
    """Count them."""
    signs = [change.sign for change in changes]
    return ", ".join(f"{signs.count(sign)} {past if done else f'to {verb}'}" for sign, (verb, past) in _WORDS.items())


def _heading(change: Change) -> str:
    return f"{change.item.object}, complex_values" if change.item.kind is Kind.VALUE else change.item.object


def _shown(change: Change, text: str | None) -> str:
    name = change.item.name
    if text is None:
        return "NONE"
    # A complex's line begins with its name and its shortcut.
    return text.removeprefix(f"{name} {name} ") if change.item.kind is Kind.COMPLEX else text
