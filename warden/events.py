"""What goes into the core and what comes out of it: events, effects, and what a broker remembers. Pure."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from warden import wire
from warden.model import Micros, Session, Task, WardenError, Window
from warden.qpu.timing import Timing


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the core needs of the configuration."""

    name: str
    places: int
    qubits: int
    timing: Timing
    lease: Micros
    heartbeat: Micros
    max_shots: int
    max_sequence: int
    max_queued: int
    max_queued_per_user: int
    operators: frozenset[int]


class Asked(msgspec.Struct, frozen=True):
    """A client's request. `uid` is None as long as the connection has not proven whose it is."""

    peer: bytes
    correlation: int
    uid: int | None
    body: wire.Message


class Reported(msgspec.Struct, frozen=True):
    """A worker's message."""

    peer: bytes
    body: wire.Message


class Garbled(msgspec.Struct, frozen=True):
    """A worker's message that cannot be understood."""

    peer: bytes
    text: str


class Started(msgspec.Struct, frozen=True):
    """The broker has come up: nobody could renew or open anything while it was away."""


class Stepped(msgspec.Struct, frozen=True):
    """Somebody has set the clock: it shows `by` more than the time that has passed since the last event."""

    by: Micros


class Tick(msgspec.Struct, frozen=True):
    """Time has passed."""


Event = Asked | Reported | Garbled | Started | Stepped | Tick


class Keep(msgspec.Struct, frozen=True):
    """Make durable: a session or a task, with its sequence when it is new."""

    what: Session | Task
    sequence: str | None = None


class KeepWindows(msgspec.Struct, frozen=True):
    """Make the operator's windows durable."""

    windows: tuple[Window, ...]


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


class Note(msgspec.Struct, frozen=True):
    """Something that an operator may want to read later."""

    event: str
    facts: dict[str, Any]


Effect = Keep | KeepWindows | Answer | Refuse | Tell | Note


class Archive(Protocol):
    """What was kept, for reading: the store."""

    def task(self, number: int) -> Task | None: ...
    def session(self, identifier: str) -> Session | None: ...
    def tasks(self, *, uid: int | None, session: str | None, limit: int) -> list[Task]: ...
    def sessions(self, *, uid: int | None, job: str | None, ended: bool, limit: int) -> list[Session]: ...


class Remembered(msgspec.Struct, frozen=True):
    """What a broker finds when it starts: open sessions, unfinished tasks and runs, the operator's windows.

    `keys` has all tasks of the open sessions: a request may be repeated when its task has long ended.
    """

    sessions: tuple[Session, ...] = ()
    tasks: tuple[Task, ...] = ()
    windows: tuple[Window, ...] = ()
    next_task: int = 1
    keys: dict[tuple[str, str], int] = {}
