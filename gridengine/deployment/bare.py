"""What the cluster would be without the kit. Pure.

Grid Engine's own state tells nearly all of it: our programs have names of their own, and what stood in their place
stands beside them. Only where it cannot tell, the record does: what was there before, as long as what was made of it
still stands. So a lost record makes nothing impossible, and what an admin changes meanwhile stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gridengine import qconf_text
from gridengine.deployment import hooks, hosts
from gridengine.deployment.state import (
    HOOKS,
    JSV,
    QUOTA_MARK,
    WINDOW,
    Cell,
    Entry,
    Item,
    Kind,
    Originals,
    State,
    attribute,
)
from gridengine.qconf_text import Layered
from gridengine.resources import NAMES, QUEUE_NAMES, Flavour, complexes, gate, rsmap

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from gridengine.configuration import GridEngineSection

PATTERN = "qrmi:qrmi_*"
PARALLEL = "slots 999999, allocation_rule $fill_up"
_PATTERNS = "usage_patterns="


def originals(cell: Cell, record: Originals) -> Originals:
    """The record to go by: where nothing tells of an earlier deployment, all that is there now was there before us."""
    if record or any(_has_hook(cell.state, queue) for queue in cell.queues):
        return record
    return {item: Entry(text, text) for item, text in cell.state.items() if item.kind is not Kind.SENSOR}


def bare(cell: Cell, record: Originals, settings: GridEngineSection, names: Collection[str] = ()) -> State:
    """Take everything of ours out of the cell's state; `names` are those of QPUs."""
    actual = cell.state
    queues = [queue for queue in cell.queues if _has_hook(actual, queue) or queue in _configured(settings)]
    recorded = (item.name.removeprefix("qpu_") for item in record if item.kind is Kind.COMPLEX)
    known = {*names, *recorded, *_offered(actual, queues)}
    ours = {
        item.name
        for item, line in actual.items()
        if item.kind is Kind.COMPLEX
        and _is_our_complex(item.name, line, known, settings, record)
        and _recorded(item, actual, record) is None
    }

    def without_ours(item: Item, text: str) -> str | None:
        if item.kind is Kind.COMPLEX or item.kind is Kind.VALUE:
            return None if item.name in ours else text
        if item.kind is Kind.PE:
            return None if text == PARALLEL else text
        if item.kind is Kind.QUOTA:
            return None if text.startswith(QUOTA_MARK) else text
        if item.kind is Kind.SENSOR:
            return None
        if item.kind is Kind.SETTING:
            return _setting_without_ours(item.name, text, cell.none, record.get(item))
        return _attribute_without_ours(item, text, cell, ours) if item.place in queues else text

    found = {}
    for item in {**actual, **dict.fromkeys(record)}:
        text = actual.get(item)
        entry = record.get(item)
        if entry is not None and entry.after == text:
            kept = entry.before
        else:
            kept = None if text is None else without_ours(item, text)
        if kept is not None:
            found[item] = kept
    return found


def without_pattern(value: str) -> str:
    """Take our usage pattern out of `reporting_params`, and the word with it if there is no other."""
    words = []
    for word in value.split():
        if word.startswith(_PATTERNS):
            others = [each for each in word.removeprefix(_PATTERNS).split(";") if each not in {"", PATTERN}]
            words += [_PATTERNS + ";".join(others)] if others else []
        else:
            words.append(word)
    return " ".join(words)


def with_pattern(value: str) -> str:
    """Add our usage pattern to `reporting_params`; other words and other patterns stay."""
    words = without_pattern(value).split()
    merged = [f"{word};{PATTERN}" if word.startswith(_PATTERNS) else word for word in words]
    if merged == words:
        merged.append(_PATTERNS + PATTERN)
    return " ".join(merged)


def _configured(settings: GridEngineSection) -> tuple[str, ...]:
    return tuple(queue for entry in settings.qpu for queue in entry.queues) or settings.queues


def _has_hook(actual: Mapping[Item, str], queue: str) -> bool:
    return any(hooks.any_ours(hook, actual.get(attribute(queue, hook), "")) for hook in HOOKS)


def _offered(actual: Mapping[Item, str], queues: Collection[str]) -> set[str]:
    """The names of the QPUs that our queues offer, be they in the configuration any more or not."""
    texts = [text for queue in queues for text in Layered.parse(actual[attribute(queue, Kind.OFFER)]).texts]
    return {name for text in texts if (name := qconf_text.pairs(text).get("qpu_name"))}


def _recorded(item: Item, actual: Mapping[Item, str], record: Originals) -> str | None:
    entry = record.get(item)
    return entry.before if entry is not None and entry.after == actual.get(item) else None


def _is_our_complex(
    name: str, line: str, known: Collection[str], settings: GridEngineSection, record: Originals
) -> bool:
    if name in NAMES:
        return any(line == entry.line() for flavour in Flavour for entry in complexes(flavour))
    if line == rsmap(name).line():
        return name == settings.rsmap or Item(Kind.COMPLEX, "", name) in record
    return name.removeprefix("qpu_") in known and line == gate(name.removeprefix("qpu_")).line()


def _setting_without_ours(name: str, text: str, none: str, entry: Entry | None) -> str:
    if name == "jsv_url":
        return none if is_our_jsv(text) else text
    if name == "jsv_allowed_mod":
        # Only the record tells which of them we added.
        added = set() if entry is None else {*_words(entry.after)} - {*_words(entry.before)}
        return ",".join(word for word in _words(text) if word not in added) or none if added else text
    return without_pattern(text) if PATTERN in text else text


def _words(text: str | None) -> list[str]:
    return qconf_text.names(text or "")


def is_our_jsv(url: str) -> bool:
    return url.rpartition("/")[2] == JSV


def _attribute_without_ours(item: Item, text: str, cell: Cell, ours: Collection[str]) -> str:
    value = Layered.parse(text)
    if item.kind is Kind.HOOK:
        own = {place: found[item.name] for place, found in cell.inherited.items() if item.name in found}
        found = hooks.unchained(item.name, value, own)
    elif item.kind is Kind.OFFER:
        found = value.map(
            lambda _, each: _unless_same(each, qconf_text.without_pairs(each, set(QUEUE_NAMES).intersection(ours)))
        )
    elif item.kind is Kind.THRESHOLD:
        found = value.map(lambda _, each: _unless_same(each, qconf_text.without_pairs(each, ours)))
    else:
        is_ours = cell.state.get(Item(Kind.PE, "", WINDOW)) == PARALLEL
        found = value.map(lambda _, each: qconf_text.without_word(each, WINDOW) if is_ours else each)
    return text if found == value else str(hosts.merged(found))


def _unless_same(before: str, after: str) -> str:
    """Spelled as it was, if nothing was taken out."""
    return before if qconf_text.pairs(before) == qconf_text.pairs(after) else after
