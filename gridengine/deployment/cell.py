"""Asks Grid Engine what is there of ours, or in our place."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gridengine import commands, qconf_text
from gridengine.deployment.state import (
    ATTRIBUTES,
    HOOKS,
    QUOTA,
    SENSOR,
    WINDOW,
    Cell,
    Item,
    Kind,
    State,
    attribute,
)
from gridengine.qconf_text import Layered
from gridengine.resources import NAMES, Complex, parse_table
from warden.model import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gridengine.configuration import GridEngineSection

_GLOBAL_SETTINGS = ("jsv_url", "jsv_allowed_mod", "reporting_params")
# So many names fit into one command line, and their configurations into one answer.
_AT_ONCE = 200


def read(settings: GridEngineSection) -> Cell:
    """Read all that the kit may change, in all queues: some may have been in the configuration before.

    Raises:
        GridEngineError: It does not answer.
        ConfigurationError: It knows no such host or host group.
    """
    configurations = read_configurations()
    table = {entry.name: entry for entry in read_table()}
    queues = {queue: qconf_text.settings(read_queue(queue)) for queue in _listed("-sql")}
    state: State = {Item(Kind.COMPLEX, "", name): entry.line() for name, entry in table.items() if _may_be_ours(name)}
    if settings.rsmap in table:
        state[Item(Kind.COMPLEX, "", settings.rsmap)] = table[settings.rsmap].line()
    state |= {Item(Kind.COMPLEX, "", name): entry.line() for name, entry in table.items() if entry.type == "RSMAP"}
    state |= {Item(Kind.VALUE, "global", name): value for name, value in read_values("global").items()}
    state |= _read_sets()
    for place, text in configurations.items():
        found = qconf_text.names(qconf_text.settings(text).get("load_sensor", "none"))
        state |= {Item(Kind.SENSOR, place, "load_sensor"): path for path in found if is_sensor(path)}
    shared = qconf_text.settings(configurations["global"])
    state |= {Item(Kind.SETTING, "global", name): shared[name] for name in _GLOBAL_SETTINGS if name in shared}
    for queue, shown in queues.items():
        state |= {attribute(queue, name): str(Layered.parse(shown.get(name, "NONE"))) for name in ATTRIBUTES}
    inherited = {place: _hooks(text) for place, text in configurations.items()}
    offers = settings.qpu or (settings,)
    places = {queue: _instances(queue) for offer in offers for queue in offer.queues if queue in queues}
    groups = {key for offer in offers for key in offer.hosts} | {
        key for queue in places for name in ATTRIBUTES for key in Layered.parse(state[attribute(queue, name)]).overrides
    }
    return Cell(
        state=state,
        none=qconf_text.none_as_in(configurations["global"]),
        inherited={place: found for place, found in inherited.items() if found},
        members={group: _members(group) for group in sorted(groups) if group.startswith("@")},
        instances=places,
        own_sensors=tuple(
            place
            for place, text in configurations.items()
            if place != "global" and "load_sensor" in qconf_text.settings(text)
        ),
        interactive=tuple(queue for queue, shown in queues.items() if "INTERACTIVE" in shown.get("qtype", "")),
    )


def read_table() -> list[Complex]:
    """The complexes.

    Raises:
        GridEngineError: A line of them is not understood.
    """
    try:
        return parse_table(commands.run("qconf", "-sc").stdout)
    except ValueError as error:
        raise commands.GridEngineError(f"qconf -sc shows a line that is not understood: {error}") from None


def read_configurations() -> dict[str, str]:
    """The global configuration, and those of all hosts that have their own."""
    found = {"global": read_configuration("global")}
    hosts = _listed("-sconfl")
    for begin in range(0, len(hosts), _AT_ONCE):
        shown = commands.run("qconf", "-sconf", ",".join(hosts[begin : begin + _AT_ONCE])).stdout
        found |= qconf_text.configurations(shown)
    return found


def read_configuration(place: str) -> str:
    """One of them; empty where a host has none of its own.

    Raises:
        ConfigurationError: There is no such host.
    """
    try:
        return commands.run("qconf", "-sconf", place).stdout
    except commands.UnknownObjectError as error:
        if "not defined" in error.text:
            return ""
        raise ConfigurationError(f"correct gridengine.sensor_hosts: {error.text}") from None


def check_places(places: Iterable[str]) -> None:
    """Find a host that Grid Engine does not know before anything is changed for it.

    Raises:
        ConfigurationError: There is one.
    """
    for place in places:
        read_configuration(place)


def read_values(host: str, kind: str = "complex_values") -> dict[str, str]:
    """What a host has of complexes, fixed or reported."""
    shown = qconf_text.settings(commands.run("qconf", "-se", host).stdout)
    return qconf_text.pairs(shown.get(kind, "NONE"))


def read_queue(queue: str) -> str:
    """The whole text of a queue.

    Raises:
        ConfigurationError: There is no such queue.
    """
    try:
        return commands.run("qconf", "-sq", queue).stdout
    except commands.UnknownObjectError:
        raise ConfigurationError(f"Grid Engine has no queue {queue}: correct gridengine.queues") from None


def read_attribute(item: Item) -> str:
    """One of a queue's attributes."""
    return str(Layered.parse(qconf_text.settings(read_queue(item.place)).get(item.name, "NONE")))


def read_quota() -> str | None:
    """The resource quota set of our name, as an item's text."""
    try:
        shown = commands.run("qconf", "-srqs", QUOTA).stdout
    except commands.UnknownObjectError:
        return None
    said = re.search(r'description +"?([^"\n]*)"?', shown)
    limits = re.findall(r"^\s*limit\s+(.*\S)\s*$", qconf_text.unwrapped(shown), re.MULTILINE)
    off = ["not enabled"] if re.search(r"^\s*enabled\s+FALSE", shown, re.MULTILINE | re.IGNORECASE) else []
    return "; ".join([said[1].strip() if said else "", *off, *limits])


def read_environment() -> str | None:
    """The parallel environment of our name, as an item's text."""
    try:
        shown = qconf_text.settings(commands.run("qconf", "-sp", WINDOW).stdout)
    except commands.UnknownObjectError:
        return None
    return ", ".join(f"{name} {shown.get(name, '')}" for name in ("slots", "allocation_rule"))


def is_sensor(path: str) -> bool:
    return path.rpartition("/")[2] == SENSOR


def _read_sets() -> State:
    found = {Item(Kind.QUOTA, "", QUOTA): read_quota(), Item(Kind.PE, "", WINDOW): read_environment()}
    return {item: text for item, text in found.items() if text is not None}


def _may_be_ours(name: str) -> bool:
    return name in NAMES or name.startswith("qpu_")


def _hooks(text: str) -> dict[str, str]:
    shown = qconf_text.settings(text)
    found = {hook: " ".join(shown.get(hook, "none").split()) for hook in HOOKS}
    return {hook: text for hook, text in found.items() if not qconf_text.is_none(text)}


def _listed(option: str) -> list[str]:
    try:
        return commands.run("qconf", option).stdout.split()
    except commands.UnknownObjectError:
        return []


def _instances(queue: str) -> tuple[str, ...]:
    try:
        shown = commands.run("qselect", "-q", queue).stdout
    except commands.GridEngineError:
        return ()  # a queue without hosts
    return tuple(line.partition("@")[2] for line in shown.split())


def _members(group: str) -> tuple[str, ...]:
    try:
        return tuple(commands.run("qconf", "-shgrp_resolved", group).stdout.split())
    except commands.UnknownObjectError:
        raise ConfigurationError(f"Grid Engine has no host group {group}: correct gridengine.hosts") from None
