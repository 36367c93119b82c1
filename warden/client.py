"""The one door to Warden: hooks, sensors, commands and users come in here.

In a job that asked for `qpu`, nothing needs to be said:

    with QuantumResource() as qpu:
        counts = qpu.wait(qpu.task_start(sequence, shots=200))

`QuantumResource` has the names of QRMI's class and works for the job's session; `Client` speaks to the broker about
everything else. Importing this module loads neither Pulser nor NumPy.
"""

from __future__ import annotations

import operator
import os
import time
import uuid
from typing import TYPE_CHECKING, Any, Protocol, Self, SupportsIndex

import msgspec

from warden import bitstrings as packed
from warden import config as configuration
from warden import wire
from warden.connection import Connection
from warden.model import (
    SECOND,
    Availability,
    BadRequestError,
    Calibration,
    ConfigurationError,
    ConflictError,
    ForbiddenError,
    HostReport,
    NotFoundError,
    PastWindow,
    Plan,
    Quality,
    Session,
    State,
    Task,
    TaskCancelledError,
    TaskFailedError,
    TaskStatus,
    UnavailableError,
    WaitTimeoutError,
    Window,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from types import TracebackType

    from pulser.backend.results import Results

    from warden.config import Config

# The longest that one request waits at the broker for a task.
_POLL = 5 * SECOND
# Between two attempts of `wait` at a broker in trouble.
_PAUSE = 0.5
# Jobs that are named in one message, and how often a large sequence is sent before somebody is told.
_JOBS, _UPLOADS = 1000, 3
# How long `wait` bears a broker that is away: an acknowledged task outlives it.
_OUTAGE = 900.0


class Client:
    """A connection to the broker, as the user of this process. Not for several threads at once.

    Raises (all methods): UnavailableError if the broker does not answer within `timeout` seconds; otherwise the
    refusals of `warden.model` that the broker sends.
    """

    def __init__(self, *, config: Config | None = None, endpoint: str | None = None, timeout: float = 30.0) -> None:
        self._config = config if config is not None else configuration.load(configuration.default_path())
        self._connection = Connection(self._config, endpoint or self._config.client_endpoint, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    # --- what everybody may ask ---

    def availability(self) -> Availability:
        return self._connection.ask(wire.GetAvailability(), Availability, anonymous=True)

    def plan(self, count: int = 10) -> Plan:
        """The next windows, the one that is open now first."""
        return self._connection.ask(wire.GetPlan(count=count), Plan, anonymous=True)

    def history(self, limit: int = 50) -> list[PastWindow]:
        """Windows that were held or missed, newest first."""
        return self._connection.ask(wire.GetHistory(limit=limit), list[PastWindow], anonymous=True)

    def calibrations(self, limit: int = 50) -> list[Calibration]:
        """Those that were carried out, newest first."""
        return self._connection.ask(wire.GetCalibrations(limit=limit), list[Calibration], anonymous=True)

    def quality(self, since: int = 0, *, limit: int = 1000) -> list[Quality]:
        """How good the QPU was since then (microseconds, UTC), oldest first; nothing of a QPU that does not say."""
        body = wire.GetQuality(since=max(0, since), limit=limit)
        return self._connection.ask(body, list[Quality], anonymous=True)

    def target(self) -> str:
        """The device: Pulser's abstract representation, a JSON string."""
        return self._connection.ask(wire.GetTarget(), str, anonymous=True)

    # --- sessions ---

    def acquire(
        self, *, job: str, uid: int, host: str = "", start: str = "", queue: str = "", project: str = ""
    ) -> Session:
        """A session for a job of `uid`: new for the scheduler's hooks, the one that the job has for its owner.

        `start` names one start of the job: when the job is started again, it gets a new session, and the old one ends.

        Raises:
            BusyError: All places are taken, or the QPU is blocked.
        """
        return self._connection.ask(
            wire.Acquire(job=job, uid=uid, host=host, start=start, queue=queue, project=project), Session
        )

    def release(self, session: str, *, reason: str = "") -> Session:
        """End it; `reason`: what its user reads of it, from an operator."""
        return self._connection.ask(wire.Release(session=session, reason=reason), Session)

    def renew(
        self,
        *,
        host: str,
        jobs: tuple[str, ...],
        suspended: Collection[str] = (),
        candidate: bool = False,
        interval: int = 0,
        version: str = "",
        trouble: tuple[str, ...] = (),
    ) -> wire.Renewed:
        """The host still sees these jobs, the processes of those `suspended` among them stopped.

        The rest is of its load sensor, as `HostReport` has it.
        """
        parts = [jobs[n : n + _JOBS] for n in range(0, len(jobs), _JOBS)] or [()]
        answers = [
            self._connection.ask(
                wire.Renew(
                    host=host,
                    jobs=part,
                    suspended=tuple(job for job in part if job in suspended),
                    candidate=candidate,
                    interval=interval,
                    version=version,
                    time=max(0, time.time_ns() // 1000),
                    trouble=trouble,
                ),
                wire.Renewed,
            )
            for part in parts
        ]
        return wire.Renewed(sessions=sum(answer.sessions for answer in answers), reporter=answers[-1].reporter)

    def hosts(self) -> list[HostReport]:
        """The hosts whose load sensors the broker has heard since it came up, by name; for operators."""
        return self._connection.ask(wire.ListHosts(), list[HostReport])

    def sessions(
        self,
        *,
        everybody: bool = False,
        ended: bool = False,
        job: str | None = None,
        before: str | None = None,
        limit: int = 50,
    ) -> list[Session]:
        """Newest first; `before`: the last one of the page before."""
        body = wire.ListSessions(everybody=everybody, ended=ended, job=job, before=before, limit=limit)
        return self._connection.ask(body, list[Session])

    # --- tasks ---

    def task_start(
        self,
        session: str,
        sequence: str,
        shots: int,
        *,
        within: float | None = None,
        key: str | None = None,
        bitstrings: bool = False,
    ) -> Task:
        """Queue a task; when this returns, the task is on the broker's disk.

        `within`: the task fails if it is not done after so many seconds. `key`: the same key in the same session is the
        same task, so that a program that does not know whether its request was heard can repeat it. `bitstrings`: keep
        the shots in their order, too.

        Raises:
            BadRequestError: The sequence or the number of shots cannot be run on this QPU.
        """
        check_sequence(sequence, self._config.limits.sequence_bytes)
        body = wire.TaskStart(
            session=session,
            sequence=sequence,
            shots=check_shots(shots),
            key=key or str(uuid.uuid4()),
            within=None if within is None else max(1, round(within * SECOND)),
            bitstrings=bitstrings,
        )
        data = sequence.encode("utf-8", "surrogatepass")
        return self._connection.ask(body, Task) if len(data) <= wire.PART else self._start_large(body, data)

    def _start_large(self, body: wire.TaskStart, data: bytes) -> Task:
        """In parts; once more where the broker has lost some, because it was started again."""
        upload = str(uuid.uuid4())
        body = msgspec.structs.replace(body, sequence="", upload=upload)
        for attempt in range(_UPLOADS):
            try:
                for offset in range(0, len(data), wire.PART):
                    part = wire.Part(upload=upload, offset=offset, data=data[offset : offset + wire.PART])
                    self._connection.ask(part, int)
                return self._connection.ask(body, Task)
            except NotFoundError:
                if attempt + 1 == _UPLOADS:
                    raise
        raise AssertionError

    def task(self, number: int, *, wait: float = 0.0, timeout: float | None = None) -> Task:
        """The task; with `wait`, as soon as it is final, at the latest after so many seconds.

        `timeout`: bear a broker that does not answer for so many seconds only, instead of the client's own timeout.
        """
        pause = min(round(wait * SECOND), _POLL)
        return self._connection.ask(
            wire.GetTask(task=number, wait=pause), Task, patience=pause / SECOND, timeout=timeout
        )

    def task_stop(self, number: int) -> Task:
        return self._connection.ask(wire.TaskStop(task=number), Task)

    def bitstrings(self, number: int) -> list[str]:
        """The shots of a completed task in the order in which they were taken, if they were kept.

        Raises:
            ConflictError: They were not asked for with the task, or it is not completed.
        """
        found: list[str] = []
        while True:
            page = self._connection.ask(wire.GetBitstrings(task=number, first=len(found)), wire.Bitstrings)
            found += packed.unpack(page.data, page.qubits)
            if len(found) >= page.total or not page.data:
                return found

    def tasks(
        self, *, everybody: bool = False, session: str | None = None, before: int | None = None, limit: int = 50
    ) -> list[Task]:
        """Newest first; `before`: the last one of the page before."""
        body = wire.ListTasks(everybody=everybody, session=session, before=before, limit=limit)
        return self._connection.ask(body, list[Task])

    # --- operators ---

    def add_window(
        self, kind: State, *, start: int | None = None, duration: int | None = None, reason: str = ""
    ) -> Window:
        """Block the QPU; times in microseconds. No start: now. No duration (maintenance only): until `resume`."""
        return self._connection.ask(wire.AddWindow(kind=kind, start=start, duration=duration, reason=reason), Window)

    def move_window(self, window: int, *, start: int, duration: int | None = None) -> Window:
        """Have an operator's window begin at another time; without a duration it lasts as long as before."""
        return self._connection.ask(wire.MoveWindow(window=window, start=start, duration=duration), Window)

    def cancel_window(self, window: int) -> Window:
        return self._connection.ask(wire.CancelWindow(window=window), Window)

    def resume(self) -> Availability:
        return self._connection.ask(wire.Resume(), Availability)


class Sequence(Protocol):
    """A `pulser.Sequence`, or anything else that can be written as one."""

    def to_abstract_repr(self) -> str: ...


class QuantumResource:
    """The QPU of this job, under the names of QRMI's QuantumResource.

    Everything is found in the job's environment; the arguments are for tests and for other schedulers. Outside of a job
    that was granted a QPU it tells what the QPU is (`target`, `metadata`, `status`), and what needs a session raises
    ForbiddenError.
    """

    def __init__(
        self, *, client: Client | None = None, session: str | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._environment = os.environ if environment is None else environment
        self._session = session or self._environment.get("WARDEN_SESSION", "")
        self._client = client or Client(endpoint=self._environment.get("WARDEN_ENDPOINT"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection; the session goes on until the job ends."""
        self._client.close()

    def acquire(self) -> str:
        """The job's session (its acquisition token): the prolog has acquired it, the job finds it again."""
        job = self._environment.get("QRMI_JOB_ID", "")
        if not job:
            raise ForbiddenError("this is no job that was granted a QPU: submit it with `qsub -l qpu=1`")
        self._session = self._client.acquire(job=job, uid=os.getuid()).id
        return self._session

    def release(self, token: str | None = None) -> None:
        """Give the session back before the job ends."""
        self._client.release(token or self._granted())

    def task_start(
        self,
        sequence: str | Sequence,
        shots: int,
        *,
        within: float | None = None,
        key: str | None = None,
        bitstrings: bool = False,
    ) -> str:
        """Queue a sequence (a `pulser.Sequence`, or its abstract representation) and return the task's id.

        `within`, `key` and `bitstrings` as in `Client.task_start`.
        """
        if not isinstance(sequence, str) and not hasattr(sequence, "to_abstract_repr"):
            raise BadRequestError(f"a sequence is a pulser.Sequence or its JSON text, not {type(sequence).__name__}")
        text = sequence if isinstance(sequence, str) else sequence.to_abstract_repr()
        session = self._granted()
        return str(self._client.task_start(session, text, shots, within=within, key=key, bitstrings=bitstrings).id)

    def task_status(self, task_id: str) -> TaskStatus:
        return self._task(task_id).status

    def task_result(self, task_id: str) -> dict[str, int]:
        """Counts: bitstring to number of shots, atoms in the order of the register.

        Raises:
            ConflictError: The task has not ended yet.
            TaskFailedError, TaskCancelledError: It ended without a result.
        """
        return _result(self._task(task_id))

    def task_bitstrings(self, task_id: str) -> list[str]:
        """The shots in the order in which they were taken, of a task that was started with `bitstrings=True`."""
        return self._client.bitstrings(task_number(task_id))

    def task_metadata(self, task_id: str) -> dict[str, Any]:
        """What is told of the result: device, emulator, software, order of the atoms, calibration and its age."""
        return self._task(task_id).metadata

    def task_pulser_results(self, task_id: str) -> Results:
        """The result as Pulser's own backends return it: `pulser.backend.results.Results`."""
        return pulser_results(self._task(task_id))

    def task_logs(self, task_id: str) -> str:
        return "\n".join(self._task(task_id).log)

    def task_stop(self, task_id: str) -> None:
        """Stop it, whether it waits or runs; a task that has ended stays as it is."""
        self._client.task_stop(task_number(task_id))

    def target(self) -> str:
        """The device, for `pulser.json.abstract_repr.deserializer.deserialize_device`: a JSON string."""
        return self._client.target()

    def metadata(self) -> dict[str, str]:
        """Name and type of the resource, as strings."""
        answer = self._client.availability()
        return {"name": answer.name, "type": "pasqal-local", "max_qubits": str(answer.qubits)}

    def is_accessible(self) -> bool:
        """Whether the QPU takes tasks; during a calibration they wait for its end."""
        return self._client.availability().accessible

    def status(self) -> State:
        return self._client.availability().state

    def wait(
        self, task_id: str, timeout: float | None = None, *, watch: Callable[[Task], None] | None = None
    ) -> dict[str, int]:
        """Wait for the counts of a task. A broker that is restarted meanwhile is waited for.

        `watch` is called with the task each time that it is heard of, for a display of progress.

        Raises:
            TaskFailedError, TaskCancelledError: It ended without a result; the text says why.
            WaitTimeoutError: It has not ended within `timeout` seconds; it goes on, wait again.
        """
        number = task_number(task_id)
        end = None if timeout is None else time.monotonic() + timeout
        heard = time.monotonic()
        while True:
            left = _POLL / SECOND if end is None else end - time.monotonic()
            try:
                pause = max(0.0, min(left, 1.0 if watch else left))
                task = self._client.task(number, wait=pause, timeout=None if end is None else max(left, 1.0))
                heard = time.monotonic()
            except UnavailableError as error:
                if end is not None and time.monotonic() >= end:
                    raise WaitTimeoutError(
                        f"nothing was heard of task {number} in {timeout:g} s: {error.text}"
                    ) from None
                if time.monotonic() - heard > _OUTAGE:
                    raise
                # It may have said so at once: a broker whose disk is full, or a host without munged.
                time.sleep(_PAUSE)
                continue
            if watch is not None:
                watch(task)
            if task.status.final:
                return _result(task)
            if end is not None and time.monotonic() >= end:
                raise WaitTimeoutError(f"task {number} is still {task.status} after {timeout:g} s")

    def _task(self, task_id: str) -> Task:
        return self._client.task(task_number(task_id))

    def _granted(self) -> str:
        if not self._session:
            raise ForbiddenError("this is no job that was granted a QPU: submit it with `qsub -l qpu=1`")
        return self._session


def check_sequence(sequence: str, largest: int) -> None:
    """Whether it is worth sending.

    Raises:
        BadRequestError: It has more than `largest` bytes.
    """
    if len(sequence.encode("utf-8", "replace")) > largest:
        raise BadRequestError(f"the sequence is larger than {largest} bytes, the most that this QPU takes")


def check_shots(shots: object) -> int:
    """Shots as a whole number of at least 1; the broker knows the most.

    Raises:
        BadRequestError: They are something else.
    """
    # Whatever counts as a whole number, NumPy's included.
    number = operator.index(shots) if isinstance(shots, SupportsIndex) and not isinstance(shots, bool) else 0
    if not 1 <= number < 2**31:
        raise BadRequestError(f"shots must be a whole number of at least 1, not {shots!r:.50}")
    return number


def task_number(task_id: str | int) -> int:
    """The broker's number of a task from its id.

    Raises:
        BadRequestError: It is none.
    """
    if isinstance(task_id, int) and not isinstance(task_id, bool) and 0 <= task_id < 2**63:
        return task_id
    if not isinstance(task_id, str) or not task_id.isascii() or not task_id.isdigit() or len(task_id) > 10:  # noqa: PLR2004 - digits of 2^31
        raise BadRequestError(f"{task_id!r} is no task: ids are numbers, see `qpu tasks`")
    return int(task_id)


def pulser_results(task: Task) -> Results:
    """The result of a task as an object of Pulser's, which has to be installed here.

    Raises:
        ConflictError, TaskFailedError, TaskCancelledError: It has no result.
        ConfigurationError: Pulser is not installed.
    """
    try:
        from pulser.backend.results import Results  # noqa: PLC0415 - seconds, and not everybody has it
    except ImportError:
        raise ConfigurationError("Pulser is not installed for this Python: install pulser-core") from None
    return Results.from_final_bitstrings(
        atom_order=task.metadata.get("atom_order") or [f"q{number}" for number in range(task.qubits)],
        total_duration=task.metadata.get("total_duration", 0),
        final_bitstrings=_result(task),
    )


def _result(task: Task) -> dict[str, int]:
    match task.status:
        case TaskStatus.COMPLETED:
            return task.counts
        case TaskStatus.FAILED:
            raise TaskFailedError(f"task {task.id} failed: {task.error}")
        case TaskStatus.CANCELLED:
            raise TaskCancelledError(f"task {task.id} was cancelled: {task.error}")
        case _:
            raise ConflictError(f"task {task.id} is {task.status}: it has no result yet, wait for it")
