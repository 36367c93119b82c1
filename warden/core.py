"""The state machine: an event and a time in, effects out. No socket, no file, no clock, no randomness lives here.

    task:  queued ──► running ──► completed | failed | cancelled
             ▲           │
             └───────────┘   cut by a window, or the run was lost

A run belongs to the worker from StartRun until the worker says what became of it, also when its task was cancelled
meanwhile: the QPU is free when the worker says so, not when we wish it. Only a worker that comes without the run
proves that it is lost.

Effects are carried out in order by the broker: first everything is kept and committed, then everything is sent.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import msgspec

from warden import authority, policy, wire
from warden.events import (
    Answer,
    Archive,
    Asked,
    Effect,
    Event,
    Keep,
    KeepWindows,
    Note,
    Refuse,
    Remembered,
    Reported,
    Settings,
    Tell,
    Tick,
)
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
    Run,
    Session,
    State,
    Task,
    TaskStatus,
    UnavailableError,
    WardenError,
    Window,
)
from warden.sequence import inspect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from warden.calibration import Calendar

replace = msgspec.structs.replace

# A task whose runs end again and again without a shot would keep the QPU from everybody.
_FRUITLESS_RUNS = 3
# The end of the year 2999.
_LATEST: Micros = 32_503_680_000 * SECOND


class _Worker(msgspec.Struct, frozen=True):
    peer: bytes
    instance: str
    device: str
    device_name: str
    qubits: int
    seen: Micros


class _Active(msgspec.Struct, frozen=True):
    """The run that the QPU is at. `stopping`: it was told to stop; `cut`: for a window, so its shots count."""

    task: int
    run: Run
    stopping: bool = False


class _Waiter(msgspec.Struct, frozen=True):
    asked: Asked
    task: int
    until: Micros


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
        self.settings = settings
        self._calendar = replace(calendar, single=remembered.windows)
        self._archive = archive
        self._new_id = new_id
        self._sessions = {session.id: session for session in remembered.sessions}
        self._tasks = {task.id: task for task in remembered.tasks if not task.status.final}
        self._next_task = remembered.next_task
        self._keys = dict(remembered.keys)
        runs = (_Active(t.id, t.run, t.status.final) for t in remembered.tasks if t.run is not None)
        self._active = next(runs, None)
        self._worker: _Worker | None = None
        self._waiters: list[_Waiter] = []
        self._effects: list[Effect] = []

    def handle(self, event: Event, now: Micros) -> list[Effect]:
        """Take in one event and return what is to be done about it, in order."""
        self._effects = []
        match event:
            case Asked():
                self._asked(event, now)
            case Reported():
                self._reported(event, now)
            case Tick():
                pass
        self._pass_time(now)
        self._start_run(now)
        return self._effects

    def next_wakeup(self, now: Micros) -> Micros | None:
        """When something changes by itself: the broker sends a Tick then."""
        times = [session.expires for session in self._sessions.values()]
        times += [waiter.until for waiter in self._waiters]
        if self._worker is not None:
            times.append(self._worker.seen + self._silence)
        block = self._calendar.block(now)
        window = block or self._calendar.next(now)
        if window is not None:
            times += [time for time in (window.start, window.end) if time is not None and time > now]
        return min(times, default=None)

    def availability(self, now: Micros) -> Availability:
        state, reason, until = self._state(now)
        return Availability(
            name=self.settings.name,
            state=state,
            reason=reason,
            until=until,
            places=self.settings.places,
            used=len(self._sessions),
            queued=sum(task.status is TaskStatus.QUEUED for task in self._tasks.values()),
            next_window=self._calendar.next(now),
            qubits=self._qubits,
            time=now,
        )

    # --- requests ---

    def _asked(self, asked: Asked, now: Micros) -> None:
        try:
            authority.check(asked.body, asked.uid, self.settings.operators)
            self._answer(asked, now)
        except WardenError as error:
            self._effects.append(Refuse(asked, error))

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
                    self._waiters.append(_Waiter(asked, number, now + wait))
                    return
                result = _public(task)
            case wire.TaskStop(task=number):
                result = _public(self._task_stop(asked.uid, number, now))
            case wire.ListTasks() as body:
                uid = self._whose(asked.uid, everybody=body.everybody)
                result = [_public(t) for t in self._archive.tasks(uid=uid, session=body.session, limit=body.limit)]
            case wire.ListSessions() as body:
                uid = self._whose(asked.uid, everybody=body.everybody)
                result = self._archive.sessions(uid=uid, job=body.job, ended=body.ended, limit=body.limit)
            case wire.AddWindow() as body:
                result = self._add_window(asked.uid, body, now)
            case wire.CancelWindow(start=start):
                result = self._cancel_window(asked.uid, start, now)
            case wire.Resume():
                result = self._resume(asked.uid, now)
            case other:
                raise BadRequestError(f"{type(other).__name__} is no request that the broker answers here")
        self._effects.append(Answer(asked, result))

    def _acquire(self, uid: int | None, body: wire.Acquire, now: Micros) -> Session:
        for session in self._sessions.values():
            if session.job == body.job and session.uid == body.uid and uid in {authority.ROOT, session.uid}:
                return self._renewed(replace(session, host=body.host or session.host), now, always=True)
        if uid != authority.ROOT:
            raise ForbiddenError("a session comes from the scheduler: submit the job with `qsub -l qpu=1`")
        for stale in [s for s in self._sessions.values() if s.job == body.job]:
            self._end_session(stale, "its job number belongs to another user now", now)
        state, reason, until = self._state(now)
        if state is not State.READY:
            raise BusyError(f"the QPU {self.settings.name} is {state}{_until(until)}: {reason}")
        if len(self._sessions) >= self.settings.places:
            raise BusyError(
                f"all places on the QPU {self.settings.name} are taken ({len(self._sessions)} of {self.settings.places})"
            )
        session = Session(
            id=self._new_id(),
            uid=body.uid,
            job=body.job,
            host=body.host,
            acquired=now,
            expires=now + self.settings.lease,
        )
        self._keep_session(session)
        self._note("session acquired", session=session.id, job=session.job, uid=session.uid, host=session.host)
        return session

    def _release(self, uid: int | None, identifier: str, now: Micros) -> Session:
        session = self._sessions.get(identifier) or self._archive.session(identifier)
        if session is None or not self._owns(uid, session.uid):
            raise NotFoundError("there is no such session of yours")
        return session if session.ended is not None else self._end_session(session, "released", now)

    def _renew(self, host: str, jobs: frozenset[str], now: Micros) -> int:
        renewed = [session for session in self._sessions.values() if session.job in jobs]
        for session in renewed:
            self._renewed(replace(session, host=host), now)
        return len(renewed)

    def _task_start(self, uid: int | None, body: wire.TaskStart, now: Micros) -> Task:
        session = self._sessions.get(body.session) or self._archive.session(body.session)
        if session is None or session.uid != uid:
            raise ForbiddenError("there is no such session of yours: submit the job with `qsub -l qpu=1`")
        if session.ended is not None:
            raise ForbiddenError(f"the session has ended: {session.end_reason}")
        known = self._keys.get((session.id, body.key))
        if known is not None:
            return _public(self._visible(uid, known, now))
        limits = self.settings
        if not 1 <= body.shots <= limits.max_shots:
            raise BadRequestError(f"shots must be between 1 and {limits.max_shots}, not {body.shots}")
        if len(body.sequence.encode()) > limits.max_sequence:
            raise LimitError(f"the sequence is larger than {limits.max_sequence} bytes")
        qubits = inspect(body.sequence, device=self._worker.device_name if self._worker else None, qubits=self._qubits)
        waiting = [task for task in self._tasks.values() if task.status is TaskStatus.QUEUED]
        if len(waiting) >= limits.max_queued:
            raise LimitError(f"{len(waiting)} tasks wait for the QPU already: try again later")
        if sum(task.uid == uid for task in waiting) >= limits.max_queued_per_user:
            raise LimitError(f"{limits.max_queued_per_user} of your tasks wait for the QPU already: wait for some")
        if self._never_fits(now):
            raise BadRequestError("not one shot fits between two calibration windows of this QPU: ask its operator")
        task = Task(
            id=self._next_task,
            session=session.id,
            uid=session.uid,
            shots=body.shots,
            qubits=qubits,
            key=body.key,
            submitted=now,
            log=(f"{_clock(now)} queued: {body.shots} shots on {qubits} qubits",),
        )
        self._next_task += 1
        self._keys[session.id, body.key] = task.id
        self._keep_task(task, body.sequence)
        self._keep_session(replace(self._sessions[session.id], tasks=session.tasks + 1))
        self._renewed(self._sessions[session.id], now)
        self._note("task queued", task=task.id, session=session.id, uid=task.uid, shots=task.shots)
        return _public(task)

    def _task_stop(self, uid: int | None, number: int, now: Micros) -> Task:
        task = self._visible(uid, number, now)
        return task if task.status.final else self._cancel(task, "stopped by its user", now)

    def _target(self) -> str:
        if self._worker is None:
            raise UnavailableError("the QPU's worker is not there, so its device is not known: try again later")
        return self._worker.device

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
        self._keep_windows(self._calendar.with_window(window), now)
        self._note("window added", by=uid, start=start, end=end, kind=window.kind, reason=window.reason)
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
        self._note("window cancelled", by=uid, start=start)
        return found[0]

    def _resume(self, uid: int | None, now: Micros) -> Availability:
        drains = [w for w in self._calendar.single if w.kind is State.MAINTENANCE and w.covers(now)]
        if not drains:
            raise ConflictError("no maintenance is on: there is nothing to resume from")
        calendar = self._calendar
        for window in drains:
            calendar = calendar.without(window)
        self._keep_windows(calendar, now)
        self._note("resumed", by=uid)
        return self.availability(now)

    # --- the worker ---

    def _reported(self, reported: Reported, now: Micros) -> None:
        match reported.body:
            case wire.WorkerHello() as hello:
                self._worker_hello(reported.peer, hello, now)
            case wire.WorkerBeat() as beat:
                self._worker_beat(reported.peer, beat, now)
            case wire.RunFinished() as finished:
                self._run_finished(reported.peer, finished, now)
            case _:
                pass

    def _worker_hello(self, peer: bytes, hello: wire.WorkerHello, now: Micros) -> None:
        if self._worker is not None and self._worker.instance != hello.instance:
            self._effects.append(Tell(peer, wire.Unwelcome(text="this QPU has a worker already, and it is alive")))
            return
        self._worker = _Worker(peer, hello.instance, hello.device, hello.device_name, hello.qubits, now)
        self._effects.append(Tell(peer, wire.Welcome(interval=self.settings.heartbeat)))
        self._note("worker connected", instance=hello.instance, device=hello.device_name)
        if self._active is not None and self._active.run.token != hello.token:
            self._run_lost(now)
        elif (self._active is None and hello.token) or (self._active is not None and self._active.stopping):
            self._effects.append(Tell(peer, wire.StopRun(token=hello.token)))

    def _worker_beat(self, peer: bytes, beat: wire.WorkerBeat, now: Micros) -> None:
        if self._worker is None or self._worker.instance != beat.instance:
            # It does not know that we forgot it: we were restarted, or it was silent for too long.
            self._effects.append(Tell(peer, wire.Unwelcome(text="say hello again")))
            return
        self._worker = replace(self._worker, peer=peer, seen=now)
        self._effects.append(Tell(peer, wire.BrokerBeat()))
        active = self._active
        if active is not None and beat.token != active.run.token and now - active.run.started >= self._silence:
            # Not a beat that crossed StartRun on its way: the order was lost with the connection that it went to.
            self._run_lost(now)
        elif active is not None and active.stopping:
            self._effects.append(Tell(peer, wire.StopRun(token=active.run.token)))

    def _run_finished(self, peer: bytes, finished: wire.RunFinished, now: Micros) -> None:
        self._effects.append(Tell(peer, wire.ForgetRun(token=finished.token)))
        active = self._active
        if active is None or active.run.token != finished.token:
            self._note("stale result dropped", token=finished.token)
            return
        if self._worker is not None and self._worker.instance == finished.instance:
            self._worker = replace(self._worker, seen=now)
        self._active = None
        task = self._tasks.get(active.task) or self._archive.task(active.task)
        if task is None:
            return
        time = min(finished.time, max(0, now - active.run.started))
        problem = finished.error or _misfit(task, active.run, finished)
        shots = 0 if problem else finished.shots
        self._account(task, shots, time)
        task = replace(task, run=None, qpu_time=task.qpu_time + time, runs=task.runs + 1)
        if task.status.final:
            self._keep_task(replace(task, log=(*task.log, f"{_clock(now)} run {task.runs} stopped")))
            return
        counts = dict(task.counts)
        for bits, count in finished.counts.items() if not problem else ():
            counts[bits] = counts.get(bits, 0) + count
        seconds = time / SECOND
        line = f"{_clock(now)} run {task.runs}: {shots} of {active.run.shots} shots in {seconds:.3f} s"
        task = replace(task, counts=counts, shots_done=task.shots_done + shots, log=(*task.log, line))
        if problem:
            self._finish(task, TaskStatus.FAILED, problem, now)
        elif task.shots_left == 0:
            self._finish(task, TaskStatus.COMPLETED, "", now)
        elif shots == 0 and task.runs + task.repeats >= _FRUITLESS_RUNS and task.shots_done == 0:
            self._finish(task, TaskStatus.FAILED, f"{task.runs} runs ended without a shot: no gap is long enough", now)
        else:
            self._keep_task(replace(task, status=TaskStatus.QUEUED))

    def _run_lost(self, now: Micros) -> None:
        """The worker came without the run that it had: it will never end, so it has to be repeated."""
        active, self._active = self._active, None
        if active is None:
            return
        task = self._tasks.get(active.task)
        if task is None:
            ended = self._archive.task(active.task)
            if ended is not None:
                self._keep_task(replace(ended, run=None))
            return
        line = f"{_clock(now)} run {task.runs + 1} was lost with its worker and will be repeated"
        self._keep_task(
            replace(task, run=None, status=TaskStatus.QUEUED, repeats=task.repeats + 1, log=(*task.log, line))
        )
        self._note("run lost", task=task.id)

    # --- what time does ---

    def _pass_time(self, now: Micros) -> None:
        if self._worker is not None and now >= self._worker.seen + self._silence:
            self._note("worker lost", instance=self._worker.instance, seen=self._worker.seen)
            self._worker = None
        for session in [s for s in self._sessions.values() if s.expires <= now]:
            self._end_session(session, "its lease ran out: nobody has seen its job", now)
        if self._active is not None and not self._active.stopping and self._calendar.block(now) is not None:
            self._stop_active()
        for waiter in [w for w in self._waiters if w.until <= now]:
            self._waiters.remove(waiter)
            self._effects.append(Answer(waiter.asked, _public(self._tasks[waiter.task])))

    def _start_run(self, now: Micros) -> None:
        if self._active is not None or self._worker is None or self._calendar.block(now) is not None:
            return
        task = policy.next_task(t for t in self._tasks.values() if t.status is TaskStatus.QUEUED)
        if task is None:
            return
        window = self._calendar.next(now)
        gap = None if window is None else window.start - now
        shots = policy.shots_that_fit(task, self.settings.timing, gap)
        if shots == 0:
            return
        deadline = None if window is None else window.start
        run = Run(token=self._new_id(), first_shot=task.shots_done, shots=shots, started=now, deadline=deadline)
        self._active = _Active(task.id, run)
        line = f"{_clock(now)} run {task.runs + 1} started: {shots} shots from shot {run.first_shot}"
        started = now if task.started is None else task.started
        self._keep_task(
            replace(task, status=TaskStatus.RUNNING, run=run, started=started, log=(*task.log, line)),
        )
        self._effects.append(
            Tell(
                self._worker.peer,
                wire.StartRun(
                    token=run.token, task=task.id, sequence="", first_shot=run.first_shot, shots=shots, limit=gap
                ),
            )
        )

    def _stop_active(self) -> None:
        if self._active is None:
            return
        self._active = replace(self._active, stopping=True)
        if self._worker is not None:
            self._effects.append(Tell(self._worker.peer, wire.StopRun(token=self._active.run.token)))

    # --- sessions and tasks ---

    def _end_session(self, session: Session, reason: str, now: Micros) -> Session:
        for task in [t for t in self._tasks.values() if t.session == session.id]:
            self._cancel(task, f"its session ended: {reason}", now)
        ended = replace(self._sessions.pop(session.id), ended=now, end_reason=reason)
        self._keys = {key: task for key, task in self._keys.items() if key[0] != session.id}
        self._effects.append(Keep(ended))
        self._note("session ended", session=ended.id, job=ended.job, uid=ended.uid, reason=reason)
        return ended

    def _cancel(self, task: Task, reason: str, now: Micros) -> Task:
        if self._active is not None and self._active.task == task.id and not self._active.stopping:
            self._stop_active()
        return self._finish(task, TaskStatus.CANCELLED, reason, now)

    def _finish(self, task: Task, status: TaskStatus, error: str, now: Micros) -> Task:
        line = f"{_clock(now)} {status}" + (f": {error}" if error else f" in {task.runs} run{'s'[: task.runs != 1]}")
        task = replace(task, status=status, finished=now, error=error, log=(*task.log, line))
        self._account_wait(task, now)
        self._keep_task(task)
        self._note("task ended", task=task.id, status=status, error=error)
        for waiter in [w for w in self._waiters if w.task == task.id]:
            self._waiters.remove(waiter)
            self._effects.append(Answer(waiter.asked, _public(task)))
        return task

    def _account(self, task: Task, shots: int, time: Micros) -> None:
        session = self._sessions.get(task.session) or self._archive.session(task.session)
        if session is not None:
            self._keep_session(replace(session, shots=session.shots + shots, qpu_time=session.qpu_time + time))

    def _account_wait(self, task: Task, now: Micros) -> None:
        session = self._sessions.get(task.session)
        if session is not None:
            waited = (now if task.started is None else task.started) - task.submitted
            self._keep_session(replace(session, wait_time=session.wait_time + waited))

    def _renewed(self, session: Session, now: Micros, *, always: bool = False) -> Session:
        expires = now + self.settings.lease
        # Each poll of a client renews; a commit for each would be waste.
        if always or expires - session.expires > self.settings.lease // 8:
            session = replace(session, expires=expires)
            self._keep_session(session)
        return session

    def _visible(self, uid: int | None, number: int, now: Micros) -> Task:
        task = self._tasks.get(number) or self._archive.task(number)
        if task is None or not self._owns(uid, task.uid):
            raise NotFoundError("there is no such task of yours")
        session = self._sessions.get(task.session)
        if session is not None and session.uid == uid:
            self._renewed(session, now)
        return task

    def _owns(self, uid: int | None, owner: int) -> bool:
        return uid == owner or authority.is_operator(uid, self.settings.operators)

    def _whose(self, uid: int | None, *, everybody: bool) -> int | None:
        if everybody and not authority.is_operator(uid, self.settings.operators):
            raise ForbiddenError("only operators see everybody's: leave out --all to see your own")
        return None if everybody else uid

    def _keep_session(self, session: Session) -> None:
        if session.ended is None:
            self._sessions[session.id] = session
        self._effects.append(Keep(session))

    def _keep_task(self, task: Task, sequence: str | None = None) -> None:
        if task.status.final:
            self._tasks.pop(task.id, None)
        else:
            self._tasks[task.id] = task
        self._effects.append(Keep(task, sequence))

    def _keep_windows(self, calendar: Calendar, now: Micros) -> None:
        ahead = tuple(window for window in calendar.single if window.end is None or window.end > now)
        self._calendar = replace(calendar, single=ahead)
        self._effects.append(KeepWindows(ahead))

    def _note(self, event: str, **facts: Any) -> None:
        self._effects.append(Note(event, facts))

    # --- the state of the QPU ---

    def _state(self, now: Micros) -> tuple[State, str, Micros | None]:
        """What the QPU is doing, why, and until when. A planned maintenance explains a missing worker."""
        block = self._calendar.block(now)
        if block is not None and block.kind is State.MAINTENANCE:
            return block.kind, block.reason, block.end
        if self._worker is None:
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
        return all(self.settings.timing.shots_within(gap) == 0 for gap in gaps)

    @property
    def _qubits(self) -> int:
        return min(self.settings.qubits, self._worker.qubits if self._worker else self.settings.qubits)

    @property
    def _silence(self) -> Micros:
        return 3 * self.settings.heartbeat


def _gaps(windows: Iterable[Window]) -> list[Micros]:
    gaps, end = [], None
    for window in windows:
        if end is not None:
            gaps.append(window.start - end)
        end = window.end
    return gaps


def _misfit(task: Task, run: Run, finished: wire.RunFinished) -> str:
    """Why a result cannot be true, or nothing. What a worker says is checked like what a user says."""
    if finished.shots > run.shots:
        return f"the QPU returned {finished.shots} shots where {run.shots} were asked for"
    if sum(finished.counts.values()) != finished.shots:
        return "the QPU returned counts that do not add up to its shots"
    if any(len(bits) != task.qubits for bits in finished.counts):
        return "the QPU returned bitstrings of another length than the register"
    return ""


def _public(task: Task) -> Task:
    """The task as its user sees it: counts once they are complete, nothing of the broker's own."""
    counts = task.counts if task.status is TaskStatus.COMPLETED else {}
    return replace(task, counts=counts, key="", run=None)


def _clock(time: Micros) -> str:
    return dt.datetime.fromtimestamp(time // SECOND, tz=dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _until(time: Micros | None) -> str:
    return "" if time is None else f" until {_clock(time)}"
