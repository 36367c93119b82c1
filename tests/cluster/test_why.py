"""`qpu why` and `qpu-admin doctor` on real Grid Engine: what they make of jobs and hosts as they are."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from grid import MASTER, WAITS, Grid

if TYPE_CHECKING:
    from collections.abc import Mapping

QPU = ("-l", "qpu=1")


def why(grid: Grid, job: str, user: str = "alice") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(grid.lab.run("node1", ["qpu", "why", job, "--json"], user=user).stdout)
    return found


def because(told: Mapping[str, Any]) -> list[str]:
    return [reason["text"] for reason in told["because"]]


def shown(grid: Grid, job: str, user: str = "alice") -> str:
    text = grid.lab.run("node1", ["qpu", "why", job], user=user).stdout
    assert max(map(len, text.splitlines())) <= 80
    return text


def test_a_busy_qpu_a_running_job_and_what_else_a_job_may_wait_for(grid: Grid) -> None:
    holder = grid.submit(f"qpu tasks >/dev/null; {WAITS}", *QPU)
    grid.until("the job to run", lambda: grid.runs(holder))
    waits = grid.submit(WAITS, *QPU)
    array = grid.submit("exit 0\n", *QPU, "-t", "1-3", user="bob")
    held = grid.submit("exit 0\n", *QPU, "-h")
    after = grid.submit("exit 0\n", *QPU, "-hold_jid", holder)
    later = grid.submit("exit 0\n", *QPU, "-a", "203001010000")
    large = grid.submit("exit 0\n", "-l", "qpu=1,qpu_qubits=5000")
    grid.until("qstat to say why", lambda: all(map(grid.lacks_the_qpu, (waits, array, large))))
    grid.until(
        "qstat to say of the others", lambda: all("scheduling info" in grid.why(job) for job in (held, after, later))
    )

    told = why(grid, waits)
    assert because(told) == ["all places on fresnel are taken"]
    # The one that can never start is in nobody's way.
    assert (told["ahead"], told["waiting"], told["earliest_start"]) == (0, 4, None)
    assert told["todo"] == "nothing: it starts by itself"
    assert (why(grid, array, "bob")["ahead"], why(grid, large)["ahead"]) == (1, 4)
    assert because(why(grid, held)) == ["it is held by its user"]
    assert because(why(grid, after)) == [f"it waits for the end of job {holder} (-hold_jid)"]
    assert because(why(grid, later)) == ["it must not start before 2030-01-01T00:00:00Z"]
    # Grid Engine itself says no more than that all places are taken.
    assert because(why(grid, large))[0].startswith("it asks for 5000 qubits, and the QPU takes ")
    assert "earliest start:   never, as it is\n" in shown(grid, large)
    running = shown(grid, holder)
    assert f"job {holder} (test) of alice: running (r)" in running
    assert "on the QPU:       no task yet" in running
    # Another's job, and what it does, are not bob's.
    assert "on the QPU:" not in shown(grid, holder, "bob")
    grid.let_go(holder)
    grid.finish(holder)
    assert f"job {holder} (test) of alice ended at " in shown(grid, holder)
    assert "exit status 3" in shown(grid, holder)


def test_a_window_that_a_job_does_not_fit_before(grid: Grid) -> None:
    grid.lab.run(MASTER, ["warden", "calibrate", "add", "--in", "10min", "--for", "5min"])
    [window] = json.loads(grid.lab.run(MASTER, ["warden", "calibrate", "plan", "--json"]).stdout)["added"]
    try:
        grid.until("qhost to show it", lambda: float(grid.load_values()["qpu_window"]) < 600)
        job = grid.submit("exit 3\n", "-l", "qpu=1,qpu_window=3600")
        grid.until("qstat to say why", lambda: "qpu_window" in grid.why(job))
        told = why(grid, job)
        assert because(told)[0].startswith("it asks for 1 h before a window, and the next is in 9 min")
        assert told["earliest_start"] == window["end"]
        assert "QPU:              fresnel: ready; 0 of 1 places taken\n" in shown(grid, job)
    finally:
        grid.lab.run(MASTER, ["warden", "calibrate", "cancel", str(window["window"])])
    assert grid.finish(job)["exit_status"] == "3"


def test_a_job_that_the_prolog_put_into_error(grid: Grid) -> None:
    job = grid.submit("exit 3\n", "-l", "qpu=01")
    grid.until("the job to be in error", lambda: grid.state(job) == "Eqw")
    told = why(grid, job)
    assert because(told) == ["-l qpu=01 asks for no whole place: ask for qpu=1"]
    assert (told["earliest_start"], told["start"]) == (None, "not before its error is cleared")
    assert f"`qmod -cj {job}`" in told["todo"]
    assert f"job {job} is in error: -l qpu=01 asks for no whole place" in examined(grid)["jobs"]
    # Whom it belongs to may clear the error, as he is told.
    grid.lab.run("node1", ["qalter", "-l", "qpu=1", job], user="alice")
    grid.lab.run("node1", ["qmod", "-cj", job], user="alice", check=False)
    assert grid.finish(job)["exit_status"] == "3"


def examined(grid: Grid) -> dict[str, str]:
    """What the doctor finds wrong, by what it is."""
    done = grid.lab.run(MASTER, ["qpu-admin", "doctor", "--json"], check=False)
    found: dict[str, str] = {}
    for one in json.loads(done.stdout):
        if one["verdict"] != "ok":
            found[one["what"]] = f"{found.get(one['what'], '')}{one['seen']} -> {one['fix']}\n"
    return found


ACQUIRE = "import warden.client as c; c.Client().acquire(job='999999', uid=2001, host='node1')"


def test_the_doctor_sees_from_one_host_what_is_wrong_in_the_cluster(grid: Grid) -> None:
    run = grid.lab.run
    # Whether links are protected is the machine's own matter.
    grid.until("all hosts to be heard of", lambda: examined(grid).keys() <= {"links"})
    run(MASTER, ["qmod", "-d", "all.q@node1"])
    run(MASTER, ["qconf", "-ds", "node2"])
    run(MASTER, ["qpu-python", "-c", ACQUIRE])
    try:
        found = examined(grid)
        assert "all.q@node1 is disabled -> qmod -e all.q@node1" in found["queues"]
        assert "-> qconf -as node2" in found["submit hosts"]
        assert "job 999999 of alice on node1 is gone" in found["sessions"]
    finally:
        run(MASTER, ["qmod", "-e", "all.q@node1"])
        run(MASTER, ["qconf", "-as", "node2"])
        run(MASTER, ["warden", "sessions", "--end", "999999"])
    grid.until("nothing of it to be left", lambda: examined(grid).keys() <= {"links"})
