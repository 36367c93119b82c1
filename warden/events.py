"""What goes into the core and what comes out of it: events, effects, and what a broker remembers. Pure."""

from __future__ import annotations

import enum
from typing import Any, Protocol

import msgspec

from warden import wire
from warden.authority import Members
from warden.model import Calibration, Micros, PastWindow, Quality, Session, State, Task, WardenError, Window
from warden.qpu.timing import Timing


class Class(msgspec.Struct, frozen=True, kw_only=True):
    """A class of priority: who belongs to it, and what its sessions may use at most (None: any amount)."""

    name: str
    uids: frozenset[int] = frozenset()
    queues: frozenset[str] = frozenset()
    projects: frozenset[str] = frozenset()
    max_shots: int | None = None
    max_qpu_time: Micros | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the core needs of the configuration. Times in microseconds."""

    name: str
    places: int
    qubits: int
    timing: Timing
    heartbeat: Micros
    members: Members
    """Who may what when the broker starts."""

    longest_run: Micros
    """No run is longer, by estimate and by deadline: so long the QPU may be kept from a task of a higher class."""
    failures: int
    """Failures of the QPU in a row after which it is taken offline ..."""
    retry: Micros
    """... for so long at first, and twice as long each time that it fails again."""

    lease: Micros
    unseen: Micros
    """So long use alone keeps a session for which no execution host vouches."""

    fair: bool
    """Fair share inside a class, or first come, first served over all."""
    half_life: Micros
    longest_wait: Micros
    """A task that has waited so long gets every other run, whatever its class and its user's share."""
    classes: tuple[Class, ...]
    """Highest first; who is in none of them is in the last."""

    max_shots: int
    max_sequence: int
    max_queued: int
    max_queued_per_user: int
    max_sessions_per_user: int
    keep: Micros
    """How long what has ended is kept."""


class Door(enum.Enum):
    """Which of the broker's sockets."""

    CLIENTS = "clients"
    EDGES = "edges"
    WORKERS = "workers"


class Asked(msgspec.Struct, frozen=True):
    """A client's request. `uid` is None as long as nobody has proven whose it is."""

    peer: bytes
    correlation: int
    uid: int | None
    body: wire.Message
    door: Door = Door.CLIENTS


class Reported(msgspec.Struct, frozen=True):
    """A worker's message."""

    peer: bytes
    body: wire.Message


class Garbled(msgspec.Struct, frozen=True):
    """A worker's message that cannot be understood."""

    peer: bytes
    text: str


class Started(msgspec.Struct, frozen=True):
    """The broker has come up, or goes on after it was stopped, or its disk failed: nobody could renew anything meanwhile.

    `away`: for how long; None where nobody knows, because it is another process.
    """

    away: Micros | None = None


class Stepped(msgspec.Struct, frozen=True):
    """Somebody has set the clock: it shows `by` more than the time that has passed since the last event."""

    by: Micros


class Enrolled(msgspec.Struct, frozen=True):
    """From now on these are the operators and the users: somebody has joined or left a group."""

    members: Members


class Tick(msgspec.Struct, frozen=True):
    """Time has passed."""


Event = Asked | Reported | Garbled | Started | Stepped | Enrolled | Tick


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """QPU time that a user has used in a class, decayed to what it is worth at `time`; both in microseconds."""

    name: str
    uid: int
    used: Micros
    time: Micros


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """The QPU as its last worker described it. `specs`: Pulser's abstract representation, a JSON string."""

    name: str
    specs: str
    qubits: int


class Commission(msgspec.Struct, frozen=True, kw_only=True):
    """A calibration that a worker was told to carry out, in the time that these windows leave."""

    windows: tuple[Window, ...]
    token: str
    number: int
    started: Micros
    instance: str


class Calibrating(msgspec.Struct, frozen=True, kw_only=True):
    """Windows that are open and whose calibration has not begun, and the calibration that the worker is at."""

    waiting: tuple[Window, ...] = ()
    commission: Commission | None = None


