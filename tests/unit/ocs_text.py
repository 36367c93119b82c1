"""How OCS's qconf writes and reads: long lines, lists, and what some hosts of a queue have."""

from __future__ import annotations

import os
import re
from pathlib import Path

WIDTH = 80


def shown(settings: dict[str, str], indent: int) -> str:
    # SGE_SINGLE_LINE switches the breaking off, as qconf(1) of OCS has it.
    single = "SGE_SINGLE_LINE" in os.environ
    lines = [f"{name:<{indent - 1}} {value}" for name, value in settings.items()]
    return "\n".join(line if single else wrapped(line, indent) for line in lines)


def wrapped(line: str, indent: int) -> str:
    """Break a long line behind a comma or a blank, with a backslash: also in the brackets of an RSMAP, says qconf(1)."""
    lines, rest = [], line
    while len(rest) > WIDTH:
        places = [place.end() for place in re.finditer(r"[, ]", rest) if place.end() > indent]
        cut = max((place for place in places if len(rest[:place].rstrip()) + 2 <= WIDTH), default=0)
        if not cut:
            break
        lines.append(rest[:cut].rstrip(" ") + " \\")
        rest = " " * indent + rest[cut:].lstrip()
    return "\n".join([*lines, rest])


def read_settings(path: str) -> dict[str, str]:
    """Read a file that qconf is given: a backslash and its line end are a blank (sge_conf(5))."""
    text = re.sub(r"\\\n", " ", Path(path).read_text())
    lines = (line.split(None, 1) for line in text.splitlines() if line.strip() and not line.startswith("#"))
    return {name: rest[0].strip() if rest else "" for name, *rest in lines}


def items(value: str) -> list[str]:
    """Take a list apart at its commas, but for those in brackets."""
    if value.upper() == "NONE":
        return []
    return [part.strip() for part in re.split(r",(?![^\[(]*[\])])", value) if part.strip()]


def layers(value: str) -> tuple[str | None, dict[str, str]]:
    """Take apart what all hosts of a queue have, and what some have: `NONE,[@quantum=/x]`."""
    some = dict(part.split("=", 1) for part in re.findall(r"\[([^\]]*)\]", value) if "=" in part)
    plain = re.sub(r",?\[[^\]]*\]", "", value).strip(",")
    return plain if plain or not some else None, some


def merged(plain: str | None, some: dict[str, str]) -> str:
    return ",".join([plain or "NONE", *(f"[{place}={text}]" for place, text in sorted(some.items()))])
