"""A cluster with QRMI's own clients, for everybody who uses them; needs root."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parents[1] / "examples"
RATE = 100
QPU = ("-l", "qpu=1")
# What `Grid` and the cluster need lies there; nothing of the kit is imported.
sys.path.append(str(HERE.parents[1]))
sys.path.append(str(HERE.parent / "cluster"))

from grid import Grid

from labcluster.cluster import Cluster
from labcluster.files import PEOPLE


@pytest.fixture(scope="session")
def grid() -> Iterator[Grid]:
    """A cluster whose QPU is slow enough for a task to be caught running."""
    if os.geteuid() != 0:
        pytest.skip("only root can set a cluster up")
    cluster = Cluster(f"interop-{os.getpid()}")
    try:
        cluster.up(with_qrmi=True, shot_rate=RATE, say=print)
        for user, uid in PEOPLE.items():
            for path in (*(HERE / "inside").glob("*.py"), *EXAMPLES.iterdir()):
                copy = cluster.users / user / path.name
                copy.write_bytes(path.read_bytes())
                copy.chmod(path.stat().st_mode & 0o777 | 0o444)
                os.chown(copy, uid, uid)
        yield Grid(cluster)
    finally:
        cluster.down()


@pytest.fixture(autouse=True)
def offered(grid: Grid) -> None:
    grid.until("the QPU to be offered", lambda: grid.load_values().get("qpu_state") == "ready")


Tell = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def tell(grid: Grid) -> Tell:
    """Run a script of `inside` in a job that has the QPU; what it tells."""

    def run(script: str, *arguments: str, user: str = "alice") -> dict[str, Any]:
        command = " ".join(["exec qrmi-python -W ignore", script, *arguments])
        job = grid.submit(f"cd && {command}\n", *QPU, user=user)
        ended = grid.finish(job)
        output = grid.output(job, user)
        assert ended["exit_status"] == "0", output
        told: dict[str, Any] = json.loads(output.splitlines()[-1])
        return {"job": job, **told}

    return run
