"""The load sensor as execd sees it: a process that answers in time, with every value, whatever Warden does."""

from __future__ import annotations

import contextlib
import io
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import pytest
import zmq
from warden_machine import Machine, Qpu
from warden_site import LIMIT, Site, wait_until

from load_sensors import protocol, qpu
from warden import keyring, wire
from warden.calibration import Calendar, ShotRule
from warden.model import HORIZON, SECOND, Availability, State, Window

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ["qpu", "qpu_state", "qpu_window", "qpu_qubits"]
NOTHING = {"qpu": "0", "qpu_state": "offline", "qpu_window": "0", "qpu_qubits": "0"}
# What execd is promised, and what a busy machine may add.
PROMISED, BORNE = 1.0, 2.0


def availability(**values: object) -> Availability:
    usual: dict[str, object] = {
        "name": "fresnel",
        "state": State.READY,
        "reason": "",
        "until": None,
        "places": 4,
        "used": 0,
        "queued": 0,
        "next_window": None,
        "qubits": 80,
        "time": 0,
    }
    return Availability(**(usual | values))  # type: ignore[arg-type]


# --- pure ---


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, [0, "offline", 0, 0]),
        (availability(), [4, "ready", HORIZON // SECOND, 80]),
        # What is taken is Grid Engine's to subtract.
        (availability(used=4, queued=9), [4, "ready", HORIZON // SECOND, 80]),
        (
            availability(next_window=Window(90 * SECOND + 1, 200 * SECOND, State.CALIBRATING), time=0),
            [4, "ready", 90, 80],
        ),
        (availability(state=State.CALIBRATING, until=5), [0, "calibrating", 0, 80]),
        (availability(state=State.MAINTENANCE), [0, "maintenance", 0, 80]),
        (availability(state=State.OFFLINE, qubits=14), [0, "offline", 0, 14]),
    ],
)
def test_values_of_what_warden_answered(answer: Availability | None, expected: list[object]) -> None:
    values = qpu.values(answer)
    assert [value.host for value in values] == ["global"] * 4
    assert [value.name for value in values] == NAMES
    assert [value.value for value in values] == expected


def test_calibration_that_is_due_by_shots_is_reported_like_any_other_window() -> None:
    machine = Machine(Calendar(shot_rules=(ShotRule(after_shots=150, duration=60 * SECOND),)))
    worker = Qpu(machine)
    session = machine.session()
    far = HORIZON // SECOND

    def reported() -> tuple[object, ...]:
        found = {value.name: value.value for value in qpu.values(machine.core.availability(machine.now))}
        return found["qpu"], found["qpu_state"], found["qpu_window"]

    machine.start(session, shots=100)
    worker.take()
    assert reported() == (2, "ready", far)
    worker.finish()
    # Now the QPU takes the shots that make it due: 2 s and ten shots a second.
    machine.start(session, shots=100)
    worker.take()
    assert reported() == (2, "ready", 12)
    machine.later(4.5)
    assert reported() == (2, "ready", 7)
    # What comes sooner counts.
    machine.block(start=3, duration=1)
    assert reported() == (2, "ready", 3)
    machine.ask(wire.CancelWindow(window=1))
    worker.finish()
    assert reported() == (0, "calibrating", 0)
    machine.later(60)
    assert reported() == (2, "ready", far)


def test_report_has_a_begin_and_an_end() -> None:
    values = [protocol.Value("global", "qpu", 1), protocol.Value("node1", "x", "y")]
    assert protocol.report(values) == "begin\nglobal:qpu:1\nnode1:x:y\nend\n"
    assert protocol.report([]) == "begin\nend\n"


@pytest.mark.parametrize("requests", ["", "quit\n", " quit \nno more\n"])
def test_sensor_ends_without_a_word(requests: str) -> None:
    answers = io.StringIO()
    protocol.serve(io.StringIO(requests), answers, list)
    assert answers.getvalue() == ""


def test_each_line_asks_for_a_report() -> None:
    answers = io.StringIO()
    protocol.serve(io.StringIO("\n\nanything\nquit\n\n"), answers, list)
    assert answers.getvalue() == "begin\nend\n" * 3


def test_live_jobs_are_the_folders_of_jobs(tmp_path: Path) -> None:
    assert list(qpu.live_jobs(tmp_path)) == []
    for name in ("7.1", "8.3", "9.1", "x.1", "7", "7.1.2", ".1", "12345678901.1", "\u0667.1", "7.1\n"):
        (tmp_path / "active_jobs" / name).mkdir(parents=True)
    assert sorted(qpu.live_jobs(tmp_path)) == ["7", "7.1", "8.3", "9", "9.1"]


# --- as a process ---


class Sensor:
    """The sensor with another configuration than the machine's, as execd drives it."""

    def __init__(self, config: Path, directory: Path) -> None:
        program = (
            "import pathlib, sys; from load_sensors import qpu; qpu.CONFIG = pathlib.Path(sys.argv[1]); qpu.main()"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=directory,
        )
        self.slowest = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def report(self) -> dict[str, str]:
        """Ask, as execd does; the values, all of which must be there."""
        assert self.process.stdin
        assert self.process.stdout
        begun = time.monotonic()
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()
        text = b""
        while not text.endswith(b"end\n"):
            assert select.select([self.process.stdout], [], [], LIMIT)[0], f"no report, only {text!r}"
            read = os.read(self.process.stdout.fileno(), 65536)
            assert read, "the sensor has ended"
            text += read
        self.slowest = max(self.slowest, time.monotonic() - begun)
        lines = text.decode().splitlines()
        assert (lines[0], lines[-1]) == ("begin", "end")
        values = [line.split(":") for line in lines[1:-1]]
        assert [(host, name) for host, name, _ in values] == [("global", name) for name in NAMES]
        return {name: value for _, name, value in values}

    def state(self) -> str:
        return self.report()["qpu_state"]

    def memory(self) -> int:
        """Kilobytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


class FakeBroker(threading.Thread):
    """Speaks with a broker's key, and answers as a test wants it; renewals need no MUNGE here."""

    def __init__(self, site: Site) -> None:
        super().__init__(daemon=True)
        self.asked: list[wire.Message] = []
        self.fails: tuple[type[wire.Message], ...] = ()
        self.mute: tuple[type[wire.Message], ...] = ()
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.curve_server = True
        self._socket.curve_secretkey = keyring.key_pair(site.room / "keys" / "broker.key_secret")[1]
        self._socket.bind(f"ipc://{site.room}/c")

    def run(self) -> None:
        with contextlib.suppress(zmq.ContextTerminated), self._socket:
            while True:
                peer, frame = self._socket.recv_multipart()
                asked, number = wire.unpack_request(frame), wire.correlation_of(frame)
                self.asked.append(asked)
                if isinstance(asked, self.mute):
                    continue
                answers = {wire.GetAvailability: availability(), wire.Hello: wire.Greeting(0, "fresnel")}
                answer = wire.pack_answer(number, answers.get(type(asked), 1))
                self._socket.send_multipart([peer, b"garbage" if isinstance(asked, self.fails) else answer])

    def close(self) -> None:
        self._context.term()
        self.join()


@pytest.fixture
def sensor(site: Site, tmp_path: Path) -> Iterator[Sensor]:
    (tmp_path / "active_jobs" / "7.1").mkdir(parents=True)
    with Sensor(site.file, tmp_path) as sensor:
        yield sensor


@pytest.fixture
def broker(site: Site) -> Iterator[FakeBroker]:
    broker = FakeBroker(site)
    broker.start()
    try:
        yield broker
    finally:
        broker.close()


def test_real_warden_is_reported_through_its_life(site: Site, sensor: Sensor) -> None:
    assert sensor.report() == NOTHING
    broker = site.start_broker()
    # There is a broker, and no worker.
    wait_until(lambda: sensor.report() == NOTHING | {"qpu_qubits": "8"}, "the broker is seen")
    site.start_worker()
    wait_until(lambda: sensor.report()["qpu"] == "4", "the worker is seen")
    broker.send_signal(signal.SIGSTOP)
    wait_until(lambda: sensor.report() == NOTHING, "the hanging broker is seen")
    broker.send_signal(signal.SIGCONT)
    wait_until(lambda: sensor.state() == "ready", "it goes on")
    site.kill(broker)
    wait_until(lambda: sensor.report() == NOTHING, "the end of the broker is seen")
    site.start_broker()
    wait_until(lambda: sensor.state() == "ready", "the new one is seen")
    assert sensor.slowest < PROMISED + BORNE


def test_silent_warden_costs_no_report_more_than_a_second(sensor: Sensor) -> None:
    times = []
    for _ in range(5):
        begun = time.monotonic()
        assert sensor.report() == NOTHING
        times.append(time.monotonic() - begun)
    assert sorted(times)[2] < PROMISED


@pytest.mark.parametrize(
    "content", [None, b"", b"[qpu\n", b"\xff", b"[qpu]\nunknown = 1\n", b"[client]\nendpoint = 'x'\n"]
)
def test_configuration_that_is_none_is_offline_until_it_is_one(
    site: Site, sensor: Sensor, content: bytes | None
) -> None:
    site.start_broker()
    right = site.file.read_bytes()
    if content is None:
        site.file.unlink()
    else:
        site.file.write_bytes(content)
    assert [sensor.report() for _ in range(3)] == [NOTHING] * 3
    site.file.write_bytes(right)
    wait_until(lambda: sensor.report()["qpu_qubits"] == "8", "the right one is read")


def test_garbage_is_offline(sensor: Sensor, broker: FakeBroker) -> None:
    broker.fails = (wire.GetAvailability,)
    assert [sensor.report() for _ in range(3)] == [NOTHING] * 3
    broker.fails = ()
    wait_until(lambda: sensor.state() == "ready", "it makes sense again")


@pytest.mark.parametrize("how", ["fails", "mute"])
def test_what_hinders_the_renewal_of_leases_does_not_hide_the_qpu(sensor: Sensor, broker: FakeBroker, how: str) -> None:
    setattr(broker, how, (wire.Hello, wire.Renew))
    wait_until(lambda: sensor.state() == "ready", "the first answer")
    assert {sensor.state() for _ in range(20)} == {"ready"}
    wait_until(lambda: any(isinstance(asked, wire.Hello) for asked in broker.asked), "it tries to renew")


def test_jobs_of_this_host_are_renewed(sensor: Sensor, broker: FakeBroker) -> None:
    sensor.report()
    wait_until(lambda: any(isinstance(asked, wire.Renew) for asked in broker.asked), "a renewal")
    [renewal] = {asked for asked in broker.asked if isinstance(asked, wire.Renew)}
    assert sorted(renewal.jobs) == ["7", "7.1"]
    assert renewal.host == os.uname().nodename


@pytest.mark.parametrize("last", [b"quit\n", b""], ids=["quit", "end of input"])
def test_sensor_ends_when_told_also_while_it_waits_for_warden(sensor: Sensor, last: bytes) -> None:
    sensor.report()
    _, told = sensor.process.communicate(last, timeout=LIMIT)
    assert (sensor.process.returncode, told) == (0, b"")


def test_sensor_ends_when_nobody_reads_it(sensor: Sensor) -> None:
    assert sensor.process.stdin
    assert sensor.process.stdout
    sensor.process.stdout.close()
    sensor.process.stdin.write(b"\n\n")
    sensor.process.stdin.flush()
    assert sensor.process.wait(timeout=LIMIT) == 0
    assert sensor.process.stderr
    assert sensor.process.stderr.read() == b""


def test_many_reports_cost_neither_memory_nor_descriptors(sensor: Sensor, broker: FakeBroker) -> None:
    wait_until(lambda: sensor.state() == "ready", "the first answer")
    for _ in range(200):
        sensor.report()
    memory, descriptors = sensor.memory(), sensor.descriptors()
    for _ in range(2000):
        sensor.report()
    assert sensor.descriptors() <= descriptors
    assert sensor.memory() < memory + 1000
    assert sensor.process.poll() is None
    broker.asked.clear()


def test_many_failures_cost_neither_memory_nor_descriptors(sensor: Sensor, site: Site) -> None:
    site.file.write_text("[qpu\n")
    for _ in range(100):
        sensor.report()
    memory, descriptors = sensor.memory(), sensor.descriptors()
    for _ in range(1000):
        assert sensor.report() == NOTHING
    assert sensor.descriptors() <= descriptors
    assert sensor.memory() < memory + 1000


def test_failing_connections_leave_nothing_behind(sensor: Sensor, broker: FakeBroker) -> None:
    broker.fails = (wire.GetAvailability, wire.Hello)
    for _ in range(50):
        sensor.report()
    memory = sensor.memory()
    descriptors = []
    for _ in range(200):
        assert sensor.report() == NOTHING
        descriptors.append(sensor.descriptors())
    # Between two questions there may be connections, and may be none.
    assert max(descriptors) < 60
    assert sensor.memory() < memory + 3000


def test_a_job_that_has_ended_does_not_live_though_its_folder_is_there(tmp_path: Path) -> None:
    for name, status in (("7.1", ""), ("8.1", "0\n"), ("9.3", None)):
        folder = tmp_path / "active_jobs" / name
        folder.mkdir(parents=True)
        if status is not None:
            (folder / "exit_status").write_text(status)
    assert set(qpu.live_jobs(tmp_path)) == {"7.1", "7", "9.3"}
