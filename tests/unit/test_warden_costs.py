"""What emulations take: bounds that grow with whatever makes an emulation longer, and that keep nobody out for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warden.model import SECOND
from warden.qpu import costs
from warden.qpu.costs import Size

if TYPE_CHECKING:
    from collections.abc import Callable

TIMES = [costs.qutip_time, costs.sv_time, costs.mps_time]
MEMORIES = [costs.qutip_memory, costs.sv_memory, costs.mps_memory]
# A sweep of 1.5 us on a ring, 6 um apart.
RINGS = {4: 599.0, 10: 1455.0, 14: 2029.0}

sizes = st.builds(
    Size,
    qubits=st.integers(1, 40),
    duration=st.integers(1, 100_000),
    energy=st.floats(0, 1e6),
    edges=st.integers(0, 1000),
    exchange=st.booleans(),
    levels=st.sampled_from([2, 3]),
    trajectories=st.integers(1, 100),
    matrix=st.booleans(),
    jumps=st.floats(0, 1000),
)
more = {
    "qubits": st.integers(1, 40),
    "duration": st.integers(1, 100_000),
    "energy": st.floats(0, 1e6),
    "edges": st.integers(0, 1000),
    "levels": st.integers(1, 1),
    "trajectories": st.integers(1, 100),
    "jumps": st.floats(0, 1000),
}


@pytest.mark.parametrize("cost", TIMES + MEMORIES)
@pytest.mark.parametrize("what", list(more))
@given(size=sizes, data=st.data())
def test_no_bound_falls_when_anything_grows(
    cost: Callable[[Size], int], what: str, size: Size, data: st.DataObject
) -> None:
    larger = msgspec.structs.replace(size, **{what: getattr(size, what) + data.draw(more[what])})
    assert cost(larger) >= cost(size)


@pytest.mark.parametrize("cost", TIMES[:2] + MEMORIES[:2])
@given(size=sizes)
def test_a_matrix_takes_more_than_a_vector(cost: Callable[[Size], int], size: Size) -> None:
    assert cost(msgspec.structs.replace(size, matrix=True)) >= cost(msgspec.structs.replace(size, matrix=False))


@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("what", ["qubits", "duration", "energy", "trajectories", "jumps"])
def test_what_makes_an_emulation_longer_counts(time: Callable[[Size], int], what: str) -> None:
    size = Size(qubits=8, duration=1500, energy=1000.0, trajectories=64, jumps=1.0)
    assert time(msgspec.structs.replace(size, **{what: 2 * getattr(size, what)})) > time(size)


@pytest.mark.parametrize(
    ("time", "qubits", "measured"),
    [
        (costs.qutip_time, 4, 0.04),
        (costs.qutip_time, 10, 0.36),
        (costs.qutip_time, 14, 8.0),
        (costs.sv_time, 4, 0.4),
        (costs.sv_time, 10, 0.9),
        (costs.sv_time, 14, 3.0),
    ],
)
def test_a_sweep_is_estimated_longer_than_it_was_measured_and_not_much_longer(
    time: Callable[[Size], int], qubits: int, measured: float
) -> None:
    """Measured as docs/emulator.md says. Half a second more is nothing that keeps a task out of a window."""
    estimate = time(Size(qubits=qubits, duration=1500, energy=RINGS[qubits])) / SECOND
    assert 1.5 * measured < estimate < 8 * measured + 0.5


@pytest.mark.parametrize("time", TIMES[:2])
def test_trajectories_of_one_atom_take_seconds_and_not_half_a_minute(time: Callable[[Size], int]) -> None:
    """They begin once: what each takes besides is milliseconds."""
    noisy = Size(qubits=1, duration=1500, energy=26.0, trajectories=costs.TRAJECTORIES)
    assert SECOND < time(noisy) < (5 if time is costs.qutip_time else 45) * SECOND


@pytest.mark.parametrize(
    ("memory", "size", "measured"),
    [
        (costs.qutip_memory, Size(qubits=16, duration=24, energy=0.0), 152),
        (costs.qutip_memory, Size(qubits=16, duration=16, energy=0.0, exchange=True), 608),
        (costs.qutip_memory, Size(qubits=9, duration=100, energy=0.0, levels=3), 50),
        (costs.qutip_memory, Size(qubits=5, duration=80, energy=0.0, levels=3, matrix=True), 60),
        (costs.qutip_memory, Size(qubits=4, duration=100_100, energy=0.0), 145),
        (costs.qutip_memory, Size(qubits=2, duration=400_100, energy=0.0), 230),
        (costs.sv_memory, Size(qubits=18, duration=20, energy=0.0), 248),
        (costs.mps_memory, Size(qubits=20, duration=30, energy=0.0), 43),
    ],
)
def test_memory_is_bounded_above_what_was_measured(memory: Callable[[Size], int], size: Size, measured: int) -> None:
    assert memory(size) > 1.3 * measured * 2**20


def test_close_atoms_take_as_long_as_their_energies_say_however_few_they_are() -> None:
    """Two atoms 3 um apart and then 2 um: 11 times the interaction, and as many steps."""
    three, two = (Size(qubits=2, duration=5000, energy=energy) for energy in (7435.0, 84_700.0))
    assert costs.qutip_time(three) > 1.5 * 0.53 * SECOND
    assert costs.qutip_time(two) > 5 * costs.qutip_time(three)


def test_a_chain_is_cut_at_a_bond_dimension_so_that_twice_the_atoms_are_no_other_world() -> None:
    """What entangles more is cut off by the emulator, which has the same limit."""
    times = [costs.mps_time(Size(qubits=qubits, duration=1000, energy=1000.0)) for qubits in (20, 40, 80)]
    assert times[1] < 10 * times[0]
    assert times[2] < 10 * times[1]
    assert costs.mps_memory(Size(qubits=80, duration=1000, energy=1000.0)) < 8 * 2**30
