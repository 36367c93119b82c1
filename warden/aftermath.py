"""What becomes of a task when a run of it is over: done, to be continued, to be repeated, or failed. Pure.

`results` says what of the worker's word counts; here it is accounted for, and the QPU's `health` hears of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from warden import results
from warden.ledger import told
from warden.model import SECOND, TaskStatus

if TYPE_CHECKING:
    from warden import orders
    from warden.events import Settings
    from warden.health import Health
    from warden.ledger import Ledger
    from warden.model import Micros, Run, Task
    from warden.planner import Planner

replace = msgspec.structs.replace

# A task whose runs end again and again without a shot, or without a result, would keep the QPU from everybody.
_FRUITLESS_RUNS = 3
_REPEATS = 5


class Aftermath:
    """Settles runs that are over, each of them once."""

    def __init__(self, settings: Settings, ledger: Ledger, planner: Planner, health: Health) -> None:
        self._settings = settings
        self._ledger = ledger
        self._planner = planner
        self._health = health

    def settle(self, task: Task, run: Run, finished: orders.RunFinished, now: Micros, *, stopping: bool) -> None:
        """Account for a run that has ended, and decide what becomes of its task."""
        time = min(finished.time, max(0, now - run.started))
        refused = bool(finished.error) and finished.fault != "device"
        failure = "" if refused else results.problem(task, run, finished, now, stopping=stopping)
        shots = 0 if refused or failure else finished.shots
        self._ledger.account(task, now, shots=shots, qpu_time=time)
        self._planner.count_shots(shots)
        outcome = "failed" if failure else "refused" if refused else "whole" if shots == run.shots else "cut"
        self._ledger.note_run("run ended", task, run, shots=shots, seconds=time / SECOND, outcome=outcome)
        task = replace(task, run=None, qpu_time=task.qpu_time + time, runs=task.runs + 1)
        if failure:
            self.repeat(task, f"run {task.runs} failed: {failure}", now)
            return
        if shots:
            self._health.succeeded()
        elif not stopping:
            # Everybody reads this reason, and a task's error may quote its sequence.
            what = "by the fault of its task, as the QPU says" if refused else "it ended at its limit without a shot"
            self._health.failed(what, now, blamed=task.uid)
        if task.status.final:
            self._ledger.keep_task(told(task, f"run {task.runs} stopped", now))
            return
        counts = results.merged(task.counts, finished.counts) if shots else task.counts
        text = f"{shots} of {run.shots} shots in {time / SECOND:.3f} s"
        fruitless = 0 if shots or stopping else task.fruitless + 1
        task = replace(task, counts=counts, shots_done=task.shots_done + shots, fruitless=fruitless)
        task = replace(task, metadata=results.metadata(task, finished, self._settings.name) if shots else task.metadata)
        for line in (*results.lines(finished), text):
            task = told(task, f"run {task.runs}: {line}", now)
        kept = None if refused else results.in_order(task, run, finished)
        if refused:
            self._ledger.finish_task(task, TaskStatus.FAILED, finished.error, now)
        elif task.shots_left == 0:
            self._ledger.finish_task(task, TaskStatus.COMPLETED, "", now, kept)
        elif fruitless >= _FRUITLESS_RUNS:
            error = f"{fruitless} runs in a row ended at their limit without a shot: it takes longer than a run may"
            self._ledger.finish_task(task, TaskStatus.FAILED, error, now)
        else:
            self._ledger.keep_task(replace(task, status=TaskStatus.QUEUED, since=now), bitstrings=kept)

    def repeat(self, task: Task, what: str, now: Micros) -> None:
        """The run did not count: its task waits for another one, or has had too many."""
        self._health.failed(what, now)
        if task.status.final:
            self._ledger.keep_task(told(task, what, now))
            return
        task = replace(task, repeats=task.repeats + 1)
        if task.repeats <= _REPEATS:
            task = told(task, f"{what} and will be repeated", now)
            self._ledger.keep_task(replace(task, status=TaskStatus.QUEUED, since=now))
        else:
            error = f"the QPU failed in {task.repeats} of its runs, the last time: {what}"
            self._ledger.finish_task(task, TaskStatus.FAILED, error, now)
