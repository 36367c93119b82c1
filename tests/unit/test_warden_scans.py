"""The scans of a calibration by Pulser's emulator: what the model says of each shot, and a calibration that goes by it."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("pulser_simulation")

from warden.model import SECOND, Calibration
from warden.qpu import atom, calibrate, emulator, scans, shots
from warden.qpu.atom import Pulses
from warden.qpu.drift import DAY, Drift, Survey
from warden.qpu.noise import Noise
from warden.qpu.physics import Order

T0 = 1_800_000_000 * SECOND
# One of each kind of the scans.
SOME = Pulses(*np.array([(math.pi, 0, 0.2), (math.pi, 0, 4.8), (1, -2, 3.14), (0, 0, 0.1), (math.pi, 0, 1.0)]).T)
SPREADS = {"amp_sigma": 0.05, "detuning_sigma": 0.3, "temperature": 50.0}
KINDS = {
    "none": Noise(),
    "Rabi frequency": Noise(rabi_error=-0.07),
    "detuning": Noise(detuning_error=0.9),
    "dephasing": Noise(dephasing_rate=0.3),
    "amplitude": Noise(amp_sigma=0.1),
    "jitter": Noise(detuning_sigma=0.5),
    "temperature": Noise(temperature=50.0),
    "missing": Noise(state_prep_error=0.2),
    "detection": Noise(p_false_pos=0.1, p_false_neg=0.2),
    "all": Noise(
        **SPREADS, rabi_error=0.1, detuning_error=-0.5, dephasing_rate=0.1, state_prep_error=0.1, p_false_pos=0.05
    ),
}


@pytest.fixture(params=KINDS)
def noise(request: pytest.FixtureRequest) -> Noise:
    return KINDS[request.param]


# --- the shots ---


def test_each_shot_is_as_the_model_has_it(noise: Noise) -> None:
    """But for Pulser's samples, which end a nanosecond before the pulse does."""
    chance = np.random.default_rng(5)
    gains, shifts = (sigma * chance.standard_normal((len(SOME), 3)) for sigma in (noise.amp_sigma, 0.5))
    expected = atom.excited(SOME, noise, gains, shifts)
    assert scans.excited(SOME, noise, gains, shifts) == pytest.approx(expected, abs=2e-3)


def test_shots_that_are_the_same_are_emulated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    emulate = emulator.emulate_each
    monkeypatch.setattr(
        emulator, "emulate_each", lambda order, noises: asked.append(len(noises)) or emulate(order, noises)
    )
    found = scans.excited(SOME, Noise(), np.zeros((len(SOME), 20)), np.zeros((len(SOME), 20)))
    assert asked == [1] * len(SOME)
    assert found.shape == (len(SOME), 20)


def test_an_amplitude_can_be_gone_and_not_be_negative() -> None:
    gains = np.full((1, 1), -1.3)
    one = Pulses(*np.array([(3.0, 0.0, 1.0)]).T)
    assert scans.excited(one, Noise(), gains, np.zeros((1, 1))) == pytest.approx(0, abs=1e-6)


def test_one_noise_after_the_other_is_as_many_orders() -> None:
    sequence = scans._sequence(math.pi, 0.0, 0.6)
    noises = [Noise(rabi_error=error, dephasing_rate=0.2) for error in (0.0, 0.1, -0.2)]
    orders = [Order(device="MockDevice", sequence=sequence, noise=one) for one in noises]
    assert emulator.emulate_each(orders[0], noises) == [emulator.emulate(order) for order in orders]


def test_shots_scatter_around_what_the_model_says_as_the_fit_reckons(noise: Noise) -> None:
    """400 times five pulses: means within 4.5 standard errors of what is expected, which 3 of 10,000 seeds are not.

    Variances within 4.5 of theirs. Of atoms that move, one stands for those of a shot, which after the longest pulse leaves
    up to twice the variance: the fit reckons with atoms that move each by itself.
    """
    chance, times = np.random.default_rng(6), 400
    ones = np.array([calibrate.taken(SOME, noise, chance, atom.excited) for _ in range(times)])
    every = calibrate.SHOTS * calibrate.ATOMS
    likely = atom.distribution(SOME, noise)
    variance = every * likely * (1 - likely) * calibrate._scatter(SOME, noise) ** 2
    assert ones.mean(axis=0) == pytest.approx(every * likely, abs=4.5 * math.sqrt(variance.max() / times))
    slack, least, most = 4.5 * math.sqrt(2 / times), *((0.7, 2.0) if noise.temperature else (1.0, 1.0))
    assert np.all(ones.var(axis=0) <= variance * most * (1 + slack) + 1e-9)
    assert np.all(ones.var(axis=0) >= variance * least * (1 - slack) - 1e-9)


