"""Sites to be deployed, and how tests do it."""

from collections.abc import Callable
from pathlib import Path

from gridengine import deployment, site
from gridengine.deployment import record
from gridengine.deployment.state import Change
from gridengine.resources import Flavour

ARGUMENTS = "$job_id $ja_task_id $job_owner $host"
PROLOG, EPILOG = (f"root@/opt/w/bin/qpu-{hook} {ARGUMENTS}" for hook in ("prolog", "epilog"))
SENSOR = "/opt/w/bin/qpu-load-sensor"
ONE = ""
HOSTS = 'hosts = ["@quantum", "node3"]\n'
SENSORS = 'sensor_hosts = ["global", "node1"]\n'
JSV = "jsv = true\n"
TWO = '[[gridengine.qpu]]\nqueues = ["a.q"]\n[[gridengine.qpu]]\nconfig = "{0}/emu.toml"\nqueues = ["b.q"]\nhosts = ["node2"]\n'
SITES = {"one": ONE, "hosts": HOSTS, "sensors": SENSORS + JSV, "two": TWO}


def chained(hook: str, theirs: str) -> str:
    """Both hooks, as they stand in a queue."""
    return f"root@/opt/w/bin/qpu-chain {hook} {len(theirs.split())} {theirs} {ARGUMENTS}"


LoadSite = Callable[[str], site.Site]


def loaded(folder: Path, section: str) -> site.Site:
    """A site whose section of Grid Engine says this."""
    (folder / "emu.toml").write_text('[qpu]\nname = "emu"\nplaces = 2\nqubits = 8\n')
    text = f"[qpu]\nname = 'fresnel'\n[gridengine]\nbin = '/opt/w/bin'\nrecord = '{folder}/record'\n"
    (folder / "warden.toml").write_text(text + section.replace("{0}", str(folder)))
    return site.load(folder / "warden.toml")


def apply(site: site.Site, flavour: Flavour = Flavour.SGE) -> tuple[Change, ...]:
    planned = deployment.difference(site, flavour)
    planned.carry_out("apply")
    assert deployment.difference(site, flavour).changes == (), "a second time changes nothing"
    return planned.changes


def remove(site: site.Site, *, force: bool = False) -> tuple[Change, ...]:
    planned, _ = deployment.removal(site.settings, force=force)
    planned.carry_out("remove")
    return planned.changes


def lose_the_record(site: site.Site) -> None:
    record.path(site.settings.record).unlink()
