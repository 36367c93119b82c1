"""The main job, shown on a private cluster: what a stranger watches first. Each step is checked, not only shown."""

import json
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from labcluster.cluster import Cluster
from labcluster.errors import LabError
from labcluster.layout import MASTER

_EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
# Slow enough to watch: 200 shots take five seconds.
_SHOT_RATE = 40
_SHOTS = 200
# As many as the device takes in one task: nearly a minute, of which only the beginning is watched.
_LONG = 2000
# Longer than any machine needs to get to its end: then the operator takes it back, and nothing here is a race.
_WINDOW = "2min"
_BOLD, _DIM, _END = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() else ("", "", "")


class DemoError(LabError):
    """Something that the demo shows did not happen."""


def main(cluster: Cluster) -> int:
    """Show it, and take the cluster down again."""
    begun = time.monotonic()
    # The terminal going away must not leave a cluster behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(129))
    try:
        if not cluster.up(2, shot_rate=_SHOT_RATE, say=lambda line: print(f"lab: {line}", flush=True)):
            raise LabError(f"a cluster {cluster.name} is up already: run ./lab down{cluster.option} first")
        _Demo(cluster).show()
    finally:
        cluster.down()
    print(f"\n{_BOLD}All of this happened, in {time.monotonic() - begun:.0f} s.{_END} The cluster is gone again.")
    print("./lab up leaves one standing; ./lab shell node1 --user alice opens a shell on it.")
    return 0


