"""What `qpu-admin doctor` makes of what a whole cluster says."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from gridengine import commands
from gridengine.configuration import GridEngineSection
from gridengine.doctor import cluster
from gridengine.doctor.cluster import Instance, read_instances
from gridengine.doctor.finding import Finding, Verdict
from gridengine.qstat_xml import Job, Row, UnreadableError
from gridengine.site import Offer, Site
from warden.config import Config
from warden.model import SECOND, HostReport, Session

NOW = 1_795_694_400 * SECOND
VERSION = "0.1.0"

EXPLAINED = """<?xml version='1.0'?>
<job_info xmlns:xsd="http://arc.liv.ac.uk/qstat.xsd">
  <queue_info>
    <Queue-List>
      <name>all.q@node1</name>
      <qtype>B</qtype>
      <load_avg>3.90967</load_avg>
      <state>a</state>
    </Queue-List>
    <Queue-List>
      <name>all.q@node2</name>
      <qtype>B</qtype>
      <state>E</state>
      <message>queue all.q marked QERROR as result of job 10&apos;s failure at host node2</message>
    </Queue-List>
    <Queue-List>
      <name>all.q@node3</name>
      <qtype>B</qtype>
    </Queue-List>
  </queue_info>
  <job_info>
  </job_info>
</job_info>
"""


def told(findings: list[Finding]) -> list[tuple[str, str]]:
    assert all(bool(one.fix) is (one.verdict is not Verdict.OK) for one in findings), findings
    return [(one.verdict.value, one.seen) for one in findings]


def test_queue_instances_are_read_as_qstat_explains_them() -> None:
    assert read_instances(EXPLAINED) == [
        Instance("all.q@node1", "a"),
        Instance("all.q@node2", "E", "queue all.q marked QERROR as result of job 10's failure at host node2"),
        Instance("all.q@node3"),
    ]
    with pytest.raises(UnreadableError):
        read_instances("error: no qmaster")


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("", []),
        # Each queue is in alarm while its QPU is blocked.
        ("a", []),
        ("E", [("bad", "all.q@node1 is in the error state: why")]),
        ("au", [("bad", "all.q@node1 does not hear from its host")]),
        ("d", [("warning", "all.q@node1 is disabled")]),
        (
            "auE",
            [
                ("bad", "all.q@node1 is in the error state: why"),
                ("bad", "all.q@node1 does not hear from its host"),
            ],
        ),
    ],
)
def test_states_of_queue_instances(state: str, expected: list[tuple[str, str]]) -> None:
    found = told(cluster.queues([Instance("all.q@node1", state, "why")], ["all.q"], []))
    assert found == (expected or [("ok", "all.q: no instance is in the error state, or without its host")])


def test_queues_without_hosts_and_with_interactive_jobs() -> None:
    assert told(cluster.queues([Instance("all.q@node1")], ["all.q", "fast.q"], ["all.q"])) == [
        ("warning", "all.q takes interactive jobs, whose hooks SGE 8.1.9 kills"),
        ("bad", "fast.q does not exist, or has no host"),
    ]


def test_one_trouble_of_a_large_cluster_is_not_told_a_thousand_times() -> None:
    instances = [Instance(f"all.q@node{n}", "E") for n in range(1000)]
    found = told(cluster.queues(instances, ["all.q"], []))
    assert len(found) == 9
    assert found[-1] == ("bad", "and 992 more of that kind")


def report(host: str, ago: float = 5, **more: object) -> HostReport:
    plain = HostReport(
        host=host, seen=NOW - round(ago * SECOND), version=VERSION, interval=15 * SECOND, ahead=0, candidate=True
    )
    return msgspec.structs.replace(plain, **more)


def hosts(*reports: HostReport, execution: tuple[str, ...] = ("node1", "node2")) -> list[tuple[str, str]]:
    return told(cluster.hosts("fresnel", reports, execution, NOW, VERSION))


WELL = ("ok", "all 2 that offer fresnel were heard of lately, with this version and near clocks")
REPORTS = ("ok", "node1 tells Grid Engine of fresnel, the last time 5 s ago")


def test_hosts_that_are_well() -> None:
    assert hosts(report("node1", reporter=True), report("node2", 40)) == [REPORTS, WELL]
    # Also under the names that they call themselves, beside others that offer nothing, and with a sensor that is new.
    assert hosts(
        report("NODE1.site.example", reporter=True), report("node2", 100, interval=0), report("login", 9999)
    ) == [("ok", "NODE1.site.example tells Grid Engine of fresnel, the last time 5 s ago"), WELL]


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (None, ("bad", "nothing was heard of node2 since the broker of fresnel came up")),
        (report("node2", 61), ("bad", "nothing was heard of node2 for 1 min 1 s")),
        (report("node2", 7200, interval=600 * SECOND), ("bad", "nothing was heard of node2 for 2 h 0 min")),
        (report("node2", trouble=("cannot read the key",)), ("bad", "node2: cannot read the key")),
        (report("node2", version="0.0.9"), ("warning", "node2 has version 0.0.9 of the kit, and this host 0.1.0")),
        (report("node2", ahead=5 * SECOND), ("warning", "node2's is +5.000 s ahead of the broker's")),
        (report("node2", ahead=-300 * SECOND), ("bad", "node2's is -300.000 s ahead of the broker's")),
    ],
)
def test_a_host_that_is_not_well(other: HostReport | None, expected: tuple[str, str]) -> None:
    assert hosts(report("node1", reporter=True), *([other] if other else [])) == [expected, REPORTS]


def test_somebody_has_to_tell_grid_engine() -> None:
    assert ("bad", "no host tells Grid Engine of fresnel") in hosts(report("node1"), report("node2"))
    # Where nobody is asked to, nobody is missed.
    assert hosts(report("node1", candidate=False), report("node2", candidate=False)) == [WELL]


def test_a_host_that_fell_silent_tells_nobody() -> None:
    seen = "node1 told Grid Engine of fresnel the last time 1 min 20 s ago, and no other host has taken over"
    assert hosts(report("node1", ago=80, reporter=True), execution=())[-1] == ("bad", seen)


def test_a_queue_that_does_not_exist_hides_nothing_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    known = "<job_info><queue_info><Queue-List><name>all.q@node1</name></Queue-List></queue_info></job_info>"

    def run(*arguments: str) -> commands.Output:
        if arguments[0] == "qstat" and "all.q" not in arguments:
            raise commands.GridEngineError("qstat: exit status 1")  # as SGE 8.1.9 has it, without a word
        return commands.Output("all.q\nempty.q\n" if arguments[0] == "qconf" else known, "")

    monkeypatch.setattr(commands, "run", run)
    entry = Offer(warden=Config(), config=Path("/c"), queues=("none.q", "empty.q", "all.q"))
    assert cluster._instances(Site(settings=GridEngineSection(), offers=(entry,))) == [Instance("all.q@node1")]


def test_hosts_that_may_not_ask_the_qmaster() -> None:
    assert told(cluster.submit_hosts(["node1", "node2"], ["node1.site.example", "login"])) == [
        ("bad", "node2 is none, so its prolog cannot ask about jobs")
    ]
    [(verdict, _)] = told(cluster.submit_hosts(["node1"], ["NODE1"]))
    assert verdict == "ok"


def session(name: str, job: str) -> Session:
    return Session(id=name, uid=0, job=job, host="node1", acquired=NOW, expires=NOW + 600 * SECOND)


def test_a_session_whose_job_is_gone_is_a_leak() -> None:
    rows = [Row(id=7, state="r", queue="all.q@node1"), Row(id=8, state="qw"), Row(id=9, state="r", queue="all.q@node1")]
    one, array, gone, waits = session("a", "7"), session("b", "9.3"), session("c", "6"), session("d", "8")
    assert told(cluster.leaks([one, array], [one, array], rows)) == [("ok", "each belongs to a job that lives")]
    found = told(cluster.leaks([one, gone, waits], [one, gone, waits], rows))
    assert found == [
        ("warning", "job 6 of root on node1 is gone, and holds a place until 2026-11-26T12:10:00Z"),
        ("warning", "job 8 of root on node1 is gone, and holds a place until 2026-11-26T12:10:00Z"),
    ]
    # One that ended while Grid Engine was asked was none.
    assert told(cluster.leaks([gone], [], rows)) == [("ok", "each belongs to a job that lives")]


def waiting(number: int, state: str = "qw", **requests: str) -> Row:
    return Row(id=number, state=state, requests={"qpu": "1", **requests})


def job(number: int, *reasons: str, **context: str) -> Job:
    return Job(id=number, owner="alice", name="afm", state="", requests={"qpu": "1"}, reasons=reasons, context=context)


def test_jobs_in_error_and_jobs_that_are_sent_back_for_ever() -> None:
    rows = [waiting(7, "Eqw"), Row(id=8, state="Eqw"), waiting(9), waiting(10)]
    details = [
        job(7, "11/22/2026 21:11:44 [104:2854]: this user may not use this QPU"),
        job(9, qpu_attempts="12", qpu_reason="unreachable"),
        job(10, qpu_attempts="2", qpu_reason="busy"),
    ]
    assert told(cluster.stuck(rows, details)) == [
        ("warning", "job 7 is in error: this user may not use this QPU"),
        ("warning", "job 9 was sent back 12 times, the last time: unreachable"),
    ]
    assert [verdict for verdict, _ in told(cluster.stuck(rows[2:], details[2:]))] == ["ok"]
    assert told(cluster.stuck([], [job(11, qpu_attempts="9" * 500), job(12, qpu_attempts="x")]))[0][0] == "ok"


def test_a_jsv_that_is_missing_stops_all_jobs(tmp_path: Path) -> None:
    program = tmp_path / "qpu-jsv"
    url = f"script:{program}"
    assert told(cluster.jsv("", wanted=False, on_qmaster=True)) == []
    assert told(cluster.jsv("script:/site/jsv", wanted=False, on_qmaster=True)) == []
    assert told(cluster.jsv("", wanted=True, on_qmaster=True)) == [
        ("bad", "jsv_url is NONE, and gridengine.jsv asks for ours")
    ]
    [(verdict, seen)] = told(cluster.jsv(url, wanted=True, on_qmaster=True))
    assert (verdict, "cannot be run here" in seen) == ("bad", True)
    assert told(cluster.jsv(url, wanted=True, on_qmaster=False))[0][0] == "ok"
    program.write_text("")
    program.chmod(0o755)
    assert told(cluster.jsv(url, wanted=True, on_qmaster=True))[0][0] == "ok"


def test_each_difference_to_the_configuration_is_told() -> None:
    assert told(cluster.differences(["+ complex qpu", "- hook"])) == [
        ("bad", "not as the configuration says: + complex qpu"),
        ("bad", "not as the configuration says: - hook"),
    ]
    assert told(cluster.differences([]))[0][0] == "ok"
