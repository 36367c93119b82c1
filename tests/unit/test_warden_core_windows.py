"""Windows: rules, operators, calibrations that are due, and clocks that somebody sets."""

from __future__ import annotations

import pytest
from msgspec.structs import replace
from warden_machine import ALICE, BOB, OPERATOR, T0, Machine, Qpu, ready

from warden import orders, wire
from warden.calibration import Calendar, Rule, ShotRule
from warden.model import (
    SECOND,
    BadRequestError,
    BusyError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    State,
    TaskStatus,
)


def test_a_task_too_long_for_the_gap_is_cut_and_its_counts_are_merged() -> None:
    rule = Rule(every=20 * SECOND, duration=10 * SECOND, offset=12 * SECOND)  # free from :02 to :12 of each 20 s
    machine = Machine(Calendar((rule,)), now=T0 + 2 * SECOND)
    qpu = Qpu(machine)
    task = machine.start(machine.session(), 150)
    parts = [{"01": 50, "10": 30}, {"01": 1, "11": 69}]
    assert qpu.take().shots == 80  # 2 s of overhead, 8 s at 10 shots a second
    machine.later(10)
    qpu.finish(counts=parts[0])
    assert machine.status() == "calibrating"
    machine.later(9.9)
    assert len(qpu.runs) == 1
    machine.later(0.1)
    second = qpu.take()
    assert (second.first_shot, second.shots) == (80, 70)
    machine.later(9)
    qpu.finish(counts=parts[1])
    done = machine.task(task.id)
    assert (done.status, done.counts, done.runs) == (TaskStatus.COMPLETED, {"01": 51, "10": 30, "11": 69}, 2)


def test_nothing_starts_when_not_one_shot_fits_before_the_window() -> None:
    machine, qpu = ready()
    machine.block(start=2.05, duration=60)  # the overhead alone is 2 s, a shot 0.1 s
    machine.start(machine.session())
    assert qpu.runs == []
    machine.later(62.05)
    assert len(qpu.runs) == 1


def test_a_run_knows_the_time_that_it_has() -> None:
    machine, qpu = ready()
    machine.block(start=30, duration=60)
    machine.start(machine.session(), 100)
    assert qpu.runs[0].limit == 30 * SECOND


def test_a_window_that_is_added_during_a_run_stops_it_when_it_opens_and_its_shots_count() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session(), 100)
    run = qpu.take()
    machine.block(start=5, duration=60)
    machine.later(4.9)
    assert not qpu.told_to_stop(run.token)
    machine.later(0.1)
    assert qpu.told_to_stop(run.token)
    qpu.finish(40)
    machine.later(60)
    assert (qpu.take().first_shot, qpu.runs[-1].shots) == (40, 60)
    qpu.finish()
    assert machine.task(task.id).counts == {"01": 100}


def test_drain_stops_the_run_and_resume_goes_on_with_the_rest() -> None:
    machine, qpu = ready()
    task = machine.start(machine.session(), 100)
    run = qpu.take()
    machine.block()
    assert machine.status() == "maintenance"
    assert qpu.told_to_stop(run.token)
    qpu.finish(10)
    machine.later(3600 / 10)
    assert len(qpu.runs) == 1
    assert machine.ask(wire.Resume(), OPERATOR).state is State.READY
    assert qpu.take().shots == 90
    qpu.finish()
    assert machine.task(task.id).status is TaskStatus.COMPLETED


def test_a_drain_outlives_the_broker() -> None:
    machine, qpu = ready()
    machine.block()
    machine.restart()
    qpu.hello()
    assert machine.status() == "maintenance"
    machine.ask(wire.Resume(), OPERATOR)
    machine.restart()
    qpu.hello()
    assert machine.status() == "ready"


def test_resume_without_a_maintenance_is_a_conflict() -> None:
    machine, _ = ready()
    with pytest.raises(ConflictError, match="no maintenance is on"):
        machine.ask(wire.Resume(), OPERATOR)


def test_resume_during_a_calibration_says_where_to_look() -> None:
    machine, _ = ready()
    machine.block(duration=60, kind="calibrating")
    with pytest.raises(ConflictError, match="a calibration is on: `warden calibrate plan`"):
        machine.ask(wire.Resume(), OPERATOR)
    assert machine.status() == "calibrating"


def test_a_maintenance_by_a_rule_is_not_the_operator_s_to_end() -> None:
    rule = Rule(every=3600 * SECOND, duration=60 * SECOND, kind=State.MAINTENANCE)
    machine = Machine(Calendar((rule,)))
    with pytest.raises(ConflictError, match="it ends by itself"):
        machine.ask(wire.Resume(), OPERATOR)


