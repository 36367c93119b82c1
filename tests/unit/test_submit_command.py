"""What a person sees of jobs that are waited for."""

import contextlib
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from gridengine import submit_command
from gridengine.job_info import JobInfo
from gridengine.job_script import Tasks
from gridengine.submit_command import Line, line, template_of, told
from gridengine.waiting import Progress


def info(job: str, status: int | None, signal: str = "") -> JobInfo:
    return JobInfo(id=job, exit_status=status, signal=signal, aborted=False, wallclock=1.25, resource_usage={})


class Stream(io.StringIO):
    def __init__(self, *, terminal: bool) -> None:
        super().__init__()
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def test_line_says_how_many_wait_run_and_have_ended() -> None:
    assert line(Progress(3, 2, 5, 0)) == "3 waiting, 2 running, 5 of 10 ended"
    assert line(Progress(3, 2, 5, 1)) == "3 waiting, 2 running, 5 of 10 ended (1 failed)"
    assert line(Progress(1, 0, 5, 0, unaccounted=2)) == "1 waiting, 0 running, 2 not accounted yet, 5 of 8 ended"
    assert (
        line(Progress(1, 0, 0, 0, trouble="no\nanswer\x1b[2J")) == "1 waiting, 0 running, 0 of 1 ended; no answer [2J"
    )


def test_terminal_has_one_line_that_is_redrawn_and_left_clean() -> None:
    stream = Stream(terminal=True)
    shown = Line(stream)
    for ended in (0, 0, 1, 2):
        shown.show(Progress(2 - ended, 0, ended, 0))
    shown.end()
    shown.end()
    assert stream.getvalue() == (
        "\r\033[K2 waiting, 0 running, 0 of 2 ended\r\033[K1 waiting, 0 running, 1 of 2 ended\r\033[K"
    )


def test_log_gets_a_line_now_and_then_and_no_control_characters() -> None:
    stream = Stream(terminal=False)
    now = [0.0]
    shown = Line(stream, lambda: now[0])
    for ended in range(30):
        shown.show(Progress(30 - ended, 0, ended, 0))
        now[0] += 1
    shown.end()
    lines = stream.getvalue().splitlines()
    assert [int(text.split(" ended")[0].split()[-3]) for text in lines] == [0, 10, 20]
    assert "\033" not in stream.getvalue()


@pytest.mark.parametrize(
    ("ended", "text"),
    [
        ([info("7", 3)], "job 7 ended with exit status 3 after 1.2 s"),
        ([info("7", None, "SIGKILL")], "job 7 did not end by itself: SIGKILL"),
        ([info("7", None)], "job 7 did not end by itself: it was deleted or never ran: is its command there?"),
        ([info("7", 0), info("8", 0)], "2 jobs ended: 2 succeeded, 0 failed"),
    ],
)
def test_ends_in_one_line(ended: list[JobInfo], text: str) -> None:
    assert told(ended) == text


def test_of_many_jobs_those_that_failed_are_named() -> None:
    text = told([info("7.1", 0), info("7.2", 5), info("7.3", None, "SIGTERM")])
    assert text.splitlines() == [
        "3 jobs ended: 1 succeeded, 2 failed",
        "JOB  ENDED          SECONDS",
        "7.2  exit status 5      1.2",
        "7.3  SIGTERM            1.2",
    ]
    many = told([info(str(job), 1) for job in range(100)]).splitlines()
    assert len(many) == 23
    assert many[-1] == "... and 80 more: --json shows all"


def test_program_gets_one_qpu_unless_it_asks_for_more() -> None:
    template, tasks = template_of(("qpu", "run"), resources={"h_rt": "60"})
    assert (template.script, template.args, tasks) == (False, ("run",), None)
    assert template.resources == {"qpu": "1", "h_rt": "60"}
    assert template_of(("qpu",), resources={"qpu": "2"})[0].resources == {"qpu": "2"}
    assert template_of(("qpu",), resources={}, native="-r y -l qpu=3")[0].resources == {}


def test_what_a_script_asks_for_itself_is_left_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "scan.sh"
    script.write_text("#$ -l h_rt=60\n")
    template, tasks = template_of(("scan.sh", "a"), resources={})
    assert (template.script, template.resources, template.args, tasks) == (True, {"qpu": "1"}, ("a",), None)
    script.write_text("#$ -l h_rt=60,qpu=2\n#$ -t 1-9:2\n")
    template, tasks = template_of(("scan.sh",), resources={})
    assert (template.resources, tasks) == ({}, Tasks(1, 9, 2))
    assert template_of(("scan.sh",), resources={}, array="3")[1] == Tasks(3, 3)


def said_at_submission(*command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    class Grid(contextlib.nullcontext[Any]):
        def __enter__(self) -> Any:
            return SimpleNamespace(submit=lambda _: SimpleNamespace(id="7"))

    monkeypatch.setattr(submit_command, "Session", Grid)
    options: Any = {"name": None, "output": None, "queue": None, "native": "", "array": None}
    submit_command.submit(command, resources={}, wait=False, as_json=False, **options)
    told = capsys.readouterr()
    assert told.out.startswith("job 7 is submitted")
    return told.err


def test_who_submits_a_program_that_is_not_here_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scan.sh").write_text("#$ -l h_rt=60\n")

    def said(*command: str) -> str:
        return said_at_submission(*command, monkeypatch=monkeypatch, capsys=capsys)

    assert said("nosuch", "sh") == "nosuch cannot be run on this host: the job starts only where it can\n"
    assert said("./nosuch").startswith("./nosuch cannot be run on this host: ")
    assert said("sh", "-c", "nosuch") == said("/bin/sh") == said("scan.sh") == ""


def test_a_job_that_could_not_be_started_says_what_failed() -> None:
    failed = {"failed": "28  : changing into working directory"}
    lost = JobInfo(id="7", exit_status=None, signal="", aborted=True, wallclock=0.0, resource_usage=failed)
    assert told([lost]) == "job 7 did not end by itself: it failed in changing into working directory"
    lost = msgspec.structs.replace(lost, resource_usage={"failed": "27  : searching requested shell"})
    assert told([lost]) == "job 7 did not end by itself: its command was not found there, or cannot be run"
    assert told([info("7", None)]) == "job 7 did not end by itself: it was deleted or never ran: is its command there?"
