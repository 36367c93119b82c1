"""`qpu-epilog`: when a job has ended, however it ended, give its session back, and tell OCS what it used.

Runs as root on the execution host. It always exits 0: a failing epilog makes Grid Engine run the finished job again.
What it cannot release, the lease ends.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from gridengine.hooks import guard, shepherd
from gridengine.hooks.job import HookJob
from gridengine.hooks.prolog import CONFIG, MARK, on_ocs
from warden.model import SECOND, UnavailableError, WardenError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gridengine.commands import Version
    from gridengine.site import Site
    from warden.config import Config
    from warden.model import Session

_PAUSE = 1.0


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        from gridengine.hooks import check  # noqa: PLC0415 - no job comes here

        check.check("qpu-epilog", CONFIG)
    os.umask(0o077)

    def hook(running: guard.Guard) -> None:
        job = HookJob.read(sys.argv[1:], shepherd.with_its_ports(os.environ))
        # A user may set the mark too, and gains a question to Warden by it.
        mark = job.exported(MARK)
        if mark is not None:
            finish(job, mark, running)

    guard.Guard("qpu-epilog", on_expiry=guard.GO_ON).run(hook, report=lambda _: None)


def finish(job: HookJob, mark: str, running: guard.Guard) -> None:
    """End the sessions of this start of the job, and write down what they used."""
    from gridengine import site  # noqa: PLC0415 - most jobs never need it

    cluster = site.load(CONFIG)
    running.limit(cluster.settings.hook_limit / SECOND)
    end = time.monotonic() + cluster.settings.prolog_wait / SECOND
    ended: list[tuple[Session, bool]] = []
    failed: WardenError | None = None
    for warden in asked(cluster, mark):
        try:
            ended += release(job, warden, end)
        except WardenError as error:
            failed = error
    if cluster.settings.usage and (version := on_ocs(job)) is not None:
        job.account(readable(usage(ended, unreachable=failed is not None), version))
    if failed is not None:
        raise failed


def asked(cluster: Site, mark: str) -> list[Config]:
    """Pure: whom to ask for the job's session. The prolog has noted it; whoever was noted by the job itself is nobody."""
    wardens = [offer.warden for offer in cluster.offers]
    return [warden for warden in wardens if warden.client_endpoint == mark] or wardens


def release(job: HookJob, settings: Config, end: float) -> list[tuple[Session, bool]]:
    """End the session of this start of the job; the token in its environment is not asked: the job may have changed it.

    A job that Grid Engine has given up here may run elsewhere by now, and what that start has is not ours to end.
    Returns the sessions, and of each whether it was us who ended it, not the job itself, an operator or its lease.
    """
    from warden.client import Client  # noqa: PLC0415

    with Client(config=settings, timeout=max(1.0, min(5.0, end - time.monotonic()))) as client:
        while True:
            try:
                found = client.sessions(everybody=True, ended=True, job=job.name)
                mine = [session for session in found if session.uid == job.uid]
                over = [
                    (session, False) for session in mine if session.ended is not None and session.start == job.start
                ]
                here = [session for session in mine if session.ended is None and session.start in {"", job.start}]
                return over + [(client.release(session.id), True) for session in here]
            except UnavailableError:
                if time.monotonic() + _PAUSE > end:
                    raise
                time.sleep(_PAUSE)


def usage(ended: Sequence[tuple[Session, bool]], *, unreachable: bool) -> dict[str, str]:
    """Pure: what OCS is to write into its own account (`usage_patterns`); numbers that it can read, and never none."""
    if unreachable:
        # What is not known is left out: 0 would be a lie.
        return {"qrmi_release_status": "unreachable"}
    sessions = [session for session, _ in ended]
    return {
        "qrmi_tasks": str(sum(session.tasks for session in sessions)),
        "qrmi_shots": str(sum(session.shots for session in sessions)),
        "qrmi_qpu_seconds": f"{sum(session.qpu_time for session in sessions) / SECOND:.6f}",
        "qrmi_wait_seconds": f"{sum(session.wait_time for session in sessions) / SECOND:.6f}",
        "qrmi_release_status": "released" if any(ours for _, ours in ended) else "already_ended",
    }


def readable(told: dict[str, str], version: Version) -> dict[str, str]:
    """Pure: as this version of OCS can read it. Before 9.2 that is numbers: of a word it makes 0, and execd complains."""
    return told if version.since(9, 2) else {name: value for name, value in told.items() if value[0].isdigit()}


if __name__ == "__main__":
    main()
