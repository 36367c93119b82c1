"""One user against all at the HTTP edge: a thousand connections that ask, wait, do not read, or send slowly."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from qrmi_edge import with_tls
from warden_site import AFM, SESSION, Site, free_port, wait_until

from warden.events import Keep
from warden.model import SECOND, Session, Task, TaskStatus
from warden.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user"),
]

CONNECTIONS = 1_000
# The others ask so often, and the flood lasts for so many seconds at least.
QUESTIONS, FLOOD = 5, 2.0
# What the others may have to wait, in seconds, over HTTP and at the broker's other door: generous, no measure of speed.
OVER_HTTP, AT_THE_OTHER_DOOR = 20.0, 10.0
# Megabytes of the edge and of the broker.
MEMORY = 700
# Of the attacker's large result.
SHOTS, QUBITS = 20_000, 60

# Each attacker is another user, known by his name or nobody; those who want large answers have one, a task of their number.
KINDS = {
    "requests of nobody": 0,
    "bad credentials": 0,
    "half-open connections": 0,
    "pages, and reads none": 0,
    "valid requests": 61_001,
    "large answers": 61_002,
    "large answers, and reads none": 61_003,
    "slow uploads": 61_004,
}

ATTACKER = """
import encodings.idna, os, resource, select, socket, sys, time
from pathlib import Path
from warden import munge
kind, count, port, munge_socket, uid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5])
most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
munge._library(), munge._libc()
# He has a host of his own.
os.nice(10)
os.setgroups([]); os.setgid(uid or 65534); os.setuid(uid or 65534)

def request(line, *headers, body=b""):
    return b"\\r\\n".join((line + b" HTTP/1.1", b"Host: x", *headers, b"", body))

def credential():
    return b"X-Munge-Cred: " + munge.encode(b"", munge_socket).encode()

def made():
    match kind:
        case "requests of nobody":
            return request(b"GET /jobs")
        case "bad credentials":
            return request(b"GET /jobs", b"X-Munge-Cred: MUNGE:AwQDAAC:")
        case "valid requests":
            return request(b"GET /jobs", credential())
        case "half-open connections":
            return b"GET /jobs HTTP/1.1\\r\\nX: "
        case "large answers" | "large answers, and reads none":
            return request(b"GET /jobs/%d" % uid, credential())
        case "pages, and reads none":
            return request(b"GET /assets/swagger-ui-bundle.js") * 8
        case "slow uploads":
            return request(b"POST /jobs", credential(), b"Content-Length: 1000000", body=b" ")

reads = not kind.endswith("reads none")
poll = select.epoll()
held = {}

def begin():
    one = socket.socket()
    if not reads:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    try:
        one.connect(("127.0.0.1", port))
        one.sendall(made())
        one.setblocking(False)
    except OSError:
        return
    held[one.fileno()] = one
    poll.register(one, select.EPOLLIN if reads else 0)

def end(number):
    poll.unregister(number)
    held.pop(number).close()

told = False
while True:
    for _ in range(min(50, count - len(held))):
        begin()
    if not told and len(held) >= count * 9 // 10:
        told = print("begun", flush=True) or True
    for number, what in poll.poll(0.01):
        one = held[number]
        try:
            got = b""
            while part := one.recv(1 << 20):
                got += part
            end(number)
        except BlockingIOError:
            # Slow uploads send on, a byte at a time; the others ask again once an answer is here.
            if got:
                try:
                    one.send(made())
                except OSError:
                    end(number)
        except OSError:
            end(number)
