"""What a check says. Pure."""

from __future__ import annotations

import enum

import msgspec

from warden.model import SECOND

# MUNGE bears five minutes; by seconds people begin to wonder about their windows.
_CLOCK_WARNS, _CLOCK_FAILS = 2 * SECOND, 120 * SECOND


class Verdict(enum.StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    BAD = "bad"


class Finding(msgspec.Struct, frozen=True):
    """What a check has seen, and what to do where that is not as it should be."""

    verdict: Verdict
    what: str
    seen: str
    fix: str = ""


def by_weight(findings: list[Finding]) -> list[Finding]:
    """What is bad first, everything else in its order."""
    order = [Verdict.BAD, Verdict.WARNING, Verdict.OK]
    return sorted(findings, key=lambda finding: order.index(finding.verdict))


def clocks(ahead: int, unsure: int, of: str = "the broker's is", than: str = "this host's") -> Finding:
    """What it means that a clock is `ahead` of another by so many microseconds, give or take `unsure`."""
    seen = f"{of} {ahead / SECOND:+.3f} s ahead of {than}"
    least = max(0, abs(ahead) - unsure)
    if least < _CLOCK_WARNS:
        return Finding(Verdict.OK, "clocks", seen)
    verdict = Verdict.WARNING if least < _CLOCK_FAILS else Verdict.BAD
    return Finding(verdict, "clocks", seen, "let NTP set both: MUNGE takes credentials of the last five minutes alone")
