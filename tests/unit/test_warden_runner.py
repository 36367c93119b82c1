"""A worker's half of the protocol, event by event; time is a number."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from warden_runner import BEAT, RESULT, T0, beat, done, finished, hello, new, order, said, taken, with_result

from warden import orders, wire
from warden.actions import Abandon, Action, Begin, Check, Dismiss, Failure, Note, Reconnect, Send
from warden.checks import PATIENCE
from warden.examiner import CHECK
from warden.model import SECOND

# --- showing that it lives ---


def test_it_connects_anew_again_and_again_while_nobody_answers() -> None:
    runner = new()
    attempts = [isinstance(runner.start(T0)[0], Reconnect)]
    attempts += [isinstance(runner.tick(T0 + n * BEAT)[0], Reconnect) for n in range(1, 11)]
    assert [n for n, again in enumerate(attempts) if again] == [4, 9]


def test_a_word_of_the_broker_begins_its_patience_anew() -> None:
    runner = new()
    runner.start(T0)
    runner.tick(T0 + BEAT)
    runner.tick(T0 + 2 * BEAT)
    runner.hear(orders.BrokerBeat(), T0 + 2 * BEAT)
    again = [isinstance(runner.tick(T0 + n * BEAT)[0], Reconnect) for n in range(3, 8)]
    assert again == [False, False, False, False, True]


def test_it_tells_what_its_clock_shows() -> None:
    runner = new()
    [hello] = [action.body for action in runner.start(T0) if isinstance(action, Send)]
    runner.hear(orders.Welcome(interval=BEAT), T0)
    [beat] = [action.body for action in runner.tick(T0 + BEAT) if isinstance(action, Send)]
    assert (hello.clock, beat.clock) == (T0, T0 + BEAT)


def test_it_says_hello_with_each_beat_until_it_is_welcome() -> None:
    runner = new()
    assert said(runner.start(T0)) == [hello()]
    assert runner.next_wakeup(T0) == T0 + BEAT
    assert runner.tick(T0 + BEAT - 1) == []
    assert said(runner.tick(T0 + BEAT)) == [hello()]
    runner.hear(orders.Welcome(interval=BEAT), T0 + BEAT)
    assert said(runner.tick(T0 + 2 * BEAT)) == [beat()]


def test_a_broker_that_does_not_answer_is_a_word_to_the_operator_now_and_then() -> None:
    runner = new()
    runner.start(T0)
    told = [beat for beat in range(1, 21) if any(isinstance(a, Note) for a in runner.tick(T0 + beat * BEAT))]
    assert told == [4, 9, 14, 19]
    runner.hear(orders.Welcome(interval=BEAT), T0 + 21 * BEAT)
    assert not any(isinstance(a, Note) for beat in range(22, 40) for a in runner.tick(T0 + beat * BEAT))


def test_it_beats_as_often_as_the_broker_says() -> None:
    runner = new()
    runner.start(T0)
    runner.hear(orders.Welcome(interval=5 * SECOND), T0)
    runner.tick(T0 + BEAT)
    assert runner.next_wakeup(T0 + BEAT) == T0 + BEAT + 5 * SECOND


def test_a_worker_that_is_late_is_due_now() -> None:
    runner = taken()
    assert runner.next_wakeup(T0 + 100 * BEAT) == T0 + 100 * BEAT
    assert said(runner.tick(T0 + 100 * BEAT)) == [beat()]
    assert runner.next_wakeup(T0 + 100 * BEAT) == T0 + 101 * BEAT


def test_a_worker_that_was_forgotten_says_hello_at_once_and_then_with_its_beats() -> None:
    runner = taken()
    runner.hear(order(), T0)
    heard = runner.hear(orders.Unwelcome(text="say hello again"), T0 + 1)
    assert heard == [Note("the broker says: say hello again")]
    assert runner.next_wakeup(T0 + 1) == T0 + 1
    assert said(runner.tick(T0 + 1)) == [hello("t")]
    assert runner.hear(orders.Unwelcome(text="say hello again"), T0 + 2) == []
    assert runner.next_wakeup(T0 + 2) == T0 + 1 + BEAT


def test_a_beat_of_the_broker_changes_nothing() -> None:
    assert taken().hear(orders.BrokerBeat(), T0) == []


# --- a run ---


def test_a_run_is_emulated_and_its_shots_are_delivered_at_the_qpu_s_rate() -> None:
    runner = taken()
    assert done(runner.hear(order(shots=20), T0)) == [Begin(order(shots=20))]
    assert said(runner.tick(T0 + BEAT)) == [beat("t")]
    computed = T0 + 2 * BEAT
    assert runner.computed("t", ["01"] * 15 + ["10"] * 5, computed) == []
    assert runner.next_wakeup(computed) == computed
    runner.tick(computed)
    ready = computed + 2 * SECOND
    assert runner.next_wakeup(computed) == ready
    assert said(runner.tick(ready - 1)) == []
    result = finished(shots=20, counts={"01": 15, "10": 5}, time=ready - T0)
    sent = runner.tick(ready)
    assert said(sent)[0] == result
    assert done(sent) == []


def results(actions: list[Action]) -> list[orders.RunFinished]:
    return [
        action.body for action in actions if isinstance(action, Send) and isinstance(action.body, orders.RunFinished)
    ]


def test_shots_are_sent_in_their_order_if_they_are_asked_for_and_only_those_that_are_done() -> None:
    runner = taken()
    for token, wanted in (("t", True), ("u", False)):
        runner.hear(replace(order(token), bitstrings=wanted), T0)
        runner.computed(token, ["01", "10"] * 10, T0)
        [result] = results(runner.hear(orders.StopRun(token=token), T0 + SECOND * 3 // 10))
        assert result.counts == {"01": 2, "10": 1}
        assert result.bitstrings == (b"\x40\x80\x40" if wanted else b"")
        runner.hear(orders.ForgetRun(token=token), T0 + SECOND)


def test_facts_of_the_device_and_of_the_sequence_go_with_the_shots() -> None:
    runner = new(shot_rate=0, facts={"device": "AnalogDevice"})
    runner.start(T0)
    runner.hear(orders.Welcome(interval=BEAT), T0)
    runner.hear(order(shots=1), T0)
    [result] = results(runner.computed("t", ["01"], T0, {"total_duration": 16}))
    assert result.metadata == {"device": "AnalogDevice", "total_duration": 16}
    runner.hear(order("u"), T0)
    [failed] = results(runner.computed("u", Failure("no", "task"), T0))
    assert (failed.metadata, failed.log) == ({}, ())


def test_the_log_says_when_it_was_ready_how_long_it_shot_and_why_it_ended() -> None:
    stories = {
        "ready after 1.000 s, shooting for 2.000 s": lambda runner: runner.tick(T0 + 3 * SECOND),
        "ready after 1.000 s, shooting for 0.500 s, stopped": lambda runner: runner.hear(
            orders.StopRun(token="t"), T0 + SECOND * 3 // 2
        ),
        "ready after 1.000 s, shooting for 1.500 s, ended at its limit": lambda runner: runner.tick(
            T0 + SECOND * 5 // 2
        ),
    }
    for line, end in stories.items():
        runner = taken()
        runner.hear(order(shots=20, limit=SECOND * 5 // 2 if "limit" in line else None), T0)
        runner.computed("t", ["01"] * 20, T0 + SECOND)
        assert results(end(runner))[0].log == (line,)


def test_the_log_of_a_run_that_never_came_to_its_shots_says_so() -> None:
    runner = taken()
    runner.hear(order(), T0)
    assert results(runner.hear(orders.StopRun(token="t"), T0 + 1))[0].log == ("it was not ready to shoot, stopped",)


def test_without_a_pace_all_shots_are_there_when_they_are_computed() -> None:
    runner = taken(shot_rate=0)
    runner.hear(order(shots=3), T0)
    (result,) = said(runner.computed("t", ["0", "1", "1"], T0 + 7))
    assert result == finished(shots=3, counts={"0": 1, "1": 2}, time=7)


def test_a_run_that_cannot_be_emulated_ends_with_the_reason_and_its_log_line_does_not_tell_it() -> None:
    runner = taken()
    runner.hear(order(), T0)
    actions = runner.computed("t", Failure("Pulser refuses the sequence: secret", "task"), T0 + 5)
    assert said(actions) == [finished(time=5, error="Pulser refuses the sequence: secret", fault="task")]
    assert [action for action in actions if isinstance(action, Note)] == [Note("run t: 0 of 20 shots done (failed)")]


def test_a_run_that_cannot_be_begun_is_the_device_s_fault_and_the_worker_s_next_run_is_begun() -> None:
    runner = taken()
    runner.hear(order(), T0)
    actions = runner.computed("t", Failure("no process can be started", "device"), T0)
    assert said(actions) == [finished(time=0, error="no process can be started", fault="device")]
    assert done(runner.hear(order("u"), T0)) == [Begin(order("u"))]


def test_a_run_that_is_stopped_ends_with_the_shots_that_are_done() -> None:
    runner = taken()
    runner.hear(order(shots=20), T0)
    runner.computed("t", ["01"] * 20, T0 + SECOND)
    actions = runner.hear(orders.StopRun(token="t"), T0 + 2 * SECOND)
    assert said(actions) == [finished(shots=10, counts={"01": 10}, time=2 * SECOND)]


def test_a_run_that_is_stopped_while_it_is_emulated_has_no_shots_and_ends_its_emulation() -> None:
    runner = taken()
    runner.hear(order(), T0)
    actions = runner.hear(orders.StopRun(token="t"), T0 + SECOND)
    assert done(actions) == [Abandon()]
    assert said(actions) == [finished(time=SECOND)]


@pytest.mark.parametrize("message", [orders.StopRun(token="other"), orders.ForgetRun(token="t"), order("t", shots=9)])
def test_a_run_is_disturbed_neither_by_words_about_another_nor_by_its_own_order_again(message: wire.Message) -> None:
    runner = taken()
    runner.hear(order(), T0)
    assert runner.hear(message, T0) == []
    assert runner.token == "t"


def test_another_run_takes_the_place_of_the_one_at_hand() -> None:
    runner = taken()
    runner.hear(order("t"), T0)
    actions = runner.hear(order("u"), T0 + 1)
    assert done(actions) == [Abandon(), Begin(order("u"))]
    assert said(actions) == []
    assert runner.token == "u"
    assert runner.computed("t", ["01"] * 20, T0 + 2) == []
    runner.computed("u", ["10"] * 20, T0 + 2)
    result = said(runner.tick(T0 + 3 * SECOND))[0]
    assert isinstance(result, orders.RunFinished)
    assert (result.token, result.counts) == ("u", {"10": 20})


def test_another_run_takes_the_place_of_one_that_is_being_delivered_whose_emulation_has_ended() -> None:
    runner = taken()
    runner.hear(order("t"), T0)
    runner.computed("t", ["01"] * 20, T0 + 1)
    assert done(runner.hear(order("u"), T0 + 2)) == [Begin(order("u"))]


# --- the deadline ---


def test_at_its_deadline_a_run_ends_with_the_shots_that_are_done() -> None:
    runner = taken()
    runner.hear(order(shots=20, limit=1_500_000), T0)
    runner.computed("t", ["01"] * 20, T0 + SECOND)
    assert runner.next_wakeup(T0 + SECOND) == T0 + 1_500_000
    assert said(runner.tick(T0 + 1_499_999)) == []
    assert said(runner.tick(T0 + 1_500_000)) == [finished(shots=5, counts={"01": 5}, time=1_500_000)]


def test_at_its_deadline_an_endless_emulation_is_ended() -> None:
    runner = taken()
    runner.hear(order(limit=SECOND), T0)
    assert runner.next_wakeup(T0) == T0 + SECOND
    actions = runner.tick(T0 + SECOND)
    assert done(actions) == [Abandon()]
    assert said(actions) == [finished(time=SECOND)]


@pytest.mark.parametrize("outcome", [["01"] * 20, Failure("no memory", "task")])
def test_what_is_computed_after_the_deadline_comes_too_late(outcome: Any) -> None:
    runner = taken(shot_rate=0)
    runner.hear(order(limit=SECOND), T0)
    actions = runner.computed("t", outcome, T0 + SECOND)
    assert said(actions) == [finished(time=SECOND)]
    assert done(actions) == []


def test_an_order_that_was_long_under_way_has_so_much_less_time() -> None:
    runner = taken()
    runner.hear(order(shots=20, limit=3 * SECOND), T0 + 2 * SECOND)
    runner.computed("t", ["01"] * 20, T0 + 2 * SECOND)
    assert said(runner.tick(T0 + 3 * SECOND - 1)) == [beat("t")]
    assert said(runner.tick(T0 + 3 * SECOND)) == [finished(shots=10, counts={"01": 10}, time=SECOND)]


@pytest.mark.parametrize("late", [0, 1, 3600 * SECOND])
def test_an_order_that_is_read_after_its_time_is_not_begun(late: int) -> None:
    """A worker that was stopped finds it when it goes on, maybe inside a calibration."""
    runner = taken()
    actions = runner.hear(order(limit=SECOND), T0 + SECOND + late)
    assert done(actions) == []
    assert said(actions) == [finished(time=0)]
    assert runner.token == "t"
    runner.hear(orders.ForgetRun(token="t"), T0 + SECOND + late)
    assert runner.token == ""


def test_an_order_that_is_older_than_the_run_at_work_changes_nothing() -> None:
    runner = taken()
    new, old = replace(order("new"), issued=T0 + SECOND), order("old", limit=SECOND)
    runner.hear(new, T0 + SECOND)
    assert runner.hear(old, T0 + 2 * SECOND) == []
    assert runner.token == "new"


# --- the result ---


def test_a_result_is_offered_with_each_beat_until_the_broker_has_it() -> None:
    runner = with_result()
    for n in (1, 2):
        assert said(runner.tick(T0 + n * BEAT)) == [beat("t"), RESULT]
    runner.hear(orders.ForgetRun(token="other"), T0)
    assert said(runner.tick(T0 + 3 * BEAT)) == [beat("t"), RESULT]
    runner.hear(orders.ForgetRun(token="t"), T0)
    assert said(runner.tick(T0 + 4 * BEAT)) == [beat()]


def test_a_broker_that_comes_back_is_offered_the_result_when_it_says_welcome() -> None:
    runner = with_result()
    runner.hear(orders.Unwelcome(text="say hello again"), T0 + 1)
    assert said(runner.tick(T0 + 1)) == [hello("t")]
    assert said(runner.hear(orders.Welcome(interval=BEAT), T0 + 2)) == [RESULT]


def test_the_order_of_a_run_whose_result_is_kept_does_not_start_it_again() -> None:
    assert with_result().hear(order("t"), T0 + 1) == []


def test_a_result_is_given_up_for_another_run() -> None:
    runner = with_result()
    assert done(runner.hear(order("u"), T0 + 1)) == [Begin(order("u"))]
    assert said(runner.tick(T0 + BEAT)) == [beat("u")]


# --- a broker that is away ---


def test_a_run_goes_on_while_the_broker_is_away_and_when_it_comes_back_and_does_not_say_welcome() -> None:
    runner = taken()
    runner.hear(order(shots=100), T0)
    runner.computed("t", ["01"] * 100, T0)
    runner.hear(orders.Unwelcome(text="say hello again"), T0 + SECOND)
    sent: list[wire.Message] = []
    for n in range(1, 12):
        actions = runner.tick(T0 + n * SECOND)
        assert done(actions) == []
        sent += said(actions)
    assert hello("t") in sent
    assert sent.count(finished(shots=100, counts={"01": 100}, time=10 * SECOND)) == 1
    assert beat("t") not in sent
    assert said(runner.hear(orders.Welcome(interval=BEAT), T0 + 20 * SECOND)) != []


# --- sequences that it is asked about ---


def question(token: str = "c", sequence: str = "{}") -> orders.CheckSequence:
    return orders.CheckSequence(token=token, sequence=sequence)


def checked(token: str = "c", **fields: Any) -> Send:
    return Send(orders.SequenceChecked(instance="me", token=token, **fields))


def test_it_looks_at_a_sequence_and_says_what_it_thinks_of_it() -> None:
    runner = taken()
    assert runner.hear(question(), T0) == [Check(question())]
    assert runner.checked("c", 700) == [checked(preparation=700)]
    runner.hear(question("d"), T0)
    assert runner.checked("d", Failure("no", "task")) == [checked("d", error="no", fault="task")]
    assert runner.checked("d", 700) == []
    assert runner.token == ""


def test_it_looks_at_a_sequence_beside_a_run_and_neither_disturbs_the_other() -> None:
    runner = taken()
    runner.hear(order(), T0)
    assert runner.hear(question(), T0) == [Check(question())]
    assert runner.computed("c", ["01"], T0) == []
    assert runner.checked("t", 5) == []
    assert runner.hear(orders.StopRun(token="c"), T0) == [Dismiss()]
    assert runner.token == "t"
    runner.hear(question(), T0)
    assert done(runner.hear(orders.StopRun(token="t"), T0)) == [Abandon()]
    assert runner.checked("c", 5) == [checked(preparation=5)]


def test_it_drops_what_nobody_waits_for_any_more() -> None:
    runner = taken()
    runner.hear(question(), T0)
    assert runner.hear(question(), T0) == []
    assert runner.hear(question("d"), T0) == [Dismiss(), Check(question("d"))]
    assert runner.checked("c", 5) == []
    assert runner.hear(orders.StopRun(token="c"), T0) == []
    assert runner.hear(orders.StopRun(token="d"), T0) == [Dismiss()]
    assert runner.checked("d", 5) == []


def test_a_check_that_takes_too_long_is_ended_and_says_nothing_of_its_sequence() -> None:
    runner = taken()
    runner.tick(T0 + CHECK - 2)
    runner.hear(question(), T0)
    assert runner.next_wakeup(T0 + CHECK - 2) == T0 + CHECK
    assert runner.tick(T0 + CHECK - 1) == []
    late = [action for action in runner.tick(T0 + CHECK) if not isinstance(action, Note)]
    assert late[:2] == [Dismiss(), checked(error="it could not be checked within 6 s", fault="device")]
    assert runner.checked("c", 5) == []


def test_the_broker_waits_longer_than_the_worker_looks() -> None:
    assert CHECK < PATIENCE
