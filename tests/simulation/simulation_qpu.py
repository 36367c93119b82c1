"""The QPU itself: which token was physically at work when, and what the worker said of it. It cannot be deceived."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from simulation_world import ViolationError

from warden.model import SECOND

if TYPE_CHECKING:
    from simulation_world import World

    from warden import orders
    from warden.model import Micros

    Claim = orders.RunFinished | orders.CalibrationFinished


@dataclasses.dataclass
class Order:
    """What left the broker: of a run, `gap` is the time until the first window that was known, of a calibration its window's."""

    run: orders.StartRun | orders.StartCalibration
    time: Micros
    gap: Micros | None
    stop_at: Micros | None = None
    """When the broker found that a window is open all the same."""


@dataclasses.dataclass
class Stint:
    token: str
    began: Micros
    ended: Micros | None = None
    honest: bool = True


class Qpu:
    def __init__(self, world: World, *, prompt: Micros | None) -> None:
        """`prompt`: how fast an order to stop is obeyed where no fault of the seed is in its way; None: it may be."""
        self._world, self._prompt = world, prompt
        self.orders: dict[str, Order] = {}
        self.claims: dict[str, list[Claim]] = {}
        self.lies: set[str] = set()
        """Runs of which the worker said what was not so."""
        self.verdicts: dict[str, set[str]] = {}
        """What workers said of each sequence, truly or not."""
        self.worked: dict[str, Stint] = {}
        self.at_work: Stint | None = None
        self.stints = self.calibrated = 0

    def ordered(self, run: orders.StartRun | orders.StartCalibration, gap: Micros | None) -> None:
        if run.token in self.orders:
            raise ViolationError(f"4: run {run.token} was ordered twice")
        if gap is not None and (run.limit is None or run.limit > gap):
            raise ViolationError(f"2: {run.token} may take {run.limit}, and a window opens, or ends, in {gap}")
        self.orders[run.token] = Order(run, self._world.now, gap)

    def blocked(self, token: str) -> None:
        """A window is open, the broker knows it, and this run is not known to have ended."""
        order = self.orders.get(token)
        if order is not None and order.stop_at is None:
            order.stop_at = self._world.now

    def begin(self, token: str) -> None:
        if self.at_work is not None:
            raise ViolationError(f"1: the QPU begins with {token}, and {self.at_work.token} is at work")
        if token not in self.orders:
            raise ViolationError(f"4: the QPU begins with {token}, which nobody ordered")
        self._world.log("qpu", "begins", token)
        self.stints += 1
        self.at_work = self.worked[token] = Stint(token, self._world.now)

    def end(self, token: str) -> None:
        """Whoever began with this run ends it; one that is not at work stays as it is."""
        stint = self.at_work
        if stint is None or stint.token != token:
            return
        self.at_work, stint.ended = None, self._world.now
        self._world.log("qpu", "ends", stint.token)
        order, took = self.orders[stint.token], stint.ended - stint.began
        if not stint.honest:
            return
        # However long the order was under way, and whatever the worker did meanwhile.
        limits = [limit for limit in (order.run.limit, order.gap) if limit is not None]
        if limits and stint.ended > order.time + min(limits):
            late = (stint.ended - order.time - min(limits)) / SECOND
            raise ViolationError(f"2: run {stint.token} took {took}, and was over {late:.3f} s after its time")
        if order.stop_at is not None and self._prompt is not None and stint.ended > order.stop_at + self._prompt:
            late = (stint.ended - order.stop_at) / SECOND
            raise ViolationError(f"2: run {stint.token} was at work {late:.3f} s after a window had opened")

    def said(self, claim: Claim) -> None:
        claims = self.claims.setdefault(claim.token, [])
        if claim not in claims:
            claims.append(claim)
