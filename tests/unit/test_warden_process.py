"""A run's process: what it says, how it dies, and that neither is ever waited for without an end."""

from __future__ import annotations

import multiprocessing
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from msgspec.structs import replace
from warden_site import AFM, SESSION, Site, wait_until

from warden.model import Calibration, ConfigurationError
from warden.qpu import calibrate, child, drift
from warden.qpu.drift import DAY, Drift, Survey
from warden.qpu.noise import Noise
from warden.qpu.physics import EMULATORS, Distribution, Order, Outcome
from warden.qpu.process import Emulation, Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stuck:
    """A process that the kernel does not let go: none can be had on purpose."""

    pid = 4711
    exitcode = None
    killed = False

    def kill(self) -> None:
        self.killed = True

    def join(self, timeout: float | None = None) -> None:
        assert timeout is not None, "this would wait for ever"


class Ended:
    """A process that subprocess has started, as multiprocessing shows it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def join(self, timeout: float) -> None:
        self._process.wait(timeout)

    @property
    def exitcode(self) -> int | None:
        return self._process.returncode


@pytest.fixture
def machine() -> Iterator[Emulator]:
    machine = Emulator("Anything", 0, "echo")
    yield machine
    machine.close()


@pytest.fixture
def pipe() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@pytest.fixture
def no_files() -> Iterator[None]:
    """The machine has no file descriptor to spare."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def start(machine: Emulator, sequence: str = AFM) -> Emulation:
    return machine.start(machine.order(sequence))


def well(emulation: Emulation) -> bool:
    """Whether it comes to something."""
    assert emulation.wait(30)
    emulation.end()
    return emulation.outcome().distribution is not None


def test_what_breaks_in_a_run_is_the_task_s_fault(machine: Emulator) -> None:
    emulation = start(machine, "nonsense")
    assert emulation.wait(30)
    assert emulation.outcome().fault == "task"
    emulation.end()


def test_an_emulator_that_is_gone_when_a_run_starts_is_the_device_s_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "warden.qpu.no_such_module"
    monkeypatch.setitem(EMULATORS, "missing", missing)
    outcome = child.answer("missing", Order(device="Anything", sequence=AFM))
    assert outcome.fault == "device"
    assert missing in outcome.error


@pytest.mark.skipif(find_spec("torch") is not None, reason="the extra is installed")
@pytest.mark.parametrize("emulator", ["emu-sv", "emu-mps"])
def test_an_extra_that_is_not_installed_is_named(emulator: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"the emulator {emulator} needs it, install gridengine-qpu\[emu\]"):
        Emulator("AnalogDevice", 0, emulator)


def test_an_extra_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    """As PyTorch's, with a library of the driver's missing: it is no ImportError, and the process it is in goes on."""
    (tmp_path / "torch.py").write_text("raise OSError('libcudart.so: cannot open shared object file')\n")
    script = "from warden.qpu.process import Emulator; Emulator('AnalogDevice', 0, 'emu-sv')"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1].endswith("ConfigurationError: libcudart.so: cannot open shared object file")


@pytest.mark.usefixtures("machine", "no_files")
def test_a_machine_without_a_process_to_spare_is_an_os_error(machine: Emulator) -> None:
    machine.close()
    with pytest.raises(OSError, match="no process can be started"):
        start(machine)


def test_a_fork_server_that_ends_is_an_os_error_once(machine: Emulator) -> None:
    machine.close()
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
    assert well(emulation)


@pytest.mark.usefixtures("no_files")
def test_a_device_that_has_no_process_to_start_with_is_a_line() -> None:
    with pytest.raises(ConfigurationError, match="cannot start"):
        Emulator("Anything", 0, "echo")


def test_a_request_may_be_large_and_nobody_waits_for_it_to_be_read(machine: Emulator) -> None:
    emulation = start(machine, AFM + " " * 10_000_000)
    assert well(emulation)


def test_a_process_that_died_while_it_waited_is_replaced(machine: Emulator) -> None:
    spare = machine._spare
    assert spare is not None
    os.kill(spare._process.pid or 0, signal.SIGKILL)
    spare._process.join()
    assert well(start(machine))


def test_a_process_that_dies_before_it_has_read_its_task_is_noticed(machine: Emulator) -> None:
    emulation = machine._fork()
    os.kill(emulation._process.pid or 0, signal.SIGSTOP)
    emulation.ask(machine.order(AFM))
    os.kill(emulation._process.pid or 0, signal.SIGKILL)
    assert emulation.wait(30)
    assert "emulator died" in emulation.outcome().error
    emulation.end()


