"""`qpu why`: windows, the line, and what Grid Engine says are one answer, for people and for programs."""

from __future__ import annotations

import json

import msgspec
import pytest
from gridengine_samples import TAKEN

from gridengine.qstat_xml import Job, Row
from gridengine.why import report
from gridengine.why.answer import Answer, Facts, Line, Work, explain, place_in_line
from gridengine.why.sight import Fit, Sight, first_fit
from warden.model import HORIZON, SECOND, Availability, State, Window

# A Thursday, at noon.
NOW = 1_795_694_400 * SECOND
MINUTE, HOUR = 60 * SECOND, 3600 * SECOND


# --- windows ---


def window(start: int, end: int | None, kind: State = State.CALIBRATING) -> Window:
    return Window(NOW + start, None if end is None else NOW + end, kind, "calibration")


def hourly(count: int) -> tuple[Window, ...]:
    """A calibration of 10 minutes at each half hour."""
    return tuple(window(n * HOUR + 30 * MINUTE, n * HOUR + 40 * MINUTE) for n in range(count))


@pytest.mark.parametrize(
    ("windows", "start", "need", "fit"),
    [
        ((), 0, HORIZON, Fit(NOW)),
        (hourly(1), 0, 30 * MINUTE, Fit(NOW)),
        (hourly(1), 0, 30 * MINUTE + 1, Fit(NOW + 40 * MINUTE)),
        (hourly(3), 0, 50 * MINUTE, Fit(NOW + 40 * MINUTE)),
        (hourly(3), 0, 51 * MINUTE, Fit(NOW + 2 * HOUR + 40 * MINUTE)),
        (hourly(3), 35 * MINUTE, 0, Fit(NOW + 40 * MINUTE)),
        (hourly(3), 40 * MINUTE, 0, Fit(NOW + 40 * MINUTE)),
        (hourly(2), 3 * HOUR, MINUTE, Fit(NOW + 3 * HOUR)),
        ((window(-MINUTE, None),), 0, 0, Fit(None)),
        ((*hourly(1), window(50 * MINUTE, None)), 0, 11 * MINUTE, Fit(NOW)),
        ((*hourly(1), window(50 * MINUTE, None)), 0, HOUR, Fit(None)),
    ],
)
def test_the_first_gap_that_is_long_enough(windows: tuple[Window, ...], start: int, need: int, fit: Fit) -> None:
    assert first_fit(Sight(name="fresnel", windows=windows), NOW + start, need) == fit


def test_a_rule_that_never_leaves_so_long_a_gap() -> None:
    sight = Sight(name="fresnel", windows=hourly(1000), more=True)
    assert first_fit(sight, NOW, 51 * MINUTE) == Fit(None, never=True)
    assert first_fit(sight, NOW, 50 * MINUTE) == Fit(NOW + 40 * MINUTE)


# --- the line ---


def row(number: int, state: str = "qw", tasks: int = 1, **requests: str) -> Row:
    return Row(id=number, state=state, tasks=tasks, requests={"qpu": "1", **requests})


def job(number: int = 7, state: str = "qw", **more: object) -> Job:
    plain_job = Job(id=number, owner="alice", name="afm", state=state, requests={"qpu": "1"}, reasons=(TAKEN,))
    return msgspec.structs.replace(plain_job, **more)


TWO = (Sight(name="fresnel"), Sight(name="emu"))


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([row(7)], Line(0, 1)),
        ([row(1, "r"), row(2), row(3, tasks=10), row(7), row(8)], Line(11, 13)),
        ([row(2, "hqw"), row(3, "Eqw"), Row(id=4, state="qw"), row(7)], Line(0, 1)),
        ([row(2, qpu_name="emu"), row(3, qpu_name="*"), row(7)], Line(1, 2)),
        ([row(2, qpu="0"), row(3, qpu="0.000000"), row(7)], Line(0, 1)),
        ([row(2), row(7, "Rq"), row(7, tasks=3)], Line(1, 5)),
        ([row(2)], None),
    ],
)
def test_the_place_in_the_line(rows: list[Row], line: Line | None) -> None:
    assert place_in_line(rows, job(requests={"qpu": "1", "qpu_name": "fresnel"}), TWO) == line


