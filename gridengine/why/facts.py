"""The edge of `qpu why`: Grid Engine and the Wardens are asked."""

from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING

import msgspec

from gridengine import jobs, qstat_xml, reach
from gridengine.amounts import asks
from gridengine.why.answer import Facts, Work
from gridengine.why.sight import Sight
from warden.model import WardenError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gridengine.qstat_xml import Job, Row
    from gridengine.reach import Door

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
    doors, trouble = _doors() if asks(job.requests) else ((), "")
    return Facts(
        job=job,
        rows=tuple(rows),
        sights=tuple(map(_sight, doors)),
        now=time.time_ns() // 1000,
        holds=_holds(job),
        later=frozenset(row.id for row in jobs.listing("-s", "ha")) if asks(job.requests) else frozenset(),
        work=_work(job, rows, doors),
        trouble=trouble,
    )


def _doors() -> tuple[tuple[Door, ...], str]:
    try:
        return reach.site_doors(), ""
    except WardenError as error:
        return (), error.text


def _sight(door: Door) -> Sight:
    try:
        with door.open() as client:
            answer = client.availability()
            windows = client.plan(_WINDOWS).windows
    except WardenError as error:
        return Sight(name=door.name, trouble=error.text)
    return Sight(name=door.name, availability=answer, windows=windows, more=len(windows) == _WINDOWS)


def _holds(job: Job) -> tuple[str, ...]:
    if "h" not in job.state or not job.owner:
        return ()
    held = {who: jobs.listing("-s", letters, user=job.owner) for who, letters in _HOLDS.items()}
    return tuple(who for who, rows in held.items() if any(row.id == job.id for row in rows))


def _work(job: Job, rows: Iterable[Row], doors: Iterable[Door]) -> Work | None:
    """What the job's sessions do, as far as this user may know it."""
    if not any(row.id == job.id and row.queue for row in rows):
        return None
    sessions, tasks = 0, collections.Counter[str]()
    for door in doors:
        try:
            with door.open() as client:
                own = [one for one in client.sessions(limit=1000) if one.job.partition(".")[0] == str(job.id)]
                sessions += len(own)
                for session in own[:_SESSIONS]:
                    tasks.update(task.status for task in client.tasks(session=session.id, limit=1000))
        except WardenError:
            continue
    return Work(sessions=sessions, tasks=dict(tasks)) if sessions else None
