"""Job scripts: what their `#$` lines ask for that DRMAA does not read; and arrays, as `-t` writes them."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise
from typing import TYPE_CHECKING

import msgspec

from gridengine.drmaa_process import SubmissionError

if TYPE_CHECKING:
    from pathlib import Path

# The `#$` lines stand at the beginning of a script; whatever is larger than this is none.
_MOST = 2**20


class Tasks(msgspec.Struct, frozen=True):
    """The tasks of an array.

    Raises:
        SubmissionError: There are no such tasks.
    """

    first: int
    last: int
    step: int = 1

    def __post_init__(self) -> None:
        if not (1 <= self.first <= self.last and self.step >= 1):
            raise SubmissionError(
                f"there is no array from {self.first} to {self.last} by {self.step}: "
                "give a first task of at least 1, a last one that is not smaller, and a step of at least 1"
            )


def read_tasks(text: str) -> Tasks:
    """Read `1-100:2`, `1-100`, or `7`, which is a single task.

    Raises:
        SubmissionError: It is something else.
    """
    told = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?", text)
    if told is None:
        raise SubmissionError(
            f"{text!r} are no tasks of an array: write FIRST-LAST or FIRST-LAST:STEP, such as 1-100:2"
        )
    first, last, step = told.groups()
    return Tasks(int(first), int(last or first), int(step or 1))


def check_job(name: str) -> str:
    """Refuse what is neither the number of a job nor JOB.TASK.

    Raises:
        SubmissionError: It is something else.
    """
    if not re.fullmatch(r"[0-9]{1,10}(\.[0-9]{1,10})?", name):
        raise SubmissionError(f"{name!r} is no job: give its number, or JOB.TASK for a task of an array")
    return name


def is_script(path: Path) -> bool:
    """Whether a file is meant for Grid Engine to read, not to run: one with `#$` lines, or one that cannot be run."""
    try:
        with path.open("rb") as file:
            text = file.read(_MOST)
        mode = path.stat().st_mode
    except OSError:
        return False
    if b"\0" in text:
        return False
    return mode & 0o111 == 0 or any(line.startswith(b"#$") for line in text.splitlines())


def options(path: Path) -> list[str]:
    """Read the words of a script's `#$` lines.

    Raises:
        SubmissionError: The script cannot be read.
    """
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            text = file.read(_MOST)
    except OSError as error:
        raise SubmissionError(f"cannot read the job script {path}: {error.strerror}") from None
    words: list[str] = []
    for line in text.splitlines():
        if line.startswith("#$"):
            words += split(line.removeprefix("#$"))
    return words


def split(line: str) -> list[str]:
    """Split options as qsub does; a quote that does not end is for Grid Engine to complain about."""
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def value_of(option: str, words: list[str]) -> str | None:
    """Find what stands behind an option, the last time that it stands there."""
    found = None
    for word, value in pairwise([*words, ""]):
        if word == option:
            found = value
    return found


def requests(words: list[str]) -> set[str]:
    """Name the resources that the options ask for."""
    asked: set[str] = set()
    for word, value in pairwise([*words, ""]):
        if word == "-l":
            asked.update(request.partition("=")[0] for request in value.split(","))
    return asked
