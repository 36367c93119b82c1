"""Shots in their order: packed, checked against the counts, kept with them, and read back page by page."""

from __future__ import annotations

import collections
import itertools
import random
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warden_machine import ALICE, BOB, DEVICE, OPERATOR, Machine, Qpu, ready, sequence
from warden_site import AFM, Site, wait_until

from warden import bitstrings, frames, wire
from warden.client import pulser_results
from warden.events import Keep
from warden.model import (
    SECOND,
    ConfigurationError,
    ConflictError,
    LimitError,
    NotFoundError,
    State,
    Task,
    TaskStatus,
)
from warden.qpu import shots
from warden.qpu.noise import Noise
from warden.qpu.physics import Order
from warden.store import Store

if TYPE_CHECKING:
    from pathlib import Path

CHANCE = random.Random(17)


def drawn(number: int, qubits: int) -> list[str]:
    return [f"{CHANCE.getrandbits(qubits):0{qubits}b}" for _ in range(number)]


# --- packed ---


@given(st.integers(1, 130).flatmap(lambda qubits: st.lists(st.text("01", min_size=qubits, max_size=qubits))))
def test_what_is_packed_is_the_same_again_and_agrees_with_its_counts(taken: list[str]) -> None:
    qubits = len(taken[0]) if taken else 3
    data = bitstrings.pack(taken)
    assert len(data) == bitstrings.size(len(taken), qubits)
    assert bitstrings.unpack(data, qubits) == taken
    assert bitstrings.agree(data, collections.Counter(taken), qubits)


def test_the_first_atom_is_the_highest_bit_of_the_first_byte() -> None:
    assert bitstrings.pack(["1000000001", "0000000010"]) == b"\x80\x40\x00\x80"


@pytest.mark.parametrize(
    "data",
    [b"", b"\x40", b"\x40\x80\x80", b"\x40\x40\x80", b"\x40\x80\x40\x40", b"\x41\x80\x80\x40"],
    ids=["none", "one", "one less", "another", "one changed", "a bit behind the last atom"],
)
def test_shots_that_were_not_counted_do_not_agree(data: bytes) -> None:
    counts = {"01": 2, "10": 2}
    assert bitstrings.agree(b"\x40\x80\x80\x40", counts, 2)
    assert not bitstrings.agree(data, counts, 2)


# --- from the worker to the store ---


def started(machine: Machine, number: int = 100, *, bitstrings: bool = True, qubits: int = 2) -> Task:
    session = machine.session()
    body = wire.TaskStart(session=session.id, sequence=sequence(qubits), shots=number, key="k", bitstrings=bitstrings)
    task: Task = machine.ask(body, session.uid)
    return task


def hand_in(qpu: Qpu, taken: list[str], **other: Any) -> None:
    qpu.finish(len(taken), dict(collections.Counter(taken)), **{"bitstrings": bitstrings.pack(taken), **other})


def kept(machine: Machine, number: int, uid: int = ALICE) -> list[str]:
    """Page by page, as a client reads them."""
    found: list[str] = []
    while True:
        page: wire.Bitstrings = machine.ask(wire.GetBitstrings(task=number, first=len(found)), uid)
        assert page.first == len(found)
        found += bitstrings.unpack(page.data, page.qubits)
        if len(found) >= page.total:
            return found


def test_shots_are_kept_in_their_order_and_only_where_they_are_asked_for() -> None:
    machine, qpu = ready()
    task, taken = started(machine), drawn(100, 2)
    assert qpu.take().bitstrings
    hand_in(qpu, taken)
    assert kept(machine, task.id) == taken
    assert machine.task(task.id).counts == dict(collections.Counter(taken))
    assert kept(machine, task.id, OPERATOR) == taken
    with pytest.raises(NotFoundError, match="no such task of yours"):
        kept(machine, task.id, BOB)
    with pytest.raises(NotFoundError, match="none with the number 100"):
        machine.ask(wire.GetBitstrings(task=task.id, first=100), ALICE)


