"""The version of the kit: pyproject.toml says it, whoever installed the kit wrote it down, and it is read from there."""

from __future__ import annotations

import functools
import importlib.metadata

PACKAGE = "gridengine-qpu"


@functools.cache
def version() -> str:
    """As it is installed; nothing where the kit runs without having been installed."""
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        return ""
