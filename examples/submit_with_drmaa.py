"""Submit `qpu run` as jobs from Python, and show the counts as they come: python submit_with_drmaa.py SEQUENCE.json...

Any Python process on a submit host will do, a notebook too. One that ends too early finds its jobs again by their
numbers: Session().job("12").wait().
"""

import sys
from pathlib import Path

from gridengine.submission import JobTemplate, Session, SubmissionError


def main() -> None:
    failed = 0
    with Session() as grid:
        jobs = {}
        for sequence in map(Path, sys.argv[1:]):
            template = JobTemplate(
                command="qpu",
                args=("run", str(sequence), "--shots", "200"),
                resources={"qpu": 1},
                name=sequence.stem,
            )
            job = grid.submit(template)
            jobs[job.id] = job, sequence.stem
            print(f"job {job.id} for {sequence} is {job.status()}")
        for info in grid.completed(job for job, _ in jobs.values()):
            _, name = jobs[info.id]
            print(Path(f"{name}.o{info.id}").read_text())
            if not info.succeeded:
                failed += 1
                print(f"job {info.id} failed; {name}.e{info.id} says why", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except SubmissionError as error:
        sys.exit(str(error))
