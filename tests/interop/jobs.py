"""Programs of users, in jobs that have the QPU, and what they tell."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grid import Grid


def tell(grid: Grid, script: str, *arguments: str, user: str = "alice") -> dict[str, Any]:
    """Run a script of `inside` as a job that has the QPU; the facts on the last line of its output."""
    command = " ".join(["exec qrmi-python -W ignore", script, *arguments])
    job = grid.submit(f"cd && {command}\n", "-l", "qpu=1", user=user)
    # Each of the programs that some of them start takes seconds to begin, and on a busy machine many.
    ended = grid.finish(job, limit=400)
    output = grid.output(job, user)
    assert ended["exit_status"] == "0", output
    facts: dict[str, Any] = json.loads(output.splitlines()[-1])
    return facts
