"""What keeps Warden from starting is said in one line, with a status that systemd's limits count."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
from warden_site import LIMIT, NOBODY, WARDEN, wait_until

from warden import keyring
from warden.model import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from warden_site import Site

pytestmark = pytest.mark.long

HOUR = 3600
# Imports first: what the interpreter is made of may lie in root's own folder.
AS_NOBODY = f"""
import os, sys, encodings.idna
from warden import broker, cli, config, edge_process, journal, preflight, worker
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
cli.main(prog_name="warden")
"""
BROKER, WORKER, EDGE = ("serve",), ("worker",), ("serve", "--edge-only")


def refused(site: Site, *command: str, as_nobody: bool = False) -> str:
    """What it says, in its one line."""
    program = [sys.executable, "-c", AS_NOBODY] if as_nobody else [WARDEN]
    done = subprocess.run(
        [*program, *command, "--config", str(site.file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert (done.returncode, done.stdout) == (1, ""), done
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("warden: ")
    return lines[0]


def _missing(key: Path) -> None:
    key.unlink()


def _no_key(key: Path) -> None:
    key.write_text("nonsense\n")


@pytest.mark.parametrize("damage", [_missing, _no_key])
@pytest.mark.parametrize(
    ("command", "key"), [(BROKER, "broker.key_secret"), (WORKER, "worker.key_secret"), (WORKER, "broker.key")]
)
def test_a_key_that_is_missing_or_none(
    site: Site, command: tuple[str, ...], key: str, damage: Callable[[Path], None]
) -> None:
    damage(site.room / "keys" / key)
    said = refused(site, *command)
    assert str(site.room / "keys" / key) in said
    assert "`warden keys`" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="to be somebody else")
@pytest.mark.parametrize("command", [BROKER, WORKER])
def test_a_key_of_somebody_else(site: Site, command: tuple[str, ...]) -> None:
    assert "it is another user's" in refused(site, *command, as_nobody=True)


def test_a_key_whose_other_half_is_another_one(site: Site, tmp_path: Path) -> None:
    keyring.make_keys(tmp_path / "others")
    public = site.room / "keys" / "broker.key"
    public.write_bytes((tmp_path / "others" / "broker.key").read_bytes())
    assert f"{public} does not belong to broker.key_secret" in refused(site, *BROKER)


def test_a_change_of_keys_that_was_cut_short(site: Site) -> None:
    keys = site.room / "keys"
    keyring.make_next(keys)
    (keys / "broker.next.key").rename(keys / "broker.key")
    assert "`warden keys --switch` ends what it began" in refused(site, *BROKER)
    site.warden("keys", "--switch", check=True)
    site.start_broker()


@pytest.mark.parametrize("where", ["clients", "workers"])
def test_a_port_that_is_taken(site: Site, where: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        site.configure(broker={where: [address]})
        assert f"cannot listen at {address}: Address already in use" in refused(site, *BROKER)


def test_a_port_of_an_edge_that_is_taken(site: Site) -> None:
    pytest.importorskip("fastapi")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        site.configure(http={"listen": address})
        assert f"cannot listen at {address}: Address already in use" in refused(site, *EDGE)


@pytest.mark.skipif(os.geteuid() != 0, reason="to be somebody else")
@pytest.mark.parametrize("there", [True, False])
def test_a_state_folder_that_is_not_writable(site: Site, *, there: bool) -> None:
    for path in (site.room / "keys").rglob("*"):
        path.chmod(path.stat().st_mode | 0o044)
    state = site.room / "closed" / "state"
    (state if there else state.parent).mkdir(parents=True)
    site.configure(broker={"state": str(state)})
    said = refused(site, *BROKER, as_nobody=True)
    assert str(state) in said
    assert said.endswith(": Permission denied")


def test_an_audit_trail_that_cannot_be_written(site: Site) -> None:
    site.configure(log={"audit": "/proc/nothing/audit.jsonl"})
    assert "cannot write the audit trail /proc/nothing/audit.jsonl: " in refused(site, *BROKER)


def test_a_clock_that_is_behind_what_was_written(site: Site) -> None:
    store = site.room / "state" / "warden.db"
    assert store.exists()
    ahead = time.time() + 400 * 24 * HOUR
    os.utime(store, (ahead, ahead))
    said = refused(site, *BROKER)
    assert "set the clock; if it is right, `touch " in said
    # What it says to do helps.
    subprocess.run(["/bin/sh", "-c", said.split("`")[1]], check=True, timeout=LIMIT)
    site.start_broker()


def test_a_clock_that_was_set_back_a_little_is_the_broker_s_to_see(site: Site) -> None:
    ahead = time.time() + HOUR / 2
    os.utime(site.room / "state" / "warden.db", (ahead, ahead))
    site.start_broker()
    assert site.state() is State.OFFLINE


def test_a_worker_whose_key_nobody_has_registered_says_so_and_waits(site: Site) -> None:
    """It counts from the moment at which it lies there."""
    key = site.room / "keys" / "workers" / "worker.key"
    content = key.read_bytes()
    key.unlink()
    site.configure(qpu={"emulator": "echo"})
    site.start_broker()
    site.start_worker(wait=False)
    wait_until(lambda: "does not take this worker" in site.log_of(site.worker), "the worker says so")
    assert site.worker.poll() is None
    key.write_bytes(content)
    site.wait_for(State.READY)