class Keep(msgspec.Struct, frozen=True):
    """Make durable: a session, a usage, the device, what is calibrated, a calibration, a quality, or a task.

    With a task go its sequence when it is new, and the shots of a run in their order (`wire.Bitstrings`).
    """

    what: Session | Task | Usage | Device | Calibrating | Calibration | Quality
    sequence: str | None = None
    bitstrings: wire.Bitstrings | None = None


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A window that begins as soon as the QPU turns from one task to another."""

    rule: str
    duration: Micros
    reason: str
    kind: State = State.CALIBRATING


class Almanac(msgspec.Struct, frozen=True, kw_only=True):
    """What the calendar's rules do not say by themselves."""

    windows: tuple[Window, ...] = ()
    """Those that operators added, and calibrations that were due for another reason than a rule's time."""
    opened: tuple[int, ...] = ()
    """Which of them are open."""
    next_window: int = 1
    accounted: dict[str, Micros] = {}
    """For each rule, the end of its last window that was held or missed."""
    due: tuple[Due, ...] = ()
    """Missed windows that are to be made up for."""
    shots: int = 0
    """Shots since the last calibration."""
    calibrated: Micros = 0
    """The end of the last window of kind calibrating."""
    pause: Micros = 0
    """So long after it no other one is asked for early: it grows while the quality stays low, and is 0 when it is not."""


class KeepAlmanac(msgspec.Struct, frozen=True):
    """Make the almanac durable, and what became of windows."""

    almanac: Almanac
    past: tuple[PastWindow, ...] = ()


class Remark(msgspec.Struct, frozen=True):
    """Write down what became of the calibration in a window that is kept as held."""

    window: Window
    text: str


class Prune(msgspec.Struct, frozen=True):
    """Forget tasks, sessions and windows that ended before `before`; not all at once."""

    before: Micros


class Answer(msgspec.Struct, frozen=True):
    """Answer a request."""

    to: Asked
    result: Any


class Refuse(msgspec.Struct, frozen=True):
    """Refuse a request."""

    to: Asked
    error: WardenError


class Tell(msgspec.Struct, frozen=True):
    """Send a message to a worker. A StartRun leaves without its sequence: the broker takes it from the store."""

    peer: bytes
    body: wire.Message


REFUSED = "refused"
"""The event of whoever asked for what he may not have."""


class Note(msgspec.Struct, frozen=True):
    """Something that an operator may want to read later; no token is among its facts."""

    event: str
    facts: dict[str, Any]
    audit: bool = False
    """Whether it belongs to the audit trail."""


Effect = Keep | KeepAlmanac | Remark | Prune | Answer | Refuse | Tell | Note


class Archive(Protocol):
    """What was kept, for reading: the store."""

    def task(self, number: int) -> Task | None: ...
    def task_by_key(self, session: str, key: str) -> Task | None: ...
    def session(self, identifier: str) -> Session | None: ...
    def tasks(self, *, uid: int | None, session: str | None, before: int | None, limit: int) -> list[Task]:
        """Without counts and logs."""
        ...

    def sessions(
        self, *, uid: int | None, job: str | None, ended: bool, before: str | None, limit: int
    ) -> list[Session]: ...
    def past_windows(self, limit: int) -> list[PastWindow]: ...
    def calibrations(self, limit: int) -> list[Calibration]: ...
    def quality(self, since: Micros, limit: int) -> list[Quality]: ...
    def bitstrings(self, task: int, first: int) -> wire.Bitstrings | None:
        """Those of the run that has the shot `first`, as far as one answer holds them."""
        ...


class Remembered(msgspec.Struct, frozen=True):
    """What a broker finds when it starts: open sessions, unfinished tasks and runs, the almanac, usage, the device."""

    sessions: tuple[Session, ...] = ()
    tasks: tuple[Task, ...] = ()
    almanac: Almanac = Almanac()
    usage: tuple[Usage, ...] = ()
    device: Device | None = None
    calibrating: Calibrating = Calibrating()
    calibration: Calibration | None = None
    next_task: int = 1
