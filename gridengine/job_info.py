"""What becomes of a job, in words that do not depend on who tells: DRMAA, qstat or qacct. Readers are pure."""

from __future__ import annotations

import enum
import re
import signal
from typing import TYPE_CHECKING, Any

import msgspec

from gridengine import qacct_text

if TYPE_CHECKING:
    from collections.abc import Mapping


class JobStatus(enum.StrEnum):
    QUEUED = "queued"
    HELD = "held"
    RUNNING = "running"
    SUSPENDED = "suspended"
    DONE = "done"
    FAILED = "failed"
    UNDETERMINED = "undetermined"


class JobInfo(msgspec.Struct, frozen=True, kw_only=True):
    """How a job ended."""

    id: str
    """Of a task of an array: JOB.TASK."""
    exit_status: int | None
    """None for a job that was killed, deleted, or never ran."""
    signal: str
    """The signal that killed the job (`SIGKILL`), or empty."""
    aborted: bool
    """Whether it was deleted, or could not start. A job from DRMAA does not stay in the queue in error: it ends.

    What qacct tells, where DRMAA has forgotten the job, is less: a job that was deleted while it ran was killed.
    """
    wallclock: float
    """Seconds that the job took on its host."""
    resource_usage: dict[str, str]
    """What Grid Engine accounted for, in its own words and units, which differ between its flavours."""

    @property
    def succeeded(self) -> bool:
        return self.exit_status == 0


def told_by_drmaa(job: str, ended: Mapping[str, Any]) -> JobInfo:
    """Take over what the agent says."""
    usage = ended["usage"]
    return JobInfo(
        id=job,
        exit_status=ended["exit_status"] if ended["exited"] else None,
        signal=ended["signal"],
        aborted=ended["aborted"],
        # The first is OCS's, and exacter.
        wallclock=float(usage.get("wallclock") or usage.get("ru_wallclock") or 0),
        resource_usage=usage,
    )


def told_by_qacct(text: str) -> dict[str, JobInfo]:
    """Read what `qacct -j` prints, of either flavour: how jobs ended, by job, or by task as JOB.TASK.

    Of a job that was started again the last record stands. Records of starts that were no end are left out.
    """
    found = map(_record, qacct_text.blocks(text))
    return {info.id: info for info in found if info}


def status_of(letters: str) -> JobStatus:
    """Say qstat's letters in DRMAA's words."""
    if "q" in letters:
        return JobStatus.HELD if "h" in letters else JobStatus.QUEUED
    return JobStatus.SUSPENDED if re.search("[sST]", letters) else JobStatus.RUNNING


def _record(fields: dict[str, str]) -> JobInfo | None:
    failed, status = (int(qacct_text.number(fields.get(name, ""))) for name in ("failed", "exit_status"))
    if failed in qacct_text.STARTED_AGAIN:
        return None
    killed = failed in _KILLED and status > _SIGNALLED
    return JobInfo(
        id=qacct_text.job(fields),
        exit_status=status if failed == 0 else None,
        signal=_signal_name(status - _SIGNALLED) if killed else "",
        aborted=failed != 0 and not killed,
        wallclock=qacct_text.number(fields.get("wallclock") or fields.get("ru_wallclock") or ""),
        resource_usage=fields,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


# Of qacct's field `failed`: a limit, and killed by a signal.
_KILLED = frozenset({37, 100})
_SIGNALLED = 128
