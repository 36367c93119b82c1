"""The researcher's command: help at once, failures in one line, exit statuses, and what its answers look like."""

from __future__ import annotations

import collections
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from warden_site import AFM, LIMIT, SESSION, Site

from gridengine import accounting
from warden.events import Keep
from warden.model import Session
from warden.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

BIN = Path(sys.executable).parent
COMMANDS = {
    "warden": ["serve", "worker", "keys", "status", "drain", "resume", "calibrate", "sessions", "tasks"],
    "qpu": ["status", "run", "submit", "wait", "why", "tasks", "cancel"],
    "qpu-admin": ["plan", "apply", "remove", "reserve", "doctor", "acct"],
}


def call(
    *command: str, site: Site | None = None, given: str | None = None, folder: Path | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.defpath, "LANG": "C.UTF-8"}
    if site is not None:
        clean |= {"WARDEN_CONFIG": str(site.file)}
    return subprocess.run(
        [BIN / command[0], *command[1:]],
        env=clean | environment,
        cwd=folder,
        input=given,
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


def in_job(
    site: Site, *command: str, given: str | None = None, session: str = SESSION
) -> subprocess.CompletedProcess[str]:
    return call("qpu", *command, site=site, given=given, WARDEN_SESSION=session, folder=site.room)


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """One line on standard error, exit status 1."""
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith(("qpu: ", "warden: ", "qpu-admin: "))
    assert done.stdout == ""
    for word in words:
        assert word in done.stderr


def spent() -> float:
    """Seconds that processors have spent on the processes that we have started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("command", COMMANDS)
def test_help_comes_at_once(command: str) -> None:
    times = []
    for _ in range(3):
        begun = spent()
        done = call(command, "--help")
        times.append(spent() - begun)
        assert done.returncode == 0
    # 0.3 s is promised; on a machine that is busy with other tests it is more also by this clock.
    assert min(times) < 0.6
    for name in COMMANDS[command]:
        assert f"\n  {name} " in done.stdout
    # No command is described by half a sentence.
    assert "...\n" not in done.stdout.partition("Commands:")[2]


@pytest.mark.parametrize(("command", "name"), [(command, name) for command in COMMANDS for name in COMMANDS[command]])
def test_each_command_has_its_help(command: str, name: str) -> None:
    done = call(command, name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"Usage: {command} {name} ")


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_while_a_command_is_loaded_ends_it_quietly(command: str, tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("import signal\nprint('loading', flush=True)\nsignal.pause()\n")
    environment = {"PATH": os.defpath, "PYTHONPATH": str(tmp_path)}
    pipe = subprocess.PIPE
    with subprocess.Popen([BIN / command, "--help"], env=environment, stdout=pipe, stderr=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"loading\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=LIMIT) == (b"", b"")
    # A shell calls it 130.
    assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize("command", COMMANDS)
def test_version_names_the_kit(command: str) -> None:
    done = call(command, "--version")
    assert done.returncode == 0
    assert done.stdout.startswith(f"{command}, version ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("qpu", "nonesuch"),
        ("qpu", "run"),
        ("qpu", "run", "x.json", "y.json"),
        ("qpu", "run", "x.json", "--shot", "7", "--nonesuch"),
        ("qpu", "submit"),
        ("qpu", "submit", "-l", "h_rt", "true"),
        ("qpu", "wait"),
        ("qpu", "wait", "7", "--within", "0"),
        ("qpu", "run", "-", "--within", "soon"),
        ("qpu", "run", "-", "--within", "0"),
        ("qpu", "run", "-", "--within", "-5"),
        ("qpu", "tasks", "--limit", "0"),
        ("qpu", "tasks", "--before", "0"),
        ("qpu", "tasks", "--before", "x"),
        ("qpu", "cancel"),
        ("warden", "nonesuch"),
        ("warden", "calibrate", "add"),
        ("warden", "sessions", "--limit", "many"),
        ("qpu-admin", "nonesuch"),
        ("qpu-admin", "acct", "--limit", "0"),
        ("qpu-admin", "acct", "--by", "colour"),
        ("qpu-admin", "acct", "--from", "yesterday"),
        ("qpu-admin", "acct", "--to", "2026-13"),
        ("qpu-admin", "acct", "--csv", "--json"),
    ],
)
def test_wrong_usage_is_2(arguments: Sequence[str]) -> None:
    done = call(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("Usage: ")
    assert "Traceback" not in done.stderr


# --- without Warden ---


@pytest.mark.parametrize("arguments", [("status",), ("tasks",), ("cancel", "1"), ("run", "-")])
def test_no_configuration_is_one_line(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    missing = str(tmp_path / "none.toml")
    done = call("qpu", *arguments, given=AFM, WARDEN_CONFIG=missing, WARDEN_SESSION="s")
    refused(done, "cannot read the configuration", missing)


def test_no_broker_is_one_line(site: Site) -> None:
    begun = time.monotonic()
    refused(call("qpu", "status", site=site), "does not answer: is the broker running")
    assert time.monotonic() - begun < 40


def test_no_address_is_one_line(site: Site) -> None:
    refused(call("qpu", "status", site=site, WARDEN_ENDPOINT="nowhere"), "'nowhere' is no address of a broker")


def test_no_grid_engine_is_one_line(site: Site) -> None:
    refused(call("qpu", "why", "7", site=site, SGE_ROOT="/nonexistent"))
    refused(call("qpu", "submit", "true", site=site, SGE_ROOT="/nonexistent"))
    refused(call("qpu", "wait", "7", site=site, SGE_ROOT="/nonexistent"))
    refused(call("qpu", "wait", "x", site=site, SGE_ROOT="/nonexistent"), "'x' is no job")


@pytest.mark.parametrize("job", ["x", "7.1x", "-7", "*", ""])
def test_what_is_no_job_is_one_line(site: Site, job: str) -> None:
    refused(call("qpu", "why", "--", job, site=site), "is no job number")


# --- outside a job ---


def test_run_outside_a_job_says_how_to_get_into_one(standing_site: Site) -> None:
    done = call("qpu", "run", "-", site=standing_site, given=AFM)
    refused(done, "this is no job that was granted a QPU: submit it with `qsub -l qpu=1`")


def test_run_with_the_session_of_nobody_is_refused(standing_site: Site) -> None:
    refused(in_job(standing_site, "run", "-", given=AFM, session="invented"), "no such session of yours")


def test_status_for_people_and_for_programs(standing_site: Site) -> None:
    shown = call("qpu", "status", site=standing_site)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "fresnel" in shown.stdout
    told = json.loads(call("qpu", "status", "--json", site=standing_site).stdout)
    assert (told["name"], told["state"], told["places"]) == ("fresnel", "ready", 4)


@pytest.fixture
def two_qpus(standing_site: Site, site: Site, tmp_path: Path) -> str:
    """A site of fresnel, and of emu, whose Warden does not answer."""
    site.configure(qpu={"name": "emu"})
    entries = f'[[gridengine.qpu]]\nconfig = "{site.file}"\nqueues = ["a.q"]\n[[gridengine.qpu]]\nqueues = ["b.q"]\n'
    both = tmp_path / "both.toml"
    both.write_text(standing_site.file.read_text() + entries)
    return str(both)


@pytest.mark.long
def test_status_shows_all_qpus_of_the_site(two_qpus: str) -> None:
    shown = call("qpu", "status", WARDEN_CONFIG=two_qpus)
    assert (shown.returncode, shown.stderr) == (0, "")
    blocks = [block.split() for block in shown.stdout.split("\n\n")]
    assert [(block[1], block[3]) for block in blocks] == [("fresnel", "ready"), ("emu", "unknown")]
    told = json.loads(call("qpu", "status", "--json", WARDEN_CONFIG=two_qpus).stdout)
    assert [(one["name"], one["state"]) for one in told] == [("fresnel", "ready"), ("emu", "unknown")]


@pytest.mark.long
def test_one_of_several_qpus_is_named(two_qpus: str) -> None:
    assert "emu" not in call("qpu", "status", "--qpu", "fresnel", WARDEN_CONFIG=two_qpus).stdout
    refused(call("qpu", "status", "--qpu", "emu", WARDEN_CONFIG=two_qpus), "does not answer")
    refused(call("qpu", "status", "--qpu", "x", WARDEN_CONFIG=two_qpus), "no QPU is called x: there is emu, fresnel")


@pytest.mark.long
def test_tasks_of_several_qpus_are_not_confused(two_qpus: str) -> None:
    for command in (("tasks", "1"), ("cancel", "1"), ("tasks", "--json"), ("tasks", "--before", "9")):
        refused(call("qpu", *command, WARDEN_CONFIG=two_qpus), "say which QPU, --qpu emu or --qpu fresnel")
    assert isinstance(
        json.loads(call("qpu", "tasks", "--json", "--qpu", "fresnel", WARDEN_CONFIG=two_qpus).stdout), list
    )
    both = call("qpu", "tasks", WARDEN_CONFIG=two_qpus)
    assert both.returncode == 1
    assert both.stdout.startswith("fresnel:\n")
    assert "does not answer" in both.stderr


def test_a_job_sees_its_own_qpu(two_qpus: str, standing_site: Site) -> None:
    endpoint = standing_site.config.client_endpoint
    shown = call("qpu", "status", WARDEN_CONFIG=two_qpus, WARDEN_ENDPOINT=endpoint)
    assert "fresnel" in shown.stdout
    assert "emu" not in shown.stdout


def test_why_takes_a_task_of_an_array_for_the_array(site: Site) -> None:
    refused(call("qpu", "why", "7.3", site=site, SGE_ROOT="/nonexistent"), "SGE_ROOT")


# --- in a job ---


def test_run_prints_a_histogram(standing_site: Site) -> None:
    done = in_job(standing_site, "run", "-", "--shots", "30", given=AFM)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("30 shots")


def test_run_writes_counts(standing_site: Site, tmp_path: Path) -> None:
    sequence, output = tmp_path / "afm.json", tmp_path / "counts.json"
    sequence.write_text(AFM)
    done = in_job(standing_site, "run", str(sequence), "--shots", "30", "--output", str(output), "--json")
    told = json.loads(done.stdout)
    assert told["shots"] == sum(told["counts"].values()) == 30
    assert json.loads(output.read_text()) == told["counts"]
    listed = json.loads(in_job(standing_site, "tasks", "--json", "--limit", "1").stdout)
    assert [(task["id"], task["status"], task["counts"]) for task in listed] == [(told["task"], "completed", {})]
    one = in_job(standing_site, "tasks", str(told["task"]))
    assert "completed in 1 run" in one.stdout.splitlines()[-1]
    assert json.loads(in_job(standing_site, "tasks", str(told["task"]), "--json").stdout)["counts"] == told["counts"]


def test_shots_in_their_order_are_written_a_line_each(standing_site: Site, tmp_path: Path) -> None:
    output, again = tmp_path / "shots", tmp_path / "again"
    done = in_job(standing_site, "run", "-", "--shots", "30", "--bitstrings", str(output), "--json", given=AFM)
    told = json.loads(done.stdout)
    assert output.read_text().splitlines() == told["bitstrings"]
    assert collections.Counter(told["bitstrings"]) == told["counts"]
    task = str(told["task"])
    shown = in_job(standing_site, "tasks", task, "--bitstrings", str(again))
    assert again.read_text() == output.read_text()
    for line in ("device:           AnalogDevice", "noise:            off", "qubits:           4"):
        assert line in shown.stdout.splitlines()
    assert told["metadata"]["atom_order"] == ["q0", "q1", "q2", "q3"]
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_who_did_not_ask_for_the_shots_in_their_order_is_told_so(standing_site: Site, tmp_path: Path) -> None:
    told = json.loads(in_job(standing_site, "run", "-", "--shots", "3", "--json", given=AFM).stdout)
    assert "bitstrings" not in told
    shots = str(tmp_path / "shots")
    refused(in_job(standing_site, "tasks", str(told["task"]), "--bitstrings", shots), "ask for them with the task")
    assert in_job(standing_site, "tasks", "--bitstrings", shots).returncode == 2


def test_account_is_read_page_by_page(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(site.room / "state" / "warden.db")
    store.begin()
    for n in range(5):
        # Two of them began in the same microsecond.
        begun = 1 + n // 2
        past = Session(id=f"s{n}", uid=os.getuid(), job=str(n), host="", acquired=begun, expires=begun, ended=begun)
        store.apply([Keep(past)])
    store.commit()
    store.close()
    # What ended long ago is kept here.
    site.configure(limits={"keep": "100000d"})
    site.start_broker()
    monkeypatch.setattr(accounting, "_PAGE", 2)
    with site.client() as client:

        def read(since: int, until: int, limit: int, *, everybody: bool) -> tuple[list[str], bool]:
            found, cut = accounting._sessions(client, since, until, limit, everybody=everybody)
            return [session.id for session in found], cut

        whole = [SESSION, "s4", "s3", "s2", "s1", "s0"]
        for everybody in (True, False):
            assert read(0, 2**62, 1000, everybody=everybody) == (whole, False)
            assert read(0, 2**62, 6, everybody=everybody) == (whole, False)
            assert read(0, 2**62, 3, everybody=everybody) == (whole[:3], True)
            assert read(2, 3, 1000, everybody=everybody) == (["s3", "s2"], False)


def test_tasks_come_page_by_page(standing_site: Site) -> None:
    for _ in range(3):
        assert in_job(standing_site, "run", "-", "--shots", "1", given=AFM).returncode == 0

    def page(*arguments: str) -> list[int]:
        return [task["id"] for task in json.loads(in_job(standing_site, "tasks", "--json", *arguments).stdout)]

    newest = page("--limit", "3")
    assert newest == sorted(newest, reverse=True)
    assert page("--limit", "2") == newest[:2]
    assert page("--limit", "1", "--before", str(newest[1])) == newest[2:]
    assert in_job(standing_site, "tasks", "--before", "1").stdout == "no task\n"


def test_run_within_a_time_that_suffices_prints_its_counts(standing_site: Site) -> None:
    done = in_job(standing_site, "run", "-", "--shots", "3", "--within", "1h", given=AFM)
    assert (done.returncode, done.stderr) == (0, "")


def test_run_within_a_time_that_cannot_suffice_is_one_line(standing_site: Site) -> None:
    refused(
        in_job(standing_site, "run", "-", "--shots", "3", "--within", "0.05", given=AFM), "you want them within 0.05 s"
    )


def test_counts_that_cannot_be_written_are_one_line(standing_site: Site, tmp_path: Path) -> None:
    place = str(tmp_path / "none" / "counts.json")
    refused(in_job(standing_site, "run", "-", "--shots", "3", "--output", place, given=AFM), "cannot write the counts")
    refused(in_job(standing_site, "run", "-", "--bitstrings", place, given=AFM), "cannot write the shots")


@pytest.mark.parametrize(
    ("shots", "said"),
    [
        ("0", "shots must be a whole number of at least 1, not 0"),
        ("-1", "shots must be a whole number of at least 1, not -1"),
        ("1.5", "shots must be a whole number of at least 1, not '1.5'"),
        ("1e3", "shots must be a whole number of at least 1, not '1e3'"),
        ("", "shots must be a whole number of at least 1, not ''"),
        ("1000000000", "shots must be between 1 and 100000, not 1000000000"),
        ("9" * 30, "shots must be a whole number"),
        ("9" * 5000, "shots must be a whole number"),
    ],
)
def test_shots_that_are_none_are_one_line(standing_site: Site, shots: str, said: str) -> None:
    refused(in_job(standing_site, "run", "-", "--shots", shots, given=AFM), said)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "this is not JSON"),
        ("{", "this is not JSON"),
        ("[" * 100_000, "this is "),
        ("null", "no Pulser sequence"),
        ("{}", "no Pulser sequence"),
        ('{"register": [], "operations": [], "device": {"name": "x"}}', "no atoms"),
        ('{"register": "\\ud800", "operations": [], "device": {"name": "x"}}', "this is "),
        (json.dumps(json.loads(AFM) | {"device": {"name": "Other\n\x1b[31m"}}), "this QPU is 'AnalogDevice'"),
        (json.dumps(json.loads(AFM) | {"operations": [{"op": "nonesuch"}]}), "does not follow Pulser's schema"),
        (json.dumps(json.loads(AFM) | {"operations": 7}), "no Pulser sequence"),
    ],
)
def test_sequence_that_is_none_is_one_line(standing_site: Site, text: str, said: str) -> None:
    done = in_job(standing_site, "run", "-", "--shots", "3", given=text)
    refused(done, said)
    assert "\x1b" not in done.stderr


def test_file_that_is_none_is_one_line(standing_site: Site, tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(bytes(range(256)))
    refused(in_job(standing_site, "run", str(tmp_path / "none.json")), "No such file or directory")
    refused(in_job(standing_site, "run", str(tmp_path)), "Is a directory")
    refused(in_job(standing_site, "run", str(tmp_path / "binary")), "is no text")
    refused(in_job(standing_site, "run", str(tmp_path / "binary" / "x")), "Not a directory")
    refused(in_job(standing_site, "run", str(tmp_path / ("x" * 300))), "File name too long")


def test_binary_on_standard_input_is_one_line(standing_site: Site) -> None:
    done = subprocess.run(
        [BIN / "qpu", "run", "-"],
        env={"WARDEN_CONFIG": str(standing_site.file), "WARDEN_SESSION": SESSION, "LANG": "C.UTF-8"},
        input=bytes(range(256)),
        capture_output=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(b"qpu: ")
    assert b"is no text" in done.stderr
    assert done.stderr.count(b"\n") == 1


@pytest.mark.parametrize("task", ["x", "", "1.5", "999999999999", "\u0667"])
def test_cancel_of_what_is_no_task_is_one_line(standing_site: Site, task: str) -> None:
    refused(in_job(standing_site, "cancel", "--", task), "is no task")


def test_cancel_of_a_task_of_nobody_is_one_line(standing_site: Site) -> None:
    refused(in_job(standing_site, "cancel", "999999"))


def test_cancel_of_a_task_that_has_ended_tells_how_it_ended(standing_site: Site) -> None:
    task = json.loads(in_job(standing_site, "run", "-", "--shots", "3", "--json", given=AFM).stdout)["task"]
    done = in_job(standing_site, "cancel", str(task))
    assert (done.returncode, done.stdout) == (0, f"task {task} is completed\n")


def test_output_that_nobody_reads_is_no_failure_to_explain(standing_site: Site) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [BIN / "qpu", "status"],
        env={"WARDEN_CONFIG": str(standing_site.file)},
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=LIMIT,
        check=False,
    )
    os.close(writing)
    assert b"Traceback" not in done.stderr
    assert done.stderr.count(b"\n") <= 1
