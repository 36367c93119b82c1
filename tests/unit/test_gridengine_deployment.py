"""What the cluster should be, what it is without us, and the way between; a real cluster is in tests/cluster."""

from pathlib import Path

import msgspec
import pytest
from gridengine_cell import FakeCell, setting
from gridengine_deployed import (
    EPILOG,
    HOSTS,
    JSV,
    ONE,
    PROLOG,
    SENSOR,
    SENSORS,
    SITES,
    TWO,
    LoadSite,
    apply,
    chained,
    lose_the_record,
    remove,
)
from gridengine_samples import stdout

from gridengine import deployment, qconf_text
from gridengine.deployment import change, order, report
from gridengine.deployment.bare import with_pattern, without_pattern
from gridengine.deployment.state import Change, Item, Kind
from gridengine.resources import NAMES, Flavour, complexes, instances, values
from warden.model import ConfigurationError, ConflictError
from warden.sections import QpuSection

# --- what there is in the end ---


def test_the_table_is_the_one_of_the_design() -> None:
    assert [entry.line() for entry in complexes(Flavour.SGE)] == [
        "qpu qpu INT <= YES JOB 0 0",
        "qpu_name qpu_name RESTRING == YES NO NONE 0",
        "qpu_state qpu_state STRING == NO NO NONE 0",
        "qpu_window qpu_window INT <= YES NO 0 0",
        "qpu_qubits qpu_qubits INT <= YES NO 0 0",
    ]
    assert [entry.type for entry in complexes(Flavour.OCS) if entry.name == "qpu_name"] == ["STRING"]


def test_a_reported_string_has_no_fixed_value() -> None:
    assert values([QpuSection(places=3)]).keys() == NAMES - {"qpu_state"}


def test_several_qpus_have_in_common_what_any_of_them_could_do() -> None:
    qpus = [QpuSection(name="a", qubits=5), QpuSection(name="b", qubits=9, places=2)]
    assert values(qpus) == {"qpu_window": "604800", "qpu_qubits": "9"}
    assert instances(qpus) == "3(a b b)"


def test_one_qpu_on_all_hosts(cell: FakeCell, load_site: LoadSite) -> None:
    apply(load_site(ONE))
    assert cell.values == {
        "licence": "3",
        "qpu": "1",
        "qpu_name": "fresnel",
        "qpu_window": "604800",
        "qpu_qubits": "14",
    }
    assert (cell.queues["all.q"]["prolog"], cell.queues["all.q"]["epilog"]) == (PROLOG, EPILOG)
    assert cell.queues["all.q"]["complex_values"] == "NONE"
    assert setting(cell.configurations["global"], "load_sensor") == f"/site,{SENSOR}"
    assert cell.queues["a.q"]["prolog"] == "NONE"


def test_hosts_without_the_qpu_offer_none_and_have_no_hook(cell: FakeCell, load_site: LoadSite) -> None:
    cell.queues["all.q"]["complex_values"] = "slots=4,[node1=slots=8]"
    apply(load_site(HOSTS))
    queue = cell.queues["all.q"]
    assert queue["prolog"] == f"NONE,[@quantum={PROLOG}],[node3={PROLOG}]"
    assert queue["complex_values"] == "slots=4,qpu=0,[@quantum=slots=4],[node1=slots=8],[node3=slots=4]"


def test_two_qpus_have_queues_of_their_own(cell: FakeCell, load_site: LoadSite) -> None:
    cell.queues["b.q"] |= {"load_thresholds": "np_load_avg=1.75", "pe_list": "make"}
    apply(load_site(TWO))
    assert cell.values == {"licence": "3", "qpu_window": "604800", "qpu_qubits": "14"}
    a, b = cell.queues["a.q"], cell.queues["b.q"]
    assert a["complex_values"] == "qpu=1,qpu_name=fresnel,qpu_qubits=14"
    assert b["complex_values"] == "qpu=0,[node2=qpu=2,qpu_name=emu,qpu_qubits=8]"
    assert (a["load_thresholds"], a["pe_list"]) == ("qpu_fresnel=0", "qpu_window")
    assert b["load_thresholds"] == "np_load_avg=1.75,[node2=np_load_avg=1.75,qpu_emu=0]"
    assert b["pe_list"] == "make,[node2=make qpu_window]"
    assert "queues a.q to qpu=1" in cell.sets["qpu"]
    assert "queues b.q to qpu=2" in cell.sets["qpu"]
    assert "qsort_args          NONE" in cell.environments["qpu_window"]


