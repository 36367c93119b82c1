"""Shots drawn from a distribution. The same seed, task and index give the same shot, in one piece or in ten.

Random numbers are those of Philox 4x64 with ten rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
2011): a function of a key and a counter. The key is a hash of seed and task, the counter is the shot's index, and the
numbers are taken as they come (`random_raw`), which NumPy keeps for ever, unlike what it makes of them.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING

from warden.qpu.physics import Distribution

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy as np

    from warden.qpu.noise import Noise

# Numbers that Philox makes of one counter.
_BLOCK = 4
# Doubles have 53 bits.
_DROPPED = 11
_UNIT = 2.0**-53
# Of so many bitstrings the texts are kept.
_FEW = 2**12


def draw(distribution: Distribution, noise: Noise, *, seed: int, task: int, first: int, shots: int) -> list[str]:
    """Shots [first, first + shots) of a task: what is there, read with the noise's detection errors."""
    if distribution.certain and not (noise.p_false_pos or noise.p_false_neg):
        return ["0" * distribution.qubits] * shots
    import numpy as np  # noqa: PLC0415 - a worker whose device has no physics does not need it

    cumulated: np.ndarray = np.frombuffer(distribution.cumulated, "<f8")
    # The last step is everything that is left, whatever rounding made of it.
    found: np.ndarray = np.asarray(
        np.searchsorted(cumulated[:-1], _uniform(seed, task, "state", first, shots), side="right")
    )
    misread = bool(noise.p_false_pos or noise.p_false_neg)
    if not misread and len(cumulated) <= _FEW:
        texts = _texts(distribution.qubits, distribution.bitstrings)
        return [texts[state] for state in found.tolist()]
    bits = _bits(distribution.qubits, distribution.bitstrings, found)
    if misread:
        qubits = distribution.qubits
        luck = _uniform(seed, task, "detection", first * qubits, shots * qubits).reshape(bits.shape)
        bits ^= luck < np.where(bits, noise.p_false_neg, noise.p_false_pos)
    return _written(bits)


def warm_up() -> None:
    """Import what drawing takes, so that the first task does not wait for it."""
    import numpy as np  # noqa: F401, PLC0415 - as above


def distribution(probabilities: np.ndarray) -> Distribution:
    """Of the probabilities of all bitstrings, in the order of the numbers that they are in binary."""
    import numpy as np  # noqa: PLC0415 - as above

    cumulated: np.ndarray = np.cumsum(probabilities)
    return Distribution(len(probabilities).bit_length() - 1, (cumulated / cumulated[-1]).astype("<f8").tobytes())


def pool(samples: Iterable[tuple[str, int]]) -> Distribution:
    """Of samples with their counts, sorted by their bitstrings."""
    import numpy as np  # noqa: PLC0415 - as above

    ordered = sorted(samples)
    qubits = len(ordered[0][0])
    bits: np.ndarray = np.frombuffer("".join(bitstring for bitstring, _ in ordered).encode(), np.uint8) - ord("0")
    counts: np.ndarray = np.cumsum([count for _, count in ordered])
    packed = np.packbits(bits.reshape(len(ordered), qubits), axis=1)
    return Distribution(qubits, (counts / counts[-1]).astype("<f8").tobytes(), packed.tobytes())


def probabilities(distribution: Distribution) -> dict[str, float]:
    """The probability of each bitstring that may be found, before any detection error."""
    if distribution.certain:
        return {"0" * distribution.qubits: 1.0}
    import numpy as np  # noqa: PLC0415 - as above

    cumulated: np.ndarray = np.frombuffer(distribution.cumulated, "<f8")
    bits = _bits(distribution.qubits, distribution.bitstrings, np.arange(len(cumulated)))
    each = np.diff(cumulated, prepend=0.0)
    return {"".join(map(str, row)): float(p) for row, p in zip(bits.astype(int), each, strict=True) if p > 0}


def _bits(qubits: int, packed: bytes, found: np.ndarray) -> np.ndarray:
    """Of each that was found, its bits as booleans: a row for it, a column for an atom."""
    import numpy as np  # noqa: PLC0415 - as above

    if not packed:
        digits: np.ndarray = (found[:, None] >> np.arange(qubits - 1, -1, -1)) & 1
        return digits.astype(bool)
    rows: np.ndarray = np.frombuffer(packed, np.uint8).reshape(-1, -(-qubits // 8))
    chosen: np.ndarray = np.unpackbits(rows[found], axis=1, count=qubits).astype(bool)
    return chosen


@functools.lru_cache(maxsize=8)
def _texts(qubits: int, packed: bytes) -> list[str]:
    """Each bitstring that may be found. To write one down takes longer than to draw it, and is done once."""
    import numpy as np  # noqa: PLC0415 - as above

    states = len(packed) // -(-qubits // 8) if packed else 2**qubits
    return _written(_bits(qubits, packed, np.arange(states)))


def _written(bits: np.ndarray) -> list[str]:
    """The text of each row."""
    qubits = bits.shape[1]
    text = (bits + ord("0")).astype("u1").tobytes().decode("ascii")
    return [text[start : start + qubits] for start in range(0, len(text), qubits)]


def _uniform(seed: int, task: int, purpose: str, first: int, count: int) -> np.ndarray:
    """Numbers [first, first + count) of an endless row of them in [0, 1)."""
    import numpy as np  # noqa: PLC0415 - as above

    key = int.from_bytes(hashlib.sha256(f"{seed} {task} {purpose}".encode()).digest()[:16], "little")
    block, skipped = divmod(first, _BLOCK)
    raw = np.random.Philox(key=key, counter=block).random_raw(skipped + count)[skipped:]
    uniform: np.ndarray = (raw >> np.uint64(_DROPPED)) * _UNIT
    return uniform
