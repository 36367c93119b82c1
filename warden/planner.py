"""The calendar as it is kept: what operators add, what is due, what was held and what was missed. Pure.

`calibration` says what the rules make of a time; here is what they cannot know: that the broker was away when a window
opened, that an operator moved one, that the QPU has taken its thousand shots.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import msgspec

from warden.events import Almanac, Due, KeepAlmanac
from warden.model import (
    SECOND,
    BadRequestError,
    ConflictError,
    Micros,
    NotFoundError,
    Outcome,
    PastWindow,
    Plan,
    State,
    Window,
    clock,
)

if TYPE_CHECKING:
    from warden import wire
    from warden.calibration import Calendar, QualityRule, Rule
    from warden.ledger import Ledger

replace = msgspec.structs.replace

# The end of the year 2999.
_LATEST: Micros = 32_503_680_000 * SECOND


# Windows are told of from HORIZON on: so often we look for those that come into sight.
_SIGHT = 3600 * SECOND
# A quality that no calibration restores asks for one less and less often, but not for ever: somebody may have found out why.
_DOUBLINGS = 6
# What opens in a second that the clock shows twice, a leap second, opens twice, and has been held once.
_LEAP = SECOND


class _Known(msgspec.Struct, frozen=True):
    since: Micros
    until: Micros
    block: Window | None
    following: Window | None


class Planner:
    """The windows of one QPU, those of the rules and all others; every change is an effect that makes it durable."""

    def __init__(self, calendar: Calendar, ledger: Ledger, almanac: Almanac) -> None:
        self._calendar = replace(calendar, single=almanac.windows)
        self.longest_gap = calendar.longest_gap()
        self._ledger = ledger
        self._almanac = almanac
        self._known: _Known | None = None
        self._settled: Micros = 0
        self._quality: float | None = None
        self._opened: tuple[Window, ...] = ()

    def settle(self, until: Micros) -> None:
        """The clock may not be right yet: no window is given up before `until` because it shows that one is over."""
        self._settled = until

    def block(self, now: Micros) -> Window | None:
        return self._look(now).block

    def next(self, now: Micros) -> Window | None:
        return self._look(now).following

    def times(self, now: Micros) -> list[Micros]:
        """When a window opens or closes next, or comes into sight."""
        return [self._look(now).until]

    def announced(self, now: Micros, boundary: Micros, shots: int) -> Window | None:
        """The window that people should reckon with: the next one, or what will be due at `boundary` if it is sooner.

        `shots`: those that the QPU is at, until the boundary.
        """
        following = self.next(now)
        due = self._due(boundary, shots)
        if not due or self.block(now) is not None or (following is not None and following.start <= boundary):
            return following
        longest = max(due, key=lambda one: one.duration)
        return Window(boundary, boundary + longest.duration, longest.kind, longest.reason)

    def holds(self, window: Window, now: Micros) -> bool:
        """Whether this window is open, and nobody has taken it back."""
        return window.covers(now) and (not window.id or window in self._almanac.windows)

    def plan(self, now: Micros, count: int, announced: Window | None) -> Plan:
        """The next `count` windows, with the one that is open now and the one that is announced."""
        calendar = self._calendar
        if announced is not None and announced != self.next(now):
            calendar = calendar.with_window(announced)
        windows = tuple(itertools.islice(calendar.ahead(now), count))
        added = tuple(w for w in self._almanac.windows if w.end is None or w.end > now)
        return Plan(windows, added)

    # --- what operators do ---

    def add(self, body: wire.AddWindow, by: int | None, now: Micros) -> Window:
        start = now if body.start is None else body.start
        end = None if body.duration is None else start + body.duration
        window = Window(start, end, State(body.kind), body.reason or body.kind, self._almanac.next_window)
        self._check(window, now)
        # Draining again says how long and why from now on.
        replaced = self._drains(now) if body.start is None and window.kind is State.MAINTENANCE else []
        self._close(replaced, now)
        for window_before in replaced:
            self._ledger.audit("window replaced", by=by, window=window_before.id)
        self._keep(windows=(*self._almanac.windows, window), next_window=window.id + 1)
        self._ledger.audit(
            "window added", by=by, window=window.id, **_times(window), kind=window.kind, reason=window.reason
        )
        return window

    def move(self, body: wire.MoveWindow, by: int | None, now: Micros) -> Window:
        old = self._added(body.window, now)
        length = body.duration if body.duration is not None else None if old.end is None else old.end - old.start
        moved = replace(old, start=body.start, end=None if length is None else body.start + length)
        self._check(moved, now)
        if old.start <= now:
            raise ConflictError("this window is open already: take it back, or add another one")
        self._keep(windows=(*(w for w in self._almanac.windows if w != old), moved))
        self._ledger.audit("window moved", by=by, window=old.id, **_times(moved))
        return moved

    def cancel(self, number: int, by: int | None, now: Micros) -> Window:
        window = self._added(number, now)
        self._close([window], now)
        self._ledger.audit("window taken back", by=by, window=number)
        return window

    def end_maintenance(self, now: Micros) -> bool:
        """End the maintenance that operators have on now; whether there was one."""
        drains = self._drains(now)
        self._close(drains, now)
        return bool(drains)

    # --- what time and the QPU do ---

    def pass_time(self, now: Micros) -> None:
        """Account for windows that have opened, or that passed while nobody was there to open them."""
        accounted = {rule.name: self._almanac.accounted.get(rule.name, now) for rule in self._calendar.rules}
        past: list[PastWindow] = []
        due = list(self._almanac.due)
        for rule in self._calendar.rules:
            accounted[rule.name], found = _account(rule, accounted[rule.name], now)
            past += found
            if found:
                # What it missed before is made up for by what it holds now.
                due = [one for one in due if one.rule != rule.name]
            if rule.make_up and found and found[-1].outcome is Outcome.MISSED:
                reason = f"{rule.reason} (made up for)"
                due.append(Due(rule=rule.name, duration=rule.duration, reason=reason, kind=rule.kind))
        windows = [w for w in self._almanac.windows if w.end is None or w.end > now or now < self._settled]
        opened = self._almanac.opened
        for window in self._almanac.windows:
            if window.start <= now and window.id not in opened:
                held = window.end is None or now < window.end
                past.append(PastWindow(window, Outcome.HELD if held else Outcome.MISSED))
        opened = tuple(w.id for w in windows if w.start <= now)
        calibrating = [w.window for w in past if w.outcome is Outcome.HELD and w.window.kind is State.CALIBRATING]
        self._opened += tuple(calibrating)
        for one in past:
            self._note(one)
        self._keep(
            past=tuple(past),
            windows=tuple(windows),
            opened=opened,
            accounted=accounted,
            due=tuple(due),
            shots=0 if calibrating else self._almanac.shots,
            calibrated=max((w.end or now for w in calibrating), default=self._almanac.calibrated),
            pause=0 if self._restored() else self._almanac.pause,
        )

    def take_opened(self) -> tuple[Window, ...]:
        """The windows of kind calibrating that have opened since this was asked."""
        opened, self._opened = self._opened, ()
        return opened

    def heed(self, quality: float | None) -> None:
        """How good the QPU is said to be."""
        self._quality = quality

    def count_shots(self, shots: int) -> None:
        if shots and self._calendar.shot_rules:
            self._keep(shots=self._almanac.shots + shots)

    def open_due(self, now: Micros) -> bool:
        """The QPU turns from one task to another, or to none: what is due opens now. Whether it did."""
        due = self._due(now, 0)
        if not due or self.block(now) is not None:
            return False
        for rule in self._early(now):
            pause = min(max(2 * self._almanac.pause, rule.at_least), rule.at_least * 2**_DOUBLINGS)
            self._keep(pause=pause)
            self._ledger.note(
                "quality low", quality=self._quality, below=rule.below, again_after_seconds=pause / SECOND
            )
        number = self._almanac.next_window
        windows = tuple(Window(now, now + one.duration, one.kind, one.reason, number + n) for n, one in enumerate(due))
        self._keep(windows=(*self._almanac.windows, *windows), next_window=number + len(windows), due=())
        self.pass_time(now)
        return True

    def _due(self, time: Micros, shots: int) -> list[Due]:
        """What is due at this time, when the QPU has taken so many shots more."""
        by_shots = [
            Due(rule="shots", duration=rule.duration, reason=rule.reason)
            for rule in self._calendar.shot_rules
            if self._almanac.shots + shots >= rule.after_shots
        ]
        early = [Due(rule="quality", duration=rule.duration, reason=rule.reason) for rule in self._early(time)]
        return [*self._almanac.due, *by_shots, *early]

    def _early(self, time: Micros) -> list[QualityRule]:
        """The rules by which the quality is too low, if the last calibration is long enough ago."""
        quality, since = self._quality, self._almanac.calibrated
        return [
            rule
            for rule in self._calendar.quality_rules
            # Of a calibration that lies ahead the clock was set back since.
            if quality is not None
            and quality < rule.below
            and not since <= time < since + max(rule.at_least, self._almanac.pause)
        ]

    def _restored(self) -> bool:
        return self._quality is not None and all(self._quality >= rule.below for rule in self._calendar.quality_rules)

    # --- how it is kept ---

    def _added(self, number: int, now: Micros) -> Window:
        there = (w for w in self._almanac.windows if w.end is None or w.end > now)
        found = next((w for w in there if w.id == number), None)
        if found is None:
            raise NotFoundError(
                f"no operator added a window {number}: `warden calibrate plan` shows which there are; those of the "
                "configuration's rules stay"
            )
        return found

    def _drains(self, now: Micros) -> list[Window]:
        return [w for w in self._almanac.windows if w.kind is State.MAINTENANCE and w.covers(now)]

    def _close(self, windows: list[Window], now: Micros) -> None:
        """Take windows back; of one that was open the history says when it ended in truth."""
        cut = [replace(w, end=now) for w in windows if w.id in self._almanac.opened]
        calibrating = any(window.kind is State.CALIBRATING for window in cut)
        self._keep(
            calibrated=now if calibrating else self._almanac.calibrated,
            past=tuple(PastWindow(window, Outcome.HELD) for window in cut),
            windows=tuple(w for w in self._almanac.windows if w not in windows),
        )

    @staticmethod
    def _check(window: Window, now: Micros) -> None:
        if window.end is not None and window.end <= now:
            raise BadRequestError("this window would lie in the past")
        if max(window.start, window.end or 0) > _LATEST:
            raise BadRequestError("this window is too far in the future: no clock shows it")
        if window.end is None and window.kind is State.CALIBRATING:
            raise BadRequestError("a calibration needs a duration")

    def _keep(self, *, past: tuple[PastWindow, ...] = (), **changes: object) -> None:
        almanac = replace(self._almanac, **changes)
        if almanac == self._almanac and not past:
            return
        self._almanac = almanac
        self._calendar = replace(self._calendar, single=almanac.windows)
        self._known = None
        self._ledger.add(KeepAlmanac(almanac, past))

    def _note(self, past: PastWindow) -> None:
        window = past.window
        self._ledger.note(f"window {past.outcome}", kind=window.kind, **_times(window), count=past.count)

    def _look(self, now: Micros) -> _Known:
        """What the calendar says of now: asked at each event, and the same until a window opens or closes."""
        known = self._known
        if known is None or not known.since <= now < known.until:
            change = self._calendar.next_change(now)
            until = now + _SIGHT if change is None else min(change, now + _SIGHT)
            known = self._known = _Known(now, until, self._calendar.block(now), self._calendar.next(now))
        return known


def _times(window: Window) -> dict[str, str]:
    return {"start": clock(window.start), "end": "open" if window.end is None else clock(window.end)}


def _account(rule: Rule, accounted: Micros, now: Micros) -> tuple[Micros, list[PastWindow]]:
    """What became of the rule's windows since `accounted`, and until when that is now known."""
    if accounted > now + rule.duration + _LEAP:
        # The clock has been set back.
        accounted = now
    past = []
    missed = rule.missed(accounted, now)
    if missed is not None and missed.window.end is not None:
        past.append(missed)
        accounted = missed.window.end
    current = next(rule.windows(max(accounted, now)))
    if current.start <= now and current.end is not None and current.end > accounted:
        past.append(PastWindow(current, Outcome.HELD))
        accounted = current.end
    return accounted, past
