"""The texts that qconf shows and takes."""

import pytest
from gridengine_samples import SAMPLES, calls, stdout

from gridengine import qconf_text
from gridengine.qconf_text import Layered
from gridengine.resources import parse_table, render_table


@pytest.mark.parametrize("text", [stdout("sge/qconf_sc.txt"), (SAMPLES / "ocs/qconf_sc.txt").read_text()])
def test_the_table_survives_reading_and_writing(text: str) -> None:
    table = parse_table(text)
    assert len(table) == len([line for line in text.splitlines() if line and line[0] != "#"]) > 50
    assert parse_table(render_table(table)) == table


def test_what_is_no_table_is_not_read() -> None:
    with pytest.raises(ValueError, match="too few"):
        parse_table("too few\n")


def test_settings_are_read_whole() -> None:
    sge, ocs = (qconf_text.settings(stdout(f"{flavour}/qconf_sconf.txt")) for flavour in ("sge", "ocs"))
    assert sge["load_sensor"] == "none"
    assert ocs["load_sensor"] == "NONE"
    for shown in (sge, ocs):
        assert shown["reporting_params"].split()[0] == "accounting=true"
        assert shown["reporting_params"].split()[-1] == "sharelog=00:00:00"
    hooks = qconf_text.settings(stdout("sge/qconf_sq_hooks.txt"))
    assert hooks["prolog"] == "root@/opt/warden/bin/qpu-prolog $job_id $ja_task_id $job_owner $host"


def test_values_are_read_over_line_ends() -> None:
    shown = next(call for call in calls("ocs/qconf_complex_values_session.txt") if "qpu_mon=1.5, \\" in call.stdout)
    assert qconf_text.pairs(qconf_text.settings(shown.stdout)["complex_values"]) == {
        "qpu": "1",
        "qpu_q": "0.5",
        "qpu_type": "fresnel",
        "qpu_mon": "1.5",
        "qpu_id": "2(fresnel_a fresnel_b)",
    }
    assert qconf_text.pairs("NONE") == {}


WRAPPED = "#global:\nmailer  /bin/mail\nload_sensor                  /a/b,/c/d, \\\n                             /e/f\nxterm x\n"


def test_one_line_is_changed_and_no_other() -> None:
    changed = qconf_text.with_setting(WRAPPED, "load_sensor", "/a\\1")
    assert changed == "#global:\nmailer  /bin/mail\nload_sensor                  /a\\1\nxterm x\n"
    assert qconf_text.names(qconf_text.settings(WRAPPED)["load_sensor"]) == ["/a/b", "/c/d", "/e/f"]
    assert qconf_text.without(WRAPPED, "load_sensor") == "#global:\nmailer  /bin/mail\nxterm x\n"
    assert qconf_text.with_setting("", "load_sensor", "/a") == "load_sensor                  /a\n"
    assert qconf_text.none_as_in(stdout("sge/qconf_sconf.txt")) == "none"
    assert qconf_text.none_as_in(stdout("ocs/qconf_sconf.txt")) == "NONE"


def test_configurations_of_several_hosts_are_taken_apart() -> None:
    shown = "#node1:\nprolog                       /x\n\n\n#node2:\nmailer                       /y\n\n"
    assert qconf_text.configurations(shown) == {
        "node1": "#node1:\nprolog                       /x\n",
        "node2": "#node2:\nmailer                       /y\n",
    }
    assert qconf_text.configurations("") == {}


@pytest.mark.parametrize(
    ("text", "default", "overrides"),
    [
        ("NONE", "NONE", {}),
        ("a=1,b=2,[@group=a=3],[node1=a=4,b=5]", "a=1,b=2", {"@group": "a=3", "node1": "a=4,b=5"}),
        (
            "NONE,[node1=root@/x/y $host -- /a b],[node2=NONE]",
            "NONE",
            {"node1": "root@/x/y $host -- /a b", "node2": "NONE"},
        ),
        ("2(a b)", "2(a b)", {}),
        ("/a b, c", "/a b, c", {}),
    ],
)
def test_what_stands_for_hosts_is_told_from_what_stands_for_all(
    text: str, default: str, overrides: dict[str, str]
) -> None:
    found = Layered.parse(text)
    assert (found.default, found.overrides) == (default, overrides)
    assert str(found) == text


def test_lists_are_edited_entry_by_entry() -> None:
    assert qconf_text.with_pairs("NONE", [("qpu", "1")]) == "qpu=1"
    assert qconf_text.with_pairs("slots=2,qpu=3", [("qpu", "1")]) == "slots=2,qpu=1"
    assert qconf_text.without_pairs("slots=2,qpu=3,id=2(a b)", ["qpu"]) == "slots=2,id=2(a b)"
    assert qconf_text.without_pairs("qpu=3", ["qpu"]) == "NONE"
    assert qconf_text.with_word("make  mpi", "qpu_window") == "make mpi qpu_window"
    assert qconf_text.without_word("make qpu_window", "qpu_window") == "make"
    assert qconf_text.without_word("qpu_window", "qpu_window") == "NONE"


def test_what_is_sent_back_has_no_line_ends_inside_values() -> None:
    sent = qconf_text.unwrapped(stdout("ocs/qconf_sconf.txt"))
    assert "\\" not in sent
    assert "binding_params               enabled=true,implicit=false,mode=default,default_unit=C," in sent
    assert qconf_text.settings(sent) == qconf_text.settings(stdout("ocs/qconf_sconf.txt"))
