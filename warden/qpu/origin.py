"""Loaded by the process that emulations are forked from: what is slow is done there once, for all of them.

When the worker is dead, its folder of sockets goes with this process, too. multiprocessing makes a folder /tmp/pymp-*
and removes it when the worker ends, but not when it is killed. This process notices (its pipe to the worker closes) and
ends as programs do.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import os
import shutil
import time
import warnings
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_VARIABLE = "WARDEN_WORKER_ORIGIN"

# The kernel closes a dead process's files a little before its children get another parent.
_ORPHANED_IN = 1.0


class Origin(msgspec.Struct, frozen=True):
    """What this process is for: `emulator` is a module to be loaded and warmed up, `modules` others."""

    worker: int
    folder: str
    emulator: str
    modules: tuple[str, ...]


def tell(origin: Origin, environment: MutableMapping[str, str]) -> None:
    """Have the process that is started with this environment know."""
    environment[_VARIABLE] = msgspec.json.encode(origin).decode()


def _load(origin: Origin) -> None:
    # What is wrong with one of them is said when it is asked for something: this process must not end by it.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for module in (origin.emulator, *origin.modules):
            with contextlib.suppress(Exception):
                importlib.import_module(module)
        with contextlib.suppress(Exception):
            importlib.import_module(origin.emulator).warm_up()
    # The collector would look at all of it in each process, and so have each copy all of it.
    gc.collect()
    gc.freeze()


def _tidy(origin: Origin) -> None:
    end = time.monotonic() + _ORPHANED_IN
    while os.getppid() == origin.worker:
        # The worker lives, and makes another such process, in the same folder.
        if time.monotonic() > end:
            return
        time.sleep(0.01)
    shutil.rmtree(origin.folder, ignore_errors=True)


def _begin() -> None:
    told = os.environ.get(_VARIABLE)
    origin = None if told is None else msgspec.json.decode(told, type=Origin)
    # Elsewhere than in that process it is only imported.
    if origin is not None and origin.worker == os.getppid():
        atexit.register(_tidy, origin)
        _load(origin)


_begin()