@pytest.mark.parametrize("section", SITES.values(), ids=SITES)
@pytest.mark.parametrize("recorded", [True, False])
def test_remove_leaves_no_trace(cell: FakeCell, load_site: LoadSite, section: str, recorded: bool) -> None:
    cell.queues["a.q"] |= {
        "prolog": "/site/prolog $host",
        "epilog": "NONE,[node2=sge@/x]",
        "complex_values": "licence=1",
    }
    cell.queues["b.q"] |= {"load_thresholds": "np_load_avg=1.75,[@quantum=NONE]", "pe_list": "make mpi,[node2=make]"}
    cell.groups["@quantum"] = "node1"
    before = cell.snapshot()
    apply(load_site(section))
    assert cell.snapshot() != before
    if not recorded:
        lose_the_record(load_site(section))
    remove(load_site(section))
    assert cell.snapshot() == before
    assert remove(load_site(section)) == ()


@pytest.mark.parametrize("first", SITES)
@pytest.mark.parametrize("second", SITES)
def test_what_is_taken_out_of_the_configuration_goes(
    cell: FakeCell, load_site: LoadSite, first: str, second: str
) -> None:
    before = cell.snapshot()
    apply(load_site(SITES[second]))
    wanted = cell.snapshot()
    remove(load_site(SITES[second]))
    apply(load_site(SITES[first]))
    apply(load_site(SITES[second]))
    assert cell.snapshot() == wanted
    remove(load_site(ONE))
    assert cell.snapshot() == before


# --- jobs ---


