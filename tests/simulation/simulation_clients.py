"""Processes that talk to the broker: they ask again when nobody answers, as `warden.client` does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulation_network import Endpoint

from warden import frames, wire
from warden.model import SECOND, UnauthenticatedError, UnavailableError, WardenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulation_network import Network
    from simulation_world import World

    from warden.model import Micros

    Done = Callable[[Any], None]

_AGAIN: Micros = 10 * SECOND


class Client:
    """One process of one user. `done` is called once with the result or with the error, unless the process dies."""

    def __init__(self, world: World, network: Network, name: str, uid: int | None) -> None:
        self.world, self.uid, self.name = world, uid, name
        self._network = network
        self._connections = 0
        self._correlation = 0
        self._calls: dict[int, _Call] = {}
        self._known = False
        self.dead = False
        self._endpoint = self._connect()

    def ask(self, body: wire.Message, done: Done, *, patience: Micros = 0, tries: int = 6) -> None:
        if not self.dead:
            self._try(_Call(body, done, patience, tries))

    def say(self, frame: bytes) -> None:
        self._endpoint.send(frame)

    def die(self) -> None:
        self.dead = True
        self._calls.clear()
        self._endpoint.close()

    def _connect(self) -> Endpoint:
        self._connections += 1
        return Endpoint(self._network, "clients", f"{self.name}.{self._connections}", self._hear)

    def _try(self, call: _Call) -> None:
        if self.dead:
            return
        if call.tries == 0:
            call.done(UnavailableError("Warden does not answer"))
            return
        call.tries -= 1
        if self.uid is not None and not self._known:
            # It may be lost, or come late: then the broker says so.
            self._known = True
            credential = f"{self.uid}:{self._endpoint.key}"
            self._endpoint.send(frames.pack_request(0, wire.Hello(credential=credential)))
        self._correlation += 1
        self._calls[self._correlation] = call
        self.world.log(self.name, "asks", call.body)
        self._endpoint.send(frames.pack_request(self._correlation, call.body))
        self.world.after(_AGAIN + call.patience, self._silence, self._correlation)

    def _silence(self, correlation: int) -> None:
        call = self._calls.pop(correlation, None)
        if call is not None and not self.dead:
            self._endpoint.close()
            self._endpoint, self._known = self._connect(), False
            self._try(call)

    def _hear(self, frame: bytes) -> None:
        correlation, result = frames.unpack_answer(frame)
        call = self._calls.pop(correlation, None)
        if call is None or self.dead:
            return
        if isinstance(result, UnauthenticatedError):
            self._known = False
            self.world.after(SECOND, self._try, call)
            return
        self.world.log(self.name, "hears", result.code if isinstance(result, WardenError) else str(result))
        call.done(result)


class _Call:
    def __init__(self, body: wire.Message, done: Done, patience: Micros, tries: int) -> None:
        self.body, self.done, self.patience, self.tries = body, done, patience, tries
