"""The calendar: what two processes that never met must agree on."""

from __future__ import annotations

import hashlib
import itertools
import os
import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warden import calibration
from warden.calibration import Calendar, Rule
from warden.model import HORIZON, SECOND, ConfigurationError, Outcome, State, Window

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


# --- the same anywhere ---


def answers(calendar: Calendar, time: int) -> list[object]:
    """All that a calendar can be asked."""
    return [
        calendar.windows(time, time + 10_000 * SECOND),
        calendar.block(time),
        calendar.next(time),
        calendar.next_change(time),
        calendar.longest_gap(),
    ]


@settings(max_examples=50)
@given(calendars, times, st.randoms(use_true_random=False))
def test_the_order_of_rules_and_windows_makes_no_difference(
    calendar: Calendar, time: int, chance: random.Random
) -> None:
    rules, single = list(calendar.rules), list(calendar.single)
    chance.shuffle(rules)
    chance.shuffle(single)
    assert answers(Calendar(tuple(rules), tuple(single)), time) == answers(calendar, time)


def digest() -> str:
    """What some calendars say, as a few letters."""
    chance = random.Random(3)
    said = []
    for _ in range(12):
        rules = []
        for _ in range(chance.randint(0, 3)):
            every = chance.randint(2, 5_000)
            kind = chance.choice([State.CALIBRATING, State.MAINTENANCE])
            rules.append(Rule(every=every * SECOND, duration=chance.randint(1, every - 1) * SECOND, kind=kind))
        starts = [NOW + chance.randint(-5_000, 5_000) * SECOND for _ in range(chance.randint(0, 3))]
        single = tuple(Window(start, start + 900 * SECOND, State.MAINTENANCE, str(start)) for start in starts)
        said.append(repr(answers(Calendar(tuple(rules), single), NOW)))
    return hashlib.sha256("\n".join(said).encode()).hexdigest()


@pytest.mark.parametrize("seed", ["0", "1", "4294967295"])
def test_another_process_says_the_same(seed: str) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": "Pacific/Kiritimati", "LC_ALL": "C"}
    program = f"import sys; sys.path[:0] = {sys.path!r}; import test_warden_calibration as here; print(here.digest())"
    told = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        cwd=os.path.dirname(__file__),  # noqa: PTH120
        capture_output=True,
        text=True,
        check=True,
        timeout=200,
    )
    assert told.stdout.strip() == digest()


# --- against a model that looks at every moment ---

small_rules = st.integers(2, 12).flatmap(
    lambda every: st.builds(Rule, every=st.just(every), duration=st.integers(1, every - 1), offset=st.integers(-20, 20))
)
small_windows = st.builds(
    lambda start, length: Window(start, None if length is None else start + length, State.MAINTENANCE, "repair"),
    st.integers(-30, 60),
    st.none() | st.integers(1, 40),
)
small = st.builds(
    Calendar, st.lists(small_rules, max_size=2).map(tuple), st.lists(small_windows, max_size=3, unique=True).map(tuple)
)
# Rules that never leave a gap are followed up to some end only; the model would look for one for ever.
FAR = 1_000


def edges(calendar: Calendar, time: int) -> list[int]:
    """All starts and ends in the next periods, joined or not."""
    found = [moment for w in calendar.single for moment in (w.start, w.end) if moment is not None]
    for r in calendar.rules:
        first = (time - r.offset) // r.every - 2
        starts = [r.offset + n * r.every for n in range(first, first + 6)]
        found += [*starts, *(start + r.duration for start in starts)]
    return [moment for moment in found if moment > time]


def relevant(calendar: Calendar, time: int) -> bool:
    """Whether there is a gap for the model to find."""
    return any(not blocked(Calendar(calendar.rules), moment) for moment in range(time, time + 150))


@settings(max_examples=300)
@given(small, st.integers(-40, 80))
def test_a_block_ends_at_the_first_free_moment(calendar: Calendar, time: int) -> None:
    block = calendar.block(time)
    assert (block is not None) == blocked(calendar, time)
    if block is not None and relevant(calendar, time):
        end = next((moment for moment in range(time, time + FAR) if not blocked(calendar, moment)), None)
        assert block.end == end
        assert block.start <= time


@settings(max_examples=300)
@given(small, st.integers(-40, 80))
def test_the_next_window_is_from_the_first_blocked_moment_to_the_first_free_one(calendar: Calendar, time: int) -> None:
    if not relevant(calendar, time):
        return
    moments = range(time, time + FAR)
    free = next((moment for moment in moments if not blocked(calendar, moment)), None)
    start = None if free is None else next((m for m in range(free, time + FAR) if blocked(calendar, m)), None)
    end = None if start is None else next((m for m in range(start, start + FAR) if not blocked(calendar, m)), None)
    window = calendar.next(time)
    assert (None if window is None else (window.start, window.end)) == (None if start is None else (start, end))


@settings(max_examples=300)
@given(small, st.integers(-40, 80))
def test_the_next_change_is_the_next_edge_of_any_window(calendar: Calendar, time: int) -> None:
    assert calendar.next_change(time) == min(edges(calendar, time), default=None)


def longest_free_stretch(rules: tuple[Rule, ...]) -> int:
    calendar, longest, stretch = Calendar(rules), 0, 0
    # Two periods and a half, from a moment that is blocked.
    start = next(moment for moment in range(200) if blocked(calendar, moment))
    for moment in range(start, start + 330):
        stretch = 0 if blocked(calendar, moment) else stretch + 1
        longest = max(longest, stretch)
    return longest


one_or_two = st.lists(small_rules, min_size=1, max_size=2).map(tuple)


@settings(max_examples=300)
@given(one_or_two)
def test_the_longest_gap_is_the_longest_free_stretch_of_a_whole_period(rules: tuple[Rule, ...]) -> None:
    assert Calendar(rules).longest_gap() == longest_free_stretch(rules)


@settings(max_examples=300)
@given(one_or_two, st.integers(1, 60))
def test_a_longest_gap_for_which_not_all_windows_were_looked_at_is_unknown(rules: tuple[Rule, ...], parts: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "_PARTS", parts)
        found = calibration._longest_gap.__wrapped__(rules)
    assert found in {None, longest_free_stretch(rules)}


# --- long stretches of time ---


@given(rules(), st.integers(-(10**7), 10**7) | st.sampled_from([10**7, -(10**7)]))
def test_window_n_of_a_rule_begins_after_n_periods_to_the_microsecond(rule: Rule, number: int) -> None:
    start = rule.offset + number * rule.every
    window = Window(start, start + rule.duration, rule.kind, rule.reason)
    for moment in (start, start + rule.duration - 1):
        assert next(rule.windows(moment)) == window
    assert next(rule.windows(start + rule.duration)).start == start + rule.every


@settings(max_examples=300)
@given(small_rules, st.integers(-50, 200), st.integers(0, 200))
def test_missed_windows_are_counted_as_if_one_by_one(rule: Rule, after: int, span: int) -> None:
    now = after + span
    ends = [
        end for number in range(-300, 600) if after < (end := rule.offset + number * rule.every + rule.duration) <= now
    ]
    missed = rule.missed(after, now)
    if missed is None:
        assert ends == []
        return
    assert (missed.outcome, missed.count) == (Outcome.MISSED, len(ends))
    assert (missed.window.start, missed.window.end) == (ends[0] - rule.duration, ends[-1])


def _window(start: int, end: int) -> Window:
    return Window(*_span(start, end), State.MAINTENANCE, "repair")


def _span(start: int, end: int) -> tuple[int, int]:
    return NOW + start * SECOND, NOW + end * SECOND
