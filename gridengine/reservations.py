"""Warden's windows as advance reservations: what the calendar asks for, what was granted, and the difference.

A reservation of ours takes a QPU's places for a window, so that the scheduler starts nothing that would run into it. Ours are
told by their name and their owner. The name also says what was reserved: after a change of the places or of the queues
the old ones are replaced.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import enum
import os
import pwd
import re
import signal
import time
import zlib
from typing import TYPE_CHECKING

import msgspec

from gridengine import commands
from gridengine.resources import Flavour
from warden.client import Client
from warden.model import SECOND, Micros, WardenError, Window, clock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from gridengine.site import Offer, Site

# Has to be there wherever several QPUs are; nobody else uses it.
PARALLEL_ENVIRONMENT = "qpu_window"
ENDLESS: Micros = 2**63 - 1
# What begins sooner cannot be counted on to be reserved: Grid Engine refuses a time that has passed meanwhile.
_SOON: Micros = 5 * SECOND
# The most windows that a broker tells of at once.
_MOST_WINDOWS = 1000
_PATIENCE = 5.0
# A QPU's name has no hyphen.
_OURS = r"qpu-\w+-[0-9a-f]{8}"


class Span(msgspec.Struct, frozen=True, order=True):
    """[start, end), whole seconds: Grid Engine knows nothing shorter."""

    start: Micros
    end: Micros
    """ENDLESS while nobody knows it."""

    def __str__(self) -> str:
        return f"{clock(self.start)} to {clock(self.end)}" if self.end < ENDLESS else f"from {clock(self.start)} on"

    def holds(self, other: Span) -> bool:
        return self.start <= other.start and other.end <= self.end

    def meets(self, other: Span) -> bool:
        return self.start <= other.end and other.start <= self.end


class Reservation(msgspec.Struct, frozen=True):
    """An advance reservation that the cluster has."""

    id: int
    name: str
    span: Span

    @property
    def qpu(self) -> str:
        return self.name.removeprefix("qpu-").rpartition("-")[0]


class Request(msgspec.Struct, frozen=True):
    """All of a QPU's places, as qrsub is asked for them."""

    qpu: str
    words: tuple[str, ...]

    @property
    def name(self) -> str:
        return f"qpu-{self.qpu}-{zlib.crc32(' '.join(self.words).encode()):08x}"


class Difference(msgspec.Struct, frozen=True):
    """What is to be done for one QPU, and what cannot be."""

    kept: tuple[Reservation, ...] = ()
    gone: tuple[Reservation, ...] = ()
    new: tuple[Span, ...] = ()
    skipped: tuple[tuple[Span, str], ...] = ()


class Did(enum.StrEnum):
    """What became of a window, or of its reservation."""

    KEPT = "kept"
    RESERVED = "reserved"
    WITHDRAWN = "withdrawn"
    SKIPPED = "skipped"
    REFUSED = "refused"
    UNKNOWN = "unknown"


