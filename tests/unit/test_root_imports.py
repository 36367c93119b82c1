"""What root runs on every host, on every job, loads no more than it may: each import is code that root trusts."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from gridengine_samples import stdout
from warden_site import LIMIT

from gridengine import commands

if TYPE_CHECKING:
    from pathlib import Path

    from warden_site import Site

OWNER = pwd.getpwnam("nobody")
OURS = {"gridengine", "load_sensors", "warden"}
# Besides the standard library: what a job needs that does not ask for the QPU, and what speaks to Warden.
# msgspec takes typing_extensions along where it is there.
LITTLE = OURS | {"msgspec", "typing_extensions"}
ALL = LITTLE | {"msgpack", "zmq"}
# Of the standard library: what is slow to load and serves none of them.
NEEDLESS = {"asyncio", "http", "sqlite3", "ssl", "tkinter", "unittest", "multiprocessing"}

# As the executables start it, but for the configuration; it ends by os._exit, and writes down what is loaded then.
PROGRAM = """
import os, pathlib, sys
from {package} import {module}
def end(status, really=os._exit):
    pathlib.Path({listed!r}).write_text(" ".join({{name.partition(".")[0] for name in sys.modules}}))
    really(status)
os._exit, {module}.CONFIG = end, pathlib.Path({config!r})
{module}.main()
"""


# What comes with the interpreter of a host (sitecustomize, setuptools) is not ours to leave out.
BARE = subprocess.run(
    [sys.executable, "-I", "-c", "import sys; print(*{name.partition('.')[0] for name in sys.modules})"],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
).stdout.split()


class Host:
    """A job's spool, and a Grid Engine that says of the job what it says here."""

    def __init__(self, folder: Path, site: Site) -> None:
        self.folder, self.site = folder, site
        self.qstat = folder / "bin" / commands._ARCHITECTURES[os.uname().machine] / "qstat"
        self.qstat.parent.mkdir(parents=True)
        self.spool = folder / "6.1"
        self.spool.mkdir()
        (self.spool / "config").write_text(f"job_id=6\njob_owner={OWNER.pw_name}\n")
        (self.spool / "environment").write_text("")

    def runs(self, said: str) -> None:
        """Have the qmaster say this of the job."""
        said = re.sub("(<JB_owner>)[^<]*", rf"\g<1>{OWNER.pw_name}", said)
        said = re.sub("(<JB_job_number>)[^<]*", r"\g<1>6", said)
        self.qstat.write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
        self.qstat.chmod(0o755)

    def run(self, package: str, module: str, *arguments: str, said: bytes = b"") -> tuple[int, str, set[str]]:
        """Its exit status, what it printed, and what it has loaded at its end, by top-level names."""
        listed = self.folder / "loaded"
        listed.unlink(missing_ok=True)
        program = PROGRAM.format(package=package, module=module, config=str(self.site.file), listed=str(listed))
        done = subprocess.run(
            [sys.executable, "-I", "-c", program, *arguments],
            input=said,
            env={"SGE_JOB_SPOOL_DIR": str(self.spool), "SGE_ROOT": str(self.folder), "QUEUE": "all.q"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            timeout=LIMIT,
            check=False,
        )
        return done.returncode, done.stdout.decode(), set(listed.read_text().split())

    def hook(self, name: str) -> set[str]:
        status, printed, loaded = self.run("gridengine.hooks", name, "6", "0", OWNER.pw_name, "node1")
        assert (status, printed) == (0, "")
        return loaded


@pytest.fixture
def host(tmp_path: Path, standing_site: Site) -> Host:
    return Host(tmp_path, standing_site)


def strangers(loaded: set[str]) -> set[str]:
    assert "gridengine" in loaded or "load_sensors" in loaded
    assert not NEEDLESS & loaded
    # Compiled extensions keep a module or two of that kind, which is in no file.
    loaded = {name for name in loaded if not name.startswith(("_cython", "cython_runtime"))}
    return {name for name in loaded if name not in {*sys.stdlib_module_names, *BARE, "__main__"}}


def test_hooks_of_a_job_that_asks_for_no_qpu_load_little(host: Host) -> None:
    host.runs(stdout("sge/qstat_j.xml.txt", 0))
    for hook in ("prolog", "epilog"):
        assert strangers(host.hook(hook)) <= LITTLE, hook


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's hooks can acquire sessions")
def test_hooks_of_a_job_that_asks_for_the_qpu_load_what_speaks_to_warden_alone(host: Host) -> None:
    host.runs(stdout("sge/qstat_j.xml.txt", 1))
    for hook in ("prolog", "epilog"):
        loaded = strangers(host.hook(hook))
        assert "zmq" in loaded, f"the {hook} did not speak to Warden"
        assert loaded <= ALL, hook


def test_load_sensor_that_has_seen_the_qpu_loads_what_speaks_to_warden_alone(host: Host) -> None:
    status, printed, loaded = host.run("load_sensors", "qpu", said=b"\n" * 20 + b"quit\n")
    assert status == 0
    assert "global:qpu_state:ready" in printed
    assert strangers(loaded) <= ALL - {"gridengine"}
