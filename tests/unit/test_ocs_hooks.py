"""Hooks in spools and environments as OCS made them: what it says of a request, and what it takes into its account."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import pytest
from gridengine_samples import SAMPLES, calls
from hook_spool import OWNER, Spool, in_qmaster

from gridengine import commands, jobs, qstat_xml
from gridengine.hooks import epilog, prolog
from gridengine.hooks.guard import Guard
from gridengine.hooks.job import HookError, HookJob
from gridengine.resources import Flavour
from warden.model import SECOND, Session

if TYPE_CHECKING:
    from pathlib import Path

OCS = SAMPLES / "ocs"
USAGE = (OCS / "epilog_spool_usage.txt").read_text()


class World:
    """OCS as the hooks see it: its version, and a qmaster that knows what the job asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.requests: dict[str, str] = {}
        self.questions = 0
        self.granted: list[str] = []
        monkeypatch.setattr(jobs, "detail", self._detail)
        monkeypatch.setattr(commands, "version", lambda _: commands.Version(Flavour.OCS, "9.2.0"))
        monkeypatch.setattr(prolog, "grant", lambda job, *_: self.granted.append(job.name))

    def _detail(self, *_: object, **__: object) -> qstat_xml.Job:
        self.questions += 1
        return in_qmaster(requests=self.requests)

    def serve(self, job: HookJob) -> bool:
        """Whether the prolog gives the job a session."""
        self.granted.clear()
        prolog.serve(job, Guard("qpu-prolog", on_expiry=99))
        return bool(self.granted)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def variables(name: str) -> dict[str, str]:
    text = (OCS / name).read_text().partition("# environment file")[0]
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and line[0] != "#")


def spool_of(folder: Path, name: str, environment: str) -> Spool:
    """A spool as it was captured, but that the job is nobody's, who has an account on this host."""
    spool = Spool(folder, name)
    number, _, task = name.partition(".")
    config = (OCS / "prolog_spool_config.txt").read_text()
    config = config.replace("job_owner=alice", f"job_owner={OWNER.pw_name}").replace("job_id=1\n", f"job_id={number}\n")
    spool.config.write_text(config.replace("ja_task_id=0", f"ja_task_id={task if task != '1' else 0}"))
    spool.environment.write_text(environment)
    return spool


@pytest.mark.parametrize("sample", ["prolog_env.txt", "epilog_env.txt", "prolog_env_spoofed_by_user.txt"])
def test_a_job_is_known_by_what_ocs_puts_into_the_hook_s_environment(tmp_path: Path, sample: str) -> None:
    found = variables(sample)
    number = found["SGE_JOB_SPOOL_DIR"].rpartition("/")[2].partition(".")[0]
    spool = spool_of(tmp_path, f"{number}.1", (OCS / "prolog_spool_environment.txt").read_text())
    found["SGE_JOB_SPOOL_DIR"] = str(spool.folder)
    job = HookJob.read((number, "0", OWNER.pw_name, "ocsvm"), found)
    assert (job.name, job.queue, job.host) == (number, "all.q", "ocsvm")
    assert job.cell == {name: found[name] for name in ("SGE_ROOT", "SGE_CELL", "SGE_QMASTER_PORT", "SGE_EXECD_PORT")}
    assert job.exported("SGE_HGR_qpu") == "1.000000"


STARTED = re.findall(
    r"^## (?P<what>[^\n]*): qsub (?P<asked>[^\n]*?) *-> job (?P<job>\d+)\n(?P<said>(?:\w+=[^\n]*\n)+)",
    (OCS / "prolog_SGE_HGR_cases.txt").read_text(),
    re.MULTILINE,
)


def test_all_cases_that_started_are_there() -> None:
    assert [case[2] for case in STARTED] == ["4", "5", "10", "11", "12", "13", "14", "15"]


@pytest.mark.parametrize("case", STARTED, ids=[f"{job}: {asked}" for _, asked, job, _ in STARTED])
def test_what_was_asked_for_is_seen_as_ocs_says_it(tmp_path: Path, world: World, case: tuple[str, ...]) -> None:
    _, asked, number, said = case
    found = re.search(r"-l (\S+)", asked)
    world.requests = dict(part.split("=") for part in found[1].split(",")) if found else {}
    shown = dict(line.split("=", 1) for line in said.splitlines())
    spool = spool_of(tmp_path, shown["SGE_JOB_SPOOL_DIR"].rpartition("/")[2], said)
    job = spool.job(number=number, task=shown["SGE_TASK_ID"])
    assert world.serve(job) is ("qpu" in world.requests)
    # Others cost the qmaster no question.
    assert world.questions == ("qpu" in world.requests)
    assert job.task == ("3" if number == "11" else "")


HOSTILE = {
    "as captured": (OCS / "prolog_env_spoofed_by_user.txt").read_text().partition("# environment file\n")[2],
    "99": "SGE_HGR_qpu=99\n",
    "empty": "SGE_HGR_qpu=\n",
    "nan": "SGE_HGR_qpu=nan\n",
    "inf": "SGE_HGR_qpu=inf\n",
    "negative": "SGE_HGR_qpu=-1\n",
    "words": "SGE_HGR_qpu=$(reboot) `reboot`\n",
    "twice": "SGE_HGR_qpu=1.000000\nSGE_HGR_qpu=0\n",
    "long": f"SGE_HGR_qpu={'9' * 9000}\n",
    "no equals sign": "SGE_HGR_qpu\nSGE_HGR_qpu=1.000000\n",
    "bytes": "SGE_HGR_qpu=\udcff\udcfe\x01\n",
    "no end": "SGE_HGR_qpu=1",
}


