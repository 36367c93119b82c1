"""The loop around the engine: ZeroMQ sockets, who speaks on them, and the clock."""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import resource
import uuid
from typing import TYPE_CHECKING, Any, Self

import msgspec
import zmq

from warden import authority, engine, frames, journal, keyring, signals, trust, wire
from warden.clock import Clock
from warden.engine import Engine, Outgoing
from warden.events import REFUSED, Door, Enrolled, Started, Stepped, Tick
from warden.holder import Holder
from warden.model import SECOND, ConfigurationError, NotFoundError, UnauthenticatedError, WardenError
from warden.roster import Roster
from warden.sections import LARGEST_RESULT, LARGEST_SEQUENCE
from warden.settings import settings
from warden.store import Store, StoreError
from warden.uploads import Uploads

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from warden.authority import Members
    from warden.config import Config
    from warden.events import Asked, Event

log = logging.getLogger("warden.broker")

replace = msgspec.structs.replace

# One turn takes in no more than this, so that answers leave in time under load.
_TURN = 500
# The loop turns at least once in a heartbeat. After so many without a turn we were stopped (SIGSTOP, a suspended machine,
# a hanging disk), and nobody could renew anything, as if we had been down.
_AWAY = 3
# Connections whose user we remember; a forgotten one is asked again.
_KNOWN = 100_000
# libzmq measures messages as they are encrypted.
_CURVE = 64
# What is taken in at once, however large the messages are.
_TURN_BYTES = 32 * 2**20
# Messages of a connection that wait for their turn, and answers that wait for it to read. An edge's are of many clients.
_AHEAD, _BEHIND = 2, 16
_EDGE_AHEAD, _EDGE_BEHIND = 1000, 10_000
# As large as a sequence can be for any configuration: edges do not send them in parts.
_EDGE_LARGEST = wire.LARGEST + LARGEST_SEQUENCE


