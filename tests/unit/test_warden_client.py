"""The client without a broker, or with one in trouble: bounded, and in words."""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any, Self, cast

import pytest
import zmq.auth

from warden import client as module
from warden import config, keyring
from warden.client import Client, QuantumResource, check_shots
from warden.model import (
    BadRequestError,
    ConfigurationError,
    Task,
    TaskStatus,
    UnavailableError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def away(tmp_path: Path) -> config.Config:
    """A site whose broker is not running."""
    file = tmp_path / "warden.toml"
    file.write_text(
        f"[broker]\nkeys = '{tmp_path}/keys'\nclients = ['ipc://{tmp_path}/c']\n[access]\nmunge_socket = '{tmp_path}/m'\n"
    )
    settings = config.load(file)
    keyring.make_keys(settings.broker.keys)
    return settings


class Broken:
    """A client whose broker answers at once that it cannot, so often, and then that the task is done."""

    def __init__(self, failures: int) -> None:
        self.failures, self.asked = failures, 0

    def __enter__(self) -> Self:
        return self

    def task(self, number: int, **_: Any) -> Task:
        self.asked += 1
        if self.asked <= self.failures:
            raise UnavailableError("the broker cannot write its store")
        return Task(
            id=number,
            session="s",
            uid=0,
            shots=1,
            qubits=1,
            key="k",
            submitted=0,
            status=TaskStatus.COMPLETED,
            counts={"1": 1},
        )


def test_a_broker_that_does_not_answer_is_unavailable_after_the_timeout(away: config.Config) -> None:
    with Client(config=away, timeout=0.2) as client, pytest.raises(UnavailableError, match="is the broker running"):
        client.availability()


def test_waiting_for_a_task_ends_in_time_while_the_broker_is_away(away: config.Config) -> None:
    with QuantumResource(client=Client(config=away), session="s") as resource:
        before = time.monotonic()
        with pytest.raises((WaitTimeoutError, UnavailableError)):
            resource.wait("1", 0.3)
        # Not the client's own 30 s, and by far not the outage that a wait without an end bears.
        assert time.monotonic() - before < 15


def test_waiting_bears_a_broker_in_trouble_without_hammering_it(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(module.time, "sleep", pauses.append)
    broken = Broken(failures=3)
    resource = QuantumResource(client=cast("Client", broken), session="s")
    assert resource.wait("1") == {"1": 1}
    assert len(pauses) == 3
    assert min(pauses) > 0.1


@pytest.mark.parametrize("shots", [0, -1, 2**31, 10**30, 1.0, 1.5, True, False, None, "1", b"1", [1], float("inf")])
def test_what_is_no_number_of_shots_is_refused_before_it_is_sent(shots: object) -> None:
    with pytest.raises(BadRequestError, match="shots must be a whole number of at least 1") as caught:
        check_shots(shots)
    assert len(caught.value.text) < 200


@pytest.mark.parametrize("endpoint", ["nonsense", "tcp://", "tcp://host:x", "http://127.0.0.1:1", "ipc://" + "x" * 200])
def test_an_address_that_is_none_is_named(away: config.Config, endpoint: str) -> None:
    with Client(config=away, endpoint=endpoint, timeout=1) as client, pytest.raises(ConfigurationError) as caught:
        client.availability()
    assert endpoint in caught.value.text


def test_keys_that_are_missing_or_broken_are_named(away: config.Config) -> None:
    key = away.broker_key
    key.write_text("no key")
    with pytest.raises(ConfigurationError, match=f"{key} is no key"):
        Client(config=away)
    key.unlink()
    with pytest.raises(ConfigurationError, match=f"cannot read the key {key}: .*`warden keys`"):
        Client(config=away)


# As a program does that gives each of its threads a client; they are made to take turns as often as they can.
THREADS = """
import sys, threading
from pathlib import Path
from gridengine import configuration
from warden import config, frames
from warden.model import Availability, Plan, PastWindow, Session, Task, UnavailableError

def read():
    together.wait()
    config.load(path)
    configuration.load(path)
    frames.unpack_answer(frames.pack_answer(1, 1))
    for kind in Availability, Plan, list[PastWindow], Session, list[Task]:
        try:
            frames.convert([{}], kind)
        except UnavailableError:
            pass

path = Path(sys.argv[1])
sys.setswitchinterval(1e-6)
together = threading.Barrier(8)
for thread in [threading.Thread(target=read) for _ in range(8)]:
    thread.start()
"""


@pytest.mark.usefixtures("away")
def test_threads_that_read_their_first_messages_at_once_do_not_crash(tmp_path: Path) -> None:
    for _ in range(6):
        command = [sys.executable, "-c", THREADS, str(tmp_path / "warden.toml")]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=45, check=False)
        assert (ran.returncode, ran.stderr) == (0, "")


def test_keys_are_made_once_and_only_their_secret_halves_are_secret(tmp_path: Path) -> None:
    made = keyring.make_keys(tmp_path)
    assert {path.name for path in made} == {
        "broker.key",
        "broker.key_secret",
        "edge.key",
        "edge.key_secret",
        "worker.key",
        "worker.key_secret",
    }
    assert {path.stat().st_mode & 0o777 for path in made if path.suffix == ".key_secret"} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in made if path.suffix == ".key"} == {0o644}
    before = {path: path.read_bytes() for path in made}
    assert keyring.make_keys(tmp_path) == []
    assert {path: path.read_bytes() for path in made} == before
    public, secret = keyring.key_pair(tmp_path / "broker.key_secret")
    assert zmq.curve_public(secret) == public == keyring.public_key(tmp_path / "broker.key")
    assert keyring.public_key(tmp_path / "workers" / "worker.key") in keyring.PublicKeys(tmp_path / "workers")