def test_who_did_not_ask_is_told_so_in_one_line_and_nothing_is_kept() -> None:
    machine, qpu = ready()
    task, taken = started(machine, bitstrings=False), drawn(100, 2)
    assert not qpu.take().bitstrings
    hand_in(qpu, taken)
    assert machine.task(task.id).status is TaskStatus.COMPLETED
    with pytest.raises(ConflictError, match=f"of task {task.id} were not kept in their order: ask for them with"):
        kept(machine, task.id)
    assert machine.disk.bitstrings(task.id, 0) is None


def test_before_the_task_is_completed_there_are_none() -> None:
    machine, qpu = ready()
    task = started(machine)
    qpu.take()
    with pytest.raises(ConflictError, match="is running: it has no result yet, wait for it"):
        kept(machine, task.id)


def test_a_task_that_is_cut_has_its_shots_in_one_order_over_a_crash_of_the_broker() -> None:
    machine, qpu = ready()
    task, taken = started(machine), drawn(100, 2)
    for start, end in itertools.pairwise((0, 10, 11, 60, 100)):
        assert qpu.take().first_shot == start
        if start == 11:
            machine.restart()
            qpu.hello()
        hand_in(qpu, taken[start:end])
    assert kept(machine, task.id) == taken


def test_shots_of_runs_that_do_not_count_are_not_kept() -> None:
    machine, qpu = ready()
    task, taken = started(machine), drawn(100, 2)
    stale = qpu.take().token
    hand_in(qpu, taken[:40])
    qpu.take()
    # It dies with its run, and another one repeats it.
    qpu.die()
    other = Qpu(machine, "w2")
    machine.later(10)
    other.hello()
    hand_in(other, drawn(60, 2), token=stale)
    assert other.take().first_shot == 40
    hand_in(other, taken[40:])
    assert kept(machine, task.id) == taken
    assert machine.task(task.id).repeats == 1


@pytest.mark.parametrize("spoilt", [b"", b"\x00", b"\xff" * 100, b"\x40" * 101])
def test_a_run_whose_shots_do_not_agree_with_its_counts_is_repeated(spoilt: bytes) -> None:
    machine, qpu = ready()
    task, taken = started(machine), ["01"] * 100
    qpu.take()
    hand_in(qpu, taken, bitstrings=spoilt)
    assert any(
        "the QPU returned other shots than it counted and will be repeated" in n for n in machine.task(task.id).log
    )
    qpu.take()
    hand_in(qpu, taken)
    assert kept(machine, task.id) == taken


def test_shots_of_a_task_that_gets_no_result_are_forgotten() -> None:
    machine, qpu = ready()
    task = started(machine)
    qpu.take()
    hand_in(qpu, drawn(40, 2))
    assert machine.disk.bitstrings(task.id, 0) is not None
    machine.ask(wire.TaskStop(task=task.id), ALICE)
    assert machine.disk.bitstrings(task.id, 0) is None
    with pytest.raises(ConflictError, match="is cancelled"):
        kept(machine, task.id)


def test_more_shots_than_can_be_kept_in_their_order_are_refused() -> None:
    machine, _ = ready(max_shots=10**7)
    with pytest.raises(LimitError, match="of 2 atoms at most 4194304 shots are kept in their order"):
        started(machine, 5_000_000)
    assert started(machine, 5_000_000, bitstrings=False).shots == 5_000_000


# --- as much as the limits allow ---


def test_100_000_shots_of_100_atoms_come_back_in_pages_that_fit(tmp_path: Path) -> None:
    taken = drawn(100_000, 100)
    store = Store(tmp_path / "store.db")
    fields: dict[str, Any] = {"session": "s", "uid": 1, "key": "k", "submitted": 0, "qubits": 100, "bitstrings": True}
    store.begin()
    for number, (start, end) in enumerate(itertools.pairwise((0, 1, 70_000, 100_000))):
        part = wire.Bitstrings(qubits=100, first=start, shots=end - start, data=bitstrings.pack(taken[start:end]))
        task = Task(id=1, shots=100_000, status=TaskStatus.QUEUED, runs=number, **fields)
        store.apply([Keep(task, bitstrings=part)])
    store.commit()
    found: list[str] = []
    while page := store.bitstrings(1, len(found)):
        assert len(frames.pack_answer(1, page)) <= wire.PART + 1000
        found += bitstrings.unpack(page.data, page.qubits)
    assert found == taken
    store.close()


