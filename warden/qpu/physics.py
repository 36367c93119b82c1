"""What emulators take and give, and which there are. Pure.

A sequence is emulated once, to a `Distribution` of what may be measured; shots are drawn from that (shots.py).
"""

from __future__ import annotations

import hashlib
from typing import Literal, Protocol

import msgspec

from warden.orders import Fact
from warden.qpu.drift import Findings
from warden.qpu.noise import Noise

# What `qpu.emulator` may say, and the modules behind it ...
EMULATORS = {
    "qutip": "warden.qpu.emulator",
    "emu-sv": "warden.qpu.emulator_sv",
    "emu-mps": "warden.qpu.emulator_mps",
    "echo": "warden.qpu.echo",
}
# ... and what has to be installed for them: extras of gridengine-qpu.
EXTRAS = {"qutip": "worker", "emu-sv": "emu", "emu-mps": "emu"}

# Whether the task is to blame for what went wrong, or the device, which may do better the next time.
Fault = Literal["task", "device"]


class Specs(msgspec.Struct, frozen=True):
    """What the worker tells the broker of its device: name, largest register, and Pulser's JSON of all of it."""

    name: str
    qubits: int
    json: str


class Order(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Emulate a sequence. Whatever of it is random follows from the order, so the same order has the same distribution.

    `device`: a name of Pulser's, or the JSON of its specs. `seed`: the device's.
    """

    device: str
    sequence: str
    noise: Noise = Noise()
    seed: int = 0

    @property
    def digest(self) -> bytes:
        """A name for the distribution. Detection errors are none of its business: they come with the shots."""
        physical = msgspec.structs.replace(self.noise, p_false_pos=0.0, p_false_neg=0.0)
        fields = (self.device, self.sequence, msgspec.structs.astuple(physical), self.seed)
        return hashlib.sha256(msgspec.msgpack.encode(fields)).digest()


class Distribution(msgspec.Struct, frozen=True):
    """What a measurement of all atoms may find, and how probably: cumulated, as little-endian doubles, rising to 1.

    The n-th is the bitstring that the number n is in binary, atoms in the register's order; or the n-th of `bitstrings`,
    each in as many bytes as its bits need, where only some are possible. Without any: nothing but zeros.
    """

    qubits: int
    cumulated: bytes = b""
    bitstrings: bytes = b""
    facts: dict[str, Fact] = {}
    """Of the sequence, for the metadata of its results."""

    @property
    def certain(self) -> bool:
        return not self.cumulated

    @property
    def size(self) -> int:
        return len(self.cumulated) + len(self.bitstrings) + len(msgspec.msgpack.encode(self.facts))


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a request: what was asked for, or what went wrong, in one line.

    `fault`: of an error. `preparation`: of a check, the microseconds that the emulation will take at most, on a machine that is idle.
    """

    distribution: Distribution | None = None
    findings: Findings | None = None
    """Of a calibration."""
    specs: Specs | None = None
    preparation: int = 0
    error: str = ""
    fault: Fault = "task"


class Physics(Protocol):
    """What an emulator's module offers."""

    def describe(self, device: str, /) -> Specs:
        """Say what the device is; whatever it raises is the configuration's fault."""

    def warm_up(self) -> None:
        """Do what the first emulation in a process would wait for."""

    def check(self, device: str, sequence: str, noise: Noise, /) -> int:
        """Say in how many microseconds, at most, the sequence is emulated.

        Raises:
            ValueError: The device cannot run it, or it takes too much memory; in Pulser's words, in one line.
        """

    def read(self, device: str, sequence: str, /) -> object:
        """Have Pulser read the sequence; an emulation that follows in this process need not do it again."""

    def emulate(self, order: Order, /) -> Distribution:
        """Emulate; whatever it raises ends the run with an error. A sequence that fails its check fails here too."""

    def facts(self, order: Order, /) -> dict[str, Fact]:
        """What is told of the sequence with its result, under Pulser's names."""
