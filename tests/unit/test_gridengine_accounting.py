"""Accounts of both flavours, joined with Warden's."""

from gridengine_samples import stdout

from gridengine.accounting import Record, join, parse
from warden.model import SECOND, Session


def session(job: str, *, uid: int = 1001, acquired: int = 0, tasks: int = 1) -> Session:
    return Session(
        id="s",
        uid=uid,
        job=job,
        host="node1",
        acquired=acquired,
        expires=1,
        tasks=tasks,
        shots=100 * tasks,
        qpu_time=3 * SECOND // 2,
        wait_time=SECOND,
    )


def test_a_record_of_sge() -> None:
    assert parse(stdout("sge/qacct.txt")) == {"1": Record("1", "alice", "runner", 60.0, 137)}


def test_an_array_has_a_record_for_each_task() -> None:
    assert list(parse(stdout("sge/qacct.txt", 1))) == ["13.1", "13.2", "13.3"]


def test_a_record_of_ocs() -> None:
    assert parse(stdout("ocs/qacct.txt")) == {"80": Record("80", "alice", "job2.sh", 1.0, 0)}


def test_of_a_job_that_was_started_again_the_last_record_stands() -> None:
    assert parse(stdout("ocs/qacct.txt", 2)) == {"58": Record("58", "alice", "job.sh", 1.0, 0)}


def test_a_broken_record_harms_no_other() -> None:
    assert "84" in parse(stdout("ocs/qacct_bad_json_line.txt"))
    assert parse("nothing of that kind") == {}


def test_sessions_of_a_job_are_summed_and_joined() -> None:
    sessions = [session("7", acquired=5), session("13.2", uid=7, acquired=9), session("7", acquired=1, tasks=2)]
    first, second = join(sessions, {"7": Record("7", "alice", "job", 12.0, 3)}, {1001: "alice"})
    assert (first.job, first.user, first.name, first.tasks, first.shots) == ("7", "alice", "job", 3, 300)
    assert (first.qpu_seconds, first.waited_seconds, first.wallclock, first.exit_status) == (3.0, 2.0, 12.0, 3)
    assert (second.job, second.user, second.name, second.wallclock, second.exit_status) == (
        "13.2",
        "7",
        None,
        None,
        None,
    )
