"""Quality is a contrast: 1 at best, less with everything that goes wrong, 0 when nothing can be read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pulser.noise_model import _doppler_sigma

from warden.qpu import atom, quality
from warden.qpu.noise import Noise

IDEAL = Noise(state_prep_error=0.005, p_false_pos=0.01, p_false_neg=0.05, amp_sigma=0.02, temperature=30.0)


def test_an_ideal_atom_has_all_contrast() -> None:
    assert quality.contrast(Noise()) == pytest.approx(1)
    assert quality.compare(IDEAL, IDEAL) == 1
    assert quality.compare(Noise(), Noise()) == 1


@pytest.mark.parametrize(
    "worse",
    [
        {"state_prep_error": 0.05},
        {"p_false_pos": 0.05},
        {"p_false_neg": 0.1},
        {"amp_sigma": 0.1},
        {"detuning_sigma": 2.0},
        {"temperature": 200.0},
        {"dephasing_rate": 0.2},
        {"rabi_error": 0.06},
        {"rabi_error": -0.06},
        {"detuning_error": 2.0},
        {"detuning_error": -2.0},
    ],
)
def test_all_that_goes_wrong_costs_quality(worse: dict[str, float]) -> None:
    assert 0 < quality.compare(replace(IDEAL, **worse), IDEAL) < 0.97


def test_what_cannot_be_read_is_worth_nothing() -> None:
    assert quality.compare(replace(IDEAL, state_prep_error=1.0), IDEAL) == 0
    assert quality.compare(replace(IDEAL, p_false_pos=0.7, p_false_neg=0.7), IDEAL) == 0


@given(st.floats(0, 200), st.floats(0, 5))
def test_the_spread_of_the_detuning_is_what_pulser_makes_of_a_temperature(temperature: float, sigma: float) -> None:
    spread = quality.detuning_spread(Noise(temperature=temperature, detuning_sigma=sigma))
    assert spread == pytest.approx(np.hypot(sigma, _doppler_sigma(temperature * 1e-6)))


@given(
    st.builds(
        Noise,
        state_prep_error=st.floats(0, 0.1),
        p_false_pos=st.floats(0, 0.1),
        p_false_neg=st.floats(0, 0.1),
        amp_sigma=st.floats(0, 0.1),
        temperature=st.floats(0, 100),
        dephasing_rate=st.floats(0, 0.2),
        rabi_error=st.floats(-0.1, 0.1),
        detuning_error=st.floats(-1, 1),
    )
)
def test_it_is_what_an_atom_shows_that_is_driven_so(noise: Noise) -> None:
    """Without numbers of its own: a probability less another one, both by the Bloch equations."""
    pulses = atom.Pulses(np.array([quality.AMPLITUDE, 0]), np.zeros(2), np.full(2, quality.DURATION))
    after, without = atom.distribution(pulses, noise, points=25)
    assert quality.contrast(noise) == pytest.approx(after - without, abs=0.01)
