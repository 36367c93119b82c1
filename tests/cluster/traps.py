"""What a user can lay out for root to step on: everything that is run or opened leaves a file, owned by whoever did it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

from grid import MASTER, Grid

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OWNER = "bob"
FOLDER = "/home/bob/trap"
ROOT, BOB = 0, 2002

# Looked for in PATH.
PROGRAMS = ("python", "python3", "sh", "bash", "dash", "env", "qstat", "munge", "id", "cat", "dirname", "readlink")
# Looked for in PYTHONPATH, and in the folder in which the job runs.
MODULES = ("sitecustomize", "msgspec", "msgpack", "zmq", "click", "debugger", "category")
PACKAGES = ("warden", "gridengine", "load_sensors")
# Opened, where it is a file that a variable names. Without a writer, who opens one stays there.
FIFOS = ("TZ", "OPENSSL_CONF", "WARDEN_CONFIG")
# The rest, by what leads to them.
OTHERS = ("PYTHONUSERBASE", "PYTHONHOME", "PYTHONSTARTUP", "BROWSER", "BASH_ENV", "ENV", "FUNCTION", "PS4", "LD_DEBUG")

ALL = {*PROGRAMS, *MODULES, *PACKAGES, *FIFOS, *OTHERS}
# These Grid Engine 8.1.9 keeps from hooks, or from jobs altogether.
KEPT_AWAY = {"BASH_ENV", "ENV", "FUNCTION", "PS4", "LD_DEBUG"}

# Where somebody listens who is not Warden.
PORT = 7699
URL = f"http://127.0.0.1:{PORT}"

VARIABLES = {
    "PATH": f"{FOLDER}/bin:/usr/local/bin:/usr/bin:/bin",
    "PYTHONPATH": f"{FOLDER}/modules",
    "PYTHONHOME": f"{FOLDER}/python",
    "PYTHONUSERBASE": f"{FOLDER}/base",
    "PYTHONSTARTUP": f"{FOLDER}/startup.py",
    "PYTHONBREAKPOINT": "debugger.start",
    "PYTHONWARNINGS": "all:0:category.x:0:0",
    "PYTHONINSPECT": "1",
    "PYTHONPYCACHEPREFIX": f"{FOLDER}/cache",
    "PYZMQ_BACKEND": "antigravity",
    "BROWSER": f"{FOLDER}/browser",
    "MSGPACK_PUREPYTHON": "1",
    "SETUPTOOLS_USE_DISTUTILS": "local",
    "BASH_ENV": f"{FOLDER}/bash_env",
    "ENV": f"{FOLDER}/env",
    "IFS": "/",
    "PS4": f"$(: > {FOLDER}/sprung/PS4.$$)",
    "SHELLOPTS": "xtrace",
    "BASH_FUNC_true%%": f"() {{ : > {FOLDER}/sprung/FUNCTION.$$; }}",
    "LD_PRELOAD": f"{FOLDER}/no-object",
    "LD_AUDIT": f"{FOLDER}/no-object",
    "LD_LIBRARY_PATH": FOLDER,
    "LD_DEBUG": "libs",
    "LD_DEBUG_OUTPUT": f"{FOLDER}/sprung/LD_DEBUG",
    # Nonsense in it keeps every program from starting, which is a known limit.
    "GLIBC_TUNABLES": "glibc.malloc.check=0",
    "MALLOC_CONF": "stats_print:true",
    "MALLOC_TRACE": f"{FOLDER}/sprung/MALLOC_TRACE",
    "LOCPATH": FOLDER,
    "LC_ALL": "trap",
    "TERM": "dumb",
    "HOME": FOLDER,
    "USER": "root",
    "LOGNAME": "root",
    "TMPDIR": FOLDER,
    "TMP": FOLDER,
    **{f"XDG_{name}": FOLDER for name in ("CONFIG_HOME", "CONFIG_DIRS", "DATA_HOME", "RUNTIME_DIR", "CACHE_HOME")},
    "SGE_ROOT": f"{FOLDER}/cell",
    "SGE_CELL": "trap",
    "SGE_QMASTER_PORT": "1",
    "__SGE_PREFIX__QMASTER_PORT": "1",
    "__SGE_PREFIX__ROOT": "/nonexistent",
    "__SGE_PREFIX__JOB_SPOOL_DIR": "/nonexistent",
    "SGE_EXECD_PORT": "1",
    "SGE_CLUSTER_NAME": "trap",
    "SGE_BINARY_PATH": f"{FOLDER}/bin",
    "SGE_JOB_SPOOL_DIR": FOLDER,
    "SGE_TASK_ID": "7",
    "SGE_DEBUG_LEVEL": "3 3 3 3 3 3 3 3",
    "SGE_ND": "1",
    "SGE_HGR_qpu": "0",
    "JOB_ID": "1",
    "QUEUE": "production",
    "HOSTNAME": "node2",
    "QRMI_JOB_ID": "1",
    "QRMI_JOB_UID": "0",
    "QRMI_JOB_QPU_RESOURCES": "trap",
    "QRMI_JOB_QPU_TYPES": "trap",
    "fresnel_QRMI_WARDEN_URL": URL,
    "fresnel_QRMI_URL": URL,
    "fresnel_QRMI_JOB_ACQUISITION_TOKEN": "forged",
    "http_proxy": URL,
    "ALL_PROXY": URL,
    "WARDEN_ENDPOINT": "tcp://node2:1",
    "WARDEN_SESSION": "forged",
    "WARDEN_DEBUG": "1",
    **{name: f"{FOLDER}/fifo-{name}" for name in FIFOS},
}

# Of the command line of qsub, which cannot have commas in values.
FORGED = ",".join(f"{name}={value}" for name, value in VARIABLES.items())

_SHELL = f"#!/bin/sh\n: > {FOLDER}/sprung/NAME.$$\n"
# So early in Python's own start there is no `open`.
_PYTHON = (
    "import posix\n"
    f"posix.close(posix.open('{FOLDER}/sprung/NAME.%d' % posix.getpid(), posix.O_CREAT | posix.O_WRONLY))\n"
)
_ENCODINGS = """
__path__.append("LIBRARY/encodings")
exec(posix.read(posix.open("LIBRARY/encodings/__init__.py", posix.O_RDONLY), 1000000))
"""

# Does all that our hooks must not do; started as root by Grid Engine, and by the user himself.
_CARELESS = """#!/bin/bash
tz=$TZ openssl=$OPENSSL_CONF config=$WARDEN_CONFIG
unset TZ OPENSSL_CONF WARDEN_CONFIG
PROGRAMS
/usr/bin/python3 -IS -c 'import sys; from urllib.request import urlopen; urlopen(sys.argv[1])' $fresnel_QRMI_WARDEN_URL
cd FOLDER/cwd
/usr/bin/python3 -c 'import IMPORTS; breakpoint()' </dev/null
/usr/bin/python3 -i </dev/null
KIT/bin/python -I -c 'import zmq'
/bin/bash -c true
/bin/dash -i -c :
opened() { /usr/bin/timeout 20 /bin/sh -c ': > "$1"' sh "$2" && : > "FOLDER/sprung/$1.$$"; }
TZ=$tz /usr/bin/python3 -IS -c 'import time' &
opened TZ "$tz"
OPENSSL_CONF=$openssl /usr/bin/python3 -IS -c 'import _hashlib' &
opened OPENSSL_CONF "$openssl"
WARDEN_CONFIG=$config PYZMQ_BACKEND=cython KIT/bin/python -I KIT/bin/qpu status &
opened WARDEN_CONFIG "$config"
wait
exit 0
"""


# Says who comes: the uid of each that connects.
_LISTENER = """
import socket
with socket.create_server(("127.0.0.1", PORT)) as server:
    print("listening", flush=True)
    while True:
        peer, (_, port) = server.accept()
        ours, theirs = f":{PORT:04X}", f":{port:04X}"
        with open("/proc/net/tcp") as table:
            [uid] = [line.split()[7] for line in table if ours in line.split()[2] and theirs in line.split()[1]]
        print(uid, flush=True)
        peer.close()
