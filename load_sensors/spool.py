"""What execd's spool says of the jobs on this host. A sensor is started in it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PROC = Path("/proc")


def live_jobs(spool: Path) -> dict[str, bool]:
    """The jobs that this host's execd runs, by the names of their folders, and whether each is suspended.

    A folder may stay long after its job, while its owner keeps the shepherd from going on; its exit status tells.
    """
    found = {}
    for entry in _entries(spool / "active_jobs"):
        folder = spool / "active_jobs" / entry
        # The folder of a job that is no array ends in .1, as that of an array's first task.
        if re.fullmatch(r"[0-9]{1,10}\.[0-9]{1,10}", entry) and not _has_ended(folder):
            found[entry] = suspended = _is_stopped(folder)
            if entry.endswith(".1"):
                found[entry.removesuffix(".1")] = suspended
    return found


def _entries(folder: Path) -> Iterator[str]:
    try:
        yield from os.listdir(folder)  # noqa: PTH208 - names are all that is needed
    except OSError:
        return


def _has_ended(folder: Path) -> bool:
    """Whether the shepherd has written the job's exit status; it makes the file empty when the job starts."""
    try:
        return (folder / "exit_status").lstat().st_size > 0
    except OSError:
        return False


def _is_stopped(folder: Path) -> bool:
    """Whether the job's first process is stopped, as `qmod -s` does to all of them. Its number is execd's to write."""
    try:
        number = int((folder / "job_pid").read_text())
        # The program's own name may hold anything; what follows the last parenthesis is the kernel's.
        state = (_PROC / str(number) / "stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, ValueError, IndexError):
        return False
    return state == b"T"
