"""An hour in which the QPU is blocked and Grid Engine does not see it, met by 50 jobs: what it costs, and what is left.

A lab cluster of its own, with the pauses that a site has by default. The load sensors are stopped while they say that the
QPU is ready, and Grid Engine believes in as many places as there are slots, so it starts jobs into the block as it can;
with sensors that work it would start none. Prints how often the jobs were started, and exits with 1 if a queue instance
went into error, a job was started more often than its pauses let it, or one has not run afterwards. As root.

    python benchmarks/hour_of_block.py [--minutes 60] [--jobs 50]
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "cluster"))
sys.path.append(str(Path(__file__).resolve().parent.parent))

import faults
from grid import MASTER, NODES, Grid

from gridengine.configuration import GridEngineSection
from labcluster.cluster import Cluster
from warden.model import SECOND

USUAL = GridEngineSection()
SHORTEST = 0.75 * USUAL.retry_longest / SECOND
# Between two looks at the queues.
LOOK = 20.0
# A turn of all jobs, once the block is over: pauses, prologs and Grid Engine's own time.
TURN = 1.5 * USUAL.retry_longest / SECOND


def main() -> None:
    parser = argparse.ArgumentParser(description="50 jobs and an hour's block.")
    parser.add_argument("--minutes", type=float, default=60, help="how long the QPU is blocked (60)")
    parser.add_argument("--jobs", type=int, default=50, help="how many jobs wait for it (50)")
    parser.add_argument("--until", action="store_true", help="the block says when it ends (by default nobody knows)")
    arguments = parser.parse_args()
    cluster = Cluster("hour-of-block")
    try:
        cluster.up(len(NODES), say=lambda line: print(f"  {line}", flush=True))
        good = measure(Grid(cluster), arguments.minutes, arguments.jobs, until=arguments.until)
    finally:
        cluster.down()
    sys.exit(0 if good else 1)


def measure(grid: Grid, minutes: float, number: int, *, until: bool) -> bool:
    usual = {"prolog_wait": USUAL.prolog_wait, "retry_pause": USUAL.retry_pause, "retry_longest": USUAL.retry_longest}
    in_error: set[str] = set()
    with grid.configured(**{name: str(value / SECOND) for name, value in usual.items()}), faults.stale_values(grid):
        places = sum(int(total) for total in re.findall(r"\d+/\d+/(\d+)", slots(grid)))
        set_places(grid, places)
        block(grid, minutes if until else None)
        jobs = [grid.submit("exit 3\n", "-l", "qpu=1") for _ in range(number)]
        wait(grid, 60 * minutes, in_error)
        if not until:
            grid.lab.run(MASTER, ["warden", "resume"])
        # From here on there is no more than the QPU has.
        set_places(grid, 1)
        during = starts(grid, jobs)
        wait(grid, TURN + 3 * number, in_error, end=lambda: not grid.states())
        left = grid.states()
    after = starts(grid, jobs)
    finished = [job for job in jobs if any(record["exit_status"] == "3" for record in grid.records(job))]
    most = minutes * 60 / SHORTEST + 5
    print(
        f"\nblock of {minutes:g} min, {number} jobs, {places} slots; {'its end was told' if until else 'no end told'}"
    )
    print(f"starts during the block   {sum(during.values()):6d}   of a job: {spread(during)}")
    print(f"starts in all             {sum(after.values()):6d}   of a job: {spread(after)}, bound {most:.0f}")
    print(f"queue instances in error  {len(in_error):6d}")
    print(f"jobs that have run        {len(finished):6d}   left behind: {', '.join(left) or 'none'}", flush=True)
    return not in_error and not left and len(finished) == number and max(during.values()) <= most


def slots(grid: Grid) -> str:
    return grid.lab.run(MASTER, ["qstat", "-f"]).stdout


def set_places(grid: Grid, places: int) -> None:
    grid.lab.run(MASTER, ["qconf", "-mattr", "exechost", "complex_values", f"qpu={places}", "global"])


def block(grid: Grid, minutes: float | None) -> None:
    duration = [] if minutes is None else ["--for", f"{minutes:g}m"]
    grid.lab.run(MASTER, ["warden", "drain", "--reason", "an hour's block", *duration])


def starts(grid: Grid, jobs: list[str]) -> dict[str, int]:
    """Each start that ended, from the accounting."""
    return {job: len(grid.records(job)) for job in jobs}


def spread(counts: dict[str, int]) -> str:
    return f"{min(counts.values())} to {max(counts.values())}, mean {statistics.mean(counts.values()):.1f}"


def wait(grid: Grid, seconds: float, in_error: set[str], end: object = None) -> None:
    """Look at the queues until the time is over, or it is the end."""
    over = time.monotonic() + seconds
    while (left := over - time.monotonic()) > 0 and not (callable(end) and end()):
        in_error.update(grid.queues_in_error())
        time.sleep(min(LOOK, left))


if __name__ == "__main__":
    try:
        main()
    except (OSError, subprocess.SubprocessError) as error:
        sys.exit(f"hour_of_block: {error}")
