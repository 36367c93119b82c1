"""Requests that nobody means, thrown at a real HTTP edge by the million: `python tests/fuzz/fuzz_http.py 1000000 --seed 7`.

They come in lots (`spoilt_requests`) on real sockets, some with a credential of a user of no account. Beside them one who
means it has his tasks done all the time, every lot is answered or its connection ended, nobody is told what is not his,
nothing is a bug, and neither edge nor broker grows. As root, who can be another user.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import encodings.idna  # noqa: F401 - who has become nobody cannot read it any more
import json
import os
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

from spoilt_requests import MARK, lots
from warden_site import AFM, NOBODY, SESSION, Site, free_port, wait_until

from warden import munge

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# Lots at once, and those more that may wait for the edge's own patience.
AT_ONCE, PARKED = 24, 400
# A lot that is not answered by then waits for something that does not come; the edge ends it itself within its patience.
SOON, PATIENCE = 1.0, 75.0
# The one who means it is answered in that time, whatever the others throw: seconds.
SERVED = 20.0
# More than that, in megabytes, is no noise of the allocator's.
GROWTH = 60

_LAST = b"GET /the-end HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
_HEAD = re.compile(rb"HTTP/1\.1 (\d\d\d) [^\r\n]*\r\n")
# What is told without a credential: the two routes, and pages for people.
_OPEN = (b'{"service":"Warden"', b'{"is_accessible":', b'{"openapi":', b"<!DOCTYPE html>", b"<!doctype", b"\x89PNG")


class BrokenError(AssertionError):
    """The edge has broken a promise; the text has what was sent."""


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
