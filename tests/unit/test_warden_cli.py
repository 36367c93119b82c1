"""`warden` in clumsy hands: one line, the right exit status, never a traceback."""

from __future__ import annotations

import concurrent.futures
import json
import os
import subprocess
from typing import TYPE_CHECKING

import msgspec
import pytest
from warden_site import WARDEN

from warden import report
from warden.model import SECOND, Plan, Session, State, Task, TaskStatus, Window

if TYPE_CHECKING:
    from pathlib import Path

    from warden_site import Site

COMMANDS = [
    ["status"],
    ["drain"],
    ["resume"],
    ["calibrate", "plan"],
    ["calibrate", "add", "--for", "1min"],
    ["calibrate", "history"],
    ["calibrate", "results"],
    ["calibrate", "move", "1", "--in", "1h"],
    ["calibrate", "cancel", "1"],
    ["sessions"],
    ["tasks"],
]
SERVERS = [["serve"], ["worker"], ["keys"]]


def warden(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "WARDEN_CONFIG": "/nowhere/warden.toml", **environment}
    return subprocess.run(
        [WARDEN, *arguments], capture_output=True, text=True, timeout=45, check=False, env=environment
    )


def assert_one_line(finished: subprocess.CompletedProcess[str], complaint: str, status: int = 1) -> None:
    assert (finished.returncode, finished.stdout) == (status, ""), finished
    assert complaint in finished.stderr
    assert "Traceback" not in finished.stderr
    if status == 1:
        assert finished.stderr.startswith("warden: ")
        assert finished.stderr.count("\n") == 1, finished.stderr


@pytest.mark.parametrize("command", [["status"], ["serve"], ["worker"], ["keys"]], ids=" ".join)
def test_without_a_configuration_each_command_names_the_file(command: list[str]) -> None:
    assert_one_line(warden(*command), "cannot read the configuration /nowhere/warden.toml: No such file")


@pytest.mark.parametrize("command", [["status"], ["serve"], ["worker"]], ids=" ".join)
def test_without_keys_each_command_says_how_to_make_them(tmp_path: Path, command: list[str]) -> None:
    file = tmp_path / "warden.toml"
    file.write_text(f"[broker]\nkeys = '{tmp_path}/keys'\nstate = '{tmp_path}/state'\n")
    finished = warden(*command, "--config", str(file))
    assert finished.returncode == 1
    assert "make it there with `warden keys`" in finished.stderr.splitlines()[-1]
    assert "Traceback" not in finished.stderr


