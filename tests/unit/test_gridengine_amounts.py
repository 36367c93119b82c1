"""How much a request asks for."""

import pytest

from gridengine.amounts import amount, asks, places, seconds


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("60", 60),
        ("24.000000", 24),
        ("2k", 2000),
        ("2K", 2048),
        ("1g", 10**9),
        ("0x1", None),
        ("", None),
        ("many", None),
    ],
)
def test_amounts_with_grid_engine_s_multipliers(text: str, found: int | None) -> None:
    assert amount(text) == found


@pytest.mark.parametrize(
    ("text", "found"), [("1", 1), ("3.000000", 3), ("0", None), ("01", None), ("0.5", None), ("1K", None)]
)
def test_only_whole_places_are_places(text: str, found: int | None) -> None:
    assert places(text) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("90", 90),
        ("1:30:00", 5400),
        ("::30", 30),
        ("0:10:", 600),
        ("1.2", 2),
        ("600.000000", 600),
        ("INFINITY", 0),
        ("-1", 0),
        ("", 0),
    ],
)
def test_times_in_seconds_rounded_up(text: str, found: int) -> None:
    assert seconds(text) == found


def test_who_asks_for_a_place() -> None:
    assert [asks({"qpu": text}) for text in ("1", "0", "0.000000")] == [True, False, False]
    assert not asks({"qpu_window": "60"})
