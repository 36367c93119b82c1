"""Busy is no error: what a block costs that Grid Engine does not see, and that it costs nothing more."""

import contextlib
import time
from collections.abc import Iterator

import faults
import pytest
from grid import MASTER, Grid

pytestmark = pytest.mark.site

QPU = ("-l", "qpu=1")
PAUSE, LONGEST = 2, 6


@pytest.fixture(scope="module", autouse=True)
def blind(lab_grid: Grid) -> Iterator[None]:
    """Load values that nobody corrects, so that Grid Engine starts jobs into a block; and short pauses."""
    settings = {"prolog_wait": "0.3", "retry_pause": str(PAUSE), "retry_longest": str(LONGEST)}
    with lab_grid.configured(**settings), faults.stale_values(lab_grid):
        yield


def starts(grid: Grid, job: str) -> int:
    return len(grid.records(job))


@contextlib.contextmanager
def more_places(grid: Grid, places: int) -> Iterator[None]:
    """More jobs than the QPU has places for may meet the prolog at the same time."""
    grid.lab.run(MASTER, ["qconf", "-mattr", "exechost", "complex_values", f"qpu={places}", "global"])
    try:
        yield
    finally:
        grid.lab.run(MASTER, ["qconf", "-mattr", "exechost", "complex_values", "qpu=1", "global"])


def test_a_block_costs_each_job_a_bounded_number_of_starts_and_none_is_forgotten(grid: Grid) -> None:
    with more_places(grid, 4):
        begun = time.monotonic()
        with faults.drained(grid):
            jobs = [grid.submit("exit 3\n", *QPU, "-ac", "mine=1") for _ in range(6)]
            grid.until("each job to have come twice", lambda: all(starts(grid, job) >= 2 for job in jobs))
            assert grid.queues_in_error() == []
            noted = grid.context(jobs[0])
            assert (noted["mine"], noted["qpu_reason"]) == ("1", "maintenance")
            assert int(noted["qpu_attempts"]) >= 2
        blocked = time.monotonic() - begun
        grid.until("all jobs to be over", lambda: not grid.states())
    for job in jobs:
        assert grid.finish(job)["exit_status"] == "3"
        # Not more often than the shortest pause lets it, and whoever was told to wait has not come at once. When the
        # block is over they take turns, for there is one place.
        assert starts(grid, job) <= (time.monotonic() - begun) / (0.75 * PAUSE) + 2, blocked


def test_job_that_had_the_qpu_begins_to_count_anew(grid: Grid) -> None:
    with faults.busy(grid):
        job = grid.submit("until test -e $HOME/go.$JOB_ID; do sleep 0.1; done\n", *QPU)
        grid.until("it to be noted", lambda: grid.context(job).get("qpu_reason") == "busy")
    grid.until("the job to run", lambda: grid.runs(job))
    assert grid.context(job) == {}
    grid.let_go(job)
    grid.finish(job)


def test_job_that_came_too_often_is_held_with_the_reason_and_tries_again_when_it_is_let(grid: Grid) -> None:
    with grid.configured(retry_pause="1\nattempts = 2"), faults.drained(grid):
        job = grid.submit("exit 3\n", *QPU)
        grid.until("the job to be held", lambda: "E" in grid.state(job))
        assert "held after 2 attempts in vain, the last one because: the QPU fresnel is maintenance" in grid.why(job)
        assert grid.context(job) == {}
        # Now it may come more often: its first attempt stands there until its second only, which is no time to be seen in.
        with grid.configured(attempts="9"):
            grid.lab.run(MASTER, ["qmod", "-cj", job], check=False)
            grid.until("it to try again", lambda: "qpu_attempts" in grid.context(job))
    grid.until("the job to be over", lambda: grid.hasten(job) or not grid.state(job))
    assert grid.finish(job)["exit_status"] == "3"
