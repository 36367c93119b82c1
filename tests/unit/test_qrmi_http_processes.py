"""The HTTP edge's process: how it begins and ends, TLS, and a broker or an edge that is started again."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest
from qrmi_edge import HEADER, TASK, prepare, result_of, with_tls
from warden_site import WARDEN, Site, free_port, wait_until

from warden.qrmi_http import server

if TYPE_CHECKING:
    from pathlib import Path

# Starts a program as systemd starts one that has a socket.
GIVEN = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture
def site(site: Site) -> Site:
    prepare(site)
    return site


def test_a_broker_that_is_started_again_is_waited_for(site: Site) -> None:
    port = free_port()
    site.start_worker()
    site.start_edge(port)
    with site.http(port) as qpu:
        number = qpu.post("/jobs", json=TASK, headers=HEADER).json()["id"]
        result_of(qpu, number)
        site.kill(site.broker)
        begun = time.monotonic()
        site.start_broker(wait=False)
        assert qpu.get(f"/jobs/{number}").json()["status"] == "DONE"
        assert qpu.post("/jobs", json=TASK, headers=HEADER).json()["id"] == number + 1
        assert time.monotonic() - begun < 25


def test_many_requests_find_a_broker_whose_key_has_changed(site: Site) -> None:
    port = free_port()
    site.start_edge(port)
    site.warden("keys", "--next", check=True)
    site.warden("keys", "--switch", check=True)
    site.kill(site.broker)
    site.start_broker()
    with site.http(port, anonymous=True) as client, ThreadPoolExecutor(16) as crowd:
        answers = crowd.map(lambda _: client.get("/accessible").status_code, range(16))
        assert set(answers) == {200}


def test_the_edge_is_started_again_and_ends_with_its_broker(site: Site) -> None:
    def edges() -> list[int]:
        told = site.room / "children"
        os.system(f"pgrep -P {site.broker.pid} -f edge-only > {told}")
        return [int(line) for line in told.read_text().split()]

    with site.http() as client:
        (first,) = edges()
        os.kill(first, 9)
        wait_until(lambda: edges() not in ([], [first]), "another edge")
        wait_until(lambda: site.log_of(site.broker).count("serving QRMI's clients") == 2, "it serves")
        assert client.get("/accessible").status_code == 200
        assert "the HTTP edge has ended with status -9; it is started again in 1 s" in site.log_of(site.broker)
        site.kill(site.broker)
        wait_until(lambda: refused(client), "the edge has ended")


def refused(client: httpx.Client) -> bool:
    try:
        client.get("/")
    except httpx.ConnectError:
        return True
    except httpx.TransportError:
        pass
    return False


def test_tls(tmp_path: Path) -> None:
    trusted, files = with_tls(tmp_path)
    with Site() as site:
        prepare(site, **files)
        assert site.config.http.reachable.startswith("https://")
        with site.http(verify=trusted) as client:
            assert client.get("/jobs").json() == []
        with pytest.raises(httpx.ConnectError), site.http() as stranger:
            stranger.get("/accessible")
        with contextlib.ExitStack() as held, site.http(verify=trusted) as client:
            # Of handshakes that do not go on, the oldest make room.
            half = [held.enter_context(socket.create_connection(site.config.http.address)) for _ in range(300)]
            assert client.get("/jobs").json() == []
            half[0].settimeout(10)
            assert half[0].recv(1) == b""
            # Everything at once: the request comes with the end of the handshake.
            for _ in range(20):
                with site.http(verify=trusted) as another:
                    assert another.get("/accessible").status_code == 200
        assert "Traceback" not in site.log_of(site.broker)


@pytest.mark.parametrize(
    ("http", "words"),
    [
        ({"certificate": "/nowhere", "private_key": "/nowhere"}, "cannot read /nowhere"),
        ({"certificate": "/etc/hostname", "private_key": "/etc/hostname"}, "cannot use http.certificate"),
        ({"endpoint": "127.0.0.1:77"}, "is no address of a broker"),
        ({"endpoint": "tcp://127.0.0.1:port"}, "is no address of a broker"),
    ],
)
def test_an_edge_that_cannot_serve_says_why_in_one_line(http: dict[str, str], words: str) -> None:
    with Site() as site:
        site.configure(http={"listen": f"127.0.0.1:{free_port()}", **http})
        told = site.warden("serve", "--edge-only")
    assert told.returncode == 1
    assert words in told.stderr
    assert "Traceback" not in told.stderr


def test_who_is_told_that_it_serves_can_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    lifeline, kept = os.pipe()

    def tell(text: str, *_: object) -> None:
        if "serving" in text:
            socket.create_connection(config.http.address).close()
            os.close(kept)

    monkeypatch.setattr(server.log, "info", tell)
    with Site() as site:
        config = site.configure(http={"listen": f"127.0.0.1:{free_port()}"})
        server.serve(config, lifeline=lifeline)
    os.close(lifeline)


def test_an_edge_that_is_started_again_keeps_those_who_come_meanwhile() -> None:
    """As systemd's sockets do it."""
    with Site() as site, socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        site.configure(http={"listen": f"127.0.0.1:{port}"})
        # The broker's own would be in its place.
        site.broker = site.start([WARDEN, "serve", "--no-edge", "--config", str(site.file)])
        command = [sys.executable, "-c", GIVEN, str(listener.fileno())]
        command += [WARDEN, "serve", "--edge-only", "--config", str(site.file)]
        for _ in range(2):
            edge = site.start(command, pass_fds=(listener.fileno(),))
            # Sent before anybody listens.
            with site.http() as client:
                assert client.get("/jobs").json() == []
            edge.terminate()
            assert edge.wait(20) == 0


def test_a_broker_that_ends_keeps_no_request_waiting(site: Site) -> None:
    site.start_worker()
    with site.http() as client:
        assert client.get("/jobs").json() == []
        begun = time.monotonic()
        site.broker.terminate()
        assert site.broker.wait(20) == 0
        wait_until(lambda: refused(client), "the edge has ended")
        # By far not as long as a request may be kept waiting for a broker.
        assert time.monotonic() - begun < 20
    assert "Traceback" not in site.log_of(site.broker)
