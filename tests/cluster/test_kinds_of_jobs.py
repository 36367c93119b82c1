"""All kinds of jobs that Grid Engine knows: each start of each task has one session, its own, and gives it back."""

import contextlib
import re
import signal
from collections.abc import Iterator

import pytest
from grid import MASTER, NODES, WAITS, Grid

QPU = ("-l", "qpu=1")
# A job's session, and the name that it goes by there.
TELLS = 'echo "$SGE_TASK_ID $QRMI_JOB_ID $WARDEN_SESSION"\n'

PE = """pe_name            {name}
slots              8
user_lists         NONE
xuser_lists        NONE
start_proc_args    NONE
stop_proc_args     NONE
allocation_rule    1
control_slaves     TRUE
job_is_first_task  TRUE
urgency_slots      min
accounting_summary FALSE
qsort_args         NONE
"""

CKPT = """ckpt_name          {name}
interface          userdefined
ckpt_command       NONE
migr_command       NONE
restart_command    NONE
clean_command      NONE
ckpt_dir           /tmp
signal             NONE
when               sx
"""


@contextlib.contextmanager
def environment_of_queue(grid: Grid, kind: str, text: str) -> Iterator[None]:
    """A parallel or checkpointing environment, and the queue that has it."""
    name, attribute = f"qpu_{kind}", "pe_list" if kind == "p" else "ckpt_list"
    (grid.home("root") / kind).write_text(text.format(name=name))
    grid.lab.run(MASTER, ["qconf", f"-A{kind}", f"/home/root/{kind}"])
    grid.lab.run(MASTER, ["qconf", "-aattr", "queue", attribute, name, "all.q"])
    try:
        yield
    finally:
        grid.free()
        grid.lab.run(MASTER, ["qconf", "-dattr", "queue", attribute, name, "all.q"])
        grid.lab.run(MASTER, ["qconf", f"-d{kind}", name])


def sessions_of(grid: Grid, job: str) -> list[dict[str, str]]:
    listed = grid.sessions(ended=True)
    return [session for session in listed if session["job"].partition(".")[0] == job]


def test_each_task_of_an_array_has_a_session_of_its_own(grid: Grid) -> None:
    first, last = 1, 20
    done = grid.try_submit(TELLS, *QPU, "-t", f"{first}-{last}", "-o", "/home/alice/array.$TASK_ID")
    job = done.stdout.split(".")[0]
    grid.until("the array to be over", lambda: not grid.state(job), limit=300)
    told = [(grid.home() / f"array.{task}").read_text().split() for task in range(first, last + 1)]
    assert [(task, name) for task, name, _ in told] == [(str(n), f"{job}.{n}") for n in range(first, last + 1)]
    # None was another's, and Warden says the same.
    kept = {session["job"]: session["id"] for session in sessions_of(grid, job)}
    assert {name: session for _, name, session in told} == kept
    assert len(set(kept.values())) == last - first + 1
    assert grid.sessions() == []


def test_parallel_job_has_one_session_at_its_master(grid: Grid) -> None:
    with environment_of_queue(grid, "p", PE):
        job = grid.submit(TELLS + "cat $PE_HOSTFILE\n" + WAITS, *QPU, "-pe", "qpu_p", str(len(NODES)))
        grid.until("the job to run", lambda: grid.runs(job))
        (session,) = grid.sessions()
        # One place for the job, whatever its slots, and a session on the host where its script runs.
        assert session["job"] == job
        hosts = re.findall(r"^(node\d) 1 ", grid.output(job), re.MULTILINE)
        assert sorted(hosts) == sorted(NODES)
        assert session["host"].partition(".")[0] == hosts[0]
        assert session["id"] in grid.output(job)
        grid.let_go(job)
        assert grid.finish(job)["exit_status"] == "3"
        assert len(sessions_of(grid, job)) == 1


def test_job_that_waits_for_another_gets_its_session_when_that_one_has_given_its_own_back(grid: Grid) -> None:
    first = grid.submit(TELLS + WAITS, *QPU)
    second = grid.submit(TELLS + "exit 3\n", *QPU, "-hold_jid", first)
    grid.until("the first to run", lambda: grid.runs(first))
    assert grid.state(second) == "hqw"
    grid.let_go(first)
    assert grid.finish(second)["exit_status"] == "3"
    (before,), (after,) = sessions_of(grid, first), sessions_of(grid, second)
    assert before["ended"] <= after["acquired"]


@pytest.mark.parametrize("how", ["qmod -rj", "execd killed"])
def test_job_that_is_started_again_gets_a_new_session(grid: Grid, how: str) -> None:
    job = grid.submit(TELLS + WAITS, *QPU, "-r", "y")
    grid.until("the job to run", lambda: grid.runs(job))
    (first,) = grid.sessions()
    if how == "execd killed":
        # Grid Engine does not start it there again before long, so another host it is.
        grid.lab.stop_execd(first["host"], signal.SIGKILL)
        grid.lab.start_execd(first["host"])
    grid.lab.run(MASTER, ["qmod", "-rj", job], check=False)
    grid.until("it to have a new session", lambda: {one["id"] for one in grid.sessions()} - {first["id"]} != set())
    grid.until("the job to run again", lambda: grid.runs(job))
    (second,) = grid.sessions()
    assert (second["job"], second["id"] != first["id"]) == (job, True)
    grid.let_go(job)
    grid.until("the job to be over", lambda: not grid.state(job))
    assert grid.output(job).split()[2::3][:2] == [first["id"], second["id"]]
    assert grid.sessions() == []


def test_job_that_is_moved_from_its_checkpoint_gets_a_new_session(grid: Grid) -> None:
    with environment_of_queue(grid, "ckpt", CKPT):
        job = grid.submit(TELLS + WAITS, *QPU, "-ckpt", "qpu_ckpt")
        grid.until("the job to run", lambda: grid.runs(job))
        (first,) = grid.sessions()
        # With `when s` a job that is suspended leaves its host.
        grid.lab.run(MASTER, ["qmod", "-sj", job], check=False)
        grid.until("it to have left", lambda: first["id"] not in [one["id"] for one in grid.sessions()])
        grid.lab.run(MASTER, ["qmod", "-usj", job], check=False)
        grid.until("the job to run again", lambda: bool(grid.sessions()) and grid.runs(job))
        (second,) = grid.sessions()
        assert second["id"] != first["id"]
        grid.let_go(job)
        grid.until("the job to be over", lambda: not grid.state(job))
        assert grid.output(job).split()[2::3][:2] == [first["id"], second["id"]]
