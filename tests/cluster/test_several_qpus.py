"""Two QPUs that every host can reach, each with a Warden and a queue of its own: who gets which, and how many do."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from grid import MASTER, NODES, WAITS, Grid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from labcluster.cluster import Cluster

pytestmark = pytest.mark.site

CONFIG = "/etc/warden/warden.toml"
OTHER = "/etc/warden/emu.toml"
EMU = """
[qpu]
name = "emu"
emulator = "echo"
overhead = 0
loading = 0
shot_rate = 0
[broker]
clients = ["tcp://0.0.0.0:7710"]
workers = ["tcp://0.0.0.0:7711"]
state = "/var/lib/warden/emu"
keys = "/etc/warden/keys/emu"
[client]
endpoint = "tcp://master:7710"
[access]
operators = ["root", "warden"]
"""
ENTRIES = f"""
[[gridengine.qpu]]
queues = ["fresnel.q"]
[[gridengine.qpu]]
config = "{OTHER}"
queues = ["emu.q"]
"""
TELLS = "echo I have $QRMI_JOB_QPU_RESOURCES; qpu status | head -1\n"
ANY, FRESNEL, EMU_ONLY = ("-l", "qpu=1"), ("-l", "qpu=1,qpu_name=fres*"), ("-l", "qpu=1,qpu_name=emu")


@pytest.fixture(scope="module", autouse=True)
def two_qpus(lab_grid: Grid) -> Iterator[None]:
    lab = lab_grid.lab
    lab.run(MASTER, ["qpu-admin", "remove"], timeout=300)
    (lab.etc / "warden" / "emu.toml").write_text(EMU)
    path = lab.etc / "warden" / "warden.toml"
    before = path.read_text()
    path.write_text(before.replace('queues = ["all.q"]\n', "") + ENTRIES)
    for name in ("fresnel.q", "emu.q"):
        text = lab.run(MASTER, ["qconf", "-sq", "all.q"]).stdout.replace("all.q", name, 1)
        lab.run(MASTER, ["sh", "-c", "cat >/tmp/queue && qconf -Aq /tmp/queue"], input=text)
    start(lab)
    try:
        lab.run(MASTER, ["qpu-admin", "apply"])
        restart_execds(lab)
        lab_grid.until("both QPUs to be offered", lambda: offered(lab_grid) == {"fresnel", "emu"})
        yield
    finally:
        lab_grid.free()
        lab.run(MASTER, ["qpu-admin", "remove"], timeout=300)
        for name in ("fresnel.q", "emu.q"):
            lab.run(MASTER, ["qconf", "-dq", name])
        lab.stop(MASTER, "emu-worker")
        lab.stop(MASTER, "emu-broker")
        path.write_text(before)
        lab.run(MASTER, ["qpu-admin", "apply"])
        restart_execds(lab)
        lab_grid.until("the one QPU", lambda: lab_grid.load_values().get("qpu", "").startswith("1"))


def start(lab: Cluster) -> None:
    lab.run(MASTER, ["warden", "keys", "--config", OTHER], user="warden")
    lab.start(MASTER, "emu-broker", ["warden", "serve", "--config", OTHER], user="warden")
    lab.start(MASTER, "emu-worker", ["warden", "worker", "--config", OTHER], user="warden")


def restart_execds(lab: Cluster) -> None:
    for node in lab.hosts[1:]:
        lab.restart_execd(node)


def offered(grid: Grid) -> set[str]:
    """The QPUs with a place that the load sensor reports."""
    shown = grid.lab.run(MASTER, ["qhost", "-h", "node1", "-F", "qpu_fresnel,qpu_emu"]).stdout
    return {name for name in ("fresnel", "emu") if f"gl:qpu_{name}=1" in shown}


def queue_of(grid: Grid, job: str) -> str:
    for line in grid.lab.run(MASTER, ["qstat", "-u", "*"]).stdout.splitlines()[2:]:
        fields = line.split()
        if fields[0] == job and "@" in fields[7]:
            return fields[7].partition("@")[0]
    return ""


def sessions(grid: Grid, config: str) -> set[str]:
    shown = grid.lab.run(MASTER, ["warden", "sessions", "--config", config, "--json"]).stdout
    found: list[dict[str, Any]] = json.loads(shown)
    return {one["job"] for one in found}


def wait_for(grid: Grid, *jobs: str) -> None:
    grid.until("the jobs to run", lambda: all(grid.runs(job) for job in jobs))


def test_each_job_gets_the_qpu_that_it_names_and_speaks_to_that_one(grid: Grid) -> None:
    jobs = {grid.submit(TELLS, *options): name for options, name in ((FRESNEL, "fresnel"), (EMU_ONLY, "emu"))}
    for job, name in jobs.items():
        assert grid.finish(job)["exit_status"] == "0", grid.output(job)
        assert f"I have {name}" in grid.output(job)
        assert name in grid.output(job).splitlines()[1]


def test_jobs_that_name_none_fill_both_and_no_place_is_given_twice(grid: Grid) -> None:
    jobs = [grid.submit(WAITS, *ANY) for _ in range(3)]
    wait_for(grid, *jobs[:2])
    assert {queue_of(grid, job) for job in jobs} == {"fresnel.q", "emu.q", ""}
    assert sessions(grid, CONFIG) | sessions(grid, OTHER) == set(jobs[:2])
    told = grid.lab.run("node1", ["qpu", "why", jobs[2]]).stdout
    assert "all places on fresnel are taken" in told
    assert "all places on emu are taken" in told
    assert "never" not in told
    shown = grid.lab.run("node1", ["qpu", "status"]).stdout
    assert re.findall(r"^QPU: +(\w+)", shown, re.MULTILINE) == ["fresnel", "emu"]
    named = grid.submit(WAITS, *FRESNEL)
    [on_emu] = [job for job in jobs[:2] if queue_of(grid, job) == "emu.q"]
    grid.let_go(on_emu)
    wait_for(grid, jobs[2])
    assert queue_of(grid, jobs[2]) == "emu.q"
    assert grid.state(named) == "qw"
    for job in (*jobs, named):
        grid.let_go(job)
    assert [grid.finish(job)["exit_status"] for job in (*jobs, named)] == ["3"] * 4


def test_a_qpu_that_is_blocked_leaves_its_jobs_to_the_other(grid: Grid) -> None:
    grid.lab.run(MASTER, ["warden", "drain", "--config", CONFIG])
    try:
        grid.until("it to be taken away", lambda: offered(grid) == {"emu"})
        waits, goes = grid.submit(TELLS, *FRESNEL), grid.submit(TELLS, *ANY)
        assert grid.finish(goes)["exit_status"] == "0"
        assert "I have emu" in grid.output(goes)
        assert grid.state(waits) == "qw"
    finally:
        grid.lab.run(MASTER, ["warden", "resume", "--config", CONFIG])
    record = grid.finish(waits)
    assert record["exit_status"] == "0"
    # It was never sent into the block and back.
    assert len(grid.records(waits)) == 1


def test_impossible_requests_are_refused_at_submission_and_other_queues_take_no_such_job(grid: Grid) -> None:
    for request in ("qpu=2", "qpu=1,qpu_name=nobody", "qpu=1,qpu_qubits=1000"):
        assert "no suitable queues" in grid.try_submit("true\n", "-w", "e", "-l", request).stderr
    job = grid.submit("true\n", *ANY, "-q", "all.q")
    grid.until("Grid Engine to say why", lambda: "qpu" in grid.why(job).partition("scheduling info")[2])
    assert grid.state(job) == "qw"


def test_a_window_of_one_is_reserved_in_its_own_queues_alone(grid: Grid) -> None:
    grid.lab.run(MASTER, ["warden", "calibrate", "add", "--in", "10min", "--for", "60s", "--config", OTHER])
    try:
        steps = json.loads(grid.lab.run(MASTER, ["qpu-admin", "reserve", "--json"]).stdout)
        assert [(step["did"], step["qpu"]) for step in steps] == [("reserved", "emu")]
        shown = grid.lab.run(MASTER, ["qrstat", "-ar", str(steps[0]["reservation"])]).stdout
        # All their slots, by the parallel environment that `apply` made.
        assert all(f"emu.q@{node}=2" in shown for node in NODES)
        assert "fresnel.q" not in shown
    finally:
        grid.lab.run(MASTER, ["qpu-admin", "reserve", "--withdraw"])
