"""What one client can take of an HTTP edge: requests at once, bodies, heads, connections; others are served meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from warden_site import free_port, wait_until

from warden import munge, trust
from warden.config import Config
from warden.qrmi_http import guard, server
from warden.sections import AccessSection, HttpSection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping

ALICE, BOB = 1001, 1002
LARGEST = 1_000_000


class Edge:
    """A guard around an application that tells what it was sent, as soon as `opened`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.munged_answers = threading.Event()
        self.munged_answers.set()
        monkeypatch.setattr(trust, "verify_bearer", self._verify)
        self.opened = asyncio.Event()
        self.opened.set()
        self.reached = 0
        self.answer: bytes | None = None
        self.parts: list[int] = []
        self.entered = asyncio.Semaphore(0)
        self._guard = guard.Guard(
            self._application, AccessSection(), is_open=lambda _, path: path == "/open", largest=LARGEST
        )

    def _verify(self, shown: str, *_: object) -> trust.Bearing:
        assert self.munged_answers.wait(20)
        return trust.Bearing(int(shown), "192.0.2.1", b"p")

    async def _application(self, scope: Any, receive: Any, send: Any) -> None:
        del scope
        self.reached += 1
        self.entered.release()
        body = (await receive()).get("body", b"")
        await self.opened.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        answer = str(len(body)).encode() if self.answer is None else self.answer
        await send({"type": "http.response.body", "body": answer})

    async def ask(
        self,
        uid: int,
        parts: AsyncIterator[bytes] | None = None,
        *,
        length: object = None,
        path: str = "/jobs",
        method: str = "POST",
    ) -> tuple[int, bytes]:
        """The status and the answer."""
        headers = [(b"x-munge-cred", str(uid).encode())]
        if length is not None:
            headers.append((b"content-length", str(length).encode()))
        answer: list[MutableMapping[str, Any]] = []

        async def receive() -> dict[str, Any]:
            part = None if parts is None else await anext(parts, None)
            return {"type": "http.request", "body": part or b"", "more_body": part is not None}

        async def send(message: MutableMapping[str, Any]) -> None:
            answer.append(message)

        scope = {"type": "http", "method": method, "path": path, "headers": headers, "client": ("192.0.2.1", 1)}
        await self._guard(scope, receive, send)
        self.parts = [len(message["body"]) for message in answer[1:]]
        assert [message.get("more_body", False) for message in answer[1:]] == [True] * (len(answer) - 2) + [False]
        return answer[0]["status"], b"".join(message["body"] for message in answer[1:])


async def sent(size: int, part: int = 65_536) -> AsyncIterator[bytes]:
    for begin in range(0, size, part):
        yield b" " * min(part, size - begin)
        await asyncio.sleep(0)


async def never() -> AsyncIterator[bytes]:
    yield b" "
    await asyncio.Event().wait()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Edge], Awaitable[None]]], None]:
    def run(scenario: Callable[[Edge], Awaitable[None]]) -> None:
        async def whole() -> None:
            async with asyncio.timeout(20):
                await scenario(Edge(monkeypatch))

        asyncio.run(whole())

    return run


Run = Any


def test_one_user_has_so_many_requests_at_once_and_others_have_theirs(run: Run) -> None:
    async def scenario(edge: Edge) -> None:
        edge.opened.clear()
        waiting = [asyncio.create_task(edge.ask(ALICE, method="GET")) for _ in range(64)]
        for _ in waiting:
            await edge.entered.acquire()
        status, answer = await edge.ask(ALICE, method="GET")
        assert status == 429
        assert b"64 requests of yours" in answer
        others = asyncio.create_task(edge.ask(BOB, method="GET"))
        edge.opened.set()
        assert (await others)[0] == 200
        assert {status for status, _ in await asyncio.gather(*waiting)} == {200}
        assert (await edge.ask(ALICE, method="GET"))[0] == 200

    run(scenario)


