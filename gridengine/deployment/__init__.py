"""Bring a cluster to what the configuration says, and take everything of ours away again.

Pure: `state` (what there is), `bare` (what the cluster is without us), `wanted` (what it should be), `order` (how to get
from one to the other), with `hooks` and `hosts` for the attributes of queues, and `report`. At the edge: `cell` reads,
`change` writes, `record` remembers.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from gridengine import commands, qconf_text
from gridengine.configuration import GridEngineSection
from gridengine.deployment import bare as without_us
from gridengine.deployment import cell, change, hooks, hosts, order, record, wanted
from gridengine.deployment.state import CHAIN, HOOKS, JSV, SENSOR, Cell, Change, Item, Kind, State, attribute
from gridengine.qconf_text import Layered
from warden.model import ConfigurationError, ConflictError, few

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gridengine.deployment.change import Say
    from gridengine.resources import Flavour
    from gridengine.site import Site

__all__ = [
    "CHAIN",
    "HOOKS",
    "JSV",
    "SENSOR",
    "Change",
    "Item",
    "Kind",
    "Plan",
    "check_programs",
    "difference",
    "interactive_queues",
    "removal",
]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Changes, and what they lead to."""

    settings: GridEngineSection
    cell: Cell
    changes: tuple[Change, ...]
    bare: State
    wanted: State

    def warnings(self, *, on_sge: bool) -> list[str]:
        """What is not ours to change, and would hurt."""
        offering = self.offering
        found = []
        interactive = [queue for queue in offering if queue in self.cell.interactive]
        if interactive and on_sge:
            found.append(
                f"{', '.join(interactive)} also takes interactive jobs; SGE kills the hooks of qrsh, which puts queue "
                "instances into error: set its qtype to BATCH, and give interactive jobs a queue without hooks"
            )
        open_ = [queue for queue in self.cell.queues if queue not in offering and _lets_in(self.wanted, queue)]
        if open_:
            found.append(
                f"jobs with a QPU may also land in {', '.join(open_)}, where no prolog gives them a session: "
                f"qconf -mattr queue complex_values qpu=0 {open_[0]} keeps them out"
            )
        if self._without_sensor:
            found.append(
                f"no sensor of ours runs on {', '.join(self._without_sensor)}, where a configuration of the host's own has "
                "another load_sensor, or none: name it in gridengine.sensor_hosts, too, or leases of its jobs run out"
            )
        return found

    @property
    def _without_sensor(self) -> list[str]:
        """Hosts that offer the QPU, and that the load sensor of the global configuration does not reach."""

        def has_sensor(place: str) -> bool:
            return Item(Kind.SENSOR, place, "load_sensor") in self.wanted

        instances, members = self.cell.instances, self.cell.members
        offering = {
            host
            for offer in self.settings.qpu or (self.settings,)
            for queue in offer.queues
            for host in instances.get(queue, ())
            if hosts.is_offered(host, offer.hosts, members)
        }
        own = [host for host in self.cell.own_sensors if host in offering and not has_sensor(host)]
        return own if has_sensor("global") else []

    @property
    def offering(self) -> list[str]:
        """The queues that have our hooks in the end."""
        return [queue for queue in self.cell.queues if _has_prolog(self.wanted, queue)]

    @property
    def _silenced(self) -> set[str]:
        """Our complexes, if no sensor of ours is left to report them."""
        if any(item.kind is Kind.SENSOR for item in self.wanted):
            return set()
        ours = self.cell.state.keys() - self.bare.keys()
        return {item.name for item in ours if item.kind is Kind.COMPLEX}

    def carry_out(self, command: str, say: Say = lambda _: None) -> None:
        """Write down what was there before, and make the changes; all of them, or none.

        Raises:
            ConfigurationError: The record cannot be written.
            WardenError: As `change.apply` says; the record is as before then.
        """
        file = record.path(self.settings.record)
        before = record.load(file)
        new = record.after(before, command, self.changes, self.bare, self.wanted)
        if not self.changes and new.originals == before.originals:
            return
        if (
            new.originals
        ):  # before anything is done, for we may be killed; what is taken away is forgotten when it is gone
            record.save(file, new)
        try:
            change.apply(self.changes, self._silenced, say)
        except BaseException:
            if new.originals:
                record.save(file, before)
            raise
        record.save(file, new)


def check_programs(folder: Path) -> None:
    """Find a path where the kit is not, which would stop the queues: Grid Engine takes any hook.

    Raises:
        ConfigurationError: Not all of it can be run here.
    """
    for name in (*HOOKS.values(), CHAIN, SENSOR, JSV):
        if not os.access(folder / name, os.X_OK):
            raise ConfigurationError(
                f"{folder / name} is missing here, or may not be executed: correct gridengine.bin, or install the kit there "
                "on all hosts"
            )


def difference(site: Site, flavour: Flavour | None = None) -> Plan:
    """Plan what leads to what the configuration says.

    Raises:
        WardenError: Grid Engine does not answer, or something that is not ours stands where ours should.
    """
    found = cell.read(site.settings)
    cell.check_places(
        place for place in site.settings.sensor_hosts if Item(Kind.SENSOR, place, "load_sensor") not in found.state
    )
    entries = record.load(record.path(site.settings.record)).entries
    names = [offer.name for offer in site.offers]
    bare = without_us.bare(found, without_us.originals(found, entries), site.settings, names)
    should = wanted.desired(site, flavour or commands.version().flavour, found, bare)
    return _plan(site.settings, found, bare, should)


def removal(settings: GridEngineSection, names: Sequence[str] = (), *, force: bool = False) -> tuple[Plan, list[int]]:
    """Plan what takes everything of ours away; and the jobs that ask for the QPU, for which complexes have to stay.

    The names of QPUs are of use only where neither cluster nor record tell them any more.

    Raises:
        ConflictError: There are such jobs, and nobody said that they do not matter.
    """
    found = cell.read(settings)
    bare = without_us.bare(found, record.load(record.path(settings.record)).entries, settings, names)
    plan = _plan(settings, found, bare, bare)
    asking = change.asked_for(plan.changes)
    if asking and not force:
        raise ConflictError(
            f"{len(asking)} job(s) still ask for the QPU ({few(asking, 5)}): let them end or delete them (qdel), or "
            "see `qpu-admin remove --help` for --force"
        )
    if asking:
        # Without them SGE 8.1.9 forgets what the jobs asked for, and they could never be told from others.
        kept = {item: text for item, text in found.state.items() if item.kind is Kind.COMPLEX}
        plan = _plan(settings, found, bare, bare | kept)
    return plan, asking


def interactive_queues(site: Site) -> list[str]:
    """Those of the queues that take interactive jobs, whose hooks SGE 8.1.9 kills: no hook can prevent the error state."""
    found = cell.read(site.settings).interactive
    return [queue for queue in site.queues if queue in found]


def _has_prolog(state: State, queue: str) -> bool:
    return hooks.any_ours("prolog", state[attribute(queue, "prolog")])


def _lets_in(state: State, queue: str) -> bool:
    """Whether a job that asks for the QPU of the host `global` may start there."""
    offered = Layered.parse(state[attribute(queue, Kind.OFFER)])
    shared = Item(Kind.VALUE, "global", "qpu") in state
    return shared and any(qconf_text.pairs(text).get("qpu") != "0" for text in offered.texts)


def _plan(settings: GridEngineSection, found: Cell, bare: State, should: State) -> Plan:
    changes = tuple(order.plan(should, found.state, bare))
    return Plan(settings=settings, cell=found, changes=changes, bare=bare, wanted=should)
