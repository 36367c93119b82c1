"""The tasks that wait, kept so that the next one is found without looking at all of them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from warden.model import Task


class Queue:
    """Waiting tasks, by the rank of their class and their user; those that are held wait for no turn."""

    def __init__(self) -> None:
        # In the order in which they began to wait.
        self._waiting: dict[int, tuple[int, Task]] = {}
        # The tasks of a user in a class, oldest first.
        self._lines: dict[tuple[int, int], dict[int, None]] = {}
        self._held: dict[int, Task] = {}

    def __len__(self) -> int:
        return len(self._waiting) + len(self._held)

    def hold(self, task: Task) -> None:
        """It waits, and has no turn until it is added."""
        self.remove(task)
        self._held[task.id] = task

    def add(self, task: Task, rank: int) -> None:
        self.remove(task)
        self._waiting[task.id] = (rank, task)
        line = self._lines.setdefault((rank, task.uid), {})
        if line and next(reversed(line)) > task.id:
            # One that was cut and waits again is still the user's oldest.
            line = dict.fromkeys(sorted([*line, task.id]))
            self._lines[rank, task.uid] = line
        line[task.id] = None

    def remove(self, task: Task) -> None:
        self._held.pop(task.id, None)
        rank, _ = self._waiting.pop(task.id, (None, None))
        if rank is not None:
            line = self._lines[rank, task.uid]
            del line[task.id]
            if not line:
                del self._lines[rank, task.uid]

    def replace(self, task: Task) -> None:
        """Another record of a task that may wait here; its place stays."""
        if task.id in self._waiting:
            self._waiting[task.id] = (self._waiting[task.id][0], task)
        elif task.id in self._held:
            self._held[task.id] = task

    def of(self, uid: int) -> int:
        """How many tasks of a user wait, held ones too."""
        in_line = sum(len(line) for (_, owner), line in self._lines.items() if owner == uid)
        return in_line + sum(task.uid == uid for task in self._held.values())

    def heads(self) -> Iterator[tuple[int, Task]]:
        """The oldest task of each user in each class, with the class's rank."""
        for (rank, _), line in self._lines.items():
            yield rank, self._waiting[next(iter(line))][1]

    def longest(self) -> Task | None:
        """The task that has waited longest since it last joined."""
        return next((task for _, task in self._waiting.values()), None)
