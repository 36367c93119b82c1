"""What `status` shows to people."""

from __future__ import annotations

import msgspec
import pytest

from warden import report
from warden.model import (
    SECOND,
    Availability,
    Calibration,
    Outcome,
    PastWindow,
    Quality,
    State,
    Task,
    TaskStatus,
    Window,
)

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
    ("status", "setup", "shot", "said"),
    [
        (TaskStatus.RUNNING, 12, 1, "task 7: running (40 of 200 shots; 160 shots in about 2 min 52 s)"),
        (TaskStatus.RUNNING, 0.1, 0, "task 7: running (40 of 200 shots)"),
        (TaskStatus.QUEUED, 12, 1, "task 7: queued"),
    ],
)
def test_who_watches_a_task_learns_how_long_a_run_tells_nothing(
    status: TaskStatus, setup: float, shot: float, said: str
) -> None:
    task = Task(
        id=7, session="", uid=1, shots=200, qubits=8, key="", submitted=NOW, status=status, shots_done=40, error=""
    )
    answer = msgspec.structs.replace(READY, setup=round(setup * SECOND), shot=round(shot * SECOND))
    assert report.task_line(task, answer) == said
    assert report.task_line(task) == said.partition(";")[0] + ")" * (";" in said)


@pytest.mark.parametrize(
    ("state", "until", "said"),
    [(State.READY, None, True), (State.MAINTENANCE, NOW + SECOND, True), (State.MAINTENANCE, None, False)],
)
def test_behind_a_drain_without_an_end_no_window_is_denied(state: State, until: int | None, said: bool) -> None:
    shown = report.availability(msgspec.structs.replace(READY, state=state, until=until, next_window=None))
    assert ("none planned within a week" in shown) is said


def sampled(*values: tuple[float, float]) -> list[Quality]:
    """Of (hours ago, value)."""
    return [Quality(time=NOW - round(hours * 3600) * SECOND, value=value, calibration=3) for hours, value in values]


GOOD = msgspec.structs.replace(READY, quality=0.973, calibration=3, calibrated=NOW - 8000 * SECOND)


def test_status_has_no_word_of_the_quality_of_a_qpu_that_does_not_say() -> None:
    shown = report.availability(msgspec.structs.replace(GOOD, quality=None))
    assert "quality" not in shown
    assert "calibration," not in shown


def test_the_quality_of_the_last_day_is_a_line() -> None:
    samples = sampled(*((hours, 0.99 - (23.5 - hours) * 0.002) for hours in (23.5, 17.5, 11.5, 5.5)), (1.5, 0.941))
    lines = report.availability(GOOD, samples).splitlines()
    assert lines[-2] == "quality:          0.973 █·····▆·····▅·····▃···▁· lowest of the day 0.941"
    assert lines[-1] == "calibration:      number 3, 2 h 13 min ago"
    assert max(map(len, lines)) <= 80
    # What hardly wanders is no drama.
    assert "·▇█ " in report.availability(GOOD, sampled((1.5, 0.97), (0.5, 0.975)))


def test_without_samples_the_quality_is_a_number_and_without_a_worker_the_day_is_there() -> None:
    assert "quality:          0.973\n" in report.availability(msgspec.structs.replace(GOOD, calibrated=None))
    assert report.availability(msgspec.structs.replace(GOOD, calibrated=None)).endswith("calibration:      none yet")
    away = report.availability(msgspec.structs.replace(GOOD, quality=None, state=State.OFFLINE), sampled((1.5, 0.98)))
    assert "quality:          - ·····" in away


def test_json_has_the_quality_and_the_calibration() -> None:
    facts = report.availability_facts(GOOD)
    assert (facts["quality"], facts["calibration"], facts["calibrated"]) == (0.973, 3, "2026-11-26T09:46:40Z")
    assert report.availability_facts(READY)["calibration"] is None
    assert report.quality_facts(sampled((1, 0.9))) == [{"time": "2026-11-26T11:00:00Z", "value": 0.9, "calibration": 3}]


FOUND = Calibration(
    id=12,
    time=NOW,
    duration=131 * SECOND,
    reason="quality below 0.95",
    measured={
        "rabi_error": 0.0213,
        "detuning_error": -0.31,
        "temperature": 0.0,
        "p_false_neg": 0.04,
        "amp_sigma": 0.05,
    },
    left={"rabi_error": -0.0004},
    before=0.9412,
    after=0.9925,
    log=("Rabi scan: 12 points\x1b[31m",),
)


def test_calibrations_are_listed_with_what_they_found() -> None:
    assert report.calibrations([]) == "no calibration was carried out yet"
    shown = report.calibrations([FOUND, msgspec.structs.replace(FOUND, id=9, measured={})])
    assert shown.splitlines() == [
        "NUMBER  ENDED                 TOOK        BEFORE  AFTER  REASON",
        "    12  2026-11-26T12:00:00Z  2 min 11 s  0.941   0.993  quality below 0.95",
        "        found: amp_sigma 0.05, detuning_error -0.31, p_false_neg 0.04,",
        "        rabi_error 0.0213",
        "     9  2026-11-26T12:00:00Z  2 min 11 s  0.941   0.993  quality below 0.95",
        "        found: nothing to correct",
    ]
    assert report.calibration(FOUND).splitlines()[-2:] == [
        "        left: rabi_error -0.0004",
        "Rabi scan: 12 points [31m",
    ]


def test_the_history_says_what_became_of_calibrations_and_fits_into_a_terminal() -> None:
    held = PastWindow(Window(NOW, NOW + 180 * SECOND, State.CALIBRATING, "calibration"), Outcome.HELD)
    assert "CALIBRATION" not in report.history([held]).splitlines()[0]
    assert report.past_facts(held)["calibration"] is None
    shown = report.history([held, msgspec.structs.replace(held, remark="number 12")]).splitlines()
    assert [line.split("  ")[-1].strip() for line in shown] == ["CALIBRATION", "-", "number 12"]
    assert max(map(len, shown)) <= 80
    early = Window(NOW, NOW + 2 * SECOND, State.CALIBRATING, "quality below 0.95")
    failed = PastWindow(early, Outcome.HELD, remark="failed: " + "it says much " * 12)
    for remarked in (failed, msgspec.structs.replace(failed, remark="number 1234")):
        shown = report.history([held, remarked]).splitlines()
        assert max(map(len, shown)) <= 80
        assert shown[3].startswith(f"        calibration: {remarked.remark[:20]}")


def test_what_a_scan_cannot_tell_from_nothing_is_not_shown() -> None:
    tiny = msgspec.structs.replace(
        FOUND, measured={"p_false_pos": 1.4e-20, "rabi_error": -2e-4}, left={"rabi_error": 1e-9}
    )
    assert report.calibration(tiny).splitlines()[2] == "        found: rabi_error -0.0002"
    assert "left" not in report.calibration(tiny)
