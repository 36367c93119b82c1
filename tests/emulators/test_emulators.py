"""Pasqal's emulators on PyTorch: the same physics as Pulser's own, in processes that die alone."""

from __future__ import annotations

import math
import os
import signal
import warnings
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("emu_mps")

import emulation
import torch
from emu_mps.optimatrix import optimiser

from warden.qpu import costs, emulator, emulator_mps, emulator_sv, pasqal, shots, speed
from warden.qpu import emulation as shared
from warden.qpu.costs import POOL
from warden.qpu.noise import Noise
from warden.qpu.physics import Order
from warden.qpu.process import Emulator

if TYPE_CHECKING:
    from collections.abc import Iterator

# Fewer than in earnest.
TRAJECTORIES = 8
HALF_TURN = emulation.sequence((100, 5 * emulation.RABI, 0.0))
# Short, for the emulator of matrix product states takes a tenth of a second for each 10 ns.
PAIR = emulation.sequence(
    (48, emulation.RABI, 2.0), (48, 0.0, 0.0), (48, emulation.RABI, 0.0), places=[(0.0, 0.0), (9.0, 0.0)]
)
TRIANGLE = str(emulation.ring(3, rise=100, sweep=200).to_abstract_repr())


def emulate(module: Any, text: str, device: str = "MockDevice", **noise: float) -> dict[str, float]:
    return shots.probabilities(module.emulate(Order(device=device, sequence=text, noise=Noise(**noise))))


@pytest.mark.parametrize(
    "noise",
    [{}, {"rabi_error": 0.1, "detuning_error": 3.0}, {"dephasing_rate": 0.5}],
    ids=["none", "errors", "dephasing"],
)
def test_state_vectors_are_what_qutip_finds(noise: dict[str, float]) -> None:
    """They step by 10 ns, and QuTiP by as much as it takes."""
    found = emulate(emulator_sv, TRIANGLE, "AnalogDevice", **noise)
    assert emulation.distance(found, emulate(emulator, TRIANGLE, "AnalogDevice", **noise)) < 2e-3


@pytest.mark.parametrize("module", [emulator_sv, emulator_mps])
def test_how_slow_the_machine_is_is_known_before_the_first_check(module: Any) -> None:
    speed.slowness.cache_clear()
    module.warm_up()
    assert speed.slowness.cache_info().currsize == 1


def test_state_vectors_have_the_same_trajectories_as_qutip() -> None:
    noise = {"amp_sigma": 0.1, "temperature": 50.0, "state_prep_error": 0.1}
    found = emulate(emulator_sv, HALF_TURN, **noise)
    assert emulation.distance(found, emulate(emulator, HALF_TURN, **noise)) < 2e-3


def test_jumps_of_state_vectors_follow_from_the_order() -> None:
    """Six atoms far apart; the mean of their excitations within five standard deviations."""
    places = [(60.0 * i, 0.0) for i in range(6)]
    text = emulation.sequence((100, emulation.RABI, 0.0), places=places)
    found = emulate(emulator_sv, text, dephasing_rate=2.0)
    mean = sum(p * bits.count("1") for bits, p in found.items()) / 6
    single = emulate(emulator, emulation.sequence((100, emulation.RABI, 0.0)), dephasing_rate=2.0)["1"]
    assert mean == pytest.approx(single, abs=5 * math.sqrt(single / (6 * TRAJECTORIES)))
    assert found == emulate(emulator_sv, text, dephasing_rate=2.0)


@pytest.mark.parametrize("noise", [{}, {"rabi_error": 0.1, "detuning_error": 3.0}], ids=["none", "errors"])
def test_samples_of_matrix_product_states_are_what_qutip_finds(noise: dict[str, float]) -> None:
    """Error rate of the bound: one in a million, were the seed not fixed; steps of 10 ns add the rest."""
    found = emulate(emulator_mps, PAIR, **noise)
    assert emulation.distance(found, emulate(emulator, PAIR, **noise)) < emulation.bound(4, POOL) + 2e-3
    if noise:
        assert found == emulate(emulator_mps, PAIR, **noise)


