"""Execution hosts with their jobs: prolog, the user's process and epilog, and the sensor that renews leases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulation_clients import Client
from simulation_scenario import ROOT
from simulation_worker import sequence
from simulation_world import ViolationError, bits_of, in_order

from warden import bitstrings, frames, wire
from warden.model import SECOND, BusyError, LimitError, Session, Task, TaskStatus, UnavailableError, WardenError

if TYPE_CHECKING:
    import random

    from simulation_account import Account
    from simulation_network import Network
    from simulation_scenario import Scenario
    from simulation_world import World

_TRIES = 40


class Site:
    """What jobs share."""

    def __init__(self, world: World, scenario: Scenario, network: Network, account: Account) -> None:
        self.world, self.scenario, self.network, self.account = world, scenario, network, account
        self.chance: random.Random = world.chance("jobs")
        self.hosts = [Host(self, f"node{i}") for i in range(scenario.hosts)]
        self.calm = False
        self.jobs: list[Job] = []
        self.seen: dict[int, Task] = {}

    def submit(self, number: int) -> None:
        job = Job(self, str(number))
        self.jobs.append(job)
        job.start(self.chance.choice(self.hosts))

    def silence(self) -> None:
        """Nobody says anything any more."""
        for host in self.hosts:
            host.client.die()
        for job in self.jobs:
            job.fall_silent()

    def forgets(self, number: int) -> bool:
        """Whether this task ended so long ago that the broker may have forgotten it."""
        books = self.account.books
        return (books.tasks[number].finished or books.pruned_before) < books.pruned_before

    def saw(self, task: Task) -> None:
        """3: what a user was told stays true: a final status does not change."""
        before = self.seen.get(task.id)
        kept = ("status", "counts", "shots_done", "error", "finished")
        if before is not None and before.status.final and any(getattr(before, n) != getattr(task, n) for n in kept):
            raise ViolationError(f"3: a user saw {before}, and then {task}")
        if before is None or not before.status.final:
            self.seen[task.id] = task
        if task.status is TaskStatus.COMPLETED and task.id not in self.account.lied:
            kept = dict(sorted(task.counts.items()))
            if kept != bits_of(0, task.shots, task.qubits):
                raise ViolationError(f"4: a user was given {kept} for {task.shots} shots")


class Host:
    def __init__(self, site: Site, name: str) -> None:
        self._site, self.name = site, name
        self.client = Client(site.world, site.network, name, ROOT)
        self.jobs: dict[str, Job] = {}
        self.silent = False
        self._suspended: set[str] = set()
        self._interval = site.scenario.settings.lease // 4
        site.world.after(self._interval, self._renew)

    def _renew(self) -> None:
        if not self.silent and self.jobs:
            self._suspend()
            suspended = tuple(job for job in self.jobs if job in self._suspended)
            body = wire.Renew(host=self.name, jobs=tuple(self.jobs), suspended=suspended, candidate=True)
            self.client.ask(body, lambda _: None, tries=2)
        if not self.client.dead:
            self._site.world.after(self._interval, self._renew)

    def _suspend(self) -> None:
        """Somebody suspends a job, or lets one go on; in the end all go on."""
        for job in self.jobs:
            if self._site.chance.random() < (0.5 if job in self._suspended else 0.1):
                self._suspended ^= {job}
        if self._site.calm:
            self._suspended.clear()

    def fall_silent(self) -> None:
        """The host is gone, its jobs with it; it comes back empty."""
        self._site.world.log(self.name, "falls silent")
        self.silent = True
        for job in list(self.jobs.values()):
            job.lost()
        self.jobs.clear()
        self._site.world.after(self._site.chance.randint(20, 400) * SECOND, self._back)

    def _back(self) -> None:
        self.silent = False


class Job:
    """One job; `start` begins it, also again after its host was lost."""

    def __init__(self, site: Site, number: str) -> None:
        self._site, self._world, self._chance = site, site.world, site.chance
        self._number = number
        self._uid = self._chance.choice(site.scenario.users)
        self._queue = self._chance.choice(("all.q", "all.q", "urgent.q", "prod.q"))
        self._project = self._chance.choice(("", "", "chem"))
        self._planned = self._chance.randint(1, 5)
        self._starts = 0
        self._tries = 0
        self._process: _Process | None = None
        self._root: Client | None = None
        self._host: Host | None = None
        self._session = ""
        self.over = False

    def start(self, host: Host) -> None:
        self._starts += 1
        self._host = host
        self._tries = _TRIES
        self._root = Client(self._world, self._site.network, f"prolog{self._number}.{self._starts}", ROOT)
        self._acquire()

    def _acquire(self) -> None:
        if self._root is None or self._host is None:
            return
        body = wire.Acquire(
            job=self._number,
            uid=self._uid,
            host=self._host.name,
            start=str(self._starts),
            queue=self._queue,
            project=self._project,
        )
        self._root.ask(body, self._acquired)

    def _acquired(self, result: Any) -> None:
        self._tries -= 1
        if isinstance(result, BusyError | UnavailableError | LimitError) and self._tries > 0 and not self._site.calm:
            self._world.after(self._chance.randint(5, 20) * SECOND, self._acquire)
            return
        if isinstance(result, WardenError):
            self._end()
            return
        assert self._host is not None
        self._session = frames.convert(result, Session).id
        self._host.jobs[self._number] = self
        self._run(1)

    def _run(self, life: int) -> None:
        name = f"job{self._number}.{self._starts}.{life}"
        self._process = _Process(self, self._site, name, self._uid, self._session, self._planned)
        self._process.go()
        chaos = self._site.scenario.chaos
        if chaos.client and self._chance.random() < chaos.client * 3 and not self._site.calm:
            self._world.after(self._chance.randint(1, 60) * SECOND, self._crash, self._process, life)
        if chaos.host and self._chance.random() < chaos.host / 4 and self._host is not None:
            self._world.after(self._chance.randint(1, 100) * SECOND, self._host.fall_silent)

    def _crash(self, process: _Process, life: int) -> None:
        """The user's process is killed and begins again, with the same keys."""
        if self._process is process and not self.over:
            self._world.log(process.client.name, "crashes")
            process.client.die()
            self._world.after(self._chance.randint(1, 10) * SECOND, self._again, process, life)

    def _again(self, process: _Process, life: int) -> None:
        if self._process is process and not self.over:
            self._run(life + 1)

    def finished(self) -> None:
        """The user's process has ended; the epilog releases, unless nothing gets through."""
        if self._process is not None:
            self._process.client.die()
        self._process = None
        if self._root is not None and not self._root.dead:
            self._root.ask(wire.Release(session=self._session), lambda _: self._end())

    def _end(self) -> None:
        self.over = True
        if self._host is not None:
            self._host.jobs.pop(self._number, None)
        self.fall_silent()

    def fall_silent(self) -> None:
        for client in (self._root, self._process and self._process.client):
            if client is not None:
                client.die()
        self._root = self._process = None

    def lost(self) -> None:
        """Its host is gone. The scheduler may start it again, on any host."""
        self.fall_silent()
        if not self._site.calm and self._chance.random() < 0.6 and not self.over:
            self._world.after(self._chance.randint(1, 30) * SECOND, self.start, self._chance.choice(self._site.hosts))


