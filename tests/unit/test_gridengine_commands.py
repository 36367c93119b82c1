"""Commands: found, called cleanly, and their errors told apart."""

import stat
from pathlib import Path

import pytest
from gridengine_samples import calls, stdout

from gridengine import commands
from gridengine.commands import (
    DeniedError,
    GridEngineError,
    MissingError,
    Output,
    UnknownObjectError,
    UnreachableError,
)
from gridengine.resources import Flavour

ERRORS = {call.command: call for call in calls("sge/errors.txt")}


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("env SGE_QMASTER_PORT=1 qconf -sc", UnreachableError),
        ("su -s /bin/sh alice -c qconf -mattr exechost complex_values qpu=1 global", DeniedError),
        ("qconf -sq nosuch.q", UnknownObjectError),
        ("qconf -sconf nosuchhost", UnknownObjectError),
        ("qconf -sconf node1", UnknownObjectError),
        ("qconf -rattr queue prolog NONE nosuch.q", UnknownObjectError),
        ("qmod -cj 99", UnknownObjectError),
        ("qdel 99", UnknownObjectError),
        ("env SGE_ROOT=/nonexistent qconf -sc", MissingError),
        ("env SGE_CELL=nosuch qconf -sc", MissingError),
        ("qconf -mattr exechost complex_values nosuch=1 global", GridEngineError),
        ("qconf -Mc before", GridEngineError),
    ],
)
def test_errors_are_told_apart(command: str, kind: type[GridEngineError]) -> None:
    call = ERRORS[command]
    error = commands.failure("qconf", call.status, Output(call.stdout, call.stderr))
    assert type(error) is kind
    assert "\n" not in error.text


def test_an_error_of_ocs() -> None:
    call = calls("ocs/qstat_j_unknown.xml.txt")[0]
    assert type(commands.failure("qstat", 1, Output("", call.stderr))) is UnknownObjectError


def test_flavours() -> None:
    sge = commands.parse_version(stdout("sge/version.txt"))
    ocs = commands.parse_version(stdout("ocs/version.txt"))
    assert (sge.flavour, sge.number) == (Flavour.SGE, "8.1.9")
    assert (ocs.flavour, ocs.number) == (Flavour.OCS, "9.2.0prealpha")
    with pytest.raises(GridEngineError, match="calls itself 'PBS'"):
        commands.parse_version("PBS 1\n")


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cell whose qconf is the script that the test writes."""
    monkeypatch.setattr(commands, "_ARCHITECTURES", dict.fromkeys(("x86_64", "aarch64"), "lx-test"))
    (tmp_path / "bin/lx-test").mkdir(parents=True)
    return tmp_path


def program(cell: Path, script: str) -> dict[str, str]:
    path = cell / "bin/lx-test/qconf"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {"SGE_ROOT": str(cell), "SGE_CELL": "c", "LD_PRELOAD": "x", "PATH": "/evil", "PYTHONPATH": "y"}


def test_only_the_cell_gets_through_of_the_environment(cell: Path) -> None:
    names = {
        line.partition("=")[0] for line in commands.run("qconf", environment=program(cell, "env")).stdout.splitlines()
    }
    assert names - {"PWD", "SHLVL", "_", "OLDPWD"} == {"SGE_ROOT", "SGE_CELL", "PATH", "LC_ALL", "SGE_SINGLE_LINE"}


def test_times_are_in_utc_where_it_matters(cell: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    environment = program(cell, 'echo "$TZ"')
    assert commands.run("qconf", environment=environment, utc=True).stdout == "UTC\n"


def test_a_hanging_command_is_ended(cell: Path) -> None:
    with pytest.raises(UnreachableError, match=r"no answer within 0\.2 s"):
        commands.run("qconf", environment=program(cell, "exec sleep 60"), limit=0.2)


def test_a_command_that_is_not_there(cell: Path) -> None:
    with pytest.raises(MissingError, match="set SGE_ROOT"):
        commands.run("qnothing", environment={"SGE_ROOT": str(cell)})


def test_broken_bytes_are_no_reason_to_fail(cell: Path) -> None:
    assert commands.run("qconf", environment=program(cell, r"printf 'a\377b'")).stdout == "a\ufffdb"
