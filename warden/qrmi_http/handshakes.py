"""TLS before there is a request: asyncio counts no handshakes, and each holds a quarter of a megabyte."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable

# Handshakes at once; of more, the one that has taken longest makes room.
AT_ONCE = 200


class Handshakes:
    """In the place of the loop's `create_server`: what has shaken hands is handed over as if it had just come."""

    def __init__(self, loop: asyncio.AbstractEventLoop, limit: float) -> None:
        """`limit`: seconds that a handshake may take."""
        self._loop, self._limit, self._listen = loop, limit, loop.create_server
        # Oldest first.
        self._begun: dict[asyncio.Transport, asyncio.Task[None]] = {}
        self._failed = 0

    async def create_server(
        self,
        factory: Callable[[], asyncio.Protocol],
        *,
        sock: socket.socket,
        ssl: ssl.SSLContext,  # as the loop's has it
        backlog: int,
    ) -> asyncio.Server:
        """Listen."""

        def begin(transport: asyncio.Transport) -> None:
            if len(self._begun) >= AT_ONCE:
                oldest, shaking = next(iter(self._begun.items()))
                del self._begun[oldest]
                # It may not even have begun, and would wait for a connection that is gone.
                shaking.cancel()
                oldest.abort()
                self._tidy()
            self._begun[transport] = self._loop.create_task(self._shake(transport, factory, ssl))

        # What is there now stays: looking for garbage need not look at it.
        gc.freeze()
        return await self._listen(lambda: _Before(begin), sock=sock, backlog=backlog)

    async def _shake(
        self, transport: asyncio.Transport, factory: Callable[[], asyncio.Protocol], context: ssl.SSLContext
    ) -> None:
        early = _Early()
        try:
            secured: Any = await self._loop.start_tls(
                transport, early, context, server_side=True, ssl_handshake_timeout=self._limit
            )
        except OSError:
            # What a stranger does is no event. Of these are TLS's errors, time that is up, and ends of connections.
            transport.abort()
            secured = None
        finally:
            self._begun.pop(transport, None)
        if early.lost or secured is None:
            self._tidy()
            return
        protocol = factory()
        secured.set_protocol(protocol)
        protocol.connection_made(secured)
        if early.data:
            protocol.data_received(bytes(early.data))

    def _tidy(self) -> None:
        """Asyncio leaves what has failed in cycles: few objects, and large ones, so that Python does not look for them."""
        self._failed += 1
        if self._failed % AT_ONCE == 0:
            gc.collect()


class _Before(asyncio.Protocol):
    """A connection without TLS; nothing of it is read until its handshake begins."""

    def __init__(self, begin: Callable[[asyncio.Transport], None]) -> None:
        self._begin = begin

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - of a stream
        transport.pause_reading()
        self._begin(transport)


class _Early(asyncio.Protocol):
    """Keeps what comes with the end of a handshake until its connection is handed over, a turn of the loop later."""

    def __init__(self) -> None:
        self.data, self.lost = bytearray(), False

    def data_received(self, data: bytes) -> None:
        self.data += data

    def connection_lost(self, _: Exception | None) -> None:
        self.lost = True
