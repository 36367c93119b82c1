"""`qpu-jsv` as a process, at its pipes: what it answers, how it takes what no Grid Engine would say, and that it goes on."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import gridengine.hooks
from gridengine import jsv, jsv_policy
from gridengine.jsv import Known
from gridengine.jsv_protocol import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BIN = Path(gridengine.hooks.__file__).parent / "bin" / "qpu-jsv"
LIMIT = 30.0
ME = pwd.getpwuid(os.getuid()).pw_name

ONE = '[qpu]\nname = "fresnel"\n'
QPU = ("PARAM l_hard qpu=1",)
IMPOSSIBLE = ("PARAM l_hard qpu=0",)

# As the executable starts it, but for the configuration.
PROGRAM = "import sys, pathlib; from gridengine import jsv; jsv.CONFIG = pathlib.Path(sys.argv.pop()); jsv.main()"


class Verifier:
    """A `qpu-jsv`, spoken to as Grid Engine does."""

    def __init__(self, *command: str | Path) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._said = b""

    def send(self, *lines: str) -> None:
        """Each at once, as Grid Engine writes them."""
        assert self._process.stdin is not None
        for line in lines:
            self._process.stdin.write(f"{line}\n".encode(errors="surrogateescape"))
            self._process.stdin.flush()

    def line(self) -> str:
        assert self._process.stdout is not None
        while b"\n" not in self._said:
            assert select.select([self._process.stdout], [], [], LIMIT)[0], "it says nothing"
            data = os.read(self._process.stdout.fileno(), 65536)
            assert data, "it is gone"
            self._said += data
        line, _, self._said = self._said.partition(b"\n")
        return line.decode()

    def start(self) -> None:
        """A START; what is said to it is the next that is said at all."""
        self.send("START")
        said = self.line()
        # The shell that stands in for us asks for nothing.
        assert "STARTED" in {said, self.line() if said == "SEND ENV" else said}, said

    def ask(self, *lines: str, arguments: int = 0) -> list[str]:
        """One job; what is said of it, the result last."""
        self.start()
        self.send("PARAM VERSION 1.0", "PARAM CONTEXT server", "PARAM CLIENT qmaster", f"PARAM USER {ME}")
        self.send("PARAM CMDNAME job.sh", f"PARAM CMDARGS {arguments}", *lines, "BEGIN")
        return self.result()

    def result(self) -> list[str]:
        said = [self.line()]
        while not said[-1].startswith("RESULT"):
            said.append(self.line())
        return said

    def end(self) -> tuple[int, str]:
        """Say QUIT; its exit status, and what it wrote to stderr."""
        _, errors = self._process.communicate(b"QUIT\n", timeout=LIMIT)
        return self._process.returncode, errors.decode()

    def kill(self) -> None:
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.communicate()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "warden.toml"
    path.write_text(ONE)
    return path


@pytest.fixture
def speak() -> Iterator[Callable[..., Verifier]]:
    """Starts one; it is gone afterwards."""
    started: list[Verifier] = []

    def start(*command: str | Path) -> Verifier:
        started.append(Verifier(*command))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def verifier(config: Path, speak: Callable[..., Verifier]) -> Verifier:
    return speak(sys.executable, "-c", PROGRAM, config)


def test_it_answers_for_job_after_job_and_ends_without_a_word(verifier: Verifier) -> None:
    for _ in range(3):
        assert verifier.ask() == ["RESULT STATE ACCEPT"]
        [refused] = verifier.ask(*IMPOSSIBLE)
        assert refused.startswith("RESULT STATE REJECT -l qpu=0 asks for no whole place")
        assert verifier.ask(*QPU)[-1] == "RESULT STATE CORRECT"
    assert verifier.end() == (0, "")


def test_a_job_without_a_qpu_costs_no_look_at_anything(config: Path, speak: Callable[..., Verifier]) -> None:
    # Who opens this waits for ever.
    config.unlink()
    os.mkfifo(config)
    loaded = config.with_name("loaded")
    listing = f"pathlib.Path({str(loaded)!r}).write_text(' '.join(sys.modules))"
    verifier = speak(sys.executable, "-c", f"{PROGRAM}; {listing}", config)
    assert verifier.ask("PARAM l_hard h_rt=60", "ENV ADD A qpu=1") == ["RESULT STATE ACCEPT"]
    assert verifier.end() == (0, "")
    assert not {"zmq", "tomllib", "warden.config", "warden.client", "subprocess"} & set(loaded.read_text().split())


def test_the_environment_is_asked_for_each_time(verifier: Verifier) -> None:
    for _ in range(2):
        verifier.send("START")
        assert (verifier.line(), verifier.line()) == ("SEND ENV", "STARTED")
        verifier.send("BEGIN")
        assert verifier.result() == ["RESULT STATE ACCEPT"]


def test_the_tunables_of_the_loader_are_taken_from_any_job(verifier: Verifier) -> None:
    said = verifier.ask("ENV ADD A 1", "ENV ADD GLIBC_TUNABLES glibc.malloc.check=3", "ENV ADD B")
    assert said == ["ENV DEL GLIBC_TUNABLES", "RESULT STATE CORRECT"]


@pytest.mark.parametrize(
    "injected",
    [
        ("job_owner=alice",),
        ("",),
        ("PARAM",),
        ("PARAM USER root",),
        ("PARAM CMDARG7 x",),
        ("ENV DEL PATH",),
        ("SHOW",),
        ("START",),
        ("QUIT",),
        ("BEGIN",),
        ("BEGIN", "START"),
        ("BEGIN", "QUIT"),
        ("BEGIN", "START", "PARAM VERSION 1.0", "BEGIN"),
        ("QUIT", "START", "BEGIN", "BEGIN"),
    ],
    ids=" ".join,
)
def test_who_writes_lines_of_his_own_is_refused_once_and_nobody_else(
    verifier: Verifier, injected: tuple[str, ...]
) -> None:
    verifier.start()
    # In one piece, as a value with line breaks comes.
    lines = ["PARAM USER bob", "PARAM CMDARGS 1", "PARAM CMDARG0 x", *injected, "PARAM l_hard qpu=1", "BEGIN"]
    verifier.send("\n".join(lines))
    [refused] = verifier.result()
    assert refused.startswith("RESULT STATE REJECT line breaks")
    assert verifier.ask() == ["RESULT STATE ACCEPT"]
    assert verifier.ask(*IMPOSSIBLE)[-1].startswith("RESULT STATE REJECT -l qpu=0")


def test_what_has_not_been_read_yet_goes_on_as_well() -> None:
    source, sink = os.pipe()
    try:
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, 4 * jsv._CHUNK)
        first = b"PARAM o %b\nBEGIN\n"
        first %= b"x" * (jsv._CHUNK - len(first) + 2)
        assert len(first) == jsv._CHUNK
        os.write(sink, first + b"job_owner=bob\nBEGIN\n")
        lines = jsv._lines(source)
        assert [next(lines)[1] for _ in range(4)] == [False, True, False, False]
    finally:
        os.close(source)
        os.close(sink)


def test_what_comes_after_an_answer_belongs_to_nobody(verifier: Verifier) -> None:
    # A submitter may be so lucky that Grid Engine is held up just behind his BEGIN.
    assert verifier.ask() == ["RESULT STATE ACCEPT"]
    verifier.send("PARAM N late\nSTART\nPARAM l_hard qpu=0\nBEGIN")
    assert verifier.ask(*IMPOSSIBLE)[-1].startswith("RESULT STATE REJECT -l qpu=0")


def test_garbage_and_size_do_not_stop_it(verifier: Verifier) -> None:
    many = [f"PARAM CMDARG{number} {'x' * 100}" for number in range(20_000)]
    assert verifier.ask(*many, arguments=20_000) == ["RESULT STATE ACCEPT"]
    assert verifier.ask(f"PARAM o {'x' * 5_000_000}") == ["RESULT STATE ACCEPT"]
    assert verifier.ask("PARAM whatever new", "PARAM cwd /tmp/\udcff") == ["RESULT STATE ACCEPT"]
    # Grid Engine has no room for what this would be with one more request.
    long = ",".join(["qpu=1", "h_rt=60", *(f"c{number}=1" for number in range(2000))])
    said = verifier.ask(f"PARAM l_hard {long}")
    assert "l_hard is too long" in said[0]
    assert not any(line.startswith("PARAM l_hard") for line in said)
    assert max(map(len, said)) < 9000


def test_a_configuration_is_read_again_when_it_has_changed(verifier: Verifier, config: Path) -> None:
    two = ("PARAM l_hard qpu=2",)
    assert "more than the QPU fresnel has" in verifier.ask(*two)[-1]
    config.write_text(f"{ONE}places = 2\n")
    until = time.monotonic() + LIMIT
    while verifier.ask(*two)[-1] != "RESULT STATE CORRECT":
        assert time.monotonic() < until


@pytest.mark.parametrize(
    "broken", [None, "[qpu\n", "[qpu]\nnam = 'x'\n", "[[gridengine.qpu]]\nqueues = ['a.q']\nconfig = '/no'"]
)
def test_without_a_configuration_jobs_go_through_and_it_says_so(
    verifier: Verifier, config: Path, broken: str | None
) -> None:
    if broken is None:
        config.unlink()
    else:
        config.write_text(broken)
    assert verifier.ask() == ["RESULT STATE ACCEPT"]
    for _ in range(2):
        warning, result = verifier.ask(*QPU)
        assert warning.startswith("LOG WARNING qpu-jsv: a job that asks for a QPU was not checked: ")
        assert result == "RESULT STATE ACCEPT"
    # What needs no configuration is refused all the same.
    assert verifier.ask(*IMPOSSIBLE)[-1].startswith("RESULT STATE REJECT")
    config.write_text(ONE)
    until = time.monotonic() + LIMIT
    while verifier.ask(*QPU)[-1] != "RESULT STATE CORRECT":
        assert time.monotonic() < until
    assert verifier.end() == (0, "")


def test_who_may_use_the_qpu_is_looked_up(verifier: Verifier, config: Path) -> None:
    config.write_text(f"{ONE}[access]\nusers = ['{ME}']\noperators = ['nobody-knows-me']\n")
    assert verifier.ask(*QPU)[-1] == "RESULT STATE CORRECT"
    stranger = next(entry.pw_name for entry in pwd.getpwall() if entry.pw_name != ME)
    config.write_text(f"{ONE}[access]\nusers = ['{stranger}']\n")
    until = time.monotonic() + LIMIT
    while (result := verifier.ask(*QPU)[-1]) == "RESULT STATE CORRECT":
        assert time.monotonic() < until
    assert result.startswith(f"RESULT STATE REJECT {ME} may not use the QPU fresnel")
    # Accounts that cannot be found here are the prolog's matter.
    config.write_text(f"{ONE}[access]\nusers = ['nobody-knows-me']\n")
    until = time.monotonic() + LIMIT
    while verifier.ask(*QPU)[-1] != "RESULT STATE CORRECT":
        assert time.monotonic() < until


def test_an_interactive_job_gets_no_qpu_where_nobody_says_that_this_is_ocs(verifier: Verifier) -> None:
    port = "ENV ADD QRSH_PORT node1:33903"
    assert verifier.ask(*QPU, port)[-1].startswith("RESULT STATE REJECT qrsh and qlogin jobs get no QPU")
    assert verifier.ask(port) == ["RESULT STATE ACCEPT"]


def test_a_mistake_of_ours_is_no_reason_to_refuse(monkeypatch: pytest.MonkeyPatch, config: Path) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(jsv_policy, "decide", fails)
    said = jsv.answer(Job(parameters={"l_hard": "qpu=1"}), Known(config))
    assert not said.refused
    assert "ZeroDivisionError" in said.warning


# --- the executable ---


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The executable beside an interpreter, as an installer puts it."""
    (tmp_path / "python").symlink_to(sys.executable)
    shutil.copy(BIN, tmp_path / "qpu-jsv")
    return tmp_path / "qpu-jsv"


