"""A cell of Open Cluster Scheduler for tests: its commands are programs, made from captured output (ocs_commands.py)."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ocs_commands
from gridengine_samples import SAMPLES, Call, calls, stdout

from gridengine import commands, qconf_text

if TYPE_CHECKING:
    import pytest

HERE = Path(__file__).parent
NAMES = ("qconf", "qstat", "qselect", "qhost", "qacct", "qrsub", "qrstat", "qrdel", "qdel", "qmod", "qalter", "qsub")
# -S and -I: no site, no user's environment, as quick as an interpreter starts.
PROGRAM = """\
#!{python} -ISB
import sys
sys.path.insert(0, {here!r})
import ocs_commands
raise SystemExit(ocs_commands.main(sys.argv[0].rpartition("/")[2], sys.argv[1:]))
"""


def settings(text: str) -> dict[str, str]:
    """Read what qconf shows, by the parser under test: that it shows the same again is a test of both."""
    return qconf_text.settings(text)


def fresh() -> dict[str, Any]:
    """Make the state of a cell as it was captured: one host, one queue, nothing of ours."""
    table = [
        line.split() for line in (SAMPLES / "ocs/qconf_sc.txt").read_text().splitlines() if line and line[0] != "#"
    ]
    hosts = {call.command: settings(call.stdout) for call in reversed(calls("ocs/qconf_complex_values_session.txt"))}
    return {
        "user": "root",
        "host": "ocsvm",
        "managers": ["root"],
        "arusers": [],
        "complex": table,
        "built_in": [row[0] for row in table],
        "configuration": {
            "global": settings(stdout("ocs/qconf_sconf.txt")),
            "ocsvm": settings(stdout("ocs/qconf_sconf_host.txt")),
        },
        "exechost": {name: hosts[f"qconf -se {name}"] for name in ("global", "ocsvm")},
        "queue": {"all.q": settings(stdout("ocs/qconf_sq_all.q.txt"))},
        "pe": {},
        "hostgroup": {"@allhosts": {"group_name": "@allhosts", "hostlist": "ocsvm"}},
        "resource_quota": {},
        "instances": {"all.q@ocsvm": ""},
        "jobs": {},
        "job_list": job_list(),
        "reservations": {},
        "granted": 0,
        "zone": 0,
        "captured": {"qconf -help": ["OCS 9.2.0prealpha\nusage: qconf [options]\n", "", 0]},
        "changes": 0,
        "fails_at": None,
        "log": [],
    }


def job_list() -> str:
    """What `qstat -u * -xml` prints around its jobs."""
    text = stdout("ocs/qstat_u_all.xml.txt")
    for place, state in (("RUNNING", "running"), ("PENDING", "pending")):
        found = re.compile(rf'( *<job_list state="{state}">.*?</job_list>\n)+', re.DOTALL)
        text = found.sub(place, text, count=1)
    return text


def captured_job(number: int) -> dict[str, str]:
    """One of the jobs 87 to 91 of the samples, as qstat told of it."""
    details = {call.command.split()[2]: call.stdout for call in calls("ocs/qstat_j_pending.xml.txt")}
    element = re.compile(
        rf" *<job_list state=\"\w+\">\n *<JB_job_number>{number}</JB_job_number>.*?</job_list>\n", re.DOTALL
    )
    listed, requests = (element.search(stdout(f"ocs/{name}.xml.txt")) for name in ("qstat_u_all", "qstat_u_all_r"))
    assert listed is not None
    assert requests is not None
    state = re.search("<state>(.*?)</state>", listed[0])
    assert state is not None
    return {
        "owner": "alice",
        "state": state[1],
        "detail": details.get(str(number), ""),
        "listed": listed[0],
        "requests": requests[0],
    }


class Cell:
    """The cell in a folder, its environment, and its commands."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "ocs"
        self.environment = {"SGE_ROOT": str(self.root), "SGE_CELL": "default"}
        self._state = self.root / "default" / "state.json"
        self._state.parent.mkdir(parents=True)
        self.programs = self.root / "bin" / commands._ARCHITECTURES[os.uname().machine]
        self.programs.mkdir(parents=True)
        for name in NAMES:
            program = self.programs / name
            program.write_text(PROGRAM.format(python=sys.executable, here=str(HERE)))
            program.chmod(0o755)
        self.change(**fresh())

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._state.read_text())
        return found

    def change(self, **parts: Any) -> None:
        """Set parts of the state, as another admin would, without a command."""
        now = self.state if self._state.exists() else {}
        self._state.write_text(json.dumps({**now, **parts}))

    def run(self, *command: str, single_line: bool = False) -> Call:
        environment = {**self.environment, **({"SGE_SINGLE_LINE": "1"} if single_line else {})}
        done = subprocess.run(
            [self.programs / command[0], *command[1:]], env=environment, capture_output=True, text=True, check=False
        )
        return Call(" ".join(command), done.stdout, done.stderr, done.returncode)

    def call(self, command: str, *arguments: str) -> Call:
        """The same without a process, thirty times as fast."""
        out, errors = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
            status = ocs_commands.main(command, list(arguments), self._state)
        return Call(" ".join([command, *arguments]), out.getvalue(), errors.getvalue(), status)

    def without_processes(self, patch: pytest.MonkeyPatch) -> None:
        """Have gridengine.commands run none."""

        def run(command: str, *arguments: str, **_: Any) -> commands.Output:
            done = self.call(command, *arguments)
            said = commands.Output(done.stdout, done.stderr)
            if done.status:
                raise commands.failure(command, done.status, said)
            return said

        patch.setattr(commands, "run", run)
        for name, value in self.environment.items():
            patch.setenv(name, value)

    def widen(self) -> None:
        """Three hosts, two of them in the group `@quantum`, and a second queue."""
        one = self.state["exechost"]["ocsvm"]
        queue = self.state["queue"]["all.q"]
        self.change(
            exechost={**self.state["exechost"], **{name: {**one, "hostname": name} for name in ("node2", "node3")}},
            hostgroup={
                "@allhosts": {"group_name": "@allhosts", "hostlist": "ocsvm node2 node3"},
                "@quantum": {"group_name": "@quantum", "hostlist": "ocsvm node2"},
            },
            queue={"all.q": queue, "long.q": {**queue, "qname": "long.q", "pe_list": "NONE"}},
            instances={f"{name}@{host}": "" for name in ("all.q", "long.q") for host in ("ocsvm", "node2", "node3")},
        )

    def snapshot(self) -> dict[str, str]:
        """All that qconf shows, byte by byte."""
        shown = {option: self.call("qconf", option).stdout for option in ("-sc", "-srqs", "-spl", "-sconfl")}
        for kind, option in (
            ("configuration", "-sconf"),
            ("exechost", "-se"),
            ("queue", "-sq"),
            ("pe", "-sp"),
            ("hostgroup", "-shgrp"),
        ):
            for name in self.state[kind]:
                shown[f"{option} {name}"] = self.call("qconf", option, name).stdout
        return shown

    def changes(self) -> int:
        """How many commands have changed something, or tried to."""
        return int(self.state["changes"])
