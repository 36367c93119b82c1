"""Whether it was this task's turn: fair share, classes and starvation, worked out again from what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulation_world import ViolationError

from warden.model import TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from simulation_account import Books

    from warden.calibration import ShotRule
    from warden.events import Settings
    from warden.model import Micros, Session, Task

# Usage is decayed with floating point: what is so close may be called equal.
_CLOSE = 1e-6


class Judge:
    """It keeps what it needs to know of the past; the broker may forget some of it when it is restarted."""

    def __init__(self, settings: Settings, shot_rules: Iterable[ShotRule]) -> None:
        self._settings = settings
        self._last_owed: bool | None = None
        self._last_task = 0
        self._failures = 0
        self._offline_until: Micros | None = None
        self._shots = 0
        self._after = [rule.after_shots for rule in shot_rules]

    def save(self) -> Any:
        return {name: value for name, value in vars(self).items() if name != "_settings"}

    def restore(self, saved: Any) -> None:
        vars(self).update(saved)

    def forgotten(self) -> None:
        """The broker has started anew: it need not know whose turn it was."""
        self._last_owed, self._offline_until, self._failures = None, None, 0

    def eased(self) -> None:
        """An operator has said Resume: no pause need last."""
        self._offline_until, self._failures = None, 0

    def shifted(self, by: Micros) -> None:
        if self._offline_until is not None:
            self._offline_until += by

    def almanac(self, almanac: Any) -> None:
        self._shots = almanac.shots

    # --- the order ---

    def started(self, task: Task, waiting: list[Task], books: Books, now: Micros) -> None:
        """7: `waiting` are all tasks that waited, the started one included. Numbers say who came first, clocks may lie."""
        if self._offline_until is not None and now < self._offline_until:
            raise ViolationError(f"9: task {task.id} was started after {self._failures} failures in a row")
        self._fair(task, waiting, books, now)
        if self._after and task.id != self._last_task and self._shots >= min(self._after):
            raise ViolationError(f"2: task {task.id} was started where a calibration by shots was due")
        self._last_task = task.id

    def _fair(self, task: Task, waiting: list[Task], books: Books, now: Micros) -> None:
        settings: Any = self._settings
        if not settings.fair:
            first = min(waiting, key=lambda t: t.id)
            if task.id != first.id:
                raise ViolationError(f"7d: task {task.id} was started before task {first.id}")
            return
        owed = [t for t in waiting if now - t.since >= settings.longest_wait]
        clearly = [t for t in owed if now - t.since > settings.longest_wait]
        turn = min(owed, key=lambda t: (t.since, t.id), default=None)
        by_share = self._by_share(waiting, books, now) | self._by_share(
            [t for t in waiting if t not in owed], books, now
        )
        is_owed = any(t.id == task.id for t in owed)
        # A clock that was set back while the broker was down makes those equal who had waited longer than it shows.
        if is_owed and turn is not None and task.since == turn.since and self._last_owed is not True:
            pass
        elif task.id not in by_share:
            due = None if turn is None else turn.id
            raise ViolationError(f"7: task {task.id} was started, it was the turn of {sorted(by_share)} or {due}")
        elif clearly and not is_owed and self._last_owed is False:
            raise ViolationError(f"7b: task {task.id} was started, and {turn} waits for too long")
        self._last_owed = is_owed

    def _by_share(self, waiting: list[Task], books: Books, now: Micros) -> set[int]:
        """Those that the share allows to be next: several where usages are too close to be told apart."""
        if not waiting:
            return set()
        ranks = {t.id: self._class_of(books.sessions[t.session]) for t in waiting}
        best = min(ranks.values())
        high = [t for t in waiting if ranks[t.id] == best]
        used = {t.uid: self._used(books, best, t.uid, now) for t in high}
        least = min(used.values())
        close = {uid for uid, amount in used.items() if amount <= least * (1 + _CLOSE) + 2}
        first = {uid: min((t for t in high if t.uid == uid), key=lambda t: t.id).id for uid in close}
        return set(first.values())

    def _class_of(self, session: Session) -> int:
        classes = self._settings.classes
        mine: Any = session
        for rank, one in enumerate(classes):
            if mine.uid in one.uids or mine.queue in one.queues or mine.project in one.projects:
                return rank
        return max(0, len(classes) - 1)

    def _used(self, books: Books, rank: int, uid: int, now: Micros) -> float:
        classes = self._settings.classes
        name = classes[rank].name if classes else ""
        usage = books.usage.get((name, uid))
        if usage is None:
            return 0.0
        return float(usage.used * 0.5 ** (max(0, now - usage.time) / self._settings.half_life))

    # --- failures ---

    def ended(self, old: Task, task: Task, now: Micros) -> None:
        """9: count the QPU's failures in a row."""
        if task.repeats > old.repeats:
            self._failures += 1
            if self._failures >= self._settings.failures:
                self._offline_until = now + self._settings.retry
        elif task.shots_done > old.shots_done:
            self._failures, self._offline_until = 0, None
        elif old.status.final or task.status is TaskStatus.CANCELLED:
            # Of one that was over before its run, the books do not say what the run brought.
            self._failures, self._offline_until = 0, None
