"""Antiferromagnetic order on a square lattice, prepared by an adiabatic sweep, as it grows and at its end.

The sweep is that of V. Lienhard et al., Phys. Rev. X 8, 021070 (2018), in the figures that Pulser's tutorial "Preparing
a state with antiferromagnetic order in the Ising model" has for it: in units of the interaction U of two neighbours, the
Rabi frequency rises to 2 U in 0.25 us, the detuning is swept from -6 U to 2 U at 10 MHz/us, and the light goes out in
0.5 us. With U/h = 1 MHz that fits Pulser's AnalogDevice. P. Scholl et al., Nature 595, 233 (2021), do the same with 196 atoms.

What is measured is theirs, too: the connected correlation of two atoms that are (dx, dy) sites apart, averaged over all
such pairs, g(dx, dy) = <n_i n_j> - <n_i> <n_j>, and the Néel structure factor 4 sum (-1)^(dx+dy) g(dx, dy) over all but
(0, 0). As they did, the sweep is broken off at several times, to see the order grow. Beside it stands an independent calculation of the same
Hamiltonian (`Exact`), which shares no code with Pulser: papers give such numbers only as colours in a figure.

    qsub afm_order.sh                                    a job; or, on any machine with Pulser:
    python afm_order.py --local --plot afm.svg           with Pulser's emulator, and a figure
"""

from __future__ import annotations

import argparse
import collections
import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pulser import AnalogDevice, Pulse, Register, Sequence
from pulser.backend import BitStrings
from pulser.waveforms import RampWaveform

if TYPE_CHECKING:
    from collections.abc import Iterator

U = 2 * np.pi  # rad/us, of two neighbours: 1 MHz
SPACING = AnalogDevice.rydberg_blockade_radius(U)  # um: where the interaction is U
# Of the sweep: ns, Rabi frequency from and to, detuning from and to; rad/us.
SWEEP = ((252, 0.0, 2 * U, -6 * U, -6 * U), (800, 2 * U, 2 * U, -6 * U, 2 * U), (500, 2 * U, 0.0, 2 * U, 2 * U))
DURATION = sum(duration for duration, *_ in SWEEP)
SHORTEST = 16  # ns, of a pulse of the device


# --- the sequence ---


