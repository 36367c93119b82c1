"""A worker's calibrations, and what its beats say of the quality; time is a number."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace
from warden_runner import BEAT, T0, beat, done, new, order, said, taken, with_result

from warden import orders, wire
from warden.actions import Abandon, Action, Begin, Calibrate, Note
from warden.model import SECOND, Calibration
from warden.qpu.drift import Drift, Findings
from warden.qpu.noise import Noise

if TYPE_CHECKING:
    from warden.runner import Runner

# --- a calibration ---

DRIFT = Drift(base=Noise(p_false_pos=0.01), per_day=Noise(rabi_error=0.05), seed=3)
CLOCK = 1_800_000_000 * SECOND
DAY = 86400 * SECOND


def calibration(token: str = "c", issued: int = T0, limit: int | None = None) -> orders.StartCalibration:
    return orders.StartCalibration(token=token, number=4, at=CLOCK, calibration=None, issued=issued, limit=limit)


def measured(actions: list[Action]) -> list[orders.CalibrationFinished]:
    return [body for body in said(actions) if isinstance(body, orders.CalibrationFinished)]


FOUND = Findings(measured={"rabi_error": 0.02}, left={"rabi_error": 0.001}, before=0.9, after=0.99, log=("0.2 % low",))
FINISHED = orders.CalibrationFinished(
    instance="me",
    token="c",
    time=SECOND,
    measured={"rabi_error": 0.02},
    left={"rabi_error": 0.001},
    before=0.9,
    after=0.99,
    log=("0.2 % low",),
)


def failed(time: int, error: str) -> orders.CalibrationFinished:
    return orders.CalibrationFinished(instance="me", token="c", time=time, error=error)


LATE = "it did not end in time: its window is too short, or the worker's machine too busy"


def test_a_calibration_is_carried_out_and_offered_with_each_beat_until_the_broker_has_it() -> None:
    runner = taken()
    assert done(runner.hear(calibration(), T0)) == [Calibrate(calibration())]
    assert runner.token == "c"
    assert said(runner.tick(T0 + BEAT)) == [beat("c")]
    assert said(runner.calibrated("c", FOUND, T0 + SECOND)) == [FINISHED]
    for n in (2, 3):
        assert said(runner.tick(T0 + n * BEAT)) == [beat("c"), FINISHED]
    assert said(runner.hear(orders.Welcome(interval=BEAT), T0 + 3 * BEAT)) == [FINISHED]
    runner.hear(orders.ForgetRun(token="c"), T0 + 3 * BEAT)
    assert runner.token == ""
    assert said(runner.tick(T0 + 4 * BEAT)) == [beat()]


def test_what_it_found_is_told_to_the_operator() -> None:
    runner = taken()
    runner.hear(calibration(), T0)
    actions = runner.calibrated("c", FOUND, T0 + SECOND)
    assert [action for action in actions if isinstance(action, Note)] == [Note("calibration 4: 0.2 % low")]


def test_a_calibration_that_finds_nothing_says_why() -> None:
    runner = taken()
    runner.hear(calibration(), T0)
    assert measured(runner.calibrated("c", Findings(error="no light"), T0 + 5)) == [failed(5, "no light")]


def test_a_calibration_that_is_stopped_ends_with_an_error_and_its_process_is_ended() -> None:
    runner = taken()
    runner.hear(calibration(), T0)
    actions = runner.hear(orders.StopRun(token="c"), T0 + SECOND)
    assert done(actions) == [Abandon()]
    assert measured(actions) == [failed(SECOND, "it was stopped")]
    assert runner.calibrated("c", FOUND, T0 + SECOND) == []


def test_at_its_deadline_a_calibration_ends_with_an_error() -> None:
    runner = taken()
    runner.hear(calibration(limit=SECOND), T0)
    assert runner.next_wakeup(T0) == T0 + SECOND
    assert measured(runner.tick(T0 + SECOND - 1)) == []
    actions = runner.tick(T0 + SECOND)
    assert done(actions) == [Abandon()]
    assert measured(actions) == [failed(SECOND, LATE)]


def test_what_a_calibration_finds_after_its_deadline_comes_too_late() -> None:
    runner = taken()
    runner.hear(calibration(limit=SECOND), T0)
    actions = runner.calibrated("c", FOUND, T0 + SECOND)
    assert done(actions) == []
    assert measured(actions) == [failed(SECOND, LATE)]


def test_a_calibration_that_is_ordered_after_its_time_is_not_begun() -> None:
    runner = taken()
    actions = runner.hear(calibration(limit=SECOND), T0 + SECOND)
    assert done(actions) == []
    assert measured(actions) == [failed(0, LATE)]


@pytest.mark.parametrize("message", [orders.StopRun(token="other"), orders.ForgetRun(token="c"), calibration()])
def test_a_calibration_is_disturbed_neither_by_words_about_another_nor_by_its_own_order_again(
    message: wire.Message,
) -> None:
    runner = taken()
    runner.hear(calibration(), T0)
    assert runner.hear(message, T0 + 1) == []
    assert runner.token == "c"


def test_a_calibration_and_a_run_are_never_on_at_the_same_time() -> None:
    runner = taken()
    runner.hear(order("t"), T0)
    later = calibration(issued=T0 + 1)
    assert done(runner.hear(later, T0 + 1)) == [Abandon(), Calibrate(later)]
    assert runner.computed("t", ["01"] * 20, T0 + 2) == []
    last = replace(order("u"), issued=T0 + 3)
    assert done(runner.hear(last, T0 + 3)) == [Abandon(), Begin(last)]
    assert runner.calibrated("c", FOUND, T0 + 4) == []
    assert runner.token == "u"


def test_an_order_that_is_older_than_the_calibration_at_work_changes_nothing_and_the_other_way_round() -> None:
    runner = taken()
    runner.hear(calibration(issued=T0 + SECOND), T0 + SECOND)
    assert runner.hear(order("old"), T0 + 2 * SECOND) == []
    assert runner.token == "c"
    runner = taken()
    runner.hear(replace(order("t"), issued=T0 + SECOND), T0 + SECOND)
    assert runner.hear(calibration(), T0 + 2 * SECOND) == []
    assert runner.token == "t"


def test_a_result_is_given_up_for_a_calibration() -> None:
    runner = with_result()
    assert done(runner.hear(calibration(), T0 + 1)) == [Calibrate(calibration())]
    assert said(runner.tick(T0 + BEAT)) == [beat("c")]


# --- quality ---


def drifting(in_force: Calibration | None = None) -> Runner:
    """A runner whose QPU drifts, and that knows since T0 what the broker's clock shows."""
    runner = new(drift=DRIFT, overhead=SECOND)
    runner.start(T0)
    runner.hear(orders.Welcome(interval=BEAT, calibration=in_force), T0)
    runner.hear(orders.BrokerBeat(time=CLOCK), T0)
    return runner


