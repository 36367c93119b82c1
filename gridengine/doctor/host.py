"""What is wrong on this host, and what to do about it.

Each check looks at one thing that has hurt somebody: who may write what root runs and believes, the keys, MUNGE, the
clocks, the broker, the hooks. A check that cannot look says why, and that is a finding, too.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import os
import stat
import statistics
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from gridengine import deployment, rights
from gridengine.doctor.finding import Finding, Verdict, clocks
from warden import keyring, munge
from warden.client import Client
from warden.model import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gridengine.configuration import GridEngineSection
    from warden.config import Config

_OTHERS = 0o022
# The first uid that a distribution gives to people.
_ORDINARY = 1000
# What hooks and sensor load (tests/unit/test_root_imports.py).
_LOADED = ("warden", "gridengine", "load_sensors", "msgspec", "msgpack", "zmq")
_PATIENCE = 5.0
_HOOK_LIMIT = 30.0
# Bytes of an answer that are looked at, and the first port that users can take.
_PAGE, _USERS_PORTS = 10_000, 1024
_AGAIN = "install the kit on this host again"
# What queues name; the last one where they have hooks of their own.
_HOOKS = (*deployment.HOOKS.values(), deployment.CHAIN)


def checks(path: Path, site: Config, section: GridEngineSection) -> list[tuple[str, Callable[[], Iterator[Finding]]]]:
    """What is looked at on this host, by name."""
    return [
        ("kit", lambda: _kit(section)),
        ("broker's key", lambda: trusted("broker's key", site.broker_key)),
        ("keys", lambda: _owned(site.broker.keys)),
        ("secret keys", lambda: _secrets(site.broker.keys)),
        ("readable", lambda: _readable(path, site.broker_key)),
        ("MUNGE", lambda: _munge(site)),
        ("edge", lambda: _edge(site)),
        ("links", _links),
        ("hooks here", lambda: _hooks(section)),
    ]


def _kit(section: GridEngineSection) -> Iterator[Finding]:
    """All that root's interpreter loads, not only the interpreter."""
    programs = [section.bin / name for name in ("python", *_HOOKS, deployment.SENSOR)]
    modules = [Path(place) for name in _LOADED for place in _places(name)]
    missing = [path for path in programs if not path.exists()]
    if missing:
        yield Finding(Verdict.BAD, "kit", f"{missing[0]} is missing", f"correct gridengine.bin, or {_AGAIN}")
        return
    for path in (*programs, *modules):
        findings = list(trusted("kit", path))
        if findings[-1].verdict is not Verdict.OK:
            yield from findings
            return
    for path in (file for module in modules for file in module.rglob("*")):
        wrong = rights.fault(path, path.lstat())
        if wrong is not None and not path.is_symlink():
            yield Finding(Verdict.BAD, "kit", *wrong)
            return
    yield Finding(Verdict.OK, "kit", f"{section.bin}, and what is loaded from it: only root may write it")


def _places(name: str) -> list[str]:
    spec = importlib.util.find_spec(name)
    return [] if spec is None else list(spec.submodule_search_locations or ())


def _edge(site: Config) -> Iterator[Finding]:
    """What jobs of this host find where the prolog sends them; whoever holds the port hears their credentials."""
    url = site.http.reachable
    if not url:
        return
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:  # noqa: S310 - the configuration takes http alone
            found = json.loads(answer.read(_PAGE))
    except (OSError, ValueError) as error:
        fix = "start the edge (`warden serve --edge-only`, or warden-edge.socket), or correct http.url and its certificate"
        yield Finding(Verdict.BAD, "edge", f"no edge answers at {url}: {error}", fix)
        return
    if found != {"service": "Warden", "qpu": site.qpu.name}:
        fix = "see who listens there (ss -ltnp): QRMI's clients show him their credentials"
        yield Finding(Verdict.BAD, "edge", f"what answers at {url} is no edge of the QPU {site.qpu.name}", fix)
        return
    port = urllib.parse.urlsplit(url).port or 80
    if site.http.is_local and port >= _USERS_PORTS:
        seen = f"{url} is at a port that any user of this host can take while the edge is not there"
        yield Finding(Verdict.WARNING, "edge", seen, f"let systemd hold a port below {_USERS_PORTS} for it")
        return
    yield Finding(Verdict.OK, "edge", f"{url} serves QRMI's clients")


def trusted(what: str, path: Path) -> Iterator[Finding]:
    """What root runs or believes is written by root alone, with all folders on the way there, wherever links lead."""
    wrong = rights.on_the_way(path, may_be_anybodys=lambda place: _is_keys_folder(place, what))
    if wrong is None:
        yield Finding(Verdict.OK, what, f"{path}: only root may write it")
    else:
        yield Finding(Verdict.BAD, what, *wrong)


def _is_keys_folder(place: Path, what: str) -> bool:
    """The folder of the keys, and what lies in it, belong to the user who runs the broker."""
    return what == "broker's key" and (place.suffix == ".key" or (place / f"{keyring.BROKER}.key").exists())


