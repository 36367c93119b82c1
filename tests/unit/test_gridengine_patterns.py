"""Patterns of names, which users choose: none makes others wait."""

from __future__ import annotations

import re

import pytest

from gridengine.patterns import fits


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
