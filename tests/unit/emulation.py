"""Sequences small enough to have closed forms, and what two distributions differ by."""

from __future__ import annotations

import collections
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pulser

from warden.qpu import shots
from warden.qpu.noise import Noise
from warden.qpu.physics import Order

if TYPE_CHECKING:
    from types import ModuleType

# rad/us: a Rabi frequency of 1 MHz, and a pulse of 1 us that turns an atom around once.
RABI = 2 * math.pi


def sequence(*pulses: tuple[int, float, float], places: list[tuple[float, float]] | None = None) -> str:
    """Constant pulses on all atoms, one after the other: (ns, amplitude, detuning), rad/us; or a delay: (ns, 0, 0)."""
    register = pulser.Register({f"q{i}": place for i, place in enumerate(places or [(0.0, 0.0)])})
    made = pulser.Sequence(register, pulser.MockDevice)
    made.declare_channel("global", "rydberg_global")
    for duration, amplitude, detuning in pulses:
        if amplitude or detuning:
            made.add(pulser.Pulse.ConstantPulse(duration, amplitude, detuning, 0.0), "global")
        else:
            made.delay(duration, "global")
    return str(made.to_abstract_repr())


def probabilities(emulator: ModuleType, text: str, seed: int = 0, **noise: float) -> dict[str, float]:
    order = Order(device="MockDevice", sequence=text, noise=Noise(**noise), seed=seed)
    found: dict[str, float] = shots.probabilities(emulator.emulate(order))
    return found


def excited(emulator: ModuleType, text: str, **noise: float) -> float:
    """How probably the one atom is excited."""
    return probabilities(emulator, text, **noise).get("1", 0.0)


def rabi(amplitude: float, detuning: float, time: float) -> float:
    """The same of a two-level atom, in closed form; time in us."""
    whole = math.hypot(amplitude, detuning)
    return (amplitude / whole) ** 2 * math.sin(whole * time / 2) ** 2


def distance(one: dict[str, float], other: dict[str, float]) -> float:
    """Total variation distance."""
    return sum(abs(one.get(key, 0.0) - other.get(key, 0.0)) for key in {*one, *other}) / 2


def frequencies(drawn: list[str]) -> dict[str, float]:
    return {bits: count / len(drawn) for bits, count in collections.Counter(drawn).items()}


def bound(states: int, samples: int, error: float = 1e-6) -> float:
    """What the distance between so many samples and what they were drawn from exceeds with probability `error` at most.

    Its mean is at most sqrt(states / samples) / 2, and a shot moves it by 1 / samples at most (McDiarmid).
    """
    return math.sqrt(states / samples) / 2 + math.sqrt(math.log(1 / error) / (2 * samples))


def ring(qubits: int, spacing: float = 6.0, **options: Any) -> pulser.Sequence:
    """An adiabatic sweep on a ring, on AnalogDevice if it is small enough for its traps."""
    radius = spacing / (2 * math.sin(math.pi / qubits))
    angles = 2 * np.pi * np.arange(qubits) / qubits
    register = pulser.Register({f"q{i}": (radius * math.cos(a), radius * math.sin(a)) for i, a in enumerate(angles)})
    made = pulser.Sequence(register.with_automatic_layout(pulser.AnalogDevice), pulser.AnalogDevice)
    made.declare_channel("global", "rydberg_global")
    rise, sweep = options.get("rise", 252), options.get("sweep", 1048)
    made.add(pulser.Pulse.ConstantDetuning(pulser.RampWaveform(rise, 0.0, RABI), -20.0, 0.0), "global")
    made.add(pulser.Pulse.ConstantAmplitude(RABI, pulser.RampWaveform(sweep, -20.0, 20.0), 0.0), "global")
    made.add(pulser.Pulse.ConstantDetuning(pulser.RampWaveform(rise, RABI, 0.0), 20.0, 0.0), "global")
    return made
