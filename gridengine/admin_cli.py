"""`qpu-admin`: the cluster admin's command."""

# ruff: noqa: PLC0415  (each command imports what it needs, so that `--help` answers at once)

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from warden.console import Group, Length, config_option, json_option, print_json

if TYPE_CHECKING:
    from pathlib import Path

    from gridengine.deployment import Plan

DIFFERENT = 3
_AS_CONFIGURED = "nothing to do: the cluster is as the configuration says"


@click.group(cls=Group)
@click.version_option(package_name="gridengine-qpu")
def main() -> None:
    """Make a QPU a resource of this Grid Engine cluster, check it, and take it away again."""


@main.command("plan")
@config_option
@json_option
@click.pass_context
def plan(context: click.Context, config: Path, as_json: bool) -> None:
    """Show what `apply` would change. Changes nothing; exit status 3 if there is a difference, 0 if not."""
    changes = _show(_planned(config), as_json, _AS_CONFIGURED)
    context.exit(DIFFERENT if changes else 0)


@main.command("apply")
@config_option
@json_option
def apply(config: Path, as_json: bool) -> None:
    """Bring the cluster to what the configuration says. A second time changes nothing.

    All of it is done or, if a step fails, none. What was there before is written down in gridengine.record.
    """
    planned = _planned(config)
    planned.carry_out("apply", _tell)
    _show(planned, as_json, _AS_CONFIGURED, done=True)


@main.command("remove")
@config_option
@json_option
@click.option("--force", is_flag=True, help="Do it even if jobs hold the QPU, or wait for it.")
def remove(config: Path, as_json: bool, force: bool) -> None:
    """Take away what `apply` and `reserve` made, and nothing else. Refuses while jobs ask for the QPU.

    With --force such jobs lose it: one that waits can never start, one that runs keeps its session until the lease ends,
    since no epilog gives it back. The complexes stay until a later `remove` finds no such job.
    """
    from gridengine import configuration, deployment, reservations, site
    from warden.model import WardenError

    names: list[str] = []
    # What is to go may be in a state in which it cannot be loaded.
    with contextlib.suppress(WardenError):
        names = [offer.name for offer in site.load(config).offers]
    planned, asking = deployment.removal(configuration.load(config), names, force=force)
    for step in reservations.withdraw():
        click.echo(str(step), err=as_json)
    planned.carry_out("remove", _tell)
    _show(planned, as_json, "nothing to do: there is nothing of ours in the cluster", done=True)
    if asking:
        _tell(f"the complexes stay, since {len(asking)} job(s) ask for them: run this again when those are gone")


@main.command("reserve", short_help="Reserve the windows of the calendar in Grid Engine.")
@click.option("--follow", is_flag=True, help="Go on until it is ended (SIGTERM), and follow every change.")
@click.option("--every", "pause", type=Length(), default="30s", show_default=True, help="With --follow: how often.")
@click.option("--withdraw", is_flag=True, help="Take all reservations back instead.")
@config_option
@json_option
@click.pass_context
def reserve(context: click.Context, config: Path, follow: bool, pause: int, withdraw: bool, as_json: bool) -> None:
    """Reserve the windows of Warden's calendar in Grid Engine, so that no job is started into one.

    A job then starts only if its h_rt ends before the next window; one that has no h_rt waits as long as a window is
    reserved. As a manager, or a member of the user list arusers. Exit status 1 if a window could not be reserved now.
    """
    from gridengine import reservations, site
    from warden.model import SECOND

    if follow and (withdraw or as_json):
        raise click.UsageError("--follow goes with neither --withdraw nor --json")
    offered = site.load(config)
    if follow:
        reservations.follow(offered, pause / SECOND, click.echo)
        return
    steps = []
    for step in reservations.withdraw() if withdraw else reservations.reserve(offered):
        steps.append(step)
        if not as_json:
            click.echo(str(step))
    if as_json:
        print_json(steps)
    elif not steps:
        click.echo("nothing to do: there is no window, and no reservation of ours")
    context.exit(1 if any(step.failed for step in steps) else 0)


@main.command("doctor", short_help="Look for what is wrong, and say what to do.")
@config_option
@json_option
@click.option("--here", "here_only", is_flag=True, help="Only this host, not the whole cluster.")
@click.option("--verbose", "-v", is_flag=True, help="Show what was seen also where all is well.")
@click.pass_context
def doctor(context: click.Context, config: Path, as_json: bool, here_only: bool, verbose: bool) -> None:
    """Look for what is wrong on this host and in the cluster, and say what to do.

    Exit status 1 if something is bad. Run it as root: on the broker's host, and with --here on each execution host.
    """
    from gridengine.doctor import Verdict, by_weight, examine, text

    findings = by_weight(list(examine(config, here_only=here_only)))
    if as_json:
        print_json(findings)
    else:
        click.echo(text(findings, verbose=verbose))
    context.exit(1 if any(one.verdict is Verdict.BAD for one in findings) else 0)


