"""The model of one atom says what Pulser's emulator says of it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pulser
import pytest
from pulser.backend import BitStrings, Occupation
from pulser_simulation import QutipBackendV2, QutipConfig

from warden.qpu import calibrate
from warden.qpu.atom import Pulses, distribution
from warden.qpu.noise import Noise


def pulses(*each: tuple[float, float, float]) -> Pulses:
    return Pulses(*np.array(each).T)


def emulated(pulse: tuple[float, float, float], observable: Any, trajectories: int = 1, **noise: float) -> Any:
    """What Pulser's emulator says of one atom after this pulse."""
    amplitude, detuning, duration = pulse
    sequence = pulser.Sequence(pulser.Register({"atom": (0.0, 0.0)}), pulser.MockDevice)
    sequence.declare_channel("laser", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(round(duration * 1000), amplitude, detuning, 0), "laser")
    config = QutipConfig(
        observables=[observable],
        noise_model=pulser.NoiseModel(**noise),
        n_trajectories=trajectories,
        progress_bar=False,
    )
    [result] = QutipBackendV2(sequence, config=config).run().get_tagged_results()[observable.tag]
    return result


def test_without_noise_it_is_rabis_formula() -> None:
    amplitude, detuning = np.array([1.0, 3.0, 5.0]), np.array([0.0, -2.0, 4.0])
    effective = np.hypot(amplitude, detuning)
    for duration in (0.3, 1.0, 4.8):
        said = distribution(Pulses(amplitude, detuning, np.full(3, duration)), Noise())
        assert said == pytest.approx((amplitude / effective * np.sin(effective * duration / 2)) ** 2, abs=1e-9)


@pytest.mark.parametrize("pulse", [(math.pi, 0.0, 1.0), (math.pi, 0.0, 4.8), (1.0, 2.0, 3.14), (6.0, -3.0, 2.0)])
@pytest.mark.parametrize("rate", [0.0, 0.1, 2.0])
def test_dephasing_is_pulsers(pulse: tuple[float, float, float], rate: float) -> None:
    occupation = emulated(pulse, Occupation(evaluation_times=[1.0]), dephasing_rate=rate)[0]
    # Pulser's samples end a nanosecond before the pulse does.
    assert distribution(pulses(pulse), Noise(dephasing_rate=rate))[0] == pytest.approx(occupation, abs=0.004)


def test_an_error_of_amplitude_and_detuning_is_another_pulse() -> None:
    asked, true = pulses((3.0, 1.0, 2.2)), pulses((3.3, 1.4, 2.2))
    assert distribution(asked, Noise(rabi_error=0.1, detuning_error=0.4)) == pytest.approx(distribution(true, Noise()))


def test_spreads_are_pulsers() -> None:
    """The mean of 50 trajectories of Pulser's: within 4 standard errors, which a right model is in 99.99 % of all seeds."""
    np.random.seed(11)  # noqa: NPY002 - the generator that Pulser draws from
    pulse, noise = (math.pi, 0.0, 3.0), {"amp_sigma": 0.08, "detuning_sigma": 0.5, "temperature": 50.0}
    mean = emulated(pulse, Occupation(evaluation_times=[1.0]), trajectories=50, **noise)[0]
    gains, shifts = np.random.default_rng(1).normal(size=(2, 4000))
    spread = np.hypot(0.5, pulser.noise_model._doppler_sigma(50e-6))
    each = distribution(Pulses(math.pi * (1 + 0.08 * gains), spread * shifts, np.full(4000, 3.0)), Noise())
    said = distribution(pulses(pulse), Noise(**noise))[0]
    assert said == pytest.approx(each.mean(), abs=4 * each.std() / math.sqrt(4000))
    assert mean == pytest.approx(said, abs=4 * each.std() / math.sqrt(50))


@pytest.mark.parametrize("temperature", [50.0, 100.0, 300.0])
def test_however_hot_the_atoms_are_its_points_are_enough(temperature: float) -> None:
    """A fiftieth of what a pulse's five hundred atoms scatter by."""
    pulses, hot = calibrate.scans(), Noise(temperature=temperature)
    assert distribution(pulses, hot) == pytest.approx(distribution(pulses, hot, points=41), abs=4e-4)


def test_preparation_and_detection_are_pulsers() -> None:
    """Within 4 standard deviations of what 10,000 shots scatter: 99.99 % of all seeds."""
    np.random.seed(12)  # noqa: NPY002 - the generator that Pulser draws from
    for pulse in ((math.pi, 0.0, 1.0), (0.0, 0.0, 1.0)):
        noise = {"p_false_pos": 0.1, "p_false_neg": 0.2}
        counts = emulated(pulse, BitStrings(evaluation_times=[1.0], num_shots=10_000), **noise)
        said = distribution(pulses(pulse), Noise(**noise))[0]
        assert counts["1"] == pytest.approx(10_000 * said, abs=4 * math.sqrt(10_000 * said * (1 - said)) + 40)


def test_a_missing_atom_is_read_as_one_in_the_ground_state() -> None:
    lost = Noise(state_prep_error=1.0, p_false_pos=0.1, p_false_neg=0.2)
    assert distribution(pulses((math.pi, 0.0, 1.0)), lost) == pytest.approx(0.1)


def test_the_scans_are_pulses_of_real_channels() -> None:
    """So they could be sent to a QPU as they are: within what AnalogDevice can do."""
    channel = pulser.AnalogDevice.channels["rydberg_global"]
    scans = calibrate.scans()
    assert len(scans) == 50
    for amplitude, detuning, duration in zip(scans.amplitude, scans.detuning, scans.duration, strict=True):
        channel.validate_pulse(pulser.Pulse.ConstantPulse(round(duration * 1000), amplitude, detuning, 0))
        assert channel.validate_duration(round(duration * 1000)) == round(duration * 1000)
