"""All states, and all ways from one to another with what causes them. Pure.

The core has no table that it follows: its decisions are where their reasons are. This is the table that they make;
docs/states.md is written from it, and tests hold the core to it, line by line.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

from warden.model import State, TaskStatus

if TYPE_CHECKING:
    from warden.model import Session


class SessionStatus(enum.StrEnum):
    """Whether a session still has its place on the QPU."""

    OPEN = "open"
    ENDED = "ended"


def session_status(session: Session) -> SessionStatus:
    return SessionStatus.OPEN if session.ended is None else SessionStatus.ENDED


class Transition(msgspec.Struct, frozen=True):
    """From one state to the next, and one cause for it; `before` is None where something begins to exist."""

    before: enum.StrEnum | None
    after: enum.StrEnum
    cause: str


class Lives(msgspec.Struct, frozen=True):
    """The states of one kind of thing; in those that are `final` it stays."""

    name: str
    states: type[enum.StrEnum]
    transitions: tuple[Transition, ...]

    @property
    def final(self) -> tuple[enum.StrEnum, ...]:
        left = {transition.before for transition in self.transitions}
        return tuple(state for state in self.states if state not in left)


_QUEUED, _RUNNING = TaskStatus.QUEUED, TaskStatus.RUNNING
_COMPLETED, _FAILED, _CANCELLED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED

TASK = Lives(
    "task",
    TaskStatus,
    (
        Transition(None, _QUEUED, "its user submits it"),
        Transition(_QUEUED, _RUNNING, "it is its turn, and a shot fits before the next window"),
        Transition(_RUNNING, _QUEUED, "its run ends with shots left: a window, a drain or the longest run cut it"),
        Transition(_RUNNING, _QUEUED, "its run is lost with the worker, or on its way to it"),
        Transition(_RUNNING, _QUEUED, "the QPU fails in its run, or answers what cannot be true"),
        Transition(_RUNNING, _QUEUED, "its run does not end"),
        Transition(_RUNNING, _COMPLETED, "all its shots are done"),
        Transition(_RUNNING, _FAILED, "the device refuses its sequence"),
        Transition(_RUNNING, _FAILED, "the QPU failed in too many of its runs"),
        Transition(_RUNNING, _FAILED, "its runs end again and again without a shot"),
        Transition(_RUNNING, _FAILED, "its deadline passes during a run"),
        Transition(_QUEUED, _FAILED, "its deadline cannot be kept any more"),
        Transition(_QUEUED, _FAILED, "its session has used up its time at the QPU"),
        Transition(_QUEUED, _FAILED, "another worker comes, whose device is too small for it"),
        Transition(_QUEUED, _CANCELLED, "its user stops it before its run"),
        Transition(_QUEUED, _CANCELLED, "its session ends before its run"),
        Transition(_RUNNING, _CANCELLED, "its user stops it during its run"),
        Transition(_RUNNING, _CANCELLED, "its session ends during its run"),
    ),
)

SESSION = Lives(
    "session",
    SessionStatus,
    (
        Transition(None, SessionStatus.OPEN, "the prolog acquires it for a job"),
        Transition(SessionStatus.OPEN, SessionStatus.ENDED, "the epilog, its owner or an operator releases it"),
        Transition(SessionStatus.OPEN, SessionStatus.ENDED, "its lease runs out: nobody has seen its job"),
        Transition(SessionStatus.OPEN, SessionStatus.ENDED, "its job is started again"),
        Transition(SessionStatus.OPEN, SessionStatus.ENDED, "its job's number comes again for another user"),
    ),
)

QPU = Lives(
    "QPU",
    State,
    (
        Transition(None, State.OFFLINE, "the broker starts, and no worker is connected yet"),
        Transition(None, State.MAINTENANCE, "the broker starts during a maintenance"),
        Transition(State.OFFLINE, State.READY, "its worker connects"),
        Transition(State.OFFLINE, State.READY, "it is tried again some time after its failures"),
        Transition(State.OFFLINE, State.READY, "an operator resumes after its failures"),
        Transition(State.OFFLINE, State.CALIBRATING, "its worker connects during a calibration"),
        Transition(State.OFFLINE, State.CALIBRATING, "a calibration begins while it is left alone after failures"),
        Transition(State.OFFLINE, State.MAINTENANCE, "a maintenance begins while it is offline"),
        Transition(State.READY, State.CALIBRATING, "a calibration begins"),
        Transition(State.READY, State.CALIBRATING, "a calibration is due, and its task is done"),
        Transition(State.READY, State.MAINTENANCE, "a maintenance begins"),
        Transition(State.READY, State.MAINTENANCE, "an operator drains it"),
        Transition(State.READY, State.OFFLINE, "its worker is silent for three heartbeats"),
        Transition(State.READY, State.OFFLINE, "its runs fail several times in a row"),
        Transition(State.CALIBRATING, State.READY, "the calibration ends"),
        Transition(State.CALIBRATING, State.READY, "an operator takes the calibration back"),
        Transition(State.CALIBRATING, State.MAINTENANCE, "a maintenance begins during the calibration"),
        Transition(State.CALIBRATING, State.OFFLINE, "its worker is silent during the calibration"),
        Transition(State.CALIBRATING, State.OFFLINE, "the calibration ends before it is tried again"),
        Transition(State.MAINTENANCE, State.READY, "the maintenance ends"),
        Transition(State.MAINTENANCE, State.READY, "an operator resumes"),
        Transition(State.MAINTENANCE, State.CALIBRATING, "the maintenance ends during a calibration"),
        Transition(State.MAINTENANCE, State.OFFLINE, "the maintenance ends, and no worker is connected"),
    ),
)

LIVES = (TASK, SESSION, QPU)
