"""The kit on a cluster: its virtual environment, its configuration, Warden and the QPU's worker."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from labcluster import cell
from labcluster.errors import StepError
from labcluster.files import BROKER_USER
from labcluster.hosts import Hosts, last_lines
from labcluster.layout import MASTER, Layout, locked

CONFIG = "/etc/warden/warden.toml"

TREE = Path(__file__).resolve().parent.parent
_PARTS = ("pyproject.toml", "README.md", "LICENSE", "warden", "gridengine", "load_sensors", "share")
# Debian's own, which the hosts have too; not the one that this process may run in.
PYTHON = "/usr/bin/python3"
# Ends, with all that it started, when this process does, however that ends.
_LEASH = ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child"]


def install(layout: Layout, say: Callable[[str], None]) -> None:
    """Bring the environment of the kit up to date with this tree; nothing to do if it is."""
    with locked(layout.home / "locks" / ".kit"):
        wanted = _fingerprint()
        stamp = layout.kit / "installed-from"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        log = layout.home / "pip.log"
        log.write_text("")
        begun = layout.kit / "incomplete"
        if begun.exists() or not stamp.exists():
            say("installing the kit into an environment of its own (a minute, the first time)")
            shutil.rmtree(layout.kit, ignore_errors=True)
            layout.kit.mkdir(parents=True)
            begun.touch()
            logged([PYTHON, "-m", "venv", str(layout.kit)], log, "the kit")
            # What the kit is built with stays, so that installing it again needs no network.
            _pip(layout, log, "install", "hatchling>=1.27", "setuptools", "wheel")
        else:
            say("installing the changed kit")
            begun.touch()
        _pip(layout, log, "install", "--no-build-isolation", f"{TREE}[worker,http]")
        begun.unlink()
        stamp.write_text(wanted)


def link_commands(layout: Layout) -> None:
    """Put the kit's commands where every login and every job finds them."""
    for path in (layout.kit / "bin").iterdir():
        if path.name == "warden" or path.name.startswith("qpu"):
            (layout.commands / path.name).symlink_to(path)
    link_python(layout.kit, layout.commands / "qpu-python")


def link_python(environment: Path, command: Path) -> None:
    """Make a command of an environment's Python."""
    # Not a link: a Python that is started through one does not find its environment.
    command.write_text(f'#!/bin/sh\nexec {environment}/bin/python "$@"\n')
    command.chmod(0o755)


def start(cluster: Hosts, shot_rate: float, say: Callable[[str], None]) -> None:
    """Start Warden, tell Grid Engine about the QPU, and wait until both say that it is ready."""
    say("starting Warden and the QPU")
    link_commands(cluster)
    template = Path(__file__).with_name("warden.toml").read_text()
    (cluster.etc / "warden" / "warden.toml").write_text(template.replace("@SHOT_RATE@", f"{shot_rate:g}"))
    cluster.run(MASTER, ["install", "-d", "-o", BROKER_USER, "-g", BROKER_USER, "/run/warden"])
    cluster.run(MASTER, ["warden", "keys", "--config", CONFIG], user=BROKER_USER)
    start_broker(cluster)
    start_worker(cluster)
    cluster.wait_until("Warden and the QPU", lambda: is_ready(cluster), limit=180, log=cluster.log(MASTER, "worker"))
    cluster.run(MASTER, ["qpu-admin", "apply"], log="apply")
    # A newly configured load sensor starts with its execution daemon only.
    nodes = [host for host in cluster.hosts if host != MASTER]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda node: _restart_execd(cluster, node), nodes))
    cluster.wait_until("Grid Engine to see the QPU", lambda: _is_seen(cluster), limit=180)


def start_broker(cluster: Hosts) -> None:
    cluster.start(MASTER, "broker", ["warden", "serve", "--config", CONFIG], user=BROKER_USER)


def stop_broker(cluster: Hosts, number: signal.Signals = signal.SIGTERM) -> None:
    cluster.stop(MASTER, "broker", number)


def start_worker(cluster: Hosts) -> None:
    cluster.start(MASTER, "worker", ["warden", "worker", "--config", CONFIG], user=BROKER_USER)


def stop_worker(cluster: Hosts, number: signal.Signals = signal.SIGTERM) -> None:
    cluster.stop(MASTER, "worker", number)


def is_ready(cluster: Hosts) -> bool:
    """Whether Warden says that its QPU takes tasks; StepError if one of the two daemons has ended."""
    for name in ("broker", "worker"):
        if not cluster.lives(MASTER, name):
            raise StepError(f"Warden's {name} has ended{last_lines(cluster.log(MASTER, name))}")
    asked = cluster.run(MASTER, ["warden", "status", "--json"], check=False)
    if asked.returncode:
        return False
    try:
        return bool(json.loads(asked.stdout)["state"] == "ready")
    except (ValueError, KeyError, TypeError):
        raise StepError(f"warden status --json on master printed no state: {asked.stdout!r}") from None


def _is_seen(cluster: Hosts) -> bool:
    return "qpu_state=ready" in cluster.run(MASTER, ["qhost", "-F", "qpu_state"], check=False).stdout


def _restart_execd(cluster: Hosts, node: str) -> None:
    cell.stop_execd(cluster, node)
    cell.start_execd(cluster, node)


def _fingerprint() -> str:
    """A hash over everything that goes into the kit's wheel."""
    digest = hashlib.sha256()
    for part in _PARTS:
        top = TREE / part
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            if path.is_file() and "__pycache__" not in path.parts:
                content = path.read_bytes()
                digest.update(f"{path.relative_to(TREE)} {path.stat().st_mode & 0o111} {len(content)}\n".encode())
                digest.update(content)
    return digest.hexdigest()


def _pip(layout: Layout, log: Path, *arguments: str) -> None:
    logged([str(layout.kit / "bin" / "pip"), "--disable-pip-version-check", "-q", *arguments], log, "the kit")


def logged(argv: list[str], log: Path, what: str) -> None:
    """Run a step of installing something, with its output in a log; StepError if it fails."""
    # pip keeps the machine's settings, but not those of an environment that this process happens to run in.
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    with log.open("a") as output:
        done = subprocess.run(
            [*_LEASH, *argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment, check=False
        )
    if done.returncode:
        raise StepError(f"could not install {what}{last_lines(log)}")
