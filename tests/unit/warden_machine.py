"""The core and its store alone: time is a number, and the QPU does what a test makes it do."""

from __future__ import annotations

import itertools
import json
from typing import Any

import msgspec

from warden import orders, wire
from warden.authority import Members
from warden.calibration import Calendar
from warden.checks import PATIENCE
from warden.core import Core
from warden.events import (
    Answer,
    Asked,
    Class,
    Event,
    Garbled,
    Refuse,
    Reported,
    Settings,
    Started,
    Stepped,
    Tell,
    Tick,
)
from warden.model import SECOND, Session, Task, Window
from warden.qpu.timing import Timing
from warden.store import Store

T0 = 1_800_000_000 * SECOND
ALICE, BOB, CAROL, OPERATOR, ROOT = 1001, 1002, 1003, 900, 0
DEVICE = "AnalogDevice"

SETTINGS = Settings(
    name="fresnel",
    places=2,
    qubits=10,
    timing=Timing(overhead=2 * SECOND, shot_rate=10.0),
    lease=600 * SECOND,
    heartbeat=2 * SECOND,
    longest_run=3600 * SECOND,
    failures=3,
    retry=300 * SECOND,
    unseen=3600 * SECOND,
    fair=True,
    half_life=86400 * SECOND,
    longest_wait=86400 * SECOND,
    classes=(Class(name="everybody"),),
    max_sessions_per_user=100,
    keep=86400 * SECOND,
    max_shots=1_000,
    max_sequence=10_000,
    max_queued=20,
    max_queued_per_user=5,
    members=Members(operators=frozenset({OPERATOR})),
)

# Those of the test that is on; it closes them all (conftest.py).
DISKS: list[Store] = []


def sequence(qubits: int = 2, device: str = DEVICE) -> str:
    """What a sequence looks like to a broker, which does not look far."""
    atoms = [{"name": f"q{i}", "x": 6.0 * i, "y": 0.0} for i in range(qubits)]
    return json.dumps({"register": atoms, "operations": [], "variables": {}, "device": {"name": device}})


class Machine:
    """A core with its disk and its time. `ask` is a client, `Qpu` a worker."""

    def __init__(self, calendar: Calendar = Calendar(), now: int = T0, **settings: Any) -> None:  # noqa: B008 - frozen
        self.settings = msgspec.structs.replace(SETTINGS, **settings)
        self.calendar = calendar
        self.now = now
        self.disk = Store(":memory:")
        DISKS.append(self.disk)
        self.answers: dict[int, Any] = {}
        self.told: dict[bytes, list[wire.Message]] = {}
        # Of what was told: a long life is full of other things.
        self.runs: dict[bytes, list[orders.StartRun]] = {}
        self.checks: dict[bytes, list[orders.CheckSequence]] = {}
        self.qpus: list[Qpu] = []
        self._ids = itertools.count(1)
        self._correlations = itertools.count(1)
        self.core = self._new_core()

    def _new_core(self) -> Core:
        return Core(self.settings, self.calendar, self.disk, lambda: f"id-{next(self._ids)}", self.disk.remember())

    def restart(self) -> None:
        """What a broker goes on with after kill -9: the disk, and nobody connected."""
        self.core = self._new_core()
        self.told.clear()
        self.runs.clear()
        self.checks.clear()
        self.send(Started())
        self.send(Tick())

    def step_clock(self, seconds: float) -> None:
        """Somebody sets the clock."""
        by = round(seconds * SECOND)
        self.now += by
        for qpu in self.qpus:
            qpu.next_beat += by
            qpu.ahead -= by
        self.send(Stepped(by))
        self.send(Tick())

    def send(self, event: Event) -> list[Any]:
        effects = self.core.handle(event, self.now)
        self.disk.begin()
        self.disk.apply(effects)
        self.disk.commit()
        for effect in effects:
            match effect:
                case Answer(to=asked, result=result):
                    self.answers[asked.correlation] = result
                case Refuse(to=asked, error=error):
                    self.answers[asked.correlation] = error
                case Tell(peer=peer, body=body):
                    self.told.setdefault(peer, []).append(body)
                    if isinstance(body, orders.StartRun):
                        self.runs.setdefault(peer, []).append(body)
                    if isinstance(body, orders.CheckSequence):
                        self.checks.setdefault(peer, []).append(body)
        for qpu in [qpu for qpu in self.qpus if qpu.prompt]:
            effects += qpu.check_all()
        return effects

    def post(self, body: wire.Message, uid: int | None = ROOT) -> int:
        """Ask without expecting an answer now; `answers` has it under the returned number when it comes."""
        correlation = next(self._correlations)
        self.send(Asked(b"client", correlation, uid, body))
        return correlation

    def ask(self, body: wire.Message, uid: int | None = ROOT) -> Any:
        """The answer, or the refusal raised; a worker that has died says nothing of a sequence, and that takes its time."""
        correlation = self.post(body, uid)
        end = self.now + PATIENCE
        while isinstance(body, wire.TaskStart) and correlation not in self.answers and self.now < end:
            self.later(0.5)
        answer = self.answers[correlation]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def later(self, seconds: float) -> None:
        """Let time pass as a broker would: woken when the core wants it, with living workers that beat."""
        end = self.now + round(seconds * SECOND)
        while self.now < end:
            beat = min((qpu.next_beat for qpu in self.qpus), default=end)
            wakeup = self.core.next_wakeup(self.now)
            assert wakeup is None or wakeup > self.now, "the core wants to be woken again at once, for ever"
            self.now = min(end, max(self.now, beat), end if wakeup is None else wakeup)
            for qpu in self.qpus:
                if self.now >= qpu.next_beat:
                    qpu.beat()
            self.send(Tick())

    # --- shorthands ---

    def session(self, uid: int = ALICE, job: str = "1", host: str = "node1", **labels: str) -> Session:
        session: Session = self.ask(wire.Acquire(job=job, uid=uid, host=host, **labels))
        return session

    def start(
        self,
        session: Session,
        shots: int = 100,
        key: str = "",
        text: str | None = None,
        within: float | None = None,
    ) -> Task:
        body = wire.TaskStart(
            session=session.id,
            sequence=text or sequence(),
            shots=shots,
            key=key or f"key-{next(self._correlations)}",
            within=None if within is None else round(within * SECOND),
        )
        task: Task = self.ask(body, session.uid)
        return task

    def task(self, number: int, uid: int = ROOT) -> Task:
        task: Task = self.ask(wire.GetTask(task=number), uid)
        return task

    def status(self) -> str:
        return str(self.core.availability(self.now).state)

    def block(self, start: float | None = 0.0, duration: float | None = None, kind: str = "maintenance") -> Window:
        """An operator's window, in seconds from now."""
        body = wire.AddWindow(
            kind=kind,
            start=None if start is None else self.now + round(start * SECOND),
            duration=None if duration is None else round(duration * SECOND),
        )
        window: Window = self.ask(body, OPERATOR)
        return window


