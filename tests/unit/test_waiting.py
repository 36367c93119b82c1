"""Who is asked, when, and what is concluded, with a clock that stands still while nobody waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gridengine import waiting
from gridengine.commands import GridEngineError, MissingError, UnreachableError
from gridengine.drmaa_process import GridUnavailableError, JobLostError, WaitTimeoutError
from gridengine.job_info import JobInfo
from gridengine.waiting import Books, Collected, Progress, Waiter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


def info(job: str, status: int = 0) -> JobInfo:
    return JobInfo(id=job, exit_status=status, signal="", aborted=False, wallclock=1.0, resource_usage={})


class Site(Books):
    """Jobs that end at a time; DRMAA that hears of it, or not; accounting that lags."""

    def __init__(self, ends: dict[str, float], lag: float = 0.0) -> None:
        super().__init__()
        self.now = 0.0
        self.ends = ends
        self.lag = lag
        self.unrecorded: set[str] = set()
        self.unknown: set[str] = set()
        self.doubtful: set[str] = set()
        self.deaf = False
        self.down: Exception | None = None
        self.drmaa_down = False
        self.messages: list[tuple[float, str]] = []
        self.collects = 0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        # Nobody may spin.
        self.now += max(seconds, 0.001)
        assert self.now < 100_000, "it waits for ever"

    def live(self, not_older: float = 0.0) -> dict[str, str]:
        assert not_older < 1
        self._asked("qstat")
        letters = {"r": "r", "e": "Eqw"}
        return {job: letters.get(job[0], "qw") for job, end in self.ends.items() if end > self.now}

    def ended(self, numbers: Iterable[str]) -> dict[str, JobInfo]:
        found = {}
        for number in numbers:
            self._asked("qacct")
            found |= {
                job: info(job)
                for job, end in self.ends.items()
                if job.partition(".")[0] == number and end + self.lag <= self.now and job not in self.unrecorded
            }
        return found

    def collect(self, asked: list[str]) -> Collected:
        self.collects += 1
        if self.drmaa_down:
            raise GridUnavailableError("libdrmaa does not answer")
        unknown = self.unknown.intersection(asked)
        told = [] if self.deaf else [job for job in asked if job not in unknown and self.ends[job] <= self.now]
        doubtful = {job: info(job, 99) for job in told if job in self.doubtful}
        return Collected({job: info(job) for job in told if job not in doubtful}, frozenset(unknown), doubtful)

    def renew(self) -> None:
        self.messages.append((self.now, "renew"))
        assert self.deaf
        self.deaf = False
        # A new session learns of those that live, and of no others.
        self.unknown |= {job for job, end in self.ends.items() if end <= self.now}

    def wait(self, timeout: float | None = None, watch: list[Progress] | None = None) -> Iterator[JobInfo]:
        waiter = Waiter(
            self.ends,
            self,
            collect=self.collect,
            renew=self.renew,
            watch=None if watch is None else watch.append,
            clock=self.clock,
            sleep=self.sleep,
        )
        return waiter.completed(timeout)

    def count(self, what: str) -> int:
        return sum(asked == what for _, asked in self.messages)

    def _asked(self, what: str) -> None:
        self.messages.append((self.now, what))
        if self.down is not None:
            raise self.down


def test_jobs_come_as_they_end() -> None:
    site = Site({"1": 30.0, "2": 10.0, "3": 0.0})
    seen = [(job.id, site.now) for job in site.wait()]
    assert [job for job, _ in seen] == ["3", "2", "1"]
    assert all(0 <= at - site.ends[job] <= 1.0 for job, at in seen)


def test_three_hundred_jobs_of_an_hour_cost_the_qmaster_a_message_a_minute() -> None:
    site = Site({str(number): 3600.0 + number for number in range(300)})
    assert len(list(site.wait())) == 300
    assert len(site.messages) <= 3900 / 60 + 5
    assert site.count("qacct") == 0
    assert site.collects <= 3900 + 300 * 10


def test_session_that_saw_the_qmaster_restart_is_renewed_and_the_accounting_tells() -> None:
    site = Site({"1": 5.0, "2": 200.0}, lag=15.0)
    site.deaf = True
    seen = [(job.id, site.now) for job in site.wait()]
    assert [job for job, _ in seen] == ["1", "2"]
    assert seen[0][1] <= 45
    assert site.count("renew") == 1


def test_end_that_drmaa_tells_a_little_later_than_qstat_renews_nothing() -> None:
    site = Site({"1": 9.9})
    collect = site.collect

    def late(asked: list[str]) -> Collected:
        return collect(asked) if site.now > 14 else Collected({}, frozenset())

    site.collect = late  # type: ignore[method-assign]
    assert [job.id for job in site.wait()] == ["1"]
    assert site.count("renew") == 0


def test_what_drmaa_has_forgotten_is_told_by_the_accounting_however_late() -> None:
    site = Site({"1": 0.0, "2": 40.0}, lag=15.0)
    site.unknown = {"1", "2"}
    seen = [(job.id, site.now) for job in site.wait()]
    assert [job for job, _ in seen] == ["1", "2"]
    assert seen[0][1] <= 25
    assert seen[1][1] <= 75


def test_job_without_a_trace_is_believed_deleted_only_if_the_accounting_has_none_either() -> None:
    site = Site({"1": 3.0, "2": 3.0}, lag=15.0)
    site.doubtful = {"1", "2"}
    site.unrecorded = {"2"}
    seen = [(job.id, job.exit_status, site.now) for job in site.wait()]
    assert [(job, status) for job, status, _ in seen] == [("1", 0), ("2", 99)]
    assert seen[0][2] <= 25 <= seen[1][2] <= 40
    site = Site({"2": 3.0})
    site.doubtful = {"2"}
    site.down = MissingError("no qstat")
    assert [job.exit_status for job in site.wait()] == [99]


def test_lost_jobs_do_not_keep_the_others_from_being_told() -> None:
    site = Site({"1": 0.0, "2": 100.0, "3": 0.0})
    site.unknown = site.unrecorded = {"1", "3"}
    seen = []
    with pytest.raises(JobLostError, match=r"nobody knows how 2 jobs \(1, 3\) ended .*qacct -j 1"):
        seen.extend(site.wait())
    assert [job.id for job in seen] == ["2"]


def test_job_is_given_up_only_after_the_accounting_had_its_time() -> None:
    site = Site({"1": 0.0})
    site.unknown = site.unrecorded = {"1"}
    with pytest.raises(JobLostError, match="how job 1 ended"):
        list(site.wait())
    assert waiting.ACCOUNTING_LAG <= site.now <= waiting.ACCOUNTING_LAG + 10


def test_array_is_not_taken_for_one_of_its_tasks() -> None:
    site = Site({"5": 0.0, "5.1": 50.0})
    site.unknown = {"5"}
    with pytest.raises(JobLostError, match="it is an array"):
        list(site.wait())


def test_timeout_says_who_has_not_ended() -> None:
    site = Site({"1": 1.0} | {str(number): 1e9 for number in range(2, 9)})
    seen = []
    with pytest.raises(WaitTimeoutError, match=r"7 jobs have not ended within 60 s \(2, 3, 4, 5, 6, \.\.\.\)"):
        seen.extend(site.wait(60.0))
    assert site.now == pytest.approx(60.0, abs=0.01)
    assert [job.id for job in seen] == ["1"]


def test_qmaster_that_is_down_for_minutes_is_waited_for() -> None:
    site = Site({"1": 200.0})
    site.unknown = {"1"}
    site.down = UnreachableError("the qmaster does not answer")
    watched: list[Progress] = []
    sleep = site.sleep

    def come_back(seconds: float) -> None:
        sleep(seconds)
        if site.now > 400:
            site.down = None

    site.sleep = come_back  # type: ignore[method-assign]
    assert [job.id for job in site.wait(watch=watched)] == ["1"]
    assert "does not answer" in watched[5].trouble
    assert not watched[-1].trouble


def test_qmaster_that_does_not_come_back_is_an_error_after_a_while() -> None:
    site = Site({"1": 1e9})
    site.unknown = {"1"}
    site.down = UnreachableError("the qmaster does not answer")
    with pytest.raises(GridUnavailableError, match="does not answer"):
        list(site.wait())
    assert 600 <= site.now <= 650
    site.now = 0.0
    with pytest.raises(GridUnavailableError):
        list(site.wait(timeout=5.0))


def test_libdrmaa_that_does_not_answer_is_left_alone_and_qstat_and_qacct_do() -> None:
    site = Site({"1": 2000.0})
    site.drmaa_down = True
    assert [job.id for job in site.wait()] == ["1"]
    assert site.collects <= 2100 / 10


def test_host_without_qstat_has_drmaa_alone() -> None:
    site = Site({"1": 100.0, "2": 1.0})
    site.down = MissingError("qstat is not in /usr/bin")
    assert [job.id for job in site.wait()] == ["2", "1"]
    site = Site({"1": 100.0, "2": 1.0})
    site.down = MissingError("qstat is not in /usr/bin")
    site.unknown = {"2"}
    seen = []
    with pytest.raises(JobLostError, match="qstat is not in /usr/bin"):
        seen.extend(site.wait())
    assert [job.id for job in seen] == ["1"]


def test_progress_adds_up() -> None:
    site = Site({"r1": 10.0, "q2": 20.0, "q3": 30.0})
    watched: list[Progress] = []
    list(site.wait(watch=watched))
    assert all(progress.jobs == 3 for progress in watched)
    assert watched[0] == Progress(waiting=2, running=1, ended=0, failed=0)
    assert watched[-1] == Progress(waiting=0, running=0, ended=3, failed=0)


def test_job_in_error_is_said_to_be() -> None:
    site = Site({"1": 10.0, "e2": 50.0})
    watched: list[Progress] = []
    list(site.wait(watch=watched))
    assert watched[0] == Progress(2, 0, 0, 0, trouble="in error: e2 (qpu why e2)")
    assert watched[-1].trouble == ""


def test_qstat_that_fails_does_not_matter_as_long_as_drmaa_tells() -> None:
    site = Site({"1": 3000.0})
    site.down = GridEngineError("qstat: failed receiving gdi request")
    assert [job.id for job in site.wait()] == ["1"]
    site = Site({"1": 3000.0})
    site.unknown = {"1"}
    site.down = GridEngineError("qstat: failed receiving gdi request")
    with pytest.raises(GridUnavailableError, match="failed receiving"):
        list(site.wait())


def test_no_jobs_no_question() -> None:
    site = Site({})
    assert list(site.wait()) == []
    assert not site.messages


def test_arrays_stand_for_their_tasks() -> None:
    site = Site({"7.1": 0.0, "7.2": 50.0, "8": 50.0, "9": 0.0})
    assert site.named(["7", "8", "9", "10", "7.2"]) == ["7.2", "7.1", "8", "9", "10"]
