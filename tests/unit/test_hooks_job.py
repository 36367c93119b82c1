"""A job as a hook sees it, without Grid Engine: what of its spool is believed, what is written there, and its starts."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import msgspec
import pytest
from hook_spool import CONFIG, ENVIRONMENT, LIMIT, OWNER, Spool
from hypothesis import given
from hypothesis import strategies as st

from gridengine import qstat_xml
from gridengine.hooks import guard, job
from gridengine.hooks.job import HookError, HookJob
from warden import wire
from warden.model import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


# --- the job and its spool ---


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


def test_job_is_what_arguments_and_spool_say(spool: Spool) -> None:
    found = spool.job()
    assert (found.name, found.owner, found.uid, found.task) == ("7", OWNER.pw_name, OWNER.pw_uid, "")
    assert found.cell == {"SGE_ROOT": "/sge", "SGE_CELL": "default"}
    assert spool.job(task="undefined").name == "7"


def test_task_of_an_array_has_a_name_of_its_own(tmp_path: Path) -> None:
    assert Spool(tmp_path, "7.3").job(task="3").name == "7.3"


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("7", "0", OWNER.pw_name),
        ("7", "0", OWNER.pw_name, "node1", "x"),
        ("", "0", OWNER.pw_name, "node1"),
        ("7\n", "0", OWNER.pw_name, "node1"),
        ("../7", "0", OWNER.pw_name, "node1"),
        ("-7", "0", OWNER.pw_name, "node1"),
        ("\u0667", "0", OWNER.pw_name, "node1"),
        ("7", "x", OWNER.pw_name, "node1"),
        ("7", "2", OWNER.pw_name, "node1"),
        ("8", "0", OWNER.pw_name, "node1"),
        ("7", "0", "nobody-at-all", "node1"),
        ("7", "0", "root", "node1"),
        ("$job_id", "$ja_task_id", "$job_owner", "$host"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(spool: Spool, arguments: tuple[str, ...]) -> None:
    with pytest.raises(HookError):
        HookJob.read(arguments, {"SGE_JOB_SPOOL_DIR": str(spool.folder)})


@pytest.mark.parametrize("place", [None, "", "7.1", "/", "/nonexistent/7.1", "/proc/self/7.1"])
def test_spool_that_is_none_is_refused(place: str | None) -> None:
    environment = {} if place is None else {"SGE_JOB_SPOOL_DIR": place}
    with pytest.raises(HookError):
        HookJob.read(("7", "0", OWNER.pw_name, "node1"), environment)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "job_id=7\n",
        f"job_owner={OWNER.pw_name}\n",
        f"job_id=8\njob_owner={OWNER.pw_name}\n",
        "job_id=7\njob_owner=root\n",
        f" job_id=7\njob_owner={OWNER.pw_name}\n",
    ],
)
def test_spool_of_another_job_is_refused(spool: Spool, text: str) -> None:
    spool.config.write_text(text)
    with pytest.raises(HookError):
        spool.job()


def test_broken_utf8_in_a_spool_is_no_reason_to_fail(spool: Spool) -> None:
    spool.config.write_bytes(CONFIG.format(owner=OWNER.pw_name).encode() + b"job_args=\xff\xfe\n")
    spool.environment.write_bytes(b"X=\xff\n")
    assert not spool.job().exported("WARDEN_ENDPOINT")


Trick = "Callable[[Path], None]"


def _link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def _hard_link(path: Path) -> None:
    os.link(path, path.with_name("elsewhere"))


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _missing(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("trick", [_link, _hard_link, _fifo, _folder, _missing])
@pytest.mark.parametrize("name", ["config", "environment"])
def test_files_that_grid_engine_did_not_make_are_neither_read_nor_written(
    spool: Spool, name: str, trick: Callable[[Path], None]
) -> None:
    found = spool.job()
    trick(spool.folder / name)
    if name == "config":
        with pytest.raises(HookError):
            spool.job()
    else:
        with pytest.raises(HookError):
            found.export({"A": "1"})
        with pytest.raises(HookError):
            found.exported("A")


def test_spool_behind_a_link_is_refused(spool: Spool, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "7.1").symlink_to(spool.folder)
    spool.folder = other / "7.1"
    with pytest.raises(HookError):
        spool.job()


def test_spool_of_the_jobs_owner_is_refused(spool: Spool) -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    spool.config.write_text(CONFIG.format(owner=me))
    with pytest.raises(HookError, match="belongs to the job's owner"):
        spool.job(owner=me)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_only_the_reason_may_stand_in_a_file_of_the_jobs_owner(spool: Spool) -> None:
    for path in (spool.environment, spool.error):
        os.chown(path, OWNER.pw_uid, OWNER.pw_gid)
    with pytest.raises(HookError):
        spool.job().export({"A": "1"})
    spool.job().explain("why")
    assert spool.error.read_text() == "why\n"


def test_export_appends_in_place(spool: Spool) -> None:
    before = spool.environment.stat()
    spool.job().export({"A": "1", "B": 'x=y "z" $HOME ü'})
    assert spool.environment.read_text() == ENVIRONMENT + 'A=1\nB=x=y "z" $HOME ü\n'
    after = spool.environment.stat()
    assert (after.st_ino, after.st_uid, after.st_mode) == (before.st_ino, before.st_uid, before.st_mode)
    assert spool.job().exported("A")
    assert not spool.job().exported("HOM")


def test_export_after_half_a_line_begins_a_new_one(spool: Spool) -> None:
    spool.environment.write_text("HALF=1")
    spool.job().export({"A": "1"})
    assert spool.environment.read_text() == "HALF=1\nA=1\n"


@pytest.mark.parametrize("room", [0, 1, 5])
def test_export_without_room_leaves_the_environment_as_it_was(spool: Spool, room: int) -> None:
    # A limit on the size of files is a full disk that a test can have.
    program = f"""
