"""All that may be asked of the broker, a method for each request. `client` is the door to it.

Importing this module loads neither Pulser nor NumPy.
"""

from __future__ import annotations

import operator
import time
import uuid
from typing import TYPE_CHECKING, Self, SupportsIndex

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
    HostReport,
    NotFoundError,
    PastWindow,
    Plan,
    Quality,
    Session,
    State,
    Task,
    Window,
)

if TYPE_CHECKING:
    from collections.abc import Collection
    from types import TracebackType

    from warden.config import Config

# The longest that one request waits at the broker for a task.
POLL = 5 * SECOND
# Jobs that are named in one message, and how often a large sequence is sent before somebody is told.
_JOBS, _UPLOADS = 1000, 3


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
        pause = min(round(wait * SECOND), POLL)
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
