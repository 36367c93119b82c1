"""One set of figures for admission and for the device: they must not disagree by a shot."""

from __future__ import annotations

import collections
from fractions import Fraction

from hypothesis import assume, example, given
from hypothesis import strategies as st

from warden import orders
from warden.actions import Send
from warden.model import HORIZON, SECOND
from warden.qpu.timing import Pace, Timing
from warden.runner import Runner
from warden.sections import QpuSection

rates = st.one_of(
    st.just(0.0),
    st.floats(1e-3, 1e6),
    st.sampled_from([0.1, 0.25, 1 / 3, 0.7, 3.0, 1e6]),
    st.integers(1, 5000).map(float),
)
timings = st.builds(
    Timing,
    overhead=st.integers(0, 600 * SECOND),
    loading=st.integers(0, 60 * SECOND),
    shot_rate=rates,
    rearrangement=st.one_of(st.just(0), st.integers(1, SECOND)),
    time_scale=st.one_of(st.just(1.0), st.floats(1, 1e6)),
)
registers = st.integers(1, 100)
preparations = st.one_of(st.just(0), st.integers(1, 60 * SECOND))
paces = st.builds(Timing.pace, timings, registers, preparations)
shots = st.integers(1, 100_000)


@given(paces, st.integers(0, HORIZON))
def test_shots_within_are_the_most_that_fit_and_never_more(pace: Pace, time: int) -> None:
    most = pace.shots_within(time)
    if most is None:
        assert pace.estimate(10**9) <= time
        return
    assert most == 0 or pace.estimate(most) <= time
    assert pace.estimate(most + 1) > time


@given(paces, shots)
def test_a_gap_as_long_as_the_estimate_takes_all_shots(pace: Pace, number: int) -> None:
    fitting = pace.shots_within(pace.estimate(number))
    assert fitting is None or fitting >= number


@given(paces, shots)
@example(Timing(overhead=0, shot_rate=60.0).pace(1), 999)
def test_the_device_has_all_shots_done_when_the_estimate_says_so(pace: Pace, number: int) -> None:
    done = pace.shots_done(pace.estimate(number) - pace.setup)
    assert done is None or done >= number


@given(paces, shots)
def test_more_shots_never_take_less_time(pace: Pace, number: int) -> None:
    assert pace.setup <= pace.estimate(number) <= pace.estimate(number + 1)


@given(paces, st.lists(st.integers(-(10**9), 10**9), min_size=2, max_size=10))
def test_shots_done_never_go_back_and_there_are_none_before_the_first_begins(pace: Pace, moments: list[int]) -> None:
    done = [pace.shots_done(moment) for moment in sorted(moments)]
    assert done == sorted(done, key=lambda n: float("inf") if n is None else n)
    assert all(n == 0 for n, moment in zip(done, sorted(moments), strict=True) if moment < 0)


@given(timings, registers, preparations, shots)
def test_a_larger_register_and_a_longer_preparation_take_no_less_time(
    timing: Timing, qubits: int, preparation: int, number: int
) -> None:
    alone = timing.pace(qubits).estimate(number)
    assert timing.pace(qubits, preparation).estimate(number) == alone + preparation
    assert timing.pace(qubits + 1).estimate(number) >= alone


@given(timings, registers, shots)
def test_the_scale_divides_all_that_the_device_takes_to_the_microsecond(
    timing: Timing, qubits: int, number: int
) -> None:
    real = Timing(
        overhead=timing.overhead,
        loading=timing.loading,
        shot_rate=timing.shot_rate,
        rearrangement=timing.rearrangement,
    )
    scaled = timing.pace(qubits).estimate(number) * Fraction(timing.time_scale)
    # Two roundings, each up and by less than a microsecond; and figures are taken as written, not as floats have them.
    assert scaled * (1 + Fraction(1, 10**12)) - real.pace(qubits).estimate(number) + 2 >= 0
    assert scaled <= real.pace(qubits).estimate(number) * (1 + Fraction(1, 10**12)) + 2 * Fraction(timing.time_scale)


def test_what_each_figure_adds() -> None:
    timing = Timing(overhead=2 * SECOND, loading=10 * SECOND, shot_rate=0.1, rearrangement=500_000)
    assert timing.pace(0).estimate(1) == 22 * SECOND
    assert timing.pace(4).estimate(3) == 48 * SECOND
    assert timing.pace(4, 5 * SECOND).estimate(3) == 53 * SECOND


def test_a_rate_is_what_was_written_and_not_the_nearest_binary_number() -> None:
    pace = Timing(shot_rate=0.7).pace(1)
    assert (pace.estimate(7), pace.shots_within(10 * SECOND)) == (10 * SECOND, 7)


def test_without_a_rate_rearranging_is_what_a_shot_takes() -> None:
    pace = Timing(rearrangement=1_000).pace(20)
    assert (pace.estimate(100), pace.shots_within(SECOND), pace.shots_done(19_999)) == (2 * SECOND, 50, 0)


