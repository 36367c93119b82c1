"""Jobs of two users, one after the other, while each process that they need dies under them, and a whole host stands still."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from grid import MASTER, NODES, Grid

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.site

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# So many jobs of the two are always there while something dies.
JOBS = 10
RATE = 40
# So many shots has a task of each user's; nobody else's counts add up to that.
SHOTS = {"alice": 37, "bob": 41}
UID = {"alice": 2001, "bob": 2002}
# Longer than an execd takes to start its sensor again, also where it does not come up at once (labcluster.cell); a host that
# stands still for longer loses its jobs' sessions.
LEASE = 30
TASKS = 2
# Nothing takes so long, on the busiest machine.
ENOUGH = 300.0


@pytest.fixture(scope="module", autouse=True)
def several_places(lab_grid: Grid) -> Iterator[None]:
    for user in SHOTS:
        (lab_grid.home(user) / "afm_ring.json").write_text((EXAMPLES / "afm_ring.json").read_text())
    with lab_grid.configured(shot_rate=f"{RATE}\nplaces = 3", seed=f"1\n[session]\nlease = {LEASE}"):
        lab_grid.lab.run(MASTER, ["qpu-admin", "apply"])
        lab_grid.restart_warden()
        yield
    lab_grid.lab.run(MASTER, ["qpu-admin", "apply"])
    lab_grid.restart_warden()


def script(user: str) -> str:
    run = f"qpu run /home/{user}/afm_ring.json --shots {SHOTS[user]} || exit 1\n"
    return run * TASKS


def rest(grid: Grid, jobs: dict[str, str]) -> int:
    return len(grid.states().keys() & jobs.keys())


def supply(grid: Grid, jobs: dict[str, str]) -> None:
    """Submit jobs until there are enough; every third may not be started again."""
    for _ in range(JOBS - rest(grid, jobs)):
        number = len(jobs)
        user = ("alice", "bob")[number % 2]
        jobs[grid.submit(script(user), "-l", "qpu=1", "-r", "yn"[number % 3 == 0], user=user)] = user


class Faults:
    """Each needs the system to be at work, and waits for that; each is over when it returns."""

    def __init__(self, grid: Grid, jobs: dict[str, str]) -> None:
        self._grid = grid
        self._jobs = jobs
        self.explained: set[str] = set()
        """Jobs that lost something of theirs, whose end may be another than theirs alone would be."""

    def broker_dies(self) -> None:
        self._until_a_task_runs()
        self._grid.lab.stop_broker(signal.SIGKILL)
        self._grid.lab.start_broker()

    def worker_dies(self) -> None:
        self._until_a_task_runs()
        self._grid.lab.stop_worker(signal.SIGKILL)
        self._grid.lab.start_worker()

    def sensors_die(self) -> None:
        for node in NODES:
            self._grid.lab.run(node, ["pkill", "-KILL", "-f", "load_sensors.qpu"], check=False)

    def execd_dies(self) -> None:
        self._grid.lab.stop_execd("node2", signal.SIGKILL)
        self._grid.lab.start_execd("node2")

    def shepherd_dies(self) -> None:
        self._until_a_task_runs()
        for node in NODES:
            pids = self._grid.lab.run(node, ["pgrep", "-x", "sge_shepherd"], check=False).stdout.split()
            if pids:
                listed = self._grid.lab.run(node, ["sh", "-c", f"readlink /proc/{pids[0]}/cwd"], check=False).stdout
                self.explained.update(re.findall(r"active_jobs/(\d+)\.", listed))
                self._grid.lab.run(node, ["kill", "-KILL", pids[0]], check=False)
                return

    def host_stands_still(self) -> None:
        """For longer than the leases of its jobs."""
        self._grid.until("a job on node3", lambda: bool(self._on("node3")))
        before = rest(self._grid, self._jobs)
        # All but the host's first process, and the one that says it.
        self._grid.lab.run("node3", ["sh", "-c", "kill -STOP -1"])
        try:
            self.explained.update(self._on("node3"))
            self._grid.until("its sessions to end", lambda: not self._on("node3"))
            # The qmaster sends this host jobs, and waits for it, until it has missed it for half a minute.
            self._grid.until("jobs of other hosts to end", lambda: rest(self._grid, self._jobs) < before, limit=ENOUGH)
        finally:
            self._grid.lab.run("node3", ["sh", "-c", "kill -CONT -1"])

    def _on(self, node: str) -> set[str]:
        return {session["job"] for session in self._grid.sessions() if session["host"] == node}

    def _until_a_task_runs(self) -> None:
        self._grid.until(
            "a task to run", lambda: any(task["status"] == "running" for task in self._grid.tasks()), limit=ENOUGH
        )


@pytest.mark.timeout(1200)
def test_jobs_outlive_the_death_of_each_process(grid: Grid) -> None:
    jobs: dict[str, str] = {}
    faults = Faults(grid, jobs)
    for fault in (
        faults.broker_dies,
        faults.worker_dies,
        faults.sensors_die,
        faults.execd_dies,
        faults.shepherd_dies,
        faults.host_stands_still,
        faults.broker_dies,
        faults.worker_dies,
    ):
        supply(grid, jobs)
        before = rest(grid, jobs)
        fault()
        grid.until("jobs to end after it", lambda limit=before: rest(grid, jobs) < limit, limit=ENOUGH)
        assert grid.queues_in_error() == [], fault.__name__
    grid.until("all jobs to end", lambda: not rest(grid, jobs), limit=ENOUGH)
    grid.until("all sessions to end", lambda: grid.sessions() == [], limit=ENOUGH)
    # qacct's record comes a moment after the job's end.
    grid.until("the records", lambda: all(map(grid.records, jobs)))

    tasks = grid.tasks(limit=1000)
    assert all(task["uid"] == UID[jobs[task["job"]]] for task in tasks if task["job"] in jobs)
    endings = {job: ending(grid, job, user, tasks) for job, user in jobs.items()}
    wrong = {job: text for job, text in endings.items() if text and job not in faults.explained}
    assert not wrong, wrong
    assert all(text != "unexplained" for text in endings.values()), endings
    assert sum(not text for text in endings.values()) >= len(jobs) - len(faults.explained)


def ending(grid: Grid, job: str, user: str, tasks: list[dict[str, Any]]) -> str:
    """Empty for a job that did all that it was to do; else what says why it did not."""
    output = grid.output(job, user)
    mine = f"{SHOTS[user]} shots"
    other = next(f"{shots} shots" for name, shots in SHOTS.items() if name != user)
    assert other not in output, output
    records = grid.records(job)
    if output.count(mine) >= TASKS and any(record["exit_status"] == "0" for record in records):
        done = [task for task in tasks if task["job"] == job and task["status"] == "completed"]
        assert len(done) >= TASKS
        assert all(sum(task["counts"].values()) == SHOTS[user] for task in done if task["counts"])
        return ""
    lines = [line for line in output.splitlines() if line.startswith(("Error: ", "qpu"))]
    failed = [record["failed"] for record in records if record["failed"].split()[0] != "0"]
    return "; ".join([*lines, *failed]) or "unexplained"
