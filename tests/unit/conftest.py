from __future__ import annotations

from typing import TYPE_CHECKING

import hypothesis
import pytest
import warden_machine
from warden_site import Site

if TYPE_CHECKING:
    from collections.abc import Iterator

# No deadline: a slow machine is no failure. No database: a failure prints what reproduces it.
hypothesis.settings.register_profile(
    "project", deadline=None, database=None, print_blob=True, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("project")


@pytest.fixture(scope="session")
def standing_site() -> Iterator[Site]:
    """One broker with a real worker for all tests that disturb neither."""
    with Site() as site:
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
