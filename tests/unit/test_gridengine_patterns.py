"""Names as Grid Engine's expressions choose them, and what is left to Grid Engine."""

import pytest

from gridengine import patterns


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
    ],
)
def test_names_are_matched_as_grid_engine_does(pattern: str, name: str, found: bool) -> None:
    assert patterns.matches(pattern, name) is found


@pytest.mark.parametrize(
    "expression",
    ["(emu", "emu)", "emu|", "&emu", "!", "emu other", "()", "[!e]*", "[^e]*", "\\emu", "(" * 9999, "!" * 9999 + "emu"],
)
def test_what_cannot_be_read_is_left_to_grid_engine(expression: str) -> None:
    assert patterns.matches(expression, "fresnel")