def test_the_spread_of_shots_is_that_of_pulser_s_own_noise() -> None:
    """A pulse as a task, with Pulser's noise, and shot by shot: means of 64, within 4.5 standard errors of their difference.

    That a right one is not in 7 of a million seeds.
    """
    noise = Noise(**SPREADS, state_prep_error=0.1)
    pulse, count = Pulses(*np.array([(math.pi, 0.0, 2.0)]).T), 64
    chance = np.random.default_rng(7)
    gains = noise.amp_sigma * chance.standard_normal((1, count))
    shifts = math.hypot(noise.detuning_sigma, atom.motion_spread(noise)) * chance.standard_normal((1, count))
    own = atom.read(scans.excited(pulse, noise, gains, shifts), noise)
    order = Order(device="MockDevice", sequence=scans._sequence(math.pi, 0.0, 2.0), noise=noise)
    task = shots.probabilities(emulator.emulate(order)).get("1", 0.0)
    # Missing atoms are counted here in full, and drawn there.
    error = math.sqrt((2 * own.var() + 0.1 * 0.9) / count)
    assert own.mean() == pytest.approx(task, abs=4.5 * error)


# --- who has them ---


def survey(shot_rate: float = 1.0, time_scale: float = 1.0, limit: int | None = None) -> Survey:
    drift = Drift(base=Noise(p_false_pos=0.01), per_day=Noise(rabi_error=0.02), time_scale=time_scale)
    return Survey(drift=drift, number=2, at=T0 + DAY, calibration=None, shot_rate=shot_rate, limit=limit)


@pytest.mark.parametrize(
    ("emulated", "one"),
    [
        (True, survey()),
        (True, survey(shot_rate=0.25, limit=1200 * SECOND)),
        # 1000 shots in a minute, and in less ...
        (True, survey(shot_rate=16)),
        (False, survey(shot_rate=17)),
        (True, survey(time_scale=16)),
        (False, survey(time_scale=17)),
        # ... or in no time.
        (False, survey(shot_rate=0)),
        # Scans that show nothing are taken again.
        (True, survey(limit=120 * SECOND)),
        (False, survey(limit=120 * SECOND - 1)),
        (False, survey(limit=0)),
    ],
)
def test_scans_are_emulated_where_there_is_time_for_it(emulated: bool, one: Survey) -> None:
    assert calibrate.emulated(one) is emulated


@pytest.mark.parametrize(
    ("rate", "line", "emulated"),
    [
        (1.0, "each shot emulated by Pulser", True),
        (0.0, "taken of the model of one atom: there is no time to emulate them", False),
    ],
)
def test_the_log_says_which_it_was(monkeypatch: pytest.MonkeyPatch, rate: float, line: str, emulated: bool) -> None:
    asked = []
    monkeypatch.setattr(scans, "excited", lambda *shots: asked.append(shots) or atom.excited(*shots))
    found = calibrate.calibrate(survey(rate), seed=1)
    assert found.error == ""
    assert found.log[1] == line
    assert len(asked) == emulated


def test_to_calibrate_by_the_model_loads_no_pulser() -> None:
    """Its process has what its emulator needs, and QuTiP only if it is that."""
    program = (
        "import sys; from warden.qpu import calibrate; from warden.qpu.drift import Drift, Survey; "
        "calibrate.calibrate(Survey(drift=Drift(), number=1, at=0, calibration=None), 0); "
        "sys.exit('pulser' in sys.modules or 'qutip' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# --- a whole calibration ---


@pytest.mark.long
def test_a_calibration_by_the_emulator_finds_what_was_there_as_the_model_does() -> None:
    """Five figures within 4 of the standard errors that it tells: of 10,000 seeds 3 are not.

    Emulator and model are given the same noise of each shot and the same random numbers, so they differ by less than that.
    """
    base = Noise(
        state_prep_error=0.005,
        p_false_pos=0.01,
        p_false_neg=0.05,
        amp_sigma=0.03,
        temperature=30.0,
        dephasing_rate=0.02,
    )
    per_day = Noise(p_false_neg=0.02, dephasing_rate=0.02, rabi_error=0.02, detuning_error=0.25)
    before = Calibration(id=1, time=T0, left={"rabi_error": 0.03, "detuning_error": -0.4})
    drift = Drift(base=base, per_day=per_day, seed=3)
    one = Survey(drift=drift, number=2, at=T0 + 2 * DAY, calibration=before, shot_rate=1.0, limit=1200 * SECOND)
    true = drift.noise(one.at, one.calibration)
    found = calibrate.calibrate(one, seed=1)
    assert found.log[1] == "each shot emulated by Pulser"
    assert calibrate.calibrate(one, seed=1) == found
    modelled = calibrate.calibrate(one, seed=1, distribution=atom.excited)
    pulses, chance = calibrate.scans(), np.random.default_rng([1, one.number])
    errors = calibrate.fit(pulses, calibrate.taken(pulses, true, chance, atom.excited), drift.ideal).errors
    for name in calibrate.FITTED:
        assert found.measured[name] == pytest.approx(getattr(true, name), abs=4 * errors[name])
        assert found.measured[name] == pytest.approx(modelled.measured[name], abs=errors[name])
    assert found.after > max(found.before, 0.99)