_MARKS = {Did.RESERVED: "+", Did.WITHDRAWN: "-", Did.KEPT: "="}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One line of an answer, for one QPU."""

    did: Did
    qpu: str
    start: Micros | None = None
    end: Micros | None = None
    reservation: int | None = None
    reason: str = ""

    def __str__(self) -> str:
        when = "" if self.start is None else f" {Span(self.start, ENDLESS if self.end is None else self.end)}"
        what = [] if self.reservation is None else [f"reservation {self.reservation}"]
        return f"{_MARKS.get(self.did, '!')} {self.qpu}{when}: {', '.join([*what, *filter(None, [self.reason])])}"

    @property
    def failed(self) -> bool:
        return self.did in {Did.REFUSED, Did.UNKNOWN}


def difference(
    windows: Iterable[Window], existing: Iterable[Reservation], *, name: str, now: Micros, ahead: Micros
) -> Difference:
    """Work out what has to be taken back, and what asked for, so that each window within `ahead` is reserved.

    A reservation that lies in a window stays, and what it leaves of the window is reserved besides: that is how one that
    is prolonged stays guarded all the time. Inside a drain without an end nothing is taken back, since what was planned
    before is hidden by it.
    """
    wanted = _spans(windows)
    kept: list[Reservation] = []
    gone: list[Reservation] = []
    for one in existing:
        planned = one.name == name and any(span.holds(one.span) for span in wanted)
        # In its last second the window may be over already, for it was rounded.
        (kept if planned or one.span.end <= now + SECOND else gone).append(one)
    new: list[Span] = []
    skipped: list[tuple[Span, str]] = []
    for span in wanted:
        if span.start >= now + ahead:
            continue
        if span.end == ENDLESS:
            skipped.append((span, "it has no end, so it cannot be reserved"))
            continue
        for gap in _gaps(span, kept):
            if gap.end <= now + _SOON:
                continue
            if gap.start < now:
                skipped.append((gap, "it is open already; the load sensor keeps jobs back"))
            elif gap.start < now + _SOON:
                skipped.append((gap, "it begins too soon to be reserved; the load sensor keeps jobs back"))
            else:
                new.append(gap)
    return Difference(tuple(kept), tuple(gone), tuple(new), tuple(skipped))


def _spans(windows: Iterable[Window]) -> list[Span]:
    """Rounded outwards to whole seconds; what overlaps then is one."""
    found: list[Span] = []
    for window in sorted(windows, key=lambda one: one.start):
        start = window.start // SECOND * SECOND
        end = ENDLESS if window.end is None else -(-window.end // SECOND) * SECOND
        if found and start < found[-1].end:
            found[-1] = Span(found[-1].start, max(found[-1].end, end))
        else:
            found.append(Span(start, end))
    return found


def _gaps(span: Span, kept: Iterable[Reservation]) -> Iterator[Span]:
    """What the reservations leave of a span."""
    start = span.start
    for one in sorted(one.span for one in kept if span.holds(one.span)):
        if start < one.start:
            yield Span(start, one.start)
        start = max(start, one.end)
    if start < span.end:
        yield Span(start, span.end)


_RESERVATION = re.compile(
    rf"<ar_summary>\s*<id>(\d+)</id>\s*<name>({_OURS})</name>\s*<owner>([^<]*)</owner>\s*"
    r"<state>\w*</state>\s*<start_time>([\dT:.-]+)</start_time>\s*<end_time>([\dT:.-]+)</end_time>"
)


def parse_reservations(xml_text: str, owners: Collection[str]) -> list[Reservation]:
    """Read ours out of `qrstat -u OWNERS -xml`, which ran in UTC.

    Not with an XML parser: Grid Engine writes names as they are, so `<` in one that is not ours would spoil ours.

    Raises:
        GridEngineError: It is not the text that we know.
    """
    found = [
        Reservation(int(number), name, Span(_time(start), _time(end)))
        for number, name, owner, start, end in _RESERVATION.findall(xml_text)
        if owner in owners
    ]
    if "<qrstat" not in xml_text or len(found) < len(re.findall(rf"<name>{_OURS}</name>", xml_text)):
        raise commands.GridEngineError("qrstat -xml shows a reservation that is not understood; nothing was changed")
    return found


def parse_json(text: str, owners: Collection[str]) -> list[Reservation]:
    """Read ours out of `qrstat -u OWNERS -fmt json`, whose times are UTC.

    Raises:
        GridEngineError: It is not the text that we know.
    """
    try:
        listed = msgspec.json.decode(text, type=_Listing).ars
        ours = [one for one in listed if re.fullmatch(_OURS, one.name) and one.owner in owners]
        return [Reservation(one.id, one.name, Span(_time(one.start_time), _time(one.end_time))) for one in ours]
    except (msgspec.DecodeError, ValueError):
        raise commands.GridEngineError("qrstat shows what is not understood; nothing was changed") from None


class _Listed(msgspec.Struct, frozen=True):
    id: int
    name: str
    owner: str
    start_time: str
    end_time: str


class _Listing(msgspec.Struct, frozen=True):
    ars: tuple[_Listed, ...]


def parse_granted(text: str) -> int:
    """Read the number out of what qrsub says.

    Raises:
        GridEngineError: It says something else.
    """
    granted = re.search(r"Your advance reservation (\d+) has been granted", text)
    if granted is None:
        raise commands.GridEngineError(f"qrsub answered what is not understood: {text.strip()[:100]!r}")
    return int(granted[1])


def parse_slots(xml_text: str) -> int:
    """Add up the slots of the queue instances in `qstat -f -xml`; also those that are switched off now may come back."""
    return sum(map(int, re.findall(r"<slots_total>(\d+)</slots_total>", xml_text)))


def _time(text: str) -> Micros:
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC, microsecond=0).timestamp()) * SECOND


# The edge: from here on Warden and Grid Engine are asked and told.


def reserve(site: Site) -> Iterator[Step]:
    """Bring the reservations of all QPUs into step with their calendars, once; tell of each step when it is done.

    A QPU whose Warden does not answer keeps what it has.

    Raises:
        DeniedError: This user may not reserve.
        GridEngineError: Grid Engine does not answer, or answers what is not understood.
    """
    existing = _existing()
    names = {offer.name for offer in site.offers}
    yield from _withdraw([one for one in existing if one.qpu not in names], "there is no such QPU any more")
    for offer in site.offers:
        try:
            windows = _windows(offer)
        except WardenError as error:
            yield Step(did=Did.UNKNOWN, qpu=offer.name, reason=f"its calendar is not known: {error.text}")
        else:
            request = _request(site, offer)
            mine = [one for one in existing if one.qpu == offer.name]
            now, ahead = time.time_ns() // 1000, site.settings.reserve_ahead
            yield from _carry_out(request, difference(windows, mine, name=request.name, now=now, ahead=ahead))


def withdraw() -> Iterator[Step]:
    """Take back all reservations of ours, whatever QPU they are for."""
    return _withdraw(_existing(), "taken back")


def follow(site: Site, pause: float, say: Callable[[str], None]) -> None:
    """Do it again and again, until SIGTERM or SIGINT; say what is done, and once what cannot be.

    Raises:
        DeniedError: This user may not reserve: that does not pass by itself.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    told: set[str] = set()
    try:
        while True:
            lines: set[str] = set()
            for line in _round(site):
                if line not in told | lines:
                    say(line)
                lines.add(line)
            told = lines
            time.sleep(pause)
    except KeyboardInterrupt:
        return


