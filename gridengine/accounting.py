"""What was used of the QPU: Warden's sessions, joined with Grid Engine's records, summed up by what one asks for.

Grid Engine gives the same numbers again in the life of a cell, and starts jobs several times. So a session's record is
the one of its job that was started at about the same time, and sessions are one job's if Grid Engine says so.
"""

from __future__ import annotations

import csv
import enum
import io
import time
from typing import TYPE_CHECKING, Any

import msgspec

from gridengine import qacct
from gridengine.qacct import Record
from warden.client import Client
from warden.console import table
from warden.model import SECOND, ForbiddenError, Session, clock, one_line
from warden.report import user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gridengine.site import Site
    from warden.model import Micros

# Between what Warden and Grid Engine call the start of a job, at most, in seconds: clocks differ, and hooks take time.
APART = 3600
# The most sessions that one answer of a Warden has.
_PAGE = 1000


class By(enum.StrEnum):
    """What sums are made by."""

    JOB = "job"
    USER = "user"
    PROJECT = "project"
    MONTH = "month"
    QPU = "qpu"


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A session, and the record of the start of the job that it was for, if there is one."""

    qpu: str
    session: Session
    record: Record | None
    user: str
    life: int = 0
    """Which of the jobs that had this number: they count from 0."""

    @property
    def number(self) -> str:
        """The job's number, without that of a task."""
        return self.session.job.partition(".")[0]

    @property
    def project(self) -> str:
        return self.session.project or (self.record.project if self.record else "")

    @property
    def month(self) -> str:
        """In which the session began, in local time."""
        return time.strftime("%Y-%m", time.localtime(self.session.acquired // SECOND))


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """A sum. Of job, user ... only those have values by which was summed, or which a job has."""

    job: str | None = None
    qpu: str | None = None
    user: str | None = None
    project: str | None = None
    month: str | None = None
    name: str | None = None
    jobs: int
    sessions: int
    tasks: int
    shots: int
    qpu_seconds: float
    waited_seconds: float
    wallclock: float | None
    """None while the job runs, or where the record is gone."""
    exit_status: int | None = None
    """Of a job: its last start's; of an array the highest of its tasks."""


def join(sessions: Iterable[tuple[str, Session]], records: Iterable[Record], users: Mapping[int, str]) -> list[Entry]:
    """Find each session's record and life, in the order in which the sessions began."""
    by_job: dict[str, list[tuple[str, Session]]] = {}
    for qpu, session in sorted(sessions, key=lambda pair: pair[1].acquired):
        by_job.setdefault(session.job, []).append((qpu, session))
    started: dict[str, list[Record]] = {}
    for record in records:
        if record.started is not None:
            started.setdefault(record.job, []).append(record)
    entries = []
    for job, own in by_job.items():
        found = _matched([session for _, session in own], started.get(job, []))
        entries += [
            Entry(qpu=qpu, session=session, record=record, user=users.get(session.uid, str(session.uid)))
            for (qpu, session), record in zip(own, found, strict=True)
        ]
    return _lives(sorted(entries, key=lambda entry: entry.session.acquired))


def summed(entries: Iterable[Entry], by: Sequence[By]) -> list[Use]:
    """Sum up; jobs in the order in which they began, everything else by its name."""
    groups: dict[tuple[object, ...], list[Entry]] = {}
    for entry in entries:
        groups.setdefault(tuple(_KEYS[one](entry) for one in by), []).append(entry)
    keys = list(groups) if By.JOB in by else sorted(groups)
    return [_use(groups[key], by) for key in keys]


def total(entries: Sequence[Entry]) -> Use:
    return _use(entries, ())


def as_csv(uses: Sequence[Use], by: Sequence[By]) -> str:
    """For spreadsheets: a name that users chose must not become a formula there."""
    text = io.StringIO()
    # Not only where it must be: Python 3.11 leaves a carriage return without quotes, and readers take it for a line's end.
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(fields(by))
    writer.writerows([_harmless(value) for value in facts(use, by).values()] for use in uses)
    return text.getvalue()


def facts(use: Use, by: Sequence[By]) -> dict[str, Any]:
    """For programs: the fields that mean something in a sum of this kind."""
    return {field: getattr(use, field) for field in fields(by)}


def fields(by: Sequence[By]) -> list[str]:
    keys = [str(one) for one in by]
    counts = ["sessions", "tasks", "shots", "qpu_seconds", "waited_seconds", "wallclock"]
    if By.JOB not in by:
        return [*keys, "jobs", *counts]
    return [*dict.fromkeys([*keys, "user", "name", "project", "qpu"]), *counts, "exit_status"]


def as_table(uses: Sequence[Use], whole: Use, by: Sequence[By]) -> str:
    """For people, with the total at the end."""
    shown = [str(one) for one in by]
    shown += [field for field in ("user", "name") if By.JOB in by and field not in shown]
    shown += [field for field in _COLUMNS if field in fields(by)]
    rows = [[getattr(use, field) for field in shown] for use in uses]
    last = [getattr(whole, field) if field in _COLUMNS else "" for field in shown]
    return table([*rows, ["total", *last[1:]]], [_COLUMNS.get(field, field.upper()) for field in shown])


_COLUMNS = {
    "jobs": "JOBS",
    "tasks": "TASKS",
    "shots": "SHOTS",
    "qpu_seconds": "QPU s",
    "waited_seconds": "WAITED s",
    "wallclock": "WALLCLOCK s",
    "exit_status": "EXIT",
}


_KEYS: dict[By, Callable[[Entry], Any]] = {
    By.JOB: lambda entry: (entry.number, entry.life),
    By.USER: lambda entry: entry.user,
    By.PROJECT: lambda entry: entry.project,
    By.MONTH: lambda entry: entry.month,
    By.QPU: lambda entry: entry.qpu,
}


def _matched(sessions: Sequence[Session], records: Sequence[Record]) -> list[Record | None]:
    """Each session with the record that was started nearest to it; no record stands for two sessions."""
    pairs = sorted(
        (apart, which, number)
        for which, session in enumerate(sessions)
        for number, record in enumerate(records)
        if (apart := abs((record.started or 0.0) - session.acquired / SECOND)) <= APART
    )
    found: dict[int, int] = {}
    for _, which, number in pairs:
        if which not in found and number not in found.values():
            found[which] = number
    return [records[found[which]] if which in found else None for which in range(len(sessions))]


def _lives(entries: Iterable[Entry]) -> list[Entry]:
    """Tell the jobs apart that had one number."""
    numbered: list[Entry] = []
    lives: dict[str, tuple[int, dict[str, Entry]]] = {}
    for entry in entries:
        life, before = lives.setdefault(entry.number, (0, {}))
        if any(_replaces(entry, one) for one in before.values()):
            life, before = life + 1, {}
        before[entry.session.job] = entry
        lives[entry.number] = (life, before)
        numbered.append(msgspec.structs.replace(entry, life=life))
    return numbered


def _replaces(entry: Entry, before: Entry) -> bool:
    """Whether a session is of a later job with the same number."""
    if entry.session.uid != before.session.uid:
        return True
    if before.record is None:
        return False
    if entry.record is not None:
        return qacct.replaces(entry.record, before.record)
    # It runs, or its record is gone: a task that was over long ago is not started again.
    same = entry.session.job == before.session.job and before.record.final and before.record.ended is not None
    return same and entry.session.acquired / SECOND > (before.record.ended or 0.0) + APART


def _use(entries: Sequence[Entry], by: Sequence[By]) -> Use:
    first = entries[0] if entries else None
    records = [entry.record for entry in entries if entry.record]
    of_job = first if By.JOB in by else None
    keys = {str(one): getattr(first, one) for one in by if one is not By.JOB} if first else {}
    if of_job is not None:
        keys = {"user": of_job.user, "project": of_job.project or None, "qpu": of_job.qpu} | keys
    return Use(
        **keys,
        job=of_job.number if of_job else None,
        name=records[-1].name if of_job and records else None,
        jobs=len({(entry.number, entry.life) for entry in entries}),
        sessions=len(entries),
        tasks=sum(entry.session.tasks for entry in entries),
        shots=sum(entry.session.shots for entry in entries),
        qpu_seconds=sum(entry.session.qpu_time for entry in entries) / SECOND,
        waited_seconds=sum(entry.session.wait_time for entry in entries) / SECOND,
        wallclock=sum(record.wallclock for record in records) if records else None,
        exit_status=_exit_status(entries) if of_job else None,
    )


def _exit_status(entries: Sequence[Entry]) -> int | None:
    """None as long as one of its tasks has no record of its last start."""
    last = {entry.session.job: entry.record for entry in entries}
    known = [record.exit_status for record in last.values() if record]
    return max(known) if known and len(known) == len(last) else None


def _harmless(value: object) -> object:
    """Spreadsheets take text for a formula that begins so."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


# --- the edge ---


class Reading(msgspec.Struct, frozen=True):
    """What was found, and how it falls short of what was asked for."""

    entries: list[Entry]
    cut: bool
    """Whether there are older sessions than were read."""
    own_only: bool
    """Whether others' were kept back: who asks is no operator."""


def read(site: Site, *, since: Micros, until: Micros, limit: int) -> Reading:
    """Ask the Wardens for the newest sessions that began in [since, until), and Grid Engine for their jobs' records.

    Raises:
        UnavailableError: A Warden does not answer: sums without its QPU would be wrong.
        GridEngineError: qacct failed for another reason than that nothing has been accounted yet.
    """
    sessions: list[tuple[str, Session]] = []
    cut = own_only = False
    for offer in site.offers:
        with Client(config=offer.warden) as client:
            try:
                found, more = _sessions(client, since, until, limit, everybody=True)
            except ForbiddenError:
                own_only = True
                found, more = _sessions(client, since, until, limit, everybody=False)
        sessions += [(offer.name, session) for session in found]
        cut = cut or more
    oldest = min((session.acquired for _, session in sessions), default=None)
    records = [] if oldest is None else qacct.read(oldest / SECOND - APART)
    users = {session.uid: user(session.uid) for _, session in sessions}
    return Reading(join(sessions, records, users), cut, own_only)


def _sessions(
    client: Client, since: Micros, until: Micros, limit: int, *, everybody: bool
) -> tuple[list[Session], bool]:
    """The newest first, page by page: one answer has so many at most."""
    found: list[Session] = []
    before: str | None = None
    while page := client.sessions(everybody=everybody, ended=True, before=before, limit=_PAGE):
        for session in page:
            if session.acquired < since:
                return found, False
            if session.acquired < until:
                if len(found) == limit:
                    return found, True
                found.append(session)
        before = page[-1].id
    return found, False


def last_record(job: str) -> Ended | None:
    """What Grid Engine's accounting says of a job that is over; None: nothing."""
    return over(qacct.of_job(job))


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended; of an array all its tasks."""

    job: str
    name: str
    owner: str
    state: str = "over"
    starts: int
    ended: str | None
    wallclock: float
    exit_status: int
    tasks: int


def over(records: Sequence[Record]) -> Ended | None:
    """Pure: sum up all records of a job; of a task that was started again, the last start tells how it ended."""
    if not records:
        return None
    last = {record.job: record for record in records}
    end = max((record.ended for record in records if record.ended), default=None)
    return Ended(
        job=records[-1].job.partition(".")[0],
        name=records[-1].name,
        owner=records[-1].owner,
        starts=sum(record.started is not None for record in records),
        ended=None if end is None else clock(int(end) * SECOND),
        wallclock=sum(record.wallclock for record in records),
        exit_status=max(record.exit_status for record in last.values()),
        tasks=len(last),
    )


def ended(found: Ended) -> str:
    """Pure: a line about a job that is over."""
    title = f"job {found.job} ({one_line(found.name)}) of {found.owner}"
    if not found.starts:
        return f"{title} is over; Grid Engine has no record of a start: `qacct -j {found.job}` says why, as `failed`"
    when = "" if found.ended is None else f" at {found.ended}"
    how = f"exit status {found.exit_status} after {found.wallclock:.0f} s"
    if found.tasks > 1:
        how = f"{found.tasks} tasks, the highest {how} in all"
    again = f"; it was started {found.starts} times" if found.starts > found.tasks else ""
    return f"{title} ended{when}: {how}{again}"
