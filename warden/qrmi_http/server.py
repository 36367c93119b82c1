"""An edge as a process: its socket, TLS, and connections that are held up on purpose."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
import resource
import socket
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from warden import journal
from warden.events import REFUSED
from warden.model import BadRequestError, ConfigurationError
from warden.qrmi_http import routes
from warden.qrmi_http.guard import Guard
from warden.qrmi_http.handshakes import Handshakes
from warden.qrmi_http.link import Link

if TYPE_CHECKING:
    from types import FrameType

    from warden.config import Config

log = logging.getLogger("warden.edge")

# Connections at once; of more, the oldest makes room of whoever has most.
CONNECTIONS = 1000
# Connections that come faster than they can be taken.
_BACKLOG = 1024
# The head of a request, and what else of it is no body, has at most so many bytes; a head comes in that time, as the
# handshake of TLS does.
_HEAD, _HEAD_TIME = 32 * 1024, 10.0
# Requests that wait for the one before them on their connection. Who sends more does not mean them.
_AHEAD = 16
# So long a client may leave an answer unread, or keep back the rest of what is answered already; and a connection
# without a request.
_READ_TIME, _IDLE_TIME = 30.0, 60
# Requests that are being answered have so long when the edge ends.
_GOODBYE = 0.5
_FIRST_GIVEN = 3
# A JSON string of a JSON string: each quote and each backslash is two bytes.
_ESCAPED, _AROUND = 2, 4096


def serve(config: Config, lifeline: int | None = None) -> None:
    """Serve QRMI's clients until SIGTERM or SIGINT, or until the other end of `lifeline` is closed.

    Raises:
        ConfigurationError: The address, the keys or the certificate cannot be used.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # What a stranger sends is no event; what goes wrong in here is.
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    listener = _listen(config)
    asyncio.run(_serve(config, listener, lifeline))


async def _serve(config: Config, listener: socket.socket, lifeline: int | None) -> None:
    with contextlib.closing(Link(config)) as link:
        largest = config.limits.sequence_bytes
        guard = Guard(
            routes.application(link, name=config.qpu.name, largest=largest),
            config.access,
            is_open=routes.is_open,
            largest=_ESCAPED * largest + _AROUND,
            is_local=config.http.is_local,
        )
        server = _Server(_settings(config, guard), link, config.http.reachable)
        if config.http.certificate is not None:
            # Uvicorn has no setting for it.
            loop: Any = asyncio.get_running_loop()
            loop.create_server = Handshakes(loop, _HEAD_TIME).create_server
        if lifeline is not None:
            asyncio.get_running_loop().add_reader(lifeline, server.end, lifeline)
        if listener.getsockname()[1] != config.http.address[1]:
            log.warning("the socket that was given has port %d, and http.listen another", listener.getsockname()[1])
        if not config.http.is_local and config.http.certificate is None:
            log.warning(
                "http.listen is on the network without TLS: sequences, results and credentials can be read and used there; "
                "set http.certificate and http.private_key, or run an edge on each host"
            )
        await server.serve([listener])
        log.info("told to stop: goodbye")


def _listen(config: Config) -> socket.socket:
    if os.environ.get("LISTEN_PID") == str(os.getpid()):
        # Of systemd: it keeps those who come while an edge is started again (sd_listen_fds(3)).
        return socket.socket(fileno=_FIRST_GIVEN)
    host, port = config.http.address
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        # Asyncio sends without delay where it sees that this is TCP.
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Here, for two may have bound before one of them listens.
        listener.listen(_BACKLOG)
    except OSError as error:
        raise ConfigurationError(f"cannot listen at {config.http.listen}: {error.strerror}") from None
    listener.set_inheritable(False)
    return listener


