"""What will be true of a QPU while the scheduler uses a report of it. Pure.

A report that is made at t rules the jobs that are dispatched from t, or one interval later, until the next one rules:
until t + I on SGE 8.1.9, which sends it on at once, until t + 2 I where execd reads it when it asks for the next. So it
has to hold through [t, t + 2 I].
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from warden.model import HORIZON, SECOND, Micros, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from warden.model import Availability, Window

# Best first: what several QPUs are together.
_BEST = (State.READY, State.CALIBRATING, State.MAINTENANCE, State.OFFLINE)


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """One QPU: its places as the scheduler may count on them, its state now, seconds until its next block, its size."""

    places: int
    state: State
    window: int
    qubits: int


NOTHING = Outlook(places=0, state=State.OFFLINE, window=0, qubits=0)


def outlook(answer: Availability, windows: Sequence[Window], interval: Micros, wait: Micros) -> Outlook:
    """What a job finds that is dispatched at any moment of the report's time.

    The QPU is open if such a job has it at once, or after a block that ends within `wait`, for which its prolog waits;
    and if no window opens in that time. `windows`: those ahead, in their order, and the one that is open.
    """
    now, last = answer.time, answer.time + 2 * interval
    free = _free_from(answer, windows)
    opening = min((window.start for window in windows if window.start > now), default=None)
    kept = free is None or free - now > wait or (opening is not None and opening <= max(last, free))
    ahead = HORIZON if opening is None or free is None else opening - max(last, free)
    return Outlook(
        places=0 if kept else answer.places,
        state=answer.state,
        window=0 if kept else max(0, min(ahead, HORIZON)) // SECOND,
        qubits=answer.qubits,
    )


def _free_from(answer: Availability, windows: Sequence[Window]) -> Micros | None:
    """When the QPU takes tasks again; None: nobody can count on any time."""
    ends = [window.end for window in windows if window.covers(answer.time)]
    if answer.state is State.OFFLINE:
        return None
    if answer.state is not State.READY:
        ends.append(answer.until)
    known = [end for end in ends if end is not None]
    return None if len(known) < len(ends) else max([answer.time, *known])


def together(all_of_them: Iterable[Outlook]) -> Outlook:
    """Several QPUs: the best state, the longest time, the largest register, and all places."""
    each = list(all_of_them) or [NOTHING]
    return Outlook(
        places=sum(one.places for one in each),
        state=min((one.state for one in each), key=_BEST.index),
        window=max(one.window for one in each),
        qubits=max(one.qubits for one in each),
    )
