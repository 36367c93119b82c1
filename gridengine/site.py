"""What a cluster offers: one QPU in some of its queues, or several, each with queues and a Warden of its own."""

from __future__ import annotations

from pathlib import Path

import msgspec

from gridengine import configuration
from gridengine.configuration import GridEngineSection, QpuEntry
from warden import config as warden_config
from warden.config import Config
from warden.model import ConfigurationError


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A QPU, the file that says where its Warden is, and the queues and hosts that offer it (no hosts: all)."""

    warden: Config
    config: Path
    queues: tuple[str, ...]
    hosts: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.warden.qpu.name


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """The section of Grid Engine, and the QPUs that it leads to."""

    settings: GridEngineSection
    offers: tuple[Offer, ...]

    @property
    def several(self) -> bool:
        """Whether the queue says which QPU a job has; else there is one, and its places belong to the whole cluster."""
        return len(self.offers) > 1

    @property
    def queues(self) -> tuple[str, ...]:
        return tuple(queue for offer in self.offers for queue in offer.queues)

    def of_queue(self, queue: str) -> Offer | None:
        """The QPU that a job in this queue has; with a single QPU, that one whatever the queue."""
        if not self.several:
            return self.offers[0]
        return next((offer for offer in self.offers if queue in offer.queues), None)

    def named(self, name: str) -> Offer | None:
        return next((offer for offer in self.offers if offer.name == name), None)


def load(path: Path) -> Site:
    """Read the file, and those of the other QPUs that it names.

    Raises:
        ConfigurationError: One of them cannot be read, says what it cannot say, or two QPUs have one name.
    """
    settings = configuration.load(path)
    entries = settings.qpu or (QpuEntry(queues=settings.queues, hosts=settings.hosts),)
    offers = tuple(_offer(entry, path) for entry in entries)
    names = [offer.name for offer in offers]
    if len(set(names)) < len(names):
        raise ConfigurationError(
            f"{path}: two of gridengine.qpu have the same name: say another qpu.name in their files"
        )
    return Site(settings=settings, offers=offers)


def _offer(entry: QpuEntry, path: Path) -> Offer:
    config = entry.config or path
    return Offer(warden=warden_config.load(config), config=config, queues=entry.queues, hosts=entry.hosts)
