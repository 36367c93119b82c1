"""Jobs from Python: submitted, waited for, controlled and accounted for through DRMAA.

    with Session() as grid:
        job = grid.submit(JobTemplate(command="qpu", args=("run", "afm.json", "--shots", "200"), resources={"qpu": 1}))
        print(job.id, job.wait().exit_status)

        jobs = grid.submit_array(JobTemplate(command="scan.sh", script=True), 1, 100)
        for info in grid.completed(jobs):
            print(info.id, info.exit_status)

libdrmaa lives in a process of its own (`drmaa_agent`): Debian's loads only where the environment was prepared before
the process started, libdrmaa can hang, and neither is to be the trouble of the user's process. When that process is
lost, the next call starts another, which takes up the same DRMAA session by its contact. Where DRMAA has forgotten a
job, qstat and qacct are asked (`waiting`).
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from gridengine import commands, job_info, job_script
from gridengine.drmaa_process import (
    Agent,
    GridUnavailableError,
    JobLostError,
    SubmissionError,
    WaitTimeoutError,
)
from gridengine.job_info import JobInfo, JobStatus
from gridengine.waiting import Books, Collected, Progress, Waiter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

__all__ = [
    "GridUnavailableError",
    "Job",
    "JobInfo",
    "JobLostError",
    "JobStatus",
    "JobTemplate",
    "Progress",
    "Session",
    "SubmissionError",
    "WaitTimeoutError",
]


class JobTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """What to run and what it needs.

    Raises:
        SubmissionError: A field holds what Grid Engine could not take, or would take for something else.
    """

    command: str
    """A program: a path, or a name that is on the PATH of jobs. No shell reads it. Or, see `script`, a job script."""
    args: tuple[str, ...] = ()
    script: bool = False
    """Whether the command is a job script, which Grid Engine copies, and whose `#$` lines it reads as qsub does. What this
    template says goes before what they say."""
    resources: Mapping[str, str | int] = {}
    """What `-l` asks for: `{"qpu": 1, "h_rt": "0:10:00"}`."""
    name: str | None = None
    output: str | None = None
    """The file for the job's stdout; a relative path starts at the working directory. None: NAME.oID there. The tasks of
    an array need `$TASK_ID` in it."""
    error: str | None = None
    """As `output`. None: NAME.eID."""
    working_directory: str | None = None
    """None: what the job script says, or else the current directory of the process that submits."""
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
        if job_script.value_of("-t", job_script.split(self.native)) is not None:
            raise SubmissionError("DRMAA takes no -t in the native options: submit an array with submit_array")

    def attributes(self) -> dict[str, str | list[str]]:
        """The same in the words of the drmaa package."""
        try:
            directory = Path(self.working_directory or "").absolute()
        except OSError as error:
            raise SubmissionError(
                f"the current directory is gone ({error.strerror}): name a working directory"
            ) from None
        attributes: dict[str, str | list[str]] = {
            "remoteCommand": str(Path(self.command).absolute()) if self.script else self.command,
            "args": list(self.args),
            "nativeSpecification": self._native_specification(),
        }
        if self.working_directory is not None or not _names_directory(self.script_options()):
            attributes["workingDirectory"] = str(directory)
        if self.name is not None:
            attributes["jobName"] = self.name
        for attribute, path in (("outputPath", self.output), ("errorPath", self.error)):
            if path is not None:
                # [HOST]:PATH. A path that begins with $HOME or the like is for Grid Engine to complete.
                attributes[attribute] = ":" + (path if path.startswith("$") else str(directory / path))
        return attributes

    def script_options(self) -> list[str]:
        """Read the options in the `#$` lines of the job script, if it is one.

        Raises:
            SubmissionError: The script cannot be read.
        """
        return job_script.options(Path(self.command)) if self.script else []

    def _native_specification(self) -> str:
        words = ["-b", "n"] if self.script else []
        if self.resources:
            words += ["-l", ",".join(f"{name}={value}" for name, value in self.resources.items())]
        if self.queue is not None:
            words += ["-q", self.queue]
        return " ".join([*words, self.native]).strip()


def _names_directory(options: list[str]) -> bool:
    return "-cwd" in options or "-wd" in options


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
        self._books = Books()
        # DRMAA tells once how a job ended, and the agent may be lost that was told.
        self._ended: dict[str, JobInfo] = {}
        self._terminated: set[str] = set()

    def submit(self, template: JobTemplate) -> Job:
        """Submit one job.

        Raises:
            SubmissionError: Grid Engine refuses it.
        """
        if job_script.value_of("-t", template.script_options()) is not None:
            raise SubmissionError(
                f"{template.command} asks for an array (-t), which DRMAA does not see: use submit_array"
            )
        return Job(self, self._call("submit", attributes=template.attributes()))

    def submit_array(self, template: JobTemplate, first: int, last: int, step: int = 1) -> list[Job]:
        """Submit an array, whose tasks are jobs with ids such as 12.1, 12.3. Each finds its number as SGE_TASK_ID.

        Raises:
            SubmissionError: There are no such tasks, or Grid Engine refuses them.
        """
        tasks = job_script.Tasks(first, last, step)
        answer = self._call("submit_array", attributes=template.attributes(), **msgspec.structs.asdict(tasks))
        return [Job(self, task) for task in answer]

    def job(self, id: str) -> Job:  # noqa: A002 - DRMAA's word
        """A job of yours by its number, whoever submitted it; a task of an array is JOB.TASK."""
        return Job(self, id)

    def completed(
        self,
        jobs: Iterable[Job],
        timeout: float | None = None,
        watch: Callable[[Progress], None] | None = None,
    ) -> Iterator[JobInfo]:
        """Wait for all these jobs, and yield how each ended, as they end. Thousands of jobs take no more than one thread.

        `watch` is called once a second or so with how far they have come. A qmaster that is restarted meanwhile makes this
        wait longer; where DRMAA has forgotten a job, Grid Engine's accounting tells how it ended.

        Raises:
            WaitTimeoutError: Some have not ended within `timeout` seconds.
            JobLostError: Nobody tells how some ended; all others have been told before.
            GridUnavailableError: Grid Engine has not answered for ten minutes, or not until the timeout.
        """
        ids = [job.id for job in jobs]
        waiter = Waiter(ids, self._books, collect=self._collect, renew=self._renew, watch=watch)
        for info in waiter.completed(timeout):
            self._ended[info.id] = info
            yield info

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

    def _collect(self, ids: list[str]) -> Collected:
        known = {job: self._ended[job] for job in ids if job in self._ended}
        asked = [job for job in ids if job not in known]
        answer = self._call("collect", jobs=asked) if asked else {"ended": {}, "unknown": []}
        told = {job: job_info.told_by_drmaa(job, ended) for job, ended in answer["ended"].items()}
        # Without a trace, although nobody here has deleted it.
        doubtful = {job for job, info in told.items() if not info.resource_usage and job not in self._terminated}
        return Collected(
            known | {job: info for job, info in told.items() if job not in doubtful},
            frozenset(answer["unknown"]),
            {job: told[job] for job in doubtful},
        )

    def _renew(self) -> None:
        """Have the next call begin anew with libdrmaa: this one has seen the qmaster restart, and hears nothing."""
        with self._lock:
            if self._agent is not None:
                self._agent.kill()

    def _status(self, id: str) -> JobStatus:  # noqa: A002 - DRMAA's word
        if id in self._ended:
            return _ended_as(self._ended[id])
        try:
            return _STATUS[self._call("status", job=id)]
        except JobLostError as lost:
            try:
                letters = self._books.live(_SHARED).get(id)
                ended = self._books.ended([id.partition(".")[0]]).get(id) if letters is None else None
            except commands.UnreachableError as error:
                raise GridUnavailableError(error.text) from None
            except commands.GridEngineError:
                raise lost from None
            if letters is not None:
                return job_info.status_of(letters)
            if ended is None:
                raise
            return _ended_as(ended)

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


def _ended_as(info: JobInfo) -> JobStatus:
    return JobStatus.FAILED if info.exit_status is None else JobStatus.DONE


class Job:
    """A job of a session, or a task of an array."""

    def __init__(self, session: Session, id: str) -> None:  # noqa: A002 - DRMAA's word
        self.id = id
        self._session = session

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def status(self) -> JobStatus:
        """Ask the qmaster. Of many jobs, `Session.completed` costs it less.

        Raises:
            JobLostError: Grid Engine knows of no such job.
        """
        return self._session._status(self.id)  # noqa: SLF001 - a job is a part of its session

    def wait(self, timeout: float | None = None) -> JobInfo:
        """Wait until the job has ended, and return how. Asking again gives the same answer.

        Raises:
            WaitTimeoutError: It has not ended within `timeout` seconds.
            JobLostError: Nobody tells how it ended.
            GridUnavailableError: Grid Engine has not answered for ten minutes, or not until the timeout.
        """
        return next(self._session.completed([self], timeout))

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
        self._session._terminated.add(self.id)  # noqa: SLF001

    def _call(self, name: str, **arguments: object) -> Any:
        return self._session._call(name, job=self.id, **arguments)  # noqa: SLF001 - a job is a part of its session


# Threads that ask at the same time share qstat's answer.
_SHARED = 0.5

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
