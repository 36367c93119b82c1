"""How jobs ended, as qacct tells it, and what qstat lists, on captured output of both flavours."""

import pytest
from gridengine_samples import calls, stdout

from gridengine import qstat_xml
from gridengine.job_info import JobInfo, JobStatus, status_of, told_by_drmaa, told_by_qacct


def ends() -> dict[str, JobInfo]:
    return told_by_qacct("\n".join(call.stdout for call in calls("sge/qacct_ends.txt")))


@pytest.mark.parametrize(
    ("job", "status", "signal", "aborted", "wallclock"),
    [
        ("135", None, "SIGKILL", False, 0.0),  # killed itself
        ("136", None, "SIGKILL", False, 1.0),  # qdel
        ("137", 137, "", False, 0.0),  # a shell that says how its child ended
        ("138", None, "SIGKILL", False, 3.0),  # h_rt
        ("139", None, "", True, 0.0),  # no such working directory
        ("142.1", 0, "", False, 1.0),
        ("142.3", 5, "", False, 1.0),
    ],
)
def test_record_tells_how_a_job_ended(
    job: str, status: int | None, signal: str, aborted: bool, wallclock: float
) -> None:
    told = ends()[job]
    assert (told.exit_status, told.signal, told.aborted, told.wallclock) == (status, signal, aborted, wallclock)
    assert told.resource_usage["owner"] == "alice"


def test_tasks_of_an_array_are_told_apart() -> None:
    assert {job for job in ends() if job.startswith("142")} == {f"142.{task}" for task in range(1, 7)}


def test_start_that_was_no_end_is_left_out() -> None:
    told = told_by_qacct(stdout("ocs/qacct.txt", 2))
    assert told["58"].exit_status == 0
    first = stdout("ocs/qacct.txt", 2).split("=" * 62)[1]
    assert "rescheduling" in first
    assert told_by_qacct(first) == {}


def test_ocs_has_an_exacter_wallclock() -> None:
    assert told_by_qacct(stdout("ocs/qacct.txt"))["80"].wallclock == 2.015


def test_nothing_is_read_out_of_nonsense() -> None:
    assert told_by_qacct("") == {}
    assert told_by_qacct("======\njobnumber x\n======\nfailed\n") == {}


def test_listing_names_each_task() -> None:
    assert qstat_xml.live(stdout("sge/qstat_u_array.xml.txt")) == {
        **{f"145.{task}": "r" for task in (1, 4, 7, 10)},
        "145.13": "qw",
        **{f"146.{task}": "hqw" for task in (2, 3, 4)},
        "147": "hqw",
    }


def test_listing_of_ocs() -> None:
    told = qstat_xml.live(stdout("ocs/qstat_u_all_r.xml.txt"))
    assert told
    assert all(job.isdecimal() and letters for job, letters in told.items())


@pytest.mark.parametrize(
    ("text", "tasks"),
    [("7", [7]), ("1-3:1", [1, 2, 3]), ("1,3,5-9:2", [1, 3, 5, 7, 9]), ("2-4", [2, 3, 4])],
)
def test_lists_of_tasks(text: str, tasks: list[int]) -> None:
    listing = (
        "<job_info><queue_info/><job_info><job_list><JB_job_number>5</JB_job_number>"
        f"<state>qw</state><tasks>{text}</tasks></job_list></job_info></job_info>"
    )
    assert qstat_xml.live(listing) == {f"5.{task}": "qw" for task in tasks}
    with pytest.raises(qstat_xml.UnreadableError):
        qstat_xml.live(listing.replace(text, "x"))


@pytest.mark.parametrize(
    ("letters", "status"),
    [
        ("qw", JobStatus.QUEUED),
        ("Rq", JobStatus.QUEUED),
        ("Eqw", JobStatus.QUEUED),
        ("hqw", JobStatus.HELD),
        ("hRwq", JobStatus.HELD),
        ("r", JobStatus.RUNNING),
        ("t", JobStatus.RUNNING),
        ("dr", JobStatus.RUNNING),
        ("Rr", JobStatus.RUNNING),
        ("s", JobStatus.SUSPENDED),
        ("S", JobStatus.SUSPENDED),
        ("T", JobStatus.SUSPENDED),
    ],
)
def test_letters_of_qstat(letters: str, status: JobStatus) -> None:
    assert status_of(letters) is status


def test_drmaas_words() -> None:
    ended = {"exited": False, "exit_status": 0, "signal": "SIGTERM", "aborted": False, "usage": {"ru_wallclock": "2.0"}}
    told = told_by_drmaa("3", ended)
    assert (told.exit_status, told.signal, told.wallclock, told.succeeded) == (None, "SIGTERM", 2.0, False)
