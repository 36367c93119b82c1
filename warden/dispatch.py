"""The QPU's side of the state machine: its worker, and the one run that it is at. Pure.

A run belongs to the worker from StartRun until the worker says what became of it, also when its task was cancelled
meanwhile: the QPU is free when the worker says so, not when we wish it. Only a worker that comes without the run
proves that it is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from warden import policy, wire
from warden.events import Remembered, Reported, Settings, Tell
from warden.model import SECOND, Micros, Run, Task, TaskStatus, clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from warden.calibration import Calendar
    from warden.ledger import Ledger

replace = msgspec.structs.replace

# A task whose runs end again and again without a shot, or with the loss of the worker, would keep the QPU from
# everybody. Windows that operators open may end a few runs early.
_FRUITLESS_RUNS = 10
_REPEATS = 5


class Worker(msgspec.Struct, frozen=True):
    """A worker that said hello and still shows that it lives."""

    peer: bytes
    instance: str
    device: str
    device_name: str
    qubits: int
    seen: Micros


class _Active(msgspec.Struct, frozen=True):
    """The run that the QPU is at. `stopping`: the worker was told to stop."""

    task: int
    run: Run
    stopping: bool = False


class Dispatcher:
    """Hands runs to the worker, one at a time, and takes back what came of them."""

    def __init__(self, settings: Settings, ledger: Ledger, new_id: Callable[[], str], remembered: Remembered) -> None:
        self.worker: Worker | None = None
        self._settings = settings
        self._ledger = ledger
        self._new_id = new_id
        runs = (_Active(task.id, task.run, task.status.final) for task in remembered.tasks if task.run is not None)
        self._active = next(runs, None)

    def times(self) -> list[Micros]:
        """When the worker's silence becomes its loss."""
        return [] if self.worker is None else [self.worker.seen + self._silence]

    # --- what the worker says ---

    def handle(self, reported: Reported, now: Micros) -> None:
        match reported.body:
            case wire.WorkerHello() as hello:
                self._hello(reported.peer, hello, now)
            case wire.WorkerBeat() as beat:
                self._beat(reported.peer, beat, now)
            case wire.RunFinished() as finished:
                self._finished(reported.peer, finished, now)
            case _:
                pass

    def _hello(self, peer: bytes, hello: wire.WorkerHello, now: Micros) -> None:
        if self.worker is not None and self.worker.instance != hello.instance:
            self._tell(peer, wire.Unwelcome(text="this QPU has a worker already, and it is alive"))
            return
        self.worker = Worker(peer, hello.instance, hello.device, hello.device_name, hello.qubits, now)
        self._tell(peer, wire.Welcome(interval=self._settings.heartbeat))
        self._ledger.note("worker connected", instance=hello.instance, device=hello.device_name)
        active = self._active
        if active is not None and active.run.token != hello.token:
            self._lose(active, now)
        elif hello.token and (active is None or active.stopping):
            self._tell(peer, wire.StopRun(token=hello.token))

    def _beat(self, peer: bytes, beat: wire.WorkerBeat, now: Micros) -> None:
        if self.worker is None or self.worker.instance != beat.instance:
            # It does not know that we forgot it: we were restarted, or it was silent for too long.
            self._tell(peer, wire.Unwelcome(text="say hello again"))
            return
        self.worker = replace(self.worker, peer=peer, seen=now)
        self._tell(peer, wire.BrokerBeat())
        active = self._active
        if active is None:
            return
        if beat.token != active.run.token and now - active.run.started >= self._silence:
            # Not a beat that crossed StartRun on its way: the order was lost with the connection that it went to.
            self._lose(active, now)
        elif active.stopping:
            self._tell(peer, wire.StopRun(token=active.run.token))

    def _finished(self, peer: bytes, finished: wire.RunFinished, now: Micros) -> None:
        self._tell(peer, wire.ForgetRun(token=finished.token))
        active = self._active
        if active is None or active.run.token != finished.token:
            self._ledger.note("stale result dropped", token=finished.token)
            return
        if self.worker is not None and self.worker.instance == finished.instance:
            self.worker = replace(self.worker, seen=now)
        self._active = None
        task = self._ledger.task(active.task)
        if task is not None:
            self._settle(task, active.run, finished, now)

    def _settle(self, task: Task, run: Run, finished: wire.RunFinished, now: Micros) -> None:
        """Account for a run that has ended, and decide what becomes of its task."""
        time = min(finished.time, max(0, now - run.started))
        problem = finished.error or _misfit(task, run, finished)
        shots = 0 if problem else finished.shots
        self._ledger.account(task, shots=shots, qpu_time=time)
        task = replace(task, run=None, qpu_time=task.qpu_time + time, runs=task.runs + 1)
        if task.status.final:
            self._ledger.keep_task(replace(task, log=(*task.log, f"{clock(now)} run {task.runs} stopped")))
            return
        counts = task.counts if problem else _merged(task.counts, finished.counts)
        line = f"{clock(now)} run {task.runs}: {shots} of {run.shots} shots in {time / SECOND:.3f} s"
        task = replace(task, counts=counts, shots_done=task.shots_done + shots, log=(*task.log, line))
        if problem:
            self._ledger.finish_task(task, TaskStatus.FAILED, problem, now)
        elif task.shots_left == 0:
            self._ledger.finish_task(task, TaskStatus.COMPLETED, "", now)
        elif shots == 0 and task.runs + task.repeats >= _FRUITLESS_RUNS and task.shots_done == 0:
            error = f"{task.runs} runs ended without a shot: no gap is long enough"
            self._ledger.finish_task(task, TaskStatus.FAILED, error, now)
        else:
            self._ledger.keep_task(replace(task, status=TaskStatus.QUEUED))

    def _lose(self, active: _Active, now: Micros) -> None:
        """The worker came without the run that it had: it will never end, so it has to be repeated."""
        self._active = None
        task = self._ledger.task(active.task)
        if task is None:
            return
        if task.status.final:
            self._ledger.keep_task(replace(task, run=None))
            return
        self._ledger.note("run lost", task=task.id)
        repeats = task.repeats + 1
        again = repeats <= _REPEATS
        line = f"{clock(now)} run {task.runs + 1} was lost with its worker" + (" and will be repeated" if again else "")
        task = replace(task, run=None, repeats=repeats, log=(*task.log, line))
        if again:
            self._ledger.keep_task(replace(task, status=TaskStatus.QUEUED))
        else:
            error = f"the QPU's worker was lost in {repeats} of its runs: ask the operator what it does to the worker"
            self._ledger.finish_task(task, TaskStatus.FAILED, error, now)

    # --- what the core wants ---

    def pass_time(self, calendar: Calendar, now: Micros) -> None:
        """Notice a silent worker, and end the run when a window has opened."""
        if self.worker is not None and now >= self.worker.seen + self._silence:
            self._ledger.note("worker lost", instance=self.worker.instance, seen=self.worker.seen)
            self.worker = None
        if self._active is not None and calendar.block(now) is not None:
            self._stop(self._active)

    def start(self, calendar: Calendar, now: Micros) -> None:
        """Start the next run, if the QPU is free and something fits before the next window."""
        if self._active is not None or self.worker is None or calendar.block(now) is not None:
            return
        task = policy.next_task(self._ledger.queued())
        if task is None:
            return
        window = calendar.next(now)
        gap = None if window is None else window.start - now
        shots = policy.shots_that_fit(task, self._settings.timing, gap)
        if shots == 0:
            return
        deadline = None if window is None else window.start
        run = Run(token=self._new_id(), first_shot=task.shots_done, shots=shots, started=now, deadline=deadline)
        self._active = _Active(task.id, run)
        line = f"{clock(now)} run {task.runs + 1} started: {shots} shots from shot {run.first_shot}"
        started = now if task.started is None else task.started
        self._ledger.keep_task(
            replace(task, status=TaskStatus.RUNNING, run=run, started=started, log=(*task.log, line))
        )
        self._tell(
            self.worker.peer,
            wire.StartRun(
                token=run.token, task=task.id, sequence="", first_shot=run.first_shot, shots=shots, limit=gap
            ),
        )

    def cancel(self, task: Task) -> None:
        """Have the worker stop the task's run, if it is at it."""
        if self._active is not None and self._active.task == task.id:
            self._stop(self._active)

    def _stop(self, active: _Active) -> None:
        if active.stopping:
            return
        self._active = replace(active, stopping=True)
        if self.worker is not None:
            self._tell(self.worker.peer, wire.StopRun(token=active.run.token))

    def _tell(self, peer: bytes, body: wire.Message) -> None:
        self._ledger.add(Tell(peer, body))

    @property
    def _silence(self) -> Micros:
        return 3 * self._settings.heartbeat


def _merged(counts: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    return {bits: counts.get(bits, 0) + more.get(bits, 0) for bits in {**counts, **more}}


def _misfit(task: Task, run: Run, finished: wire.RunFinished) -> str:
    """Why a result cannot be true, or nothing. What a worker says is checked like what a user says."""
    if finished.shots > run.shots:
        return f"the QPU returned {finished.shots} shots where {run.shots} were asked for"
    if sum(finished.counts.values()) != finished.shots:
        return "the QPU returned counts that do not add up to its shots"
    if any(len(bits) != task.qubits for bits in finished.counts):
        return "the QPU returned bitstrings of another length than the register"
    return ""
