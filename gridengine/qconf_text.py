"""The texts that qconf shows and takes: `name value` lines, continued with a backslash. Pure."""

from __future__ import annotations

import re


def settings(text: str) -> dict[str, str]:
    """Read what `qconf -sconf`, `-sq` or `-se` shows, where long values go on in the next line."""
    # Lists are broken after a comma, which stands without a blank when the list is short enough; words at a blank.
    joined = re.sub(r"\s*\\\n\s*", " ", re.sub(r",\s*\\\n\s*", ",", text))
    lines = (line.split(None, 1) for line in joined.splitlines() if line.strip() and not line.startswith("#"))
    return {parts[0]: parts[1].strip() if len(parts) > 1 else "" for parts in lines}


def names(value: str) -> list[str]:
    """Read a list such as `a,b`, or NONE."""
    listed = [part.strip() for part in value.split(",")]
    return [part for part in listed if part and part.upper() != "NONE"]


def pairs(value: str) -> dict[str, str]:
    """Read a list such as `slots=2,qpu_id=2(a b)`, or NONE."""
    found = (part.partition("=") for part in names(value))
    return {name.strip(): given.strip() for name, _, given in found}


def with_setting(text: str, name: str, value: str) -> str:
    """Set one line and leave all others as they are, to the last blank."""
    line = f"{name:<28} {value}\n"
    changed, count = _pattern(name).subn(lambda _: line, text)
    return changed if count else f"{text.rstrip()}\n{line}".lstrip()


def without(text: str, name: str) -> str:
    return _pattern(name).sub("", text)


def none_as_in(text: str) -> str:
    """Spell "nothing" as this configuration does: SGE writes none, OCS NONE."""
    return "NONE" if re.search(r"\sNONE$", text, re.MULTILINE) else "none"


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"^{re.escape(name)}[ \t](?:.*\\\n)*.*\n", re.MULTILINE)
