"""`qpu-prolog`: before a job that asked for `qpu` starts, acquire its session and put it into its environment.

Runs as root on the execution host, for every job of the queues that offer the QPU; jobs that did not ask for it cost
one question to the qmaster and never touch Warden. A load value is always a little old, so this is the last gate.
"""

from __future__ import annotations

import contextlib
import math
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gridengine.hooks import guard, shepherd
from gridengine.hooks.job import HookError, HookJob, amount, asks_for
from warden.model import SECOND, BadRequestError, BusyError, ConfigurationError, UnavailableError, WardenError

if TYPE_CHECKING:
    from gridengine.commands import Version
    from gridengine.configuration import GridEngineSection
    from gridengine.qstat_xml import Job
    from gridengine.site import Offer, Site
    from warden.client import Client
    from warden.config import Config
    from warden.model import Availability, Session

# Not from the environment, which is the job's.
CONFIG = Path("/etc/warden/warden.toml")
RESOURCE, WINDOW, QUBITS = "qpu", "qpu_window", "qpu_qubits"
MARK = "WARDEN_ENDPOINT"
# OCS says what a job was granted; whoever asked for it himself has Grid Engine's own word there, not one of his.
GRANTED = "SGE_HGR_"

_QSTAT_LIMIT = 15.0
_PAUSE = 0.5
# Between two attempts of a prolog that has to wait here.
_PAUSE_HERE = 5.0


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        from gridengine.hooks import check  # noqa: PLC0415 - no job comes here

        check.check("qpu-prolog", CONFIG)
    os.umask(0o077)
    job: HookJob | None = None

    def hook(running: guard.Guard) -> None:
        nonlocal job
        try:
            job = HookJob.read(sys.argv[1:], shepherd.with_its_ports(os.environ))
        except HookError:
            # Nothing can be said to Grid Engine about a job that nobody knows, and it shall not spin.
            time.sleep(_PAUSE_HERE)
            raise
        try:
            serve(job, running)
        except BaseException as error:
            if guard.exit_status(error) != guard.AGAIN:
                raise
            running.say(guard.explain(error))
            try:
                come_again(job, error, running)
            except BaseException as another:
                if another is not error and not isinstance(another, WardenError):
                    # Not even this works.
                    time.sleep(_PAUSE_HERE)
                raise

    def report(reason: str) -> None:
        if job is not None:
            job.explain(reason)

    guard.Guard("qpu-prolog", on_expiry=guard.AGAIN).run(hook, report=report)


def serve(job: HookJob, running: guard.Guard) -> None:
    """Give the job its session, if it asked for one."""
    if not may_ask(job):
        return
    found = job.look_up(limit=_QSTAT_LIMIT)
    if asks_for(RESOURCE, found.requests):
        grant(job, found, running)


def may_ask(job: HookJob) -> bool:
    """Whether the qmaster has to be asked. OCS says itself what was granted, and overwrites what the user says of it.

    That it says nothing means something from 9.2 on, where we have seen it: a job must not lose its QPU by a guess.
    """
    if job.exported(GRANTED + RESOURCE) is not None:
        return True
    version = on_ocs(job)
    return version is None or not version.since(9, 2)


def on_ocs(job: HookJob) -> Version | None:
    """OCS's version, if this is OCS; where nobody can tell, it is treated as the older one."""
    from gridengine import commands  # noqa: PLC0415 - on OCS, jobs with the QPU never need it
    from gridengine.resources import Flavour  # noqa: PLC0415

    with contextlib.suppress(commands.GridEngineError):
        found = commands.version(job.cell)
        return found if found.flavour is Flavour.OCS else None
    return None


