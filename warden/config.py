"""The configuration: one TOML file, checked as a whole before anything starts. Unknown keys are errors.

Durations are numbers of seconds or texts such as "90s", "3min", "1h30min", "2d"; inside they are microseconds.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import msgspec

from warden.calibration import Calendar, Rule, ShotRule
from warden.model import SECOND, ConfigurationError, Micros, State, learn
from warden.qpu.timing import Timing

if TYPE_CHECKING:
    from collections.abc import Iterable

DEFAULT_PATH = Path("/etc/warden/warden.toml")
# Sections that belong to somebody else; they check them with `load_section`.
_FOREIGN = frozenset({"gridengine"})

_UNITS = {"us": 1, "ms": 1_000, "s": SECOND, "min": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|min|h|d)")


# Shorter heartbeats would keep everybody busy with showing that they live.
_SHORTEST_BEAT = SECOND // 10
_LONGEST_RUN = 86400 * SECOND
_SHORTEST_KEEP = 3600 * SECOND
# Longer than any operator means; sums of such durations are still dates that a calendar can show.
_LONGEST = 10**10 * SECOND
# At most so long a QPU is left alone at first; that doubles six times.
_LONGEST_RETRY = 365 * 86400 * SECOND
# What the broker takes at once of a worker: the counts of a task.
LARGEST_RESULT = 256 * 2**20
# Of each bitstring its length and its count, as msgpack writes them.
_COUNTED = 3 + 5
# Shot rates that arithmetic with floats and microseconds bears.
_RATES = (1e-6, 1e9)


# TOML's numbers have no end; the wire's and the store's have.
_Number = Annotated[int, msgspec.Meta(ge=1, lt=2**62)]


def networks(texts: Iterable[str], where: str) -> tuple[ipaddress.IPv4Network, ...]:
    """Read addresses and networks (192.0.2.7, 192.0.2.0/24); MUNGE knows IPv4 alone.

    Raises:
        ValueError: One of them is none.
    """
    found = []
    for text in texts:
        try:
            found.append(ipaddress.IPv4Network(text))
        except ValueError as error:
            raise ValueError(f"{where}: {text!r} is no address and no network such as 192.0.2.0/24: {error}") from None
    return tuple(found)


class Duration(int):
    """Microseconds, written in the file as seconds or as text."""

    __slots__ = ()


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class QpuSection(_Section, frozen=True, kw_only=True):
    """The QPU and what is known of its timing."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\Z", max_length=64)] = "qpu"
    device: str = "AnalogDevice"
    emulator: Literal["qutip", "echo"] = "qutip"
    qubits: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 14
    places: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    shot_rate: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    overhead: Duration = Duration(2 * SECOND)
    longest_run: Duration = Duration(3600 * SECOND)
    """No run is longer; a task of more shots gets several. So long the QPU may be kept from a task of a higher class."""
    failures: _Number = 3
    """So many failed runs in a row take the QPU offline ..."""
    retry: Duration = Duration(300 * SECOND)
    """... for so long, and for twice as long when it fails again."""
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] = 0

    def __post_init__(self) -> None:
        if self.shot_rate != 0 and not _RATES[0] <= self.shot_rate <= _RATES[1]:
            raise ValueError("shot_rate must be 0 (no pace) or between 0.000001 and 1000000000 shots a second")
        if self.longest_run < self.timing.estimate(1):
            raise ValueError("longest_run must be long enough for one shot: overhead and 1 / shot_rate")
        if self.longest_run > _LONGEST_RUN:
            raise ValueError("longest_run must be at most 1d: windows are planned for a week")
        if self.retry < SECOND:
            raise ValueError("retry must be at least 1 s")
        if self.retry > _LONGEST_RETRY:
            raise ValueError("retry must be at most 365d: it doubles six times")

    @property
    def timing(self) -> Timing:
        return Timing(overhead=int(self.overhead), shot_rate=self.shot_rate)


_Addresses = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class BrokerSection(_Section, frozen=True, kw_only=True):
    """Where the broker listens, and where it keeps things."""

    clients: _Addresses = ("ipc:///run/warden/clients.sock",)
    workers: _Addresses = ("ipc:///run/warden/workers.sock",)
    state: Path = Path("/var/lib/warden")
    keys: Path = Path("/etc/warden/keys")
    heartbeat: Duration = Duration(2 * SECOND)

    def __post_init__(self) -> None:
        if self.heartbeat < _SHORTEST_BEAT:
            raise ValueError("heartbeat must be at least 0.1 s")


class SessionSection(_Section, frozen=True, kw_only=True):
    """How long a session lives when nobody renews it, and what it may use."""

    lease: Duration = Duration(600 * SECOND)
    unseen: Duration = Duration(3600 * SECOND)
    """So long, and no less than a lease, use alone renews a session whose job no execution host says to live."""
    max_shots: _Number | None = None
    max_qpu_time: Duration | None = None

    def __post_init__(self) -> None:
        if self.lease < SECOND:
            raise ValueError("lease must be at least 1 s")


