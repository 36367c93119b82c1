"""Prolog and epilog on real Grid Engine, while everything that they need fails: no queue ever goes into error."""

import re
from collections.abc import Iterator
from pathlib import Path

import faults
import pytest
from faults import FAULTS, HOOK_LIMIT, PASSING, Fault
from grid import MASTER, NODES, WAITS, Grid

QPU = ("-l", "qpu=1")


@pytest.fixture(scope="module", autouse=True)
def stale(lab_grid: Grid) -> Iterator[None]:
    """Load values that nobody corrects, so that jobs meet the hooks whatever Warden does; and impatient hooks."""
    with lab_grid.configured(prolog_wait=f"0.3\nhook_limit = {HOOK_LIMIT}"), faults.stale_values(lab_grid):
        yield


@pytest.mark.parametrize("fault", FAULTS + PASSING, ids=lambda fault: fault.name)
def test_job_waits_for_the_end_of_what_its_prolog_meets_and_then_runs(grid: Grid, fault: Fault) -> None:
    with fault.breaks(grid):
        job = grid.submit("exit 3\n", *QPU)
        # Twice what a hook may take, and what Grid Engine needs around them.
        grid.until("the job to be back in the queue", lambda: "R" in grid.state(job), limit=2 * HOOK_LIMIT + 60)
        assert fault.says in grid.output(job)
        assert grid.queues_in_error() == []

    def over() -> bool:
        # Where the hook could not read how long to leave it alone, it is half a minute.
        grid.hasten(job)
        return not grid.state(job)

    grid.until("the job to be over", over)
    record = grid.finish(job)
    assert (record["failed"], record["exit_status"]) == ("0", "3")


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault.in_epilog], ids=lambda fault: fault.name)
def test_job_ends_well_whatever_its_epilog_meets(grid: Grid, fault: Fault) -> None:
    job = grid.submit(WAITS, *QPU)
    grid.until("the job to run", lambda: grid.runs(job))
    assert [session["job"] for session in grid.sessions()] == [job]
    with fault.breaks(grid):
        grid.let_go(job)
        record = grid.finish(job)
        assert grid.queues_in_error() == []
    assert (record["failed"], record["exit_status"], len(grid.records(job))) == ("0", "3", 1)
    # What the epilog could not release is left to the lease.
    assert {session["job"] for session in grid.sessions()} <= {job}


def test_job_of_a_user_who_may_not_says_why_and_waits_for_an_admin(grid: Grid) -> None:
    with faults.impostor(grid, "forbids"):
        job = grid.submit("exit 3\n", *QPU)
        grid.until("the job to be in error", lambda: grid.state(job) == "Eqw")
        assert "this user may not use this QPU: ask its operator" in grid.why(job)
    grid.lab.run(MASTER, ["qmod", "-cj", job], check=False)
    assert grid.finish(job)["exit_status"] == "3"


def test_job_that_asked_for_nothing_never_meets_warden(grid: Grid) -> None:
    with faults.stranger(grid):
        job = grid.submit("env; exit 3\n", "-l", "hostname=node1")
        assert grid.finish(job)["exit_status"] == "3"
        assert grid.lab.log(MASTER, "impostor").read_text() == ""
    assert "WARDEN" not in grid.output(job)
    assert "QRMI" not in grid.output(job)


def test_job_that_asked_for_nothing_runs_whatever_is_broken(grid: Grid) -> None:
    with faults.hidden(grid, "/etc/warden"), faults.munge_down(grid, "node1"):
        job = grid.submit("exit 3\n", "-l", "hostname=node1")
        assert grid.finish(job)["exit_status"] == "3"
    assert "qpu-" not in grid.output(job)


def test_job_deleted_during_its_prolog_leaves_no_session(grid: Grid) -> None:
    with faults.broker_hangs(grid):
        job = grid.submit("exit 3\n", *QPU)
        grid.until("its prolog", lambda: any("prolog" in line for node in NODES for line in grid.hooks(node)))
        grid.lab.run(MASTER, ["qdel", job])
        grid.until("the job to be gone", lambda: not grid.state(job))
    assert grid.sessions() == []