def test_a_window_ends_by_itself_and_the_waiting_task_starts() -> None:
    machine, qpu = ready()
    machine.block(duration=30)
    session = None
    with pytest.raises(BusyError):
        session = machine.session()
    assert session is None
    machine.later(30)
    machine.start(machine.session())
    assert len(qpu.runs) == 1


def test_the_plan_shows_the_block_that_is_on_first() -> None:
    machine = Machine(Calendar((Rule(every=3600 * SECOND, duration=60 * SECOND, offset=1800 * SECOND),)))
    now = machine.block(duration=60)
    plan = machine.ask(wire.GetPlan(count=3), None)
    assert plan.windows[0] == now
    assert [w.start - T0 for w in plan.windows[1:]] == [1800 * SECOND, 5400 * SECOND]
    assert plan.added == (now,)


def test_an_operator_takes_back_a_window_of_his_by_its_number() -> None:
    machine, _ = ready()
    inner, outer = machine.block(start=100, duration=10), machine.block(start=90, duration=60)
    assert machine.ask(wire.GetPlan(count=1), None).windows[0].end == outer.end
    assert machine.ask(wire.CancelWindow(window=outer.id), OPERATOR) == outer
    assert machine.ask(wire.GetPlan(count=1), None).windows[0] == inner
    for number in (outer.id, 0, 2**57):
        with pytest.raises(NotFoundError, match="no operator added a window"):
            machine.ask(wire.CancelWindow(window=number), OPERATOR)


def test_an_operator_moves_a_window_and_it_stays_as_long() -> None:
    machine, _ = ready()
    window = machine.block(start=100, duration=10)
    moved = machine.ask(wire.MoveWindow(window=window.id, start=T0 + 500 * SECOND), OPERATOR)
    assert (moved.id, moved.start, moved.end) == (window.id, T0 + 500 * SECOND, T0 + 510 * SECOND)
    longer = machine.ask(wire.MoveWindow(window=window.id, start=T0 + 50 * SECOND, duration=SECOND), OPERATOR)
    assert machine.ask(wire.GetPlan(), None).windows == (longer,)
    machine.later(50)
    with pytest.raises(ConflictError, match="open already"):
        machine.ask(wire.MoveWindow(window=window.id, start=T0 + 90 * SECOND), OPERATOR)


def test_windows_that_make_no_sense_are_refused() -> None:
    machine, _ = ready()
    with pytest.raises(BadRequestError, match="in the past"):
        machine.block(start=-100, duration=10)
    with pytest.raises(BadRequestError, match="a calibration needs a duration"):
        machine.block(kind="calibrating")


def test_a_block_until_the_end_of_time_can_be_told_about() -> None:
    machine, _ = ready()
    for start, duration in [(T0, 2**59), (2**61, 1), (2**61, None)]:
        with pytest.raises(BadRequestError, match="too far"):
            machine.ask(wire.AddWindow(kind="maintenance", start=start, duration=duration), OPERATOR)
    machine.block(duration=10**10)
    with pytest.raises(BusyError, match="until 2"):
        machine.session()


def test_windows_that_are_over_are_not_kept_for_ever() -> None:
    machine, _ = ready()
    # In the first hour a clock may not be right yet.
    machine.later(3700)
    for _ in range(50):
        machine.block(duration=1)
        machine.later(2)
    assert len(machine.disk.remember().almanac.windows) <= 1


@pytest.mark.parametrize("uid", [ALICE, BOB])
@pytest.mark.parametrize(
    "body",
    [
        wire.AddWindow(kind="maintenance"),
        wire.MoveWindow(window=1, start=1),
        wire.CancelWindow(window=1),
        wire.Resume(),
    ],
)
def test_only_operators_plan(uid: int, body: wire.Message) -> None:
    machine, _ = ready()
    with pytest.raises(ForbiddenError, match="only operators"):
        machine.ask(body, uid)


def test_a_task_that_fits_between_no_two_windows_is_refused() -> None:
    rule = Rule(every=10 * SECOND, duration=9 * SECOND)
    machine = Machine(Calendar((rule,)), now=T0 + 9 * SECOND)
    Qpu(machine)
    with pytest.raises(BadRequestError, match="not one shot fits between two calibration windows"):
        machine.start(machine.session())


def test_rules_that_beat_so_slowly_that_nobody_knows_their_longest_gap_refuse_no_task() -> None:
    every = 60 * SECOND
    first = Rule(every=every, duration=40 * SECOND)
    second = Rule(every=every + 1000, duration=40 * SECOND, offset=30 * SECOND)
    # Without a gap in their first days; after 30,000 periods they fall together and leave 20 s.
    machine = Machine(Calendar((first, second)), now=30_000 * every + 41 * SECOND)
    qpu = Qpu(machine)
    task = machine.start(machine.session(), 10)
    assert qpu.take().task == task.id


