"""How the answer of `qpu why` looks. Pure."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

from gridengine.why.answer import brief
from warden.model import State, TaskStatus, clock, one_line
from warden.report import availability_facts, span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gridengine.why.answer import Answer
    from gridengine.why.sight import Sight

_WIDTH, _LABEL = 80, 18


def text(answer: Answer) -> str:
    """A line or two for each side, and what the user can do at the end."""
    asked = ", ".join(f"{name}={value}" for name, value in answer.requests.items()) or "nothing in particular"
    title = one_line(f"job {answer.job} ({answer.name}) of {answer.owner}: {answer.words}")
    lines = textwrap.wrap(title, _WIDTH, subsequent_indent="  ", break_on_hyphens=False)
    for label, value in _parts(answer, asked):
        lines += _wrapped(label, value)
    return "\n".join(lines)


def facts(answer: Answer) -> dict[str, Any]:
    """For programs; times as everywhere, in UTC."""
    return {
        "job": answer.job,
        "name": answer.name,
        "owner": answer.owner,
        "state": answer.state,
        "requests": answer.requests,
        "because": answer.because,
        "qpus": [
            availability_facts(sight.availability)
            if sight.availability
            else {"name": sight.name, "state": "unknown", "reason": sight.trouble}
            for sight in answer.qpus
        ],
        "trouble": answer.trouble,
        "sessions": answer.work.sessions if answer.work else None,
        "tasks": answer.work.tasks if answer.work else None,
        "ahead": answer.line.ahead if answer.line else None,
        "waiting": answer.line.waiting if answer.line else None,
        "earliest_start": None if answer.earliest is None else clock(answer.earliest),
        "start": answer.start,
        "todo": answer.todo,
    }


def _parts(answer: Answer, asked: str) -> Iterator[tuple[str, str]]:
    yield "asks for:", asked
    for number, reason in enumerate(answer.because):
        yield "because:" if number == 0 else "", reason.text
    if answer.trouble:
        yield "QPU:", f"unknown ({answer.trouble})"
    for sight in answer.qpus:
        yield "QPU:", _qpu(sight)
        if sight.availability and (window := _window(sight)):
            yield "next window:", window
    if answer.work is not None:
        yield "on the QPU:", _work(answer)
    if answer.line is not None:
        yield "in the line:", _line(answer.line.ahead, answer.line.waiting)
    if answer.start:
        yield "earliest start:", answer.start
    yield "what to do:", answer.todo


def _qpu(sight: Sight) -> str:
    answer = sight.availability
    if answer is None:
        return f"{sight.name}: unknown ({sight.trouble})"
    remark = "" if answer.reason in {"", answer.state, "calibration"} else f" ({answer.reason})"
    left = ""
    if answer.state is not State.READY and answer.until is not None:
        left = f", for another {brief(answer.until - answer.time)}"
    return f"{sight.name}: {answer.state}{remark}{left}; {answer.used} of {answer.places} places taken"


def _window(sight: Sight) -> str:
    answer = sight.availability
    if answer is None or answer.state is not State.READY:
        return ""
    if answer.next_window is None:
        return "none is planned within a week"
    return f"{answer.next_window.kind} in {brief(answer.next_window.start - answer.time)}, {span(answer.next_window)}"


def _line(ahead: int, waiting: int) -> str:
    return "nobody else waits" if waiting == 1 else f"{ahead + 1} of {waiting} that wait"


def _work(answer: Answer) -> str:
    if answer.work is None:
        return ""
    order = [status for status in TaskStatus if status in answer.work.tasks]
    tasks = ", ".join(f"{answer.work.tasks[status]} {status}" for status in order)
    sessions = "" if answer.work.sessions == 1 else f"{answer.work.sessions} sessions; "
    return f"{sessions}tasks: {tasks}" if tasks else f"{sessions}no task yet"


def _wrapped(label: str, value: str) -> list[str]:
    first, rest = f"{label:{_LABEL}}", " " * _LABEL
    return textwrap.wrap(one_line(value), _WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
