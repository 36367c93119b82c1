"""Noise: each figure does to one atom what its closed form says, and what is random follows from the order."""

from __future__ import annotations

import collections
import math

import pytest

pytest.importorskip("pulser_simulation")

import emulation
import pulser
from pulser.backend import StateResult
from pulser_simulation import QutipBackendV2, QutipConfig

from warden.qpu import emulation as shared
from warden.qpu import emulator, shots
from warden.qpu.noise import Noise
from warden.qpu.physics import Order

# Fewer than in earnest: each takes a tenth of a second.
TRAJECTORIES = 12
HALF_TURN = emulation.sequence((500, emulation.RABI, 0.0))
QUARTER_TURN = emulation.sequence((252, emulation.RABI, 0.0))


@pytest.fixture(autouse=True)
def _few_trajectories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "TRAJECTORIES", TRAJECTORIES)


@pytest.mark.parametrize("error", [-0.2, 0.1])
def test_a_rabi_error_scales_all_amplitudes(error: float) -> None:
    found = emulation.excited(emulator, QUARTER_TURN, rabi_error=error)
    assert found == pytest.approx(emulation.rabi(emulation.RABI * (1 + error), 0.0, 0.252), abs=2e-3)


@pytest.mark.parametrize("error", [-2.0, 4.0])
def test_a_detuning_error_moves_all_detunings(error: float) -> None:
    found = emulation.excited(emulator, HALF_TURN, detuning_error=error)
    assert found == pytest.approx(emulation.rabi(emulation.RABI, error, 0.5), abs=2e-3)


def test_a_detuning_error_turns_phases_during_delays_too() -> None:
    """Ramsey: two quarter turns with a pause between them, in which the phase turns by detuning times time."""
    pause = 1000
    # The pulses are short: what the error does during them is little.
    quarter = (20, emulation.RABI / 4 / 0.02, 0.0)
    text = emulation.sequence(quarter, (pause, 0.0, 0.0), quarter)
    for error in (0.0, math.pi / 2, math.pi):
        found = emulation.excited(emulator, text, detuning_error=error)
        assert found == pytest.approx((1 + math.cos(error * (pause + 20) / 1000)) / 2, abs=0.03)


@pytest.mark.parametrize("atoms", [1, 2])
def test_dephasing_lets_an_oscillation_decay(atoms: int) -> None:
    """An atom driven in resonance: its oscillation loses half of the dephasing's rate."""
    rate, time = 0.4, 2.0
    places = [(60.0 * i, 0.0) for i in range(atoms)]
    text = emulation.sequence((int(time * 1000), emulation.RABI, 0.0), places=places)
    found = emulation.probabilities(emulator, text, dephasing_rate=rate)
    one = sum(p for bits, p in found.items() if bits[0] == "1")
    assert one == pytest.approx((1 - math.exp(-rate * time / 2)) / 2, abs=5e-3)


def test_dephasing_of_many_atoms_is_made_of_jumps_that_follow_from_the_order() -> None:
    """Six atoms far apart. The mean of their excitations over all trajectories within five standard deviations."""
    rate, time = 2.0, 0.1
    places = [(60.0 * i, 0.0) for i in range(6)]
    text = emulation.sequence((int(time * 1000), emulation.RABI, 0.0), places=places)
    found = emulation.probabilities(emulator, text, dephasing_rate=rate)
    damping, turn = rate / 2, math.sqrt(emulation.RABI**2 - (rate / 2) ** 2)
    wave = math.cos(turn * time) + damping / turn * math.sin(turn * time)
    expected = (1 - math.exp(-damping * time) * wave) / 2
    mean = sum(p * bits.count("1") for bits, p in found.items()) / 6
    assert mean == pytest.approx(expected, abs=5 * 0.5 / math.sqrt(6 * TRAJECTORIES))
    assert found == emulation.probabilities(emulator, text, dephasing_rate=rate)


