"""The site that visitors come to, and its figures."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from warden_site import Site, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ALICE = 2001
RATE = 200
SHORT = 5
LARGEST = 100_000
WAITING = 3
COUNTS = {"0000": SHORT}


@contextlib.contextmanager
def served() -> Iterator[tuple[Site, str]]:
    """A QPU that is slow enough for a task to be caught running, with an edge that outlives its broker; its URL."""
    with Site() as site:
        site.configure(
            http={"listen": f"127.0.0.1:{free_port()}"},
            qpu={"emulator": "echo", "overhead": 0, "shot_rate": RATE, "places": 200},
            limits={"sequence_bytes": LARGEST, "queued_per_user": WAITING},
            # A worker that gets no time for a while is none that is lost.
            broker={"heartbeat": 2},
        )
        site.start_broker()
        port = free_port()
        site.start_edge(port)
        site.start_worker(at_once=True)
        yield site, f"http://127.0.0.1:{port}"
