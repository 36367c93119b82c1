"""Whose task is next, and how much of it fits. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from warden.model import Micros, Task
    from warden.qpu.timing import Timing


def next_task(queued: Iterable[Task]) -> Task | None:
    """First come, first served."""
    return min(queued, key=lambda task: (task.submitted, task.id), default=None)


def shots_that_fit(task: Task, timing: Timing, gap: Micros | None) -> int:
    """How many of the task's remaining shots end within `gap` (None: no window ahead); 0 if not one does."""
    fitting = None if gap is None else timing.shots_within(gap)
    return task.shots_left if fitting is None else min(task.shots_left, fitting)
