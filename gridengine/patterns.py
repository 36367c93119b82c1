"""Grid Engine's patterns of names: `*`, `?` and `[...]`. Pure.

Whoever submits a job chooses them, and others' commands read them: none takes longer than it is long.
"""

from __future__ import annotations

from fnmatch import fnmatchcase


def fits(pattern: str, name: str) -> bool:
    """Whether a name, which has no brackets, is one of those that the pattern means."""
    # Of brackets that do not end each one is looked for to the end.
    return pattern.rfind("[") <= pattern.rfind("]") and fnmatchcase(name, pattern)
