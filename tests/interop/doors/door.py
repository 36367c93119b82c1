"""What a visitor can do at a door, and how he is told to: a line of JSON in, the outcome as a line of JSON out.

Runs in the kit's environment and in QRMI's, so it needs neither. The first argument says as which user.
"""

from __future__ import annotations

import encodings.idna  # noqa: F401 - while all files can be read
import json
import os
import sys
from typing import Any, Protocol


class RefusedError(Exception):
    """By whichever side; `kind` in the words of `warden.model`."""

    def __init__(self, kind: str, words: str) -> None:
        super().__init__(words)
        self.kind, self.words = kind, words


class Door(Protocol):
    """The QPU by one way in; answers in words that are the same for all. Refusals are RefusedErrors."""

    def grant(self, job: str, uid: int) -> str:
        """What a scheduler does before it starts somebody's job; the session."""

    def acquire(self, job: str) -> str: ...
    def release(self, session: str) -> None: ...
    def start(self, session: str, sequence: str, shots: int) -> str: ...
    def status(self, task: str) -> str: ...
    def result(self, task: str) -> dict[str, int]: ...
    def wait(self, task: str) -> dict[str, int]:
        """Until it has ended, by this door's own means; the result."""

    def logs(self, task: str) -> str: ...
    def stop(self, task: str) -> None: ...
    def accessible(self) -> bool: ...
    def state(self) -> str: ...
    def target(self) -> str: ...


def serve(door: Door) -> None:
    """Until stdin ends."""
    if uid := int(sys.argv[1]):
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_outcome(door, *json.loads(line))) + "\n")
        sys.stdout.flush()


def _outcome(door: Door, call: str, *arguments: Any) -> tuple[Any, ...]:
    try:
        return "done", getattr(door, call)(*arguments)
    except RefusedError as error:
        return "refused", error.kind, error.words
    except Exception as error:  # noqa: BLE001 - the test is to see it
        return "broken", f"{type(error).__name__}: {error}"
