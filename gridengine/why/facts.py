"""The edge of `qpu why`: Grid Engine and the Wardens are asked."""

from __future__ import annotations

import collections
import os
import time
from typing import TYPE_CHECKING

import msgspec

from gridengine import jobs, qstat_xml, site
from gridengine.amounts import asks
from gridengine.why.answer import Facts, Work
from gridengine.why.sight import Sight
from warden import config
from warden.client import Client
from warden.model import WardenError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gridengine.qstat_xml import Job, Row
    from gridengine.site import Offer

_TIMEOUT = 5.0
_WINDOWS = 1000
# Sessions of an array whose tasks are counted.
_SESSIONS = 50
# What `qstat -s` calls them.
_HOLDS = {"user": "hu", "operator": "ho", "system": "hs"}


def gather(name: str) -> Facts:
    """Ask about a job that waits or runs.

    Raises:
        NoSuchJobError: Grid Engine does not know the job.
        GridEngineError: Its command failed, or said what nobody understands.
    """
    job = jobs.detail(name)
    rows = jobs.listing()
    states = dict.fromkeys(row.state for row in rows if row.id == job.id)
    if not states:
        raise qstat_xml.NoSuchJobError(f"job {name} has just ended")
    job = msgspec.structs.replace(job, state=",".join(states))
    offers, trouble = _offers() if asks(job.requests) else ((), "")
    return Facts(
        job=job,
        rows=tuple(rows),
        sights=tuple(_sight(offer, several=len(offers) > 1) for offer in offers),
        now=time.time_ns() // 1000,
        holds=_holds(job),
        later=frozenset(row.id for row in jobs.listing("-s", "ha")) if asks(job.requests) else frozenset(),
        work=_work(job, rows, offers),
        trouble=trouble,
    )


def _offers() -> tuple[tuple[Offer, ...], str]:
    try:
        return site.load(config.default_path()).offers, ""
    except WardenError as error:
        return (), error.text


def _client(offer: Offer, *, several: bool) -> Client:
    # In a job the prolog says where the Warden is, but that of its own QPU alone.
    return Client(
        config=offer.warden, endpoint=None if several else os.environ.get("WARDEN_ENDPOINT"), timeout=_TIMEOUT
    )


def _sight(offer: Offer, *, several: bool) -> Sight:
    try:
        with _client(offer, several=several) as client:
            answer = client.availability()
            windows = client.plan(_WINDOWS).windows
    except WardenError as error:
        return Sight(name=offer.name, trouble=error.text)
    return Sight(name=offer.name, availability=answer, windows=windows, more=len(windows) == _WINDOWS)


def _holds(job: Job) -> tuple[str, ...]:
    if "h" not in job.state or not job.owner:
        return ()
    held = {who: jobs.listing("-s", letters, user=job.owner) for who, letters in _HOLDS.items()}
    return tuple(who for who, rows in held.items() if any(row.id == job.id for row in rows))


def _work(job: Job, rows: Iterable[Row], offers: Iterable[Offer]) -> Work | None:
    """What the job's sessions do, as far as this user may know it."""
    if not any(row.id == job.id and row.queue for row in rows):
        return None
    offers = tuple(offers)
    sessions, tasks = 0, collections.Counter[str]()
    for offer in offers:
        try:
            with _client(offer, several=len(offers) > 1) as client:
                own = [one for one in client.sessions(limit=1000) if one.job.partition(".")[0] == str(job.id)]
                sessions += len(own)
                for session in own[:_SESSIONS]:
                    tasks.update(task.status for task in client.tasks(session=session.id, limit=1000))
        except WardenError:
            continue
    return Work(sessions=sessions, tasks=dict(tasks)) if sessions else None