def grant(job: HookJob, found: Job, running: guard.Guard) -> None:
    """Acquire the session and tell the job of it."""
    from gridengine import jobs, site  # noqa: PLC0415 - most jobs never need them
    from gridengine.commands import GridEngineError  # noqa: PLC0415
    from gridengine.hooks import retry  # noqa: PLC0415

    cluster = site.load(CONFIG)
    running.limit(cluster.settings.hook_limit / SECOND)
    offer = granted(cluster, job, found)
    # First of all, so that the epilog knows that there may be something to release, whatever happens from here on.
    job.export({MARK: offer.warden.client_endpoint})
    session = acquire(job, found, offer.warden, cluster.settings)
    job.export(environment(offer, session))
    if retry.ATTEMPTS in found.context:
        # Where it cannot be forgotten, the job waits longer the next time.
        with contextlib.suppress(GridEngineError):
            jobs.forget(
                job.number, (retry.ATTEMPTS, retry.REASON), environment=job.cell, limit=max(1.0, running.left() / 2)
            )


def granted(cluster: Site, job: HookJob, found: Job) -> Offer:
    """Which QPU the job has: the one that the scheduler named (OCS), or that of its queue.

    Raises:
        BadRequestError: None.
        ConfigurationError: One that the configuration does not know.
    """
    named = cluster.settings.rsmap
    if named is not None and asks_for(named, found.requests):
        if GRANTED + named in found.overrides:
            raise BadRequestError(f"the job names its QPU itself ({GRANTED}{named}): submit it without that variable")
        ids = set((job.exported(GRANTED + named) or "").split())
        # It is Grid Engine's word where the job asked for it. The qmaster repeats it, though not in every version.
        if len(ids) != 1 or not ids <= set(found.granted.get(named, ids)):
            raise BadRequestError(f"-l {named}={found.requests[named]} has to give one QPU: ask for {named}=1")
        name = ids.pop()
        offer = cluster.named(name)
        if offer is None:
            raise ConfigurationError(f"{named} gave the QPU {name!r}, and no file of gridengine.qpu is about it")
        return offer
    offer = cluster.of_queue(job.queue)
    if offer is None:
        raise BadRequestError(
            f"the queue {job.queue} offers no QPU: ask for one of {', '.join(cluster.queues)} (qsub -q), or for qpu_name"
        )
    return offer


def acquire(job: HookJob, found: Job, settings: Config, section: GridEngineSection) -> Session:
    """Wait a bounded time for a place on the QPU.

    Raises:
        BusyError, UnavailableError: There was none; the job goes back to the queue.
        BadRequestError: This QPU can never do what the job asked for.
        ForbiddenError: The owner may not use this QPU.
    """
    from gridengine.hooks import retry  # noqa: PLC0415
    from warden.client import Client  # noqa: PLC0415

    window, qubits = amount(WINDOW, found.requests), amount(QUBITS, found.requests)
    end = time.monotonic() + section.prolog_wait / SECOND
    with Client(config=settings, timeout=max(1.0, min(5.0, section.prolog_wait / SECOND))) as client:
        while True:
            try:
                if window or qubits:
                    check_fit(client.availability(), window or 0, qubits or 0)
                return client.acquire(
                    job=job.name, uid=job.uid, host=job.host, start=job.start, queue=job.queue, project=found.project
                )
            except retry.NotNowError:
                # It will only be later.
                raise
            except (BusyError, UnavailableError) as error:
                # Waiting here, and not only in the queue, also bounds how often a job can bounce.
                if time.monotonic() + _PAUSE > end:
                    raise _with_state(client, error) from None
                time.sleep(_PAUSE)


def check_fit(seen: Availability, window: int, qubits: int) -> None:
    """Whether the QPU has the qubits, and so many seconds before its next window.

    Raises:
        BadRequestError: It will never have the qubits.
        NotNowError: The window opens sooner.
    """
    from gridengine.hooks.retry import NotNowError  # noqa: PLC0415

    if qubits > seen.qubits:
        raise BadRequestError(f"the QPU {seen.name} takes {seen.qubits} qubits at most: {QUBITS}={qubits} cannot run")
    ahead = seen.next_window
    if window and seen.open_places and ahead is not None and ahead.start - seen.time < window * SECOND:
        opens = max(0, ahead.start - seen.time) // SECOND
        raise NotNowError(
            f"the QPU {seen.name} closes for {ahead.kind} in {opens} s, and the job wants {window} s",
            "window",
            None if ahead.end is None else ahead.end - seen.time,
        )