class Broker:
    """`with Broker(config) as broker: broker.serve()`; SIGTERM and SIGINT end `serve`."""

    def __init__(self, config: Config) -> None:
        """Open the store and the sockets.

        Raises:
            ConfigurationError: The store, the keys or the addresses cannot be used.
        """
        self._config = config
        self._settings = settings(config)
        self._public, self._secret = keyring.key_pair(config.broker.keys / f"{keyring.BROKER}.key_secret")
        self._known_keys = {
            Door.WORKERS: keyring.PublicKeys(config.broker.keys / keyring.WORKERS),
            Door.EDGES: keyring.PublicKeys(config.broker.keys / keyring.EDGES),
        }
        self._proofs = trust.Proofs()
        self._clock = Clock()
        self._members = self._settings.members
        self._uploads = Uploads(self._settings.max_sequence)
        self._users: collections.OrderedDict[str, int] = collections.OrderedDict()
        try:
            config.broker.state.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"cannot use {config.broker.state}: {error.strerror}") from None
        # Before the sockets: a second broker must not take the first one's place at them.
        self._open(config.broker.state / "warden.db")
        self._context = zmq.Context()
        self._roster = Roster(config.access, self._members)
        try:
            self._zap = self._context.socket(zmq.REP)
            self._zap.bind("inproc://zeromq.zap.01")
            self._doors = {
                Door.CLIENTS: self._bind(Door.CLIENTS, config.broker.clients, wire.LARGEST),
                Door.EDGES: self._bind(Door.EDGES, config.edge_doors, _EDGE_LARGEST, _EDGE_AHEAD, _EDGE_BEHIND),
                # As for any configuration: a task may have been accepted under another one.
                Door.WORKERS: self._bind(Door.WORKERS, config.broker.workers, wire.LARGEST + LARGEST_RESULT),
            }
        except ConfigurationError:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._roster.close()
        self._context.destroy(linger=200)
        self._store.close()
        self._holder.close()

    def _open(self, path: Path) -> None:
        self._holder = Holder(path, self._clock.now())
        with contextlib.ExitStack() as undo:
            undo.callback(self._holder.close)
            self._store = Store(path)
            undo.callback(self._store.close)
            try:
                self._engine = Engine(self._settings, self._config.calendar, self._store, lambda: str(uuid.uuid4()))
            except StoreError as error:
                raise ConfigurationError(f"cannot use the store {path}: {error.__cause__ or error}") from None
            undo.pop_all()

    def serve(self) -> None:
        """Work until SIGTERM or SIGINT; call it on the main thread."""
        # A connection is a descriptor.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        poller = zmq.Poller()
        with signals.as_socket() as stop:
            # Not before: who reads it may tell us to stop, and that is then heard.
            log.info("serving the QPU %s at %s", self._settings.name, " ".join(self._config.broker.clients))
            for source in (self._zap, *self._doors.values(), stop):
                poller.register(source, zmq.POLLIN)
            self._turn([Started(), Tick()])
            while True:
                ready = dict(poller.poll(self._patience()))
                if stop.fileno() in ready:
                    log.info("told to stop: goodbye")
                    return
                if self._zap in ready:
                    self._admit()
                self._turn([*self._reports(), *self._requests(), Tick()])

    def _patience(self) -> int:
        """Milliseconds until the core wants to be woken; at most the heartbeat, in case the clock is stepped."""
        now = self._clock.now()
        wakeup = self._engine.next_wakeup(now)
        until = self._settings.heartbeat if wakeup is None else wakeup - now
        return max(0, min(until, self._settings.heartbeat)) // 1000 + 1

    def _turn(self, events: list[Event]) -> None:
        moment = self._clock.turn()
        if self._roster.members != self._members:
            self._members = self._roster.members
            journal.write(journal.AUDIT, "members changed", _facts(self._members))
            events = [Enrolled(self._members), *events]
        if moment.passed > _AWAY * self._settings.heartbeat:
            log.warning("was stopped for %.1f s", moment.passed / SECOND)
            events = [Started(away=moment.passed), *events]
        if moment.step:
            log.warning("somebody has set the clock by %+.3f s", moment.step / SECOND)
            events = [Stepped(moment.step), *events]
        try:
            sent = self._engine.turn(events, moment.now)
        except StoreError as error:
            raise ConfigurationError(
                f"the store can be neither written nor read, so the broker ends: {error}"
            ) from None
        for outgoing in sent:
            self._send(outgoing)

    # --- what comes in ---

    def _requests(self) -> Iterator[Event]:
        for door in (Door.CLIENTS, Door.EDGES):
            for message in self._messages(door):
                yield from self._request(door, message)

    def _request(self, door: Door, message: list[zmq.Frame]) -> Iterator[Event]:
        peer, frame = message[0].bytes, message[-1].bytes
        try:
            uid = self._user(message[-1]) if door is Door.CLIENTS else self._borne(message[-1])
            asked = engine.read_request(peer, uid, frame, door)
            match asked.body:
                case wire.Hello() as hello:
                    self._answer(asked, self._hello(message[-1], hello))
                case wire.Part() as part:
                    authority.check(part, asked.uid, self._members)
                    self._answer(asked, self._uploads.add(asked.uid or 0, part))
                case wire.TaskStart(upload=str(upload)) as body if asked.uid is not None:
                    # One that is not here may have been used: the core knows whether this was asked before.
                    with contextlib.suppress(NotFoundError):
                        text = self._uploads.text(asked.uid, upload)
                        asked = replace(asked, body=replace(body, sequence=text, upload=None))
                    yield asked
                case _:
                    yield asked
        except WardenError as error:
            self._send(Outgoing(door, peer, engine.refusal(frame, error)))

    def _answer(self, asked: Asked, result: Any) -> None:
        self._send(Outgoing(asked.door, asked.peer, frames.pack_answer(asked.correlation, result)))

    def _reports(self) -> Iterator[Event]:
        for message in self._messages(Door.WORKERS):
            yield engine.read_report(message[0].bytes, message[-1].bytes)

    def _messages(self, door: Door) -> Iterator[list[zmq.Frame]]:
        source, size = self._doors[door], 0
        # Looked up once a turn, and only where something has come.
        keys: frozenset[bytes] | None = None
        for _ in range(_TURN):
            if size > _TURN_BYTES:
                return
            try:
                message = source.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            size += sum(map(len, message))
            # Its key may have been taken away since it connected.
            if keys is None and door in self._known_keys:
                keys = self._known_keys[door].now()
            known = keys is None or _key(message[-1]).encode() in keys
            if known and len(message) == 2:  # noqa: PLR2004 - the peer and its message
                yield message

    def _hello(self, frame: zmq.Frame, hello: wire.Hello) -> wire.Greeting:
        key = _key(frame)
        try:
            uid = trust.verify(hello.credential, key.encode(), self._public, self._config.access)
        except WardenError as error:
            journal.write(journal.AUDIT, REFUSED, {"address": _address(frame), "what": "hello", "why": error.text})
            raise
        self._users[key] = uid
        if len(self._users) > _KNOWN:
            self._users.popitem(last=False)
        return wire.Greeting(uid, self._settings.name)

    def _user(self, frame: zmq.Frame) -> int | None:
        if self._config.access.identity == "kernel":
            return trust.peer_uid(_address(frame))
        key = _key(frame)
        if key not in self._users:
            return None
        self._users.move_to_end(key)
        return self._users[key]

    def _borne(self, frame: zmq.Frame) -> int | None:
        """Who an edge says that its client is; a credential counts once, whichever edges it was shown to."""
        bearer = frames.bearer_of(frame.bytes)
        if bearer is None:
            return None
        if not self._proofs.take(bearer.proof, self._clock.now()) and not bearer.again:
            why = "this credential was used before: each works only once"
            journal.write(
                journal.AUDIT, REFUSED, {"by": bearer.uid, "what": f"request at the edge {_key(frame)[:8]}", "why": why}
            )
            raise UnauthenticatedError(why)
        return bearer.uid

    # --- sockets ---

    def _bind(
        self, door: Door, addresses: tuple[str, ...], largest: int, ahead: int = _AHEAD, behind: int = _BEHIND
    ) -> zmq.Socket[bytes]:
        server = self._context.socket(zmq.ROUTER)
        server.curve_server = True
        server.curve_secretkey = self._secret
        server.zap_domain = door.value.encode()
        server.linger = 200
        # A larger message ends its connection before it fills our memory.
        server.maxmsgsize = largest + _CURVE
        # What libzmq may hold for a connection that sends faster than we read.
        server.rcvhwm = ahead
        server.sndhwm = behind
        # No heartbeats of ZeroMQ's: libzmq 4.3.5 aborts the process (`!_io_error`) when one is due to a peer that has died
        # while more of it waits than is taken in. The kernel's are as good for peers that vanish.
        server.tcp_keepalive, server.tcp_keepalive_idle = 1, 30
        server.tcp_keepalive_intvl, server.tcp_keepalive_cnt = 10, 3
        server.handshake_ivl = 10_000
        for address in addresses:
            try:
                server.bind(address)
                if address.startswith("ipc:///"):
                    # Who may do what is decided by credentials; the socket itself is for all users of the host.
                    os.chmod(address.removeprefix("ipc://"), 0o666)  # noqa: S103, PTH101 - as above
            except (zmq.ZMQError, OSError) as error:
                raise ConfigurationError(f"cannot listen at {address}: {error.strerror}") from None
        return server

    def _admit(self) -> None:
        """Answer libzmq's question (ZAP, RFC 27) whether a connection may be made; its key becomes its User-Id."""
        while True:
            try:
                version, request, domain, address, _, mechanism, *credentials = self._zap.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            key = zmq.utils.z85.encode(credentials[0]) if mechanism == b"CURVE" else b""
            keys = self._known_keys.get(Door(domain.decode()))
            welcome = bool(key) and (keys is None or key in keys)
            if not welcome:
                facts = {"address": address.decode(), "what": f"connection to {domain.decode()}", "why": "unknown key"}
                journal.write(journal.AUDIT, REFUSED, facts)
            status = (b"200", b"OK", key) if welcome else (b"400", b"unknown key", b"")
            self._zap.send_multipart([version, request, *status, b""])

    def _send(self, outgoing: Outgoing) -> None:
        # A peer that is gone, or that does not read, loses its message: it asks again.
        with contextlib.suppress(zmq.Again, zmq.ZMQError):
            self._doors[outgoing.door].send_multipart([outgoing.peer, outgoing.frame], zmq.NOBLOCK)


def _facts(members: Members) -> dict[str, Any]:
    users = "everybody" if members.users is None else len(members.users)
    return {"operators": ",".join(map(str, sorted(members.operators))), "users": users}


def _address(frame: zmq.Frame) -> str:
    """Where a message comes from; of a peer on this host its uid, gid and pid, as the kernel says."""
    return str(frame.get("Peer-Address"))


def _key(frame: zmq.Frame) -> str:
    return str(frame.get("User-Id"))