import os, resource, sys
from pathlib import Path
from gridengine.hooks.job import HookJob, HookError
job = HookJob.read(("7", "0", {OWNER.pw_name!r}, "node1"), {{"SGE_JOB_SPOOL_DIR": sys.argv[1]}})
resource.setrlimit(resource.RLIMIT_FSIZE, ({len(ENVIRONMENT) + room},) * 2)
try:
    job.export({{"LONG": "x" * 100}})
except HookError as error:
    print(error.text)
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(spool.folder)], capture_output=True, text=True, check=True, timeout=LIMIT
    )
    assert str(spool.folder) in done.stdout
    assert spool.environment.read_text() == ENVIRONMENT


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "1"),
        ("1A", "1"),
        ("A B", "1"),
        ("A=B", "1"),
        ("A\n", "1"),
        ("Ä", "1"),
        ("A", "1\n2"),
        ("A", "1\r"),
        ("A", "\0"),
        ("A", "\x1b[31m"),
        ("A", "\u2028"),
        ("A", "two\\nlines"),
        ("A", "\udc80"),
        ("A", "x" * 9998),
    ],
)
def test_what_cannot_be_in_an_environment_is_refused(spool: Spool, name: str, value: str) -> None:
    with pytest.raises(HookError):
        spool.job().export({"GOOD": "1", name: value})
    assert spool.environment.read_text() == ENVIRONMENT


def test_longest_line_that_grid_engine_reads_is_taken() -> None:
    assert len(job._line("A", "x" * 9997)) == 10000


@pytest.mark.parametrize("value", ["00", "0x0", "0k", "0.5", "-1", "+0", "1.5", "", "INFINITY"])
def test_request_that_books_no_whole_place_is_the_jobs_error(value: str) -> None:
    with pytest.raises(BadRequestError, match="whole place") as caught:
        job.asks_for("qpu", {"qpu": value})
    assert guard.exit_status(caught.value) == guard.JOB_ERROR


def test_only_requests_of_at_least_one_ask() -> None:
    requests = {"one": "1", "on_sge": "1.000000", "zero": "0", "zero_on_sge": "0.000000"}
    assert [name for name in (*requests, "other") if job.asks_for(name, requests)] == ["one", "on_sge"]


