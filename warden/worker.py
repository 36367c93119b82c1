"""The loop beside the QPU: takes one run at a time from the broker, keeps its deadline, and hands in the result.

The QPU here is emulated: a process computes the shots, and the worker then delivers them at the QPU's shot rate. A
finished result is kept and offered until the broker says that it has it, through any number of broker restarts.
"""

from __future__ import annotations

import collections
import logging
import time
import uuid
from typing import TYPE_CHECKING, Self

import zmq

from warden import signals, trust, wire
from warden.model import ConfigurationError, Micros, WardenError
from warden.qpu.process import Emulator

if TYPE_CHECKING:
    from warden.config import Config
    from warden.qpu.process import Emulation

log = logging.getLogger("warden.worker")


class Worker:
    """`with Worker(config) as worker: worker.serve()`; SIGTERM and SIGINT end `serve`."""

    def __init__(self, config: Config) -> None:
        """Start the emulator and connect.

        Raises:
            ConfigurationError: The keys, the broker's address or the device cannot be used.
        """
        self._config = config
        self._instance = str(uuid.uuid4())
        # Before the emulator, which takes seconds to come up: a missing key is told at once.
        self._context = zmq.Context()
        self._broker = self._connect()
        self._emulator = Emulator(config.qpu.device, config.qpu.seed)
        log.info("the device %s is ready", self._emulator.specs.name)
        self._interval: Micros = config.broker.heartbeat
        self._job: _Job | None = None
        self._result: wire.RunFinished | None = None
        self._next_beat = 0
        self._welcome = False
        self._said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._abandon()
        self._context.destroy(linger=200)

    def serve(self) -> None:
        """Work until SIGTERM or SIGINT; call it on the main thread."""
        with signals.as_socket() as stop:
            while True:
                poller = zmq.Poller()
                poller.register(self._broker, zmq.POLLIN)
                poller.register(stop, zmq.POLLIN)
                if self._job is not None and self._job.shots is None:
                    poller.register(self._job.emulation, zmq.POLLIN)
                ready = dict(poller.poll(self._patience()))
                if stop.fileno() in ready:
                    log.info("told to stop: goodbye")
                    return
                self._listen()
                self._work()
                self._show_life()

    def _patience(self) -> int:
        times = [self._next_beat]
        if self._job is not None:
            times += [t for t in (self._job.deadline, self._job.ready_at) if t is not None]
        return max(0, min(times) - _now()) // 1000 + 1

    # --- the broker ---

    def _connect(self) -> zmq.Socket[bytes]:
        keys = self._config.broker.keys
        connection = self._context.socket(zmq.DEALER)
        connection.curve_publickey, connection.curve_secretkey = trust.key_pair(keys / f"{trust.WORKER}.key_secret")
        connection.curve_serverkey = trust.public_key(keys / f"{trust.BROKER}.key")
        connection.linger = 200
        connection.reconnect_ivl_max = 2_000
        connection.heartbeat_ivl = 5_000
        connection.heartbeat_timeout = 15_000
        # Beats to a broker that is away are of no use later.
        connection.sndhwm = 10
        address = self._config.worker_endpoint
        try:
            connection.connect(address)
        except zmq.ZMQError as error:
            raise ConfigurationError(f"cannot connect to {address}: {error.strerror}") from None
        return connection

    def _send(self, body: wire.Message) -> None:
        try:
            self._broker.send(wire.pack(body), zmq.NOBLOCK)
        except zmq.Again:
            log.debug("the broker is away: %s waits", type(body).__name__)

    def _show_life(self) -> None:
        if _now() < self._next_beat:
            return
        self._next_beat = _now() + self._interval
        if not self._welcome:
            specs = self._emulator.specs
            self._send(
                wire.WorkerHello(
                    instance=self._instance,
                    device=specs.json,
                    device_name=specs.name,
                    qubits=specs.qubits,
                    token=self._token,
                )
            )
            return
        self._send(wire.WorkerBeat(instance=self._instance, token=self._token))
        if self._result is not None:
            self._send(self._result)

    def _listen(self) -> None:
        while True:
            try:
                body = wire.unpack(self._broker.recv(zmq.NOBLOCK), wire.ToWorker)
            except zmq.Again:
                return
            except WardenError as error:
                log.warning("the broker sent what cannot be understood: %s", error)
                continue
            self._told(body)

    def _told(self, body: wire.Message) -> None:
        match body:
            case wire.Welcome(interval=interval):
                log.info("the broker takes this worker")
                self._interval, self._welcome, self._said = interval, True, ""
                if self._result is not None:
                    self._send(self._result)
            case wire.Unwelcome(text=text):
                if self._said != text:
                    log.info("the broker says: %s", text)
                if self._welcome:
                    self._next_beat = 0
                self._welcome, self._said = False, text
            case wire.StartRun() as run:
                self._start(run)
            case wire.StopRun(token=token) if self._job is not None and self._job.run.token == token:
                self._finish("")
            case wire.ForgetRun(token=token) if self._result is not None and self._result.token == token:
                self._result = None
            case _:
                pass

    @property
    def _token(self) -> str:
        if self._result is not None:
            return self._result.token
        return "" if self._job is None else self._job.run.token

    # --- the run ---

    def _start(self, run: wire.StartRun) -> None:
        if self._token == run.token:
            return
        # A broker that starts another run has given up the one that we have.
        self._abandon()
        self._result = None
        log.info("run %s: task %s, %s shots", run.token, run.task, run.shots)
        emulation = self._emulator.start(
            task=run.task, sequence=run.sequence, first_shot=run.first_shot, shots=run.shots
        )
        self._job = _Job(run, emulation, _now())

    def _work(self) -> None:
        """Move the run on: take over what the emulator computed, deliver shots, keep the deadline."""
        job = self._job
        if job is None:
            return
        now = _now()
        if job.deadline is not None and now >= job.deadline:
            self._finish("")
            return
        if job.shots is None and job.emulation.done():
            outcome = job.emulation.outcome()
            if outcome.error:
                self._finish(outcome.error)
                return
            job.shots, job.shooting_since = outcome.shots, now
            job.ready_at = now + self._config.timing.estimate(job.run.shots) - self._config.timing.overhead
        if job.ready_at is not None and now >= job.ready_at:
            self._finish("")

    def _finish(self, error: str) -> None:
        """End the run with the shots that are done by now, and offer the result."""
        job = self._job
        if job is None:
            return
        now = _now()
        done: list[str] = []
        if job.shots is not None and not error:
            done = job.shots[: self._config.timing.shots_done(now - job.shooting_since)]
        self._result = wire.RunFinished(
            instance=self._instance,
            token=job.run.token,
            shots=len(done),
            counts=dict(collections.Counter(done)),
            time=now - job.started,
            error=error,
        )
        # What Pulser says of a sequence may quote it: that is for its owner.
        log.info("run %s: %s of %s shots done%s", job.run.token, len(done), job.run.shots, " (failed)" if error else "")
        self._abandon()
        self._send(self._result)

    def _abandon(self) -> None:
        if self._job is not None:
            self._job.emulation.end()
            self._job = None


class _Job:
    """The run at work: first it is emulated (`shots` None), then its shots are delivered one after the other."""

    def __init__(self, run: wire.StartRun, emulation: Emulation, started: Micros) -> None:
        self.run, self.emulation, self.started = run, emulation, started
        self.deadline = None if run.limit is None else started + run.limit
        self.shots: list[str] | None = None
        self.shooting_since: Micros = 0
        self.ready_at: Micros | None = None


def _now() -> Micros:
    """A clock that nobody sets: deadlines come as durations."""
    return time.monotonic_ns() // 1000