def test_who_can_never_start_is_in_nobody_s_way() -> None:
    rows = (row(2, qpu="2"), row(3, qpu_qubits="15"), row(4, qpu_window="900000"), row(5, qpu_qubits="14"), row(7))
    assert told(job(), sight(used=1), rows=rows).line == Line(1, 2)


def test_a_job_whose_start_time_has_not_come_is_in_nobody_s_way() -> None:
    rows = (row(5), row(6), row(7))
    assert told(job(), sight(used=1), rows=rows, later=frozenset({5})).line == Line(1, 2)
    assert told(job(), sight(used=1), rows=rows, later=frozenset({7})).line is None


# --- the answer ---


def sight(
    state: State = State.READY,
    *,
    used: int = 0,
    places: int = 1,
    windows: tuple[Window, ...] = (),
    reason: str = "",
    name: str = "fresnel",
    more: bool = False,
) -> Sight:
    ahead = next((one for one in windows if one.start > NOW), None)
    until = next((one.end for one in windows if one.covers(NOW)), None)
    known = Availability(
        name=name,
        state=state,
        reason=reason or state,
        until=until,
        places=places,
        used=used,
        queued=0,
        next_window=ahead,
        qubits=14,
        time=NOW,
    )
    return Sight(name=name, availability=known, windows=windows, more=more)


DEAD = Sight(name="fresnel", trouble="the broker at tcp://master:7610 does not answer: is it running?")


def told(of: Job, *sights: Sight, rows: tuple[Row, ...] | None = None, **more: object) -> Answer:
    listed = (Row(id=of.id, state=of.state, requests=of.requests),) if rows is None else rows
    facts = Facts(job=of, rows=listed, sights=sights, now=NOW)
    return explain(msgspec.structs.replace(facts, **more))


def asking(reasons: tuple[str, ...] = (TAKEN,), **requests: str) -> Job:
    return job(requests={"qpu": "1", **requests}, reasons=reasons)


QUEUE_BLOCKED = 'queue instance "f.q@node1" dropped because it is overloaded: qpu_fresnel=0.000000 (no load value) >= 0'
WINDOW_SAID = "(-l qpu=1,qpu_window=7200) cannot run globally because it offers only gl:qpu_window=1800.000000"
SEVERAL = (
    '(-l qpu=1) cannot run in queue "all.q@node3" because job requests unknown resource (qpu)',
    'cannot run because it exceeds limit "/////" in rule "qpu/2"',
    'cannot run because it exceeds limit "/////" in rule "qpu/1"',
)
RESERVED = f"{TAKEN} due to a reservation"


