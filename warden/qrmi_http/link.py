"""An edge's connection to the broker: many requests at once, each asked again when nothing is heard."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import zmq

from warden import frames, keyring, wire
from warden.model import ConfigurationError, UnavailableError

if TYPE_CHECKING:
    from warden.config import Config

log = logging.getLogger("warden.edge")

# A request without an answer is sent again so soon at first; every request may be repeated.
_AGAIN = 3.0
# So long in all: a broker is started again in that time, and a client does not wait much longer.
_LIMIT = 25.0
# Requests that wait to be sent while the broker is away.
_AHEAD = 10_000
_GOODBYE = "this edge is being stopped: try again"

T = TypeVar("T")


class Link:
    """For one event loop."""

    def __init__(self, config: Config) -> None:
        """Read the keys; nothing is sent yet.

        Raises:
            ConfigurationError: They are missing or none, or the broker's address is none.
        """
        self._pair = keyring.key_pair(config.broker.keys / f"{keyring.EDGE}.key_secret")
        self._broker_key = config.broker_key
        self._keys = keyring.broker_keys(self._broker_key)
        self._attempts = 0
        self._endpoint = config.edge_endpoint
        self._context = zmq.Context()
        try:
            with self._context.socket(zmq.DEALER) as probe:
                probe.connect(self._endpoint)
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise ConfigurationError(f"{self._endpoint!r} is no address of a broker: {error.strerror}") from None
        self._socket: zmq.Socket[bytes] | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count(1)
        self._heard = 0.0
        self._complaint = ""
        self._given_up = False

    def give_up(self) -> None:
        """Wait for no answer any more."""
        self._given_up = True
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(UnavailableError(_GOODBYE))

    def close(self) -> None:
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
        self._context.destroy(linger=0)

    async def ask(
        self, body: wire.Message, kind: type[T], bearer: wire.Bearer | None = None, *, limit: float = _LIMIT
    ) -> T:
        """Ask the broker, for the user of `bearer`; `limit` seconds at most.

        Raises:
            UnavailableError: It does not answer in time.
            WardenError: It refuses.
        """
        if self._given_up:
            raise UnavailableError(_GOODBYE)
        loop = asyncio.get_running_loop()
        number = next(self._numbers)
        # The same one for all times that it is sent: a late answer to the first is as good.
        answer = self._waiting[number] = loop.create_future()
        end, pause = loop.time() + limit, _AGAIN
        try:
            while (left := end - loop.time()) > 0:
                connection, sent = self._connected(), loop.time()
                self._send(connection, frames.pack_request(number, body, bearer))
                await asyncio.wait([answer], timeout=min(left, pause))
                if answer.done():
                    return frames.convert(answer.result(), kind)
                # Another request may have made a new one already.
                if self._socket is connection and self._heard < sent:
                    self._disconnect()
                if bearer is not None:
                    bearer = msgspec.structs.replace(bearer, again=True)
                # A broker that is slow is not to be asked the more for it.
                pause *= 2
        finally:
            del self._waiting[number]
        raise UnavailableError(f"{self._complaint or 'the broker does not answer in time'}: try again later")

    def _send(self, connection: zmq.Socket[bytes], frame: bytes) -> None:
        # A queue that is full is a broker that is away.
        with contextlib.suppress(zmq.Again):
            connection.send(frame, zmq.NOBLOCK)
        # libzmq tells only once that something has come, also while we were sending.
        self._listen()

    def _listen(self) -> None:
        while self._socket is not None:
            try:
                number, result = frames.unpack_answer(self._socket.recv(zmq.NOBLOCK))
            except zmq.Again:
                return
            except UnavailableError as error:
                # Of another version, or garbage, and so nobody knows to whom.
                self._complain(error.text)
                continue
            self._heard, self._complaint = asyncio.get_running_loop().time(), ""
            answer = self._waiting.get(number)
            if answer is None or answer.done():
                continue
            if isinstance(result, Exception):
                answer.set_exception(result)
            else:
                answer.set_result(result)

    def _complain(self, text: str) -> None:
        """Once in an outage."""
        if text != self._complaint:
            log.warning("%s", text)
        self._complaint = text

    def _connected(self) -> zmq.Socket[bytes]:
        if self._socket is None:
            connection = self._context.socket(zmq.DEALER)
            connection.curve_publickey, connection.curve_secretkey = self._pair
            connection.curve_serverkey = self._next_key()
            connection.linger = 0
            connection.sndhwm = connection.rcvhwm = _AHEAD
            connection.reconnect_ivl_max = 1_000
            connection.connect(self._endpoint)
            self._socket = connection
            asyncio.get_running_loop().add_reader(connection.fileno(), self._listen)
        return self._socket

    def _next_key(self) -> bytes:
        """The broker's, as it is now; of two, while it is being changed, one after the other."""
        with contextlib.suppress(ConfigurationError):
            self._keys = keyring.broker_keys(self._broker_key)
        self._attempts += 1
        return self._keys[(self._attempts - 1) % len(self._keys)]

    def _disconnect(self) -> None:
        if self._socket is not None:
            if not self._complaint:
                self._complain(
                    f"nothing is heard of the broker at {self._endpoint} (is it there, and this edge's key in its "
                    f"keys/{keyring.EDGES}?)"
                )
            asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close(linger=0)
        self._socket = None
