"""The one door to Warden: hooks, sensors, commands and users come in here.

In a job that asked for `qpu`, nothing needs to be said:

    with QuantumResource() as qpu:
        counts = qpu.wait(qpu.task_start(sequence, shots=200))

`QuantumResource` has the names of QRMI's class and works for the job's session; `Client` speaks to the broker about
everything else. Importing this module loads neither Pulser nor NumPy.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Protocol, Self

from warden.model import (
    SECOND,
    BadRequestError,
    ConfigurationError,
    ConflictError,
    ForbiddenError,
    State,
    Task,
    TaskCancelledError,
    TaskFailedError,
    TaskStatus,
    UnavailableError,
    WaitTimeoutError,
)
from warden.requests import POLL, Client, check_sequence, check_shots

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from pulser.backend.results import Results

__all__ = ["Client", "QuantumResource", "check_sequence", "check_shots", "pulser_results", "task_number"]

# Between two attempts of `wait` at a broker in trouble.
_PAUSE = 0.5
# How long `wait` bears a broker that is away: an acknowledged task outlives it.
_OUTAGE = 900.0


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
            left = POLL / SECOND if end is None else end - time.monotonic()
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
