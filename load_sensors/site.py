"""What the sensor needs of the configuration: which QPUs there are, and what of them this host has to say."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import Annotated

import msgspec

from warden import config as configuration
from warden.config import load_section
from warden.model import SECOND, Micros, learn, short_host
from warden.sections import Duration

_HOOKS = ("qpu-prolog", "qpu-epilog", "qpu-chain")


class _Entry(msgspec.Struct, frozen=True):
    """Of `[[gridengine.qpu]]`."""

    config: Path | None = None


class _Section(msgspec.Struct, frozen=True):
    """Of `[gridengine]`, whose other keys are the hooks' and qpu-admin's business."""

    qpu: Annotated[tuple[_Entry, ...], msgspec.Meta(max_length=1000)] = ()
    sensor_hosts: tuple[str, ...] = ("global",)
    prolog_wait: Duration = Duration(10 * SECOND)
    bin: Path = Path(sys.executable).parent


learn(_Section)


class Qpu(msgspec.Struct, frozen=True, kw_only=True):
    """A QPU by its name, the file that says where its Warden is, and that one's public key."""

    name: str
    config: Path
    key: Path


class Site(msgspec.Struct, frozen=True, kw_only=True):
    """The QPUs, how long a prolog waits, and whether this host may be the one that reports."""

    qpus: tuple[Qpu, ...]
    wait: Micros
    candidate: bool
    bin: Path


def load(path: Path, host: str) -> Site:
    """Read the file, and those that it names.

    Raises:
        ConfigurationError: One of them cannot be read, or says what it cannot say.
    """
    section = load_section(path, "gridengine", _Section)
    files = [entry.config or path for entry in section.qpu] or [path]
    return Site(
        qpus=tuple(_qpu(file) for file in files),
        wait=section.prolog_wait,
        candidate=any(one == "global" or short_host(one) == short_host(host) for one in section.sensor_hosts),
        bin=section.bin,
    )


def _qpu(file: Path) -> Qpu:
    config = configuration.load(file)
    return Qpu(name=config.qpu.name, config=file, key=config.broker_key)


def trouble(folder: Path, key: Path) -> tuple[str, ...]:
    """What keeps this host from running jobs with a QPU, as far as it can be seen at a glance; a line each."""
    found = [f"{hook} is not executable" for hook in (folder / name for name in _HOOKS) if not os.access(hook, os.X_OK)]
    try:
        if not key.stat().st_mode & stat.S_IROTH:
            found.append(f"{key} is not readable by everybody")
    except OSError as error:
        found.append(f"{key}: {error.strerror}")
    return tuple(line[:500] for line in found)
