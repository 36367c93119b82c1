"""How a job that finds the QPU busy comes again: not at once, not never, and not all of them together."""

from __future__ import annotations

import heapq
import statistics

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridengine import commands
from gridengine.configuration import GridEngineSection
from gridengine.hooks import retry
from warden import model
from warden.model import SECOND, Availability, State
from warden.sections import Duration

USUAL = GridEngineSection()
HOUR = 3600 * SECOND


def seen(state: State, until: int | None = None, *, time: int = 0) -> Availability:
    return Availability(
        name="fresnel",
        state=state,
        reason="",
        until=until,
        places=1,
        used=0,
        queued=0,
        next_window=None,
        qubits=8,
        time=time,
    )


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (retry.not_now(model.BusyError("x"), seen(State.READY)), "busy"),
        (retry.not_now(model.BusyError("x"), seen(State.CALIBRATING)), "calibrating"),
        (retry.not_now(model.BusyError("x"), seen(State.MAINTENANCE)), "maintenance"),
        (retry.not_now(model.BusyError("x"), seen(State.OFFLINE)), "offline"),
        (retry.NotNowError("x", "window", None), "window"),
        (model.BusyError("x"), "busy"),
        (model.UnavailableError("x"), "unreachable"),
        (model.UnauthenticatedError("x"), "munge"),
        (model.ConfigurationError("x"), "configuration"),
        (commands.UnreachableError("x"), "qmaster"),
        (commands.MissingError("x"), "qmaster"),
        (OSError(28, "full"), "unforeseen"),
    ],
)
def test_reason_is_one_word_that_a_context_can_hold(error: Exception, word: str) -> None:
    assert retry.reason(error) == word
    assert word.isalpha()


def test_what_warden_says_of_a_block_is_a_length_of_time_by_its_own_clock() -> None:
    said = retry.not_now(model.BusyError("closed"), seen(State.CALIBRATING, 70 * SECOND, time=10 * SECOND))
    assert (said.text, said.blocked) == ("closed", 60 * SECOND)
    assert retry.not_now(model.BusyError("closed"), seen(State.OFFLINE)).blocked is None
    # A place that is taken is free again when its job ends, whatever comes later.
    assert retry.not_now(model.BusyError("taken"), seen(State.READY, 70 * SECOND)).blocked is None


@pytest.mark.parametrize(
    ("said", "count"),
    [
        ("", 0),
        ("3", 3),
        ("-3", 0),
        ("3x", 0),
        ("\u0663", 0),
        ("9" * 5000, 0),
        ("1e9", 0),
        ("999999999", 999999999),
    ],
)
def test_count_that_the_jobs_owner_forges_is_a_number_all_the_same(said: str, count: int) -> None:
    assert retry.attempts({"qpu_attempts": said, "mine": "1"}) == count
    assert retry.attempts({}) == 0


@given(
    job=st.integers(1, 10**9).map(str),
    attempt=st.integers(1, 10**6),
    first=st.integers(1, 3600),
    more=st.integers(0, 86400),
    blocked=st.none() | st.integers(-HOUR, 1000 * HOUR),
)
def test_pause_is_never_none_and_never_longer_than_the_longest(
    job: str, attempt: int, first: int, more: int, blocked: int | None
) -> None:
    section = GridEngineSection(retry_pause=Duration(first * SECOND), retry_longest=Duration((first + more) * SECOND))
    pause = retry.pause(job, attempt, section, blocked)
    assert SECOND <= pause <= max(SECOND, section.retry_longest)
    assert pause == retry.pause(job, attempt, section, blocked)
    if blocked is not None and blocked + section.retry_pause <= 0.75 * section.retry_longest:
        assert pause >= blocked


def test_pause_grows_to_the_longest_and_stays_there() -> None:
    pauses = [retry.pause("7", attempt, USUAL) / SECOND for attempt in range(1, 12)]
    expected = [30, 60, 120, 240, 480]
    assert all(0.75 * wanted <= pause <= 1.25 * wanted for pause, wanted in zip(pauses, expected, strict=False))
    assert all(450 <= pause <= 600 for pause in pauses[5:])


