"""What no job can have written: the environment of the shepherd that started the hook.

Grid Engine makes SGE_X of each variable __SGE_PREFIX__X of a job, over what it has set itself. So a job can name other
ports of the qmaster, and have a hook of root ask one that is its owner's. The shepherd has execd's environment. Where
that names no ports, execd takes those of /etc/services, and so do we.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

PORTS = ("SGE_QMASTER_PORT", "SGE_EXECD_PORT")
_NAME = "sge_shepherd"
# From the hook's interpreter over the shell around it to the shepherd.
_FAR = 4


def with_its_ports(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment, but the ports as the shepherd has them; as it is where no shepherd has started us."""
    shepherd = _find(os.getppid())
    if shepherd is None:
        return dict(environment)
    others = {name: value for name, value in environment.items() if name not in PORTS}
    return others | ports((shepherd / "environ").read_bytes())


def ports(data: bytes) -> dict[str, str]:
    """Pure: the ports in an environment as the kernel keeps it."""
    pairs = (line.decode(errors="replace").partition("=") for line in data.split(b"\0"))
    return {name: value for name, _, value in pairs if name in PORTS and value}


def _find(process: int) -> Path | None:
    """The nearest ancestor that is a shepherd, in /proc."""
    for _ in range(_FAR):
        folder = Path("/proc", str(process))
        try:
            # Of a program that was updated meanwhile the kernel says so behind its name.
            if (folder / "exe").readlink().name.partition(" ")[0] == _NAME:
                return folder
            process = int((folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return None
    return None
