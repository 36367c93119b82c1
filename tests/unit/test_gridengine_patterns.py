"""Names as Grid Engine's expressions choose them, and what is left to Grid Engine."""

import re

import pytest

from gridengine import patterns
from gridengine.patterns import fits


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("fresnel", "fresnel", True),
        ("fres*", "fresnel", True),
        ("emu|fres*", "fresnel", True),
        ("!emu", "fresnel", True),
        ("!emu*&!fres*", "fresnel", False),
        ("[ef]*", "emu", True),
        ("emu", "emu2", False),
        ("!(emu|fres*)", "fresnel", False),
        ("(emu|fres*)&*l", "fresnel", True),
        ("(emu|fres*)&*l", "emu", False),
        ("fres*|emu&!emu", "fresnel", True),
        ("!!emu", "emu", True),
        ("", "emu", False),
        ("!(emu)", "fresnel", True),
        # As long as Grid Engine takes: another user's job, which stands in the line beside one's own.
        ("!" * 2045 + "fresnel", "fresnel", False),
        ("[" * 2047, "fresnel", False),
    ],
)
def test_names_are_matched_as_grid_engine_does(pattern: str, name: str, found: bool) -> None:
    assert patterns.matches(pattern, name) is found


@pytest.mark.parametrize(
    "expression",
    [
        "(emu",
        "emu)",
        "emu|",
        "&emu",
        "!",
        "emu other",
        "()",
        "[!e]*",
        "[^e]*",
        "\\emu",
        "(" * 9999,
        "!" * 9999,
        "|".join(["x"] * 9999),
    ],
)
def test_what_cannot_be_read_is_left_to_grid_engine(expression: str) -> None:
    assert patterns.matches(expression, "fresnel")


@pytest.mark.parametrize(
    ("pattern", "found"),
    [("fresnel", True), ("f*[kl]", True), ("fres?el", True), ("emu", False), ("fresne[l", False), ("*]", False)],
)
def test_names_fit_their_patterns(pattern: str, found: bool) -> None:
    assert fits(pattern, "fresnel") is found


@pytest.mark.parametrize("pattern", ["[" * 100_000, "a]" + "[!" * 100_000])
def test_brackets_without_an_end_are_not_looked_at_one_by_one(pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Translated, each of them is looked for to the end, which takes minutes.
    monkeypatch.setattr(re, "compile", lambda *_: pytest.fail("it was translated"))
    assert not fits(pattern, "fresnel")
