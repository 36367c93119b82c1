"""What every command promises: one line on stderr, the right exit status, no traceback."""

import json

import click
import pytest
from click.testing import CliRunner

from warden.console import Group, print_json, table
from warden.model import BusyError, one_line


@click.group(cls=Group)
def command() -> None: ...


@command.command()
@click.argument("how")
def fail(how: str) -> None:
    raise {
        "known": BusyError("the QPU is busy:\n try later"),
        "unknown": KeyError("x"),
        "file": FileNotFoundError(2, "No such file", "/x"),
        "interrupt": KeyboardInterrupt(),
    }[how]


@pytest.mark.parametrize(
    ("how", "status", "line"),
    [
        ("known", 1, "prog: the QPU is busy: try later"),
        ("unknown", 1, "prog: this should not happen (WARDEN_DEBUG=1 shows where it did): KeyError: 'x'"),
        ("file", 1, "prog: this should not happen (WARDEN_DEBUG=1 shows where it did): [Errno 2] No such file: '/x'"),
        ("interrupt", 130, ""),
    ],
)
def test_failure_is_one_line_and_a_status(how: str, status: int, line: str) -> None:
    result = CliRunner().invoke(command, ["fail", how], prog_name="prog")
    assert (result.exit_code, result.stderr.strip()) == (status, line)


def test_wrong_usage_is_2() -> None:
    assert CliRunner().invoke(command, ["fail"], prog_name="prog").exit_code == 2


def test_table_aligns_numbers_to_the_right() -> None:
    assert table([("a", 1, 2.25), ("bcd", 100, None)], ("name", "shots", "s")) == (
        "name  shots    s\na         1  2.2\nbcd     100    -"
    )


def test_table_without_rows_is_its_headers() -> None:
    assert table([], ("job", "user")) == "job  user"


def test_text_of_others_cannot_steer_the_terminal() -> None:
    assert one_line("a\x1b[31mb\r\nc") == "a [31mb c"


def test_json_that_others_have_written_does_nothing_to_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    said = {"reason": "\x1b[31m \x9b31m \x7f \u202eevil\u2069 é"}
    print_json(said)
    shown = capsys.readouterr().out
    assert json.loads(shown) == said
    assert all(char.isprintable() for char in shown.replace("\n", ""))
