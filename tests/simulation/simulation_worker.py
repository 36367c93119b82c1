"""The host beside the QPU: a worker with the real protocol half, on a device that may misbehave in many ways."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
from simulation_network import Endpoint
from simulation_scenario import DEVICE, QUBITS

from warden import frames, orders, runner, wire
from warden.actions import Abandon, Begin, Calibrate, Check, Failure, Send
from warden.model import SECOND
from warden.qpu.drift import Findings
from warden.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from simulation_network import Network
    from simulation_qpu import Qpu
    from simulation_scenario import Scenario
    from simulation_world import World

    from warden.model import Micros

# What the device may do with a run, when it misbehaves.
MODES = (
    "slow",
    "hang",
    "freeze",
    "task fault",
    "device fault",
    "device fault",
    "too many shots",
    "wrong sum",
    "wrong bits",
    "fewer shots",
    "wrong counts",
    "wrong order",
    "wrong order",
    "wrong time",
    "garbage",
    "stale token",
    "two answers",
)
# What it may say of a sequence then.
CHECKS = ("nothing", "late", "a refusal", "no refusal", "device fault", "garbage", "stale token", "two answers")
REFUSAL = "Pulser refuses"
_SEQUENCES: dict[str, int] = {}


def sequence(qubits: int, name: str = "good") -> str:
    """What a sequence looks like to a broker, which does not look far; a worker refuses one whose name is bad."""
    atoms = [{"name": f"q{i}", "x": 6.0 * i, "y": 0.0} for i in range(qubits)]
    text = json.dumps({"name": name, "register": atoms, "operations": [], "variables": {}, "device": {"name": DEVICE}})
    _SEQUENCES[text] = qubits
    return text


class WorkerHost:
    def __init__(self, world: World, scenario: Scenario, network: Network, qpu: Qpu, name: str = "w") -> None:
        self._world, self._scenario, self._network, self._qpu = world, scenario, network, qpu
        self._name = name
        self._chance = world.chance(f"worker {name}")
        self._lives = 0
        self._worker: _Process | None = None
        self.calm = False

    def start(self) -> None:
        if self._worker is None:
            self._lives += 1
            instance = f"{self._name}{self._lives}"
            self._world.log("worker", "starts", instance)
            self._worker = _Process(instance, self._world, self._scenario, self._network, self._qpu, self._mode)

    def strike(self) -> None:
        """One in three times it is only stopped, while it has nothing to do, and goes on some time later."""
        if self._worker is not None and self._chance.random() < 1 / 3:
            self._worker.pause(self._chance.randint(SECOND, 12 * self._scenario.settings.heartbeat))
        else:
            self.crash()

    def crash(self) -> None:
        """It loses its memory, and its run with it."""
        if self._worker is not None:
            self._world.log("worker", "crashes")
            self._worker.end()
            self._worker = None
            self._world.after(self._chance.randint(SECOND, 60 * SECOND), self.start)

    def heal(self) -> None:
        """Somebody has repaired the device; a worker that hangs is started again."""
        self.calm = True
        if self._worker is not None and self._worker.ill:
            self.crash()

    def _mode(self) -> str:
        if self.calm or self._chance.random() >= self._scenario.chaos.device:
            return ""
        return self._chance.choice(MODES)


class _Process:
    """One life of the worker. `ill` while it does not do what a healthy one does."""

    def __init__(
        self, instance: str, world: World, scenario: Scenario, network: Network, qpu: Qpu, mode: Callable[[], str]
    ) -> None:
        self._world, self._qpu, self._timing = world, qpu, scenario.settings.timing
        self._heartbeat = scenario.settings.heartbeat
        self._choose = mode
        self._chance = world.chance(instance)
        self._instance = instance
        self._endpoint = Endpoint(network, "workers", instance, self._hear)
        # A clock that nobody sets, and that begins somewhere.
        self._birth = self._chance.randint(0, 10**12)
        self._runner = Runner(
            instance=instance,
            device_json="{}",
            device_name=DEVICE,
            qubits=QUBITS,
            timing=self._timing,
            heartbeat=self._heartbeat,
        )
        self._mode = self._old_token = self._working = ""
        # As good as new when it was calibrated last, and worse and worse since.
        self._good = self._now
        self._lasting = scenario.lasting
        self._frozen: list[bytes] | None = None
        self._lies: dict[str, orders.RunFinished | orders.CalibrationFinished] = {}
        self._looks = world.chance(f"{instance} looks")
        self._check = orders.CheckSequence(token="", sequence="")
        self._look = ""
        self._due = 0
        self._dead = False
        self._do(self._runner.start(self._now))
        self._sleep()

    @property
    def _now(self) -> Micros:
        return self._world.now + self._birth

    @property
    def ill(self) -> bool:
        return self._mode in {"hang", "freeze"}

    def end(self) -> None:
        self._dead = True
        self._endpoint.close()
        self._qpu.end(self._working)

    def pause(self, length: Micros) -> None:
        """SIGSTOP, and SIGCONT after a while: what came meanwhile is read then."""
        if self._frozen is None and not self._runner.token:
            self._world.log(self._instance, "is stopped")
            self._frozen = []
            self._world.after(length, self._thaw)

    # --- its loop ---

    def _hear(self, frame: bytes) -> None:
        if self._dead:
            return
        if self._frozen is not None:
            self._frozen.append(frame)
            return
        body = frames.unpack(frame, orders.ToWorker)
        self._world.log(self._instance, "hears", body)
        new = isinstance(body, orders.StartRun | orders.StartCalibration) and body.token != self._runner.token
        if self._mode == "hang" and not new:
            return
        self._do(self._runner.hear(body, self._now))
        self._sleep()

    def _wake(self, number: int) -> None:
        if self._dead or number != self._due or self._frozen is not None:
            return
        if self._mode == "hang":
            self._send(orders.WorkerBeat(instance=self._instance, clock=self._now, token=self._runner.token))
        else:
            self._do(self._runner.tick(self._now))
        self._sleep()

    def _sleep(self) -> None:
        self._due += 1
        if self._mode == "hang":
            self._world.after(self._heartbeat, self._wake, self._due)
            return
        self._world.after(max(0, self._runner.next_wakeup(self._now) - self._now), self._wake, self._due)

    def _do(self, actions: Sequence[runner.Action]) -> None:
        for action in actions:
            match action:
                case Send(body=body):
                    self._send(body)
                case Begin(run=order) | Calibrate(order=order):
                    self._begin(order)
                case Abandon():
                    self._qpu.end(self._working)
                case Check(check=check):
                    self._begin_check(check)
                case _:
                    pass

    # --- the device ---

    def _begin(self, run: orders.StartRun | orders.StartCalibration) -> None:
        self._qpu.end(self._working)
        self._mode = self._choose()
        self._working = run.token
        self._qpu.begin(run.token)
        if self._mode:
            self._world.log(self._instance, "device:", self._mode)
        setup = self._chance.randint(0, max(1, self._timing.pace(0).setup))
        if isinstance(run, orders.StartCalibration):
            self._qpu.calibrated += 1
            setup += self._chance.randint(0, 30 * SECOND)
        if self._mode == "slow":
            setup += self._chance.randint(SECOND, 60 * SECOND)
        elif self._mode == "hang":
            self._dishonest()
            return
        elif self._mode == "freeze":
            self._dishonest()
            self._frozen = []
            self._world.after(self._chance.randint(SECOND, 12 * self._heartbeat), self._thaw, run)
            return
        self._world.after(setup, self._computed, run)

    def _dishonest(self) -> None:
        if self._qpu.at_work is not None:
            self._qpu.at_work.honest = False

    def _thaw(self, run: orders.StartRun | orders.StartCalibration | None = None) -> None:
        """SIGCONT: it finds its messages, and that much time has passed."""
        frames, self._frozen, self._mode = self._frozen or [], None, ""
        if self._dead:
            return
        for frame in frames:
            self._hear(frame)
        if run is None:
            self._do(self._runner.tick(self._now))
            self._sleep()
        else:
            self._computed(run)

    def _computed(self, run: orders.StartRun | orders.StartCalibration) -> None:
        if self._dead:
            return
        if isinstance(run, orders.StartCalibration):
            self._do(self._runner.calibrated(run.token, self._found(run), self._now))
            self._sleep()
            return
        outcome: list[str] | Failure
        if self._mode == "task fault":
            outcome = Failure("the sequence is nonsense", "task")
        elif self._mode == "device fault":
            outcome = Failure("the laser is off", "device")
        else:
            qubits = _SEQUENCES[run.sequence]
            size = 2**qubits
            names = [f"{i:0{qubits}b}" for i in range(size)]
            outcome = [names[(run.first_shot + i) % size] for i in range(run.shots)]
        self._do(self._runner.computed(run.token, outcome, self._now))
        self._sleep()

    def _found(self, order: orders.StartCalibration) -> Findings:
        if self._mode in {"task fault", "device fault"}:
            return Findings(error="no atom was seen")
        self._good = self._now
        error = order.number / 1000
        return Findings(measured={"rabi_error": error}, left={"rabi_error": error / 10}, before=0.9, after=0.99)

    def _begin_check(self, check: orders.CheckSequence) -> None:
        self._check = check
        self._look = self._looks.choice(CHECKS) if self._choose() else ""
        most = 20 * SECOND if self._look == "late" else SECOND // 2
        self._world.after(self._looks.randint(1000, most), self._checked, check)

    def _checked(self, check: orders.CheckSequence) -> None:
        if self._dead or self._frozen is not None:
            return
        bad = json.loads(check.sequence)["name"] == "bad"
        outcome = Failure(f"{REFUSAL} it", "task") if bad else self._looks.randint(0, SECOND)
        self._do(self._runner.checked(check.token, outcome))
        self._sleep()

    # --- what it says ---

    def _send(self, body: wire.Message) -> None:
        if isinstance(body, orders.SequenceChecked):
            self._said_of_sequence(body)
            return
        if isinstance(body, orders.WorkerBeat) and self._lasting:
            quality = max(0.0, 1 - (self._now - self._good) / self._lasting)
            body = msgspec.structs.replace(body, quality=quality)
        if isinstance(body, orders.RunFinished | orders.CalibrationFinished):
            self._qpu.end(body.token)
            self._finished(body)
            return
        self._world.log(self._instance, "says", body)
        self._endpoint.send(frames.pack(body))

    def _said_of_sequence(self, body: orders.SequenceChecked) -> None:
        lies: dict[str, list[orders.SequenceChecked]] = {
            "nothing": [],
            "a refusal": [msgspec.structs.replace(body, error=f"{REFUSAL} out of spite", fault="task")],
            "no refusal": [msgspec.structs.replace(body, error="", fault="", preparation=5)],
            "device fault": [msgspec.structs.replace(body, error="no process to spare", fault="device")],
            "stale token": [msgspec.structs.replace(body, token="of long ago")],
            "two answers": [body, msgspec.structs.replace(body, error=f"{REFUSAL} afterwards", fault="task")],
        }
        if self._look == "garbage":
            self._world.log(self._instance, "says garbage")
            self._endpoint.send(b"\xc1garbage")
            return
        for one in lies.get(self._look, [body]):
            if one.token == self._check.token:
                self._qpu.verdicts.setdefault(self._check.sequence, set()).add(one.error)
            self._world.log(self._instance, "says", one)
            self._endpoint.send(frames.pack(one))

    def _finished(self, body: orders.RunFinished | orders.CalibrationFinished) -> None:
        if self._mode == "garbage":
            self._world.log(self._instance, "says garbage")
            self._endpoint.send(self._chance.choice((b"", b"\xc1garbage", frames.pack(body)[:-3], b"\x93\x01\x02\x03")))
            return
        if body.token not in self._lies:
            self._lies[body.token] = self._lie(body)
            if self._lies[body.token] != body or self._mode == "two answers":
                self._qpu.lies.add(body.token)
        said = [self._lies[body.token]]
        if self._mode == "stale token" and self._old_token:
            self._qpu.lies.add(self._old_token)
            said.insert(0, msgspec.structs.replace(said[0], token=self._old_token))
        if self._mode == "two answers":
            other = {"shots": 0, "counts": {}} if isinstance(body, orders.RunFinished) else {"measured": {}}
            said.append(msgspec.structs.replace(said[0], **other))
        if self._mode != "stale token":
            self._old_token = body.token
        for one in said:
            self._qpu.said(one)
            self._world.log(self._instance, "says", one)
            self._endpoint.send(frames.pack(one))

    def _lie(
        self, body: orders.RunFinished | orders.CalibrationFinished
    ) -> orders.RunFinished | orders.CalibrationFinished:
        lies = self._of_a_run(body) if isinstance(body, orders.RunFinished) else self._of_a_calibration()
        return msgspec.structs.replace(body, **lies.get(self._mode, {}))

    def _of_a_calibration(self) -> dict[str, dict[str, Any]]:
        return {
            "wrong sum": {"left": {"rabi_error": float("nan")}},
            "wrong bits": {"measured": {"charm": 1.0}},
            "wrong time": {"time": self._chance.choice((0, 10**15))},
        }

    def _of_a_run(self, body: orders.RunFinished) -> dict[str, dict[str, Any]]:
        order: Any = self._qpu.orders[body.token].run
        some, asked = next(iter(body.counts), "01"), order.shots
        return {
            "too many shots": {"shots": asked + 5, "counts": {some: asked + 5}},
            "wrong sum": {"shots": body.shots + 1},
            "wrong bits": {"counts": {f"{bits}1": n for bits, n in body.counts.items()}},
            "fewer shots": {"shots": 1, "counts": {some: 1}} if body.shots > 1 else {},
            "wrong counts": {"counts": {some: body.shots}} if body.shots else {},
            "wrong order": {"bitstrings": self._chance.choice(_spoilt(body.bitstrings))} if body.bitstrings else {},
            "wrong time": {"time": self._chance.choice((0, 10**15))},
        }


def _spoilt(data: bytes) -> tuple[bytes, ...]:
    """Shots that are missing, too many, others, or all there in another order; only that last lie is no contradiction."""
    return (
        b"",
        data[:-1],
        data + data[:1],
        bytes([data[0] ^ 0x80]) + data[1:],
        bytes([data[0] ^ 1]) + data[1:],
        data[::-1],
    )
