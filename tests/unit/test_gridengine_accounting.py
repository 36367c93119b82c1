"""Accounts of both flavours, joined with Warden's, and summed up."""

from __future__ import annotations

import calendar
import csv
import io
import time
from typing import TYPE_CHECKING

import pytest
from gridengine_samples import SAMPLES, stdout

from gridengine import accounting, qacct
from gridengine.accounting import By, Entry, Use, as_csv, as_table, ended, facts, join, over, summed, total
from gridengine.admin_cli import _day
from gridengine.qacct import Record, last_life, parse, parse_lines
from warden.model import SECOND, Session

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = 86400
# 2026-03-01, noon, UTC.
NOON = 1_772_366_400


@pytest.fixture(autouse=True)
def in_paris(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where a day does not begin when it does in UTC."""
    monkeypatch.setenv("TZ", "Europe/Paris")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def session(
    job: str, at: float = 0, *, uid: int = 1001, tasks: int = 1, project: str = "", seconds: float = 1.5
) -> Session:
    return Session(
        id="s",
        uid=uid,
        job=job,
        host="node1",
        acquired=round((NOON + at) * SECOND),
        expires=1,
        project=project,
        tasks=tasks,
        shots=100 * tasks,
        qpu_time=round(seconds * SECOND),
        wait_time=SECOND,
    )


def record(
    job: str, at: float = 0, *, length: float = 10, status: int = 0, failed: int = 0, submitted: float = -5,
    owner: str = "alice", name: str = "afm", project: str = "",
) -> Record:  # fmt: skip
    start = NOON + at
    return Record(
        job=job, owner=owner, name=name, project=project, submitted=NOON + submitted, started=start,
        ended=start + length, wallclock=float(length), exit_status=status, failed=failed,
    )  # fmt: skip


def entries(sessions: list[Session], records: list[Record]) -> list[Entry]:
    return join([("fresnel", one) for one in sessions], records, {1001: "alice", 1002: "bob"})


def jobs(sessions: list[Session], records: list[Record]) -> list[Use]:
    return summed(entries(sessions, records), [By.JOB])


# --- what Grid Engine has written ---


def test_a_record_of_sge() -> None:
    [found] = parse(stdout("sge/qacct.txt"))
    assert (found.job, found.owner, found.name, found.project) == ("1", "alice", "runner", "")
    assert (found.wallclock, found.exit_status, found.failed) == (60.0, 137, 100)
    assert found.started == calendar.timegm((2026, 11, 22, 21, 2, 40))
    assert found.ended == found.started + 60


def test_an_array_has_a_record_for_each_task() -> None:
    assert [one.job for one in parse(stdout("sge/qacct.txt", 1))] == ["13.1", "13.2", "13.3"]


def test_a_record_of_ocs() -> None:
    [found] = parse(stdout("ocs/qacct.txt"))
    assert (found.job, found.owner, found.name, found.exit_status) == ("80", "alice", "job2.sh", 0)
    assert (found.ended or 0) - (found.started or 0) == pytest.approx(1.015, abs=0.001)


def test_a_job_that_was_sent_back_has_records_without_a_start() -> None:
    found = parse(stdout("ocs/qacct.txt", 2))
    assert [(one.job, one.started is None, one.final) for one in found] == [
        ("58", True, False),
        ("58", True, False),
        ("58", False, True),
    ]


def test_what_ocs_makes_of_a_broken_record_is_none() -> None:
    assert parse(stdout("ocs/qacct_bad_json_line.txt")) == []
    assert parse("nothing of that kind") == []


def test_a_broken_line_of_ocs_s_file_harms_no_other() -> None:
    lines = (SAMPLES / "ocs" / "accounting.jsonl").read_bytes().splitlines()
    found = {one.job: one for one in parse_lines(lines)}
    assert {"84", "86", "11.3"} <= found.keys()
    assert "85" not in found
    assert (found["80"].name, found["80"].wallclock) == ("job2.sh", 1.0)
    [printed] = parse(stdout("ocs/qacct.txt"))
    # qacct was asked on a machine that had UTC.
    assert (found["80"].started, found["80"].ended) == pytest.approx((printed.started, printed.ended), abs=1e-5)
    assert list(parse_lines([b"", b"\xff", b"[]", b'{"job_number":"x"}', b"{}"])) == []


def test_on_ocs_the_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SAMPLES / "ocs"
    monkeypatch.setattr(qacct, "_file", lambda: folder / "accounting.jsonl")
    assert len(qacct.read(0)) > 50
    assert [one.job for one in qacct.read(1795346457)] == ["86"]


# --- joined ---


def test_sessions_of_a_job_that_was_started_again_are_one_use() -> None:
    first, again = record("7", length=30, failed=25), record("7", 60, length=12, status=3)
    [use] = jobs([session("7", 59), session("7", -1, tasks=2)], [first, again])
    assert (use.job, use.user, use.name, use.sessions, use.tasks, use.shots) == ("7", "alice", "afm", 2, 3, 300)
    assert (use.qpu_seconds, use.waited_seconds, use.wallclock, use.exit_status) == (3.0, 2.0, 42.0, 3)


def test_tasks_of_an_array_are_one_use_that_is_done_when_all_are() -> None:
    sessions = [session(f"13.{n}", 10 * n) for n in (1, 2, 3)]
    records = [record(f"13.{n}", 10 * n, status=n % 3) for n in (1, 2, 3)]
    [use] = jobs(sessions, records)
    assert (use.job, use.sessions, use.tasks, use.wallclock, use.exit_status) == ("13", 3, 3, 30.0, 2)
    [use] = jobs(sessions, records[:2])
    assert (use.wallclock, use.exit_status) == (20.0, None)


def test_a_job_that_runs_or_whose_record_is_gone_has_no_end() -> None:
    [use] = jobs([session("7", uid=1003)], [])
    assert (use.user, use.name, use.wallclock, use.exit_status) == ("1003", None, None, None)


def test_a_number_that_comes_again_is_another_job() -> None:
    sessions = [session("7"), session("7", 400 * DAY, tasks=5)]
    records = [record("7"), record("7", 400 * DAY, name="other", status=1, submitted=399 * DAY)]
    first, second = jobs(sessions, records)
    assert (first.name, first.tasks, first.exit_status) == ("afm", 1, 0)
    assert (second.name, second.tasks, second.exit_status) == ("other", 5, 1)
    # Also while the second one runs, and in a cell that was made anew within the hour.
    assert [use.exit_status for use in jobs(sessions, records[:1])] == [0, None]
    soon = [record("7"), record("7", 100, submitted=90)]
    assert len(jobs([session("7"), session("7", 100)], soon)) == 2
    # And of another user it is another's, whatever else is known.
    assert len(jobs([session("7"), session("7", 20, uid=1002)], [])) == 2


def test_a_job_that_ocs_sent_back_is_the_same_although_it_has_other_times_of_submission() -> None:
    [use] = jobs(
        [session("7"), session("7", 100)],
        [record("7", failed=25, length=20), record("7", 101, submitted=60)],
    )
    assert (use.sessions, use.wallclock) == (2, 30.0)


def test_no_record_stands_for_two_sessions() -> None:
    # Started again at once, and the record of the second start is not there yet.
    first, second = entries([session("7"), session("7", 12)], [record("7", 1, failed=25)])
    assert first.record is not None
    assert second.record is None


def test_a_record_of_another_time_is_another_job_s() -> None:
    [entry] = entries([session("7")], [record("7", -3 * 3600)])
    assert entry.record is None


# --- summed ---


SESSIONS = [
    # Still February in UTC, March in Paris.
    session("1", -13 * 3600 + 1800, project="physics"),
    session("2", 0, uid=1002, tasks=2),
    session("3", 30 * DAY, project="physics", seconds=7),
    session("4.1", 31 * DAY),
    session("4.2", 31 * DAY),
]


@pytest.mark.parametrize(
    ("by", "rows"),
    [
        ([By.USER], [("alice", 3, 4, 11.5), ("bob", 1, 2, 1.5)]),
        ([By.PROJECT], [("", 2, 4, 4.5), ("physics", 2, 2, 8.5)]),
        ([By.MONTH], [("2026-03", 3, 4, 10.0), ("2026-04", 1, 2, 3.0)]),
        ([By.QPU], [("fresnel", 4, 6, 13.0)]),
    ],
)
def test_sums(by: list[By], rows: list[tuple[object, ...]]) -> None:
    found = summed(entries(SESSIONS, []), by)
    assert [(getattr(use, by[0]), use.jobs, use.tasks, use.qpu_seconds) for use in found] == rows


def test_finer_sums_and_their_total() -> None:
    found = summed(entries(SESSIONS, []), [By.USER, By.MONTH])
    assert [(use.user, use.month, use.jobs, use.sessions) for use in found] == [
        ("alice", "2026-03", 2, 2),
        ("alice", "2026-04", 1, 2),
        ("bob", "2026-03", 1, 1),
    ]
    whole = total(entries(SESSIONS, []))
    assert (whole.jobs, whole.sessions, whole.tasks, whole.qpu_seconds) == (4, 5, 6, 13.0)
    assert sum(use.qpu_seconds for use in found) == whole.qpu_seconds


def test_a_table_has_the_total_at_its_end_and_fits_a_terminal() -> None:
    all_of = entries(SESSIONS, [record("2", 1, owner="bob", name="afm", status=3)])
    for by in ([By.JOB], [By.USER], [By.PROJECT, By.MONTH], [By.USER, By.PROJECT, By.MONTH]):
        lines = as_table(summed(all_of, by), total(all_of), by).splitlines()
        assert lines[-1].startswith("total ")
        assert max(map(len, lines)) <= 80
    assert (
        as_table(summed(all_of, [By.JOB]), total(all_of), [By.JOB])
        == """\
JOB    USER   NAME  TASKS  SHOTS  QPU s  WAITED s  WALLCLOCK s  EXIT
1      alice  -         1    100    1.5       1.0            -     -
2      bob    afm       2    200    1.5       1.0         10.0     3
3      alice  -         1    100    7.0       1.0            -     -
4      alice  -         2    200    3.0       2.0            -     -
total                   6    600   13.0       5.0         10.0     -"""
    )
    assert as_table([], total([]), [By.USER]).splitlines()[-1].startswith("total ")


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_a_name_is_no_formula_in_a_spreadsheet(name: str) -> None:
    uses = jobs([session("7")], [record("7", name=name)])
    [row] = csv.DictReader(io.StringIO(as_csv(uses, [By.JOB]), newline=""))
    assert row["name"] == f"'{name}"
    assert (row["job"], row["qpu_seconds"], row["exit_status"]) == ("7", "1.5", "0")


def test_names_with_quotes_commas_and_line_breaks_stay_one_field() -> None:
    name = 'a,"b"\nc'
    [row] = csv.DictReader(io.StringIO(as_csv(jobs([session("7")], [record("7", name=name)]), [By.JOB]), newline=""))
    assert row["name"] == name


def test_programs_get_what_means_something_in_a_sum() -> None:
    [use] = jobs([session("7", project="physics")], [record("7")])
    assert facts(use, [By.JOB]) == {
        "job": "7", "user": "alice", "name": "afm", "project": "physics", "qpu": "fresnel", "sessions": 1, "tasks": 1,
        "shots": 100, "qpu_seconds": 1.5, "waited_seconds": 1.0, "wallclock": 10.0, "exit_status": 0,
    }  # fmt: skip
    assert "name" not in facts(use, [By.USER])
    assert facts(use, [By.MONTH])["jobs"] == 1


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("2026-03-02", (2026, 3, 2), (2026, 3, 3)),
        ("2026-03", (2026, 3, 1), (2026, 4, 1)),
        ("2026-12", (2026, 12, 1), (2027, 1, 1)),
        # The day on which summer time begins has 23 hours.
        ("2026-03-29", (2026, 3, 29), (2026, 3, 30)),
    ],
)
def test_days_and_months_are_local(text: str, begin: tuple[int, ...], end: tuple[int, ...]) -> None:
    assert _day(text, "--from") == tuple(int(time.mktime((*day, 0, 0, 0, 0, 0, -1))) * SECOND for day in (begin, end))


# --- one job that is over ---


def test_a_job_that_is_over_is_told_in_a_line() -> None:
    one = over([record("7", status=3)])
    assert one is not None
    assert ended(one) == "job 7 (afm) of alice ended at 2026-03-01T12:00:10Z: exit status 3 after 10 s"
    again = over([record("7", failed=25), record("7", 60)])
    assert again is not None
    assert ended(again).endswith("exit status 0 after 20 s; it was started 2 times")
    array = over([record("7.1"), record("7.2", status=2)])
    assert array is not None
    assert ended(array).endswith("2 tasks, the highest exit status 2 after 20 s in all")
    never = over([Record(job="7", owner="alice", name="a\x1bb", failed=25)])
    assert never is not None
    assert (
        ended(never)
        == "job 7 (a b) of alice is over; Grid Engine has no record of a start: `qacct -j 7` says why, as `failed`"
    )
    assert over([]) is None


def test_of_jobs_with_one_number_the_last_is_told() -> None:
    old, new = record("7"), record("7", 50, submitted=40)
    sent_back = Record(job="7", owner="alice", name="afm", submitted=0.0, failed=25)
    assert last_life([old, sent_back, new]) == [new]
    assert last_life([old, record("7.1", 50)]) == [record("7.1", 50)]
    assert last_life([record("7.1"), record("7.2", 20)]) == [record("7.1"), record("7.2", 20)]
    assert accounting.over(last_life([old, new])) == accounting.over([new])