def test_100_000_shots_of_100_atoms_over_the_real_wire(site: Site) -> None:
    """A worker's answer is as large as it gets: each shot another bitstring, and all of them in their order."""
    site.configure(qpu={"emulator": "echo", "qubits": 100, "overhead": 0.01})
    code = (
        "import random; from warden.qpu import process; chance = random.Random(5);"
        "process.draw = lambda *_, shots, **__: [f'{chance.getrandbits(100):0100b}' for _ in range(shots)];"
        "from warden.cli import main; main()"
    )
    site.start_broker()
    site.start_worker(code=code)
    chance = random.Random(5)
    taken = [f"{chance.getrandbits(100):0100b}" for _ in range(100_000)]
    with site.resource() as resource:
        task = resource.task_start(sequence(100), 100_000, bitstrings=True)
        assert resource.wait(task, 120) == dict.fromkeys(taken, 1)
        assert resource.task_bitstrings(task) == taken


# --- real processes ---

# A task of 120 shots takes six seconds, so that it is seen to run, and is still on when something happens to it.
PACED = {"shot_rate": 20.0, "overhead": 0.05, "emulator": "qutip"}


def whole(site: Site, number: int) -> list[str]:
    """What this task comes to in one piece: the same seed, the same number."""
    emulator = pytest.importorskip("warden.qpu.emulator")
    seed = site.config.qpu.seed
    distribution = emulator.emulate(Order(device="AnalogDevice", sequence=AFM, seed=seed))
    found: list[str] = shots.draw(distribution, Noise(), seed=seed, task=number, first=0, shots=120)
    return found


@pytest.mark.long
def test_a_window_in_the_middle_changes_nothing_in_the_order(site: Site) -> None:
    site.configure(qpu=PACED)
    site.start_broker()
    site.start_worker()
    with site.resource() as resource, site.client() as client:
        task = resource.task_start(AFM, 120, bitstrings=True)
        wait_until(lambda: resource.task_status(task) is TaskStatus.RUNNING, "the task runs")
        client.add_window(State.MAINTENANCE, duration=SECOND)
        counts = resource.wait(task, 120)
        log, found = resource.task_logs(task), resource.task_bitstrings(task)
    assert "completed in 2 runs" in log
    assert found == whole(site, int(task))
    assert counts == dict(collections.Counter(found))


@pytest.mark.long
def test_a_worker_that_is_killed_changes_nothing_in_the_order(site: Site) -> None:
    site.configure(qpu={**PACED, "longest_run": 3})
    site.start_broker()
    site.start_worker()
    with site.resource() as resource, site.client() as client:
        task = resource.task_start(AFM, 120, bitstrings=True)

        def second_run() -> bool:
            one = client.task(int(task))
            return one.runs >= 1 and one.status is TaskStatus.RUNNING

        wait_until(second_run, "its second run is on")
        site.kill(site.worker)
        site.wait_for(State.OFFLINE)
        site.start_worker()
        counts = resource.wait(task, 120)
        log, found = resource.task_logs(task), resource.task_bitstrings(task)
    assert "will be repeated" in log
    assert found == whole(site, int(task))
    assert counts == dict(collections.Counter(found))


# --- what is told besides ---


def test_metadata_are_the_worker_s_and_what_the_broker_knows() -> None:
    machine, qpu = ready()
    task = started(machine, bitstrings=False)
    qpu.take()
    qpu.finish(30, metadata={"device": DEVICE, "atom_order": ("a", "b"), "shots": 7})
    qpu.take()
    qpu.finish(metadata={"device": DEVICE, "atom_order": ("a", "b")})
    told = {"device": DEVICE, "atom_order": ["a", "b"], "qpu": "fresnel", "qubits": 2, "shots": 100}
    assert _read(machine.task(task.id)) == told
    machine.restart()
    assert machine.task(task.id).metadata == told
    [listed] = machine.ask(wire.ListTasks(), ALICE)
    assert listed.metadata == {}


