"""What a site has of its own, and what its admins do meanwhile: it stays, is given back, or is said to stand in the way."""

import pytest
from gridengine_cell import FakeCell, setting
from gridengine_deployed import (
    EPILOG,
    HOSTS,
    JSV,
    ONE,
    PROLOG,
    SENSOR,
    TWO,
    LoadSite,
    apply,
    chained,
    lose_the_record,
    remove,
)

from gridengine.deployment import hooks
from warden.model import ConfigurationError, ConflictError

# --- hooks of the site ---


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("/site/p $host", chained("prolog", "/site/p $host")),
        (
            "sge@/p,[@quantum=NONE],[node3=/q]",
            f"{chained('prolog', 'sge@/p')},[@quantum={PROLOG}],[node3={chained('prolog', '/q')}]",
        ),
        # One that only looks like ours.
        ("root@/x/qpu-prolog; true", chained("prolog", "root@/x/qpu-prolog; true")),
    ],
)
@pytest.mark.parametrize("recorded", [True, False])
def test_another_prolog_is_chained_and_given_back(
    cell: FakeCell, load_site: LoadSite, before: str, after: str, recorded: bool
) -> None:
    cell.queues["all.q"]["prolog"] = before
    apply(load_site(ONE))
    assert cell.queues["all.q"]["prolog"] == after
    if not recorded:
        lose_the_record(load_site(ONE))
    remove(load_site(ONE))
    assert cell.queues["all.q"]["prolog"] == before


@pytest.mark.parametrize("recorded", [True, False])
def test_an_inherited_prolog_runs_on_and_is_inherited_again(
    cell: FakeCell, load_site: LoadSite, recorded: bool
) -> None:
    cell.configurations["global"] = cell.configurations["global"].replace("prolog none", "prolog /for/all $host")
    cell.configurations["node3"] = "#node3:\nprolog user@/for/node3\n"
    before = cell.snapshot()
    apply(load_site(ONE))
    assert (
        cell.queues["all.q"]["prolog"]
        == f"{chained('prolog', '/for/all $host')},[node3={chained('prolog', 'user@/for/node3')}]"
    )
    assert cell.queues["all.q"]["epilog"] == EPILOG
    if not recorded:
        lose_the_record(load_site(ONE))
    remove(load_site(ONE))
    assert cell.snapshot() == before


def test_a_changed_inherited_prolog_is_followed(cell: FakeCell, load_site: LoadSite) -> None:
    cell.configurations["global"] = cell.configurations["global"].replace("prolog none", "prolog /old")
    apply(load_site(ONE))
    cell.configurations["global"] = cell.configurations["global"].replace("prolog /old", "prolog /new")
    assert [str(each) for each in apply(load_site(ONE))] == [
        f"~ prolog of queue all.q: {chained('prolog', '/old')} -> {chained('prolog', '/new')}"
    ]
    remove(load_site(ONE))
    assert cell.queues["all.q"]["prolog"] == "NONE"


def test_an_inherited_prolog_of_hosts_without_the_qpu_stays_theirs(cell: FakeCell, load_site: LoadSite) -> None:
    cell.configurations["node1"] = "#node1:\nprolog /for/node1\n"
    apply(load_site('hosts = ["node3"]\n'))
    assert cell.queues["all.q"]["prolog"] == f"NONE,[node3={PROLOG}]"


@pytest.mark.parametrize("awkward", ["/site/p [x]", "/site/p" + 99 * " x"])
def test_a_prolog_that_cannot_be_chained_is_said(cell: FakeCell, load_site: LoadSite, awkward: str) -> None:
    cell.configurations["global"] = cell.configurations["global"].replace("prolog none", f"prolog {awkward}")
    with pytest.raises(
        ConflictError, match=r"the prolog /site/p .* cannot stand in a queue beside ours: put it into a script"
    ):
        apply(load_site(ONE))


@pytest.mark.parametrize(
    "text",
    [
        "root@/x/qpu-chain prolog 2 /p $job_id",  # a word is missing
        "root@/x/qpu-chain epilog 1 /p $job_id",
        "root@/x/qpu-chain prolog 1 /p $job_id x",
        "alice@/x/qpu-chain prolog 1 /p $job_id",
        "root@/x/qpu-epilog $job_id",
        "/opt/w/bin/qpu-prolog",
    ],
)
def test_what_only_looks_like_our_prolog_is_theirs(text: str) -> None:
    assert hooks.original("prolog", text) == text
    assert not hooks.any_ours("prolog", f"NONE,[node1={text}]")


