"""Windows as advance reservations: what is asked for and taken back, and what qrsub and qrstat say."""

from __future__ import annotations

import datetime as dt
import json
import re
import time
from typing import TYPE_CHECKING

import msgspec
import pytest
from click.testing import CliRunner
from gridengine_samples import calls
from hypothesis import given
from hypothesis import strategies as st

from gridengine import admin_cli, commands, reservations, site
from gridengine.reservations import Did, Reservation, Span, Step, difference
from warden.model import SECOND, State, UnavailableError, Window, clock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from gridengine.site import Offer, Site

SGE, OCS = "sge/advance_reservation.txt", "ocs/advance_reservation.txt"
NOW = 1_795_700_000 * SECOND
AHEAD = 3600 * SECOND
NAME, OLDER = "qpu-fresnel-1a2b3c4d", "qpu-fresnel-00000000"


def window(start: float, end: float | None, kind: State = State.CALIBRATING) -> Window:
    """In seconds from now."""
    return Window(NOW + round(start * SECOND), None if end is None else NOW + round(end * SECOND), kind)


def span(start: int, end: int) -> Span:
    return Span(NOW + start * SECOND, NOW + end * SECOND)


def reserved(number: int, start: int, end: int, name: str = NAME) -> Reservation:
    return Reservation(number, name, span(start, end))


def planned(windows: list[Window], existing: list[Reservation]) -> tuple[list[int], list[Span]]:
    """What is taken back, and what asked for."""
    found = difference(windows, existing, name=NAME, now=NOW, ahead=AHEAD)
    assert {one.id for one in (*found.kept, *found.gone)} == {one.id for one in existing}
    return [one.id for one in found.gone], list(found.new)


@pytest.mark.parametrize(
    ("windows", "existing", "gone", "new"),
    [
        pytest.param([], [], [], [], id="nothing"),
        pytest.param([window(60, 90)], [], [], [span(60, 90)], id="a window that was added"),
        pytest.param([window(60, 90)], [reserved(1, 60, 90)], [], [], id="as it should be"),
        pytest.param([], [reserved(1, 60, 90)], [1], [], id="a window that was cancelled"),
        pytest.param([window(80, 110)], [reserved(1, 60, 90)], [1], [span(80, 110)], id="moved"),
        pytest.param([window(60, 80)], [reserved(1, 60, 90)], [1], [span(60, 80)], id="shortened"),
        pytest.param([window(60, 120)], [reserved(1, 60, 90)], [], [span(90, 120)], id="prolonged"),
        pytest.param([window(30, 90)], [reserved(1, 60, 90)], [], [span(30, 60)], id="begins earlier"),
        pytest.param([window(-5, 60)], [reserved(1, -5, 40)], [], [span(40, 60)], id="prolonged while it is open"),
        pytest.param([window(-5, 60)], [reserved(1, -5, 60)], [], [], id="open"),
        pytest.param([], [reserved(1, -5, 60)], [1], [], id="ended before its time"),
        pytest.param([], [reserved(1, -9, 1)], [], [], id="over but for what was rounded"),
        pytest.param([window(60.4, 90.1)], [], [], [span(60, 91)], id="whole seconds, outwards"),
        pytest.param([window(60.4, 90.1)], [reserved(1, 60, 91)], [], [], id="whole seconds are told again"),
        pytest.param([window(60, 90.5), window(90.7, 99)], [], [], [span(60, 99)], id="two that share a second"),
        pytest.param([window(3590, 3700)], [], [], [span(3590, 3700)], id="begins within the horizon"),
        pytest.param([window(3600, 3700)], [], [], [], id="begins beyond it"),
        pytest.param([window(3600, 3700)], [reserved(1, 3600, 3700)], [], [], id="reserved beyond it already"),
        pytest.param([window(60, 90)], [reserved(1, 60, 90, OLDER)], [1], [span(60, 90)], id="other places than now"),
        pytest.param([window(-5, None)], [], [], [], id="a drain"),
        pytest.param([window(-5, None)], [reserved(1, 60, 90)], [], [], id="planned before a drain that hides it"),
        pytest.param([window(60, None)], [reserved(1, 30, 50)], [1], [], id="taken back before a drain"),
        pytest.param(
            [window(60, 90), window(120, 150), window(200, 230)],
            [reserved(1, 60, 90), reserved(2, 130, 150), reserved(3, 300, 330)],
            [3],
            [span(120, 130), span(200, 230)],
            id="all at once",
        ),
    ],
)
def test_reservations_follow_the_calendar(
    windows: list[Window], existing: list[Reservation], gone: list[int], new: list[Span]
) -> None:
    assert planned(windows, existing) == (gone, new)


