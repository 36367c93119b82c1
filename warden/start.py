"""Where the commands begin: Ctrl-C ends them quietly also while they are being loaded, which takes a while."""

from __future__ import annotations

import signal
from importlib import import_module


def warden() -> None:
    command("warden.cli", "main")


def command(module: str, name: str) -> None:
    """Load a command and run it."""
    # Who is told to ignore it, as by & in a script, goes on ignoring it.
    ours = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    run = getattr(import_module(module), name)
    if ours:
        # From here on it can be told from the command's other ends, and cleaned up after.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    run()