class LimitSection(_Section, frozen=True, kw_only=True):
    """What is refused, and how long what has ended is kept."""

    shots: Annotated[int, msgspec.Meta(ge=1, lt=2**31)] = 100_000
    sequence_bytes: Annotated[int, msgspec.Meta(ge=1, le=64 * 2**20)] = 8 * 2**20
    queued_per_user: _Number = 1_000
    queued: _Number = 10_000
    sessions_per_user: _Number = 10_000
    keep: Duration = Duration(90 * 86400 * SECOND)

    def __post_init__(self) -> None:
        if self.keep < _SHORTEST_KEEP:
            raise ValueError("keep must be at least 1h: people read their results")


class PolicySection(_Section, frozen=True, kw_only=True):
    """Whose task is next."""

    order: Literal["fair", "fifo"] = "fair"
    half_life: Duration = Duration(7 * 86400 * SECOND)
    """After so long, what a user has used of the QPU counts half."""
    longest_wait: Duration = Duration(86400 * SECOND)
    """A task that has waited so long gets every other run, whatever its class."""

    def __post_init__(self) -> None:
        if self.half_life < SECOND:
            raise ValueError("half_life must be at least 1 s")


_Names = tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=255)], ...]


class ClassSection(_Section, frozen=True, kw_only=True):
    """A class of priority; the first in the file is the highest, and the last takes whoever is in none."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]+\Z", max_length=64)]
    users: tuple[str | int, ...] = ()
    queues: _Names = ()
    projects: _Names = ()
    max_shots: _Number | None = None
    """What a session of this class may use, in place of what `session` says."""
    max_qpu_time: Duration | None = None


class ClientSection(_Section, frozen=True, kw_only=True):
    """Where clients on this host find the broker, and the key by which they know it."""

    endpoint: str = ""
    broker_key: Path | None = None


_Users = tuple[str | int, ...]


class AccessSection(_Section, frozen=True, kw_only=True):
    """Who may use the QPU, who may plan and drain, and how and from where they prove who they are."""

    users: _Users = ()
    groups: _Names = ()
    """Unix groups. Without users and groups everybody may use the QPU."""
    operators: _Users = ("root",)
    operator_groups: _Names = ()
    identity: Literal["munge", "kernel"] = "munge"
    """`kernel`: without MUNGE, for clients on the broker's own host alone: its kernel says who is at a socket's other end."""
    hosts: tuple[str, ...] = ()
    """Addresses or networks of the hosts whose MUNGE credentials are taken; without any, those of all hosts."""
    root_hosts: tuple[str, ...] = ()
    """The same for root's, that is for the scheduler's hooks."""
    munge_socket: Path | None = None

    def __post_init__(self) -> None:
        for name in ("hosts", "root_hosts"):
            networks(getattr(self, name), name)
        if self.identity == "kernel" and (self.hosts or self.root_hosts):
            raise ValueError("identity: the kernel knows no other hosts, so leave hosts and root_hosts out")


class LogSection(_Section, frozen=True, kw_only=True):
    """How broker and worker write to stderr, and the file with the audit trail."""

    format: Literal["text", "json"] = "text"
    audit: Path | None = None


class CalibrationSection(_Section, frozen=True, kw_only=True):
    """A window that comes back: by the clock (`every`) or when the QPU has taken `after_shots` shots."""

    duration: Duration
    every: Duration | None = None
    after_shots: _Number | None = None
    offset: Duration = Duration(0)
    kind: Literal["calibrating", "maintenance"] = "calibrating"
    reason: str = ""
    make_up: bool = False
    """Whether one that was missed, because Warden was down, is held as soon as the QPU is free."""

    def __post_init__(self) -> None:
        if (self.every is None) == (self.after_shots is None):
            raise ValueError("a calibration comes back by the clock (every) or after_shots: say one of them")
        if self.after_shots is not None and (self.offset or self.make_up or self.kind != "calibrating"):
            raise ValueError("a calibration by after_shots has neither offset nor make_up nor another kind")

    def rule(self) -> Rule | ShotRule:
        reason = self.reason or self.kind
        if self.every is None:
            return ShotRule(after_shots=self.after_shots or 0, duration=int(self.duration), reason=reason)
        return Rule(
            every=int(self.every),
            duration=int(self.duration),
            offset=int(self.offset),
            kind=State(self.kind),
            reason=reason,
            make_up=self.make_up,
        )


class Config(_Section, frozen=True, kw_only=True):
    """The file, checked."""

    qpu: QpuSection = QpuSection()
    broker: BrokerSection = BrokerSection()
    session: SessionSection = SessionSection()
    limits: LimitSection = LimitSection()
    policy: PolicySection = PolicySection()
    classes: Annotated[tuple[ClassSection, ...], msgspec.Meta(min_length=1)] = msgspec.field(
        name="class", default=(ClassSection(name="everybody"),)
    )
    client: ClientSection = ClientSection()
    access: AccessSection = AccessSection()
    log: LogSection = LogSection()
    calibration: tuple[CalibrationSection, ...] = ()

    @property
    def client_endpoint(self) -> str:
        return self.client.endpoint or _reachable(self.broker.clients[0])

    @property
    def worker_endpoint(self) -> str:
        return _reachable(self.broker.workers[0])

    @property
    def broker_key(self) -> Path:
        """The file with the broker's public key."""
        return self.client.broker_key or self.broker.keys / "broker.key"

    @property
    def timing(self) -> Timing:
        return self.qpu.timing

    @property
    def largest_result(self) -> int:
        """Bytes that the counts of a task may have on the wire: each shot another bitstring, as far as there are some."""
        different = min(self.limits.shots, 1 << min(self.qpu.qubits, 32))
        return different * (self.qpu.qubits + _COUNTED)

    @property
    def calendar(self) -> Calendar:
        rules = [section.rule() for section in self.calibration]
        return Calendar(
            tuple(rule for rule in rules if isinstance(rule, Rule)),
            shot_rules=tuple(rule for rule in rules if isinstance(rule, ShotRule)),
        )

    def __post_init__(self) -> None:
        if self.access.identity == "kernel" and not all(a.startswith("ipc://") for a in self.broker.clients):
            raise ValueError(
                "access.identity: the kernel knows only who is at an ipc:// address: broker.clients has others"
            )
        names = [section.name for section in self.classes]
        if len(set(names)) < len(names):
            raise ValueError("two classes have the same name")
        if sum(section.after_shots is not None for section in self.calibration) > 1:
            raise ValueError("two calibrations say after_shots: any calibration begins the count anew, so say it once")
        if self.largest_result > LARGEST_RESULT:
            raise ValueError(
                f"the result of a task may come to {self.largest_result} bytes, and {LARGEST_RESULT} can be handed in: "
                "lower limits.shots or qpu.qubits"
            )
        if self.timing.estimate(self.limits.shots) >= _LONGEST:
            raise ValueError(
                "limits.shots at qpu.shot_rate take longer than a calendar can show: lower the one or raise the other"
            )


