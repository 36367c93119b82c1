"""Whose task is next, and how much of it fits. Pure.

`fair`: the highest class that has a task; in it the user who has used least of the QPU, lately; of his tasks the
oldest. A task that has waited for longer than `longest_wait` is owed a run: as long as there are such tasks, every other
run is given to the one that has waited longest. So a higher class and a better share get ahead, but never for ever, and
what is owed to others takes no more than every other run from them.

`fifo`: first come, first served.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from warden.model import Micros, Task

if TYPE_CHECKING:
    from collections.abc import Iterable

    from warden.events import Class, Settings, Usage
    from warden.model import Session
    from warden.qpu.timing import Timing


class Candidate(msgspec.Struct, frozen=True):
    """The oldest waiting task of a user in a class: `rank` 0 is the highest class, `used` his decayed QPU time."""

    task: Task
    rank: int
    used: Micros


def next_task(candidates: Iterable[Candidate], *, fair: bool) -> Task | None:
    """Whose turn it is, if nobody is owed one."""

    def order(one: Candidate) -> tuple[int, int, int]:
        # Numbers are given in the order of submission; clocks may be set back.
        return (one.rank, one.used, one.task.id) if fair else (0, 0, one.task.id)

    first = min(candidates, key=order, default=None)
    return None if first is None else first.task


def owed(oldest: Task | None, now: Micros, longest_wait: Micros) -> bool:
    """Whether the task that has waited longest has waited too long."""
    return oldest is not None and now - oldest.since > longest_wait


def used_at(usage: Usage | None, now: Micros, half_life: Micros) -> Micros:
    """What a usage is worth now: half of it after each `half_life`."""
    if usage is None:
        return 0
    worth: float = 2.0 ** -(max(0, now - usage.time) / half_life)
    return round(usage.used * worth)


def rank(session: Session, classes: tuple[Class, ...]) -> int:
    """The first class that names the session's user, queue or project; the last one takes all others."""
    for number, kind in enumerate(classes):
        if session.uid in kind.uids or session.queue in kind.queues or session.project in kind.projects:
            return number
    return len(classes) - 1


def shots_that_fit(task: Task, timing: Timing, gap: Micros) -> int:
    """How many of the task's remaining shots end within `gap`; 0 if not one does."""
    fitting = timing.pace_of(task).shots_within(gap)
    return task.shots_left if fitting is None else min(task.shots_left, fitting)


def gap_before(settings: Settings, now: Micros, *ends: Micros | None) -> Micros:
    """How long a run may be now: to the first of `ends`, and no longer than runs are."""
    return min([settings.longest_run, *(end - now for end in ends if end is not None)])
