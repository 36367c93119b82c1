"""Shots in their order, packed as `wire.Bitstrings` has them: each from a byte of its own on, its first atom first. Pure."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def size(shots: int, qubits: int) -> int:
    """Bytes of so many shots."""
    return shots * _width(qubits)


def pack(shots: Sequence[str]) -> bytes:
    """Bitstrings of one length as bytes."""
    # Of the same bitstring there are usually many.
    packed = {bits: _packed(bits) for bits in set(shots)}
    return b"".join([packed[bits] for bits in shots])


def unpack(data: bytes, qubits: int) -> list[str]:
    """The bitstrings that these bytes are."""
    spare = 8 * _width(qubits) - qubits
    words = _words(data, qubits)
    bits = {word: f"{int.from_bytes(word) >> spare:0{qubits}b}" for word in set(words)}
    return [bits[word] for word in words]


def agree(data: bytes, counts: Mapping[str, int], qubits: int) -> bool:
    """Whether these shots are the ones that were counted."""
    return collections.Counter(_words(data, qubits)) == {_packed(bits): count for bits, count in counts.items()}


def _width(qubits: int) -> int:
    return -(-qubits // 8)


def _packed(bits: str) -> bytes:
    width = _width(len(bits))
    return (int(bits, 2) << 8 * width - len(bits)).to_bytes(width)


def _words(data: bytes, qubits: int) -> list[bytes]:
    width = _width(qubits)
    return [data[start : start + width] for start in range(0, len(data), width)]
