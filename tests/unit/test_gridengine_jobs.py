"""Jobs as real Grid Engines describe them, and as nobody should."""

import contextlib

import pytest
from gridengine_samples import calls, stdout
from hypothesis import given
from hypothesis import strategies as st

from gridengine import jobs, qstat_xml
from gridengine.qstat_xml import NoSuchJobError, UnreadableError
from warden.model import BadRequestError

SGE = {call.command.split()[2]: call.stdout for call in calls("sge/qstat_j.xml.txt")}
OCS = {call.command.split()[2]: call.stdout for call in calls("ocs/qstat_j_pending.xml.txt")}


def requested(text: str) -> dict[str, str]:
    return qstat_xml.read_job(text, "").requests


@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (SGE["9"], {}),
        (SGE["10"], {"qpu": "1"}),
        (SGE["11"], {"qpu": "1", "qpu_name": "fres*"}),
        (OCS["88"], {"qpu": "1", "qpu_id": "1"}),
        (OCS["89"], {"qpu_type": "other"}),
        (OCS["90"], {"qpu": "5"}),
    ],
)
def test_requested_on_both_flavours(sample: str, expected: dict[str, str]) -> None:
    assert requested(sample) == expected


def test_smuggled_elements_and_broken_text_change_nothing() -> None:
    assert "\x01" in SGE["12"]
    assert "\ufffd" in SGE["12"]
    assert "JB_hard_resource_list&gt;" in SGE["12"]
    assert requested(SGE["12"])["qpu"] == "1"
    assert requested(SGE["12"])["h_rt"] == "100"


def test_a_job_that_a_qmaster_has_read_again() -> None:
    """SGE 8.1.9, restarted while job 9 ran, as it was seen."""
    task = "<JAT_status>128</JAT_status><JAT_task_number>1</JAT_task_number>"
    read = f"<JB_ja_tasks>\n        <JATASK:       9.>{task}</JATASK:       9.>\n      </JB_ja_tasks>"
    sample = SGE["10"].replace("<JB_job_number>", f"{read}<JB_job_number>", 1)
    assert requested(sample) == {"qpu": "1"}


def test_soft_requests_are_no_requests() -> None:
    assert "JB_soft_resource_list" in SGE["12"]
    assert requested(SGE["12"])["qpu_name"] != "sof"


def test_a_job_that_is_gone() -> None:
    with pytest.raises(NoSuchJobError, match="knows no job 999999"):
        requested(SGE["999999"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no XML"),
        ("<detailed_job_info", "no XML"),
        ("<detailed_job_info/>", "one job"),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><detailed_job_info>&a;</detailed_job_info>", "document type"),
        ("<!DOCTYPE x><detailed_job_info/>", "document type"),
        (" " * (qstat_xml.MAX_XML + 1), "more than 64 MiB"),
    ],
)
def test_anything_else_is_refused(text: str, why: str) -> None:
    with pytest.raises(UnreadableError, match=why):
        requested(text)


@given(st.text(max_size=300), st.integers(0, 2000))
def test_no_text_makes_anything_but_a_refusal(noise: str, place: int) -> None:
    sample = SGE["10"][:place] + noise + SGE["10"][place:]
    with contextlib.suppress(NoSuchJobError, UnreadableError):
        assert isinstance(requested(sample), dict)


def test_a_waiting_job_says_why() -> None:
    job = qstat_xml.read_job(SGE["11"], "qw")
    assert (job.id, job.owner, job.state) == (11, "alice", "qw")
    assert job.reasons == ("(-l qpu=1,qpu_name=fres*) cannot run globally because it offers only gc:qpu=0.000000",)
    assert qstat_xml.read_job(OCS["91"], "qw").reasons == (
        '(-l qpu_ready=1) cannot run in queue "all.q@ocsvm" because job requests unknown resource (qpu_ready)',
    )


NOTED = """
      <JB_context>
        <context_list><VA_variable>mine</VA_variable></context_list>
        <context_list><VA_variable>qpu_attempts</VA_variable><VA_value>3</VA_value></context_list>
        <context_list><VA_variable>qpu_reason</VA_variable><VA_value>busy</VA_value></context_list>
      </JB_context>
"""


@pytest.mark.parametrize(("said", "moment"), [("1893456000", 1893456000), ("2030-01-01T00:00:00.5+00:00", 1893456000)])
def test_a_job_that_was_sent_back_says_how_often_why_and_until_when(said: str, moment: int) -> None:
    text = SGE["10"].replace("<JB_execution_time>0", f"{NOTED}<JB_execution_time>{said}")
    job = qstat_xml.read_job(text, "r")
    assert job.context == {"mine": "", "qpu_attempts": "3", "qpu_reason": "busy"}
    assert job.not_before == moment
    untouched = qstat_xml.read_job(SGE["10"], "r")
    assert (untouched.context, untouched.not_before, untouched.granted) == ({}, 0, {})


