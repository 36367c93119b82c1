"""Grid Engine's load sensor protocol: a line on stdin asks for a report, `quit` or the end of stdin ends the sensor."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Value(msgspec.Struct, frozen=True):
    """One load value. `host` may be `global`."""

    host: str
    name: str
    value: str | int


def report(values: Iterable[Value]) -> str:
    """Pure: a whole report. Grid Engine forgets a value that a report leaves out."""
    lines = [f"{value.host}:{value.name}:{value.value}" for value in values]
    return "\n".join(["begin", *lines, "end", ""])


def serve(requests: IO[str], answers: IO[str], measure: Callable[[], Iterable[Value]]) -> None:
    """Answer until the requests end. A reader that is gone ends it too."""
    for line in requests:
        if line.strip() == "quit":
            return
        try:
            answers.write(report(measure()))
            answers.flush()
        except BrokenPipeError:
            return
