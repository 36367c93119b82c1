from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import hypothesis
import pytest
import warden_machine
from gridengine_cell import FakeCell
from gridengine_deployed import LoadSite, loaded
from warden_site import Site

from gridengine import commands

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# No deadline: a slow machine is no failure. No database: a failure prints what reproduces it.
hypothesis.settings.register_profile(
    "project", deadline=None, database=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("project")


@pytest.fixture(scope="session")
def standing_site() -> Iterator[Site]:
    """One broker with a real worker for all tests that disturb neither."""
    with Site() as site:
        # No host vouches for its sessions, and all tests of a slow machine may take longer than a usual lease.
        # Nobody waits here until a worker is missed, and one that gets no time for a while is none that is lost.
        site.configure(session={"lease": "1d"}, broker={"heartbeat": 5})
        site.start_broker()
        site.start_worker()
        yield site


@pytest.fixture
def site() -> Iterator[Site]:
    """Keys, a munged and a configuration of one's own; nothing is started yet."""
    with Site() as site:
        yield site


@pytest.fixture(autouse=True)
def _disks_are_closed() -> Iterator[None]:
    yield
    while warden_machine.DISKS:
        warden_machine.DISKS.pop().close()


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> FakeCell:
    """What answers to Grid Engine's commands."""
    fake = FakeCell()
    monkeypatch.setattr(commands, "run", fake.run)
    return fake


@pytest.fixture
def load_site(tmp_path: Path) -> LoadSite:
    return functools.partial(loaded, tmp_path)
