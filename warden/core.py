"""The state machine: an event and a time in, effects out. No socket, no file, no clock, no randomness lives here.

    task:  queued ──► running ──► completed | failed | cancelled
             ▲           │
             └───────────┘   cut by a window or a limit, or the run has to be repeated

`ledger` keeps the books of sessions and tasks, `planner` the windows, `dispatch` has the worker and its run, `condition`
says how the QPU is; here are the requests, and what time brings.

Effects are carried out in order by the broker: first everything is kept and committed, then everything is sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from warden import admission, authority, orders, wire
from warden.checks import UNCHECKED, Checks, Held, Verdict, check_runs
from warden.condition import Condition
from warden.dispatch import Dispatcher
from warden.events import (
    REFUSED,
    Answer,
    Archive,
    Asked,
    Door,
    Effect,
    Enrolled,
    Event,
    Garbled,
    Prune,
    Refuse,
    Remembered,
    Reported,
    Settings,
    Started,
    Stepped,
    Tick,
)
from warden.hosts import Hosts
from warden.ledger import Ledger
from warden.model import (
    SECOND,
    Availability,
    BadRequestError,
    ConflictError,
    EndedSessionError,
    ForbiddenError,
    ForeignSessionError,
    Micros,
    NotFoundError,
    RestrictedError,
    Session,
    State,
    Task,
    TaskStatus,
    UnavailableError,
    UnknownSessionError,
    WardenError,
    brief,
)
from warden.planner import Planner
from warden.sequence import inspect

if TYPE_CHECKING:
    from collections.abc import Callable

    from warden.calibration import Calendar

replace = msgspec.structs.replace

# What is old is forgotten in small bites, so that nobody has to wait for it.
_PRUNE_EVERY = 2 * SECOND
# And not by a clock that somebody has just set: he may set it right again. No window is given up by it either.
_SETTLED = 3600 * SECOND


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
        self._members = settings.members
        self._new_id = new_id
        self._ledger = Ledger(settings, archive, remembered)
        self._hosts = Hosts()
        self._planner = Planner(calendar, self._ledger, remembered.almanac)
        self._dispatcher = Dispatcher(settings, self._ledger, self._planner, new_id, remembered)
        self._checks = Checks(settings, self._ledger, new_id)
        self._condition = Condition(settings, self._ledger, self._planner, self._dispatcher)
        self._prune_at: Micros | None = None

    @property
    def trouble(self) -> str:
        """Why nothing can be kept at the moment, and so nothing be accepted."""
        return self._condition.trouble

    @trouble.setter
    def trouble(self, trouble: str) -> None:
        self._condition.trouble = trouble

    def handle(self, event: Event, now: Micros) -> list[Effect]:
        """Take in one event and return what is to be done about it, in order."""
        match event:
            case Asked():
                self._asked(event, now)
            case Reported(body=orders.SequenceChecked() as said):
                self._checks.heard(said)
            case Reported() | Garbled():
                self._dispatcher.handle(event, now)
            case Started(away=away):
                self._ledger.begin_anew(now, away)
                self._hosts.begin_anew(away or 0)
                self._dispatcher.begin_anew(now)
            case Stepped(by=by):
                self._ledger.shift(by)
                self._hosts.shift(by)
                self._dispatcher.shift(by)
                self._checks.shift(by)
            case Enrolled(members=members):
                self._members = members
            case Tick():
                pass
        if self._prune_at is None or isinstance(event, Started | Stepped):
            self._prune_at = now + _SETTLED
            self._planner.settle(now + _SETTLED)
        # Several of these may have happened: nothing is over before all are known.
        if not isinstance(event, Started | Stepped | Enrolled):
            self._pass_time(now)
        return self._ledger.take_effects()

    def next_wakeup(self, now: Micros) -> Micros | None:
        """When something changes by itself: the broker sends a Tick then."""
        times = [*self._ledger.times(), *self._dispatcher.times(), *self._planner.times(now), *self._checks.times()]
        return min((time for time in times if time > now), default=None)

    def availability(self, now: Micros) -> Availability:
        return self._condition.availability(now)

    # --- requests ---

    def _asked(self, asked: Asked, now: Micros) -> None:
        try:
            authority.check(asked.body, asked.uid, self._members)
            self._answer(asked, now)
        except WardenError as error:
            self._refuse(asked, error)

    def _refuse(self, asked: Asked, error: WardenError) -> None:
        if isinstance(error, ForbiddenError):
            body = asked.body
            job = {"job": body.job, "uid": body.uid} if isinstance(body, wire.Acquire) else {}
            self._ledger.audit(REFUSED, by=asked.uid, what=wire.name_of(type(body)), **job, why=error.text)
        if isinstance(error, ForeignSessionError) and asked.door is not Door.EDGES:
            # That somebody has such a session is nobody else's business, but for QRMI's contract.
            error = UnknownSessionError(error.text)
        self._ledger.add(Refuse(asked, error))

    def _decide(self, held: Held, verdict: Verdict, now: Micros) -> None:
        """What was held for the worker's word, as if it had just been asked: much may have changed meanwhile."""
        asked = held.asked[0]
        try:
            authority.check(held.body, asked.uid, self._members)
            task = self._task_start(asked, held.body, now, verdict)
            for one in held.asked:
                self._ledger.add(Answer(one, task))
        except WardenError as error:
            for one in held.asked:
                self._refuse(one, error)

    def _answer(self, asked: Asked, now: Micros) -> None:  # noqa: C901, PLR0912 - the table of all requests
        result: Any
        match asked.body:
            case wire.GetAvailability():
                result = self.availability(now)
            case wire.GetTarget():
                result = self._target()
            case wire.GetPlan(count=count):
                result = self._planner.plan(now, count, self._condition.announced(now))
            case wire.GetHistory(limit=limit):
                result = self._ledger.archive.past_windows(limit)
            case wire.GetCalibrations(limit=limit):
                result = self._ledger.archive.calibrations(limit)
            case wire.GetQuality(since=since, limit=limit):
                result = self._ledger.archive.quality(since, limit)
            case wire.GetBitstrings(task=number, first=first):
                result = self._bitstrings(asked.uid, number, first, now)
            case wire.Acquire() as body:
                result = self._acquire(asked.uid, body, now)
            case wire.Release() as body:
                result = self._release(asked.uid, body, now)
            case wire.Renew() as body:
                result = self._renew(body, now)
            case wire.ListHosts():
                result = self._hosts.reports()
            case wire.TaskStart() as body:
                result = self._task_start(asked, body, now)
                if result is None:
                    return
            case wire.GetTask(task=number, wait=wait):
                task = self._visible(asked.uid, number, now)
                if wait and not task.status.final:
                    self._ledger.wait(asked, task, now + wait)
                    return
                result = task.public()
            case wire.TaskStop(task=number):
                result = self._task_stop(asked.uid, number, now).public()
            case wire.ListTasks() as body:
                result = self._list_tasks(asked.uid, body)
            case wire.ListSessions() as body:
                result = self._list_sessions(asked.uid, body)
            case wire.AddWindow() as body:
                result = self._planner.add(body, asked.uid, now)
            case wire.MoveWindow() as body:
                result = self._planner.move(body, asked.uid, now)
            case wire.CancelWindow(window=window):
                result = self._planner.cancel(window, asked.uid, now)
            case wire.Resume():
                result = self._resume(asked.uid, now)
            case other:
                raise BadRequestError(f"{type(other).__name__} is no request that the broker answers here")
        self._ledger.add(Answer(asked, result))

    def _acquire(self, uid: int | None, body: wire.Acquire, now: Micros) -> Session:
        same_job = [session for session in self._ledger.sessions.values() if session.job == body.job]
        for session in same_job:
            if uid == session.uid == body.uid and (uid != authority.ROOT or not body.start):
                return self._ledger.use(session, now)
            if uid == authority.ROOT and session.uid == body.uid and body.start in {"", session.start}:
                return self._ledger.vouch(replace(session, host=body.host or session.host), now, always=True)
        if uid != authority.ROOT:
            raise RestrictedError("a session comes from the scheduler: submit the job with `qsub -l qpu=1`")
        for session in same_job:
            other = session.uid != body.uid
            self._end_session(
                session, f"its job {'number belongs to another user' if other else 'was started again'}", now
            )
        authority.check_user(body.uid, self._members, self._settings.name)
        self._condition.check_ready(now)
        admission.check_place(self._settings, self._ledger.sessions.values(), body.uid)
        session = Session(
            id=self._new_id(),
            uid=body.uid,
            job=body.job,
            host=body.host,
            start=body.start,
            queue=body.queue,
            project=body.project,
            acquired=now,
            seen=now,
            expires=now + self._settings.lease,
        )
        kind = self._settings.classes[self._ledger.rank(session)]
        session = replace(session, max_shots=kind.max_shots, max_qpu_time=kind.max_qpu_time)
        self._ledger.keep_session(session)
        self._ledger.audit(
            "session acquired",
            session=brief(session.id),
            job=session.job,
            uid=session.uid,
            host=session.host,
            queue=session.queue,
            project=session.project,
            kind=kind.name,
        )
        return session

    def _release(self, uid: int | None, body: wire.Release, now: Micros) -> Session:
        session = self._ledger.session(body.session)
        if session is None or not self._owns(uid, session.uid, f"release of the session of job {session.job}"):
            raise NotFoundError("there is no such session of yours")
        reason = body.reason if authority.is_operator(uid, self._members) else ""
        return session if session.ended is not None else self._end_session(session, reason or "released", now, by=uid)

    def _renew(self, body: wire.Renew, now: Micros) -> wire.Renewed:
        jobs, suspended = frozenset(body.jobs), frozenset(body.suspended)
        renewed = [session for session in self._ledger.sessions.values() if session.job in jobs]
        for session in renewed:
            vouched, by = self._ledger.vouch(session, now), session.suspended
            if session.job in suspended:
                if not by:
                    self._ledger.suspend(vouched, body.host, now)
            # Other hosts of a parallel job do not see the process that was stopped.
            elif by == body.host or (by and not self._hosts.speaks(by, now)):
                self._ledger.resume(vouched, now)
        return wire.Renewed(sessions=len(renewed), reporter=self._hosts.heard(body, now))

    def _task_start(
        self, asked: Asked, body: wire.TaskStart, now: Micros, verdict: Verdict | None = None
    ) -> Task | None:
        """The task; None where the worker is asked about its sequence first, which is done without a `verdict`."""
        uid = asked.uid
        session = self._ledger.session(body.session)
        if session is None or session.uid != uid:
            refusal = UnknownSessionError if session is None else ForeignSessionError
            raise refusal("there is no such session of yours: submit the job with `qsub -l qpu=1`")
        known = self._ledger.archive.task_by_key(session.id, body.key)
        if known is not None:
            return self._visible(uid, known.id, now).public()
        if self._checks.joins(asked, body):
            return None
        if session.ended is not None:
            raise EndedSessionError(f"the session has ended: {session.end_reason}")
        authority.check_user(session.uid, self._members, self._settings.name)
        if body.upload is not None:
            raise NotFoundError("this upload is not here any more: send all its parts again")
        device = self._dispatcher.device
        admission.check_limits(self._settings, self._ledger.queue, session.uid, body)
        qubits = inspect(body.sequence, device=device.name if device else None, qubits=self._condition.qubits)
        admission.check_bitstrings(body, qubits)
        check_runs(device, body.shots)
        verdict = verdict or self._checks.verdict(body.sequence)
        pace = self._settings.timing.pace(qubits, 0 if verdict is None else verdict.preparation)
        admission.check_time(self._settings, pace, self._planner.longest_gap, body)
        admission.check_budget(self._settings, pace, session, self._ledger.tasks_of(session), body)
        verdict = verdict or self._held(asked, body, session.uid, now)
        if verdict is None:
            return None
        if verdict.error:
            raise BadRequestError(verdict.error)
        task = self._ledger.open_task(
            session,
            sequence=body.sequence,
            shots=body.shots,
            qubits=qubits,
            key=body.key,
            within=body.within,
            bitstrings=body.bitstrings,
            preparation=verdict.preparation,
            checked=verdict.checked,
            now=now,
        )
        return task.public()

    def _held(self, asked: Asked, body: wire.TaskStart, uid: int, now: Micros) -> Verdict | None:
        """None, as the worker is asked for its verdict; or that it cannot be had."""
        # While nothing can be kept nothing is held, either: its task could not be taken.
        possible = not self.trouble and self._dispatcher.worker is not None
        return None if possible and self._checks.hold(asked, body, uid, now) else UNCHECKED

    def _task_stop(self, uid: int | None, number: int, now: Micros) -> Task:
        task = self._visible(uid, number, now)
        if task.status.final:
            return task
        if uid != task.uid:
            self._ledger.audit("task stopped", by=uid, task=task.id, uid=task.uid)
        return self._cancel(task, f"stopped by {'its user' if uid == task.uid else 'an operator'}", now)

    def _bitstrings(self, uid: int | None, number: int, first: int, now: Micros) -> wire.Bitstrings:
        task = self._visible(uid, number, now)
        if not task.bitstrings:
            raise ConflictError(f"the shots of task {number} were not kept in their order: ask for them with the task")
        if task.status is not TaskStatus.COMPLETED:
            raise ConflictError(f"task {number} is {task.status}: it has no result yet, wait for it")
        found = self._ledger.archive.bitstrings(number, first)
        if found is None:
            raise NotFoundError(f"task {number} has {task.shots} shots, and none with the number {first}")
        return replace(found, total=task.shots)

    def _list_tasks(self, uid: int | None, body: wire.ListTasks) -> list[Task]:
        whose = self._whose(uid, everybody=body.everybody)
        found = self._ledger.archive.tasks(uid=whose, session=body.session, before=body.before, limit=body.limit)
        return [task.public() for task in found]

    def _list_sessions(self, uid: int | None, body: wire.ListSessions) -> list[Session]:
        whose = self._whose(uid, everybody=body.everybody)
        if body.before is not None and self._ledger.session(body.before) is None:
            # Nobody knows any more which ones are older: an empty page would say that there are none.
            raise NotFoundError(
                "the session below which this page begins is not kept any more: list anew, from the newest"
            )
        return self._ledger.archive.sessions(
            uid=whose, job=body.job, ended=body.ended, before=body.before, limit=body.limit
        )

    def _target(self) -> str:
        if self._dispatcher.device is None:
            raise UnavailableError("the QPU's worker was never there, so its device is not known: try again later")
        return self._dispatcher.device.specs

    def _resume(self, uid: int | None, now: Micros) -> Availability:
        offline = self._dispatcher.health.offline(now)
        if not self._planner.end_maintenance(now) and not offline:
            block = self._planner.block(now)
            if block is not None and block.kind is State.MAINTENANCE:
                raise ConflictError("this maintenance is of a rule of the configuration: it ends by itself")
            if block is not None:
                raise ConflictError("a calibration is on: `warden calibrate plan` shows whether it can be taken back")
            raise ConflictError("no maintenance is on: there is nothing to resume from")
        self._dispatcher.health.succeeded()
        self._ledger.audit("resumed", by=uid)
        return self.availability(now)

    # --- sessions and tasks ---

    def _pass_time(self, now: Micros) -> None:
        if not self.trouble:
            # While nothing can be kept nothing may end by itself or begin: it would take all that is asked down with it.
            self._end_what_is_over(now)
            self._planner.pass_time(now)
        self._dispatcher.pass_time(now)
        for held, verdict in self._checks.settled(self._dispatcher.worker, self._dispatcher.device, now):
            self._decide(held, verdict, now)
        self._checks.ask(self._dispatcher.worker, now)
        self._ledger.answer_overdue(now)
        if not self.trouble:
            self._dispatcher.start(now)
            self._prune(now)

    def _end_what_is_over(self, now: Micros) -> None:
        for session in [s for s in self._ledger.sessions.values() if s.expires <= now]:
            self._end_session(session, "its lease ran out: nobody has seen its job", now)
        for task in self._ledger.overdue(now):
            self._dispatcher.cancel(task, now)
            self._ledger.finish_task(task, TaskStatus.FAILED, "it was not done by its deadline", now)

    def _prune(self, now: Micros) -> None:
        if self._prune_at is not None and now >= self._prune_at:
            self._prune_at = now + _PRUNE_EVERY
            self._ledger.add(Prune(now - self._settings.keep))

    def _end_session(self, session: Session, reason: str, now: Micros, *, by: int | None = None) -> Session:
        for task in self._ledger.tasks_of(session):
            self._cancel(task, f"its session ended: {reason}", now)
        return self._ledger.end_session(self._ledger.sessions[session.id], reason, now, by=by)

    def _cancel(self, task: Task, reason: str, now: Micros) -> Task:
        self._dispatcher.cancel(task, now)
        return self._ledger.finish_task(task, TaskStatus.CANCELLED, reason, now)

    def _visible(self, uid: int | None, number: int, now: Micros) -> Task:
        task = self._ledger.task(number)
        if task is None or not self._owns(uid, task.uid, f"task {number}"):
            raise NotFoundError("there is no such task of yours")
        session = self._ledger.sessions.get(task.session)
        if session is not None and session.uid == uid:
            self._ledger.use(session, now)
        return task

    def _owns(self, uid: int | None, owner: int, what: str) -> bool:
        if uid == owner or authority.is_operator(uid, self._members):
            return True
        self._ledger.audit(REFUSED, by=uid, what=what, why=f"it is user {owner}'s")
        return False

    def _whose(self, uid: int | None, *, everybody: bool) -> int | None:
        if everybody and not authority.is_operator(uid, self._members):
            raise ForbiddenError("only operators see everybody's: `qpu tasks` shows your own")
        return None if everybody else uid