def _settings(config: Config, application: Any) -> uvicorn.Config:
    for file in (config.http.certificate, config.http.private_key):
        if file is not None and not os.access(file, os.R_OK):
            raise ConfigurationError(f"cannot read {file}: is it there, and is it this user's?")
    settings = uvicorn.Config(
        application,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=_IDLE_TIME,
        timeout_graceful_shutdown=5,
        ssl_certfile=config.http.certificate,
        ssl_keyfile=config.http.private_key,
    )
    try:
        settings.load()
    except OSError as error:
        raise ConfigurationError(f"cannot use http.certificate and http.private_key: {error}") from None
    return settings


class _Server(uvicorn.Server):
    def __init__(self, settings: uvicorn.Config, link: Link, reachable: str) -> None:
        super().__init__(settings)
        self._link, self._reachable = link, reachable

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        # Not before: who reads it may come at once, and finds the address only when we listen there.
        log.info("serving QRMI's clients at %s", self._reachable)

    def stop(self) -> None:
        self.should_exit = True
        # The broker beside us may have ended already.
        asyncio.get_running_loop().call_later(_GOODBYE, self._link.give_up)

    def end(self, lifeline: int) -> None:
        """The process that it is kept for has ended."""
        asyncio.get_running_loop().remove_reader(lifeline)
        self.stop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Uvicorn raises the signal again once all is closed; ending is no failure of ours.
        del sig, frame
        self.stop()


class _Protocol(HttpToolsProtocol):
    """Uvicorn's, with an end to everything that a client can put off."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._in_body = False
        self._beside = 0
        """Bytes since anything came of a body, or a request was complete."""
        self._alarms: dict[str, asyncio.TimerHandle] = {}
        self.idle_since = self.loop.time()
        self.whose: dict[str, object] = {"address": self.client[0] if self.client else "unknown"}
        """By user, once one of his requests has come with a credential."""
        self._expect("head", _HEAD_TIME)
        if len(self.connections) > CONNECTIONS:
            self._make_room()

    def _make_room(self) -> None:
        """Busy ones count, too: who keeps all of his busy is to keep nobody else away."""
        open_ones = [one for one in self.connections if isinstance(one, _Protocol) and not one.transport.is_closing()]
        count = collections.Counter(str(one.whose) for one in open_ones)
        ((most, _),) = count.most_common(1)
        oldest = min((one for one in open_ones if str(one.whose) == most), key=lambda one: one.idle_since)
        why = f"there are {CONNECTIONS} connections, most of them of the same"
        journal.write(journal.AUDIT, REFUSED, {**oldest.whose, "what": "connection", "why": why})
        oldest.transport.abort()

    def known(self, uid: int) -> None:
        """Whose connection it is."""
        self.whose = {"by": uid}

    def connection_lost(self, exc: Exception | None) -> None:
        for what in list(self._alarms):
            self._expect(what, None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._beside += len(data)
        if not self._in_body and "head" not in self._alarms:
            self._expect("head", _HEAD_TIME)
        super().data_received(data)
        if self._beside > _HEAD:
            self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["known"] = self.known

    def on_header(self, name: bytes, value: bytes) -> None:
        # What comes after a body is nothing that we know.
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_body, self._beside = True, 0
        self._expect("head", None)
        super().on_headers_complete()
        if len(self.pipeline) > _AHEAD:
            self.transport.abort()
            # Which ends what the parser makes of the rest.
            raise BadRequestError("too many requests at once")

    def on_body(self, body: bytes) -> None:
        self._beside = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_body, self._beside = False, 0
        self._expect("rest", None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        # Nobody's connection is as old as it is: else those who ask without a pause would be younger than who has just come.
        if "by" in self.whose:
            self.idle_since = self.loop.time()
        if self._in_body:
            self._expect("rest", _READ_TIME)
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect("read", _READ_TIME)

    def resume_writing(self) -> None:
        self._expect("read", None)
        super().resume_writing()

    def _expect(self, what: str, limit: float | None) -> None:
        """Something has to happen within this time; without one it has."""
        if alarm := self._alarms.pop(what, None):
            alarm.cancel()
        if limit is not None:
            self._alarms[what] = self.loop.call_later(limit, self.transport.abort)