class _Process:
    """What a user runs: tasks one after the other, or all at once."""

    def __init__(self, job: Job, site: Site, name: str, uid: int, session: str, planned: int) -> None:
        self._job, self._site, self._session = job, site, session
        self._world, self._chance = site.world, site.chance
        self.client = Client(site.world, site.network, name, uid)
        self._planned = planned
        self._together = self._chance.random() < 0.5
        self._next = 0
        self._open = 0

    def go(self) -> None:
        for _ in range(self._planned if self._together else 1):
            self._begin()

    def _begin(self) -> None:
        if self._next < self._planned:
            number, self._next = self._next, self._next + 1
            self._open += 1
            many = 1 + hash_of(self._session, number) % self._site.scenario.settings.max_shots
            within = self._chance.randint(20, 600) * SECOND if self._chance.random() < 0.15 else None
            body = wire.TaskStart(
                session=self._session,
                sequence=sequence(1 + many % 4, "bad" if many % 17 == 0 else f"{many % 5}"),
                shots=many,
                key=f"key{number}",
                within=within,
                bitstrings=number % 2 == 0,
            )
            self._start(body, 8)
        elif self._open == 0 and not self.client.dead:
            self._job.finished()

    def _start(self, body: wire.TaskStart, tries: int) -> None:
        self.client.ask(body, lambda result: self._started(body, tries, result))

    def _started(self, body: wire.TaskStart, tries: int, result: Any) -> None:
        if isinstance(result, UnavailableError | LimitError) and tries > 0:
            self._world.after(self._chance.randint(3, 20) * SECOND, self._start, body, tries - 1)
            return
        if isinstance(result, WardenError):
            self._done()
            return
        task = frames.convert(result, Task)
        self._site.saw(task)
        if self._chance.random() < 0.1:
            # Nobody knows why, but it asks again.
            self.client.ask(body, lambda again: self._same(task, again))
        if self._chance.random() < 0.08:
            delay = self._chance.randint(0, 40) * SECOND
            self._world.after(delay, self.client.ask, wire.TaskStop(task=task.id), lambda _: None)
        self._poll(task.id)

    @staticmethod
    def _same(task: Task, again: Any) -> None:
        if not isinstance(again, WardenError) and again["id"] != task.id:
            raise ViolationError(f"6: a repeated request made {again} of {task}")

    def _poll(self, number: int) -> None:
        wait = self._chance.choice((0, 1, 5, 30, 60)) * SECOND
        self.client.ask(
            wire.GetTask(task=number, wait=wait), lambda result: self._polled(number, result), patience=wait
        )

    def _polled(self, number: int, result: Any) -> None:
        if isinstance(result, UnavailableError):
            self._world.after(5 * SECOND, self._poll, number)
            return
        if isinstance(result, WardenError):
            if (
                number in self._site.account.books.tasks
                and result.code == "not_found"
                and not self._site.forgets(number)
            ):
                raise ViolationError(f"3: task {number} was acknowledged, and now: {result}")
            self._done()
            return
        task = frames.convert(result, Task)
        self._site.saw(task)
        if task.status is TaskStatus.COMPLETED and task.bitstrings:
            self.client.ask(wire.GetBitstrings(task=number), lambda page: self._read(task, page))
        elif task.status.final:
            self._done()
        else:
            self._world.after(self._chance.choice((0, 2, 5)) * SECOND, self._poll, number)

    def _read(self, task: Task, result: Any) -> None:
        """4: the shots in their order are there, and are those that were taken."""
        if isinstance(result, WardenError):
            if not isinstance(result, UnavailableError) and not self._site.forgets(task.id):
                raise ViolationError(f"4: task {task.id} is completed, and its shots cannot be had: {result}")
        elif task.id not in self._site.account.lied:
            page = frames.convert(result, wire.Bitstrings)
            if bitstrings.unpack(page.data, page.qubits) != in_order(0, page.shots, task.qubits):
                raise ViolationError(
                    f"4: a user was given other shots of task {task.id}, or not in their order: {page}"
                )
        self._done()

    def _done(self) -> None:
        self._open -= 1
        if not self.client.dead:
            self._begin()


def hash_of(text: str, number: int) -> int:
    """Python's own differs from process to process."""
    return (int(text[:8], 16) * 2654435761 + number * 40503) >> 7