@main.command("acct", short_help="Sum up what was used of the QPU.")
@config_option
@json_option
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV for spreadsheets.")
@click.option(
    "--by",
    multiple=True,
    type=click.Choice(["job", "user", "project", "month", "qpu"]),
    help="What to sum up by; several times for finer sums. [default: job]",
)
@click.option("--from", "first", metavar="DAY", help="From this day on: 2026-03-02, or 2026-03 for the month.")
@click.option("--to", "last", metavar="DAY", help="Up to the end of this day or month.")
@click.option("--limit", type=click.IntRange(1), default=100_000, show_default=True, help="At most so many sessions.")
def acct(
    config: Path, as_json: bool, as_csv: bool, by: tuple[str, ...], first: str | None, last: str | None, limit: int
) -> None:
    """Sum up what was used of the QPU by job, user, project or month, as Warden and qacct say.

    A session counts for the day on which it began, in this host's time zone. Ordinary users see their own jobs.
    """
    from gridengine import accounting, site

    if as_csv and as_json:
        raise click.UsageError("--csv or --json, not both")
    since, until = _day(first, "--from")[0], _day(last, "--to")[1]
    keys = [accounting.By(one) for one in dict.fromkeys(by)] or [accounting.By.JOB]
    found = accounting.read(site.load(config), since=since, until=until, limit=limit)
    if found.own_only:
        click.echo("only your own jobs: you are no operator of this QPU", err=True)
    if found.cut:
        click.echo(f"only the newest {limit} sessions of a QPU: say more with --limit, or --from", err=True)
    uses = accounting.summed(found.entries, keys)
    if as_csv:
        click.echo(accounting.as_csv(uses, keys), nl=False)
    elif as_json:
        print_json([accounting.facts(use, keys) for use in uses])
    else:
        click.echo(accounting.as_table(uses, accounting.total(found.entries), keys))
        if accounting.By.MONTH in keys or first or last:
            import time

            click.echo(f"days and months are those of this host: {time.strftime('%Z, UTC%z')}")


def _day(text: str | None, option: str) -> tuple[int, int]:
    """The moments at which a day or a month begins and ends here; of no day, those of all time."""
    import datetime as dt

    from warden.model import SECOND

    if text is None:
        return 0, 2**62
    try:
        if len(text) == len("2026-03"):
            first = dt.datetime.fromisoformat(f"{text}-01")
            after = (first + dt.timedelta(days=31)).replace(day=1)
        else:
            first = dt.datetime.combine(dt.date.fromisoformat(text), dt.time())
            after = first + dt.timedelta(days=1)
        return int(first.timestamp()) * SECOND, int(after.timestamp()) * SECOND
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is no day like 2026-03-02 and no month like 2026-03", param_hint=option
        ) from None


def _planned(config: Path) -> Plan:
    from gridengine import deployment, site

    offered = site.load(config)
    deployment.check_programs(offered.settings.bin)
    return deployment.difference(offered)


def _show(planned: Plan, as_json: bool, nothing: str, *, done: bool = False) -> bool:
    """Print the changes, and what is not ours to change and would hurt; whether there are any changes."""
    from gridengine import commands
    from gridengine.deployment import report
    from gridengine.resources import Flavour

    on_sge = commands.version().flavour is Flavour.SGE
    warnings = planned.warnings(on_sge=on_sge)
    told = report.report(planned.changes, warnings, restart=on_sge)
    if as_json:
        print_json(told)
    else:
        if planned.changes:
            click.echo(f"{report.diff(planned.changes, _paint)}\n\n{report.summary(planned.changes, done=done)}")
        else:
            click.echo(nothing)
        for warning in warnings:
            _tell(f"warning: {warning}")
    if done and told.restart:
        _tell(f"now restart sge_execd on {', '.join(told.restart)}: it may not start its new load sensor before")
    return told.changed


def _paint(sign: str, text: str) -> str:
    """Colour a line; click takes the colours out where nobody sees them."""
    return click.style(text, fg={"+": "green", "-": "red", "~": "yellow"}[sign])


def _tell(text: str) -> None:
    click.echo(text, err=True)
