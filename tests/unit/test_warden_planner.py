"""The planner's books: every window becomes a record, once; what was missed is made up for, once; shots are counted.

A planner is fed with times as a broker would feed it, which can be away, be killed between two of them, and have its
clock set.
"""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from warden import wire
from warden.calibration import Calendar, Rule, ShotRule
from warden.events import Almanac, KeepAlmanac
from warden.model import SECOND, Outcome, PastWindow, State, WardenError, Window
from warden.planner import Planner

T0 = 1_800_000_000 * SECOND


class Books:
    """What a planner has kept, and what a killed one leaves to the next."""

    def __init__(self) -> None:
        self.almanac = Almanac()
        self.past: list[PastWindow] = []

    def add(self, effect: object) -> None:
        if isinstance(effect, KeepAlmanac):
            self.almanac = effect.almanac
            self.past += effect.past

    def note(self, event: str, **facts: Any) -> None:
        """Nobody reads it here."""

    audit = note


class Desk:
    """A planner in the broker's hands; `restart` forgets all but the books."""

    def __init__(self, calendar: Calendar, now: int = T0) -> None:
        self.calendar, self.now = calendar, now
        self.books = Books()
        self.ticks: list[int] = []
        self.restart()

    def restart(self) -> None:
        self.planner = Planner(self.calendar, self.books, self.books.almanac)  # type: ignore[arg-type]

    def tick(self, seconds: int = 0) -> None:
        self.now += seconds * SECOND
        self.ticks.append(self.now)
        self.planner.pass_time(self.now)

    @property
    def past(self) -> list[PastWindow]:
        return self.books.past

    def recorded(self, rule: Rule) -> list[tuple[int, Outcome]]:
        """The start of each window of the rule that has a record, as often as it has one."""
        found = []
        for one in self.past:
            if one.window.reason == rule.reason and one.window.id == 0:
                found += [(one.window.start + n * rule.every, one.outcome) for n in range(one.count)]
        return found


def expected(rule: Rule, ticks: list[int]) -> list[tuple[int, Outcome]]:
    """What should have become of the rule's windows, when time only goes on."""
    found = []
    for window in itertools.takewhile(lambda w: w.start <= ticks[-1], rule.windows(ticks[0])):
        assert window.end is not None
        if any(window.covers(tick) for tick in ticks):
            found.append((window.start, Outcome.HELD))
        elif window.end <= ticks[-1]:
            found.append((window.start, Outcome.MISSED))
    return found


def rules(number: int, *, make_up: bool = False) -> st.SearchStrategy[Rule]:
    return st.integers(2, 60).flatmap(
        lambda every: st.builds(
            Rule,
            every=st.just(every * SECOND),
            duration=st.integers(1, every - 1).map(lambda s: s * SECOND),
            offset=st.integers(0, 60).map(lambda s: s * SECOND),
            reason=st.just(f"rule {number}"),
            kind=st.sampled_from([State.CALIBRATING, State.MAINTENANCE]),
            make_up=st.just(make_up),
        )
    )


sets = st.tuples(rules(1), rules(2)) | st.tuples(rules(1)) | st.just(())
pauses = st.integers(0, 5) | st.integers(0, 300)


@settings(max_examples=200)
@given(sets, st.lists(st.tuples(pauses, st.booleans()), min_size=1, max_size=30))
def test_each_window_of_a_rule_is_held_or_missed_once(rules_: tuple[Rule, ...], script: list[tuple[int, bool]]) -> None:
    desk = Desk(Calendar(rules_))
    desk.tick()
    for seconds, killed in script:
        if killed:
            desk.restart()
        desk.tick(seconds)
    for rule in rules_:
        assert desk.recorded(rule) == expected(rule, desk.ticks)


