"""The `[gridengine]` section of the configuration."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec

from warden.config import load_section
from warden.model import SECOND, learn
from warden.sections import Duration

# Names go into qconf's arguments and lists; paths into command lines that Grid Engine splits at blanks and commas.
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*\Z", max_length=255)]
_PATH_BREAKERS = frozenset(" \t\r\n,\\$'\"")


HostOrGroup = Annotated[str, msgspec.Meta(pattern=r"^@?[A-Za-z0-9_][A-Za-z0-9_.-]*\Z", max_length=255)]


class QpuEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One of several QPUs (`[[gridengine.qpu]]`): where its Warden's configuration is, and which queues offer it."""

    config: Path | None = None
    """None: the QPU of the file that says this."""
    queues: Annotated[tuple[Name, ...], msgspec.Meta(min_length=1)]
    hosts: tuple[HostOrGroup, ...] = ()


class GridEngineSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the QPUs are offered, what is set in Grid Engine for them, and how long the hooks may take."""

    queues: tuple[Name, ...] = ("all.q",)
    """Which offer the QPU, where there is but one."""
    hosts: tuple[HostOrGroup, ...] = ()
    """Hosts and host groups of these queues that offer it; without any, all of them."""
    qpu: tuple[QpuEntry, ...] = ()
    sensor_hosts: tuple[Name, ...] = ("global",)
    """Configurations of Grid Engine (`qconf -sconf`) that get the load sensor: `global`, or hosts."""
    prolog_wait: Duration = Duration(10 * SECOND)
    """How long a prolog waits for a busy QPU before it sends the job back to the queue."""
    hook_limit: Duration = Duration(60 * SECOND)
    """After this time a hook ends, whatever it waits for."""
    retry_pause: Duration = Duration(30 * SECOND)
    """How long a job that was sent back is left alone; twice as long each time, ..."""
    retry_longest: Duration = Duration(600 * SECOND)
    """... and at most so long."""
    attempts: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1000
    """After so many in vain the job is held, in error, with the reason."""
    bin: Path = Path(sys.executable).parent
    """Where qpu-prolog, qpu-epilog, qpu-load-sensor and qpu-jsv lie on the hosts."""
    record: Path = Path("/var/lib/gridengine-qpu")
    """Where `qpu-admin apply` writes down what was there before."""
    usage: bool = True
    """On OCS: whether jobs' use of the QPU goes into Grid Engine's own accounting (`usage_patterns`)."""
    jsv: bool = False
    """Whether the qmaster asks qpu-jsv about each job (`jsv_url`)."""
    rsmap: Name | None = None
    """On OCS: a complex of type RSMAP by which the scheduler names the QPU that a job was granted."""
    reserve_ahead: Duration = Duration(2 * 86400 * SECOND)
    """How far ahead `qpu-admin reserve` makes advance reservations for windows."""

    def __post_init__(self) -> None:
        if _PATH_BREAKERS & set(str(self.bin)):
            raise ValueError(f"bin: Grid Engine cannot run programs under {str(self.bin)!r}: use a path without blanks")
        if not 0 < self.hook_limit <= 3600 * SECOND:
            raise ValueError("hook_limit: must be more than 0 and at most one hour")
        if self.prolog_wait >= self.hook_limit:
            raise ValueError("prolog_wait: must be shorter than hook_limit")
        if not SECOND <= self.retry_pause <= self.retry_longest:
            raise ValueError("retry_pause: must be at least 1 s and at most retry_longest")
        if not self.queues and not self.qpu:
            raise ValueError(
                "queues: name at least one; to offer the QPU nowhere, `qpu-admin remove` with those that there were"
            )
        queues = [queue for entry in self.qpu for queue in entry.queues]
        if len(set(queues)) < len(queues):
            raise ValueError("qpu: a queue offers one QPU: name it once")
        if len(set(self.queues)) < len(self.queues):
            raise ValueError("queues: name each queue once")


learn(GridEngineSection)


def load(path: Path) -> GridEngineSection:
    """Read and check the section.

    Raises:
        ConfigurationError: The file cannot be read, or the section says something that it cannot say.
    """
    return load_section(path, "gridengine", GridEngineSection)
