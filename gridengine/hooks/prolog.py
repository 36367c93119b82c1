"""`qpu-prolog`: before a job that asked for `qpu` starts, acquire its session and put it into its environment.

Runs as root on the execution host, for every job of the queues that offer the QPU; jobs that did not ask for it cost
one question to the qmaster and never touch Warden. A load value is always a little old, so this is the last gate.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gridengine.hooks import guard
from gridengine.hooks.job import HookJob, asks_for
from warden.model import SECOND, BusyError, Session, UnavailableError

if TYPE_CHECKING:
    from gridengine.configuration import GridEngineSection
    from warden.config import Config

# Not from the environment, which is the job's.
CONFIG = Path("/etc/warden/warden.toml")
RESOURCE = "qpu"
MARK = "WARDEN_ENDPOINT"

_QSTAT_LIMIT = 15.0
_PAUSE = 0.5


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        guard.check()
    os.umask(0o077)
    job: HookJob | None = None

    def hook(running: guard.Guard) -> None:
        nonlocal job
        job = HookJob.read(sys.argv[1:], os.environ)
        found = job.look_up(limit=_QSTAT_LIMIT)
        if asks_for(RESOURCE, found.requests):
            grant(job, found.project, running)

    def report(reason: str) -> None:
        if job is not None:
            job.explain(reason)

    guard.Guard("qpu-prolog", on_expiry=guard.AGAIN).run(hook, report=report)


def grant(job: HookJob, project: str, running: guard.Guard) -> None:
    """Acquire the session and tell the job of it."""
    from gridengine import configuration  # noqa: PLC0415 - most jobs never need it
    from warden import config  # noqa: PLC0415

    settings, section = config.load(CONFIG), configuration.load(CONFIG)
    running.limit(section.hook_limit / SECOND)
    # First of all, so that the epilog knows that there may be something to release, whatever happens from here on.
    job.export({MARK: settings.client_endpoint})
    session = acquire(job, project, settings, section)
    job.export(environment(settings, session))


def acquire(job: HookJob, project: str, settings: Config, section: GridEngineSection) -> Session:
    """Wait a bounded time for a place on the QPU.

    Raises:
        BusyError, UnavailableError: There was none; the job goes back to the queue.
        ForbiddenError: The owner may not use this QPU.
    """
    from warden.client import Client  # noqa: PLC0415

    end = time.monotonic() + section.prolog_wait / SECOND
    with Client(config=settings, timeout=max(1.0, min(5.0, section.prolog_wait / SECOND))) as client:
        while True:
            try:
                return client.acquire(
                    job=job.name, uid=job.uid, host=job.host, start=job.start, queue=job.queue, project=project
                )
            except (BusyError, UnavailableError):
                # Waiting here, and not only in the queue, also bounds how often a job can bounce.
                if time.monotonic() + _PAUSE > end:
                    raise
                time.sleep(_PAUSE)


def environment(settings: Config, session: Session) -> dict[str, str]:
    """What a job finds: QRMI's variables, and ours. Nothing in it is a secret."""
    name, url = settings.qpu.name, settings.http.reachable
    return {
        "QRMI_JOB_QPU_RESOURCES": name,
        "QRMI_JOB_QPU_TYPES": "pasqal-local",
        "QRMI_JOB_UID": str(session.uid),
        "QRMI_JOB_ID": session.job,
        f"{name}_QRMI_JOB_ACQUISITION_TOKEN": session.id,
        **({f"{name}_QRMI_WARDEN_URL": url} if url else {}),
        "WARDEN_SESSION": session.id,
    }


if __name__ == "__main__":
    main()
