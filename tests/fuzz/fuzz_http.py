"""Requests that nobody means, thrown at a real HTTP edge by the million: `python tests/fuzz/fuzz_http.py 1000000 --seed 7`.

Each request is made of one that is meant, by chance from a seed: another method, path, version, header, framing or body, bits
turned, parts cut out, doubled, or put together with those of others. They come in lots on real sockets, some with a credential
of a user of no account. Beside them one who means it has his tasks done all the time, every lot is answered or its connection
ended, nobody is told what is not his, nothing is a bug, and neither edge nor broker grows. As root, who can be another user.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import encodings.idna  # noqa: F401 - who has become nobody cannot read it any more
import json
import os
import random
import re
import resource
import select
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

# As a program it has but its own folder.
sys.path.append(str(Path(__file__).parents[1] / "unit"))

from warden_site import AFM, NOBODY, SESSION, Site, free_port, wait_until

from warden import munge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Requests of a lot at most, lots at once, and those more that may wait for the edge's own patience.
LOT, AT_ONCE, PARKED = 12, 24, 400
# A lot that is not answered by then waits for something that does not come; the edge ends it itself within its patience.
SOON, PATIENCE = 1.0, 75.0
# The one who means it is answered in that time, whatever the others throw: seconds.
SERVED = 20.0
# More than that, in megabytes, is no noise of the allocator's.
GROWTH = 60
# Where a credential shall be; one is made when the request is sent.
MARK = b"@CREDENTIAL@"

_TASK = json.dumps({"sequence": AFM, "shots": 5}).encode()
_LAST = b"GET /the-end HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
_HEAD = re.compile(rb"HTTP/1\.1 (\d\d\d) [^\r\n]*\r\n")
# What is told without a credential: the two routes, and pages for people.
_OPEN = (b'{"service":"Warden"', b'{"is_accessible":', b'{"openapi":', b"<!DOCTYPE html>", b"<!doctype", b"\x89PNG")

METHODS = [
    *(b"GET", b"POST", b"DELETE", b"HEAD", b"OPTIONS", b"PUT", b"PATCH", b"TRACE", b"CONNECT", b"PROPFIND", b"QUERY"),
    *(b"PRI", b"get", b"GE", b"", b"G\x00T", b"GET ", b"SOURCE", b"M-SEARCH", b"X" * 5000),
]
PATHS = [
    *(b"/", b"/accessible", b"/sessions", b"/sessions/" + SESSION.encode(), b"/jobs", b"/jobs/1", b"/jobs/1/logs"),
    *(b"/jobs/1/cancel", b"/qpu/specs", b"/docs", b"/openapi.json", b"/assets/favicon.png", b"/jobs?limit=2&offset=1"),
    *(
        b"//accessible",
        b"/accessible/",
        b"/accessible//",
        b"/accessible;x",
        b"/accessible?x=/jobs",
        b"/accessible#/jobs",
    ),
    *(b"/accessible/../jobs", b"/assets/../jobs", b"/assets/%2e%2e/jobs", b"/assets/..%2fjobs/1", b"/assets//jobs/1"),
    *(
        b"/assets/../../../../../../etc/passwd",
        b"/assets/%2e%2e%2f%2e%2e%2fetc/passwd",
        b"/assets/%00",
        b"/assets/\\..\\x",
    ),
    *(
        b"/assets//etc/passwd",
        b"/assets/" + b"a" * 300,
        b"/assets/" + b"a/" * 3000,
        b"/docs/../jobs",
        b"/docs/oauth2-redirect",
    ),
    *(
        b"/./jobs",
        b"/%6aobs",
        b"/jobs%2f1",
        b"/jobs/1%00",
        b"/jobs/%31",
        b"/jobs/1;x",
        b"/jobs/+1",
        b"/jobs/1e3",
        b"/jobs/1_0",
    ),
    *(
        b"/jobs/-1",
        b"/jobs/0",
        b"/jobs/2147483648",
        b"/jobs/9223372036854775808",
        b"/jobs/" + b"9" * 5000,
        b"/jobs/\xd9\xa1",
    ),
    *(
        b"/jobs/%d9%a1",
        b"/jobs/%ed%a0%80",
        b"/jobs/%ff",
        b"/jobs/%",
        b"/jobs/%zz",
        b"/%u0061ccessible",
        b"/accessible%0d%0aX:y",
    ),
    *(
        b"/jobs?limit=0",
        b"/jobs?limit=99999999999999999999999",
        b"/jobs?offset=-1",
        b"/jobs?limit=1&limit=2",
        b"/jobs?" + b"&" * 9000,
    ),
    *(
        b"/jobs?limit=%00",
        b"*",
        b"",
        b"http://x/jobs",
        b"http://x/accessible",
        b"http://x/accessible/../jobs",
        b"http://",
        b"x:1",
    ),
    *(
        b"http://u:p@x:99999/jobs",
        b"//x/jobs",
        b"/\x80",
        b"/" + b"a" * 40_000,
        b"/jobs/1 HTTP/1.1 x",
        b"?",
        b"#",
        b"/sessions/%2e",
    ),
]
VERSIONS = [
    b"HTTP/1.1",
    b"HTTP/1.1",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/0.9",
    b"HTTP/2.0",
    b"HTTP/1.9",
    b"HTTP/11",
    b"",
    b"http/1.1",
]
HEADERS = [
    *(
        b"X-Warden-Session: " + SESSION.encode(),
        b"X-Warden-Session:",
        b"X-Warden-Session: \xff",
        b"X-Munge-Cred: MUNGE:AAAA:",
    ),
    *(
        b"X-Munge-Cred: " + MARK,
        b"X-Munge-Cred:",
        b"x-munge-cred: " + MARK,
        b"X_Munge_Cred: " + MARK,
        b"X-Munge-Cred : " + MARK,
    ),
    *(
        b"Host: y",
        b"Host:",
        b"Connection: close",
        b"Connection: keep-alive, upgrade",
        b"Upgrade: websocket",
        b"Upgrade: h2c",
    ),
    *(
        b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13",
        b"Expect: 100-continue",
    ),
    *(b"Expect: x", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: xchunked"),
    *(
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding:\tchunked",
        b"Content-Encoding: gzip",
        b"Content-Type: text/plain",
    ),
    *(
        b"Content-Length: 0",
        b"Content-Length: -1",
        b"Content-Length: +5",
        b"Content-Length: 5, 5",
        b"Content-Length: 0x5",
    ),
    *(
        b"Content-Length: 99999999999999999999",
        b"Content-Length: 9000000000",
        b"Content-Length: " + b"0" * 5000,
        b"Content-Length: 40000",
    ),
    *(
        b"Content-Type: application/json; charset=utf-16",
        b"Content-Type: multipart/form-data",
        b"Range: bytes=0-1,5-,-9",
        b"Range: x",
    ),
    *(
        b"Range: bytes=" + b"0-1," * 2000,
        b"If-Modified-Since: x",
        b'If-None-Match: "x"',
        b"X-Forwarded-For: 127.0.0.1",
        b"X: \x00",
    ),
    *(
        b" folded: x",
        b"X: y\r\n z",
        b": x",
        b"X",
        b"X\x00: y",
        b"Cookie: " + b"a" * 9000,
        b"X-HTTP-Method-Override: DELETE",
        b"X: y\nZ: w",
    ),
]
NUMBERS = [
    *(
        b"0",
        b"-1",
        b"1",
        b"5",
        b"2147483647",
        b"2147483648",
        b"9223372036854775808",
        b"1e400",
        b"-0",
        b"1.0",
        b"NaN",
        b"Infinity",
    ),
    *(
        b"9" * 5000,
        b"1e-9",
        b"0x1",
        b"01",
        b"true",
        b"null",
        b'"5"',
        b"[]",
        b"{}",
        b"18446744073709551616",
        b"-9223372036854775809",
    ),
]
STRINGS = [
    *(
        b'""',
        b'"x"',
        b'"\\ud800"',
        b'"\\udfff\\ud800"',
        b'"\\u0000"',
        b'"\x00"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"null",
        b"1",
        b"[]",
    ),
    *(
        b'"' + b"a" * 30_000 + b'"',
        b'"1000"',
        b'"4294967295"',
        b'"4294967296"',
        b'"\xd9\xa1"',
        b'"0"',
        b'"\\"',
        b"{",
        b'"{}"',
    ),
    json.dumps(AFM).encode(),
    json.dumps(AFM.replace("1", "1e999")).encode(),
    json.dumps("[" * 20_000).encode(),
    json.dumps(AFM[:-1]).encode(),
]
BODIES = [
    *(
        _TASK,
        b"",
        b"{}",
        b"null",
        b"[" * 30_000,
        b'{"a":' * 10_000,
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"{" * 9,
        b"a" * 1000,
    ),
    *(
        b'{"user_id": "0", "slurm_job_id": "1"}',
        b'{"is_accessible": false, "message": "x"}',
        b'{"is_accessible": true}',
    ),
]
STRANGE = [
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    bytes.fromhex("16030100c8010000c40303") + bytes(190),
    b"GET /\r\n",
    b"\x05\x01\x00",
    b"\r\n\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\x00" * 100,
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 4000 + b"\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 40_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
]


class BrokenError(AssertionError):
    """The edge has broken a promise; the text has what was sent."""


def spoilt(chance: random.Random, *, hard: bool) -> bytes:
    """One request that is like one that is meant; `hard`: maybe none at all, which ends its connection."""
    if hard and chance.random() < 0.1:
        return chance.choice(STRANGE)
    method, path, version = b"GET", PATHS[chance.randrange(13)], b"HTTP/1.1"
    headers, body = [b"Host: x", b"Content-Type: application/json"], b""
    if chance.random() < 0.4:
        method, path = b"POST", chance.choice((b"/jobs", b"/sessions", b"/accessible", b"/jobs/1/cancel"))
        body = _body(chance)
        headers.append(b"X-Warden-Session: " + SESSION.encode())
    if chance.random() < 0.25:
        headers.append(b"X-Munge-Cred: " + MARK)
    for _ in range(chance.choice((1, 1, 2, 4) if hard else (0, 0, 0, 1))):
        match chance.randrange(6 if hard else 4):
            case 0 | 1:
                path = chance.choice(PATHS)
            case 2:
                method = chance.choice(METHODS if hard else METHODS[:8])
            case 3 | 4:
                headers.insert(chance.randrange(len(headers) + 1), chance.choice(HEADERS))
            case 5:
                version = chance.choice(VERSIONS)
    if body:
        framing, body = _framed(body, chance, lies=hard)
        headers.append(framing)
    request = b"\r\n".join((b" ".join((method, path, version)), *headers, b"", body))
    return _garbled(request, chance) if hard and chance.random() < 0.5 else request


def _body(chance: random.Random) -> bytes:
    if chance.random() < 0.4:
        return chance.choice(BODIES)
    fields = [
        *(
            (b"sequence", chance.choice(STRINGS)),
            (b"shots", chance.choice(NUMBERS)),
            (b"user_id", chance.choice(STRINGS)),
        ),
        *(
            (b"slurm_job_id", chance.choice(STRINGS)),
            (b"is_accessible", chance.choice(NUMBERS)),
            (b"message", chance.choice(STRINGS)),
        ),
    ]
    chosen = chance.choices(fields, k=chance.randrange(4)) + chance.choice((fields[:2], fields[2:4], fields[4:]))
    return b"{" + b",".join(b'"' + name + b'":' + value for name, value in chosen) + b"}"


def _framed(body: bytes, chance: random.Random, *, lies: bool) -> tuple[bytes, bytes]:
    """A header that says where the body ends, and the body; now and then a lie."""
    lie = chance.choice((0, 0, 1, -1, 1000, -1000)) if lies else 0
    if chance.random() < 0.75:
        return b"Content-Length: %d" % max(0, len(body) + lie), body
    parts = []
    while body:
        size = chance.choice((1, 7, 500, 100_000))
        extension = chance.choice((b"", b"", b";x=y", b";" + b"z" * 3000))
        parts.append(
            b"%x%s\r\n%s\r\n" % (len(body[:size]) + (lie if chance.random() < 0.1 else 0), extension, body[:size])
        )
        body = body[size:] if len(parts) < 40 else b""
    trailers = chance.choice((b"", b"", b"", b"X-Munge-Cred: x\r\n", b"X: y\r\n" * 3000))
    return b"Transfer-Encoding: chunked", b"".join((*parts, b"0\r\n", trailers, b"\r\n"))


def _garbled(request: bytes, chance: random.Random) -> bytes:
    text = bytearray(request)
    for _ in range(chance.choice((1, 1, 2))):
        # The head is where most of it is decided.
        at = chance.randrange(min(len(text), chance.choice((40, 300, 10**6))) + 1)
        match chance.randrange(5):
            case 0 if at < len(text):
                text[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(text):
                text[at] = chance.choice(b"\x00\r\n \t:;,/%\x7f\x80\xff")
            case 2:
                del text[at : at + chance.randrange(1, 20)]
            case 3:
                text[at:at] = chance.choice((b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"%00", chance.randbytes(8)))
            case 4:
                text[at:at] = text[at : at + chance.randrange(1, 60)] * chance.choice((1, 2, 50))
    return bytes(text)


def lots(seed: int) -> Iterator[list[bytes]]:
    """Without end; each is sent on a connection of its own."""
    chance = random.Random(seed)
    while True:
        yield [spoilt(chance, hard=not left) for left in reversed(range(chance.randrange(1, LOT + 1)))]


# --- those who throw ---


class _Lot:
    """A lot on its way: what is to be sent of it, and what has come back."""

    def __init__(self, address: tuple[str, int], requests: list[bytes], credential: Callable[[], bytes]) -> None:
        self.requests, self.answer = requests, bytearray()
        self.known = any(MARK in request for request in requests)
        text = b"".join((*requests, _LAST))
        while MARK in text:
            text = text.replace(MARK, credential(), 1)
        self._left = memoryview(text)
        self.begun = time.monotonic()
        self.socket = socket.create_connection(address)
        self.socket.setblocking(False)

    def send(self) -> bool:
        """Whether all is sent."""
        with contextlib.suppress(BlockingIOError):
            while self._left:
                self._left = self._left[self.socket.send(self._left) :]
        return not self._left

    def receive(self) -> bool:
        """Whether nothing more comes."""
        try:
            while part := self.socket.recv(1 << 18):
                self.answer += part
        except BlockingIOError:
            return False
        return True


class Thrower:
    """One process that throws."""

    def __init__(self, port: int, seed: int, munge_socket: Path) -> None:
        self._address, self._lots, self._munge = ("127.0.0.1", port), lots(seed), munge_socket
        self._poll = select.epoll()
        self._flying: dict[int, _Lot] = {}
        self._parked: dict[int, _Lot] = {}
        self.told: collections.Counter[str] = collections.Counter()

    def throw(self, requests: int, *, wait: bool) -> Iterator[None]:
        """So many, at least; yields now and then. `wait`: until the edge has ended all by itself."""
        before = 0
        while self.told["thrown"] < requests or self._flying or (wait and self._parked):
            while self.told["thrown"] < requests and len(self._flying) < AT_ONCE:
                self._begin(next(self._lots))
            for number, what in self._poll.poll(0.2):
                self._go_on(number, what)
            self._sort_out()
            if self.told["thrown"] >= before:
                before = self.told["thrown"] + 2000
                yield
        for lot in self._parked.values():
            self._end(lot)
        self.told["left open"] += len(self._parked)
        yield

    def _begin(self, requests: list[bytes]) -> None:
        self.told["thrown"] += len(requests)
        lot = _Lot(self._address, requests, lambda: munge.encode(b"", self._munge).encode())
        self._flying[lot.socket.fileno()] = lot
        self._poll.register(lot.socket, select.EPOLLIN | select.EPOLLOUT)

    def _go_on(self, number: int, what: int) -> None:
        lot = self._flying.get(number) or self._parked[number]
        try:
            if what & select.EPOLLOUT and lot.send():
                self._poll.modify(number, select.EPOLLIN)
            ended = what & ~select.EPOLLOUT and lot.receive()
        except ConnectionError:
            self.told["cut"] += 1
            ended = True
        if ended:
            self._poll.unregister(number)
            self._flying.pop(number, None)
            self._parked.pop(number, None)
            self._end(lot)

    def _sort_out(self) -> None:
        """What waits for the edge's patience makes room for others; too much of it is given up."""
        now = time.monotonic()
        for number, lot in list(self._flying.items()):
            if now - lot.begun > SOON:
                self._parked[number] = self._flying.pop(number)
                self.told["parked"] += 1
        for number, lot in list(self._parked.items()):
            if now - lot.begun > PATIENCE:
                raise BrokenError(
                    f"not ended within {PATIENCE:g} s: {lot.requests!r}; answered with {lot.answer[-500:]!r}"
                )
            if len(self._parked) > PARKED:
                self.told["given up"] += 1
                self._poll.unregister(number)
                self._end(self._parked.pop(number))

    def _end(self, lot: _Lot) -> None:
        lot.socket.close()
        answer = bytes(lot.answer)
        self.told["lots"] += 1
        self.told["unanswered"] += not answer
        heads = list(_HEAD.finditer(answer))
        if len(heads) > 2 * len(lot.requests) + 2 + sum(request.count(b"HTTP/") for request in lot.requests):
            raise BrokenError(f"{len(heads)} answers to {lot.requests!r}")
        for at, head in enumerate(heads):
            status = head[1].decode()
            self.told[status] += 1
            end = heads[at + 1].start() if at + 1 < len(heads) else len(answer)
            text = answer[head.end() : end]
            body = text.partition(b"\r\n\r\n")[2]
            if status.startswith("5") and status != "503":
                raise BrokenError(f"{status} to {lot.requests!r}: {answer[-2000:]!r}")
            if b'"user_id":"0"' in body or b"root:" in body:
                raise BrokenError(f"told what is not theirs: {body[:500]!r} to {lot.requests!r}")
            page = status == "206" or b"text/html" in text or b"javascript" in text or b"text/css" in text
            if status[0] == "2" and not lot.known and not page and body and not body.startswith(_OPEN):
                raise BrokenError(f"told without a credential: {body[:500]!r} to {lot.requests!r}")


