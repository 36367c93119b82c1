"""Before a request reaches its route: who asks, and how much he asks for at once. Nothing is read of who is nobody."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import json
import weakref
from typing import TYPE_CHECKING, Any

from warden import journal, trust
from warden.events import REFUSED
from warden.model import (
    BadRequestError,
    BusyError,
    ConflictError,
    ForbiddenError,
    LimitError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
    WardenError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping

    from warden.sections import AccessSection

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    Application = Callable[[Scope, Receive, Send], Awaitable[None]]

CREDENTIAL = b"x-munge-cred"
# Requests of one user that are answered at once.
_AT_ONCE = 64
# A body above this is large: each user sends one at a time, and all together so many.
_LARGE, _LARGE_AT_ONCE = 256 * 1024, 4
_DIGITS = 20
# Whose answer was as large gets the next ones one at a time, for so long.
_REMEMBERED = 60.0
# A body comes in that time.
_UPLOAD = 30.0
# Credentials that munged checks at once, and so long one waits for that: a munged that hangs keeps nobody for ever.
_CHECKS, _CHECK_TIME = 4, 5.0
# An answer is given to the connection in parts of this size, as its client reads it.
_PART = 64 * 1024

_STATUS: dict[type[WardenError], int] = {
    BadRequestError: 422,
    ForbiddenError: 403,
    NotFoundError: 404,
    ConflictError: 409,
    LimitError: 429,
    BusyError: 503,
    UnavailableError: 503,
    UnauthenticatedError: 401,
}


def status_of(error: WardenError) -> int:
    """What a refusal is in HTTP's words."""
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)


class TooLargeError(WardenError):
    """More than any request has."""

    code = "too_large"


