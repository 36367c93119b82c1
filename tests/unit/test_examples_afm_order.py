"""The example of antiferromagnetic order: its numbers are the physics', by two ways that share no code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("pulser_simulation")

if TYPE_CHECKING:
    from types import ModuleType

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    sys.path.insert(0, str(EXAMPLES))
    try:
        import afm_order  # noqa: PLC0415
    finally:
        sys.path.remove(str(EXAMPLES))
    return afm_order


def test_a_perfect_order_has_the_signs_of_an_antiferromagnet(example: Any) -> None:
    g = example._of(["010101010", "101010101"] * 500)
    signs = [[1, -1, 1, -1, 1], [-1, 1, -1, 1, -1], [1, -1, 1, -1, 1], [-1, 1, -1, 1, -1], [1, -1, 1, -1, 1]]
    assert 4 * g == pytest.approx(np.array(signs, dtype=float))
    assert example.structure_factor(g) == pytest.approx(24)


def test_atoms_that_know_nothing_of_each_other_have_no_order(example: Any) -> None:
    exact = example.Exact(3)
    alone = example.correlation(exact.states, np.full(512, 1 / 512))
    alone[2, 2] = 0
    assert alone == pytest.approx(np.zeros((5, 5)), abs=1e-12)
    assert example.structure_factor(alone) == pytest.approx(0, abs=1e-9)


def test_the_sweep_orders_the_atoms_and_the_order_grows(example: Any) -> None:
    times, factors, g = example.Exact(3, step=2.0).factors()
    assert times[-1] == example.DURATION
    assert factors[-1] == max(factors) > 2
    neighbours, diagonal, next_but_one = g[2, 3], g[3, 3], g[2, 4]
    assert 4 * neighbours < -0.2
    assert 4 * diagonal > 0.1
    assert 4 * next_but_one > 0.05
    # The lattice is a square.
    for mirrored in (g.T, g[::-1]):
        assert g == pytest.approx(mirrored, abs=1e-9)


def test_a_smaller_step_changes_nothing_that_could_be_measured(example: Any) -> None:
    coarse, fine = (example.Exact(2, step).factors()[2] for step in (1.0, 0.25))
    assert coarse == pytest.approx(fine, abs=1e-5)


def test_the_independent_calculation_agrees_with_an_integrator_of_scipy(example: Any) -> None:
    """Two atoms of the square have the same Hamiltonian as in the textbook: written down here as matrices."""
    integrate = pytest.importorskip("scipy.integrate")
    side = 2
    x, n = np.array([[0, 1], [1, 0]]), np.array([[0, 0], [0, 1]])

    def on(matrix: Any, atom: int) -> Any:
        return np.kron(np.kron(np.eye(2**atom), matrix), np.eye(2 ** (side * side - atom - 1)))

    flips, excited = (sum(on(matrix, atom) for atom in range(4)) for matrix in (x, n))
    pairs = {(0, 1): 1, (0, 2): 1, (1, 3): 1, (2, 3): 1, (0, 3): 1 / 8, (1, 2): 1 / 8}
    repulsion = sum(example.U * share * on(n, i) @ on(n, j) for (i, j), share in pairs.items())
    corners = np.cumsum([0, *(one[0] for one in example.SWEEP)]) / 1000
    rabi, detuning = ([example.SWEEP[0][at], *(one[at + 1] for one in example.SWEEP)] for at in (1, 3))

    def slope(t: float, psi: Any) -> Any:
        half, down = np.interp(t, corners, rabi) / 2, np.interp(t, corners, detuning)
        return -1j * ((half * flips - down * excited + repulsion) @ psi)

    begin = np.eye(16, dtype=complex)[0]
    end = integrate.solve_ivp(slope, (0, corners[-1]), begin, "DOP853", max_step=0.01, rtol=1e-9, atol=1e-11)
    *_, (_, probabilities) = example.Exact(side).run()
    assert probabilities == pytest.approx(np.abs(end.y[:, -1]) ** 2, abs=1e-5)


@pytest.mark.parametrize("until", [604, None])
def test_pulser_s_emulator_agrees_with_the_independent_calculation(example: Any, until: int | None) -> None:
    """A 4 g has a standard error of at most 1 / sqrt(2000): 25 of them pass five of these by chance once in 60,000 seeds.

    The structure factor's is estimated from ten parts: six of these are passed once in 5,000 seeds.
    """
    until = until or example.DURATION
    np.random.seed(3)
    [shots] = example.here([example.sequence(3, until)], 2000)
    found = example.measured(until, shots)
    exact = example.Exact(3)
    probabilities = next(p for time, p in exact.run() if time >= until - 1e-6)
    expected = example.correlation(exact.states, probabilities)
    assert 4 * found.correlations == pytest.approx(4 * expected, abs=5 / 2000**0.5)
    assert found.factor == pytest.approx(example.structure_factor(expected), abs=6 * max(found.error, 0.02))
