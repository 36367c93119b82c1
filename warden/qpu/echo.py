"""No physics: every shot is all zeros, at once. For load tests, which ask what Warden takes and not what Pulser does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from warden.qpu.process import Order, Specs
from warden.sequence import inspect

if TYPE_CHECKING:
    from warden.model import Micros
    from warden.wire import Fact


def describe(device: str) -> Specs:
    """Any device is one; the configuration's `qpu.qubits` bounds its register."""
    return Specs(device, 100_000, msgspec.json.encode({"name": device}).decode())


def check(device: str, sequence: str) -> Micros:
    """Whether it is a sequence.

    Raises:
        BadRequestError: It is none.
    """
    del device
    inspect(sequence, device=None, qubits=None)
    return 0


def sample(order: Order) -> list[str]:
    """As many zeros as the sequence has atoms, for each shot.

    Raises:
        BadRequestError: It is no sequence.
    """
    return ["0" * inspect(order.sequence, device=None, qubits=None)] * order.shots


def facts(_: Order) -> dict[str, Fact]:
    """Nothing: it looks at no sequence."""
    return {}
