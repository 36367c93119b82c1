"""A run's process: what it says, how it dies, and that neither is ever waited for without an end."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec.structs import replace
from warden_site import AFM, SESSION, Site, wait_until

from warden.model import Calibration, ConfigurationError
from warden.qpu import calibrate, drift, process
from warden.qpu.drift import DAY, Drift, Survey
from warden.qpu.noise import Noise
from warden.qpu.process import Emulation, Emulator, Order, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection


class Stuck:
    """A process that the kernel does not let go: none can be had on purpose."""

    pid = 4711
    exitcode = None
    killed = False

    def kill(self) -> None:
        self.killed = True

    def join(self, timeout: float | None = None) -> None:
        assert timeout is not None, "this would wait for ever"


@pytest.fixture
def machine() -> Emulator:
    return Emulator("Anything", 0, "echo")


@pytest.fixture
def pipe() -> Iterator[tuple[Connection, Connection]]:
    ours, theirs = multiprocessing.Pipe(duplex=False)
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def no_files() -> Iterator[None]:
    """The machine has no file descriptor to spare."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def start(machine: Emulator, sequence: str = AFM, shots: int = 5) -> Emulation:
    return machine.start(task=1, sequence=sequence, first_shot=0, shots=shots)


def test_what_breaks_in_a_run_is_the_task_s_fault(machine: Emulator) -> None:
    emulation = start(machine, "nonsense")
    assert emulation.wait(30)
    assert emulation.outcome().fault == "task"
    emulation.end()


def test_an_emulator_that_is_gone_when_a_run_starts_is_the_device_s_fault(pipe: Any) -> None:
    ours, theirs = pipe
    missing = "warden.qpu.no_such_module"
    order = Order(device="Anything", sequence=AFM, first_shot=0, shots=5, seed=0, task=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(process.EMULATORS, "missing", missing)
        patch.setattr(process, "_prepare", lambda: None)
        process._run(theirs, "missing", msgspec.msgpack.encode(order))
    emulation = Emulation(Stuck(), ours)
    assert emulation.wait(5)
    assert emulation.outcome().fault == "device"
    assert missing in emulation.outcome().error


@pytest.mark.usefixtures("machine", "no_files")
def test_a_machine_without_a_process_to_spare_is_an_os_error(machine: Emulator) -> None:
    with pytest.raises(OSError, match="no process can be started"):
        start(machine)


def test_a_fork_server_that_ends_is_an_os_error_once(machine: Emulator) -> None:
    server = multiprocessing.forkserver._forkserver._forkserver_pid
    os.kill(server, signal.SIGKILL)
    state = Path(f"/proc/{server}/stat")
    wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "Z", "the fork server is dead")
    for _ in range(2):
        try:
            emulation = start(machine)
        except OSError:
            continue
        break
    assert emulation.wait(30)
    assert emulation.outcome().shots == ["0000"] * 5
    emulation.end()


@pytest.mark.usefixtures("no_files")
def test_a_device_that_has_no_process_to_start_with_is_a_line() -> None:
    with pytest.raises(ConfigurationError, match="cannot start"):
        Emulator("Anything", 0, "echo")


def test_an_outcome_may_be_large(machine: Emulator) -> None:
    emulation = start(machine, shots=100_000)
    assert emulation.wait(30)
    assert len(emulation.outcome().shots) == 100_000
    emulation.end()


def test_a_process_that_stops_while_it_speaks_blocks_nobody(pipe: Any) -> None:
    ours, theirs = pipe
    emulation = Emulation(Stuck(), ours)
    said = msgspec.msgpack.encode(Outcome(["01"] * 3))
    os.write(theirs.fileno(), said[:-4])
    assert not emulation.done()
    assert not emulation.done()
    assert not emulation.wait(0)
    theirs.close()
    assert emulation.wait(5)
    outcome = emulation.outcome()
    assert outcome.shots == []
    assert "emulator died" in outcome.error
    assert outcome.fault == "task"


def test_a_process_that_does_not_die_is_left_behind(pipe: Any, caplog: pytest.LogCaptureFixture) -> None:
    stuck = Stuck()
    Emulation(stuck, pipe[0]).end()
    assert stuck.killed
    assert "process 4711 was killed and does not end" in caplog.text


def test_a_process_that_is_stopped_is_killed_all_the_same(machine: Emulator) -> None:
    emulation = start(machine)
    os.kill(emulation._process.pid or 0, signal.SIGSTOP)
    begun = time.monotonic()
    emulation.end()
    assert time.monotonic() - begun < process._DYING_TAKES


def test_a_worker_outlives_a_machine_without_a_process_to_spare(site: Site) -> None:
    pytest.importorskip("pulser_simulation")
    site.configure(qpu={"overhead": 0.01, "retry": 1})
    site.start_broker()
    worker = site.start_worker()
    _, hard = resource.prlimit(worker.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (3, hard))
    with site.resource(SESSION) as resource_:
        resource_.task_start(AFM, 5)
        wait_until(lambda: "no process can be started" in site.log_of(worker), "no process can be started")
        resource.prlimit(worker.pid, resource.RLIMIT_NOFILE, (hard, hard))
        assert sum(resource_.wait(resource_.task_start(AFM, 7), 40).values()) == 7
    assert worker.poll() is None


# --- a calibration ---

SURVEY = Survey(
    drift=Drift(base=Noise(p_false_neg=0.05), per_day=Noise(rabi_error=0.05), seed=3),
    number=2,
    at=5 * DAY,
    calibration=Calibration(id=1, time=0),
)


def test_a_calibration_has_a_process_of_its_own_and_comes_to_the_same_each_time(machine: Emulator) -> None:
    found = []
    for _ in range(2):
        emulation = machine.survey(SURVEY)
        assert emulation.wait(60)
        found.append(emulation.outcome())
        emulation.end()
    assert found[0] == found[1] == Outcome(findings=calibrate.calibrate(SURVEY, seed=0))


def test_a_calibration_that_breaks_is_a_line(machine: Emulator) -> None:
    emulation = machine.survey(replace(SURVEY, shot_rate=-1.0, number=-1))
    assert emulation.wait(60)
    outcome = emulation.outcome()
    assert (outcome.findings, outcome.fault) == (None, "device")
    assert outcome.error
    assert "\n" not in outcome.error
    emulation.end()


def test_without_physics_a_calibration_is_had_at_once_and_with_it_never(machine: Emulator) -> None:
    assert machine.survey_at_once(SURVEY) == Outcome(findings=drift.at_once(SURVEY))
    machine._emulator = "qutip"
    assert machine.survey_at_once(SURVEY) is None
