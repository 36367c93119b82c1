"""`qpu-epilog`: when a job has ended, however it ended, give its session back.

Runs as root on the execution host. It always exits 0: a failing epilog makes Grid Engine run the finished job again.
What it cannot release, the lease ends.
"""

from __future__ import annotations

import os
import sys
import time

from gridengine.hooks import guard
from gridengine.hooks.job import HookJob
from gridengine.hooks.prolog import CONFIG, MARK
from warden.model import SECOND, UnavailableError

_PAUSE = 1.0


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        guard.check()
    os.umask(0o077)

    def hook(running: guard.Guard) -> None:
        job = HookJob.read(sys.argv[1:], os.environ)
        # A user may set the mark too, and gains a question to Warden by it.
        if job.exported(MARK):
            release(job, running)

    guard.Guard("qpu-epilog", on_expiry=guard.GO_ON).run(hook, report=lambda _: None)


def release(job: HookJob, running: guard.Guard) -> None:
    """End the session of this start of the job; the token in its environment is not asked: the job may have changed it.

    A job that Grid Engine has given up here may run elsewhere by now, and what that start has is not ours to end.
    """
    from gridengine import configuration  # noqa: PLC0415 - most jobs never need it
    from warden import config  # noqa: PLC0415
    from warden.client import Client  # noqa: PLC0415

    settings, section = config.load(CONFIG), configuration.load(CONFIG)
    running.limit(section.hook_limit / SECOND)
    end = time.monotonic() + section.prolog_wait / SECOND
    with Client(config=settings, timeout=max(1.0, min(5.0, section.prolog_wait / SECOND))) as client:
        while True:
            try:
                for session in client.sessions(everybody=True, job=job.name):
                    if session.uid == job.uid and session.start in {"", job.start}:
                        client.release(session.id)
            except UnavailableError:
                if time.monotonic() + _PAUSE > end:
                    raise
                time.sleep(_PAUSE)
            else:
                return


if __name__ == "__main__":
    main()
