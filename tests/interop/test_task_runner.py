"""QRMI's task_runner."""

import json
from typing import Any

import pytest
from grid import Grid
from jobs import tell


@pytest.fixture(scope="module")
def told(grid: Grid) -> dict[str, Any]:
    return tell(grid, "task_runner_calls.py", user="bob")


def test_as_it_is_it_does_not_know_local_qpus(told: dict[str, Any]) -> None:
    # When it does, examples/qrmi_task_runner.py has had its time.
    assert told["bare"]["exit"] == 1
    assert "KeyError: 'pasqal-local'" in told["bare"]["output"]


def test_result_is_written_to_a_file_or_printed(told: dict[str, Any]) -> None:
    assert told["file"]["exit"] == 0
    assert told["printed"]["exit"] == 0
    assert "Traceback" not in told["file"]["output"] + told["printed"]["output"]
    for result in (told["counts"], json.loads(told["printed"]["output"].splitlines()[-1])):
        assert sum(result["counter"].values()) == 20


@pytest.mark.parametrize(
    ("which", "why"), [("bad", "Status: 422"), ("missing", "missing.json"), ("nowhere", "cannot be created")]
)
def test_what_cannot_run_ends_with_1_and_a_reason(told: dict[str, Any], which: str, why: str) -> None:
    assert told[which]["exit"] == 1
    assert why in told[which]["output"]


def test_sigterm_stops_the_task(told: dict[str, Any]) -> None:
    assert told["ended"]["exit"] == 0
    assert told["ended"]["status"] == "TaskStatus.Cancelled"
    assert "Traceback" not in told["ended"]["output"]
