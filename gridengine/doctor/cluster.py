"""What is wrong in the cluster, seen from one of its hosts: Grid Engine and the Wardens are asked about all of it.

Decisions are pure functions of what was asked; the asking stands at the end.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gridengine import commands, deployment, jobs, qconf_text, qstat_xml
from gridengine.amounts import asks
from gridengine.doctor.finding import Finding, Verdict, clocks
from gridengine.why import reasons
from warden.client import Client
from warden.model import SECOND, ForbiddenError, UnavailableError, clock, short_host
from warden.report import length, user
from warden.version import version

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from gridengine.qstat_xml import Job, Row
    from gridengine.site import Offer, Site
    from warden.model import HostReport, Micros, Session

# A sensor is silent when it has missed some of the scheduler's requests, or did not speak for so long.
_MISSED, _SILENCE = 3, 60 * SECOND
# Grid Engine's default load_report_time, of a sensor that does not know yet.
_INTERVAL = 40 * SECOND
# An exec host's word about its clock is under way for less than this.
_UNSURE = SECOND
_PATIENCE = 5.0
# A job that was sent back so often is told of, and so many of them are looked at.
_ATTEMPTS, _LOOKED_AT = 10, 20
# Findings of one kind that are told one by one.
_MOST = 8
JSV = "qpu-jsv"
_QUEUE = "job_info/queue_info/Queue-List/"


class Instance(msgspec.Struct, frozen=True):
    """A queue instance, as `qstat -f -explain E` has it."""

    name: str
    state: str = ""
    message: str = ""

    @property
    def queue(self) -> str:
        return self.name.partition("@")[0]

    @property
    def host(self) -> str:
        return self.name.partition("@")[2]


# --- decided ---


def differences(changes: Sequence[str]) -> list[Finding]:
    fix = "see `qpu-admin plan`, then `qpu-admin apply`"
    if not changes:
        return [Finding(Verdict.OK, "cluster", "complexes, values, sensor and hooks are as the configuration says")]
    return _few(Finding(Verdict.BAD, "cluster", f"not as the configuration says: {one}", fix) for one in changes)


def queues(instances: Sequence[Instance], wanted: Sequence[str], interactive: Sequence[str]) -> list[Finding]:
    """Instances that take no jobs, and why. One in alarm is none of them: so is each while its QPU is blocked."""
    found = []
    if interactive:
        seen = f"{', '.join(interactive)} takes interactive jobs, whose hooks SGE 8.1.9 kills"
        fix = "qconf -mq: qtype BATCH; a queue without hooks for the others"
        found.append(Finding(Verdict.WARNING, "queues", seen, fix))
    without = [queue for queue in wanted if queue not in {one.queue for one in instances}]
    for queue in without:
        fix = f"qconf -aq {queue}, or -mattr queue hostlist HOSTS {queue}; or take it out of the configuration"
        found.append(Finding(Verdict.BAD, "queues", f"{queue} does not exist, or has no host", fix))
    broken: list[Finding] = []
    for one in instances:
        for letter, verdict, text, fix in _STATES:
            if letter in one.state:
                seen = f"{one.name} {text}" + (f": {one.message}" if one.message and letter == "E" else "")
                broken.append(Finding(verdict, "queues", seen, fix.format(one.name, host=one.host)))
    found += _few(broken)
    if not found:
        said = f"{', '.join(wanted)}: no instance is in the error state, or without its host"
        found.append(Finding(Verdict.OK, "queues", said))
    return found


_STATES = (
    ("E", Verdict.BAD, "is in the error state", "mend that (execd's messages, the hook), then qmod -cq {0}"),
    ("u", Verdict.BAD, "does not hear from its host", "see that {host} is up, and its sge_execd"),
    ("c", Verdict.BAD, "has settings that contradict each other", "qstat -f -explain c says which; qconf -mq"),
    ("d", Verdict.WARNING, "is disabled", "qmod -e {0}, if it should take jobs"),
    ("o", Verdict.WARNING, "belongs to no queue any more", "it goes when its jobs have ended"),
)


def submit_hosts(execution: Collection[str], submit: Collection[str]) -> list[Finding]:
    """The prolog asks the qmaster about its job, and only submit hosts may ask."""
    known = {short_host(host) for host in submit}
    missing = [host for host in execution if short_host(host) not in known]
    if not missing:
        return [Finding(Verdict.OK, "submit hosts", "all hosts of the queues are submit hosts, as their hooks need it")]
    return _few(
        Finding(
            Verdict.BAD, "submit hosts", f"{host} is none, so its prolog cannot ask about jobs", f"qconf -as {host}"
        )
        for host in missing
    )


def hosts(
    qpu: str, reports: Sequence[HostReport], execution: Sequence[str], now: Micros, version: str
) -> list[Finding]:
    """What the sensors say of their hosts; `execution`: those that offer this QPU."""
    heard = {short_host(report.host): report for report in reports}
    silent: list[Finding] = []
    other: list[Finding] = []
    for host in execution:
        report = heard.get(short_host(host))
        if report is None:
            seen = f"nothing was heard of {host} since the broker of {qpu} came up"
            silent.append(Finding(Verdict.BAD, "hosts", seen, _NO_SENSOR.format(host)))
            continue
        ago = now - report.seen
        if ago > _silence(report):
            seen = f"nothing was heard of {host} for {length(ago)}"
            silent.append(Finding(Verdict.BAD, "hosts", seen, _NO_SENSOR.format(host)))
        other += _troubles(report, version)
    found = _few(silent) + _few(other) + _reporter(qpu, reports, now)
    if not silent + other and execution:
        seen = f"all {len(execution)} that offer {qpu} were heard of lately, with this version and near clocks"
        found.append(Finding(Verdict.OK, "hosts", seen))
    return found


_NO_REPORTER = "see gridengine.sensor_hosts, and that one of these hosts has a sensor that reaches Warden"
_NO_SENSOR = (
    "on {0}: sge_execd has to run, with qpu-load-sensor in its configuration (qconf -sconf); "
    "`qpu-admin doctor --here` there says what it lacks; "
    "a sensor that hangs is ended by kill -9, and sge_execd starts it again"
)


def _silence(report: HostReport) -> Micros:
    return max(_SILENCE, _MISSED * (report.interval or _INTERVAL))


def _troubles(report: HostReport, version: str) -> list[Finding]:
    found = [
        Finding(Verdict.BAD, "hosts", f"{report.host}: {trouble}", f"`qpu-admin doctor --here` on {report.host}")
        for trouble in report.trouble
    ]
    if report.version not in {"", version}:
        seen = f"{report.host} has version {report.version} of the kit, and this host {version}"
        found.append(Finding(Verdict.WARNING, "hosts", seen, "install the same one on all hosts"))
    at = clocks(report.ahead, _UNSURE, f"{report.host}'s is", "the broker's")
    return found + ([at] if at.verdict is not Verdict.OK else [])


def _reporter(qpu: str, reports: Sequence[HostReport], now: Micros) -> list[Finding]:
    if not any(report.candidate for report in reports):
        return []
    reporter = next((report for report in reports if report.reporter), None)
    if reporter is None:
        return [Finding(Verdict.BAD, "reporter", f"no host tells Grid Engine of {qpu}", _NO_REPORTER)]
    silence = now - reporter.seen
    ago = length(max(0, silence))
    if silence > _silence(reporter):
        seen = f"{reporter.host} told Grid Engine of {qpu} the last time {ago} ago, and no other host has taken over"
        return [Finding(Verdict.BAD, "reporter", seen, _NO_REPORTER)]
    return [Finding(Verdict.OK, "reporter", f"{reporter.host} tells Grid Engine of {qpu}, the last time {ago} ago")]


def leaks(before: Iterable[Session], after: Iterable[Session], rows: Iterable[Row]) -> list[Finding]:
    """Sessions that were there before and after Grid Engine said which jobs live, and whose job is none of these."""
    alive = {str(row.id) for row in rows if row.queue}
    still = {session.id for session in after}
    found = [
        Finding(
            Verdict.WARNING,
            "sessions",
            f"job {one.job} of {user(one.uid)} on {one.host} is gone, and holds a place until {clock(one.expires)}",
            f"`warden sessions --end {one.job}` frees it now; else its lease does",
        )
        for one in before
        if one.id in still and one.job.partition(".")[0] not in alive
    ]
    return _few(found) or [Finding(Verdict.OK, "sessions", "each belongs to a job that lives")]


def stuck(rows: Iterable[Row], details: Sequence[Job]) -> list[Finding]:
    """Jobs with a QPU that are in error, or were sent back again and again; `details`: of those that were looked at."""
    known = {job.id: job for job in details}
    found = []
    for number in dict.fromkeys(row.id for row in rows if "E" in row.state and asks(row.requests)):
        job = known.get(number)
        why = reasons.hook(job.reasons[0]).text if job and job.reasons else "qstat -j says why"
        fix = f"mend that, then qmod -cj {number}; or qdel {number}"
        found.append(Finding(Verdict.WARNING, "jobs", f"job {number} is in error: {why}", fix))
    for job in details:
        attempts = job.context.get("qpu_attempts", "")
        if attempts.isdecimal() and len(attempts) < 10 and int(attempts) >= _ATTEMPTS:  # noqa: PLR2004 - an owner writes what he likes
            reason = job.context.get("qpu_reason", "")[:40] or "unknown"
            seen = f"job {job.id} was sent back {int(attempts)} times, the last time: {reason}"
            found.append(Finding(Verdict.WARNING, "jobs", seen, f"`qpu why {job.id}`"))
    return _few(found) or [
        Finding(Verdict.OK, "jobs", "none that asks for a QPU is in error, or is sent back for ever")
    ]


def jsv(url: str, *, wanted: bool, on_qmaster: bool) -> list[Finding]:
    """The JSV is asked about each job of the cluster: one that is missing refuses all of them."""
    path = url.rpartition(":")[2]
    if path.rpartition("/")[2] != JSV:
        other = f"jsv_url is {url or 'NONE'}"
        if not wanted:
            return []
        return [Finding(Verdict.BAD, "JSV", f"{other}, and gridengine.jsv asks for ours", "`qpu-admin plan` says more")]
    if on_qmaster and not os.access(path.rpartition("@")[2], os.X_OK):
        fix = "install the kit here, or qconf -mconf: jsv_url NONE"
        return [Finding(Verdict.BAD, "JSV", f"{path} cannot be run here, on the qmaster's host: no job is taken", fix)]
    return [Finding(Verdict.OK, "JSV", f"the qmaster asks {path} about each job")]


def _few(findings: Iterable[Finding]) -> list[Finding]:
    """A cluster of hundreds of hosts may have one trouble on all of them."""
    told = list(findings)
    if len(told) <= _MOST:
        return told
    rest = told[_MOST:]
    worst = Verdict.BAD if any(one.verdict is Verdict.BAD for one in rest) else Verdict.WARNING
    return [*told[:_MOST], Finding(worst, told[0].what, f"and {len(rest)} more of that kind", told[0].fix)]


def read_instances(xml_text: str) -> list[Instance]:
    """Read `qstat -f -explain E -xml`.

    Raises:
        UnreadableError: It is not the XML that we know.
    """
    found: list[Instance] = []
    for tag, text in qstat_xml.fields(xml_text, _QUEUE, ("name", "state", "message")):
        if tag == "name":
            found.append(Instance(text))
        elif found:
            found[-1] = msgspec.structs.replace(found[-1], **{tag: text})
    return found


# --- asked ---


def checks(site: Site) -> list[tuple[str, Callable[[], Iterator[Finding]]]]:
    """What is looked at in the cluster, by name."""
    return [
        ("cluster", lambda: iter(differences(_changes(site)))),
        ("queues", lambda: _queues(site)),
        ("hosts", lambda: _hosts(site)),
        ("jobs", _jobs),
        ("sessions", lambda: _sessions(site)),
        ("JSV", lambda: _jsv(site)),
    ]


def _changes(site: Site) -> list[str]:
    """What `qpu-admin plan` shows; the only thing here that knows how it plans."""
    return [str(change) for change in deployment.difference(site).changes]


def _instances(site: Site) -> list[Instance]:
    found: list[Instance] = []
    known = commands.run("qconf", "-sql").stdout.split()
    for queue in (queue for queue in site.queues if queue in known):
        # One without hosts, of which qstat -xml says nothing but its exit status, must not hide the others.
        with contextlib.suppress(commands.GridEngineError):
            found += read_instances(commands.run("qstat", "-f", "-explain", "E", "-q", queue, "-xml").stdout)
    return found


def _queues(site: Site) -> Iterator[Finding]:
    instances = _instances(site)
    yield from queues(instances, site.queues, deployment.interactive_queues(site))
    execution = list(dict.fromkeys(instance.host for instance in instances))
    yield from submit_hosts(execution, commands.run("qconf", "-ss").stdout.split())


def _hosts(site: Site) -> Iterator[Finding]:
    instances = _instances(site)
    for offer in site.offers:
        execution = list(dict.fromkeys(one.host for one in instances if one.queue in offer.queues))
        with Client(config=offer.warden, timeout=_PATIENCE) as client:
            try:
                reports, now = client.hosts(), client.availability().time
            except ForbiddenError:
                yield Finding(Verdict.WARNING, "hosts", f"operators of {offer.name} see them", "run it as root")
                continue
            except UnavailableError:
                continue  # the check of its broker says so
        yield from hosts(offer.name, reports, _offering(offer, execution), now, version())


def _offering(offer: Offer, execution: Sequence[str]) -> list[str]:
    """Of the hosts of its queues those that offer a QPU."""
    if not offer.hosts:
        return list(execution)
    listed: set[str] = set()
    for name in offer.hosts:
        members = commands.run("qconf", "-shgrp_resolved", name).stdout.split() if name.startswith("@") else [name]
        listed |= {short_host(member) for member in members}
    return [host for host in execution if short_host(host) in listed]


def _jobs() -> Iterator[Finding]:
    rows = [row for row in jobs.listing() if asks(row.requests) and not row.queue]
    numbers = list(dict.fromkeys(row.id for row in sorted(rows, key=lambda row: "E" not in row.state)))
    details = []
    for number in numbers[:_LOOKED_AT]:
        try:
            details.append(jobs.detail(str(number)))
        except qstat_xml.NoSuchJobError:
            continue
    yield from stuck(rows, details)


def _sessions(site: Site) -> Iterator[Finding]:
    for offer in site.offers:
        with Client(config=offer.warden, timeout=_PATIENCE) as client:
            try:
                before = client.sessions(everybody=True, limit=1000)
                rows = jobs.listing() if before else []
                yield from leaks(before, client.sessions(everybody=True, limit=1000), rows)
            except ForbiddenError:
                yield Finding(Verdict.WARNING, "sessions", f"operators of {offer.name} see them", "run it as root")
            except UnavailableError:
                continue


def _jsv(site: Site) -> Iterator[Finding]:
    shown = qconf_text.settings(commands.run("qconf", "-sconf").stdout)
    url = shown.get("jsv_url", "none")
    qmaster = Path(os.environ.get("SGE_ROOT", "/"), os.environ.get("SGE_CELL", "default"), "common/act_qmaster")
    here = short_host(socket.gethostname())
    on_qmaster = qmaster.exists() and short_host(qmaster.read_text().strip()) == here
    yield from jsv("" if url.upper() == "NONE" else url, wanted=site.settings.jsv, on_qmaster=on_qmaster)
