"""Whether the QPU can be trusted with the queue: after some failures in a row it is left alone for a while. Pure.

A run without a shot is a failure, whosever fault it is said to be: a QPU that blames each task would else burn through
the queue. But those that are said to be their tasks' count only together with those of another user, for nobody shall
be able to take the QPU offline with bad tasks of his own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warden.model import Micros

# Twice as long each time, but not for ever: somebody may have repaired it.
_DOUBLINGS = 6
# Everybody reads the reason; a device's own words may be long.
_TOLD = 200


class Health:
    """Counts failures in a row. From `most` on the QPU is offline, for `retry` first and then twice as long."""

    def __init__(self, most: int, retry: Micros) -> None:
        self._most, self._retry = most, retry
        self._failures = self._pauses = 0
        # Failures that were said to be the tasks', and whose tasks those were.
        self._blamed, self._users = 0, set[int]()
        self.offline_until: Micros | None = None
        self.reason = ""

    def failed(self, reason: str, now: Micros, *, blamed: int | None = None) -> None:
        """A run brought nothing. `blamed`: the user of the task whose fault it is said to be."""
        if blamed is None:
            self._failures += 1
        else:
            self._blamed += 1
            self._users.add(blamed)
        failures = self._failures + (self._blamed if len(self._users) > 1 else 0)
        if failures >= self._most:
            self.offline_until = now + self._retry * 2 ** min(self._pauses, _DOUBLINGS)
            self._pauses += 1
            # Another pause needs another two.
            self._blamed, self._users = 0, set()
            self.reason = f"{failures} runs in a row failed, the last: {reason[:_TOLD]}; `warden resume` tries at once"

    def succeeded(self) -> None:
        """It works, or an operator says that it will."""
        self._failures = self._pauses = self._blamed = 0
        self._users = set()
        self.offline_until, self.reason = None, ""

    def shift(self, by: Micros) -> None:
        if self.offline_until is not None:
            self.offline_until += by

    def offline(self, now: Micros) -> bool:
        return self.offline_until is not None and now < self.offline_until
