"""Job scripts and arrays, as far as we read them before Grid Engine does."""

from pathlib import Path

import pytest

from gridengine.job_script import Tasks, check_job, is_script, options, read_tasks, requests, value_of
from gridengine.submission import SubmissionError


def script(folder: Path, text: str, mode: int = 0o755) -> Path:
    path = folder / "job.sh"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("text", "mode", "is_one"),
    [
        ("#!/bin/sh\n#$ -N x\ntrue\n", 0o755, True),
        ("#!/bin/sh\ntrue\n", 0o755, False),
        ("#!/bin/sh\ntrue\n", 0o644, True),
        ("\x7fELF\0\n#$ -N x\n", 0o755, False),
        ("#!/bin/sh\necho '#$ -N x'\n", 0o755, False),
    ],
)
def test_a_script_is_known_by_its_lines_or_because_it_cannot_be_run(
    text: str, mode: int, is_one: bool, tmp_path: Path
) -> None:
    assert is_script(script(tmp_path, text, mode)) is is_one


def test_what_is_no_file_is_no_script(tmp_path: Path) -> None:
    assert not is_script(tmp_path)
    assert not is_script(tmp_path / "nosuch")


def test_options_are_read_as_qsub_reads_them(tmp_path: Path) -> None:
    words = options(
        script(tmp_path, "#!/bin/sh\n#$ -N x -l qpu=2,h_rt=60\n#$-t 1-3\n# $ -t 9\n#$ -v A='b c' -t 1-7:2\n")
    )
    assert words == ["-N", "x", "-l", "qpu=2,h_rt=60", "-t", "1-3", "-v", "A=b c", "-t", "1-7:2"]
    assert value_of("-t", words) == "1-7:2"
    assert value_of("-P", words) is None
    assert requests(words) == {"qpu", "h_rt"}


def test_quote_that_does_not_end_is_left_to_grid_engine(tmp_path: Path) -> None:
    assert options(script(tmp_path, "#$ -N it's\n")) == ["-N", "it's"]


def test_script_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SubmissionError, match=r"cannot read the job script .*nosuch: No such file"):
        options(tmp_path / "nosuch")


@pytest.mark.parametrize(
    ("text", "tasks"), [("1-100:2", Tasks(1, 100, 2)), ("1-100", Tasks(1, 100, 1)), ("7", Tasks(7, 7, 1))]
)
def test_tasks(text: str, tasks: Tasks) -> None:
    assert read_tasks(text) == tasks


@pytest.mark.parametrize("text", ["", "x", "1-", "0-5", "5-1", "1-5:0", "-1", "1-5:2:3", "1,2", "1" * 20])
def test_no_tasks(text: str) -> None:
    with pytest.raises(SubmissionError, match="array") as caught:
        read_tasks(text)
    assert "\n" not in caught.value.text


@pytest.mark.parametrize("name", ["", "x", "1.", ".1", "-7", "*", "1.2.3", "1-5", "1" * 20])
def test_no_job(name: str) -> None:
    assert check_job("12.3") == "12.3"
    with pytest.raises(SubmissionError, match="is no job"):
        check_job(name)
