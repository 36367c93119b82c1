"""The scans of a calibration, by Pulser's own emulator. Imported only where there is time for it: it costs seconds.

Scans go to QuTiP whatever emulates the tasks: one atom takes the others, which are made for many, much longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pulser

from warden.qpu import emulator, shots
from warden.qpu.noise import Noise
from warden.qpu.physics import Order

if TYPE_CHECKING:
    from warden.qpu.atom import Pulses

# Atoms that feel nothing of each other are emulated one by one, on a device without limits: the QPU's, which may ask for a
# layout or a larger register, are no matter between it and those who calibrate it.
_DEVICE = "MockDevice"


def excited(pulses: Pulses, noise: Noise, gains: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Probability of the Rydberg state after each pulse in each of its shots, as `atom.excited`."""
    each = zip(pulses.amplitude, pulses.detuning, pulses.duration, gains, shifts, strict=True)
    found: np.ndarray = np.array(
        [
            _excited(
                _sequence(amplitude, detuning, duration), [_of_shot(noise, *shot) for shot in zip(*own, strict=True)]
            )
            for amplitude, detuning, duration, *own in each
        ]
    )
    return found


def _of_shot(noise: Noise, gain: float, shift: float) -> Noise:
    """All that it has of noise is in its pulse."""
    return Noise(
        rabi_error=float(max(0.0, 1 + noise.rabi_error) * max(0.0, 1 + gain) - 1),
        detuning_error=float(noise.detuning_error + shift),
        dephasing_rate=noise.dephasing_rate,
    )


def _excited(sequence: str, noises: list[Noise]) -> list[float]:
    # Without spreads all shots are the same.
    different = list(dict.fromkeys(noises))
    order = Order(device=_DEVICE, sequence=sequence, noise=different[0])
    known = {
        noise: shots.probabilities(distribution).get("1", 0.0)
        for noise, distribution in zip(different, emulator.emulate_each(order, different), strict=True)
    }
    return [known[noise] for noise in noises]


def _sequence(amplitude: float, detuning: float, duration: float) -> str:
    sequence = pulser.Sequence(pulser.Register({"atom": (0.0, 0.0)}), pulser.devices.MockDevice)
    sequence.declare_channel("laser", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(round(1000 * duration), amplitude, detuning, 0.0), "laser")
    return str(sequence.to_abstract_repr())
