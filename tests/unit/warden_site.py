"""A site of one's own: a munged, keys, a configuration, a broker and workers as real processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest

from warden import config as configuration
from warden import munge
from warden.client import Client, QuantumResource
from warden.events import Keep
from warden.model import SECOND, Session, State, UnavailableError
from warden.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from warden.config import Config

SEQUENCES = Path(__file__).parent.parent / "samples" / "sequences"
AFM = (SEQUENCES / "afm_square.json").read_text(encoding="utf-8")
NOBODY = 65534
WARDEN = str(Path(sys.executable).with_name("warden"))
FORKING = "from warden.qpu import process; process._INSTANT = set(); from warden.cli import main; main()"
# The session that each site has from the beginning, of the user who runs the tests.
SESSION = "the-session"
# Nothing here takes so long, on the busiest machine; a test that waits for it has found something.
LIMIT = 120.0


def wait_until(condition: Callable[[], Any], what: str, limit: float = LIMIT) -> Any:
    """Wait for a condition, and fail by its name."""
    end = time.monotonic() + limit
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {limit} s: {what}"
        time.sleep(0.01)
    return value


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Site:
    """`with Site() as site:`; every process that it starts is ended with it, and none may outlive it."""

    def __init__(self) -> None:
        # Short: the path of a socket has at most 107 characters.
        self.room = Path(tempfile.mkdtemp(prefix="w", dir="/tmp"))
        self.room.chmod(0o755)
        self.file = self.room / "warden.toml"
        self.munge_socket = self.room / "munge"
        self.processes: list[subprocess.Popen[bytes]] = []
        self._logs = 0

    def __enter__(self) -> Self:
        if shutil.which("munged", path=f"{os.environ.get('PATH', '')}:/usr/sbin") is None:
            self.__exit__()
            pytest.skip("munged is not installed")
        self.start_munged()
        self.configure()
        self.warden("keys", check=True)
        self._make_session()
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                process.kill()
            process.wait()
        shutil.rmtree(self.room, ignore_errors=True)

    def start_munged(self) -> None:
        key = self.room / "munge.key"
        if not key.exists():
            key.write_bytes(os.urandom(64))
            key.chmod(0o400)
        files = {"key": key, "pid": "munge.pid", "log": "munge.log", "seed": "munge.seed"}
        options = [f"--{name}-file={self.room / file}" for name, file in files.items()]
        munged = shutil.which("munged", path=f"{os.environ.get('PATH', '')}:/usr/sbin") or "munged"
        self.munged = self.start([munged, "--foreground", "--force", f"--socket={self.munge_socket}", *options])
        wait_until(self.munge_socket.exists, "munged listens")

    def configure(self, **sections: dict[str, Any]) -> Config:
        """Write the configuration: what a test needs, then what a site needs."""
        settings: dict[str, dict[str, Any]] = {
            "qpu": {
                "name": "fresnel",
                "device": "AnalogDevice",
                "qubits": 8,
                "places": 4,
                "overhead": 0.1,
                "loading": 0,
                "shot_rate": 0,
            },
            "broker": {
                "clients": [f"ipc://{self.room}/c"],
                "workers": [f"ipc://{self.room}/w"],
                "edges": [f"ipc://{self.room}/e"],
                "state": str(self.room / "state"),
                "keys": str(self.room / "keys"),
                # A worker that gets no time for three of them is lost: on a busy machine that may be a second.
                "heartbeat": 1.0,
            },
            "access": {"munge_socket": str(self.munge_socket), "operators": ["root", os.getuid()]},
        }
        for name, values in sections.items():
            settings.setdefault(name, {}).update(values)
        lines = []
        for name, values in settings.items():
            lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in values.items()), ""]
        self.file.write_text("\n".join(lines), encoding="utf-8")
        self.config = configuration.load(self.file)
        return self.config

    def _make_session(self) -> None:
        """Only root can acquire one; so that others can run these tests too, the store has it already."""
        now = time.time_ns() // 1000
        session = Session(id=SESSION, uid=os.getuid(), job="1", host="", acquired=now, expires=now + 86400 * SECOND)
        (self.room / "state").mkdir()
        store = Store(self.room / "state" / "warden.db")
        store.begin()
        store.apply([Keep(session)])
        store.commit()
        store.close()

    # --- processes ---

    def start(self, command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        self._logs += 1
        log = self.room / f"{self._logs}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, **options
            )
        process.log = log
        self.processes.append(process)
        return process

    def start_broker(self, *, wait: bool = True) -> subprocess.Popen[bytes]:
        self.broker = self.start([WARDEN, "serve", "--config", str(self.file)])
        if wait:
            wait_until(lambda: "serving the QPU" in self.log_of(self.broker), "the broker serves")
        return self.broker

    def start_edge(self, port: int) -> subprocess.Popen[bytes]:
        """One more edge, at another port than the broker's own."""
        file = self.room / f"edge{port}.toml"
        file.write_text(self.file.read_text().replace(self.config.http.listen, f"127.0.0.1:{port}"), encoding="utf-8")
        edge = self.start([WARDEN, "serve", "--edge-only", "--config", str(file)])
        wait_until(lambda: "serving QRMI's clients" in self.log_of(edge), "the edge serves")
        return edge

    def start_worker(self, *, wait: bool = True, at_once: bool = False, code: str = FORKING) -> subprocess.Popen[bytes]:
        """`at_once`: an echo's runs have no processes; here they have them, so that these can be killed as others'."""
        command = [WARDEN] if at_once else [sys.executable, "-c", code]
        self.worker = self.start([*command, "worker", "--config", str(self.file)])
        if wait:
            self.wait_for(State.READY)
        return self.worker

    @staticmethod
    def log_of(process: subprocess.Popen[bytes]) -> str:
        return str(process.log.read_text(errors="replace"))

    @staticmethod
    def kill(process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGKILL)
        process.wait()

    def warden(self, *arguments: str, check: bool = False, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [WARDEN, *arguments, "--config", str(self.file)]
        return subprocess.run(command, capture_output=True, text=True, check=check, timeout=LIMIT, **options)

    # --- clients ---

    def http(self, port: int | None = None, *, anonymous: bool = False, **options: Any) -> httpx.Client:
        """Of the edge, with a new credential for each request, as QRMI's clients have them."""
        http = self.config.http
        url = http.reachable if port is None else http.reachable.replace(str(http.address[1]), str(port))
        shown = None if anonymous else Credentials(self.munge_socket)
        return httpx.Client(base_url=url, auth=shown, timeout=LIMIT, trust_env=False, **options)

    @contextlib.contextmanager
    def client(self, timeout: float = 30.0) -> Iterator[Client]:
        with Client(config=self.config, timeout=timeout) as client:
            yield client

    def state(self) -> State | None:
        try:
            with self.client(timeout=10) as client:
                return client.availability().state
        except UnavailableError:
            return None

    def wait_for(self, state: State) -> None:
        wait_until(lambda: self.state() is state, f"the QPU is {state}")

    @contextlib.contextmanager
    def resource(self, session: str = SESSION, timeout: float = 30.0) -> Iterator[QuantumResource]:
        with QuantumResource(client=Client(config=self.config, timeout=timeout), session=session) as resource:
            yield resource


class Credentials(httpx.Auth):
    """A fresh MUNGE credential over nothing with each request."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def auth_flow(self, request: httpx.Request) -> Iterator[httpx.Request]:
        request.headers["X-Munge-Cred"] = munge.encode(b"", self._socket)
        yield request


def as_user(uid: int, code: str, site: Site) -> list[str]:
    """Run code as another user of this host, with a client `c`; `ask` prints an answer, or the code of the refusal."""
    program = f"""
import os, sys, encodings.idna
from warden.client import Client
from warden import config, munge
from warden.model import State, WardenError
munge._library(), munge._libc()
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
from pathlib import Path
room = {str(site.room)!r}
def ask(question):
    try:
        print(question())
    except WardenError as error:
        print(error.code)
    except OSError as error:
        print(type(error).__name__)
c = Client(config=config.load(Path({str(site.file)!r})), timeout=30)
{textwrap.dedent(code)}
c.close()
"""
    finished = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert finished.stderr == ""
    return finished.stdout.splitlines()


def _toml(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)
