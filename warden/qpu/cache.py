"""Distributions of sequences that were emulated, so that the same sequence costs only its shots. Pure."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warden.qpu.physics import Distribution

# What an entry takes besides its distribution: keys, objects, their places.
_ENTRY = 500


class Cache:
    """Bounded in bytes: what was used least recently goes first, and what is larger than all of it never comes in."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept: collections.OrderedDict[bytes, Distribution] = collections.OrderedDict()
        self.size = 0

    def get(self, digest: bytes) -> Distribution | None:
        found = self._kept.get(digest)
        if found is not None:
            self._kept.move_to_end(digest)
        return found

    def put(self, digest: bytes, distribution: Distribution) -> None:
        """Keep it, if there is room for it at all; an older one of this name goes."""
        old = self._kept.pop(digest, None)
        self.size -= 0 if old is None else old.size + _ENTRY
        size = distribution.size + _ENTRY
        if size > self._limit:
            return
        self._kept[digest] = distribution
        self.size += size
        while self.size > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self.size -= oldest.size + _ENTRY
