"""A calibration: scans of the QPU as it is, a fit to what they show, and what is left after its correction.

Fifty square pulses, the same on 25 atoms too far apart to feel each other, 20 shots of each: durations at resonance, detunings
at a low amplitude, no pulse, and pi pulses. One model of one atom is fitted to all of them together.

The shots are the emulator's, which computes them while a QPU would take them; where there is no time for that, the model's.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from scipy.optimize import least_squares
from scipy.special import ndtri

from warden.model import SECOND
from warden.qpu import atom
from warden.qpu.atom import Pulses
from warden.qpu.drift import BOUNDS, Findings

if TYPE_CHECKING:
    from collections.abc import Callable

    from warden.qpu.drift import Survey
    from warden.qpu.noise import Noise

    Distribution = Callable[[Pulses, Noise, np.ndarray, np.ndarray], np.ndarray]

ATOMS, SHOTS = 25, 20
# Seconds in which the emulator is through with the scans, also on a machine that has other work.
_EMULATION_TAKES = 60

# What the fit finds; the spreads are taken for what they are at best, so dephasing has all that blurs beyond them.
FITTED = ("rabi_error", "detuning_error", "p_false_pos", "p_false_neg", "dephasing_rate")
_LOW = (-BOUNDS["rabi_error"], -BOUNDS["detuning_error"], 0.0, 0.0, 0.0)
_HIGH = (BOUNDS["rabi_error"], BOUNDS["detuning_error"], 1.0, 1.0, 10.0)
# Where a fit may begin: a scan over several cycles has several places at which it almost fits.
_RABI, _DETUNING = np.linspace(-0.5, 0.5, 26), np.linspace(-4, 4, 9)
# A contrast, and a reduced chi square, with which nobody would believe a fit.
_FLAT, _WRONG = 0.1, 4.0
# What blurs the scans is no dephasing only, as the model has it. Beyond this, also of the rate (1/us), its frequencies
# would be off by so much that their correction could make things worse.
_DOUBTFUL, _BLURRED = 2.0, 0.25


class Fit(msgspec.Struct, frozen=True):
    """What was found, by name, and its standard errors."""

    values: dict[str, float]
    errors: dict[str, float]
    good: bool
    sharp: bool


def scans() -> Pulses:
    """All pulses; durations are multiples of 4 ns, as channels want them."""
    rabi = [(math.pi, 0.0, duration) for duration in np.linspace(0.2, 4.8, 24)]
    line = [(1.0, detuning, 3.14) for detuning in np.linspace(-5.0, 5.0, 16)]
    none, one = [(0.0, 0.0, 0.1)] * 5, [(math.pi, 0.0, 1.0)] * 5
    amplitude, detuning, duration = np.array([*rabi, *line, *none, *one]).T
    return Pulses(amplitude, detuning, np.round(duration / 0.004) * 0.004)


def emulated(survey: Survey) -> bool:
    """Whether there is time to emulate the scans: while a QPU would shoot, and twice before the calibration's time is up."""
    if not survey.shot_rate:
        return False
    shooting = SHOTS * len(scans()) / survey.shot_rate / survey.drift.time_scale
    allowed = math.inf if survey.limit is None else survey.limit / SECOND
    return min(shooting, allowed / 2) >= _EMULATION_TAKES


def calibrate(survey: Survey, seed: int, distribution: Distribution | None = None) -> Findings:
    """Measure the QPU and correct what is found. The same survey finds the same.

    `distribution`: in place of the emulator or the model, who knows how the atoms are excited (`atom.excited`).
    """
    drift = survey.drift
    true = drift.noise(survey.at, survey.calibration)
    pulses, chance = scans(), np.random.default_rng([seed, survey.number])
    shots = SHOTS * len(pulses)
    takes = f", {shots / survey.shot_rate / 60:.0f} min at {survey.shot_rate:g} shots/s" if survey.shot_rate else ""
    log = [f"{len(pulses)} pulses on {ATOMS} atoms, {SHOTS} shots each: {shots} shots{takes}"]
    if distribution is None:
        distribution, told = _emulator() if emulated(survey) else (atom.excited, _MODELLED)
        log.append(told)
    found = fit(pulses, taken(pulses, true, chance, distribution), drift.ideal)
    if not (found.good and found.sharp):
        # What blurs the scans is aligned without them; then they may show the rest.
        log.append("no clear oscillation to be seen: aligned first, then measured again")
        true = msgspec.structs.replace(drift.ideal, rabi_error=true.rabi_error, detuning_error=true.detuning_error)
        found = fit(pulses, taken(pulses, true, chance, distribution), drift.ideal)
    if not found.good:
        return Findings(log=tuple(log), error="the scans show no Rabi oscillation: look at the section noise")
    left = drift.left(true, found.values)
    before = drift.quality(survey.at, survey.calibration)
    after = drift.rate(drift.after(left))
    log += [
        *_told(found, drift.base),
        "Rabi frequency and detuning corrected, everything else aligned",
        f"quality {before:.3f}, now {after:.3f}",
    ]
    return Findings(measured=found.values, left=left, before=before, after=after, log=tuple(log))


_MODELLED = "taken of the model of one atom: there is no time to emulate them"


