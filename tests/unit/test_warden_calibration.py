"""The calendar: what two processes that never met must agree on."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warden.calibration import Calendar, Rule
from warden.model import HORIZON, SECOND, ConfigurationError, State, Window

YEAR = 365 * 86400 * SECOND
NOW = 1_800_000_000 * SECOND


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    every = draw(st.integers(2, 5_000))
    return Rule(
        every=every * SECOND,
        duration=draw(st.integers(1, every - 1)) * SECOND,
        offset=draw(st.integers(-10_000, 10_000)) * SECOND,
        kind=draw(st.sampled_from([State.CALIBRATING, State.MAINTENANCE])),
    )


@st.composite
def singles(draw: st.DrawFn) -> Window:
    start = NOW + draw(st.integers(-5_000, 5_000)) * SECOND
    length = draw(st.none() | st.integers(1, 5_000))
    return Window(start, None if length is None else start + length * SECOND, State.MAINTENANCE, "repair")


calendars = st.builds(
    Calendar, st.lists(rules(), max_size=3).map(tuple), st.lists(singles(), max_size=3, unique=True).map(tuple)
)
times = st.integers(-5_000, 5_000).map(lambda s: NOW + s * SECOND)


def blocked(calendar: Calendar, time: int) -> bool:
    """The definition, without any cleverness."""
    return any((time - r.offset) % r.every < r.duration for r in calendar.rules) or any(
        w.covers(time) for w in calendar.single
    )


@given(calendars, times)
def test_a_block_is_on_exactly_when_a_rule_or_a_window_says_so(calendar: Calendar, time: int) -> None:
    assert (calendar.block(time) is not None) == blocked(calendar, time)


@given(calendars, times)
def test_the_qpu_is_free_from_now_until_the_next_window_and_blocked_there(calendar: Calendar, time: int) -> None:
    window = calendar.next(time)
    if window is None or calendar.block(time) is not None:
        return
    assert window.start >= time
    assert blocked(calendar, window.start)
    for moment in range(time, window.start, max(SECOND, (window.start - time) // 50)):
        assert not blocked(calendar, moment)


@given(calendars, times)
def test_a_block_ends_where_the_qpu_is_free(calendar: Calendar, time: int) -> None:
    block = calendar.block(time)
    if block is None or block.end is None:
        return
    assert block.covers(time)
    # Nobody follows rules without a gap for ever: what is told then is that the QPU is blocked for hours at least.
    assert not blocked(calendar, block.end) or block.end - time > 3600 * SECOND
    for moment in range(time, block.end, max(SECOND, (block.end - time) // 50)):
        assert blocked(calendar, moment)


@given(calendars, times, times)
def test_the_windows_ahead_are_the_same_whenever_one_asks(calendar: Calendar, first: int, second: int) -> None:
    first, second = sorted((first, second))
    until = second + 10_000 * SECOND
    early, late = calendar.windows(first, until), calendar.windows(second, until)
    assert [w for w in early if w.start > second] == [w for w in late if w.start > second]


@given(calendars, times)
def test_windows_are_in_order_and_neither_overlap_nor_touch(calendar: Calendar, time: int) -> None:
    found = calendar.windows(time, time + 10_000 * SECOND)
    for earlier, later in itertools.pairwise(found):
        assert earlier.end is not None
        assert earlier.end < later.start


@given(rules(), st.integers(0, 40))
def test_a_rule_does_not_drift_over_years(rule: Rule, years: int) -> None:
    time = NOW + years * YEAR
    window = next(rule.windows(time))
    assert (window.start - rule.offset) % rule.every == 0
    assert window.end == window.start + rule.duration
    assert window.end > time >= window.end - rule.every


def test_a_rule_is_anchored_at_the_epoch_in_utc() -> None:
    daily = Calendar((Rule(every=86400 * SECOND, offset=2 * 3600 * SECOND, duration=600 * SECOND),))
    midnight = NOW - NOW % (86400 * SECOND)
    assert daily.next(midnight) == Window(
        midnight + 7200 * SECOND, midnight + 7800 * SECOND, State.CALIBRATING, "calibration"
    )


def test_windows_that_touch_are_one() -> None:
    calendar = Calendar((), (_window(10, 20), _window(20, 30), _window(31, 40)))
    assert [(w.start, w.end) for w in calendar.windows(NOW, NOW + HORIZON)] == [_span(10, 30), _span(31, 40)]


def test_a_window_within_another_does_not_shorten_it() -> None:
    calendar = Calendar((), (_window(10, 40), _window(15, 20)))
    assert [(w.start, w.end) for w in calendar.windows(NOW, NOW + HORIZON)] == [_span(10, 40)]


def test_an_open_window_swallows_all_that_follows() -> None:
    calendar = Calendar(
        (Rule(every=100 * SECOND, duration=SECOND),), (Window(NOW + 5 * SECOND, None, State.MAINTENANCE),)
    )
    block = calendar.block(NOW + 50 * SECOND)
    assert block is not None
    assert block.end is None
    assert calendar.next(NOW + 50 * SECOND) is None


def test_next_looks_behind_the_block_that_is_on() -> None:
    calendar = Calendar((), (_window(-10, 20), _window(50, 60)))
    assert calendar.next(NOW) == _window(50, 60)


def test_nothing_beyond_the_horizon_is_told() -> None:
    far = Window(NOW + HORIZON + SECOND, None, State.MAINTENANCE)
    assert Calendar((), (far,)).next(NOW) is None
    assert Calendar((), (far,)).next(NOW + SECOND) == far


def test_a_window_is_half_open() -> None:
    calendar = Calendar((), (_window(10, 20),))
    assert calendar.block(NOW + 10 * SECOND) is not None
    assert calendar.block(NOW + 20 * SECOND - 1) is not None
    assert calendar.block(NOW + 20 * SECOND) is None


def test_maintenance_is_what_people_are_told_when_a_calibration_is_on_as_well() -> None:
    calendar = Calendar((), (Window(NOW - SECOND, NOW + SECOND, State.CALIBRATING), _window(0, 60)))
    block = calendar.block(NOW)
    assert block is not None
    assert (block.kind, block.reason, block.end) == (State.MAINTENANCE, "repair", NOW + 60 * SECOND)


@pytest.mark.parametrize("seconds", [2, 10, 3600])
def test_rules_that_leave_no_gap_come_to_an_end(seconds: int) -> None:
    every = seconds * SECOND
    always = Calendar(
        (Rule(every=every, duration=every // 2), Rule(every=every, duration=every // 2, offset=every // 2))
    )
    block = always.block(NOW)
    assert block is not None
    assert always.next(NOW) is None


@given(singles(), calendars)
def test_a_window_that_is_added_and_taken_back_leaves_the_calendar_as_it_was(
    window: Window, calendar: Calendar
) -> None:
    calendar = calendar.without(window)
    again = calendar.with_window(window).without(window)
    assert set(again.single) == set(calendar.single)
    assert calendar.with_window(window) == calendar.with_window(window).with_window(window)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"every": 10, "duration": 0}, "duration above 0"),
        ({"every": 10, "duration": 10}, "'every' longer than 'duration'"),
        ({"every": 10, "duration": 1, "kind": State.OFFLINE}, "kind is"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        Rule(**fields)


def _window(start: int, end: int) -> Window:
    return Window(*_span(start, end), State.MAINTENANCE, "repair")


def _span(start: int, end: int) -> tuple[int, int]:
    return NOW + start * SECOND, NOW + end * SECOND
