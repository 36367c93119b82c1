"""Qiskit's SamplerV2 through QRMI."""

from grid import Grid
from jobs import tell


def test_sampler_gives_counts_of_circuits_with_parameters(grid: Grid) -> None:
    told = tell(grid, "qiskit_calls.py")
    dark, bright = told["counts"]
    assert dark == {"00": 20}
    assert sum(bright.values()) == 20
    assert bright.get("11", 0) > 15
    assert told["status"] == ["DONE", "DONE"]
