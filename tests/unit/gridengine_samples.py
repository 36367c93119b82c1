"""The captured output in tests/samples, as commands with what they printed."""

import re
from dataclasses import dataclass
from pathlib import Path

SAMPLES = Path(__file__).parent.parent / "samples"


@dataclass(frozen=True)
class Call:
    command: str
    stdout: str
    stderr: str
    status: int


def calls(name: str) -> list[Call]:
    text = (SAMPLES / name).read_bytes().decode(errors="replace")
    found = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, _, rest = part.partition("\n")
        body, exited, status = rest.rpartition("\n[exit ")
        lines = (body if exited else rest).splitlines(keepends=True)
        errors = [line.removeprefix("[stderr] ") for line in lines if line.startswith("[stderr] ")]
        plain = [line for line in lines if not line.startswith("[stderr] ")]
        found.append(Call(command, "".join(plain), "".join(errors), int(status.partition("]")[0]) if exited else 0))
    return found


def stdout(name: str, number: int = 0) -> str:
    return calls(name)[number].stdout