class _Demo:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def show(self) -> None:
        self._copy_examples()
        self._what_grid_engine_sees()
        window = self._calibrate()
        jobs = self._submit()
        self._wait_and_go_on(jobs, window)
        self._results(jobs)
        self._delete_while_running()
        self._account(jobs)

    def _copy_examples(self) -> None:
        for user in ("alice", "bob"):
            for name in ("afm_ring.json", "afm_ring.py", "afm_job.py", "afm_job.sh"):
                self._quiet("tee", name, user=user, given=(_EXAMPLES / name).read_text())

    def _what_grid_engine_sees(self) -> None:
        self._title("The QPU is a resource of Grid Engine, like a licence or memory")
        self._tell("A load sensor reports it: one place, ready, a week without a calibration window.")
        seen = self._run("qhost", "-F", "qpu,qpu_state,qpu_window", show=_global_part)
        self._check("qpu_state=ready" in seen, "qhost shows the QPU as ready")

    def _calibrate(self) -> str:
        self._title("The operator plans a calibration")
        self._tell("A QPU of neutral atoms needs fixed blocks of time, in which it takes no task. Here is one.")
        added = self._run("warden", "calibrate", "add", "--in", "4s", "--for", _WINDOW)
        self._run("warden", "calibrate", "plan")
        self._until("Grid Engine sees the calibration", lambda: "qpu_state=calibrating" in self._qhost())
        self._tell("The sensor now reports (gl:) no place: nothing that asks for one will be started.")
        seen = self._run("qhost", "-F", "qpu,qpu_state,qpu_window", show=_global_part)
        self._check("gl:qpu=0" in seen, "no place is offered during the window")
        return _number("window", added)

    def _submit(self) -> list[str]:
        self._title("Meanwhile two users and a program submit jobs that need the QPU")
        self._tell(f"alice's script asks for it with `#$ -l qpu=1` and calls `qpu run` for {_SHOTS} shots of a Pulser")
        self._tell("sequence: an adiabatic sweep that leaves a ring of eight atoms in an antiferromagnetic state.")
        first = self._run("qsub", "afm_job.sh", user="alice")
        self._tell("bob runs a Python script with our client; it builds the same sequence itself.")
        second = self._run(
            *("qsub", "-N", "afm_py", "-l", "qpu=1", "-cwd", "-j", "y", "-b", "y", "qpu-python", "afm_job.py"),
            user="bob",
        )
        self._tell("The third goes in from Python through DRMAA.")
        third = self._run(
            *("qpu", "submit", "--name", "drmaa", "--output", "drmaa.out", "--"),
            *("qpu", "run", "afm_ring.json", "--shots", str(_SHOTS)),
            user="alice",
        )
        return [_number("job", text) for text in (first, second, third)]

    def _wait_and_go_on(self, jobs: Sequence[str], window: str) -> None:
        self._title("The jobs wait in the queue, where waiting costs nothing, and everybody can see why")
        self._until("Grid Engine says why", lambda: "offers only" in self._quiet("qstat", "-j", jobs[1]))
        waits = self._run("qstat", "-j", jobs[1], show=_scheduling_part)
        self._check("qpu=0" in waits, "qstat -j says that the job waits for the QPU")
        self._run("qpu", "why", jobs[1], user="bob")
        self._check(not self._running_jobs(), "no job was started during the window")
        self._title("The calibration is done, and the jobs go on by themselves, one after the other")
        self._tell("It took less time than was planned, so the operator takes the rest of the window back.")
        self._run("warden", "calibrate", "cancel", window)
        self._until("alice's task runs on the QPU", lambda: bool(self._tasks("running")))
        self._run("qstat", "-u", "*")
        self._until("bob's task runs on the QPU", lambda: self._runs_for(jobs[1]))
        self._tell("A window in the middle of a task: it gives way at a shot boundary, and goes on afterwards.")
        # At once: it has five seconds, of which some are gone.
        self._run("warden", "calibrate", "add", "--for", "3s")

    def _results(self, jobs: Sequence[str]) -> None:
        self._until("all three jobs have ended", lambda: not self._live())
        outputs = (("afm.o" + jobs[0], "alice"), ("afm_py.o" + jobs[1], "bob"), ("drmaa.out", "alice"))
        for name, user in outputs:
            output = self._run("cat", name, user=user)
            self._check(f"{_SHOTS} shots" in output, f"{user}'s {name} holds {_SHOTS} shots")
        tasks = json.loads(self._quiet("warden", "tasks", "--json"))
        self._check(any(task["runs"] > 1 for task in tasks), "a task was cut by the window and completed")
        self._tell("01010101 and 10101010: neighbours alternate. That is the antiferromagnet, in both of its forms.")

    def _delete_while_running(self) -> None:
        self._title("A job is deleted while its task runs")
        command = ("-cwd", "-j", "y", "-b", "y", "-l", "qpu=1", "qpu", "run", "afm_ring.json", "--shots")
        long = _number("job", self._run("qsub", "-N", "long", *command, str(_LONG), user="alice"))
        self._until("its task runs", lambda: bool(self._tasks("running")))
        behind = _number("job", self._run("qsub", "-N", "behind", *command, "40", user="bob"))
        self._run("warden", "sessions")
        self._run("qdel", long, user="alice")
        deleted = time.monotonic()
        self._until("the QPU is free of it", lambda: not any(s["job"] == long for s in self._sessions()))
        self._tell(f"The QPU was free again after {time.monotonic() - deleted:.1f} s; the job behind it has it next.")
        self._until("the job behind it has ended", lambda: not self._live())
        self._check(
            "40 shots" in self._quiet("cat", f"behind.o{behind}", user="bob"), "the job behind it got its shots"
        )

    def _account(self, jobs: Sequence[str]) -> None:
        self._title("What each job used")
        account = json.loads(self._run("qpu-admin", "acct", "--json", show=lambda _: ""))
        self._run("qpu-admin", "acct")
        known = {str(line["job"]): line for line in account}
        self._check(all(known.get(job, {}).get("shots") == _SHOTS for job in jobs), "the account has every shot")
        faulty = [line for line in self._quiet("qstat", "-f").splitlines() if re.search(r"lx-\S+\s+\S*E\S*$", line)]
        self._check(not faulty, "no queue is in error")

    # --- running, showing, checking ---

    def _run(self, *command: str, user: str = "root", show: Callable[[str], str] = lambda text: text) -> str:
        host = MASTER if user == "root" else "node1"
        text = self._quiet(*command, user=user)
        shown = show(text)
        if shown or show("x"):
            print(f"{_BOLD}{user}@{host}$ {shlex.join(command)}{_END}")
        for line in shown.splitlines():
            print(f"  {line}")
        sys.stdout.flush()
        return text

    def _quiet(self, *command: str, user: str = "root", given: str | None = None) -> str:
        host = MASTER if user == "root" else "node1"
        return self._cluster.run(host, command, user=user, input=given).stdout

    def _tell(self, text: str) -> None:
        print(f"{_DIM}# {text}{_END}", flush=True)

    def _title(self, text: str) -> None:
        print(f"\n{_BOLD}== {text}{_END}", flush=True)

    def _check(self, happened: bool, what: str) -> None:
        if not happened:
            raise DemoError(f"this did not happen: {what}")

    def _until(self, what: str, condition: Callable[[], bool], limit: float = 120) -> None:
        self._cluster.wait_until(what, condition, limit=limit, log=self._cluster.log(MASTER, "broker"))

    def _qhost(self) -> str:
        return _global_part(self._quiet("qhost", "-F", "qpu_state"))

    def _live(self) -> str:
        return self._quiet("qstat", "-u", "*")

    def _tasks(self, status: str) -> list[dict[str, object]]:
        return [task for task in json.loads(self._quiet("warden", "tasks", "--json")) if task["status"] == status]

    def _running_jobs(self) -> str:
        return self._quiet("qstat", "-u", "*", "-s", "r")

    def _runs_for(self, job: str) -> bool:
        holders = {session["id"] for session in self._sessions() if session["job"] == job}
        return any(task["session"] in holders for task in self._tasks("running"))

    def _sessions(self) -> list[dict[str, object]]:
        return list(json.loads(self._quiet("warden", "sessions", "--json")))


def _number(what: str, text: str) -> str:
    found = re.search(rf"{what} (\d+)", text, re.IGNORECASE)
    if found is None:
        raise DemoError(f"this did not happen: a {what} has a number; the answer was {text.strip()!r}")
    return found[1]


def _global_part(text: str) -> str:
    """What is global, once: qhost repeats it under each host."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("global"))
    end = next((i for i in range(first + 1, len(lines)) if not lines[i].startswith(" ")), len(lines))
    return "\n".join(lines[:end])


def _scheduling_part(text: str) -> str:
    lines = text.splitlines()
    first = next((i for i, line in enumerate(lines) if line.startswith("scheduling info")), 0)
    return "\n".join(lines[first:])