@pytest.mark.parametrize("environment", HOSTILE.values(), ids=HOSTILE)
def test_what_a_job_says_of_itself_gives_it_nothing(tmp_path: Path, world: World, environment: str) -> None:
    """The qmaster's word counts: whoever asked for nothing gets nothing, and whoever asked gets one place."""
    spool = spool_of(tmp_path, "7.1", "")
    spool.environment.write_bytes(environment.encode(errors="surrogateescape"))
    assert world.serve(spool.job()) is False
    assert world.questions == 1
    world.requests = {"qpu": "1"}
    assert world.serve(spool.job()) is True


@pytest.mark.parametrize(
    "environment", ["SGE_HGR_qpu\n", "XSGE_HGR_qpu=1\n", "X=1\\nSGE_HGR_qpu=1\n", "sge_hgr_qpu=1\n"]
)
def test_what_is_no_such_variable_is_none(tmp_path: Path, world: World, environment: str) -> None:
    spool = spool_of(tmp_path, "7.1", environment)
    assert world.serve(spool.job()) is False
    assert world.questions == 0


# The file by which OCS is told what a job used.


def session(**parts: int) -> Session:
    return Session(id="s", uid=OWNER.pw_uid, job="7", host="ocsvm", acquired=0, expires=1, **parts)


USED = (
    epilog.usage([], unreachable=False),
    epilog.usage([], unreachable=True),
    epilog.usage([(session(), True)], unreachable=False),
    epilog.usage([(session(tasks=3, shots=600, qpu_time=5 * SECOND // 2, wait_time=1), True)], unreachable=False),
    epilog.usage([(session(tasks=10**9, shots=10**12, qpu_time=2**62, wait_time=2**62), False)] * 3, unreachable=False),
)


@pytest.mark.parametrize("used", USED)
def test_no_line_breaks_the_record(used: dict[str, str]) -> None:
    """Never nan, inf, an empty value or a line without `=`: they break the record, or lose what comes after them."""
    assert "qrmi_release_status" in used
    for name, value in used.items():
        assert re.fullmatch(r"qrmi_[a-z_]+", name), "usage_patterns=qrmi:qrmi_* has to match it"
        assert re.fullmatch(r"[0-9]+(\.[0-9]+)?|[a-z_]+", value)
        if name != "qrmi_release_status":
            assert math.isfinite(float(value))
        assert value.lower() not in {"nan", "inf", "infinity", "true", "false"}


@pytest.mark.parametrize(
    ("number", "words"),
    [("9.2.0prealpha", True), ("9.2.1", True), ("10.0.0", True), ("9.1.2", False), ("9.0.8", False), ("", False)],
)
@pytest.mark.parametrize("used", USED)
def test_before_9_2_the_account_takes_numbers_alone(used: dict[str, str], number: str, *, words: bool) -> None:
    told = epilog.readable(used, commands.Version(Flavour.OCS, number))
    assert told == (used if words else {name: value for name, value in used.items() if name != "qrmi_release_status"})


@pytest.mark.parametrize("end", ["", "\n", "\nruined"])
def test_the_account_gets_whole_lines_behind_those_of_ocs(tmp_path: Path, end: str) -> None:
    spool = spool_of(tmp_path, "1.1", "")
    usage = spool.folder / "usage"
    usage.write_text(USAGE.rstrip("\n") + end)
    spool.job(number="1").account(USED[3])
    lines = usage.read_text().split("\n")
    assert lines[: len(USAGE.splitlines())] == USAGE.splitlines()
    assert lines[-6:] == [*(f"{name}={value}" for name, value in USED[3].items()), ""]


def test_where_ocs_keeps_no_account_none_is_begun(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, "1.1", "")
    spool.job(number="1").account(USED[3])
    assert not (spool.folder / "usage").exists()


def test_a_link_in_the_place_of_the_account_is_not_followed(tmp_path: Path) -> None:
    spool = spool_of(tmp_path, "1.1", "")
    target = tmp_path / "passwd"
    target.write_text("root\n")
    (spool.folder / "usage").symlink_to(target)
    with pytest.raises(HookError):
        spool.job(number="1").account(USED[3])
    assert target.read_text() == "root\n"


def test_what_ocs_made_of_such_lines_is_read_again() -> None:
    """Cases of usage_patterns.txt whose epilogs wrote qrmi_tasks: with the wildcard it comes into the records."""
    shown = {
        call.command.split()[-1]: call.stdout for call in calls("ocs/usage_patterns.txt") if "qacct" in call.command
    }
    with_tasks = [number for number, text in shown.items() if re.search(r"^qrmi_tasks +[234]\.000", text, re.MULTILINE)]
    assert with_tasks == ["80", "81", "82", "83"]
