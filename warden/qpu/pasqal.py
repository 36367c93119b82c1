"""What emu-sv and emu-mps share: how samples come into them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from emu_base import PulserData, SequenceData
from pulser._hamiltonian_data import HamiltonianData
from pulser._hamiltonian_data.hamiltonian_data import TrajectoryWithReps

if TYPE_CHECKING:
    import pulser
    from pulser.backend import EmulationConfig

    from warden.qpu.emulation import Trajectory

# They tell of each step.
SILENT = logging.ERROR


def accept(sequence: pulser.Sequence, emulator: str, bases: set[str]) -> None:
    """Refuse what the emulator does not know.

    Raises:
        ValueError: It is such a sequence.
    """
    others = {channel.basis for channel in sequence.declared_channels.values()} - bases
    if others:
        raise ValueError(f"{emulator} has no channels of the basis {', '.join(sorted(others))}: qutip has them all")


def data(sequence: pulser.Sequence, trajectory: Trajectory, config: EmulationConfig) -> SequenceData:
    """What they make of a sequence, with these samples in place of its own, among the atoms that are there."""
    made = PulserData(sequence=sequence, config=config, dt=config.dt)
    made.hamiltonian = HamiltonianData(trajectory.samples, sequence.register, sequence.device, config.noise_model, 1)
    made.hamiltonian.noise_trajectories = [TrajectoryWithReps(trajectory.noise, 1)]
    return next(made.get_sequences())
