"""What emu-sv and emu-mps share: how samples come into them."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import torch
from emu_base import PulserData, SequenceData
from pulser._hamiltonian_data import HamiltonianData
from pulser._hamiltonian_data.hamiltonian_data import TrajectoryWithReps

if TYPE_CHECKING:
    import pulser
    from pulser.backend import EmulationConfig

    from warden.qpu.emulation import Trajectory

# They tell of each step.
SILENT = logging.ERROR
# Up to so many amplitudes two threads are no faster than one. Where others are at work they wait for each other, spinning,
# and take more than twenty times as long.
_ONE_THREAD = 2**16


def accept(sequence: pulser.Sequence, emulator: str, bases: set[str]) -> None:
    """Refuse what the emulator does not know.

    Raises:
        ValueError: It is such a sequence.
    """
    others = {channel.basis for channel in sequence.declared_channels.values()} - bases
    if others:
        raise ValueError(f"{emulator} has no channels of the basis {', '.join(sorted(others))}: qutip has them all")


def limit_threads(amplitudes: int) -> None:
    """Have the rest of this process emulate on one thread if more are not worth it, unless the operator has said how many."""
    if amplitudes <= _ONE_THREAD and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def data(sequence: pulser.Sequence, trajectory: Trajectory, config: EmulationConfig) -> SequenceData:
    """What they make of a sequence, with these samples in place of its own, among the atoms that are there."""
    made = PulserData(sequence=sequence, config=config, dt=config.dt)
    made.hamiltonian = HamiltonianData(trajectory.samples, sequence.register, sequence.device, config.noise_model, 1)
    made.hamiltonian.noise_trajectories = [TrajectoryWithReps(trajectory.noise, 1)]
    return next(made.get_sequences())


def interactions(sequence: pulser.Sequence, config: EmulationConfig) -> torch.Tensor:
    """Those of all atoms without noise, at the end of the sequence: what emu-mps orders its chain by."""
    made = PulserData(sequence=sequence, config=config, dt=config.dt)
    return next(made.get_sequences()).interaction_matrix(made.target_times[-1])[0]
