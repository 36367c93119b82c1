"""A cluster of the tests' own, on real Grid Engine; needs root."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

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
        cluster.up(say=print)
        yield cluster
    finally:
        cluster.down()
