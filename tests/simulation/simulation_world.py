"""True time, chance and the log of one simulation. Nothing here knows what is simulated."""

from __future__ import annotations

import heapq
import random
from typing import TYPE_CHECKING, Any

import msgspec

from warden.model import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from warden.model import Micros

# What wall clocks show at true time 0, before anybody sets them.
EPOCH: Micros = 1_800_000_000 * SECOND


class ViolationError(BaseException):
    """A promise that does not hold; nothing that is under test shall catch it."""


class World:
    """A heap of what happens when. Each part of the site draws from a chance of its own, made of the seed.

    With chances of their own, a change of one part leaves what happens in the others as it is, as far as it can.
    """

    def __init__(self, seed: int, *, logging: bool = False) -> None:
        self.seed = seed
        self.now: Micros = 0
        self.steps = 0
        self.lines: list[str] | None = [] if logging else None
        self._heap: list[tuple[Micros, int, Callable[..., None], tuple[Any, ...]]] = []
        self._number = 0
        self._ids = self.chance("ids")

    def chance(self, part: str) -> random.Random:
        return random.Random(f"{self.seed}/{part}")

    def new_id(self) -> str:
        return f"{self._ids.getrandbits(64):016x}"

    def at(self, time: Micros, action: Callable[..., None], *arguments: Any) -> None:
        self._number += 1
        heapq.heappush(self._heap, (max(time, self.now), self._number, action, arguments))

    def after(self, delay: Micros, action: Callable[..., None], *arguments: Any) -> None:
        self.at(self.now + delay, action, *arguments)

    def run(self, until: Micros) -> None:
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, action, arguments = heapq.heappop(heap)
            self.steps += 1
            action(*arguments)
        self.now = until

    def log(self, who: str, what: str, *details: Any) -> None:
        """Write down what happens: the same seed has to give the same log, byte for byte."""
        if self.lines is not None:
            said = " ".join(_text(detail) for detail in details)
            self.lines.append(f"{self.now / SECOND:12.6f} {who:<10} {what} {said}".rstrip())


def _text(detail: Any) -> str:
    if isinstance(detail, msgspec.Struct):
        fields = ((name, getattr(detail, name)) for name in detail.__struct_fields__)
        said = " ".join(f"{name}={_brief(value)}" for name, value in fields)
        return f"{type(detail).__name__}({said})"
    return _brief(detail)


def _brief(value: Any) -> str:
    if isinstance(value, frozenset):
        value = sorted(value)
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 160 else f"{text[:140]}...({len(text)})"


def in_order(first: int, shots: int, qubits: int) -> list[str]:
    """What the simulated QPU measures: shot i is the number i."""
    return [f"{(first + i) % 2**qubits:0{qubits}b}" for i in range(shots)]


def bits_of(first: int, shots: int, qubits: int) -> dict[str, int]:
    """What comes of that: each shot shows in the counts."""
    size = 2**qubits
    whole, rest = divmod(shots, size)
    counts = {f"{(first + i) % size:0{qubits}b}": whole + (i < rest) for i in range(min(size, shots))}
    return dict(sorted(counts.items()))