@settings(max_examples=200)
@given(rules(1), st.lists(st.tuples(st.integers(-200, 200), st.booleans()), min_size=1, max_size=30))
def test_a_clock_that_is_set_back_and_forth_leaves_no_new_window_without_a_record(
    rule: Rule, script: list[tuple[int, bool]]
) -> None:
    desk = Desk(Calendar((rule,)))
    desk.tick()
    for seconds, killed in script:
        if killed:
            desk.restart()
        desk.tick(seconds)
        recorded = {start for start, _ in desk.recorded(rule)}
        window = next(rule.windows(desk.now))
        # One that was over once, before anybody kept these books, may have no record when the clock comes back into it.
        assert window.end is not None
        was_over = any(tick >= window.end for tick in desk.ticks)
        assert not window.covers(desk.now) or window.start in recorded or was_over
    # Windows into which or before which the clock was set back are recorded again, and no others are.
    starts = [start for start, _ in desk.recorded(rule)]
    again = len(starts) - len(set(starts))
    back = [
        (max(desk.ticks[: number + 1]), after)
        for number, (before, after) in enumerate(itertools.pairwise(desk.ticks))
        if after < before
    ]
    most = sum((latest - after) // rule.every + 2 for latest, after in back)
    assert again <= most


windows = st.lists(st.tuples(st.integers(0, 120), st.integers(1, 60)), max_size=5)


@settings(max_examples=200)
@given(windows, st.lists(st.tuples(pauses, st.booleans()), min_size=1, max_size=30), st.data())
def test_each_window_of_an_operator_is_held_or_missed_once(  # noqa: C901 - adds, takes back, compares
    planned: list[tuple[int, int]], script: list[tuple[int, bool]], data: st.DataObject
) -> None:
    desk = Desk(Calendar())
    desk.tick()
    waiting = list(planned)
    added: dict[int, tuple[Window, int]] = {}
    cancelled: dict[int, int] = {}
    for seconds, killed in script:
        if waiting and data.draw(st.booleans()):
            delay, length = waiting.pop()
            body = wire.AddWindow(kind="maintenance", start=desk.now + delay * SECOND, duration=length * SECOND)
            window = desk.planner.add(body, 0, desk.now)
            added[window.id] = window, desk.now
        elif added and data.draw(st.integers(0, 9)) == 0:
            number = data.draw(st.sampled_from(sorted(added)))
            try:
                desk.planner.cancel(number, 0, desk.now)
            except WardenError:
                assert (end := added[number][0].end) is not None
                assert number in cancelled or end <= desk.now
            else:
                cancelled[number] = desk.now
        desk.tick()
        if killed:
            desk.restart()
        desk.tick(seconds)
    records: dict[int, list[Outcome]] = {}
    for one in desk.past:
        number = one.window.id
        if number in records and number in cancelled and one.window.end == cancelled[number]:
            # The same one again, with the end that it had in truth: the store keeps the later.
            records[number].pop()
        records.setdefault(number, []).append(one.outcome)
    for number, (window, since) in added.items():
        assert window.end is not None
        until = cancelled.get(number, desk.now + 1)
        ticks = [tick for tick in desk.ticks if since <= tick]
        before = [tick for tick in ticks if tick < until or (tick == until and number not in cancelled)]
        if any(window.covers(tick) for tick in before):
            wanted = [Outcome.HELD]
        elif before and window.end <= before[-1]:
            wanted = [Outcome.MISSED]
        else:
            wanted = []
        found = records.get(number, [])
        # At the moment of its end itself a tick may have come before it was taken back, or after.
        assert found == wanted or (number in cancelled and until in desk.ticks and len(found) <= 1)
    assert set(records) <= set(added)


# --- what is due ---

moves = st.lists(
    st.one_of(
        st.tuples(st.just("tick"), pauses),
        st.tuples(st.just("shots"), st.integers(1, 60)),
        st.tuples(st.just("boundary"), st.just(0)),
        st.tuples(st.just("restart"), st.just(0)),
    ),
    max_size=60,
)


def opened(desk: Desk, since: int) -> list[Window]:
    """Windows that have got a number since the planner had recorded so much."""
    return [one.window for one in desk.past[since:] if one.window.id]


@settings(max_examples=200)
@given(rules(1, make_up=True), moves)
def test_what_was_missed_is_made_up_for_once_and_at_a_boundary(rule: Rule, script: list[tuple[str, int]]) -> None:
    desk = Desk(Calendar((rule,)))
    desk.tick()
    owed = False
    for move, value in script:
        before = len(desk.past)
        match move:
            case "tick":
                desk.tick(value)
                assert opened(desk, before) == [], "nothing but a boundary opens what is due"
            case "shots":
                desk.planner.count_shots(value)
            case "restart":
                desk.restart()
            case _:
                free = desk.planner.block(desk.now) is None
                did = desk.planner.open_due(desk.now)
                assert did == (owed and free)
                made_up = opened(desk, before)
                assert [(w.start, w.end) for w in made_up] == [(desk.now, desk.now + rule.duration)] * did
                owed = owed and not did
        news = [one for one in desk.past[before:] if not one.window.id]
        # One that is held now needs nothing to be made up for before it.
        owed = news[-1].outcome is Outcome.MISSED if news else owed


shot_rules = st.lists(
    st.builds(
        ShotRule,
        after_shots=st.integers(1, 100),
        duration=st.integers(1, 60).map(lambda s: s * SECOND),
        reason=st.sampled_from(["one", "other"]),
    ),
    min_size=1,
    max_size=2,
    unique_by=lambda rule: rule.reason,
).map(tuple)


@settings(max_examples=200)
@given(shot_rules, moves)
def test_a_calibration_by_shots_opens_at_a_boundary_and_the_count_begins_anew(
    rules_: tuple[ShotRule, ...], script: list[tuple[str, int]]
) -> None:
    desk = Desk(Calendar(shot_rules=rules_))
    desk.tick()
    shots = 0
    for move, value in script:
        before = len(desk.past)
        match move:
            case "tick":
                desk.tick(value)
                assert opened(desk, before) == []
            case "shots":
                desk.planner.count_shots(value)
                shots += value
            case "restart":
                desk.restart()
            case _:
                free = desk.planner.block(desk.now) is None
                due = [rule for rule in rules_ if shots >= rule.after_shots] if free else []
                assert desk.planner.open_due(desk.now) == bool(due)
                found = opened(desk, before)
                assert sorted((w.reason, w.end) for w in found) == sorted(
                    (rule.reason, desk.now + rule.duration) for rule in due
                )
                assert not due or desk.planner.block(desk.now) is not None
                shots = 0 if due else shots
        assert desk.books.almanac.shots == shots


@settings(max_examples=200)
@given(st.tuples(rules(1)), shot_rules, moves)
def test_a_calibration_by_the_clock_begins_the_count_of_shots_anew_as_well(
    rules_: tuple[Rule, ...], by_shots: tuple[ShotRule, ...], script: list[tuple[str, int]]
) -> None:
    assume(rules_[0].kind is State.CALIBRATING)
    desk = Desk(Calendar(rules_, shot_rules=by_shots))
    desk.tick()
    for move, value in script:
        before, shots = len(desk.past), desk.books.almanac.shots
        match move:
            case "tick":
                desk.tick(value)
            case "shots":
                desk.planner.count_shots(value)
                shots += value
            case "restart":
                desk.restart()
            case _:
                desk.planner.open_due(desk.now)
        held = any(one.outcome is Outcome.HELD for one in desk.past[before:])
        assert desk.books.almanac.shots == (0 if held else shots)


# --- what it says ---


@settings(max_examples=200)
@given(sets, windows, st.lists(pauses, min_size=1, max_size=30))
def test_what_is_remembered_of_the_calendar_is_what_the_calendar_says(
    rules_: tuple[Rule, ...], planned: list[tuple[int, int]], script: list[int]
) -> None:
    desk = Desk(Calendar(rules_))
    waiting = list(planned)
    for seconds in script:
        desk.tick(seconds)
        if waiting:
            delay, length = waiting.pop()
            start = desk.now + delay * SECOND
            desk.planner.add(wire.AddWindow(kind="maintenance", start=start, duration=length * SECOND), 0, desk.now)
        calendar = Calendar(rules_, desk.books.almanac.windows)
        assert desk.planner.block(desk.now) == calendar.block(desk.now)
        assert desk.planner.next(desk.now) == calendar.next(desk.now)
        assert all(moment > desk.now for moment in desk.planner.times(desk.now))
        change = calendar.next_change(desk.now)
        assert change is None or min(desk.planner.times(desk.now)) <= change
