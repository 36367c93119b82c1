"""Grid Engine's accounting: what it says of jobs that are over. Parsers are pure."""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gridengine import commands, qacct_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LIMIT = 120.0
_SECOND = 1_000_000
# SGE's times, as C's ctime writes them; OCS has ISO's.
_CTIME = "%a %b %d %H:%M:%S %Y"
# What OCS prints of a record that it cannot read.
_NULL = "(nullptr)"


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What Grid Engine's accounting says of one start of a job, or of a task of an array. Times: seconds since the epoch."""

    job: str
    """JOBID, or JOBID.TASKID, as a session has it."""
    owner: str
    name: str
    project: str = ""
    submitted: float | None = None
    """SGE and OCS have other times, or none, in the records of jobs that were sent back."""
    started: float | None = None
    """None: the job never began, since its prolog sent it back, for instance."""
    ended: float | None = None
    wallclock: float = 0.0
    exit_status: int = 0
    failed: int = 0

    @property
    def final(self) -> bool:
        """Whether the job is over, and not started again."""
        return self.failed not in qacct_text.STARTED_AGAIN


def parse(text: str) -> list[Record]:
    """Read what `qacct -j` prints in UTC, of either flavour; of local times an hour comes twice a year."""
    return [_record(fields) for fields in qacct_text.blocks(text) if fields.get("owner") != _NULL]


class _Usage(msgspec.Struct, frozen=True):
    ru_wallclock: float = 0.0


class _Usages(msgspec.Struct, frozen=True):
    rusage: _Usage = _Usage()


class _Line(msgspec.Struct, frozen=True):
    job_number: int
    task_number: int = 0
    owner: str = ""
    job_name: str = ""
    project: str = ""
    submission_time: int = 0
    start_time: int = 0
    end_time: int = 0
    exit_status: int = 0
    failed: int = 0
    usage: _Usages = _Usages()


def parse_lines(lines: Iterable[bytes]) -> Iterator[Record]:
    """Read OCS's accounting.jsonl; a line that is broken harms no other, as it does in OCS's own qacct."""
    decoder = msgspec.json.Decoder(_Line)
    for line in lines:
        try:
            found = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue
        yield Record(
            job=f"{found.job_number}.{found.task_number}" if found.task_number else str(found.job_number),
            owner=found.owner,
            name=found.job_name,
            project=_given(found.project),
            submitted=found.submission_time / _SECOND or None,
            started=found.start_time / _SECOND or None,
            ended=found.end_time / _SECOND or None,
            wallclock=found.usage.rusage.ru_wallclock,
            exit_status=found.exit_status,
            failed=found.failed,
        )


def read(since: float) -> list[Record]:
    """Ask for the records of jobs that were started since then.

    Raises:
        GridEngineError: qacct failed for another reason than that nothing has been accounted yet.
    """
    try:
        with _file().open("rb") as lines:
            return [record for record in parse_lines(lines) if (record.started or 0.0) >= since]
    except OSError:
        # SGE's has another name, and where it lies elsewhere qacct knows.
        begin = time.strftime("%Y%m%d%H%M", time.gmtime(since))
        return _ask("-b", begin, "-j")


def of_job(number: str) -> list[Record]:
    """Ask for all records of the last job that had this number, in their order.

    Raises:
        GridEngineError: qacct failed for another reason than that there is no such record.
    """
    try:
        records = _ask("-j", number)
    except commands.UnknownObjectError:
        return []
    return last_life([record for record in records if record.job.partition(".")[0] == number])


def last_life(records: Iterable[Record]) -> list[Record]:
    """Pure: of the jobs that had one number, the records of the last one."""
    life: list[Record] = []
    for record in records:
        if any(replaces(record, before) for before in life):
            life = []
        life.append(record)
    return life


def replaces(record: Record, before: Record) -> bool:
    """Pure: whether a record is of a later job with the same number.

    A job that is started again was not over; that it was submitted at another time says nothing, as OCS has it.
    """
    if ("." in record.job) != ("." in before.job) or record.owner != before.owner:
        return True
    over = before.final and before.ended is not None and record.job == before.job
    return over and (record.submitted or 0.0) >= (before.ended or 0.0)


def _file() -> Path:
    return Path(os.environ.get("SGE_ROOT", "/"), os.environ.get("SGE_CELL", "default"), "common/accounting.jsonl")


def _ask(*arguments: str) -> list[Record]:
    try:
        return parse(commands.run("qacct", *arguments, limit=_LIMIT, utc=True).stdout)
    except commands.GridEngineError as error:
        # A fresh cell has no accounting file.
        if "No such file" in error.text:
            return []
        raise


def _record(fields: dict[str, str]) -> Record:
    return Record(
        job=qacct_text.job(fields),
        owner=fields.get("owner", ""),
        name=fields.get("jobname", ""),
        project=_given(fields.get("project", "")),
        submitted=_time(fields.get("qsub_time", "")),
        started=_time(fields.get("start_time", "")),
        ended=_time(fields.get("end_time", "")),
        wallclock=qacct_text.number(fields.get("ru_wallclock", "")),
        exit_status=int(qacct_text.number(fields.get("exit_status", ""))),
        failed=int(qacct_text.number(fields.get("failed", ""))),
    )


def _given(project: str) -> str:
    return "" if project.upper() == "NONE" else project


def _time(text: str) -> float | None:
    """`-/-` is none."""
    try:
        found = dt.datetime.fromisoformat(text) if text[:1].isdecimal() else dt.datetime.strptime(text, _CTIME)  # noqa: DTZ007
        return found.replace(tzinfo=dt.UTC).timestamp()
    except (ValueError, OverflowError):
        return None
