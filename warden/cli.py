"""The operator's command: `warden`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from warden import console

if TYPE_CHECKING:
    from pathlib import Path

    from warden.client import Client
    from warden.model import Window


@click.group(cls=console.Group)
@click.version_option(package_name="gridengine-qpu")
def main() -> None:
    """Run the broker of a QPU and its worker; plan calibrations, drain, resume; see what happens."""


@main.command()
@console.config_option
def serve(config: Path) -> None:
    """Run the broker in the foreground; SIGTERM ends it."""
    from warden.broker import Broker  # noqa: PLC0415
    from warden.config import load  # noqa: PLC0415

    _log()
    settings = load(config)
    os.chdir("/")
    with Broker(settings) as broker:
        broker.serve()


@main.command()
@console.config_option
def worker(config: Path) -> None:
    """Run the worker beside the QPU in the foreground; SIGTERM ends it."""
    from warden.config import load  # noqa: PLC0415
    from warden.worker import Worker  # noqa: PLC0415

    _log()
    settings = load(config)
    os.chdir("/")
    with Worker(settings) as running:
        running.serve()


@main.command()
@console.config_option
def keys(config: Path) -> None:
    """Make the key pairs of the broker and its worker, where they are missing."""
    from warden import trust  # noqa: PLC0415
    from warden.config import load  # noqa: PLC0415

    made = trust.make_keys(load(config).broker.keys)
    for path in made:
        click.echo(f"made {path}")
    if not made:
        click.echo("all keys are there already")


@main.command()
@console.config_option
@console.json_option
def status(config: Path, as_json: bool) -> None:
    """Show what the QPU is doing, and what it will do next."""
    from warden import report  # noqa: PLC0415

    with _client(config) as client:
        answer = client.availability()
    if as_json:
        console.print_json(report.availability_facts(answer))
    else:
        click.echo(report.availability(answer))


@main.command()
@click.option("--reason", default="maintenance", show_default=True, help="What users are told.")
@click.option("--for", "length", metavar="DURATION", help="How long, for instance 2h; without it: until `resume`.")
@console.config_option
def drain(config: Path, reason: str, length: str | None) -> None:
    """Take the QPU out of service: the running task gives back the shots that it has, nothing new starts."""
    from warden.model import State  # noqa: PLC0415

    with _client(config) as client:
        window = client.add_window(State.MAINTENANCE, duration=_length(length), reason=_reason(reason))
    click.echo(f"the QPU is in maintenance {_span(window)}; `warden resume` ends it")


@main.command()
@console.config_option
def resume(config: Path) -> None:
    """End a maintenance."""
    from warden import report  # noqa: PLC0415

    with _client(config) as client:
        click.echo(report.availability(client.resume()))


@main.group(cls=console.Group)
def calibrate() -> None:
    """Plan calibrations: windows in which the QPU takes no task."""


@calibrate.command()
@click.option("--count", default=10, show_default=True, type=click.IntRange(1, 1000), help="How many windows.")
@console.config_option
@console.json_option
def plan(config: Path, count: int, as_json: bool) -> None:
    """Show the next windows, from the rules of the configuration and those that operators added."""
    from warden import report  # noqa: PLC0415

    with _client(config) as client:
        windows = client.plan(count)
    if as_json:
        console.print_json([report.window_facts(window) for window in windows])
    else:
        click.echo(report.windows(windows))


@calibrate.command()
@click.option("--in", "delay", default="0s", show_default=True, metavar="DURATION", help="When it begins, from now.")
@click.option("--for", "length", required=True, metavar="DURATION", help="How long it takes, for instance 3min.")
@click.option("--reason", default="calibration", show_default=True, help="What users are told.")
@console.config_option
def add(config: Path, delay: str, length: str, reason: str) -> None:
    """Add a calibration window."""
    from warden.model import State  # noqa: PLC0415

    with _client(config) as client:
        start = client.availability().time + (_duration(delay) or 0)
        window = client.add_window(State.CALIBRATING, start=start, duration=_length(length), reason=_reason(reason))
    click.echo(f"the QPU will be calibrated {_span(window)}")


@calibrate.command()
@click.argument("start", metavar="START")
@console.config_option
def cancel(config: Path, start: str) -> None:
    """Take back a window that was added; START as `warden calibrate plan` prints it."""
    from warden.model import clock  # noqa: PLC0415

    with _client(config) as client:
        matching = [window for window in client.plan(1000) if clock(window.start) == start]
        window = client.cancel_window(matching[0].start if matching else 0)
    click.echo(f"taken back: the window {_span(window)}")


@main.command()
@click.option("--all", "ended", is_flag=True, help="Those that have ended, too.")
@click.option("--end", "job", metavar="JOB", help="End this job's session first: its tasks are cancelled.")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000))
@console.config_option
@console.json_option
def sessions(config: Path, ended: bool, job: str | None, limit: int, as_json: bool) -> None:
    """List the jobs that hold the QPU."""
    from warden import report  # noqa: PLC0415

    with _client(config) as client:
        if job is not None:
            _end_sessions(client, job)
        found = client.sessions(everybody=True, ended=ended, limit=limit)
    if as_json:
        console.print_json(found)
    else:
        click.echo(report.sessions(found))


@main.command()
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 1000))
@console.config_option
@console.json_option
def tasks(config: Path, limit: int, as_json: bool) -> None:
    """List everybody's tasks, newest first."""
    from warden import report  # noqa: PLC0415

    with _client(config) as client:
        found = client.tasks(everybody=True, limit=limit)
    if as_json:
        console.print_json(found)
    else:
        click.echo(report.tasks(found, with_users=True))


def _end_sessions(client: Client, job: str) -> None:
    found = client.sessions(everybody=True, job=job)
    for session in found:
        client.release(session.id)
    if not found:
        raise console.Failure(f"job {job} has no session: see `warden sessions`")


def _client(config: Path) -> Client:
    from warden.client import Client  # noqa: PLC0415
    from warden.config import load  # noqa: PLC0415

    return Client(config=load(config), timeout=5.0)


def _duration(text: str | None) -> int | None:
    from warden.config import duration  # noqa: PLC0415

    if text is None:
        return None
    try:
        return duration(float(text) if text.replace(".", "", 1).isdecimal() else text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _length(text: str | None) -> int | None:
    length = _duration(text)
    if length == 0:
        raise click.BadParameter("it must be longer than 0", param_hint="--for")
    return length


def _reason(text: str) -> str:
    most = 500  # of wire.Line
    if len(text) > most:
        raise click.BadParameter(f"it has {len(text)} characters, {most} are the most", param_hint="--reason")
    return text


def _span(window: Window) -> str:
    from warden import report  # noqa: PLC0415

    return report.span(window)


def _log() -> None:
    import logging  # noqa: PLC0415
    import time  # noqa: PLC0415

    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(formatter)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
