"""A worker leaves nothing behind, however it ends."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from warden_site import AFM, WARDEN, wait_until

if TYPE_CHECKING:
    from warden_site import Site


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_leaves_no_temporary_folder(site: Site, how: signal.Signals) -> None:
    site.configure(qpu={"emulator": "echo", "overhead": 0.01})
    # Short: sockets lie in it.
    room = Path(tempfile.mkdtemp(prefix="t", dir=site.room))
    site.start_broker()
    worker = site.start([WARDEN, "worker", "--config", str(site.file)], env={**os.environ, "TMPDIR": str(room)})
    with site.resource() as resource:
        assert resource.wait(resource.task_start(AFM, 5), 40) == {"0000": 5}
    assert list(room.iterdir())
    worker.send_signal(how)
    worker.wait()
    wait_until(lambda: not list(room.iterdir()), "the folder is empty")
