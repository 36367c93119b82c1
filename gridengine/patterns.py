"""Grid Engine's expressions over names, as RESTRING complexes and `qsub -q` have them: `fres*`, `a|b`, `!(emu*|x)&*y`. Pure.

Whoever submits a job chooses them, and others' commands read them: none takes longer than it is long.
"""

from __future__ import annotations

import re
from collections import deque
from fnmatch import fnmatchcase

# More is nothing that a person wrote; all jobs of the cluster would wait until so many were compared.
_MOST_PATTERNS, _DEEPEST = 200, 50
_OPERATORS = frozenset("!|&()")
# In C's patterns these mean something that they do not mean in Python's.
_OTHERWISE = re.compile(r"\\|\[\^")


def matches(expression: str, name: str) -> bool:
    """`!` binds closest, then `&`, then `|`. What cannot be read matches, since Grid Engine decides in the end."""
    words = deque(re.findall(r"[!|&()]|[^!|&() ]+", expression))
    if not words:
        return False
    if sum(word not in _OPERATORS for word in words) > _MOST_PATTERNS or words.count("(") > _DEEPEST:
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
    negated = False
    while words and words[0] == "!":
        words.popleft()
        negated = not negated
    word = words.popleft() if words else ")"
    if word == "(":
        found = _either(words, name)
        if not words or words.popleft() != ")":
            raise ValueError(word)
    elif word in _OPERATORS or _OTHERWISE.search(word):
        raise ValueError(word)
    else:
        found = fits(word, name)
    return found ^ negated


def fits(pattern: str, name: str) -> bool:
    """Whether a name, which has no brackets, is one of those that the pattern means."""
    # Of brackets that do not end each one is looked for to the end.
    return pattern.rfind("[") <= pattern.rfind("]") and fnmatchcase(name, pattern)
