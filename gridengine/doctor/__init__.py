"""`qpu-admin doctor`: what is wrong on this host and in the whole cluster, and what to do about it."""

from __future__ import annotations

import os
import subprocess
from functools import partial
from typing import TYPE_CHECKING

from gridengine import configuration
from gridengine import site as sites
from gridengine.doctor import cluster, host
from gridengine.doctor.finding import Finding, Verdict, by_weight, text
from warden import config
from warden.model import WardenError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Finding", "Verdict", "by_weight", "examine", "text"]


def examine(path: Path, *, here_only: bool = False) -> Iterator[Finding]:
    """Look at everything, on this host and from here, as the configuration in `path` has it."""
    if os.geteuid():
        yield Finding(Verdict.WARNING, "you", "not root, who alone sees all of this", "run it as root")
    yield from attempt("configuration", lambda: host.trusted("configuration", path))
    try:
        own, section = config.load(path), configuration.load(path)
        site = sites.load(path)
    except WardenError as error:
        yield Finding(Verdict.BAD, "configuration", error.text, "mend the file: nothing works without it")
        return
    checks = host.checks(path, own, section)
    checks += [("broker", partial(host.broker, offer.warden)) for offer in site.offers]
    if not here_only:
        checks += cluster.checks(site)
    for what, check in checks:
        yield from attempt(what, check)


def attempt(what: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check that cannot look says why, and that is a finding, too."""
    try:
        yield from check()
    except WardenError as error:
        yield Finding(Verdict.BAD, what, error.text)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Finding(Verdict.BAD, what, f"cannot look: {error}")
