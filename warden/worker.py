"""The loop beside the QPU: the socket, the clock and the emulator's processes around the `Runner`, which decides.

The QPU here is emulated: a process computes the shots, and the runner then delivers them at the QPU's shot rate. Another
one calibrates it, while no run is on.
"""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING, Self

import zmq

from warden import frames, keyring, orders, signals, wire
from warden.actions import Abandon, Begin, Calibrate, Check, Dismiss, Failure, Note, Reconnect, Send
from warden.model import ConfigurationError, Micros, WardenError
from warden.qpu import software
from warden.qpu.drift import Findings, Survey
from warden.qpu.physics import Outcome
from warden.qpu.process import Emulator
from warden.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Iterable

    from warden.actions import Action
    from warden.config import Config
    from warden.qpu.noise import Noise
    from warden.qpu.process import Emulation, Request

log = logging.getLogger("warden.worker")

# Milliseconds without a word from anybody after which nobody is thought to be about to send an order.
_LULL = 20


class Worker:
    """`with Worker(config) as worker: worker.serve()`; SIGTERM and SIGINT end `serve`."""

    def __init__(self, config: Config) -> None:
        """Start the emulator and connect.

        Raises:
            ConfigurationError: The keys, the broker's address or the device cannot be used.
        """
        self._config = config
        # Before the emulator, which takes seconds to come up: a missing key is told at once.
        self._context = zmq.Context()
        self._attempts = 0
        self._broker = self._connect()
        qpu = config.qpu
        self._emulator = Emulator(qpu.device, qpu.seed, qpu.emulator, memory=qpu.memory, cache=qpu.cache)
        specs = self._emulator.specs
        log.info("the device %s is ready", specs.name)
        self._runner = Runner(
            instance=str(uuid.uuid4()),
            device_json=specs.json,
            device_name=specs.name,
            qubits=specs.qubits,
            timing=config.timing,
            heartbeat=config.broker.heartbeat,
            facts=software.facts(specs.name, config.qpu.emulator, noise=not config.drifting.off),
            drift=config.drifting,
        )
        self._emulation: Emulation | None = None
        self._work: orders.StartRun | orders.StartCalibration | None = None
        self._check: Emulation | None = None
        self._checking = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._abandon()
        self._dismiss()
        self._emulator.close()
        self._context.destroy(linger=200)

    def serve(self) -> None:
        """Work until SIGTERM or SIGINT; call it on the main thread."""
        with signals.as_socket() as stop:
            # Not before: once the broker has heard of us, everybody takes us for one that can be told to stop.
            self._carry_out(self._runner.start(_now()))
            while True:
                poller = zmq.Poller()
                poller.register(self._broker, zmq.POLLIN)
                poller.register(stop, zmq.POLLIN)
                for process in (self._emulation, self._check):
                    if process is not None:
                        poller.register(process, zmq.POLLIN)
                ready = dict(poller.poll(self._patience()))
                if not ready and self._idle:
                    self._emulator.warm_up()
                if stop.fileno() in ready:
                    log.info("told to stop: goodbye")
                    return
                self._listen()
                self._collect()
                self._collect_check()
                self._carry_out(self._runner.tick(_now()))

    def _patience(self) -> int:
        now = _now()
        patience = (self._runner.next_wakeup(now) - now) // 1000 + 1
        return min(patience, _LULL) if self._idle else patience

    @property
    def _idle(self) -> bool:
        """Whether there is time to make the next process ready."""
        return self._emulation is None and self._check is None and self._emulator.cold

    def _carry_out(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Send(body=body):
                    self._send(body)
                case Begin(run=work) | Calibrate(order=work):
                    self._begin(work)
                case Abandon():
                    self._abandon()
                case Check(check=check):
                    self._begin_check(check)
                case Dismiss():
                    self._dismiss()
                case Reconnect():
                    self._reconnect()
                case Note(text=text):
                    log.info("%s", text)

    # --- the broker ---

    def _connect(self) -> zmq.Socket[bytes]:
        keys = self._config.broker.keys
        connection = self._context.socket(zmq.DEALER)
        connection.curve_publickey, connection.curve_secretkey = keyring.key_pair(keys / f"{keyring.WORKER}.key_secret")
        known = keyring.broker_keys(keys / f"{keyring.BROKER}.key")
        connection.curve_serverkey = known[self._attempts % len(known)]
        self._attempts += 1
        connection.linger = 200
        connection.reconnect_ivl_max = 2_000
        # Beats to a broker that is away are of no use later.
        connection.sndhwm = 10
        address = self._config.worker_endpoint
        try:
            connection.connect(address)
        except zmq.ZMQError as error:
            raise ConfigurationError(f"cannot connect to {address}: {error.strerror}") from None
        return connection

    def _reconnect(self) -> None:
        """With the keys that are there now; what cannot be read ends no worker that may have a result."""
        try:
            connection = self._connect()
        except ConfigurationError as error:
            log.warning("%s", error)
            return
        self._broker.close(linger=0)
        self._broker = connection

    def _send(self, body: wire.Message) -> None:
        try:
            self._broker.send(frames.pack(body), zmq.NOBLOCK)
        except zmq.Again:
            log.debug("the broker is away: %s waits", type(body).__name__)

    def _listen(self) -> None:
        while True:
            try:
                body = frames.unpack(self._broker.recv(zmq.NOBLOCK), orders.ToWorker)
            except zmq.Again:
                return
            except WardenError as error:
                log.warning("the broker sent what cannot be understood: %s", error)
                continue
            self._carry_out(self._runner.hear(body, _now()))

    # --- the emulator ---

    def _begun(self, request: Request) -> Emulation | Outcome:
        """The process that is at it, or what came of it at once."""
        outcome = self._emulator.at_once(request)
        if outcome is not None:
            return outcome
        try:
            return self._emulator.start(request)
        except OSError as error:
            log.warning("%s", error)
            return Outcome(error=str(error), fault="device")

    def _begin(self, work: orders.StartRun | orders.StartCalibration) -> None:
        self._work = work
        begun = self._begun(self._order(work) if isinstance(work, orders.StartRun) else self._calibration(work))
        if isinstance(begun, Outcome):
            self._done(work, begun)
        else:
            self._emulation = begun

    def _order(self, run: orders.StartRun) -> Request:
        return self._emulator.order(run.sequence, self._noise_of(run))

    def _noise_of(self, run: orders.StartRun) -> Noise:
        """How the QPU was when the run's task began: so all its shots are taken."""
        return self._config.drifting.noise(run.at, run.calibration)

    def _calibration(self, order: orders.StartCalibration) -> Request:
        survey = Survey(
            drift=self._config.drifting,
            number=order.number,
            at=order.at,
            calibration=order.calibration,
            shot_rate=self._config.qpu.shot_rate,
            limit=order.limit,
        )
        return self._emulator.calibration(survey)

    def _collect(self) -> None:
        """Hand over what the emulator has computed."""
        if self._emulation is None or self._work is None or not self._emulation.done():
            return
        ended, self._emulation = self._emulation, None
        self._done(self._work, self._emulator.collect(ended))
        ended.leave()

    def _done(self, work: orders.StartRun | orders.StartCalibration, outcome: Outcome) -> None:
        if isinstance(work, orders.StartCalibration):
            findings = outcome.findings or Findings(error=outcome.error)
            self._carry_out(self._runner.calibrated(work.token, findings, _now()))
            return
        found = outcome.distribution
        if found is None:
            self._carry_out(self._runner.computed(work.token, Failure(outcome.error, outcome.fault), _now()))
            return
        drawn = self._emulator.draw(
            found, self._noise_of(work), task=work.task, first_shot=work.first_shot, shots=work.shots
        )
        self._carry_out(self._runner.computed(work.token, drawn, _now(), found.facts))

    def _abandon(self) -> None:
        if self._emulation is not None:
            self._emulation.end()
            self._emulation = None

    def _begin_check(self, check: orders.CheckSequence) -> None:
        self._checking = check.token
        begun = self._begun(self._emulator.check(check.sequence, self._config.drifting.foreseen))
        if isinstance(begun, Outcome):
            self._checked(begun)
        else:
            self._check = begun

    def _collect_check(self) -> None:
        if self._check is None or not self._check.done():
            return
        # Of a process that died nobody knows why.
        outcome = self._emulator.collect(self._check, fault="device")
        self._dismiss()
        self._checked(outcome)

    def _checked(self, outcome: Outcome) -> None:
        found = Failure(outcome.error, outcome.fault) if outcome.error else outcome.preparation
        self._carry_out(self._runner.checked(self._checking, found))

    def _dismiss(self) -> None:
        if self._check is not None:
            self._check.end()
            self._check = None


def _now() -> Micros:
    """A clock that nobody sets, and that goes on while the machine is suspended: so do the windows."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000
