"""The execution hosts as their load sensors describe them, and which one of them reports the QPU. Pure.

A scheduler that hears of one QPU from several hosts keeps what each said last, whoever is right; so one host reports,
and another takes over when that one falls silent. Nothing of this is kept on disk: sensors say it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from warden.model import SECOND, HostReport, Micros, one_line

if TYPE_CHECKING:
    from warden import wire

replace = msgspec.structs.replace

# A reporter is silent when nothing was heard of it for so many of its intervals, within bounds.
_INTERVALS = 3
_SHORTEST, _LONGEST = 5 * SECOND, 600 * SECOND
# Of a sensor that does not know its interval yet: Grid Engine's default.
_USUAL = 40 * SECOND
# More hosts than a site has, and little enough to keep.
_MOST = 10_000


class Hosts:
    """What was last heard of each host, and the reporter."""

    def __init__(self) -> None:
        # The one that was heard longest ago first.
        self._reports: dict[str, HostReport] = {}
        self._reporter = ""

    def heard(self, said: wire.Renew, now: Micros) -> str:
        """Take in what a sensor says of its host; the name of the host that reports now, empty if none does."""
        self._reports.pop(said.host, None)
        self._reports[said.host] = HostReport(
            host=said.host,
            seen=now,
            version=one_line(said.version),
            interval=said.interval,
            ahead=said.time - now,
            trouble=tuple(map(one_line, said.trouble)),
            candidate=said.candidate,
        )
        if len(self._reports) > _MOST:
            del self._reports[next(iter(self._reports))]
        last = self._reports.get(self._reporter)
        if last is None or not last.candidate or not self.speaks(self._reporter, now):
            self._reporter = said.host if said.candidate else ""
        return self._reporter

    def reports(self) -> list[HostReport]:
        """All of them, by name."""
        named = sorted(self._reports.items())
        return [replace(report, reporter=host == self._reporter) for host, report in named]

    def speaks(self, host: str, now: Micros) -> bool:
        """Whether the host was heard of late."""
        last = self._reports.get(host)
        return last is not None and now - last.seen < patience(last.interval)

    def begin_anew(self, away: Micros) -> None:
        """Nobody could be heard for so long."""
        self._reports = {host: replace(report, seen=report.seen + away) for host, report in self._reports.items()}

    def shift(self, by: Micros) -> None:
        """The clock was set."""
        self._reports = {
            host: replace(report, seen=report.seen + by, ahead=report.ahead - by)
            for host, report in self._reports.items()
        }


def patience(interval: Micros) -> Micros:
    """How long a host with this interval may be silent before another one reports in its place."""
    return max(_SHORTEST, min(_INTERVALS * (interval or _USUAL), _LONGEST))
