"""One atom under square pulses, exactly: what an emulator would say of it, a thousand times faster.

Pulser's emulators draw the spreads of amplitude and detuning, a fresh emulation for each draw; scans of many points would
take minutes. The optical Bloch equations of one atom are nine numbers, and its spreads are averaged over a few points each.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from warden.qpu.quality import detuning_spread

if TYPE_CHECKING:
    from warden.qpu.noise import Noise


class Pulses(msgspec.Struct, frozen=True):
    """Square pulses, each on an atom of its own: rad/us, rad/us, us; one number for each."""

    amplitude: np.ndarray
    detuning: np.ndarray
    duration: np.ndarray

    def __len__(self) -> int:
        return len(self.duration)


def distribution(pulses: Pulses, noise: Noise, points: int = 7) -> np.ndarray:
    """Probability that 1 is read after each pulse. Spreads are averaged over so many points."""
    # A missing atom is read as one in the ground state.
    there = (1 - noise.state_prep_error) * _excited(pulses, noise, points)
    read: np.ndarray = noise.p_false_pos + there * (1 - noise.p_false_pos - noise.p_false_neg)
    return read


def _excited(pulses: Pulses, noise: Noise, points: int) -> np.ndarray:
    """Probability of the Rydberg state, for atoms that are there."""
    gains, of_gain = _normal(noise.amp_sigma, points)
    shifts, of_shift = _normal(detuning_spread(noise), points)
    amplitude = pulses.amplitude * max(0.0, 1 + noise.rabi_error)
    shape = (len(pulses), len(gains), len(shifts))
    drive = np.broadcast_to(amplitude[:, None, None] * np.maximum(0, 1 + gains)[:, None], shape)
    detuning = np.broadcast_to((pulses.detuning + noise.detuning_error)[:, None, None] + shifts, shape)
    # (u, v, w): twice the coherence's parts, and the inversion, which begins at -1.
    bloch = np.zeros((*shape, 3, 3))
    bloch[..., 0, 0] = bloch[..., 1, 1] = -noise.dephasing_rate
    bloch[..., 0, 1], bloch[..., 1, 0] = detuning, -detuning
    bloch[..., 2, 1], bloch[..., 1, 2] = drive, -drive
    inversion = -_exponential(bloch * pulses.duration[:, None, None, None, None])[..., 2, 2]
    excited: np.ndarray = np.einsum("pgs,g,s->p", (1 + inversion) / 2, of_gain, of_shift).clip(0, 1)
    return excited


def _normal(sigma: float, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Points and weights of a normal distribution around 0."""
    if not sigma:
        return np.zeros(1), np.ones(1)
    at, weights = _gauss(points)
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
