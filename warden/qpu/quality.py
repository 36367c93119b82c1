"""How good a QPU is: the contrast of a long pulse, against that of the same QPU after the best calibration. Pure.

An atom is driven through two and a half Rabi cycles of 1 us, about as long as an analogue sequence takes, and ends in the
Rydberg state, if all is well. The contrast is the probability that 1 is read then, less the probability that it is read
without a pulse: so it has preparation and detection, the Rabi frequency and the detuning, and all that blurs them.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warden.qpu.noise import Noise

# rad/us, and us: 5 pi.
AMPLITUDE, DURATION = 2 * math.pi, 2.5

# What Pulser makes of a temperature (pulser.constants): effective wave number, 1/um, and k_B / m, um^2/us^2 per uK.
_KEFF, _KB_BY_MASS = 8.7, 1.38e-23 / 1.45e-25 * 1e-6
# Gauss and Hermite's points and weights for a normal distribution.
_POINTS = (
    (0.0, 8 / 15),
    *(
        (s * x, w)
        for s in (-1, 1)
        for x, w in ((1.3556261799742659, 0.22207592200561266), (2.8569700138728056, 0.011257411327720689))
    ),
)


def compare(noise: Noise, ideal: Noise) -> float:
    """Say how much of the ideal contrast is there; from 0 to 1."""
    if noise == ideal:
        return 1.0
    best = contrast(ideal)
    return min(1.0, max(0.0, contrast(noise) / best)) if best > 0 else 0.0


def contrast(noise: Noise) -> float:
    """Probability to read 1 after the pulse, less that to read it without one."""
    return (1 - noise.state_prep_error) * _excited(noise) * (1 - noise.p_false_pos - noise.p_false_neg)


def detuning_spread(noise: Noise) -> float:
    """Standard deviation of what an atom sees: the laser's, and by its own motion; rad/us."""
    return math.hypot(noise.detuning_sigma, _KEFF * math.sqrt(_KB_BY_MASS * noise.temperature))


def _excited(noise: Noise) -> float:
    """Probability that an atom which was there is in the Rydberg state after the pulse."""
    spread = detuning_spread(noise)
    amplitudes = _POINTS if noise.amp_sigma else ((0.0, 1.0),)
    detunings = _POINTS if spread else ((0.0, 1.0),)
    return sum(
        likely
        * weight
        * _after(
            AMPLITUDE * max(0.0, 1 + noise.rabi_error) * max(0.0, 1 + noise.amp_sigma * x),
            noise.detuning_error + spread * y,
            noise.dephasing_rate,
        )
        for (x, likely), (y, weight) in itertools.product(amplitudes, detunings)
    )


def _after(amplitude: float, detuning: float, dephasing: float) -> float:
    """Rabi's formula; dephasing as long as it is slow against the oscillation."""
    effective = math.hypot(amplitude, detuning)
    if not effective:
        return 0.0
    across = (amplitude / effective) ** 2
    along = (1 - across) * math.exp(-dephasing * across * DURATION)
    around = across * math.cos(effective * DURATION) * math.exp(-dephasing * (1 - across / 2) * DURATION)
    return (1 - along - around) / 2
