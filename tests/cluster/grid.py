"""The lab as its people see it: jobs submitted, watched and accounted, Warden asked, and time given until it happens."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

from labcluster.errors import LabError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from labcluster.cluster import Cluster

MASTER = "master"
NODES = ("node1", "node2", "node3")
# Nothing here takes so long, on the busiest machine.
LIMIT = 120.0

# A job that runs until `Grid.let_go`, and then ends with a status that nothing else has.
WAITS = "until test -e $HOME/go.$JOB_ID; do sleep 0.1; done; exit 3\n"


class Grid:
    """Tests drive the real commands through this."""

    def __init__(self, lab: Cluster) -> None:
        self.lab = lab

    # --- jobs ---

    def submit(self, script: str, *options: str, user: str = "alice") -> str:
        """Submit a script; its number."""
        done = self.try_submit(script, *options, user=user)
        assert done.returncode == 0, done.stderr
        # The last line: before it qsub warns of options that stand twice.
        return done.stdout.splitlines()[-1].split(".")[0]

    def try_submit(self, script: str, *options: str, user: str = "alice") -> subprocess.CompletedProcess[str]:
        fixed = ["qsub", "-terse", "-S", "/bin/sh", "-N", "test", "-j", "y", "-o", f"/home/{user}/$JOB_ID.out"]
        return self.lab.run("node1", [*fixed, *options], user=user, input=script, check=False)

    def output(self, job: str, user: str = "alice") -> str:
        path = self.home(user) / f"{job}.out"
        return path.read_text(errors="replace") if path.exists() else ""

    def home(self, user: str = "alice") -> Path:
        return self.lab.users / user

    def let_go(self, job: str, user: str = "alice") -> None:
        (self.home(user) / f"go.{job}").touch()

    def states(self) -> dict[str, str]:
        """The state letters of every job that waits or runs; those of an array's tasks one after the other."""
        found: dict[str, str] = {}
        for line in self.lab.run(MASTER, ["qstat", "-u", "*"]).stdout.splitlines()[2:]:
            job, state = line.split()[0], line.split()[4]
            found[job] = found.get(job, "") + state
        return found

    def state(self, job: str) -> str:
        """Empty when the job is over."""
        return self.states().get(job, "")

    def why(self, job: str) -> str:
        return self.lab.run(MASTER, ["qstat", "-j", job], check=False).stdout

    def lacks_the_qpu(self, job: str) -> bool:
        """Whether Grid Engine says so of a job that waits."""
        return re.search(r"offers only g\w:qpu=0\.0", self.why(job)) is not None

    def runs(self, job: str) -> bool:
        """Whether the job itself runs; Grid Engine says `r` from the beginning of the prolog."""
        return self.state(job).endswith("r") and any(
            "job_pid" in self.lab.run(node, ["ls", *self._spool(node, job)], check=False).stdout for node in NODES
        )

    def records(self, job: str) -> list[dict[str, str]]:
        """What qacct says, a record for each time that the job was started."""
        blocks = re.split(r"^=+$", self.lab.run(MASTER, ["qacct", "-j", job], check=False).stdout, flags=re.MULTILINE)
        return [
            {name: value.strip() for name, _, value in (line.partition(" ") for line in block.splitlines())}
            for block in blocks
            if "jobnumber" in block
        ]

    def finish(self, job: str, limit: float = LIMIT) -> dict[str, str]:
        """Wait until the job has ended; its record, which must be the only one that tells of a start."""
        self.until(f"the end of job {job}", lambda: not self.state(job), limit=limit)
        self.until(f"the record of job {job}", lambda: any(map(self._started, self.records(job))))
        done = list(filter(self._started, self.records(job)))
        assert len(done) == 1, done
        return done[0]

    def hasten(self, job: str) -> None:
        """End the pause of a job that was sent back."""
        if "q" in self.state(job):
            self.lab.run(MASTER, ["qalter", "-a", "202001010000", job], check=False)

    def context(self, job: str) -> dict[str, str]:
        """What is noted of a job that waits or runs."""
        found = re.search(r"^context: +(\S+)$", self.why(job), re.MULTILINE)
        return dict(pair.partition("=")[::2] for pair in found[1].split(",")) if found else {}

    # --- hosts ---

    def until(self, what: str, condition: Callable[[], bool], limit: float = LIMIT) -> None:
        self.lab.wait_until(what, condition, limit=limit)

    def queues_in_error(self) -> list[str]:
        lines = self.lab.run(MASTER, ["qstat", "-f"]).stdout.splitlines()
        return [line for line in lines if re.search(r"lx-\S+\s+\S*E\S*$", line)]

    def hooks(self, node: str) -> list[str]:
        """The hooks that run on a host."""
        listed = self.lab.run(node, ["ps", "-eo", "etimes,args"]).stdout.splitlines()
        return [line for line in listed if "gridengine.hooks." in line]

    def hook(self, name: str, queue: str = "all.q") -> str:
        """What a queue's prolog or epilog is set to."""
        shown = self.lab.run(MASTER, ["qconf", "-sq", queue]).stdout.replace("\\\n", " ")
        return next(" ".join(line.split()[1:]) for line in shown.splitlines() if line.split()[0] == name)

    def set_hook(self, name: str, setting: str, queue: str = "all.q") -> None:
        self.lab.run(MASTER, ["qconf", "-rattr", "queue", name, setting, queue])

    @contextlib.contextmanager
    def calibration(self, delay: str = "0s") -> Iterator[None]:
        """A window that is taken back: it lasts as long as what is tried in it, however busy the machine is."""
        said = self.lab.run(MASTER, ["warden", "calibrate", "add", "--in", delay, "--for", "30min"]).stdout
        number = re.search(r"window (\d+)", said)
        assert number is not None, said
        try:
            yield
        finally:
            self.lab.run(MASTER, ["warden", "calibrate", "cancel", number[1]])

    def load_values(self) -> dict[str, str]:
        """The QPU as qhost shows it: `qpu_state` and so on."""
        shown = self.lab.run(MASTER, ["qhost", "-h", "node1", "-F", "qpu,qpu_state,qpu_window,qpu_qubits"]).stdout
        return dict(re.findall(r" g[a-z]:(qpu\w*)=(\S+)", shown))

    def picture(self) -> str:
        """What an admin would look at first, for whoever reads of a test that failed."""
        looks = [
            ["qstat", "-f", "-u", "*", "-explain", "aAcE"],
            ["qhost", "-F", "qpu,qpu_state,qpu_window"],
            ["warden", "status"],
            ["warden", "sessions"],
            ["warden", "tasks"],
        ]
        shown = [f"$ {' '.join(look)}\n{self._look(look)}" for look in looks]
        return "\n".join([*shown, *(f"{what}: {tail}" for what, tail in self._tails())])

    def _look(self, command: list[str]) -> str:
        try:
            done = self.lab.run(MASTER, command, check=False, timeout=10)
        except LabError as error:
            return f"{error}\n"
        return done.stdout + done.stderr

    def _tails(self) -> Iterator[tuple[str, str]]:
        for what in ("broker", "worker"):
            yield what, "\n".join(self.lab.log(MASTER, what).read_text(errors="replace").splitlines()[-30:])

    # --- Warden ---

    def sessions(self, *, ended: bool = False) -> list[dict[str, Any]]:
        return self._warden("sessions", *(["--all"] if ended else []))

    def tasks(self, *, limit: int = 50) -> list[dict[str, Any]]:
        return self._warden("tasks", "--limit", str(limit))

    def reporter(self) -> str:
        """The host whose sensor reports the QPU."""
        return next((host for host, reports, _ in self._hosts() if reports), "")

    def report_interval(self) -> float:
        """Seconds from one load report to the next, as the sensors have measured them."""
        return max(interval for *_, interval in self._hosts()) / 1e6

    def _hosts(self) -> list[tuple[str, bool, int]]:
        found: list[tuple[str, bool, int]] = json.loads(self.lab.run(MASTER, ["qpu-python", "-c", _HOSTS]).stdout)
        return found

    def broker_log(self, word: str) -> list[str]:
        return [line for line in self.lab.log(MASTER, "broker").read_text().splitlines() if word in line]

    def worker_log(self) -> str:
        return self.lab.log(MASTER, "worker").read_text()

    def ready(self) -> bool:
        done = self.lab.run(MASTER, ["warden", "status", "--json"], check=False)
        return done.returncode == 0 and json.loads(done.stdout)["state"] == "ready"

    def free(self) -> None:
        """As found: no job, no session, no mark of a test that failed."""
        left = list(self.states())
        if left:
            self.lab.run(MASTER, ["qdel", "-f", *left], check=False)
            self.until("all jobs to be gone", lambda: not self.states())
        for session in self.sessions():
            self.lab.run(MASTER, ["qpu-python", "-c", _RELEASE, session["id"]])

    @contextlib.contextmanager
    def configured(self, **values: str) -> Iterator[None]:
        """Other values for keys that stand in the lab's configuration; for hooks at once, for daemons when restarted."""
        path = self.lab.etc / "warden" / "warden.toml"
        before = path.read_text()
        text = before
        for key, value in values.items():
            text, found = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
            assert found == 1, f"{key} stands {found} times in {path}"
        path.write_text(text)
        try:
            yield
        finally:
            path.write_text(before)

    def restart_warden(self) -> None:
        self.lab.stop_worker()
        self.lab.stop_broker()
        self.lab.start_broker()
        self.lab.start_worker()
        self.until("Warden and the QPU", self.ready)

    def _warden(self, *arguments: str) -> list[dict[str, Any]]:
        shown = self.lab.run(MASTER, ["warden", *arguments, "--json"]).stdout
        found: list[dict[str, Any]] = json.loads(shown)
        return found

    @staticmethod
    def _started(record: dict[str, str]) -> bool:
        # Not so if its prolog sent it away.
        return record["start_time"] != "-/-"

    @staticmethod
    def _spool(node: str, job: str) -> list[str]:
        return [f"/var/spool/gridengine/execd/{node}/active_jobs/{job}.1"]


_HOSTS = """
import json, warden.client
print(json.dumps([(one.host, one.reporter, one.interval) for one in warden.client.Client(timeout=30).hosts()]))
"""
_RELEASE = "import sys, warden.client; warden.client.Client(timeout=30).release(sys.argv[1])"