"""
_CALL = "import socket; socket.create_connection(('127.0.0.1', PORT)).recv(1)"


class Listener:
    """Of bob's, at the forged URL."""

    def __init__(self, grid: Grid, node: str) -> None:
        self._grid, self._node = grid, node
        command = ["/usr/bin/python3", "-c", f"PORT = {PORT}{_LISTENER}"]
        self._process = grid.lab.popen(node, command, user=OWNER, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._said = self._process.stdout
        assert self._said.readline() == "listening\n"

    def heard(self) -> list[int]:
        """Who has come; the last one is bob, now, to show that it listens."""
        self._grid.lab.run(self._node, ["/usr/bin/python3", "-c", f"PORT = {PORT}; {_CALL}"], user=OWNER)
        self._process.terminate()
        return [int(line) for line in self._said]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Traps:
    """Laid out in bob's home; `sprung` says which were, and by whom."""

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._place = grid.home(OWNER) / "trap"
        # Tests lay things into homes, too.
        self._before: set[str] = set()
        self._before = set(self.of_root())

    def lay(self) -> None:
        self.take_away()
        run = self._grid.lab.run
        found = "import os, sys; print(os.path.dirname(os.__file__), 'python%d.%d' % sys.version_info[:2])"
        library, version = run("node1", ["/usr/bin/python3", "-IS", "-c", found]).stdout.split()
        for name in PROGRAMS:
            self._write(f"bin/{name}", _SHELL, name)
        for name in MODULES:
            self._write(f"modules/{name}.py", _PYTHON, name)
        for name in PACKAGES:
            self._write(f"cwd/{name}/__init__.py", _PYTHON, name)
        self._write(f"base/lib/{version}/site-packages/usercustomize.py", _PYTHON, "PYTHONUSERBASE")
        self._write("startup.py", _PYTHON, "PYTHONSTARTUP")
        self._write("browser", _SHELL, "BROWSER")
        self._write("bash_env", _SHELL, "BASH_ENV")
        self._write("env", _SHELL, "ENV")
        self._write("no-object", "no object\n", "")
        self._write("cell/bin/lx-amd64/qstat", _SHELL, "qstat")
        home = f"python/lib/{version}"
        self._write(f"{home}/encodings/__init__.py", _PYTHON + _ENCODINGS.replace("LIBRARY", library), "PYTHONHOME")
        run("node1", ["sh", "-c", f'ln -s "$1"/* {FOLDER}/{home}/ 2>/dev/null; true', "sh", library])
        for name in FIFOS:
            os.mkfifo(self._fifo(name))
        (self._place / "sprung").mkdir()
        (self._place / "cache").mkdir()
        run(MASTER, ["chown", "-hR", f"{OWNER}:{OWNER}", FOLDER])

    def take_away(self) -> None:
        # Whoever reads one would stay for ever.
        self.held()
        shutil.rmtree(self._place, ignore_errors=True)
        for name in self.of_root():
            (self._grid.home(OWNER) / name).unlink()

    def forget(self) -> None:
        for path in (self._place / "sprung").iterdir():
            path.unlink()

    def sprung(self, uid: int) -> set[str]:
        """The traps that this user's programs ran or opened."""
        return {path.name.partition(".")[0] for path in (self._place / "sprung").iterdir() if path.stat().st_uid == uid}

    def of_root(self) -> list[str]:
        """All that root has made in bob's home since then."""
        home = self._grid.home(OWNER)
        made = {str(path.relative_to(home)) for path in home.rglob("*") if path.lstat().st_uid == ROOT}
        return sorted(made - self._before)

    def held(self) -> list[str]:
        """The FIFOs that somebody is about to read."""
        found = []
        for name in FIFOS:
            # Without a reader, this fails. Where there is one, it goes on when it is closed.
            with contextlib.suppress(OSError):
                os.close(os.open(self._fifo(name), os.O_WRONLY | os.O_NONBLOCK))
                found.append(name)
        return found

    def careless(self) -> str:
        """A program that steps on everything."""
        text = _CARELESS.replace("PROGRAMS", "\n".join(f"{name} </dev/null" for name in PROGRAMS))
        text = text.replace("IMPORTS", ", ".join(name for name in (*MODULES, *PACKAGES) if name != "debugger"))
        return text.replace("FOLDER", FOLDER).replace("KIT", str(self._grid.lab.kit))

    def _write(self, name: str, text: str, trap: str) -> Path:
        path = self._place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.replace("NAME", trap))
        path.chmod(0o755)
        return path

    def _fifo(self, name: str) -> Path:
        return self._place / f"fifo-{name}"


@contextlib.contextmanager
def careless_prolog(grid: Grid, traps: Traps) -> Iterator[None]:
    """In the place of our prolog, one that does what must not be done."""
    path = grid.home("root") / "careless"
    path.write_text(traps.careless())
    path.chmod(0o755)
    shown = grid.lab.run(MASTER, ["qconf", "-sq", "all.q"]).stdout.replace("\\\n", " ")
    [ours] = [line.split(maxsplit=1)[1] for line in shown.splitlines() if line.startswith("prolog ")]
    grid.lab.run(MASTER, ["qconf", "-rattr", "queue", "prolog", "root@/home/root/careless", "all.q"])
    try:
        yield
    finally:
        grid.lab.run(MASTER, ["qconf", "-rattr", "queue", "prolog", " ".join(ours.split()), "all.q"])
