"""Sequences are looked at by the worker before their tasks are queued; whatever it does, each request has one answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from warden_machine import ALICE, BOB, CAROL, Machine, Qpu
from warden_submissions import LIMIT, submit, text

from warden import checks, wire
from warden.model import BadRequestError, EndedSessionError, LimitError, NotFoundError, Task, TaskStatus


def slow(**options: Any) -> tuple[Machine, Qpu]:
    """A machine whose worker says of a sequence what a test makes it say."""
    machine = Machine(places=4, **options)
    qpu = Qpu(machine)
    qpu.prompt = False
    return machine, qpu


def tasks(machine: Machine) -> list[Task]:
    return machine.disk.tasks(uid=None, session=None, before=None, limit=1000)


def unchecked(machine: Machine) -> set[bool]:
    """Whether tasks say that nobody has looked at their sequences."""
    return {"not checked yet" in machine.task(task.id).log[0] for task in tasks(machine)}


# --- the worker's word ---


def test_a_task_is_queued_when_the_worker_has_looked_at_its_sequence() -> None:
    machine, qpu = slow()
    asked = submit(machine, machine.session(), "k")
    assert (asked in machine.answers, tasks(machine)) == (False, [])
    assert [check.sequence for check in qpu.checks] == [text()]
    qpu.check(preparation=1500)
    task = machine.answers[asked]
    assert (task.status, task.preparation) == (TaskStatus.QUEUED, 1500)
    assert [one.id for one in tasks(machine)] == [task.id]
    assert unchecked(machine) == {False}
    assert qpu.take().task == task.id


def test_what_the_worker_cannot_run_is_refused_in_one_line_and_is_never_a_task() -> None:
    machine, qpu = slow()
    asked = submit(machine, machine.session(), "k")
    qpu.check(error="Pulser refuses\nthe \x1b[31msequence", fault="task", preparation=5)
    assert isinstance(machine.answers[asked], BadRequestError)
    assert machine.answers[asked].text == "Pulser refuses the [31msequence"
    assert tasks(machine) == []
    assert machine.disk.remember().next_task == 1


@pytest.mark.parametrize("error", ["\n", "\u202e", "x" * 2000])
def test_whatever_the_worker_says_is_a_short_line(error: str) -> None:
    machine, qpu = slow()
    asked = submit(machine, machine.session(), "k")
    qpu.check(error=error)
    said = machine.answers[asked].text
    assert 0 < len(said) <= 1000
    assert said.isprintable()


def test_a_sequence_that_was_looked_at_is_not_looked_at_again_whosever_it_is() -> None:
    machine, qpu = slow()
    alice, bob = machine.session(ALICE, "1"), machine.session(BOB, "2")
    submit(machine, alice, "good")
    qpu.check(preparation=7)
    submit(machine, alice, "bad", 1)
    qpu.check(error="no")
    again = [submit(machine, session, f"again {number}", number) for session in (alice, bob) for number in (0, 1)]
    answers = [machine.answers[asked] for asked in again]
    assert [getattr(answer, "preparation", None) for answer in answers] == [7, None, 7, None]
    assert len(qpu.checks) == 2


def test_another_worker_is_asked_again() -> None:
    machine, qpu = slow()
    session = machine.session()
    submit(machine, session, "one")
    qpu.check(error="no")
    qpu.die()
    machine.later(7)
    other = Qpu(machine, "w2")
    other.prompt = False
    asked = submit(machine, session, "two")
    assert [check.sequence for check in other.checks] == [text()]
    other.check()
    assert machine.answers[asked].status is TaskStatus.QUEUED


def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_VERDICTS", 3)
    monkeypatch.setattr(checks, "_CHARACTERS", 10)
    machine, qpu = slow()
    session = machine.session()

    def looks(number: int, error: str = "") -> bool:
        before = len(qpu.checks)
        submit(machine, session, f"{number}-{before}-{len(machine.answers)}", number)
        if len(qpu.checks) == before:
            return False
        qpu.check(error=error)
        return True

    assert [looks(number, "no") for number in (0, 1, 2, 0, 3, 0, 2, 1)] == [
        *(True, True, True),
        *(False, True, False, False, True),
    ]
    assert looks(4, "12345678901")
    assert looks(4, "12345")
    assert looks(5, "123456")
    assert looks(4, "12345")
    assert len(machine.core._checks._verdicts) <= 3


# --- a worker that does not say it ---


def test_without_a_worker_a_task_is_queued_at_once() -> None:
    machine, qpu = slow()
    session = machine.session()
    qpu.die()
    machine.later(7)
    assert submit(machine, session, "k") in machine.answers
    assert [task.status for task in tasks(machine)] == [TaskStatus.QUEUED]
    assert unchecked(machine) == {True}


def test_a_worker_that_says_nothing_is_waited_for_for_some_seconds() -> None:
    machine, qpu = slow()
    session = machine.session()
    first = submit(machine, session, "k")
    machine.later(1)
    second = submit(machine, session, "l", 1)
    machine.later(LIMIT - 1.001)
    assert machine.answers.keys().isdisjoint({first, second})
    machine.later(0.001)
    assert machine.answers[first].status is TaskStatus.QUEUED
    assert second not in machine.answers
    assert qpu.told_to_stop(qpu.checks[0].token)
    assert [check.sequence for check in qpu.checks] == [text(0), text(1)]
    machine.later(1)
    assert machine.answers[second].status is TaskStatus.QUEUED
    assert unchecked(machine) == {True}


def test_a_worker_that_is_lost_is_waited_for_no_longer() -> None:
    machine, qpu = slow()
    asked = submit(machine, machine.session(), "k")
    qpu.die()
    machine.later(6)
    assert machine.answers[asked].status is TaskStatus.QUEUED


def test_a_worker_that_could_not_look_says_nothing_of_the_sequence() -> None:
    machine, qpu = slow()
    session = machine.session()
    asked = submit(machine, session, "k")
    qpu.check(error="no process to spare", fault="device")
    assert machine.answers[asked].status is TaskStatus.QUEUED
    assert unchecked(machine) == {True}
    submit(machine, session, "l")
    assert len(qpu.checks) == 2


@pytest.mark.parametrize("token", ["", "id-1", "made up"])
def test_an_answer_under_another_token_is_none(token: str) -> None:
    machine, qpu = slow()
    asked = submit(machine, machine.session(), "k")
    qpu.check(token, error="no")
    assert asked not in machine.answers
    qpu.check()
    assert machine.answers[asked].status is TaskStatus.QUEUED
    qpu.check(error="no after all")
    assert machine.task(machine.answers[asked].id).status is not TaskStatus.FAILED


def test_a_worker_that_has_made_another_connection_is_asked_again() -> None:
    machine, qpu = slow()
    asked = submit(machine, machine.session(), "k")
    qpu.peer = b"another"
    qpu.beat()
    assert [check.sequence for check in qpu.checks] == [text()]
    qpu.check()
    assert machine.answers[asked].status is TaskStatus.QUEUED


def test_a_clock_that_is_set_changes_no_patience() -> None:
    machine, _ = slow()
    asked = submit(machine, machine.session(), "k")
    machine.step_clock(-3600)
    machine.later(LIMIT - 0.001)
    assert asked not in machine.answers
    machine.step_clock(7200)
    assert asked not in machine.answers
    machine.later(0.001)
    assert asked in machine.answers


# --- several requests ---


def test_two_who_ask_for_one_sequence_are_one_question() -> None:
    machine, qpu = slow()
    alice, bob = machine.session(ALICE, "1"), machine.session(BOB, "2")
    asked = [submit(machine, session, key) for session in (alice, bob) for key in "kl"]
    qpu.check()
    assert len({machine.answers[one].id for one in asked}) == 4
    assert len(qpu.checks) == 1


def test_a_request_that_is_repeated_meanwhile_is_one_task_and_each_has_its_answer() -> None:
    machine, qpu = slow()
    session = machine.session()
    asked = [submit(machine, session, "k"), submit(machine, session, "k"), submit(machine, session, "k", 1)]
    # In parts, of which the first request has made use.
    asked.append(submit(machine, session, "k", sequence="", upload="u"))
    with pytest.raises(NotFoundError, match="send all its parts again"):
        machine.ask(wire.TaskStart(session=session.id, sequence="", upload="u", shots=10, key="other"), ALICE)
    qpu.check()
    [task] = tasks(machine)
    assert [machine.answers[one].id for one in asked] == [task.id] * 4
    assert submit(machine, session, "k", sequence="", upload="u") in machine.answers


def test_a_request_that_is_repeated_again_and_again_is_answered_before_its_time() -> None:
    machine, _ = slow()
    session = machine.session()
    asked = [submit(machine, session, "k") for _ in range(checks._REPEATS)]
    assert {machine.answers[one].id for one in asked} == {1}


def test_another_s_request_is_joined_by_nobody() -> None:
    machine, qpu = slow()
    alice = machine.session(ALICE, "1")
    machine.session(BOB, "2")
    submit(machine, alice, "k")
    stolen = machine.post(wire.TaskStart(session=alice.id, sequence=text(), shots=10, key="k"), BOB)
    assert "no such session" in machine.answers[stolen].text
    qpu.check()
    assert [task.uid for task in tasks(machine)] == [ALICE]


def test_all_is_decided_when_the_worker_has_spoken() -> None:
    machine, qpu = slow(max_queued_per_user=2)
    alice, bob = machine.session(ALICE, "1"), machine.session(BOB, "2")
    machine.block()
    late, poor = submit(machine, alice, "k"), submit(machine, bob, "k", shots=600)
    machine.ask(wire.Release(session=alice.id), ALICE)
    qpu.check()
    assert isinstance(machine.answers[late], EndedSessionError)
    assert machine.answers[poor].shots == 600
    [task] = tasks(machine)
    assert machine.disk.session(bob.id).tasks == 1
    assert task.submitted == machine.now


def test_those_that_are_held_count_as_those_that_wait() -> None:
    machine, qpu = slow(max_queued=5, max_queued_per_user=3)
    alice, bob, carol = (machine.session(uid, str(uid)) for uid in (ALICE, BOB, CAROL))
    machine.block()
    asked = [submit(machine, alice, f"{n}", n) for n in range(3)]
    for _ in range(2):
        qpu.check()
    with pytest.raises(LimitError, match="3 of your tasks wait"):
        machine.start(alice, text=text(9))
    for n in range(2):
        submit(machine, bob, f"{n}", 5 + n)
    with pytest.raises(LimitError, match="5 tasks wait"):
        machine.start(carol, text=text(9))
    qpu.check_all()
    assert len(tasks(machine)) == 5
    assert all(machine.answers[one].status is TaskStatus.QUEUED for one in asked)


def test_what_is_held_is_bounded() -> None:
    machine, qpu = slow(max_sequence=1000)
    alice, bob = machine.session(ALICE, "1"), machine.session(BOB, "2")
    size = 990 - len(text())
    asked = [submit(machine, alice, f"{n}", sequence=text(n, size)) for n in range(3)]
    # The third is more than she may have there, and is taken as it is.
    assert [one in machine.answers for one in asked] == [False, False, True]
    other = submit(machine, bob, "k")
    assert other not in machine.answers
    qpu.check_all()
    assert other in machine.answers
    checks_ = machine.core._checks
    assert (len(checks_), checks_._sizes, checks_._lines, checks_._wanted) == (0, {}, {}, {})


def test_nobody_waits_for_all_that_another_one_has_sent() -> None:
    machine, qpu = slow(max_queued_per_user=20)
    alice, bob, carol = (machine.session(uid, str(uid)) for uid in (ALICE, BOB, CAROL))
    for n in range(10):
        submit(machine, alice, f"{n}", n)
    submit(machine, bob, "a", 20)
    submit(machine, bob, "b", 21)
    qpu.check()
    submit(machine, carol, "k", 30)
    for _ in range(6):
        qpu.check()
    named = [int(json.loads(check.sequence)["name"]) for check in qpu.checks]
    # The one that was on, then each in turn.
    assert named == [0, 20, 1, 30, 21, 2, 3, 4]


# --- the device ---


def test_more_shots_than_the_device_takes_are_refused_with_or_without_a_worker() -> None:
    machine = Machine()
    qpu = Qpu(machine)
    qpu.specs = json.dumps({"name": "AnalogDevice", "max_runs": 500})
    qpu.hello()
    session = machine.session()
    for present in (True, False):
        with pytest.raises(BadRequestError, match=r"501 shots are more than .* device \(500 runs\)"):
            machine.start(session, 501)
        assert machine.start(session, 500).shots == 500
        if present:
            qpu.die()
            machine.later(7)


@pytest.mark.parametrize("specs", ["", "[]", "{", '{"max_runs": null}', '{"max_runs": "many"}', "[" * 10_000])
def test_a_device_that_nobody_can_read_has_no_limit(specs: str) -> None:
    machine = Machine()
    qpu = Qpu(machine)
    qpu.specs = specs
    qpu.hello()
    assert machine.start(machine.session(), 900).shots == 900
