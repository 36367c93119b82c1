"""The account of a site's tasks: what the store, the customers and the workers' logs say of them."""

from __future__ import annotations

import collections
import re
from typing import TYPE_CHECKING

from warden_killer import WORKER, Killer, Run, integrity, runs_in, tasks_in

from warden.model import Session, Task, TaskStatus
from warden.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from warden_customers import Customer
    from warden_site import Site

_CONNECTED = re.compile(r" worker connected instance=(\S+)")
_LOST = re.compile(r" run lost task=(\d+) run=(\S+)")
_TRACEBACK = re.compile(r"^Traceback .*\n(?:  .*\n)*.*", re.MULTILINE)
_FRAME = re.compile(r'^  File "(.*)", line', re.MULTILINE)


def sessions_in(path: Path) -> list[Session]:
    store = Store(path)
    try:
        return store.sessions(uid=None, job=None, ended=True, before=None, limit=-1)
    finally:
        store.close()


class Account:
    """What the store, the customers and the workers' logs say of the same tasks. `problems` is empty, or a bug."""

    def __init__(self, site: Site, killer: Killer, customers: Sequence[Customer]) -> None:
        store = site.room / "state" / "warden.db"
        self.problems: list[str] = []
        self.never_arrived = 0
        self.silences = 0
        self.tasks = tasks_in(store)
        self.runs = [run for worker in killer.workers for run in runs_in(worker.log)]
        self._killer = killer
        self._by_task: dict[int, list[Run]] = collections.defaultdict(list)
        for run in self.runs:
            self._by_task[run.task].append(run)
        if (found := integrity(store)) != "ok":
            self._problem(f"the store's integrity: {found}")
        self._customers(customers)
        for task in self.tasks.values():
            self._task(task)
        self._tokens()
        self._sessions(sessions_in(store))
        self._losses(site)
        self._logs(site)

    def __str__(self) -> str:
        shots = sum(task.shots_done for task in self.tasks.values())
        repeats = sum(task.repeats for task in self.tasks.values())
        return (
            f"{len(self.tasks)} tasks, {shots} shots in {len(self.runs)} runs, {repeats} repeats, "
            f"{self.never_arrived} of them of runs that no worker began, {self.silences} workers deemed lost, "
            f"{len(self.problems)} problems"
        )

    def _problem(self, text: str, task: int | None = None) -> None:
        if task is not None:
            log = self.tasks[task].log if task in self.tasks else ()
            lines = [*log, *(f"{run.log}: {run}" for run in self._by_task[task])]
            text = "\n    ".join([text, *lines])
        self.problems.append(text)

    def _customers(self, customers: Sequence[Customer]) -> None:
        told = {told.number: told for customer in customers for told in customer.told}
        if len(told) != sum(len(customer.told) for customer in customers):
            self._problem("two requests with different keys were answered with the same task")
        for number, each in told.items():
            task = self.tasks.get(number)
            if task is None:
                self._problem(f"task {number} was acknowledged and is not there", number)
            elif (each.session, each.shots) != (task.session, task.shots) or each.key not in {"", task.key}:
                self._problem(f"task {number} is not what was asked for: {each}", number)
            elif each.counts != task.counts:
                self._problem(f"task {number} has other counts than its customer was told: {each.counts}", number)
        for number in self.tasks.keys() - told.keys():
            # Nobody gave up while asking, so all that was accepted was answered in the end.
            self._problem(f"task {number} is nobody's: a request was taken twice", number)
        for key, count in collections.Counter((task.session, task.key) for task in self.tasks.values()).items():
            if count > 1:
                self._problem(f"{count} tasks have the key {key}")

    def _task(self, task: Task) -> None:
        if task.status is not TaskStatus.COMPLETED:
            self._problem(f"task {task.id} is {task.status}: {task.error}", task.id)
            return
        if not sum(task.counts.values()) == task.shots_done == task.shots:
            self._problem(f"task {task.id}: {task.counts} are not {task.shots} shots", task.id)
        counted = [re.search(r"run \d+: (\d+) of (\d+) shots in ", line) for line in task.log]
        shots = [int(found[1]) for found in counted if found]
        if len(shots) != task.runs or sum(shots) != task.shots:
            self._problem(f"task {task.id}: its log has runs of {shots} shots, its account {task.runs} runs", task.id)
        if sum(" was lost " in line for line in task.log) != task.repeats:
            self._problem(f"task {task.id}: its log has other losses than its account ({task.repeats})", task.id)
        self._runs_of(task)

    def _runs_of(self, task: Task) -> None:
        """All runs at a worker are in the account, and only a worker's death made any but the last of them."""
        runs = self._by_task[task.id]
        if len(runs) > task.runs + task.repeats:
            self._problem(
                f"task {task.id} ran {len(runs)} times, {task.runs} runs and {task.repeats} repeats are recorded",
                task.id,
            )
        self.never_arrived += max(0, task.runs + task.repeats - len(runs))
        if not runs or runs[-1].done != task.shots:
            self._problem(f"task {task.id} is completed, but no worker's log has the end of its last run", task.id)
        for run in runs[:-1]:
            if run.log not in self._killer.killed or not run.last:
                self._problem(f"task {task.id}: run {run.token} was repeated, but its worker lived on", task.id)

    def _tokens(self) -> None:
        for token, count in collections.Counter(run.token for run in self.runs).items():
            if count > 1:
                logs = [run.log for run in self.runs if run.token == token]
                self._problem(f"run {token} was begun {count} times: {logs}")
        repeats = sum(task.repeats for task in self.tasks.values())
        if repeats > self._killer.kills[WORKER]:
            self._problem(f"{repeats} repeats, but only {self._killer.kills[WORKER]} workers were killed")

    def _sessions(self, sessions: list[Session]) -> None:
        for session in sessions:
            tasks = [task for task in self.tasks.values() if task.session == session.id]
            expected = {
                "tasks": len(tasks),
                "shots": sum(task.shots_done for task in tasks),
                "qpu_time": sum(task.qpu_time for task in tasks),
                "wait_time": sum((task.started or 0) - task.submitted for task in tasks),
            }
            for name, value in expected.items():
                if getattr(session, name) != value:
                    self._problem(f"{session.id}: {name} is {getattr(session, name)}, its tasks have {value}")

    def _losses(self, site: Site) -> None:
        """A run is lost with its worker, so only the first words of another worker tell of it, never a broker's death.

        An order that the broker was killed over before it had left is lost, too; no worker ever began it.
        """
        known: set[str] = set()
        begun = {run.token for run in self.runs}
        for broker in self._killer.brokers:
            new = False
            for line in site.log_of(broker).splitlines():
                if found := _CONNECTED.search(line):
                    new = found[1] not in known
                    known.add(found[1])
                elif (found := _LOST.search(line)) and not new and found[2] in begun:
                    self._problem(f"{broker.log.name}: a run was lost, but its worker lives: {line}", int(found[1]))
                self.silences += " worker lost " in line

    def _logs(self, site: Site) -> None:
        for process in (*self._killer.brokers, *self._killer.workers):
            text = site.log_of(process)
            traces = _TRACEBACK.findall(text)
            if process.log.name in self._killer.killed:
                # Python's fork server does not expect that its worker dies while the two talk.
                traces = [trace for trace in traces if any("multiprocessing" not in f for f in _frames(trace))]
            if traces or " ERROR " in text:
                end = "\n    ".join(text.splitlines()[-40:])
                self._problem(f"{process.log.name}, of `warden {process.args[1]}`, tells of a failure:\n    {end}")


def _frames(trace: str) -> list[str]:
    return [file for file in _FRAME.findall(trace) if file != "<string>"]
