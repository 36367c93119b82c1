"""Windows as advance reservations on real Grid Engine: who runs before, who waits, and that nothing stays behind."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from grid import MASTER, NODES, WAITS, Grid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.site

QMASTER = "/var/spool/gridengine/qmaster"
ENDLESS = "exit 3\n"
PARALLEL = {
    "pe_name": "qpu_window",
    "slots": "9999",
    "user_lists": "NONE",
    "xuser_lists": "NONE",
    "start_proc_args": "NONE",
    "stop_proc_args": "NONE",
    "allocation_rule": "$fill_up",
    "control_slaves": "FALSE",
    "job_is_first_task": "TRUE",
    "urgency_slots": "min",
    "accounting_summary": "FALSE",
    "qsort_args": "NONE",
}


def shell(grid: Grid, script: str) -> str:
    return grid.lab.run(MASTER, ["sh", "-ec", script]).stdout


@pytest.fixture(scope="module", autouse=True)
def exact(lab_grid: Grid) -> Iterator[None]:
    """The scheduler allows two seconds more than a job's h_rt, not a minute."""
    change = "qconf -ssconf | sed 's/^params .*/params {}/' > /tmp/scheduler; qconf -Msconf /tmp/scheduler"
    shell(lab_grid, change.format("DURATION_OFFSET=2"))
    yield
    shell(lab_grid, change.format("none"))


@pytest.fixture(autouse=True)
def clean(grid: Grid) -> Iterator[None]:
    yield
    for one in calendar(grid)["added"]:
        grid.lab.run(MASTER, ["warden", "calibrate", "cancel", str(one["id"])], check=False)
    grid.lab.run(MASTER, ["qpu-admin", "reserve", "--withdraw"])


def calendar(grid: Grid) -> dict[str, Any]:
    script = "import msgspec, sys, warden.client; sys.stdout.buffer.write(msgspec.json.encode(warden.client.Client().plan()))"
    found: dict[str, Any] = json.loads(grid.lab.run(MASTER, ["qpu-python", "-c", script]).stdout)
    return found


def add_window(grid: Grid, delay: str, length: str) -> tuple[int, int, str]:
    """Where it begins and ends, in seconds of the epoch, and its number."""
    said = grid.lab.run(MASTER, ["warden", "calibrate", "add", "--in", delay, "--for", length]).stdout
    number = re.search(r"window (\d+)", said)
    assert number is not None
    [one] = [one for one in calendar(grid)["added"] if one["id"] == int(number[1])]
    return one["start"] // 1_000_000, -(-one["end"] // 1_000_000), number[1]


def reserve(grid: Grid, *options: str) -> list[tuple[str, str]]:
    """What became of each window, and why."""
    done = grid.lab.run(MASTER, ["qpu-admin", "reserve", "--json", *options], check=False)
    return [(one["did"], one["reason"]) for one in json.loads(done.stdout)]


def reservations(grid: Grid) -> list[tuple[int, int]]:
    """All that Grid Engine has, whoever they are of, in seconds of the epoch."""
    shown = grid.lab.run(MASTER, ["env", "TZ=UTC", "qrstat", "-u", "*", "-xml"]).stdout
    times = re.findall(r"<(?:start|end)_time>(.*?)</", shown)
    seconds = [int(dt.datetime.fromisoformat(time).replace(tzinfo=dt.UTC).timestamp()) for time in times]
    return list(zip(seconds[::2], seconds[1::2], strict=True))


def waits_for_a_reservation(grid: Grid, job: str) -> bool:
    return grid.state(job) == "qw" and "due to a reservation" in grid.why(job)


def started(record: dict[str, str], name: str = "start_time") -> float:
    return time.mktime(time.strptime(record[name]))


@contextlib.contextmanager
def following(grid: Grid, path: Path) -> Iterator[Path]:
    """`reserve --follow`; yields what it says, and ends it as systemd would."""
    with path.open("w") as said:
        command = ["qpu-admin", "reserve", "--follow", "--every", "1s"]
        process = grid.lab.popen(MASTER, command, stdout=said, stderr=said)
        try:
            yield path
            assert process.poll() is None, path.read_text()
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
            process.wait()


def test_jobs_that_fit_run_before_a_window_and_none_runs_into_it(grid: Grid, tmp_path: Path) -> None:
    with following(grid, tmp_path / "said") as said:
        # Long enough for all that is to be seen before it, on a busy machine.
        start, end, _ = add_window(grid, "30s", "4s")
        grid.until("the reservation", lambda: reservations(grid) == [(start, end)])
        long = grid.submit("exit 3\n", "-l", "qpu=1,h_rt=300")
        endless = grid.submit(ENDLESS, "-l", "qpu=1")
        short = grid.submit("exit 3\n", "-l", "qpu=1,h_rt=4")
        record = grid.finish(short)
        assert (record["exit_status"], started(record, "end_time") < start) == ("3", True)
        # The QPU is ready still: it is the reservation that they wait for.
        assert grid.load_values()["qpu_state"] == "ready"
        assert waits_for_a_reservation(grid, long)
        assert waits_for_a_reservation(grid, endless)
        for job in (long, endless):
            record = grid.finish(job)
            assert record["exit_status"] == "3"
            assert started(record) >= end - 1
            # One start: none was sent back by the prolog.
            assert len(grid.records(job)) == 1
        assert reservations(grid) == []
    assert len(said.read_text().splitlines()) == 1


