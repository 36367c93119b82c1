"""The captured output in tests/samples, as commands with what they printed."""

import re
from dataclasses import dataclass
from pathlib import Path

SAMPLES = Path(__file__).parent.parent / "samples"
# What the scheduler says of a job that finds no place on the QPU.
TAKEN = "(-l qpu=1) cannot run globally because it offers only gc:qpu=0.000000"


@dataclass(frozen=True)
class Call:
    command: str
    stdout: str
    stderr: str
    status: int
    user: str = "root"


def calls(name: str) -> list[Call]:
    text = (SAMPLES / name).read_bytes().decode(errors="replace")
    found = []
    parts = re.split(r"^(?:\[(\w+)\] )?\$ ", text, flags=re.MULTILINE)[1:]
    for user, part in zip(parts[::2], parts[1::2], strict=True):
        command, _, rest = part.partition("\n")
        body, exited, status = rest.rpartition("\n[exit ")
        lines = (body if exited else rest).splitlines(keepends=True)
        plain = [line for line in lines if not line.startswith("[stderr] ")]
        # Some of it was captured behind the status.
        errors = [
            line.removeprefix("[stderr] ") for line in rest.splitlines(keepends=True) if line.startswith("[stderr] ")
        ]
        number = int(status.partition("]")[0]) if exited else 0
        found.append(Call(command, "".join(plain), "".join(errors), number, user or "root"))
    return found


def stdout(name: str, number: int = 0) -> str:
    return calls(name)[number].stdout