def test_remove_refuses_while_jobs_ask_for_the_qpu(
    cell: FakeCell, load_site: LoadSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cell.snapshot()
    apply(load_site(TWO))
    during = cell.snapshot()
    monkeypatch.setattr(change.jobs, "live_requests", lambda names: [7, 8] if "qpu" in names else [])
    with pytest.raises(ConflictError, match=r"2 job\(s\) still ask for the QPU \(7, 8\)"):
        remove(load_site(TWO))
    assert cell.snapshot() == during
    remove(load_site(TWO), force=True)
    assert cell.table != stdout("sge/qconf_sc.txt"), "SGE would forget what the jobs asked for"
    assert cell.values == {"licence": "3"}
    assert cell.queues["a.q"]["prolog"] == "NONE"
    assert remove(load_site(TWO), force=True) == ()
    monkeypatch.setattr(change.jobs, "live_requests", lambda _: [])
    remove(load_site(TWO))
    assert cell.snapshot() == before


# --- order and looks ---


@pytest.mark.usefixtures("cell")
@pytest.mark.parametrize("section", SITES.values(), ids=SITES)
def test_everything_comes_and_goes_in_an_order_that_is_safe(load_site: LoadSite, section: str) -> None:
    come = [each.item.kind for each in apply(load_site(section))]
    assert come == sorted(come, key=list(Kind).index)
    assert come[-1] is Kind.HOOK
    gone = [each.item.kind for each in remove(load_site(section))]
    # No job may start without a hook, so what lets it start goes first, and what stands in its way stays till then.
    assert gone[0] is Kind.VALUE
    assert gone.index(Kind.SENSOR) < gone.index(Kind.HOOK)
    assert gone[-1] is Kind.COMPLEX


def test_hooks_stay_until_nothing_is_reported_any_more(
    cell: FakeCell, load_site: LoadSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    apply(load_site(ONE))
    seen, said = [], []

    def pause(_: float) -> None:
        seen.append(cell.queues["all.q"]["prolog"])
        cell.reported.clear()

    monkeypatch.setattr(change.time, "sleep", pause)
    cell.reported = {"qpu": "1", "qpu_state": "ready"}
    deployment.removal(load_site(ONE).settings)[0].carry_out("remove", said.append)
    assert seen == [PROLOG]
    assert cell.queues["all.q"]["prolog"] == "NONE"
    assert said == ["waiting for the hosts' next load reports, which leave the QPU out (by default 40 s)"]


@pytest.mark.usefixtures("cell")
def test_definitions_go_when_nothing_refers_to_them_any_more(load_site: LoadSite) -> None:
    apply(load_site(TWO))
    changes = [each for each in apply(load_site(ONE)) if each.after is None or each.item.kind is Kind.HOOK]
    assert [each.item.name for each in changes][-3:] == ["qpu_window", "qpu_emu", "qpu_fresnel"]


def test_changes_read_like_a_diff(cell: FakeCell, load_site: LoadSite) -> None:
    cell.queues["all.q"] |= {"epilog": "/site/e"}
    changes = deployment.difference(load_site(HOSTS)).changes
    assert report.diff(changes).splitlines()[5:] == [
        "  + qpu_qubits  INT <= YES NO 0 0",
        "host global, complex_values",
        "  + qpu         1",
        "  + qpu_name    fresnel",
        "  + qpu_window  604800",
        "  + qpu_qubits  14",
        "queue all.q",
        "  + complex_values  qpu=0,[@quantum=NONE],[node3=NONE]",
        f"  + prolog          NONE,[@quantum={PROLOG}],[node3={PROLOG}]",
        "  ~ epilog          /site/e",
        f"                 -> /site/e,[@quantum={chained('epilog', '/site/e')}],[node3={chained('epilog', '/site/e')}]",
        "configuration global",
        f"  + load_sensor  {SENSOR}",
    ]
    assert report.summary(changes, done=False) == "12 to add, 1 to change, 0 to remove"
    assert report.summary(changes, done=True) == "12 added, 1 changed, 0 removed"
    qpu = Item(Kind.COMPLEX, "", "qpu")
    assert str(Change(qpu, "a", "b")) == "~ complex qpu: a -> b"
    assert str(Change(qpu, "a", None)) == "- complex qpu: a"
    assert str(Change(qpu, None, "a")) == "+ complex qpu: a"


@pytest.mark.usefixtures("cell")
def test_programs_get_the_same(load_site: LoadSite) -> None:
    found = msgspec.to_builtins(report.report(deployment.difference(load_site(SENSORS)).changes, ["w"], restart=True))
    assert (found["changed"], found["warnings"], found["restart"]) == (True, ("w",), ("node1",))
    assert found["changes"][0] == {
        "object": "complex",
        "attribute": "qpu",
        "action": "add",
        "before": None,
        "after": "qpu qpu INT <= YES JOB 0 0",
    }
    assert found["changes"][-1]["object"] == "queue all.q"
    assert msgspec.to_builtins(report.report([])) == {"changed": False, "changes": (), "restart": (), "warnings": ()}


def test_only_execds_of_hosts_have_to_be_restarted(cell: FakeCell, load_site: LoadSite) -> None:
    assert order.hosts_to_restart(apply(load_site(SENSORS))) == ["node1"]
    # What a host does not say itself it has from `global`; a line of its own must not hide the site's sensor.
    assert setting(cell.configurations["node1"], "load_sensor") == f"/site,{SENSOR}"
    assert order.hosts_to_restart(remove(load_site(SENSORS))) == []


def test_queues_that_would_hurt_are_warned_of(cell: FakeCell, load_site: LoadSite) -> None:
    cell.queues["b.q"]["complex_values"] = "qpu=0"
    cell.queues["all.q"]["qtype"] = "BATCH INTERACTIVE"
    warnings = deployment.difference(load_site(ONE)).warnings(on_sge=True)
    assert [text.partition(",")[0] for text in warnings] == [
        "all.q also takes interactive jobs; SGE kills the hooks of qrsh",
        "jobs with a QPU may also land in a.q",
    ]
    assert deployment.difference(load_site(TWO)).warnings(on_sge=True) == []


def test_a_host_that_does_not_have_the_global_sensor_is_warned_of(cell: FakeCell, load_site: LoadSite) -> None:
    cell.configurations |= {host: f"#{host}:\nload_sensor none\n" for host in ("node1", "node3", "login")}
    cell.configurations["node2"] = "#node2:\nmailer m\n"

    def without(section: str) -> list[str]:
        warnings = deployment.difference(load_site(section)).warnings(on_sge=True)
        return [text.partition(",")[0] for text in warnings if "sensor" in text]

    assert without('queues = ["all.q"]\nhosts = ["node1", "node2"]\n') == ["no sensor of ours runs on node1"]
    assert without('queues = ["all.q"]\nhosts = ["node1"]\n' + SENSORS) == []
    assert without('sensor_hosts = ["node2"]\n') == []


def test_a_host_of_sensors_that_nobody_knows_is_told_by_the_plan(cell: FakeCell, load_site: LoadSite) -> None:
    apply(load_site(ONE))
    with pytest.raises(ConfigurationError, match=r"correct gridengine.sensor_hosts: .*node9"):
        deployment.difference(load_site('sensor_hosts = ["node9"]\n'))
    remove(load_site('sensor_hosts = ["node9"]\n'))
    assert SENSOR not in str(cell.configurations)


def test_programs_that_are_not_there_are_no_hooks(tmp_path: Path) -> None:
    for name in ("qpu-prolog", "qpu-epilog", "qpu-chain", "qpu-load-sensor", "qpu-jsv"):
        with pytest.raises(ConfigurationError, match=f"{tmp_path}/{name} is missing here"):
            deployment.check_programs(tmp_path)
        (tmp_path / name).touch(mode=0o755)
    deployment.check_programs(tmp_path)


# --- OCS ---


def test_usage_patterns_are_merged_and_taken_out_again(cell: FakeCell, load_site: LoadSite) -> None:
    for before, after in {
        "accounting=true joblog=false": "accounting=true joblog=false usage_patterns=qrmi:qrmi_*",
        "usage_patterns=gpu:nvidia.*;power:power-* joblog=true": (
            "usage_patterns=gpu:nvidia.*;power:power-*;qrmi:qrmi_* joblog=true"
        ),
    }.items():
        assert with_pattern(before) == with_pattern(after) == after
        assert without_pattern(after) == before
    untouched = cell.snapshot()
    apply(load_site(ONE), Flavour.OCS)
    assert setting(cell.configurations["global"], "reporting_params").endswith(
        "joblog=false usage_patterns=qrmi:qrmi_*"
    )
    remove(load_site(ONE))
    assert cell.snapshot() == untouched
    apply(load_site("usage = false\n"), Flavour.OCS)
    assert "usage_patterns" not in cell.configurations["global"]


def test_a_usage_pattern_that_was_there_stays(cell: FakeCell, load_site: LoadSite) -> None:
    cell.configurations["global"] = cell.configurations["global"].replace("joblog=false", "usage_patterns=qrmi:qrmi_*")
    before = cell.snapshot()
    apply(load_site(ONE), Flavour.OCS)
    remove(load_site(ONE))
    assert cell.snapshot() == before


def test_ocs_can_name_the_qpu_that_a_job_was_granted(cell: FakeCell, load_site: LoadSite) -> None:
    before = cell.snapshot()
    section = 'rsmap = "qpu_id"\n' + TWO
    apply(load_site(section), Flavour.OCS)
    assert cell.values["qpu_id"] == "3(fresnel emu emu)"
    assert "qpu_id qpu_id RSMAP <= YES JOB NONE 0" in cell.table
    remove(load_site(section))
    assert cell.snapshot() == before
    with pytest.raises(ConfigurationError, match="is a complex of ours"):
        apply(load_site('rsmap = "qpu_state"\n'), Flavour.OCS)


@pytest.mark.parametrize(
    ("before", "meanwhile", "after"),
    [("ac,h,i,e", "a,ac,h", "ac,h"), ("none", "a,ac", "none"), ("none", "a,ac,h", "h"), ("a,ac", "a,ac,h", "a,ac,h")],
)
def test_the_prolog_may_put_off_jobs_beside_a_jsv(
    cell: FakeCell, load_site: LoadSite, before: str, meanwhile: str, after: str
) -> None:
    def change_to(value: str) -> None:
        cell.configurations["global"] = qconf_text.with_setting(cell.configurations["global"], "jsv_allowed_mod", value)

    change_to(before)
    apply(load_site(JSV))
    assert setting(cell.configurations["global"], "jsv_allowed_mod").startswith("a,ac")
    change_to(meanwhile)
    assert deployment.difference(load_site(JSV)).changes == ()
    remove(load_site(JSV))
    assert setting(cell.configurations["global"], "jsv_allowed_mod") == after


def test_the_jsv_is_set_where_there_is_none(cell: FakeCell, load_site: LoadSite) -> None:
    apply(load_site(JSV))
    assert setting(cell.configurations["global"], "jsv_url") == "script:/opt/w/bin/qpu-jsv"
    lose_the_record(load_site(JSV))
    apply(load_site(ONE))
    assert setting(cell.configurations["global"], "jsv_url") == "none"
