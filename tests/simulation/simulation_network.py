"""Connections that lose, delay, cut, and (where a seed says so) double and reorder what goes over them.

As in ZeroMQ, messages of one connection arrive in order or not at all; what is under way when it is cut is lost, but
what has reached the other side may still be read there. A new connection has a new name (routing id) at the broker.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from simulation_scenario import Chaos
    from simulation_world import World

    from warden.model import Micros

MILLISECOND: Micros = 1000


class Server(Protocol):
    """Where connections lead to: the broker's host."""

    def arrive(self, door: str, peer: bytes, key: str, frame: bytes) -> None: ...


class Connection:
    """What is under way on it holds on to it: a cut ends both directions."""

    def __init__(self, peer: bytes) -> None:
        self.peer = peer
        self.up = self.down = True
        self.up_until: Micros = 0
        self.down_until: Micros = 0


class Endpoint:
    """One process's way to the broker. `key` is its CURVE key; the connection behind it may change."""

    def __init__(self, network: Network, door: str, key: str, hear: Callable[[bytes], None]) -> None:
        self.network, self.door, self.key, self.hear = network, door, key, hear
        self.connection = network.connect(self)
        self.closed = False

    def send(self, frame: bytes) -> None:
        if not self.closed:
            self.network.up(self, frame)

    def close(self) -> None:
        """The process is gone."""
        if not self.closed:
            self.closed = True
            self.network.cut(self, reconnect=False)


class Network:
    def __init__(self, world: World, chaos: Chaos) -> None:
        self._world, self._chaos = world, chaos
        self._chance = world.chance("network")
        self._endpoints: dict[bytes, Endpoint] = {}
        self._connections = 0
        self.server: Server | None = None
        self.calm = False

    def connect(self, endpoint: Endpoint) -> Connection:
        self._connections += 1
        connection = Connection(f"{endpoint.key}#{self._connections}".encode())
        self._endpoints[connection.peer] = endpoint
        return connection

    def cut(self, endpoint: Endpoint, *, reconnect: bool = True) -> None:
        old = endpoint.connection
        old.down = False
        # What lies in the broker's socket already is read, also after the connection is gone.
        old.up = self._chance.random() < 0.5
        del self._endpoints[old.peer]
        self._world.log("network", "cut", old.peer)
        if reconnect:
            endpoint.connection = self.connect(endpoint)

    def cut_all(self) -> None:
        """The broker is gone, and all that its sockets held."""
        for endpoint in list(self._endpoints.values()):
            old = endpoint.connection
            self.cut(endpoint)
            old.up = False

    def cut_one(self) -> None:
        if self._endpoints:
            peers = list(self._endpoints)
            self.cut(self._endpoints[peers[self._chance.randrange(len(peers))]])

    def up(self, endpoint: Endpoint, frame: bytes) -> None:
        connection = endpoint.connection
        for delay in self._delays():
            arrival = self._world.now + delay
            if not self._disordered:
                arrival = connection.up_until = max(connection.up_until, arrival)
            self._world.at(arrival, self._arrive_up, endpoint, connection, frame)

    def down(self, door: str, peer: bytes, frame: bytes) -> None:
        endpoint = self._endpoints.get(peer)
        if endpoint is None or endpoint.door != door:
            return
        connection = endpoint.connection
        for delay in self._delays():
            arrival = self._world.now + delay
            if not self._disordered:
                arrival = connection.down_until = max(connection.down_until, arrival)
            self._world.at(arrival, self._arrive_down, endpoint, connection, frame)

    def _arrive_up(self, endpoint: Endpoint, connection: Connection, frame: bytes) -> None:
        if connection.up and self.server is not None:
            self.server.arrive(endpoint.door, connection.peer, endpoint.key, frame)

    @staticmethod
    def _arrive_down(endpoint: Endpoint, connection: Connection, frame: bytes) -> None:
        if connection.down and not endpoint.closed:
            endpoint.hear(frame)

    @property
    def _disordered(self) -> bool:
        return self._chaos.doubled > 0 and not self.calm

    def _delays(self) -> list[Micros]:
        """When the copies of a message arrive: usually one, soon."""
        chance, chaos = self._chance, self._chaos
        soon = chance.randint(1, 20) * MILLISECOND
        if self.calm:
            return [soon]
        if chaos.lost and chance.random() < chaos.lost:
            self._world.log("network", "loses a message")
            return []
        if chaos.late and chance.random() < chaos.late:
            soon = chance.randint(MILLISECOND, chaos.latest)
        if chaos.doubled and chance.random() < chaos.doubled:
            return [soon, chance.randint(MILLISECOND, chaos.latest)]
        return [soon]