def _with_state(client: Client, error: WardenError) -> WardenError:
    """What Warden says of the QPU, beside what it said of this job."""
    from gridengine.hooks import retry  # noqa: PLC0415

    if isinstance(error, BusyError):
        with contextlib.suppress(WardenError):
            return retry.not_now(error, client.availability())
    return error


def environment(offer: Offer, session: Session) -> dict[str, str]:
    """What a job finds: QRMI's variables, and ours. Nothing in it is a secret."""
    name, url = offer.name, offer.warden.http.reachable
    return {
        "QRMI_JOB_QPU_RESOURCES": name,
        "QRMI_JOB_QPU_TYPES": "pasqal-local",
        "QRMI_JOB_UID": str(session.uid),
        "QRMI_JOB_ID": session.job,
        f"{name}_QRMI_JOB_ACQUISITION_TOKEN": session.id,
        **({f"{name}_QRMI_WARDEN_URL": url} if url else {}),
        "WARDEN_SESSION": session.id,
        **({"WARDEN_CONFIG": str(offer.config)} if offer.config != CONFIG else {}),
    }


def come_again(job: HookJob, error: BaseException, running: guard.Guard) -> None:
    """The job goes back to the queue, where it is left alone for a while; or it waits here, where that cannot be had.

    Raises:
        BaseException: The same; or LimitError, if it has come too often.
    """
    from gridengine.commands import GridEngineError  # noqa: PLC0415 - few jobs come here
    from gridengine.configuration import GridEngineSection, load  # noqa: PLC0415

    section = GridEngineSection()
    with contextlib.suppress(ConfigurationError):
        section = load(CONFIG)
    running.limit(section.hook_limit / SECOND)
    try:
        send_back(job, error, section)
    except GridEngineError:
        wait_here(job, error, running)
    else:
        raise error


def send_back(job: HookJob, error: BaseException, section: GridEngineSection) -> None:
    """Tell Grid Engine when to start the job again, and write down how often it has come, and why in vain.

    Raises:
        LimitError: It has come too often.
        GridEngineError: Grid Engine does not take it.
    """
    from gridengine import jobs, qstat_xml  # noqa: PLC0415
    from gridengine.hooks import retry  # noqa: PLC0415
    from warden.model import LimitError  # noqa: PLC0415

    try:
        found = job.look_up(limit=_QSTAT_LIMIT)
    except qstat_xml.NoSuchJobError:
        # It was deleted meanwhile.
        return
    attempt = retry.attempts(found.context) + 1
    if attempt >= section.attempts:
        # So that after `qmod -cj` it begins anew.
        jobs.forget(job.number, (retry.ATTEMPTS, retry.REASON), environment=job.cell, limit=_QSTAT_LIMIT)
        raise LimitError(
            f"held after {attempt} attempts in vain, the last one because: {guard.explain(error)} "
            f"(qmod -cj {job.number} lets it try again)"
        )
    said = {retry.ATTEMPTS: str(attempt), retry.REASON: retry.reason(error)}
    jobs.annotate(job.number, said, environment=job.cell, limit=_QSTAT_LIMIT)
    blocked = error.blocked if isinstance(error, retry.NotNowError) else None
    until = math.ceil(time.time() + retry.pause(job.name, attempt, section, blocked) / SECOND)
    # Its user may have said a later time.
    if found.not_before < until:
        jobs.postpone(job.number, until, environment=job.cell, limit=_QSTAT_LIMIT)


def wait_here(job: HookJob, error: BaseException, running: guard.Guard) -> None:
    """Try again in the prolog as long as it may last.

    Raises:
        BaseException: In vain.
    """
    while running.left() > 2 * _PAUSE_HERE:
        time.sleep(_PAUSE_HERE)
        try:
            serve(job, running)
        except Exception as again:
            if guard.exit_status(again) != guard.AGAIN:
                raise
            error = again
        else:
            return
    raise error


if __name__ == "__main__":
    main()
