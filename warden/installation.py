"""Units for systemd, and what goes with them (sysusers.d, tmpfiles.d, logrotate), made for the paths of this installation.

Each file carries in its first line the checksum of the rest: one that somebody has changed by hand is left alone, and
no record is needed to know. Changes belong into drop-ins (`systemctl edit`), which stay through updates.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from warden.model import ConfigurationError, ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from warden.config import Config

USER = "warden"
PARTS = {
    "broker": ("warden.service", "warden.logrotate"),
    "worker": ("warden-worker.service",),
    "edge": ("warden-edge.service", "warden-edge.socket", "warden.logrotate"),
    "reserve": ("qpu-reserve.service",),
}
_ALWAYS = ("warden.sysusers", "warden.tmpfiles")
_TEMPLATES = Path(__file__).with_name("systemd")
_PLACES = {
    ".service": "etc/systemd/system/{0.name}",
    ".socket": "etc/systemd/system/{0.name}",
    ".sysusers": "etc/sysusers.d/{0.stem}.conf",
    ".tmpfiles": "etc/tmpfiles.d/{0.stem}.conf",
    ".logrotate": "etc/logrotate.d/{0.stem}",
}
_CELL = ("SGE_ROOT", "SGE_CELL", "SGE_CLUSTER_NAME", "SGE_QMASTER_PORT", "SGE_EXECD_PORT")
# Words that need no quotes in any of these files, and have no meaning of systemd's.
_PLAIN = re.compile(r"[\w./+@:-]*", re.ASCII)
# What ProtectHome= and PrivateTmp= hide.
_HIDDEN = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108
# Folders that systemd makes for a unit, and gives to its user.
_OWN = {
    "/var/lib": ("StateDirectory", "0700"),
    "/run": ("RuntimeDirectory", "0755"),
    "/var/log": ("LogsDirectory", "0750"),
}
_HEAD = "# Written by `warden install-units`; changed by hand it is left alone (sha256 {})\n"
_WRITTEN = re.compile(re.escape(_HEAD).replace(r"\{\}", "([0-9a-f]{64})"))


class File(msgspec.Struct, frozen=True):
    """One file: where it belongs, and what it says."""

    path: Path
    text: str


def programs() -> Path:
    """Where the commands of this installation are."""
    return Path(sys.executable).parent


def files(
    config: Config, file: Path, parts: Iterable[str], *, programs: Path, cell: Mapping[str, str], user: str = USER
) -> list[File]:
    """What these parts need on this host; `cell`: an environment that says which cell of Grid Engine.

    Raises:
        ConfigurationError: Something that cannot stand in a unit.
    """
    audit = config.log.audit
    sockets = {
        Path(address.removeprefix("ipc://")).parent
        for address in (*config.broker.clients, *config.broker.workers, *config.edge_doors)
        if address.startswith("ipc:///")
    }
    values = {
        "USER": user,
        "BIN": _visible(programs),
        "CONFIG": _visible(file),
        "KEYS": _visible(config.broker.keys),
        "STATE": _visible(config.broker.state),
        "STATE_FOLDER": _writable([config.broker.state]),
        "SOCKET_FOLDERS": _writable(sorted(sockets)),
        "AUDIT": str(audit),
        "AUDIT_FOLDER": "" if audit is None else _writable([audit.parent]),
        "LISTEN": _address(config),
        "CELL": "\n".join(f"Environment={name}={_plain(cell[name])}" for name in _CELL if cell.get(name)),
    }
    names = dict.fromkeys((*_ALWAYS, *(name for part in parts for name in PARTS[part])))
    needless = {"warden.logrotate"} if audit is None else set()
    return [File(_place(name), _rendered(name, values)) for name in names if name not in needless]


def install(wanted: Sequence[File], root: Path) -> Iterator[Path]:
    """Write what is not there as it should be, below `root`; all of it, or, where something stands in the way, nothing.

    Raises:
        ConflictError: A file was changed by hand, or is somebody else's.
        ConfigurationError: It cannot be written.
    """
    found = {one: _read(root / one.path) for one in wanted}
    _refuse(root / one.path for one, text in found.items() if text is not None and not _is_ours(text))
    for one, text in found.items():
        if text != one.text:
            _write(root / one.path, one.text)
            yield root / one.path


def remove(root: Path) -> Iterator[Path]:
    """Take away all that `install` may have written below `root`, and nothing else.

    Raises:
        ConflictError: A file was changed by hand, or is somebody else's; none is removed then.
        ConfigurationError: It cannot be removed.
    """
    names = dict.fromkeys((*(name for names in PARTS.values() for name in names), *_ALWAYS))
    places = [root / _place(name) for name in names]
    found = {place: text for place in places if (text := _read(place)) is not None}
    _refuse(place for place, text in found.items() if not _is_ours(text))
    for place in found:
        try:
            place.unlink()
        except OSError as error:
            raise ConfigurationError(f"cannot remove {place}: {error.strerror}") from None
        yield place


def _rendered(name: str, values: Mapping[str, str]) -> str:
    lines = []
    for line in (_TEMPLATES / name).read_text(encoding="utf-8").splitlines():
        said = re.sub("@([A-Z_]+)@", lambda found: values[found[1]], line)
        # A line for which this host has nothing to say is none.
        if said or not line:
            lines.append(said)
    text = "\n".join(lines) + "\n"
    return _HEAD.format(_checksum(text)) + text


def _place(name: str) -> Path:
    path = Path(name)
    return Path(_PLACES[path.suffix].format(path))


def _plain(text: str) -> str:
    if not _PLAIN.fullmatch(text):
        raise ConfigurationError(
            f"{text!r} cannot stand in a unit of systemd: use a path of letters, digits and ._+@:-"
        )
    return text


def _visible(path: Path) -> str:
    for place in _HIDDEN:
        if path.is_relative_to(place):
            raise ConfigurationError(f"Warden's units do not see {place}: {path} has to be elsewhere, as under /opt")
    return _plain(str(path))


def _writable(folders: Sequence[Path]) -> str:
    """The lines by which a unit may write there, where all else is read-only."""
    lines = []
    for folder in folders:
        _visible(folder)
        home = next((parent for parent in _OWN if folder.is_relative_to(parent) and folder != Path(parent)), None)
        if home is None:
            # Where it is missing, the program says so, and not systemd.
            lines.append(f"ReadWritePaths=-{folder}")
        else:
            kind, mode = _OWN[home]
            lines += [f"{kind}={folder.relative_to(home)}", f"{kind}Mode={mode}"]
    return "\n".join(lines)


def _address(config: Config) -> str:
    if not config.http.listen:
        return ""
    try:
        ipaddress.ip_address(config.http.address[0])
    except ValueError:
        raise ConfigurationError(
            f"http.listen: {config.http.listen} names a host, and a socket of systemd's needs its address"
        ) from None
    return config.http.listen


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_ours(text: str) -> bool:
    """Whether it is as some `install-units` wrote it, of this or another version."""
    head, _, rest = text.partition("\n")
    written = _WRITTEN.fullmatch(head + "\n")
    return written is not None and written[1] == _checksum(rest)


def _refuse(places: Iterable[Path]) -> None:
    changed = ", ".join(map(str, places))
    if changed:
        raise ConflictError(
            f"changed by hand, or not ours, and left alone: {changed} (move it away; changes belong into `systemctl edit`)"
        )


def _read(path: Path) -> str | None:
    """What stands there: nothing of a link or of what is no text, which are not ours, and None where there is no file."""
    try:
        return "" if path.is_symlink() else path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError:
        return ""
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error.strerror}") from None


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, prefix=".", delete=False) as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        Path(file.name).replace(path)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from None
