"""Requests for tasks, sent to the core's machine with sequences that differ; within how many seconds each is answered."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from warden_machine import sequence

from warden import wire
from warden.checks import PATIENCE
from warden.model import SECOND

if TYPE_CHECKING:
    from warden_machine import Machine

    from warden.model import Session

LIMIT = PATIENCE / SECOND


def text(number: int = 0, size: int = 0) -> str:
    """Sequences that differ."""
    return json.dumps({"name": f"{number}" + "x" * size, **json.loads(sequence())})


def submit(machine: Machine, session: Session, key: str, number: int = 0, **other: Any) -> int:
    body = {"session": session.id, "sequence": text(number), "shots": 10, "key": key, **other}
    return machine.post(wire.TaskStart(**body), session.uid)