@pytest.mark.parametrize("said", ["soon", "9" * 5000, "2026-13-01", ""])
def test_a_time_that_is_none_is_none(said: str) -> None:
    assert (
        qstat_xml.read_job(SGE["10"].replace("<JB_execution_time>0", f"<JB_execution_time>{said}"), "r").not_before == 0
    )


@pytest.mark.parametrize("names", [("element", "element", "element"), ("ulong_sublist", "grl", "resl")])
def test_ids_that_ocs_has_granted(names: tuple[str, str, str]) -> None:
    task, grant, id_ = names
    ids = "".join(f"<{id_}><RESL_value>{name}</RESL_value></{id_}>" for name in ("fresnel", "emu"))
    granted = (
        f"<JB_ja_tasks><{task}><JAT_granted_resources_list>"
        f"<{grant}><GRU_name>gpu</GRU_name></{grant}>"
        f"<{grant}><GRU_name>qpu_id</GRU_name><GRU_resource_map_list>{ids}</GRU_resource_map_list></{grant}>"
        f"</JAT_granted_resources_list></{task}></JB_ja_tasks>"
    )
    text = OCS["88"].replace("<JB_type>", granted + "<JB_type>", 1)
    assert qstat_xml.read_job(text, "r").granted == {"qpu_id": ("fresnel", "emu")}


def test_a_job_in_error_says_what_happened() -> None:
    reasons = qstat_xml.read_job(SGE["9"], "Eqw").reasons
    assert reasons[0].endswith("exit_status of prolog = 100")
    assert reasons[1] == "Job is in error state"


def test_states_and_requests_of_all_jobs() -> None:
    sge, ocs = stdout("sge/qstat_u_all_r.xml.txt"), stdout("ocs/qstat_u_all_r.xml.txt")
    assert qstat_xml.live(sge) == {"9": "Eqw", "10": "r", "11": "qw", "12.1": "hqw", "12.3": "hqw"}
    assert qstat_xml.live(ocs) == {"87": "r", "88": "qw", "89": "qw", "90": "qw", "91": "qw"}
    assert qstat_xml.requesting(sge, {"qpu"}) == [10, 11, 12]
    assert qstat_xml.requesting(ocs, {"qpu", "qpu_type"}) == [87, 88, 89, 90]


def test_the_line_is_read_as_qstat_has_it() -> None:
    rows = qstat_xml.rows(stdout("sge/qstat_u_all_waiting.xml.txt"))
    assert [(one.id, one.state, one.tasks) for one in rows] == [
        (1, "r", 1), (8, "r", 1), (8, "r", 1), (2, "qw", 1), (3, "qw", 1), (7, "qw", 5), (9, "qw", 1), (10, "qw", 1),
        (11, "qw", 1), (12, "qw", 1), (4, "hqw", 1), (5, "qw", 1), (6, "hqw", 1), (8, "qw", 2),
    ]  # fmt: skip
    assert rows[0].queue == "all.q@node2"
    assert rows[4].requests == {"qpu": "1", "qpu_window": "100"}
    assert [one.id for one in qstat_xml.rows(stdout("ocs/qstat_u_all_r.xml.txt"))] == [87, 88, 89, 90, 91]


@pytest.mark.parametrize(
    ("tasks", "count"), [("1", 1), ("1-9:2", 5), ("3,4", 2), ("1-10000000:1", 10**7), ("1-4:1,9", 5)]
)
def test_tasks_of_an_array_are_counted(tasks: str, count: int) -> None:
    assert qstat_xml._count(tasks) == count


@pytest.mark.parametrize("tasks", ["", "x", "1-", "1-2:3:4", "-1"])
def test_tasks_that_are_none_are_refused(tasks: str) -> None:
    with pytest.raises(qstat_xml.UnreadableError):
        qstat_xml._count(tasks)


def test_context_start_time_and_predecessors_of_a_job() -> None:
    found = {
        call.command.split()[2]: qstat_xml.read_job(call.stdout, "") for call in calls("sge/qstat_j_waiting.xml.txt")
    }
    assert found["10"].context == {"qpu_attempts": "3", "qpu_reason": "busy"}
    assert found["10"].requests == {"qpu": "1"}
    assert found["5"].not_before == 1796126400
    assert found["6"].predecessors == ("1",)
    assert found["4"].queue_reasons == ('queue instance "all.q@node1" dropped because it is full',)


@pytest.mark.parametrize("name", ["*", "1,2", "-1", "", "12345678901", "1\n", "٣"])
def test_only_a_number_reaches_qstat(name: str) -> None:
    with pytest.raises(BadRequestError):
        jobs.detail(name)
