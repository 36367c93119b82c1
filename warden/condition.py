"""How the QPU is: what it is doing, why, and until when. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warden.model import Availability, BusyError, Micros, State, Window, clock

if TYPE_CHECKING:
    from warden.dispatch import Dispatcher
    from warden.events import Settings
    from warden.ledger import Ledger
    from warden.planner import Planner


class Condition:
    """Read off the books, the windows and the worker; of its own it has only what keeps the broker from working."""

    def __init__(self, settings: Settings, ledger: Ledger, planner: Planner, dispatcher: Dispatcher) -> None:
        self._settings = settings
        self._ledger = ledger
        self._planner = planner
        self._dispatcher = dispatcher
        self.trouble = ""

    def availability(self, now: Micros) -> Availability:
        state, reason, until = self._state(now)
        pace = self._settings.timing.pace(self.qubits)
        calibration = self._dispatcher.calibrator.in_force
        return Availability(
            name=self._settings.name,
            state=state,
            reason=reason,
            until=until,
            places=self._settings.places,
            used=len(self._ledger.sessions),
            queued=len(self._ledger.queue),
            next_window=self.announced(now),
            qubits=self.qubits,
            time=now,
            setup=pace.setup,
            shot=pace.shooting(1),
            quality=None if self._dispatcher.worker is None else self._dispatcher.worker.quality,
            calibration=0 if calibration is None else calibration.id,
            calibrated=None if calibration is None else calibration.time,
        )

    def check_ready(self, now: Micros) -> None:
        """Whether a session can be had, apart from its place.

        Raises:
            BusyError: Not before the QPU is ready again.
        """
        state, reason, until = self._state(now)
        if state is not State.READY:
            when = "" if until is None else f" until {clock(until)}"
            raise BusyError(f"the QPU {self._settings.name} is {state}{when}: {reason}")

    def announced(self, now: Micros) -> Window | None:
        """The next window, as far as the task at hand is known to bring it about."""
        return self._planner.announced(now, self._dispatcher.boundary(now), self._dispatcher.shots_ahead())

    @property
    def qubits(self) -> int:
        device = self._dispatcher.device
        return self._settings.qubits if device is None else min(self._settings.qubits, device.qubits)

    def _state(self, now: Micros) -> tuple[State, str, Micros | None]:
        """A planned maintenance explains a missing worker."""
        if self.trouble:
            return State.OFFLINE, self.trouble, None
        block = self._planner.block(now)
        if block is not None and block.kind is State.MAINTENANCE:
            return block.kind, block.reason, block.end
        if self._dispatcher.worker is None:
            return State.OFFLINE, "its worker is not connected", None
        if block is not None:
            return block.kind, block.reason, block.end
        health = self._dispatcher.health
        if health.offline(now):
            return State.OFFLINE, health.reason, health.offline_until
        window = self.announced(now)
        return State.READY, "", None if window is None else window.start
