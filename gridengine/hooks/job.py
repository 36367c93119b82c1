"""The job that a hook is run for, as far as it can be trusted, and the files through which a hook speaks to it.

A hook runs as root with an environment that the job's owner has written. Trusted are the few variables that Grid
Engine sets over whatever the user says (SGE_JOB_SPOOL_DIR, QUEUE, SGE_ROOT and SGE_CELL; not the ports, shepherd.py),
and what the qmaster says.

Neither the spool's `config` nor the hook's arguments are: on SGE 8.1.9 a line break in a path (`qsub -o`, `-wd`), in
`-M` or in an argument of the job adds lines to `config`, before Grid Engine's own or after them, and the shepherd fills
in $job_owner and the others from the last one. So these are believed where they agree with what is trusted.
"""

from __future__ import annotations

import os
import pwd
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Self

import msgspec

from gridengine import amounts, jobs, qstat_xml
from warden.model import BadRequestError, WardenError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CELL = ("SGE_ROOT", "SGE_CELL", "SGE_QMASTER_PORT", "SGE_EXECD_PORT")
# Grid Engine reads `environment` line by line into a buffer of 10000 bytes.
_LONGEST = 9999


class HookError(WardenError):
    """The hook cannot work here: with these arguments, this spool, this disk."""

    code = "hook"