def _emulator() -> tuple[Distribution, str]:
    from warden.qpu import scans as emulator  # noqa: PLC0415 - it costs seconds where Pulser is not loaded yet

    return emulator.excited, "each shot emulated by Pulser"


def taken(pulses: Pulses, true: Noise, chance: np.random.Generator, distribution: Distribution) -> np.ndarray:
    """How often 1 was read after each pulse. Each shot has noise of its own, and its atoms have the laser's in common."""
    shape = len(pulses), SHOTS
    gains, jitter = (sigma * chance.standard_normal(shape) for sigma in (true.amp_sigma, true.detuning_sigma))
    # They move each by itself. One stands for those of a shot, and the shots of a pulse share the spread evenly: by chance
    # alone twenty atoms would scatter as no five hundred do.
    parts = chance.permuted(np.tile(np.arange(SHOTS), (len(pulses), 1)), axis=1)
    motion = atom.motion_spread(true) * ndtri((parts + chance.random(shape)) / SHOTS)
    likely = atom.read(distribution(pulses, true, gains, jitter + motion), true)
    ones: np.ndarray = np.sum(chance.binomial(ATOMS, likely.clip(0, 1)), axis=1)
    return ones


def fit(pulses: Pulses, ones: np.ndarray, ideal: Noise) -> Fit:
    """Find the noise that these shots are likeliest with, all that the scans cannot tell being as in `ideal`."""
    shots = SHOTS * ATOMS
    # A share whose standard deviation does not depend on it (Anscombe).
    seen = np.arcsin(np.sqrt((ones + 3 / 8) / (shots + 3 / 4)))

    scatter = np.ones(len(pulses))

    def misses(values: np.ndarray, points: int) -> np.ndarray:
        likely = atom.distribution(pulses, _noise(ideal, values), points)
        expected = np.arcsin(np.sqrt((shots * np.clip(likely, 0, 1) + 3 / 8) / (shots + 3 / 4)))
        found: np.ndarray = 2 * math.sqrt(shots) * (seen - expected) / scatter
        return found

    starts = [
        np.array([rabi, detuning, ideal.p_false_pos, ideal.p_false_neg, ideal.dephasing_rate])
        for rabi, detuning in itertools.product(_RABI, _DETUNING)
    ]
    at = min(starts, key=lambda values: float((misses(values, 1) ** 2).sum()))
    # The scatter follows from what is sought: roughly at first, and once more with what was found.
    for points in (3, 7):
        scatter = _scatter(pulses, _noise(ideal, at))
        best = least_squares(
            functools.partial(misses, points=points),
            np.clip(at, np.add(_LOW, 1e-6), np.subtract(_HIGH, 1e-6)),
            bounds=(_LOW, _HIGH),
            x_scale=(0.01, 0.1, 0.01, 0.01, 0.1),
        )
        at = best.x
    freedom = len(pulses) - len(FITTED)
    doubt = max(1.0, 2 * best.cost / freedom)
    errors = np.sqrt(np.diag(np.linalg.pinv(best.jac.T @ best.jac)) * doubt)
    values = dict(zip(FITTED, map(float, best.x), strict=True))
    contrast = 1 - values["p_false_pos"] - values["p_false_neg"]
    good = contrast > _FLAT and doubt < _WRONG and values["dephasing_rate"] < _HIGH[-1] / 2
    sharp = doubt < _DOUBTFUL and values["dephasing_rate"] - ideal.dephasing_rate < _BLURRED
    return Fit(values, dict(zip(FITTED, map(float, errors), strict=True)), good, sharp)


def _scatter(pulses: Pulses, noise: Noise) -> np.ndarray:
    """How much more the shots of each pulse scatter than if no two atoms had anything in common, in standard deviations."""
    likely = atom.distribution(pulses, noise).clip(1e-3, 1 - 1e-3)
    more: np.ndarray = np.sqrt(1 + (ATOMS - 1) * atom.between_shots(pulses, noise) / (likely * (1 - likely)))
    return more


def _noise(ideal: Noise, values: np.ndarray) -> Noise:
    return msgspec.structs.replace(ideal, **dict(zip(FITTED, map(float, values), strict=True)))


def _told(found: Fit, base: Noise) -> list[str]:
    """What people read of it."""
    values, errors = found.values, found.errors
    rabi, detuning = values["rabi_error"], values["detuning_error"]
    missing = f"{100 * base.state_prep_error:g} %"
    return [
        f"Rabi frequency {100 * abs(rabi):.2f} % {_side(rabi)} (+-{100 * errors['rabi_error']:.2f} %)",
        f"detuning {abs(detuning):.3f} rad/us {_side(detuning)} (+-{errors['detuning_error']:.3f})",
        f"0 read as 1: {100 * values['p_false_pos']:.2f} % (+-{100 * errors['p_false_pos']:.2f} %)",
        f"1 read as 0: {100 * values['p_false_neg']:.2f} % (+-{100 * errors['p_false_neg']:.2f} %), if {missing} of the atoms are missing",
        f"dephasing, or larger spreads: {values['dephasing_rate']:.3f}/us (+-{errors['dephasing_rate']:.3f})",
    ]


def _side(error: float) -> str:
    return "low" if error < 0 else "high"
