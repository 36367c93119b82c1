"""Who says what of the QPU, against a Grid Engine that keeps what it was told last and is told only what was changed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from load_sensors.outlook import Outlook
from load_sensors.qpu import Rhythm, values
from load_sensors.voice import Voice
from warden.model import SECOND, State

OFFLINE = {"qpu": 0, "qpu_state": "offline", "qpu_window": 0}
READY = {"qpu": 4, "qpu_state": "ready", "qpu_window": 70}
PAUSED = {"qpu": 0, "qpu_state": "calibrating", "qpu_window": 0}
Truth = dict[str, int | str]


class Cell:
    """What a qmaster makes of the reports of several execds, as it was seen on SGE 8.1.9."""

    def __init__(self, hosts: str) -> None:
        self.voices = {host: Voice() for host in hosts}
        self.sent: dict[str, dict[str, str]] = {host: {} for host in hosts}
        self.known: dict[str, str] = {}

    def report(self, host: str, truth: Truth | None, charge: bool | None) -> dict[str, str]:
        said = dict(self.voices[host].say(truth, OFFLINE, charge))
        before, self.sent[host] = self.sent[host], said
        for name in before.keys() - said.keys():
            # What an execd leaves out is gone, whoever said it last.
            self.known.pop(name, None)
        self.known |= {name: value for name, value in said.items() if before.get(name) != value}
        return said

    @property
    def values(self) -> Truth:
        return {name: value if name == "qpu_state" else int(value) for name, value in self.known.items()}


def test_who_never_reported_says_nothing() -> None:
    cell = Cell("ab")
    cell.report("a", READY, True)
    for truth in (READY, None, PAUSED):
        assert cell.report("b", truth, False) == {}
    assert cell.values == READY


def test_who_reports_is_heard_whatever_another_says() -> None:
    cell = Cell("ab")
    for _ in range(2):
        cell.report("a", READY, True)
    cell.known |= {"qpu": "0", "qpu_window": "0"}
    cell.report("a", READY, True)
    assert cell.values == READY


def test_without_warden_the_reporter_says_offline_and_others_what_they_said() -> None:
    cell = Cell("ab")
    cell.report("b", READY, True)
    cell.report("a", READY, True)
    cell.report("b", READY, False)
    said = cell.report("b", None, None)
    assert {name: value.lstrip("+") for name, value in said.items()} == {n: str(v) for n, v in READY.items()}
    assert cell.values == READY
    cell.report("a", None, None)
    assert cell.values == OFFLINE
    cell.report("b", None, None)
    assert cell.values == OFFLINE


def test_who_knows_nothing_says_no_word_that_would_stay() -> None:
    cell = Cell("ab")
    cell.report("a", READY, True)
    cell.report("b", None, None)
    assert cell.values["qpu"] == 0
    cell.report("a", READY, True)
    assert cell.values == READY


def test_who_was_not_told_but_knows_the_truth_says_it() -> None:
    """As where no host can say who it is: the QPU must not be hidden by that."""
    assert Cell("a").report("a", READY, None) == {"qpu": "4", "qpu_state": "ready", "qpu_window": "70"}


def test_who_takes_over_again_is_heard_though_its_values_look_unchanged() -> None:
    cell = Cell("ab")
    cell.report("a", READY, True)
    cell.report("b", READY, True)
    cell.report("a", READY, False)
    # The second one is cut off, and falls silent.
    cell.report("b", None, None)
    assert cell.values == OFFLINE
    cell.report("a", READY, True)
    assert cell.values == {"qpu": 4, "qpu_window": 70}
    cell.report("a", READY, True)
    assert cell.values == READY


@settings(max_examples=500)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from("abc"),
            st.sampled_from([READY, PAUSED]),
            st.sets(st.sampled_from("abc")),
        ),
        max_size=30,
    )
)
def test_after_two_reports_of_the_reporter_and_one_of_the_others_all_is_right(
    script: list[tuple[str, str, Truth, set[str]]],
) -> None:
    cell = Cell("abc")
    reporter = "a"
    for host, reporter, truth, cut in script:
        reached = host not in cut
        cell.report(host, truth if reached else None, host == reporter if reached else None)
    for host in (reporter, *"abc", reporter, reporter):
        cell.report(host, READY, host == reporter)
    assert cell.values == READY


@pytest.mark.parametrize("charge", [True, None])
def test_of_several_each_has_its_places_and_none_is_spoilt_by_another(charge: bool | None) -> None:
    one = Outlook(places=2, state=State.CALIBRATING, window=50, qubits=80)
    voices = {"": Voice(), "a": Voice(), "b": Voice()}
    found = [("a", None, True), ("b", one, charge)]
    assert values(found, voices) == {
        "qpu_a": "0",
        "qpu_b": "2",
        "qpu_state": "calibrating",
        "qpu_window": "50",
        "qpu_qubits": "80",
    }
    assert values([("a", None, True), ("b", None, charge)], voices)["qpu_state"] == "offline"


def test_of_one_its_places_are_qpu() -> None:
    one = Outlook(places=2, state=State.READY, window=50, qubits=80)
    assert list(values([("a", one, True)], {"": Voice()})) == ["qpu", "qpu_state", "qpu_window", "qpu_qubits"]


def test_where_nothing_is_known_nothing_is_said() -> None:
    assert values([], {}) == {}


def test_the_interval_is_the_longest_of_late() -> None:
    rhythm = Rhythm()
    assert [rhythm.beat(now) // SECOND for now in (5, 15, 17, 19, 21, 23)] == [0, 10, 10, 10, 2, 2]