def test_wrong_usage_is_2_and_says_what_is_wrong(standing_site: Site) -> None:
    config = ["--config", str(standing_site.file)]
    for arguments, complaint in [
        (["nonsense"], "No such command"),
        (["drain", "--for", "soon"], "is no duration"),
        (["drain", "--for", ""], "is no duration"),
        (["drain", "--for", "0"], "longer than 0"),
        (["drain", "--for", "-5"], "is no duration"),
        (["drain", "--for", "²"], "is no duration"),
        (["drain", "--for", "nan"], "is no duration"),
        (["drain", "--for", "9" * 400], "is no duration"),
        (["calibrate", "add"], "Missing option '--for'"),
        (["calibrate", "add", "--for", "1x"], "is no duration"),
        (["calibrate", "add", "--for", "1min", "--in", "x"], "is no duration"),
        (["calibrate", "cancel"], "Missing argument"),
        (["calibrate", "cancel", "yesterday"], "is not a valid integer"),
        (["calibrate", "move", "1"], "Missing option '--in'"),
        (["calibrate", "plan", "--count", "0"], "--count"),
        (["tasks", "--limit", "many"], "--limit"),
        (["tasks", "--limit", "0"], "--limit"),
        (["tasks", "--limit", "9" * 20], "--limit"),
        (["tasks", "--before", "9" * 20], "--before"),
        (["tasks", "9" * 20], "is not in the range"),
        (["calibrate", "cancel", "9" * 20], "is not in the range"),
        (["calibrate", "move", "9" * 20, "--in", "1h"], "is not in the range"),
        (["sessions", "--end", ""], "it has 0 characters, 1 to 64 are right"),
        (["sessions", "--end", "9" * 65], "it has 65 characters"),
        (["sessions", "--before", ""], "it has 0 characters"),
        (["sessions", "--before", "x" * 65], "it has 65 characters"),
    ]:
        assert_one_line(warden(*arguments, *(config if arguments != ["nonsense"] else [])), complaint, status=2)
    assert json.loads(standing_site.warden("status", "--json").stdout)["state"] == "ready"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["resume"], "no maintenance is on"),
        (["calibrate", "cancel", "1000"], "no operator added a window 1000"),
        (["calibrate", "results", "1000"], "no calibration 1000 is kept"),
        (["calibrate", "move", "1000", "--in", "1h"], "no operator added a window 1000"),
        (["drain", "--reason", "x" * 501], "--reason"),
        (["drain", "--for", "100000d", "--reason", "\x1b[31m" * 200], "--reason"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(standing_site: Site, arguments: list[str], complaint: str) -> None:
    finished = standing_site.warden(*arguments)
    assert_one_line(finished, complaint, status=finished.returncode)
    assert finished.returncode in {1, 2}


def test_a_window_far_away_is_shown_with_its_number() -> None:
    window = Window(10**15, 10**15 + SECOND, State.CALIBRATING, "align", 15)
    earlier = Window(10**14, 10**14 + SECOND, State.CALIBRATING, "align", 16)
    lines = report.plan(Plan((), (window, earlier))).splitlines()
    assert lines[0] == "no window is planned within a week"
    assert [line.split()[0] for line in lines[-2:]] == ["16", "15"]


def test_usual_tables_fit_into_a_terminal() -> None:
    now = 1_800_000_000 * SECOND
    session = Session(
        id="s",
        uid=0,
        job="1234",
        host="node01",
        acquired=now,
        expires=now,
        tasks=12,
        shots=12000,
        qpu_time=1234 * SECOND,
    )
    assert "ENDED" not in report.sessions([session])
    assert "SUSPENDED" not in report.sessions([session])
    stopped = report.sessions([session, msgspec.structs.replace(session, suspended="node1")]).splitlines()
    assert ["SUSPENDED" in stopped[0], " yes " in stopped[1], " yes " in stopped[2]] == [True, False, True]
    assert max(map(len, stopped)) <= 80
    ended = report.sessions([session, msgspec.structs.replace(session, ended=now + 90 * SECOND)]).splitlines()
    assert ended[1].split()[3:5] == ["2027-01-15T08:00Z", "-"]
    assert ended[2].split()[4] == "2027-01-15T08:01Z"
    task = Task(
        id=1234,
        session="s",
        job="1234",
        uid=0,
        shots=1000,
        qubits=12,
        key="",
        submitted=now,
        status=TaskStatus.COMPLETED,
    )
    tasks = report.tasks([task, msgspec.structs.replace(task, job="")], with_users=True).splitlines()
    assert [line.split()[1] for line in tasks] == ["JOB", "1234", "-"]
    assert report.tasks([msgspec.structs.replace(task, error="no")]).splitlines()[0].endswith("QPU s  REASON")
    assert max(map(len, [*ended, *tasks])) <= 80


def test_an_operator_s_day(standing_site: Site) -> None:
    def say(*arguments: str) -> str:
        finished = standing_site.warden(*arguments)
        assert (finished.returncode, finished.stderr) == (0, "")
        return finished.stdout

    assert "no window is planned" in say("calibrate", "plan")
    assert "the QPU will be calibrated from 20" in say("calibrate", "add", "--in", "1h", "--for", "3min")
    plan = json.loads(say("calibrate", "plan", "--json"))
    assert [window["kind"] for window in plan["windows"]] == ["calibrating"]
    (window,) = plan["added"]
    number = str(window["window"])
    assert say("calibrate", "plan").splitlines()[-1].split()[0] == number
    assert f"moved: window {number} is from 20" in say("calibrate", "move", number, "--in", "2h", "--for", "5min")
    assert f"taken back: window {number} from 20" in say("calibrate", "cancel", number)
    assert json.loads(say("calibrate", "plan", "--json")) == {"windows": [], "added": []}
    number = say("calibrate", "add", "--for", "1h").split("window ")[1].rstrip(")\n")
    assert "calibrating" in say("status")
    say("calibrate", "cancel", number)
    assert "ready" in say("status")
    assert "`warden resume` ends it" in say("drain", "--reason", "a new\nlaser \x1b[31m")
    status = say("status")
    assert "maintenance (a new laser" in status
    assert "\x1b" not in status
    assert "ready" in say("resume")
    assert "held" in say("calibrate", "history")
    assert json.loads(say("calibrate", "history", "--json"))[0]["outcome"] == "held"
    assert isinstance(json.loads(say("calibrate", "results", "--json")), list)
    assert say("calibrate", "results") != ""
    assert json.loads(say("status", "--json"))["quality_of_the_day"] == []
    assert "JOB" in say("sessions", "--all")
    assert say("tasks") != ""
    assert isinstance(json.loads(say("tasks", "--json")), list)
    assert_one_line(standing_site.warden("tasks", "1000000"), "there is no such task")
    assert "all keys are there already" in say("keys")


def test_with_the_broker_down_each_command_says_so_in_one_line(site: Site) -> None:
    # All at once: each bears the silence for some seconds.
    with concurrent.futures.ThreadPoolExecutor(len(COMMANDS)) as pool:
        for finished in pool.map(lambda command: site.warden(*command), COMMANDS):
            assert_one_line(finished, "does not answer: is the broker running")


@pytest.mark.parametrize("command", [[], *COMMANDS, *SERVERS, ["calibrate"]], ids=lambda c: " ".join(c) or "warden")
def test_each_command_explains_itself(command: list[str]) -> None:
    words = [word for word in command if not word.startswith(("-", "1"))]
    finished = warden(*words, "--help")
    assert (finished.returncode, finished.stderr) == (0, "")
    assert finished.stdout.startswith("Usage: warden")


def test_addresses_that_cannot_be_used_are_named(site: Site) -> None:
    for address in ("ipc:///nowhere/c", "tcp://203.0.113.1:1", "nonsense", f"ipc://{site.room}/{'x' * 120}"):
        site.configure(broker={"clients": [address]})
        finished = site.warden("serve")
        assert finished.returncode == 1
        assert f"cannot listen at {address}: " in finished.stderr
        assert "Traceback" not in finished.stderr
