"""A day of the QPU with real processes, as fast as `qpu.time_scale` lets it go by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from warden_site import AFM

from warden import config as configuration
from warden.model import SECOND

if TYPE_CHECKING:
    from warden_site import Site

SCALE = 5760
HOUR = 3600 * SECOND
# The 40 minutes that an hour has for tasks: overhead, a loading, and 2388 shots.
FIGURES = {"overhead": "2s", "loading": "10s", "shot_rate": 1, "time_scale": SCALE}
CALIBRATION = """
[[calibration]]
every = "1h"
duration = "20min"
offset = "10min"
"""


@pytest.mark.timeout(300)
@pytest.mark.long
def test_a_day_of_hourly_calibrations_goes_by_in_seconds_and_a_task_is_done_between_them(site: Site) -> None:
    shots = 24 * 2388
    # Where the machine is busy, a run may miss what it has: a third of a second.
    site.configure(qpu={"emulator": "echo", "failures": 10**6, **FIGURES})
    site.file.write_text(site.file.read_text(encoding="utf-8") + CALIBRATION, encoding="utf-8")
    calendar = configuration.load(site.file).calendar
    site.start_broker()
    site.start_worker(wait=False)
    with site.resource() as resource, site.client() as client:
        number = resource.task_start(AFM, shots)
        assert resource.wait(number, 250) == {"0000": shots}
        task, past = client.task(int(number)), client.history(1000)
    assert task.started is not None
    assert task.finished is not None
    # The device was nowhere faster than its figures: it takes all of 24 gaps, with 23 windows between.
    assert task.runs >= 24
    assert task.finished - task.started >= (24 * HOUR - 20 * 60 * SECOND) // SCALE
    windows = calendar.windows(task.started, task.finished)
    assert len(windows) >= 23
    known = [one for one in past if one.window.start in {window.start for window in windows}]
    # Each was opened, or the broker says that it could not be.
    assert sum(one.count for one in known) == len(windows)
