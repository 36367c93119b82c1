"""No physics: every shot is all zeros, at once. For load tests, which ask what Warden takes and not what Pulser does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from warden.qpu.device import name_and_qubits
from warden.qpu.physics import Distribution, Order, Specs
from warden.sequence import inspect

if TYPE_CHECKING:
    from warden.orders import Fact
    from warden.qpu.noise import Noise


def describe(device: str) -> Specs:
    """Any device is one; the configuration's `qpu.qubits` bounds its register, if its specs do not."""
    name, qubits = name_and_qubits(device)
    specs = device if device.startswith("{") else msgspec.json.encode({"name": name}).decode()
    return Specs(name, qubits or 100_000, specs)


def warm_up() -> None:
    """Nothing here is slow."""


def check(_device: str, sequence: str, _noise: Noise) -> int:
    """Look whether it is a sequence; it takes no time.

    Raises:
        BadRequestError: It is none.
    """
    inspect(sequence, device=None, qubits=None)
    return 0


def read(_device: str, _sequence: str) -> None:
    """To read it takes no time."""


def emulate(order: Order) -> Distribution:
    """As many zeros as the sequence has atoms.

    Raises:
        BadRequestError: It is no sequence.
    """
    return Distribution(inspect(order.sequence, device=None, qubits=None))


def facts(_: Order) -> dict[str, Fact]:
    """Nothing: it looks at no sequence."""
    return {}
