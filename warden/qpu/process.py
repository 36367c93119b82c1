"""Each run of a real emulator has a process of its own, forked from one that has done the imports.

A crash or an endless emulation costs that run alone, and a run is stopped by killing its process. This module is what
the worker imports; the emulator's own module, with all that it needs, is imported by the process that the others are
forked from, once.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import logging
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.util
import os
import resource
import signal
import time
import warnings
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import msgspec

from warden.model import SECOND, ConfigurationError, Micros, one_line
from warden.qpu import drift, tidy
from warden.qpu.drift import Findings, Survey
from warden.wire import Fact

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection
    from multiprocessing.context import ForkServerProcess

log = logging.getLogger("warden.worker")

# What `qpu.emulator` may say, and the modules behind it.
EMULATORS = {"qutip": "warden.qpu.emulator", "echo": "warden.qpu.echo"}
# Those whose runs need no process: nothing in them crashes, lasts, or takes more memory than their result. To fork takes
# several milliseconds, and they are there to show what Warden takes.
_INSTANT = {"echo"}

TIDY = tidy.__name__
_CALIBRATE = "warden.qpu.calibrate"

_PR_SET_PDEATHSIG = 1
# Importing Pulser takes seconds on an idle machine.
_IMPORTS_TAKE = 120
# A killed process ends at once, unless the kernel is stuck in its name: nobody waits for that.
_DYING_TAKES = 5
# Of what a process says, as much is taken in one go.
_CHUNK = 2**20
# Address space of a run's process, in bytes: far more than the largest register needs, less than a machine has.
_MEMORY = 8 * 2**30
# So many seconds Pulser may look at a sequence; `runner.CHECK` is what they may take on a busy machine.
_CHECK = 4
# More than any run has, and a number that travels.
_FOREVER = 365 * 86_400 * SECOND


class Specs(msgspec.Struct, frozen=True):
    """What the worker tells the broker of its device: name, largest register, and Pulser's JSON of all of it."""

    name: str
    qubits: int
    json: str


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """Shots [first_shot, first_shot + shots) of a task. The same seed and task give the same shots, however cut."""

    device: str
    sequence: str
    first_shot: int
    shots: int
    seed: int
    task: int


class Outcome(msgspec.Struct, frozen=True):
    """One bitstring for each shot, in order, atoms in the order of the register; or what went wrong, in one line.

    Of a calibration it has the `findings`.

    `fault`: whether the task is to blame for an error, or the device, which may do better the next time.
    """

    shots: list[str] = []
    facts: dict[str, Fact] = {}
    """Of the sequence, for the metadata of its result."""
    error: str = ""
    fault: Literal["task", "device"] = "task"
    specs: Specs | None = None
    findings: Findings | None = None
    preparation: Micros = 0


class Physics(Protocol):
    """What an emulator's module offers."""

    def describe(self, device: str, /) -> Specs:
        """Say what the device of this name is; whatever it raises is the configuration's fault."""

    def check(self, device: str, sequence: str, /) -> Micros:
        """Say what a sequence needs before its first shot; whatever it raises is why the device cannot run it."""

    def sample(self, order: Order, /) -> list[str]:
        """Draw the ordered shots; whatever it raises ends the run with an error."""

    def facts(self, order: Order, /) -> dict[str, Fact]:
        """What is told of the sequence with its result, under Pulser's names."""


