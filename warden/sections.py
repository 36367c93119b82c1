"""The sections of the configuration, and what each may say. `config` reads the file."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from warden.calibration import QualityRule, Rule, ShotRule
from warden.model import SECOND, State
from warden.qpu.noise import Noise
from warden.qpu.timing import Timing

if TYPE_CHECKING:
    from collections.abc import Iterable

# Shorter heartbeats would keep everybody busy with showing that they live.
_SHORTEST_BEAT = SECOND // 10
_LONGEST_RUN = 86400 * SECOND
_SHORTEST_KEEP = 3600 * SECOND
# At most so long a QPU is left alone at first; that doubles six times.
_LONGEST_RETRY = 365 * 86400 * SECOND
# What the broker takes at once of a worker: the counts of a task.
LARGEST_RESULT = 256 * 2**20
# The most that limits.sequence_bytes can be.
LARGEST_SEQUENCE = 64 * 2**20
_AT_LEAST = 3600 * SECOND
_PORTS = 2**16
_LOOPBACK = ("localhost", "::1")
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


class Bytes(int):
    """A size, written in the file as bytes or as text."""

    __slots__ = ()


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections: unknown keys are errors."""


class QpuSection(Section, frozen=True, kw_only=True):
    """The QPU and what is known of its timing."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]*\Z", max_length=64)] = "qpu"
    device: Annotated[str, msgspec.Meta(min_length=1, max_length=4000)] = "FresnelLike"
    """Shipped (FresnelLike), one of `pulser.devices`, or the absolute path of a file with a device's JSON."""
    emulator: Literal["qutip", "emu-sv", "emu-mps", "echo"] = "qutip"
    memory: Bytes = Bytes(0)
    """Of an emulation, the most that it may have; 0: all that the machine has."""
    cache: Bytes = Bytes(256 * 2**20)
    """For distributions of sequences that were emulated."""
    qubits: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 14
    places: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1
    overhead: Duration = Duration(2 * SECOND)
    """Of each run, whatever its register and its shots ..."""
    loading: Duration = Duration(10 * SECOND)
    """... and of loading its register."""
    shot_rate: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    """Shots a second; 0: all at once."""
    rearrangement: Duration = Duration(0)
    """Of each atom before each shot, where `shot_rate` does not have it yet."""
    time_scale: Annotated[float, msgspec.Meta(ge=1, le=1_000_000)] = 1.0
    """By so much the device is faster, and its calibrations come sooner and are shorter."""
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
        if self.longest_run < self.timing.pace(self.qubits).estimate(1):
            raise ValueError(
                "longest_run must be long enough for one shot of the largest register: "
                f"{self.timing.pace(self.qubits).estimate(1) / SECOND:g} s"
            )
        if self.longest_run > _LONGEST_RUN:
            raise ValueError("longest_run must be at most 1d: windows are planned for a week")
        if self.retry < SECOND:
            raise ValueError("retry must be at least 1 s")
        if self.retry > _LONGEST_RETRY:
            raise ValueError("retry must be at most 365d: it doubles six times")

    @property
    def timing(self) -> Timing:
        return Timing(
            overhead=int(self.overhead),
            loading=int(self.loading),
            shot_rate=self.shot_rate,
            rearrangement=int(self.rearrangement),
            time_scale=self.time_scale,
        )


_Addresses = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class BrokerSection(Section, frozen=True, kw_only=True):
    """Where the broker listens, and where it keeps things."""

    clients: _Addresses = ("ipc:///run/warden/clients.sock",)
    workers: _Addresses = ("ipc:///run/warden/workers.sock",)
    edges: tuple[str, ...] = ()
    """For HTTP edges; without any, where the one that is started with the broker finds it."""
    state: Path = Path("/var/lib/warden")
    keys: Path = Path("/etc/warden/keys")
    heartbeat: Duration = Duration(2 * SECOND)

    def __post_init__(self) -> None:
        if self.heartbeat < _SHORTEST_BEAT:
            raise ValueError("heartbeat must be at least 0.1 s")


