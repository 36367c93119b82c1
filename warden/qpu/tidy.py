"""Loaded by the process that runs are forked from: when the worker is dead, its folder of sockets goes with it.

multiprocessing makes a folder /tmp/pymp-* and removes it when the worker ends, but not when it is killed. That other
process notices (its pipe to the worker closes) and ends as programs do.
"""

from __future__ import annotations

import atexit
import os
import shutil
import time

FOLDER, WORKER = "WARDEN_WORKER_FOLDER", "WARDEN_WORKER_PROCESS"

# The kernel closes a dead process's files a little before its children get another parent.
_ORPHANED_IN = 1.0


def _tidy(folder: str, worker: int) -> None:
    end = time.monotonic() + _ORPHANED_IN
    while os.getppid() == worker:
        # The worker lives, and makes another such process, in the same folder.
        if time.monotonic() > end:
            return
        time.sleep(0.01)
    shutil.rmtree(folder, ignore_errors=True)


# Elsewhere than in that process it is only imported.
if os.environ.get(WORKER) == str(os.getppid()):
    atexit.register(_tidy, os.environ[FOLDER], os.getppid())
