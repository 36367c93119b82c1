"""A job that found the QPU busy: how long it is left alone, how often, and what is written down of it. Pure.

The count and the reason stand in the job's context, which its owner can change. That hurts nobody but himself: what he
makes of the count holds his own job, or lets it try again no sooner than after the first pause.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from warden.model import (
    SECOND,
    BusyError,
    ConfigurationError,
    State,
    UnauthenticatedError,
    UnavailableError,
    WardenError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gridengine.configuration import GridEngineSection
    from warden.model import Availability, Micros

# In the job's context: how often it was sent back since it last had the QPU, and why the last time.
ATTEMPTS, REASON = "qpu_attempts", "qpu_reason"

_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (BusyError, "busy"),
    (UnavailableError, "unreachable"),
    (UnauthenticatedError, "munge"),
    (ConfigurationError, "configuration"),
)


class NotNowError(BusyError):
    """The QPU is not to be had now: why, in a word, and for how long, where Warden says so."""

    def __init__(self, text: str, reason: str, blocked: Micros | None) -> None:
        super().__init__(text)
        self.reason = reason
        self.blocked = blocked


def not_now(error: BusyError, seen: Availability) -> NotNowError:
    """What Warden said when it refused, with what it says of the QPU."""
    if seen.state is State.READY:
        return NotNowError(error.text, "busy", None)
    return NotNowError(error.text, str(seen.state), None if seen.until is None else seen.until - seen.time)


def reason(error: BaseException) -> str:
    """One word, which a context can hold."""
    if isinstance(error, NotNowError):
        return error.reason
    if isinstance(error, WardenError) and error.code.startswith("gridengine"):
        return "qmaster"
    return next((word for kind, word in _REASONS if isinstance(error, kind)), "unforeseen")


def attempts(context: Mapping[str, str]) -> int:
    """How often the job was sent back so far."""
    said = context.get(ATTEMPTS, "")
    return int(said) if said.isascii() and said.isdigit() and len(said) <= 9 else 0  # noqa: PLR2004 - no larger number


def pause(job: str, attempt: int, section: GridEngineSection, blocked: Micros | None = None) -> Micros:
    """For how long a job is left alone after so many attempts, the first being 1.

    Twice as long each time; or as long as the QPU is blocked, so that no start is wasted on what is known. The lot is a
    job's own, and another one each time: jobs that were sent back together do not all come again together.
    """
    lot = int.from_bytes(hashlib.sha256(f"{job}/{attempt}".encode()).digest()[:4], "big") / 2**32
    if blocked is None:
        # Beyond 2^30 nothing is doubled any more.
        wanted = (section.retry_pause << min(attempt - 1, 30)) * (0.75 + lot / 2)
    else:
        wanted = max(0, blocked) + section.retry_pause * lot
    return max(SECOND, round(min(wanted, section.retry_longest * (0.75 + lot / 4))))
