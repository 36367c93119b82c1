"""What the configuration asks for, on top of what the cluster is without us. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridengine import qconf_text
from gridengine.deployment import hooks, hosts
from gridengine.deployment.bare import PARALLEL, with_pattern
from gridengine.deployment.state import (
    HOOKS,
    JSV,
    QUOTA,
    QUOTA_MARK,
    SENSOR,
    WINDOW,
    Cell,
    Item,
    Kind,
    State,
    attribute,
)
from gridengine.qconf_text import Layered, is_none
from gridengine.resources import NAMES, Complex, Flavour, complexes, gate, instances, queue_values, rsmap, values
from warden.model import ConfigurationError, ConflictError

if TYPE_CHECKING:
    from collections.abc import Callable

    from gridengine.site import Offer, Site

    Edit = Callable[[str, str], str]

# By these the prolog puts off a job that found the QPU busy; where there is a JSV, Grid Engine refuses what is not named.
_PUTS_OFF = ("a", "ac")


def desired(site: Site, flavour: Flavour, cell: Cell, bare: State) -> State:
    """Say what the cluster should be.

    Raises:
        ConflictError: Something that is not ours stands where ours should.
        ConfigurationError: The cluster has no such queue or host, or this flavour cannot do it.
    """
    state = dict(bare)
    settings = site.settings
    qpus = [offer.warden.qpu for offer in site.offers]
    for entry in _complexes(site, flavour):
        item = Item(Kind.COMPLEX, "", entry.name)
        if bare.get(item, entry.line()) != entry.line():
            raise ConflictError(
                f"there is another complex {entry.name} already ({bare[item]}): remove or rename it first (qconf -mc)"
            )
        state[item] = entry.line()
    state |= {Item(Kind.VALUE, "global", name): value for name, value in values(qpus).items()}
    if settings.rsmap:
        state[Item(Kind.VALUE, "global", settings.rsmap)] = instances(qpus)
    if site.several:
        _need(state, Item(Kind.PE, "", WINDOW), PARALLEL, "rename it, or make it like ours")
        limits = [f"queues {','.join(offer.queues)} to qpu={offer.warden.qpu.places}" for offer in site.offers]
        _need(state, Item(Kind.QUOTA, "", QUOTA), "; ".join([QUOTA_MARK, *limits]), "rename it (qconf -mrqs)")
    state |= {Item(Kind.SENSOR, place, "load_sensor"): f"{settings.bin}/{SENSOR}" for place in settings.sensor_hosts}
    _set_global(state, site, flavour)
    for offer in site.offers:
        for queue in offer.queues:
            _offer(state, site, offer, queue, cell)
    return state


def _complexes(site: Site, flavour: Flavour) -> list[Complex]:
    names = [offer.name for offer in site.offers] if site.several else []
    taken = [name for name in names if f"qpu_{name}" in NAMES | {WINDOW}]
    if taken:
        raise ConfigurationError(f"qpu_{taken[0]} is a complex with another meaning: give the QPU another qpu.name")
    found = [*complexes(flavour), *map(gate, names)]
    if site.settings.rsmap:
        if flavour is not Flavour.OCS:
            raise ConfigurationError("this Grid Engine has no RSMAP: take gridengine.rsmap out of the configuration")
        if site.settings.rsmap in {entry.name for entry in found}:
            raise ConfigurationError(f"gridengine.rsmap: {site.settings.rsmap} is a complex of ours: say another name")
        found.append(rsmap(site.settings.rsmap))
    return found


def _need(state: State, item: Item, text: str, advice: str) -> None:
    if state.get(item, text) != text:
        raise ConflictError(f"there is another {item} already: {advice}")
    state[item] = text


def _set_global(state: State, site: Site, flavour: Flavour) -> None:
    reporting, url = (Item(Kind.SETTING, "global", name) for name in ("reporting_params", "jsv_url"))
    if site.settings.usage and flavour is Flavour.OCS:
        state[reporting] = with_pattern(state.get(reporting, ""))
    if site.settings.jsv:
        if not is_none(state.get(url, "")):
            raise ConflictError(
                f"the cluster has another jsv_url already ({state[url]}): call {site.settings.bin}/{JSV} from that JSV "
                "yourself, and say gridengine.jsv = false"
            )
        state[url] = f"script:{site.settings.bin}/{JSV}"
        allowed = Item(Kind.SETTING, "global", "jsv_allowed_mod")
        words = qconf_text.names(state.get(allowed, ""))
        state[allowed] = ",".join([*(word for word in _PUTS_OFF if word not in words), *words])


def _offer(state: State, site: Site, offer: Offer, queue: str, cell: Cell) -> None:
    """Give a queue the hooks, and with several QPUs, or on some of its hosts, what it offers itself."""
    if attribute(queue, "prolog") not in state:
        raise ConfigurationError(f"Grid Engine has no queue {queue}: correct gridengine.queues")
    hosts.check(queue, offer.hosts, cell.instances.get(queue, ()), cell.members)

    def change(name: str, inside: Edit, outside: Edit = _same) -> None:
        item = attribute(queue, name)
        value = Layered.parse(state[item])
        state[item] = str(hosts.dressed(value, offer.hosts, cell.members, inside, outside))

    def no_place(_: str, text: str) -> str:
        return qconf_text.with_pairs(text, [("qpu", "0")])

    for hook in HOOKS:
        _split(state, offer, queue, hook, cell)
        change(hook, _chain(hook, site, cell))
    if site.several:
        offered = queue_values(offer.warden.qpu).items()
        change(Kind.OFFER, lambda _, text: qconf_text.with_pairs(text, offered), no_place)
        change(Kind.THRESHOLD, lambda _, text: qconf_text.with_pairs(text, [(f"qpu_{offer.name}", "0")]))
        change(Kind.PE_LIST, lambda _, text: qconf_text.with_word(text, WINDOW))
    elif offer.hosts:
        change(Kind.OFFER, _same, no_place)


def _split(state: State, offer: Offer, queue: str, hook: str, cell: Cell) -> None:
    """Give a host whose own configuration has a hook an entry of its own, if that hook is what runs there."""
    item = attribute(queue, hook)
    value = Layered.parse(state[item])
    own = [
        host
        for host in cell.instances.get(queue, ())
        if hook in cell.inherited.get(host, {})
        and hosts.is_offered(host, offer.hosts, cell.members)
        and is_none(hosts.effective(value, host, cell.members))
    ]
    state[item] = str(hosts.split(value, own, cell.members))


def _chain(hook: str, site: Site, cell: Cell) -> Edit:
    """Put our hook before what the queue says, or inherits where it says nothing."""
    inherited = {place: found[hook] for place, found in cell.inherited.items() if hook in found}

    def edit(key: str, text: str) -> str:
        found = inherited.get(key, inherited.get("global", qconf_text.NONE)) if is_none(text) else text
        return hooks.chained(hook, site.settings.bin, found)

    return edit


def _same(_: str, text: str) -> str:
    return text
