"""One user against all: a thousand connections that flood the broker, do not read, and die. Others keep their service."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from warden_site import NOBODY, Site, wait_until

from warden.wire import LARGEST

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

CONNECTIONS = 1_000
# The others ask so often, and the flood lasts for so many seconds at least.
QUESTIONS, FLOOD = 20, 4
# Megabytes: of each connection libzmq holds three messages at most, and the broker has some tens without any.
MEMORY = 100 + CONNECTIONS * 3 * LARGEST // 10**6

ATTACKER = """
import os, resource, sys
from pathlib import Path
import zmq
from warden import config, frames, keyring, wire
kind, count, file, uid = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
site = config.load(file)
key = keyring.public_key(site.broker_key)
context = zmq.Context()
context.max_sockets = count + 10
os.setgroups([]); os.setgid(uid); os.setuid(uid)
message = {
    "questions": frames.pack_request(1, wire.GetPlan(count=1000)),
    "forged credentials": frames.pack_request(1, wire.Hello(credential="MUNGE:AAAA:")),
    "requests of nobody": frames.pack_request(1, wire.ListTasks()),
    "garbage": os.urandom(2000),
    "large frames": os.urandom(wire.LARGEST - 100),
    "questions, and reads no answer": frames.pack_request(1, wire.GetPlan(count=1000)),
}[kind]
connections = []
for _ in range(count):
    connection = context.socket(zmq.DEALER)
    connection.linger = 0
    connection.curve_publickey, connection.curve_secretkey = zmq.curve_keypair()
    connection.curve_serverkey = key
    connection.connect(site.client_endpoint)
    connections.append(connection)
print("begun", flush=True)
while True:
    for connection in connections:
        try:
            connection.send(message, zmq.NOBLOCK)
        except zmq.Again:
            pass
        while not kind.endswith("no answer"):
            try:
                connection.recv(zmq.NOBLOCK)
            except zmq.Again:
                break
"""


@pytest.fixture(scope="module")
def flooded_site() -> Iterator[Site]:
    with Site() as site:
        site.start_broker()
        site.start_worker()
        yield site


def descriptors(site: Site) -> int:
    return len(list(Path(f"/proc/{site.broker.pid}/fd").iterdir()))


def megabytes(site: Site) -> int:
    status = Path(f"/proc/{site.broker.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1000


@pytest.mark.parametrize(
    "kind",
    [
        "questions",
        "forged credentials",
        "requests of nobody",
        "garbage",
        "large frames",
        "questions, and reads no answer",
    ],
)
def test_whoever_floods_the_broker_hinders_nobody_else_and_leaves_nothing(flooded_site: Site, kind: str) -> None:
    site, before = flooded_site, descriptors(flooded_site)
    command = [sys.executable, "-c", ATTACKER, kind, str(CONNECTIONS), str(site.file), str(NOBODY)]
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert attacker.stdout
        assert attacker.stdout.readline() == b"begun\n"
        wait_until(lambda: descriptors(site) > before + CONNECTIONS * 9 // 10, "its connections are there")
        end, most, answered = time.monotonic() + FLOOD, 0, 0
        # Each is answered before its client gives up; in fact within a second.
        with site.client(timeout=20) as client:
            while answered < QUESTIONS or time.monotonic() < end:
                assert client.sessions()
                answered, most = answered + 1, max(most, megabytes(site))
        assert most < MEMORY, f"{most} MB"
    finally:
        # Without a word to anybody, in the middle of all that it has sent.
        attacker.kill()
        attacker.communicate()
    with site.client() as client:
        wait_until(lambda: client.sessions() and descriptors(site) <= before + 2, "its connections are gone")
    assert site.broker.poll() is None, site.log_of(site.broker)


def test_the_broker_takes_as_many_connections_as_its_host_allows(flooded_site: Site) -> None:
    soft, hard = resource.prlimit(flooded_site.broker.pid, resource.RLIMIT_NOFILE)
    assert soft == hard