class Emulation:
    """A process at work. Readable (`fileno`) when it is worth asking whether it is `done`. Nothing here blocks for long.

    Its outcome is what it writes until it closes the pipe: a process that stops in the middle of that keeps nobody
    from killing it.
    """

    def __init__(self, process: ForkServerProcess, pipe: Connection) -> None:
        self._process, self._pipe = process, pipe
        self._said = bytearray()
        self._ended = False

    def fileno(self) -> int:
        return self._pipe.fileno()

    def done(self) -> bool:
        """Take in what the process says, and tell whether it has said all."""
        if not self._ended and self._pipe.poll():
            said = os.read(self._pipe.fileno(), _CHUNK)
            self._said += said
            self._ended = not said
        return self._ended

    def wait(self, limit: float) -> bool:
        """Wait until it is done, at most so many seconds; whether it is."""
        end = time.monotonic() + limit
        while not self.done():
            if not self._pipe.poll(max(0.0, end - time.monotonic())):
                return False
        return True

    def outcome(self, fault: Literal["task", "device"] = "task") -> Outcome:
        """What the process found, once it is done; a process that died has an error for an outcome, by this fault."""
        try:
            return msgspec.msgpack.decode(self._said, type=Outcome)
        except msgspec.DecodeError:
            self._process.join(_DYING_TAKES)
            why = f"the emulator died (exit status {self._process.exitcode}): is there enough memory?"
            return Outcome(error=why, fault=fault)

    def end(self) -> None:
        self._process.kill()
        self._process.join(_DYING_TAKES)
        if self._process.exitcode is None:
            log.warning("the emulator's process %s was killed and does not end", self._process.pid)
        self._pipe.close()


class Emulator:
    """Starts the processes for one device."""

    def __init__(self, device: str, seed: int, emulator: str = "qutip") -> None:
        """Import the emulator in the process that the others are forked from.

        Raises:
            ConfigurationError: There is no such device, or what the emulator needs is not installed.
        """
        self._device, self._seed, self._emulator = device, seed, emulator
        self._context = multiprocessing.get_context("forkserver")
        # The command's own module too: each process would import it again, being the program's main module.
        self._context.set_forkserver_preload(
            [TIDY, EMULATORS[emulator], *([] if emulator in _INSTANT else [_CALIBRATE]), "warden.cli"]
        )
        # A worker that was killed can clear nothing away: the process that the others are forked from does.
        os.environ[tidy.FOLDER], os.environ[tidy.WORKER] = multiprocessing.util.get_temp_dir(), str(os.getpid())
        self.specs = self._describe()

    def start(self, *, task: int, sequence: str, first_shot: int, shots: int) -> Emulation:
        """Begin a run.

        Raises:
            OSError: The machine has no process to spare.
        """
        return self._fork(_run, msgspec.msgpack.encode(self._order(task, sequence, first_shot, shots)))

    def at_once(self, *, task: int, sequence: str, first_shot: int, shots: int) -> Outcome | None:
        """What a run comes to, if it can be had without a process; else it has to be started."""
        if self._emulator not in _INSTANT:
            return None
        return _sampled(self._emulator, self._order(task, sequence, first_shot, shots))

    def survey(self, survey: Survey) -> Emulation:
        """Begin a calibration.

        Raises:
            OSError: The machine has no process to spare.
        """
        return self._fork(_survey, msgspec.msgpack.encode((survey, self._seed)))

    def survey_at_once(self, survey: Survey) -> Outcome | None:
        """What a calibration comes to, if it can be had without a process."""
        return Outcome(findings=drift.at_once(survey)) if self._emulator in _INSTANT else None

    def check(self, sequence: str) -> Emulation:
        """Begin to look at a sequence; its outcome has a preparation, or an error.

        Raises:
            OSError: The machine has no process to spare.
        """
        return self._fork(_check, msgspec.msgpack.encode((self._device, sequence)))

    def checked_at_once(self, sequence: str) -> Outcome | None:
        """What a check comes to, if it can be had without a process; else it has to be started."""
        return _checked(self._emulator, self._device, sequence) if self._emulator in _INSTANT else None

    def _order(self, task: int, sequence: str, first_shot: int, shots: int) -> Order:
        return Order(
            device=self._device,
            sequence=sequence,
            first_shot=first_shot,
            shots=shots,
            seed=self._seed,
            task=task,
        )

    def _describe(self) -> Specs:
        try:
            emulation = self._fork(_describe, self._device.encode())
        except OSError as error:
            raise ConfigurationError(f"the emulator cannot start: {error}") from None
        try:
            if not emulation.wait(_IMPORTS_TAKE):
                raise ConfigurationError(
                    f"the emulator {self._emulator} did not come up within {_IMPORTS_TAKE} s: is the machine overloaded?"
                )
            outcome = emulation.outcome()
        finally:
            emulation.end()
        if outcome.specs is None:
            raise ConfigurationError(outcome.error)
        return outcome.specs

    def _fork(self, target: Callable[[Connection, str, bytes], None], argument: bytes) -> Emulation:
        try:
            return self._forked(target, argument)
        except (OSError, EOFError) as error:
            # The process that the others are forked from ends when it cannot fork; the next start makes a new one.
            why = "its fork server has ended" if isinstance(error, EOFError) else error.strerror
            raise OSError(f"no process can be started ({why})") from error

    def _forked(self, target: Callable[[Connection, str, bytes], None], argument: bytes) -> Emulation:
        ours, theirs = self._context.Pipe(duplex=False)
        with theirs:
            process = self._context.Process(target=target, args=(theirs, self._emulator, argument), daemon=True)
            try:
                process.start()
            except BaseException:
                ours.close()
                raise
        return Emulation(process, ours)


