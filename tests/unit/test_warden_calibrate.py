"""A calibration finds what it was set, as well as it says, and the QPU is better afterwards."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from warden.model import SECOND, Calibration
from warden.qpu import atom, calibrate
from warden.qpu.drift import DAY, SIGNED, Drift, Survey
from warden.qpu.noise import Noise

if TYPE_CHECKING:
    from warden.qpu.atom import Pulses

T0 = 1_800_000_000 * SECOND
IDEAL = Noise(
    state_prep_error=0.005, p_false_pos=0.01, p_false_neg=0.05, amp_sigma=0.03, temperature=50.0, dephasing_rate=0.05
)
PER_DAY = Noise(p_false_neg=0.01, temperature=5.0, dephasing_rate=0.01, rabi_error=0.02, detuning_error=0.3)


def survey(number: int = 2, base: Noise = IDEAL, days: float = 1.0, shot_rate: float = 0.0, **left: float) -> Survey:
    return Survey(
        drift=Drift(base=base, per_day=PER_DAY, seed=3),
        number=number,
        at=T0 + round(days * DAY),
        calibration=Calibration(id=number - 1, time=T0, left=left),
        shot_rate=shot_rate,
    )


@pytest.mark.long
def test_fits_find_what_was_set_as_well_as_they_say() -> None:
    """In units of the errors that they tell, what they miss is normally distributed: 5 figures in each of 40 fits.

    All atoms of a shot have the laser's noise in common, and its shots are fewer than its atoms: the fit knows that.
    With fixed seeds. A right fit is beyond 4.5 of its errors in 7 of a million, and so here in 0.14 % of all seeds; the mean
    square is beyond its bounds, 4 standard deviations, in one of 10,000.
    """
    pulses, fits = calibrate.scans(), 40
    missed = []
    for seed in range(fits):
        chance = np.random.default_rng(seed)
        true = replace(
            IDEAL,
            rabi_error=chance.uniform(-0.45, 0.45),
            detuning_error=chance.uniform(-3.9, 3.9),
            p_false_pos=chance.uniform(0.01, 0.1),
            p_false_neg=chance.uniform(0.05, 0.15),
            dephasing_rate=chance.uniform(0.05, 0.3),
        )
        found = calibrate.fit(pulses, calibrate.taken(pulses, true, chance, atom.excited), IDEAL)
        assert found.good
        missed.append([(found.values[name] - getattr(true, name)) / found.errors[name] for name in calibrate.FITTED])
    assert np.abs(missed).max() < 4.5
    assert np.mean(np.square(missed), axis=0) == pytest.approx(1, abs=4 * math.sqrt(2 / fits))
    assert np.mean(missed, axis=0) == pytest.approx(0, abs=4 / math.sqrt(fits))


def test_a_calibration_leaves_what_it_did_not_see_and_nothing_else() -> None:
    one = survey(rabi_error=-0.05, detuning_error=0.8)
    true = one.drift.noise(one.at, one.calibration)
    found = calibrate.calibrate(one, seed=1)
    after = one.drift.after(found.left)
    for name in SIGNED:
        assert getattr(after, name) == pytest.approx(getattr(true, name) - found.measured[name])
    assert replace(after, rabi_error=0.0, detuning_error=0.0) == IDEAL
    assert abs(after.rabi_error) < 0.01
    assert abs(after.detuning_error) < 0.15
    assert found.before == one.drift.rate(true) < 0.95
    assert found.after == one.drift.rate(after) > 0.99
    assert found.error == ""


@pytest.mark.parametrize("number", range(2, 8))
def test_quality_goes_up_again(number: int) -> None:
    found = calibrate.calibrate(survey(number, days=7, rabi_error=0.06), seed=number)
    assert found.before < found.after
    assert found.after > 0.99


def test_what_the_base_has_of_errors_is_corrected_too() -> None:
    one = survey(base=replace(IDEAL, rabi_error=0.1), days=0)
    found = calibrate.calibrate(one, seed=1)
    assert found.measured["rabi_error"] == pytest.approx(0.1, abs=0.01)
    assert abs(one.drift.after(found.left).rabi_error) < 0.01


def test_the_same_calibration_finds_the_same_and_another_one_something_else() -> None:
    found = calibrate.calibrate(survey(), seed=1)
    assert calibrate.calibrate(survey(), seed=1) == found
    assert calibrate.calibrate(survey(), seed=2).measured != found.measured
    again = replace(survey(), number=5)
    assert calibrate.calibrate(again, seed=1).measured != found.measured


def test_its_log_is_for_people() -> None:
    one = survey(days=0, shot_rate=0.5, rabi_error=-0.05, detuning_error=0.8)
    found = calibrate.calibrate(one, seed=1, distribution=atom.excited)
    assert found.log[0] == "50 pulses on 25 atoms, 20 shots each: 1000 shots, 33 min at 0.5 shots/s"
    assert any(line.startswith("Rabi frequency ") and " % low (+-0." in line for line in found.log)
    assert any(line.startswith("detuning ") and " rad/us high (+-0.0" in line for line in found.log)
    assert found.log[-1] == f"quality {found.before:.3f}, now {found.after:.3f}"
    assert all(len(line) <= 80 for line in found.log)


def test_where_shots_take_no_time_none_is_told() -> None:
    assert calibrate.calibrate(survey(), seed=1).log[0].endswith(": 1000 shots")


def test_a_qpu_that_shows_nothing_is_aligned_before_it_is_measured() -> None:
    """Else one that has got so bad would never come back."""
    one = survey(days=0, p_false_neg=0.94, rabi_error=0.2)
    found = calibrate.calibrate(one, seed=1)
    assert found.before == 0
    assert found.after > 0.99
    assert any("aligned first" in line for line in found.log)


@pytest.mark.parametrize(
    "left",
    [
        {"rabi_error": -0.485, "detuning_error": 3.135, "dephasing_rate": 0.192, "temperature": 248.0},
        {"rabi_error": -0.285, "detuning_error": 3.926, "dephasing_rate": 0.566, "temperature": 436.0},
        {"rabi_error": -0.388, "detuning_error": -2.79, "dephasing_rate": 0.356, "temperature": 238.0},
    ],
)
def test_what_is_blurred_is_aligned_before_it_is_measured(left: dict[str, float]) -> None:
    """The fit takes all that blurs for dephasing; what it makes of the frequencies then would do more harm than good."""
    one = survey(days=0, **left)
    found = calibrate.calibrate(one, seed=1)
    assert any("aligned first" in line for line in found.log)
    assert found.after > max(found.before, 0.9)


def test_a_qpu_that_shows_nothing_at_its_best_has_no_calibration() -> None:
    found = calibrate.calibrate(survey(base=replace(IDEAL, p_false_neg=0.97)), seed=1)
    assert found.error == "the scans show no Rabi oscillation: look at the section noise"
    assert found.left == {}


def test_shots_are_those_of_the_device_that_it_is_given() -> None:
    asked = []

    def broken(pulses: Pulses, noise: Noise, gains: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        asked.append(noise)
        return atom.excited(pulses, replace(noise, rabi_error=0.25), gains, shifts)

    one = survey(days=1)
    found = calibrate.calibrate(one, seed=1, distribution=broken)
    assert asked == [one.drift.noise(one.at, one.calibration)]
    assert found.measured["rabi_error"] == pytest.approx(0.25, abs=0.02)


def test_without_noise_a_calibration_finds_none_and_leaves_none() -> None:
    one = msgspec.structs.replace(survey(), drift=Drift())
    found = calibrate.calibrate(one, seed=1)
    assert (found.left, found.before, found.after, found.error) == ({}, 1.0, 1.0, "")
    assert abs(found.measured["rabi_error"]) < 0.02