def _round(site: Site) -> Iterator[str]:
    try:
        yield from (str(step) for step in reserve(site) if step.did is not Did.KEPT)
    except commands.DeniedError:
        raise
    except commands.GridEngineError as error:
        yield f"! {error.text}"


def _carry_out(request: Request, wanted: Difference) -> Iterator[Step]:
    """A new one comes first, lest an endless job starts between the two, unless what goes holds the places that it needs."""
    yield from (_step(Did.KEPT, request.qpu, one.span, one.id) for one in wanted.kept)
    yield from (_step(Did.SKIPPED, request.qpu, span, None, reason) for span, reason in wanted.skipped)
    instead = [span for span in wanted.new if any(span.meets(one.span) for one in wanted.gone)]
    failure: commands.GridEngineError | None = None
    try:
        yield from _ask(request, [span for span in wanted.new if span not in instead])
    except commands.GridEngineError as error:
        failure = error
    # Whatever became of the new ones, nobody shall wait for what is not any more.
    yield from _withdraw(wanted.gone, "there is no such window any more")
    if failure is not None:
        raise failure
    yield from _ask(request, instead)


def _ask(request: Request, spans: Iterable[Span]) -> Iterator[Step]:
    made = [(span, *_ask_for(request, span)) for span in spans]
    granted = {number: span for span, number, _ in made if number is not None}
    _read_back(granted)
    for span, number, refusal in made:
        yield _step(Did.REFUSED if refusal else Did.RESERVED, request.qpu, span, number, refusal)


def _request(site: Site, offer: Offer) -> Request:
    if not site.several:
        return Request(offer.name, ("-l", f"qpu={offer.warden.qpu.places}"))
    queues = ",".join(offer.queues)
    # Root has no jobs, so that no job's name gets into the listing.
    slots = parse_slots(commands.run("qstat", "-f", "-u", "root", "-q", queues, "-xml").stdout)
    return Request(offer.name, ("-q", queues, "-pe", PARALLEL_ENVIRONMENT, str(slots)))


def _ask_for(request: Request, span: Span) -> tuple[int | None, str]:
    """The number of what was granted, or why it was not."""
    start, end = (
        f"{dt.datetime.fromtimestamp(time // SECOND, tz=dt.UTC):%Y%m%d%H%M.%S}" for time in (span.start, span.end)
    )
    try:
        return parse_granted(
            commands.run("qrsub", "-a", start, "-e", end, "-N", request.name, *request.words, utc=True).stdout
        ), ""
    except (commands.DeniedError, commands.MissingError, commands.UnreachableError):
        raise
    except commands.GridEngineError as error:
        if "no suitable queues" in error.text:
            return None, "not granted yet, a job may run into it (one without h_rt is taken for endless)"
        if PARALLEL_ENVIRONMENT in error.text:
            return None, f"not granted, {error.text} (run `qpu-admin apply`)"
        return None, f"not granted yet, {error.text}"


def _read_back(granted: Mapping[int, Span]) -> None:
    """Look whether what was granted is what was asked for; what is not is taken back.

    Raises:
        GridEngineError: It was not.
    """
    found = {one.id: one.span for one in _existing()} if granted else {}
    for number, span in granted.items():
        if found.get(number) != span:
            _delete(number)
            raise commands.GridEngineError(
                f"qrsub was asked for {span}, but reservation {number} is {found.get(number, 'not ours')}: taken back"
            )


def _withdraw(reservations: Iterable[Reservation], reason: str) -> Iterator[Step]:
    for one in reservations:
        _delete(one.id)
        yield _step(Did.WITHDRAWN, one.qpu, one.span, one.id, reason)


def _delete(number: int) -> None:
    # It may just have ended.
    with contextlib.suppress(commands.UnknownObjectError):
        commands.run("qrdel", str(number))


def _existing() -> list[Reservation]:
    """Our reservations: of this user, or of a manager; others could take our names for theirs."""
    owners = {pwd.getpwuid(os.geteuid()).pw_name, *commands.run("qconf", "-sm").stdout.split()}
    asked, version = ("qrstat", "-u", ",".join(sorted(owners))), commands.version()
    if version.flavour is Flavour.OCS and version.since(9, 2):
        # There the qmaster writes the text, with times of its own host's zone; in JSON they are UTC.
        return parse_json(commands.run(*asked, "-fmt", "json", utc=True).stdout, owners)
    return parse_reservations(commands.run(*asked, "-xml", utc=True).stdout, owners)


def _windows(offer: Offer) -> tuple[Window, ...]:
    # A connection for each time: nothing of it outlives a broker that is started again.
    with Client(config=offer.warden, timeout=_PATIENCE) as client:
        return client.plan(_MOST_WINDOWS).windows


def _step(did: Did, qpu: str, span: Span, number: int | None, reason: str = "") -> Step:
    end = None if span.end == ENDLESS else span.end
    return Step(did=did, qpu=qpu, start=span.start, end=end, reservation=number, reason=reason)
