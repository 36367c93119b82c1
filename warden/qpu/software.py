"""What the device says of itself with each result: its name, its emulator, and the versions of what is at work."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from warden.orders import Fact

# The packages that decide what comes out of an emulator.
_PACKAGES = {
    "qutip": ("pulser-core", "pulser-simulation", "qutip"),
    "emu-sv": ("pulser-core", "emu-sv", "torch"),
    "emu-mps": ("pulser-core", "emu-mps", "torch"),
}


def facts(device: str, emulator: str, *, noise: bool) -> dict[str, Fact]:
    """`noise`: whether the device is other than ideal."""
    packages = ("gridengine-qpu", *_PACKAGES.get(emulator, ()))
    versions = ((package, _version(package)) for package in packages)
    software = tuple(f"{package} {version}" for package, version in versions if version)
    return {"device": device, "emulator": emulator, "software": software, "noise": noise}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""
