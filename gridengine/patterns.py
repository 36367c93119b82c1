"""Grid Engine's expressions over names, as RESTRING complexes and `qsub -q` have them: `fres*`, `a|b`, `!(emu*|x)&*y`. Pure."""

from __future__ import annotations

import re
from collections import deque
from fnmatch import fnmatchcase

# More is nothing that a person wrote.
_MOST_WORDS = 100
# In C's patterns these mean something that they do not mean in Python's.
_OTHERWISE = re.compile(r"\\|\[\^")


def matches(expression: str, name: str) -> bool:
    """`!` binds closest, then `&`, then `|`. What cannot be read matches, since Grid Engine decides in the end."""
    words = deque(re.findall(r"[!|&()]|[^!|&() ]+", expression))
    if not words:
        return False
    if len(words) > _MOST_WORDS:
        return True
    try:
        return _either(words, name) or bool(words)
    except ValueError:
        return True


def _either(words: deque[str], name: str) -> bool:
    found = _both(words, name)
    while words and words[0] == "|":
        words.popleft()
        found |= _both(words, name)
    return found


def _both(words: deque[str], name: str) -> bool:
    found = _one(words, name)
    while words and words[0] == "&":
        words.popleft()
        found &= _one(words, name)
    return found


def _one(words: deque[str], name: str) -> bool:
    word = words.popleft() if words else ""
    if word == "!":
        return not _one(words, name)
    if word == "(":
        found = _either(words, name)
        if not words or words.popleft() != ")":
            raise ValueError(word)
        return found
    if word in {"", "|", "&", ")"} or _OTHERWISE.search(word):
        raise ValueError(word)
    return fnmatchcase(name, word)