def test_a_window_that_is_moved_or_cancelled_is_followed_and_frees_the_qpu(grid: Grid) -> None:
    start, end, number = add_window(grid, "10min", "90s")
    assert reserve(grid) == [("reserved", "")]
    assert reservations(grid) == [(start, end)]
    assert reserve(grid) == [("kept", "")]
    job = grid.submit(ENDLESS, "-l", "qpu=1")
    grid.until("it to wait", lambda: waits_for_a_reservation(grid, job))
    grid.lab.run(MASTER, ["warden", "calibrate", "move", number, "--in", "20min"])
    # Never are both gone, or it would begin.
    assert [did for did, _ in reserve(grid)] == ["reserved", "withdrawn"]
    [(moved, _)] = reservations(grid)
    assert moved >= start + 600
    assert waits_for_a_reservation(grid, job)
    grid.lab.run(MASTER, ["warden", "calibrate", "cancel", number])
    assert [did for did, _ in reserve(grid)] == ["withdrawn"]
    assert grid.finish(job)["exit_status"] == "3"
    assert reservations(grid) == []


def test_what_cannot_be_reserved_yet_is_when_it_can_and_outages_are_survived(grid: Grid, tmp_path: Path) -> None:
    job = grid.submit(WAITS, "-l", "qpu=1")
    grid.until("the job to run", lambda: grid.runs(job))
    with following(grid, tmp_path / "said") as said:
        span = add_window(grid, "10min", "90s")[:2]
        grid.until("it to say so", lambda: "not granted yet" in said.read_text())
        grid.let_go(job)
        grid.until("the reservation", lambda: reservations(grid) == [span])
        grid.lab.stop_broker()
        grid.until("it to miss Warden", lambda: "calendar is not known" in said.read_text())
        grid.lab.end_process(MASTER, f"{QMASTER}/qmaster.pid")
        grid.lab.start_broker()
        grid.until("it to miss the qmaster", lambda: "qmaster" in said.read_text())
        grid.lab.run(MASTER, ["/usr/lib/gridengine/sge_qmaster"], log="qmaster")
        grid.until("Warden and the QPU", grid.ready)
        later = add_window(grid, "20min", "60s")[:2]
        grid.until("the next reservation", lambda: reservations(grid) == [span, later])
    kinds = [line[0] for line in said.read_text().splitlines()]
    # Each trouble is one line, or two where a round met it on another command.
    assert kinds.count("+") == 2
    assert 3 <= kinds.count("!") <= 6, said.read_text()
    denied = grid.lab.run(MASTER, ["qpu-admin", "reserve", "--withdraw"], user="alice", check=False)
    # Nobody's but one's own, for who is no manager.
    assert reservations(grid) == [span, later]
    assert "Traceback" not in denied.stderr


def test_of_several_qpus_each_has_the_reservations_of_its_own_queues(grid: Grid) -> None:
    other = grid.lab.etc / "warden" / "emu.toml"
    # Nothing listens there.
    other.write_text('[qpu]\nname = "emu"\n[client]\nendpoint = "tcp://master:7699"\n')
    entries = (
        '[[gridengine.qpu]]\nqueues = ["all.q"]\n'
        '[[gridengine.qpu]]\nqueues = ["emu.q"]\nconfig = "/etc/warden/emu.toml"\n'
    )
    text = "".join(f"{name} {value}\n" for name, value in PARALLEL.items())
    grid.lab.run(MASTER, ["sh", "-c", "cat > /tmp/pe; qconf -Ap /tmp/pe"], input=text)
    shell(grid, "qconf -mattr queue pe_list qpu_window all.q")
    shell(grid, "qconf -sq all.q | sed '/^qname/s/all.q/emu.q/' > /tmp/emu.q; qconf -Aq /tmp/emu.q")
    try:
        with grid.configured(prolog_wait=f"5\n{entries}"):
            span = add_window(grid, "10min", "90s")[:2]
            assert [did for did, _ in reserve(grid)] == ["reserved", "unknown"]
            assert reservations(grid) == [span]
            # All slots of its queues, although none of them is asked for a QPU.
            waiting = grid.submit(ENDLESS, "-q", "all.q")
            running = grid.submit(ENDLESS, "-q", "emu.q")
            assert grid.finish(running)["exit_status"] == "3"
            assert grid.state(waiting) == "qw"
            # Its reservation asks for more as soon as there is more; a job would begin between the old and the new.
            shell(grid, f"qhold {waiting}")
            shell(grid, "qconf -rattr queue slots 3 all.q")
            assert [did for did, _ in reserve(grid)] == ["withdrawn", "reserved", "unknown"]
            shown = shell(grid, "qrstat -ar $(qrstat -u root -xml | sed -n 's:.*<id>\\(.*\\)</id>:\\1:p')")
            assert all(f"all.q@{node}=3" in shown for node in NODES)
            shell(grid, f"qrls {waiting}")
            assert [did for did, _ in reserve(grid, "--withdraw")] == ["withdrawn"]
            assert grid.finish(waiting)["exit_status"] == "3"
    finally:
        grid.lab.run(MASTER, ["qpu-admin", "reserve", "--withdraw"])
        shell(grid, "qconf -rattr queue slots 2 all.q; qconf -rattr queue pe_list NONE all.q; qconf -dq emu.q")
        shell(grid, "qconf -dp qpu_window")
        other.unlink()


def test_remove_leaves_no_reservation(grid: Grid) -> None:
    add_window(grid, "10min", "90s")
    assert reserve(grid) == [("reserved", "")]
    try:
        done = grid.lab.run(MASTER, ["qpu-admin", "remove"], timeout=300)
        assert "reservation" in done.stdout
        assert reservations(grid) == []
    finally:
        grid.lab.run(MASTER, ["qpu-admin", "apply"])
        for node in NODES:
            grid.lab.restart_execd(node)
        grid.until("the QPU to be offered", lambda: grid.load_values().get("qpu_state") == "ready")
