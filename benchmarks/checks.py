"""What it costs that each sequence is checked: submissions of new ones, of known ones, and where nobody checks.

One broker with a real worker, which does nothing else meanwhile: it is drained. Submissions of the three kinds are taken in
turn, so that whatever else the machine does hits all.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "unit"))

from warden_site import AFM, Site

NUMBER = 100
# A sequence that is known is not to be noticed.
BOUND = 1.2


def named(name: str) -> str:
    return json.dumps({**json.loads(AFM), "name": name})


def main() -> int:
    """Measure, and say whether the bound holds."""
    times: dict[str, list[float]] = {"nobody checks": [], "first time": [], "once more": []}
    with Site() as checked, Site() as unchecked:
        for site in (checked, unchecked):
            site.configure()
            site.start_broker()
        checked.start_worker(at_once=True)
        checked.warden("drain", check=True)
        with checked.resource() as with_worker, unchecked.resource() as without:
            for number in range(NUMBER):
                text = named(str(number))
                for kind, qpu in zip(times, (without, with_worker, with_worker), strict=True):
                    begun = time.perf_counter()
                    qpu.task_start(text, 1)
                    times[kind].append((time.perf_counter() - begun) * 1000)
    for kind, taken in times.items():
        sys.stdout.write(
            f"{kind:14} median {statistics.median(taken):6.2f} ms, p90 {sorted(taken)[NUMBER * 9 // 10]:6.2f} ms\n"
        )
    ratio = statistics.median(times["once more"]) / statistics.median(times["nobody checks"])
    sys.stdout.write(f"once more / nobody checks: {ratio:.2f}, bound {BOUND}\n")
    return 0 if ratio <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())
