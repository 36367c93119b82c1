"""Man pages and completions: they know every command and every option, and the programs that read them like them."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "share"))
import make  # noqa: E402
from warden_site import LIMIT  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES = sorted((ROOT / "share" / "man" / "man1").iterdir())
BIN = Path(sys.executable).parent


def walk(context: click.Context) -> Iterator[click.Context]:
    """A command, and all that are in it."""
    yield context
    if isinstance(context.command, click.Group):
        for name, command in context.command.commands.items():
            if not command.hidden:
                yield from walk(click.Context(command, info_name=name, parent=context))


EVERY = [context for name, command in make.COMMANDS.items() for context in walk(click.Context(command, info_name=name))]


def options(command: click.Command) -> set[str]:
    shown = (one for one in command.params if isinstance(one, click.Option) and not one.hidden)
    return {name for one in shown for name in one.opts}


def offered(context: click.Context) -> set[str]:
    """What a shell shall offer for a command whose options were begun, and inside a group."""
    command = context.command
    inner = (
        {name for name, one in command.commands.items() if not one.hidden}
        if isinstance(command, click.Group)
        else set()
    )
    return options(command) | {"--help"} | inner


def wanted(context: click.Context) -> set[str]:
    """Of these, what a shell shows for what `begun` says."""
    return {one for one in offered(context) if one.startswith("--") or not one.startswith("-")}


def begun(context: click.Context) -> tuple[str, ...]:
    """Begun words, for which the shell together offers all of it."""
    return ("--", "") if isinstance(context.command, click.Group) else ("--",)


def asks(name: str) -> list[tuple[click.Context, str]]:
    return [(one, word) for one in EVERY if one.find_root().info_name == name for word in begun(one)]


def assert_complete(answers: list[tuple[click.Context, set[str]]]) -> None:
    found: dict[str, set[str]] = {}
    for context, words in answers:
        found.setdefault(context.command_path, set()).update(words)
    assert len(found) > 5
    for context, _ in answers:
        assert wanted(context) <= found[context.command_path], context.command_path


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


# --- as they lie in the repository ---


def test_pages_and_completions_are_as_share_make_py_writes_them() -> None:
    made = make.files()
    there = {
        path.relative_to(make.SHARE)
        for path in make.SHARE.rglob("*")
        if path.is_file() and path.suffix not in {".py", ".pyc"}
    }
    assert there == set(made)
    for path, text in made.items():
        assert (make.SHARE / path).read_text(encoding="utf-8") == text, "run `python share/make.py`"


@pytest.mark.parametrize("context", EVERY, ids=lambda context: context.command_path)
def test_man_pages_tell_of_every_command_and_option(context: click.Context) -> None:
    page = (ROOT / "share" / "man" / "man1" / f"{context.find_root().info_name}.1").read_text(encoding="utf-8")
    plain = re.sub(r"\\f[BIR]", "", page).replace(r"\-", "-")
    if context.parent is not None:
        start = plain.index(f'.SS "{context.command_path} [OPTIONS]')
        plain = plain[start : plain.find("\n.S", start + 1)]
    told = set(re.findall(r"(?<![\w-])--?\w[\w-]*", plain))
    assert options(context.command) <= told
    first, *_ = (context.command.help or "").split("\n\n")
    assert " ".join(first.replace("`", "").split()) in " ".join(plain.replace("\\&", "").split())


# --- as programs read them ---


@needs("mandoc")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_has_nothing_to_say(page: Path) -> None:
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True, check=False)
    # A date would be another in each build.
    assert [line for line in done.stdout.splitlines() if "missing date" not in line] == []


@needs("groff")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_man_has_nothing_to_say(page: Path) -> None:
    command = ["groff", "-man", "-Tutf8", "-ww", "-rLL=80n", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert max(len(re.sub("\x1b\\[[0-9;]*m|.\x08", "", line)) for line in done.stdout.splitlines()) <= 80


def environment(**more: str) -> dict[str, str]:
    return {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": "/nonexistent", "TERM": "dumb", "LANG": "C.UTF-8", **more}


BASH = r"""
complete() { :; }
compopt() { :; }
source "$1"
while IFS= read -r line; do
  read -ra COMP_WORDS <<<"$line"
  # A word that is still empty is none to `read`.
  [[ $line == *" " ]] && COMP_WORDS+=("")
  COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
  "$2" "${COMP_WORDS[0]}"; echo "${COMPREPLY[*]}"
