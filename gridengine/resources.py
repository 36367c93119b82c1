"""The one table of complexes: what a job may ask of a QPU, as Grid Engine is told it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import msgspec

from warden.model import HORIZON, SECOND

if TYPE_CHECKING:
    from collections.abc import Sequence

    from warden.sections import QpuSection


class Flavour(enum.StrEnum):
    """The two families of Grid Engine that we know, as `qconf -help` begins."""

    SGE = "SGE"
    OCS = "OCS"


class Complex(msgspec.Struct, frozen=True):
    """One line of `qconf -sc`."""

    name: str
    shortcut: str
    type: str
    relop: str
    requestable: str
    consumable: str
    default: str
    urgency: str

    @classmethod
    def parse(cls, line: str) -> Complex:
        """Read a line of `qconf -sc`.

        Raises:
            ValueError: It has not the eight columns that we know.
        """
        columns = line.split()
        if len(columns) != len(cls.__struct_fields__):
            raise ValueError(line)
        return cls(*columns)

    def line(self) -> str:
        return " ".join(getattr(self, column) for column in self.__struct_fields__)


def complexes(flavour: Flavour) -> tuple[Complex, ...]:
    """The table. Urgency 0: a QPU must not push a job ahead of others who ask for CPUs alone."""
    name_type = "STRING" if flavour is Flavour.OCS else "RESTRING"
    return tuple(
        Complex(name, name, kind, relop, requestable, consumable, default, "0")
        for name, kind, relop, requestable, consumable, default in (
            ("qpu", "INT", "<=", "YES", "JOB", "0"),
            ("qpu_name", name_type, "==", "YES", "NO", "NONE"),
            ("qpu_state", "STRING", "==", "NO", "NO", "NONE"),
            ("qpu_window", "INT", "<=", "YES", "NO", "0"),
            ("qpu_qubits", "INT", "<=", "YES", "NO", "0"),
        )
    )


NAMES = frozenset(entry.name for entry in complexes(Flavour.SGE))
# What queues offer, where there are several QPUs or not all hosts have one.
QUEUE_NAMES = ("qpu", "qpu_name", "qpu_qubits")


def gate(name: str) -> Complex:
    """The complex by which the sensor tells the places open on one of several QPUs; no job can ask for it."""
    return Complex(f"qpu_{name}", f"qpu_{name}", "INT", "<=", "NO", "NO", "0", "0")


def rsmap(name: str) -> Complex:
    """The complex by which OCS names the QPU that a job was granted."""
    return Complex(name, name, "RSMAP", "<=", "YES", "JOB", "NONE", "0")


def values(qpus: Sequence[QpuSection]) -> dict[str, str]:
    """The fixed values on the host `global`, where all QPUs have what they have in common: with one, all of it.

    `qpu_window` and `qpu_qubits` have them because `qsub -w e` and DRMAA refuse requests that only a load value could
    meet. `qpu_state` has none: a fixed value of a STRING hides the reported one for ever.
    """
    one = {"qpu": str(qpus[0].places), "qpu_name": qpus[0].name} if len(qpus) == 1 else {}
    return {**one, "qpu_window": str(HORIZON // SECOND), "qpu_qubits": str(max(qpu.qubits for qpu in qpus))}


def queue_values(qpu: QpuSection) -> dict[str, str]:
    """What a queue offers with its QPU, where there are several."""
    return {"qpu": str(qpu.places), "qpu_name": qpu.name, "qpu_qubits": str(qpu.qubits)}


def instances(qpus: Sequence[QpuSection]) -> str:
    """The value of the RSMAP: a QPU's name for each of its places."""
    named = [qpu.name for qpu in qpus for _ in range(qpu.places)]
    return f"{len(named)}({' '.join(named)})"


def parse_table(text: str) -> list[Complex]:
    """Read the whole of `qconf -sc`.

    Raises:
        ValueError: A line is not what we know; who cannot read the table must not write it.
    """
    return [Complex.parse(line) for line in text.splitlines() if line.strip() and not line.startswith("#")]


def render_table(table: Sequence[Complex]) -> str:
    """Write a table that `qconf -Mc` takes."""
    return "".join(entry.line() + "\n" for entry in table)
