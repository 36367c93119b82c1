"""The main job on real Grid Engine: what it gets, what it may not have, and that the QPU is free whatever ends it."""

import itertools
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from grid import MASTER, WAITS, Grid

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QPU = ("-l", "qpu=1")
RATE = 50

# Longer on the QPU than anything here takes: 30 s.
LONG = f"exec qpu run /home/alice/afm_ring.json --shots {30 * RATE}\n"

PYTHON = """exec qpu-python - <<'END'
import json
from pathlib import Path
from warden.client import QuantumResource
with QuantumResource() as qpu:
    counts = qpu.wait(qpu.task_start(Path("/home/alice/afm_ring.json").read_text(), shots=20))
print(json.dumps(counts))
END
"""


@pytest.fixture(scope="module", autouse=True)
def slow_qpu(lab_grid: Grid) -> Iterator[None]:
    """A QPU slow enough for a task to be caught running, and the sequence in everybody's reach."""
    (lab_grid.home() / "afm_ring.json").write_text((EXAMPLES / "afm_ring.json").read_text())
    with lab_grid.configured(shot_rate=str(RATE)):
        lab_grid.restart_warden()
        yield
    lab_grid.restart_warden()


@pytest.fixture(autouse=True)
def offered(grid: Grid) -> None:
    """Grid Engine sees the QPU as it is before anything is tried."""
    grid.until("the QPU to be offered", lambda: grid.load_values().get("qpu_state") == "ready")


