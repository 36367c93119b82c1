"""One atom under square pulses, exactly: what an emulator would say of it, a thousand times faster.

The optical Bloch equations of one atom are nine numbers, and its spreads are averaged over a few points each. A calibration
fits this to its scans; where the scans are too fast to be emulated (scans.py), it is their QPU as well.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from warden.qpu.quality import detuning_spread

if TYPE_CHECKING:
    from warden.qpu.noise import Noise


# Spreads of the detuning, rad/us, from which on a few points are too few for pulses of some microseconds.
_WIDE = 0.8


class Pulses(msgspec.Struct, frozen=True):
    """Square pulses, each on an atom of its own: rad/us, rad/us, us; one number for each."""

    amplitude: np.ndarray
    detuning: np.ndarray
    duration: np.ndarray

    def __len__(self) -> int:
        return len(self.duration)


def distribution(pulses: Pulses, noise: Noise, points: int = 7) -> np.ndarray:
    """Probability that 1 is read after each pulse. Spreads are averaged over so many points."""
    gains, of_gain = _normal(noise.amp_sigma, points)
    shifts, of_shift = _normal(detuning_spread(noise), points)
    each = _each(pulses, noise, gains[:, None], shifts)
    return read(np.einsum("pgs,g,s->p", each, of_gain, of_shift), noise)


def excited(pulses: Pulses, noise: Noise, gains: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Probability of the Rydberg state after each pulse in each of its shots: a row for a pulse.

    These have amplitudes larger by a `gain`, relative to the pulse's, and detunings larger by a `shift`, rad/us; of `noise`
    what all shots share counts.
    """
    return _after(
        pulses.amplitude[:, None] * max(0.0, 1 + noise.rabi_error) * np.maximum(0, 1 + gains),
        pulses.detuning[:, None] + noise.detuning_error + shifts,
        pulses.duration[:, None],
        noise.dephasing_rate,
    )


def between_shots(pulses: Pulses, noise: Noise, points: int = 7) -> np.ndarray:
    """How the probability that 1 is read varies from shot to shot: by the laser, which all atoms of a shot share."""
    gains, of_gain = _normal(noise.amp_sigma, points)
    jitter, of_jitter = _normal(noise.detuning_sigma, points)
    motion, of_motion = _normal(motion_spread(noise), points)
    each = _each(pulses, noise, gains[:, None, None], jitter[:, None] + motion)
    shot = read(np.einsum("pgjm,m->pgj", each, of_motion), noise)
    mean, square = (np.einsum("pgj,g,j->p", shot**power, of_gain, of_jitter) for power in (1, 2))
    varies: np.ndarray = np.maximum(0, square - mean**2)
    return varies


def motion_spread(noise: Noise) -> float:
    """Standard deviation of the detuning that an atom sees by its own motion, rad/us."""
    return detuning_spread(msgspec.structs.replace(noise, detuning_sigma=0.0))


def read(excited: np.ndarray, noise: Noise) -> np.ndarray:
    """Probability that 1 is read. A missing atom is read as one in the ground state."""
    there = (1 - noise.state_prep_error) * excited
    ones: np.ndarray = noise.p_false_pos + there * (1 - noise.p_false_pos - noise.p_false_neg)
    return ones


def _each(pulses: Pulses, noise: Noise, gains: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Probability of the Rydberg state after each pulse, with each gain and shift."""
    together = np.broadcast_shapes(gains.shape, shifts.shape)
    rows = excited(pulses, noise, *(np.broadcast_to(each, together).ravel() for each in (gains, shifts)))
    return rows.reshape(len(pulses), *together)


def _after(amplitude: np.ndarray, detuning: np.ndarray, duration: np.ndarray, dephasing: float) -> np.ndarray:
    """Probability of the Rydberg state after these pulses."""
    # (u, v, w): twice the coherence's parts, and the inversion, which begins at -1.
    bloch = np.zeros((*np.broadcast_shapes(amplitude.shape, detuning.shape, duration.shape), 3, 3))
    bloch[..., 0, 0] = bloch[..., 1, 1] = -dephasing
    bloch[..., 0, 1], bloch[..., 1, 0] = detuning, -detuning
    bloch[..., 2, 1], bloch[..., 1, 2] = amplitude, -amplitude
    inversion = -_exponential(bloch * duration[..., None, None])[..., 2, 2]
    found: np.ndarray = ((1 + inversion) / 2).clip(0, 1)
    return found


def _normal(sigma: float, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of a normal distribution around 0."""
    if not sigma:
        return np.zeros(1), np.ones(1)
    at, weights = _gauss(points if sigma < _WIDE else 4 * points)
    return sigma * at, weights / weights.sum()


@functools.cache
def _gauss(points: int) -> tuple[np.ndarray, np.ndarray]:
    at, weights = np.polynomial.hermite_e.hermegauss(points)
    return at, weights


def _exponential(matrices: np.ndarray) -> np.ndarray:
    """Of many small matrices at once: Taylor's series of a small part of each, squared again and again."""
    largest = float(np.abs(matrices).sum(axis=-1).max(initial=0.0))
    halvings = max(0, int(np.ceil(np.log2(max(largest, 1e-300)))) + 1)
    small = matrices / 2**halvings
    result: np.ndarray = np.broadcast_to(np.eye(3), matrices.shape)
    term = result
    for order in range(1, 13):
        term = term @ small / order
        result = result + term
    for _ in range(halvings):
        result = result @ result
    return result
