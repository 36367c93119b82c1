"""What runs in a process of its own: one request, read from the worker, and what came of it, said to the worker.

The process is made before there is anything to do, and waits.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import math
import multiprocessing.forkserver
import os
import resource
import signal
import socket
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from warden.model import SECOND, one_line
from warden.qpu import allowance, speed
from warden.qpu.costs import human
from warden.qpu.drift import Findings, Survey
from warden.qpu.noise import Noise
from warden.qpu.physics import EMULATORS, EXTRAS, Order, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator

    from warden.qpu.physics import Fault, Physics

_PR_SET_PDEATHSIG = 1
_LONGEST_LINE = 1000
# So many seconds Pulser may look at a sequence; `examiner.CHECK` is what they may take on a busy machine.
_CHECK = 4
# What a check may have of memory, however much the machine has: another user's sequence is being emulated meanwhile.
_CHECK_MEMORY = 2**30
# More than any run has, and a number that travels.
_FOREVER = 365 * 86_400 * SECOND
# The kernel ends it before anything else when memory is short.
_FIRST_TO_DIE = "1000"


class Describe(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Say what the device is."""

    device: str


class Check(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Say whether the device can run a sequence, and how long its emulation takes."""

    device: str
    sequence: str
    noise: Noise


class Calibrate(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Carry out a calibration; `seed` is the device's."""

    survey: Survey
    seed: int


class WarmUp(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Emulate something that nobody needs, while there is nothing else to do; then go on waiting.

    A process that was just forked shares its memory with all others, and gets its own of it with the first emulation.
    """


Request = Describe | Check | Order | Calibrate | WarmUp
CALIBRATE = "warden.qpu.calibrate"


def send(connection: socket.socket, request: Request) -> None:
    """Hand a request to a process. It is in a file, so nobody waits for the process to read it, however long it is.

    Raises:
        OSError: The process has ended, or there is no file to be had.
    """
    file = os.memfd_create("request")
    try:
        with open(file, "wb", closefd=False) as output:
            output.write(msgspec.msgpack.encode(request))
        socket.send_fds(connection, [b"!"], [file])
    finally:
        os.close(file)


def serve(connection: socket.socket, emulator: str, memory: int) -> None:
    """Wait for a request, and answer it."""
    _prepare()
    while isinstance(request := _receive(connection), WarmUp):
        # What is wrong with it is said when it is asked for something.
        with contextlib.suppress(Exception):
            _physics(emulator).warm_up()
    if request is None:
        return
    allowance.allow(memory)
    # What a driver reserves for a GPU, nobody knows here: there the check before it runs has to do.
    if not _has_gpu():
        allowance.enforce(_CHECK_MEMORY if isinstance(request, Check) else None)
    try:
        with _hurrying():
            outcome = _looked_at(emulator, request)
    except _TooLongError:
        outcome = TOO_LONG
    outcome = outcome or answer(emulator, request)
    # A worker that was killed hears nothing any more.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError), connection:
        connection.sendall(msgspec.msgpack.encode(outcome))


TOO_LONG = Outcome(error=f"Pulser did not finish checking it within {_CHECK} s: make it shorter")


class _TooLongError(BaseException):
    """Nothing that Pulser's own code holds up."""


@contextlib.contextmanager
def _hurrying() -> Iterator[None]:
    """Bound the processor's time: that the machine is busy is no fault of the sequence.

    Python hears of the timer between two of its steps. In a step without an end the kernel ends the process, by a signal
    that nothing else sends (`died_of_time`).
    """
    used = math.ceil(time.process_time())
    soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
    signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, _CHECK)
    resource.setrlimit(resource.RLIMIT_CPU, (used + _CHECK + 1, hard))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))


def _too_long(*_: object) -> None:
    raise _TooLongError


def died_of_time(status: int | None) -> bool:
    """Whether a process with this exit status was ended because its check took too long."""
    return status == -signal.SIGXCPU


def _looked_at(emulator: str, request: Request) -> Outcome | None:
    """What comes of a check; for an emulation its sequence is only read, for it may not have been checked."""
    if isinstance(request, Check):
        return check(emulator, request)
    if isinstance(request, Order):
        # What is wrong with it is told by the emulation.
        with contextlib.suppress(Exception):
            _physics(emulator).read(request.device, request.sequence)
    return None


def check(emulator: str, request: Check) -> Outcome:
    """What comes of a check; its `preparation` has the time that an emulation takes to read the sequence."""
    begun = time.process_time()
    found = answer(emulator, request)
    # It reads it anew, and then samples it again and again.
    reading = 2 * math.ceil((time.process_time() - begun) * SECOND)
    if found.error:
        return found
    needed = math.ceil(found.preparation * speed.slowness()) + reading
    return msgspec.structs.replace(found, preparation=min(needed, _FOREVER))


def answer(emulator: str, request: Describe | Check | Order | Calibrate) -> Outcome:
    """What comes of a request, in this process."""
    fault: Fault = "device"
    try:
        if isinstance(request, Calibrate):
            found: Findings = importlib.import_module(CALIBRATE).calibrate(request.survey, request.seed)
            return Outcome(findings=found)
        physics = _physics(emulator)
        if isinstance(request, Describe):
            return Outcome(specs=physics.describe(request.device))
        # From here on it is the user's sequence that may break anything; it must break only its own run.
        fault = "task"
        if isinstance(request, Check):
            needed = physics.check(request.device, request.sequence, request.noise)
            return Outcome(preparation=max(0, min(needed, _FOREVER)))
        distribution = physics.emulate(request)
        return Outcome(distribution=msgspec.structs.replace(distribution, facts=physics.facts(request)))
    except ImportError as error:
        extra = f"install gridengine-qpu[{EXTRAS[emulator]}]" if emulator in EXTRAS else "is the installation whole?"
        return Outcome(error=f"{_line(error)}: the emulator {emulator} needs it, {extra}", fault="device")
    except Exception as error:  # noqa: BLE001 - whatever it is, the worker has to know
        if isinstance(request, Check) and isinstance(error, MemoryError):
            error = ValueError(f"to check it takes more than {human(_CHECK_MEMORY)} of memory: make it shorter")
        return Outcome(error=_line(error), fault=fault)


def _receive(connection: socket.socket) -> Request | None:
    """None: the worker wants nothing any more."""
    try:
        _, files, _, _ = socket.recv_fds(connection, 1, 1)
    except OSError:
        return None
    if not files:
        return None
    with os.fdopen(files[0], "rb") as file:
        file.seek(0)
        request: Request = msgspec.msgpack.decode(file.read(), type=Request)
    return request


def _physics(emulator: str) -> Physics:
    return cast("Physics", importlib.import_module(EMULATORS[emulator]))


def _prepare() -> None:
    """Die with the parent, and leave a SIGINT from the terminal to the worker."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Our parent ends when the worker does and nobody else has the pipe by which it sees that: it must not wait for us.
    server: Any = multiprocessing.forkserver._forkserver  # noqa: SLF001 - it has no other name
    alive, server._forkserver_alive_fd = server._forkserver_alive_fd, None  # noqa: SLF001 - as above
    if alive is not None:
        os.close(alive)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.simplefilter("ignore")
    # A user's sequence is in its memory.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_FIRST_TO_DIE, encoding="ascii")


def _has_gpu() -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and torch.cuda.device_count() > 0


def _line(error: BaseException) -> str:
    text = one_line(str(error)) or type(error).__name__
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text:
        return f"the emulation needs more memory than it may have ({allowance.reason()}): make the sequence shorter or smaller"
    return text[:_LONGEST_LINE]
