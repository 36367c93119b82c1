"""The protocol of a job submission verifier (jsv(1), version 1.0), as the verifier's side speaks it. Pure.

    Grid Engine says   START                      PARAM NAME VALUE ...  ENV ADD NAME VALUE ...  BEGIN
    we say                    SEND ENV, STARTED                                                        RESULT ...

It sends a job's arguments, paths and mail addresses as they are, so that a line break in one of them adds lines of the
submitter's choice. Three things keep him from more than having his own job refused:

- What is no line of the protocol, or comes a second time, marks the job.
- Grid Engine is silent after START and after BEGIN until it is answered. If more follows, the submitter wrote that line,
  and it is no START and no BEGIN to us. `Listener.hear` is told.
- A START is answered once, and a BEGIN once. A second answer would be taken for the one to the next job, whosever that is.

What passes unseen is a line that Grid Engine might have sent itself, about something that it did not send for this job. It
misleads us about the submitter's own job, and nobody else: where Grid Engine reads its own files line by line, it looks
for NAME=VALUE, and no line of the protocol is one of those.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING

import msgspec

from warden.model import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

STARTED = b"SEND ENV\nSTARTED\n"

# What we look at; of all else only the names.
WANTED = frozenset(
    scope + name for scope in ("", "global_", "master_") for name in ("l_hard", "l_soft", "q_hard", "masterq", "ac")
) | {"CONTEXT", "CLIENT", "USER", "CMDNAME", "P"}
VARIABLES = frozenset({"GLIBC_TUNABLES", "QRSH_PORT"})

# Grid Engine reads our lines into 10000 bytes and does not count.
LONGEST = 8000
# A text for people.
_LONGEST_TEXT = 1000

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class Said(enum.Enum):
    """What the line amounts to."""

    NOTHING = enum.auto()
    START = enum.auto()
    BEGIN = enum.auto()
    QUIT = enum.auto()


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as Grid Engine describes it: of its parameters those in WANTED, of its variables those in VARIABLES."""

    parameters: dict[str, str] = {}
    variables: frozenset[str] = frozenset()
    tampered: bool = False
    """Whether it has line breaks where nobody needs them; what it says of itself is worth nothing then."""

    def get(self, name: str) -> str:
        return self.parameters.get(name, "")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What becomes of a job: refused with a text, or accepted with these parameters set and these variables removed."""

    refused: str = ""
    parameters: dict[str, str] = {}
    removed: tuple[str, ...] = ()
    warning: str = ""


class Listener:
    """Puts a job together from what Grid Engine says, line by line."""

    def __init__(self) -> None:
        self._started = False
        self._clear()

    def hear(self, line: bytes, *, more: bool) -> Said:
        """Take a line, without its end; `more`: whether something follows although Grid Engine waits for an answer."""
        if not self._started:
            # Whatever else comes here belongs to a job that has its answer.
            if line == b"START" and not more:
                self._started = True
                return Said.START
            return Said.QUIT if line == b"QUIT" and not more else Said.NOTHING
        if line == b"BEGIN" and not more:
            return Said.BEGIN
        self._note(line.decode(errors="surrogateescape"))
        return Said.NOTHING

    def job(self) -> Job:
        """The job that has been described, once: now the next one may come."""
        job = Job(
            parameters=self._parameters,
            variables=frozenset(self._variables),
            tampered=self._tampered or self._arguments != self._announced,
        )
        self._started = False
        self._clear()
        return job

    def _clear(self) -> None:
        self._parameters: dict[str, str] = {}
        self._seen: set[str] = set()
        self._variables: set[str] = set()
        self._arguments = 0
        self._announced = 0
        self._tampered = False
        self._in_environment = False

    def _note(self, line: str) -> None:
        command, _, rest = line.partition(" ")
        name, _, value = rest.partition(" ")
        if command == "PARAM" and _NAME.fullmatch(name) and not self._in_environment:
            self._note_parameter(name, value)
        elif command == "ENV" and name == "ADD":
            self._in_environment = True
            self._variables |= VARIABLES & {value.partition(" ")[0]}
        else:
            self._tampered = True

    def _note_parameter(self, name: str, value: str) -> None:
        if name == f"CMDARG{self._arguments}":
            # Of these there may be very many.
            self._arguments += 1
            return
        self._tampered |= name in self._seen or re.fullmatch("CMDARG[0-9]+", name) is not None
        self._seen.add(name)
        if name == "CMDARGS":
            self._announced = int(value) if re.fullmatch("[0-9]{1,9}", value) else -1
        elif name in WANTED:
            self._parameters[name] = value


def render(answer: Answer) -> bytes:
    """Write the answer. What Grid Engine has no room for is left out, and a warning says so."""
    lines = []
    warning = answer.warning
    if not answer.refused:
        for name, value in answer.parameters.items():
            line = f"PARAM {name} {value}"
            if len(line.encode(errors="surrogateescape")) < LONGEST and "\n" not in line:
                lines.append(line)
            else:
                warning = warning or f"{name} is too long to be changed: the job stays as it is in this"
        lines += [f"ENV DEL {name}" for name in answer.removed]
    said = [f"LOG WARNING qpu-jsv: {_text(warning)}"] if warning else []
    return "".join(f"{line}\n" for line in [*said, *lines, _result(answer, lines)]).encode(errors="surrogateescape")


def _result(answer: Answer, changes: list[str]) -> str:
    if answer.refused:
        return f"RESULT STATE REJECT {_text(answer.refused)}"
    return "RESULT STATE CORRECT" if changes else "RESULT STATE ACCEPT"


def _text(text: str) -> str:
    return one_line(text)[:_LONGEST_TEXT]


def items(value: str) -> list[tuple[str, str]]:
    """Read a list such as `qpu=1,h_rt=60`."""
    pairs = (item.partition("=") for item in value.split(",") if item)
    return [(name, text) for name, _, text in pairs]


def with_item(value: str, name: str, text: str) -> str:
    """Such a list in which `name` has this value, all others as they were."""
    others = [item for item in value.split(",") if item and item.partition("=")[0] != name]
    return ",".join([*others, f"{name}={text}"])


def requests(parameters: Mapping[str, str]) -> dict[str, str]:
    """The hard requests of a job, of one that stands several times the last; on OCS those of all scopes but the slaves'."""
    found: dict[str, str] = {}
    for name in ("master_l_hard", "global_l_hard", "l_hard"):
        if name in parameters:
            found.update(items(parameters[name]))
    return found
