"""What is looked at before a broker serves, because it would show only later, and in other places."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import zmq

from warden import keyring
from warden.model import SECOND, ConfigurationError, clock

if TYPE_CHECKING:
    from pathlib import Path

    from warden.config import Config

# So much a clock may have gone back while no broker ran: windows that it passed come again.
_BACK = 3600 * SECOND


def check(config: Config) -> None:
    """Look at the clock and the keys.

    Raises:
        ConfigurationError: Something is wrong with them.
    """
    _check_clock(config.broker.state / "warden.db")
    _check_key(config.broker.keys)


def _check_clock(store: Path) -> None:
    """A host that comes up in another year would hold that year's windows, and end all sessions when its clock is set."""
    now = time.time_ns() // 1000
    written = max((_written(store.with_name(store.name + more)) for more in ("", "-wal")), default=0)
    if written > now + _BACK:
        raise ConfigurationError(
            f"the clock of this host says {clock(now)}, and {store} was written at {clock(written)}: set the clock; "
            f"if it is right, `touch {store}*`"
        )


def _written(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns // 1000
    except OSError:
        return 0


def _check_key(folder: Path) -> None:
    """Clients that have another public key than the broker's hear nothing, and nobody could tell them why."""
    public, secret = folder / f"{keyring.BROKER}.key", folder / f"{keyring.BROKER}.key_secret"
    if not public.exists() or zmq.curve_public(keyring.key_pair(secret)[1]) == keyring.public_key(public):
        return
    begun = (folder / f"{keyring.NEXT}.key_secret").exists()
    fix = (
        "`warden keys --switch` ends what it began"
        if begun
        else "bring back its other half, or remove both and run `warden keys`"
    )
    raise ConfigurationError(f"{public} does not belong to {secret.name}, so no client would be answered: {fix}")