class Qmaster:
    """What the qmaster says of a job, whoever asks, and what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.owner, self.asked = OWNER.pw_name, []
        monkeypatch.setattr("gridengine.jobs.detail", self._detail)

    def _detail(self, number: str, *, environment: dict[str, str], limit: float) -> qstat_xml.Job:
        self.asked.append((number, environment, limit))
        return qstat_xml.Job(id=7, owner=self.owner, name="x", state="", requests={"qpu": "1"}, reasons=())


def test_the_qmaster_is_asked_once_in_the_cell_that_grid_engine_names(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    qmaster = Qmaster(monkeypatch)
    assert spool.job().look_up(limit=3).requests == {"qpu": "1"}
    assert qmaster.asked == [("7", {"SGE_ROOT": "/sge", "SGE_CELL": "default"}, 3)]


def test_job_that_passes_itself_off_as_another_users_is_its_own_error(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On SGE 8.1.9: job.sh $'\njob_owner=nobody', and the same in a path, so that all of `config` agrees.
    Qmaster(monkeypatch).owner = "mallory"
    with pytest.raises(BadRequestError, match=f"job 7 is mallory's and was about to run as {OWNER.pw_name}") as caught:
        spool.job().look_up(limit=3)
    assert guard.exit_status(caught.value) == guard.JOB_ERROR


@pytest.mark.parametrize("place", ["before", "after"])
def test_lines_that_a_job_adds_to_its_config_change_nothing(spool: Spool, place: str) -> None:
    genuine = spool.config.read_text()
    forged = "queue=production\nacct_project=production\nhost=evil\njob_id=8\njob_owner=root\n"
    spool.config.write_text(forged + genuine if place == "before" else genuine + forged)
    found = spool.job()
    assert (found.queue, found.host, found.name) == ("all.q", "node1", "7")


# --- one start of a job and the next ---


def test_a_start_has_a_name_that_stays_while_the_job_writes_what_it_can(spool: Spool) -> None:
    start = spool.job().start
    assert 0 < len(start) <= 64
    spool.job().export({"A": "1"})
    spool.job().explain("why")
    # A backup, a new owner: no new start.
    spool.config.chmod(0o600)
    assert spool.job().start == start


def test_another_start_has_another_name(spool: Spool) -> None:
    first = spool.job().start
    found = spool.config.stat()
    shutil.rmtree(spool.folder)
    again = Spool(spool.folder.parent)
    second = again.job().start
    assert second != first
    # The clock may be coarse, and the inode the same again: one of them suffices, and so does the host.
    os.utime(again.config, ns=(found.st_atime_ns, found.st_mtime_ns + 1))
    assert again.job().start not in {first, second}
    environment = {"SGE_JOB_SPOOL_DIR": str(again.folder)}
    names = {HookJob.read(("7", "0", OWNER.pw_name, host), environment).start for host in ("node1", "node2")}
    assert len(names) == 2


def test_start_on_a_host_with_a_long_name_is_what_warden_takes(spool: Spool) -> None:
    environment = {"SGE_JOB_SPOOL_DIR": str(spool.folder)}
    start = HookJob.read(("7", "0", OWNER.pw_name, "n" * 255), environment).start
    assert len(start) == 64
    assert msgspec.convert(start, wire.Token) == start


@given(
    before=st.binary(max_size=50).map(lambda data: data.replace(b"\0", b"")),
    variables=st.dictionaries(st.text(max_size=8), st.text(max_size=40), max_size=4)
    | st.dictionaries(st.from_regex(r"[A-Z_]{1,5}", fullmatch=True), st.text("ab =\\n\n", max_size=8), max_size=4),
)
def test_export_leaves_whole_lines_and_all_that_was_there(
    tmp_path_factory: pytest.TempPathFactory, before: bytes, variables: dict[str, str]
) -> None:
    spool = Spool(tmp_path_factory.mktemp("spool"))
    spool.environment.write_bytes(before)
    try:
        spool.job().export(variables)
    except HookError:
        assert spool.environment.read_bytes() == before
        return
    after = spool.environment.read_bytes()
    assert after.startswith(before)
    added = after[len(before) :].decode()
    assert (before + added.encode()).endswith(b"\n") or not variables
    lines = [line for line in added.split("\n") if line]
    assert lines == [f"{name}={value}" for name, value in variables.items()]
    assert all(re.match(r"[A-Za-z_][A-Za-z0-9_]*=", line) for line in lines)
