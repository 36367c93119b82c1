"""Jobs from Python: submitted, waited for, controlled and accounted for through DRMAA.

    with Session() as grid:
        job = grid.submit(JobTemplate(command="qpu", args=("run", "afm.json", "--shots", "200"), resources={"qpu": 1}))
        print(job.id, job.wait().exit_status)

libdrmaa lives in a process of its own (`drmaa_agent`): Debian's loads only where the environment was prepared before
the process started, libdrmaa can hang, and neither is to be the trouble of the user's process. When that process is
lost, the next call starts another, which takes up the same DRMAA session by its contact.
"""

from __future__ import annotations

import enum
import math
import os
import re
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from gridengine.drmaa_process import (
    Agent,
    GridUnavailableError,
    JobLostError,
    SubmissionError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from types import TracebackType

__all__ = [
    "GridUnavailableError",
    "Job",
    "JobInfo",
    "JobLostError",
    "JobStatus",
    "JobTemplate",
    "Session",
    "SubmissionError",
    "WaitTimeoutError",
]


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
    exit_status: int | None
    """None for a job that was killed, deleted, or never ran."""
    signal: str
    """The signal that killed the job (`SIGKILL`), or empty."""
    aborted: bool
    """Whether it was deleted, or could not start. A job from DRMAA does not stay in the queue in error: it ends."""
    wallclock: float
    """Seconds that the job took on its host."""
    resource_usage: dict[str, str]
    """What Grid Engine accounted for, in its own words and units, which differ between its flavours."""

    @property
    def succeeded(self) -> bool:
        return self.exit_status == 0


class JobTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """What to run and what it needs.

    Raises:
        SubmissionError: A field holds what Grid Engine could not take, or would take for something else.
    """

    command: str
    """A program: a path, or a name that is on the PATH of jobs. No shell reads it."""
    args: tuple[str, ...] = ()
    resources: Mapping[str, str | int] = {}
    """What `-l` asks for: `{"qpu": 1, "h_rt": "0:10:00"}`."""
    name: str | None = None
    output: str | None = None
    """The file for the job's stdout; a relative path starts at the working directory. None: NAME.oID there."""
    error: str | None = None
    """As `output`. None: NAME.eID."""
    working_directory: str | None = None
    """None: the current directory of the process that submits."""
    queue: str | None = None
    native: str = ""
    """Further options of qsub, in one string, read by Grid Engine: `-P project -r y`."""

    def __post_init__(self) -> None:
        if not self.command:
            raise SubmissionError("the job has no command: name a program")
        if isinstance(self.args, str):
            raise SubmissionError("args is one string: give a tuple of strings")
        optional = (self.name, self.output, self.error, self.working_directory, self.queue, self.native)
        for text in (self.command, *self.args, *(text for text in optional if text is not None)):
            _check_printable(text)
        for name, value in self.resources.items():
            _check_word("resource", str(name), "_.-")
            _check_word(f"value for the resource {name}", str(value), "_.:/@+*?|&!()[]^-")
        if self.name is not None:
            _check_word("job name", self.name, "_.+-")
        if self.queue is not None:
            _check_word("queue", self.queue, "_.@*?,-")

    def attributes(self) -> dict[str, str | list[str]]:
        """The same in the words of the drmaa package."""
        try:
            directory = Path(self.working_directory or "").absolute()
        except OSError as error:
            raise SubmissionError(
                f"the current directory is gone ({error.strerror}): name a working directory"
            ) from None
        attributes: dict[str, str | list[str]] = {
            "remoteCommand": self.command,
            "args": list(self.args),
            "workingDirectory": str(directory),
            "nativeSpecification": self._native_specification(),
        }
        if self.name is not None:
            attributes["jobName"] = self.name
        for attribute, path in (("outputPath", self.output), ("errorPath", self.error)):
            if path is not None:
                # [HOST]:PATH. A path that begins with $HOME or the like is for Grid Engine to complete.
                attributes[attribute] = ":" + (path if path.startswith("$") else str(directory / path))
        return attributes

    def _native_specification(self) -> str:
        words = []
        if self.resources:
            words += ["-l", ",".join(f"{name}={value}" for name, value in self.resources.items())]
        if self.queue is not None:
            words += ["-q", self.queue]
        return " ".join([*words, self.native]).strip()


def _check_word(what: str, text: str, signs: str) -> None:
    # Grid Engine splits the native specification at blanks and quotes, and what follows -l at commas and equal signs.
    if not re.fullmatch(f"(?!-)[A-Za-z0-9{re.escape(signs)}]+", text):
        raise SubmissionError(f"{text!r} is no {what}: write it with letters, digits and the signs {signs} alone")


def _check_printable(text: object) -> None:
    if not isinstance(text, str):
        raise SubmissionError(f"{text!r} in the job template is no string: write str(...)")
    if re.search(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]", text):
        raise SubmissionError(f"{text!r} in the job template has a line break or another control character: remove it")


class Session:
    """A DRMAA session: what submits jobs and is told about them. Safe to use from several threads.

    `contact` takes up an earlier session, to ask about the jobs of that one. Jobs outlive their session. A call that
    takes longer than `time_limit` seconds is given up.

    Raises:
        SubmissionError: There is no Grid Engine, or no DRMAA library, to be found.
        GridUnavailableError: The qmaster does not answer.
    """

    def __init__(self, contact: str = "", *, time_limit: float = 30.0) -> None:
        self.contact = contact
        """What `Session(contact=...)` needs to come back to the jobs of this session."""
        self._time_limit = time_limit
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._agent: Agent | None = None
        self._closed = False
        self._agent = self._connected()

    def submit(self, template: JobTemplate) -> Job:
        return Job(self, self._call("submit", attributes=template.attributes()))

    def job(self, id: str) -> Job:  # noqa: A002 - DRMAA's word
        """A job that this session, or the one it took up, has submitted."""
        return Job(self, id)

    def close(self) -> None:
        """Sign off. The jobs go on."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._closed = True
            if self._agent is not None:
                self._agent.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, name: str, **arguments: object) -> Any:
        if os.getpid() != self._process:
            raise SubmissionError("this session belongs to the process that opened it: open a Session in this one")
        with self._lock:
            if self._closed:
                raise SubmissionError(f"this session is closed: Session(contact={self.contact!r}) comes back to it")
            self._agent = self._connected()
            return self._agent.call(name, **arguments)

    def _connected(self) -> Agent:
        if self._agent is not None:
            if self._agent.alive:
                return self._agent
            self._agent.kill()
        agent = Agent(self._time_limit)
        try:
            self.contact = agent.call("open", contact=self.contact)
        except BaseException:
            agent.kill()
            raise
        return agent


class Job:
    """A job of a session."""

    def __init__(self, session: Session, id: str) -> None:  # noqa: A002 - DRMAA's word
        self.id = id
        self._session = session

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def status(self) -> JobStatus:
        return _STATUS[self._call("status")]

    def wait(self, timeout: float | None = None) -> JobInfo:
        """Wait until the job has ended, and return how. Asking again gives the same answer.

        Raises:
            WaitTimeoutError: It has not ended within `timeout` seconds.
            JobLostError: Grid Engine does not tell this session how it ended.
        """
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        pause = _SHORTEST_PAUSE
        while (ended := self._call("wait")) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise WaitTimeoutError(f"job {self.id} has not ended within {timeout:g} s: it goes on, wait again")
            time.sleep(min(pause, left))
            pause = min(1.5 * pause, _LONGEST_PAUSE)
        usage = ended["usage"]
        return JobInfo(
            id=self.id,
            exit_status=ended["exit_status"] if ended["exited"] else None,
            signal=ended["signal"],
            aborted=ended["aborted"],
            # The first is OCS's, and exacter.
            wallclock=float(usage.get("wallclock") or usage.get("ru_wallclock") or 0),
            resource_usage=usage,
        )

    def hold(self) -> None:
        """Keep a queued job from starting."""
        self._call("control", action="hold")

    def release(self) -> None:
        self._call("control", action="release")

    def suspend(self) -> None:
        """Stop a running job for a while."""
        self._call("control", action="suspend")

    def resume(self) -> None:
        self._call("control", action="resume")

    def terminate(self) -> None:
        """Delete the job, as qdel does."""
        self._call("control", action="terminate")

    def _call(self, name: str, **arguments: object) -> Any:
        return self._session._call(name, job=self.id, **arguments)  # noqa: SLF001 - a job is a part of its session


# libdrmaa is told of a job's end; asking it costs no message to the qmaster, and nobody holds the lock while waiting.
_SHORTEST_PAUSE = 0.05
_LONGEST_PAUSE = 0.5

_STATUS = {
    "undetermined": JobStatus.UNDETERMINED,
    "queued_active": JobStatus.QUEUED,
    "system_on_hold": JobStatus.HELD,
    "user_on_hold": JobStatus.HELD,
    "user_system_on_hold": JobStatus.HELD,
    "running": JobStatus.RUNNING,
    "system_suspended": JobStatus.SUSPENDED,
    "user_suspended": JobStatus.SUSPENDED,
    "user_system_suspended": JobStatus.SUSPENDED,
    "done": JobStatus.DONE,
    "failed": JobStatus.FAILED,
}
