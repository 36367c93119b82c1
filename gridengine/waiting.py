"""Waiting for jobs: one question for all of them, asked less and less often, whoever can answer it.

DRMAA tells at once how a job ended, and costs the qmaster nothing: libdrmaa is told of it by events. But it tells
each end once, to one session, and a session that has seen the qmaster restart hears nothing any more, without an error.
So qstat is asked now and then, once for all jobs. Jobs that are no longer there, and of which DRMAA says nothing, are
looked up in the accounting, which is written with a delay.
"""

from __future__ import annotations

import math
import os
import pwd
import threading
import time
from typing import TYPE_CHECKING

import msgspec

from gridengine import commands, job_info, qstat_xml
from gridengine.drmaa_process import GridUnavailableError, JobLostError, WaitTimeoutError
from gridengine.job_info import JobInfo
from warden.model import few

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping


class Progress(msgspec.Struct, frozen=True):
    """How far jobs have come: all of them are in one of these numbers."""

    waiting: int
    running: int
    ended: int
    failed: int
    """Of those that have ended."""
    unaccounted: int = 0
    """Neither in the queue any more, nor known how they ended: the accounting comes late."""
    trouble: str = ""
    """Why nothing newer is known: Grid Engine does not answer, say."""

    @property
    def jobs(self) -> int:
        return self.waiting + self.running + self.unaccounted + self.ended


class Collected(msgspec.Struct, frozen=True):
    """What DRMAA says of jobs: of some how they ended, some it does not know; the others have not ended."""

    ended: dict[str, JobInfo]
    unknown: frozenset[str]
    doubtful: dict[str, JobInfo] = {}
    """Those that are said to have ended without a trace: deleted in the queue, or ended while the qmaster was away."""


class Pace:
    """Pauses that grow from the shortest to the longest."""

    def __init__(self, shortest: float, longest: float) -> None:
        self._next = shortest
        self._longest = longest

    def pause(self) -> float:
        pause, self._next = self._next, min(1.5 * self._next, self._longest)
        return pause


