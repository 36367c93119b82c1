"""The text that `qacct -j` prints, of either flavour. Pure."""

from __future__ import annotations

import re

# `failed`: the job was sent back to the queue (migrated, or rescheduled), and is started again.
STARTED_AGAIN = frozenset({24, 25})

_RULE = re.compile(r"^=+[ \t]*$", re.MULTILINE)


def blocks(text: str) -> list[dict[str, str]]:
    """Take it apart: the fields of each record that has a job's number."""
    found = (
        {parts[0]: parts[1].strip() for line in block.splitlines() if len(parts := line.split(None, 1)) > 1}
        for block in _RULE.split(text)
    )
    return [fields for fields in found if fields.get("jobnumber", "").isdecimal()]


def job(fields: dict[str, str]) -> str:
    """JOBID, or JOBID.TASKID, as a session has it."""
    number, task = fields["jobnumber"], fields.get("taskid", "")
    return f"{number}.{task}" if task.isdecimal() else number


def number(text: str) -> float:
    """Read `60`, `60s`, `137                  (Killed)`; what is no number counts as 0."""
    found = re.match(r"\d+(\.\d+)?", text)
    return float(found[0]) if found else 0.0
