"""One set of figures for admission and for the device: they must not disagree by a shot."""

from __future__ import annotations

import collections

from hypothesis import example, given
from hypothesis import strategies as st

from warden.model import HORIZON, SECOND
from warden.qpu.timing import Timing

rates = st.one_of(
    st.just(0.0),
    st.floats(1e-3, 1e6),
    st.sampled_from([0.1, 0.25, 1 / 3, 0.7, 3.0, 1e6]),
    st.integers(1, 5000).map(float),
)
timings = st.builds(Timing, overhead=st.integers(0, 600 * SECOND), shot_rate=rates)
shots = st.integers(1, 100_000)


@given(timings, st.integers(0, HORIZON))
def test_shots_within_are_the_most_that_fit_and_never_more(timing: Timing, time: int) -> None:
    most = timing.shots_within(time)
    if most is None:
        assert timing.estimate(10**9) <= time
        return
    assert most == 0 or timing.estimate(most) <= time
    assert timing.estimate(most + 1) > time


@given(timings, shots)
def test_a_gap_as_long_as_the_estimate_takes_all_shots(timing: Timing, number: int) -> None:
    fitting = timing.shots_within(timing.estimate(number))
    assert fitting is None or fitting >= number


@given(timings, shots)
@example(Timing(overhead=0, shot_rate=60.0), 999)
def test_the_device_has_all_shots_done_when_the_estimate_says_so(timing: Timing, number: int) -> None:
    done = timing.shots_done(timing.estimate(number) - timing.overhead)
    assert done is None or done >= number


@given(timings, shots)
def test_more_shots_never_take_less_time(timing: Timing, number: int) -> None:
    assert timing.overhead <= timing.estimate(number) <= timing.estimate(number + 1)


@given(timings, st.lists(st.integers(0, 10**9), min_size=2, max_size=10))
def test_shots_done_never_go_back(timing: Timing, moments: list[int]) -> None:
    done = [timing.shots_done(moment) for moment in sorted(moments)]
    assert done == sorted(done, key=lambda n: -1 if n is None else n)


def test_published_figures_of_fresnel() -> None:
    fresnel = Timing(overhead=0, shot_rate=0.25)
    assert fresnel.estimate(200) == 800 * SECOND
    assert fresnel.shots_within(800 * SECOND) == 200
    assert fresnel.shots_within(800 * SECOND - 1) == 199
    assert collections.Counter([fresnel.shots_done(4 * SECOND - 1), fresnel.shots_done(4 * SECOND)]) == {0: 1, 1: 1}
