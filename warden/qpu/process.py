"""Each emulation has a process of its own, forked from one that has done the imports.

A crash or an endless emulation costs that task alone, and a run is stopped by killing its process. A process is made
while the one before it is at work, so none waits for it. This module is what the worker imports; the emulator's own
module, with all that it needs, is imported by the process that the others are forked from, once.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import multiprocessing.forkserver
import multiprocessing.resource_tracker
import multiprocessing.util
import os
import select
import signal
import socket
import time
from typing import TYPE_CHECKING

import msgspec

from warden.model import ConfigurationError
from warden.qpu import child, drift, origin
from warden.qpu.cache import Cache
from warden.qpu.device import read
from warden.qpu.noise import Noise
from warden.qpu.physics import EMULATORS, Distribution, Order, Outcome, Specs
from warden.qpu.shots import draw, warm_up

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

    from warden.qpu.drift import Survey
    from warden.qpu.physics import Fault

log = logging.getLogger("warden.worker")

# Those whose runs need no process: nothing in them crashes, lasts, or takes more memory than their result. They are
# there to show what Warden takes.
_INSTANT = {"echo"}

# Importing Pulser takes seconds on an idle machine.
_IMPORTS_TAKE = 120
# A killed process ends at once, unless the kernel is stuck in its name: nobody waits for that.
_DYING_TAKES = 5
# Of what a process says, as much is taken in one go.
_CHUNK = 2**20
# PyTorch counts GPUs without the driver's help then: a process that has asked the driver cannot be forked.
_COUNT_GPUS = "PYTORCH_NVML_BASED_CUDA_CHECK"
_NO_NOISE = Noise()

Request = Order | child.Check | child.Calibrate


class Emulation:
    """A process at work. Readable (`fileno`) when it is worth asking whether it is `done`. Nothing here blocks for long.

    After `done`, `outcome` says what it found; `end` ends it, whatever it does.
    """

    def __init__(self, process: ForkServerProcess, connection: socket.socket) -> None:
        self._process, self._connection = process, connection
        self._said = bytearray()
        self.request: child.Request | None = None
        self._ended = False

    def fileno(self) -> int:
        return self._connection.fileno()

    def ask(self, request: child.Request) -> None:
        """Hand it what it has to do.

        Raises:
            OSError: It has ended.
        """
        self.request = request
        child.send(self._connection, request)

    def done(self) -> bool:
        """Take in what the process says, and tell whether it has said all."""
        if not self._ended and self._readable(0):
            try:
                said = self._connection.recv(_CHUNK)
            except ConnectionError:
                # It died before it had read what it was asked.
                said = b""
            self._said += said
            self._ended = not said
        return self._ended

    def wait(self, limit: float) -> bool:
        """Wait until it is done, at most so many seconds; whether it is."""
        end = time.monotonic() + limit
        while not self.done():
            if not self._readable(max(0.0, end - time.monotonic())):
                return False
        return True

    def outcome(self, fault: Fault = "task") -> Outcome:
        """What the process found, once it is done; a process that died has an error for an outcome, by this fault."""
        try:
            return msgspec.msgpack.decode(self._said, type=Outcome)
        except msgspec.DecodeError:
            self._process.join(_DYING_TAKES)
            if child.died_of_time(self._process.exitcode):
                return child.TOO_LONG
            why = f"the emulator died (exit status {self._process.exitcode}): is there enough memory?"
            return Outcome(error=why, fault=fault)

    def end(self) -> None:
        """End it, whatever it does, and wait for that."""
        self.leave()
        self._process.join(_DYING_TAKES)
        if self._process.exitcode is None:
            log.warning("the emulator's process %s was killed and does not end", self._process.pid)

    def leave(self) -> None:
        """End it without waiting for that: one that has said all gives its memory back in its own time."""
        self._process.kill()
        self._connection.close()

    def _readable(self, limit: float) -> bool:
        poller = select.poll()
        poller.register(self._connection, select.POLLIN)
        return bool(poller.poll(limit * 1000))


class Emulator:
    """Emulates sequences for one device: in processes, or at once where the cache has them."""

    def __init__(
        self, device: str, seed: int, emulator: str = "qutip", *, memory: int = 0, cache: int = 256 * 2**20
    ) -> None:
        """Import the emulator in the process that the others are forked from.

        `memory`: bytes that an emulation may have, 0 for all that the machine has; `cache`: bytes for distributions.

        Raises:
            ConfigurationError: There is no such device, or what the emulator needs is not installed.
        """
        self._device, self._seed, self._emulator, self._memory = read(device), seed, emulator, memory
        self._cache = Cache(cache)
        self._spare: Emulation | None = None
        self._warm = False
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([origin.__name__])
        # The command's own module too: each process would import it again, being the program's main module.
        modules = (child.__name__, *(() if emulator in _INSTANT else (child.CALIBRATE,)), "warden.start")
        # A worker that was killed can clear nothing away: the process that the others are forked from does.
        folder = multiprocessing.util.get_temp_dir()
        origin.tell(origin.Origin(os.getpid(), folder, EMULATORS[emulator], modules), os.environ)
        os.environ.setdefault(_COUNT_GPUS, "1")
        self.specs = self._describe()
        if emulator not in _INSTANT:
            warm_up()

    def order(self, sequence: str, noise: Noise = _NO_NOISE) -> Order:
        """A request whose outcome has a distribution."""
        return Order(device=self._device, sequence=sequence, noise=noise, seed=self._seed)

    def check(self, sequence: str, noise: Noise = _NO_NOISE) -> child.Check:
        """A request whose outcome has a `preparation`."""
        return child.Check(device=self._device, sequence=sequence, noise=noise)

    def calibration(self, survey: Survey) -> child.Calibrate:
        """A request whose outcome has findings."""
        return child.Calibrate(survey=survey, seed=self._seed)

    def at_once(self, request: Request) -> Outcome | None:
        """What comes of a request, if it can be had without a process; else it has to be started."""
        if self._emulator in _INSTANT:
            found = drift.at_once(request.survey) if isinstance(request, child.Calibrate) else None
            return child.answer(self._emulator, request) if found is None else Outcome(findings=found)
        # A check is about a task that may run when what is kept now is kept no more.
        kept = self._cache.get(request.digest) if isinstance(request, Order) else None
        return None if kept is None else Outcome(distribution=kept)

    def start(self, request: Request) -> Emulation:
        """Begin with a request, in a process.

        Raises:
            OSError: The machine has no process to spare.
        """
        return self._asked(request)

    def collect(self, emulation: Emulation, fault: Fault = "task") -> Outcome:
        """The outcome of a process that is done; a distribution can be had at once from now on."""
        outcome = emulation.outcome(fault)
        if isinstance(emulation.request, Order) and outcome.distribution is not None:
            self._cache.put(emulation.request.digest, outcome.distribution)
        return outcome

    def draw(self, found: Distribution, noise: Noise, *, task: int, first_shot: int, shots: int) -> list[str]:
        """Shots of a task; they are the same whenever and in how many runs they are drawn."""
        return draw(found, noise, seed=self._seed, task=task, first=first_shot, shots=shots)

    @property
    def cold(self) -> bool:
        """Whether there is a process that waits and could be warmed up."""
        return self._spare is not None and not self._warm

    def warm_up(self) -> None:
        """Have the process that waits do what is slow the first time; only worth it where nothing comes meanwhile."""
        self._warm = True
        if self._spare is not None:
            # If it has died, that is noticed when it is needed.
            with contextlib.suppress(OSError):
                self._spare.ask(child.WarmUp())

    def close(self) -> None:
        """End the process that waits."""
        if self._spare is not None:
            self._spare.end()
            self._spare = None

    def _describe(self) -> Specs:
        try:
            emulation = self._asked(child.Describe(device=self._device))
        except OSError as error:
            raise ConfigurationError(f"the emulator cannot start: {error}") from None
        up = emulation.wait(_IMPORTS_TAKE)
        emulation.end()
        outcome = emulation.outcome() if up else Outcome()
        if outcome.specs is not None:
            return outcome.specs
        self.close()
        raise ConfigurationError(
            outcome.error
            or f"the emulator {self._emulator} did not come up within {_IMPORTS_TAKE} s: is the machine overloaded?"
        )

    def _asked(self, request: child.Request) -> Emulation:
        """The process that waits, or a new one, with this to do; and another one to wait, while it is at work."""
        emulation, self._spare = self._spare, None
        if emulation is not None:
            try:
                emulation.ask(request)
            except OSError:
                # It has died meanwhile.
                emulation.end()
                emulation = None
        if emulation is None:
            emulation = self._fork()
            try:
                emulation.ask(request)
            except OSError:
                emulation.end()
                raise
        try:
            self._spare, self._warm = self._fork(), False
        except OSError as error:
            log.debug("no process waits for the next task: %s", error)
        return emulation

    def _fork(self) -> Emulation:
        try:
            return self._forked()
        except (OSError, EOFError) as error:
            # The process that the others are forked from ends when it cannot fork; the next start makes a new one.
            why = "its fork server has ended" if isinstance(error, EOFError) else error.strerror
            raise OSError(f"no process can be started ({why})") from error

    def _forked(self) -> Emulation:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                _start_fork_server()
                process = self._context.Process(
                    target=child.serve, args=(theirs, self._emulator, self._memory), daemon=True
                )
                process.start()
            except BaseException:
                ours.close()
                raise
        return Emulation(process, ours)


def _start_fork_server() -> None:
    """See to it that it runs. A Ctrl-C at the terminal is for the worker, which ends it, and not for its imports."""
    # It lets SIGINT through again when it has started, so it comes first.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        multiprocessing.forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
