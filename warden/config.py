"""The configuration: one TOML file, checked as a whole before anything starts. Unknown keys are errors.

Durations are numbers of seconds or texts such as "90s", "3min", "1h30min", "2d"; inside they are microseconds.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_origin

import msgspec

from warden import bitstrings
from warden.calibration import Calendar, QualityRule, Rule, ShotRule
from warden.model import SECOND, ConfigurationError, Micros, learn
from warden.qpu.drift import Drift
from warden.sections import (
    LARGEST_RESULT,
    AccessSection,
    BrokerSection,
    Bytes,
    CalibrationSection,
    ClassSection,
    ClientSection,
    DriftSection,
    Duration,
    HttpSection,
    LimitSection,
    LogSection,
    NoiseSection,
    PolicySection,
    QpuSection,
    Section,
    SessionSection,
)
from warden.wire import LARGEST_BITSTRINGS

if TYPE_CHECKING:
    from warden.qpu.timing import Timing

DEFAULT_PATH = Path("/etc/warden/warden.toml")
_EDGES = "ipc:///run/warden/edges.sock"
# Sections that belong to somebody else; they check them with `load_section`.
_FOREIGN = frozenset({"gridengine"})

_UNITS = {"us": 1, "ms": 1_000, "s": SECOND, "min": 60 * SECOND, "h": 3600 * SECOND, "d": 86400 * SECOND}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|min|h|d)")
_POWERS = ["", "K", "M", "G", "T"]
_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?(?:([KMGT])(?:i?B)?)?")
_LARGEST = 2**60
# Longer than any operator means; sums of such durations are still dates that a calendar can show.
_LONGEST = 10**10 * SECOND
# Of each bitstring its length and its count, as msgpack writes them.
_COUNTED = 3 + 5
# Of bytes, as msgpack writes how many there are.
_HEADER = 5


class Config(Section, frozen=True, kw_only=True):
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
    http: HttpSection = HttpSection()
    access: AccessSection = AccessSection()
    log: LogSection = LogSection()
    calibration: tuple[CalibrationSection, ...] = ()
    noise: NoiseSection = NoiseSection()
    drift: DriftSection = DriftSection()

    @property
    def client_endpoint(self) -> str:
        return self.client.endpoint or _reachable(self.broker.clients[0])

    @property
    def worker_endpoint(self) -> str:
        return _reachable(self.broker.workers[0])

    @property
    def edge_doors(self) -> tuple[str, ...]:
        """Where the broker listens for edges."""
        return self.broker.edges or ((_EDGES,) if self.http.listen else ())

    @property
    def edge_endpoint(self) -> str:
        """Where an edge finds the broker."""
        return self.http.endpoint or _reachable((*self.edge_doors, _EDGES)[0])

    @property
    def broker_key(self) -> Path:
        """The file with the broker's public key."""
        return self.client.broker_key or self.broker.keys / "broker.key"

    @property
    def timing(self) -> Timing:
        return self.qpu.timing

    @property
    def drifting(self) -> Drift:
        """How the QPU's noise is, and wanders."""
        return Drift(
            base=self.noise.noise,
            per_day=self.drift.noise,
            seed=self.qpu.seed,
            time_scale=self.qpu.time_scale,
        )

    @property
    def largest_result(self) -> int:
        """Bytes that the result of a task may have on the wire: its counts, and its shots in their order.

        Each shot is another bitstring, as far as there are some.
        """
        different = min(self.limits.shots, 1 << min(self.qpu.qubits, 32))
        in_order = min(LARGEST_BITSTRINGS, bitstrings.size(self.limits.shots, self.qpu.qubits)) + _HEADER
        return different * (self.qpu.qubits + _COUNTED) + in_order

    @property
    def calendar(self) -> Calendar:
        rules = [section.rule(self.timing) for section in self.calibration]
        return Calendar(
            tuple(rule for rule in rules if isinstance(rule, Rule)),
            shot_rules=tuple(rule for rule in rules if isinstance(rule, ShotRule)),
            quality_rules=tuple(rule for rule in rules if isinstance(rule, QualityRule)),
        )

    def __post_init__(self) -> None:
        if self.access.identity == "kernel" and not all(a.startswith("ipc://") for a in self.broker.clients):
            raise ValueError(
                "access.identity: the kernel knows only who is at an ipc:// address: broker.clients has others"
            )
        if self.access.identity == "kernel" and self.http.listen:
            raise ValueError("http.listen: QRMI's clients prove who they are with MUNGE, so access.identity is 'munge'")
        names = [section.name for section in self.classes]
        if len(set(names)) < len(names):
            raise ValueError("two classes have the same name")
        if sum(section.after_shots is not None for section in self.calibration) > 1:
            raise ValueError("two calibrations say after_shots: any calibration begins the count anew, so say it once")
        if sum(section.below_quality is not None for section in self.calibration) > 1:
            raise ValueError("two calibrations say below_quality: the higher one is enough, so say it once")
        if self.largest_result > LARGEST_RESULT:
            raise ValueError(
                f"the result of a task may come to {self.largest_result} bytes, and {LARGEST_RESULT} can be handed in: "
                "lower limits.shots or qpu.qubits"
            )
        if self.timing.pace(self.qpu.qubits).estimate(self.limits.shots) >= _LONGEST:
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


def size(value: Any) -> int:
    """Read a size: a number of bytes, or one with a unit: "512M", "8 GiB"; units are powers of 1024.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _LARGEST:
        return value
    if isinstance(value, str):
        found = _SIZE.fullmatch(value)
        number: float = float(found[1]) * 1024 ** _POWERS.index(found[2] or "") if found else _LARGEST
        if number < _LARGEST:
            return round(number)
    raise ValueError(f"{value!r} is no size: write bytes, or '512M', '8G'")


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
        raise ConfigurationError(f"{path}: {_tidy(str(error), prefix, kind)}") from None


def _decode(kind: type, value: Any) -> Any:
    if kind is Duration:
        return Duration(duration(value))
    if kind is Bytes:
        return Bytes(size(value))
    if kind is Path:
        if not isinstance(value, str) or not value.startswith("/"):
            raise ValueError(f"{value!r} is no absolute path")
        return Path(value)
    raise NotImplementedError(kind)


def _tidy(text: str, prefix: str, kind: type) -> str:
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
    choice = re.fullmatch(r"Invalid enum value ('.*')", what)
    if choice:
        what = f"{choice[1]} is none of {', '.join(_choices(kind, place.removeprefix(prefix)))}"
    # A section, and not a key of one.
    if "." not in place:
        what = what.replace("Expected `array`, got `object`", f"there may be several: write [[{place}]]")
        what = what.replace("Expected `object`, got `array`", f"there is one: write [{place}]")
    return f"{place}: {what}" if place else what


def _choices(kind: Any, place: str) -> tuple[str, ...]:
    """The words that may stand at a place such as "qpu.emulator" or "calibration[0].kind"."""
    for name in re.sub(r"\[.*?\]", "", place).split("."):
        fields = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}
        kind = fields[name]
        while get_origin(kind) in {tuple, Annotated}:
            kind = get_args(kind)[0]
    return get_args(kind)
