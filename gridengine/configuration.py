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


class GridEngineSection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the QPU is offered, and how long the hooks may take."""

    queues: tuple[Name, ...] = ("all.q",)
    sensor_hosts: tuple[Name, ...] = ("global",)
    """Configurations of Grid Engine (`qconf -sconf`) that get the load sensor: `global`, or hosts."""
    prolog_wait: Duration = Duration(10 * SECOND)
    """How long a prolog waits for a busy QPU before it sends the job back to the queue."""
    hook_limit: Duration = Duration(60 * SECOND)
    """After this time a hook ends, whatever it waits for."""
    bin: Path = Path(sys.executable).parent
    """Where qpu-prolog, qpu-epilog and qpu-load-sensor lie on the execution hosts."""

    def __post_init__(self) -> None:
        if _PATH_BREAKERS & set(str(self.bin)):
            raise ValueError(f"bin: Grid Engine cannot run programs under {str(self.bin)!r}: use a path without blanks")
        if not 0 < self.hook_limit <= 3600 * SECOND:
            raise ValueError("hook_limit: must be more than 0 and at most one hour")
        if self.prolog_wait >= self.hook_limit:
            raise ValueError("prolog_wait: must be shorter than hook_limit")


learn(GridEngineSection)


def load(path: Path) -> GridEngineSection:
    """Read and check the section.

    Raises:
        ConfigurationError: The file cannot be read, or the section says something that it cannot say.
    """
    return load_section(path, "gridengine", GridEngineSection)
