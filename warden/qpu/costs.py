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

_MILLISECOND = 1000.0
_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")

# The largest bond dimension of a matrix product state: what entangles more is cut off, and its emulation takes no longer.
BOND = 128
# Times of sequences are in ns, and energies in rad/us.
_TURN = 1000.0
# The steps of Pasqal's emulators, and the most dimensions of the Krylov space in which each is taken.
_STEP = 10
_KRYLOV = 100


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """What the costs of a sequence follow from.

    `levels` of an atom; `duration` in ns; `energy`: how far apart the levels of all atoms may be, rad/us; `edges`: how
    often light jumps; `exchange`: whether atoms exchange their states, as in XY; `trajectories` that are emulated;
    `matrix`: whether each is a density matrix; `jumps`: or how many quantum jumps one may have.
    """

    qubits: int
    duration: int
    energy: float
    edges: int = 0
    exchange: bool = False
    levels: int = 2
    trajectories: int = 1
    matrix: bool = False
    jumps: float = 0.0

    @property
    def amplitudes(self) -> int:
        amplitudes: int = self.levels**self.qubits
        return amplitudes**2 if self.matrix else amplitudes

    @property
    def terms(self) -> int:
        """What is multiplied when the Hamiltonian is applied."""
        return self.amplitudes * self.qubits * (self.levels - 1)


# All times are in microseconds, and memory is in bytes.


def qutip_memory(size: Size) -> int:
    # The Hamiltonian's matrix has a number for each atom and amplitude, and one for each pair that exchanges its states.
    matrix = 64 * size.qubits**2 if size.exchange else 0
    samples = size.duration * (1200 + 400 * size.qubits)
    return 64 * 2**20 + size.amplitudes * (1024 + 512 * size.qubits + matrix) + samples


def qutip_time(size: Size) -> int:
    """A solver with steps of its own: the samples, the energies and each jump of the light make them shorter."""
    # Where energies are high, it is the stability of the steps that does, and not their error.
    turns = size.energy * size.duration / _TURN * min(10, 5 + size.energy / _TURN)
    # Where an atom may jump, the norm is looked at in each step.
    applied = 300 + (12 if size.jumps else 1.2) * size.duration + turns + 200 * size.edges + 50 * size.jumps
    each = 4 + 0.7 * size.qubits + (0.012 if size.matrix else 0.006) * size.terms
    made = (10 + 8 * size.qubits * (size.levels - 1)) * _MILLISECOND + 4 * size.terms
    # Each trajectory has a curve through all samples of each atom.
    made += 2.5 * size.duration * (size.levels - 1) * size.qubits
    return math.ceil(200 * _MILLISECOND + size.trajectories * (made + applied * each))


def sv_memory(size: Size) -> int:
    return 256 * 2**20 + size.amplitudes * 1024 + _samples(size)


def sv_time(size: Size) -> int:
    """Steps of one length; their Krylov spaces grow with the energies."""
    dimension = _krylov(size, 10 + (1.0 if size.matrix else 0.5) * size.energy * _STEP / _TURN)
    each = (1.5 if size.matrix else 0.7) * _MILLISECOND + 8 * dimension + 0.008 * size.terms
    steps = math.ceil(size.duration / _STEP) + size.jumps
    step = 1.5 * _MILLISECOND + (2 if size.jumps else 1) * dimension * each
    made = (20 + 4 * size.qubits) * _MILLISECOND
    return math.ceil(200 * _MILLISECOND + size.trajectories * (made + steps * step))


def mps_memory(size: Size) -> int:
    # The state's tensors, what solvers keep of two of them, and the environments on both sides of each atom.
    tensors = size.qubits * size.levels + 20 * size.levels**2 + 2 * size.qubits * (size.qubits + 2)
    return 256 * 2**20 + 16 * tensors * max(_bonds(size)) ** 2 + _samples(size)


def mps_time(size: Size) -> int:
    """Each step goes over all pairs of neighbours and back, each with a Krylov space of its own; then samples are drawn."""
    dimension = min(_KRYLOV, 6 + 0.25 * size.energy * _STEP / _TURN)
    calls, operator = max(1, 4 * size.qubits - 7), size.qubits // 2 + 3
    # Two tensors, and one, there and back.
    cubes = 3 * sum(bond**3 for bond in _bonds(size))
    step = calls * (2 + 0.5 * dimension) * _MILLISECOND + cubes * (0.003 * dimension * operator + 0.012)
    # Where an atom may jump, Krylov spaces are built the long way, and each jump is sought by going back and forth.
    steps = (2 if size.jumps else 1) * math.ceil(size.duration / _STEP) + 10 * size.jumps
    made = (20 + 10 * size.qubits) * _MILLISECOND
    # The order of the atoms in the chain is sought once.
    return math.ceil(5000 * _MILLISECOND + size.trajectories * (made + steps * step) + POOL * 20 * (1 + size.qubits))


def _samples(size: Size) -> int:
    return size.duration * (400 + 200 * size.qubits)


def _krylov(size: Size, dimension: float) -> float:
    return min(_KRYLOV, size.amplitudes + 1, dimension)


def _bonds(size: Size) -> list[int]:
    """The bond dimension between each atom and the next, at most."""
    return [min(size.levels ** min(atom, size.qubits - atom), BOND) for atom in range(1, size.qubits)] or [1]


def human(size: int) -> str:
    """A number of bytes as people say it: "3.0 GiB"."""
    power = min((size.bit_length() - 1) // 10, len(_UNITS)) if size else 0
    if power == len(_UNITS):
        return f"more than 1024 {_UNITS[-1]}"
    return f"{size / 1024**power:.1f} {_UNITS[power]}" if power else f"{size} bytes"
