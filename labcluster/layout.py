"""Where a cluster's things are on the machine, and what its hosts are called."""

import contextlib
import fcntl
import math
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from labcluster.errors import BusyError, LabError, NotUpError

MASTER = "master"
MOST_NODES = 200
_POLL = 0.05


def state_home() -> Path:
    """The one folder of all clusters and of the kit's environment."""
    return Path(os.environ.get("LAB_HOME") or "/var/lib/gridengine-qpu-lab").absolute()


@dataclass(frozen=True)
class Layout:
    """A cluster's name and the paths that follow from it."""

    name: str = "lab"
    home: Path = field(default_factory=state_home)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,30}", self.name):
            raise LabError(f"{self.name!r} is no name for a cluster: use letters, digits, - and _, 31 at most")

    @property
    def folder(self) -> Path:
        """Everything of this cluster; gone after `down`."""
        return self.home / "clusters" / self.name

    @property
    def lock(self) -> Path:
        """Held by the command that sets the cluster up or takes it down."""
        return self.home / "locks" / self.name

    @property
    def record(self) -> Path:
        """Written when the cluster is complete: what it was set up as."""
        return self.folder / "cluster.json"

    @property
    def logs(self) -> Path:
        return self.folder / "log"

    @property
    def etc(self) -> Path:
        """The hosts' /etc, one for all."""
        return self.folder / "etc"

    @property
    def users(self) -> Path:
        """The hosts' /home, one for all."""
        return self.folder / "home"

    @property
    def cell(self) -> Path:
        """The hosts' /var/lib/gridengine, Grid Engine's root, one for all."""
        return self.folder / "gridengine"

    @property
    def commands(self) -> Path:
        """The hosts' /usr/local/bin, one for all."""
        return self.folder / "bin"

    @property
    def kit(self) -> Path:
        """The virtual environment with the kit, at the same path on the machine and on every host."""
        return self.home / "venv"

    @property
    def qrmi(self) -> Path:
        """The virtual environment with QRMI's own clients, as a user would make one; where the kit's is, too."""
        return self.home / "qrmi"

    def host_folder(self, host: str) -> Path:
        return self.folder / "hosts" / host

    def var(self, host: str) -> Path:
        """The host's own /var."""
        return self.host_folder(host) / "var"

    def init_lock(self, host: str) -> Path:
        """Held by the host's first process: the host exists for as long as it is."""
        return self.host_folder(host) / "init"

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names of the hosts, the master first, whether they run or not; empty where there is no cluster."""
        try:
            names = [path.name for path in (self.folder / "hosts").iterdir()]
        except FileNotFoundError:
            return ()
        return tuple(sorted(names, key=host_number))

    def check_host(self, host: str) -> None:
        if not self.hosts:
            raise NotUpError(f"there is no cluster {self.name}: run ./lab up{self.option}")
        if host not in self.hosts:
            raise NotUpError(f"cluster {self.name} has no host {host}: it has {', '.join(self.hosts)}")

    @property
    def option(self) -> str:
        """What a user adds to a command to mean this cluster."""
        return "" if self.name == "lab" else f" --name {self.name}"


def host_number(host: str) -> int:
    """0 for the master, 1 for node1 and so on."""
    return 0 if host == MASTER else int(host.removeprefix("node"))


def host_names(nodes: int) -> tuple[str, ...]:
    return (MASTER, *(f"node{number}" for number in range(1, nodes + 1)))


def address(host: str) -> str:
    """The host's address, the same in every cluster: they do not see each other."""
    return "10.77.0.1" if host == MASTER else f"10.77.0.{10 + host_number(host)}"


@contextlib.contextmanager
def locked(path: Path, limit: float = math.inf, busy: str = "") -> Iterator[int]:
    """Hold a file's lock, after at most `limit` seconds, or raise BusyError; gives the lock's descriptor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        until = time.monotonic() + limit
        while not _flocked(descriptor):
            if time.monotonic() >= until:
                raise BusyError(busy)
            time.sleep(_POLL)
        yield descriptor
    finally:
        os.close(descriptor)


def _flocked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
