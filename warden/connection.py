"""A client's connection to the broker: asked again when nothing is heard, proven by MUNGE where that is needed."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any, TypeVar

import zmq

from warden import frames, keyring, trust, wire
from warden.model import ConfigurationError, LimitError, UnauthenticatedError, UnavailableError

if TYPE_CHECKING:
    from warden.config import Config

# A request without an answer is sent again on a new connection; every request may be repeated.
_AGAIN = 3.0
# With another key to try, so soon at first: a load sensor has two seconds in all.
_ANOTHER = 0.4
# As often we say in one request who we are.
_INTRODUCTIONS = 5

T = TypeVar("T")


class Connection:
    """For one thread at a time; every broken connection is replaced by one with new keys."""

    def __init__(self, config: Config, endpoint: str, timeout: float) -> None:
        self._config = config
        self._endpoint = endpoint
        # More than one while the broker's key is being changed: where one is not answered to, the next is tried soon.
        known = keyring.broker_keys(config.broker_key)
        self._again = _AGAIN if len(known) == 1 else _ANOTHER
        self._broker_keys = itertools.cycle(known)
        self._broker_key = next(self._broker_keys)
        self._timeout = timeout
        self._context = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        self._public = b""
        self._known = False
        self._largest = wire.LARGEST
        self._correlation = 0

    def close(self) -> None:
        self._context.destroy(linger=0)

    def ask(
        self,
        body: wire.Message,
        kind: type[T],
        *,
        anonymous: bool = False,
        patience: float = 0.0,
        timeout: float | None = None,
    ) -> T:
        end = time.monotonic() + (self._timeout if timeout is None else min(timeout, self._timeout)) + patience
        introductions = 0
        while (left := end - time.monotonic()) > 0:
            try:
                if not anonymous and not self._known and self._config.access.identity == "munge":
                    greeting = frames.convert(self._exchange(self._hello(), min(left, self._again)), wire.Greeting)
                    self._largest = greeting.largest
                    self._known, introductions = True, introductions + 1
                return frames.convert(self._exchange(body, min(left, patience + self._again)), kind)
            except UnauthenticatedError:
                # A broker that was restarted knows nobody, also one that was restarted after our hello. One that does
                # not take the hello means it, and so does one that has forgotten us again and again.
                if not self._known or introductions >= _INTRODUCTIONS:
                    raise
                self._known = False
            except _SilenceError:
                self._disconnect()
        raise UnavailableError(
            f"Warden at {self._endpoint} does not answer: is the broker running, and is {self._config.broker_key} its key?"
        )

    def _hello(self) -> wire.Hello:
        self._connected()
        return wire.Hello(credential=trust.prove(self._public, self._broker_key, self._config.access.munge_socket))

    def _exchange(self, body: wire.Message, patience: float) -> Any:
        connection = self._connected()
        self._correlation += 1
        frame = frames.pack_request(self._correlation, body)
        if len(frame) > self._largest:
            # It would end the connection without a word.
            raise LimitError(
                f"this request has {len(frame)} bytes, and the broker takes {self._largest}: send a smaller one"
            )
        connection.send(frame)
        end = time.monotonic() + patience
        while connection.poll(max(0, round((end - time.monotonic()) * 1000))):
            correlation, result = frames.unpack_answer(connection.recv())
            # Answers to what we gave up earlier may still come.
            if correlation == self._correlation:
                if isinstance(result, Exception):
                    raise result
                return result
        raise _SilenceError

    def _connected(self) -> zmq.Socket[bytes]:
        if self._socket is None:
            connection = self._context.socket(zmq.DEALER)
            self._public, secret = zmq.curve_keypair()
            connection.curve_publickey, connection.curve_secretkey = self._public, secret
            connection.curve_serverkey = self._broker_key
            connection.linger = 0
            try:
                connection.connect(self._endpoint)
            except zmq.ZMQError as error:
                raise ConfigurationError(f"{self._endpoint!r} is no address of a broker: {error.strerror}") from None
            self._socket = connection
        return self._socket

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
        self._socket, self._known = None, False
        self._broker_key = next(self._broker_keys)
        self._again = min(_AGAIN, 2 * self._again)


class _SilenceError(Exception):
    """No answer on this connection; not for users."""
