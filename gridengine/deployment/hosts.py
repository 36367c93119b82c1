"""An attribute of a queue, when only some of its hosts offer the QPU. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridengine.qconf_text import Layered
from warden.model import ConfigurationError, ConflictError, few

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Members = Mapping[str, Sequence[str]]


def dressed(
    value: Layered,
    offered: Sequence[str],
    members: Members,
    inside: Callable[[str, str], str],
    outside: Callable[[str, str], str] = lambda _, text: text,
) -> Layered:
    """Change what stands for the hosts and groups that offer the QPU, and what stands for all others.

    Raises:
        ConflictError: Two host groups would both speak for the same host; Grid Engine takes neither then.
    """
    if not offered:
        return value.map(inside)
    overrides = {
        key: (inside if is_offered(key, offered, members) else outside)(key, text)
        for key, text in value.overrides.items()
    }
    for key in offered:
        overrides.setdefault(key, inside(key, effective(value, key, members)))
    return Layered(outside("", value.default), overrides)


def split(value: Layered, hosts: Sequence[str], members: Members) -> Layered:
    """Let hosts have entries of their own, without a difference to what stands for them."""
    return Layered(value.default, {**{host: effective(value, host, members) for host in hosts}, **value.overrides})


def is_offered(key: str, offered: Sequence[str], members: Members) -> bool:
    """Whether a host, or a group that has an entry, is among those that offer the QPU; without any, all do.

    Raises:
        ConflictError: A group shares hosts with another one that does.
    """
    if not offered or key in offered:
        return True
    if not key.startswith("@"):
        return any(key in _hosts(other, members) for other in offered)
    groups = [
        other for other in offered if other.startswith("@") and set(_hosts(other, members)) & set(members.get(key, ()))
    ]
    if groups:
        raise ConflictError(
            f"a queue has an entry for {key}, and gridengine.hosts names {groups[0]} with some of the same hosts: "
            f"name {key}, or single hosts"
        )
    return False


def effective(value: Layered, key: str, members: Members) -> str:
    """What stands for a host or a group."""
    if key in value.overrides:
        return value.overrides[key]
    groups = [other for other in value.overrides if other.startswith("@") and key in members.get(other, ())]
    return value.overrides[groups[0]] if groups else value.default


def merged(value: Layered) -> Layered:
    """Drop what stands for some hosts and says the same as what stands for all."""
    return Layered(value.default, {key: text for key, text in value.overrides.items() if text != value.default})


def check(queue: str, offered: Sequence[str], instances: Sequence[str], members: Members) -> None:
    """Find hosts that the queue does not have, which would leave it without a QPU in silence.

    Raises:
        ConfigurationError: There is one.
    """
    for key in offered:
        unknown = [host for host in _hosts(key, members) if host not in instances]
        if unknown and (not key.startswith("@") or len(unknown) == len(_hosts(key, members))):
            raise ConfigurationError(
                f"queue {queue} has no host of {key}: correct gridengine.hosts (it has {few(instances, 5)})"
            )


def _hosts(key: str, members: Members) -> Sequence[str]:
    return members.get(key, ()) if key.startswith("@") else (key,)
