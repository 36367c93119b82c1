"""The operator's command: `warden`."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from warden import console

if TYPE_CHECKING:
    from warden.client import Client
    from warden.model import Window


_ANY = console.Length(longer_than_nothing=False)


@click.group(cls=console.Group)
@click.version_option(package_name="gridengine-qpu")
def main() -> None:
    """Run the broker of a QPU and its worker; plan calibrations, drain, resume; see what happens."""


@main.command()
@click.option("--edge-only", is_flag=True, help="Run only an HTTP edge, for a broker that runs on its own.")
@click.option("--no-edge", is_flag=True, help="Run only the broker, whatever http.listen says.")
@click.option("--lifeline", type=int, hidden=True)
@console.config_option
def serve(config: Path, edge_only: bool, no_edge: bool, lifeline: int | None) -> None:
    """Run the broker in the foreground; SIGTERM ends it.

    With `http.listen` in the configuration it has an HTTP edge beside it, for QRMI's own clients. An edge that runs on its
    own outlives a restart of the broker: its clients wait.
    """
    from warden import edge_process, journal  # noqa: PLC0415
    from warden.config import load  # noqa: PLC0415

    if edge_only and no_edge:
        raise click.UsageError("--edge-only and --no-edge together leave nothing to run")
    config = config.absolute()
    settings = load(config)
    journal.begin(as_json=settings.log.format == "json", audit=settings.log.audit)
    os.chdir("/")
    if edge_only:
        if not settings.http.listen:
            raise console.Failure(f"{config} has no http.listen: say where the edge shall listen")
        edge_process.check_installed()
        from warden.qrmi_http import server  # noqa: PLC0415

        server.serve(settings, lifeline)
        return
    from warden import preflight  # noqa: PLC0415
    from warden.broker import Broker  # noqa: PLC0415

    preflight.check(settings)
    wanted = settings.http.listen and not no_edge
    edge = edge_process.beside(config) if wanted else contextlib.nullcontext()
    with Broker(settings) as broker, edge:
        broker.serve()


@main.command(short_help="Run the worker beside the QPU; SIGTERM ends it.")
@console.config_option
def worker(config: Path) -> None:
    """Run the worker beside the QPU in the foreground; SIGTERM ends it."""
    from warden import journal  # noqa: PLC0415
    from warden.config import load  # noqa: PLC0415
    from warden.worker import Worker  # noqa: PLC0415

    settings = load(config)
    journal.begin(as_json=settings.log.format == "json")
    os.chdir("/")
    with Worker(settings) as running:
        running.serve()


@main.command(short_help="Make the key pairs that are missing, or change them.")
@click.option("--next", "following", is_flag=True, help="Make the pair that the broker shall have next.")
@click.option("--switch", is_flag=True, help="Make the next pair the broker's; it counts from its next start.")
@click.option("--edge", is_flag=True, help="Make only an HTTP edge's pair, on a host without a broker.")
@console.config_option
def keys(config: Path, following: bool, switch: bool, edge: bool) -> None:
    """Make the key pairs of the broker, its worker and its HTTP edge, where they are missing.

    With --next and --switch the broker gets another pair while clients go on: see docs/security.md.
    """
    from warden import keyring  # noqa: PLC0415
    from warden.config import load  # noqa: PLC0415

    if following + switch + edge > 1:
        raise click.UsageError(
            "--next, --switch and --edge are steps of their own; the next key has to reach all hosts before the switch"
        )
    folder = load(config).broker.keys
    if switch:
        keyring.switch(folder)
        click.echo("the next key is the broker's: start the broker again")
        return
    make = keyring.make_next if following else keyring.make_edge if edge else keyring.make_keys
    made = make(folder)
    for path in made:
        click.echo(f"made {path}")
    if not made:
        click.echo("all keys are there already" if make is keyring.make_keys else "this key is there already")


@main.command("install-units", short_help="Write units for systemd, made for this installation.")
@click.argument("parts", metavar="[PART]...", nargs=-1, type=click.Choice(["broker", "worker", "edge", "reserve"]))
@click.option("--print", "only_print", is_flag=True, help="Print the files instead.")
@click.option("--remove", is_flag=True, help="Take all of them away again.")
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default="/",
    show_default=True,
    help="Write below this folder, as below an image's.",
)
@console.config_option
def install_units(config: Path, parts: tuple[str, ...], only_print: bool, remove: bool, root: Path) -> None:
    """Write units for systemd, made for the paths of this installation and of its configuration.

    PART is what runs on this host: broker, worker, edge (for QRMI's own clients), reserve (`qpu-admin reserve --follow`);
    without any, all of them, the edge if http.listen says where. Beside the units: the user for sysusers.d, the folders for
    tmpfiles.d, and the rotation of the audit trail for logrotate. A file that was changed by hand is left alone.
    """
    from warden import installation  # noqa: PLC0415
    from warden.config import load  # noqa: PLC0415

    if remove:
        if parts or only_print:
            raise click.UsageError("--remove takes all away: name no part, and nothing to print")
        done = list(installation.remove(root))
        click.echo("\n".join(f"removed {path}" for path in done) or "nothing to do: there is no file of ours")
        return
    config = config.absolute()
    settings = load(config)
    if "edge" in parts and not settings.http.listen:
        raise console.Failure(f"{config} has no http.listen: say where the edge shall listen")
    wanted = parts or [part for part in installation.PARTS if part != "edge" or settings.http.listen]
    found = installation.files(
        settings, config, dict.fromkeys(wanted), programs=installation.programs(), cell=os.environ
    )
    if only_print:
        click.echo("\n".join(f"# /{one.path}\n{one.text}" for one in found), nl=False)
        return
    written = list(installation.install(found, root))
    click.echo("\n".join(f"wrote {path}" for path in written) or "nothing to do: all units are as they should be")


@main.command()
@console.config_option
@console.json_option
def status(config: Path, as_json: bool) -> None:
    """Show what the QPU is doing, and what it will do next."""
    from warden import report  # noqa: PLC0415

    with _client(config) as client:
        answer = client.availability()
        samples = client.quality(answer.time - report.DAY)
    if as_json:
        console.print_json({**report.availability_facts(answer), "quality_of_the_day": report.quality_facts(samples)})
    else:
        click.echo(report.availability(answer, samples))


@main.command()
@click.option("--reason", default="maintenance", show_default=True, help="What users are told.")
@click.option(
    "--for",
    "length",
    type=console.Length(),
    metavar="DURATION",
    help="How long, for instance 2h; without it: until `resume`.",
)
@console.config_option
def drain(config: Path, reason: str, length: int | None) -> None:
    """Take the QPU out of service.

    The running task gives back the shots that it has, and nothing new starts.
    """
    from warden.model import State  # noqa: PLC0415

    with _client(config) as client:
        window = client.add_window(State.MAINTENANCE, duration=length, reason=_reason(reason))
    click.echo(f"the QPU is in maintenance {_span(window)}; `warden resume` ends it")


@main.command()
@console.config_option
def resume(config: Path) -> None:
    """End a maintenance, or the pause after failures of the QPU."""
    from warden import report  # noqa: PLC0415

    with _client(config) as client:
        click.echo(report.availability(client.resume()))


@main.group(cls=console.Group)
def calibrate() -> None:
    """Plan calibrations, and see what they found."""


@calibrate.command()
@click.option("--count", default=10, show_default=True, type=click.IntRange(1, 1000), help="How many windows.")
@console.config_option
@console.json_option
def plan(config: Path, count: int, as_json: bool) -> None:
    """Show the next windows.

    They come from the rules of the configuration and from operators; only the latter can be moved and taken back.
    """
    from warden import report  # noqa: PLC0415

    with _client(config) as client:
        ahead = client.plan(count)
    if as_json:
        console.print_json(report.plan_facts(ahead))
    else:
        click.echo(report.plan(ahead))


@calibrate.command()
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many windows.")
@console.config_option
@console.json_option
def history(config: Path, limit: int, as_json: bool) -> None:
    """Show past windows, held or missed, newest first."""
    from warden import report  # noqa: PLC0415

    with _client(config) as client:
        past = client.history(limit)
    if as_json:
        console.print_json([report.past_facts(one) for one in past])
    else:
        click.echo(report.history(past))


@calibrate.command(short_help="List what calibrations found, or show one with its log.")
@click.argument("number", metavar="[NUMBER]", required=False, type=console.NUMBER)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many calibrations.")
@console.config_option
@console.json_option
def results(config: Path, number: int | None, limit: int, as_json: bool) -> None:
    """List the calibrations that were carried out, newest first: what was found, and the quality before and after.

    With its NUMBER, one of them with its log.
    """
    from warden import report  # noqa: PLC0415

    with _client(config) as client:
        found = client.calibrations(limit if number is None else 1000)
    if number is not None:
        found = [one for one in found if one.id == number]
        if not found:
            raise console.Failure(f"no calibration {number} is kept: see `warden calibrate results`")
    if as_json:
        console.print_json(found if number is None else found[0])
    else:
        click.echo(report.calibrations(found) if number is None else report.calibration(found[0]))


@calibrate.command()
@click.option(
    "--in", "delay", type=_ANY, default="0s", show_default=True, metavar="DURATION", help="When it begins, from now."
)
@click.option(
    "--for",
    "length",
    type=console.Length(),
    required=True,
    metavar="DURATION",
    help="How long it takes, for instance 3min.",
)
@click.option("--reason", default="calibration", show_default=True, help="What users are told.")
@console.config_option
def add(config: Path, delay: int, length: int, reason: str) -> None:
    """Add a calibration window."""
    from warden.model import State  # noqa: PLC0415

    with _client(config) as client:
        # The broker knows best what now is.
        start = client.availability().time + delay if delay else None
        window = client.add_window(State.CALIBRATING, start=start, duration=length, reason=_reason(reason))
    click.echo(f"the QPU will be calibrated {_span(window)} (window {window.id})")


@calibrate.command()
@click.argument("window", metavar="WINDOW", type=console.NUMBER)
@click.option("--in", "delay", type=_ANY, required=True, metavar="DURATION", help="When it begins instead, from now.")
@click.option(
    "--for",
    "length",
    type=console.Length(),
    metavar="DURATION",
    help="How long it takes; without it: as long as before.",
)
@console.config_option
def move(config: Path, window: int, delay: int, length: int | None) -> None:
    """Have a window begin at another time.

    WINDOW is the number of one that was added, as `warden calibrate plan` shows it; those of rules stay where they are.
    """
    with _client(config) as client:
        start = client.availability().time + delay
        moved = client.move_window(window, start=start, duration=length)
    click.echo(f"moved: window {moved.id} is {_span(moved)}")


@calibrate.command()
@click.argument("window", metavar="WINDOW", type=console.NUMBER)
@console.config_option
def cancel(config: Path, window: int) -> None:
    """Take back a window.

    WINDOW is the number of one that was added, as `warden calibrate plan` shows it; those of rules stay.
    """
    with _client(config) as client:
        taken = client.cancel_window(window)
    click.echo(f"taken back: window {taken.id} {_span(taken)}")


@main.command()
@click.option("--all", "ended", is_flag=True, help="Those that have ended, too.")
@click.option(
    "--end", "job", type=console.Name(), metavar="JOB", help="End this job's session first: its tasks are cancelled."
)
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="How many.")
@click.option(
    "--before",
    type=console.Name(),
    metavar="SESSION",
    help="The next page: those older than this one (--json shows ids).",
)
@console.config_option
@console.json_option
def sessions(config: Path, ended: bool, job: str | None, limit: int, before: str | None, as_json: bool) -> None:
    """List the jobs that hold the QPU."""
    from warden import report  # noqa: PLC0415

    with _client(config) as client:
        if job is not None:
            _end_sessions(client, job)
        found = client.sessions(everybody=True, ended=ended, before=before, limit=limit)
    if as_json:
        console.print_json(found)
    else:
        click.echo(report.sessions(found))


@main.command(short_help="List everybody's tasks, or show one with its log.")
@click.argument("task", metavar="[TASK]", required=False, type=console.NUMBER)
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000), help="How many.")
@click.option("--before", metavar="TASK", type=console.NUMBER, help="The next page: those older than this one.")
@console.config_option
@console.json_option
def tasks(config: Path, task: int | None, limit: int, before: int | None, as_json: bool) -> None:
    """List everybody's tasks, newest first; or show one TASK with its log, and with --json its counts."""
    from warden import report  # noqa: PLC0415

    with _client(config) as client:
        if task is not None:
            one = client.task(task)
            return console.print_json(one) if as_json else click.echo(report.task(one, with_users=True))
        found = client.tasks(everybody=True, before=before, limit=limit)
    return console.print_json(found) if as_json else click.echo(report.tasks(found, with_users=True))


def _end_sessions(client: Client, job: str) -> None:
    found = client.sessions(everybody=True, job=job)
    for session in found:
        client.release(session.id, reason="ended by an operator")
        click.echo(f"the session of job {job} has ended", err=True)
    if not found:
        raise console.Failure(f"job {job} has no session: see `warden sessions`")


def _client(config: Path) -> Client:
    from warden.client import Client  # noqa: PLC0415
    from warden.config import load  # noqa: PLC0415

    return Client(config=load(config), timeout=5.0)


def _reason(text: str) -> str:
    most = 500  # of wire.Line
    if len(text) > most:
        raise click.BadParameter(f"it has {len(text)} characters, {most} are the most", param_hint="--reason")
    return text


def _span(window: Window) -> str:
    from warden import report  # noqa: PLC0415

    return report.span(window)
