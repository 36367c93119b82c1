"""The texts that qconf shows and takes: `name value` lines, continued with a backslash. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

NONE = "NONE"


def unwrapped(text: str) -> str:
    """Join long values, which go on in the next line, into one line each.

    OCS drops what follows the line end inside a list when such a text is sent back to it.
    """
    # Lists are broken after a comma, which stands without a blank when the list is short enough; words at a blank.
    return re.sub(r"[ \t]*\\\n[ \t]*", " ", re.sub(r",[ \t]*\\\n[ \t]*", ",", text))


def settings(text: str) -> dict[str, str]:
    """Read what `qconf -sconf`, `-sq` or `-se` shows."""
    lines = (line.split(None, 1) for line in unwrapped(text).splitlines() if line.strip() and not line.startswith("#"))
    return {parts[0]: parts[1].strip() if len(parts) > 1 else "" for parts in lines}


def configurations(text: str) -> dict[str, str]:
    """Take apart what `qconf -sconf a,b` shows: a text for each, which begins with `#a:`."""
    parts = re.split(r"^#(\S+):[ \t]*\n", text, flags=re.MULTILINE)
    return {name: f"#{name}:\n{body.rstrip()}\n" for name, body in zip(parts[1::2], parts[2::2], strict=True)}


def is_none(value: str) -> bool:
    return value.strip().upper() in {"", NONE}


def names(value: str) -> list[str]:
    """Read a list such as `a,b`, or NONE."""
    listed = [part.strip() for part in value.split(",")]
    return [part for part in listed if not is_none(part)]


def pairs(value: str) -> dict[str, str]:
    """Read a list such as `slots=2,qpu_id=2(a b)`, or NONE."""
    found = (part.partition("=") for part in names(value))
    return {name.strip(): given.strip() for name, _, given in found}


def with_pairs(value: str, added: Iterable[tuple[str, str]]) -> str:
    """Add entries to such a list, or give them other values; all others stay where they are."""
    return _listed({**pairs(value), **dict(added)})


def without_pairs(value: str, taken: Iterable[str]) -> str:
    gone = set(taken)
    return _listed({name: given for name, given in pairs(value).items() if name not in gone})


def with_word(value: str, word: str) -> str:
    """Add to a list of words, such as a queue's `pe_list`."""
    words = re.split(r"[ ,]+", value.strip())
    return " ".join([*(each for each in words if not is_none(each) and each != word), word])


def without_word(value: str, word: str) -> str:
    words = re.split(r"[ ,]+", value.strip())
    return " ".join(each for each in words if not is_none(each) and each != word) or NONE


def with_setting(text: str, name: str, value: str) -> str:
    """Set one line and leave all others as they are, to the last blank."""
    line = f"{name:<28} {value}\n"
    changed, count = _pattern(name).subn(lambda _: line, text)
    return changed if count else f"{text.rstrip()}\n{line}".lstrip()


def without(text: str, name: str) -> str:
    return _pattern(name).sub("", text)


def none_as_in(text: str) -> str:
    """Spell "nothing" as this configuration does: SGE writes none, OCS NONE."""
    return NONE if re.search(r"\sNONE$", text, re.MULTILINE) else "none"


class Layered(msgspec.Struct, frozen=True):
    """A queue's attribute: one value for all of its instances, and others for hosts and host groups.

    `a,[@group=b],[host=c]`: what stands for a host is taken whole, and comes before what stands for a group of it.
    """

    default: str
    overrides: dict[str, str]

    @classmethod
    def parse(cls, text: str) -> Layered:
        default, *rest = re.split(r"(?:^|,)\s*\[", text.strip())
        overrides = (part.rstrip().rstrip(",").removesuffix("]").partition("=") for part in rest)
        return cls(default.strip() or NONE, {key.strip(): value.strip() for key, _, value in overrides})

    def __str__(self) -> str:
        """As Grid Engine orders them: groups first."""
        return ",".join([self.default, *(f"[{key}={text}]" for key, text in sorted(self.overrides.items()))])

    @property
    def texts(self) -> tuple[str, ...]:
        return (self.default, *self.overrides.values())

    def map(self, change: Callable[[str, str], str]) -> Layered:
        """Change each text; `change` gets the key, which is empty for the default, and the text."""
        return Layered(change("", self.default), {key: change(key, text) for key, text in self.overrides.items()})


def _listed(entries: dict[str, str]) -> str:
    return ",".join(f"{name}={given}" if given else name for name, given in entries.items()) or NONE


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"^{re.escape(name)}[ \t](?:.*\\\n)*.*\n", re.MULTILINE)
