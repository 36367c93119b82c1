"""What an emulation takes: memory, so that one too big is refused before it runs, and time, so that it is planned. Pure.

Both are bounds, from measurements that docs/emulator.md states, with a margin.
"""

from __future__ import annotations

import math

import msgspec

# Shots that have their own noise: amplitude, detuning, positions and velocities are drawn so often for a sequence.
TRAJECTORIES = 64
# Up to so many atoms, dephasing is in the equation of the density matrix; for more, in the trajectories.
LARGEST_MATRIX = 5
# Samples that stand for a distribution which an emulator cannot write down.
POOL = 16_384

# By so much a step is dearer where quantum jumps may happen: norms are watched, and each jump is sought.
_JUMPS = 2.5

_MILLISECOND = 1_000
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
# Bond dimension that the bounds for matrix product states count with; what entangles more takes longer than they say.
_BOND = 128
_MPS_MEMORY = 256 * 2**20
_MPS_START = 1000 * _MILLISECOND
_MPS_STEP = 10
_MPS_ATOM_TIME, _MPS_BOND_TIME = 40_000.0, 20.0
_MPS_SAMPLE = 20.0


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """What the costs of a sequence follow from.

    `levels` of an atom; `duration` in ns; `energy`: how far apart the levels of all atoms may be, rad/us;
    `trajectories` that are emulated; `matrix`: whether each is a density matrix; `jumps`: or one with quantum jumps.
    """

    qubits: int
    duration: int
    energy: float
    levels: int = 2
    trajectories: int = 1
    matrix: bool = False
    jumps: bool = False

    @property
    def amplitudes(self) -> int:
        amplitudes: int = self.levels**self.qubits
        return amplitudes**2 if self.matrix else amplitudes


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """Of one emulator. Times in microseconds, memory in bytes."""

    memory: int
    """Whatever the sequence is."""
    amplitude_memory: int
    """Of each amplitude: the state, what solvers keep of it ..."""
    term_memory: int
    """... and of each, for each atom, where the Hamiltonian is a matrix."""
    start: int
    step: int
    """The emulator's steps, in ns of the sequence, and what each takes at least."""
    step_time: float
    amplitude_time: float
    """Of a step, for each amplitude and atom, and again for each `energy` that the sequence has."""
    energy: float


QUTIP = Costs(
    memory=64 * 2**20,
    amplitude_memory=1024,
    term_memory=512,
    start=500 * _MILLISECOND,
    step=1,
    step_time=30.0,
    amplitude_time=0.03,
    energy=500.0,
)
EMU_SV = Costs(
    memory=256 * 2**20,
    amplitude_memory=1024,
    term_memory=0,
    start=1000 * _MILLISECOND,
    step=10,
    step_time=15_000.0,
    amplitude_time=0.15,
    energy=2000.0,
)


def memory(costs: Costs, size: Size) -> int:
    """Bytes that the emulation of a state takes at most."""
    return costs.memory + size.amplitudes * (costs.amplitude_memory + costs.term_memory * size.qubits)


def time(costs: Costs, size: Size) -> int:
    """Microseconds that the emulation of a state takes at most."""
    steps = math.ceil(size.duration / costs.step)
    work = size.amplitudes * size.qubits * costs.amplitude_time * (1 + size.energy / costs.energy)
    work *= _JUMPS if size.jumps else 1
    return math.ceil(size.trajectories * (costs.start + steps * (costs.step_time + work)))


def mps_memory(size: Size) -> int:
    """Bytes that the emulation of a matrix product state takes, if it entangles no more than `_BOND` says."""
    # The state's tensors, what solvers keep of two of them, and the environments on both sides of each atom.
    tensors = size.qubits * size.levels + 20 * size.levels**2 + 2 * size.qubits * (size.qubits + 2)
    return _MPS_MEMORY + 16 * tensors * _bond(size) ** 2


def mps_time(size: Size) -> int:
    """Microseconds that it takes, if it entangles no more than `_BOND` says."""
    steps = math.ceil(size.duration / _MPS_STEP)
    work = _MPS_ATOM_TIME + _MPS_BOND_TIME * _bond(size) ** 2
    return math.ceil(size.trajectories * (_MPS_START + steps * size.qubits * work) + POOL * size.qubits * _MPS_SAMPLE)


def _bond(size: Size) -> int:
    largest: int = size.levels ** (size.qubits // 2)
    return min(largest, _BOND)


def human(size: int) -> str:
    """A number of bytes as people say it: "3.0 GiB"."""
    power = min((size.bit_length() - 1) // 10, len(_UNITS)) if size else 0
    if power == len(_UNITS):
        return f"more than 1024 {_UNITS[-1]}"
    return f"{size / 1024**power:.1f} {_UNITS[power]}" if power else f"{size} bytes"
