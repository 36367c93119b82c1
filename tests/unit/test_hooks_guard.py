"""How a hook ends, whatever happens in it: its exit status, what it says, and in time; without Grid Engine."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time

import pytest
from hook_spool import LIMIT

from gridengine.hooks import guard
from gridengine.hooks.job import HookError
from warden import model


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, 0),
        (model.BadRequestError("x"), 100),
        (model.ForbiddenError("x"), 100),
        (model.LimitError("x"), 100),
        (model.BusyError("x"), 99),
        (model.UnavailableError("x"), 99),
        (model.ConfigurationError("x"), 99),
        (model.UnauthenticatedError("x"), 99),
        (model.NotFoundError("x"), 99),
        (model.WardenError("x"), 99),
        (HookError("x"), 99),
        (OSError(28, "No space left on device"), 99),
        (MemoryError(), 99),
        (RecursionError(), 99),
        (KeyboardInterrupt(), 99),
        (SystemExit(1), 99),
        (SystemExit(0), 99),
        (GeneratorExit(), 99),
    ],
)
def test_exit_status_of_what_became_of_a_hook(error: BaseException | None, status: int) -> None:
    assert guard.exit_status(error) == status


def test_explanation_is_one_line() -> None:
    assert guard.explain(model.BusyError("two\nlines\x1b[31m")) == "two lines [31m"
    assert guard.explain(KeyError("x")) == "this should not happen: KeyError: 'x'"


def guarded(body: str, *, on_expiry: int = 99, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run a hook in a process of its own, as Grid Engine does."""
    program = f"""
{before}
import os, sys, threading, time
from gridengine.hooks import guard
from warden import model
from warden.model import BadRequestError
def hook(running):
{textwrap.indent(textwrap.dedent(body), "    ")}
def report(reason):
    os.write(1, ("reported: " + reason).encode())
guard.Guard("hook", on_expiry={on_expiry}).run(hook, report=report)
"""
    return subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


@pytest.mark.parametrize(
    ("body", "status", "said", "reported"),
    [
        ("pass", 0, "", ""),
        ("raise model.BusyError('taken')", 99, "hook: taken\n", ""),
        ("raise model.ForbiddenError('not you')", 100, "hook: not you\n", "reported: not you"),
        ("sys.exit(1)", 99, "hook: this should not happen: SystemExit: 1\n", ""),
        ("1 / 0", 99, "hook: this should not happen: ZeroDivisionError: division by zero\n", ""),
        # What still runs does not keep it.
        ("threading.Thread(target=time.sleep, args=(999,)).start()", 0, "", ""),
        ("import atexit; atexit.register(lambda: os._exit(1))", 0, "", ""),
        ("os.close(2); raise model.BusyError('taken')", 99, "", ""),
        ("sys.stdout.close(); os.close(1); raise model.ForbiddenError('not you')", 100, "hook: not you\n", ""),
    ],
)
def test_hook_ends_as_it_should_whatever_happens_in_it(body: str, status: int, said: str, reported: str) -> None:
    done = guarded(body)
    assert (done.returncode, done.stderr, done.stdout) == (status, said, reported)


def test_hook_that_waits_in_a_library_ends_in_time() -> None:
    begun = time.monotonic()
    done = guarded("running.limit(0.5); import ctypes; ctypes.CDLL(None).sleep(999)")
    assert (done.returncode, done.stderr) == (99, "hook: not done within 0.5 s\n")
    assert time.monotonic() - begun < 10


def test_epilog_that_waits_in_a_library_ends_in_time_and_well() -> None:
    assert guarded("running.limit(0.5); import ctypes; ctypes.CDLL(None).sleep(999)", on_expiry=0).returncode == 0


def test_hook_in_an_endless_loop_ends_in_time() -> None:
    assert guarded("running.limit(0.5)\nwhile True: pass").returncode == 99


@pytest.mark.parametrize(
    "body",
    [
        # A library that keeps the interpreter's lock, as loading a library from a dead file server does.
        "running.limit(0.5); import ctypes; ctypes.PyDLL(None).sleep(999)",
        # Nobody reads what the hook says.
        """
        reading, writing = os.pipe()
        os.dup2(writing, 2)
        os.set_blocking(2, False)
        try:
            while True:
                os.write(2, b"x" * 4096)
        except BlockingIOError:
            os.set_blocking(2, True)
        running.limit(0.5)
        time.sleep(999)
        """,
    ],
    ids=["in a library that lets nobody else run", "while nobody reads its output"],
)
@pytest.mark.parametrize("hindered", [False, True], ids=["usually", "with signals ignored and blocked"])
def test_hook_that_cannot_even_watch_itself_is_killed(body: str, hindered: bool) -> None:
    inherited = "import signal; signal.signal(14, signal.SIG_IGN); signal.pthread_sigmask(signal.SIG_BLOCK, [14])"
    begun = time.monotonic()
    done = guarded(body, before=inherited if hindered else "")
    # The shell around it makes 99 of this, and 0 for the epilog.
    assert done.returncode == -14
    assert time.monotonic() - begun < 20
