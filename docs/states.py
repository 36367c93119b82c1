"""Write docs/states.md from the table of states, warden/states.py: `python docs/states.py`."""  # noqa: INP001 - a script

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from warden.states import LIVES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from warden.states import Lives

PAGE = Path(__file__).with_name("states.md")

_HEAD = """\
# States

<!-- Written by docs/states.py from warden/states.py: change the table there. -->

What a task, a session and the QPU can be, and every way from one state to another. An arrow's numbers are those of the
causes below its diagram. Nothing here is the way to a state but these: tests compare the table with what the broker does.
"""


def page() -> str:
    """The whole of docs/states.md."""
    return "\n".join([_HEAD, *(line for lives in LIVES for line in _chapter(lives))])


def _chapter(lives: Lives) -> Iterator[str]:
    yield f"## The {lives.name}"
    yield ""
    yield "```mermaid"
    yield "stateDiagram-v2"
    # One arrow for all causes: their texts would hide the picture.
    arrows: dict[tuple[str, str], list[int]] = {}
    for number, one in enumerate(lives.transitions, 1):
        arrows.setdefault((one.before or "[*]", one.after), []).append(number)
    for (before, after), numbers in arrows.items():
        yield f"    {before} --> {after}: {', '.join(map(str, numbers))}"
    for state in lives.final:
        yield f"    {state} --> [*]"
    yield "```"
    yield ""
    yield "| | from | to | when |"
    yield "|---|---|---|---|"
    for number, one in enumerate(lives.transitions, 1):
        yield f"| {number} | {one.before or ''} | {one.after} | {one.cause} |"
    yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
