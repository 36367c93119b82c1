"""Pasqal's emulator of state vectors, on PyTorch: on the GPU where there is one. It costs seconds to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from emu_sv import SVBackend, SVConfig
from emu_sv.solver import Solver
from pulser.backend import AggregationMethod, Observable

from warden.qpu import costs, emulation, pasqal, shots, speed
from warden.qpu.emulation import describe, facts, read

if TYPE_CHECKING:
    import numpy as np
    import pulser
    from emu_sv.dense_state import DenseState

    from warden.qpu.noise import Noise
    from warden.qpu.physics import Distribution, Order

__all__ = ["check", "describe", "emulate", "facts", "read"]


class _Populations(Observable):  # type: ignore[misc]
    """The probability of each state, ground states first."""

    def __init__(self) -> None:
        super().__init__(default_aggregation_method=AggregationMethod.SKIP, evaluation_times=[1.0])

    @property
    def _base_tag(self) -> str:
        return "populations"

    def apply(self, *, state: DenseState, **_: Any) -> np.ndarray:
        data = state.data.detach()
        found: np.ndarray = (torch.abs(data.diagonal()) if data.dim() > 1 else torch.abs(data) ** 2).cpu().numpy()
        return found


def warm_up() -> None:
    """Look how fast the machine is. More is not to be had: its processes take as long to be made ready as to be used."""
    speed.slowness()


def check(device: str, sequence: str, noise: Noise) -> int:
    """Say in how many microseconds, at most, the sequence is emulated.

    Raises:
        ValueError: The device or this emulator cannot run it, or it takes too much memory.
    """
    return costs.sv_time(_checked(device, sequence, noise)[1])


def emulate(order: Order) -> Distribution:
    """What a measurement finds, and how probably.

    Raises:
        ValueError: As `check`.
    """
    sequence, size = _checked(order.device, order.sequence, order.noise)
    pasqal.limit_threads(size.amplitudes)
    torch.manual_seed(emulation.seed(order.digest))
    config = SVConfig(
        observables=[_Populations()],
        noise_model=emulation.dephasing(sequence, order.noise),
        solver=Solver.MONTECARLO if size.jumps else Solver.DEFAULT,
        log_level=pasqal.SILENT,
    )
    total: Any = 0.0
    for trajectory in emulation.trajectories(sequence, order.noise, size):
        result = SVBackend._run_from_sequence_data(  # noqa: SLF001 - the way from samples, as its own `run` takes it
            pasqal.data(sequence, trajectory, config), config
        )
        total += trajectory.weight * result.get_result("populations", 1.0)
    return shots.distribution(emulation.measured(sequence, ("g", "r"), total))


def _checked(device: str, text: str, noise: Noise) -> tuple[pulser.Sequence, costs.Size]:
    sequence = emulation.read(device, text)
    pasqal.accept(sequence, "emu-sv", {"ground-rydberg"})
    size = emulation.size(sequence, noise)
    emulation.afford(costs.sv_memory(size))
    return sequence, size
