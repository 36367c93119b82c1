"""Has the QPU calibrated in the windows that are there for it: at most once in each, and never while a run is at work. Pure.

`planner` says which windows open; what came of their calibrations is kept here, and written into the history. What the
worker was told is kept before it leaves, so that a calibration counts once, also if the broker is killed meanwhile.

A window never waits. At its end its calibration is given up, the worker is told to stop, and the calibration before it
stays in force: a worker that gets a run drops what it had, and it has ended by its own clock before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from warden import orders, results
from warden.events import Calibrating, Commission, Keep, Remark, Tell
from warden.model import SECOND, Calibration, Micros, State, brief

if TYPE_CHECKING:
    from collections.abc import Callable

    from warden.dispatch import Worker
    from warden.events import Remembered
    from warden.ledger import Ledger
    from warden.model import Window
    from warden.planner import Planner

replace = msgspec.structs.replace

# Of what a worker says of its failure so much is written into the history.
_TOLD = 200


class Calibrator:
    """The calibration in force, and the next one."""

    def __init__(
        self, ledger: Ledger, planner: Planner, new_id: Callable[[], str], remembered: Remembered, *, grace: Micros
    ) -> None:
        """`grace`: so long after the broker was away a worker may still hand in what it has done meanwhile."""
        self._ledger = ledger
        self._planner = planner
        self._new_id = new_id
        self._grace = grace
        self._calibration = remembered.calibration
        self._now = remembered.calibrating
        self._graced: Micros | None = None
        self._astray: Micros | None = None

    @property
    def in_force(self) -> Calibration | None:
        """Without its log, which is for people."""
        return None if self._calibration is None else replace(self._calibration, log=())

    @property
    def token(self) -> str:
        """Of the calibration that the QPU is at; empty without one."""
        return "" if self._now.commission is None else self._now.commission.token

    def times(self) -> list[Micros]:
        return [] if self._graced is None else [self._graced]

    # --- what the worker says ---

    def knows(self, token: str, instance: str) -> bool:
        """Whether this worker may have the calibration, if there is one."""
        at = self._now.commission
        return at is None or token == at.token or instance == at.instance

    def met(self, token: str, instance: str, now: Micros) -> None:
        """It is taken as our worker."""
        if not self.knows(token, instance):
            self._end("was lost with its worker", now)

    def shown(self, token: str, now: Micros, silence: Micros) -> None:
        """Our worker shows what it is at."""
        if not self.token or token == self.token:
            self._astray = None
        elif self._astray is None:
            self._astray = now
        elif now - self._astray >= silence:
            self._end("was lost on its way to the worker", now)

    def finished(self, finished: orders.CalibrationFinished, now: Micros) -> bool:
        """Take in what became of a calibration; whether another one is in force now."""
        at = self._now.commission
        if at is None or finished.token != at.token:
            self._ledger.note("stale calibration dropped", calibration=brief(finished.token))
            return False
        if flaw := results.flaw(finished):
            self._end(f"failed: {flaw[:_TOLD]}", now)
            return False
        duration = min(finished.time, max(0, now - at.started))
        calibration = Calibration(
            id=at.number,
            # When the worker was done, however long the broker was away since.
            time=min(now, at.started + duration),
            duration=duration,
            reason=at.windows[-1].reason,
            measured=finished.measured,
            left=finished.left,
            before=finished.before,
            after=finished.after,
            log=finished.log,
        )
        self._calibration = calibration
        self._ledger.add(Keep(calibration))
        self._end(f"number {calibration.id}", now)
        return True

    # --- what time brings ---

    def pass_time(self, worker: Worker | None, now: Micros) -> None:
        """Take in the windows that have opened, and give up what has none any more."""
        opened = (*self._now.waiting, *self._planner.take_opened())
        waiting = tuple(window for window in opened if self._planner.holds(window, now))
        if waiting != self._now.waiting:
            self._keep(replace(self._now, waiting=waiting))
        for window in opened:
            if window not in waiting:
                why = "no worker was there" if worker is None else "the QPU was not free"
                self._tell_of((window,), f"none: {why}")
        at = self._now.commission
        if self._graced is not None and now >= self._graced:
            self._graced = None
        if at is None or self._graced is not None or self._may_go_on(at.windows, now):
            return
        if worker is not None:
            self._ledger.add(Tell(worker.peer, orders.StopRun(token=at.token)))
        self._end("was lost with its worker" if worker is None else "was not done in its window", now)

    def start(self, worker: Worker, now: Micros) -> None:
        """The QPU is free: have it calibrated, if this is a window for it."""
        self.pass_time(worker, now)
        windows = self._now.waiting
        if self._now.commission is not None or not windows or not self._may_go_on(windows, now):
            return
        # One calibration is enough for all that have opened; the longest leaves it most time.
        windows = tuple(sorted(windows, key=_end))
        number = 1 if self._calibration is None else self._calibration.id + 1
        at = Commission(windows=windows, token=self._new_id(), number=number, started=now, instance=worker.instance)
        self._astray = None
        self._keep(Calibrating(commission=at))
        order = orders.StartCalibration(
            token=at.token,
            number=number,
            at=now,
            calibration=self.in_force,
            issued=max(0, now + worker.ahead),
            limit=_end(windows[-1]) - now,
        )
        self._ledger.add(Tell(worker.peer, order))
        self._ledger.note("calibration started", number=number, calibration=brief(at.token), reason=windows[-1].reason)

    def begin_anew(self, now: Micros) -> None:
        """The broker was away: the worker may have done meanwhile what its window has no time for any more."""
        if self._now.commission is not None:
            self._graced = now + self._grace
        if self._calibration is not None and self._calibration.time > now:
            self._move(now - self._calibration.time)

    def shift(self, by: Micros) -> None:
        """The clock was set: the calibration is as old as it was."""
        at = self._now.commission
        if at is not None:
            self._keep(replace(self._now, commission=replace(at, started=at.started + by)))
        if self._graced is not None:
            self._graced += by
        self._astray = None
        self._move(by)

    def _move(self, by: Micros) -> None:
        if self._calibration is not None:
            self._calibration = replace(self._calibration, time=self._calibration.time + by)
            self._ledger.add(Keep(self._calibration))

    # --- how it is kept ---

    def _may_go_on(self, windows: tuple[Window, ...], now: Micros) -> bool:
        """A maintenance goes before: somebody may have the laser open."""
        block = self._planner.block(now)
        calibrating = block is not None and block.kind is State.CALIBRATING
        return calibrating and any(self._planner.holds(window, now) for window in windows)

    def _end(self, what: str, now: Micros) -> None:
        at = self._now.commission
        if at is not None:
            self._graced = None
            self._keep(replace(self._now, commission=None))
            self._tell_of(at.windows, what, seconds=(now - at.started) / SECOND)

    def _tell_of(self, windows: tuple[Window, ...], what: str, **facts: float) -> None:
        for window in windows:
            self._ledger.add(Remark(window, what))
        self._ledger.note("calibration ended", outcome=what, reason=windows[-1].reason, **facts)

    def _keep(self, calibrating: Calibrating) -> None:
        self._now = calibrating
        self._ledger.add(Keep(calibrating))


def _end(window: Window) -> Micros:
    """Windows of kind calibrating have one."""
    return window.start if window.end is None else window.end