def sequence(side: int, until: int = DURATION) -> Sequence:
    """The sweep on a lattice of side x side atoms, broken off after `until` ns (a multiple of 4)."""
    atoms = {f"q{n}": (SPACING * (n % side), SPACING * (n // side)) for n in range(side * side)}
    built = Sequence(Register(atoms).with_automatic_layout(AnalogDevice), AnalogDevice)
    built.declare_channel("global", "rydberg_global")
    left = until
    for duration, *ends in SWEEP:
        length = min(duration, left)
        if length >= SHORTEST:
            amplitude, detuning = (_ramp(duration, length, *ends[n : n + 2]) for n in (0, 2))
            built.add(Pulse(amplitude, detuning, phase=0.0), "global")
        left -= length
    built.measure("ground-rydberg")
    return built


def _ramp(duration: int, length: int, start: float, stop: float) -> RampWaveform:
    """The first `length` ns of a ramp."""
    return RampWaveform(length, start, start + (stop - start) * (length - 1) / (duration - 1))


# --- what is measured ---


def occupations(shots: list[str]) -> np.ndarray:
    return np.array([[bit == "1" for bit in shot] for shot in shots], dtype=float)


def correlation(states: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """g(dx, dy) of these states (one a line, an atom a column); row dy + side - 1, column dx + side - 1."""
    side = round(states.shape[1] ** 0.5)
    mean = weights @ states
    connected = states.T @ (weights[:, None] * states) - np.outer(mean, mean)
    total, pairs = np.zeros((2, 2 * side - 1, 2 * side - 1))
    for i, j in np.ndindex(connected.shape):
        place = (j // side - i // side + side - 1, j % side - i % side + side - 1)
        total[place] += connected[i, j]
        pairs[place] += 1
    return total / pairs


def structure_factor(correlations: np.ndarray) -> float:
    side = len(correlations) // 2
    dy, dx = np.indices(correlations.shape) - side
    signs = np.where((dx + dy) % 2, -1.0, 1.0)
    signs[side, side] = 0.0
    return float(4 * np.sum(signs * correlations))


class Measured(NamedTuple):
    """When the sweep was broken off, in ns, and what came out: the structure factor with its standard error."""

    time: int
    correlations: np.ndarray
    factor: float
    error: float


def measured(time: int, shots: list[str]) -> Measured:
    """The error is the spread over ten parts of the shots: they come in their order, so a drift would show there."""
    parts = [structure_factor(_of(list(part))) for part in np.array_split(np.array(shots), 10)]
    whole = _of(shots)
    return Measured(time, whole, structure_factor(whole), float(np.std(parts, ddof=1) / len(parts) ** 0.5))


def _of(shots: list[str]) -> np.ndarray:
    return correlation(occupations(shots), np.full(len(shots), 1 / len(shots)))


# --- an independent calculation ---


class Exact:
    """The same Hamiltonian in steps of a split operator: what is diagonal, and each atom's rotation, in turn.

    H = Rabi/2 sum X_i - detuning sum n_i + sum C6/r^6 n_i n_j, with the ramps as straight lines and not as samples.
    """

    def __init__(self, side: int, step: float = 1.0) -> None:
        """`step`: ns; the error falls with its square."""
        self._atoms, self._step = side * side, step / 1000
        numbers = np.arange(2**self._atoms)
        self.states = (numbers[:, None] >> np.arange(self._atoms)[::-1] & 1).astype(float)
        places = SPACING * np.array([(n % side, n // side) for n in range(self._atoms)])
        distances = np.linalg.norm(places[:, None] - places[None], axis=2)
        pairs = np.triu(AnalogDevice.interaction_coeff / np.where(distances, distances, np.inf) ** 6, 1)
        energies = np.einsum("si,ij,sj->s", self.states, pairs, self.states, optimize=True)
        self._excited = self.states.sum(axis=1).astype(int)
        self._half = np.exp(-0.5j * energies * self._step)

    def run(self) -> Iterator[tuple[float, np.ndarray]]:
        """Times in ns and the probabilities of all states then, step by step."""
        psi = np.zeros(2**self._atoms, dtype=complex)
        psi[0] = 1
        corners = np.cumsum([0, *(duration for duration, *_ in SWEEP)]) / 1000
        rabi = [SWEEP[0][1], *(ends[1] for _, *ends in SWEEP)]
        detuning = [SWEEP[0][3], *(ends[3] for _, *ends in SWEEP)]
        for n in range(round(DURATION / 1000 / self._step)):
            middle = (n + 0.5) * self._step
            diagonal = np.exp(0.5j * self._step * np.interp(middle, corners, detuning) * np.arange(self._atoms + 1))
            turn = diagonal[self._excited] * self._half
            psi = turn * self._rotated(psi * turn, np.interp(middle, corners, rabi) * self._step / 2)
            yield (n + 1) * self._step * 1000, np.abs(psi) ** 2

    def _rotated(self, psi: np.ndarray, angle: float) -> np.ndarray:
        for atom in range(self._atoms):
            pair = psi.reshape(2**atom, 2, -1)
            psi = np.cos(angle) * pair - 1j * np.sin(angle) * pair[:, ::-1]
        return psi.reshape(-1)

    def factors(self, every: int = 16) -> tuple[list[float], list[float], np.ndarray]:
        """Times, structure factors, and the correlations at the end."""
        times, factors = [0.0], [0.0]
        correlations = np.zeros(0)
        for n, (time, probabilities) in enumerate(self.run(), 1):
            if n % every == 0 or time >= DURATION - 1e-6:
                correlations = correlation(self.states, probabilities)
                times.append(time)
                factors.append(structure_factor(correlations))
        return times, factors, correlations


# --- where it runs ---


def largest_side() -> int:
    """What the QPU of this job takes, and no more than 4: each further atom doubles what the emulator has to do."""
    from warden.client import QuantumResource  # noqa: PLC0415 - as below

    with QuantumResource() as qpu:
        return min(4, math.isqrt(int(qpu.metadata()["max_qubits"])))


def in_a_job(sequences: list[Sequence], shots: int) -> list[list[str]]:
    """On the QPU that this job was granted: all tasks are queued at once, and Warden runs them one after the other."""
    from warden.client import QuantumResource  # noqa: PLC0415 - Pulser's emulator needs none

    with QuantumResource() as qpu:
        tasks = [qpu.task_start(one, shots, bitstrings=True) for one in sequences]
        for task in tasks:
            qpu.wait(task)
        for name, value in qpu.task_metadata(tasks[-1]).items():
            print(f"{name}: {value}")
        print(qpu.task_logs(tasks[-1]))
        return [qpu.task_bitstrings(task) for task in tasks]


def here(sequences: list[Sequence], shots: int) -> list[list[str]]:
    """With Pulser's own emulator in this process."""
    from pulser_simulation import QutipBackendV2, QutipConfig  # noqa: PLC0415 - the QPU's worker has it

    config = QutipConfig(observables=[BitStrings(num_shots=shots)])
    found = []
    for one in sequences:
        drawn = list(collections.Counter(QutipBackendV2(one, config=config).run().final_bitstrings).elements())
        found.append([drawn[n] for n in np.random.default_rng(0).permutation(len(drawn))])
    return found


# --- the figure ---


def figure(path: str, points: list[Measured], side: int) -> None:
    import matplotlib.pyplot as plt  # noqa: PLC0415 - only a figure needs it

    plt.switch_backend("Agg")
    plt.rcParams.update({"svg.hashsalt": "afm", "font.size": 9})
    times, factors, reference = Exact(side).factors()
    drawn, axes = plt.subplot_mosaic(
        "ab;ss;tt", figsize=(7.2, 7.6), height_ratios=[2.3, 0.75, 1.5], constrained_layout=True
    )
    largest = 4 * float(np.abs(np.delete(reference.ravel(), reference.size // 2)).max())
    shown = None
    for name, title, values in (
        ("a", "measured on the QPU", points[-1].correlations),
        ("b", "calculated, independently", reference),
    ):
        field = 4 * values
        field[side - 1, side - 1] = np.nan
        extent = (0.5 - side, side - 0.5, 0.5 - side, side - 0.5)
        shown = axes[name].imshow(field, cmap="RdBu_r", vmin=-largest, vmax=largest, origin="lower", extent=extent)
        for row, column in np.argwhere(~np.isnan(field)):
            value = round(field[row, column], 2) + 0
            axes[name].text(
                column - side + 1, row - side + 1, f"{value:.2f}", ha="center", va="center", fontsize=6.5,
                color="white" if abs(value) > 0.6 * largest else "black",
            )  # fmt: skip
        ticks = range(1 - side, side)
        axes[name].set(title=title, xlabel="dx (sites)", xticks=ticks, yticks=ticks)
    axes["a"].set(ylabel="dy (sites)")
    drawn.colorbar(shown, ax=[axes["a"], axes["b"]], label="4 g(dx, dy)", shrink=0.85)
    corners = np.cumsum([0, *(duration for duration, *_ in SWEEP)])
    axes["s"].plot(corners, [SWEEP[0][1] / U, *(ends[1] / U for _, *ends in SWEEP)], "C2", label="Rabi frequency")
    axes["s"].plot(corners, [SWEEP[0][3] / U, *(ends[3] / U for _, *ends in SWEEP)], "C1", label="detuning")
    axes["s"].set(ylabel="in units of U", xlim=(0, DURATION + 30))
    axes["s"].tick_params(labelbottom=False)
    axes["s"].legend(loc="lower right", frameon=False)
    axes["t"].plot(times, factors, "0.4", label="calculated, independently")
    axes["t"].errorbar(
        [one.time for one in points], [one.factor for one in points], [one.error for one in points],
        fmt="o", ms=4, capsize=2, color="C0", label="measured on the QPU",
    )  # fmt: skip
    axes["t"].set(xlabel="the sweep is broken off after (ns)", ylabel="Néel structure factor", xlim=(0, DURATION + 30))
    axes["t"].legend(loc="upper left", frameon=False)
    drawn.suptitle(f"Antiferromagnetic order of {side} x {side} atoms, by an adiabatic sweep")
    drawn.savefig(path, metadata={"Date": None} if path.endswith("svg") else None, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--local", action="store_true", help="with Pulser's emulator, without a QPU")
    parser.add_argument("--side", type=int, help="atoms of a side (default: 4, or what the QPU takes)")
    parser.add_argument("--shots", type=int, default=2000, help="of each point (default: 2000)")
    parser.add_argument("--plot", metavar="FILE", help="draw the figure, with the independent calculation beside it")
    wanted = parser.parse_args()
    times = [*range(400, DURATION, 200), DURATION]
    side = wanted.side or (4 if wanted.local else largest_side())
    shots = (here if wanted.local else in_a_job)([sequence(side, time) for time in times], wanted.shots)
    points = [measured(time, taken) for time, taken in zip(times, shots, strict=True)]
    for one in points:
        print(f"after {one.time:4} ns: Néel structure factor {one.factor:6.2f} +- {one.error:.2f}")
    if wanted.plot:
        figure(wanted.plot, points, side)


if __name__ == "__main__":
    main()
