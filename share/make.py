"""Write the man pages and the completions of all commands: `python share/make.py`."""  # noqa: INP001 - a script

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import ShellComplete, get_completion_class

from gridengine.admin_cli import main as qpu_admin
from gridengine.cli import qpu
from warden.cli import main as warden

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARE = Path(__file__).parent
COMMANDS: dict[str, click.Group] = {"qpu": qpu, "qpu-admin": qpu_admin, "warden": warden}
# Where each shell looks, below a prefix's share/.
COMPLETIONS = {
    "bash": "bash-completion/completions/{}",
    "zsh": "zsh/site-functions/_{}",
    "fish": "fish/vendor_completions.d/{}.fish",
}

# Says nothing to people.
_LARGEST = re.compile(rf" *\[?1<=x<={2**63 - 1}\]?")
_END = r"""
.SH EXIT STATUS
.TP
0
It was done.
.TP
1
It could not be done; one line on standard error says why, and what to do.
Commands that have other statuses say so above.
.TP
2
Wrong usage.
.TP
130
It was interrupted.
.SH ENVIRONMENT
.TP
.B WARDEN_CONFIG
The configuration, in place of
.IR /etc/warden/warden.toml .
.TP
.B WARDEN_DEBUG
With 1, what should not happen is shown with where it did.
.SH FILES
.TP
.I /etc/warden/warden.toml
The configuration.
"""


def files() -> dict[Path, str]:
    """All that is made, by its path below share/."""
    made = {Path("man/man1") / f"{name}.1": page(name, command) for name, command in COMMANDS.items()}
    for shell, place in COMPLETIONS.items():
        for name, command in COMMANDS.items():
            made[Path(place.format(name))] = completion(shell, name, command)
    return made


def completion(shell: str, name: str, command: click.Group) -> str:
    """What a shell reads; it asks the command itself, so it knows whatever the command knows."""
    kind = get_completion_class(shell)
    if kind is None:
        raise ValueError(shell)
    variable = f"_{name}_COMPLETE".replace("-", "_").upper()
    # Not the subclass's own `source`, which looks whether a bash of this host is new enough.
    return ShellComplete.source(kind(command, {}, name, variable)).strip("\n") + "\n"


def page(name: str, group: click.Group) -> str:
    """A man page: all commands of a program on one page, in man(7)'s macros."""
    context = click.Context(group, info_name=name)
    title, *_ = _paragraphs(group)
    lines = [
        r".\" Written by share/make.py from the commands: change them there.",
        f'.TH {name.upper()} 1 "" "gridengine\\-qpu" "User Commands"',
        ".nh",
        ".ad l",
        ".SH NAME",
        f"{_text(name)} \\- {_text(title.rstrip('.'))}",
        ".SH SYNOPSIS",
        f".B {_text(name)}",
        r"[\fIOPTIONS\fR] \fICOMMAND\fR [\fIARGUMENTS\fR]",
        ".SH DESCRIPTION",
        *_body(group),
        ".SH OPTIONS",
        *_options(context),
        ".SH COMMANDS",
        *_commands(context),
        _END.strip("\n"),
        ".SH SEE ALSO",
        ",\n".join(f".BR {_text(other)} (1)" for other in COMMANDS if other != name).replace("(1),", "(1) ,"),
    ]
    return "\n".join(lines) + "\n"


def _commands(context: click.Context) -> Iterator[str]:
    """Each command, and behind a group those that are in it."""
    group = context.command
    if not isinstance(group, click.Group):
        return
    for name in sorted(group.commands):
        command = group.commands[name]
        if command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        usage = " ".join([inner.command_path, *command.collect_usage_pieces(inner)])
        yield f'.SS "{_text(usage)}"'
        yield from _body(command)
        yield from _options(inner)
        yield from _commands(inner)


def _options(context: click.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        # Of arguments the text tells; --help is told of once.
        if record is None or isinstance(parameter, click.Argument) or (context.parent and "--help" in parameter.opts):
            continue
        names, said = (_LARGEST.sub("", part).replace("INTEGER RANGE", "N") for part in record)
        yield ".TP"
        yield re.sub(r"(?<![^ ,/])(\\-[^ ,]*)", r"\\fB\1\\fR", _text(names))
        yield _text(said) or r"\&"


def _body(command: click.Command) -> Iterator[str]:
    for number, paragraph in enumerate(_paragraphs(command)):
        if number:
            yield ".PP"
        yield _text(paragraph)


def _paragraphs(command: click.Command) -> list[str]:
    return [" ".join(paragraph.split()) for paragraph in (command.help or "").split("\n\n")]


def _text(text: str) -> str:
    """As man(7) takes it: nothing in it is a request, and what stands in backticks is bold."""
    text = " ".join(text.split()).replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq")
    text = re.sub(r"`([^`]*)`", r"\\fB\1\\fR", text)
    return rf"\&{text}" if text.startswith((".", "'")) else text


def main() -> None:
    for path, text in files().items():
        (SHARE / path).parent.mkdir(parents=True, exist_ok=True)
        (SHARE / path).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
