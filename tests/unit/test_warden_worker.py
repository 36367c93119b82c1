"""A real worker and a broker that is only its socket: a calibration, from its order to its result."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import zmq
from warden_site import FORKING, LIMIT, Site

from warden import frames, keyring, orders, wire
from warden.model import SECOND, Calibration
from warden.qpu import calibrate, drift
from warden.qpu.drift import DAY, Survey

if TYPE_CHECKING:
    from collections.abc import Iterator

NOISE = {"p_false_pos": 0.01, "p_false_neg": 0.05, "temperature": 30.0}
DRIFT = {"rabi_error": 0.03, "detuning_error": 0.3}
NOW = 1_800_000_000 * SECOND
BEFORE = Calibration(id=6, time=NOW - DAY, left={"rabi_error": 0.05})
AT_ONCE = "from warden.cli import main; main()"

M = TypeVar("M", bound=wire.Message)


class Broker:
    """Takes the first worker that says hello."""

    def __init__(self, site: Site) -> None:
        keys = site.config.broker.keys
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.curve_server = True
        _, self._socket.curve_secretkey = keyring.key_pair(keys / f"{keyring.BROKER}.key_secret")
        self._socket.linger = 0
        self._socket.bind(site.config.broker.workers[0])
        self._peer = b""

    def close(self) -> None:
        self._context.destroy(linger=0)

    def say(self, body: wire.Message) -> None:
        self._socket.send_multipart([self._peer, frames.pack(body)])

    def hear(self, kind: type[M]) -> M:
        """The next message of this kind."""
        end = time.monotonic() + LIMIT
        while True:
            assert self._socket.poll(max(0, int(1000 * (end - time.monotonic())))), f"no {kind.__name__}"
            self._peer, frame = self._socket.recv_multipart()
            body = frames.unpack(frame, orders.FromWorker)
            if isinstance(body, kind):
                return body


@pytest.fixture
def broker(site: Site) -> Iterator[Broker]:
    site.configure(qpu={"emulator": "echo", "device": "Anything", "seed": 5}, noise=NOISE, drift=DRIFT)
    broker = Broker(site)
    yield broker
    broker.close()


def begin(site: Site, broker: Broker, code: str) -> orders.WorkerBeat:
    """Start a worker and take it; its first beat thereafter."""
    site.worker = site.start([sys.executable, "-c", code, "worker", "--config", str(site.file)])
    broker.hear(orders.WorkerHello)
    # Not shorter: to whom nobody speaks for five of them, he connects anew, and what is said to his old connection is lost.
    broker.say(orders.Welcome(interval=SECOND // 2, calibration=BEFORE))
    return broker.hear(orders.WorkerBeat)


def order(clock: int, **fields: Any) -> orders.StartCalibration:
    return orders.StartCalibration(
        **{"token": "c", "number": 7, "at": NOW, "calibration": BEFORE, "issued": clock, "limit": None, **fields}
    )


def expected(site: Site) -> Survey:
    return Survey(drift=site.config.drifting, number=7, at=NOW, calibration=BEFORE, shot_rate=site.config.qpu.shot_rate)


def test_it_measures_the_qpu_and_keeps_what_it_found_until_the_broker_has_it(site: Site, broker: Broker) -> None:
    clock = begin(site, broker, FORKING).clock
    broker.say(order(clock))
    for _ in range(2):
        found = broker.hear(orders.CalibrationFinished)
        want = calibrate.calibrate(expected(site), seed=5)
        assert (found.measured, found.left, found.log) == (want.measured, want.left, want.log)
        assert (found.before, found.after, found.error) == (want.before, want.after, "")
    assert found.before < 0.98 < found.after
    # A worker to which nobody speaks for some beats makes another connection.
    while broker.hear(orders.WorkerBeat).token:
        broker.say(orders.ForgetRun(token="c"))
    while broker.hear(orders.WorkerBeat).quality != found.after:
        broker.say(orders.BrokerBeat(time=NOW + SECOND))


def test_what_has_no_time_to_be_emulated_is_not(site: Site, broker: Broker) -> None:
    site.configure(
        qpu={"emulator": "echo", "device": "Anything", "seed": 5, "shot_rate": 1.0}, noise=NOISE, drift=DRIFT
    )
    clock = begin(site, broker, FORKING).clock
    broker.say(order(clock, limit=100 * SECOND))
    found = broker.hear(orders.CalibrationFinished)
    assert found.log[0].endswith("1000 shots, 17 min at 1 shots/s")
    assert found.log[1].endswith("there is no time to emulate them")


def test_a_device_without_physics_is_set_back_at_once(site: Site, broker: Broker) -> None:
    clock = begin(site, broker, AT_ONCE).clock
    broker.say(order(clock))
    found = broker.hear(orders.CalibrationFinished)
    assert (found.left, found.after) == (drift.at_once(expected(site)).left, 1.0)


def test_a_calibration_that_is_stopped_has_no_result_and_the_next_one_has(site: Site, broker: Broker) -> None:
    clock = begin(site, broker, FORKING).clock
    # At once: between the two it could be done with it.
    site.worker.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, site.worker.pid, os.WSTOPPED | os.WNOWAIT)
    broker.say(order(clock))
    broker.say(orders.StopRun(token="c"))
    site.worker.send_signal(signal.SIGCONT)
    assert broker.hear(orders.CalibrationFinished).error == "it was stopped"
    broker.say(order(clock + 1, token="d"))
    while (found := broker.hear(orders.CalibrationFinished)).token != "d":
        pass
    assert (found.error, found.measured != {}) == ("", True)
