"""Why a job waits, or what it does, from what Grid Engine and the QPU's Warden say of it. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from gridengine.amounts import amount, asks, seconds
from gridengine.qstat_xml import Job, Row
from gridengine.why import reasons
from gridengine.why.reasons import Cause, Reason
from gridengine.why.sight import Fit, Sight, first_fit, longest_gap, usable
from warden.model import HORIZON, SECOND, Availability, Micros, State, clock, few
from warden.report import length

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# `duration_offset` of the scheduler, as it is by default: what it adds to h_rt where reservations are near.
_OFFSET = 60


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a running job does on the QPU; only its owner learns it."""

    sessions: int
    tasks: dict[str, int]


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of a job and of what it waits for."""

    job: Job
    rows: tuple[Row, ...]
    """All jobs, those that wait in the order in which the scheduler looks at them."""
    sights: tuple[Sight, ...]
    now: Micros
    holds: tuple[str, ...] = ()
    """Who holds it: user, operator, system."""
    later: frozenset[int] = frozenset()
    """Jobs whose start time (qsub -a) has not come: the prolog, too, sets it for jobs that it sends back."""
    work: Work | None = None
    trouble: str = ""
    """Why nobody knows which QPUs there are."""


class Line(msgspec.Struct, frozen=True):
    """Its place among the jobs that wait for the same QPUs; each task of an array counts."""

    ahead: int
    waiting: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Why a job waits, and what can be done."""

    job: int
    name: str
    owner: str
    state: str
    words: str
    requests: dict[str, str]
    because: tuple[Reason, ...]
    qpus: tuple[Sight, ...]
    line: Line | None
    earliest: Micros | None
    """When it can start at the earliest; None: nobody knows, or it runs."""
    start: str
    todo: str
    work: Work | None
    trouble: str
    time: Micros


def explain(facts: Facts) -> Answer:
    """Put all facts together."""
    job = facts.job
    own = [row for row in facts.rows if row.id == job.id]
    waits = any(_waits(row.state) for row in own) or (not own and _waits(job.state))
    sights = usable(facts.sights, job.requests)
    line = (
        place_in_line([row for row in facts.rows if row.id not in facts.later], job, facts.sights)
        if waits and asks(job.requests)
        else None
    )
    because = _because(facts, sights) if waits else ()
    earliest, start = _start(facts, sights, line, because) if waits else (None, "")
    return Answer(
        job=job.id,
        name=job.name,
        owner=job.owner,
        state=job.state,
        words=_words(job, own),
        requests=job.requests,
        because=because,
        qpus=sights if asks(job.requests) else (),
        line=line,
        earliest=earliest,
        start=start,
        todo=_todo(facts, because, sights),
        work=facts.work,
        trouble=facts.trouble,
        time=facts.now,
    )


def place_in_line(rows: Iterable[Row], job: Job, sights: Sequence[Sight]) -> Line | None:
    """Its place among those that may start now: not who is held, in error, after another QPU or what none can give."""
    own = {sight.name for sight in usable(sights, job.requests)}
    ahead = waiting = 0
    met = False
    for row in rows:
        if not _waits(row.state) or not asks(row.requests) or set("hE") & set(row.state):
            continue
        others = usable(sights, row.requests)
        if own and own.isdisjoint(sight.name for sight in others):
            continue
        if row.id != job.id and _impossible(row.requests, sights, others):
            continue
        met = met or row.id == job.id
        waiting += row.tasks
        ahead += 0 if met else row.tasks
    return Line(ahead, waiting) if met else None


# --- the parts of the answer ---


def _because(facts: Facts, sights: Sequence[Sight]) -> tuple[Reason, ...]:
    job = facts.job
    found = [] if asks(job.requests) else [Reason(Cause.OTHER, "it does not ask for a QPU (-l qpu=1)")]
    found += _impossible(job.requests, facts.sights, sights)
    found += _sent_back(job)
    said = list(map(reasons.plain, job.reasons))
    if len(facts.sights) > 1:
        said = _of_several(said, map(reasons.plain, job.queue_reasons), sights)
    if "error" in _phases(job.state):
        # What the scheduler would not say is the hook's; and where that is told, that there is an error need not be.
        said = [reasons.hook(reason.said) if reason.cause is Cause.OTHER else reason for reason in said]
        said = [reason for reason in said if reason.cause is not Cause.ERROR or reason.text != _IN_ERROR] or said
    if sights and not any(map(_open, sights)) and any(reason.said.startswith(_NO_SLOTS) for reason in said):
        # Of a parallel job that is not given the QPU, Grid Engine says that there are no slots.
        said.insert(0, Reason(Cause.PLACE, ""))
    for reason in said:
        found += _detailed(reason, facts, sights)
    if not job.reasons:
        # Else full queues are not what it waits for.
        found += map(reasons.plain, job.queue_reasons)
    if "h" in job.state and not any(reason.cause in {Cause.HOLD, Cause.DEPENDENCY} for reason in found):
        found.insert(0, _held(facts))
    return reasons.summed(found)