class Guard:
    """An ASGI application around another one: `scope["bearing"]` says whose request it is."""

    def __init__(
        self,
        application: Application,
        access: AccessSection,
        *,
        is_open: Callable[[str, str], bool],
        largest: int,
        is_local: bool = False,
    ) -> None:
        """`is_open`: whether a method and a path need no credential; `largest`: bytes of a body at most.

        `is_local`: nobody from another host can be there, so that a credential of one was stolen.
        """
        self._is_local, self._own_host = is_local, ""
        self._application, self._access, self._is_open, self._largest = application, access, is_open, largest
        self._threads = concurrent.futures.ThreadPoolExecutor(_CHECKS, "munge")
        self._busy: collections.Counter[int] = collections.Counter()
        # Of users with something large; each lives as long as somebody has it or waits for it.
        self._locks: weakref.WeakValueDictionary[int, asyncio.Lock] = weakref.WeakValueDictionary()
        # Users who had a large answer, and until when they get one answer at a time.
        self._readers: dict[int, float] = {}
        self._room = asyncio.Semaphore(_LARGE_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        try:
            async with self._admitted(scope) as uid, self._in_turn(scope, uid) as is_large:
                # The whole body is read here, where it is known who sends it and how much room he has.
                whole = receive if is_large is None else _given(await self._read(receive), receive)
                await self._application(scope, whole, self._in_parts(send, uid))
        except WardenError as error:
            await refuse(send, 413 if isinstance(error, TooLargeError) else status_of(error), error.text)

    @contextlib.asynccontextmanager
    async def _admitted(self, scope: Scope) -> AsyncIterator[int | None]:
        if self._is_open(scope["method"], scope["path"]):
            yield None
            return
        bearing = scope["bearing"] = await self._identify(scope)
        # Whoever floods us is known by his name from now on, and his connections as his.
        if known := scope.get("state", {}).get("known"):
            known(bearing.uid)
        if self._busy[bearing.uid] >= _AT_ONCE:
            why = f"{_AT_ONCE} requests of yours are being answered already: wait for some"
            _note(scope, why, by=bearing.uid)
            raise LimitError(why)
        self._busy[bearing.uid] += 1
        try:
            yield bearing.uid
        finally:
            self._busy[bearing.uid] -= 1
            if not self._busy[bearing.uid]:
                del self._busy[bearing.uid]

    async def _identify(self, scope: Scope) -> trust.Bearing:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CHECK_TIME):
                return await loop.run_in_executor(self._threads, self._verify, _credential(scope))
        except TimeoutError:
            raise UnavailableError(
                f"munged has not checked your credential within {_CHECK_TIME:g} s: try again"
            ) from None
        except UnauthenticatedError as error:
            _note(scope, error.text, address=(scope.get("client") or ("unknown",))[0])
            raise

    def _verify(self, credential: str) -> trust.Bearing:
        if self._is_local and not self._own_host:
            self._own_host = trust.own_host(self._access)
        return trust.verify_bearer(credential, self._access, self._own_host)

    @contextlib.asynccontextmanager
    async def _in_turn(self, scope: Scope, uid: int | None) -> AsyncIterator[bool | None]:
        """Whether the body is large, None if there is none to read; a user has one large thing in memory at a time."""
        is_large = None if uid is None else self._is_large(scope)
        if uid is None or not (is_large or self._reads_much(uid)):
            yield is_large
            return
        # Until it is answered: what is made of a body for the broker is as large.
        async with self._locks.setdefault(uid, asyncio.Lock()), self._room if is_large else contextlib.nullcontext():
            yield is_large

    def _is_large(self, scope: Scope) -> bool | None:
        if scope["method"] in {"GET", "HEAD", "DELETE"}:
            return None
        length = dict(scope["headers"]).get(b"content-length", b"")
        # With thousands of zeros before it, it is a number for HTTP's parser, and none for Python.
        expected = int(length) if length.isdigit() and len(length) < _DIGITS else self._largest
        if expected > self._largest:
            raise self._too_large()
        return expected > _LARGE

    def _reads_much(self, uid: int) -> bool:
        return self._readers.get(uid, 0.0) > asyncio.get_running_loop().time()

    def _in_parts(self, send: Send, uid: int | None) -> Send:
        """So that what its client does not read is not taken for sent, and his request stays one of his."""

        async def part_by_part(message: MutableMapping[str, Any]) -> None:
            body = memoryview(message.get("body", b""))
            if uid is not None and len(body) > _LARGE:
                now = asyncio.get_running_loop().time()
                self._readers = {one: until for one, until in self._readers.items() if until > now}
                self._readers[uid] = now + _REMEMBERED
            while len(body) > _PART:
                await send({"type": "http.response.body", "body": bytes(body[:_PART]), "more_body": True})
                body = body[_PART:]
            await send({**message, "body": bytes(body)} if message["type"] == "http.response.body" else message)

        return part_by_part

    async def _read(self, receive: Receive) -> bytes:
        body = bytearray()
        try:
            async with asyncio.timeout(_UPLOAD):
                more = True
                while more:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise BadRequestError("the request ends in the middle")
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
                    if len(body) > self._largest:
                        raise self._too_large()
        except TimeoutError:
            raise BadRequestError(f"the request did not come in {_UPLOAD:g} s") from None
        return bytes(body)

    def _too_large(self) -> TooLargeError:
        return TooLargeError(f"the request is larger than {self._largest} bytes, the most that this QPU takes")


def _credential(scope: Scope) -> str:
    shown: list[bytes] = [value for name, value in scope["headers"] if name == CREDENTIAL]
    if len(shown) != 1:
        raise UnauthenticatedError("show who you are: this needs one MUNGE credential, as X-Munge-Cred")
    return shown[0].decode("latin-1")


def _note(scope: Scope, why: str, **who: object) -> None:
    journal.write(journal.AUDIT, REFUSED, {**who, "what": f"{scope['method']} {scope['path'][:100]}", "why": why})


def _given(body: bytes, rest: Receive) -> Receive:
    """First the body, and then what may still come: that the client has gone."""
    left = [body]

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": left.pop(), "more_body": False} if left else await rest()

    return receive


async def refuse(send: Send, status: int, detail: str) -> None:
    """Answer in the words of the contract. What has not been read yet is not waited for."""
    body = json.dumps({"detail": detail}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status in {413, 422}:
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
