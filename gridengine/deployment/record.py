"""The record of what was there before: one JSON file for each cell, written by root alone."""

from __future__ import annotations

import datetime as dt
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from gridengine.deployment.state import Change, Entry, Item, Kind, Originals, State
from warden.model import ConfigurationError
from warden.version import version

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FORMAT = 1
_KEPT = 100


class Original(msgspec.Struct, frozen=True):
    """An item with what it was before us, and what we made of it."""

    item: Item
    before: str | None
    after: str | None


class Event(msgspec.Struct, frozen=True):
    """What one command changed."""

    time: str
    version: str
    command: str
    changes: tuple[Change, ...]


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    format: int = _FORMAT
    cell: str = ""
    originals: tuple[Original, ...] = ()
    history: tuple[Event, ...] = ()

    @property
    def entries(self) -> Originals:
        return {each.item: Entry(each.before, each.after) for each in self.originals}


def path(folder: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """The file of this cell."""
    cell = f"{environment.get('SGE_ROOT', '')}/{environment.get('SGE_CELL', 'default')}"
    return folder / (re.sub(r"[^\w.-]+", "_", cell).strip("_.") + ".json")


def load(file: Path) -> Record:
    """Read the record; an empty one if there is none, or if it is not for us to read.

    Raises:
        ConfigurationError: It is there and is no record.
    """
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Record)
    except (FileNotFoundError, PermissionError, NotADirectoryError):
        return Record()
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"the record {file} cannot be read ({error}): move it away; most of it can be done without"
        ) from None
    if found.format != _FORMAT:
        raise ConfigurationError(f"the record {file} is of another version of the kit: use that one")
    return found


def after(record: Record, command: str, changes: Sequence[Change], bare: State, wanted: State) -> Record:
    """The record as it is when these changes are made. Pure, but for the clock and our version."""
    originals = tuple(
        Original(item, bare.get(item), wanted.get(item))
        for item in dict.fromkeys([*bare, *wanted])
        if wanted != bare and (bare.get(item) != wanted.get(item) or not _is_of_queue(item))
    )
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    event = Event(now, version(), command, tuple(changes))
    cell = f"{os.environ.get('SGE_ROOT', '')}/{os.environ.get('SGE_CELL', 'default')}"
    return Record(cell=cell, originals=originals, history=(*record.history, event)[-_KEPT:])


def save(file: Path, record: Record) -> None:
    """Write it, whole or not at all.

    Raises:
        ConfigurationError: It cannot be written, so nothing may be changed.
    """
    data: Any = msgspec.json.format(msgspec.json.encode(record), indent=1)
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".record-", delete=False) as new:
            new.write(data)
            new.flush()
            os.fsync(new.fileno())
        Path(new.name).replace(file)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write the record of what was there before, {file}: {error.strerror}; run this as root, or set "
            "gridengine.record"
        ) from None


def _is_of_queue(item: Item) -> bool:
    return item.kind in {Kind.OFFER, Kind.PE_LIST, Kind.THRESHOLD, Kind.HOOK}