# --- what became of windows ---

HOURLY = Rule(every=3600 * SECOND, duration=60 * SECOND, offset=1800 * SECOND)


def history(machine: Machine) -> list[tuple[str, int, int]]:
    """Outcome, number of windows, and seconds from T0 to the first."""
    past = machine.ask(wire.GetHistory(), None)
    return [(one.outcome, one.count, (one.window.start - T0) // SECOND) for one in past]


def test_a_window_that_opened_is_held() -> None:
    machine = Machine(Calendar((HOURLY,)))
    machine.later(1800)
    assert history(machine) == [("held", 1, 1800)]
    machine.later(3600)
    assert history(machine) == [("held", 1, 5400), ("held", 1, 1800)]


def test_windows_that_passed_while_the_broker_was_down_are_missed() -> None:
    machine = Machine(Calendar((HOURLY,)))
    machine.later(1)
    machine.now += 3 * 3600 * SECOND
    machine.restart()
    assert history(machine) == [("missed", 3, 1800)]
    machine.later(1800)
    assert history(machine) == [("held", 1, 12600), ("missed", 3, 1800)]


def test_a_window_in_which_the_broker_comes_up_is_held_and_blocks() -> None:
    machine = Machine(Calendar((HOURLY,)))
    machine.later(1)
    machine.now = T0 + 1830 * SECOND
    machine.restart()
    Qpu(machine)
    assert machine.status() == "calibrating"
    assert history(machine) == [("held", 1, 1800)]


def test_an_added_window_is_held_or_missed_too() -> None:
    machine = Machine()
    machine.block(10, 10)
    machine.block(100, 10)
    machine.later(15)
    machine.now += 200 * SECOND
    machine.restart()
    assert history(machine) == [("missed", 1, 100), ("held", 1, 10)]
    machine.later(3600)
    assert machine.disk.remember().almanac.windows == ()


DAY = 24 * 3600


@pytest.mark.parametrize("restart", [False, True])
def test_a_window_outlives_a_clock_that_is_set_forth_and_back(restart: bool) -> None:
    machine, _ = ready(lease=10**9 * SECOND)
    machine.block(3600, 600)
    machine.step_clock(DAY)
    machine.later(5)
    if restart:
        machine.restart()
    assert machine.ask(wire.GetPlan(), None).windows == ()
    machine.step_clock(-DAY)
    assert [window.start - T0 for window in machine.ask(wire.GetPlan(), None).added] == [3600 * SECOND]
    machine.later(3600)
    assert machine.status() == "maintenance"
    assert history(machine) == [("held", 1, 3600)]


def test_a_drain_outlives_a_clock_that_is_set_forth_and_back() -> None:
    machine, _ = ready(lease=10**9 * SECOND)
    machine.block(0, 7200)
    machine.step_clock(DAY)
    machine.later(5)
    assert machine.status() == "ready"
    machine.step_clock(-DAY)
    assert machine.status() == "maintenance"
    assert history(machine) == [("held", 1, 0)]


def test_a_window_that_is_over_cannot_be_moved_or_taken_back_though_it_is_remembered() -> None:
    machine, _ = ready()
    machine.restart()
    Qpu(machine)
    window = machine.block(10, 10)
    machine.later(30)
    assert machine.disk.remember().almanac.windows
    for body in (wire.CancelWindow(window=window.id), wire.MoveWindow(window=window.id, start=machine.now + SECOND)):
        with pytest.raises(NotFoundError):
            machine.ask(body, OPERATOR)


def test_the_history_says_when_a_window_ended_that_was_taken_back() -> None:
    machine, _ = ready()
    machine.block()
    machine.later(100)
    machine.ask(wire.Resume(), OPERATOR)
    window = machine.block(duration=1000, kind="calibrating")
    machine.later(10)
    machine.ask(wire.CancelWindow(window=window.id), OPERATOR)
    machine.later(10)
    past = machine.ask(wire.GetHistory(), None)
    assert [(one.window.start - T0, one.window.end - T0) for one in past] == [
        (100 * SECOND, 110 * SECOND),
        (0, 100 * SECOND),
    ]


def test_a_missed_calibration_is_made_up_for_once_when_the_qpu_is_free() -> None:
    machine = Machine(Calendar((replace(HOURLY, make_up=True),)), lease=10**7 * SECOND)
    qpu = Qpu(machine)
    machine.start(machine.session(), 1000)
    token = qpu.take().token
    machine.now += 3 * 3600 * SECOND
    machine.restart()
    qpu.token = token
    qpu.hello()
    assert machine.core.availability(machine.now).next_window.reason == "calibration (made up for)"
    qpu._say(orders.RunFinished(instance=qpu.instance, token=token, shots=500, counts={"01": 500}, time=SECOND))
    assert machine.status() == "calibrating"
    machine.later(60)
    assert machine.status() == "ready"
    assert [outcome for outcome, *_ in history(machine)] == ["held", "missed"]
    machine.restart()
    assert [outcome for outcome, *_ in history(machine)] == ["held", "missed"]


def test_a_window_of_the_rule_that_is_held_first_makes_up_for_those_that_were_missed() -> None:
    machine = Machine(Calendar((replace(HOURLY, make_up=True),)))
    machine.later(1)
    machine.now += 3 * 3600 * SECOND
    # No worker, so no boundary, until the next regular window has been held.
    machine.restart()
    machine.later(3600)
    Qpu(machine)
    assert machine.status() == "ready"
    assert [outcome for outcome, *_ in history(machine)] == ["held", "missed"]


def test_a_missed_maintenance_is_made_up_for_as_a_maintenance() -> None:
    machine = Machine(Calendar((replace(HOURLY, make_up=True, kind=State.MAINTENANCE),)))
    machine.later(1)
    machine.now += 3600 * SECOND
    machine.restart()
    Qpu(machine)
    assert machine.status() == "maintenance"


def test_a_clock_that_is_set_back_and_forth_holds_and_misses_nothing_twice() -> None:
    machine = Machine(Calendar((HOURLY,)))
    machine.later(1900)
    machine.step_clock(-30)
    machine.later(300)
    assert history(machine) == [("held", 1, 1800)]
    machine.step_clock(4 * 3600)
    machine.later(1)
    assert history(machine) == [("missed", 4, 5400), ("held", 1, 1800)]
    machine.step_clock(-5 * 3600)
    machine.later(3600)
    assert history(machine)[0][0] == "held"


# --- calibrations that are due after so many shots ---


def test_a_calibration_is_due_after_so_many_shots_at_the_end_of_the_task() -> None:
    machine = Machine(Calendar(shot_rules=(ShotRule(after_shots=150, duration=30 * SECOND),)))
    qpu = Qpu(machine)
    session = machine.session()
    _, second, third = (machine.start(session, 100) for _ in range(3))
    qpu.take()
    assert machine.core.availability(machine.now).next_window is None
    qpu.finish()
    assert qpu.take().task == second.id
    # Announced before: 100 shots and 100 more are over 150, and the task takes 12 s by its estimate.
    window = machine.core.availability(machine.now).next_window
    assert (window.start, window.end) == (T0 + 12 * SECOND, T0 + 42 * SECOND)
    assert machine.core.availability(machine.now).seconds_to_window() == 12
    assert machine.ask(wire.GetPlan(), None).windows == (window,)
    machine.later(11)
    qpu.finish()
    assert machine.status() == "calibrating"
    assert machine.task(third.id).status is TaskStatus.QUEUED
    machine.later(30)
    assert qpu.take().task == third.id
    qpu.finish()
    assert machine.status() == "ready"
    assert history(machine) == [("held", 1, 11)]


def test_a_task_in_several_runs_is_not_torn_apart_by_a_calibration_by_shots() -> None:
    machine = Machine(Calendar(shot_rules=(ShotRule(after_shots=100, duration=30 * SECOND),)), longest_run=12 * SECOND)
    qpu = Qpu(machine)
    task = machine.start(machine.session(), 300)
    for _ in range(3):
        assert machine.status() == "ready"
        qpu.take()
        qpu.finish()
    assert machine.task(task.id).status is TaskStatus.COMPLETED
    assert machine.status() == "calibrating"


def test_any_calibration_begins_the_count_of_shots_anew_and_the_count_outlives_the_broker() -> None:
    machine = Machine(Calendar(shot_rules=(ShotRule(after_shots=150, duration=30 * SECOND),)))
    qpu = Qpu(machine)
    session = machine.session()
    for seconds in (0, 60):
        machine.start(session, 100)
        qpu.take()
        qpu.finish()
        assert machine.status() == "ready"
        if not seconds:
            machine.block(duration=20, kind="calibrating")
            machine.later(20)
    machine.restart()
    qpu.hello()
    machine.start(session, 50)
    qpu.take()
    qpu.finish()
    assert machine.status() == "calibrating"