def test_check_says_what_is_missing(installed: Path) -> None:
    interpreter = installed.with_name("python")
    interpreter.unlink()
    interpreter.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c \'import sys; from gridengine import jsv; sys.argv = ["", "--check"]; jsv.main()\'\n'
    )
    interpreter.chmod(0o755)
    done = subprocess.run([installed, "--check"], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")
    interpreter.unlink()
    done = subprocess.run([installed, "--check"], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode != 0
    assert "python" in done.stderr


def test_without_an_interpreter_jobs_go_through(installed: Path, speak: Callable[..., Verifier]) -> None:
    installed.with_name("python").unlink()
    verifier = speak(installed)
    for _ in range(3):
        warning, result = verifier.ask(*IMPOSSIBLE)
        assert "LOG WARNING qpu-jsv: cannot work" in warning
        assert result == "RESULT STATE ACCEPT"
    assert verifier.end() == (0, "")


def test_an_interpreter_that_is_killed_is_started_again(
    installed: Path, config: Path, speak: Callable[..., Verifier]
) -> None:
    interpreter = installed.with_name("python")
    interpreter.unlink()
    interpreter.write_text(f"#!/bin/sh\necho $$ >{config}.pid\nexec {sys.executable} -c '{PROGRAM}' {config}\n")
    interpreter.chmod(0o755)
    verifier = speak(installed)
    assert verifier.ask(*IMPOSSIBLE)[-1].startswith("RESULT STATE REJECT")
    process = int(Path(f"{config}.pid").read_text())
    os.kill(process, 9)
    until = time.monotonic() + LIMIT
    while Path(f"/proc/{process}").exists():
        assert time.monotonic() < until
    assert verifier.ask(*IMPOSSIBLE)[-1] == "RESULT STATE ACCEPT"
    assert verifier.ask(*IMPOSSIBLE)[-1].startswith("RESULT STATE REJECT")
    assert verifier.end() == (0, "")
