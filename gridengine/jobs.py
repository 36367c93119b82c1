"""Asks Grid Engine about jobs, and tells it what it has to know of them."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from gridengine import commands, qstat_xml
from gridengine.qstat_xml import Job, NoSuchJobError, Row
from warden.model import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping


def detail(job_id: str, *, environment: Mapping[str, str] | None = None, limit: float = commands.LIMIT) -> Job:
    """Ask Grid Engine whose a job is and what it asked for, with one command and without its state.

    Raises:
        NoSuchJobError: Grid Engine does not know the job.
        GridEngineError: Its command failed, or said what nobody understands.
    """
    return qstat_xml.read_job(_detail(job_id, environment, limit), "")


def annotate(job_id: str, context: Mapping[str, str], *, environment: Mapping[str, str], limit: float) -> None:
    """Add to the job's context, or change what is there under the same names.

    Raises:
        GridEngineError: Grid Engine did not take it.
    """
    said = ",".join(f"{name}={value}" for name, value in context.items())
    commands.run("qalter", "-ac", said, job_id, environment=environment, limit=limit)


def forget(job_id: str, names: Iterable[str], *, environment: Mapping[str, str], limit: float) -> None:
    """Take these names out of the job's context.

    Raises:
        GridEngineError: Grid Engine did not take it.
    """
    commands.run("qalter", "-dc", ",".join(names), job_id, environment=environment, limit=limit)


def postpone(job_id: str, until: float, *, environment: Mapping[str, str], limit: float) -> None:
    """Have Grid Engine not start the job before `until`, in seconds since 1970; what runs of it goes on.

    Raises:
        GridEngineError: Grid Engine did not take it.
    """
    moment = time.strftime("%Y%m%d%H%M.%S", time.gmtime(until))
    commands.run("qalter", "-a", moment, job_id, environment=environment, limit=limit, utc=True)


def listing(*arguments: str, user: str = "*") -> list[Row]:
    """Ask Grid Engine for all jobs, or those that `arguments` of qstat choose.

    Raises:
        GridEngineError: Its command failed, or said what nobody understands.
    """
    return qstat_xml.rows(commands.run("qstat", "-u", user, "-r", *arguments, "-xml").stdout)


def live_requests(names: Collection[str], *, environment: Mapping[str, str] | None = None) -> list[int]:
    """Ask Grid Engine which jobs, waiting or running, ask for any of these complexes.

    Raises:
        GridEngineError: Its command failed, or said what nobody understands.
    """
    return qstat_xml.requesting(commands.run("qstat", "-u", "*", "-r", "-xml", environment=environment).stdout, names)


def _detail(job_id: str, environment: Mapping[str, str] | None, limit: float) -> str:
    # qstat -j takes patterns of job names too; a job must not answer for another.
    if not re.fullmatch(r"[0-9]{1,10}", job_id):
        raise BadRequestError(f"{job_id!r} is no job number")
    try:
        return commands.run("qstat", "-j", job_id, "-xml", environment=environment, limit=limit).stdout
    except commands.UnknownObjectError:
        raise NoSuchJobError(
            f"Grid Engine knows no job {job_id}: it never was, or is over (qacct -j {job_id})"
        ) from None
