"""What `status` shows to people."""

from __future__ import annotations

import msgspec
import pytest

from warden import report
from warden.model import SECOND, Availability, State, Window

NOW = 1_795_694_400 * SECOND
AHEAD = Window(NOW + 1451 * SECOND, NOW + 1631 * SECOND, State.CALIBRATING, "calibration")
READY = Availability(
    name="fresnel",
    state=State.READY,
    reason="",
    until=None,
    places=1,
    used=0,
    queued=0,
    next_window=AHEAD,
    qubits=14,
    time=NOW,
)


@pytest.mark.parametrize("reason", ["", "we look for the leak that has been there since last Thursday, " * 3])
@pytest.mark.parametrize("state", [State.READY, State.MAINTENANCE])
def test_status_fits_into_80_columns(state: State, reason: str) -> None:
    shown = report.availability(msgspec.structs.replace(READY, state=state, reason=reason))
    assert max(map(len, shown.splitlines())) <= 80
    assert " ".join(shown.split()).count("2026-11-26T12:24:11Z to 2026-11-26T12:27:11Z, in 24 min 11 s") == 1
    assert reason.strip() in " ".join(shown.split())


@pytest.mark.parametrize(
    ("setup", "shot", "said"),
    [
        (12, 1, "a run takes: 12 s and 1 s a shot"),
        (0, 0.25, "0 s and 0.25 s a shot"),
        (0.1, 0, "takes: 0.1 s"),
        (0, 0, ""),
    ],
)
def test_status_says_what_a_run_takes(setup: float, shot: float, said: str) -> None:
    pace = {"setup": round(setup * SECOND), "shot": round(shot * SECOND)}
    answer = msgspec.structs.replace(READY, **pace)
    shown = " ".join(report.availability(answer).split())
    assert shown.endswith(said or "14 qubits")
    facts = report.availability_facts(answer)
    assert (facts["setup_seconds"], facts["shot_seconds"]) == (setup, shot)


@pytest.mark.parametrize(
    ("state", "until", "said"),
    [(State.READY, None, True), (State.MAINTENANCE, NOW + SECOND, True), (State.MAINTENANCE, None, False)],
)
def test_behind_a_drain_without_an_end_no_window_is_denied(state: State, until: int | None, said: bool) -> None:
    shown = report.availability(msgspec.structs.replace(READY, state=state, until=until, next_window=None))
    assert ("none planned within a week" in shown) is said
