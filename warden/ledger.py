"""The books: open sessions, unfinished tasks, who waits for which, and every effect on them in order. Pure.

Nothing is changed here without an effect that makes it durable; what has ended is found in the archive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from warden.events import Answer, Archive, Asked, Effect, Keep, Note, Remembered, Settings
from warden.model import Micros, Session, Task, TaskStatus, clock

if TYPE_CHECKING:
    from collections.abc import Sequence

replace = msgspec.structs.replace


class _Waiter(msgspec.Struct, frozen=True):
    asked: Asked
    task: int
    until: Micros


class Ledger:
    """Sessions and tasks, and the effects of the event that is being handled."""

    def __init__(self, settings: Settings, archive: Archive, remembered: Remembered) -> None:
        self.archive = archive
        self.sessions = {session.id: session for session in remembered.sessions}
        self.tasks = {task.id: task for task in remembered.tasks if not task.status.final}
        self._lease = settings.lease
        self._next_task = remembered.next_task
        self._keys = dict(remembered.keys)
        self._waiters: list[_Waiter] = []
        self._effects: list[Effect] = []

    # --- effects ---

    def add(self, effect: Effect) -> None:
        self._effects.append(effect)

    def note(self, event: str, **facts: Any) -> None:
        self.add(Note(event, facts))

    def take_effects(self) -> list[Effect]:
        taken, self._effects = self._effects, []
        return taken

    # --- sessions ---

    def session(self, identifier: str) -> Session | None:
        """Open or ended."""
        return self.sessions.get(identifier) or self.archive.session(identifier)

    def keep_session(self, session: Session) -> None:
        if session.ended is None:
            self.sessions[session.id] = session
        self.add(Keep(session))

    def renew(self, session: Session, now: Micros, *, always: bool = False) -> Session:
        """Prolong the lease; not at each poll of a client, which would cost a commit each."""
        expires = now + self._lease
        if always or expires - session.expires > self._lease // 8:
            session = replace(session, expires=expires)
            self.keep_session(session)
        return session

    def end_session(self, session: Session, reason: str, now: Micros) -> Session:
        """Close it; its tasks have been cancelled before."""
        ended = replace(self.sessions.pop(session.id), ended=now, end_reason=reason)
        self._keys = {key: task for key, task in self._keys.items() if key[0] != session.id}
        self.keep_session(ended)
        self.note("session ended", session=ended.id, job=ended.job, uid=ended.uid, reason=reason)
        return ended

    def account(self, task: Task, *, shots: int = 0, qpu_time: Micros = 0, wait_time: Micros = 0) -> None:
        """Add what a task used to its session's account, also after the session has ended."""
        session = self.session(task.session)
        if session is not None:
            self.keep_session(
                replace(
                    session,
                    shots=session.shots + shots,
                    qpu_time=session.qpu_time + qpu_time,
                    wait_time=session.wait_time + wait_time,
                )
            )

    # --- tasks ---

    def task(self, number: int) -> Task | None:
        """Unfinished or ended."""
        return self.tasks.get(number) or self.archive.task(number)

    def task_by_key(self, session: str, key: str) -> int | None:
        return self._keys.get((session, key))

    def queued(self) -> list[Task]:
        return [task for task in self.tasks.values() if task.status is TaskStatus.QUEUED]

    def tasks_of(self, session: Session) -> Sequence[Task]:
        return [task for task in self.tasks.values() if task.session == session.id]

    def open_task(self, session: Session, *, sequence: str, shots: int, qubits: int, key: str, now: Micros) -> Task:
        task = Task(
            id=self._next_task,
            session=session.id,
            uid=session.uid,
            shots=shots,
            qubits=qubits,
            key=key,
            submitted=now,
            log=(f"{clock(now)} queued: {shots} shots on {qubits} qubits",),
        )
        self._next_task += 1
        self._keys[session.id, key] = task.id
        self.keep_task(task, sequence)
        self.renew(replace(session, tasks=session.tasks + 1), now, always=True)
        self.note("task queued", task=task.id, session=session.id, uid=task.uid, shots=shots)
        return task

    def keep_task(self, task: Task, sequence: str | None = None) -> None:
        if task.status.final:
            self.tasks.pop(task.id, None)
        else:
            self.tasks[task.id] = task
        self.add(Keep(task, sequence))

    def finish_task(self, task: Task, status: TaskStatus, error: str, now: Micros) -> Task:
        """Give it its last status, and those who wait for it their answer."""
        line = f"{clock(now)} {status}" + (f": {error}" if error else f" in {task.runs} run{'s'[: task.runs != 1]}")
        task = replace(task, status=status, finished=now, error=error, log=(*task.log, line))
        self.account(task, wait_time=(now if task.started is None else task.started) - task.submitted)
        self.keep_task(task)
        self.note("task ended", task=task.id, status=status)
        self._answer_waiters([waiter for waiter in self._waiters if waiter.task == task.id], task)
        return task

    # --- those who wait ---

    def wait(self, asked: Asked, task: Task, until: Micros) -> None:
        self._waiters.append(_Waiter(asked, task.id, until))

    def answer_overdue(self, now: Micros) -> None:
        for waiter in [waiter for waiter in self._waiters if waiter.until <= now]:
            self._answer_waiters([waiter], self.tasks[waiter.task])

    def times(self) -> list[Micros]:
        """When leases and waits end."""
        return [session.expires for session in self.sessions.values()] + [waiter.until for waiter in self._waiters]

    def _answer_waiters(self, waiters: Sequence[_Waiter], task: Task) -> None:
        for waiter in waiters:
            self._waiters.remove(waiter)
            self.add(Answer(waiter.asked, task.public()))
