"""An adiabatic preparation of an antiferromagnetic state: a ring of eight atoms in which neighbours alternate.

All atoms begin in the ground state. The laser is switched on far below resonance and swept slowly above it; excited
neighbours repel each other so strongly that only every other atom of the ring can be excited. There are two ways to do
that, 01010101 and 10101010, and the ring ends in both with the same probability.

    python afm_ring.py afm_ring.json      (a Python that has Pulser; qpu-python on the lab)

That writes it for Pulser's AnalogDevice, which the lab's QPU is. For a QPU that is another device see afm_job.py.
"""

import sys
from pathlib import Path

import numpy as np
from pulser import AnalogDevice, Pulse, Register, Sequence
from pulser.devices import Device, VirtualDevice
from pulser.waveforms import InterpolatedWaveform

ATOMS = 8
SPACING = 6.0  # um
DURATION = 5000  # ns
RABI_FREQUENCY = 2 * np.pi  # rad/us, at the plateau
DETUNING = 6 * np.pi  # rad/us, from minus to plus


def ring(device: Device | VirtualDevice) -> Register:
    """The atoms on a circle, on a layout that the device can trap them in."""
    angles = 2 * np.pi * np.arange(ATOMS) / ATOMS
    radius = SPACING / (2 * np.sin(np.pi / ATOMS))
    atoms = {f"q{i}": (radius * np.cos(angle), radius * np.sin(angle)) for i, angle in enumerate(angles)}
    return Register(atoms).with_automatic_layout(device)


def sequence(device: Device | VirtualDevice = AnalogDevice) -> Sequence:
    """Switch on, sweep through the resonance, switch off."""
    times = [0.0, 0.15, 0.85, 1.0]
    amplitude = InterpolatedWaveform(DURATION, [0.0, RABI_FREQUENCY, RABI_FREQUENCY, 0.0], times=times)
    detuning = InterpolatedWaveform(DURATION, [-DETUNING, -DETUNING, DETUNING, DETUNING], times=times)
    built = Sequence(ring(device), device)
    built.declare_channel("global", "rydberg_global")
    built.add(Pulse(amplitude, detuning, phase=0.0), "global")
    built.measure("ground-rydberg")
    return built


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(sequence().to_abstract_repr() + "\n", encoding="utf-8")
