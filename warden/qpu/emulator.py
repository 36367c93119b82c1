"""Pulser's own emulator, on QuTiP. Imported only where sequences are emulated: it costs seconds."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pulser
import qutip
from pulser.backend import AggregationMethod, Observable
from pulser_simulation import QutipBackendV2, QutipConfig, QutipEmulator, QutipState
from pulser_simulation.hamiltonian import Hamiltonian
from pulser_simulation.simulation import HamiltonianWithReps

from warden.qpu import costs, emulation, shots, speed
from warden.qpu.emulation import describe, facts, read
from warden.qpu.physics import Order

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from pulser.sampler import SequenceSamples

    from warden.qpu.noise import Noise
    from warden.qpu.physics import Distribution

__all__ = ["check", "describe", "emulate", "facts", "read"]


class _Populations(Observable):  # type: ignore[misc]
    """The probability of each state, and what the levels are called."""

    def __init__(self) -> None:
        super().__init__(default_aggregation_method=AggregationMethod.SKIP, evaluation_times=[1.0])

    @property
    def _base_tag(self) -> str:
        return "populations"

    def apply(self, *, state: QutipState, **_: Any) -> tuple[tuple[str, ...], np.ndarray]:
        found = state.to_qobj()
        probabilities = np.abs(found.full().ravel()) ** 2 if found.isket else np.abs(found.diag())
        return tuple(state.eigenstates), probabilities


class _Emulator(QutipEmulator):  # type: ignore[misc]
    """Pulser's, on the levels of the whole sequence; its one Hamiltonian is that of the trajectory at hand.

    Pulser makes one for the sequence that it is given, one more without any noise, which it asks for its times and shows
    to observables, and one for each trajectory of its own: of short emulations they are a third.
    """

    def __init__(
        self, ideal: SequenceSamples, sequence: pulser.Sequence, config: QutipConfig, first: emulation.Trajectory
    ) -> None:
        self._first = first
        super().__init__(
            ideal,
            sequence.register,
            sequence.device,
            evaluation_times=[ideal.max_duration / 1000],
            noise_model=config.noise_model,
            solver=config.solver,
        )

    def take(self, trajectory: emulation.Trajectory) -> None:
        """Emulate these samples, among the atoms that are there."""
        self._current_hamiltonian = self._of(trajectory)

    def _of(self, trajectory: emulation.Trajectory) -> Hamiltonian:
        data = self._hamiltonian_data
        samples = trajectory.samples.extend_duration(data.samples.max_duration)
        return Hamiltonian(samples, trajectory.noise, data.basis_data, data.lindblad_data, sampling_rate=1.0)

    @property
    def _hamiltonians(self) -> Iterator[HamiltonianWithReps]:
        yield HamiltonianWithReps(self._of(self._first), 1)

    def _get_noiseless_hamiltonian(self, leakage: bool) -> Hamiltonian:
        del leakage
        return self._current_hamiltonian


def _share_levels() -> None:
    """Have the matrices of an atom's levels made once for all emulations.

    Pulser asks QuTiP for them with each trajectory, and for a type of its own, which takes QuTiP 20 ms: with noise that was
    most of an emulation.
    """
    make = functools.cache(lambda levels: _make_levels(list(levels)))

    def shared(eigenbasis: list[str]) -> tuple[dict[str, qutip.Qobj], ...]:
        return tuple(dict(found) for found in make(tuple(eigenbasis)))

    Hamiltonian._get_basis_op_matrices = staticmethod(shared)  # noqa: SLF001 - it has no door for that


_make_levels = Hamiltonian._get_basis_op_matrices  # noqa: SLF001
_share_levels()

# As many as it takes. Pulser's own limit follows from the time between two pulses, and a long pulse on close atoms breaks it.
_STEPS = 10**9


def warm_up() -> None:
    """Emulate an atom: imports that QuTiP puts off, and memory that a fork shares until it is written to."""
    speed.slowness()
    register = pulser.Register({"atom": (0.0, 0.0)})
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.declare_channel("global", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(16, 1.0, 0.0, 0.0), "global")
    emulate(Order(device="MockDevice", sequence=sequence.to_abstract_repr()))


def check(device: str, sequence: str, noise: Noise) -> int:
    """Say in how many microseconds, at most, the sequence is emulated.

    Raises:
        ValueError: The device cannot run it, or it takes too much memory.
    """
    size = _checked(device, sequence, noise)[1]
    return costs.qutip_time(size)


def emulate(order: Order) -> Distribution:
    """What a measurement finds, and how probably.

    Raises:
        ValueError: As `check`.
    """
    [found] = emulate_each(order, [order.noise])
    return found


def emulate_each(order: Order, noises: Iterable[Noise]) -> list[Distribution]:
    """The same with one noise after the other in place of the order's, for a fraction of what as many orders take.

    They have the order's dephasing, and fluctuate only if it does.
    """
    sequence, size = _checked(order.device, order.sequence, order.noise)
    config = QutipConfig(
        observables=[_Populations()],
        noise_model=emulation.dephasing(sequence, order.noise),
        solver="MonteCarlo" if size.jumps else "MasterEquation",
    )
    # Whether a basis is measured in that nothing has driven is no concern of Pulser's: `measured` knows what is found.
    ideal = dataclasses.replace(emulation.samples_of(sequence), _measurement=None)
    emulator: _Emulator | None = None
    seeds = np.random.SeedSequence(emulation.seed(order.digest))
    found, options = [], {"nsteps": _STEPS}
    for noise in noises:
        total: Any = 0.0
        for trajectory in emulation.trajectories(sequence, noise, size):
            if emulator is None:
                emulator = _Emulator(ideal, sequence, config, trajectory)
            else:
                emulator.take(trajectory)
            with _seeded(seeds):
                result = QutipBackendV2._run_raw(emulator, config, options)  # noqa: SLF001 - it has no door for trajectories
            eigenstates, probabilities = result.get_result("populations", 1.0)
            total += trajectory.weight * probabilities
        found.append(shots.distribution(emulation.measured(sequence, eigenstates, total)))
    return found


def _checked(device: str, text: str, noise: Noise) -> tuple[pulser.Sequence, costs.Size]:
    sequence = emulation.read(device, text)
    size = emulation.size(sequence, noise)
    emulation.afford(costs.qutip_memory(size))
    return sequence, size


@contextlib.contextmanager
def _seeded(seeds: np.random.SeedSequence) -> Iterator[None]:
    """Quantum jumps follow from the order too, and leave a state.

    Pulser lets QuTiP take them from the system's entropy, and make a density matrix of their one run, whose norm takes
    longer than all the rest.
    """
    mcsolve = qutip.mcsolve

    def solve(*arguments: Any, options: dict[str, Any], **others: Any) -> SimpleNamespace:
        options = {**options, "keep_runs_results": True}
        found = mcsolve(*arguments, options=options, seeds=seeds.spawn(1)[0], **others)
        return SimpleNamespace(states=found.runs_states[0])

    qutip.mcsolve = solve
    try:
        yield
    finally:
        qutip.mcsolve = mcsolve
