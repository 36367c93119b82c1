"""What all commands share: a failure told in one line, options with one meaning everywhere, tables."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from warden.model import WardenError, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from click.shell_completion import CompletionItem

INTERRUPTED = 130  # what a shell reports for a command that SIGINT ended


class Group(click.Group):
    """A command whose failures reach the user as one line on stderr: `@click.group(cls=Group)`.

    Exit status: 1 for what we can explain, 2 for wrong usage, 130 when interrupted. WARDEN_DEBUG=1 shows tracebacks.
    """

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)
        except WardenError as error:
            raise Failure(error.text) from error
        except Exception as error:
            if os.environ.get("WARDEN_DEBUG"):
                raise
            what = str(error) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
            raise Failure(f"this should not happen (WARDEN_DEBUG=1 shows where it did): {what}") from error


class Failure(click.ClickException):
    """Ends the command with `NAME: TEXT` on stderr and exit status 1."""

    exit_code = 1

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))
        context = click.get_current_context(silent=True)
        self._name = context.find_root().info_name if context else Path(sys.argv[0]).name

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(f"{self._name}: {self.message}", file=file, err=file is None)


def _default_config() -> Path:
    from warden.config import default_path  # noqa: PLC0415  (`--help` must not pay for it)

    return default_path()


config_option = click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=_default_config,
    show_default="WARDEN_CONFIG or /etc/warden/warden.toml",
    help="The configuration file.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")


def complete_files(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """For a shell: this argument is a file."""
    from click.shell_completion import CompletionItem  # noqa: PLC0415  (`--help` must not pay for it)

    return [CompletionItem(incomplete, type="file")]


# JSON escapes what is below a blank; terminals also obey these, and some turn the line around.
_OF_TERMINALS = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
# Of a task or a window; what is larger is none that the wire could carry.
NUMBER = click.IntRange(1, 2**63 - 1)


class Name(click.ParamType):  # type: ignore[type-arg]
    """A job or a session, as long as the wire takes it."""

    name = "name"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        most = 64  # of wire.Token
        if not 0 < len(value) <= most:
            self.fail(f"it has {len(value)} characters, 1 to {most} are right", param, ctx)
        return value


class Length(click.ParamType):  # type: ignore[type-arg]
    """An option that is a length of time, such as 90, 90s or 1h30min; the command gets microseconds."""

    name = "duration"

    def __init__(self, *, longer_than_nothing: bool = True) -> None:
        self._positive = longer_than_nothing

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from warden.config import duration  # noqa: PLC0415  (`--help` must not pay for it)

        if isinstance(value, int):
            return value
        try:
            length = duration(float(value) if value.replace(".", "", 1).isdecimal() else value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if self._positive and length == 0:
            self.fail("it must be longer than 0", param, ctx)
        return length


def print_json(value: object) -> None:
    """Print whatever msgspec can encode, for a program that reads it and a person who looks over its shoulder."""
    import msgspec  # noqa: PLC0415  (`--help` must not pay for it)

    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    # They stand in strings alone, and others have chosen some of these.
    click.echo(_OF_TERMINALS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def table(rows: Iterable[Sequence[object]], headers: Sequence[str]) -> str:
    """Lay out rows in aligned columns; columns of numbers to the right, None as `-`, floats with one decimal."""
    lines = [list(row) for row in rows]
    numeric = [all(isinstance(cell, int | float | None) for cell in column) for column in zip(*lines, strict=True)]
    cells = [list(headers), *([_cell(cell) for cell in line] for line in lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = numeric or [False] * len(widths)
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in cells
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else one_line(str(value))