def test_each_task_has_a_process_of_its_own(machine: Emulator) -> None:
    pids = set()
    for _ in range(3):
        emulation = start(machine)
        pids.add(emulation._process.pid)
        assert well(emulation)
    assert len(pids) == 3


def test_a_worker_that_ends_leaves_no_process_behind(machine: Emulator) -> None:
    spare = machine._spare
    assert spare is not None
    machine.close()
    assert spare._process.exitcode is not None


def test_a_process_that_stops_while_it_speaks_blocks_nobody(pipe: Any) -> None:
    ours, theirs = pipe
    emulation = Emulation(Stuck(), ours)
    said = msgspec.msgpack.encode(Outcome(distribution=Distribution(3)))
    theirs.sendall(said[:-4])
    assert not emulation.done()
    assert not emulation.done()
    assert not emulation.wait(0)
    theirs.close()
    assert emulation.wait(30)
    outcome = emulation.outcome()
    assert outcome.distribution is None
    assert "emulator died" in outcome.error
    assert outcome.fault == "task"


def test_a_process_that_does_not_die_is_left_behind(pipe: Any, caplog: pytest.LogCaptureFixture) -> None:
    stuck = Stuck()
    Emulation(stuck, pipe[0]).end()
    assert stuck.killed
    assert "process 4711 was killed and does not end" in caplog.text


def test_a_process_that_is_stopped_is_killed_all_the_same(machine: Emulator) -> None:
    # Not one at work: an echo is done before it could be stopped.
    emulation = machine._fork()
    os.kill(emulation._process.pid or 0, signal.SIGSTOP)
    emulation.end()
    # It was waited for, and that has an end.
    assert emulation._process.exitcode == -signal.SIGKILL


# --- with physics ---


@pytest.fixture
def physics() -> Iterator[Emulator]:
    pytest.importorskip("pulser_simulation")
    machine = Emulator("AnalogDevice", 0, memory=3 * 2**30)
    yield machine
    machine.close()


def endless(atoms: int = 14) -> str:
    """What takes minutes."""
    return str(__import__("emulation").ring(atoms, rise=1000, sweep=4000).to_abstract_repr())


def test_an_emulation_that_is_killed_is_an_error_of_its_task_alone(physics: Emulator) -> None:
    dying = start(physics, endless())
    os.kill(dying._process.pid or 0, signal.SIGKILL)
    assert dying.wait(30)
    assert "emulator died (exit status -9)" in dying.outcome().error
    dying.end()
    assert well(start(physics))


def test_an_emulation_without_an_end_is_ended(physics: Emulator) -> None:
    emulation = start(physics, endless())
    assert not emulation.wait(1)
    emulation.end()
    assert emulation._process.exitcode == -signal.SIGKILL
    assert well(start(physics))


GREEDY = """
import socket, sys, types
from warden.qpu import child
from warden.qpu.physics import EMULATORS
greedy = sys.modules["greedy"] = types.ModuleType("greedy")
greedy.emulate = lambda order: [bytes(2**26) for _ in range(64)]
EMULATORS["greedy"] = "greedy"
child.serve(socket.socket(fileno=int(sys.argv[1])), "greedy", 64 * 2**20)
"""


LOOKING = """
import socket, sys, types
from warden.qpu import child
from warden.qpu.physics import EMULATORS
long = sys.modules["long"] = types.ModuleType("long")
long.check = long.read = lambda *_: {}
EMULATORS["long"] = "long"
child._CHECK = {}
child._prepare = lambda: None
child.serve(socket.socket(fileno=int(sys.argv[1])), "long", 0)
"""


def test_an_emulation_that_takes_more_memory_than_it_may_have_is_told_so_by_the_kernel(pipe: Any) -> None:
    """It wants 4 GiB, and is refused long before."""
    ours, theirs = pipe
    command = [sys.executable, "-c", GREEDY, str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]) as process:
        theirs.close()
        child.send(ours, Order(device="Anything", sequence=AFM))
        emulation = Emulation(Stuck(), ours)
        assert emulation.wait(30)
    assert process.returncode == 0
    outcome = emulation.outcome()
    assert outcome.error.startswith("the emulation needs more memory than it may have (qpu.memory allows 64.0 MiB): ")
    assert outcome.fault == "task"


def test_a_check_has_little_memory_whatever_an_emulation_may_have(pipe: Any) -> None:
    """Another user's sequence is being emulated meanwhile: it shall not be short of memory for this one."""
    ours, theirs = pipe
    command = [sys.executable, "-c", LOOKING.format("bytes(2**31)", 4), str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()]):
        theirs.close()
        child.send(ours, child.Check(device="Anything", sequence=AFM, noise=Noise()))
        check = Emulation(Stuck(), ours)
        assert check.wait(30)
    outcome = check.outcome(fault="device")
    assert outcome == Outcome(error="to check it takes more than 1.0 GiB of memory: make it shorter", fault="task")