def test_published_figures_of_fresnel() -> None:
    fresnel = Timing(overhead=0, shot_rate=0.25).pace(1)
    assert fresnel.estimate(200) == 800 * SECOND
    assert fresnel.shots_within(800 * SECOND) == 200
    assert fresnel.shots_within(800 * SECOND - 1) == 199
    assert collections.Counter([fresnel.shots_done(4 * SECOND - 1), fresnel.shots_done(4 * SECOND)]) == {0: 1, 1: 1}


def test_the_default_figures_take_as_long_for_a_batch_as_pasqal_says() -> None:
    """50 jobs of 20 shots on one register: 10 to 30 minutes, with one loading."""
    pace = QpuSection().timing.pace(20)
    loading = QpuSection().loading
    assert 600 * SECOND <= 50 * (pace.estimate(20) - loading) + loading <= 1800 * SECOND


# --- against the device that keeps it ---


def run(
    timing: Timing, qubits: int, number: int, emulation: int, limit: int | None, stop: int | None = None
) -> orders.RunFinished:
    """What a runner makes of an order that it hears at 0, whose emulation takes so long: told to stop, or by itself."""
    runner = Runner(instance="me", device_json="{}", device_name="d", qubits=qubits, timing=timing, heartbeat=10**15)
    runner.start(0)
    runner.hear(orders.Welcome(interval=10**15), 0)
    order = orders.StartRun(token="t", task=1, sequence="", first_shot=0, shots=number, issued=0, limit=limit)
    said = list(runner.hear(order, 0))
    while not any(isinstance(one, Send) and isinstance(one.body, orders.RunFinished) for one in said):
        wakeup = runner.next_wakeup(0)
        moments = [wakeup, *(moment for moment in (emulation, stop) if moment is not None and moment >= 0)]
        now = min(moments)
        if now == emulation:
            said += runner.computed("t", ["1" * qubits] * number, now)
            emulation = -1
        elif now == stop:
            said += runner.hear(orders.StopRun(token="t"), now)
        else:
            said += runner.tick(now)
    (finished,) = (one.body for one in said if isinstance(one, Send) and isinstance(one.body, orders.RunFinished))
    return finished


few = st.integers(1, 300)


@given(timings, registers, preparations, few, st.data())
def test_a_run_has_all_its_shots_when_the_estimate_says_so_and_none_before_the_device_can(
    timing: Timing, qubits: int, preparation: int, number: int, data: st.DataObject
) -> None:
    pace = timing.pace(qubits, preparation)
    emulation = data.draw(st.one_of(st.just(0), st.just(pace.setup), st.integers(0, pace.setup)))
    estimate = pace.estimate(number)
    limit = data.draw(st.sampled_from([None, estimate, estimate + 1]))
    # What is computed at the deadline itself comes too late.
    assume(limit is None or emulation < limit)
    finished = run(timing, qubits, number, emulation, limit)
    assert (finished.shots, finished.error) == (number, "")
    assert timing.pace(qubits).estimate(number) <= finished.time <= estimate


@given(timings, registers, preparations, few, st.data())
def test_shots_that_were_cut_to_a_gap_are_done_within_it(
    timing: Timing, qubits: int, preparation: int, number: int, data: st.DataObject
) -> None:
    pace = timing.pace(qubits, preparation)
    gap = data.draw(st.integers(0, pace.estimate(number)))
    fitting = pace.shots_within(gap)
    cut = number if fitting is None else min(number, fitting)
    if cut:
        emulation = data.draw(st.integers(0, pace.setup))
        assume(emulation < gap)
        finished = run(timing, qubits, cut, emulation, gap)
        assert finished.shots == cut
        assert finished.time <= gap


@given(timings, registers, few, st.data())
def test_a_run_ends_at_its_deadline_or_when_told_with_the_shots_that_are_done(
    timing: Timing, qubits: int, number: int, data: st.DataObject
) -> None:
    """Whatever the estimate was, and however long the emulation takes."""
    pace = timing.pace(qubits)
    moments = st.integers(0, 2 * pace.estimate(number) + 1)
    emulation, limit, stop = data.draw(moments), data.draw(moments), data.draw(st.one_of(st.none(), moments))
    finished = run(timing, qubits, number, emulation, limit, stop)
    assert finished.time <= limit
    done = 0 if emulation > finished.time else pace.shots_done(finished.time - max(emulation, pace.setup))
    assert emulation == finished.time or finished.shots == (number if done is None else min(number, done))
    whole = max(emulation, pace.setup) + pace.shooting(number)
    assert finished.time == min(moment for moment in (whole, limit, stop) if moment is not None)


def test_a_run_that_is_stopped_while_its_register_is_loaded_has_no_shots_and_was_not_ready() -> None:
    timing = Timing(overhead=2 * SECOND, loading=10 * SECOND, shot_rate=0)
    stopped = run(timing, 2, 5, emulation=SECOND, limit=None, stop=12 * SECOND - 1)
    assert (stopped.shots, stopped.log) == (0, ("it was not ready to shoot, stopped",))
    ready = run(timing, 2, 5, emulation=SECOND, limit=None)
    assert (ready.shots, ready.time, ready.log) == (5, 12 * SECOND, ("ready after 12.000 s, shooting for 0.000 s",))