def quality(runner: Runner, now: int) -> float | None:
    [body] = [one for one in said(runner.tick(now)) if isinstance(one, orders.WorkerBeat)]
    return body.quality


def test_its_beats_say_how_good_the_qpu_is_by_the_broker_s_clock() -> None:
    in_force = Calibration(id=1, time=CLOCK - DAY, left={"rabi_error": 0.03})
    runner = drifting(in_force)
    for later in (BEAT, DAY, 3 * DAY):
        assert quality(runner, T0 + later) == DRIFT.quality(CLOCK + later, in_force)
    assert DRIFT.quality(CLOCK, in_force) < 1


def test_when_somebody_sets_the_broker_s_clock_its_next_beat_tells() -> None:
    in_force = Calibration(id=1, time=CLOCK)
    runner = drifting(in_force)
    runner.hear(orders.BrokerBeat(time=CLOCK + 9 * DAY), T0 + 1)
    assert quality(runner, T0 + BEAT) == DRIFT.quality(CLOCK + 9 * DAY + BEAT - 1, in_force)


def test_while_it_does_not_know_the_time_it_does_not_know_the_quality() -> None:
    runner = new(drift=DRIFT, overhead=SECOND)
    runner.start(T0)
    runner.hear(orders.Welcome(interval=BEAT), T0)
    assert quality(runner, T0 + BEAT) is None


def test_without_noise_there_is_no_quality_to_tell() -> None:
    runner = taken()
    runner.hear(orders.BrokerBeat(time=CLOCK), T0)
    assert quality(runner, T0 + BEAT) is None


def test_its_own_calibration_is_in_force_once_the_broker_has_it() -> None:
    old = Calibration(id=3, time=CLOCK - 30 * DAY)
    runner = drifting(old)
    runner.hear(calibration(), T0)
    runner.calibrated("c", FOUND, T0 + SECOND)
    assert quality(runner, T0 + BEAT) == DRIFT.quality(CLOCK + BEAT, old)
    runner.hear(orders.ForgetRun(token="c"), T0 + BEAT)
    new = Calibration(id=4, time=CLOCK + SECOND, left=FOUND.left)
    assert quality(runner, T0 + DAY) == DRIFT.quality(CLOCK + DAY, new)


def test_a_calibration_that_failed_leaves_the_one_before_in_force() -> None:
    old = Calibration(id=3, time=CLOCK - 30 * DAY)
    runner = drifting(old)
    runner.hear(calibration(), T0)
    runner.calibrated("c", Findings(error="no light"), T0 + SECOND)
    runner.hear(orders.ForgetRun(token="c"), T0 + SECOND)
    assert quality(runner, T0 + DAY) == DRIFT.quality(CLOCK + DAY, old)


def test_the_broker_knows_best_which_calibration_is_in_force() -> None:
    runner = drifting(Calibration(id=3, time=CLOCK - 30 * DAY))
    new = Calibration(id=4, time=CLOCK - DAY)
    runner.hear(orders.Welcome(interval=BEAT, calibration=new), T0)
    assert quality(runner, T0 + DAY) == DRIFT.quality(CLOCK + DAY, new)