def _of_several(said: Iterable[Reason], of_queues: Iterable[Reason], sights: Sequence[Sight]) -> list[Reason]:
    """Each QPU has queues of its own, and a quota set bounds their places: what is said of other queues matters little."""
    blocked = set(map(_blocked, sights))
    meant = [
        msgspec.structs.replace(reason, cause=Cause.PLACE) if _OUR_QUOTA.search(reason.said) else reason
        for reason in (*said, *(reason for reason in of_queues if reason.text in blocked))
    ]
    places = any(reason.cause is Cause.PLACE for reason in meant)
    found = []
    for reason in meant:
        elsewhere = _WITHOUT_QPU.search(reason.said)
        if not elsewhere:
            found.append(reason)
        elif not places:
            found.append(Reason(Cause.QUEUE, f"{elsewhere[1]} has no QPU", reason.said))
    return found


def _blocked(sight: Sight) -> str:
    """What is said of one of several QPUs when its queues are above their threshold."""
    return f"{sight.name} is blocked"


_NO_SLOTS = 'cannot run in PE "'
_OUR_QUOTA = re.compile(r'exceeds limit .* in rule "qpu/')
_WITHOUT_QPU = re.compile(r'cannot run in (?:queue|queue instance) "(.*?)" because job requests unknown resource \(qpu')
_IN_ERROR = reasons.plain("Job is in error state").text


def _impossible(requests: dict[str, str], all_of: Sequence[Sight], sights: Sequence[Sight]) -> list[Reason]:
    """What no QPU can ever give it; Grid Engine does not say so while something else is missing, too."""
    if not asks(requests):
        return []
    if not sights:
        names = ", ".join(sight.name for sight in all_of)
        return [Reason(Cause.IMPOSSIBLE, f"no QPU is called {requests['qpu_name']}: there is {names}")] if names else []
    known = [sight.availability for sight in sights if sight.availability]
    if len(known) < len(sights):
        return []
    found = []
    for name, most, text in (
        ("qpu", max(answer.places for answer in known), "it asks for {0} places, and the QPU has {1}"),
        ("qpu_qubits", max(answer.qubits for answer in known), "it asks for {0} qubits, and the QPU takes {1} at most"),
        (
            "qpu_window",
            HORIZON // SECOND,
            "it asks for {0} s before a window, and none is announced more than {1} s ahead",
        ),
    ):
        wanted = requests.get(name, "0")
        if (amount(wanted) or 0) > most:
            found.append(Reason(Cause.IMPOSSIBLE, text.format(reasons.number(wanted), most)))
    need = _need(requests)
    if need and not found and all(first_fit(sight, known[0].time, need).never for sight in sights):
        longest = max(longest_gap(sight.windows) for sight in sights)
        until = clock(max(sight.windows[-1].start for sight in sights))
        text = f"it asks for {brief(need)} before a window; until {until} they leave {brief(longest)} at most"
        found.append(Reason(Cause.IMPOSSIBLE, text))
    return found


def _sent_back(job: Job) -> list[Reason]:
    """What our prolog wrote down when it sent the job back to the queue. Its owner may have written it, too."""
    attempts = job.context.get("qpu_attempts", "")
    if not attempts.isdecimal() or not int(attempts[:9]):
        return []
    why = _SENT_BACK.get(job.context.get("qpu_reason", ""), job.context.get("qpu_reason", "")[:40])
    times = "once" if int(attempts[:9]) == 1 else f"{int(attempts[:9])} times"
    return [Reason(Cause.OTHER, f"it was started and sent back {times}, last because {why or 'it had to wait'}")]