class SessionSection(Section, frozen=True, kw_only=True):
    """How long a session lives when nobody renews it, and what it may use."""

    lease: Duration = Duration(600 * SECOND)
    unseen: Duration = Duration(3600 * SECOND)
    """So long, and no less than a lease, use alone renews a session whose job no execution host says to live."""
    max_shots: _Number | None = None
    max_qpu_time: Duration | None = None

    def __post_init__(self) -> None:
        if self.lease < SECOND:
            raise ValueError("lease must be at least 1 s")


class LimitSection(Section, frozen=True, kw_only=True):
    """What is refused, and how long what has ended is kept."""

    shots: Annotated[int, msgspec.Meta(ge=1, lt=2**31)] = 100_000
    sequence_bytes: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_SEQUENCE)] = 8 * 2**20
    queued_per_user: _Number = 1_000
    queued: _Number = 10_000
    sessions_per_user: _Number = 10_000
    keep: Duration = Duration(90 * 86400 * SECOND)

    def __post_init__(self) -> None:
        if self.keep < _SHORTEST_KEEP:
            raise ValueError("keep must be at least 1h: people read their results")


class PolicySection(Section, frozen=True, kw_only=True):
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


class ClassSection(Section, frozen=True, kw_only=True):
    """A class of priority; the first in the file is the highest, and the last takes whoever is in none."""

    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.-]+\Z", max_length=64)]
    users: tuple[str | int, ...] = ()
    queues: _Names = ()
    projects: _Names = ()
    max_shots: _Number | None = None
    """What a session of this class may use, in place of what `session` says."""
    max_qpu_time: Duration | None = None


class ClientSection(Section, frozen=True, kw_only=True):
    """Where clients on this host find the broker, and the key by which they know it."""

    endpoint: str = ""
    broker_key: Path | None = None


def _is_anywhere(host: str) -> bool:
    try:
        return host == "0" or ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


class HttpSection(Section, frozen=True, kw_only=True):
    """The edge for QRMI's own clients; without `listen` there is none."""

    listen: Annotated[str, msgspec.Meta(pattern=r"^(|(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+):[0-9]{1,5})\Z")] = ""
    """Address and port, "127.0.0.1:7680"."""
    url: Annotated[str, msgspec.Meta(pattern=r"^(|https?://[A-Za-z0-9_.:/\[\]-]+)\Z", max_length=255)] = ""
    """Where jobs find it, if not there where it listens."""
    certificate: Path | None = None
    private_key: Path | None = None
    endpoint: str = ""
    """Where an edge finds the broker (`broker.edges`), if not on the same host."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("http.certificate and http.private_key are one without the other: TLS needs both")
        if self.listen and not 0 < self.address[1] < _PORTS:
            raise ValueError(f"http.listen: {self.address[1]} is no port")
        try:
            port = urlsplit(self.url).port
        except ValueError as error:
            raise ValueError(f"http.url: {error}") from None
        if self.url and (not urlsplit(self.url).hostname or port == 0):
            raise ValueError(f"http.url: {self.url!r} names no host and port")
        if self.listen and not self.url and _is_anywhere(self.address[0]):
            raise ValueError("http.listen is all addresses of the host: say at which one jobs find it, as http.url")

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def is_local(self) -> bool:
        """Whether only programs on the same host reach it."""
        return bool(self.listen) and (self.address[0] in _LOOPBACK or self.address[0].startswith("127."))

    @property
    def reachable(self) -> str:
        """Its URL, to which QRMI's clients add "/jobs" and the like; empty where there is none."""
        scheme = "http" if self.certificate is None else "https"
        return self.url.rstrip("/") or (f"{scheme}://{self.listen}" if self.listen else "")


_Users = tuple[str | int, ...]


class AccessSection(Section, frozen=True, kw_only=True):
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


