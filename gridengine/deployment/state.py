"""What the kit sets in Grid Engine, as data. Pure.

State is flat: an item (a complex, a value, a sensor, an attribute of a queue ...) has a text or is not there.
"""

from __future__ import annotations

import enum

import msgspec

SENSOR = "qpu-load-sensor"
HOOKS = {"prolog": "qpu-prolog", "epilog": "qpu-epilog"}
# What runs a hook of the site and ours, where there are both.
CHAIN = "qpu-chain"
JSV = "qpu-jsv"
# The quota set and the parallel environment; a set of this name that does not describe itself so is somebody else's.
QUOTA = "qpu"
QUOTA_MARK = "Places of the QPUs, kept by qpu-admin"
WINDOW = "qpu_window"


class Kind(enum.StrEnum):
    """In the order in which they are applied: each needs those before it, and hooks touch jobs, so they come last."""

    COMPLEX = "complex"
    VALUE = "value"
    PE = "parallel environment"
    QUOTA = "resource quota set"
    OFFER = "complex_values"
    PE_LIST = "pe_list"
    SENSOR = "load_sensor"
    THRESHOLD = "load_thresholds"
    SETTING = "setting"
    HOOK = "hook"


OF_QUEUES = (Kind.OFFER, Kind.PE_LIST, Kind.THRESHOLD, Kind.HOOK)
"""Attributes of queues: there always, if only as NONE."""
_PLACES = {Kind.VALUE: "host", Kind.SENSOR: "configuration", Kind.SETTING: "configuration"} | dict.fromkeys(
    OF_QUEUES, "queue"
)


class Item(msgspec.Struct, frozen=True):
    """One thing: `name` at `place` (a host, a configuration, a queue; complexes, quotas and environments have none)."""

    kind: Kind
    place: str
    name: str

    @property
    def object(self) -> str:
        """What an admin would open to see it."""
        return f"{_PLACES[self.kind]} {self.place}" if self.kind in _PLACES else str(self.kind)

    def __str__(self) -> str:
        if self.kind not in _PLACES:
            return f"{self.kind} {self.name}"
        return f"{'value ' if self.kind is Kind.VALUE else ''}{self.name} of {self.object}"


class Change(msgspec.Struct, frozen=True):
    """An item's text before and after; None where it is not there."""

    item: Item
    before: str | None
    after: str | None

    @property
    def sign(self) -> str:
        """`+` if it comes, `-` if it goes, `~` if it becomes another."""
        return {(True, False): "+", (False, True): "-"}.get((_nothing(self.before), _nothing(self.after)), "~")

    def __str__(self) -> str:
        if self.sign == "+":
            return f"+ {self.item}: {self.after}"
        if self.sign == "-":
            return f"- {self.item}: {self.before}"
        return f"~ {self.item}: {self.before} -> {self.after}"

    def undone(self) -> Change:
        return Change(self.item, self.after, self.before)


State = dict[Item, str]


def attribute(queue: str, name: str) -> Item:
    """The item of one of a queue's attributes."""
    return Item(Kind.HOOK if name in HOOKS else Kind(name), queue, name)


ATTRIBUTES = (Kind.OFFER.value, Kind.PE_LIST.value, Kind.THRESHOLD.value, *HOOKS)


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """What Grid Engine says, as far as it matters here."""

    state: State
    none: str = "none"
    """How its configurations spell that there is nothing."""
    inherited: dict[str, dict[str, str]] = {}
    """Prolog and epilog of the global configuration, and of those hosts that have their own."""
    members: dict[str, tuple[str, ...]] = {}
    """The hosts of host groups."""
    instances: dict[str, tuple[str, ...]] = {}
    """The hosts of queues."""
    interactive: tuple[str, ...] = ()
    """Queues that take interactive jobs."""
    own_sensors: tuple[str, ...] = ()
    """Hosts whose configuration names load sensors, or none: those of the global one do not run there."""

    @property
    def queues(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(item.place for item in self.state if item.kind is Kind.HOOK))


class Entry(msgspec.Struct, frozen=True):
    """What an item was before the kit touched it, and what the kit made of it."""

    before: str | None
    after: str | None


Originals = dict[Item, Entry]


def _nothing(text: str | None) -> bool:
    return text is None or text.upper() == "NONE"
