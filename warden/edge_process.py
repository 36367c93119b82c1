"""The HTTP edge beside the broker: a process of its own, started again when it ends, and ended with the broker."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from warden.model import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger("warden.broker")

_NEEDS = ("fastapi", "fastapi_offline", "uvicorn", "httptools")
# Between two starts of an edge that does not last, in seconds; then twice as long, up to the last.
_PAUSES = (1.0, 60.0)
_GOODBYE = 10.0


def check_installed() -> None:
    """Whether an edge can be started at all.

    Raises:
        ConfigurationError: What it is built on is missing.
    """
    missing = [name for name in _NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"http.listen needs the Python packages {', '.join(missing)}: install gridengine-qpu[http]"
        )


@contextlib.contextmanager
def beside(config: Path) -> Iterator[None]:
    """An edge with this configuration file, as long as the block lasts."""
    check_installed()
    # Whatever becomes of this process, the other end is closed with it.
    lifeline, ours = os.pipe()
    program = "import sys; from warden.start import warden; sys.argv[0] = 'warden'; warden()"
    options = ["serve", "--edge-only", "--config", str(config.resolve()), "--lifeline", str(lifeline)]
    command = [sys.executable, "-P", "-c", program, *options]
    ending = threading.Event()
    guardian = threading.Thread(target=_keep_running, args=(command, lifeline, ending), daemon=True)
    guardian.start()
    try:
        yield
    finally:
        ending.set()
        os.close(ours)
        guardian.join(_GOODBYE)
        os.close(lifeline)


def _keep_running(command: list[str], lifeline: int, ending: threading.Event) -> None:
    shortest, longest = _PAUSES
    pause = shortest
    while not ending.is_set():
        begun = time.monotonic()
        try:
            # A list that is made here.
            with subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=(lifeline,)) as edge:  # noqa: S603
                why = f"has ended with status {edge.wait()}"
        except OSError as error:
            why = f"cannot be started: {error.strerror}"
        if time.monotonic() - begun > longest:
            pause = shortest
        if not ending.is_set():
            log.error("the HTTP edge %s; it is started again in %g s", why, pause)
            ending.wait(pause)
            pause = min(2 * pause, longest)
