"""The words of the domain: Session, Task, Window, Availability and the errors. Nothing else knows more than these.

Times are integers: microseconds since the Unix epoch, UTC (`Micros`). Integers, because two processes have to agree
about a window to the microsecond, and floats of today's epoch do not hold microseconds through arithmetic.
"""

from __future__ import annotations

import datetime as dt
import enum
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

Micros = int

SECOND: Micros = 1_000_000
# As far ahead as anybody is told about windows; `qpu_window` never reports more.
HORIZON: Micros = 7 * 24 * 3600 * SECOND


def clock(time: Micros) -> str:
    """UTC, to the second, as logs and people write it."""
    return dt.datetime.fromtimestamp(time // SECOND, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def learn(*kinds: type) -> None:
    """Have msgspec prepare itself to read these structures, as a module that declares them does when it is imported.

    Else it does so when it first reads one, and a process in which two threads do that at the same time may crash: what
    is half prepared counts as prepared (msgspec 0.22).
    """
    for kind in kinds:
        msgspec.json.Decoder(kind)


def brief(token: str) -> str:
    """What a log calls a session or a run: enough to tell it from others, too little to pass for it."""
    return token[:8]


def short_host(name: str) -> str:
    """What the scheduler calls a host and what it calls itself may differ by a domain."""
    return name.partition(".")[0].lower()


def few(names: Iterable[object], most: int = 10) -> str:
    """As many as people want to read, and whether there are more."""
    listed = list(dict.fromkeys(map(str, names)))
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")


def one_line(text: str) -> str:
    """Make text that others chose fit for a terminal: no line breaks, no control characters."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


class State(enum.StrEnum):
    """What the QPU is doing, in the words of `qpu_state`."""

    READY = "ready"
    CALIBRATING = "calibrating"
    MAINTENANCE = "maintenance"
    OFFLINE = "offline"


class TaskStatus(enum.StrEnum):
    """QRMI's words for the life of a task."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in {TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED}


class Window(msgspec.Struct, frozen=True):
    """[start, end) in which the QPU takes no task. `end` is None while nobody knows it (a drain without an end)."""

    start: Micros
    end: Micros | None
    kind: State
    reason: str = ""
    id: int = 0
    """By which an operator names a window of his; 0 where a rule made it, or several were joined."""

    def covers(self, time: Micros) -> bool:
        return self.start <= time and (self.end is None or time < self.end)


class Outcome(enum.StrEnum):
    """What became of a planned window."""

    HELD = "held"
    MISSED = "missed"


class PastWindow(msgspec.Struct, frozen=True):
    """A window that was opened (held), or one that passed while no broker was there to open it (missed).

    Windows of one rule that were missed in a row are one record: `window` spans them, `count` says how many.
    """

    window: Window
    outcome: Outcome
    count: int = 1
    remark: str = ""
    """What became of the calibration that it was for."""


class Plan(msgspec.Struct, frozen=True):
    """What is ahead: `windows` with what overlaps or touches joined, and those among them that operators `added`."""

    windows: tuple[Window, ...]
    added: tuple[Window, ...] = ()


class Availability(msgspec.Struct, frozen=True, kw_only=True):
    """What the QPU offers now: the answer that sensors, hooks and people decide by."""

    name: str
    state: State
    reason: str
    until: Micros | None
    """When the state is expected to end, if anybody knows."""
    places: int
    """Sessions that the QPU takes at the same time; its capacity, whatever the state."""
    used: int
    """Sessions that are open now."""
    queued: int
    """Tasks that wait."""
    next_window: Window | None
    qubits: int
    time: Micros
    """The broker's clock when it answered."""
    setup: Micros = 0
    """What a run of the largest register takes before its first shot ..."""
    shot: Micros = 0
    """... and for each of its shots."""
    quality: float | None = None
    """How good the QPU is now, from 0 to 1; None where nobody says."""
    calibration: int = 0
    """The calibration in force, 0 without any ..."""
    calibrated: Micros | None = None
    """... and when it ended."""

    @property
    def accessible(self) -> bool:
        """In QRMI's sense: whether a task that is sent now will be run without anybody's doing.

        QRMI's clients end with an error where this is false, and a running job must not fail by a calibration.
        """
        return self.state in {State.READY, State.CALIBRATING}

    @property
    def open_places(self) -> int:
        """Places that a scheduler may count on: all of them, or none while the QPU is blocked."""
        return self.places if self.state is State.READY else 0

    def seconds_to_window(self) -> int:
        """Whole seconds until the next block: 0 inside one, at most HORIZON."""
        if self.state is not State.READY:
            return 0
        ahead = HORIZON if self.next_window is None else self.next_window.start - self.time
        return max(0, min(ahead, HORIZON)) // SECOND


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """What `acquire` gives a job, until `release` or the end of its lease.

    `job` is opaque to Warden: it names one job of the scheduler in front, and `start` one start of this job: the same
    start gets the same session. Classes of priority are chosen by user, `queue` and `project`.
    """

    id: str
    uid: int
    job: str
    host: str
    start: str = ""
    queue: str = ""
    project: str = ""
    acquired: Micros
    expires: Micros
    seen: Micros = 0
    """When the scheduler's side (prolog or load sensor) last vouched for the job: use alone renews only so long."""
    suspended: str = ""
    """The host that sees the job's processes stopped, if one does: then no new run of its tasks is started."""
    starts: int = 0
    """How often the broker has come up since then: only a few times it takes that for a reason to wait for a sign."""
    ended: Micros | None = None
    end_reason: str = ""
    tasks: int = 0
    shots: int = 0
    qpu_time: Micros = 0
    wait_time: Micros = 0
    max_shots: int | None = None
    max_qpu_time: Micros | None = None

    @property
    def time_left(self) -> Micros | None:
        """Of the QPU's time that it may use."""
        return None if self.max_qpu_time is None else max(0, self.max_qpu_time - self.qpu_time)


class HostReport(msgspec.Struct, frozen=True, kw_only=True):
    """An execution host, as its load sensor last described it."""

    host: str
    seen: Micros
    """When that was, by the broker's clock."""
    version: str
    """Of the kit."""
    interval: Micros
    """Between the scheduler's last requests for load values; 0 while that is not known."""
    ahead: Micros
    """By how much the host's clock is ahead of the broker's."""
    trouble: tuple[str, ...] = ()
    """What the host lacks, a line each."""
    candidate: bool = False
    """Whether it may be the one that reports the QPU to the scheduler."""
    reporter: bool = False
    """Whether it is."""


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What a calibration of the QPU found, and what the QPU is run with since."""

    id: int
    """1, 2, 3, ... in the order of time."""
    time: Micros
    """When it ended: its age counts from then."""
    duration: Micros = 0
    reason: str = ""
    measured: dict[str, float] = {}
    """What its scans showed of the QPU as it was before, by the names of `warden.qpu.noise.Noise`."""
    left: dict[str, float] = {}
    """What they did not see and so did not correct: the deviations that the QPU has had when it ended."""
    before: float = 1.0
    """The quality at its beginning ..."""
    after: float = 1.0
    """... and at its end."""
    log: tuple[str, ...] = ()


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """How good the QPU was at a time: 1 as on the day that it was built, 0 useless."""

    time: Micros
    value: float
    calibration: int = 0
    """The calibration in force, 0 without any."""


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A stretch of a task's shots on the QPU without a break. `token` fences it: no result counts under another.

    `deadline`: when the worker ends it, with the shots that it has by then.
    """

    token: str
    first_shot: int
    shots: int
    started: Micros
    deadline: Micros | None
    instance: str = ""
    """The worker that was given it."""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One sequence with a number of shots. The sequence itself stays in the store: it may be megabytes."""

    id: int
    session: str
    job: str = ""
    """Whose session it is; empty for tasks of earlier versions."""
    uid: int
    shots: int
    qubits: int
    key: str
    submitted: Micros
    since: Micros = 0
    """Since when it waits: its submission, or the end of its last run."""
    deadline: Micros | None = None
    """By when its user wants it done; then it fails."""
    status: TaskStatus = TaskStatus.QUEUED
    started: Micros | None = None
    finished: Micros | None = None
    shots_done: int = 0
    runs: int = 0
    repeats: int = 0
    fruitless: int = 0
    """Runs in a row that ended at their limit without a shot."""
    qpu_time: Micros = 0
    counts: dict[str, int] = {}
    error: str = ""
    log: tuple[str, ...] = ()
    run: Run | None = None
    preparation: Micros = 0
    """What the QPU needs before its first shot, beyond its own overhead: an emulation, for instance."""
    calibration: Calibration | None = None
    """The one in force when its first run started. All its shots are taken with it, however it is cut ..."""
    at: Micros = 0
    """... and as the QPU was then, by the broker's clock: unlike `started` it stays when somebody sets that."""
    bitstrings: bool = False
    """Whether the shots are kept in their order, too."""
    metadata: dict[str, Any] = {}
    """What the QPU says of the result: Pulser's names where Pulser has one."""

    @property
    def shots_left(self) -> int:
        return self.shots - self.shots_done

    def public(self) -> Task:
        """The task as its user sees it: counts once they are complete, nothing of the broker's own."""
        counts = self.counts if self.status is TaskStatus.COMPLETED else {}
        return msgspec.structs.replace(self, counts=counts, key="", run=None)


learn(Plan, PastWindow, Availability, Session, HostReport, Calibration, Quality, Task)


class WardenError(Exception):
    """Every refusal and failure that a user may meet. The text says what to do; the code travels on the wire."""

    code: ClassVar[str] = "error"
    transient: ClassVar[bool] = False
    """Whether the same request may succeed later without anybody changing anything."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class BadRequestError(WardenError):
    """The request can never succeed as it stands."""

    code = "bad_request"


class ForbiddenError(WardenError):
    """This user may not do this."""

    code = "forbidden"


class RestrictedError(ForbiddenError):
    """Only operators, or the scheduler's hooks, may do this."""

    code = "restricted"


class UnknownSessionError(ForbiddenError):
    """Nobody has such a session."""

    code = "unknown_session"


class ForeignSessionError(ForbiddenError):
    """The session is somebody else's."""

    code = "foreign_session"


class EndedSessionError(ForbiddenError):
    """The session was the user's, and takes no more tasks."""

    code = "ended_session"


class NotFoundError(WardenError):
    """There is no such thing, or it is none of this user's business."""

    code = "not_found"


class ConflictError(WardenError):
    """The thing is in a state in which this cannot be done."""

    code = "conflict"


class LimitError(WardenError):
    """A limit of the site is reached."""

    code = "limit"


class BusyError(WardenError):
    """All places are taken, or the QPU is blocked; it will pass."""

    code = "busy"
    transient = True


class UnavailableError(WardenError):
    """Warden cannot be reached, does not answer, or answers what nobody understands."""

    code = "unavailable"
    transient = True


class TaskFailedError(WardenError):
    """The task has no result, and the text says why."""

    code = "task_failed"


class TaskCancelledError(WardenError):
    """Somebody stopped the task, or its session ended."""

    code = "task_cancelled"


class WaitTimeoutError(WardenError):
    """It did not happen in the time that the caller gave."""

    code = "timeout"
    transient = True


class UnauthenticatedError(WardenError):
    """The broker does not know who speaks on this connection."""

    code = "unauthenticated"


class ConfigurationError(WardenError):
    """The configuration is missing, unreadable or wrong."""

    code = "configuration"


ERRORS: dict[str, type[WardenError]] = {
    kind.code: kind
    for kind in (
        BadRequestError,
        ForbiddenError,
        RestrictedError,
        UnknownSessionError,
        ForeignSessionError,
        EndedSessionError,
        NotFoundError,
        ConflictError,
        LimitError,
        BusyError,
        UnavailableError,
        UnauthenticatedError,
        ConfigurationError,
        TaskFailedError,
        TaskCancelledError,
        WaitTimeoutError,
        WardenError,
    )
}