def _owned(folder: Path) -> Iterator[Finding]:
    """Whoever can put a key here is the broker, or a worker: all of it is one user's, and that is no ordinary one."""
    if not folder.exists():
        yield Finding(Verdict.OK, "keys", f"there is no {folder} here, as it may be where no broker or worker runs")
        return
    paths = (*sorted(folder.rglob("*")), folder)
    # Whose most of it is: the one that is another's is the one to mend, be it the folder.
    owner = statistics.mode(path.lstat().st_uid for path in paths)
    for path in paths:
        found = path.lstat()
        if found.st_uid != owner:
            seen = f"{path} belongs to {rights.user(found.st_uid)}, and what is beside it to {rights.user(owner)}"
            yield Finding(
                Verdict.BAD, "keys", seen, f"chown {rights.user(owner)} {path}; if it is a secret key, change it"
            )
            return
        if found.st_mode & _OTHERS:
            seen = f"{path} may be written by others: who can put a key there is the broker, or a worker"
            yield Finding(Verdict.BAD, "keys", seen, f"chmod go-w {path}, and look what is there")
            return
    if owner >= _ORDINARY:
        seen = f"{folder} belongs to {rights.user(owner)}, who can pass for the broker"
        yield Finding(Verdict.WARNING, "keys", seen, "chown it to the user who runs the broker, if that is another one")
        return
    yield Finding(Verdict.OK, "keys", f"{folder} and all in it are {rights.user(owner)}'s")


def _readable(*paths: Path) -> Iterator[Finding]:
    """What everybody's client reads, and the folders on the way there."""
    for path in paths:
        for place in (*reversed(path.absolute().parents), path):
            wanted = 0o001 if place != path else 0o004
            if not place.stat().st_mode & wanted:
                fix = f"chmod o+{'r' if place == path else 'x'} {place}"
                yield Finding(Verdict.BAD, "readable", f"users' programs cannot read {path}, for {place}", fix)
                return
    yield Finding(Verdict.OK, "readable", f"everybody can read {' and '.join(map(str, paths))}")


def _secrets(folder: Path) -> Iterator[Finding]:
    here = sorted(folder.glob("*.key_secret"))
    if not here:
        yield Finding(Verdict.OK, "secret keys", "none on this host, as it should be where no broker or worker runs")
        return
    for path in here:
        mode = stat.S_IMODE(path.lstat().st_mode)
        if mode & 0o077:
            yield Finding(
                Verdict.BAD, "secret keys", f"{path} has mode {mode:o}", f"chmod 600 {path}, then change the key"
            )
            return
        keyring.key_pair(path)
    yield Finding(Verdict.OK, "secret keys", f"{', '.join(path.name for path in here)}: only their owner may read them")


def _munge(site: Config) -> Iterator[Finding]:
    if site.access.identity == "kernel":
        yield Finding(Verdict.OK, "MUNGE", "not needed: access.identity is kernel")
        return
    proven = munge.decode(munge.encode(b"", site.access.munge_socket), site.access.munge_socket)
    named = site.access.hosts or site.access.root_hosts
    if named and ipaddress.IPv4Address(proven.host).is_loopback:
        seen = f"munged says that this host is {proven.host}, and access.hosts or access.root_hosts go by that"
        yield Finding(Verdict.BAD, "MUNGE", seen, "start munged with --origin ADDRESS of this host")
    else:
        yield Finding(Verdict.OK, "MUNGE", f"munged works, and says that this host is {proven.host}")


def broker(site: Config) -> Iterator[Finding]:
    with Client(config=site, timeout=_PATIENCE) as client:
        begun = time.time_ns() // 1000
        answer = client.availability()
        ended = time.time_ns() // 1000
        client.sessions(limit=1)
    verdict = Verdict.OK if answer.state is not State.OFFLINE else Verdict.WARNING
    fix = "" if verdict is Verdict.OK else "see `warden status`, and the worker's log"
    reason = f" ({answer.reason})" if answer.reason else ""
    yield Finding(verdict, "broker", f"it answers and knows us; the QPU {answer.name} is {answer.state}{reason}", fix)
    yield clocks(answer.time - (begun + ended) // 2, (ended - begun) // 2)


def _links() -> Iterator[Finding]:
    setting = Path("/proc/sys/fs/protected_symlinks")
    if setting.read_text().strip() == "1":
        yield Finding(Verdict.OK, "links", "fs.protected_symlinks is on")
    else:
        seen = "fs.protected_symlinks is off: SGE 8.1.9 follows a user's link in the place of a job's tmpdir, as root"
        yield Finding(Verdict.WARNING, "links", seen, "sysctl fs.protected_symlinks=1, and in /etc/sysctl.d")


def _hooks(section: GridEngineSection) -> Iterator[Finding]:
    for program in _HOOKS:
        path = section.bin / program
        if not os.access(path, os.X_OK):
            yield Finding(Verdict.BAD, "hooks here", f"{path} is missing, or may not be executed", _AGAIN)
            return
        done = subprocess.run([path, "--check"], capture_output=True, text=True, timeout=_HOOK_LIMIT, check=False)
        if done.stdout.strip() != "ok":
            words = " ".join((done.stderr or done.stdout).split())[-300:] or f"exit status {done.returncode}"
            yield Finding(Verdict.BAD, "hooks here", f"{path} cannot start: {words}", _AGAIN)
            return
    yield Finding(Verdict.OK, "hooks here", f"{', '.join(_HOOKS)} in {section.bin} can start")