def test_the_calibration_and_its_age_are_told_with_the_result_and_in_the_log() -> None:
    machine, qpu = ready()
    machine.block(duration=60, kind="calibrating")
    qpu.calibrate()
    qpu.calibrated()
    machine.later(3660)
    task = started(machine, bitstrings=False)
    qpu.take()
    machine.restart()
    qpu.hello()
    qpu.finish()
    done = machine.task(task.id)
    assert (done.metadata["calibration"], done.metadata["calibration_age"]) == (1, 3660)
    assert any(", with calibration 1, 3660 s old" in line for line in done.log)


def test_the_worker_s_lines_stand_in_the_log_and_are_bounded() -> None:
    machine, qpu = ready()
    task = started(machine, bitstrings=False)
    qpu.take()
    qpu.finish(log=("ready after 0.2 s", "two\nlines", *(f"line {n}" for n in range(98))))
    log = [line.partition("Z ")[2] for line in machine.task(task.id).log]
    assert log[:2] == ["queued: 100 shots on 2 qubits", "run 1 started: 100 shots from shot 0"]
    assert log[2:4] == ["run 1: ready after 0.2 s", "run 1: two lines"]
    assert log[-2:] == ["run 1: 100 of 100 shots in 0.000 s", "completed in 1 run"]
    assert len(log) <= 10


def _read(task: Task) -> dict[str, Any]:
    """As a client has it."""
    _, told = frames.unpack_answer(frames.pack_answer(1, task))
    return frames.convert(told, Task).metadata


def test_shots_and_metadata_outlive_kill_9_of_the_broker(site: Site) -> None:
    site.configure(qpu={"emulator": "echo", "overhead": 0.01})
    site.start_broker()
    site.start_worker()
    with site.resource() as resource:
        task = resource.task_start(AFM, 20, bitstrings=True)
        resource.wait(task, 30)
    site.kill(site.broker)
    site.start_broker()
    with site.resource() as resource:
        assert resource.task_bitstrings(task) == ["0000"] * 20
        assert resource.task_metadata(task)["emulator"] == "echo"


def test_metadata_say_whether_there_is_noise_and_what_computed_them_and_never_the_seed(site: Site) -> None:
    pytest.importorskip("pulser_simulation")
    site.configure(qpu={"seed": 271828182, "overhead": 0.01, "emulator": "qutip"}, noise={"p_false_pos": 0.01})
    site.start_broker()
    site.start_worker()
    with site.resource() as resource:
        task = resource.task_start(AFM, 20)
        counts = resource.wait(task, 120)
        told = resource.task_metadata(task)
        results = resource.task_pulser_results(task)
    assert told["noise"] is True
    assert any(line.startswith("pulser-core ") for line in told["software"])
    assert "271828182" not in repr(told)
    assert (results.atom_order, results.total_duration) == (tuple(told["atom_order"]), told["total_duration"])
    assert results.final_bitstrings == counts


def test_without_pulser_its_results_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pulser.backend.results", None)
    with pytest.raises(ConfigurationError, match="Pulser is not installed for this Python"):
        pulser_results(Task(id=1, session="s", uid=1, shots=1, qubits=1, key="k", submitted=0))


def test_names_that_nobody_could_want_to_read_are_not_told() -> None:
    emulator = pytest.importorskip("warden.qpu.emulator")
    pulser = pytest.importorskip("pulser")

    def told(name: str) -> dict[str, Any]:
        built = pulser.Sequence(pulser.Register({name: (0.0, 0.0), "b": (8.0, 0.0)}), pulser.MockDevice)
        built.declare_channel("ryd", "rydberg_global")
        built.add(pulser.Pulse.ConstantPulse(100, 1.0, 0.0, 0.0), "ryd")
        order = Order(device="MockDevice", sequence=built.to_abstract_repr())
        facts: dict[str, Any] = emulator.facts(order)
        return facts

    assert told("a") == {"atom_order": ("a", "b"), "total_duration": 100}
    for name in ("x" * 65, "two\nlines", "\ud800"):
        assert told(name) == {"total_duration": 100}
