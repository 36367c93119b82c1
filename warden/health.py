"""Whether the QPU can be trusted with the queue: after some failures in a row it is left alone for a while. Pure."""

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
        self._failures = 0
        self.offline_until: Micros | None = None
        self.reason = ""

    def failed(self, reason: str, now: Micros) -> None:
        self._failures += 1
        if self._failures >= self._most:
            self.offline_until = now + self._retry * 2 ** min(self._failures - self._most, _DOUBLINGS)
            self.reason = (
                f"{self._failures} runs in a row failed, the last: {reason[:_TOLD]}; `warden resume` tries at once"
            )

    def succeeded(self) -> None:
        """It works, or an operator says that it will."""
        self._failures, self.offline_until, self.reason = 0, None, ""

    def shift(self, by: Micros) -> None:
        if self.offline_until is not None:
            self.offline_until += by

    def offline(self, now: Micros) -> bool:
        return self.offline_until is not None and now < self.offline_until
