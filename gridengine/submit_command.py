"""`qpu submit` and `qpu wait`: what a person sees of jobs on their way, and how to come back to them."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from gridengine import job_script
from gridengine.submission import JobLostError, JobTemplate, Session, SubmissionError
from gridengine.waiting import Books, Waiter
from warden import console
from warden.model import one_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from gridengine.submission import JobInfo, Progress

    Completed = Callable[[float | None, Callable[[Progress], None]], Iterator[JobInfo]]

# Seconds between two lines where they are not redrawn, as in a log.
_PLAIN_EVERY = 10.0
_SHOWN = 20
# Grid Engine's number for what it calls "searching requested shell"; it is the same for a program of a job.
_NO_COMMAND = "27"


def submit(
    command: tuple[str, ...],
    *,
    resources: Mapping[str, str],
    name: str | None,
    output: str | None,
    queue: str | None,
    native: str,
    array: str | None,
    wait: bool,
    as_json: bool,
) -> None:
    template, tasks = template_of(
        command, resources=resources, name=name, output=output, queue=queue, native=native, array=array
    )
    # The hosts on which it will run may have it: nothing is refused.
    if not template.script and shutil.which(template.command) is None:
        click.echo(
            f"{one_line(template.command)} cannot be run on this host: the job starts only where it can", err=True
        )
    with Session() as grid:
        if tasks is None:
            jobs = [grid.submit(template)]
            number, what = jobs[0].id, f"job {jobs[0].id} is submitted"
        else:
            jobs = grid.submit_array(template, tasks.first, tasks.last, tasks.step)
            number = jobs[0].id.partition(".")[0]
            what = f"job {number} is submitted, an array of {len(jobs)} tasks"
        if wait:
            click.echo(f"{what}; waiting for it", err=True)
            _follow(lambda timeout, watch: grid.completed(jobs, timeout, watch), [number], None, as_json=as_json)
    if as_json:
        console.print_json({"job": number} if tasks is None else {"job": number, "tasks": [job.id for job in jobs]})
    else:
        click.echo(f"{what}; `qpu why {number}` says why it waits, `qpu wait {number}` waits for it")


def template_of(
    command: tuple[str, ...],
    *,
    resources: Mapping[str, str],
    name: str | None = None,
    output: str | None = None,
    queue: str | None = None,
    native: str = "",
    array: str | None = None,
) -> tuple[JobTemplate, job_script.Tasks | None]:
    """Make a template, and the tasks if it is an array, of a command line and of the script that it names, if it does."""
    script = job_script.is_script(Path(command[0]))
    options = job_script.options(Path(command[0])) if script else []
    asked = job_script.requests([*options, *job_script.split(native)])
    template = JobTemplate(
        command=command[0],
        args=command[1:],
        script=script,
        # What the template asks for goes before what the script asks for.
        resources={**({} if "qpu" in asked else {"qpu": "1"}), **resources},
        name=name,
        output=output,
        queue=queue,
        native=native,
    )
    told = array or job_script.value_of("-t", options)
    return template, None if told is None else job_script.read_tasks(told)


def wait(names: tuple[str, ...], timeout: float | None, *, as_json: bool) -> None:
    books = Books()
    jobs = books.named([job_script.check_job(name) for name in names])
    _follow(
        lambda timeout, watch: Waiter(jobs, books, watch=watch).completed(timeout),
        list(names),
        timeout,
        as_json=as_json,
    )


def _follow(completed: Completed, names: list[str], timeout: float | None, *, as_json: bool) -> None:
    """Wait, tell of it, and end the command as the jobs have ended."""
    line = Line(sys.stderr)
    ended: list[JobInfo] = []
    lost: SubmissionError | None = None
    try:
        ended.extend(completed(timeout, line.show))
    except KeyboardInterrupt:
        line.end()
        click.echo(f"interrupted; what was submitted goes on: `qpu wait {' '.join(names)}` comes back to it", err=True)
        raise
    except JobLostError as error:
        lost = error
    finally:
        line.end()
    if as_json and ended:
        console.print_json(ended if len(ended) > 1 or lost else ended[0])
    elif len(ended) == 1 and ended[0].exit_status is None:
        raise console.Failure(told(ended))
    elif ended:
        click.echo(told(ended))
    if lost is not None:
        raise lost
    sys.exit(max(_status(info) for info in ended))


class Line:
    """How far the jobs have come: one line that is redrawn on a terminal, and now and then a line elsewhere."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._clock = clock
        self._shown = ""
        self._at = 0.0

    def show(self, progress: Progress) -> None:
        text = line(progress)
        if text == self._shown or progress.jobs == progress.ended:
            return
        if self._terminal:
            print(f"\r\033[K{text[: _columns()]}", end="", file=self._stream, flush=True)
        elif self._shown and self._clock() - self._at < _PLAIN_EVERY:
            return
        else:
            print(text, file=self._stream, flush=True)
        self._shown, self._at = text, self._clock()

    def end(self) -> None:
        """Leave the terminal as it was."""
        if self._terminal and self._shown:
            print("\r\033[K", end="", file=self._stream, flush=True)
        self._shown = ""


def line(progress: Progress) -> str:
    """Say how far the jobs have come."""
    failed = f" ({progress.failed} failed)" if progress.failed else ""
    unaccounted = f", {progress.unaccounted} not accounted yet" if progress.unaccounted else ""
    trouble = f"; {one_line(progress.trouble)}" if progress.trouble else ""
    return (
        f"{progress.waiting} waiting, {progress.running} running{unaccounted}, "
        f"{progress.ended} of {progress.jobs} ended{failed}{trouble}"
    )


def told(ended: list[JobInfo]) -> str:
    """Say how jobs ended: of many only those that failed, one by one."""
    if len(ended) == 1:
        info = ended[0]
        if info.exit_status is None:
            return f"job {info.id} did not end by itself: {_how(info)}"
        return f"job {info.id} ended with exit status {info.exit_status} after {info.wallclock:.1f} s"
    failed = [info for info in ended if not info.succeeded]
    text = f"{len(ended)} jobs ended: {len(ended) - len(failed)} succeeded, {len(failed)} failed"
    if not failed:
        return text
    rows = [(info.id, _how(info), info.wallclock) for info in failed[:_SHOWN]]
    more = [f"... and {len(failed) - _SHOWN} more: --json shows all"] if len(failed) > _SHOWN else []
    return "\n".join([text, console.table(rows, ("JOB", "ENDED", "SECONDS")), *more])


def _how(info: JobInfo) -> str:
    if info.exit_status is not None:
        return f"exit status {info.exit_status}"
    # Grid Engine's word for it, `27  : searching requested shell`: only its accounting has that.
    number, _, why = info.resource_usage.get("failed", "").partition(": ")
    if number.strip() == _NO_COMMAND:
        return "its command was not found there, or cannot be run"
    return info.signal or (f"it failed in {why}" if why else "it was deleted or never ran: is its command there?")


def _status(info: JobInfo) -> int:
    return 1 if info.exit_status is None else info.exit_status


def _columns() -> int:
    return shutil.get_terminal_size().columns - 1