class Qpu:
    """A worker at a machine, which beats until it dies."""

    def __init__(self, machine: Machine, instance: str = "w1", qubits: int = 8) -> None:
        self.machine, self.instance, self.qubits = machine, instance, qubits
        self.peer = instance.encode()
        self.token = ""
        self.quality: float | None = None
        self.specs = "{}"
        self.taken: orders.StartRun | None = None
        # Whether it says at once that it can run what it is asked about.
        self.prompt = True
        self._checked = 0
        # Its own clock, which nobody sets.
        self.ahead = -T0 + 5 * SECOND
        self.next_beat = machine.now
        machine.qpus.append(self)
        self.hello()

    def _say(self, body: wire.Message) -> list[Any]:
        return self.machine.send(Reported(self.peer, body))

    def babble(self, text: str = "not a message") -> None:
        """Send what cannot be understood."""
        self.machine.send(Garbled(self.peer, text))

    def hello(self) -> None:
        self.next_beat = self.machine.now + self.machine.settings.heartbeat
        self._say(
            orders.WorkerHello(
                instance=self.instance,
                device=self.specs,
                device_name=DEVICE,
                qubits=self.qubits,
                clock=self.clock,
                token=self.token,
            )
        )

    def beat(self) -> None:
        self.next_beat = self.machine.now + self.machine.settings.heartbeat
        beat = orders.WorkerBeat(instance=self.instance, clock=self.clock, token=self.token, quality=self.quality)
        self._say(beat)

    @property
    def clock(self) -> int:
        return self.machine.now + self.ahead

    def die(self) -> None:
        self.machine.qpus.remove(self)

    @property
    def heard(self) -> list[wire.Message]:
        return self.machine.told.get(self.peer, [])

    @property
    def checks(self) -> list[orders.CheckSequence]:
        return self.machine.checks.get(self.peer, [])

    def check(self, token: str | None = None, **said: Any) -> list[Any]:
        """Say something of the sequence that it was asked about last: that it can run it, if nothing else is said."""
        token = self.checks[-1].token if token is None else token
        return self._say(orders.SequenceChecked(**{"instance": self.instance, "token": token, **said}))

    def check_all(self) -> list[Any]:
        """Answer what it has not answered yet."""
        effects = []
        # After a restart of the broker it has heard nothing.
        self._checked = min(self._checked, len(self.checks))
        while self._checked < len(self.checks):
            self._checked += 1
            effects += self.check(self.checks[self._checked - 1].token)
        return effects

    @property
    def runs(self) -> list[orders.StartRun]:
        return self.machine.runs.get(self.peer, [])

    @property
    def calibrations(self) -> list[orders.StartCalibration]:
        return [body for body in self.heard if isinstance(body, orders.StartCalibration)]

    def calibrate(self) -> orders.StartCalibration:
        """Begin with the calibration that was ordered last."""
        order = self.calibrations[-1]
        self.token = order.token
        return order

    def calibrated(self, **other: Any) -> None:
        """Hand in what became of it: the Rabi frequency is right again, if nothing else is said."""
        found = {"measured": {"rabi_error": 0.02}, "left": {"rabi_error": 0.001}, "before": 0.93, "after": 0.99}
        fields = {"instance": self.instance, "token": self.token, "time": 60 * SECOND, **found, **other}
        self.token = ""
        self._say(orders.CalibrationFinished(**fields))

    def take(self) -> orders.StartRun:
        """Begin with the run that was ordered last."""
        self.taken = run = self.runs[-1]
        self.token = run.token
        return run

    def told_to_stop(self, token: str) -> bool:
        return orders.StopRun(token=token) in self.heard

    def finish(self, shots: int | None = None, counts: dict[str, int] | None = None, **other: Any) -> None:
        """Hand in the run's result: all its shots as the state 01, if nothing else is said."""
        run = self.runs[-1] if self.runs else self.taken
        assert run is not None
        shots = run.shots if shots is None else shots
        if counts is None:
            counts = {"01": shots} if shots else {}
        fields = {"instance": self.instance, "token": run.token, "time": SECOND, **other}
        self.token = ""
        self._say(orders.RunFinished(shots=shots, counts=counts, **fields))


def ready(**settings: Any) -> tuple[Machine, Qpu]:
    """A machine whose QPU is there."""
    machine = Machine(**settings)
    return machine, Qpu(machine)