@pytest.mark.parametrize(
    "request_",
    [child.Check(device="Anything", sequence=AFM, noise=Noise()), Order(device="Anything", sequence=AFM)],
    ids=["checked", "run unchecked"],
)
def test_a_sequence_that_takes_pulser_a_step_without_an_end_is_at_fault(pipe: Any, request_: child.Request) -> None:
    """Python hears of no signal in it, so the process has to be ended; nobody else ends one like that."""
    ours, theirs = pipe
    command = [sys.executable, "-c", LOOKING.format("sum(range(10**15))", 1), str(theirs.fileno())]
    with subprocess.Popen(command, pass_fds=[theirs.fileno()], stderr=subprocess.DEVNULL) as process:
        theirs.close()
        child.send(ours, request_)
        check = Emulation(Ended(process), ours)
        assert check.wait(60)
        outcome = check.outcome(fault="device")
    assert outcome.error.startswith("Pulser did not finish checking it within ")
    assert outcome.fault == "task"


def test_a_sequence_that_takes_more_memory_than_the_configuration_allows_is_refused_before_it_runs() -> None:
    pytest.importorskip("pulser_simulation")
    small = Emulator("AnalogDevice", 0, memory=100 * 2**20)
    refusal = r"the emulation would take [\d.]+ MiB of memory, and qpu.memory allows 100.0 MiB: use fewer atoms"
    try:
        assert well(start(small))
        for refused in (start(small, endless(13)), small.start(small.check(endless(13)))):
            assert refused.wait(30)
            refused.end()
            assert re.fullmatch(refusal, refused.outcome().error)
            assert refused.outcome().fault == "task"
    finally:
        small.close()


def test_a_distribution_is_kept_for_the_next_task_with_its_sequence(physics: Emulator) -> None:
    order = physics.order(AFM)
    assert physics.at_once(order) is None
    assert physics.at_once(physics.check(AFM)) is None
    emulation = physics.start(order)
    assert emulation.wait(30)
    emulation.end()
    found = physics.collect(emulation)
    kept = physics.at_once(order)
    assert kept is not None
    assert kept.distribution == found.distribution
    # The task that is asked about may run when it is kept no more, or by another worker.
    assert physics.at_once(physics.check(AFM)) is None


def test_a_check_says_how_long_it_takes_or_why_not(physics: Emulator) -> None:
    for sequence, error in ((AFM, ""), ("{}", "Pulser refuses the sequence")):
        checking = physics.start(physics.check(sequence))
        assert checking.wait(30)
        checking.end()
        assert error in checking.outcome().error
        assert (checking.outcome().preparation > 0) is not bool(error)


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
        emulation = machine.start(machine.calibration(SURVEY))
        assert emulation.wait(60)
        found.append(emulation.outcome())
        emulation.end()
    assert found[0] == found[1] == Outcome(findings=calibrate.calibrate(SURVEY, seed=0))


@pytest.mark.long
def test_a_calibration_s_process_emulates_its_scans_where_there_is_time(machine: Emulator) -> None:
    pytest.importorskip("pulser_simulation")
    emulation = machine.start(machine.calibration(replace(SURVEY, shot_rate=1.0)))
    assert emulation.wait(60)
    findings = emulation.outcome().findings
    emulation.end()
    assert findings is not None
    assert findings.log[1] == "each shot emulated by Pulser"
    modelled = calibrate.calibrate(SURVEY, seed=0)
    assert findings.measured == pytest.approx(modelled.measured, abs=0.01)
    assert findings.after == pytest.approx(modelled.after, abs=0.001)


def test_a_calibration_that_breaks_is_a_line(machine: Emulator) -> None:
    emulation = machine.start(machine.calibration(replace(SURVEY, shot_rate=-1.0, number=-1)))
    assert emulation.wait(60)
    outcome = emulation.outcome()
    assert (outcome.findings, outcome.fault) == (None, "device")
    assert outcome.error
    assert "\n" not in outcome.error
    emulation.end()


def test_without_physics_a_calibration_is_had_at_once_and_with_it_never(machine: Emulator) -> None:
    assert machine.at_once(machine.calibration(SURVEY)) == Outcome(findings=drift.at_once(SURVEY))
    machine._emulator = "qutip"
    assert machine.at_once(machine.calibration(SURVEY)) is None