# The prolog's words.
_SENT_BACK = {
    "busy": "all places on the QPU were taken",
    "calibrating": "the QPU was calibrating",
    "maintenance": "the QPU was in maintenance",
    "offline": "the QPU was offline",
    "window": "too little time was left before a window",
    "unreachable": "Warden did not answer",
    "munge": "MUNGE did not work on its host",
    "qmaster": "the qmaster did not answer its host",
    "configuration": "its host's configuration is wrong",
    "unforeseen": "of something unforeseen on its host",
}


def _detailed(reason: Reason, facts: Facts, sights: Sequence[Sight]) -> list[Reason]:
    """What Grid Engine does not know: what is behind a QPU without places, a window, a hold."""
    if reason.cause is Cause.HOLD:
        return [_held(facts)]
    if reason.cause is Cause.DEPENDENCY and facts.job.predecessors:
        jobs = few(facts.job.predecessors, 5)
        return [Reason(reason.cause, f"it waits for the end of job {jobs} (-hold_jid)", reason.said)]
    if reason.cause is Cause.START_TIME and facts.job.not_before:
        text = f"it must not start before {clock(facts.job.not_before * SECOND)}"
        return [Reason(reason.cause, text, reason.said)]
    if reason.cause is Cause.PLACE and sights:
        meant = [sight for sight in sights if reason.text == _blocked(sight)] or sights
        return [Reason(reason.cause, _no_place(sight), reason.said) for sight in meant]
    if reason.cause is Cause.WINDOW and "qpu_window" in facts.job.requests:
        asked = brief(_need(facts.job.requests))
        ahead = [sight.availability.seconds_to_window() for sight in sights if sight.availability]
        text = f"it asks for {asked} before a window" + (
            f", and the next is in {brief(max(ahead) * SECOND)}" if ahead else ""
        )
        return [Reason(reason.cause, text, reason.said)]
    return [reason]


def _held(facts: Facts) -> Reason:
    who = {"user": "its user", "operator": "an operator of the cluster", "system": "a manager of the cluster"}
    by = " and ".join(who[hold] for hold in facts.holds)
    return Reason(Cause.HOLD, f"it is held by {by}" if by else "it is held", "Job is in hold state")


def _open(sight: Sight) -> bool:
    answer = sight.availability
    return answer is None or (answer.state is State.READY and answer.used < answer.places)


def _no_place(sight: Sight) -> str:
    answer = sight.availability
    if answer is None:
        return f"no place on {sight.name} is free, and its Warden does not answer"
    if answer.state is not State.READY:
        return f"{sight.name} is blocked: {_state(answer)}"
    if answer.used >= answer.places:
        return f"all places on {sight.name} are taken"
    return f"all places on {sight.name} are taken, or were when Grid Engine last heard of it"


def _start(
    facts: Facts, sights: Sequence[Sight], line: Line | None, because: Sequence[Reason]
) -> tuple[Micros | None, str]:
    """When it can start at the earliest, and why not before."""
    causes = {reason.cause for reason in because}
    for cause, text in _NOT_BEFORE.items():
        if cause in causes:
            return None, text
    if not sights or not asks(facts.job.requests):
        return None, "unknown"
    fits = [_fit(sight, facts, reserved=Cause.RESERVATION in causes) for sight in sights]
    known = [(fit.at, sight) for fit, sight in zip(fits, sights, strict=True) if fit.at is not None]
    if all(fit.never for fit in fits):
        return None, "unknown: no gap between windows is as long as it may run (h_rt)"
    if not known:
        return None, "unknown: nobody knows when the QPU is free again"
    at, sight = min(known, key=lambda pair: pair[0])
    now = max(facts.now, sight.availability.time if sight.availability else 0)
    if at > now:
        return at, f"{clock(at)}, in {brief(at - now)}, if a place is free then"
    ready = [sight for moment, sight in known if moment <= now]
    free = max(sight.availability.places - sight.availability.used for sight in ready if sight.availability)
    return _now(at, free, facts, line, causes)


def _now(at: Micros, free: int, facts: Facts, line: Line | None, causes: set[Cause]) -> tuple[Micros | None, str]:
    """No window is in its way: what else is."""
    if free < (amount(facts.job.requests["qpu"]) or 0):
        return None, "unknown: when a place is free and nobody is ahead of it"
    if line and line.ahead >= free and not causes & _OTHERS:
        return None, "unknown: the QPU has a place, but others are ahead of it"
    if causes & _OTHERS:
        return None, "unknown: the QPU has a place, but something else is in its way"
    return at, "at any moment: when Grid Engine hears that the QPU has a place"


