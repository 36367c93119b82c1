"""Somebody who kills and stops the processes of a site at all moments of their lives."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import random
import re
import shutil
import signal
import sqlite3
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warden_customers import HEARTBEAT, SHOT_RATE, Customer
from warden_site import Site, wait_until

from warden.store import Store

if TYPE_CHECKING:
    import subprocess
    import threading
    from collections.abc import Callable, Iterator, Sequence

    from warden.model import Task

# As many runs of a task may be lost without bringing it near the broker's limit, which fails a task.
TRIES = 3
# A broker's or worker's process and all that it starts carry this in their environment.
MARK = "WARDEN_CRASHES_MARK"

_RUN = re.compile(r" run (\S+): task (\d+), (\d+) shots$")
_DONE = re.compile(r" run (\S+): (\d+) of (\d+) shots done")


@dataclasses.dataclass
class Run:
    """A run as its worker's log has it."""

    log: str
    token: str
    task: int
    shots: int
    done: int | None = None
    last: bool = True
    """Whether the worker began no other run after it."""


def runs_in(log: Path) -> list[Run]:
    runs: list[Run] = []
    # kill -9 may leave half a line.
    for line in log.read_text(errors="replace").rpartition("\n")[0].split("\n"):
        if found := _RUN.search(line):
            if runs:
                runs[-1].last = False
            runs.append(Run(log.name, found[1], int(found[2]), int(found[3])))
        elif (found := _DONE.search(line)) and runs and runs[-1].token == found[1]:
            runs[-1].done = int(found[2])
    return runs


BROKER, WORKER = "broker", "worker"
Victims = tuple[str, ...]


