"""Makes the sequences here, with Pulser: `python tests/samples/sequences/make.py` after a change of Pulser's format."""

from pathlib import Path

import numpy as np
import pulser
from pulser.waveforms import InterpolatedWaveform

HERE = Path(__file__).parent


def afm(register: pulser.Register) -> pulser.Sequence:
    """Prepare the antiferromagnetic state of the register, adiabatically."""
    sequence = pulser.Sequence(register, pulser.AnalogDevice)
    sequence.declare_channel("rydberg", "rydberg_global")
    length = 3000
    amplitude = InterpolatedWaveform(length, [1e-9, 2 * np.pi, 2 * np.pi, 1e-9])
    detuning = InterpolatedWaveform(length, [-12.0, -12.0, 12.0, 12.0])
    sequence.add(pulser.Pulse(amplitude, detuning, 0), "rydberg")
    return sequence


if __name__ == "__main__":
    square = pulser.Register.from_coordinates([(0, 0), (6, 0), (6, 6), (0, 6)], prefix="q")
    square = square.with_automatic_layout(pulser.AnalogDevice)
    for name, sequence in {"afm_square": afm(square)}.items():
        (HERE / f"{name}.json").write_text(sequence.to_abstract_repr() + "\n", encoding="utf-8")
