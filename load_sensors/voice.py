"""Whether this host reports a QPU, and how it writes that down. Pure.

What is said of the host `global` counts for the whole cluster, and Grid Engine keeps what it heard last, whichever host
said it. Its execds send only what was changed, and forget for all what one of them leaves out. So one host reports, as
Warden says, and writes its numbers differently each time (4, +4), so that they are sent and put right whatever any
other has said. One that never reported says nothing; one that did goes on telling the truth, but not again and again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Voice:
    """What this host has said of a QPU, and whether it is the one that reports it."""

    def __init__(self) -> None:
        self.charge: bool | None = None
        """Whether it reports; None: nobody has told it yet."""
        self._said: dict[str, str] = {}

    def say(
        self, truth: Mapping[str, int | str] | None, nothing: Mapping[str, int | str], charge: bool | None
    ) -> dict[str, str]:
        """The values to report. `truth`: None if Warden does not answer, then `nothing` is true for who reports.

        `charge`: what Warden has said of late about who reports.
        """
        before, self.charge = self.charge, self.charge if charge is None else charge
        if truth is None:
            if self.charge is False:
                return self._said
            truth = nothing
            if self.charge is None:
                # Words are not said anew each time, so those of a host that knows nothing would stay.
                truth = {name: value for name, value in nothing.items() if isinstance(value, int)}
        elif self.charge is False and not self._said:
            return {}
        taken_over = self.charge is True and before is False
        said = {}
        for name, value in truth.items():
            last = self._said.get(name)
            if isinstance(value, int):
                said[name] = _spelled(value, last, anew=self.charge is True)
            elif not (taken_over and last == value):
                # Else it would look unchanged, and another host may have said otherwise: left out once, it is sent again.
                said[name] = value
        self._said = said
        return said


def _spelled(value: int, last: str | None, *, anew: bool) -> str:
    """The number, as it was written last or else `anew`. Leading zeros would make it octal."""
    plain, signed = str(value), f"+{value}"
    if last not in {plain, signed}:
        return plain
    return last if not anew else signed if last == plain else plain
