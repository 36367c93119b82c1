"""Whether a job gets a session, a task is taken and may have a run: the site's limits, and what its session may still use. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warden import bitstrings, wire
from warden.model import SECOND, BadRequestError, BusyError, LimitError, Micros

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from warden.events import Device, Settings
    from warden.model import Session, Task
    from warden.qpu.timing import Pace
    from warden.queue import Queue


def check_place(settings: Settings, sessions: Collection[Session], uid: int) -> None:
    """Whether one more job of `uid` gets a session beside these.

    Raises:
        BusyError: Not now. It passes when one of them ends, so the job shall wait and not fail.
    """
    if len(sessions) >= settings.places:
        raise BusyError(f"all places on the QPU {settings.name} are taken ({len(sessions)} of {settings.places})")
    own, most = sum(session.uid == uid for session in sessions), settings.max_sessions_per_user
    if own >= most:
        raise BusyError(f"{own} of your jobs are on the QPU {settings.name} already, and {most} may be")


def check_limits(settings: Settings, waiting: Queue, uid: int, body: wire.TaskStart) -> None:
    """The limits of the site; `waiting` are all tasks that wait.

    Raises:
        BadRequestError: Such a task is never taken.
        LimitError: It is too large, or too many wait already.
    """
    if not 1 <= body.shots <= settings.max_shots:
        raise BadRequestError(f"shots must be between 1 and {settings.max_shots}, not {body.shots}")
    if len(body.sequence.encode()) > settings.max_sequence:
        raise LimitError(f"the sequence is larger than {settings.max_sequence} bytes")
    if len(waiting) >= settings.max_queued:
        raise LimitError(f"{len(waiting)} tasks wait for the QPU already: try again later")
    if waiting.of(uid) >= settings.max_queued_per_user:
        raise LimitError(f"{settings.max_queued_per_user} of your tasks wait for the QPU already: wait for some")


def check_time(settings: Settings, pace: Pace, gap: Micros | None, body: wire.TaskStart) -> None:
    """Whether a task of this pace can ever be done, and by when its user wants it; `gap`: the longest between windows.

    Raises:
        BadRequestError: It cannot.
    """
    _check_fits(settings, pace, gap)
    needed = pace.estimate(body.shots)
    if body.within is not None and needed > body.within:
        raise BadRequestError(
            f"{body.shots} shots take {needed / SECOND:g} s, and you want them within {body.within / SECOND:g} s"
        )


def check_bitstrings(body: wire.TaskStart, qubits: int) -> None:
    """Whether its shots can be kept in their order, if that is wanted.

    Raises:
        LimitError: They are too many.
    """
    most = wire.LARGEST_BITSTRINGS // bitstrings.size(1, qubits)
    if body.bitstrings and body.shots > most:
        raise LimitError(f"of {qubits} atoms at most {most} shots are kept in their order: take fewer, or counts alone")


def check_budget(
    settings: Settings, pace: Pace, session: Session, unfinished: Sequence[Task], body: wire.TaskStart
) -> None:
    """What the session has used and what its unfinished tasks will use; the new one has to fit into the rest.

    Raises:
        LimitError: It does not.
    """
    if session.max_shots is not None:
        left = max(0, session.max_shots - session.shots - sum(task.shots_left for task in unfinished))
        if body.shots > left:
            raise LimitError(f"this job may take {session.max_shots} shots, and {left} are left of them")
    if session.max_qpu_time is not None:
        promised = sum(settings.timing.pace_of(task).estimate(task.shots_left) for task in unfinished)
        left = max(0, session.max_qpu_time - session.qpu_time - promised)
        needed = pace.estimate(body.shots)
        if needed > left:
            raise LimitError(
                f"this job may use the QPU for {session.max_qpu_time / SECOND:g} s, {left / SECOND:g} s are left of "
                f"them, and {body.shots} shots take {needed / SECOND:g} s"
            )


def check_run(
    settings: Settings, device: Device | None, session: Session | None, task: Task, gap: Micros | None, now: Micros
) -> None:
    """Limits that a task may have reached while it waited; `gap` as above: the broker may have another calendar by now.

    Raises:
        LimitError: It has.
        BadRequestError: It can never be run any more.
    """
    if device is not None and task.qubits > device.qubits:
        raise LimitError(f"it has {task.qubits} atoms, and the QPU takes {device.qubits} by now")
    if session is not None and session.max_shots is not None and session.shots + task.shots_left > session.max_shots:
        raise LimitError(f"its session may take {session.max_shots} shots, and has taken {session.shots}")
    pace = settings.timing.pace_of(task)
    _check_fits(settings, pace, gap)
    if session is not None and session.max_qpu_time is not None and (session.time_left or 0) < pace.estimate(1):
        raise LimitError(f"its session has used the {session.max_qpu_time / SECOND:g} s of the QPU that it may use")
    if task.deadline is not None and now + pace.estimate(task.shots_left) > task.deadline:
        raise LimitError("it cannot be done by its deadline any more")


def _check_fits(settings: Settings, pace: Pace, gap: Micros | None) -> None:
    """Whether one shot is ever possible: else it would wait for ever, and all others behind it."""
    needed = pace.estimate(1)
    if gap is not None and needed > gap:
        raise BadRequestError(
            f"not one shot fits between two calibration windows of this QPU: with its preparation it takes "
            f"{needed / SECOND:g} s, and the longest gap is {gap / SECOND:g} s"
        )
    if needed > settings.longest_run:
        raise BadRequestError(
            f"not one shot fits into a run of this QPU: with its preparation it takes {needed / SECOND:g} s, and the "
            f"longest run is {settings.longest_run / SECOND:g} s"
        )