def test_hooks_end_when_the_qmaster_does_not_answer(grid: Grid) -> None:
    job = grid.submit(WAITS, *QPU)
    grid.until("the job to run", lambda: grid.runs(job))
    with faults.qmaster_hangs(grid):
        grid.let_go(job)
        # The epilog does not need the qmaster.
        grid.until("the session to end", lambda: grid.sessions() == [])
    assert grid.finish(job)["exit_status"] == "3"


PROBE = """#!/bin/sh
{{ for word; do echo "[$word]"; done; id; pwd; umask; ulimit -a
grep -E "^(Uid|Gid|Groups|SigIgn|Cap|NoNewPrivs)" /proc/self/status; tr '\\0' '\\n' </proc/$$/environ | sort; }} > {file}
exit 0
"""


@pytest.mark.parametrize("who", ["root@", "sgeadmin@", ""], ids=["root", "another user", "the job's owner"])
def test_prolog_that_was_there_before_ours_finds_what_it_has_always_found(grid: Grid, who: str) -> None:
    folder = grid.home("root")
    folder.chmod(0o755)
    seen: list[str] = []
    ours = grid.hook("prolog")
    try:
        for before, behind in (
            ("", ""),
            (f"root@{grid.lab.kit}/bin/qpu-chain prolog 4 ", f" {ours.partition(' ')[2]}"),
        ):
            found = Path(f"/tmp/probe-{len(seen)}")
            (folder / "probe").write_text(PROBE.format(file=found))
            (folder / "probe").chmod(0o755)
            grid.set_hook("prolog", f"{before}{who}/home/root/probe $queue 'a b'{behind}")
            hostile = "FOO=b a r,LOCPATH=/x,IFS=x,PYTHONPATH=/tmp,LD_LIBRARY_PATH=/tmp"
            job = grid.submit("exit 3\n", *QPU, "-l", "hostname=node1", "-v", hostile)
            assert grid.finish(job)["exit_status"] == "3"
            text = grid.lab.run("node1", ["sh", "-c", f"cat {found}; rm -f {found}"]).stdout
            seen.append(re.sub(rf"(JOB_ID=|/){job}\b", r"\1JOB", text))
    finally:
        grid.set_hook("prolog", ours)
    assert "['a]\n[b']\n" in seen[0]
    assert "FOO=b a r\n" in seen[0]
    assert seen[0] == seen[1]


@pytest.mark.parametrize("chained", [False, True])
@pytest.mark.parametrize("forged", ["alice -- root@EVIL", "alice prolog 1 root@EVIL 1 0 bob node1"])
def test_words_that_a_job_puts_into_those_of_a_hook_are_not_run(grid: Grid, forged: str, *, chained: bool) -> None:
    evil = grid.home("bob") / "evil"
    evil.write_text("#!/bin/sh\nid >/tmp/sprung\n")
    evil.chmod(0o755)
    ours = grid.hook("prolog")
    if chained:
        words = ours.partition(" ")[2]
        grid.set_hook("prolog", f"root@{grid.lab.kit}/bin/qpu-chain prolog 2 root@/bin/true x {words}")
    # On SGE 8.1.9 an argument with a line break is another line of what the shepherd fills words in from.
    host = f"x\nhost={forged.replace('EVIL', '/home/bob/evil')}"
    options = ["-b", "y", *QPU, "-l", "hostname=node1", "-o", "/dev/null", "-j", "y"]
    try:
        job = grid.lab.run("node1", ["qsub", "-terse", *options, "/bin/true", host], user="bob").stdout.strip()
        grid.until("the job to be in the queue again", lambda: "R" in grid.state(job))
        assert grid.queues_in_error() == []
    finally:
        grid.set_hook("prolog", ours)
        grid.free()
    assert grid.lab.run("node1", ["test", "-e", "/tmp/sprung"], check=False).returncode == 1


def test_no_hook_is_left_behind(grid: Grid) -> None:
    # What was deleted a moment ago may still be at its end.
    grid.until("all hooks to end", lambda: not any(grid.hooks(node) for node in NODES), limit=2 * HOOK_LIMIT + 60)
