"""Classes of priority by queue and by project, and that nobody gets into one by what he writes into his job."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grid import MASTER, NODES, WAITS, Grid

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QPU = ("-l", "qpu=1")
RATE = 50
SEQUENCE = "/home/alice/afm_ring.json"

CLASSES = """5
[[class]]
name = "production"
queues = ["prod.q"]
projects = ["physics"]
[[class]]
name = "everybody"
"""

PROJECT = "name physics\noticket 0\nfshare 0\nacl alices\nxacl NONE\n"
MEMBERS = "name alices\ntype ACL\nfshare 0\noticket 0\nentries alice\n"

# Many tasks of 2 s each; the job ends when they have.
FLOOD = f"""exec qpu-python - <<'END'
from pathlib import Path
from warden.client import QuantumResource
with QuantumResource() as qpu:
    sequence = Path("{SEQUENCE}").read_text()
    tasks = [qpu.task_start(sequence, shots={2 * RATE}) for _ in range(NUMBER)]
    for task in tasks:
        qpu.wait(task)
END
"""
ONE = f"exec qpu run {SEQUENCE} --shots 5\n"


@pytest.fixture(scope="module", autouse=True)
def production(lab_grid: Grid) -> Iterator[None]:
    """A second queue and a project whose jobs come first, on a QPU that takes several jobs at the same time."""
    lab = lab_grid.lab
    (lab_grid.home() / "afm_ring.json").write_text((EXAMPLES / "afm_ring.json").read_text())
    queue = lab.run(MASTER, ["qconf", "-sq", "all.q"]).stdout.replace("all.q", "prod.q", 1)
    files = {"-Aq": queue, "-Au": MEMBERS, "-Aprj": PROJECT}
    with lab_grid.configured(
        shot_rate=str(RATE), seed="1\nplaces = 3", queues='["all.q", "prod.q"]', prolog_wait=CLASSES
    ):
        try:
            for option, text in files.items():
                lab.run(MASTER, ["sh", "-c", f"cat >/tmp/given && qconf {option} /tmp/given"], input=text)
            lab.run(MASTER, ["qpu-admin", "apply"])
            lab_grid.restart_warden()
            lab_grid.until("the places", lambda: lab_grid.load_values().get("qpu", "").startswith("3"))
            yield
        finally:
            for options in (["-dq", "prod.q"], ["-dprj", "physics"], ["-dul", "alices"]):
                lab.run(MASTER, ["qconf", *options], check=False)
    lab.run(MASTER, ["qpu-admin", "apply"])
    lab_grid.restart_warden()
    lab_grid.until("the one place", lambda: lab_grid.load_values().get("qpu", "").startswith("1"))


def session_of(grid: Grid, job: str) -> dict[str, Any]:
    [session] = [one for one in grid.sessions(ended=True) if one["job"] == job]
    return session


def tasks_of(grid: Grid, job: str) -> list[dict[str, Any]]:
    """None as long as the job has no session."""
    sessions = {one["id"] for one in grid.sessions(ended=True) if one["job"] == job}
    return [task for task in grid.tasks() if task["session"] in sessions]


def flood_with(grid: Grid, number: int, user: str) -> str:
    """A job with so many tasks on the QPU or before it."""
    job = grid.submit(FLOOD.replace("NUMBER", str(number)), *QPU, "-q", "all.q", user=user)
    grid.until("the flood", lambda: len(tasks_of(grid, job)) == number)
    return job


def begun_between(grid: Grid, job: str, task: dict[str, Any]) -> list[int]:
    """The job's tasks that the QPU took on while `task` waited."""
    return [one["id"] for one in tasks_of(grid, job) if task["submitted"] < (one["started"] or 0) < task["started"]]