@pytest.mark.parametrize(
    ("one", "says"),
    [(window(-5, 60), "open already"), (window(3, 60), "too soon"), (window(60, None), "no end")],
)
def test_a_window_that_cannot_be_reserved_is_said(one: Window, says: str) -> None:
    found = difference([one], [], name=NAME, now=NOW, ahead=AHEAD)
    assert found.new == ()
    [(_, reason)] = found.skipped
    assert says in reason


def test_a_window_that_is_as_good_as_over_is_not_worth_a_word() -> None:
    assert difference([window(-60, 0.2)], [], name=NAME, now=NOW, ahead=AHEAD).skipped == ()


_TIMES = st.integers(0, 400)
_WINDOWS = st.lists(st.tuples(_TIMES, st.integers(1, 60), st.booleans()), max_size=6)
_EXISTING = st.lists(st.tuples(_TIMES, st.integers(1, 60), st.sampled_from([NAME, OLDER])), max_size=6)


@given(_WINDOWS, _EXISTING)
def test_afterwards_each_second_of_a_window_is_reserved_once_and_no_other(
    windows: list[tuple[int, int, bool]], existing: list[tuple[int, int, str]]
) -> None:
    calendar = [window(10 + start + late / 2, 10 + start + length) for start, length, late in windows]
    before: list[Reservation] = []
    taken: set[int] = set()
    for number, (start, length, name) in enumerate(existing):
        # The same places cannot be granted twice.
        if not taken & set(range(start, start + length)):
            taken |= set(range(start, start + length))
            before.append(reserved(number, 10 + start, 10 + start + length, name))
    done = difference(calendar, before, name=NAME, now=NOW, ahead=AHEAD)
    after = [*done.kept, *(Reservation(100 + n, NAME, one) for n, one in enumerate(done.new))]
    seconds = [second for one in after for second in range(one.span.start // SECOND, one.span.end // SECOND)]
    wanted = {second for one in calendar for second in range(one.start // SECOND, -(-(one.end or 0) // SECOND))}
    assert sorted(seconds) == sorted(wanted)
    assert {one.name for one in after} <= {NAME}
    again = difference(calendar, after, name=NAME, now=NOW, ahead=AHEAD)
    assert (again.gone, again.new) == ((), ())


def test_a_name_says_what_was_reserved() -> None:
    one = reservations.Request("fresnel", ("-l", "qpu=1"))
    more = reservations.Request("fresnel", ("-l", "qpu=2"))
    assert one.name != more.name
    assert Reservation(1, one.name, span(0, 1)).qpu == "fresnel"
    # What qrsub takes as a name, measured.
    assert re.fullmatch(r"[A-Za-z][\w-]{0,500}", one.name)


def listing(name: str = SGE) -> str:
    return next(call.stdout for call in calls(name) if call.command.startswith("qrstat") and "-xml" in call.command)


def test_ours_are_found_among_those_of_others() -> None:
    assert "qpu<x>&" in listing()
    first, second = reservations.parse_reservations(listing(), {"root"})
    assert (first.id, first.name, first.qpu) == (38, "qpu-fresnel-1a2b3c4d", "fresnel")
    assert str(first.span) == "2026-11-26T13:48:54Z to 2026-11-26T13:49:54Z"
    assert (second.id, second.qpu) == (40, "emu")


def test_ocs_writes_fractions_of_a_second() -> None:
    text = listing(OCS)
    assert reservations.parse_reservations(text, {"alice"}) == []
    [one] = reservations.parse_reservations(text.replace("aliceAR", NAME), {"alice"})
    assert (one.id, str(one.span)) == (1, "2026-11-22T11:32:59Z to 2026-11-22T11:33:49Z")


def test_since_9_2_times_are_read_where_they_are_utc() -> None:
    """Whatever the zone of the asker: the qmaster writes what qstat and qrstat show (static_plus_load_value.txt)."""
    [text] = [call.stdout for call in calls(OCS) if "json" in call.command]
    assert reservations.parse_json(text, {"alice"}) == []
    ours = text.replace("aliceAR", NAME)
    [one] = reservations.parse_json(ours, {"alice"})
    assert (one.id, str(one.span)) == (1, "2026-11-22T11:32:59Z to 2026-11-22T11:33:49Z")
    assert reservations.parse_json(ours, {"root"}) == []
    for broken in (
        "",
        "{}",
        ours[:300],
        ours.replace("2026-11-22T11:32", "soon"),
        ours.replace('"id": 1', '"id": "x"'),
    ):
        with pytest.raises(commands.GridEngineError, match="nothing was changed"):
            reservations.parse_json(broken, {"alice"})


@pytest.mark.parametrize(
    ("number", "form"), [("OCS 9.2.0", "json"), ("OCS 9.1.3", "-xml"), ("OCS 9.0.8", "-xml"), ("SGE 8.1.9", "-xml")]
)
def test_what_only_9_2_has_is_asked_of_9_2_alone(
    monkeypatch: pytest.MonkeyPatch, two: Site, number: str, form: str
) -> None:
    cell = Cell(monkeypatch, version=number)
    calendars(monkeypatch, fresnel=(ahead(100),), emu=())
    assert [step.did for step in reservations.reserve(two)] == [Did.RESERVED]
    assert [step.did for step in reservations.reserve(two)] == [Did.KEPT]
    assert {words[-1] for words in cell.asked if words[0] == "qrstat"} == {form}


@pytest.mark.parametrize(
    "text",
    ["", "error: no answer", listing().replace("2026-11-26T13:48:54", "soon"), listing().replace(">root<", ">eve<")],
)
def test_an_answer_that_is_not_understood_changes_nothing(text: str) -> None:
    with pytest.raises(commands.GridEngineError, match=r"nothing was changed"):
        reservations.parse_reservations(text, {"root"})


def test_no_reservations_are_none() -> None:
    empty = re.sub(r"<ar_summary>.*</ar_summary>", "", listing(), flags=re.DOTALL)
    assert reservations.parse_reservations(empty, {"root"}) == []


@pytest.mark.parametrize(("name", "number"), [(SGE, 38), (OCS, 5)])
def test_the_number_of_what_was_granted(name: str, number: int) -> None:
    said = {call.stdout for call in calls(name)}
    said |= set(re.findall(r"Your advance reservation .*", "".join(said)))
    assert number in {reservations.parse_granted(text) for text in said if "has been granted" in text}
    with pytest.raises(commands.GridEngineError, match="not understood"):
        reservations.parse_granted("")


def test_the_slots_of_queues_are_added_up_those_that_are_switched_off_too() -> None:
    assert reservations.parse_slots(next(c.stdout for c in calls(SGE) if c.command.startswith("qstat -f"))) == 4


@pytest.mark.parametrize(
    ("sign", "kind"),
    [
        ("must be manager or in userset", commands.DeniedError),
        ("necessary privileges", commands.DeniedError),
        ('"38" does not exist', commands.UnknownObjectError),
        ("no suitable queues", commands.GridEngineError),
    ],
)
def test_refusals_of_qrsub_and_qrdel_are_told_apart(sign: str, kind: type[commands.GridEngineError]) -> None:
    call = [one for one in calls(SGE) if sign in one.stdout + one.stderr][-1]
    failure = commands.failure(call.command.split()[0], call.status, commands.Output(call.stdout, call.stderr))
    assert type(failure) is kind


def test_a_line_says_it_all_in_80_columns() -> None:
    first = Step(did=Did.RESERVED, qpu="fresnel", start=NOW, end=NOW + 90 * SECOND, reservation=12)
    assert str(first) == "+ fresnel 2026-11-26T13:33:20Z to 2026-11-26T13:34:50Z: reservation 12"
    assert len(str(first)) <= 80
    assert str(Step(did=Did.UNKNOWN, qpu="emu", reason="its calendar is not known")).startswith("! emu: its calendar")


class Cell:
    """A Grid Engine that grants what it is asked for, or `shifted` by some seconds; the real one cannot be made to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, shifted: int = 0, version: str = "SGE 8.1.9") -> None:
        self._version = version
        self.asked: list[tuple[str, ...]] = []
        self.shifted = shifted * SECOND
        self._numbers = 0
        self._granted: dict[int, Reservation] = {}
        monkeypatch.setattr(commands, "run", self._run)

    @property
    def spans(self) -> list[Span]:
        return [one.span for one in self._granted.values()]

    def _run(self, command: str, *words: str, utc: bool = False, **_: object) -> commands.Output:
        # Whatever has times in it.
        assert utc == (command in {"qrsub", "qrstat"})
        self.asked.append((command, *words))
        return commands.Output(getattr(self, f"_{command}")(*words), "")

    def _qconf(self, option: str) -> str:
        return f"{self._version}\nusage: qconf [options]\n" if option == "-help" else "root\nsgeadmin\n"

    def _qrsub(self, _a: str, start: str, _e: str, end: str, _n: str, name: str, *_: str) -> str:
        times = [int(dt.datetime.strptime(text + "Z", "%Y%m%d%H%M.%S%z").timestamp()) * SECOND for text in (start, end)]
        self._numbers += 1
        number = self._numbers
        self._granted[number] = Reservation(number, name, Span(*(time + self.shifted for time in times)))
        return f"Your advance reservation {number} has been granted\n"

    def _qrdel(self, number: str) -> str:
        del self._granted[int(number)]
        return ""

    def _qrstat(self, *words: str) -> str:
        if words[-1] == "json":
            times = [
                {"start_time": clock(one.span.start), "end_time": clock(one.span.end)} for one in self._granted.values()
            ]
            names = [{"id": one.id, "name": one.name, "owner": "root"} for one in self._granted.values()]
            return json.dumps({"ars": [name | time for name, time in zip(names, times, strict=True)]})
        text = "<qrstat>"
        for one in self._granted.values():
            start, end = (clock(time)[:-1] for time in (one.span.start, one.span.end))
            times = f"<start_time>{start}</start_time><end_time>{end}</end_time>"
            text += f"<ar_summary><id>{one.id}</id><name>{one.name}</name><owner>root</owner><state>w</state>{times}"
        return text

    def _qstat(self, *_: str) -> str:
        return "<slots_total>16</slots_total><slots_total>8</slots_total>"


@pytest.fixture
def two(tmp_path: Path) -> Site:
    """Two QPUs."""
    (tmp_path / "emu.toml").write_text('[qpu]\nname = "emu"\n')
    path = tmp_path / "warden.toml"
    path.write_text(
        '[qpu]\nname = "fresnel"\n[[gridengine.qpu]]\nqueues = ["a.q", "b.q"]\n'
        f'[[gridengine.qpu]]\nqueues = ["emu.q"]\nconfig = "{tmp_path / "emu.toml"}"\n'
    )
    return site.load(path)


def calendars(monkeypatch: pytest.MonkeyPatch, **plans: tuple[Window, ...]) -> None:
    """What the Wardens say; one that is not named does not answer."""

    def windows(offer: Offer) -> tuple[Window, ...]:
        if offer.name not in plans:
            raise UnavailableError("it does not answer")
        return plans[offer.name]

    monkeypatch.setattr(reservations, "_windows", windows)


def ahead(seconds: int) -> Window:
    start = (time.time_ns() // 1000 // SECOND + seconds) * SECOND
    return Window(start, start + 60 * SECOND, State.CALIBRATING)


def test_of_several_qpus_all_slots_of_the_queues_are_asked_for(monkeypatch: pytest.MonkeyPatch, two: Site) -> None:
    cell = Cell(monkeypatch)
    calendars(monkeypatch, fresnel=(ahead(100),), emu=())
    assert [step.did for step in reservations.reserve(two)] == [Did.RESERVED]
    [asked] = [words for words in cell.asked if words[0] == "qrsub"]
    assert asked[-5:] == ("-q", "a.q,b.q", "-pe", "qpu_window", "24")
    assert [step.did for step in reservations.reserve(two)] == [Did.KEPT]


@pytest.mark.parametrize(("to", "order"), [(300, ["qrsub", "qrdel"]), (130, ["qrdel", "qrsub"])])
def test_a_window_that_moves_is_reserved_before_the_old_one_is_free_unless_they_meet(
    to: int, order: list[str], monkeypatch: pytest.MonkeyPatch, two: Site
) -> None:
    cell = Cell(monkeypatch)
    calendars(monkeypatch, fresnel=(ahead(100),), emu=())
    list(reservations.reserve(two))
    cell.asked.clear()
    moved = ahead(to)
    calendars(monkeypatch, fresnel=(moved,), emu=())
    assert {step.did for step in reservations.reserve(two)} == {Did.RESERVED, Did.WITHDRAWN}
    assert [words[0] for words in cell.asked if words[0] in order] == order
    assert cell.spans == [Span(moved.start, moved.end or 0)]


def test_a_qpu_whose_warden_does_not_answer_keeps_what_it_has(monkeypatch: pytest.MonkeyPatch, two: Site) -> None:
    cell = Cell(monkeypatch)
    one, other = ahead(100), ahead(300)
    calendars(monkeypatch, fresnel=(one,), emu=(other,))
    list(reservations.reserve(two))
    calendars(monkeypatch, emu=())
    assert [step.did for step in reservations.reserve(two)] == [Did.UNKNOWN, Did.WITHDRAWN]
    assert cell.spans == [Span(one.start, one.end or 0)]
    # A QPU that there is no longer has no Warden to be asked.
    gone = msgspec.structs.replace(two, offers=two.offers[1:])
    assert [step.did for step in reservations.reserve(gone)] == [Did.WITHDRAWN]
    assert cell.spans == []


def test_what_was_reserved_at_another_time_than_asked_for_is_taken_back(
    monkeypatch: pytest.MonkeyPatch, two: Site
) -> None:
    cell = Cell(monkeypatch, shifted=3600)
    calendars(monkeypatch, fresnel=(ahead(100),), emu=())
    with pytest.raises(commands.GridEngineError, match="taken back"):
        list(reservations.reserve(two))
    assert cell.spans == []


def test_what_is_no_window_any_more_goes_also_when_what_is_new_cannot_be_reserved(
    monkeypatch: pytest.MonkeyPatch, two: Site
) -> None:
    cell = Cell(monkeypatch)
    calendars(monkeypatch, fresnel=(ahead(100),), emu=())
    list(reservations.reserve(two))
    cell.shifted = 3600 * SECOND
    calendars(monkeypatch, fresnel=(ahead(300),), emu=())
    with pytest.raises(commands.GridEngineError, match="taken back"):
        list(reservations.reserve(two))
    assert cell.spans == []


def test_who_stops_reserving_on_the_way_leaves_what_there_was(monkeypatch: pytest.MonkeyPatch, two: Site) -> None:
    cell = Cell(monkeypatch)
    calendars(monkeypatch, fresnel=(ahead(100),), emu=())
    list(reservations.reserve(two))
    [before] = cell.spans
    calendars(monkeypatch, fresnel=(ahead(300),), emu=())
    steps = reservations.reserve(two)
    next(steps)
    steps.close()
    assert before in cell.spans


def test_withdrawing_takes_all_of_ours(monkeypatch: pytest.MonkeyPatch, two: Site) -> None:
    cell = Cell(monkeypatch)
    calendars(monkeypatch, fresnel=(ahead(100),), emu=(ahead(50), ahead(300)))
    list(reservations.reserve(two))
    assert [step.qpu for step in reservations.withdraw()] == ["fresnel", "emu", "emu"]
    assert cell.spans == []


class Rounds:
    """What each round does, one after the other; then it is ended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *rounds: list[Step | Exception]) -> None:
        self.said: list[str] = []
        self._left = iter(rounds)
        monkeypatch.setattr(reservations, "reserve", lambda _site: self._next())
        monkeypatch.setattr(reservations.time, "sleep", lambda _pause: None)
        monkeypatch.setattr(reservations.signal, "signal", lambda *_: None)

    def _next(self) -> Iterator[Step]:
        for step in next(self._left, [KeyboardInterrupt()]):
            if isinstance(step, BaseException):
                raise step
            yield step

    def follow(self) -> list[str]:
        reservations.follow(None, 1, self.said.append)  # type: ignore[arg-type]
        return self.said


def step(did: Did, number: int | None = None, reason: str = "") -> Step:
    return Step(did=did, qpu="fresnel", start=NOW, end=NOW + SECOND, reservation=number, reason=reason)


def test_follow_says_each_change_and_each_trouble_once(monkeypatch: pytest.MonkeyPatch) -> None:
    refused, away = step(Did.REFUSED, reason="not granted"), commands.UnreachableError("qmaster is away")
    rounds = Rounds(
        monkeypatch, [refused], [refused], [away], [away], [step(Did.RESERVED, 7)], [step(Did.KEPT, 7)], [away]
    )
    said = rounds.follow()
    assert [line.split(": ")[-1] for line in said] == [
        "not granted",
        "! qmaster is away",
        "reservation 7",
        "! qmaster is away",
    ]


def test_follow_ends_where_waiting_does_not_help(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(commands.DeniedError):
        Rounds(monkeypatch, [commands.DeniedError("no manager")], []).follow()


@pytest.mark.parametrize("options", [["--follow", "--json"], ["--follow", "--withdraw"], ["--every", "0s"]])
def test_wrong_usage(options: list[str], tmp_path: Path) -> None:
    done = CliRunner().invoke(admin_cli.main, ["reserve", *options, "--config", str(tmp_path / "none")])
    assert done.exit_code == 2


def test_a_window_that_could_not_be_reserved_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "warden.toml"
    path.write_text('[qpu]\nname = "fresnel"\n')
    for did, status in ((Did.REFUSED, 1), (Did.UNKNOWN, 1), (Did.SKIPPED, 0), (Did.KEPT, 0)):
        monkeypatch.setattr(reservations, "reserve", lambda _site, did=did: iter([step(did, reason="because")]))
        done = CliRunner().invoke(admin_cli.main, ["reserve", "--config", str(path)])
        assert (done.exit_code, "because" in done.stdout) == (status, True)
