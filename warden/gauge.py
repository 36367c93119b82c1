"""How good the QPU is, as its worker says: what is kept of it, and who has to heed it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warden.events import Keep
from warden.model import SECOND, Calibration, Micros, Quality

if TYPE_CHECKING:
    from warden.ledger import Ledger
    from warden.planner import Planner

# Of what each beat says one sample is kept in so long.
SAMPLED = 300 * SECOND


class Gauge:
    """Reads what the worker's last beat said; None: it said nothing."""

    def __init__(self, ledger: Ledger, planner: Planner, *, every: Micros = SAMPLED) -> None:
        self._ledger = ledger
        self._planner = planner
        self._every = every
        self._kept: Quality | None = None

    def read(self, value: float | None, calibration: Calibration | None, now: Micros) -> None:
        """Keep a sample now and then, and the first one under each calibration."""
        self._planner.heed(value)
        if value is None:
            return
        kept, number = self._kept, 0 if calibration is None else calibration.id
        if kept is None or kept.calibration != number or not kept.time <= now < kept.time + self._every:
            self._kept = Quality(time=now, value=value, calibration=number)
            self._ledger.add(Keep(self._kept))