@pytest.mark.parametrize(
    ("of", "sights", "because", "start", "todo"),
    [
        pytest.param(
            job(), [sight(used=1)], "all places on fresnel are taken", "unknown: when a place is free", "nothing: it starts",
            id="busy",
        ),
        pytest.param(
            job(), [sight(State.CALIBRATING, windows=(window(-MINUTE, 9 * MINUTE),))],
            "fresnel is blocked: calibrating until 2026-11-26T12:09:00Z", "2026-11-26T12:09:00Z, in 9 min", "nothing: it starts",
            id="calibrating",
        ),
        pytest.param(
            job(), [sight(State.MAINTENANCE, windows=(window(-MINUTE, None),), reason="cleaning up")],
            "fresnel is blocked: maintenance (cleaning up)", "unknown: nobody knows when the QPU", "nothing: it starts",
            id="drained",
        ),
        pytest.param(
            job(), [sight(State.OFFLINE, reason="no worker")], "fresnel is blocked: offline (no worker)",
            "unknown: nobody knows when the QPU", "nothing: it starts", id="offline",
        ),
        pytest.param(
            job(), [DEAD], "no place on fresnel is free, and its Warden does not answer", "unknown", "until Warden answers",
            id="no Warden",
        ),
        pytest.param(
            job(), [sight()], "or were when Grid Engine last heard", "at any moment", "nothing: it starts", id="just free",
        ),
        pytest.param(
            asking((WINDOW_SAID,), qpu_window="7200"), [sight(windows=hourly(1))],
            "it asks for 2 h before a window, and the next is in 30 min", "2026-11-26T12:40:00Z, in 40 min",
            "nothing: it starts", id="does not fit before a window",
        ),
        pytest.param(
            asking((WINDOW_SAID,), qpu_window="7200"), [sight(windows=hourly(1000), more=True)],
            "it asks for 2 h before a window; until 2027-01-07T03:30:00Z they leave 50 min at most", "never, as it is",
            "`qdel 7`, and submit it again", id="no gap is so long",
        ),
        pytest.param(
            asking((RESERVED,)), [sight(windows=hourly(1))], "kept free for an advance reservation",
            "unknown: the QPU has a place", "say how long it runs (-l h_rt=TIME)", id="reservation, endless",
        ),
        pytest.param(
            asking((RESERVED,), h_rt="3600"), [sight(windows=hourly(1))], "kept free for an advance reservation",
            "2026-11-26T12:40:00Z", "nothing: it starts", id="reservation, too long",
        ),
        pytest.param(
            asking((RESERVED,), h_rt="3600"), [sight(windows=hourly(1000), more=True)], "kept free for an advance",
            "unknown: no gap between windows is as long", "nothing: it starts", id="reservation, for ever too long",
        ),
        pytest.param(
            asking(qpu_qubits="5000"), [sight(used=1)], "it asks for 5000 qubits, and the QPU takes 14 at most",
            "never, as it is", "`qdel 7`", id="too many qubits, which qstat does not say",
        ),
        pytest.param(
            asking(qpu="3"), [sight(used=1)], "it asks for 3 places, and the QPU has 1", "never, as it is", "`qdel 7`",
            id="too many places",
        ),
        pytest.param(
            asking(qpu_name="oth*"), [sight(used=1)], "no QPU is called oth*: there is fresnel", "never, as it is", "`qdel 7`",
            id="no such QPU",
        ),
        pytest.param(
            asking(qpu_window="900000"), [sight()], "none is announced more than 604800 s ahead", "never, as it is", "`qdel 7`",
            id="longer than anybody knows",
        ),
        pytest.param(
            job(state="hqw", reasons=("Job is in hold state",)), [sight()], "it is held", "not before it is released",
            "`qrls 7` releases it", id="held",
        ),
        pytest.param(
            job(reasons=(), queue_reasons=('queue instance "all.q@node1" dropped because it is full',)), [sight()],
            "all slots of all.q@node1 are taken", "unknown: the QPU has a place", "nothing: it starts", id="full queues",
        ),
        pytest.param(
            job(reasons=(), queue_reasons=(QUEUE_BLOCKED, QUEUE_BLOCKED.replace("node1", "node2"))),
            [sight(State.CALIBRATING, windows=(window(-MINUTE, 9 * MINUTE),))], "fresnel is blocked",
            "2026-11-26T12:09:00Z", "nothing: it starts", id="one of several QPUs, by its queues' threshold",
        ),
        pytest.param(
            job(state="hqw", reasons=("job dropped because of job dependencies",), predecessors=("3", "4")), [sight()],
            "it waits for the end of job 3, 4 (-hold_jid)", "not before those jobs have ended", "nothing: it starts",
            id="hold_jid",
        ),
        pytest.param(
            job(state="Eqw", reasons=("11/22/2026 21:11:44 [104:2854]: this user may not use this QPU", "Job is in error state")),
            [sight()], "this user may not use this QPU", "not before its error is cleared", "`qmod -cj 7`; or `qdel 7`",
            id="error",
        ),
        pytest.param(
            job(reasons=("execution time not reached",), not_before=NOW // SECOND + 3600), [sight()],
            "it must not start before 2026-11-26T13:00:00Z", "2026-11-26T13:00:00Z, in 1 h", "nothing: it starts", id="qsub -a",
        ),
        pytest.param(
            job(state="Rq", reasons=(), context={"qpu_attempts": "3", "qpu_reason": "calibrating"}), [sight(used=1)],
            "sent back 3 times, last because the QPU was calibrating", "unknown: when a place is free",
            "nothing: it starts", id="sent back",
        ),
        pytest.param(
            job(requests={}, reasons=()), [], "it does not ask for a QPU (-l qpu=1)", "unknown", "nothing: it starts",
            id="no QPU",
        ),
        pytest.param(
            job(reasons=()), [sight(used=1, name="emu"), sight(State.CALIBRATING, windows=(window(-1, MINUTE),))], "",
            "unknown: when a place is free", "nothing: it starts", id="two QPUs, one busy, one blocked",
        ),
        pytest.param(
            job(reasons=SEVERAL), [sight(used=1, name="emu"), sight(used=1)], "all places on emu are taken",
            "unknown: when a place is free", "nothing: it starts", id="two QPUs, both busy",
        ),
        pytest.param(
            job(reasons=SEVERAL[:1], queue_reasons=(QUEUE_BLOCKED,)),
            [sight(used=1, name="emu"), sight(State.CALIBRATING, windows=(window(-MINUTE, 9 * MINUTE),))],
            "fresnel is blocked: calibrating", "unknown: when a place is free", "nothing: it starts",
            id="two QPUs, one busy, one blocked by its queues' threshold",
        ),
        pytest.param(
            job(reasons=SEVERAL[:1]), [sight(name="emu"), sight()], "all.q@node3 has no QPU", "unknown: the QPU has a place",
            "nothing: it starts", id="a queue without a QPU, where there are two",
        ),
        pytest.param(
            job(reasons=('cannot run in PE "make" because it only offers 1 slots',)), [sight(used=1)],
            "all places on fresnel are taken / make has but 1 slots for it", "unknown: when a place is free", "nothing",
            id="parallel, and busy",
        ),
        pytest.param(
            job(reasons=('cannot run in PE "make" because it only offers 1 slots',)), [sight()],
            "make has but 1 slots for it", "unknown: the QPU has a place", "nothing", id="parallel, and not busy",
        ),
        pytest.param(
            job(reasons=("There are no messages available",)), [sight(used=1)], "", "unknown: when a place is free",
            "nothing", id="Grid Engine has not looked at it yet",
        ),
    ],
)  # fmt: skip
def test_why_a_job_waits_when_it_starts_and_what_to_do(
    of: Job, sights: list[Sight], because: str, start: str, todo: str
) -> None:
    found = told(of, *sights)
    said = " / ".join(reason.text for reason in found.because)
    assert because in said
    assert not any(noise in said for noise in ("resource quota", "nobody offers", "no messages"))
    assert found.start.startswith(start)
    assert todo in found.todo
    # What is said is one answer: a time to start if and only if there is one.
    assert (found.earliest is None) is found.start.startswith(("unknown", "never", "not before"))
    lines = report.text(found).splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("job 7 (afm) of alice: ")
    assert lines[-1].startswith("what to do:") or lines[-2].startswith("what to do:")


def test_of_two_qpus_the_one_that_is_blocked_is_meant() -> None:
    elsewhere = 'cannot run in queue "emu.q" because it is not contained in its hard queue list (-q)'
    of = job(reasons=(elsewhere,), queue_reasons=(QUEUE_BLOCKED,))
    said = [reason.text for reason in told(of, sight(name="emu"), sight(State.OFFLINE, reason="no worker")).because]
    assert said == ["emu.q is not what it asks for (-q)", "fresnel is blocked: offline (no worker)"]


def test_others_that_are_ahead_are_said_to_be() -> None:
    found = told(job(), sight(), rows=(row(2), row(7)))
    assert found.start == "unknown: the QPU has a place, but others are ahead of it"


def test_no_task_is_no_list_of_tasks() -> None:
    of = job(state="r", reasons=())
    assert told(of, sight(used=1), work=Work(sessions=1, tasks={})).todo == "nothing: it runs"
    assert "qpu tasks" in told(of, sight(used=1), work=Work(sessions=1, tasks={"completed": 1})).todo


def test_an_array_of_which_one_task_is_in_error_says_both() -> None:
    of = job(state="qw,Eqw", reasons=("this user may not use this QPU", "Job is in error state", TAKEN))
    found = told(of, sight(used=1), rows=(row(7), row(7, "Eqw")))
    assert [reason.text for reason in found.because] == [
        "this user may not use this QPU",
        "all places on fresnel are taken",
    ]
    assert (found.words, "qmod -cj 7" in found.todo) == ("1 waiting, 1 in error", True)
    # An error of which nothing is known is told all the same.
    alone = told(job(state="Eqw", reasons=("Job is in error state",)), sight())
    assert [reason.text for reason in alone.because] == ["it is in error"]


@pytest.mark.parametrize(
    ("holds", "because", "todo"),
    [
        (("user",), "it is held by its user", "`qrls 7` releases it"),
        (("operator",), "it is held by an operator of the cluster", "ask an operator"),
        (("user", "system"), "it is held by its user and a manager of the cluster", "and then an operator has to"),
    ],
)
def test_who_holds_a_job(holds: tuple[str, ...], because: str, todo: str) -> None:
    found = told(job(state="hqw", reasons=("Job is in hold state",)), sight(), holds=holds)
    assert found.because[0].text == because
    assert todo in found.todo


@pytest.mark.parametrize("count", ["", "0", "x", "-1", "9" * 400, "3\n"])
def test_what_a_user_writes_into_the_context_is_no_trouble(count: str) -> None:
    found = told(job(context={"qpu_attempts": count, "qpu_reason": "\x1b[31m" + "x" * 500}), sight(used=1))
    assert all(line.isprintable() and len(line) <= 80 for line in report.text(found).splitlines())


@pytest.mark.parametrize(
    ("rows", "words", "todo"),
    [
        ([row(7, "r")], "running (r)", "nothing: it runs"),
        ([row(7, "t")], "starting (t)", "nothing: it runs"),
        ([row(7, "s")], "suspended (s)", "`qmod -usj 7`"),
        ([row(7, "dr")], "being deleted (dr)", "nothing: it is being deleted"),
        ([row(7, "Rq")], "waiting to be started again (Rq)", "nothing: it starts"),
        ([row(7, "r"), row(7, "r"), row(7, "qw", 8)], "2 running, 8 waiting", "nothing: it starts"),
    ],
)
def test_what_state_a_job_is_in(rows: list[Row], words: str, todo: str) -> None:
    state = ",".join(dict.fromkeys(one.state for one in rows))
    found = told(job(state=state, reasons=()), sight(used=1), rows=tuple(rows))
    assert (found.words, todo in found.todo) == (words, True)


def test_a_running_job_says_what_its_tasks_do_and_waits_for_nothing() -> None:
    work = Work(sessions=1, tasks={"completed": 3, "running": 1})
    found = told(job(state="r", reasons=()), sight(used=1), work=work)
    assert (found.because, found.line, found.start) == ((), None, "")
    assert "on the QPU:       tasks: 1 running, 3 completed\n" in report.text(found)


def test_the_whole_answer_for_people() -> None:
    of = asking((WINDOW_SAID,), qpu_window="7200")
    rows = (row(1, "r"), row(3), Row(id=7, state="qw", requests=of.requests), row(8))
    assert (
        report.text(told(of, sight(windows=hourly(1), used=1), rows=rows))
        == """\
job 7 (afm) of alice: waiting (qw)
asks for:         qpu=1, qpu_window=7200
because:          it asks for 2 h before a window, and the next is in 30 min
QPU:              fresnel: ready; 1 of 1 places taken
next window:      calibrating in 30 min, from 2026-11-26T12:30:00Z to
                  2026-11-26T12:40:00Z
in the line:      2 of 3 that wait
earliest start:   2026-11-26T12:40:00Z, in 40 min, if a place is free then
what to do:       nothing: it starts by itself"""
    )


def test_the_whole_answer_for_programs() -> None:
    of = asking((WINDOW_SAID,), qpu_window="7200")
    told_to_programs = report.facts(told(of, sight(windows=hourly(1))))
    assert json.loads(msgspec.json.encode(told_to_programs)) == told_to_programs | {
        "because": [{"cause": "window", "text": told_to_programs["because"][0].text, "said": WINDOW_SAID}]
    }
    assert told_to_programs["earliest_start"] == "2026-11-26T12:40:00Z"
    assert (told_to_programs["ahead"], told_to_programs["waiting"]) == (0, 1)
    assert [qpu["state"] for qpu in told_to_programs["qpus"]] == ["ready"]
    assert report.facts(told(of, DEAD))["qpus"][0]["state"] == "unknown"


def test_a_user_learns_nothing_of_anothers_sessions_but_how_many_there_are() -> None:
    rows = (Row(id=4, state="r", queue="all.q@node1", requests={"qpu": "1"}), row(5), row(7))
    text = report.text(told(job(), sight(used=1), rows=rows))
    assert "1 of 1 places taken" in text
    assert "bob" not in text
    assert not {"4", "5"} & set(text.replace(":", " ").split())
