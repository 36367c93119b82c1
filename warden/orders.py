"""What broker and worker say to each other: orders, what became of them, and that both live. Pure."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from warden.model import Calibration, Micros
from warden.wire import LARGEST_BITSTRINGS, Count, Id, Line, Message, TaskId, Time, Token

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Error = Annotated[str, msgspec.Meta(max_length=2000)]
Log = Annotated[tuple[Line, ...], msgspec.Meta(max_length=100)]
Figures = dict[Token, float]
Fact = bool | int | float | Line | Annotated[tuple[Line, ...], msgspec.Meta(max_length=20_000)]
_QUBITS = 100_000


# --- from the worker ---


class WorkerHello(Message, frozen=True, kw_only=True):
    """A worker is there. `device` is its specs as Pulser's JSON; `token` the run that it works on or holds done."""

    instance: Id
    device: str
    device_name: Annotated[str, msgspec.Meta(max_length=100)]
    qubits: Annotated[int, msgspec.Meta(ge=1, le=_QUBITS)]
    clock: Time
    token: Token = ""


class WorkerBeat(Message, frozen=True, kw_only=True):
    """`clock`: the worker's own clock, which nobody sets; by it the broker dates its orders. `quality`: from 0 to 1."""

    instance: Id
    clock: Time
    token: Token = ""
    quality: Share | None = None


class RunFinished(Message, frozen=True, kw_only=True):
    """What became of a run: `shots` done, fewer than asked for if it was stopped or met its deadline.

    With an `error`, `fault` says whose it is: the task's, which fails by it, or the device's, which may do better when
    the run is repeated.
    """

    instance: Id
    token: Token
    shots: Count
    counts: dict[Annotated[str, msgspec.Meta(max_length=_QUBITS, pattern=r"^[01]+\Z")], Count]
    time: Time
    error: Error = ""
    fault: Literal["", "task", "device"] = ""
    bitstrings: Annotated[bytes, msgspec.Meta(max_length=LARGEST_BITSTRINGS)] = b""
    """The shots in their order, as in `Bitstrings`, if the order asked for them."""
    metadata: Annotated[dict[Token, Fact], msgspec.Meta(max_length=50)] = msgspec.field(default_factory=dict)
    log: Log = ()


class SequenceChecked(Message, frozen=True, kw_only=True):
    """What the QPU says of a sequence: why it cannot be run, or what it needs before its first shot.

    An error that is the device's `fault` says nothing of the sequence: nobody could look at it.
    """

    instance: Id
    token: Token
    error: Error = ""
    fault: Literal["", "task", "device"] = ""
    preparation: Time = 0


class CalibrationFinished(Message, frozen=True, kw_only=True):
    """What became of a calibration: the fields of `Calibration`, or why there is none."""

    instance: Id
    token: Token
    time: Time
    measured: Figures = msgspec.field(default_factory=dict)
    left: Figures = msgspec.field(default_factory=dict)
    before: Share = 1.0
    after: Share = 1.0
    log: Log = ()
    error: Error = ""


FromWorker = WorkerHello | WorkerBeat | RunFinished | SequenceChecked | CalibrationFinished


# --- to the worker ---


class Welcome(Message, frozen=True, kw_only=True):
    """`interval`: how often both sides show that they live; silent for three of them is gone.

    `calibration`: the one in force.
    """

    interval: Micros
    calibration: Calibration | None = None


class Unwelcome(Message, frozen=True, kw_only=True):
    """The broker has a worker already, or cannot take this one."""

    text: str


class BrokerBeat(Message, frozen=True, kw_only=True):
    """`time`: what the broker's clock shows."""

    time: Time = 0


class StartRun(Message, frozen=True, kw_only=True):
    """`limit`: the time that the run has from `issued` on, whatever the estimate says.

    `issued`: the worker's own clock when the order was made. However long the order was under way, or the worker was
    stopped before it read it, the run is over in time.
    """

    token: Token
    task: TaskId
    sequence: str
    first_shot: Count
    shots: Count
    issued: Time
    limit: Micros | None
    at: Time = 0
    """When the task's first run started, by the broker's clock: all its shots are taken with the QPU as it was then ..."""
    calibration: Calibration | None = None
    """... which follows from the calibration that was in force."""
    bitstrings: bool = False


class StopRun(Message, frozen=True, kw_only=True):
    """Ends a run, a calibration or the check of a sequence before its time."""

    token: Token


class CheckSequence(Message, frozen=True, kw_only=True):
    """Whether the QPU can run this sequence; answered by SequenceChecked."""

    token: Token
    sequence: str


class StartCalibration(Message, frozen=True, kw_only=True):
    """Measure the QPU and correct what is found. `number`: the id that the calibration will have.

    `at`: the broker's clock; `calibration`: the one in force; `issued` and `limit` as in StartRun.
    """

    token: Token
    number: Count
    at: Time
    calibration: Calibration | None
    issued: Time
    limit: Micros | None


class ForgetRun(Message, frozen=True, kw_only=True):
    """The broker has the result, or wants none: the worker need not keep it."""

    token: Token


ToWorker = Welcome | Unwelcome | BrokerBeat | StartRun | StopRun | ForgetRun | CheckSequence | StartCalibration
