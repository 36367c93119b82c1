"""What a report says must be true of every job that is dispatched while it rules."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from load_sensors.outlook import NOTHING, Outlook, outlook, together
from warden.model import HORIZON, SECOND, Availability, State, Window

I, WAIT = 10 * SECOND, 6 * SECOND  # noqa: E741 - as the sensor calls it
NOW = 1000 * SECOND


def availability(state: State = State.READY, until: float | None = None, **more: object) -> Availability:
    usual: dict[str, object] = {
        "name": "fresnel",
        "state": state,
        "reason": "",
        "until": None if until is None else at(until),
        "places": 4,
        "used": 0,
        "queued": 0,
        "next_window": None,
        "qubits": 80,
        "time": NOW,
    }
    return Availability(**(usual | more))  # type: ignore[arg-type]


def at(seconds: float) -> int:
    return NOW + round(seconds * SECOND)


def window(start: float, end: float | None, kind: State = State.CALIBRATING) -> Window:
    return Window(at(start), None if end is None else at(end), kind)


FAR = HORIZON // SECOND


@pytest.mark.parametrize(
    ("answer", "windows", "places", "seconds"),
    [
        (availability(), (), 4, FAR),
        # What is taken is Grid Engine's to subtract.
        (availability(used=4, queued=9), (), 4, FAR),
        # The last job of this report comes after two intervals.
        (availability(), (window(20.5, 30),), 4, 0),
        (availability(), (window(90, 200),), 4, 70),
        (availability(), (window(20, 30),), 0, 0),
        (availability(), (window(1, 2),), 0, 0),
        # Of a block that ends soon the prolog awaits the end.
        (availability(State.CALIBRATING, 6), (window(-5, 6),), 4, FAR),
        (availability(State.CALIBRATING, 6.1), (window(-5, 6.1),), 0, 0),
        (availability(State.MAINTENANCE, 5), (window(-5, 5, State.MAINTENANCE), window(100, 200)), 4, 80),
        (availability(State.CALIBRATING, 5), (window(-5, 5), window(15, 20)), 0, 0),
        # Nobody knows how long these last.
        (availability(State.MAINTENANCE), (window(-5, None, State.MAINTENANCE),), 0, 0),
        (availability(State.OFFLINE), (), 0, 0),
        (availability(State.OFFLINE, 3), (), 0, 0),
        # A calibration by shots that is announced for now and has not begun.
        (availability(), (window(0, 60),), 0, 0),
        (availability(State.CALIBRATING, 3), (), 4, FAR),
    ],
)
def test_what_a_job_will_find(answer: Availability, windows: tuple[Window, ...], places: int, seconds: int) -> None:
    expected = Outlook(places=places, state=answer.state, window=seconds, qubits=80)
    assert outlook(answer, windows, I, WAIT) == expected


times = st.integers(0, 120)


@st.composite
def calendars(draw: st.DrawFn) -> tuple[Window, ...]:
    """Windows in seconds from now, as Warden joins them: in order, and none touches another."""
    edges = sorted(draw(st.sets(st.integers(-60, 120), max_size=8)))
    pairs = list(zip(edges[::2], edges[1::2], strict=False))
    return tuple(window(start, end) for start, end in pairs if end > 0)


def asked_at_zero(windows: tuple[Window, ...]) -> Availability:
    block = next((one for one in windows if one.covers(NOW)), None)
    if block is None:
        return availability()
    return availability(block.kind, None if block.end is None else (block.end - NOW) / SECOND)


@settings(max_examples=2000)
@given(calendars(), st.integers(0, 30), st.integers(0, 30), st.data())
@example((window(-3, 4),), 2, 5, None)
def test_no_job_is_started_into_a_window_nor_sent_away(
    windows: tuple[Window, ...], interval: int, wait: int, data: st.DataObject | None
) -> None:
    said = outlook(asked_at_zero(windows), windows, interval * SECOND, wait * SECOND)
    moment = at(data.draw(st.integers(0, 2 * interval)) if data else 2 * interval)
    block = next((one for one in windows if one.covers(moment)), None)
    if said.places:
        # A block that is on when it is dispatched ends while its prolog waits ...
        assert block is None or (block.end is not None and block.end - moment <= wait * SECOND)
        # ... and no window that it did not see begins before it.
        assert not any(NOW < one.start <= moment for one in windows)
        start = moment if block is None or block.end is None else block.end
        following = min((one.start for one in windows if one.start > start), default=start + HORIZON)
        assert said.window * SECOND <= following - start
    else:
        assert said.window == 0


@settings(max_examples=2000)
@given(calendars(), st.integers(0, 30), st.integers(0, 30))
def test_no_job_is_kept_back_without_need(windows: tuple[Window, ...], interval: int, wait: int) -> None:
    """Where it says no, there is a moment of its time at which a job would be sent away, or meet a window."""
    said = outlook(asked_at_zero(windows), windows, interval * SECOND, wait * SECOND)
    blocked = any(one.covers(NOW) and (one.end or 0) - NOW > wait * SECOND for one in windows)
    last = at(2 * interval)
    free = max([last, *(one.end or 0 for one in windows if one.covers(NOW))])
    opens = any(NOW < one.start <= free for one in windows)
    assert (said.places == 0) == (blocked or opens)


@given(st.lists(st.sampled_from(State), max_size=4), st.integers(0, 99))
def test_several_are_as_good_as_the_best_of_them(states: list[State], number: int) -> None:
    each = [Outlook(places=1, state=state, window=number + i, qubits=i) for i, state in enumerate(states)]
    found = together(each)
    if not each:
        assert found == NOTHING
        return
    assert found.state == min(states, key=["ready", "calibrating", "maintenance", "offline"].index)
    assert (found.places, found.window, found.qubits) == (len(each), number + len(each) - 1, len(each) - 1)
