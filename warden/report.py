"""How facts look to people: one place for the words and tables that several commands print. Pure."""

from __future__ import annotations

import pwd
import textwrap
from typing import TYPE_CHECKING, Any

from warden.console import table
from warden.model import (
    SECOND,
    Availability,
    Calibration,
    Micros,
    PastWindow,
    Plan,
    Quality,
    Session,
    State,
    Task,
    TaskStatus,
    Window,
    clock,
    few,
    one_line,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_BAR = 40
# Of the quality: the last day, a block an hour.
DAY = 24 * 3600 * SECOND
_HOURS, _BLOCKS = 24, "▁▂▃▄▅▆▇█"
# What fills a chart from its foot to its top at the least: what wanders less shall look so.
_SPREAD = 0.05
_COLUMNS, _LABEL = 80, 18
# Of what a calibration finds, people are shown what is at least so large.
_VISIBLE = 1e-5


def span(window: Window) -> str:
    until = "until it is ended" if window.end is None else f"to {clock(window.end)}"
    return f"from {clock(window.start)} {until}"


def length(time: Micros) -> str:
    """A duration in the two units that matter."""
    seconds = time // SECOND
    if seconds < 60:  # noqa: PLR2004
        return f"{seconds} s"
    if seconds < 3600:  # noqa: PLR2004
        return f"{seconds // 60} min {seconds % 60} s"
    hours = seconds // 3600
    return f"{hours} h {seconds % 3600 // 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"  # noqa: PLR2004


def availability(answer: Availability, samples: Iterable[Quality] = ()) -> str:
    """`samples`: the quality of the last day, for a chart."""
    full = answer.state is State.READY and answer.used >= answer.places
    remark = "all places are taken" if full else one_line(answer.reason) * (answer.reason != answer.state)
    lines = [("QPU", answer.name), ("state", answer.state + (f" ({remark})" if remark else ""))]
    if answer.state is not State.READY and answer.until is not None:
        lines.append(("until", f"{clock(answer.until)}, in {length(answer.until - answer.time)}"))
    lines.append(("sessions", f"{answer.used} of {answer.places}"))
    lines.append(("tasks waiting", str(answer.queued)))
    if answer.next_window is None:
        # Behind an outage or a drain without an end nobody looks.
        if answer.state is State.READY or answer.until is not None:
            lines.append(("next window", "none planned within a week"))
    else:
        window = answer.next_window
        ahead = length(window.start - answer.time)
        lines.append(("next window", f"{window.kind} {span(window)}, in {ahead}"))
    lines.append(("largest register", f"{answer.qubits} qubits"))
    if answer.setup or answer.shot:
        # All at once where there is no rate.
        each = f" and {answer.shot / SECOND:g} s a shot" if answer.shot else ""
        lines.append(("a run takes", f"{answer.setup / SECOND:g} s{each}"))
    return labelled([*lines, *_quality(answer, list(samples))])


def _quality(answer: Availability, samples: list[Quality]) -> Iterable[tuple[str, str]]:
    """Nothing of a QPU that does not say how good it is."""
    if answer.quality is None and not samples:
        return
    now = "-" if answer.quality is None else f"{answer.quality:.3f}"
    values = [sample.value for sample in samples] + ([] if answer.quality is None else [answer.quality])
    yield "quality", f"{now} {_chart(samples, answer.time)} lowest of the day {min(values):.3f}" if samples else now
    if answer.calibrated is not None:
        age = length(max(0, answer.time - answer.calibrated))
        yield "calibration", f"number {answer.calibration}, {age} ago"
    else:
        yield "calibration", "none yet"


def _chart(samples: list[Quality], now: Micros) -> str:
    """The lowest quality of each hour of the last day; a dot where nobody said."""
    hours: dict[int, float] = {}
    for sample in samples:
        hour = _HOURS - 1 - (now - sample.time) * _HOURS // DAY
        hours[hour] = min(sample.value, hours.get(hour, 1.0))
    values = [sample.value for sample in samples]
    top = max(values)
    foot = min(*values, top - _SPREAD)
    steps = {hour: int((value - foot) / (top - foot) * (len(_BLOCKS) - 1) + 0.5) for hour, value in hours.items()}
    return "".join(_BLOCKS[steps[hour]] if hour in steps else "·" for hour in range(_HOURS))


def labelled(lines: Iterable[tuple[str, str]]) -> str:
    """Names and what stands behind them, in 80 columns."""
    wrap = textwrap.TextWrapper(_COLUMNS, subsequent_indent=" " * _LABEL, break_on_hyphens=False)
    return "\n".join(wrap.fill(f"{name + ':':{_LABEL}}{value}") for name, value in lines)


def availability_facts(answer: Availability) -> dict[str, Any]:
    return {
        "name": answer.name,
        "state": answer.state,
        "reason": answer.reason,
        "until": None if answer.until is None else clock(answer.until),
        "places": answer.places,
        "sessions": answer.used,
        "queued": answer.queued,
        "seconds_to_window": answer.seconds_to_window(),
        "next_window": None if answer.next_window is None else window_facts(answer.next_window),
        "qubits": answer.qubits,
        "setup_seconds": answer.setup / SECOND,
        "shot_seconds": answer.shot / SECOND,
        "quality": answer.quality,
        "calibration": answer.calibration or None,
        "calibrated": None if answer.calibrated is None else clock(answer.calibrated),
    }


def quality_facts(samples: Iterable[Quality]) -> list[dict[str, Any]]:
    return [{"time": clock(one.time), "value": one.value, "calibration": one.calibration or None} for one in samples]


def window_facts(window: Window) -> dict[str, Any]:
    end = None if window.end is None else clock(window.end)
    return {"start": clock(window.start), "end": end, "kind": window.kind, "reason": window.reason}


def plan_facts(ahead: Plan) -> dict[str, Any]:
    return {
        "windows": [window_facts(window) for window in ahead.windows],
        "added": [{"window": window.id, **window_facts(window)} for window in ahead.added],
    }


def plan(ahead: Plan) -> str:
    """The windows to come, and below them those that operators can move and take back."""
    text = (
        table([_window(window) for window in ahead.windows], _WINDOW)
        if ahead.windows
        else "no window is planned within a week"
    )
    if ahead.added:
        rows = [(window.id, *_window(window)) for window in sorted(ahead.added, key=lambda window: window.start)]
        text += "\n\nthose that can be moved or taken back:\n" + table(rows, ("WINDOW", *_WINDOW))
    return text


def past_facts(past: PastWindow) -> dict[str, Any]:
    return {
        "outcome": past.outcome,
        "count": past.count,
        **window_facts(past.window),
        "calibration": past.remark or None,
    }


def history(past: Iterable[PastWindow]) -> str:
    """What became of a calibration only where there was one; below its window, where the terminal has no room beside it."""
    listed = list(past)
    rows = []
    for one in listed:
        start, _, *more = _window(one.window)
        again = f" ({one.count} in a row)" if one.count > 1 else ""
        rows.append((one.outcome + again, start, *more))
    if not rows:
        return "no window has opened yet"
    columns = ("OUTCOME", *(name for name in _WINDOW if name != "END"))
    if not any(one.remark for one in listed):
        return table(rows, columns)
    beside = [(*row, one.remark or "-") for row, one in zip(rows, listed, strict=True)]
    text = table(beside, (*columns, "CALIBRATION"))
    if max(map(len, text.splitlines())) <= _COLUMNS:
        return text
    return _with_notes(table(rows, columns), [f"calibration: {one.remark}" * bool(one.remark) for one in listed])


def _with_notes(text: str, notes: Iterable[str]) -> str:
    """A table with a note below each of its lines, in 80 columns."""
    head, *lines = text.splitlines()
    wrap = textwrap.TextWrapper(_COLUMNS, initial_indent=" " * 8, subsequent_indent=" " * 8)
    noted = (f"{line}\n{wrap.fill(one_line(note))}" if note else line for line, note in zip(lines, notes, strict=True))
    return "\n".join([head, *noted])


def calibrations(found: Iterable[Calibration]) -> str:
    """Each with what it measured below it."""
    listed = list(found)
    rows = [
        (
            one.id,
            clock(one.time),
            length(one.duration),
            f"{one.before:.3f}",
            f"{one.after:.3f}",
            one_line(one.reason),
        )
        for one in listed
    ]
    if not rows:
        return "no calibration was carried out yet"
    text = table(rows, ("NUMBER", "ENDED", "TOOK", "BEFORE", "AFTER", "REASON"))
    return _with_notes(text, map(_found, listed))


def _found(one: Calibration) -> str:
    return f"found: {_figures(one.measured) or 'nothing to correct'}"


def _figures(found: Mapping[str, float]) -> str:
    """Without those that no scan tells from 0, which a fit leaves as tiny numbers."""
    return ", ".join(f"{name} {value:.3g}" for name, value in sorted(found.items()) if abs(value) >= _VISIBLE)


def calibration(one: Calibration) -> str:
    """One, with what it left uncorrected, and its log."""
    left = _figures(one.left)
    wrap = textwrap.TextWrapper(_COLUMNS, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join([calibrations([one]), *([wrap.fill(f"left: {left}")] * bool(left)), *map(one_line, one.log)])


_WINDOW = ("START", "END", "LENGTH", "KIND", "REASON")


def _window(window: Window) -> tuple[str, str, str, str, str]:
    start, end = window.start // SECOND, None if window.end is None else window.end // SECOND
    return (
        clock(window.start),
        "-" if end is None else clock(end * SECOND),
        "open" if end is None else length((end - start) * SECOND),
        window.kind,
        one_line(window.reason),
    )


def sessions(found: Iterable[Session]) -> str:
    """To the minute, and without a column for ends where there are none: a terminal has 80 columns."""
    listed = list(found)
    ends = ["ENDED"] if any(s.ended for s in listed) else []
    stops = ["SUSPENDED"] if any(s.suspended for s in listed) else []

    def ended(session: Session) -> list[str]:
        return [_minute(session.ended) if session.ended else "-"] if ends else []

    def suspended(session: Session) -> list[str]:
        return ["yes" if session.suspended else "-"] if stops else []

    rows = [
        (
            s.job,
            user(s.uid),
            s.host,
            _minute(s.acquired),
            *ended(s),
            *suspended(s),
            s.tasks,
            s.shots,
            s.qpu_time / SECOND,
        )
        for s in listed
    ]
    headers = ("JOB", "USER", "HOST", "ACQUIRED", *ends, *stops, "TASKS", "SHOTS", "QPU s")
    return table(rows, headers) if rows else "no session"


def _minute(time: Micros) -> str:
    return f"{clock(time)[:-4]}Z"


def tasks(found: Iterable[Task], *, with_users: bool = False) -> str:
    listed = list(found)
    users, reasons = ["USER"] * with_users, ["REASON"] * any(t.error for t in listed)
    rows = [
        (
            t.id,
            t.job or None,
            *([user(t.uid)] if users else []),
            t.status,
            t.shots_done,
            t.shots,
            t.qubits,
            _minute(t.submitted),
            t.qpu_time / SECOND,
            *([t.error] if reasons else []),
        )
        for t in listed
    ]
    headers = ("TASK", "JOB", *users, "STATUS", "DONE", "SHOTS", "QUBITS", "SUBMITTED", "QPU s", *reasons)
    return table(rows, headers) if rows else "no task"


def task(one: Task, *, with_users: bool = False) -> str:
    """One task, and below it what is known of its result, and its log."""
    parts = [tasks([one], with_users=with_users), metadata(one.metadata), "\n".join(map(one_line, one.log))]
    return "\n\n".join(part for part in parts if part)


def metadata(told: Mapping[str, Any]) -> str:
    """What the QPU tells of a result."""
    return labelled((one_line(name).replace("_", " "), _fact(name, value)) for name, value in told.items())


def _fact(name: str, value: Any) -> str:
    match value:
        case bool():
            return "on" if value else "off"
        case list() | tuple():
            return one_line(few(value))
        case _:
            return one_line(f"{value:.10g}{_UNITS.get(name, '')}" if isinstance(value, int | float) else str(value))


_UNITS = {"total_duration": " ns", "calibration_age": " s"}


def task_line(task: Task, answer: Availability | None = None) -> str:
    """How far it is, and how long the QPU of `answer` takes for the rest: until a run is over no shot is told of."""
    if task.status is not TaskStatus.RUNNING:
        return f"task {task.id}: {task.status}"
    takes = 0 if answer is None else answer.setup + answer.shot * task.shots_left
    pace = f"; {_number(task.shots_left, 'shot')} in about {length(takes)}" if takes >= SECOND else ""
    return f"task {task.id}: {task.status} ({task.shots_done} of {task.shots} shots{pace})"


def histogram(counts: Mapping[str, int], most: int = 10) -> str:
    """The most frequent bitstrings, as bars."""
    total = sum(counts.values())
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    peak = ranked[0][1] if ranked else 1
    width = len(str(peak))
    lines = [f"{bits}  {count:{width}}  {'█' * max(1, round(_BAR * count / peak))}" for bits, count in ranked[:most]]
    rest = ranked[most:]
    if rest:
        lines.append(f"and {_number(len(rest), 'other')}, {_number(sum(count for _, count in rest), 'shot')}")
    return "\n".join([*lines, f"{_number(total, 'shot')}, {_number(len(ranked), 'different result')}"])


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'s'[: count != 1]}"


def user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