_OTHERS = frozenset({Cause.QUEUE, Cause.LIMIT, Cause.OTHER, Cause.RESERVATION})
_NOT_BEFORE = {
    Cause.IMPOSSIBLE: "never, as it is",
    Cause.ERROR: "not before its error is cleared",
    Cause.HOLD: "not before it is released",
    Cause.DEPENDENCY: "not before those jobs have ended",
}


def _fit(sight: Sight, facts: Facts, *, reserved: bool) -> Fit:
    answer = sight.availability
    if answer is None or answer.state is State.OFFLINE:
        return Fit(None)
    requests = facts.job.requests
    need = _need(requests)
    if reserved and "h_rt" in requests:
        need = max(need, (seconds(requests["h_rt"]) + _OFFSET) * SECOND)
    return first_fit(sight, max(answer.time, facts.job.not_before * SECOND), need)


def _need(requests: dict[str, str]) -> Micros:
    return seconds(requests.get("qpu_window", "0")) * SECOND


def _todo(facts: Facts, because: Sequence[Reason], sights: Sequence[Sight]) -> str:
    return next(_advice(facts, {reason.cause for reason in because}, sights))


def _advice(facts: Facts, causes: set[Cause], sights: Sequence[Sight]) -> Iterator[str]:
    """What the user can do, the most pressing first, and nothing in the end."""
    job, phases = facts.job, _phases(facts.job.state)
    if "deleted" in phases:
        yield "nothing: it is being deleted"
    if "error" in phases:
        yield f"mend what it says, then `qmod -cj {job.id}`; or `qdel {job.id}`"
    if Cause.IMPOSSIBLE in causes:
        yield f"`qdel {job.id}`, and submit it again with a request that can be met"
    if Cause.HOLD in causes and facts.holds and "user" not in facts.holds:
        yield "ask an operator of the cluster to release it"
    if Cause.HOLD in causes:
        yield f"`qrls {job.id}` releases it" + (", and then an operator has to" if len(facts.holds) > 1 else "")
    if "suspended" in phases:
        yield f"`qmod -usj {job.id}`, if you have suspended it; else it goes on when its queue does"
    if Cause.RESERVATION in causes and "h_rt" not in job.requests:
        yield "say how long it runs (-l h_rt=TIME): now it counts as endless, and waits"
    if sights and all(sight.availability is None for sight in sights):
        yield "nothing: it waits until Warden answers; tell the QPU's operator if that takes long"
    if "waiting" in phases:
        yield "nothing: it starts by itself"
    yield "`qpu tasks` lists its tasks" if facts.work and facts.work.tasks else "nothing: it runs"


# --- words ---


def _phases(state: str) -> list[str]:
    """Grid Engine's letters, for instance Eqw, hRq, dr, S, in words; the first is the most telling."""
    letters = set(state)
    known = (
        ("deleted", "d"),
        ("error", "E"),
        ("held", "h"),
        ("suspended", "sST"),
        ("waiting", "qw"),
        ("starting", "t"),
        ("running", "r"),
    )
    return [word for word, among in known if letters & set(among)]


def _waits(state: str) -> bool:
    return "q" in state or "w" in state


def _words(job: Job, own: Sequence[Row]) -> str:
    counted: dict[str, int] = {}
    for row in own:
        word = {"deleted": "being deleted", "error": "in error"}.get((_phases(row.state) or ["?"])[0], "")
        word = word or (_phases(row.state) or [row.state])[0]
        if word == "waiting" and "R" in row.state:
            word = "waiting to be started again"
        counted[word] = counted.get(word, 0) + row.tasks
    if sum(counted.values()) > 1:
        return ", ".join(f"{count} {word}" for word, count in counted.items())
    return f"{next(iter(counted), 'over')} ({job.state})" if job.state else next(iter(counted), "over")


def _state(answer: Availability) -> str:
    """`calibrating until ...`, `maintenance (cleaning up)`."""
    reason = f" ({answer.reason})" if answer.reason and answer.reason not in {answer.state, "calibration"} else ""
    until = f" until {clock(answer.until)}" if answer.until is not None and answer.state is not State.READY else ""
    return f"{answer.state}{reason}{until}"


def brief(time: Micros) -> str:
    """A length of time without what is nought."""
    return re.sub(r" 0 (s|min|h)$", "", length(time))
