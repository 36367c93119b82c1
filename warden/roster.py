"""Who is an operator and who may use the QPU, as the host's accounts and groups have it, looked up again and again.

In a thread of its own: names may come from a directory on the network, and nobody shall wait for that.
"""

from __future__ import annotations

import contextlib
import grp
import logging
import pwd
import threading
from typing import TYPE_CHECKING

from warden.authority import Members
from warden.model import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from warden.sections import AccessSection

log = logging.getLogger("warden.broker")

# Seconds between two looks: so long it takes until somebody who has joined a group may use the QPU.
_EVERY = 60.0


class Roster:
    """`members` are those of the last look that succeeded."""

    def __init__(self, access: AccessSection, known: Members, every: float = _EVERY) -> None:
        self.members = known
        self._access, self._every = access, every
        self._closed = threading.Event()
        # Without groups nothing changes while the broker runs.
        if access.groups or access.operator_groups:
            threading.Thread(target=self._look_again, daemon=True).start()

    def close(self) -> None:
        self._closed.set()

    def _look_again(self) -> None:
        known: dict[str, int] = {}
        while not self._closed.wait(self._every):
            try:
                self.members = members(self._access, known)
            except (ConfigurationError, OSError) as error:
                log.warning("users and operators stay as they are: %s", error)


def members(access: AccessSection, known: dict[str, int] | None = None) -> Members:
    """Look up what the configuration names; `known` keeps what was found for another look.

    Raises:
        ConfigurationError: There is no such user or group.
    """
    known = {} if known is None else known
    operators = _of(access.operator_groups, "access.operator_groups", known)
    users = uids(access.users, "access.users") | _of(access.groups, "access.groups", known)
    operators |= uids(access.operators, "access.operators")
    return Members(operators, users if access.users or access.groups else None)


def uids(users: Iterable[str | int], where: str) -> frozenset[int]:
    """Turn user names and numbers into uids; `where` in the configuration they stand."""
    found = set()
    for user in users:
        try:
            found.add(user if isinstance(user, int) else pwd.getpwnam(user).pw_uid)
        except KeyError:
            raise ConfigurationError(f"{where} names {user!r}, and there is no such user here") from None
    return frozenset(found)


def _of(groups: Iterable[str], where: str, known: dict[str, int]) -> frozenset[int]:
    """The uids of all members, those whose first group it is included.

    `known`: uids of names that were found before. An account that cannot be found and one whose directory is away look
    the same, and who was a member a minute ago shall not be a stranger because of that.
    """
    found = set()
    for group in groups:
        try:
            entry = grp.getgrnam(group)
        except KeyError:
            raise ConfigurationError(f"{where} names {group!r}, and there is no such group here") from None
        own = {account.pw_uid for account in pwd.getpwall() if account.pw_gid == entry.gr_gid}
        for name in entry.gr_mem:
            # A group may also name accounts that are not there any more.
            with contextlib.suppress(KeyError):
                known[name] = pwd.getpwnam(name).pw_uid
        members = {known[name] for name in entry.gr_mem if name in known}
        if entry.gr_mem and not own | members:
            raise ConfigurationError(
                f"{where}: no member of the group {group!r} is known here: is their directory away?"
            )
        found |= own | members
    return frozenset(found)
