"""What a worker's half of the protocol wants to be done, and what it hears of what became of it. Pure."""

from __future__ import annotations

import msgspec

from warden import orders, wire
from warden.qpu.physics import Fault


class Send(msgspec.Struct, frozen=True):
    """Say this to the broker; it may be lost."""

    body: wire.Message


class Begin(msgspec.Struct, frozen=True):
    """Emulate this run, and tell `Runner.computed` what came of it."""

    run: orders.StartRun


class Calibrate(msgspec.Struct, frozen=True):
    """Measure the QPU, and tell `Runner.calibrated` what was found."""

    order: orders.StartCalibration


class Abandon(msgspec.Struct, frozen=True):
    """End the emulation or calibration that was begun: nobody wants to know any more what it computes."""


class Check(msgspec.Struct, frozen=True):
    """Have the emulator look at this sequence, beside whatever run is on, and tell `Runner.checked` what it says."""

    check: orders.CheckSequence


class Dismiss(msgspec.Struct, frozen=True):
    """End the check that was begun."""


class Reconnect(msgspec.Struct, frozen=True):
    """Make another connection: the broker may have another key, or be elsewhere."""


class Note(msgspec.Struct, frozen=True):
    """Something that an operator may want to read later."""

    text: str


Action = Send | Begin | Calibrate | Abandon | Check | Dismiss | Reconnect | Note


class Failure(msgspec.Struct, frozen=True):
    """Why an emulation has no shots, and whether the task or the device is to blame."""

    text: str
    fault: Fault
