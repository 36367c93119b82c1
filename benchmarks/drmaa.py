"""What it costs to wait for many jobs from one process: `Session.completed`, and a status for each job, side by side.

Both wait for the same jobs, held in the queue, for the same time; then they are let go, and `completed` tells their ends.
It runs as an ordinary user on a submit host of a cluster that has little else to do, such as the lab's:

    ./lab exec node1 --user alice qpu-python - 300 < benchmarks/drmaa.py
"""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import time

from gridengine.submission import JobTemplate, Session, WaitTimeoutError
from gridengine.waiting import Books

WATCHED = 60.0


class Counted(Books):
    """Counts what is asked of the qmaster besides DRMAA."""

    asked = 0

    def live(self, not_older: float = 0.0) -> dict[str, str]:
        Counted.asked += 1
        return super().live(not_older)


def processor_seconds(agent: int) -> float:
    """Of this process, of the one with libdrmaa, and of the commands that have ended."""
    ticks = open(f"/proc/{agent}/stat").read().rsplit(")", 1)[1].split()[11:13]  # noqa: PTH123, SIM115
    own = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK") + sum(used.ru_utime + used.ru_stime for used in own)


def main() -> None:
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 300
    template = JobTemplate(command="/bin/true", output="/dev/null", error="/dev/null", native="-h")
    with Session() as grid:
        grid._books = Counted()  # noqa: SLF001
        agent = grid._agent  # noqa: SLF001
        assert agent is not None
        process = agent._process.pid  # noqa: SLF001
        begun = time.monotonic()
        jobs = [grid.submit(template) for _ in range(number)]
        print(f"{number} jobs are submitted in {time.monotonic() - begun:.1f} s; each way waits for {WATCHED:g} s")

        before, calls = processor_seconds(process), next(agent._numbers)  # noqa: SLF001
        with contextlib.suppress(WaitTimeoutError):
            list(grid.completed(jobs, timeout=WATCHED))
        used, calls = processor_seconds(process) - before, next(agent._numbers) - calls - 1  # noqa: SLF001
        messages = max(1, Counted.asked)
        print(
            f"completed:        {messages:5} messages to the qmaster, {calls} questions to libdrmaa, {used:.2f} s CPU"
        )

        before, begun, asked = processor_seconds(process), time.monotonic(), 0
        while time.monotonic() - begun < WATCHED:
            jobs[asked % number].status()
            asked += 1
        polled = processor_seconds(process) - before
        print(f"a status per job: {asked:5} messages to the qmaster, a round of all jobs in "
              f"{WATCHED * number / asked:.1f} s, {polled:.2f} s CPU")  # fmt: skip
        print(f"ratio:            {asked / messages:5.0f} times the messages, {polled / used:.1f} times the CPU")

        for job in jobs:
            job.release()
        begun, Counted.asked = time.monotonic(), 0
        before = processor_seconds(process)
        ended = list(grid.completed(jobs))
        took = time.monotonic() - begun
        used = processor_seconds(process) - before
        print(f"{len(ended)} ends are told in {took:.0f} s: {Counted.asked} messages, {used:.2f} s CPU")
        if not all(info.succeeded for info in ended) or len(ended) != number:
            sys.exit("some jobs failed")


if __name__ == "__main__":
    main()
