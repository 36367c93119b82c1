"""Submit `qpu run` as a job from Python, wait for it, and show its counts: python submit_with_drmaa.py afm_ring.json

Any Python process on a submit host will do, a notebook too.
"""

import sys
from pathlib import Path

from gridengine.submission import JobTemplate, Session, SubmissionError


def main() -> None:
    sequence = Path(sys.argv[1])
    template = JobTemplate(
        command="qpu",
        args=("run", str(sequence), "--shots", "200"),
        resources={"qpu": 1},
        name=sequence.stem,
    )
    with Session() as grid:
        job = grid.submit(template)
        print(f"job {job.id} is {job.status()}")
        info = job.wait()
    print(Path(f"{sequence.stem}.o{job.id}").read_text())
    if not info.succeeded:
        sys.exit(f"job {job.id} failed; {sequence.stem}.e{job.id} says why")


if __name__ == "__main__":
    try:
        main()
    except SubmissionError as error:
        sys.exit(str(error))
