"""QRMI's QuantumResource in a job: all that it offers."""

from typing import Any

import pytest
from grid import Grid
from jobs import tell


@pytest.fixture(scope="module")
def told(grid: Grid) -> dict[str, Any]:
    return tell(grid, "resource_calls.py")


def test_finds_the_qpu_by_the_job_s_environment_and_describes_it(told: dict[str, Any]) -> None:
    about = told["about"]
    assert about["found"] == ["fresnel"]
    assert (about["id"], about["type"]) == ("fresnel", "ResourceType.PasqalLocal")
    assert about["metadata"] == {"backend_name": "fresnel"}
    assert (about["accessible"], about["status"]) == (True, "online")
    assert [device["device_type"] for device in about["target"]] == ["AnalogDevice"]


def test_acquire_gives_the_job_s_session_and_release_ends_it(told: dict[str, Any], grid: Grid) -> None:
    session = told["about"]["session"]
    assert session in [session["id"] for session in grid.sessions(ended=True)]
    assert session not in [session["id"] for session in grid.sessions()]
    assert "Session has been revoked." in told["refused"]["released"]


def test_task_runs_and_has_a_result_and_a_log(told: dict[str, Any]) -> None:
    done = told["done"]
    counts = done["result"]["counter"]
    assert sum(counts.values()) == 20
    assert {len(state) for state in counts} == {3}
    assert "completed" in done["logs"]


def test_stopping_what_is_done_changes_nothing(told: dict[str, Any]) -> None:
    assert told["done"]["stop"] == ""
    assert told["done"]["status"] == "TaskStatus.Completed"


def test_running_task_has_no_result_yet_and_can_be_stopped(told: dict[str, Any]) -> None:
    stopped = told["stopped"]
    assert stopped["early"].startswith("TaskNotReadyError")
    assert stopped["status"] == "TaskStatus.Cancelled"
    assert stopped["result"].startswith("TaskNotReadyError")


def test_what_is_refused_is_refused_with_a_status_and_a_reason(told: dict[str, Any]) -> None:
    refused = told["refused"]
    assert "Status: 422" in refused["sequence"]
    assert "Status: 422" in refused["shots"]
    assert "Status: 404" in refused["unknown"]
    assert "Status: 4" in refused["no number"]
    assert all('"detail"' in text for text in refused.values())


def test_other_users_tasks_are_as_if_there_were_none(told: dict[str, Any], grid: Grid) -> None:
    refused = tell(grid, "stranger_calls.py", told["done"]["task"], user="bob")["refused"]
    assert len(refused) == 4
    assert all("Status: 404" in text for text in refused)
