"""A cluster with QRMI's own clients, one for all tests; needs root."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# At the end: what `Grid`, the cluster and `Site` need lies there, and the kit comes from the wheel that is tested.
sys.path.append(str(Path(__file__).resolve().parents[2]))
sys.path.append(str(Path(__file__).resolve().parents[1] / "cluster"))
sys.path.append(str(Path(__file__).resolve().parents[1] / "unit"))

from grid import Grid

from labcluster import qrmi
from labcluster.cluster import Cluster
from labcluster.files import PEOPLE
from labcluster.layout import Layout

TREE = Path(__file__).resolve().parents[2]
SHOT_RATE = 100


@pytest.fixture(scope="session")
def python() -> Path:
    """QRMI's."""
    layout = Layout()
    qrmi.install(layout, print)
    return layout.qrmi / "bin" / "python"


@pytest.fixture(scope="session")
def lab_grid() -> Iterator[Grid]:
    """A cluster whose QPU is slow enough for a task to be caught running, and our scripts in everybody's home."""
    if os.geteuid() != 0:
        pytest.skip("only root can set a cluster up")
    cluster = Cluster(f"interop-{os.getpid()}")
    try:
        cluster.up(3, with_qrmi=True, shot_rate=SHOT_RATE, say=print)
        for user, uid in PEOPLE.items():
            for path in (*(TREE / "tests/interop/inside").glob("*.py"), *(TREE / "examples").glob("*.*")):
                copy = cluster.users / user / path.name
                copy.write_bytes(path.read_bytes())
                os.chown(copy, uid, uid)
        yield Grid(cluster)
    finally:
        cluster.down()


@pytest.fixture(scope="module")
def grid(lab_grid: Grid) -> Iterator[Grid]:
    """The cluster, with the QPU on offer, and free before and after."""
    lab_grid.until("the QPU to be offered", lambda: lab_grid.load_values().get("qpu_state") == "ready")
    try:
        yield lab_grid
        assert lab_grid.queues_in_error() == []
    finally:
        lab_grid.free()
