"""The researcher's command: `qpu`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from warden import console
from warden.model import WardenError

if TYPE_CHECKING:
    from warden.client import Client
    from warden.model import Task


def _complete_names(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """For a shell: the QPUs of the site."""
    from gridengine import site  # noqa: PLC0415
    from warden.config import default_path  # noqa: PLC0415

    with contextlib.suppress(WardenError):
        return [offer.name for offer in site.load(default_path()).offers if offer.name.startswith(incomplete)]
    return []


qpu_option = click.option(
    "--qpu",
    "name",
    metavar="NAME",
    shell_complete=_complete_names,
    help="Which QPU, where the site has several.",
)


@click.group(cls=console.Group)
@click.version_option(package_name="gridengine-qpu")
def qpu() -> None:
    """Run Pulser sequences on the QPU, inside a job and from outside: submit, watch, understand why a job waits."""


@qpu.command()
@qpu_option
@console.json_option
def status(name: str | None, as_json: bool) -> None:
    """Show what the QPU is doing, and what it will do next.

    Of several, all: with --json as a list. In a job, the QPU that the job has.
    """
    from gridengine import reach  # noqa: PLC0415
    from warden import report  # noqa: PLC0415

    answers, failures = [], {}
    doors = reach.doors(name)
    for door in doors:
        try:
            with door.open() as client:
                answers.append(client.availability())
        except WardenError as error:
            failures[door.name] = error
    if not answers:
        raise next(iter(failures.values()))
    if as_json:
        facts = [report.availability_facts(answer) for answer in answers]
        facts += [{"name": name, "state": "unknown", "reason": error.text} for name, error in failures.items()]
        console.print_json(facts if len(doors) > 1 else facts[0])
    else:
        shown = [report.availability(answer) for answer in answers]
        shown += [
            report.labelled((("QPU", name), ("state", f"unknown ({error.text})"))) for name, error in failures.items()
        ]
        click.echo("\n\n".join(shown))


@qpu.command()
@click.argument("sequence", metavar="SEQUENCE.json", shell_complete=console.complete_files)
@click.option("--shots", default="100", show_default=True, metavar="N", help="How often the sequence is run.")
@click.option(
    "--within", type=console.Length(), metavar="DURATION", help="Give up if it is not done so soon, for instance 30min."
)
@click.option("--output", type=click.Path(path_type=Path), help="Write the counts to this file, as JSON.")
@click.option(
    "--bitstrings", type=click.Path(path_type=Path), help="Write the shots to this file, in their order, a line each."
)
@console.json_option
def run(
    sequence: str, shots: str, within: int | None, output: Path | None, bitstrings: Path | None, as_json: bool
) -> None:
    """Run a sequence and print the counts. This works in a job that asked for a QPU: qsub -l qpu=1.

    SEQUENCE.json holds what `Sequence.to_abstract_repr()` of Pulser returns; - reads it from stdin.
    """
    from warden import report  # noqa: PLC0415
    from warden.client import Client, QuantumResource  # noqa: PLC0415
    from warden.model import SECOND  # noqa: PLC0415

    text, number = _read(sequence), _shots(shots)
    # The QPU's time must not be spent on results that cannot be kept.
    if output is not None:
        _write(output, "")
    if bitstrings is not None:
        _write(bitstrings, "", "shots")
    keep = bitstrings is not None
    with Client(endpoint=os.environ.get("WARDEN_ENDPOINT")) as client:
        resource = QuantumResource(client=client)
        task = resource.task_start(text, number, within=None if within is None else within / SECOND, bitstrings=keep)
        try:
            counts = resource.wait(task, watch=_progress(client) if sys.stderr.isatty() else None)
        except KeyboardInterrupt:
            resource.task_stop(task)
            raise
        if output is not None:
            _write(output, json.dumps(counts) + "\n")
        in_order = resource.task_bitstrings(task) if keep else None
        metadata = resource.task_metadata(task) if as_json else {}
    if bitstrings is not None and in_order is not None:
        _write_shots(bitstrings, in_order)
    if as_json:
        facts = {"task": int(task), "shots": number, "counts": counts, "metadata": metadata}
        console.print_json(facts if in_order is None else {**facts, "bitstrings": in_order})
    else:
        click.echo(report.histogram(counts))


@qpu.command(context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, shell_complete=console.complete_files)
@click.option("-l", "resources", multiple=True, metavar="NAME=VALUE", help="Ask for more: -l h_rt=0:10:00.")
@click.option("--name", help="The job's name.")
@click.option("--output", metavar="FILE", help="Where the job's output goes; with --array it needs $TASK_ID.")
@click.option("--queue", help="Only this queue.")
@click.option("--array", metavar="FIRST-LAST[:STEP]", help="Submit an array: each task has its number in SGE_TASK_ID.")
@click.option("--native", default="", metavar="OPTIONS", help="Further options of qsub: --native '-r y -P project'.")
@click.option("--wait", is_flag=True, help="Wait for it, and exit with its status; of an array, the highest.")
@console.json_option
def submit(
    command: tuple[str, ...],
    resources: tuple[str, ...],
    name: str | None,
    output: str | None,
    queue: str | None,
    array: str | None,
    native: str,
    wait: bool,
    as_json: bool,
) -> None:
    """Submit COMMAND as a job with one QPU, through DRMAA.

    For instance: qpu submit -- qpu run sequence.json --shots 200

    A file with lines that begin with #$, or one that cannot be run, is a job script: what these lines ask for counts as
    with qsub, and where they ask for qpu themselves, so does that. For instance: qpu submit --array 1-100:2 scan.sh
    """
    from gridengine import submit_command  # noqa: PLC0415

    submit_command.submit(
        command,
        resources=dict(map(_request, resources)),
        name=name,
        output=output,
        queue=queue,
        native=native,
        array=array,
        wait=wait,
        as_json=as_json,
    )


@qpu.command("wait", short_help="Wait for your jobs, and exit with their status.")
@click.argument("jobs", metavar="JOB...", nargs=-1, required=True)
@click.option("--within", type=console.Length(), metavar="DURATION", help="Wait no longer, for instance 30min.")
@console.json_option
def wait_for(jobs: tuple[str, ...], within: int | None, as_json: bool) -> None:
    """Wait for your jobs, however they were submitted, and exit with their status: of several, the highest.

    JOB is a job's number, or JOB.TASK. Of jobs that are over Grid Engine's accounting tells.
    """
    from gridengine import submit_command  # noqa: PLC0415
    from warden.model import SECOND  # noqa: PLC0415

    submit_command.wait(jobs, None if within is None else within / SECOND, as_json=as_json)


@qpu.command(short_help="Say why a job waits, when it can start, what to do.")
@click.argument("job", metavar="JOB")
@console.json_option
def why(job: str, as_json: bool) -> None:
    """Say why a job waits, when it can start, and what you can do; or what it does, or how it ended.

    From both sides: what Grid Engine says of the job, and what the QPU is doing. JOB is a job's number; of JOB.TASK the
    whole array is told.
    """
    from gridengine import accounting, qstat_xml  # noqa: PLC0415
    from gridengine.why import answer, facts, report  # noqa: PLC0415

    try:
        job = re.sub(r"^(\d+)\.\d+$", r"\1", job)
        told = answer.explain(facts.gather(job))
    except qstat_xml.NoSuchJobError:
        ended = accounting.last_record(job)
        if ended is None:
            raise
        return console.print_json(ended) if as_json else click.echo(accounting.ended(ended))
    return console.print_json(report.facts(told)) if as_json else click.echo(report.text(told))


@qpu.command(short_help="List your tasks, or show one with its log.")
@click.argument("task", metavar="[TASK]", required=False)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 1000), help="How many.")
@click.option("--before", metavar="TASK", type=console.NUMBER, help="The next page: those older than this one.")
@click.option(
    "--bitstrings", type=click.Path(path_type=Path), help="Write the shots of TASK to this file, in their order."
)
@qpu_option
@console.json_option
def tasks(
    task: str | None, limit: int, before: int | None, bitstrings: Path | None, name: str | None, as_json: bool
) -> None:
    """List your tasks, newest first; or show one TASK with its log, and with --json its counts.

    The shots of a task in their order are there if they were asked for with it: qpu run --bitstrings.
    """
    from gridengine import reach  # noqa: PLC0415
    from warden import report  # noqa: PLC0415
    from warden.client import task_number  # noqa: PLC0415

    if task is not None:
        number = task_number(task)
        with reach.door(name, _EACH).open() as client:
            one = client.task(number)
            if bitstrings is not None:
                _write_shots(bitstrings, client.bitstrings(number))
        return console.print_json(one) if as_json else click.echo(report.task(one))
    if bitstrings is not None:
        raise click.UsageError("say whose shots: qpu tasks TASK --bitstrings FILE")
    doors = (reach.door(name, _EACH),) if as_json or before is not None else reach.doors(name)
    failure = None
    for door in doors:
        try:
            with door.open() as client:
                found = client.tasks(limit=limit, before=before)
        except WardenError as error:
            # The others' tasks are shown all the same.
            failure = error
            continue
        if as_json:
            console.print_json(found)
        else:
            click.echo((f"{door.name}:\n" if len(doors) > 1 else "") + report.tasks(found))
    if failure is not None:
        raise failure
    return None


@qpu.command()
@click.argument("task", metavar="TASK")
@qpu_option
def cancel(task: str, name: str | None) -> None:
    """Stop a task of yours, whether it waits or runs."""
    from gridengine import reach  # noqa: PLC0415
    from warden.client import task_number  # noqa: PLC0415

    number = task_number(task)
    with reach.door(name, _EACH).open() as client:
        stopped = client.task_stop(number)
    click.echo(f"task {stopped.id} is {stopped.status}")


_EACH = "each QPU of this site has tasks of its own"


def _read(path: str) -> str:
    name = "on standard input" if path == "-" else path
    try:
        # As bytes: how Python reads text from standard input depends on the user's locale.
        return (sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()).decode("utf-8")
    except OSError as error:
        raise console.Failure(f"cannot read the sequence {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise console.Failure(f"the sequence {name} is no text: write it with Sequence.to_abstract_repr()") from None


def _shots(text: str) -> int:
    from warden.client import check_shots  # noqa: PLC0415

    try:
        return check_shots(int(text))
    except ValueError:
        raise console.Failure(f"shots must be a whole number of at least 1, not {text!r}") from None


def _write(path: Path, text: str, what: str = "counts") -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise console.Failure(f"cannot write the {what} to {path}: {error.strerror}") from None


def _write_shots(path: Path, shots: list[str]) -> None:
    _write(path, "".join(f"{bits}\n" for bits in shots), "shots")


def _progress(client: Client) -> Any:
    """A line on the terminal that follows the task."""
    from warden import report  # noqa: PLC0415

    answer = None
    # The task is queued: that its Warden is away just now must not end the waiting.
    with contextlib.suppress(WardenError):
        answer = client.availability()

    def show(task: Task) -> None:
        end = "\n" if task.status.final else ""
        click.echo(f"\r\033[K{report.task_line(task, answer)}{end}", nl=False, err=True)

    return show


def _request(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals or not value:
        raise click.BadParameter(f"{text!r} is not NAME=VALUE", param_hint="-l")
    return name, value
