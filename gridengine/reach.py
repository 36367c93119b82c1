"""The Wardens that a user's command speaks to: in a job that of its own QPU, elsewhere those of the whole site."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from gridengine import site
from warden import config
from warden.client import Client
from warden.config import Config
from warden.model import BadRequestError, NotFoundError

if TYPE_CHECKING:
    from pathlib import Path

_TIMEOUT = 5.0


class Door(msgspec.Struct, frozen=True):
    """The way to one QPU's Warden; no endpoint: the one that its configuration names."""

    name: str
    config: Config
    endpoint: str | None = None

    def open(self) -> Client:
        return Client(config=self.config, endpoint=self.endpoint, timeout=_TIMEOUT)


def site_path() -> Path:
    """The file that names all QPUs: in a job, WARDEN_CONFIG may be that of its own QPU alone."""
    return config.DEFAULT_PATH if _endpoint() and config.DEFAULT_PATH.exists() else config.default_path()


def site_doors() -> tuple[Door, ...]:
    """All QPUs of the site.

    Raises:
        ConfigurationError: A file that says so cannot be read.
    """
    offers = site.load(site_path()).offers
    # In a job the prolog says where the Warden is, but that of its own QPU alone.
    endpoint = _endpoint() if len(offers) == 1 else None
    return tuple(Door(offer.name, offer.warden, endpoint) for offer in offers)


def doors(name: str | None = None) -> tuple[Door, ...]:
    """Those that are meant: the one of that name; if none is said, the job's own, or all of the site.

    Raises:
        ConfigurationError: A file that says so cannot be read.
        NotFoundError: There is no QPU of that name.
    """
    if name is None and _endpoint():
        own = config.load(config.default_path())
        return (Door(own.qpu.name, own, _endpoint()),)
    there = site_doors()
    if name is None:
        return there
    found = tuple(door for door in there if door.name == name)
    if not found:
        raise NotFoundError(f"no QPU is called {name}: there is {', '.join(door.name for door in there)}")
    return found


def door(name: str | None, what: str) -> Door:
    """The one that is meant, where only one can be; `what` it would be about.

    Raises:
        BadRequestError: There are several, and none was named.
    """
    found = doors(name)
    if len(found) > 1:
        raise BadRequestError(f"{what}: say which QPU, {' or '.join(f'--qpu {one.name}' for one in found)}")
    return found[0]


def _endpoint() -> str | None:
    return os.environ.get("WARDEN_ENDPOINT") or None