def test_quantum_jumps_leave_states_and_no_density_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose norms would take ten times as long as all the rest of ten atoms: longer than a check says."""
    kets = []
    apply = emulator._Populations.apply
    monkeypatch.setattr(
        emulator._Populations,
        "apply",
        lambda self, *, state, **other: kets.append(state.to_qobj().isket) or apply(self, state=state, **other),
    )
    places = [(10.0 * i, 0.0) for i in range(6)]
    emulation.probabilities(emulator, emulation.sequence((100, 1.0, 0.0), places=places), dephasing_rate=0.5)
    assert kets == [True] * TRAJECTORIES


def test_an_atom_that_is_not_there_is_not_excited() -> None:
    """Within five standard deviations of as many trajectories."""
    found = emulation.excited(emulator, HALF_TURN, state_prep_error=0.3)
    assert found == pytest.approx(0.7, abs=5 * math.sqrt(0.3 * 0.7 / TRAJECTORIES))


@pytest.mark.parametrize(
    ("noise", "sigma"),
    [({"amp_sigma": 0.1}, 0.1 * math.pi), ({"temperature": 2000.0}, 0.0), ({"detuning_sigma": 2.0}, 0.0)],
)
def test_what_differs_from_shot_to_shot_makes_a_turn_less_than_whole(noise: dict[str, float], sigma: float) -> None:
    found = emulation.excited(emulator, HALF_TURN, **noise)
    assert 0.5 < found < 0.995
    if sigma:
        # The mean of cos over a normal distribution; the spread of its square bounds the sampling error.
        assert found == pytest.approx(
            (1 + math.exp(-(sigma**2) / 2)) / 2, abs=5 * sigma**2 / math.sqrt(8 * TRAJECTORIES)
        )


def test_noise_is_pulser_s_own_with_the_same_figures() -> None:
    """Means of two independent sets of trajectories of the same noise, within five standard deviations of each."""
    figures = {"amp_sigma": 0.05, "temperature": 100.0, "state_prep_error": 0.05}
    ours = emulation.excited(emulator, HALF_TURN, **figures)
    config = QutipConfig(
        observables=[StateResult(evaluation_times=[1.0])], noise_model=pulser.NoiseModel(**figures), n_trajectories=30
    )
    state = QutipBackendV2(pulser.Sequence.from_abstract_repr(HALF_TURN), config=config).run().final_state
    deviation = math.sqrt(0.05 * 0.95 + 0.02)
    assert ours == pytest.approx(state.probabilities()["r"], abs=5 * deviation * math.sqrt(1 / TRAJECTORIES + 1 / 30))


SPREADS = {"amp_sigma": 0.2, "detuning_sigma": 2.0, "temperature": 300.0, "state_prep_error": 0.3}


def in_bases(*channels: str) -> pulser.Sequence:
    """Three atoms whose names are in no order, driven by these channels one after the other."""
    register = pulser.Register({"z": (0.0, 0.0), "a": (8.0, 0.0), "m": (0.0, 9.0)})
    sequence = pulser.Sequence(register, pulser.MockDevice)
    for channel, target in zip(channels, "za", strict=False):
        sequence.declare_channel(channel, channel, **({"initial_target": target} if "local" in channel else {}))
        sequence.add(pulser.Pulse.ConstantPulse(200, 6.0, 1.0, 0.3), channel)
        sequence.delay(100, channel)
        sequence.add(pulser.Pulse.ConstantPulse(100, 4.0, 0.0, 0.0), channel)
    return sequence


@pytest.mark.parametrize(
    ("channels", "figures"),
    [
        (("rydberg_global", "rydberg_local"), SPREADS),
        (("raman_local",), SPREADS),
        # Some trajectories drive one basis only, for the atom of the other one is missing.
        (("raman_local", "rydberg_local"), SPREADS),
        (("mw_global",), {"state_prep_error": 0.3}),
    ],
)
def test_with_the_same_random_numbers_noise_is_pulser_s_own(
    channels: tuple[str, ...], figures: dict[str, float]
) -> None:
    text = str(in_bases(*channels).to_abstract_repr())
    order = Order(device="MockDevice", sequence=text, noise=Noise(**figures, dephasing_rate=0.3), seed=1)
    ours = shots.probabilities(emulator.emulate(order))
    hyperfine = {"hyperfine_dephasing_rate": 0.3} if "raman_local" in channels else {}
    config = QutipConfig(
        observables=[StateResult(evaluation_times=[1.0])],
        noise_model=pulser.NoiseModel(**figures, dephasing_rate=0.3, **hyperfine),
        n_trajectories=TRAJECTORIES,
        solver="MasterEquation",
    )
    shared.seed(order.digest)
    state = QutipBackendV2(pulser.Sequence.from_abstract_repr(text), config=config).run().final_state
    one = "h" if hyperfine else "d" if "mw_global" in channels else "r"
    own: collections.Counter[str] = collections.Counter()
    for levels, p in state.probabilities(cutoff=0.0).items():
        own["".join(str(int(level == one)) for level in levels)] += p
    assert {bits: ours.get(bits, 0.0) for bits in own} == pytest.approx(own, abs=1e-5)


def test_an_error_of_the_detuning_moves_no_channel_that_does_nothing() -> None:
    """Nor the Raman transition, from whose lower level Pulser counts the energies of the Rydberg states."""
    alone, beside = in_bases("rydberg_global"), in_bases("rydberg_global")
    beside.declare_channel("raman", "raman_global")
    beside.measure("ground-rydberg")
    found = [
        emulation.probabilities(emulator, str(sequence.to_abstract_repr()), detuning_error=1.5)
        for sequence in (alone, beside)
    ]
    assert found[0] == pytest.approx(found[1], abs=1e-9)


def test_an_error_of_the_detuning_is_the_rydberg_transition_s_where_both_are_driven() -> None:
    found = []
    for raman in (20, 100):
        register = pulser.Register({"a": (0.0, 0.0)})
        sequence = pulser.Sequence(register, pulser.MockDevice)
        sequence.declare_channel("rydberg", "rydberg_local", initial_target="a")
        sequence.add(pulser.Pulse.ConstantPulse(500, emulation.RABI, 0.0, 0.0), "rydberg")
        sequence.declare_channel("raman", "raman_local", initial_target="a")
        # Afterwards, and hardly any of it.
        sequence.add(pulser.Pulse.ConstantPulse(raman, 1e-6, 0.0, 0.0), "raman")
        sequence.measure("ground-rydberg")
        found.append(emulation.excited(emulator, str(sequence.to_abstract_repr()), detuning_error=4.0))
    assert found == pytest.approx([emulation.rabi(emulation.RABI, 4.0, 0.5)] * 2, abs=2e-3)


def test_detection_errors_are_exact() -> None:
    """A quarter turn, read with errors: frequencies within five standard deviations."""
    noise = Noise(p_false_pos=0.1, p_false_neg=0.3)
    distribution = emulator.emulate(Order(device="MockDevice", sequence=QUARTER_TURN, noise=noise))
    one = shots.probabilities(distribution)["1"]
    count = 50_000
    drawn = shots.draw(distribution, noise, seed=0, task=1, first=0, shots=count)
    expected = one * 0.7 + (1 - one) * 0.1
    assert drawn.count("1") == pytest.approx(count * expected, abs=5 * math.sqrt(count * expected * (1 - expected)))


def test_the_same_order_has_the_same_noise_and_another_seed_has_another() -> None:
    figures = {"amp_sigma": 0.1, "state_prep_error": 0.1}
    found = [emulation.probabilities(emulator, HALF_TURN, seed, **figures) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_spins_have_the_noise_that_pulser_knows_of_them() -> None:
    sequence = pulser.Sequence(pulser.Register({"a": (0.0, 0.0), "b": (40.0, 0.0)}), pulser.MockDevice)
    sequence.declare_channel("mw", "mw_global")
    sequence.add(pulser.Pulse.ConstantPulse(500, emulation.RABI, 0.0, 0.0), "mw")
    found = emulation.probabilities(emulator, str(sequence.to_abstract_repr()), amp_sigma=0.1, rabi_error=-0.5)
    assert found["11"] == pytest.approx(0.25, abs=0.02)