def _describe(pipe: Connection, emulator: str, device: bytes) -> None:
    _prepare()
    try:
        outcome = Outcome(specs=_physics(emulator).describe(device.decode()))
    except ImportError as error:
        outcome = Outcome(error=f"{error}: the emulator {emulator} needs it, install gridengine-qpu[worker]")
    except Exception as error:  # noqa: BLE001 - whatever it is, the worker has to know
        outcome = Outcome(error=_line(error))
    _say(pipe, outcome)


def _run(pipe: Connection, emulator: str, order: bytes) -> None:
    _prepare()
    _say(pipe, _sampled(emulator, msgspec.msgpack.decode(order, type=Order)))


def _survey(pipe: Connection, _: str, argument: bytes) -> None:
    _prepare()
    try:
        survey, seed = msgspec.msgpack.decode(argument, type=tuple[Survey, int])
        outcome = Outcome(findings=importlib.import_module(_CALIBRATE).calibrate(survey, seed))
    except Exception as error:  # noqa: BLE001 - as above
        outcome = Outcome(error=_line(error), fault="device")
    _say(pipe, outcome)


def _check(pipe: Connection, emulator: str, question: bytes) -> None:
    _prepare()
    device, sequence = msgspec.msgpack.decode(question, type=tuple[str, str])
    # Of the processor's time: that the machine is busy is no fault of the sequence.
    signal.signal(signal.SIGXCPU, _too_long)
    resource.setrlimit(resource.RLIMIT_CPU, (_CHECK, _CHECK + 1))
    try:
        outcome = _checked(emulator, device, sequence)
    except _TooLongError:
        outcome = Outcome(error=f"Pulser did not finish checking it within {_CHECK} s: make it shorter")
    _say(pipe, outcome)


class _TooLongError(BaseException):
    """Nothing that Pulser's own code holds up."""


def _too_long(*_: object) -> None:
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    raise _TooLongError


def _checked(emulator: str, device: str, sequence: str) -> Outcome:
    fault: Literal["task", "device"] = "device"
    try:
        physics = _physics(emulator)
        fault = "task"
        return Outcome(preparation=max(0, min(int(physics.check(device, sequence)), _FOREVER)))
    except Exception as error:  # noqa: BLE001 - as above
        return Outcome(error=_line(error), fault=fault)


def _sampled(emulator: str, order: Order) -> Outcome:
    fault: Literal["task", "device"] = "device"
    try:
        physics = _physics(emulator)
        # From here on it is the user's sequence that may break anything; it must break only its own run.
        fault = "task"
        return Outcome(physics.sample(order), facts=physics.facts(order))
    except Exception as error:  # noqa: BLE001 - as above
        return Outcome(error=_line(error), fault=fault)


def _say(pipe: Connection, outcome: Outcome) -> None:
    # A worker that was killed hears nothing any more.
    with contextlib.suppress(BrokenPipeError), pipe, open(pipe.fileno(), "wb", closefd=False) as output:
        output.write(msgspec.msgpack.encode(outcome))


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
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))


def _line(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return "the emulation needs more memory than a run may have: make the sequence shorter or smaller"
    return one_line(str(error))[:1000] or type(error).__name__