@pytest.mark.parametrize("blocked", [None, 60 * SECOND, 10 * HOUR])
def test_jobs_that_were_sent_back_together_come_again_one_by_one(blocked: int | None) -> None:
    pauses = sorted(retry.pause(str(job), 1, USUAL, blocked) / SECOND for job in range(1000, 1050))
    assert len({round(pause) for pause in pauses}) > 12
    spread = pauses[-1] - pauses[0]
    assert spread > 12
    # In no tenth of the time a third of them.
    tenths = [int((pause - pauses[0]) / spread * 9.99) for pause in pauses]
    assert max(tenths.count(tenth) for tenth in range(10)) < 17


class Grid:
    """Jobs of a queue whose load values nobody corrects: each is started as soon as it may be and a place is free."""

    def __init__(self, section: GridEngineSection, *, end: int | None, places: int, says_until: bool) -> None:
        self.section, self.end, self.places, self.says_until = section, end, places, says_until
        self.starts: dict[str, int] = {}
        self.ran: dict[str, int] = {}

    def run(self, jobs: list[str], run_time: int = 10 * SECOND, horizon: int = 3 * HOUR) -> None:
        waiting = [(0, job, 0) for job in jobs]
        free_at = [0] * self.places
        heapq.heapify(waiting)
        heapq.heapify(free_at)
        while waiting:
            eligible, job, attempts = heapq.heappop(waiting)
            start = max(eligible, heapq.heappop(free_at))
            if start > horizon:
                return
            self.starts[job] = self.starts.get(job, 0) + 1
            gives_up = start + self.section.prolog_wait
            if self.end is not None and self.end <= gives_up:
                self.ran[job] = max(start, self.end)
                heapq.heappush(free_at, self.ran[job] + run_time)
                continue
            heapq.heappush(free_at, gives_up)
            blocked = self.end - gives_up if self.says_until and self.end is not None else None
            if attempts + 1 < self.section.attempts:
                again = gives_up + retry.pause(job, attempts + 1, self.section, blocked)
                heapq.heappush(waiting, (again, job, attempts + 1))


@pytest.mark.parametrize("places", [1, 4, 50])
@pytest.mark.parametrize("says_until", [True, False], ids=["until", "nobody knows until when"])
def test_an_hour_long_block_starts_each_of_50_jobs_a_few_times_and_forgets_none(
    places: int, says_until: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [str(number) for number in range(1000, 1050)]
    grid = Grid(USUAL, end=HOUR, places=places, says_until=says_until)
    grid.run(jobs)
    most, all_of_them = max(grid.starts.values()), sum(grid.starts.values())
    with capsys.disabled():
        print(  # noqa: T201 - the measure that people ask for
            f"\n  an hour-long block, 50 jobs, {places} places, {'its end' if says_until else 'no end'} told: "
            f"{all_of_them} starts, at most {most} of a job, mean {statistics.mean(grid.starts.values()):.1f}"
        )
    # One for each longest pause (three quarters of it, at the least), the first and shorter ones, and the one that runs.
    assert most <= (9 if says_until else 13)
    assert set(grid.ran) == set(jobs)
    # None waits longer than its longest pause and the runs of the others.
    latest = HOUR + USUAL.retry_longest + 50 * (10 * SECOND + USUAL.prolog_wait) // places
    assert max(grid.ran.values()) <= latest
    # And the QPU is not left idle meanwhile: somebody comes soon.
    assert min(grid.ran.values()) - HOUR < USUAL.retry_pause * (1 if says_until else 4)


def test_a_block_without_end_holds_each_job_after_its_attempts() -> None:
    section = msgspec.structs.replace(USUAL, attempts=9)
    grid = Grid(section, end=None, places=50, says_until=False)
    grid.run([str(number) for number in range(50)])
    assert set(grid.starts.values()) == {9}
    assert grid.ran == {}