learn(Config)


def default_path() -> Path:
    """The file of an ordinary user's command: WARDEN_CONFIG, or the site's. Root's hooks must not ask this."""
    return Path(os.environ.get("WARDEN_CONFIG") or DEFAULT_PATH)


def load(path: Path) -> Config:
    """Read and check the file.

    Raises:
        ConfigurationError: It is missing, unreadable, no TOML, or says something that it cannot say.
    """
    document = {key: value for key, value in _read(path).items() if key not in _FOREIGN}
    config = _check(document, Config, path)
    try:
        _ = config.calendar
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error.text}") from None
    return config


S = TypeVar("S", bound=msgspec.Struct)


def load_section(path: Path, name: str, kind: type[S]) -> S:
    """Read and check a section that belongs to another package than Warden."""
    return _check(_read(path).get(name, {}), kind, path, f"{name}.")


def duration(value: Any) -> Micros:
    """Read a duration: a number of seconds, or numbers with units.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value * SECOND < _LONGEST:
        return round(value * SECOND)
    if isinstance(value, str):
        parts = _DURATION.findall(value)
        if parts and "".join(number + unit for number, unit in parts) == value.replace(" ", ""):
            length = sum(float(number) * _UNITS[unit] for number, unit in parts)
            if length < _LONGEST:
                return round(length)
    raise ValueError(f"{value!r} is no duration, or a very long one: write seconds, or '90s', '3min', '1h30min'")


def _reachable(address: str) -> str:
    """An address to listen at as one to connect to, on the same host."""
    return address.replace("//0.0.0.0:", "//127.0.0.1:").replace("//*:", "//127.0.0.1:")


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read the configuration {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no TOML: {error}") from None


def _check(document: Any, kind: type[S], path: Path, prefix: str = "") -> S:
    try:
        return msgspec.convert(document, kind, dec_hook=_decode, strict=True)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"{path}: {_tidy(str(error), prefix)}") from None


def _decode(kind: type, value: Any) -> Any:
    if kind is Duration:
        return Duration(duration(value))
    if kind is Path:
        if not isinstance(value, str) or not value.startswith("/"):
            raise ValueError(f"{value!r} is no absolute path")
        return Path(value)
    raise NotImplementedError(kind)


def _tidy(text: str, prefix: str) -> str:
    """Rewrite msgspec's "Object contains unknown field `x` - at `$.qpu`" as "qpu.x: unknown key"."""
    what, _, where = " ".join(text.split()).partition(" - at ")
    place = prefix + where.strip("`").removeprefix("$").removeprefix(".")
    place = place.rstrip(".")
    unknown = re.fullmatch(r"Object contains unknown field `(.*)`", what)
    if unknown:
        return f"unknown key '{f'{place}.' if place else ''}{unknown[1]}'"
    missing = re.fullmatch(r"Object missing required field `(.*)`", what)
    if missing:
        return f"missing key '{f'{place}.' if place else ''}{missing[1]}'"
    return f"{place}: {what}" if place else what
