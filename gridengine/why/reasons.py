"""What Grid Engine says of a job that waits, in plain words. Pure.

The scheduler's messages are those of SGE 8.1.9 and OCS 9.2; what it does not say is as telling: of several things that
keep a job from running it names the first alone.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable


class Cause(enum.StrEnum):
    """What kind of thing keeps a job from running."""

    PLACE = "place"
    """No place on the QPU. Of a QPU that is blocked Grid Engine says the same as of one whose places are taken."""
    RESERVATION = "reservation"
    WINDOW = "window"
    IMPOSSIBLE = "impossible"
    HOLD = "hold"
    DEPENDENCY = "dependency"
    START_TIME = "start_time"
    ERROR = "error"
    QUEUE = "queue"
    LIMIT = "limit"
    OTHER = "other"


class Reason(msgspec.Struct, frozen=True):
    """What keeps a job from running: a sentence, and what Grid Engine said."""

    cause: Cause
    text: str
    said: str = ""


_NOTHING = "There are no messages available"
_RESERVED = " due to a reservation"
_OFFER = re.compile(r"(?P<level>[ghq])(?P<source>\w):(?P<name>[^=\s]+)=(?P<value>.*)")

# First match stands; a text gets the groups of its pattern.
_KNOWN: tuple[tuple[Cause, str, str], ...] = (
    (Cause.START_TIME, r"execution time not reached", "its start time (qsub -a) has not come"),
    (Cause.ERROR, r"Job is in error state", "it is in error"),
    (Cause.HOLD, r"Job is in hold state", "it is held"),
    (Cause.DEPENDENCY, r"job dropped because of job dependencies", "it waits for other jobs (qsub -hold_jid)"),
    (Cause.LIMIT, r"job dropped because of user limitations", "you run as many jobs as one user may"),
    (Cause.LIMIT, r".*'max_aj_instances'", "as many tasks of the array run as may run at the same time"),
    (Cause.LIMIT, r'.*exceeds limit "?(.*?)"? in rule "?(.*?)"?', "the resource quota {1} leaves it no room"),
    (Cause.OTHER, r".*ignored in the last scheduling run.*", "too many like it are ahead of it"),
    (Cause.IMPOSSIBLE, r".*requests unknown resource \((\S+)\).*", "nobody offers {0}, for which it asks"),
    (Cause.IMPOSSIBLE, r'has no permission for (.*) "(.*)"', "you may not use the {0} {1}"),
    (Cause.QUEUE, r'.*queue "(.*)" because it is not contained in its hard queue list.*', "{0} is not what it asks for (-q)"),
    (Cause.QUEUE, r'queue instance "(.*)" dropped because it is full', "all slots of {0} are taken"),
    (Cause.PLACE, r"queue instance .* dropped because it is overloaded: qpu_([^\s=]+)=0\b.*", "{0} is blocked"),
    (Cause.QUEUE, r'queue instance "(.*)" dropped because it is overloaded: (.*)', "{0} is overloaded ({1})"),
    (Cause.QUEUE, r'queue instance "(.*)" dropped because it is (.*)', "{0} is {1}"),
    (Cause.QUEUE, r"All queues dropped because of overload or full", "all queues are full or overloaded"),
    (Cause.QUEUE, r'cannot run in PE "(.*)" because it only offers (\d+) slots', "{0} has but {1} slots for it now (-pe)"),
    (Cause.QUEUE, r"Jobs cannot run because a calendar will disable a queue soon", "its queue is switched off soon"),
)  # fmt: skip


def plain(message: str) -> Reason:
    """Say a message of the scheduler in plain words; what is not known is said as it is."""
    offered = message.removesuffix(_RESERVED)
    head, found, offer = offered.partition("offers only ")
    if found and (match := _OFFER.fullmatch(offer.strip())):
        return _offered(message, match, _place(head), reserved=offered != message)
    for cause, pattern, text in _KNOWN:
        if known := re.fullmatch(pattern, message):
            return Reason(cause, text.format(*known.groups()), message)
    return Reason(Cause.OTHER, message, message)


def hook(message: str) -> Reason:
    """What put a job into the error state, without the shepherd's date and numbers."""
    return Reason(Cause.ERROR, re.sub(r"^\d\d/\d\d/\d{4} \d\d:\d\d:\d\d \[\d+:\d+\]: ", "", message), message)


def summed(reasons: Iterable[Reason], most: int = 3) -> tuple[Reason, ...]:
    """Without repetitions; of queues and hosts, of which a cluster may have hundreds, a few stand for all."""
    unique = list({reason.text: reason for reason in reasons if reason.said != _NOTHING}.values())
    queues = [reason for reason in unique if reason.cause is Cause.QUEUE]
    if len(queues) <= most:
        return tuple(unique)
    shown = [reason for reason in unique if reason.cause is not Cause.QUEUE or reason in queues[: most - 1]]
    more = Reason(Cause.QUEUE, f"and {len(queues) - most + 1} more queues and hosts that cannot take it")
    return (*shown, more)


def number(value: str) -> str:
    """Grid Engine's `24.000000` as people write it."""
    return re.sub(r"\.0+$", "", value)


def _offered(message: str, offer: re.Match[str], place: str, *, reserved: bool) -> Reason:
    """`gc:qpu=0.000000`: who says so (global, host, queue; c: booked, l: reported, f: fixed), of what, how much."""
    name, value = offer["name"], number(offer["value"])
    if reserved:
        return Reason(Cause.RESERVATION, f"{_of(name)} is kept free for an advance reservation{place}", message)
    kind = "f" if offer["source"] in "fF" and name in {"qpu", "qpu_window"} else ""
    none = "0" if value == "0" and name in {"qpu", "slots"} else ""
    cause, text = _OFFERS.get(name + kind + none, (Cause.QUEUE, "{name} is only {value}{place}"))
    return Reason(cause, text.format(name=name, value=value, place=place), message)


# By name, whether it is fixed, and whether there is nothing of it.
_OFFERS = {
    "qpu0": (Cause.PLACE, "no place on the QPU is free"),
    "qpu": (Cause.PLACE, "of the QPU's places only {value} is free"),
    "qpuf0": (Cause.IMPOSSIBLE, "there is no QPU{place}"),
    "qpuf": (Cause.IMPOSSIBLE, "the QPU has {value} places{place}"),
    "qpu_window": (Cause.WINDOW, "the next window is in {value} s, sooner than it asks for"),
    "qpu_windowf": (Cause.IMPOSSIBLE, "no window is ever announced more than {value} s ahead"),
    "qpu_qubits": (Cause.IMPOSSIBLE, "the QPU takes registers of up to {value} qubits"),
    "qpu_name": (Cause.IMPOSSIBLE, "the QPU{place} is called {value}"),
    "slots0": (Cause.QUEUE, "no slot is free{place}"),
}


def _of(name: str) -> str:
    return {"qpu": "the QPU", "slots": "its queue"}.get(name, name)


def _place(head: str) -> str:
    """` on node1`, ` in all.q@node1`; nothing where the whole cluster is meant."""
    found = re.search(r'cannot run (?:at|on) host "(.*?)"|cannot run in (?:queue|queue instance|PE) "(.*?)"', head)
    if found is None:
        return ""
    return f" on {found[1]}" if found[1] else f" in {found[2]}"