class LogSection(Section, frozen=True, kw_only=True):
    """How broker and worker write to stderr, and the file with the audit trail."""

    format: Literal["text", "json"] = "text"
    audit: Path | None = None


_Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Amount = Annotated[float, msgspec.Meta(ge=0, le=1000)]
# As far as a calibration's scans see (warden.qpu.drift).
_RabiError = Annotated[float, msgspec.Meta(ge=-0.5, le=0.5)]
_DetuningError = Annotated[float, msgspec.Meta(ge=-4, le=4)]


class _Figures(Section, frozen=True, kw_only=True):
    """Those of `warden.qpu.noise.Noise` that are never below 0."""

    state_prep_error: _Probability = 0.0
    p_false_pos: _Probability = 0.0
    p_false_neg: _Probability = 0.0
    amp_sigma: _Probability = 0.0
    detuning_sigma: _Amount = 0.0
    temperature: _Amount = 0.0
    dephasing_rate: _Amount = 0.0

    @property
    def noise(self) -> Noise:
        return Noise(**msgspec.structs.asdict(self))


class NoiseSection(_Figures, frozen=True, kw_only=True):
    """The QPU as it was built and aligned, before anything has wandered."""

    rabi_error: _RabiError = 0.0
    detuning_error: _DetuningError = 0.0

    def __post_init__(self) -> None:
        if self.state_prep_error == 1 or self.p_false_pos + self.p_false_neg >= 1:
            raise ValueError("with such errors of preparation and detection no result says anything: lower them")


class DriftSection(_Figures, frozen=True, kw_only=True):
    """The standard deviation of each, a day after a calibration."""

    rabi_error: _Probability = 0.0
    detuning_error: _Amount = 0.0


class CalibrationSection(Section, frozen=True, kw_only=True):
    """A window that comes back: by the clock (`every`), after so many shots, or when the quality is below a threshold."""

    duration: Duration
    every: Duration | None = None
    after_shots: _Number | None = None
    below_quality: Annotated[float, msgspec.Meta(gt=0, lt=1)] | None = None
    at_least: Duration | None = None
    """With below_quality: so long after a calibration no other one is asked for early; by default an hour, or `duration`."""
    offset: Duration = Duration(0)
    kind: Literal["calibrating", "maintenance"] = "calibrating"
    reason: str = ""
    make_up: bool = False
    """Whether one that was missed, because Warden was down, is held as soon as the QPU is free."""

    def __post_init__(self) -> None:
        if sum(by is not None for by in (self.every, self.after_shots, self.below_quality)) != 1:
            raise ValueError(
                "a calibration comes back by the clock (every), after_shots or with below_quality: say one of them"
            )
        if self.every is None and (self.offset or self.make_up or self.kind != "calibrating"):
            raise ValueError(
                "a calibration by after_shots or below_quality has neither offset nor make_up nor another kind"
            )
        if self.at_least is not None and self.below_quality is None:
            raise ValueError("at_least belongs to below_quality: it is the time between two early calibrations")
        if self.at_least is not None and self.at_least < self.duration:
            raise ValueError(
                "at_least must be as long as duration, or longer: a quality that no calibration restores would leave the "
                "QPU no time for tasks"
            )

    def rule(self, timing: Timing) -> Rule | ShotRule | QualityRule:
        reason = self.reason or self.kind
        duration = timing.scaled(int(self.duration))
        if self.below_quality is not None:
            return QualityRule(
                below=self.below_quality,
                duration=duration,
                at_least=timing.scaled(int(max(_AT_LEAST, self.duration) if self.at_least is None else self.at_least)),
                reason=self.reason or f"quality below {self.below_quality:g}",
            )
        if self.every is None:
            return ShotRule(after_shots=self.after_shots or 0, duration=duration, reason=reason)
        return Rule(
            every=timing.scaled(int(self.every)),
            duration=duration,
            offset=timing.scaled(int(self.offset)),
            kind=State(self.kind),
            reason=reason,
            make_up=self.make_up,
        )
