"""Which device the QPU is: the one that is shipped, one of Pulser's, or one of a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from warden.model import ConfigurationError

_SHIPPED = Path(__file__).with_name("devices")


class _Device(msgspec.Struct):
    """As far as `orders.WorkerHello` can tell it to the broker."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
    max_atom_num: Annotated[int, msgspec.Meta(ge=1, le=100_000)] | None = None


def read(device: str) -> str:
    """What `qpu.device` means: the JSON of a device's specs, or the name of one that Pulser has.

    Raises:
        ConfigurationError: The file is missing or cannot be one of a device.
    """
    file = Path(device) if device.startswith("/") else _SHIPPED / f"{device}.json"
    # A name is no path: it may not leave the folder, and what is not shipped may be Pulser's.
    if not device.startswith("/") and not (device.isidentifier() and file.exists()):
        return device
    try:
        # By its brace JSON is told from a name, and people's editors put lines before it.
        text = file.read_text(encoding="utf-8-sig").strip()
    except OSError as error:
        raise ConfigurationError(f"cannot read the device {file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"the device {file} is no JSON: it is no text") from None
    try:
        msgspec.json.decode(text, type=_Device)
    except msgspec.ValidationError as error:
        raise ConfigurationError(
            f"the device {file} is JSON, but no device ({error}): write it with Device.to_abstract_repr()"
        ) from None
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigurationError(f"the device {file} is no JSON: {error}") from None
    return text


def name_and_qubits(device: str) -> tuple[str, int | None]:
    """Of what `read` says: the device's name, and how many atoms it takes, if that is known."""
    if not device.startswith("{"):
        return device, None
    found = msgspec.json.decode(device, type=_Device)
    return found.name, found.max_atom_num
