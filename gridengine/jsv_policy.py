"""What `qpu-jsv` makes of a job: which requests can never be met, and what a job with a QPU lacks. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from gridengine import jsv_protocol
from gridengine.amounts import amount, places, seconds
from gridengine.jsv_protocol import Answer, Job
from gridengine.patterns import matches
from warden.model import HORIZON, SECOND, few

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gridengine.site import Offer

LINE_BREAKS = "line breaks in arguments, paths, names, mail addresses or variables are not allowed here: take them out"
INTERACTIVE = "qrsh and qlogin jobs get no QPU on SGE 8.1.9: submit it as a batch job, with qsub or `qpu submit`"
SOFT = "-soft -l qpu gets no QPU: ask for it with -hard -l qpu=1"

_INTERACTIVE_CLIENTS = frozenset({"qrsh", "qlogin", "qsh", "qmake", "qtcsh"})
# Seconds. The sensor tells what will be left two reports later, so nobody ever sees the whole of the longest gap.
_SLACK = 120
# Nobody names so many queues; all jobs of the cluster would wait until they were compared.
_MOST_PATTERNS = 200


class Class(msgspec.Struct, frozen=True, kw_only=True):
    """A class of priority, and whom it takes: users by name or uid."""

    name: str
    users: frozenset[str | int] = frozenset()
    queues: frozenset[str] = frozenset()
    projects: frozenset[str] = frozenset()


class Qpu(msgspec.Struct, frozen=True, kw_only=True):
    """A QPU as far as a request can fail by it."""

    name: str
    places: int
    qubits: int
    longest: int
    """Seconds: the longest time between two of its windows, as `qpu_window` tells it."""
    queues: tuple[str, ...]
    """As `qsub -q` takes them: all.q, all.q@node1, all.q@@group."""
    users: frozenset[int] | None = None
    """Uids of those who may use it; None: everybody, or it is not known."""
    classes: tuple[Class, ...] = ()
    """From the highest; the last one takes whoever is in none."""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A job that asks for a QPU, with what the names in it stand for on this host."""

    job: Job
    wants: dict[str, str]
    """Its hard requests."""
    scope: str = ""
    """How its parameters are called: OCS has several kinds, and `global_` is what SGE has."""
    uid: int | None = None

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues that it names, those of its master task where it names no others."""
        for name in (f"{self.scope}q_hard", "q_hard", "master_q_hard", "masterq"):
            if self.job.get(name):
                return tuple(self.job.get(name).split(","))
        return ()


def offered(offer: Offer, users: frozenset[int] | None) -> Qpu:
    """What the configuration says of a QPU."""
    gap = offer.warden.calendar.longest_gap()
    queues = [f"{queue}@{host}" for queue in offer.queues for host in offer.hosts] or offer.queues
    classes = (
        Class(name=one.name, users=frozenset(one.users), queues=frozenset(one.queues), projects=frozenset(one.projects))
        for one in offer.warden.classes
    )
    return Qpu(
        name=offer.name,
        places=offer.warden.qpu.places,
        qubits=offer.warden.qpu.qubits,
        longest=min(HORIZON if gap is None else gap, HORIZON) // SECOND,
        queues=tuple(queues),
        users=users,
        classes=tuple(classes),
    )


def names_users(qpus: Iterable[Qpu]) -> bool:
    """Whether it matters which uid a user has."""
    return any(qpu.users is not None or any(kind.users for kind in qpu.classes) for qpu in qpus)


def request(job: Job) -> Request | None:
    """The request of a job that asks for a QPU; None: it does not, and nothing here concerns it."""
    if not any("qpu" in value for name, value in job.parameters.items() if name.endswith(("l_hard", "l_soft"))):
        return None
    scope = "global_" if any(name.startswith(("global_", "master_")) for name in job.parameters) else ""
    wants = jsv_protocol.requests(job.parameters)
    soft = dict(jsv_protocol.items(job.get(f"{scope}l_soft")))
    if "qpu" not in wants and "qpu" not in soft:
        return None
    return Request(job=job, wants=wants, scope=scope)


def for_all(job: Job) -> Answer:
    """What holds for each job, with a QPU or without."""
    if job.tampered:
        return Answer(refused=LINE_BREAKS)
    # It reaches root's hooks, and keeps any program from starting.
    return Answer(removed=tuple(job.variables & {"GLIBC_TUNABLES"}))


def is_interactive(job: Job) -> bool:
    # The qmaster does not say who submits; qrsh and qlogin have a port at which they wait.
    return job.get("CLIENT") in _INTERACTIVE_CLIENTS or "QRSH_PORT" in job.variables


def impossible(asked: Request, *, interactive: bool) -> str:
    """Why no QPU can give this, whichever there are; empty: one may. `interactive`: it is, and such jobs get none here."""
    if interactive:
        return INTERACTIVE
    if "qpu" not in asked.wants:
        return SOFT
    if places(asked.wants["qpu"]) is None:
        said = f"qpu={asked.wants['qpu']}" if asked.wants["qpu"] else "qpu"
        return f"-l {said} asks for no whole place on a QPU: ask for qpu=1, or leave it out"
    return ""


def decide(asked: Request, qpus: Sequence[Qpu]) -> Answer:
    """Refuse what no QPU can ever give, and add what is missing."""
    left = tuple(qpus)
    for narrow in (_by_name, _by_queue, _by_places, _by_qubits, _by_window, _by_user):
        met, why = narrow(asked, left)
        if not met:
            return Answer(refused=why)
        left = met
    return Answer(parameters=_missing(asked, left))


# Which of the QPUs meet a request, and what to say if none does.
_Narrowed = tuple[tuple[Qpu, ...], str]


def _by_name(asked: Request, qpus: Sequence[Qpu]) -> _Narrowed:
    pattern = asked.wants.get("qpu_name", "*")
    return (
        _those(qpus, lambda qpu: matches(pattern, qpu.name)),
        f"there is no QPU {pattern}: qpu_name can be {few(qpu.name for qpu in qpus)}",
    )


def _by_queue(asked: Request, qpus: Sequence[Qpu]) -> _Narrowed:
    queues = asked.queues
    left_open = not 0 < len(queues) <= _MOST_PATTERNS
    return (
        _those(qpus, lambda qpu: left_open or any(_meet(named, own) for named in queues for own in qpu.queues)),
        f"-q {few(queues)} has no queue with {_called(qpus)}: leave it out, or name one of "
        + few(queue for qpu in qpus for queue in qpu.queues),
    )


def _by_places(asked: Request, qpus: Sequence[Qpu]) -> _Narrowed:
    wanted = places(asked.wants["qpu"]) or 0
    most = max(qpu.places for qpu in qpus)
    return (
        _those(qpus, lambda qpu: wanted <= qpu.places),
        f"qpu={wanted} is more than {_called(qpus)} has: ask for {'qpu=1' if most == 1 else f'at most qpu={most}'}",
    )


def _by_qubits(asked: Request, qpus: Sequence[Qpu]) -> _Narrowed:
    wanted = amount(asked.wants.get("qpu_qubits", "")) or 0
    most = max(qpu.qubits for qpu in qpus)
    return (
        _those(qpus, lambda qpu: wanted <= qpu.qubits),
        f"qpu_qubits={wanted} is more than {_called(qpus)} has: ask for at most qpu_qubits={most}",
    )


def _by_window(asked: Request, qpus: Sequence[Qpu]) -> _Narrowed:
    wanted = seconds(asked.wants.get("qpu_window", ""))
    most = max(qpu.longest for qpu in qpus)
    return (
        _those(qpus, lambda qpu: wanted <= qpu.longest),
        f"qpu_window={wanted} is longer than {_called(qpus)} is ever left alone: ask for at most qpu_window={most}",
    )


def _by_user(asked: Request, qpus: Sequence[Qpu]) -> _Narrowed:
    return (
        _those(qpus, lambda qpu: qpu.users is None or asked.uid is None or asked.uid in qpu.users),
        f"{asked.job.get('USER')} may not use {_called(qpus)}: its operator knows who may (access.users, access.groups)",
    )


def _missing(asked: Request, qpus: Sequence[Qpu]) -> dict[str, str]:
    """The parameters that the job should have, beside those that it has."""
    found = {}
    hard, queues = f"{asked.scope}l_hard", f"{asked.scope}q_hard"
    needed = seconds(asked.wants.get("h_rt", ""))
    asks = {name for kind in ("l_hard", "l_soft") for name, _ in jsv_protocol.items(asked.job.get(asked.scope + kind))}
    # A job that fits into no gap lives through windows: its tasks wait.
    if needed and "qpu_window" not in asks and needed + _SLACK <= max(qpu.longest for qpu in qpus):
        found[hard] = jsv_protocol.with_item(asked.job.get(hard), "qpu_window", str(needed))
    own = tuple(dict.fromkeys(queue for qpu in qpus for queue in qpu.queues))
    if not asked.queues:
        found[queues] = ",".join(own)
    classes = {_class(asked, qpu.classes, asked.queues or own) for qpu in qpus}
    if len(classes) == 1 and (name := classes.pop()):
        found["ac"] = jsv_protocol.with_item(asked.job.get("ac"), "qpu_class", name)
    return {name: value for name, value in found.items() if value != asked.job.get(name)}


def _class(asked: Request, classes: Sequence[Class], queues: Iterable[str]) -> str:
    """The class that Warden will find, as far as it is known before the job has its queue: of all queues it may get."""
    likely = {queue.partition("@")[0] for queue in queues}
    user, project = asked.job.get("USER"), asked.job.get("P")
    for kind in classes:
        by_user = user in kind.users or asked.uid in kind.users
        if by_user or (project and project in kind.projects) or likely <= kind.queues:
            return kind.name
    return classes[-1].name if classes else ""


def _those(qpus: Sequence[Qpu], meets: Callable[[Qpu], bool]) -> tuple[Qpu, ...]:
    return tuple(qpu for qpu in qpus if meets(qpu))


def _called(qpus: Sequence[Qpu]) -> str:
    return f"the QPU {qpus[0].name}" if len(qpus) == 1 else f"any of the QPUs {few(qpu.name for qpu in qpus)}"


def _meet(named: str, own: str) -> bool:
    """Whether a queue that the user names may be one that offers the QPU; hosts and their groups are left to Grid Engine."""
    if "@" in named and set("!&") & set(named):
        # Without its hosts it says something else.
        return True
    return matches(re.sub(r"@[^|()]*", "", named) or "*", own.partition("@")[0])
