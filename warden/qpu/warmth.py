"""Loaded by the process that emulations are forked from: what is slow the first time is done there once, for all of them.

Elsewhere than in that process it is only imported.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import warnings

from warden.qpu.tidy import WORKER

EMULATOR = "WARDEN_WORKER_EMULATOR"


def _warm_up(module: str) -> None:
    # What is wrong with it is said when it is asked for something.
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        importlib.import_module(module).warm_up()


if os.environ.get(WORKER) == str(os.getppid()):
    _warm_up(os.environ[EMULATOR])
    # The collector would look at all of it in each process, and so have each copy all of it.
    gc.collect()
    gc.freeze()
