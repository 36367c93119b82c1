"""A cluster of the tests' own, on real Grid Engine; needs root."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from grid import Grid

# At the end: labcluster is no part of the kit, but everything else comes from the wheel that is tested.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from labcluster.cluster import Cluster


@pytest.fixture(scope="session")
def lab() -> Iterator[Cluster]:
    """A whole cluster with the kit, beside whatever other labs stand on this machine."""
    if os.geteuid() != 0:
        pytest.skip("only root can set a cluster up")
    cluster = Cluster(f"test-{os.getpid()}")
    try:
        cluster.up(3, say=print)
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="session")
def lab_grid(lab: Cluster) -> Grid:
    return Grid(lab)


@pytest.fixture
def grid(lab_grid: Grid) -> Iterator[Grid]:
    """The cluster, free before and after; whatever a test does to it, no queue may be in error then."""
    yield lab_grid
    try:
        assert lab_grid.queues_in_error() == []
    finally:
        lab_grid.free()
