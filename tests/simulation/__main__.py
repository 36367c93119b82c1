"""`python -m tests.simulation SEED [--log]`: run one seed again, or `FIRST LAST` to run many."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent)]

from simulation_site import simulate  # noqa: E402 - its folder is no package


def say(*words: object) -> None:
    sys.stdout.write(" ".join(str(word) for word in words) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seed", type=int)
    parser.add_argument("last", type=int, nargs="?", help="run all seeds from the first to this one")
    parser.add_argument("--log", action="store_true", help="print everything that happens")
    parser.add_argument("--facts", action="store_true", help="print what was done")
    arguments = parser.parse_args()
    failed = events = 0
    began = time.monotonic()
    for seed in range(arguments.seed, (arguments.last or arguments.seed) + 1):
        result = simulate(seed, log=arguments.log)
        events += result.events
        for line in result.log:
            say(line)
        if arguments.facts:
            say(seed, result.events, result.steps, result.starts, result.facts)
        if result.violation:
            failed += 1
            say(f"seed {seed}: {result.violation}")
    say(f"{failed} seeds failed; {events} events in {time.monotonic() - began:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
