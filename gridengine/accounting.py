"""What each job used: Warden's sessions, joined with the records that qacct keeps of the jobs."""

from __future__ import annotations

import pwd
import re
import time
from typing import TYPE_CHECKING

import msgspec

from gridengine import commands
from warden.model import SECOND

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from warden.model import Session

_RULE = re.compile(r"^=+[ \t]*$", re.MULTILINE)
# qacct starts its clock when a job starts, Warden when its prolog acquires; and clocks differ.
_MARGIN = 24 * 3600
_LIMIT = 120.0


class Record(msgspec.Struct, frozen=True):
    """What Grid Engine's accounting says of a job or of a task of an array."""

    job: str
    """JOBID, or JOBID.TASKID, as a session has it."""
    owner: str
    name: str
    wallclock: float
    exit_status: int


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """What a job used. What only qacct knows is None while the job runs, or where the record is gone."""

    job: str
    user: str
    name: str | None
    tasks: int
    shots: int
    qpu_seconds: float
    waited_seconds: float
    wallclock: float | None
    exit_status: int | None


def parse(text: str) -> dict[str, Record]:
    """Read what `qacct -j` prints, of either flavour; of a job that was started again, the last record stands."""
    records = (_record(block) for block in _RULE.split(text))
    return {record.job: record for record in records if record}


def join(sessions: Iterable[Session], records: Mapping[str, Record], users: Mapping[int, str]) -> list[Use]:
    """Sum up each job's sessions, in the order of the first, and add what Grid Engine knows of the job."""
    by_job: dict[str, list[Session]] = {}
    for session in sorted(sessions, key=lambda session: session.acquired):
        by_job.setdefault(session.job, []).append(session)
    return [_use(job, own, records.get(job), users) for job, own in by_job.items()]


def read(sessions: Iterable[Session]) -> list[Use]:
    """Ask Grid Engine for the records of these sessions' jobs.

    Raises:
        GridEngineError: qacct failed for another reason than that nothing has been accounted yet.
    """
    sessions = list(sessions)
    if not sessions:
        return []
    oldest = min(session.acquired for session in sessions) // SECOND - _MARGIN
    begin = time.strftime("%Y%m%d%H%M", time.localtime(oldest))
    try:
        records = parse(commands.run("qacct", "-b", begin, "-j", limit=_LIMIT).stdout)
    except commands.GridEngineError as error:
        # A fresh cell has no accounting file, and a job without a record is shown all the same.
        if "No such file" not in error.text:
            raise
        records = {}
    return join(sessions, records, {session.uid: _user(session.uid) for session in sessions})


def _record(block: str) -> Record | None:
    fields = {parts[0]: parts[1].strip() for line in block.splitlines() if len(parts := line.split(None, 1)) > 1}
    number, task = fields.get("jobnumber", ""), fields.get("taskid", "")
    if not number.isdecimal():
        return None
    return Record(
        job=f"{number}.{task}" if task.isdecimal() else number,
        owner=fields.get("owner", ""),
        name=fields.get("jobname", ""),
        wallclock=_number(fields.get("ru_wallclock", "")),
        exit_status=int(_number(fields.get("exit_status", ""))),
    )


def _use(job: str, sessions: list[Session], record: Record | None, users: Mapping[int, str]) -> Use:
    return Use(
        job=job,
        user=users.get(sessions[0].uid, str(sessions[0].uid)),
        name=record.name if record else None,
        tasks=sum(session.tasks for session in sessions),
        shots=sum(session.shots for session in sessions),
        qpu_seconds=sum(session.qpu_time for session in sessions) / SECOND,
        waited_seconds=sum(session.wait_time for session in sessions) / SECOND,
        wallclock=record.wallclock if record else None,
        exit_status=record.exit_status if record else None,
    )


def _number(text: str) -> float:
    """Read `60`, `60s`, `137                  (Killed)`; what is no number counts as 0."""
    found = re.match(r"\d+(\.\d+)?", text)
    return float(found[0]) if found else 0.0


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