@pytest.mark.parametrize("size", [0, 10, LARGEST])
@pytest.mark.parametrize("told", [True, False])
def test_a_body_arrives_as_it_was_sent(run: Run, size: int, told: bool) -> None:
    async def scenario(edge: Edge) -> None:
        length = size if told else None
        assert await edge.ask(ALICE, sent(size), length=length) == (200, str(size).encode())

    run(scenario)


def test_a_length_with_very_many_zeros_is_a_length(run: Run) -> None:
    async def scenario(edge: Edge) -> None:
        assert await edge.ask(ALICE, sent(10), length="0" * 5000 + "10") == (200, b"10")

    run(scenario)


@pytest.mark.parametrize("told", [LARGEST + 1, None, 10])
def test_a_body_that_is_too_large_reaches_nothing(run: Run, told: int | None) -> None:
    async def scenario(edge: Edge) -> None:
        status, _ = await edge.ask(ALICE, sent(LARGEST + 1), length=told)
        assert (status, edge.reached) == (413, 0)

    run(scenario)


def test_a_user_who_does_not_finish_a_large_body_keeps_nobody_waiting(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_UPLOAD", 0.2)

    async def scenario(edge: Edge) -> None:
        stuck = [asyncio.create_task(edge.ask(ALICE, never(), length=LARGEST)) for _ in range(10)]
        await asyncio.sleep(0)
        # One large body of hers is read at a time: there is room for his.
        assert (await edge.ask(BOB, sent(LARGEST), length=LARGEST))[0] == 200
        assert (await edge.ask(ALICE, sent(10), length=10))[0] == 200
        assert {status for status, _ in await asyncio.gather(*stuck)} == {422}

    run(scenario)


def test_a_user_has_one_large_body_at_a_time_however_they_come(run: Run) -> None:
    async def scenario(edge: Edge) -> None:
        begun, gates = asyncio.Queue[int](), [asyncio.Event() for _ in range(3)]

        async def gated(number: int) -> AsyncIterator[bytes]:
            await begun.put(number)
            await gates[number].wait()
            yield b" "

        def ask(number: int) -> asyncio.Task[tuple[int, bytes]]:
            return asyncio.create_task(edge.ask(ALICE, gated(number), length=LARGEST))

        asked = [ask(0)]
        assert await begun.get() == 0
        asked.append(ask(1))
        # Her small one is checked after it: the large one waits by now.
        await edge.ask(ALICE, sent(10), length=10)
        gates[0].set()
        assert await begun.get() == 1
        asked.append(ask(2))
        for _ in range(3):
            await edge.ask(ALICE, sent(10), length=10)
        assert begun.empty()
        for gate in gates:
            gate.set()
        assert {status for status, _ in await asyncio.gather(*asked)} == {200}

    run(scenario)


def test_of_large_bodies_so_many_are_in_memory_until_they_are_answered(run: Run) -> None:
    async def scenario(edge: Edge) -> None:
        edge.opened.clear()
        users = range(2001, 2007)
        asked = [asyncio.create_task(edge.ask(user, sent(LARGEST), length=LARGEST)) for user in users]
        for _ in range(4):
            await edge.entered.acquire()
        # Small ones pass them by.
        small = asyncio.create_task(edge.ask(ALICE, sent(10), length=10))
        await edge.entered.acquire()
        assert edge.reached == 5
        edge.opened.set()
        assert {status for status, _ in await asyncio.gather(small, *asked)} == {200}

    run(scenario)


def test_a_munged_that_hangs_keeps_nobody_for_ever_and_hinders_no_open_route(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "_CHECK_TIME", 0.2)

    async def scenario(edge: Edge) -> None:
        edge.munged_answers.clear()
        try:
            waiting = [asyncio.create_task(edge.ask(ALICE, method="GET")) for _ in range(20)]
            await asyncio.sleep(0)
            assert (await edge.ask(-1, path="/open", method="GET"))[0] == 200
            answers = await asyncio.gather(*waiting)
        finally:
            edge.munged_answers.set()
        assert {status for status, _ in answers} == {503}
        assert b"munged" in answers[0][1]
        monkeypatch.setattr(guard, "_CHECK_TIME", 20)
        assert (await edge.ask(ALICE, method="GET"))[0] == 200

    run(scenario)


@pytest.mark.parametrize("size", [0, 65_536, 65_537, 300_000])
def test_an_answer_is_sent_in_parts_so_that_it_is_not_done_before_it_is_read(run: Run, size: int) -> None:
    async def scenario(edge: Edge) -> None:
        edge.answer = os.urandom(size)
        assert await edge.ask(ALICE, method="GET") == (200, edge.answer)
        assert max(edge.parts) <= 65_536
        assert len(edge.parts) == max(1, -(-size // 65_536))

    run(scenario)


def test_who_asks_for_too_much_at_once_is_in_the_audit_trail(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")

    async def scenario(edge: Edge) -> None:
        edge.opened.clear()
        waiting = [asyncio.create_task(edge.ask(ALICE, method="GET")) for _ in range(64)]
        for _ in waiting:
            await edge.entered.acquire()
        assert (await edge.ask(ALICE, method="GET"))[0] == 429
        edge.opened.set()
        await asyncio.gather(*waiting)

    run(scenario)
    (told,) = [record.__dict__["facts"] for record in caplog.records if record.name == "warden.audit"]
    assert (told["by"], told["what"]) == (ALICE, "GET /jobs")


def test_what_is_open_needs_nobody(run: Run) -> None:
    async def scenario(edge: Edge) -> None:
        assert (await edge.ask(-1, path="/open", method="GET"))[0] == 200

    run(scenario)


def test_a_loopback_edge_takes_credentials_of_its_own_host_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who listens in an edge's place on another host cannot spend here what he hears."""
    made_at = {"MUNGE:here:": "192.0.2.1", "MUNGE:else:": "192.0.2.2"}
    monkeypatch.setattr(munge, "encode", lambda *_: "MUNGE:here:")
    monkeypatch.setattr(munge, "decode", lambda shown, _: munge.Credential(ALICE, ALICE, b"", made_at[shown]))
    for is_local, taken in ((True, {"MUNGE:here:": 200, "MUNGE:else:": 401}), (False, dict.fromkeys(made_at, 200))):
        edge = guard.Guard(_answering, AccessSection(), is_open=lambda *_: False, largest=LARGEST, is_local=is_local)
        assert {shown: asyncio.run(status(edge, shown)) for shown in made_at} == taken


async def _answering(_: Any, __: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def status(edge: guard.Guard, shown: str) -> int:
    told: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        told.append(message)

    scope = {"type": "http", "method": "GET", "path": "/jobs", "headers": [(b"x-munge-cred", shown.encode())]}
    await edge(scope, never, send)  # type: ignore[arg-type]
    return int(told[0]["status"])


# --- connections ---


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, int]]:
    """An edge without a broker, whose patience is short."""
    for name, value in {"_HEAD_TIME": 1.0, "_READ_TIME": 0.3, "CONNECTIONS": 20}.items():
        monkeypatch.setattr(server, name, value)

    class Unlinked:
        def __init__(self, _: Config) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr(server, "Link", Unlinked)
    monkeypatch.setattr(server.routes, "is_open", lambda *_: True)
    port = free_port()
    config = Config(http=HttpSection(listen=f"127.0.0.1:{port}"))
    ours, lifeline = socket.socketpair()
    serving = threading.Thread(target=server.serve, args=(config, lifeline.fileno()))
    with ours, lifeline:
        serving.start()
        wait_until(lambda: answered(("127.0.0.1", port)), "it serves")
        yield "127.0.0.1", port
        ours.close()
        serving.join(20)
    assert not serving.is_alive()


def answered(address: tuple[str, int]) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"http://{address[0]}:{address[1]}/", trust_env=False).status_code == 200
    return False


def is_closed(connection: socket.socket) -> bool:
    """Whether it is ended, after whatever comes before that."""
    connection.settimeout(10)
    try:
        while connection.recv(1000):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


@pytest.mark.parametrize("begin", [b"", b"G", b"\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX: "])
def test_a_request_that_does_not_come_is_not_waited_for(address: tuple[str, int], begin: bytes) -> None:
    with socket.create_connection(address) as half:
        half.sendall(begin)
        assert is_closed(half)
        wait_until(lambda: answered(address), "others are answered")


def test_a_head_that_trickles_is_not_waited_for(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as half, pytest.raises(ConnectionError):  # noqa: PT012 - which of them fails
        half.sendall(b"GET / HTTP/1.1\r\n")
        end = time.monotonic() + 10
        while time.monotonic() < end:
            half.sendall(b"X: y\r\n")
            time.sleep(0.02)


def test_a_head_without_end_is_cut(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as endless, pytest.raises(ConnectionError):  # noqa: PT012 - as above
        endless.sendall(b"GET / HTTP/1.1\r\n")
        for _ in range(1000):
            endless.sendall(b"X: " + b"y" * 8000 + b"\r\n")


def test_of_too_many_connections_the_idle_make_room(address: tuple[str, int]) -> None:
    with contextlib.ExitStack() as held:
        idle = [held.enter_context(socket.create_connection(address)) for _ in range(25)]
        for connection in idle:
            with contextlib.suppress(ConnectionError):
                connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answered(address)
        assert sum(is_cut(connection) for connection in idle) >= 5


def is_cut(connection: socket.socket) -> bool:
    """Whether nothing more comes after the answer."""
    connection.settimeout(0.2)
    try:
        while connection.recv(10_000):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def test_those_who_keep_all_their_connections_busy_keep_nobody_away(address: tuple[str, int]) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(20):
            slow = held.enter_context(socket.create_connection(address))
            slow.sendall(b"GET /assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        assert held.enter_context(contextlib.closing(httpx_client(address))).get("/").status_code == 200


def httpx_client(address: tuple[str, int]) -> httpx.Client:
    return httpx.Client(base_url=f"http://{address[0]}:{address[1]}", trust_env=False)


def test_requests_ahead_of_their_answers_are_few(address: tuple[str, int]) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    last = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert everything(address, request * 10 + last).count(b"200 OK") == 11
    assert everything(address, request * 5000 + last).count(b"200 OK") < 100
    wait_until(lambda: answered(address), "others are answered")


def everything(address: tuple[str, int], sent: bytes) -> bytes:
    """All that comes back until the edge ends the connection."""
    found = b""
    with socket.create_connection(address, timeout=10) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(sent)
        while part := connection.recv(100_000):
            found += part
    return found


@pytest.mark.parametrize("rest", [b"X: y\r\n", b"y" * 1000])
def test_what_comes_after_a_body_has_an_end(address: tuple[str, int], rest: bytes) -> None:
    with socket.create_connection(address) as endless, pytest.raises(ConnectionError):  # noqa: PT012 - as above
        endless.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ")
        for _ in range(20_000):
            endless.sendall(rest)
        pytest.fail("it is still open")


def test_the_rest_of_what_is_answered_already_is_not_waited_for(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as half:
        half.sendall(b"POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n123")
        half.settimeout(10)
        assert half.recv(1000).startswith(b"HTTP/1.1 404")
        assert is_closed(half)


def test_an_answer_that_nobody_reads_ends_its_connection(address: tuple[str, int]) -> None:
    with socket.create_connection(address) as slow, pytest.raises(ConnectionError):  # noqa: PT012 - as above
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(10)
        for _ in range(2000):
            # The largest that there is without a broker: a megabyte and a half.
            slow.sendall(b"GET /assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.02)
        pytest.fail("it is still open")
