"""`--check`: whether a hook can do on this host what Grid Engine will start it for.

It looks, and changes nothing. A status other than 0 and 99 would hurt if Grid Engine ever started a hook so.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Never

from gridengine.hooks import guard

if TYPE_CHECKING:
    from collections.abc import Iterator


def check(name: str, config: Path | None = None) -> Never:
    """Print `ok`, or say on stderr what is missing, and end the process. `config`: what this hook reads, if it does."""
    try:
        wrong = next(_faults(config), "")
    except Exception as error:  # noqa: BLE001 - what cannot be looked at is what is wrong
        wrong = guard.explain(error)
    print(f"{name}: {wrong}" if wrong else "ok", file=sys.stderr if wrong else sys.stdout)
    sys.exit(guard.AGAIN if wrong else guard.GO_ON)


def _faults(config: Path | None) -> Iterator[str]:
    """The kit can be imported, the configuration read, and root alone may write either."""
    import gridengine  # noqa: PLC0415 - no job pays for these
    import warden.client  # noqa: PLC0415
    from gridengine import rights, site  # noqa: PLC0415

    believed = [Path(sys.executable), *(Path(package.__file__) for package in (gridengine, warden) if package.__file__)]
    if config is not None:
        believed += dict.fromkeys([config, *(offer.config for offer in site.load(config).offers)])
    for path in believed:
        fault = rights.on_the_way(path)
        if fault is not None:
            yield f"{fault.seen}: {fault.fix}"
