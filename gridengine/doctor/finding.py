"""What a check says. Pure."""

from __future__ import annotations

import enum
import textwrap

import msgspec

from warden.model import SECOND, one_line

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


def text(findings: list[Finding], *, verbose: bool = False) -> str:
    """For people: each finding with its fix; of what is well only the names, unless all is wanted."""
    told = [one for one in by_weight(findings) if verbose or one.verdict is not Verdict.OK]
    lines = []
    for one in told:
        lines.append(f"{one.verdict:8} {one.what:14} {one_line(one.seen)}")
        if one.fix:
            lines.append(f"{'':8} {'':14} -> {one.fix}")
    ill = {one.what for one in findings if one.verdict is not Verdict.OK}
    well = [name for name in dict.fromkeys(one.what for one in findings) if name not in ill]
    if not verbose and well:
        # A line that is of no interest can be told by its first word.
        begin = f"{Verdict.OK:8} "
        # A name of several words stays on one line.
        names = ", ".join(name.replace(" ", "\0") for name in well)
        wrapped = textwrap.wrap(names, 79, initial_indent=begin, subsequent_indent=begin, break_on_hyphens=False)
        lines += [line.replace("\0", " ") for line in wrapped]
    return "\n".join(lines)


def clocks(ahead: int, unsure: int, of: str = "the broker's is", than: str = "this host's") -> Finding:
    """What it means that a clock is `ahead` of another by so many microseconds, give or take `unsure`."""
    seen = f"{of} {ahead / SECOND:+.3f} s ahead of {than}"
    least = max(0, abs(ahead) - unsure)
    if least < _CLOCK_WARNS:
        return Finding(Verdict.OK, "clocks", seen)
    verdict = Verdict.WARNING if least < _CLOCK_FAILS else Verdict.BAD
    return Finding(verdict, "clocks", seen, "let NTP set both: MUNGE takes credentials of the last five minutes alone")
