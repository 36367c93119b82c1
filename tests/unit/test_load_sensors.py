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

from load_sensors import protocol, site, spool
from load_sensors.outlook import outlook
from warden import frames, keyring, wire
from warden.calibration import Calendar, ShotRule
from warden.model import HORIZON, SECOND, Availability, Plan, State

if TYPE_CHECKING:
    from collections.abc import Iterator

NAMES = ["qpu", "qpu_state", "qpu_window", "qpu_qubits"]
NOTHING = {"qpu": "0", "qpu_state": "offline", "qpu_window": "0", "qpu_qubits": "0"}
# Of a host that was never told anything: words would stay when another reports.
SILENT = {name: value for name, value in NOTHING.items() if name != "qpu_state"}
# What execd is promised, and what a busy machine may add.
PROMISED, BORNE = 1.0, 10.0


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


def test_calibration_that_is_due_by_shots_is_reported_like_any_other_window() -> None:
    machine = Machine(Calendar(shot_rules=(ShotRule(after_shots=150, duration=60 * SECOND),)))
    worker = Qpu(machine)
    session = machine.session()
    far = HORIZON // SECOND

    def reported() -> tuple[object, ...]:
        plan = machine.ask(wire.GetPlan(count=5))
        found = outlook(machine.core.availability(machine.now), plan.windows, 1, 0)
        return found.places, str(found.state), found.window

    machine.start(session, shots=100)
    worker.take()
    assert reported() == (2, "ready", far)
    worker.finish()
    # Now the QPU takes the shots that make it due: 2 s and ten shots a second.
    machine.start(session, shots=100)
    worker.take()
    assert reported() == (2, "ready", 11)
    machine.later(4.5)
    assert reported() == (2, "ready", 7)
    # What comes sooner counts.
    machine.block(start=3, duration=1)
    assert reported() == (2, "ready", 2)
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
    assert spool.live_jobs(tmp_path) == {}
    for name in ("7.1", "8.3", "9.1", "x.1", "7", "7.1.2", ".1", "12345678901.1", "\u0667.1", "7.1\n"):
        (tmp_path / "active_jobs" / name).mkdir(parents=True)
    assert sorted(spool.live_jobs(tmp_path)) == ["7", "7.1", "8.3", "9", "9.1"]


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
        """Ask, as execd does; the values, however they are spelled."""
        values = [line.split(":") for line in self.texts()]
        assert {host for host, *_ in values} <= {"global"}
        assert [name for _, name, _ in values] == [name for name in NAMES if name in {name for _, name, _ in values}]
        return {name: value if name == "qpu_state" else str(int(value)) for _, name, value in values}

    def texts(self) -> list[str]:
        """Ask; the lines of the report."""
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
        return lines[1:-1]

    def state(self) -> str:
        return self.report().get("qpu_state", "")

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
        self.reporter = os.uname().nodename
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
                asked, number = frames.unpack_request(frame), frames.correlation_of(frame)
                self.asked.append(asked)
                if isinstance(asked, self.mute):
                    continue
                answers = {
                    wire.GetAvailability: availability(),
                    wire.GetPlan: Plan(()),
                    wire.Hello: wire.Greeting(0, "fresnel"),
                    wire.Renew: wire.Renewed(sessions=1, reporter=self.reporter),
                }
                answer = frames.pack_answer(number, answers[type(asked)])
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


@pytest.mark.long
def test_real_warden_is_reported_through_its_life(site: Site, sensor: Sensor) -> None:
    assert sensor.report() == SILENT
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
        assert sensor.report() == SILENT
        times.append(time.monotonic() - begun)
    # Each by its own patience; what the machine adds is not in all of them, and in few much of it.
    assert min(times) < PROMISED
    assert sorted(times)[2] < 2 * PROMISED
    assert max(times) < PROMISED + BORNE


@pytest.mark.parametrize(
    "content", [None, b"", b"[qpu\n", b"\xff", b"[qpu]\nunknown = 1\n", b"[client]\nendpoint = 'x'\n"]
)
def test_configuration_that_is_none_says_nothing_until_it_is_one(
    site: Site, sensor: Sensor, content: bytes | None
) -> None:
    site.start_broker()
    right = site.file.read_bytes()
    if content is None:
        site.file.unlink()
    else:
        site.file.write_bytes(content)
    # Where its Warden is not known, nor what its QPU is called, or where there is none.
    assert all(sensor.report() in ({}, SILENT) for _ in range(3))
    site.file.write_bytes(right)
    wait_until(lambda: sensor.report().get("qpu_qubits") == "8", "the right one is read")


