"""Which requests for a QPU can never be met, and what a job with one lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridengine import jsv_policy, patterns, site
from gridengine.jsv_policy import Class, Qpu
from gridengine.jsv_protocol import Answer, Job

if TYPE_CHECKING:
    from pathlib import Path

FRESNEL = Qpu(name="fresnel", places=1, qubits=14, longest=3600, queues=("all.q",))
EMU = Qpu(name="emu", places=3, qubits=30, longest=604800, queues=("emu.q@@quantum", "emu.q@node9"))
BOTH = (FRESNEL, EMU)


def job(wants: str = "qpu=1", *, variables: frozenset[str] = frozenset(), **parameters: str) -> Job:
    return Job(parameters={"USER": "alice", "l_hard": wants, **parameters}, variables=variables)


def decide(one: Job, *qpus: Qpu, uid: int | None = 1000) -> Answer:
    asked = jsv_policy.request(one)
    assert asked is not None
    if why := jsv_policy.impossible(asked, interactive=jsv_policy.is_interactive(one)):
        return Answer(refused=why)
    return jsv_policy.decide(msgspec.structs.replace(asked, uid=uid), qpus or (FRESNEL,))


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"l_hard": "h_rt=60"},
        {"l_hard": "qpu_name=fresnel,qpu_window=5"},
        {"l_soft": "qpu_qubits=5"},
        {"N": "qpu"},
        {"l_hard": "a=qpu"},
    ],
)
def test_a_job_that_asks_for_no_qpu_is_none_of_ours(parameters: dict[str, str]) -> None:
    assert jsv_policy.request(Job(parameters=parameters)) is None


@pytest.mark.parametrize(
    ("wants", "parameters", "said"),
    [
        ("qpu=0", {}, "-l qpu=0 asks for no whole place on a QPU: ask for qpu=1, or leave it out"),
        ("qpu=0.5", {}, "-l qpu=0.5 asks for no whole place"),
        ("qpu=0x1", {}, "-l qpu=0x1 asks for no whole place"),
        ("qpu=TRUE", {}, "-l qpu=TRUE asks for no whole place"),
        ("qpu=-1", {}, "-l qpu=-1 asks for no whole place"),
        ("qpu", {}, "-l qpu asks for no whole place"),
        ("h_rt=1", {"l_soft": "qpu=1"}, "-soft -l qpu gets no QPU: ask for it with -hard -l qpu=1"),
        ("qpu=1", {"CLIENT": "qrsh"}, "qrsh and qlogin jobs get no QPU"),
        ("qpu=2", {}, "qpu=2 is more than the QPU fresnel has: ask for qpu=1"),
        ("qpu=1,qpu=2", {}, "qpu=2 is more than the QPU fresnel has"),
        ("qpu=1,qpu_name=emu*", {}, "there is no QPU emu*: qpu_name can be fresnel"),
        ("qpu=1,qpu_qubits=15", {}, "qpu_qubits=15 is more than the QPU fresnel has: ask for at most qpu_qubits=14"),
        (
            "qpu=1,qpu_window=3601",
            {},
            "qpu_window=3601 is longer than the QPU fresnel is ever left alone: ask for at most qpu_window=3600",
        ),
        (
            "qpu=1",
            {"q_hard": "other.q,b*@node1"},
            "-q other.q, b*@node1 has no queue with the QPU fresnel: leave it out, or name one of all.q",
        ),
        ("qpu=1", {"masterq": "other.q"}, "-q other.q has no queue with the QPU fresnel"),
    ],
)
def test_what_one_qpu_can_never_give_is_refused(wants: str, parameters: dict[str, str], said: str) -> None:
    refused = decide(job(wants, **parameters)).refused
    assert refused.startswith(said)
    assert "\n" not in refused


@pytest.mark.parametrize(
    ("wants", "parameters", "said"),
    [
        ("qpu=4", {}, "qpu=4 is more than any of the QPUs fresnel, emu has: ask for at most qpu=3"),
        ("qpu=2,qpu_name=fres*", {}, "qpu=2 is more than the QPU fresnel has"),
        ("qpu=1,qpu_name=x|y", {}, "there is no QPU x|y: qpu_name can be fresnel, emu"),
        ("qpu=1,qpu_name=!(emu|f*)", {}, "there is no QPU !(emu|f*): qpu_name can be fresnel, emu"),
        ("qpu=1,qpu_qubits=31", {}, "qpu_qubits=31 is more than any of"),
        ("qpu=1,qpu_qubits=20", {"q_hard": "all.q"}, "qpu_qubits=20 is more than the QPU fresnel has"),
        ("qpu=1,qpu_name=emu", {"q_hard": "all.q"}, "-q all.q has no queue with the QPU emu: leave it out"),
        ("qpu=2,qpu_window=5,qpu_name=fresnel|emu", {"q_hard": "all.*"}, "qpu=2 is more than the QPU fresnel has"),
    ],
)
def test_several_qpus_are_refused_by_the_best_of_those_that_match(
    wants: str, parameters: dict[str, str], said: str
) -> None:
    assert decide(job(wants, **parameters), *BOTH).refused.startswith(said)


@pytest.mark.parametrize(
    "wants",
    [
        "qpu=1,qpu_name=fres*",
        "qpu=1.000000,qpu_name=f?esnel|nobody",
        "qpu=1,qpu_name=!(emu)",
        "qpu=1,qpu_qubits=14,qpu_window=3600",
        "qpu=1,qpu_window=0:10:0",
    ],
)
def test_what_may_be_met_or_is_not_understood_is_left_to_the_scheduler(wants: str) -> None:
    assert not decide(job(wants)).refused


@pytest.mark.parametrize(
    "queues", ["other.q@node1|all.q", "!all.q@node1", "(other.q|all.q)@node1", "@node1", "@@quantum"]
)
def test_a_queue_that_may_be_meant_is_left_to_the_scheduler(queues: str) -> None:
    assert not decide(job(q_hard=queues)).refused


@pytest.mark.parametrize("of", ["queues", "QPUs"])
def test_thousands_of_patterns_are_not_compared(of: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []
    monkeypatch.setattr(patterns, "fits", lambda pattern, name: compared.append(pattern) or pattern in {"*", name})
    many = [f"q{number}*" for number in range(10_000)]
    one = job(q_hard=",".join(many)) if of == "queues" else job(f"qpu=1,qpu_name={'|'.join(many)}")
    assert not decide(one).refused
    assert len(compared) < 10


def test_who_may_not_use_the_qpu_is_sent_to_those_who_know() -> None:
    theirs = msgspec.structs.replace(FRESNEL, users=frozenset({1001}))
    assert decide(job(), theirs).refused.startswith("alice may not use the QPU fresnel")
    assert not decide(job(), theirs, uid=1001).refused
    # Nobody knows who that is; the prolog will.
    assert not decide(job(), theirs, uid=None).refused
    found = decide(job(), theirs, EMU)
    assert not found.refused
    assert found.parameters["q_hard"] == "emu.q@@quantum,emu.q@node9"


# --- what is added ---


def test_a_job_gets_the_window_that_it_needs_the_queues_and_its_class() -> None:
    one = msgspec.structs.replace(FRESNEL, classes=(Class(name="everybody"),))
    assert decide(job("h_vmem=1G,qpu=1,h_rt=90", ac="a=b"), one).parameters == {
        "l_hard": "h_vmem=1G,qpu=1,h_rt=90,qpu_window=90",
        "q_hard": "all.q",
        "ac": "a=b,qpu_class=everybody",
    }


@pytest.mark.parametrize(
    ("limit", "window"),
    [
        ("90", "90"),
        ("0:1:30", "90"),
        ("0:58:00", "3480"),
        ("0:58:01", None),
        (":1:", "60"),
        ("30.2", "31"),
        ("INFINITY", None),
        ("0", None),
        ("", None),
        ("-5", None),
    ],
)
def test_the_window_comes_from_the_time_limit_unless_none_is_so_long(limit: str, window: str | None) -> None:
    added = decide(job(f"qpu=1,h_rt={limit}")).parameters.get("l_hard")
    assert added == (None if window is None else f"qpu=1,h_rt={limit},qpu_window={window}")


@pytest.mark.parametrize("parameters", [{"l_hard": "qpu=1,h_rt=60,qpu_window=5"}, {"l_soft": "qpu_window=5"}])
def test_a_window_that_was_asked_for_stays(parameters: dict[str, str]) -> None:
    assert "l_hard" not in decide(job(**{"wants": "qpu=1,h_rt=60", **parameters})).parameters


@pytest.mark.parametrize("parameters", [{"q_hard": "all.q"}, {"q_hard": "*@node1,x.q"}, {"masterq": "all.q@node1"}])
def test_queues_that_were_named_stay(parameters: dict[str, str]) -> None:
    assert "q_hard" not in decide(job(**parameters)).parameters


def test_the_queues_are_those_of_the_qpus_that_are_left() -> None:
    assert decide(job("qpu=1"), *BOTH).parameters["q_hard"] == "all.q,emu.q@@quantum,emu.q@node9"
    assert decide(job("qpu=2"), *BOTH).parameters["q_hard"] == "emu.q@@quantum,emu.q@node9"


CLASSES = (
    Class(name="urgent", users=frozenset({"carol", 1007})),
    Class(name="production", queues=frozenset({"prod.q"}), projects=frozenset({"physics"})),
    Class(name="others"),
)


@pytest.mark.parametrize(
    ("uid", "parameters", "name"),
    [
        (1000, {}, "others"),
        (1000, {"USER": "carol"}, "urgent"),
        (1007, {"q_hard": "prod.q"}, "urgent"),
        (1000, {"q_hard": "prod.q@node1"}, "production"),
        (1000, {"q_hard": "prod.q,all.q"}, "others"),
        (1000, {"P": "physics"}, "production"),
        (1000, {"P": "none"}, "others"),
    ],
)
def test_the_class_is_the_one_that_warden_will_find(uid: int, parameters: dict[str, str], name: str) -> None:
    qpu = msgspec.structs.replace(FRESNEL, queues=("all.q", "prod.q"), classes=CLASSES)
    added = decide(job(ac="qpu_class=mine,b=2", **parameters), qpu, uid=uid).parameters
    assert added["ac"] == f"b=2,qpu_class={name}"


def test_qpus_with_other_classes_leave_it_open() -> None:
    other = msgspec.structs.replace(EMU, classes=(Class(name="all"),))
    assert "ac" not in decide(job(), msgspec.structs.replace(FRESNEL, classes=CLASSES), other).parameters


def test_nothing_is_changed_where_nothing_is_missing() -> None:
    one = msgspec.structs.replace(FRESNEL, classes=(Class(name="all"),))
    assert decide(job("qpu=1", q_hard="all.q", ac="qpu_class=all"), one) == Answer()


def test_parameters_of_ocs_have_other_names() -> None:
    asked = Job(parameters={"USER": "alice", "global_l_hard": "qpu=1,h_rt=60"})
    assert decide(asked).parameters == {"global_l_hard": "qpu=1,h_rt=60,qpu_window=60", "global_q_hard": "all.q"}
    master = Job(parameters={"USER": "alice", "master_l_hard": "qpu=2"})
    assert decide(master).refused.startswith("qpu=2 is more")
    master = Job(parameters={"USER": "alice", "master_l_hard": "qpu=1,h_rt=60"})
    assert decide(master).parameters == {"global_l_hard": "qpu_window=60", "global_q_hard": "all.q"}
    soft = Job(parameters={"USER": "alice", "global_l_soft": "qpu=2"})
    assert decide(soft).refused.startswith("-soft")


# --- for all jobs ---


def test_line_breaks_and_the_loaders_tunables_are_nobodys_right() -> None:
    assert jsv_policy.for_all(Job()) == Answer()
    assert jsv_policy.for_all(Job(tampered=True)).refused.startswith("line breaks")
    assert jsv_policy.for_all(Job(variables=frozenset({"GLIBC_TUNABLES", "QRSH_PORT"}))).removed == ("GLIBC_TUNABLES",)


# --- from the configuration ---


def test_a_site_is_read_as_its_qpus(tmp_path: Path) -> None:
    emu = tmp_path / "emu.toml"
    emu.write_text('[qpu]\nname = "emu"\nplaces = 2\nqubits = 20\n')
    path = tmp_path / "warden.toml"
    path.write_text(
        '[qpu]\nname = "fresnel"\n[[calibration]]\nevery = "1h"\nduration = "10min"\n'
        "[[class]]\nname = 'p'\nusers = ['carol', 7]\nqueues = ['a.q']\nprojects = ['physics']\n"
        f"[[gridengine.qpu]]\nqueues = ['a.q', 'b.q']\nhosts = ['@quantum', 'node9']\n"
        f"[[gridengine.qpu]]\nconfig = '{emu}'\nqueues = ['emu.q']\n"
    )
    first, second = (jsv_policy.offered(offer, None) for offer in site.load(path).offers)
    assert first.queues == ("a.q@@quantum", "a.q@node9", "b.q@@quantum", "b.q@node9")
    assert (first.longest, second.longest) == (3000, 604800)
    assert first.classes == (
        Class(name="p", users=frozenset({"carol", 7}), queues=frozenset({"a.q"}), projects=frozenset({"physics"})),
    )
    assert (second.name, second.places, second.qubits, second.queues) == ("emu", 2, 20, ("emu.q",))


texts = st.text(alphabet="qpu=,1*@|!h_rt:. \udcff\x00", max_size=40)


@given(st.dictionaries(st.sampled_from(["l_hard", "l_soft", "q_hard", "masterq", "ac", "P", "USER"]), texts))
def test_no_request_is_beyond_it(parameters: dict[str, str]) -> None:
    one = Job(parameters=parameters)
    if jsv_policy.request(one) is not None:
        found = decide(one, *BOTH)
        assert not (found.refused and found.parameters)
