"""Grid Engine's commands: found, called with a clean environment and a time limit, their errors told apart."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import msgspec

from gridengine.resources import Flavour
from warden.model import WardenError

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 30.0
# All that the commands need to find their cell. Nothing else gets through: a hook's environment is the user's.
CELL_VARIABLES = ("SGE_ROOT", "SGE_CELL", "SGE_CLUSTER_NAME", "SGE_QMASTER_PORT", "SGE_EXECD_PORT")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_ARCHITECTURES = {"x86_64": "lx-amd64", "aarch64": "lx-arm64"}


class GridEngineError(WardenError):
    """Grid Engine refused, for a reason that only its own words tell."""

    code: ClassVar[str] = "gridengine"


class MissingError(GridEngineError):
    """Grid Engine's commands, or its cell, are not on this host."""

    code: ClassVar[str] = "gridengine_missing"


class UnreachableError(GridEngineError):
    """The qmaster does not answer."""

    code: ClassVar[str] = "gridengine_unreachable"
    transient: ClassVar[bool] = True


class DeniedError(GridEngineError):
    """This user, or this host, may not do this in Grid Engine."""

    code: ClassVar[str] = "gridengine_denied"


class UnknownObjectError(GridEngineError):
    """Grid Engine knows no such queue, host, job or complex."""

    code: ClassVar[str] = "gridengine_unknown"


class Output(msgspec.Struct, frozen=True):
    """What a command printed. qconf tells what it changed on either stream, so both are kept."""

    stdout: str
    stderr: str

    @property
    def all(self) -> str:
        return self.stdout + self.stderr


class Version(msgspec.Struct, frozen=True):
    """Which Grid Engine this is."""

    flavour: Flavour
    number: str

    def since(self, *number: int) -> bool:
        """Pure: whether this is that version or a later one. One that cannot be read is an old one."""
        own = [int(part) for part in re.findall(r"\d+", self.number)]
        return own[: len(number)] >= list(number)


def run(
    command: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    limit: float = LIMIT,
    utc: bool = False,
) -> Output:
    """Run one of Grid Engine's commands.

    Of `environment` (default: this process's own) only the variables that name the cell are passed on. `utc`: times are
    read and written in UTC, whatever the host's zone is.

    Raises:
        GridEngineError: In its subclasses, by what went wrong.
    """
    given = os.environ if environment is None else environment
    cell = {name: given[name] for name in CELL_VARIABLES if name in given}
    try:
        done = subprocess.run(
            [program(command, cell), *arguments],
            # SGE then breaks no value over several lines, so blanks in it are as they were written.
            env={**cell, "PATH": _PATH, "LC_ALL": "C", "SGE_SINGLE_LINE": "1"} | ({"TZ": "UTC"} if utc else {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UnreachableError(f"{command} got no answer within {limit:g} s: is the qmaster up?") from None
    except OSError as error:
        raise MissingError(f"cannot run {command}: {error.strerror}") from None
    output = Output(done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
    if done.returncode:
        raise failure(command, done.returncode, output)
    return output


def version(environment: Mapping[str, str] | None = None) -> Version:
    """Tell the flavour apart; needs no qmaster."""
    return parse_version(run("qconf", "-help", environment=environment).stdout)


def parse_version(text: str) -> Version:
    """Read the first line of a `-help`.

    Raises:
        GridEngineError: It is neither of the flavours that we know.
    """
    family, _, number = text.partition("\n")[0].strip().partition(" ")
    if family in {"OCS", "GCS"}:
        return Version(Flavour.OCS, number)
    if family in {"SGE", "GE"}:
        return Version(Flavour.SGE, number)
    raise GridEngineError(f"qconf calls itself {family!r}; only SGE 8.1.9 and OCS 9 are known here")


def program(command: str, cell: Mapping[str, str]) -> str:
    """Find a command: the cell's own, or Debian's, whose wrapper goes by SGE_ROOT.

    Raises:
        MissingError: There is none.
    """
    places = [Path("/usr/bin")]
    root, architecture = cell.get("SGE_ROOT", ""), _ARCHITECTURES.get(os.uname().machine)
    if root.startswith("/") and architecture:
        places.insert(0, Path(root) / "bin" / architecture)
    for place in places:
        if os.access(place / command, os.X_OK):
            return str(place / command)
    raise MissingError(
        f"{command} is not in {' or '.join(map(str, places))}: install Grid Engine's commands here, or set SGE_ROOT"
    )


_SIGNS: tuple[tuple[type[GridEngineError], tuple[str, ...], str], ...] = (
    (
        MissingError,
        (
            "SGE_ROOT directory .* doesn't exist",
            "cell directory .* doesn't exist",
            "Please set the environment variable",
        ),
        "set SGE_ROOT and SGE_CELL to those of your cell",
    ),
    (
        UnreachableError,
        ("send message to qmaster", "contact qmaster", "commlib error", "got (send|read) error", "get act_qmaster"),
        "check that the qmaster runs, and SGE_ROOT, SGE_CELL and SGE_QMASTER_PORT",
    ),
    (
        DeniedError,
        (
            "must be (a )?(manager|operator)",
            "is no (admin|submit) host",
            "is neither submit nor admin host",
            "the necessary privileges",
        ),
        "a manager of the cell, on an admin host, may",
    ),
    (
        GridEngineError,
        ("is still referenced in",),
        "take it out there first: qconf -me HOST, -mq QUEUE or -mrqs",
    ),
    (
        UnknownObjectError,
        (
            "(does|do) not exist",
            "not defined",
            "No cluster queue or queue instance matches",
            "invalid queue",
            "not found",
            "can't resolve host",
            "No resource quota set found",
            "no resource quota set list defined",
            "is not a parallel environment",
            "no config defined",
            "no cluster queue.* defined",
        ),
        "",
    ),
)


def failure(command: str, status: int, output: Output) -> GridEngineError:
    """Make the exception for a command that failed, from what it said."""
    said = output.stderr.strip() or output.stdout.strip() or f"exit status {status}"
    for kind, signs, advice in _SIGNS:
        if re.search("|".join(signs), output.all):
            return kind(f"{command}: {_brief(said)}" + (f" ({advice})" if advice else ""))
    return GridEngineError(f"{command}: {_brief(said)}")


def _brief(text: str) -> str:
    """Make one line of the first that matter; a usage text of a hundred lines is of no use, nor is what went well."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    refusals = [line for line in lines if line.startswith(("error: ", "denied: "))]
    return "; ".join(line.removeprefix("error: ").rstrip(".") for line in (refusals or lines)[:3])