def test_what_entangles_more_than_the_bounds_count_with_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain without any bonds has no entangled pair: the atoms no longer know that they block each other."""
    blocked = emulation.sequence((100, 3.5 * emulation.RABI, 0.0), places=[(0.0, 0.0), (5.0, 0.0)])
    exact = emulate(emulator, blocked)
    assert emulation.distance(emulate(emulator_mps, blocked), exact) < emulation.bound(4, POOL) + 2e-3
    monkeypatch.setattr(costs, "BOND", 1)
    assert emulation.distance(emulate(emulator_mps, blocked), exact) > 0.1


@pytest.mark.parametrize("noise", [{"amp_sigma": 0.1}, {"state_prep_error": 0.2}], ids=["amplitudes", "missing atoms"])
def test_the_order_of_the_chain_is_sought_once_for_all_trajectories(
    noise: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the fixed seed, some of them miss one atom, and some another."""
    sought, seek = [], optimiser.minimize_bandwidth_impl
    had, trajectories = [], shared.trajectories

    def counted(*arguments: Any) -> Any:
        sought.append(arguments)
        return seek(*arguments)

    def noted(*arguments: Any) -> Iterator[Any]:
        for trajectory in trajectories(*arguments):
            had.append(trajectory.noise)
            yield trajectory

    monkeypatch.setattr(optimiser, "minimize_bandwidth_impl", counted)
    monkeypatch.setattr(shared, "trajectories", noted)
    text = emulation.sequence((16, 1.0, 0.0), places=[(0.0, 0.0), (8.0, 0.0), (4.0, 7.0)])
    emulate(emulator_mps, text)
    once = len(sought)
    had.clear()
    emulate(emulator_mps, text, **noise)
    assert len(had) > 1
    if "state_prep_error" in noise:
        assert len({str(one.interaction_matrix) for one in had}) > 2
    assert len(sought) == 2 * once > 0


def test_samples_of_matrix_product_states_follow_from_the_order() -> None:
    """In one process too, where the second emulation could find what the first one has drawn."""
    text = emulation.sequence((48, emulation.RABI, 0.0), places=[(0.0, 0.0), (8.3, 0.0)])
    assert emulate(emulator_mps, text) == emulate(emulator_mps, text)


@pytest.mark.parametrize("module", [emulator_sv, emulator_mps])
def test_what_is_small_is_emulated_on_one_thread(module: Any, threads: list[int]) -> None:
    emulate(module, emulation.sequence((16, 1.0, 0.0), places=[(0.0, 0.0), (8.0, 0.0)]))
    assert threads == [1]


def test_what_is_large_has_as_many_threads_as_pytorch_takes(threads: list[int]) -> None:
    pasqal.limit_threads(2**17)
    assert threads == []


def test_the_operator_says_how_many_threads_there_are(threads: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    pasqal.limit_threads(2)
    assert threads == []


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What PyTorch is told of its threads."""
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return told


@pytest.mark.parametrize("module", [emulator_sv, emulator_mps])
def test_what_an_emulator_does_not_know_is_refused(module: Any) -> None:
    pulser = pytest.importorskip("pulser")
    sequence = pulser.Sequence(pulser.Register({"a": (0.0, 0.0), "b": (9.0, 0.0)}), pulser.MockDevice)
    sequence.declare_channel("raman", "raman_local", initial_target="a")
    sequence.add(pulser.Pulse.ConstantPulse(100, 1.0, 0.0, 0.0), "raman")
    with pytest.raises(ValueError, match="has no channels of the basis digital: qutip has them all"):
        module.check("MockDevice", sequence.to_abstract_repr(), Noise())


@pytest.mark.parametrize("name", ["emu-sv", "emu-mps"])
def test_its_processes_do_not_hang_die_alone_and_leave_the_next_one_well(name: str) -> None:
    machine = Emulator("MockDevice", 0, name, memory=4 * 2**30)
    try:
        first = machine.start(machine.order(PAIR))
        assert first.wait(60)
        first.end()
        assert first.outcome().distribution is not None
        long = emulation.sequence((100_000, 1.0, 0.0), places=[(8.0 * i, 0.0) for i in range(10)])
        dying = machine.start(machine.order(long))
        assert not dying.wait(0.5)
        os.kill(dying._process.pid or 0, signal.SIGKILL)
        assert dying.wait(60)
        dying.end()
        assert "emulator died (exit status -9)" in dying.outcome().error
        endless = machine.start(machine.order(long))
        assert not endless.wait(0.5)
        endless.end()
        last = machine.start(machine.order(PAIR))
        assert last.wait(60)
        last.end()
        assert last.outcome().distribution is not None
    finally:
        machine.close()


def test_too_much_memory_is_refused_before_it_runs() -> None:
    text = emulation.sequence((100, 1.0, 0.0), places=[(8.0 * (i % 6), 8.0 * (i // 6)) for i in range(34)])
    with pytest.raises(
        ValueError, match=r"would take [\d.]+ TiB of memory, and this machine has [\d.]+ GiB: use fewer"
    ):
        emulator_sv.check("MockDevice", text, Noise())
    assert emulator_mps.check("MockDevice", text, Noise()) > 0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What PyTorch and Pulser deprecate in each other is not our business."""
    monkeypatch.setattr(shared, "TRAJECTORIES", TRAJECTORIES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
