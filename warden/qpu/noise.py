"""How far the QPU is from an ideal one: the figures that emulators take, drift moves and calibrations measure. Pure."""

from __future__ import annotations

import msgspec


class Noise(msgspec.Struct, frozen=True, kw_only=True):
    """Names and units of Pulser's NoiseModel, and two errors that all shots share, which a calibration can correct.

    All zero: an ideal device, whose results are Pulser's own.
    """

    state_prep_error: float = 0.0
    """Probability that an atom is not there, or not in the state that it should begin in."""
    p_false_pos: float = 0.0
    """Probability that 0 is read as 1."""
    p_false_neg: float = 0.0
    """Probability that 1 is read as 0."""
    amp_sigma: float = 0.0
    """Relative spread of the amplitude from shot to shot."""
    detuning_sigma: float = 0.0
    """Spread of the detuning from shot to shot, rad/us."""
    temperature: float = 0.0
    """Of the atoms, uK."""
    dephasing_rate: float = 0.0
    """1/us."""
    rabi_error: float = 0.0
    """By how much the Rabi frequency is larger than asked for, relative to it."""
    detuning_error: float = 0.0
    """By how much the detuning is larger than asked for, rad/us."""

    @property
    def off(self) -> bool:
        return self == Noise()
