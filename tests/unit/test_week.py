"""benchmarks/week.py still knows the core: half a day of it, with tasks and calibrations that found what they set back."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("scipy")

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_half_a_day_of_a_qpu_goes_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import week  # noqa: PLC0415 - it is no module of a package

    lived = week.live(days=0.5)
    assert len(lived.tasks) > 50
    assert lived.calibrations
    assert all(one.measured for one in lived.calibrations)
    assert len(lived.curve) > 50