class Books:
    """What qstat and qacct say of this user's jobs. Threads that ask at the same time share an answer."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = environment
        self._lock = threading.Lock()
        self._live: dict[str, str] = {}
        self._live_at = -math.inf

    def live(self, not_older: float = 0.0) -> dict[str, str]:
        """Ask for the states of all jobs that wait or run; an answer that is `not_older` seconds old will do.

        Raises:
            GridEngineError: qstat failed.
        """
        with self._lock:
            if time.monotonic() - self._live_at > not_older:
                listed = commands.run("qstat", "-u", _user(), "-xml", environment=self._environment)
                self._live, self._live_at = qstat_xml.live(listed.stdout), time.monotonic()
            return self._live

    def named(self, names: Iterable[str]) -> list[str]:
        """Put the tasks in place of arrays: those that wait or run, and those that have ended.

        Raises:
            GridEngineError: qstat or qacct failed.
        """
        live = self.live()
        whole = [name for name in names if "." not in name and name not in live]
        known = [*live, *(self.ended(whole) if whole else ())]
        found = {name: [job for job in known if job.startswith(f"{name}.")] for name in whole}
        return list(dict.fromkeys(job for name in names for job in found.get(name) or [name]))

    def ended(self, numbers: Iterable[str]) -> dict[str, JobInfo]:
        """Look up how jobs, and all tasks of arrays, ended, as far as it has been accounted.

        Raises:
            GridEngineError: qacct failed.
        """
        found: dict[str, JobInfo] = {}
        for number in numbers:
            try:
                # The owner is named because job numbers come again.
                told = commands.run("qacct", "-o", _user(), "-j", number, environment=self._environment, limit=_QACCT)
            except commands.GridEngineError as error:
                # No record yet, or, in a fresh cell, not even a file.
                if "not found" not in error.text and "No such file" not in error.text:
                    raise
            else:
                found |= job_info.told_by_qacct(told.stdout)
        return found


class Waiter:
    """Waits for jobs; each is told once. `collect` asks DRMAA, and `renew` makes it hear again; both may be missing."""

    def __init__(
        self,
        waited: Iterable[str],
        books: Books,
        *,
        collect: Callable[[list[str]], Collected] | None = None,
        renew: Callable[[], None] = lambda: None,
        watch: Callable[[Progress], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._left = dict.fromkeys(waited)
        self._books = books
        self._collect = collect
        self._renew = renew
        self._watch = watch
        self._clock = clock
        self._sleep = sleep
        # Those of which only the books can tell.
        self._forgotten: set[str] = set() if collect else set(self._left)
        # What is told of those that have no record.
        self._doubtful: dict[str, JobInfo] = {}
        # Those that qstat does not list, and since when.
        self._gone: dict[str, float] = {}
        # Those that stay in the queue, in error, until somebody does something about it.
        self._broken: list[str] = []
        self._lost: dict[str, str] = {}
        self._running = self._ended = self._failed = 0
        # Why DRMAA did not answer, and when to ask it again; why nobody answers, and since when.
        self._mute: GridUnavailableError | None = None
        self._next_poll = -math.inf
        self._trouble: tuple[float, GridUnavailableError] | None = None
        self._polls = Pace(*_POLLS)
        self._checks = self._new_checks()
        self._next_check = -math.inf if self._forgotten or watch else clock() + self._checks.pause()

    def completed(self, timeout: float | None = None) -> Iterator[JobInfo]:
        """Yield how jobs ended, as they end.

        Raises:
            WaitTimeoutError: Some have not ended within `timeout` seconds.
            JobLostError: Nobody tells how some ended; all others have been told before.
            GridUnavailableError: Grid Engine has not answered for ten minutes, or not until the timeout.
        """
        deadline = math.inf if timeout is None else self._clock() + timeout
        while True:
            yield from self._polled()
            yield from self._checked()
            if self._watch is not None:
                self._watch(self._progress())
            if not self._left:
                break
            now = self._clock()
            # As long as DRMAA tells of all jobs, it does not matter.
            if self._trouble and (self._mute or self._forgotten & self._left.keys()):
                since, error = self._trouble
                if now >= deadline or now - since > _PATIENCE:
                    raise error
            if now >= deadline:
                raise WaitTimeoutError(_not_ended(self._left, timeout or 0))
            self._sleep(max(0.0, min(self._next_poll, self._next_check, deadline) - now))
        if self._lost:
            raise JobLostError(_lost(self._lost))

    def _polled(self) -> Iterator[JobInfo]:
        """Ask DRMAA."""
        wanted = [job for job in self._left if job not in self._forgotten]
        begun = self._clock()
        if self._collect is None or not wanted:
            self._next_poll = math.inf
        elif begun >= self._next_poll:
            try:
                collected = self._collect(wanted)
            except GridUnavailableError as error:
                self._mute = error
                self._next_poll = self._clock() + _MUTE
                self._next_check = min(self._next_check, begun)
                return
            self._mute = None
            if collected.ended:
                self._polls = Pace(*_POLLS)
            if collected.unknown or collected.doubtful:
                self._doubtful |= collected.doubtful
                self._forgotten |= collected.unknown | collected.doubtful.keys()
                self._checks = self._new_checks()
                self._next_check = begun
            now = self._clock()
            self._next_poll = now + max(self._polls.pause(), _SHARE * (now - begun))
            yield from map(self._taken, collected.ended.values())

    def _checked(self) -> Iterator[JobInfo]:
        """Ask qstat, and qacct where that does not do."""
        now = self._clock()
        if not self._left or now < self._next_check:
            return
        self._next_check = now + self._checks.pause()
        try:
            live = self._books.live(_SHARED)
            self._running = sum(job in live and "q" not in live[job] for job in self._left)
            self._gone = {job: self._gone.get(job, now) for job in self._left if job not in live}
            self._broken = [job for job in self._left if "E" in live.get(job, "")]
            gone = [job for job in self._gone if self._mute or job in self._forgotten]
            found = self._books.ended(dict.fromkeys(job.partition(".")[0] for job in gone))
        except commands.MissingError as error:
            # On this host DRMAA alone can be asked.
            if self._mute:
                self._troubled(self._mute, now)
            for job in self._forgotten & self._left.keys():
                yield from self._without_record(job, error.text)
            return
        except commands.GridEngineError as error:
            self._troubled(GridUnavailableError(error.text), now)
            return
        self._untroubled(now)
        arrays = {job.partition(".")[0] for job in (*live, *found) if "." in job}
        for job in gone:
            if job in arrays:
                yield from self._without_record(job, "it is an array: ask for its tasks, as JOB.TASK")
            elif job in found:
                yield self._taken(found[job])
            elif now - self._gone[job] >= ACCOUNTING_LAG:
                yield from self._without_record(job, "Grid Engine has no record of it")
            else:
                self._next_check = min(self._next_check, now + _GRACE)
        self._listen(now)

    def _listen(self, now: float) -> None:
        """See to it that DRMAA tells of those that are gone."""
        silent = [since for job, since in self._gone.items() if job in self._left and job not in self._forgotten]
        if silent and not self._mute:
            if now - min(silent) >= _GRACE:
                self._renew()
                self._gone.clear()
                self._next_poll = now
            self._next_check = min(self._next_check, now + _GRACE)

    def _taken(self, info: JobInfo) -> JobInfo:
        self._left.pop(info.id, None)
        self._ended += 1
        self._failed += not info.succeeded
        return info

    def _without_record(self, job: str, reason: str) -> Iterator[JobInfo]:
        if job in self._doubtful:
            yield self._taken(self._doubtful[job])
        else:
            self._left.pop(job, None)
            self._lost[job] = reason

    def _troubled(self, error: GridUnavailableError, now: float) -> None:
        if self._trouble is None:
            self._checks = Pace(*_OFTEN)
            self._next_check = now + self._checks.pause()
        self._trouble = (self._trouble[0] if self._trouble else now, error)

    def _untroubled(self, now: float) -> None:
        if self._trouble is not None:
            # Whoever has seen the qmaster restart needs looking after.
            self._trouble, self._checks = None, self._new_checks()
            self._next_check = now + self._checks.pause()

    def _progress(self) -> Progress:
        unaccounted = len(self._gone.keys() & self._left.keys())
        running = min(self._running, len(self._left) - unaccounted)
        trouble = self._trouble[1].text if self._trouble else ""
        if not trouble and (broken := [job for job in self._broken if job in self._left]):
            trouble = f"in error: {few(broken, _NAMED)} (qpu why {broken[0].partition('.')[0]})"
        return Progress(
            waiting=len(self._left) - running - unaccounted,
            running=running,
            ended=self._ended + len(self._lost),
            failed=self._failed + len(self._lost),
            unaccounted=unaccounted,
            trouble=trouble,
        )

    def _new_checks(self) -> Pace:
        return Pace(*(_OFTEN if self._forgotten or self._watch else _RARELY))


def _not_ended(left: Collection[str], timeout: float) -> str:
    if len(left) == 1:
        return f"job {few(left, _NAMED)} has not ended within {timeout:g} s: it goes on, wait again"
    return f"{len(left)} jobs have not ended within {timeout:g} s ({few(left, _NAMED)}): they go on, wait again"


def _lost(lost: Mapping[str, str]) -> str:
    reason = next(iter(lost.values()))
    first = next(iter(lost))
    which = f"job {first}" if len(lost) == 1 else f"{len(lost)} jobs ({few(lost, _NAMED)})"
    return (
        f"nobody knows how {which} ended ({reason}): not yours, or deleted before it began? "
        f"Try qstat -j {first}, or qacct -j {first}"
    )


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


# All in seconds. To ask DRMAA costs the qmaster nothing; qstat costs it a message.
_POLLS = (0.05, 1.0)
_OFTEN = (1.0, 15.0)
_RARELY = (10.0, 60.0)
# A question about ten thousand jobs keeps libdrmaa busy for a second: it shall not do that alone.
_SHARE = 10.0
# How long libdrmaa is left alone that did not answer.
_MUTE = 10.0
# An answer of qstat that another thread has just got will do.
_SHARED = 0.5
# Within this time DRMAA tells of a job that qstat does not list any more.
_GRACE = 5.0
# The qmaster writes its accounting every 15 s, unless it was told otherwise (accounting_flush_time).
ACCOUNTING_LAG = 25.0
_PATIENCE = 600.0
_QACCT = 120.0
_NAMED = 5
