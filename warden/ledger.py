"""The books: open sessions, unfinished tasks, who waits for which, and every effect on them in order. Pure.

Nothing is changed here without an effect that makes it durable; what has ended is found in the archive.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
from typing import TYPE_CHECKING, Any

import msgspec

from warden import policy
from warden.events import Answer, Archive, Asked, Effect, Keep, Note, Remembered, Settings, Usage
from warden.model import SECOND, Micros, Run, Session, Task, TaskStatus, WardenError, brief, clock
from warden.queue import Queue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from warden import wire

replace = msgspec.structs.replace

# A task of many runs has many lines to tell; its record is written with each of them.
_FIRST_LINES, _LAST_LINES = 20, 100
# So many starts of the broker in a row give each lease another length although nobody has vouched for its job.
STARTS = 5
# Requests that wait for one task; the oldest of more is answered before its time.
_WAITERS = 100


class Ledger:
    """Sessions and tasks, and the effects of the event that is being handled."""

    def __init__(self, settings: Settings, archive: Archive, remembered: Remembered) -> None:
        self.archive = archive
        self.sessions = {session.id: session for session in remembered.sessions}
        self.tasks: dict[int, Task] = {}
        self.queue = Queue()
        self._settings = settings
        self._next_task = remembered.next_task
        self._of_session: dict[str, dict[int, None]] = {}
        # In their order: each turn asks for the first one.
        self._deadlines: list[tuple[Micros, int]] = []
        self._usage = {(usage.name, usage.uid): usage for usage in remembered.usage}
        # Who waits for a task, in the order of their numbers; and when they want an answer at the latest.
        self._waiters: dict[int, dict[int, Asked]] = {}
        self._next_waiter = 0
        self._overdue: list[tuple[Micros, int, int]] = []
        self._effects: list[Effect] = []
        # What ended in the event at hand: the archive does not have it yet.
        self._ended_sessions: dict[str, Session] = {}
        self._ended_tasks: dict[int, Task] = {}
        for task in sorted(remembered.tasks, key=lambda task: (task.since, task.id)):
            if not task.status.final:
                self._file(task)

    # --- effects ---

    def add(self, effect: Effect) -> None:
        self._effects.append(effect)

    def note(self, event: str, **facts: Any) -> None:
        self.add(Note(event, facts))

    def note_run(self, event: str, task: Task, run: Run, **facts: Any) -> None:
        self.note(event, task=task.id, job=task.job, uid=task.uid, run=brief(run.token), **facts)

    def audit(self, event: str, **facts: Any) -> None:
        """A session, a deed of an operator, or a refusal."""
        self.add(Note(event, facts, audit=True))

    def take_effects(self) -> list[Effect]:
        taken, self._effects = self._effects, []
        self._ended_sessions, self._ended_tasks = {}, {}
        return taken

    # --- sessions ---

    def session(self, identifier: str) -> Session | None:
        """Open or ended."""
        found = self.sessions.get(identifier) or self._ended_sessions.get(identifier)
        return found or self.archive.session(identifier)

    def keep_session(self, session: Session) -> None:
        kept = self.sessions if session.ended is None else self._ended_sessions
        kept[session.id] = session
        self.add(Keep(session))

    def vouch(self, session: Session, now: Micros, *, always: bool = False) -> Session:
        """The scheduler's side still sees the job."""
        seen = max(now, session.seen)
        # Use alone may have prolonged it so far that there is nothing to prolong; that it was seen counts all the same.
        always = always or session.starts > 0 or seen - session.seen > self._settings.lease // 8
        return self._prolong(replace(session, seen=seen, starts=0), now + self._settings.lease, now, always=always)

    def use(self, session: Session, now: Micros) -> Session:
        """The job's user was here: that renews the lease for as long as somebody vouched for the job of late."""
        until = min(now + self._settings.lease, session.seen + self._settings.unseen)
        return self._prolong(session, until, now)

    def _prolong(self, session: Session, until: Micros, now: Micros, *, always: bool = False) -> Session:
        """Not at each poll of a client, which would cost a commit each."""
        lease = self._settings.lease
        soon = session.expires - now < lease // 2
        if until > session.expires and (always or soon or until - session.expires > lease // 8):
            session = replace(session, expires=until)
            self.keep_session(session)
        return session

    def suspend(self, session: Session, host: str, now: Micros) -> None:
        """The host sees the job's processes stopped: its tasks have no turn until they go on."""
        self.keep_session(replace(session, suspended=host))
        self.audit("session suspended", session=brief(session.id), job=session.job, uid=session.uid, host=host)
        for task in self._waiting_of(session):
            self.keep_task(told(task, "has no turn while its job is suspended", now))

    def resume(self, session: Session, now: Micros) -> None:
        """They go on, and the tasks wait for their turn from now on."""
        self.keep_session(replace(session, suspended=""))
        self.audit("session goes on", session=brief(session.id), job=session.job, uid=session.uid)
        for task in self._waiting_of(session):
            self.keep_task(told(replace(task, since=now), "waits for its turn: its job goes on", now))

    def _waiting_of(self, session: Session) -> list[Task]:
        return [task for task in self.tasks_of(session) if task.status is TaskStatus.QUEUED]

    def end_session(self, session: Session, reason: str, now: Micros, *, by: int | None = None) -> Session:
        """Close it; its tasks have been cancelled before. `by`: whoever asked for it, if somebody did."""
        ended = replace(self.sessions.pop(session.id), suspended="", ended=now, end_reason=reason)
        self.keep_session(ended)
        self.audit(
            "session ended",
            session=brief(ended.id),
            job=ended.job,
            uid=ended.uid,
            host=ended.host,
            reason=reason,
            by=by,
            tasks=ended.tasks,
            shots=ended.shots,
            qpu_seconds=ended.qpu_time / SECOND,
        )
        return ended

    def account(self, task: Task, now: Micros, *, shots: int = 0, qpu_time: Micros = 0, wait_time: Micros = 0) -> None:
        """Add what a task used to its session's account, also after the session has ended, and to its user's share."""
        try:
            session = self.session(task.session)
        except WardenError:
            # It has ended, and nobody can read it any more: the run counts all the same.
            session = None
        if session is None:
            return
        self.keep_session(
            replace(
                session,
                shots=session.shots + shots,
                qpu_time=session.qpu_time + qpu_time,
                wait_time=session.wait_time + wait_time,
            )
        )
        if qpu_time:
            name = self._settings.classes[self.rank(session)].name
            usage = Usage(name=name, uid=session.uid, used=self._used(name, session.uid, now) + qpu_time, time=now)
            self._usage[name, session.uid] = usage
            self.add(Keep(usage))

    def rank(self, session: Session) -> int:
        return policy.rank(session, self._settings.classes)

    # --- tasks ---

    def task(self, number: int) -> Task | None:
        """Unfinished or ended."""
        return self.tasks.get(number) or self._ended_tasks.get(number) or self.archive.task(number)

    def tasks_of(self, session: Session) -> Sequence[Task]:
        return [self.tasks[number] for number in self._of_session.get(session.id, {})]

    def next_task(self, now: Micros, *, may_owe: bool) -> tuple[Task | None, bool]:
        """Whose turn it is, and whether it was owed the turn; `may_owe`: the turn before was nobody's due."""
        oldest = self.queue.longest()
        if self._settings.fair and may_owe and policy.owed(oldest, now, self._settings.longest_wait):
            return oldest, True
        names = [kind.name for kind in self._settings.classes]
        heads = (policy.Candidate(t, rank, self._used(names[rank], t.uid, now)) for rank, t in self.queue.heads())
        task = policy.next_task(heads, fair=self._settings.fair)
        return task, policy.owed(task, now, self._settings.longest_wait)

    def open_task(
        self,
        session: Session,
        *,
        sequence: str,
        shots: int,
        qubits: int,
        key: str,
        within: Micros | None,
        bitstrings: bool,
        preparation: Micros = 0,
        checked: bool = True,
        now: Micros,
    ) -> Task:
        unchecked = "" if checked else ", not checked yet"
        task = Task(
            id=self._next_task,
            session=session.id,
            job=session.job,
            uid=session.uid,
            shots=shots,
            qubits=qubits,
            key=key,
            submitted=now,
            since=now,
            deadline=None if within is None else now + within,
            bitstrings=bitstrings,
            preparation=preparation,
            log=(f"{clock(now)} queued: {shots} shots on {qubits} qubits{unchecked}",),
        )
        self._next_task += 1
        self.keep_task(task, sequence)
        session = replace(session, tasks=session.tasks + 1)
        self.keep_session(session)
        self.use(session, now)
        self.note("task queued", task=task.id, job=session.job, uid=task.uid, shots=shots, qubits=qubits)
        return task

    def keep_task(self, task: Task, sequence: str | None = None, bitstrings: wire.Bitstrings | None = None) -> None:
        """With the shots of a run in their order, if it brought any that are to be kept."""
        self._unfile(task)
        if task.status.final:
            self._ended_tasks[task.id] = task
        else:
            self._file(task)
        self.add(Keep(task, sequence, bitstrings))

    def finish_task(
        self, task: Task, status: TaskStatus, error: str, now: Micros, bitstrings: wire.Bitstrings | None = None
    ) -> Task:
        """Give it its last status, and those who wait for it their answer."""
        text = f"{status}: {error}" if error else f"{status} in {task.runs} run{'s'[: task.runs != 1]}"
        task = told(replace(task, status=status, finished=now, error=error), text, now)
        self.account(task, now, wait_time=max(0, (now if task.started is None else task.started) - task.submitted))
        self.keep_task(task, bitstrings=bitstrings)
        self.note(
            "task ended", task=task.id, job=task.job, uid=task.uid, status=status, runs=task.runs, shots=task.shots_done
        )
        for asked in self._waiters.pop(task.id, {}).values():
            self.add(Answer(asked, task.public()))
        return task

    def overdue(self, now: Micros) -> list[Task]:
        """Tasks whose users have no use for them any more."""
        passed = itertools.takewhile(lambda one: one[0] <= now, self._deadlines)
        return [self.tasks[number] for _, number in passed]

    # --- those who wait ---

    def wait(self, asked: Asked, task: Task, until: Micros) -> None:
        line = self._waiters.setdefault(task.id, {})
        if len(line) >= _WAITERS:
            self.add(Answer(line.pop(next(iter(line))), task.public()))
        self._next_waiter += 1
        line[self._next_waiter] = asked
        heapq.heappush(self._overdue, (until, task.id, self._next_waiter))

    def answer_overdue(self, now: Micros) -> None:
        while self._overdue and self._overdue[0][0] <= now:
            _, number, waiter = heapq.heappop(self._overdue)
            asked = self._waiters.get(number, {}).pop(waiter, None)
            if asked is not None:
                self.add(Answer(asked, self.tasks[number].public()))

    # --- time ---

    def times(self) -> list[Micros]:
        """When leases, deadlines and waits end."""
        ends = [session.expires for session in self.sessions.values()]
        return [*ends, *(until for until, *_ in (*self._deadlines[:1], *self._overdue[:1]))]

    def begin_anew(self, now: Micros, away: Micros | None) -> None:
        """The broker was away, and nobody could renew anything: leases last for so much longer.

        Where nobody knows how long it was they begin anew; but not each time for a job of which nothing is seen.
        """
        for session in list(self.sessions.values()):
            # Not later than that: the clock may have been set back meanwhile.
            latest = now + self._settings.lease
            if away is not None:
                kept = replace(session, expires=session.expires + away, seen=session.seen + away)
            elif session.starts < STARTS:
                kept = replace(session, expires=latest, seen=now, starts=session.starts + 1)
            else:
                kept = replace(session, expires=min(session.expires, latest), seen=min(session.seen, now))
            self.keep_session(kept)
        for task in [task for task in self.tasks.values() if task.since > now]:
            self.tasks[task.id] = settled = replace(task, since=now)
            self.queue.replace(settled)
            self.add(Keep(settled))
        for key, usage in self._usage.items():
            if usage.time > now:
                self._usage[key] = replace(usage, time=now)
                self.add(Keep(self._usage[key]))

    def shift(self, by: Micros) -> None:
        """The clock was set: what was to last for some time still lasts so long."""
        for session in list(self.sessions.values()):
            self.keep_session(replace(session, expires=session.expires + by, seen=session.seen + by))
        for task in list(self.tasks.values()):
            deadline = None if task.deadline is None else task.deadline + by
            run = task.run
            if run is not None:
                run = replace(
                    run,
                    started=run.started + by,
                    deadline=None if run.deadline is None else run.deadline + by,
                )
            # As it is filed: the order of those who wait stays.
            started = None if task.started is None else task.started + by
            self.tasks[task.id] = shifted = replace(
                task, submitted=task.submitted + by, started=started, since=task.since + by, deadline=deadline, run=run
            )
            self.queue.replace(shifted)
            self.add(Keep(shifted))
        self._deadlines = [(deadline + by, number) for deadline, number in self._deadlines]
        for key, usage in self._usage.items():
            self._usage[key] = replace(usage, time=usage.time + by)
            self.add(Keep(self._usage[key]))
        self._overdue = [(until + by, number, waiter) for until, number, waiter in self._overdue]

    # --- how tasks are filed ---

    def _file(self, task: Task) -> None:
        self.tasks[task.id] = task
        self._of_session.setdefault(task.session, {})[task.id] = None
        if task.deadline is not None:
            bisect.insort(self._deadlines, (task.deadline, task.id))
        if task.status is TaskStatus.QUEUED:
            session = self.sessions.get(task.session)
            last = len(self._settings.classes) - 1
            if session is not None and session.suspended:
                self.queue.hold(task)
            else:
                self.queue.add(task, last if session is None else self.rank(session))

    def _unfile(self, task: Task) -> None:
        self.queue.remove(task)
        filed = self.tasks.pop(task.id, None)
        if filed is not None:
            if filed.deadline is not None:
                del self._deadlines[bisect.bisect_left(self._deadlines, (filed.deadline, filed.id))]
            line = self._of_session[task.session]
            line.pop(task.id, None)
            if not line:
                del self._of_session[task.session]

    def _used(self, name: str, uid: int, now: Micros) -> Micros:
        return policy.used_at(self._usage.get((name, uid)), now, self._settings.half_life)


def told(task: Task, text: str, now: Micros) -> Task:
    """The task with a line more in its log; of a very long one the middle is left out."""
    log = (*task.log, f"{clock(now)} {text}")
    if len(log) > _FIRST_LINES + _LAST_LINES:
        log = (*log[:_FIRST_LINES], *log[-_LAST_LINES:])
    return replace(task, log=log)
