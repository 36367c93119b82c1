"""Every captured output of OCS is read by the parser that has to read it, or it says here why none does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from gridengine_samples import SAMPLES, Call, calls, stdout

from gridengine import commands, qacct, qconf_text, qstat_xml, reservations
from gridengine.commands import DeniedError, GridEngineError, Output, UnknownObjectError
from gridengine.doctor.cluster import read_instances
from gridengine.resources import Flavour, parse_table, render_table

if TYPE_CHECKING:
    from collections.abc import Callable

FOLDER = SAMPLES / "ocs"
ALL = sorted(path.name for path in FOLDER.iterdir())

JSON = "JSON is new in 9.2: we read what 9.0 prints as well"
PEOPLE = "for people; we read the XML of the same command"
BEHAVIOUR = "tells how OCS behaves, and has no output of a command that we read"
UNREAD = {
    "calendar.txt": BEHAVIOUR,
    "drmaa.txt": "what libdrmaa answers; its errors are told in submission.py by their numbers, on both flavours",
    "environment_0600.txt": BEHAVIOUR,
    "epilog_exit1_reruns_job.txt": BEHAVIOUR,
    "epilog_spool_ls.txt": BEHAVIOUR,
    "execd_kill.txt": BEHAVIOUR,
    "load_sensor_failures.txt": BEHAVIOUR,
    "load_sensor_hang.txt": BEHAVIOUR,
    "load_sensor_host_down.txt": BEHAVIOUR,
    "load_sensor_latency.txt": BEHAVIOUR,
    "load_sensor_scheduling.txt": BEHAVIOUR,
    "pe_job_consumables.txt": BEHAVIOUR,
    "prolog_99_timeline.txt": BEHAVIOUR,
    "prolog_spool_ls.txt": BEHAVIOUR,
    "qconf_sc.json.txt": JSON,
    "qconf_se_global.json.txt": JSON,
    "qconf_se_host.json.txt": JSON,
    "qdel.txt": BEHAVIOUR,
    "qhost_F.json.txt": JSON,
    "qhost_F.txt": PEOPLE,
    "qhost_F.xml.txt": "the sensor reports, and nothing of ours asks back",
    "qhost_F_qpu.txt": PEOPLE,
    "qhost_F_qpu_qpu_id.json.txt": JSON,
    "qhost_F_qpu_qpu_id.xml.txt": "the sensor reports, and nothing of ours asks back",
    "qhost_F_unknown.txt": PEOPLE,
    "qstat_j_pending.json.txt": JSON,
    "qstat_j_pending.txt": PEOPLE,
    "qstat_u_all.json.txt": JSON,
    "qstat_u_all.txt": PEOPLE,
    "script_timeout.txt": BEHAVIOUR,
    "static_plus_load_value.txt": BEHAVIOUR,
}
READ: dict[str, Callable[[str], None]] = {}


def reads(*names: str) -> Callable[[Callable[[str], None]], Callable[[str], None]]:
    def register(check: Callable[[str], None]) -> Callable[[str], None]:
        READ.update(dict.fromkeys(names, check))
        return check

    return register


def text(name: str) -> str:
    return (FOLDER / name).read_bytes().decode(errors="replace")


def captured(name: str, prefix: str) -> list[Call]:
    found = [call for call in calls(f"ocs/{name}") if call.command.startswith(prefix)]
    assert found, f"{name} has no {prefix}"
    return found


@reads("version.txt")
def version(name: str) -> None:
    for call in calls(f"ocs/{name}"):
        assert commands.parse_version(call.stdout) == commands.Version(Flavour.OCS, "9.2.0prealpha"), call.command


@reads("qconf_sc.txt")
def complexes(name: str) -> None:
    table = parse_table(text(name))
    assert len(table) == 52
    assert parse_table(render_table(table)) == table


@reads("qconf_sconf.txt", "qconf_sconf_host.txt", "qconf_sq_all.q.txt", "qconf_ssconf.txt")
def whole_settings(name: str) -> None:
    shown = stdout(f"ocs/{name}")
    settings = qconf_text.settings(shown)
    firsts = [line.split()[0] for line in shown.splitlines() if line.strip() and line[0] not in "# "]
    assert list(settings) == firsts
    assert not any("\\" in value for value in settings.values())
    if name == "qconf_sconf.txt":
        assert settings["binding_params"] == (
            "enabled=true,implicit=false,mode=default,default_unit=C,on_any_host=true,filter=NONE"
        )


@reads("qconf_complex_values_session.txt")
def values(name: str) -> None:
    for call in captured(name, "qconf -se"):
        settings = qconf_text.settings(call.stdout)
        assert len(settings) == 11
        read = qconf_text.pairs(settings["complex_values"])
        ids = read.get("qpu_id")
        assert ids in {None, "2(fresnel_a fresnel_b)", "2(fresnel:a fresnel/b)"}
        assert set(read) <= {
            "slots",
            "qpu",
            "qpu_q",
            "qpu_type",
            "qpu_mon",
            "qpu_id",
            "qpu_slot",
            "qpu_hid",
            "qpu_host",
        }


@reads("qconf_Mc_session.txt", "qconf_Ace_Mce_session.txt")
def refusals(name: str) -> None:
    """What qconf refuses is told in one line; the rest of these sessions is replayed by test_ocs_cell.py."""
    for call in calls(f"ocs/{name}"):
        if call.status and call.command.startswith("qconf"):
            one_line(call)


def one_line(call: Call) -> GridEngineError:
    command = call.command.split()[0]
    error = commands.failure(command, call.status, Output(call.stdout, call.stderr))
    assert "\n" not in error.text
    assert len(error.text) < 400
    return error


@reads("usage_patterns.txt")
def usage(name: str) -> None:
    shown = qconf_text.settings(calls(f"ocs/{name}")[1].stdout)
    assert shown["reporting_params"].split()[-1] == "usage_patterns=qrmi:qrmi_.*"
    for call in captured(name, "qacct -j"):
        number = call.command.split()[-1]
        assert [(one.job, one.owner) for one in qacct.parse(call.stdout)] == [(number, "alice")]


@reads("qacct.txt")
def records(name: str) -> None:
    for call in captured(name, "qacct -j"):
        if call.status:
            assert type(one_line(call)) is UnknownObjectError
        else:
            assert {one.job for one in qacct.parse(call.stdout)} == {call.command.split()[-1]}


@reads("qacct_bad_json_line.txt")
def broken_record(name: str) -> None:
    call = captured(name, "qacct -j")[0]
    assert qacct.parse(call.stdout) == []
    assert type(one_line(call)) is UnknownObjectError


@reads("qstat_j_pending.xml.txt")
def detail(name: str) -> None:
    for call in calls(f"ocs/{name}"):
        job = qstat_xml.read_job(call.stdout, "qw")
        assert (str(job.id), job.owner) == (call.command.split()[2], "alice")
        assert job.requests
        assert job.reasons


@reads("qstat_u_all.xml.txt", "qstat_u_all_r.xml.txt")
def listing(name: str) -> None:
    assert qstat_xml.live(stdout(f"ocs/{name}")) == {"87": "r", "88": "qw", "89": "qw", "90": "qw", "91": "qw"}


@reads("qstat_j_unknown.txt", "qstat_j_unknown.xml.txt", "qhost_h_unknown.txt")
def unknown(name: str) -> None:
    assert type(one_line(calls(f"ocs/{name}")[0])) is UnknownObjectError


@reads("advance_reservation.txt")
def reservation_refusals(name: str) -> None:
    every = calls(f"ocs/{name}")
    refused = [call for call in every if call.status]
    assert [type(one_line(call)) for call in refused] == [
        DeniedError,
        GridEngineError,
        GridEngineError,
        GridEngineError,
    ]
    assert "no suitable queues" in one_line(refused[-1]).text
    granted = [call.stdout for call in every if call.command.startswith("qrsub") and not call.status]
    assert [reservations.parse_granted(text) for text in granted] == [1, 5]
    [listed] = [call.stdout for call in every if "-xml" in call.command]
    [one] = reservations.parse_reservations(listed.replace("aliceAR", "qpu-fresnel-00000000"), {"alice"})
    assert (one.id, one.qpu) == (1, "fresnel")


@reads("submit_time_verify.txt")
def submissions(name: str) -> None:
    for call in calls(f"ocs/{name}"):
        if call.status:
            assert "Unable to run job" in one_line(call).text


@reads("qstat_f_u_all.xml.txt")
def instances(name: str) -> None:
    text = stdout(f"ocs/{name}")
    [one] = read_instances(text)
    assert (one.name, one.state, one.message) == ("all.q@ocsvm", "", "")
    [broken] = read_instances(text.replace("<state></state>", "<state>E</state>"))
    assert broken.state == "E"
    assert reservations.parse_slots(text) == 2


@reads("epilog_exit_1.txt", "epilog_exit_99.txt", "prolog_exit_1.txt", "prolog_exit_99.txt", "prolog_exit_100.txt")
def what_hooks_did(name: str) -> None:
    for call in captured(name, "qacct -j"):
        assert {one.job for one in qacct.parse(call.stdout)} == {call.command.split()[-1]}


@reads("accounting.jsonl")
def lines(name: str) -> None:
    every = (FOLDER / name).read_bytes().splitlines()
    found = list(qacct.parse_lines(every))
    # An epilog wrote nan into the record of job 85.
    assert len(found) == len(every) - 1
    assert "85" not in {one.job for one in found}
    assert {"1", "84", "86"} <= {one.job for one in found}


def test_no_sample_is_forgotten() -> None:
    assert sorted([*READ, *UNREAD, *HOOKS]) == ALL, "say in READ which parser reads it, or in UNREAD why none does"


# Spools and environments of hooks are read in tests of their own.
HOOKS = (
    "environment_append.txt",
    "epilog_env.txt",
    "epilog_spool_usage.txt",
    "prolog_SGE_HGR_cases.txt",
    "prolog_env.txt",
    "prolog_env_spoofed_by_user.txt",
    "prolog_spool_config.txt",
    "prolog_spool_environment.txt",
)


@pytest.mark.parametrize("name", sorted(READ))
def test_it_is_read(name: str) -> None:
    READ[name](name)


@pytest.mark.parametrize(
    ("session", "command", "kind", "words"),
    [
        ("qconf_complex_values_session", "qconf -rattr exechost complex_values qpu=1 nosuchhost", UnknownObjectError, "nosuchhost"),
        ("qconf_complex_values_session", "qconf -dce qpu", GridEngineError, "take it out there first"),
        ("qconf_complex_values_session", "qconf -mattr exechost complex_values qpu=9 global", DeniedError, "a manager"),
        ("qconf_complex_values_session", "qconf -mattr exechost complex_values nosuch=2 ocsvm", GridEngineError, "no complex"),
        ("qconf_Ace_Mce_session", "qconf -dce newone", UnknownObjectError, "does not exist"),
    ],
)  # fmt: skip
def test_errors_of_ocs_are_told_apart(session: str, command: str, kind: type[GridEngineError], words: str) -> None:
    call = next(call for call in calls(f"ocs/{session}.txt") if call.command == command and call.status)
    error = one_line(call)
    assert type(error) is kind
    assert words in error.text
