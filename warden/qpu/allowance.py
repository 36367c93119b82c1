"""How much memory an emulation may have: what `qpu.memory` says, and never more than the machine has."""

from __future__ import annotations

import os
import resource
from pathlib import Path

from warden.qpu.costs import human

_KILOBYTE = 1024
# Beside the emulation's own: stacks of threads, what allocators keep.
_SLACK = 512 * 2**20
# Where a container's limit is.
_CGROUP = Path("/sys/fs/cgroup/memory.max")

_configured: list[int] = []


def allow(configured: int) -> None:
    """Say what `qpu.memory` is, 0 without one; for this process, which emulates one sequence."""
    _configured[:] = [configured]


def memory() -> int:
    """Bytes that an emulation in this process may have."""
    configured = sum(_configured)
    machine = machine_memory()
    return min(configured, machine) if configured else machine


def reason() -> str:
    """Why it is not more, to follow "and"."""
    which = "qpu.memory allows" if memory() < machine_memory() else "this machine has"
    return f"{which} {human(memory())}"


def machine_memory() -> int:
    """Bytes of this machine, or of the container that we are in."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(whole, int(_CGROUP.read_text(encoding="ascii")))
    except (OSError, ValueError):
        return whole


def enforce(most: int | None = None) -> None:
    """Let the kernel refuse what goes beyond it, or beyond `most` where that is less.

    It counts what is written to (RLIMIT_DATA), not what is only reserved (RLIMIT_AS): PyTorch reserves a lot.
    """
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    held = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmData:")) * _KILOBYTE
    limit = held + min(memory(), memory() if most is None else most) + _SLACK
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
