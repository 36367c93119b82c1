"""The load sensor on real Grid Engine: what qhost shows, whatever happens to the QPU; and the leases of living jobs."""

import contextlib
import datetime as dt
import json
import signal
import time
from collections.abc import Callable, Iterator

import faults
import pytest
from grid import MASTER, NODES, WAITS, Grid

pytestmark = pytest.mark.site

# Longer than a host may take from one renewal to the next, on the busiest machine.
LEASE = 15
# Seconds in which each host reports several times.
STEADY = 15
NOTHING = {"qpu": "0.000000", "qpu_state": "offline", "qpu_window": "0.000000", "qpu_qubits": "0.000000"}
OFFERED = {
    "qpu": "1.000000",
    "qpu_state": "ready",
    "qpu_window": "604800.000000",
    "qpu_qubits": "14.000000",
}
MAINTENANCE = {"qpu": "0.000000", "qpu_state": "maintenance", "qpu_window": "0.000000", "qpu_qubits": "14.000000"}


@pytest.fixture(scope="module", autouse=True)
def short_lease(lab_grid: Grid) -> Iterator[None]:
    with lab_grid.configured(seed=f"1\n[session]\nlease = {LEASE}"):
        lab_grid.restart_warden()
        yield
    lab_grid.restart_warden()


@pytest.fixture(autouse=True)
def offered(grid: Grid) -> None:
    grid.until("the QPU to be offered", lambda: shows(grid, "ready"))


def shows(grid: Grid, state: str) -> bool:
    return grid.load_values().get("qpu_state") == state


def test_qhost_follows_drain_and_resume(grid: Grid) -> None:
    with faults.drained(grid):
        grid.until("qhost to show it", lambda: grid.load_values() == MAINTENANCE)
    grid.until("qhost to show the end of it", lambda: shows(grid, "ready"))
    grid.until("qhost to offer its place", lambda: grid.load_values()["qpu"] == "1.000000")


def test_qhost_says_nothing_of_the_places_that_a_job_has_taken(grid: Grid) -> None:
    job = grid.submit(WAITS, "-l", "qpu=1")
    grid.until("the job to run", lambda: grid.runs(job))
    grid.until("qhost to show that", lambda: grid.load_values()["qpu"] == "0.000000" and shows(grid, "ready"))
    grid.let_go(job)
    grid.finish(job)


def test_lost_worker_is_offline_until_there_is_another(grid: Grid) -> None:
    grid.lab.stop_worker(signal.SIGKILL)
    try:
        grid.until("qhost to show it", lambda: shows(grid, "offline") and grid.load_values()["qpu"] == "0.000000")
    finally:
        grid.lab.start_worker()
    grid.until("qhost to show the new one", lambda: shows(grid, "ready"))


def test_killed_broker_is_offline_and_a_job_waits_for_the_next(grid: Grid) -> None:
    grid.lab.stop_broker(signal.SIGKILL)
    try:
        grid.until("qhost to show it", lambda: grid.load_values() == NOTHING)
        job = grid.submit("exit 3\n", "-l", "qpu=1")
        grid.until("qstat to say why", lambda: grid.lacks_the_qpu(job))
    finally:
        grid.lab.start_broker()
    assert grid.finish(job)["exit_status"] == "3"


# Who reports, and when it was last heard.
REPORTS = "import warden.client as c; print(*(f'{h.host}@{h.seen}' for h in c.Client().hosts() if h.reporter))"


def reporter_knows(grid: Grid) -> None:
    """A new broker names a host that reports, which has to hear of it: nobody says `offline` who was not told."""
    heard: set[str] = set()

    def heard_often() -> bool:
        heard.update(grid.lab.run(MASTER, ["qpu-python", "-c", REPORTS]).stdout.split())
        return len(heard) > 3

    grid.until("the host that reports to know it", heard_often)


def test_hanging_broker_is_offline(grid: Grid) -> None:
    # The test before may have left a broker that is just up.
    reporter_knows(grid)
    with faults.broker_hangs(grid):
        grid.until("qhost to show it", lambda: grid.load_values() == NOTHING)
    grid.until("qhost to show the end of it", lambda: shows(grid, "ready"))


@pytest.mark.parametrize("fault", [faults.cut_off, faults.execd_hangs])
def test_another_host_reports_when_the_reporter_falls_silent(
    grid: Grid, fault: Callable[[Grid, str], contextlib.AbstractContextManager[None]]
) -> None:
    grid.until("a reporter", lambda: grid.reporter() != "")
    first = grid.reporter()
    with fault(grid, first):
        grid.until("another one", lambda: grid.reporter() not in {"", first})
        # Whatever the first one said when it was cut off.
        grid.until("the QPU to be offered", lambda: grid.load_values() == OFFERED)
        with faults.drained(grid):
            grid.until("qhost to show it", lambda: grid.load_values() == MAINTENANCE)
        grid.until("qhost to show the end of it", lambda: grid.load_values() == OFFERED)
    # And back: its values look unchanged to its execd.
    with contextlib.ExitStack() as stack:
        for node in set(NODES) - {first}:
            stack.enter_context(fault(grid, node))
        grid.until("the first one", lambda: grid.reporter() == first)
        grid.until("the QPU to be offered", lambda: grid.load_values() == OFFERED)


