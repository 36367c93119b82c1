"""The changes that lead from one state to another, in an order that is safe under load. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridengine.deployment.state import Change, Kind

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gridengine.deployment.state import Item

_COMING = list(Kind)
# First what lets jobs with a QPU start, so that none starts without our hooks when those go.
_GOING = [
    Kind.VALUE,
    Kind.OFFER,
    Kind.THRESHOLD,
    Kind.SENSOR,
    Kind.QUOTA,
    Kind.PE_LIST,
    Kind.SETTING,
    Kind.HOOK,
    Kind.PE,
    Kind.COMPLEX,
]
# Grid Engine takes a complex away from under thresholds that refer to it, and their queues are in alarm then.
_DEFINITIONS = (Kind.COMPLEX, Kind.PE)


def plan(wanted: Mapping[Item, str], actual: Mapping[Item, str], bare: Mapping[Item, str]) -> list[Change]:
    """Work out the changes: first what goes, then what comes, and in the end what nothing refers to any more."""
    changes = [
        Change(item, actual.get(item), wanted.get(item))
        for item in dict.fromkeys([*actual, *wanted])
        if actual.get(item) != wanted.get(item)
    ]
    # The last of a kind first, so that undoing it leaves lists in their order.
    going = [change for change in reversed(changes) if change.after == bare.get(change.item)]
    coming = [change for change in changes if change.after != bare.get(change.item)]
    going.sort(key=lambda change: _GOING.index(change.item.kind))
    coming.sort(key=lambda change: _COMING.index(change.item.kind))
    first = [change for change in going if change.item.kind not in _DEFINITIONS]
    last = [change for change in going if change.item.kind in _DEFINITIONS]
    return first + coming + last


def batches(changes: Iterable[Change]) -> list[list[Change]]:
    """Complexes go together, in one writing of the table; everything else one by one."""
    found: list[list[Change]] = []
    for change in changes:
        if change.item.kind is Kind.COMPLEX and found and found[-1][0].item.kind is Kind.COMPLEX:
            found[-1].append(change)
        else:
            found.append([change])
    return found


def hosts_to_restart(changes: Iterable[Change]) -> list[str]:
    """Tell the hosts whose execd does not see its new sensor; one in the global configuration starts by itself."""
    new = [change.item for change in changes if change.item.kind is Kind.SENSOR and change.before is None]
    return [item.place for item in new if item.place != "global"]