def test_garbage_is_offline(sensor: Sensor, broker: FakeBroker) -> None:
    broker.fails = (wire.GetAvailability,)
    wait_until(lambda: sensor.report() == NOTHING, "it knows that it reports")
    assert [sensor.report() for _ in range(3)] == [NOTHING] * 3
    broker.fails = ()
    wait_until(lambda: sensor.state() == "ready", "it makes sense again")


@pytest.mark.long
@pytest.mark.parametrize("how", ["fails", "mute"])
def test_what_hinders_the_renewal_of_leases_does_not_hide_the_qpu(sensor: Sensor, broker: FakeBroker, how: str) -> None:
    setattr(broker, how, (wire.Hello, wire.Renew))

    def tries() -> int:
        return sum(isinstance(asked, wire.Hello) for asked in broker.asked)

    def through_a_try() -> bool:
        before, seen = tries(), [sensor.state() for _ in range(10)]
        wait_until(lambda: seen.append(sensor.state()) or tries() > before, "it tries to renew")
        seen += [sensor.state() for _ in range(10)]
        return set(seen) == {"ready"}

    # Not from the first one on: on a busy machine an answer may be late now and then.
    wait_until(through_a_try, "all answers to be there, before and after a try", limit=3 * LIMIT)


def test_jobs_of_this_host_are_renewed(sensor: Sensor, broker: FakeBroker) -> None:
    sensor.report()
    wait_until(lambda: any(isinstance(asked, wire.Renew) for asked in broker.asked), "a renewal")
    # Asked again where the answer is late.
    renewal, *_ = [asked for asked in broker.asked if isinstance(asked, wire.Renew)]
    assert sorted(renewal.jobs) == ["7", "7.1"]
    assert renewal.suspended == ()
    assert renewal.host == os.uname().nodename
    assert renewal.candidate
    assert renewal.version
    assert abs(renewal.time - time.time_ns() // 1000) < 60 * SECOND


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
    descriptors, grown = sensor.descriptors(), []
    for _ in range(3):
        memory = sensor.memory()
        for _ in range(1000):
            sensor.report()
        grown.append(sensor.memory() - memory)
    # Not at once: after an answer that was late it connects anew, and the connection before that is closed a little later.
    wait_until(lambda: sensor.report() and sensor.descriptors() <= descriptors, "no more descriptors than before")
    # Such a connection has memory of its own, which stays; what each report leaves is there each time.
    assert min(grown) < 500
    assert sensor.process.poll() is None
    broker.asked.clear()


def test_many_failures_cost_neither_memory_nor_descriptors(sensor: Sensor, site: Site) -> None:
    site.file.write_text("[qpu\n")
    for _ in range(100):
        sensor.report()
    memory, descriptors = sensor.memory(), sensor.descriptors()
    for _ in range(1000):
        assert sensor.report() == {}
    assert sensor.descriptors() <= descriptors
    assert sensor.memory() < memory + 1000


def test_failing_connections_leave_nothing_behind(sensor: Sensor, broker: FakeBroker) -> None:
    broker.fails = (wire.GetAvailability, wire.Hello)
    for _ in range(50):
        sensor.report()
    memory = sensor.memory()
    descriptors = []
    for _ in range(200):
        assert sensor.report() == SILENT
        descriptors.append(sensor.descriptors())
    # Between two questions there may be connections, and may be none.
    assert max(descriptors) < 60
    assert sensor.memory() < memory + 3000


def test_who_is_not_the_reporter_says_nothing_and_renews_all_the_same(sensor: Sensor, broker: FakeBroker) -> None:
    broker.reporter = "another"
    wait_until(lambda: any(isinstance(asked, wire.Renew) for asked in (sensor.report(), *broker.asked)), "a renewal")
    wait_until(lambda: sensor.report() == {}, "it knows")
    broker.reporter = os.uname().nodename
    wait_until(lambda: sensor.state() == "ready", "it takes over")


@pytest.mark.usefixtures("broker")
def test_numbers_are_spelled_differently_each_time_so_that_they_are_sent(sensor: Sensor) -> None:
    wait_until(lambda: sensor.state() == "ready", "the first answer")
    wait_until(lambda: len({tuple(sensor.texts()) for _ in range(4)}) == 2, "four answers, spelled in two ways")


def test_a_warden_that_does_not_answer_blocks_its_own_qpu_alone(site: Site, tmp_path: Path, broker: FakeBroker) -> None:
    other = tmp_path / "other.toml"
    other.write_text(
        site.file.read_text().replace('"fresnel"', '"other"').replace(f"{site.room}/c", f"{site.room}/none")
    )
    with site.file.open("a") as file:
        file.write(f'[[gridengine.qpu]]\nqueues = ["a.q"]\nconfig = "{other}"\n[[gridengine.qpu]]\nqueues = ["b.q"]\n')
    with Sensor(site.file, tmp_path) as sensor:
        wait_until(lambda: "global:qpu_fresnel:4" in sensor.texts(), "the first answer")
        for _ in range(5):
            begun = time.monotonic()
            values = dict(line.removeprefix("global:").split(":") for line in sensor.texts())
            assert time.monotonic() - begun < PROMISED + BORNE
            assert (values["qpu_other"], int(values["qpu_fresnel"]), values["qpu_state"]) == ("0", 4, "ready")
            assert "qpu" not in values
    assert any(isinstance(asked, wire.Renew) for asked in broker.asked)


def test_a_stopped_job_is_a_suspended_one(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            for name, number in (("7.1", process.pid), ("8.2", os.getpid()), ("9.1", "nonsense"), ("10.1", 2**40)):
                folder = tmp_path / "active_jobs" / name
                folder.mkdir(parents=True)
                (folder / "job_pid").write_text(f"{number}\n")
            assert not any(spool.live_jobs(tmp_path).values())
            process.send_signal(signal.SIGSTOP)
            expected = {"7", "7.1"}
            wait_until(lambda: {j for j, stopped in spool.live_jobs(tmp_path).items() if stopped} == expected, "it")
            process.send_signal(signal.SIGCONT)
            wait_until(lambda: not any(spool.live_jobs(tmp_path).values()), "it to go on")
        finally:
            process.kill()


def test_trouble_is_what_can_be_seen(tmp_path: Path) -> None:
    key = tmp_path / "broker.key"
    assert len(site.trouble(tmp_path, key)) == 4
    for name in ("qpu-prolog", "qpu-epilog", "qpu-chain", "broker.key"):
        (tmp_path / name).touch(0o755)
    assert site.trouble(tmp_path, key) == ()
    key.chmod(0o640)
    assert site.trouble(tmp_path, key) == (f"{key} is not readable by everybody",)


@pytest.mark.parametrize(
    ("text", "names", "candidate"),
    [
        ("", ["one"], True),
        ('[gridengine]\nsensor_hosts = ["global"]\nunknown = 1\n', ["one"], True),
        ('[gridengine]\nsensor_hosts = ["node2", "Node1.cluster"]\n', ["one"], True),
        ('[gridengine]\nsensor_hosts = ["node2"]\n', ["one"], False),
        ('[[gridengine.qpu]]\nqueues = ["a"]\n[[gridengine.qpu]]\nconfig = "TWO"\n', ["one", "two"], True),
    ],
)
def test_the_site_as_the_sensor_reads_it(tmp_path: Path, text: str, names: list[str], *, candidate: bool) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    two.write_text('[qpu]\nname = "two"\n')
    one.write_text('[qpu]\nname = "one"\n' + text.replace("TWO", str(two)))
    found = site.load(one, "node1")
    assert ([qpu.name for qpu in found.qpus], found.candidate) == (names, candidate)


def test_a_job_that_has_ended_does_not_live_though_its_folder_is_there(tmp_path: Path) -> None:
    for name, status in (("7.1", ""), ("8.1", "0\n"), ("9.3", None)):
        folder = tmp_path / "active_jobs" / name
        folder.mkdir(parents=True)
        if status is not None:
            (folder / "exit_status").write_text(status)
    assert set(spool.live_jobs(tmp_path)) == {"7.1", "7", "9.3"}
