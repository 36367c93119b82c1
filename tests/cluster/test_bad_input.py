"""What a job may get wrong: each is one line and exit status 1, and nothing of it reaches the QPU."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from grid import Grid

EXAMPLE = (Path(__file__).resolve().parents[2] / "examples" / "afm_ring.json").read_text()
IN_PYTHON = """qpu-python -c '
import sys
from pathlib import Path
from warden.client import QuantumResource
from warden.model import WardenError
try:
    with QuantumResource() as qpu:
        qpu.wait(qpu.task_start(Path("good.json").read_text(), shots=%s))
except WardenError as error:
    sys.exit(error.text)
'"""


def changed(**values: object) -> str:
    return json.dumps(json.loads(EXAMPLE) | values)


FILES = {
    "good.json": EXAMPLE,
    "empty.json": "",
    "broken.json": EXAMPLE[: len(EXAMPLE) // 2],
    "number.json": "7",
    "other.json": '{"counts": {"00": 1}}',
    "device.json": changed(device=json.loads(EXAMPLE)["device"] | {"name": "DigitalAnalogDevice"}),
    "large.json": changed(register=[{"name": f"q{n}", "x": 6 * n, "y": 0} for n in range(200)]),
    "endless.json": "[" * 100_000,
}

CASES = {
    "qpu run nonesuch.json": "qpu: cannot read the sequence nonesuch.json: No such file or directory",
    "qpu run .": "qpu: cannot read the sequence .: Is a directory",
    "qpu run binary.json": "qpu: the sequence binary.json is no text",
    "qpu run empty.json": "qpu: this is not JSON",
    "qpu run broken.json": "qpu: this is not JSON",
    "qpu run number.json": "qpu: this is JSON, but no Pulser sequence",
    "qpu run other.json": "qpu: this is JSON, but no Pulser sequence",
    "qpu run endless.json": "qpu: this is ",
    "qpu run device.json": "qpu: the sequence is for the device 'DigitalAnalogDevice', this QPU is 'AnalogDevice'",
    "qpu run large.json": "qpu: the sequence has 200 atoms, this QPU takes at most",
    "qpu run good.json --shots 0": "qpu: shots must be a whole number of at least 1, not 0",
    "qpu run good.json --shots -1": "qpu: shots must be a whole number of at least 1, not -1",
    "qpu run good.json --shots 1.5": "qpu: shots must be a whole number of at least 1, not '1.5'",
    "qpu run good.json --shots 1000000000": "qpu: shots must be between 1 and 100000, not 1000000000",
    "qpu run good.json --shots 99999999999999999999": "qpu: shots must be ",
    "qpu run good.json --shots many": "qpu: shots must be a whole number of at least 1, not 'many'",
    "qpu cancel 1x": "qpu: '1x' is no task",
    IN_PYTHON % "0": "shots must be a whole number of at least 1, not 0",
    IN_PYTHON % "1.5": "shots must be a whole number of at least 1, not 1.5",
    IN_PYTHON % "10**9": "shots must be between 1 and 100000, not 1000000000",
}


@dataclass(frozen=True)
class Tried:
    """What came of all of it: by case the output and the exit status; what the worker did; how the next job ended."""

    outputs: dict[str, str]
    statuses: dict[str, str]
    worker_did: str
    next_status: str
    next_output: str


@pytest.fixture(scope="module")
def tried(lab_grid: Grid) -> Tried:
    """An array with a task for each case: qacct keeps an exit status for each."""
    home = lab_grid.home()
    for name, text in FILES.items():
        (home / name).write_text(text)
    (home / "binary.json").write_bytes(bytes(range(256)))
    lines = [f"{n}) {command}; exit $? ;;" for n, command in enumerate(CASES, 1)]
    before = lab_grid.worker_log()
    script = "cd\ncase $SGE_TASK_ID in\n" + "\n".join(lines) + "\nesac\n"
    job = lab_grid.submit(script, "-l", "qpu=1", "-t", f"1-{len(CASES)}", "-o", "/home/alice/$JOB_ID.$TASK_ID.out")
    lab_grid.until("all cases to be tried", lambda: not lab_grid.states(), limit=400)
    lab_grid.until("their records", lambda: len(lab_grid.records(job)) == len(CASES))
    did = lab_grid.worker_log().removeprefix(before)
    by_task = {record["taskid"]: record["exit_status"] for record in lab_grid.records(job)}
    following = lab_grid.submit("cd; exec qpu run good.json --shots 10\n", "-l", "qpu=1")
    ended = lab_grid.finish(following)
    return Tried(
        outputs={case: (home / f"{job}.{n}.out").read_text() for n, case in enumerate(CASES, 1)},
        statuses={case: by_task[str(n)] for n, case in enumerate(CASES, 1)},
        worker_did=did,
        next_status=ended["exit_status"],
        next_output=lab_grid.output(following),
    )


@pytest.mark.parametrize("case", CASES)
def test_one_line_and_status_1(tried: Tried, case: str) -> None:
    assert tried.outputs[case].startswith(CASES[case])
    assert tried.outputs[case].count("\n") == 1
    assert tried.statuses[case] == "1"


def test_nothing_reaches_the_qpu_and_the_next_job_runs(grid: Grid, tried: Tried) -> None:
    # It may have said hello to its broker again, on a busy machine.
    assert " run " not in tried.worker_did
    assert tried.next_status == "0"
    assert tried.next_output.splitlines()[-1].startswith("10 shots")
    assert grid.sessions() == []
