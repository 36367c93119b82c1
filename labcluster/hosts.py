"""Running things on the hosts of a cluster that is up."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from labcluster import linux
from labcluster.errors import StepError
from labcluster.layout import Layout

_LAB = Path(__file__).resolve().parent
_LAST_LINES = 8
_POLL = 0.1

# setsid does not fork here, so $! is the daemon's own process id.
_START = 'name=$1; shift; setsid "$@" </dev/null & echo $! >/run/lab/"$name".pid'
_STOP = 'pid=$(cat "$1") && kill -s "$2" "$pid" && while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done'
_LIVES = 'kill -0 "$(cat "$1")"'


@dataclass(frozen=True)
class Hosts(Layout):
    """The hosts of one cluster.

    Commands run with a clean environment, in their user's home, and nothing of them outlives the cluster.
    """

    def is_running(self, host: str) -> bool:
        return linux.holder(self.init_lock(host)) is not None

    def log(self, host: str, name: str) -> Path:
        """What a daemon on the host printed."""
        return self.logs / f"{host}-{name}.log"

    def popen(
        self,
        host: str,
        argv: Sequence[str],
        *,
        user: str = "root",
        stdin: int | IO[str] | None = subprocess.DEVNULL,
        stdout: int | IO[str] | None = None,
        stderr: int | IO[str] | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command; signals sent to the process reach it, and it ends when the process does."""
        lab = [sys.executable, "-IS", str(_LAB), "exec", "--name", self.name, "--user", user, host, "--"]
        return subprocess.Popen(
            [*lab, *argv],
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=True,
            env={**os.environ, "LAB_HOME": str(self.home)},
        )

    def run(
        self,
        host: str,
        argv: Sequence[str],
        *,
        user: str = "root",
        input: str | None = None,  # noqa: A002 - subprocess's own name for it
        timeout: float = 60,
        check: bool = True,
        log: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with what it wrote captured, or appended to the host's log of that name.

        Raises StepError if it takes longer than `timeout` seconds or, unless `check` is false, if it fails.
        """
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(self.log(host, log).open("a")) if log else None
            process = stack.enter_context(
                self.popen(
                    host,
                    argv,
                    user=user,
                    stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
                    stdout=output or subprocess.PIPE,
                    stderr=output or subprocess.PIPE,
                )
            )
            try:
                out, err = process.communicate(input, timeout)
            except subprocess.TimeoutExpired:
                process.kill()
                said = last_lines(self.log(host, log) if log else None)
                raise StepError(f"{' '.join(argv)} on {host} took longer than {timeout:g} s{said}") from None
            except BaseException:
                process.kill()
                raise
        done = subprocess.CompletedProcess(list(argv), process.returncode, out or "", err or "")
        if check and done.returncode:
            said = last_lines(self.log(host, log)) if log else f": {(done.stderr.strip() or done.stdout.strip())}"
            raise StepError(f"{' '.join(argv)} on {host} failed with status {done.returncode}{said}")
        return done

    def wait_until(self, what: str, condition: Callable[[], bool], *, limit: float, log: Path | None = None) -> None:
        """Look until the condition holds; StepError, with the log's last lines, after `limit` seconds."""
        until = time.monotonic() + limit
        while not condition():
            if time.monotonic() > until:
                raise StepError(f"waited {limit:g} s in vain for {what}{last_lines(log)}")
            time.sleep(_POLL)

    # Daemons

    def start(self, host: str, name: str, argv: Sequence[str], user: str = "root") -> None:
        """Start a command in the background; what it prints goes to `log(host, name)`."""
        self.run(host, ["mkdir", "-p", "-m", "1777", "/run/lab"])
        self.run(host, ["sh", "-c", _START, "sh", name, *argv], user=user, log=name)

    def stop(self, host: str, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Send what `start` started a signal and wait until it has ended."""
        self.end_process(host, f"/run/lab/{name}.pid", number)

    def lives(self, host: str, name: str) -> bool:
        return self.is_process(host, f"/run/lab/{name}.pid")

    def end_process(self, host: str, pid_file: str, number: signal.Signals = signal.SIGTERM) -> None:
        self.run(host, ["sh", "-c", _STOP, "sh", pid_file, number.name.removeprefix("SIG")], timeout=90)

    def is_process(self, host: str, pid_file: str) -> bool:
        return self.run(host, ["sh", "-c", _LIVES, "sh", pid_file], check=False).returncode == 0


def last_lines(log: Path | None) -> str:
    """The end of a log, for the end of a message; nothing if there is none."""
    if log is None or not log.exists():
        return ""
    lines = log.read_text(errors="replace").splitlines()[-_LAST_LINES:]
    return "".join(f"\n  {line}" for line in lines) + f"\n  ({log})"
