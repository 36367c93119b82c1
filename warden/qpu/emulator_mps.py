"""Pasqal's emulator of matrix product states, on PyTorch: on the GPU where there is one. It costs seconds to import.

It cannot write down what a measurement may find, only draw from it: a pool of samples stands for the distribution.
"""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

import torch
from emu_mps import MPSBackend, MPSConfig, optimatrix
from pulser.backend import BitStrings

from warden.qpu import costs, emulation, pasqal, shots, speed
from warden.qpu.emulation import describe, facts, read

if TYPE_CHECKING:
    import pulser

    from warden.qpu.noise import Noise
    from warden.qpu.physics import Distribution, Order

__all__ = ["check", "describe", "emulate", "facts", "read"]

_seek = optimatrix.minimize_bandwidth


def warm_up() -> None:
    """As of state vectors."""
    speed.slowness()


def check(device: str, sequence: str, noise: Noise) -> int:
    """Say in how many microseconds, at most, the sequence is emulated.

    Raises:
        ValueError: The device or this emulator cannot run it, or it takes too much memory.
    """
    return costs.mps_time(_checked(device, sequence, noise)[1])


def emulate(order: Order) -> Distribution:
    """Samples of what a measurement finds.

    Raises:
        ValueError: As `check`.
    """
    sequence, size = _checked(order.device, order.sequence, order.noise)
    pasqal.limit_threads(size.amplitudes)
    config = MPSConfig(
        observables=[BitStrings(evaluation_times=[1.0], num_shots=costs.POOL // size.trajectories)],
        noise_model=emulation.dephasing(sequence, order.noise),
        max_bond_dim=costs.BOND,
        log_level=pasqal.SILENT,
    )
    _share_order(sequence, config)
    torch.manual_seed(emulation.seed(order.digest))
    pool: collections.Counter[str] = collections.Counter()
    for trajectory in emulation.trajectories(sequence, order.noise, size):
        result = MPSBackend._run_from_sequence_data(  # noqa: SLF001 - the way from samples, as its own `run` takes it
            pasqal.data(sequence, trajectory, config), config
        )
        times = round(trajectory.weight * size.trajectories)
        pool.update({bits: count * times for bits, count in result.get_result("bitstrings", 1.0).items()})
    return shots.pool(pool.items())


def _share_order(sequence: pulser.Sequence, config: MPSConfig) -> None:
    """Seek the order of the atoms in the chain once for all trajectories: the search takes seconds.

    It is that of the register without noise. Any order is right, whatever a trajectory misses or moves.
    """
    # It is sought at random; whoever draws next seeds again.
    torch.manual_seed(0)
    found = _seek(pasqal.interactions(sequence, config))
    optimatrix.minimize_bandwidth = lambda _: found


def _checked(device: str, text: str, noise: Noise) -> tuple[pulser.Sequence, costs.Size]:
    sequence = emulation.read(device, text)
    pasqal.accept(sequence, "emu-mps", {"ground-rydberg", "XY"})
    if len(sequence.register.qubit_ids) == 1:
        raise ValueError("emu-mps emulates two atoms or more: add one, far away")
    # Matrices of density are not among its states: dephasing is quantum jumps, however few the atoms.
    size = emulation.size(sequence, noise, largest_matrix=0)
    emulation.afford(costs.mps_memory(size))
    return sequence, size
