"""Slurm's jobs, as QRMI's SPANK plugin makes them: root acquires, the user's client has a certain environment."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from grid import Grid

from labcluster.files import PEOPLE

ALICE = str(PEOPLE["alice"])
JOB = "4711"
CONFIG = "/run/qrmi_config.json"
ENTRIES = {"QRMI_WARDEN_URL": "http://master:7680"}


def call(grid: Grid, *arguments: str, user: str = "root", **environment: str) -> dict[str, Any]:
    """Run the script on a host, as a task of Slurm's would; what it tells."""
    settings = [f"{name}={value}" for name, value in environment.items()]
    python = ["qrmi-python", "-W", "ignore", "/home/alice/slurm_calls.py"]
    done = grid.lab.run("node1", ["env", *settings, *python, *arguments], user=user)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def plugin_environment(token: str) -> dict[str, str]:
    return {
        **dict.fromkeys(("QRMI_JOB_QPU_RESOURCES", "SLURM_JOB_QPU_RESOURCES"), "fresnel"),
        **dict.fromkeys(("QRMI_JOB_QPU_TYPES", "SLURM_JOB_QPU_TYPES"), "pasqal-local"),
        **{f"fresnel_{name}": value for name, value in ENTRIES.items()},
        "QRMI_JOB_UID": ALICE,
        "QRMI_JOB_ID": JOB,
        "fresnel_QRMI_JOB_ACQUISITION_TOKEN": token,
        "fresnel_QRMI_JOB_TIMEOUT_SECONDS": "3600",
        "RUST_LOG": "info",
    }


@pytest.fixture
def token(grid: Grid) -> Iterator[str]:
    """A session of alice's, from the beginning of her job to its end."""
    config = {"resources": [{"name": "fresnel", "type": "pasqal-local", "environment": ENTRIES}]}
    grid.lab.run("node1", ["sh", "-c", f"cat >{CONFIG}"], input=json.dumps(config))
    token = call(grid, "acquire", CONFIG, ALICE, JOB)["token"]
    try:
        yield token
    finally:
        grid.free()


def test_user_runs_tasks_between_acquire_and_release(grid: Grid, token: str) -> None:
    [session] = grid.sessions()
    assert (session["uid"], session["job"]) == (PEOPLE["alice"], JOB)
    counts = call(grid, "use", user="alice", **plugin_environment(token))["counts"]
    assert sum(counts.values()) == 20
    assert "403" in call(grid, "try", user="bob", **plugin_environment(token))["refused"]
    call(grid, "release", CONFIG, ALICE, JOB, token)
    assert grid.sessions() == []
    assert "403" in call(grid, "try", user="alice", **plugin_environment(token))["refused"]
