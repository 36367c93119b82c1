"""The examples for QRMI's users, run as they say."""

import re

import pytest
from grid import Grid

JOBS = {
    "pulser": (["qrmi_job.sh", "qrmi_pulser.py"], r"^(01010101|10101010) \d\d+$"),
    "resource": (["qrmi_job.sh", "qrmi_resource.py"], r"^(01010101|10101010) \d\d+$"),
    "qiskit": (["qrmi_job.sh", "qrmi_qiskit.py"], r"^(0101|1010) \d\d+$"),
    "task_runner": (["qrmi_task_runner.sh"], r'^{"counter": ?{"[01]{8}"'),
}


@pytest.mark.parametrize("name", JOBS)
def test_prints_counts(grid: Grid, name: str) -> None:
    command, expected = JOBS[name]
    done = grid.lab.run("node1", ["qsub", "-terse", "-o", "$JOB_ID.out", *command], user="alice")
    job = done.stdout.strip()
    ended = grid.finish(job)
    assert ended["exit_status"] == "0", grid.output(job)
    assert re.search(expected, grid.output(job), re.MULTILINE), grid.output(job)