"""


@pytest.fixture(scope="module")
def flooded() -> Iterator[Site]:
    with Site() as site:
        site.configure(
            http={"listen": f"127.0.0.1:{free_port()}"},
            qpu={"emulator": "echo", "overhead": 0},
            log={"audit": f"{site.room}/audit"},
            # In the flood a worker may get no time for a while, and is not lost for that.
            broker={"heartbeat": 5},
        )
        leave_large_results(site)
        site.start_broker()
        wait_until(lambda: "serving QRMI's clients" in site.log_of(site.broker), "the edge serves")
        site.start_worker()
        with site.http() as client:
            # What it opens for its first request stays open.
            assert client.get("/jobs").json() == []
        yield site


def leave_large_results(site: Site) -> None:
    now = time.time_ns() // 1000
    counts = {format(number, f"0{QUBITS}b"): 1 for number in range(SHOTS)}
    store = Store(site.room / "state" / "warden.db")
    store.begin()
    for uid in (uid for kind, uid in KINDS.items() if kind.startswith("large")):
        session = Session(id=f"of {uid}", uid=uid, job="2", host="", acquired=now, expires=now + 3600 * SECOND)
        told = {"session": session.id, "job": "2", "key": "k", "status": TaskStatus.COMPLETED}
        sizes = {"shots": SHOTS, "shots_done": SHOTS, "qubits": QUBITS, "counts": counts}
        task = Task(id=uid, uid=uid, submitted=now, since=now, finished=now, **told, **sizes)
        store.apply([Keep(session), Keep(task)])
    store.commit()
    store.close()


def edge_of(site: Site) -> int:
    tasks = Path(f"/proc/{site.broker.pid}/task")
    (edge,) = {int(pid) for thread in tasks.iterdir() for pid in (thread / "children").read_text().split()}
    return edge


def megabytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1000


def connections(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def offenders(site: Site) -> set[str]:
    """Whom the audit trail names among those who were refused."""
    facts = [msgspec.json.decode(line) for line in (site.room / "audit").read_text().splitlines()]
    return {str(one.get("by", one.get("address"))) for one in facts if "why" in one}


@pytest.mark.parametrize(("kind", "uid"), KINDS.items())
def test_whoever_floods_the_edge_hinders_nobody_and_is_named(flooded: Site, kind: str, uid: int) -> None:
    site, edge = flooded, edge_of(flooded)
    before = connections(edge)
    port = str(site.config.http.address[1])
    command = [sys.executable, "-c", ATTACKER, kind, str(CONNECTIONS), port, str(site.munge_socket), str(uid)]
    attacker = subprocess.Popen(command, stdout=subprocess.PIPE)
    slowest: dict[str, float] = {}
    most = [0, 0]
    try:
        assert attacker.stdout
        assert attacker.stdout.readline() == b"begun\n"
        end, asked = time.monotonic() + FLOOD, 0
        while asked < QUESTIONS or time.monotonic() < end:
            # Each is another client, as jobs are: its connection has to be let in, too.
            with site.http() as qpu, site.client(timeout=20) as client:
                for what, ask in {
                    "open": lambda: qpu.get("/accessible").json()["is_accessible"],
                    "mine": lambda: qpu.get("/qpu/specs").json()["specs"],
                    "task": lambda: qpu.post(
                        "/jobs", json={"sequence": AFM, "shots": 1}, headers={"X-Warden-Session": SESSION}
                    ).json()["id"],
                    "sensor": client.availability,
                }.items():
                    begun = time.monotonic()
                    assert ask()
                    slowest[what] = max(slowest.get(what, 0.0), time.monotonic() - begun)
                asked += 1
            most = [max(one) for one in zip(most, map(megabytes, (edge, site.broker.pid)), strict=True)]
    finally:
        attacker.kill()
        attacker.communicate()
        figures = ", ".join(f"{what} {taken:.2f} s" for what, taken in slowest.items())
        sys.stdout.write(f"{kind}: {asked} asked each, the slowest: {figures}; edge and broker had {most} MB\n")
    assert slowest.pop("sensor") < AT_THE_OTHER_DOOR
    assert max(slowest.values()) < OVER_HTTP, slowest
    assert max(most) < MEMORY, f"{most} MB"
    offender = str(uid or "127.0.0.1")
    wait_until(lambda: offender in offenders(site), "the audit trail names the offender")
    wait_until(lambda: connections(edge) <= before + 5, "its connections are gone")
    assert edge_of(site) == edge, site.log_of(site.broker)
    assert "Traceback" not in site.log_of(site.broker)


def test_handshakes_that_do_not_go_on_fill_no_memory(tmp_path: Path) -> None:
    trusted, files = with_tls(tmp_path)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with Site() as site:
        site.configure(http={"listen": f"127.0.0.1:{free_port()}", **files})
        site.start_broker()
        wait_until(lambda: "serving QRMI's clients" in site.log_of(site.broker), "the edge serves")
        edge = edge_of(site)
        for _ in range(3):
            with contextlib.ExitStack() as held, site.http(verify=trusted) as client:
                for _ in range(CONNECTIONS):
                    held.enter_context(socket.create_connection(site.config.http.address))
                assert client.get("/jobs").json() == []
                assert connections(edge) < CONNECTIONS / 2
                assert megabytes(edge) < 300
