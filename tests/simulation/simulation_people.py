"""Those who come by: operators with their windows, sensors without a name, and strangers who try what they may not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulation_clients import Client
from simulation_scenario import OPERATOR, STRANGER
from simulation_worker import sequence
from simulation_world import ViolationError

from warden import frames, wire
from warden.model import SECOND, Availability, State, WardenError

if TYPE_CHECKING:
    from simulation_broker import BrokerHost
    from simulation_jobs import Site


class Operator:
    """`deed` at times: windows are added, moved and taken back, and maintenance comes and goes."""

    def __init__(self, site: Site, broker: BrokerHost) -> None:
        self._site, self._world, self._broker = site, site.world, broker
        self._chance = site.world.chance("operator")
        self._client = Client(site.world, site.network, "operator", OPERATOR)
        self._windows: list[Any] = []

    def deed(self) -> None:
        if self._site.calm:
            return
        now = self._broker.clock
        what = self._chance.choice(("add", "add", "now", "drain", "cancel", "move", "resume", "look"))
        seconds = self._chance.randint(1, 60) * SECOND
        ahead = now + self._chance.randint(1, 300) * SECOND
        match what:
            case "add":
                kind = self._chance.choice(("calibrating", "maintenance"))
                self._ask(wire.AddWindow(kind=kind, start=ahead, duration=seconds))
            case "now":
                self._ask(wire.AddWindow(kind="calibrating", duration=seconds))
            case "drain":
                duration = self._chance.choice((None, seconds))
                self._ask(wire.AddWindow(kind="maintenance", duration=duration, reason="the lift is broken"))
                self._world.after(seconds, self._ask, wire.Resume())
            case "cancel" | "move" if self._windows:
                window = self._windows.pop(self._chance.randrange(len(self._windows)))
                if what == "move":
                    self._ask(wire.MoveWindow(window=window["id"], start=ahead, duration=seconds))
                else:
                    self._ask(wire.CancelWindow(window=window["id"]))
            case "resume":
                self._ask(wire.Resume())
            case _:
                self._ask(wire.ListTasks(everybody=True))
                self._ask(wire.ListSessions(everybody=True, ended=True))
        self._world.after(round(self._chance.expovariate(1 / self._site.scenario.operators)), self.deed)

    def resume(self) -> None:
        """The end of all maintenance, and of a pause after failures."""
        self._client.ask(wire.Resume(), lambda _: None)

    def _ask(self, body: wire.Message) -> None:
        self._client.ask(body, lambda result: self._heard(body, result), tries=2)

    def _heard(self, body: wire.Message, result: Any) -> None:
        if isinstance(body, wire.AddWindow) and not isinstance(result, WardenError):
            self._windows.append(result)


class Sensor:
    """Asks for what everybody may know, and never says who it is."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._chance = site.world.chance("sensor")
        self._client = Client(site.world, site.network, "sensor", None)

    def look(self) -> None:
        if self._site.calm:
            return
        bodies = (wire.GetAvailability(), wire.GetPlan(count=3), wire.GetTarget(), wire.GetHistory())
        body = self._chance.choice(bodies)
        self._client.ask(body, lambda result: self._heard(body, result), tries=1)
        self._site.world.after(self._chance.randint(10, 60) * SECOND, self.look)

    @staticmethod
    def _heard(body: wire.Message, result: Any) -> None:
        if isinstance(body, wire.GetAvailability) and not isinstance(result, WardenError):
            seen = frames.convert(result, Availability)
            if seen.used > seen.places or (seen.state is not State.READY and not seen.reason):
                raise ViolationError(f"9: nobody can make sense of {seen}")


class Stranger:
    """A user with an account and nothing else. All that he tries has to be refused."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._chance = site.world.chance("stranger")
        self._client = Client(site.world, site.network, "stranger", STRANGER)
        self._nobody = Client(site.world, site.network, "nobody", None)

    def attempt(self) -> None:
        if self._site.calm:
            return
        account = self._site.account
        sessions, tasks = list(account.books.sessions) or ["none"], list(account.books.tasks) or [1]
        session, task = self._chance.choice(sessions), self._chance.choice(tasks)
        bodies = (
            wire.GetTask(task=task, wait=self._chance.choice((0, SECOND))),
            wire.TaskStop(task=task),
            wire.Release(session=session),
            wire.Renew(host="node0", jobs=("1", "2", "3"), suspended=("1", "2"), candidate=True),
            wire.ListHosts(),
            wire.Acquire(job=str(self._chance.randint(1, 5)), uid=STRANGER),
            wire.TaskStart(session=session, sequence=sequence(2), shots=1, key="key0"),
            wire.ListTasks(everybody=True),
            wire.ListSessions(everybody=True),
            wire.AddWindow(kind="maintenance"),
            wire.Resume(),
        )
        if self._chance.random() < 0.2:
            self._client.say(self._chance.choice((b"", b"\x00", b"GET / HTTP/1.1", b"\x82\xa1v\x02\xa2id\x07")))
        else:
            client = self._chance.choice((self._client, self._client, self._nobody))
            body = self._chance.choice(bodies)
            client.ask(body, lambda result: self._heard(body, result), tries=1)
        self._site.world.after(self._chance.randint(10, 80) * SECOND, self.attempt)

    @staticmethod
    def _heard(body: wire.Message, result: Any) -> None:
        if not isinstance(result, WardenError):
            raise ViolationError(f"8: a stranger was answered: {body} {result}")