def throw(port: int, seed: int, requests: int, munge_socket: Path, *, wait: bool) -> None:
    """In a process of its own, as nobody; tells what came of it, a line each."""
    munge._library()
    munge._libc()
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    thrower = Thrower(port, seed, munge_socket)
    try:
        for _ in thrower.throw(requests, wait=wait):
            _tell(thrower.told)
    except BrokenError as error:
        _tell({"broken": str(error)})


def _tell(what: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


# --- the edge, and who means it ---


class Edge:
    """A site with an edge that is thrown at."""

    def __init__(self, site: Site) -> None:
        self.site = site
        site.configure(
            http={"listen": f"127.0.0.1:{free_port()}"},
            qpu={"emulator": "echo", "overhead": 0},
            limits={"sequence_bytes": 16_000},
            # Beside those who throw, a worker may get no time for a while, and is not lost for that.
            broker={"heartbeat": 5},
        )
        site.start_broker()
        wait_until(lambda: "serving QRMI's clients" in site.log_of(site.broker), "the edge serves")
        site.start_worker()
        children = Path(f"/proc/{site.broker.pid}/task/{site.broker.pid}/children").parent.parent
        found = {int(pid) for thread in children.iterdir() for pid in (thread / "children").read_text().split()}
        (self.pid,) = found
        self.told: collections.Counter[str] = collections.Counter()
        self.served, self.slowest = 0, 0.0

    def megabytes(self) -> list[int]:
        """Of the edge and of the broker, now."""
        return [_resident(pid) for pid in (self.pid, self.site.broker.pid)]

    def throw(self, requests: int, seed: int, *, processes: int = 1, wait: bool = False) -> Iterator[int]:
        """Yields how many were thrown, after each look at all that is promised."""
        port = self.site.config.http.address[1]
        share = -(-requests // processes)
        commands = [
            [
                sys.executable,
                __file__,
                str(share),
                "--seed",
                str(seed + number),
                "--at",
                f"{port}:{self.site.munge_socket}",
            ]
            for number in range(processes)
        ]
        throwers = [_Process([*command, *(["--wait"] if wait else [])]) for command in commands]
        with Customer(self.site) as customer:
            try:
                while any(thrower.goes_on for thrower in throwers):
                    time.sleep(0.2)
                    self._look(throwers, customer)
                    yield self.told["thrown"]
                for thrower in throwers:
                    thrower.join()
                self._look(throwers, customer)
            finally:
                for thrower in throwers:
                    thrower.kill()
        self.served, self.slowest = customer.served, customer.slowest
        yield self.told["thrown"]

    def _look(self, throwers: list[_Process], customer: Customer) -> None:
        self.told = sum((thrower.told for thrower in throwers), collections.Counter())
        for thrower in throwers:
            if thrower.broken:
                raise BrokenError(thrower.broken)
        if customer.trouble:
            raise BrokenError(f"who means it was not served: {customer.trouble}")
        log = self.site.log_of(self.site.broker)
        if "Traceback" in log or "has ended" in log or " ERROR " in log:
            raise BrokenError(f"a bug: {log[-3000:]}")


class _Process:
    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        self.told: collections.Counter[str] = collections.Counter()
        self.broken = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    @property
    def goes_on(self) -> bool:
        return self._reader.is_alive()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            found = json.loads(line)
            self.broken = found.pop("broken", "")
            if not self.broken:
                self.told = collections.Counter(found)

    def join(self) -> None:
        self._reader.join()
        if self._process.wait() and not self.broken:
            self.broken = "a thrower has failed, see above"

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._reader.join()


class Customer:
    """One who has tasks done, and asks whether the QPU is there, without a pause."""

    def __init__(self, site: Site) -> None:
        self._site, self._enough = site, threading.Event()
        self.served, self.slowest, self.trouble = 0, 0.0, ""
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()

    def _work(self) -> None:
        try:
            while not self._enough.is_set():
                # A connection of its own now and then: those are what others could keep away.
                with self._site.http() as qpu:
                    for _ in range(5):
                        self._have_a_task_done(qpu)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            self.trouble = repr(error)

    def _have_a_task_done(self, qpu: Any) -> None:
        assert self._timed(qpu.get, "/accessible").json()["is_accessible"]
        task = self._timed(
            qpu.post, "/jobs", json={"sequence": AFM, "shots": 5}, headers={"X-Warden-Session": SESSION}
        ).json()
        while task["status"] in {"PENDING", "RUNNING"}:
            task = self._timed(qpu.get, f"/jobs/{task['id']}").json()
        assert task["status"] == "DONE", task
        self.served += 1
        self._enough.wait(0.02)

    def _timed(self, ask: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        begun = time.monotonic()
        answer = ask(*arguments, **options)
        taken = time.monotonic() - begun
        self.slowest = max(self.slowest, taken)
        assert answer.status_code == 200, answer.text
        assert taken < SERVED, f"{arguments} took {taken:.1f} s"
        return answer


def _resident(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) // 1000


@contextlib.contextmanager
def edge() -> Iterator[Edge]:
    """A site of its own, with munged, broker, worker and edge as real processes."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with Site() as site:
        yield Edge(site)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("requests", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1, help="that throw")
    parser.add_argument("--wait", action="store_true", help="until the edge has ended every connection by itself")
    parser.add_argument("--at", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.at:
        port, _, munge_socket = wanted.at.partition(":")
        throw(int(port), wanted.seed, wanted.requests, Path(munge_socket), wait=wanted.wait)
        return
    with edge() as made:
        begun, sizes = time.monotonic(), []
        for thrown in made.throw(wanted.requests, wanted.seed, processes=wanted.processes, wait=wanted.wait):
            sizes.append(made.megabytes())
            if sys.stdout.isatty():
                sys.stdout.write(f"\r{thrown} requests, {time.monotonic() - begun:.0f} s, {sizes[-1]} MB ")
                sys.stdout.flush()
    taken, early = time.monotonic() - begun, sizes[len(sizes) // 10]
    told = ", ".join(f"{name}: {count}" for name, count in sorted(made.told.items()))
    sys.stdout.write(
        f"\r{thrown} requests in {taken:.0f} s ({thrown / taken:.0f}/s): nothing broke; edge and broker had "
        f"{early[0]} and {early[1]} MB after a tenth, {sizes[-1][0]} and {sizes[-1][1]} MB at the end\n"
        f"{told}\nwho means it had {made.served} tasks done, the slowest answer took {made.slowest:.2f} s\n"
    )


if __name__ == "__main__":
    main()
