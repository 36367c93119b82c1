"""Pulser's QPUBackend through QRMI's connection."""

from typing import Any

import pytest
from grid import Grid
from jobs import tell


@pytest.fixture(scope="module")
def told(grid: Grid) -> dict[str, Any]:
    return tell(grid, "pulser_calls.py", user="bob")


def test_device_is_the_one_that_the_qpu_is(told: dict[str, Any]) -> None:
    assert told["devices"] == ["AnalogDevice"]
    assert told["same"]


def test_sequence_for_another_device_and_too_many_shots_are_refused(told: dict[str, Any]) -> None:
    assert told["wrong"].startswith("ValueError: The device used in the sequence does not match")
    assert "maximum allowed by the device (2000)" in told["many"]


def test_bits_are_in_the_order_of_the_register(told: dict[str, Any]) -> None:
    [[order, counts]] = told["asymmetric"]
    assert order == ["b", "c", "a"]
    assert sum(counts.values()) == 100
    excited = [sum(count for state, count in counts.items() if state[atom] == "1") for atom in range(3)]
    # b is alone and flips; c and a share one excitation.
    assert excited[0] > 90
    assert 15 < excited[1] < 85
    assert 15 < excited[2] < 85


def test_batch_of_a_parametrized_sequence_has_its_results_in_the_order_of_its_jobs(told: dict[str, Any]) -> None:
    [[_, dark], [_, bright]] = told["batch"]
    assert dark == {"000": 20}
    assert sum(bright.values()) == 20
    assert sum(count for state, count in bright.items() if state[0] == "1") > 15


def test_register_is_mapped_when_the_job_is_given(told: dict[str, Any]) -> None:
    [[order, counts]] = told["mapped"]
    assert order == ["q0", "q1"]
    assert sum(counts.values()) == 20
    assert counts.get("11", 0) > 15


def test_log_of_a_batch(told: dict[str, Any]) -> None:
    [log] = told["logs"]
    assert "completed" in log


def test_batch_is_cancelled_in_flight(told: dict[str, Any]) -> None:
    assert told["cancelled"].startswith("RemoteResultsError")


def test_program_that_begins_in_a_calibration_waits_for_its_end(grid: Grid) -> None:
    go = grid.home() / "go"
    job = grid.submit(
        f"cd && until test -e {go.name}; do sleep 0.1; done; exec qrmi-python qrmi_pulser.py\n", "-l", "qpu=1"
    )
    grid.until("the job to run", lambda: grid.runs(job))
    with grid.calibration():
        grid.until("the window", lambda: not grid.ready())
        go.touch()
        grid.until("its task to wait", lambda: any(task["status"] == "queued" for task in grid.tasks()))
        assert not grid.ready()
    assert grid.finish(job)["exit_status"] == "0", grid.output(job)
    assert "10101010" in grid.output(job)
