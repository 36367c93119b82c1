"""The process in which libdrmaa lives, as seen from the process that uses it: started, called, given up.

A call is answered within its time limit or is an error, whatever libdrmaa does; what DRMAA refuses comes as one clear
line. What runs on the other side is `drmaa_agent`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gridengine import drmaa_agent
from warden.model import WardenError

if TYPE_CHECKING:
    from collections.abc import Mapping


class SubmissionError(WardenError):
    """Grid Engine refuses; the text says what to change."""

    code = "submission"


class JobLostError(SubmissionError):
    """The job is not, or no longer, known to this DRMAA session."""

    code = "job_lost"


class GridUnavailableError(SubmissionError):
    """The qmaster, or libdrmaa, does not answer."""

    code = "grid_unavailable"
    transient = True


class WaitTimeoutError(SubmissionError, TimeoutError):
    """The job has not ended in the given time; it goes on."""

    code = "timeout"
    transient = True


class Agent:
    """The process with libdrmaa in it, seen from here. Not safe to use from several threads."""

    def __init__(self, time_limit: float) -> None:
        self._time_limit = time_limit
        self._numbers = itertools.count(1)
        self._received = b""
        command = [sys.executable, "-I", "-S", "-X", "utf8", drmaa_agent.__file__, _drmaa_folder()]
        environment = _environment(os.environ)
        try:
            self._prints = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
            # Not a pipe: a process that does not read may not hold up a write for longer than the time limit.
            self._connection, theirs = socket.socketpair()
            with theirs:
                # A session of its own: Ctrl-C is for the user's process.
                self._process = subprocess.Popen(
                    command,
                    stdin=theirs.fileno(),
                    stdout=self._prints,
                    stderr=self._prints,
                    env=environment,
                    start_new_session=True,
                )
        except OSError as error:
            raise SubmissionError(f"cannot start {sys.executable or 'Python'} for DRMAA: {error}") from None

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def call(self, name: str, **arguments: object) -> Any:
        number = next(self._numbers)
        request = json.dumps({"id": number, "call": name, "arguments": arguments}).encode()
        deadline = time.monotonic() + self._time_limit
        try:
            self._connection.settimeout(self._time_limit)
            self._connection.sendall(request + b"\n")
            # An earlier call may have been interrupted before its answer came.
            while (answer := self._receive(deadline))["id"] != number:
                pass
        except TimeoutError:
            self.kill()
            raise GridUnavailableError(
                f"Grid Engine's DRMAA library did not answer within {self._time_limit:g} s{_maybe_done(name)}: "
                "see with qhost whether the qmaster answers, then try again"
            ) from None
        except OSError as error:
            told = self._last_words() or error
            self.kill()
            raise GridUnavailableError(
                f"the process with Grid Engine's DRMAA library ended ({told}){_maybe_done(name)}: try again"
            ) from None
        if "error" in answer:
            raise _error(answer["code"], answer["error"], arguments)
        return answer["result"]

    def close(self) -> None:
        """Let it sign off."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(drmaa_agent.GRACE + 1)
        self.kill()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._prints.close()

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\n" not in self._received:
            self._connection.settimeout(max(0.001, deadline - time.monotonic()))
            received = self._connection.recv(65536)
            if not received:
                raise ConnectionResetError("it said nothing")
            self._received += received
        line, self._received = self._received.split(b"\n", 1)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        self._prints.seek(0)
        lines = self._prints.read().decode(errors="replace").split("\n")
        return next((line for line in reversed(lines) if line.strip()), "")


def _maybe_done(call: str) -> str:
    return "; whether the job was submitted is not known, qstat shows it" if call in {"submit", "submit_array"} else ""


def _error(code: int, text: str, arguments: Mapping[str, object]) -> SubmissionError:
    """Say DRMAA's error in one line, as one of ours."""
    told = "; ".join(line.removeprefix("error: ").strip() for line in text.splitlines() if line.strip())
    job = arguments.get("job")
    if code in _UNAVAILABLE:
        return GridUnavailableError(f"Grid Engine does not answer ({told}): see with qhost whether it runs, try again")
    if code == _INVALID_JOB:
        return JobLostError(f"this session knows no job {job}, or no longer: try qstat -j {job}, or qacct -j {job}")
    if "action" in arguments:
        return SubmissionError(f"cannot {arguments['action']} job {job}: {told}")
    if arguments.get("contact"):
        return SubmissionError(
            f"there is no DRMAA session {arguments['contact']!r} ({told}): give its contact as it was"
        )
    if "attributes" in arguments:
        return SubmissionError(f"Grid Engine refuses the job ({told}): ask for what it has, see qhost -F and qconf -sc")
    return SubmissionError(f"Grid Engine's DRMAA library fails: {told}")


# DRMAA's numbers
_UNAVAILABLE = {1, 2, 5, 8, 10, 11, 12, 16}
_INVALID_JOB = 18


def _drmaa_folder() -> str:
    found = find_spec("drmaa")
    if found is None or found.origin is None:
        raise SubmissionError("the Python package drmaa is missing: pip install drmaa")
    return str(Path(found.origin).parent.parent)


def _environment(ours: Mapping[str, str]) -> dict[str, str]:
    """What libdrmaa needs to load and to find its cell, around what the user has set."""
    environment = {**_packaged_cell(), **ours}
    root = environment.get("SGE_ROOT")
    if not root:
        raise SubmissionError("SGE_ROOT is not set: source the settings.sh of your Grid Engine cell first")
    environment["GLIBC_TUNABLES"] = ":".join(filter(None, [ours.get("GLIBC_TUNABLES"), drmaa_agent.TUNABLE]))
    if not environment.get("DRMAA_LIBRARY_PATH"):
        environment["DRMAA_LIBRARY_PATH"] = str(_library(Path(root)))
    return environment


def _packaged_cell() -> dict[str, str]:
    """What Debian's own commands take where the user has set nothing."""
    cell = {"SGE_ROOT": str(_PACKAGED_ROOT)} if (_PACKAGED_ROOT / "util").is_dir() else {}
    with contextlib.suppress(OSError):
        assignments = (line.partition("=") for line in _PACKAGED_DEFAULTS.read_text().splitlines())
        cell |= {name: value.strip("\"'") for name, _, value in assignments if name in {"SGE_ROOT", "SGE_CELL"}}
    return cell


def _library(root: Path) -> Path:
    architecture = ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        told = subprocess.run([root / "util" / "arch"], capture_output=True, text=True, timeout=10, check=True)
        architecture = told.stdout.strip()
    for library in (root / "lib" / architecture / "libdrmaa.so", _PACKAGED_LIBRARY):
        if library.is_file():
            return library
    raise SubmissionError(
        f"there is no libdrmaa.so under {root}/lib: install it (Debian: gridengine-drmaa1.0), "
        "or set DRMAA_LIBRARY_PATH to where it is"
    )


_PACKAGED_DEFAULTS = Path("/etc/default/gridengine")
_PACKAGED_ROOT = Path("/var/lib/gridengine")
_PACKAGED_LIBRARY = Path("/usr/lib/gridengine-drmaa/lib/libdrmaa.so.1.0")
