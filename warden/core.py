"""The state machine: an event and a time in, effects out. No socket, no file, no clock, no randomness lives here.

    task:  queued ──► running ──► completed | failed | cancelled
             ▲           │
             └───────────┘   cut by a window, or the run was lost

`ledger` keeps the books of sessions and tasks, `dispatch` has the worker and its run; here are the requests, the
operator's windows and the state of the QPU.

Effects are carried out in order by the broker: first everything is kept and committed, then everything is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from warden import authority, wire
from warden.dispatch import Dispatcher
from warden.events import (
    Answer,
    Archive,
    Asked,
    Effect,
    Event,
    KeepWindows,
    Refuse,
    Remembered,
    Reported,
    Settings,
)
from warden.ledger import Ledger
from warden.model import (
    SECOND,
    Availability,
    BadRequestError,
    BusyError,
    ConflictError,
    ForbiddenError,
    LimitError,
    Micros,
    NotFoundError,
    Session,
    State,
    Task,
    TaskStatus,
    UnavailableError,
    WardenError,
    Window,
    clock,
)
from warden.sequence import inspect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from warden.calibration import Calendar

replace = msgspec.structs.replace

# The end of the year 2999.
_LATEST: Micros = 32_503_680_000 * SECOND


class Core:
    """One QPU's sessions, tasks and calendar. Feed it events in the order of their times."""

    def __init__(
        self,
        settings: Settings,
        calendar: Calendar,
        archive: Archive,
        new_id: Callable[[], str],
        remembered: Remembered = Remembered(),  # noqa: B008 - frozen
    ) -> None:
        self._settings = settings
        self._calendar = replace(calendar, single=remembered.windows)
        self._new_id = new_id
        self._ledger = Ledger(settings, archive, remembered)
        self._dispatcher = Dispatcher(settings, self._ledger, new_id, remembered)

    def handle(self, event: Event, now: Micros) -> list[Effect]:
        """Take in one event and return what is to be done about it, in order."""
        match event:
            case Asked():
                self._asked(event, now)
            case Reported():
                self._dispatcher.handle(event, now)
            case _:
                pass
        self._pass_time(now)
        self._dispatcher.start(self._calendar, now)
        return self._ledger.take_effects()

    def next_wakeup(self, now: Micros) -> Micros | None:
        """When something changes by itself: the broker sends a Tick then."""
        times = [*self._ledger.times(), *self._dispatcher.times()]
        window = self._calendar.block(now) or self._calendar.next(now)
        if window is not None:
            times += [time for time in (window.start, window.end) if time is not None and time > now]
        return min(times, default=None)

    def availability(self, now: Micros) -> Availability:
        state, reason, until = self._state(now)
        return Availability(
            name=self._settings.name,
            state=state,
            reason=reason,
            until=until,
            places=self._settings.places,
            used=len(self._ledger.sessions),
            queued=len(self._ledger.queued()),
            next_window=self._calendar.next(now),
            qubits=self._qubits,
            time=now,
        )

    # --- requests ---

    def _asked(self, asked: Asked, now: Micros) -> None:
        try:
            authority.check(asked.body, asked.uid, self._settings.operators)
            self._answer(asked, now)
        except WardenError as error:
            self._ledger.add(Refuse(asked, error))

    def _answer(self, asked: Asked, now: Micros) -> None:  # noqa: C901, PLR0912 - the table of all requests
        result: Any
        match asked.body:
            case wire.GetAvailability():
                result = self.availability(now)
            case wire.GetTarget():
                result = self._target()
            case wire.GetPlan(count=count):
                result = self._plan(now, count)
            case wire.Acquire() as body:
                result = self._acquire(asked.uid, body, now)
            case wire.Release(session=session):
                result = self._release(asked.uid, session, now)
            case wire.Renew(host=host, jobs=jobs):
                result = self._renew(host, frozenset(jobs), now)
            case wire.TaskStart() as body:
                result = self._task_start(asked.uid, body, now)
            case wire.GetTask(task=number, wait=wait):
                task = self._visible(asked.uid, number, now)
                if wait and not task.status.final:
                    self._ledger.wait(asked, task, now + wait)
                    return
                result = task.public()
            case wire.TaskStop(task=number):
                result = self._task_stop(asked.uid, number, now).public()
            case wire.ListTasks() as body:
                uid = self._whose(asked.uid, everybody=body.everybody)
                result = [
                    t.public() for t in self._ledger.archive.tasks(uid=uid, session=body.session, limit=body.limit)
                ]
            case wire.ListSessions() as body:
                uid = self._whose(asked.uid, everybody=body.everybody)
                result = self._ledger.archive.sessions(uid=uid, job=body.job, ended=body.ended, limit=body.limit)
            case wire.AddWindow() as body:
                result = self._add_window(asked.uid, body, now)
            case wire.CancelWindow(start=start):
                result = self._cancel_window(asked.uid, start, now)
            case wire.Resume():
                result = self._resume(asked.uid, now)
            case other:
                raise BadRequestError(f"{type(other).__name__} is no request that the broker answers here")
        self._ledger.add(Answer(asked, result))

    def _acquire(self, uid: int | None, body: wire.Acquire, now: Micros) -> Session:
        same_job = [session for session in self._ledger.sessions.values() if session.job == body.job]
        for session in same_job:
            if session.uid == body.uid and uid in {authority.ROOT, session.uid}:
                return self._ledger.renew(replace(session, host=body.host or session.host), now, always=True)
        if uid != authority.ROOT:
            raise ForbiddenError("a session comes from the scheduler: submit the job with `qsub -l qpu=1`")
        for session in same_job:
            self._end_session(session, "its job number belongs to another user now", now)
        self._check_place(now)
        session = Session(
            id=self._new_id(),
            uid=body.uid,
            job=body.job,
            host=body.host,
            acquired=now,
            expires=now + self._settings.lease,
        )
        self._ledger.keep_session(session)
        self._ledger.note("session acquired", session=session.id, job=session.job, uid=session.uid, host=session.host)
        return session

    def _check_place(self, now: Micros) -> None:
        state, reason, until = self._state(now)
        if state is not State.READY:
            when = "" if until is None else f" until {clock(until)}"
            raise BusyError(f"the QPU {self._settings.name} is {state}{when}: {reason}")
        used, places = len(self._ledger.sessions), self._settings.places
        if used >= places:
            raise BusyError(f"all places on the QPU {self._settings.name} are taken ({used} of {places})")

    def _release(self, uid: int | None, identifier: str, now: Micros) -> Session:
        session = self._ledger.session(identifier)
        if session is None or not self._owns(uid, session.uid):
            raise NotFoundError("there is no such session of yours")
        return session if session.ended is not None else self._end_session(session, "released", now)

    def _renew(self, host: str, jobs: frozenset[str], now: Micros) -> int:
        renewed = [session for session in self._ledger.sessions.values() if session.job in jobs]
        for session in renewed:
            self._ledger.renew(replace(session, host=host), now)
        return len(renewed)

    def _task_start(self, uid: int | None, body: wire.TaskStart, now: Micros) -> Task:
        session = self._ledger.session(body.session)
        if session is None or session.uid != uid:
            raise ForbiddenError("there is no such session of yours: submit the job with `qsub -l qpu=1`")
        if session.ended is not None:
            raise ForbiddenError(f"the session has ended: {session.end_reason}")
        known = self._ledger.task_by_key(session.id, body.key)
        if known is not None:
            return self._visible(uid, known, now).public()
        self._check_limits(session.uid, body)
        device = self._dispatcher.worker.device_name if self._dispatcher.worker else None
        qubits = inspect(body.sequence, device=device, qubits=self._qubits)
        if self._never_fits(now):
            raise BadRequestError("not one shot fits between two calibration windows of this QPU: ask its operator")
        task = self._ledger.open_task(
            session, sequence=body.sequence, shots=body.shots, qubits=qubits, key=body.key, now=now
        )
        return task.public()

    def _check_limits(self, uid: int, body: wire.TaskStart) -> None:
        limits = self._settings
        if not 1 <= body.shots <= limits.max_shots:
            raise BadRequestError(f"shots must be between 1 and {limits.max_shots}, not {body.shots}")
        if len(body.sequence.encode()) > limits.max_sequence:
            raise LimitError(f"the sequence is larger than {limits.max_sequence} bytes")
        waiting = self._ledger.queued()
        if len(waiting) >= limits.max_queued:
            raise LimitError(f"{len(waiting)} tasks wait for the QPU already: try again later")
        if sum(task.uid == uid for task in waiting) >= limits.max_queued_per_user:
            raise LimitError(f"{limits.max_queued_per_user} of your tasks wait for the QPU already: wait for some")

    def _task_stop(self, uid: int | None, number: int, now: Micros) -> Task:
        task = self._visible(uid, number, now)
        return task if task.status.final else self._cancel(task, "stopped by its user", now)

    def _target(self) -> str:
        if self._dispatcher.worker is None:
            raise UnavailableError("the QPU's worker is not there, so its device is not known: try again later")
        return self._dispatcher.worker.device

    def _plan(self, now: Micros, count: int) -> list[Window]:
        windows: list[Window] = []
        block = self._calendar.block(now)
        time: Micros | None = now
        if block is not None:
            windows.append(block)
            time = block.end
        while time is not None and len(windows) < count:
            window = self._calendar.next(time)
            if window is None:
                break
            windows.append(window)
            time = window.end
        return windows

    # --- the operator's windows ---

    def _add_window(self, uid: int | None, body: wire.AddWindow, now: Micros) -> Window:
        start = now if body.start is None else body.start
        end = None if body.duration is None else start + body.duration
        if end is not None and end <= now:
            raise BadRequestError("this window would lie in the past")
        if max(start, end or 0) > _LATEST:
            raise BadRequestError("this window is too far in the future: no clock shows it")
        if end is None and body.kind == State.CALIBRATING:
            raise BadRequestError("a calibration needs a duration")
        window = Window(start, end, State(body.kind), body.reason or body.kind)
        calendar = self._calendar
        if body.start is None and window.kind is State.MAINTENANCE:
            # Draining again says how long and why from now on.
            for drain in self._drains(now):
                calendar = calendar.without(drain)
        self._keep_windows(calendar.with_window(window), now)
        self._ledger.note("window added", by=uid, start=start, end=end, kind=window.kind, reason=window.reason)
        return window

    def _cancel_window(self, uid: int | None, start: Micros, now: Micros) -> Window:
        found = [w for w in self._calendar.single if w.start == start]
        if not found:
            recurring = any(w.start == start for w in self._calendar.windows(max(now, start), start + 1))
            raise NotFoundError(
                "this window comes from a rule of the configuration and cannot be taken back"
                if recurring
                else "no window that an operator added starts then: see `warden calibrate plan`"
            )
        self._keep_windows(self._calendar.without(found[0]), now)
        self._ledger.note("window cancelled", by=uid, start=start)
        return found[0]

    def _resume(self, uid: int | None, now: Micros) -> Availability:
        drains = self._drains(now)
        if not drains:
            raise ConflictError("no maintenance is on: there is nothing to resume from")
        calendar = self._calendar
        for window in drains:
            calendar = calendar.without(window)
        self._keep_windows(calendar, now)
        self._ledger.note("resumed", by=uid)
        return self.availability(now)

    def _drains(self, now: Micros) -> list[Window]:
        return [w for w in self._calendar.single if w.kind is State.MAINTENANCE and w.covers(now)]

    def _keep_windows(self, calendar: Calendar, now: Micros) -> None:
        ahead = tuple(window for window in calendar.single if window.end is None or window.end > now)
        self._calendar = replace(calendar, single=ahead)
        self._ledger.add(KeepWindows(ahead))

    # --- sessions and tasks ---

    def _pass_time(self, now: Micros) -> None:
        for session in [s for s in self._ledger.sessions.values() if s.expires <= now]:
            self._end_session(session, "its lease ran out: nobody has seen its job", now)
        self._dispatcher.pass_time(self._calendar, now)
        self._ledger.answer_overdue(now)

    def _end_session(self, session: Session, reason: str, now: Micros) -> Session:
        for task in self._ledger.tasks_of(session):
            self._cancel(task, f"its session ended: {reason}", now)
        return self._ledger.end_session(session, reason, now)

    def _cancel(self, task: Task, reason: str, now: Micros) -> Task:
        self._dispatcher.cancel(task)
        return self._ledger.finish_task(task, TaskStatus.CANCELLED, reason, now)

    def _visible(self, uid: int | None, number: int, now: Micros) -> Task:
        task = self._ledger.task(number)
        if task is None or not self._owns(uid, task.uid):
            raise NotFoundError("there is no such task of yours")
        session = self._ledger.sessions.get(task.session)
        if session is not None and session.uid == uid:
            self._ledger.renew(session, now)
        return task

    def _owns(self, uid: int | None, owner: int) -> bool:
        return uid == owner or authority.is_operator(uid, self._settings.operators)

    def _whose(self, uid: int | None, *, everybody: bool) -> int | None:
        if everybody and not authority.is_operator(uid, self._settings.operators):
            raise ForbiddenError("only operators see everybody's: `qpu tasks` shows your own")
        return None if everybody else uid

    # --- the state of the QPU ---

    def _state(self, now: Micros) -> tuple[State, str, Micros | None]:
        """What the QPU is doing, why, and until when. A planned maintenance explains a missing worker."""
        block = self._calendar.block(now)
        if block is not None and block.kind is State.MAINTENANCE:
            return block.kind, block.reason, block.end
        if self._dispatcher.worker is None:
            return State.OFFLINE, "its worker is not connected", None
        if block is not None:
            return block.kind, block.reason, block.end
        window = self._calendar.next(now)
        return State.READY, "", None if window is None else window.start

    def _never_fits(self, now: Micros) -> bool:
        windows = self._plan(now, 20)
        if len(windows) < 20 or any(w.end is None for w in windows):  # noqa: PLR2004 - enough to see the pattern
            return False
        gaps = _gaps(windows)
        return all(self._settings.timing.shots_within(gap) == 0 for gap in gaps)

    @property
    def _qubits(self) -> int:
        worker = self._dispatcher.worker
        return self._settings.qubits if worker is None else min(self._settings.qubits, worker.qubits)


def _gaps(windows: Iterable[Window]) -> list[Micros]:
    gaps, end = [], None
    for window in windows:
        if end is not None:
            gaps.append(window.start - end)
        end = window.end
    return gaps
