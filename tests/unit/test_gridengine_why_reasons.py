"""What Grid Engine says of a job that waits, in plain words."""

from __future__ import annotations

import pytest
from gridengine_samples import TAKEN, calls

from gridengine import qstat_xml
from gridengine.why.reasons import Cause, plain, summed


@pytest.mark.parametrize(
    ("said", "cause", "text"),
    [
        (TAKEN, Cause.PLACE, "no place on the QPU is free"),
        (TAKEN.replace("gc", "gl"), Cause.PLACE, "no place on the QPU is free"),
        (
            "(-l qpu=2) cannot run globally because it offers only gc:qpu=1.000000",
            Cause.PLACE,
            "of the QPU's places only 1 is free",
        ),
        (
            '(-l qpu=1) cannot run in queue "all.q@node1" because it offers only qf:qpu=0.000000',
            Cause.IMPOSSIBLE,
            "there is no QPU in all.q@node1",
        ),
        (
            '(-l qpu=1) cannot run in queue "f.q@node1" because it offers only qc:slots=0.000000 due to a reservation',
            Cause.RESERVATION,
            "its queue is kept free for an advance reservation in f.q@node1",
        ),
        (f"{TAKEN} due to a reservation", Cause.RESERVATION, "the QPU is kept free for an advance reservation"),
        (
            "(-l h_rt=5,qpu=1,qpu_window=300) cannot run globally because it offers only gl:qpu_window=24.000000",
            Cause.WINDOW,
            "the next window is in 24 s, sooner than it asks for",
        ),
        (
            "(-l qpu_window=999999) cannot run globally because it offers only gf:qpu_window=604800.000000",
            Cause.IMPOSSIBLE,
            "no window is ever announced more than 604800 s ahead",
        ),
        (
            "(-l qpu=1,qpu_qubits=99) cannot run globally because it offers only gl:qpu_qubits=14.000000",
            Cause.IMPOSSIBLE,
            "the QPU takes registers of up to 14 qubits",
        ),
        (
            "(-l qpu_name=oth*) cannot run globally because it offers only gf:qpu_name=fresnel",
            Cause.IMPOSSIBLE,
            "the QPU is called fresnel",
        ),
        (
            '(-l h_rt=10,mem_free=100G,qpu=1) cannot run at host "node2" because it offers only hl:mem_free=21.087G',
            Cause.QUEUE,
            "mem_free is only 21.087G on node2",
        ),
        (
            '(-l qpu_ready=1) cannot run in queue "all.q@ocsvm" because job requests unknown resource (qpu_ready)',
            Cause.IMPOSSIBLE,
            "nobody offers qpu_ready, for which it asks",
        ),
        ('queue instance "all.q@node1" dropped because it is full', Cause.QUEUE, "all slots of all.q@node1 are taken"),
        (
            'queue instance "all.q@node1" dropped because it is overloaded: qpu_fresnel=0.000000 (no load adjustment) >= 0',
            Cause.PLACE,
            "fresnel is blocked",
        ),
        ('queue instance "all.q@node1" dropped because it is disabled', Cause.QUEUE, "all.q@node1 is disabled"),
        ("execution time not reached", Cause.START_TIME, "its start time (qsub -a) has not come"),
        ("Job is in hold state", Cause.HOLD, "it is held"),
        ("job dropped because of job dependencies", Cause.DEPENDENCY, "it waits for other jobs (qsub -hold_jid)"),
        (
            "not all array tasks may be started due to 'max_aj_instances'",
            Cause.LIMIT,
            "as many tasks of the array run as may run at the same time",
        ),
        (
            'cannot run because it exceeds limit "////qpu" in rule "qpu/1"',
            Cause.LIMIT,
            "the resource quota qpu/1 leaves it no room",
        ),
        ("something of tomorrow", Cause.OTHER, "something of tomorrow"),
    ],
)
def test_each_message_of_the_scheduler_in_plain_words(said: str, cause: Cause, text: str) -> None:
    reason = plain(said)
    assert (reason.cause, reason.text, reason.said) == (cause, text, said)


def test_what_real_clusters_said_is_understood() -> None:
    said = [
        message
        for sample in ("sge/qstat_j.xml.txt", "sge/qstat_j_waiting.xml.txt", "ocs/qstat_j_pending.xml.txt")
        for call in calls(sample)
        if "JB_job_number" in call.stdout
        for message in qstat_xml.read_job(call.stdout, "").reasons
    ]
    assert len(said) > 10
    # Of what the samples ask for, qpu_type is no complex of ours; the prolog's own words are no scheduler's.
    assert {plain(one).cause for one in said if "exit_status" not in one} <= set(Cause) - {Cause.OTHER}


def test_hundreds_of_full_queues_are_not_told_one_by_one() -> None:
    said = [f'queue instance "all.q@node{n}" dropped because it is full' for n in range(500)]
    told = [reason.text for reason in summed(map(plain, [TAKEN, *said, *said]))]
    assert told == [
        "no place on the QPU is free",
        "all slots of all.q@node0 are taken",
        "all slots of all.q@node1 are taken",
        "and 498 more queues and hosts that cannot take it",
    ]
