"""A cluster of the tests' own, on real Grid Engine; needs root."""

import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

# At the end: labcluster is no part of the kit, but everything else comes from the wheel that is tested.
sys.path.append(str(Path(__file__).resolve().parents[2]))

from grid import Grid

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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a test that failed, what its cluster looked like then."""
    report = yield
    grid = getattr(item, "funcargs", {}).get("grid")
    if report.when == "call" and report.failed and grid is not None:
        try:
            report.sections.append(("the cluster", grid.picture()))
        except Exception as error:  # noqa: BLE001 - the test's own failure is the news
            report.sections.append(("the cluster", f"cannot be looked at: {error!r}"))
    return report


@pytest.fixture
def grid(lab_grid: Grid) -> Iterator[Grid]:
    """The cluster, free before and after; whatever a test does to it, no queue may be in error then."""
    yield lab_grid
    try:
        assert lab_grid.queues_in_error() == []
    finally:
        lab_grid.free()
