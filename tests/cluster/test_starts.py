"""A job that is started again: each start has a session of its own, and nothing of an earlier one touches it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grid import MASTER, NODES, WAITS, Grid

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
# Jobs that Grid Engine may start again.
AGAIN = ("-l", "qpu=1", "-r", "y")
RATE = 3
# Longer on the QPU than anything here takes.
LONG = f"exec qpu run /home/alice/afm_ring.json --shots {600 * RATE}\n"


@pytest.fixture(scope="module", autouse=True)
def slow_qpu(lab_grid: Grid) -> Iterator[None]:
    (lab_grid.home() / "afm_ring.json").write_text((EXAMPLES / "afm_ring.json").read_text())
    with lab_grid.configured(shot_rate=str(RATE)):
        lab_grid.restart_warden()
        yield
    lab_grid.restart_warden()


@contextlib.contextmanager
def only(grid: Grid, node: str) -> Iterator[None]:
    """Grid Engine starts jobs on this host alone."""
    others = [f"all.q@{other}" for other in NODES if other != node]
    grid.lab.run(MASTER, ["qmod", "-d", *others])
    try:
        yield
    finally:
        grid.lab.run(MASTER, ["qmod", "-e", *others])


def session_of(grid: Grid, job: str, *, but: str = "") -> dict[str, Any]:
    """The open session of a job, as soon as it has one (other than `but`)."""

    def found() -> list[dict[str, Any]]:
        return [one for one in grid.sessions() if one["job"] == job and one["id"] != but]

    grid.until(f"a session of job {job}", lambda: bool(found()))
    [session] = found()
    return session


def ended(grid: Grid, session: dict[str, Any]) -> dict[str, Any]:
    [found] = [one for one in grid.sessions(ended=True) if one["id"] == session["id"]]
    return found


def statuses(grid: Grid, session: dict[str, Any]) -> list[str]:
    return [task["status"] for task in grid.tasks() if task["session"] == session["id"]]


def folder_is_there(grid: Grid, node: str, job: str) -> bool:
    path = f"/var/spool/gridengine/execd/{node}/active_jobs/{job}.1"
    return grid.lab.run(node, ["test", "-e", path], check=False).returncode == 0


def test_rescheduled_job_has_a_new_session_that_the_late_epilog_of_the_old_one_leaves_alone(grid: Grid) -> None:
    with only(grid, "node1"):
        job = grid.submit(LONG, *AGAIN)
        first = session_of(grid, job)
        grid.until("its task to run", lambda: statuses(grid, first) == ["running"])
        # A host that hangs: the job's end there, and its epilog, come late.
        grid.lab.run("node1", ["pkill", "-STOP", "-x", "sge_shepherd"])
    try:
        with only(grid, "node2"):
            grid.lab.run(MASTER, ["qmod", "-rj", job])
            second = session_of(grid, job, but=first["id"])
        assert (first["host"], second["host"]) == ("node1", "node2")
        assert first["start"] != second["start"]
        assert ended(grid, first)["end_reason"] == "its job was started again"
        assert statuses(grid, first) == ["cancelled"]
        grid.until("its new task to run", lambda: statuses(grid, second) == ["running"])
        assert folder_is_there(grid, "node1", job)
    finally:
        grid.lab.run("node1", ["pkill", "-CONT", "-x", "sge_shepherd"], check=False)
    grid.until("the host to be done with the old start", lambda: not folder_is_there(grid, "node1", job))
    assert [session["id"] for session in grid.sessions()] == [second["id"]]
    assert statuses(grid, second) == ["running"]
    grid.lab.run(MASTER, ["qdel", job])
    grid.until("the new session to end", lambda: not grid.sessions())
    assert ended(grid, second)["end_reason"] == "released"


def test_job_that_lost_its_shepherd_is_started_again_without_waiting_for_a_lease(grid: Grid) -> None:
    job = grid.submit(LONG, *AGAIN, "-l", "hostname=node1")
    first = session_of(grid, job)
    grid.until("its task to run", lambda: statuses(grid, first) == ["running"])
    grid.lab.run("node1", ["pkill", "-KILL", "-x", "sge_shepherd"])
    grid.lab.run("node1", ["pkill", "-KILL", "-u", "alice"], check=False)
    second = session_of(grid, job, but=first["id"])
    assert second["host"] == first["host"] == "node1"
    assert second["start"] != first["start"]
    assert ended(grid, first)["end_reason"] == "its job was started again"
    assert statuses(grid, first) == ["cancelled"]


def test_epilog_knows_the_start_of_its_prolog_whatever_happened_to_the_job_meanwhile(grid: Grid) -> None:
    job = grid.submit(WAITS, *AGAIN)
    session = session_of(grid, job)
    grid.until("the job to run", lambda: grid.runs(job))
    for command in (["qmod", "-sj", job], ["qmod", "-usj", job], ["qalter", "-N", "other", "-ac", "A=1", job]):
        grid.lab.run(MASTER, command)
    grid.until("the job to go on", lambda: grid.state(job) == "r")
    grid.let_go(job)
    assert grid.finish(job)["exit_status"] == "3"
    assert ended(grid, session)["end_reason"] == "released"