def environment(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def holders(grid: Grid) -> list[str]:
    return [session["job"] for session in grid.sessions()]


def running_task(grid: Grid) -> bool:
    return any(task["status"] == "running" for task in grid.tasks())


def run_a_task(grid: Grid, *options: str) -> str:
    """A job of alice's with a long task on the QPU."""
    job = grid.submit(LONG, *QPU, *options)
    grid.until("its task to run", lambda: running_task(grid))
    return job


def test_command_and_script_get_their_counts(grid: Grid) -> None:
    command = grid.submit("exec qpu run /home/alice/afm_ring.json --shots 20 --json\n", *QPU)
    script = grid.submit(PYTHON, *QPU, user="bob")
    assert grid.finish(command)["exit_status"] == "0", grid.output(command)
    assert grid.finish(script)["exit_status"] == "0", grid.output(script, "bob")
    of_command = json.loads(grid.output(command))["counts"]
    of_script = json.loads(grid.output(script, "bob"))
    for counts in (of_command, of_script):
        assert sum(counts.values()) == 20
        assert all(len(state) == 8 for state in counts)
        # The ground state of the ring is antiferromagnetic.
        assert counts.get("01010101", 0) + counts.get("10101010", 0) >= 10


def test_environment_of_a_job_with_the_qpu_and_of_one_without(grid: Grid) -> None:
    job = grid.submit("env\n", *QPU)
    other = grid.submit("env\n")
    grid.finish(job)
    grid.finish(other)
    found = environment(grid.output(job))
    session = next(session for session in grid.sessions(ended=True) if session["job"] == job)
    assert {name: value for name, value in found.items() if "QRMI" in name or "WARDEN" in name} == {
        "QRMI_JOB_QPU_RESOURCES": "fresnel",
        "QRMI_JOB_QPU_TYPES": "pasqal-local",
        "QRMI_JOB_UID": "2001",
        "QRMI_JOB_ID": job,
        "fresnel_QRMI_JOB_ACQUISITION_TOKEN": session["id"],
        "fresnel_QRMI_WARDEN_URL": "http://master:7680",
        "WARDEN_ENDPOINT": "tcp://master:7610",
        "WARDEN_SESSION": session["id"],
    }
    assert not [name for name in environment(grid.output(other)) if "QRMI" in name or "WARDEN" in name]
    assert [session for session in grid.sessions(ended=True) if session["job"] == other] == []


def test_jobs_have_the_qpu_one_after_the_other_and_tasks_of_an_array_too(grid: Grid) -> None:
    script = "echo begin; qpu status >/dev/null; sleep 0.3; echo end\n"
    array = grid.submit(script, *QPU, "-t", "1-3")
    job = grid.submit(script, *QPU, user="bob")
    grid.until("all to end", lambda: not grid.states())
    sessions = [session for session in grid.sessions(ended=True) if session["job"].split(".")[0] in {array, job}]
    assert sorted(session["job"] for session in sessions) == sorted([f"{array}.1", f"{array}.2", f"{array}.3", job])
    sessions.sort(key=lambda session: session["acquired"])
    for earlier, later in itertools.pairwise(sessions):
        assert earlier["ended"] <= later["acquired"]
    assert {session["end_reason"] for session in sessions} == {"released"}
    assert {session["uid"] for session in sessions if session["job"] == job} == {2002}


@pytest.mark.parametrize(
    "options", [("-l", "qpu=2"), ("-l", "qpu=1,qpu_name=other"), ("-l", "qpu=1,qpu_window=999999")]
)
def test_what_can_never_be_is_refused_at_submission(grid: Grid, options: tuple[str, ...]) -> None:
    done = grid.try_submit("true\n", "-w", "e", *options)
    assert done.returncode != 0
    assert grid.states() == {}


def test_job_names_its_qpu(grid: Grid) -> None:
    job = grid.submit("exit 3\n", "-w", "e", "-l", "qpu=1,qpu_name=fresnel")
    assert grid.finish(job)["exit_status"] == "3"


def test_deleted_job_frees_the_qpu_and_its_task_stops(grid: Grid) -> None:
    job = run_a_task(grid)
    waiting = grid.submit(LONG, *QPU)
    behind = grid.submit("exit 3\n", *QPU, user="bob")
    grid.lab.run("node1", ["qdel", waiting], user="alice")
    grid.lab.run("node1", ["qdel", job], user="alice")
    assert grid.finish(behind)["exit_status"] == "3"
    states = {task["session"]: task["status"] for task in grid.tasks()}
    [session] = [session for session in grid.sessions(ended=True) if session["job"] == job]
    assert states[session["id"]] == "cancelled"
    assert waiting not in [session["job"] for session in grid.sessions(ended=True)]


def test_job_out_of_time_frees_the_qpu(grid: Grid) -> None:
    # Of which its task needs some to begin.
    job = run_a_task(grid, "-l", "h_rt=10")
    assert grid.finish(job)["exit_status"].startswith("137 ")
    grid.until("the QPU to be free", lambda: not holders(grid))
    grid.until("the task to be stopped", lambda: not running_task(grid))


def test_job_outlives_its_execution_daemon_and_frees_the_qpu(grid: Grid) -> None:
    job = grid.submit(WAITS, *QPU, "-l", "hostname=node1")
    grid.until("the job to run", lambda: grid.runs(job))
    grid.lab.stop_execd("node1", signal.SIGKILL)
    try:
        assert holders(grid) == [job]
        grid.let_go(job)
        # Without the daemon: the job's shepherd runs the epilog.
        grid.until("the QPU to be free", lambda: not holders(grid))
    finally:
        grid.lab.start_execd("node1")
    assert grid.finish(job)["exit_status"] == "3"


def test_jobs_wait_for_a_calibration_and_go_on_by_themselves(grid: Grid) -> None:
    with grid.calibration():
        grid.until("qhost to show it", lambda: grid.load_values().get("qpu_state") == "calibrating")
        grid.until("no time to be left", lambda: grid.load_values()["qpu_window"].startswith("0"))
        job = grid.submit("exit 3\n", *QPU, "-l", "qpu_window=60")
        grid.until("qstat to say why", lambda: grid.lacks_the_qpu(job))
        said = grid.lab.run("node1", ["qpu", "why", job], user="alice").stdout
        assert "because:          fresnel is blocked: calibrating" in said
    assert grid.finish(job)["exit_status"] == "3"
    assert len(grid.records(job)) == 1


def test_job_that_would_not_fit_before_the_window_waits_and_a_short_one_runs(grid: Grid) -> None:
    with grid.calibration(delay="10min"):
        grid.until("qhost to show it", lambda: float(grid.load_values()["qpu_window"]) < 600)
        long = grid.submit("exit 3\n", *QPU, "-l", "qpu_window=1000")
        short = grid.submit("exit 3\n", *QPU, "-l", "qpu_window=2")
        assert grid.finish(short)["exit_status"] == "3"
        grid.until("qstat to say why", lambda: "qpu_window" in grid.why(long))
    assert grid.finish(long)["exit_status"] == "3"


def test_accounts_of_warden_and_of_grid_engine_agree(grid: Grid) -> None:
    jobs = {
        grid.submit("qpu run /home/alice/afm_ring.json --shots 5\nexit 3\n", *QPU, user=user): user
        for user in ("alice", "bob")
    }
    for job, user in jobs.items():
        record = grid.finish(job)
        assert (record["owner"], record["exit_status"]) == (user, "3")
    account = json.loads(grid.lab.run(MASTER, ["qpu-admin", "acct", "--json"]).stdout)
    found = {use["job"]: (use["user"], use["tasks"], use["shots"], use["exit_status"]) for use in account}
    for job, user in jobs.items():
        assert found[job] == (user, 1, 5, 3)
