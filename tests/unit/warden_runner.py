"""A worker's half of the protocol as tests drive it: what it is told, and what it says and does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from warden import orders, wire
from warden.actions import Abandon, Action, Begin, Calibrate, Send
from warden.model import SECOND
from warden.qpu.drift import Drift
from warden.qpu.timing import Timing
from warden.runner import Runner

if TYPE_CHECKING:
    from collections.abc import Mapping

T0 = 5_000 * SECOND
STEADY = Drift()
BEAT = 2 * SECOND


def new(
    shot_rate: float = 10.0, facts: Mapping[str, orders.Fact] = {}, drift: Drift = STEADY, **figures: Any
) -> Runner:
    return Runner(
        instance="me",
        device_json="{}",
        device_name="AnalogDevice",
        qubits=8,
        timing=Timing(shot_rate=shot_rate, **figures),
        heartbeat=BEAT,
        facts=facts,
        drift=drift,
    )


def taken(shot_rate: float = 10.0, **figures: Any) -> Runner:
    """A runner that the broker has taken at T0."""
    runner = new(shot_rate, **figures)
    runner.start(T0)
    runner.hear(orders.Welcome(interval=BEAT), T0)
    return runner


def order(token: str = "t", shots: int = 20, limit: int | None = None) -> orders.StartRun:
    return orders.StartRun(token=token, task=3, sequence="{}", first_shot=0, shots=shots, issued=T0, limit=limit)


def said(actions: list[Action]) -> list[wire.Message]:
    """Without the times of its clock and the log, which have tests of their own."""
    bodies = [action.body for action in actions if isinstance(action, Send)]
    return [_plain(body) for body in bodies]


def _plain(body: wire.Message) -> wire.Message:
    match body:
        case orders.WorkerHello() | orders.WorkerBeat():
            return replace(body, clock=0)
        case orders.RunFinished():
            return replace(body, log=())
        case _:
            return body


def done(actions: list[Action]) -> list[Action]:
    """What is done to the emulation, or the calibration."""
    return [action for action in actions if isinstance(action, Begin | Calibrate | Abandon)]


def finished(**fields: Any) -> orders.RunFinished:
    return orders.RunFinished(**{"instance": "me", "token": "t", "shots": 0, "counts": {}, **fields})


def hello(token: str = "") -> orders.WorkerHello:
    return orders.WorkerHello(instance="me", device="{}", device_name="AnalogDevice", qubits=8, clock=0, token=token)


def beat(token: str = "") -> orders.WorkerBeat:
    return orders.WorkerBeat(instance="me", clock=0, token=token)


def with_result() -> Runner:
    runner = taken(shot_rate=0)
    runner.hear(order(shots=1), T0)
    runner.computed("t", ["01"], T0)
    return runner


RESULT = finished(shots=1, counts={"01": 1}, time=0)