def test_our_hook_from_another_place_is_ours_still(cell: FakeCell, load_site: LoadSite) -> None:
    cell.queues["all.q"]["prolog"] = "root@/old/bin/qpu-chain prolog 1 /site/p $job_id"
    apply(load_site(ONE))
    assert cell.queues["all.q"]["prolog"] == chained("prolog", "/site/p")


# --- what admins do meanwhile, and what was there before ---


def test_what_an_admin_changes_meanwhile_stays(cell: FakeCell, load_site: LoadSite) -> None:
    apply(load_site(TWO + ""))
    cell.values["licence"] = "5"
    cell.queues["a.q"]["complex_values"] += ",slots=7"
    cell.queues["a.q"]["load_thresholds"] = "np_load_avg=2," + cell.queues["a.q"]["load_thresholds"]
    cell.queues["b.q"]["prolog"] = cell.queues["b.q"]["prolog"].replace("NONE", "/new")
    cell.configurations["global"] = cell.configurations["global"].replace(SENSOR, f"{SENSOR},/late")
    remove(load_site(TWO))
    assert cell.values == {"licence": "5"}
    assert cell.queues["a.q"]["complex_values"] == "slots=7"
    assert cell.queues["a.q"]["load_thresholds"] == "np_load_avg=2"
    assert cell.queues["b.q"]["prolog"] == "/new,[node2=NONE]"
    assert setting(cell.configurations["global"], "load_sensor") == "/site,/late"


def test_complexes_and_values_that_were_there_before_us_are_there_after_us(cell: FakeCell, load_site: LoadSite) -> None:
    cell.table += "\nqpu qpu INT <= YES JOB 0 0\n"
    cell.values["qpu"] = "7"
    before = cell.snapshot()
    assert "~ value qpu of host global: 7 -> 1" in map(str, apply(load_site(ONE)))
    remove(load_site(ONE))
    assert cell.snapshot() == before


def test_what_is_not_ours_stands_in_our_way(cell: FakeCell, load_site: LoadSite) -> None:
    bad = {
        "another complex qpu": lambda: setattr(cell, "table", cell.table + "\nqpu qpu INT <= YES YES 0 100\n"),
        "another resource quota set qpu": lambda: cell.sets.update(
            qpu='description "mine"\nlimit users * to slots=1\n'
        ),
        "another parallel environment": lambda: cell.environments.update(qpu_window="pe_name qpu_window\nslots 3\n"),
        "another jsv_url already": lambda: cell.configurations.update(
            {"global": cell.configurations["global"].replace("jsv_url                      none", "jsv_url  script:/x")}
        ),
    }
    fresh = cell.snapshot()
    for said, spoil in bad.items():
        cell.__init__()  # type: ignore[misc]
        spoil()
        before = cell.snapshot()
        with pytest.raises(ConflictError, match=said):
            apply(load_site(JSV + TWO))
        assert remove(load_site(JSV + TWO)) == ()
        assert cell.snapshot() == before != fresh


def test_a_site_that_the_cluster_does_not_have_is_refused(cell: FakeCell, load_site: LoadSite) -> None:
    for section, said in {
        'queues = ["no.q"]\n': r"Grid Engine has no queue no\.q: correct gridengine.queues",
        'hosts = ["node9"]\n': r"queue all\.q has no host of node9: correct gridengine.hosts \(it has node1, node2, node3\)",
        'hosts = ["@nobody"]\n': "no host group @nobody",
        'rsmap = "qpu_id"\n': "has no RSMAP",
        TWO.replace("emu.toml", "state.toml"): "qpu_state is a complex with another meaning",
    }.items():
        load_site(ONE).settings.record.parent.joinpath("state.toml").write_text('[qpu]\nname = "state"\n')
        with pytest.raises(ConfigurationError, match=said):
            apply(load_site(section))
    cell.queues["all.q"]["prolog"] = "NONE,[@fast=/x]"
    cell.groups["@fast"] = "node2 node3"
    with pytest.raises(ConflictError, match=r"entry for @fast, and gridengine\.hosts names @quantum"):
        apply(load_site(HOSTS))
