"""`qpu-load-sensor`: tells Grid Engine what the QPU offers, and Warden which jobs live on this host.

execd keeps the last values of a sensor that is late, silently and for ever. So this one always answers within a
second, whatever Warden does, and when the host that reports knows nothing it says that there is nothing: 0 places,
offline. It never subtracts what Grid Engine has booked: the scheduler does that itself.
"""

from __future__ import annotations

import collections
import os
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from load_sensors import site
from load_sensors.inquirer import Inquirer
from load_sensors.outlook import NOTHING, Outlook, outlook, together
from load_sensors.protocol import Value, serve
from load_sensors.spool import live_jobs
from load_sensors.voice import Voice
from warden.model import SECOND, Micros
from warden.version import version

if TYPE_CHECKING:
    from load_sensors.site import Qpu, Site
    from warden.client import Client
    from warden.model import Availability, Plan
    from warden.wire import Renewed

# Not from the environment: execd's own may be anybody's who started it.
CONFIG = Path("/etc/warden/warden.toml")

# Between a question by execd and our answer, at most.
_PATIENCE = 0.8
# The windows that are looked at: of more none can matter before the next report.
_AHEAD = 5
# Grid Engine's own, for the first report.
_USUAL = 40 * SECOND


def main() -> None:
    sensor = Sensor(CONFIG, socket.gethostname(), Path.cwd())
    serve(sys.stdin, sys.stdout, sensor.measure)
    # An inquirer may be waiting for Warden; nobody needs its answer.
    os._exit(0)


class Rhythm:
    """How often execd asks: the longest of the last intervals, for a report must not be too short-sighted."""

    def __init__(self) -> None:
        self._last: float | None = None
        self._intervals: collections.deque[float] = collections.deque(maxlen=3)

    def beat(self, now: float) -> Micros:
        """A question at `now` (seconds of any clock): the interval, 0 while it is not known."""
        if self._last is not None:
            self._intervals.append(now - self._last)
        self._last = now
        return round(max(self._intervals, default=0.0) * SECOND)


class Correspondent:
    """One QPU's Warden, asked by two threads: what hinders renewals (a host without MUNGE) must not hide the QPU."""

    def __init__(self, qpu: Qpu, site: Site, host: str, spool: Path) -> None:
        self.qpu, self._site, self._host, self._spool = qpu, site, host, spool
        self._interval: Micros = 0
        self._charge: bool | None = None
        self._status = Inquirer(qpu.config, self._ask_status)
        self._renewal = Inquirer(qpu.config, self._renew)

    def ask(self, interval: Micros) -> None:
        self._interval = interval
        self._status.ask()
        self._renewal.ask()

    def outlook(self, until: float) -> Outlook | None:
        """What the QPU offers; None if its Warden has not said so by then."""
        answer = self._status.answer(until - time.monotonic())
        if answer is None:
            return None
        availability, plan = answer
        return outlook(availability, plan.windows, self._interval or _USUAL, self._site.wait)

    def charge(self, until: float) -> bool | None:
        """Whether this host reports the QPU, as its Warden has said at last; waits for the first word alone."""
        answer = self._renewal.answer(until - time.monotonic() if self._charge is None else 0)
        if answer is not None:
            self._charge = answer.reporter == self._host
        return self._charge

    def dismiss(self) -> None:
        self._status.dismiss()
        self._renewal.dismiss()

    @staticmethod
    def _ask_status(client: Client) -> tuple[Availability, Plan]:
        return client.availability(), client.plan(_AHEAD)

    def _renew(self, client: Client) -> Renewed:
        jobs = live_jobs(self._spool)
        return client.renew(
            host=self._host,
            jobs=tuple(jobs),
            suspended={job for job, suspended in jobs.items() if suspended},
            candidate=self._site.candidate,
            interval=self._interval,
            version=version()[:64],
            trouble=site.trouble(self._site.bin, self.qpu.key),
        )


class Sensor:
    """What execd asks: all QPUs of the site, as far as it is for this host to report them."""

    def __init__(self, config: Path, host: str, spool: Path) -> None:
        self._config, self._host, self._spool = config, host, spool
        self._site: Site | None = None
        self._rhythm = Rhythm()
        self._correspondents: list[Correspondent] = []
        self._voices: dict[str, Voice] = collections.defaultdict(Voice)

    def measure(self) -> list[Value]:
        interval, until = self._rhythm.beat(time.monotonic()), time.monotonic() + _PATIENCE
        self._reconsider()
        for one in self._correspondents:
            one.ask(interval)
        found = [(one.qpu.name, one.outlook(until), one.charge(until)) for one in self._correspondents]
        return [Value("global", name, value) for name, value in values(found, self._voices).items()]

    def _reconsider(self) -> None:
        """The configuration may have been changed; one that cannot be read changes nothing."""
        try:
            found = site.load(self._config, self._host)
        except Exception:  # noqa: BLE001 - nothing may end the sensor
            return
        if found != self._site:
            self._site = found
            for one in self._correspondents:
                one.dismiss()
            self._correspondents = [Correspondent(qpu, found, self._host, self._spool) for qpu in found.qpus]


def values(found: list[tuple[str, Outlook | None, bool | None]], voices: dict[str, Voice]) -> dict[str, str]:
    """All load values, of what is known of each QPU, and whether this host reports it.

    Of one QPU `qpu` has the places. Of several each has its own value, and a job that names none may have any: what is
    said of all together is said by the host that reports the first.
    """
    if not found:
        # Nobody knows which QPUs there are. The others do.
        return {}
    said: dict[str, str] = {}
    if len(found) > 1:
        for name, one, charge in found:
            truth = None if one is None else {f"qpu_{name}": one.places}
            said |= voices[name].say(truth, {f"qpu_{name}": 0}, charge)
    known = [one for _, one, _ in found if one is not None]
    places = len(found) == 1
    common = _facts(together(known), places=places) if known else None
    return said | voices[""].say(common, _facts(NOTHING, places=places), found[0][2])


def _facts(one: Outlook, *, places: bool) -> dict[str, int | str]:
    facts: dict[str, int | str] = {"qpu": one.places} if places else {}
    return facts | {"qpu_state": str(one.state), "qpu_window": one.window, "qpu_qubits": one.qubits}


if __name__ == "__main__":
    main()