def test_no_job_is_started_into_a_window_and_none_is_kept_back_after_it(grid: Grid) -> None:
    grid.lab.run(MASTER, ["warden", "calibrate", "add", "--in", "12s", "--for", "12s"])
    [window] = json.loads(grid.lab.run(MASTER, ["warden", "calibrate", "plan", "--json"]).stdout)["windows"]
    start, end = (dt.datetime.fromisoformat(window[edge]).timestamp() for edge in ("start", "end"))
    # One after the other, and so many that they last until the window and beyond.
    jobs = [grid.submit("sleep 1; exit 3\n", "-l", "qpu=1") for _ in range(14)]
    for job in jobs:
        assert grid.finish(job)["exit_status"] == "3"
        # A prolog that sent it back would have left a record of its own.
        assert len(grid.records(job)) == 1
    begun = sorted(one["acquired"] / 1e6 for one in grid.sessions(ended=True) if one["job"] in jobs)
    before, after = [time for time in begun if time < start], [time for time in begun if time >= end]
    assert len(before) + len(after) == len(jobs)
    assert before
    # The next report, the scheduler's next run, and the job's own way there; and what a busy machine adds.
    assert after[0] < end + 4 * grid.report_interval() + 20


def stopped(grid: Grid, job: str) -> bool:
    """Suspend it, again if need be, for Grid Engine says so before the job's host has done it."""
    grid.lab.run(MASTER, ["qmod", "-f", "-sj", job])
    shown = [grid.lab.run(node, ["ps", "-eo", "stat,args"]).stdout.splitlines() for node in NODES]
    return any(line.startswith("T") and line.endswith(f"job_scripts/{job}") for lines in shown for line in lines)


def test_a_suspended_job_s_tasks_have_no_turn(grid: Grid) -> None:
    job = grid.submit(WAITS, "-l", "qpu=1")
    grid.until("the job to run", lambda: grid.runs(job))
    grid.until("Grid Engine to stop it", lambda: stopped(grid, job))
    grid.until("Warden to know it", lambda: grid.sessions()[0]["suspended"] in NODES)
    grid.lab.run(MASTER, ["qmod", "-usj", job])
    grid.until("Warden to know that it goes on", lambda: grid.sessions()[0]["suspended"] == "")
    grid.let_go(job)
    grid.finish(job)


def test_hosts_without_munge_do_not_hide_the_qpu(grid: Grid) -> None:
    with faults.munge_hangs(grid):
        # A new broker knows none of the sensors, and they cannot say who they are. The availability is everybody's.
        grid.restart_warden()
        # A host's report of the broker's absence may come after another's of its return; several reports agree then.
        since = time.monotonic()

        def for_several_reports() -> bool:
            nonlocal since
            if not shows(grid, "ready"):
                since = time.monotonic()
            return time.monotonic() - since > STEADY

        grid.until("the QPU to be offered through several reports", for_several_reports, limit=300)


def test_living_job_keeps_its_session_beyond_its_lease(grid: Grid) -> None:
    job = grid.submit(WAITS, "-l", "qpu=1")
    grid.until("the job to run", lambda: grid.runs(job))
    [session] = grid.sessions()
    first = session["expires"]
    grid.until("a renewal", lambda: grid.sessions()[0]["expires"] > first + LEASE * 1_000_000)
    grid.let_go(job)
    grid.finish(job)
    assert grid.sessions() == []


def test_job_that_is_gone_without_an_epilog_frees_the_qpu_when_its_lease_ends(grid: Grid) -> None:
    job = grid.submit(WAITS, "-l", "qpu=1,hostname=node1")
    grid.until("the job to run", lambda: grid.runs(job))
    grid.lab.run("node1", ["pkill", "-KILL", "-x", "sge_shepherd"])
    grid.lab.run("node1", ["pkill", "-KILL", "-u", "alice"], check=False)
    grid.until("Grid Engine to miss it", lambda: not grid.state(job))
    # Grid Engine gives the place away at once; the next job's prolog waits for the lease.
    following = grid.submit("exit 3\n", "-l", "qpu=1,hostname=node2")
    assert grid.finish(following)["exit_status"] == "3"
    [session] = [session for session in grid.sessions(ended=True) if session["job"] == job]
    assert session["end_reason"] != "released"
    assert session["ended"] >= session["expires"]