@pytest.mark.parametrize(
    ("options", "queue", "project"),
    [(("-q", "prod.q"), "prod.q", ""), (("-q", "all.q", "-P", "physics"), "all.q", "physics")],
    ids=["by queue", "by project"],
)
def test_task_of_production_is_next_whoever_floods_the_qpu(
    grid: Grid, options: tuple[str, ...], queue: str, project: str
) -> None:
    flood = flood_with(grid, 20, "bob")
    urgent = grid.submit(ONE, *QPU, *options)
    assert grid.finish(urgent)["exit_status"] == "0", grid.output(urgent)
    session = session_of(grid, urgent)
    assert (session["queue"], session["project"]) == (queue, project)
    [task] = tasks_of(grid, urgent)
    assert begun_between(grid, flood, task) == []
    # There was somebody to get ahead of.
    assert "queued" in {one["status"] for one in tasks_of(grid, flood)}


def test_task_of_no_such_class_waits_for_its_turn(grid: Grid) -> None:
    # For 16 s: the other one's task has to come before the last of them begins.
    flood = flood_with(grid, 8, "alice")
    other = grid.submit(ONE, *QPU, "-q", "all.q", user="alice")
    assert grid.finish(other)["exit_status"] == "0", grid.output(other)
    [task] = tasks_of(grid, other)
    assert begun_between(grid, flood, task) != []


FORGED = "x\nqueue=prod.q\nacct_project=physics\nhost=evil\nx"


@pytest.mark.parametrize(
    "options",
    [
        ("-o", f"/home/bob/{FORGED}"),
        ("-o", "/dev/null", "-M", FORGED),
        ("-o", "/dev/null", "-v", "QUEUE=prod.q,acct_project=physics,SGE_PROJECT=physics"),
        ("-o", "/dev/null", "-v", "X=a\nQUEUE=prod.q\nacct_project=physics"),
        ("-o", "/dev/null", "-ac", "QUEUE=prod.q,acct_project=physics"),
    ],
    ids=["path", "mail", "variables", "variable with line breaks", "context"],
)
def test_no_job_gets_into_a_class_by_what_it_says_of_itself(grid: Grid, options: tuple[str, ...]) -> None:
    job = grid.submit(WAITS, *QPU, "-q", "all.q", *options, user="bob")
    grid.until("the job to run", lambda: grid.runs(job))
    assert (session_of(grid, job)["queue"], session_of(grid, job)["project"]) == ("all.q", "")
    grid.let_go(job, "bob")
    assert grid.finish(job)["exit_status"] == "3"


def test_no_job_gets_into_a_class_by_its_arguments(grid: Grid) -> None:
    (grid.home("bob") / "waits.sh").write_text(WAITS)
    job = grid.submit("", *QPU, "-q", "all.q", "-o", f"/home/bob/{FORGED}", "/home/bob/waits.sh", FORGED, user="bob")
    grid.until("the job to run", lambda: grid.runs(job))
    assert (session_of(grid, job)["queue"], session_of(grid, job)["project"]) == ("all.q", "")
    grid.let_go(job, "bob")
    assert grid.finish(job)["exit_status"] == "3"


@pytest.mark.parametrize(
    "options", [("-N", FORGED), ("-A", FORGED), ("-P", "physics"), ("-P", FORGED)], ids=["name", "account", "p", "P"]
)
def test_what_grid_engine_itself_refuses(grid: Grid, options: tuple[str, ...]) -> None:
    assert grid.try_submit("true\n", *QPU, *options, user="bob").returncode != 0


@pytest.mark.parametrize("output", ["/tmp/out", "/tmp/x\njob_owner=alice\nx"], ids=["argument", "argument and path"])
@pytest.mark.parametrize("asks", [QPU, ()], ids=["for the QPU", "for nothing"])
def test_job_that_passes_itself_off_as_another_users_does_not_run(
    grid: Grid, asks: tuple[str, ...], output: str
) -> None:
    # SGE 8.1.9 takes the last line for its own and would run the job as alice.
    (grid.home("bob") / "whoami.sh").write_text("id -un >/tmp/ran-as\n")
    job = grid.submit("", *asks, "-o", output, "/home/bob/whoami.sh", "x\njob_owner=alice\nx", user="bob")
    grid.until("the job to be in error", lambda: grid.state(job) == "Eqw")
    assert f"job {job} is bob's and was about to run as alice" in grid.why(job)
    assert [one for one in grid.sessions(ended=True) if one["job"] == job] == []
    assert all(grid.lab.run(node, ["test", "-e", "/tmp/ran-as"], check=False).returncode for node in NODES)