done
"""


@needs("bash")
@pytest.mark.parametrize("name", make.COMMANDS)
def test_bash_completes_every_command_and_option(name: str) -> None:
    script = ROOT / "share" / "bash-completion" / "completions" / name
    asked = asks(name)
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH, "bash", str(script), f"_{name}_completion".replace("-", "_")],
        input="".join(f"{context.command_path} {word}\n" for context, word in asked),
        capture_output=True,
        text=True,
        env=environment(),
        check=True,
        timeout=LIMIT,
    )
    assert done.stderr == ""
    answers = [set(line.split()) for line in done.stdout.splitlines()]
    assert_complete([(context, words) for (context, _), words in zip(asked, answers, strict=True)])


@needs("fish")
@pytest.mark.parametrize("name", make.COMMANDS)
def test_fish_completes_every_command_and_option(name: str, tmp_path: Path) -> None:
    script = ROOT / "share" / "fish" / "vendor_completions.d" / f"{name}.fish"
    asked = asks(name)
    lines = "".join(f"complete -C '{context.command_path} {word}'; echo ==\n" for context, word in asked)
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {script}\n{lines}"],
        capture_output=True,
        text=True,
        env=environment(HOME=str(tmp_path)),
        check=True,
        timeout=LIMIT,
    )
    answers = [{line.split("\t")[0] for line in one.splitlines()} for one in done.stdout.split("==\n")]
    assert_complete([(context, words) for (context, _), words in zip(asked, answers, strict=False)])


@needs("zsh")
@pytest.mark.parametrize("name", make.COMMANDS)
def test_zsh_is_told_every_command_and_option(name: str) -> None:
    answers = []
    for context, word in asks(name):
        words = context.command_path.split()
        variables = {
            f"_{name}_COMPLETE".replace("-", "_").upper(): "zsh_complete",
            "COMP_WORDS": " ".join([*words, word]),
            "COMP_CWORD": str(len(words)),
        }
        done = subprocess.run(
            [BIN / name], capture_output=True, text=True, env=environment(**variables), check=True, timeout=LIMIT
        )
        # Three lines each: its type, itself, and what it is.
        answers.append((context, set(done.stdout.splitlines()[1::3])))
    assert_complete(answers)


@needs("zsh")
def test_zsh_completes_what_somebody_types(tmp_path: Path) -> None:
    with terminal("zsh", "-f", "-i", home=tmp_path) as type_in:
        functions = ROOT / "share" / "zsh" / "site-functions"
        type_in(f"PS1='>'; fpath=({functions} $fpath); autoload -U compinit; compinit -u -D; echo rea''dy\n", "ready")
        type_in("warden calibrate hist\t", "history")
        type_in("\x15qpu cance\t", "cancel")
        type_in("\x15qpu-admin reserve --foll\t", "--follow")


def test_files_and_qpus_are_completed(tmp_path: Path) -> None:
    config = tmp_path / "warden.toml"
    config.write_text("[qpu]\nname = 'fresnel'\n")

    def told(words: str, config: Path) -> str:
        variables = {
            "_QPU_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
            "WARDEN_CONFIG": str(config),
        }
        done = subprocess.run(
            [BIN / "qpu"], capture_output=True, text=True, env=environment(**variables), check=True, timeout=LIMIT
        )
        assert done.stderr == ""
        return done.stdout

    assert told("qpu run seq", config) == "file,seq\n"
    assert told("qpu submit job.s", config) == "file,job.s\n"
    assert told("qpu tasks --qpu f", config) == "plain,fresnel\n"
    assert told("qpu tasks --qpu g", config).strip() == ""
    # A site that is not set up well is no reason for a traceback on somebody's prompt.
    assert told("qpu tasks --qpu f", tmp_path / "none").strip() == ""


@contextlib.contextmanager
def terminal(*command: str, home: Path) -> Iterator[object]:
    """A shell at a terminal; what comes out of the block types, and waits for what it shall show."""
    process, end = pty.fork()
    if process == 0:
        os.execvpe(command[0], command, environment(HOME=str(home)))

    def type_in(text: str, wanted: str) -> None:
        os.write(end, text.encode())
        seen, until = "", time.monotonic() + LIMIT
        # The echo of what was typed is no answer.
        while wanted not in seen:
            assert time.monotonic() < until, f"{text!r} did not become {wanted!r}: {seen!r}"
            if select.select([end], [], [], 1)[0]:
                seen += os.read(end, 4096).decode(errors="replace")

    try:
        yield type_in
    finally:
        os.kill(process, 9)
        os.waitpid(process, 0)
        os.close(end)
