"""The protocol of a job submission verifier: what is understood of a job, and how an answer is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridengine import jsv_protocol
from gridengine.jsv_protocol import Answer, Job, Listener, Said

# As SGE 8.1.9 tells of `qsub -l qpu=1,h_rt=0:1:0 -v A=b,X=... -pe smp 2 x.sh arg "" "two words"`.
TOLD = r"""PARAM VERSION 1.0
PARAM CONTEXT server
PARAM CLIENT qmaster
PARAM USER alice
PARAM GROUP alice
PARAM JOB_ID 5
PARAM CMDNAME x.sh
PARAM CMDARGS 3
PARAM CMDARG0 arg
PARAM CMDARG1 $
PARAM CMDARG2 two words\n
PARAM A sge
PARAM l_hard qpu=1,h_rt=60
PARAM M alice@node1
PARAM N foo
PARAM o /tmp/x
PARAM pe_name smp
PARAM pe_min 2
PARAM pe_max 2
ENV ADD TERM $
ENV ADD A b
ENV ADD X a\nBEGIN""".replace("$", "")


def told(text: str) -> Job:
    listener = Listener()
    assert listener.hear(b"START", more=False) is Said.START
    for line in text.split("\n"):
        assert listener.hear(line.encode(), more=False) is Said.NOTHING
    assert listener.hear(b"BEGIN", more=False) is Said.BEGIN
    return listener.job()


def test_a_job_as_grid_engine_tells_of_it() -> None:
    assert told(TOLD) == Job(
        parameters={
            "CONTEXT": "server",
            "CLIENT": "qmaster",
            "USER": "alice",
            "CMDNAME": "x.sh",
            "l_hard": "qpu=1,h_rt=60",
        }
    )


@pytest.mark.parametrize("number", range(len(TOLD.splitlines())))
def test_a_line_break_anywhere_marks_the_job(number: int) -> None:
    lines = TOLD.split("\n")
    for spoilt in ("job_owner=bob", "PARAM l_hard qpu=0", "BEGIN now", "PARAM CMDARG3 x", "QUIT", ""):
        assert told("\n".join([*lines[: number + 1], spoilt, *lines[number + 1 :]])).tampered, (number, spoilt)


def test_arguments_that_were_announced_are_there() -> None:
    assert told(TOLD.replace("CMDARGS 3", "CMDARGS 4")).tampered
    assert told(TOLD.replace("CMDARGS 3", "CMDARGS many")).tampered


def test_a_new_parameter_of_grid_engine_is_no_reason_to_refuse() -> None:
    assert not told(TOLD.replace("PARAM pe_name smp", "PARAM pe_name smp\nPARAM brand_new2 yes")).tampered


def test_nothing_of_one_job_is_left_for_the_next() -> None:
    listener = Listener()
    for text in (TOLD, "SHOW", "PARAM CMDARGS 0"):
        listener.hear(b"START", more=False)
        for line in text.split("\n"):
            listener.hear(line.encode(), more=False)
        listener.hear(b"BEGIN", more=False)
        job = listener.job()
    assert job == Job()


def test_who_goes_on_where_grid_engine_waits_has_written_the_line_himself() -> None:
    listener = Listener()
    assert listener.hear(b"START", more=True) is Said.NOTHING
    assert listener.hear(b"QUIT", more=True) is Said.NOTHING
    assert listener.hear(b"START", more=False) is Said.START
    assert listener.hear(b"BEGIN", more=True) is Said.NOTHING
    assert listener.hear(b"QUIT", more=False) is Said.NOTHING
    assert listener.hear(b"BEGIN", more=False) is Said.BEGIN
    assert listener.job().tampered
    assert listener.hear(b"BEGIN", more=False) is Said.NOTHING
    assert listener.hear(b"QUIT", more=False) is Said.QUIT


@given(st.lists(st.tuples(st.sampled_from([b"START", b"BEGIN", b"QUIT", b"PARAM a b", b"", b"\xff"]), st.booleans())))
def test_there_is_one_answer_to_each_start_and_each_begin(said: list[tuple[bytes, bool]]) -> None:
    listener = Listener()
    answers = []
    for line, more in said:
        found = listener.hear(line, more=more)
        if found in {Said.START, Said.BEGIN}:
            answers.append(found)
        if found is Said.BEGIN:
            listener.job()
    assert answers == [Said.START, Said.BEGIN] * (len(answers) // 2) + [Said.START] * (len(answers) % 2)


@pytest.mark.parametrize(
    ("answer", "lines"),
    [
        (Answer(), ["RESULT STATE ACCEPT"]),
        (Answer(refused="no\nRESULT STATE ACCEPT"), ["RESULT STATE REJECT no RESULT STATE ACCEPT"]),
        (
            Answer(parameters={"l_hard": "a=1", "q_hard": "all.q"}, removed=("X",), warning="w\x1b"),
            ["LOG WARNING qpu-jsv: w", "PARAM l_hard a=1", "PARAM q_hard all.q", "ENV DEL X", "RESULT STATE CORRECT"],
        ),
        (Answer(warning="w"), ["LOG WARNING qpu-jsv: w", "RESULT STATE ACCEPT"]),
        (Answer(refused="no", parameters={"l_hard": "a=1"}), ["RESULT STATE REJECT no"]),
    ],
)
def test_an_answer_is_one_line_for_each_thing_and_the_result_last(answer: Answer, lines: list[str]) -> None:
    assert jsv_protocol.render(answer).decode().split("\n") == [*lines, ""]


def test_no_line_is_longer_than_grid_engines_buffer() -> None:
    long = "x" * 9000
    said = jsv_protocol.render(Answer(parameters={"ac": long, "q_hard": "all.q"}, warning="")).decode().split("\n")
    assert said[0].startswith("LOG WARNING qpu-jsv: ac is too long")
    assert said[1:] == ["PARAM q_hard all.q", "RESULT STATE CORRECT", ""]
    assert len(jsv_protocol.render(Answer(refused=long))) < 2000


def test_bytes_that_are_no_text_come_back_as_they_were() -> None:
    listener = Listener()
    listener.hear(b"START", more=False)
    listener.hear(b"PARAM ac a=\xff\xe9", more=False)
    value = listener.job().get("ac")
    assert jsv_protocol.render(Answer(parameters={"ac": value})) == b"PARAM ac a=\xff\xe9\nRESULT STATE CORRECT\n"


def test_lists_keep_what_nobody_asked_to_change() -> None:
    assert jsv_protocol.with_item("", "a", "1") == "a=1"
    assert jsv_protocol.with_item("b,c=2=3,a=0,,a", "a", "1") == "b,c=2=3,a=1"
    assert jsv_protocol.items("b,c=2=3,,a=") == [("b", ""), ("c", "2=3"), ("a", "")]
