"""How much slower this machine is than the one on which the costs of emulations were measured."""

from __future__ import annotations

import functools
import time

# Microseconds of the processor that `_piece` takes at best there (docs/emulator.md).
REFERENCE = 420.0
_TURNS = 20
_VECTOR, _STEPS = 2**12, 100


@functools.cache
def slowness() -> float:
    """What an emulation takes here, in units of what it takes there; at least 1, for costs are bounds."""
    # Of the processor's time, and at best: that others are at work is no property of the machine.
    return max(1.0, min(_piece() for _ in range(_TURNS)) / REFERENCE)


def _piece() -> float:
    """Microseconds of a little of what emulators do: Python that has a vector of amplitudes multiplied, and added up."""
    import numpy as np  # noqa: PLC0415 - a worker whose device has no physics does not need it

    vector: np.ndarray = np.full(_VECTOR, 2.0**-6, complex)
    begun = time.thread_time()
    for step in range(_STEPS):
        phase = complex(0.6, 0.8 if step % 2 else -0.8)
        vector = vector * phase
        np.vdot(vector, vector)
    return (time.thread_time() - begun) * 1e6