class Killer:
    """Deals cards: each is a moment and who is hit then. All cards of a deck come once, in an order from the seed."""

    def __init__(self, site: Site, seed: int, customers: Sequence[Customer], gate: threading.Event) -> None:
        self.kills: collections.Counter[str] = collections.Counter()
        self.stops: collections.Counter[str] = collections.Counter()
        self.cards: collections.Counter[str] = collections.Counter()
        self.card = "none"
        self.brokers: list[subprocess.Popen[bytes]] = []
        self.workers: list[subprocess.Popen[bytes]] = []
        self.killed: set[str] = set()
        self._site, self._customers, self._gate = site, customers, gate
        self._random = random.Random(seed)
        self._deck: list[tuple[str, Callable[[], None]]] = []

    # --- processes ---

    def start(self, *names: str) -> None:
        for name in names:
            if name == BROKER:
                self.brokers.append(self._site.start_broker(wait=False))
            else:
                self.workers.append(self._site.start_worker(wait=False))

    def kill(self, *names: str) -> None:
        """All of them at once."""
        processes = [self._process(name) for name in names]
        for name, process in zip(names, processes, strict=True):
            assert process.poll() is None, f"the {name} ended by itself: {self._site.log_of(process)}"
            process.send_signal(signal.SIGKILL)
            self.kills[name] += 1
            self.killed.add(process.log.name)
        for process in processes:
            process.wait()
        if BROKER in names:
            self._look_at_what_is_left()

    def _process(self, name: str) -> subprocess.Popen[bytes]:
        return (self.brokers if name == BROKER else self.workers)[-1]

    def _look_at_what_is_left(self) -> None:
        """What a crash leaves on the disk has all that anybody was told. On a copy: opening it repairs it."""
        told = [told for customer in self._customers for told in list(customer.told)]
        left = self._site.room / "left"
        shutil.rmtree(left, ignore_errors=True)
        shutil.copytree(self._site.room / "state", left)
        assert (problem := integrity(left / "warden.db")) == "ok", f"the store after this crash: {problem}"
        # A broker that was killed while it made its store has acknowledged nothing yet.
        tasks = tasks_in(left / "warden.db")
        for each in told:
            assert each.number in tasks, f"task {each.number} was acknowledged, and this crash lost it"
            if each.counts is not None:
                now = tasks[each.number]
                assert now.counts == each.counts, f"task {each.number} had its result, and is {now.status} now"

    # --- moments ---

    def _pause(self, shortest: float, longest: float) -> None:
        time.sleep(self._random.uniform(shortest, longest))

    def _watch(self, condition: Callable[[], Any], what: str) -> Any:
        def watched() -> Any:
            for customer in self._customers:
                assert not customer.error, customer.error
            for name in (BROKER, WORKER):
                process = self._process(name)
                assert process.poll() is None, f"the {name} ended by itself: {self._site.log_of(process)}"
            return condition()

        return wait_until(watched, f"{what} (card: {self.card})")

    def _new_run(self) -> Run:
        """Wait until the worker begins a run."""
        log = self.workers[-1].log
        before = len(runs_in(log))
        return self._watch(lambda: runs_in(log)[before:], "the worker begins a run")[0]

    def _at_a_submission(self) -> None:
        self._watch(lambda: any(customer.submitting for customer in self._customers), "somebody submits a task")
        self._pause(0, 0.02)

    def _at_the_start(self) -> None:
        self._new_run()
        self._pause(0, 0.02)

    def _in_the_middle(self) -> None:
        length = self._new_run().shots / SHOT_RATE
        self._pause(0.2 * length, 0.8 * length)

    def _at_the_end(self) -> None:
        self._ended(self._new_run())
        self._pause(0, 0.02)

    def _ended(self, run: Run) -> None:
        """Wait until the worker has done all shots of this run."""
        log, token = self.workers[-1].log, run.token

        def ended() -> Run | None:
            run = next(run for run in runs_in(log) if run.token == token)
            assert run.last or run.done is not None, f"{log.name}: run {token} was given up, and nothing was killed"
            return None if run.done is None else run

        run = self._watch(ended, "a run ends")
        assert run.done == run.shots, f"{log.name}: run {token} was cut, and nobody asked for it"

    def _whenever(self) -> None:
        self._pause(0, 0.3)

    # --- cards ---

    def play(self, kills: int) -> None:
        while self.kills.total() < kills:
            if not self._deck:
                self._deck = list(self._cards())
                self._random.shuffle(self._deck)
            self.card, action = self._deck.pop()
            self.cards[self.card] += 1
            action()

    def _cards(self) -> Iterator[tuple[str, Callable[[], None]]]:
        moments = {
            "at a submission": self._at_a_submission,
            "at the start of a run": self._at_the_start,
            "in the middle of a run": self._in_the_middle,
            "at the end of a run": self._at_the_end,
            "at any time": self._whenever,
        }
        victims: list[Victims] = [(BROKER,), (WORKER,), (BROKER, WORKER)]
        # Twice at any time: who comes up is hit there too, and it takes least of the time that the test has.
        for moment, wait in [*moments.items(), ("at any time", self._whenever)]:
            for names in victims:
                yield f"kill {' and '.join(names)} {moment}", lambda wait=wait, names=names: self._hit(wait, names)
        for first, second in ((BROKER, WORKER), (WORKER, BROKER)):
            yield f"kill the {second} while the {first} is down", lambda a=first, b=second: self._hit_both(a, b)
            for _ in range(2):
                yield f"kill the {first} while it comes up", lambda a=first: self._hit_twice(a)
        yield "kill while nothing runs", self._hit_in_peace
        for name in (BROKER, WORKER):
            yield f"kill the {name} that was stopped at the end of a run", lambda a=name: self._hit_frozen(a)
        for names in victims:
            for length, stretch in {"short": (0.02, 2 * HEARTBEAT), "long": (4 * HEARTBEAT, 7 * HEARTBEAT)}.items():
                wait = self._random.choice(list(moments.values()))
                yield (
                    f"stop {' and '.join(names)}, {length}",
                    lambda wait=wait, names=names, stretch=stretch: self._freeze(wait, names, stretch),
                )

    def _hit(self, moment: Callable[[], None], names: Victims) -> None:
        moment()
        names = self._spared(names)
        self.kill(*names)
        self._bring_back(names)

    def _hit_both(self, first: str, second: str) -> None:
        self._whenever()
        if self._spared((first, second)) == (first, second):
            self.kill(first)
            self._pause(0, 0.5)
            self.kill(second)
            self._pause(0, 0.2)
            self._bring_back((first, second))

    def _hit_twice(self, name: str) -> None:
        self._whenever()
        if self._spared((name,)) == (name,):
            self.kill(name)
            self.start(name)
            self._pause(0, 0.6)
            self.kill(name)
            self.start(name)

    def _hit_in_peace(self) -> None:
        self._gate.clear()
        self._watch(lambda: all(customer.idle for customer in self._customers), "all tasks end")
        hits: list[Victims] = [(BROKER,), (WORKER,), (BROKER, WORKER)]
        self._random.shuffle(hits)
        for names in hits:
            self.kill(*names)
            self._bring_back(names)
            self._pause(0, 0.3)
        self._gate.set()

    def _hit_frozen(self, name: str) -> None:
        """What was said to it last has left its sender, and nobody has read it: it dies with the connection."""
        run = self._new_run()
        if self._spared((name,)) == (name,):
            if name == WORKER:
                # Its next order comes as soon as the broker has its result.
                self._ended(run)
            self._process(name).send_signal(signal.SIGSTOP)
            self.stops[name] += 1
            if name == BROKER:
                self._ended(run)
            self._pause(0, 2 * HEARTBEAT)
            self.kill(name)
            self._bring_back((name,))

    def _freeze(self, moment: Callable[[], None], names: Victims, stretch: tuple[float, float]) -> None:
        moment()
        for name in names:
            self._process(name).send_signal(signal.SIGSTOP)
            self.stops[name] += 1
        self._pause(*stretch)
        for name in self._shuffled(names):
            self._process(name).send_signal(signal.SIGCONT)

    def _bring_back(self, names: Victims) -> None:
        for name in self._shuffled(names):
            # Most of them at once; the others late enough that those who wait notice.
            if self._random.random() < 0.3:
                self._pause(0, 4 * HEARTBEAT)
            self.start(name)

    def _shuffled(self, names: Victims) -> list[str]:
        return self._random.sample(names, len(names))

    def _spared(self, names: Victims) -> Victims:
        """The broker gives a task up whose runs are lost again and again, which is right: do not drive it there."""
        tries = collections.Counter(run.task for worker in self.workers for run in runs_in(worker.log))
        last = runs_in(self.workers[-1].log)[-1:]
        return (BROKER,) if WORKER in names and last and tries[last[0].task] >= TRIES else names


def left_over(mark: str) -> list[str]:
    """All processes that are the brokers', the workers' or their children's: they inherit the mark."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={mark}".encode() in (directory / "environ").read_bytes().split(b"\0"):
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"{directory.name}: {command}")
    return found


def integrity(path: Path) -> str:
    with contextlib.closing(sqlite3.connect(path)) as database:
        return "; ".join(row[0] for row in database.execute("PRAGMA integrity_check"))


def tasks_in(path: Path) -> dict[int, Task]:
    store = Store(path)
    try:
        # A list has neither counts nor logs.
        listed = store.tasks(uid=None, session=None, before=None, limit=-1)
        return {task.id: found for task in listed if (found := store.task(task.id)) is not None}
    finally:
        store.close()


def new_mark() -> str:
    return f"{os.getpid()}-{uuid.uuid4()}"