class HookJob(msgspec.Struct, frozen=True, kw_only=True):
    """One job, or one task of an array job, on this host."""

    number: str
    task: str
    """Number of the array task; empty for other jobs."""
    owner: str
    uid: int
    host: str
    queue: str
    spool: Path
    start: str
    """Names one start of the job on one host: Grid Engine writes `config` anew each time, and then leaves it alone."""
    cell: dict[str, str]

    @classmethod
    def read(cls, arguments: Sequence[str], environment: Mapping[str, str]) -> Self:
        """From `$job_id $ja_task_id $job_owner $host` and the environment.

        Raises:
            HookError: They do not agree with each other.
        """
        if len(arguments) != 4:  # noqa: PLR2004
            raise HookError("wants four arguments: $job_id $ja_task_id $job_owner $host (`qpu-admin apply` sets them)")
        number, task, owner, host = arguments
        if not re.fullmatch(r"[0-9]{1,10}", number) or not re.fullmatch(r"[0-9]{1,10}|undefined", task):
            raise HookError(f"was given {number!r} and {task!r} for a job and its task")
        task = "" if task in {"0", "undefined"} else task
        try:
            uid = pwd.getpwnam(owner).pw_uid
        except KeyError:
            raise HookError(f"the job's owner {owner!r} has no account on {host}") from None
        spool = Path(environment.get("SGE_JOB_SPOOL_DIR", ""))
        if not spool.is_absolute() or spool.name != f"{number}.{task or 1}":
            raise HookError(f"SGE_JOB_SPOOL_DIR is no spool of job {number}: {str(spool)!r}")
        cell = {name: environment[name] for name in _CELL if name in environment}
        queue = environment.get("QUEUE", "")
        job = cls(
            number=number, task=task, owner=owner, uid=uid, host=host, queue=queue, spool=spool, start="", cell=cell
        )
        said, start = job._config()
        if not {f"job_id={number}", f"job_owner={owner}"} <= said:
            raise HookError(f"{spool}/config is about another job than {number} of {owner}")
        return msgspec.structs.replace(job, start=start)

    @property
    def name(self) -> str:
        """What Warden knows the job by: the number, with the task's number in an array."""
        return f"{self.number}.{self.task}" if self.task else self.number

    def look_up(self, *, limit: float) -> qstat_xml.Job:
        """The job in the qmaster's own words: nothing in it can be forged by its owner.

        Raises:
            BadRequestError: The job passes itself off as another user's.
        """
        found = jobs.detail(self.number, environment=self.cell, limit=limit)
        if found.owner != self.owner:
            raise BadRequestError(
                f"job {self.number} is {found.owner}'s and was about to run as {self.owner}: it has line breaks in its "
                "arguments or paths that Grid Engine takes for its own words"
            )
        return found

    def export(self, variables: Mapping[str, str]) -> None:
        """Put variables into the environment of the job and of its epilog.

        Raises:
            HookError: They cannot be written; the environment is as it was.
        """
        self._append("environment", "".join(_line(name, value) for name, value in variables.items()))

    def exported(self, name: str) -> str | None:
        """What the job's environment has under this name, whoever put it there; the last line counts."""
        text, _ = self._read("environment")
        lines = [line for line in text.split("\n") if line.startswith(f"{name}=")]
        return lines[-1].partition("=")[2] if lines else None

    def explain(self, reason: str) -> None:
        """Make `reason` what `qstat -j` shows of a job in error."""
        self._append("error", reason[:_LONGEST] + "\n", owned_by_job=True)

    def account(self, usage: Mapping[str, str]) -> None:
        """Put lines into OCS's own account of the job. Where it keeps none, there is nothing to add to."""
        if (self.spool / "usage").exists():
            self._append("usage", "".join(_line(name, value) for name, value in usage.items()))

    def _config(self) -> tuple[set[str], str]:
        """The lines of `config`, the job's own among them, and what tells it from that of any other start of this job."""
        text, found = self._read("config")
        # Inodes come back at once, and times may be coarse: both together, and where. 64 characters are the most.
        return set(text.splitlines()), f"{found.st_mtime_ns:x}.{found.st_ino:x}@{self.host}"[:64]

    def _read(self, name: str) -> tuple[str, os.stat_result]:
        try:
            descriptor = self._open(name, os.O_RDONLY)
            with open(descriptor, encoding="utf-8", errors="replace") as file:  # noqa: PTH123 - it is open already
                return file.read(), os.fstat(descriptor)
        except OSError as error:
            raise HookError(f"cannot read {self.spool / name}: {error.strerror}") from None

    def _append(self, name: str, text: str, *, owned_by_job: bool = False) -> None:
        """Append in place, all or nothing: a file that was replaced, or ends in half a line, would break the job."""
        try:
            descriptor = self._open(name, os.O_RDWR | os.O_APPEND, owned_by_job=owned_by_job)
        except OSError as error:
            raise HookError(f"cannot open {self.spool / name}: {error.strerror}") from None
        try:
            size = os.fstat(descriptor).st_size
            data = text.encode()
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                data = b"\n" + data
            if os.write(descriptor, data) != len(data):
                os.ftruncate(descriptor, size)
                raise HookError(f"the disk of {self.spool} is full")
        except OSError as error:
            raise HookError(f"cannot write {self.spool / name}: {error.strerror}") from None
        finally:
            os.close(descriptor)

    def _open(self, name: str, flags: int, *, owned_by_job: bool = False) -> int:
        """Open a file of the spool that is a plain file and not the job owner's, whatever lies in its place."""
        folder = os.open(self.spool, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            if os.fstat(folder).st_uid == self.uid:
                raise HookError(f"{self.spool} belongs to the job's owner")
            descriptor = os.open(name, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
        finally:
            os.close(folder)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or (found.st_uid == self.uid and not owned_by_job):
            os.close(descriptor)
            raise HookError(f"{self.spool / name} is not what Grid Engine made")
        return descriptor


def amount(resource: str, requests: Mapping[str, str]) -> int | None:
    """Pure: how much of `resource` was asked for, in whole units; None where it was not.

    Raises:
        BadRequestError: It is no number that we can read, although Grid Engine could.
    """
    value = requests.get(resource)
    if value is None:
        return None
    found = amounts.amount(value)
    if found is None:
        raise BadRequestError(f"-l {resource}={value} is no whole number: ask for {resource}=60, for instance")
    return found


def asks_for(resource: str, requests: Mapping[str, str]) -> bool:
    """Pure: whether a job with these requests asked for `resource`.

    Raises:
        BadRequestError: It requested what Grid Engine takes for a number, and books for less than one place.
    """
    value = requests.get(resource)
    if value is None or value in {"0", "0.000000"}:
        return False
    # Grid Engine also takes 0x0, 00 or 0.5: it would start such a job without booking a place for it.
    if amounts.places(value) is None:
        raise BadRequestError(f"-l {resource}={value} asks for no whole place: ask for {resource}=1")
    return True


def _line(name: str, value: str) -> str:
    """A line of `environment`; Grid Engine makes a line break of a backslash and an n, and nothing escapes that."""
    line = f"{name}={value}"
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) or "\\n" in value or not value.isprintable():
        raise HookError(f"{name} cannot be put into a job's environment")
    if len(line.encode()) > _LONGEST:
        raise HookError(f"{name} is too long for a job's environment")
    return line + "\n"
