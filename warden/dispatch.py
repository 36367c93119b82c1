"""The QPU's side of the state machine: its worker, and the one run that it is at (or calibration: `calibrator`). Pure.

A run belongs to the worker from StartRun until the worker says what became of it, also when its task was cancelled
meanwhile: the QPU is free when the worker says so, not when we wish it. A run is given up only when a worker comes
without it, or keeps it beyond all limits; a worker that gets another order drops what it had. `aftermath` says what becomes
of the task of a run that is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from warden import admission, orders, policy, results, wire
from warden.aftermath import Aftermath
from warden.calibrator import Calibrator
from warden.events import Device, Garbled, Keep, Remembered, Reported, Settings, Tell
from warden.gauge import SAMPLED, Gauge
from warden.health import Health
from warden.ledger import told
from warden.model import SECOND, BadRequestError, LimitError, Micros, Run, Task, TaskStatus, brief, clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from warden.ledger import Ledger
    from warden.planner import Planner

replace = msgspec.structs.replace

# So often a worker that comes back with its run gets time to hand it in.
_RETURNS = 10
# What a worker has beyond a run's limit, on top of the time in which its silence is noticed, to tell of its end.
_GRACE = 10 * SECOND


class Worker(msgspec.Struct, frozen=True):
    """A worker that said hello and still shows that it lives."""

    peer: bytes
    instance: str
    seen: Micros
    ahead: Micros
    """By how much its own clock is ahead of ours, at the least: what it said of it was under way for a while."""
    quality: float | None = None
    """How good the QPU is, if it says so."""


class _Active(msgspec.Struct, frozen=True):
    """The run that the QPU is at. `stopping`: the worker was told to stop. `patience`: then it is given up.

    `astray`: since when the worker seems not to know of it.
    """

    task: int
    run: Run
    patience: Micros
    stopping: bool = False
    returns: int = 0
    astray: Micros | None = None


class Dispatcher:
    """Hands runs to the worker, one at a time, and takes back what came of them."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        planner: Planner,
        new_id: Callable[[], str],
        remembered: Remembered,
    ) -> None:
        self.worker: Worker | None = None
        self.device = remembered.device
        self.health = Health(settings.failures, settings.retry)
        self._settings = settings
        self._ledger = ledger
        self._planner = planner
        self._new_id = new_id
        self._active: _Active | None = None
        self.calibrator = Calibrator(ledger, planner, new_id, remembered, grace=self._silence + _GRACE)
        self._aftermath = Aftermath(settings, ledger, planner, self.health)
        self._gauge = Gauge(ledger, planner, every=settings.timing.scaled(SAMPLED))
        # Until then only the worker that we knew is taken: it may be at work, and needs some time to say so.
        self._awaited: Micros | None = None
        # The task that the QPU was at last, and whether it had waited for too long.
        self._last: tuple[int, bool] = (0, False)
        for task in remembered.tasks:
            if task.run is not None:
                self._active = _Active(task.id, task.run, self._patience(task.run), task.status.final)

    def times(self) -> list[Micros]:
        """When the worker's silence becomes its loss, its run is overdue, or the QPU is tried again."""
        times = [] if self.health.offline_until is None else [self.health.offline_until]
        times += self.calibrator.times()
        if self.worker is not None:
            times.append(self.worker.seen + self._silence)
            if self._active is not None:
                times.append(self._active.patience)
        return times

    def boundary(self, now: Micros) -> Micros:
        """When the QPU is expected to be done with the task that it is at."""
        task = None if self._active is None else self._ledger.task(self._active.task)
        if self._active is None or task is None:
            return now
        return max(now, self._active.run.started + self._settings.timing.pace_of(task).estimate(task.shots_left))

    def shots_ahead(self) -> int:
        """Shots that the QPU takes until then."""
        task = None if self._active is None else self._ledger.tasks.get(self._active.task)
        return 0 if task is None else task.shots_left

    # --- what the worker says ---

    def handle(self, event: Reported | Garbled, now: Micros) -> None:
        if self._awaited is None:
            self._awaited = now + self._silence
        match event:
            case Garbled(peer=peer, text=text):
                self._garbled(peer, text, now)
            case Reported(peer=peer, body=orders.WorkerHello() as hello):
                self._hello(peer, hello, now)
            case Reported(peer=peer, body=orders.WorkerBeat() as beat):
                self._beat(peer, beat, now)
            case Reported(peer=peer, body=orders.RunFinished() as finished):
                self._finished(peer, finished, now)
            case Reported(peer=peer, body=orders.CalibrationFinished() as finished):
                self._calibrated(peer, finished, now)
            case _:
                pass

    def _hello(self, peer: bytes, hello: orders.WorkerHello, now: Micros) -> None:
        active = self._active
        if self.worker is not None and self.worker.instance != hello.instance:
            self._turn_away(peer, hello.token, "this QPU has a worker already, and it is alive")
            return
        known = active is None or hello.token == active.run.token or hello.instance == active.run.instance
        known = known and self.calibrator.knows(hello.token, hello.instance)
        if self.worker is None and not known and self._awaited is not None and now < self._awaited:
            self._turn_away(peer, hello.token, "another worker may be at a run: its time to say so is not over yet")
            return
        self.worker = Worker(peer, hello.instance, now, hello.clock - now)
        device = Device(name=hello.device_name, specs=hello.device, qubits=hello.qubits)
        if device != self.device:
            self.device = device
            self._ledger.add(Keep(device))
        self._welcome(peer)
        self._ledger.note("worker connected", instance=brief(hello.instance), device=hello.device_name)
        self.calibrator.met(hello.token, hello.instance, now)
        if active is not None and not known:
            self._lose(active, "was lost with its worker", now)
        elif active is not None:
            if active.returns < _RETURNS:
                # It may have been away for longer than the run had.
                patience = max(active.patience, now + self._silence + _GRACE)
                self._active = replace(active, patience=patience, returns=active.returns + 1)
            if active.stopping:
                self._tell(peer, orders.StopRun(token=hello.token))
        elif hello.token and hello.token != self.calibrator.token:
            self._tell(peer, orders.StopRun(token=hello.token))

    def _beat(self, peer: bytes, beat: orders.WorkerBeat, now: Micros) -> None:
        if self.worker is None or self.worker.instance != beat.instance:
            # It does not know that we forgot it: we were restarted, or it was silent for too long.
            self._turn_away(peer, beat.token, "say hello again")
            return
        self.worker = replace(self.worker, peer=peer, seen=now, ahead=beat.clock - now, quality=beat.quality)
        self._tell(peer, orders.BrokerBeat(time=now))
        self.calibrator.shown(beat.token, now, self._silence)
        active = self._active
        if active is None:
            if beat.token and beat.token != self.calibrator.token:
                self._tell(peer, orders.StopRun(token=beat.token))
        elif beat.token != active.run.token:
            self._miss(active, now)
        else:
            self._active = replace(active, astray=None)
            if active.stopping:
                self._tell(peer, orders.StopRun(token=active.run.token))

    def _turn_away(self, peer: bytes, token: str, text: str) -> None:
        """A worker that is not ours; a run that it is at all the same has been given to another one."""
        self._tell(peer, orders.Unwelcome(text=text))
        if token and token != self.calibrator.token and (self._active is None or token != self._active.run.token):
            self._tell(peer, orders.StopRun(token=token))

    def _welcome(self, peer: bytes) -> None:
        self._tell(peer, orders.Welcome(interval=self._settings.heartbeat, calibration=self.calibrator.in_force))

    def _miss(self, active: _Active, now: Micros) -> None:
        """The worker does not know of its run: the order was lost on its way, if this is no news of long ago."""
        if active.astray is None:
            self._active = replace(active, astray=now)
        elif now - active.astray >= self._silence:
            self._lose(active, "was lost on its way to the worker", now)

    def _garbled(self, peer: bytes, text: str, now: Micros) -> None:
        self._ledger.note("garbage from a worker", text=text)
        if self.worker is None or self.worker.peer != peer:
            # Whatever it is, it shall learn that nobody understands it: an older worker, for instance.
            self._tell(peer, orders.Unwelcome(text=f"this broker does not understand: {text}"))
        elif self._active is not None and now - self._active.run.started >= self._silence:
            # Not of the run before, whose result it may have offered twice; one that has just begun shows by its beats.
            self._tell(peer, orders.ForgetRun(token=self._active.run.token))
            self._lose(self._active, f"ended in garbage ({text})", now)

    def _finished(self, peer: bytes, finished: orders.RunFinished, now: Micros) -> None:
        self._tell(peer, orders.ForgetRun(token=finished.token))
        active = self._active
        if active is None or active.run.token != finished.token:
            self._ledger.note("stale result dropped", run=brief(finished.token))
            return
        if self.worker is not None and self.worker.instance == finished.instance:
            self.worker = replace(self.worker, seen=now)
        self._active = None
        task = self._ledger.task(active.task)
        if task is not None:
            self._aftermath.settle(task, active.run, finished, now, stopping=active.stopping)

    def _calibrated(self, peer: bytes, finished: orders.CalibrationFinished, now: Micros) -> None:
        self._tell(peer, orders.ForgetRun(token=finished.token))
        counts, worker = self.calibrator.finished(finished, now), self.worker
        if worker is not None and worker.instance == finished.instance:
            better = counts and worker.quality is not None
            self.worker = replace(worker, seen=now, quality=finished.after if better else worker.quality)
            # It has to know which one is in force from now on.
            self._welcome(peer)

    def _lose(self, active: _Active, what: str, now: Micros) -> None:
        """The run will never end, or not with a result that counts: it has to be repeated."""
        self._active = None
        task = self._ledger.task(active.task)
        if task is not None:
            self._ledger.note_run("run lost", task, active.run)
            self._aftermath.repeat(replace(task, run=None), f"run {task.runs + 1} {what}", now)

    # --- what the core wants ---

    def begin_anew(self, now: Micros) -> None:
        """The broker was away: its worker needs some time to show that it lives, and what it has."""
        self.calibrator.begin_anew(now)
        if self.worker is not None:
            self.worker = replace(self.worker, seen=now)
        else:
            self._awaited = now + self._silence
        if self._active is not None:
            soon = now + self._silence + _GRACE
            # No later than for a run that begins now: the clock may have been set back meanwhile.
            patience = min(max(self._active.patience, soon), soon + self._settings.longest_run)
            self._active = replace(self._active, patience=patience)

    def shift(self, by: Micros) -> None:
        """The clock was set."""
        self.health.shift(by)
        self.calibrator.shift(by)
        if self._awaited is not None:
            self._awaited += by
        if self.worker is not None:
            self.worker = replace(self.worker, seen=self.worker.seen + by, ahead=self.worker.ahead - by)
        if self._active is not None:
            run = self._active.run
            deadline = None if run.deadline is None else run.deadline + by
            run = replace(run, started=run.started + by, deadline=deadline)
            patience = self._active.patience + by
            # Being astray begins anew: that is soon enough.
            self._active = replace(self._active, run=run, patience=patience, astray=None)

    def pass_time(self, now: Micros) -> None:
        """Notice a silent worker and a run that never ends, and end the run when a window has opened."""
        if self.worker is not None and now >= self.worker.seen + self._silence:
            self._ledger.note("worker lost", instance=brief(self.worker.instance), seen=clock(self.worker.seen))
            self.worker = None
        active = self._active
        if active is not None and self.worker is not None and now >= active.patience:
            self._tell(self.worker.peer, orders.StopRun(token=active.run.token))
            self._lose(active, "did not end", now)
        elif active is not None and self._planner.block(now) is not None:
            self._stop(active, now)

    def start(self, now: Micros) -> None:
        """Start what the QPU does next, if it is free: a run, or a calibration in its window."""
        calibration = self.calibrator.in_force
        self._gauge.read(None if self.worker is None else self.worker.quality, calibration, now)
        self.calibrator.pass_time(self.worker, now)
        if not self.calibrator.token and self._planner.block(now) is None:
            self._start_run(now)
        if self._active is None and self.worker is not None:
            self.calibrator.start(self.worker, now)

    def _start_run(self, now: Micros) -> None:
        """Start the next run, if something fits before the next window."""
        while self._active is None and self.worker is not None and not self.health.offline(now):
            task, owed = self._ledger.next_task(now, may_owe=not self._last[1])
            goes_on = task is not None and task.id == self._last[0] and task.shots_done > 0
            if not goes_on:
                self._planner.open_due(now)
            if task is None or self._planner.block(now) is not None or self._start(task, now):
                if self._active is not None:
                    self._last = (self._active.task, owed)
                return

    def _start(self, task: Task, now: Micros) -> bool:
        """Start a run of the task, or fail the task; False: another one may have its turn."""
        session = self._ledger.sessions.get(task.session)
        try:
            admission.check_run(self._settings, self.device, session, task, self._planner.longest_gap, now)
        except (BadRequestError, LimitError) as error:
            self._ledger.finish_task(task, TaskStatus.FAILED, error.text, now)
            return False
        window = self._planner.next(now)
        left = None if session is None else session.time_left
        ends = (None if window is None else window.start, task.deadline, None if left is None else now + left)
        gap = policy.gap_before(self._settings, now, *ends)
        shots = policy.shots_that_fit(task, self._settings.timing, gap)
        if shots == 0 or self.worker is None:
            return True
        run = Run(
            token=self._new_id(),
            first_shot=task.shots_done,
            shots=shots,
            started=now,
            deadline=now + gap,
            instance=self.worker.instance,
        )
        self._active = _Active(task.id, run, self._patience(run))
        if task.started is None:
            task = replace(task, started=now, at=now, calibration=self.calibrator.in_force)
        what = f"{shots} shots from shot {run.first_shot}{results.calibrated(task)}"
        task = told(task, f"run {task.runs + 1} started: {what}", now)
        self._ledger.keep_task(replace(task, status=TaskStatus.RUNNING, run=run))
        order = orders.StartRun(
            token=run.token,
            task=task.id,
            sequence="",
            first_shot=run.first_shot,
            shots=shots,
            issued=max(0, now + self.worker.ahead),
            limit=gap,
            at=task.at,
            calibration=task.calibration,
            bitstrings=task.bitstrings,
        )
        self._tell(self.worker.peer, order)
        self._ledger.note_run("run started", task, run, shots=shots)
        return True

    def cancel(self, task: Task, now: Micros) -> None:
        """Have the worker stop the task's run, if it is at it."""
        if self._active is not None and self._active.task == task.id:
            self._stop(self._active, now)

    def _stop(self, active: _Active, now: Micros) -> None:
        if active.stopping:
            return
        patience = min(active.patience, now + self._silence + _GRACE)
        self._active = replace(active, stopping=True, patience=patience)
        if self.worker is not None:
            self._tell(self.worker.peer, orders.StopRun(token=active.run.token))

    def _tell(self, peer: bytes, body: wire.Message) -> None:
        self._ledger.add(Tell(peer, body))

    def _patience(self, run: Run) -> Micros:
        end = run.started + self._settings.longest_run if run.deadline is None else run.deadline
        return end + self._silence + _GRACE

    @property
    def _silence(self) -> Micros:
        return 3 * self._settings.heartbeat
