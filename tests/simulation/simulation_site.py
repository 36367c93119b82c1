"""One simulation: a whole site from a seed, its faults, and the quiet after them in which all has to come to an end."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from simulation_account import Account
from simulation_broker import BrokerHost
from simulation_jobs import Site
from simulation_network import Network
from simulation_people import Operator, Sensor, Stranger
from simulation_qpu import Qpu
from simulation_scenario import Scenario, scenario
from simulation_store import template
from simulation_worker import WorkerHost
from simulation_world import ViolationError, World

from warden.model import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from warden.model import Micros

_QUIET: Micros = 3 * 3600 * SECOND
# What the broker needs beyond a lease until it has noticed: a start, and a heartbeat.
_BOUND: Micros = 60 * SECOND


@dataclasses.dataclass(frozen=True)
class Result:
    seed: int
    violation: str
    events: int
    steps: int
    starts: int
    facts: dict[str, int]
    log: list[str]


class Simulation:
    def __init__(self, seed: int, folder: Path, empty: Path, *, logging_: bool = False) -> None:
        self.world = World(seed, logging=logging_)
        self.scenario: Scenario = scenario(self.world)
        chaos = self.scenario.chaos
        self.network = Network(self.world, chaos)
        self.account = Account(self.world, self.scenario)
        undisturbed = not (chaos.lost or chaos.late or chaos.cut or chaos.doubled or chaos.kill or chaos.disk)
        prompt = self.scenario.settings.heartbeat + SECOND if undisturbed else None
        self.qpu = self.account.qpu = Qpu(self.world, prompt=prompt)
        self.broker = BrokerHost(self.world, self.scenario, self.network, self.account, folder, empty)
        self.network.server = self.broker
        self.workers = [WorkerHost(self.world, self.scenario, self.network, self.qpu)]
        if self.scenario.standby:
            self.workers.append(WorkerHost(self.world, self.scenario, self.network, self.qpu, "s"))
        self.site = Site(self.world, self.scenario, self.network, self.account)
        self.operator = Operator(self.site, self.broker)
        self._chance = self.world.chance("faults")
        self._calm = False

    # --- its course ---

    def run(self) -> None:
        self.world.log("scenario", repr(self.scenario))
        try:
            self._busy()
            self._quiet()
            self._silent()
        finally:
            self.broker.close()

    def _busy(self) -> None:
        world, scenario = self.world, self.scenario
        self.broker.start()
        for worker in self.workers:
            world.after(self._chance.randint(0, 20) * SECOND, worker.start)
        for number in range(1, scenario.jobs + 1):
            world.at(self._chance.randint(0, scenario.busy * 3 // 4), self.site.submit, number)
        if scenario.operators:
            world.after(scenario.operators // 2, self.operator.deed)
        world.after(SECOND, Sensor(self.site).look)
        world.after(SECOND, Stranger(self.site).attempt)
        chaos = scenario.chaos
        self._again(chaos.cut, self.network.cut_one)
        for worker in self.workers:
            self._again(chaos.worker, worker.strike)
        self._again(chaos.outage, self._disk)
        self._again(chaos.clock, self._clock)
        world.run(scenario.busy)

    def _quiet(self) -> None:
        """9: nothing fails any more, the worker is healthy: all tasks come to an end."""
        self.world.log("faults", "stop")
        self._calm = self.network.calm = self.broker.calm = self.site.calm = True
        self.broker.set_outage("")
        for worker in self.workers:
            worker.heal()
        world = self.world
        # What was under way when the faults stopped arrives, and whoever was down comes up.
        world.run(world.now + 130 * SECOND)
        self.operator.resume()
        end = world.now + _QUIET
        while world.now < end:
            world.run(world.now + 30 * SECOND)
            if not self.account.books.live and self.broker.engine is not None:
                break
        if self.account.books.live:
            raise ViolationError(f"9: these tasks never come to an end: {list(self.account.books.live.values())}")

    def _silent(self) -> None:
        """5: nobody says anything any more: all sessions end by themselves."""
        self.world.log("faults", "everybody falls silent")
        self.site.silence()
        self.world.run(self.world.now + self.scenario.settings.lease + _BOUND)
        books = self.account.books
        if books.open:
            raise ViolationError(f"5: these sessions never end: {list(books.open.values())}")
        self.broker.check()
        for number in sorted(self.account.acknowledged):
            if number not in books.tasks or not books.tasks[number].status.final:
                raise ViolationError(f"3: task {number} was acknowledged, and is {books.tasks.get(number)}")
        self.account.balance()

    # --- faults ---

    def _again(self, mean: Micros, fault: Callable[[], None]) -> None:
        if mean:
            self.world.after(round(self._chance.expovariate(1 / mean)) + SECOND, self._strike, mean, fault)

    def _strike(self, mean: Micros, fault: Callable[[], None]) -> None:
        if not self._calm:
            fault()
            self._again(mean, fault)

    def _disk(self) -> None:
        kind = self._chance.choice(("full", "failing"))
        self.world.log("disk", "is", kind)
        self.broker.set_outage(kind)
        self.world.after(self._chance.randint(1, 60) * SECOND, self.broker.set_outage, "")

    def _clock(self) -> None:
        size = self._chance.choice((SECOND // 3, 5 * SECOND, 90 * SECOND, 3600 * SECOND, 5 * 3600 * SECOND))
        self.broker.step_clock(self._chance.choice((-1, 1)) * self._chance.randint(size // 2, size))


class _Bugs(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None and record.exc_info[1] is not None:
            self.found.append(f"9: {record.getMessage()}: {record.exc_info[1]!r}")


@contextlib.contextmanager
def watched() -> Iterator[list[str]]:
    """Exceptions that the broker has logged meanwhile."""
    logger, bugs = logging.getLogger("warden"), _Bugs()
    logger.addHandler(bugs)
    try:
        yield bugs.found
    finally:
        logger.removeHandler(bugs)


def simulate(seed: int, *, log: bool = False, folder: Path | None = None) -> Result:
    """Run one seed from its beginning to its end, or to the first promise that does not hold."""
    logger = logging.getLogger("warden")
    logger.setLevel(logging.WARNING)
    logger.propagate = log
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if folder is None and memory.is_dir() else folder) as name:
        empty = Path(name, "empty.db")
        template(empty)
        simulation = Simulation(seed, Path(name), empty, logging_=log)
        violation = ""
        with watched() as bugs:
            try:
                simulation.run()
            except ViolationError as error:
                violation = str(error)
        # A broker survives its bugs, and so would they survive the simulation.
        violation = violation or "".join(bugs[:1])
        broker, account = simulation.broker, simulation.account
        facts = {
            "kills": broker.kills,
            "failed turns": broker.failed,
            "tasks": len(account.books.tasks),
            "sessions": len(account.books.sessions),
            "shots": account.credited,
            "calibrations": len(account.books.calibrations),
            "calibrations begun": simulation.qpu.calibrated,
            "clock steps": account.steps,
            "seconds": simulation.world.now // SECOND,
            **{f"answered {name}": n for name, n in sorted(broker.answers.answered.items())},
            **{f"refused {name}": n for name, n in sorted(broker.answers.refused.items())},
        }
        lines = simulation.world.lines or []
        return Result(seed, violation, broker.events, simulation.world.steps, account.starts, facts, lines)
