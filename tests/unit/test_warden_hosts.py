"""What the broker knows of execution hosts, and which of them reports the QPU."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warden_machine import ALICE, OPERATOR, ROOT, T0, Machine, ready

from warden import hosts, wire
from warden.hosts import Hosts, patience
from warden.model import SECOND, ForbiddenError, HostReport


def said(host: str, interval: float = 10, *, candidate: bool = True, **more: object) -> wire.Renew:
    return wire.Renew(host=host, jobs=(), candidate=candidate, interval=round(interval * SECOND), **more)  # type: ignore[arg-type]


def test_the_first_host_reports_as_long_as_it_is_heard() -> None:
    known = Hosts()
    for now in range(0, 1000 * SECOND, 10 * SECOND):
        assert known.heard(said("b"), now) == "b"
        assert known.heard(said("a"), now + 1) == "b"


def test_another_one_takes_over_when_it_is_silent_for_three_of_its_intervals() -> None:
    known = Hosts()
    known.heard(said("a"), 0)
    assert known.heard(said("b"), 30 * SECOND - 1) == "a"
    assert known.heard(said("b"), 30 * SECOND) == "b"
    # And it stays, when the first one is back.
    assert known.heard(said("a"), 31 * SECOND) == "b"
    assert [report.host for report in known.reports() if report.reporter] == ["b"]


@pytest.mark.parametrize(("interval", "expected"), [(0, 120), (0.1, 5), (1, 5), (10, 30), (40, 120), (7200, 600)])
def test_its_patience_has_bounds(interval: float, expected: float) -> None:
    assert patience(round(interval * SECOND)) == expected * SECOND


def test_who_is_no_candidate_never_reports() -> None:
    known = Hosts()
    assert known.heard(said("a", candidate=False), 0) == ""
    assert known.heard(said("b"), 1) == "b"
    assert known.heard(said("b", candidate=False), 2) == ""
    assert known.heard(said("c"), 3) == "c"


def test_the_clock_may_be_set_and_the_broker_stopped() -> None:
    known = Hosts()
    known.heard(said("a", time=5), 0)
    known.shift(1000 * SECOND)
    assert known.heard(said("b"), 1010 * SECOND) == "a"
    [first, _] = known.reports()
    assert (first.seen, first.ahead) == (1000 * SECOND, 5 - 1000 * SECOND)
    known.begin_anew(500 * SECOND)
    assert known.heard(said("b"), 1520 * SECOND) == "a"


def test_they_are_not_more_than_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "_MOST", 5)
    known = Hosts()
    for number in range(100):
        known.heard(said(f"node{number}"), number)
    assert len(known.reports()) == 5


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60), st.booleans()), max_size=40))
def test_there_is_one_reporter_and_it_is_a_candidate_that_was_heard_of_late(
    script: list[tuple[str, int, bool]],
) -> None:
    known, now = Hosts(), 0
    for host, pause, candidate in script:
        now += pause * SECOND
        told = known.heard(said(host, candidate=candidate), now)
        reporters = [report for report in known.reports() if report.reporter]
        assert [report.host for report in reporters] == ([told] if told else [])
        assert all(report.candidate and now - report.seen < patience(report.interval) for report in reporters)
        assert told or not candidate


def test_operators_read_what_hosts_say_and_control_characters_never() -> None:
    machine, _ = ready()
    body = said("node1", 4, version="1.2\x1b[31m", time=T0 + 3 * SECOND, trouble=("no key:\n/etc/x",))
    answer = machine.ask(body, ROOT)
    assert answer == wire.Renewed(sessions=0, reporter="node1")
    assert machine.ask(wire.ListHosts(), OPERATOR) == [
        HostReport(
            host="node1",
            seen=machine.now,
            version="1.2 [31m",
            interval=4 * SECOND,
            ahead=3 * SECOND,
            trouble=("no key: /etc/x",),
            candidate=True,
            reporter=True,
        )
    ]
    with pytest.raises(ForbiddenError):
        machine.ask(wire.ListHosts(), ALICE)
    with pytest.raises(ForbiddenError):
        machine.ask(body, OPERATOR)


def test_a_broker_that_is_started_anew_takes_the_first_that_speaks() -> None:
    machine = Machine()
    assert machine.ask(said("node1")).reporter == "node1"
    machine.restart()
    assert machine.ask(wire.ListHosts(), OPERATOR) == []
    assert machine.ask(said("node2")).reporter == "node2"
