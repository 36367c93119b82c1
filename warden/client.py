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
from typing import TYPE_CHECKING, Any, Protocol, Self, SupportsIndex, TypeVar

import zmq

from warden import config as configuration
from warden import trust, wire
from warden.model import (
    SECOND,
    Availability,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    ForbiddenError,
    Session,
    State,
    Task,
    TaskCancelledError,
    TaskFailedError,
    TaskStatus,
    UnauthenticatedError,
    UnavailableError,
    WaitTimeoutError,
    Window,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from warden.config import Config

# A request without an answer is sent again on a new connection; every request may be repeated.
_AGAIN = 3.0
# The longest that one request waits at the broker for a task.
_POLL = 5 * SECOND
# Between two attempts of `wait` at a broker in trouble.
_PAUSE = 0.5
# How long `wait` bears a broker that is away: an acknowledged task outlives it.
_OUTAGE = 900.0

T = TypeVar("T")


class Client:
    """A connection to the broker, as the user of this process. Not for several threads at once.

    Raises (all methods): UnavailableError if the broker does not answer within `timeout` seconds; otherwise the
    refusals of `warden.model` that the broker sends.
    """

    def __init__(self, *, config: Config | None = None, endpoint: str | None = None, timeout: float = 30.0) -> None:
        self._config = config if config is not None else configuration.load(configuration.default_path())
        self._endpoint = endpoint or self._config.client_endpoint
        self._broker_key = trust.public_key(self._config.broker_key)
        self._timeout = timeout
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        self._public = b""
        self._known = False
        self._correlation = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._context.destroy(linger=0)

    # --- what everybody may ask ---

    def availability(self) -> Availability:
        return self._ask(wire.GetAvailability(), Availability, anonymous=True)

    def plan(self, count: int = 10) -> list[Window]:
        """The next windows, the one that is open now first."""
        return self._ask(wire.GetPlan(count=count), list[Window], anonymous=True)

    def target(self) -> str:
        """The device: Pulser's abstract representation, a JSON string."""
        return self._ask(wire.GetTarget(), str, anonymous=True)

    # --- sessions ---

    def acquire(self, *, job: str, uid: int, host: str = "") -> Session:
        """A session for a job of `uid`: new for the scheduler's hooks, the one that the job has for its owner.

        Raises:
            BusyError: All places are taken, or the QPU is blocked.
        """
        return self._ask(wire.Acquire(job=job, uid=uid, host=host), Session)

    def release(self, session: str) -> Session:
        return self._ask(wire.Release(session=session), Session)

    def renew(self, *, host: str, jobs: tuple[str, ...]) -> int:
        """The host still sees these jobs; returns how many sessions that renewed."""
        return self._ask(wire.Renew(host=host, jobs=jobs), int)

    def sessions(
        self, *, everybody: bool = False, ended: bool = False, job: str | None = None, limit: int = 50
    ) -> list[Session]:
        return self._ask(wire.ListSessions(everybody=everybody, ended=ended, job=job, limit=limit), list[Session])

    # --- tasks ---

    def task_start(self, session: str, sequence: str, shots: int) -> Task:
        """Queue a task; when this returns, the task is on the broker's disk.

        Raises:
            BadRequestError: The sequence or the number of shots cannot be run on this QPU.
        """
        limit = self._config.limits.sequence_bytes
        if len(sequence.encode("utf-8", "replace")) > limit:
            raise BadRequestError(f"the sequence is larger than {limit} bytes, the most that this QPU takes")
        return self._ask(
            wire.TaskStart(session=session, sequence=sequence, shots=check_shots(shots), key=str(uuid.uuid4())), Task
        )

    def task(self, number: int, *, wait: float = 0.0, timeout: float | None = None) -> Task:
        """The task; with `wait`, as soon as it is final, at the latest after so many seconds.

        `timeout`: bear a broker that does not answer for so many seconds only, instead of the client's own timeout.
        """
        pause = min(round(wait * SECOND), _POLL)
        return self._ask(wire.GetTask(task=number, wait=pause), Task, patience=pause / SECOND, timeout=timeout)

    def task_stop(self, number: int) -> Task:
        return self._ask(wire.TaskStop(task=number), Task)

    def tasks(self, *, everybody: bool = False, session: str | None = None, limit: int = 50) -> list[Task]:
        """Newest first."""
        return self._ask(wire.ListTasks(everybody=everybody, session=session, limit=limit), list[Task])

    # --- operators ---

    def add_window(
        self, kind: State, *, start: int | None = None, duration: int | None = None, reason: str = ""
    ) -> Window:
        """Block the QPU; times in microseconds. No start: now. No duration (maintenance only): until `resume`."""
        return self._ask(wire.AddWindow(kind=kind, start=start, duration=duration, reason=reason), Window)

    def cancel_window(self, start: int) -> Window:
        return self._ask(wire.CancelWindow(start=start), Window)

    def resume(self) -> Availability:
        return self._ask(wire.Resume(), Availability)

    # --- the connection ---

    def _ask(
        self,
        body: wire.Message,
        kind: type[T],
        *,
        anonymous: bool = False,
        patience: float = 0.0,
        timeout: float | None = None,
    ) -> T:
        end = time.monotonic() + (self._timeout if timeout is None else min(timeout, self._timeout)) + patience
        while (left := end - time.monotonic()) > 0:
            known = self._known
            try:
                if not anonymous and not known:
                    self._exchange(self._hello(), min(left, _AGAIN))
                    self._known = True
                return wire.convert(self._exchange(body, min(left, patience + _AGAIN)), kind)
            except UnauthenticatedError:
                # A broker that was restarted knows nobody; one that has just met us means it.
                if not known:
                    raise
                self._known = False
            except _SilenceError:
                self._disconnect()
        raise UnavailableError(
            f"Warden at {self._endpoint} does not answer: is the broker running, and is {self._config.broker_key} its key?"
        )

    def _hello(self) -> wire.Hello:
        self._connected()
        return wire.Hello(credential=trust.prove(self._public, self._broker_key, self._config.access.munge_socket))

    def _exchange(self, body: wire.Message, patience: float) -> Any:
        connection = self._connected()
        self._correlation += 1
        connection.send(wire.pack_request(self._correlation, body))
        end = time.monotonic() + patience
        while connection.poll(max(0, round((end - time.monotonic()) * 1000))):
            correlation, result = wire.unpack_answer(connection.recv())
            # Answers to what we gave up earlier may still come.
            if correlation == self._correlation:
                if isinstance(result, Exception):
                    raise result
                return result
        raise _SilenceError

    def _connected(self) -> zmq.Socket[bytes]:
        if self._socket is None:
            connection = self._context.socket(zmq.DEALER)
            self._public, secret = zmq.curve_keypair()
            connection.curve_publickey, connection.curve_secretkey = self._public, secret
            connection.curve_serverkey = self._broker_key
            connection.linger = 0
            try:
                connection.connect(self._endpoint)
            except zmq.ZMQError as error:
                raise ConfigurationError(f"{self._endpoint!r} is no address of a broker: {error.strerror}") from None
            self._socket = connection
        return self._socket

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
        self._socket, self._known = None, False


class Sequence(Protocol):
    """A `pulser.Sequence`, or anything else that can be written as one."""

    def to_abstract_repr(self) -> str: ...


class QuantumResource:
    """The QPU of this job, under the names of QRMI's QuantumResource.

    Everything is found in the job's environment; the arguments are for tests and for other schedulers.

    Raises (on construction): ForbiddenError outside a job that was granted a QPU.
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

    def task_start(self, sequence: str | Sequence, shots: int) -> str:
        """Queue a sequence (a `pulser.Sequence`, or its abstract representation) and return the task's id."""
        if not isinstance(sequence, str) and not hasattr(sequence, "to_abstract_repr"):
            raise BadRequestError(f"a sequence is a pulser.Sequence or its JSON text, not {type(sequence).__name__}")
        text = sequence if isinstance(sequence, str) else sequence.to_abstract_repr()
        return str(self._client.task_start(self._granted(), text, shots).id)

    def task_status(self, task_id: str) -> TaskStatus:
        return self._task(task_id).status

    def task_result(self, task_id: str) -> dict[str, int]:
        """Counts: bitstring to number of shots, atoms in the order of the register.

        Raises:
            ConflictError: The task has not ended yet.
            TaskFailedError, TaskCancelledError: It ended without a result.
        """
        return _result(self._task(task_id))

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
        """Whether the QPU takes tasks now."""
        return self._client.availability().state is State.READY

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


def task_number(task_id: str) -> int:
    """The broker's number of a task from its id.

    Raises:
        BadRequestError: It is none.
    """
    if not isinstance(task_id, str) or not task_id.isascii() or not task_id.isdigit() or len(task_id) > 10:  # noqa: PLR2004 - digits of 2^31
        raise BadRequestError(f"{task_id!r} is no task: ids are numbers, see `qpu tasks`")
    return int(task_id)


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


class _SilenceError(Exception):
    """No answer on this connection; not for users."""
