"""Complexes of the stand-in cell, and the values that hosts and queues give them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ocs_state import Refusal, State, say, tell
from ocs_text import items, layers, read_settings, shown

COLUMNS = ("name", "shortcut", "type", "relop", "requestable", "consumable", "default", "urgency")
WIDTHS = (19, 10, 11, 5, 11, 10, 8, 8)
TYPES = ("INT", "DOUBLE", "TIME", "MEMORY", "BOOL", "STRING", "CSTRING", "RESTRING", "HOST", "RSMAP")
TEXTS = ("STRING", "CSTRING", "RESTRING", "HOST")
REQUESTABLE = {"YES": "YES", "Y": "YES", "NO": "NO", "N": "NO", "FORCED": "FORCED", "F": "FORCED"}
NOTHING = ({"0", "0:0:0", "0.0", "FALSE", "NONE"}, {"0"})
"""Defaults that are none: of others, and of an RSMAP."""
CONSUMABLE = {"YES": "YES", "Y": "YES", "NO": "NO", "N": "NO", "JOB": "JOB", "J": "JOB", "HOST": "HOST", "H": "HOST"}


def show_table(state: State) -> None:
    table = state.all["complex"]
    # A column is as wide as its longest entry.
    widths = [max(least, *(len(row[at]) for row in table)) for at, least in enumerate(WIDTHS)]
    lines = [" ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)) for row in table]
    header = " ".join(f"{text:<{width}}" for text, width in zip(("#name", *COLUMNS[1:]), widths, strict=True))
    say("\n".join((header, "#" + "-" * (len(header) - 1), *(line.rstrip() for line in lines))))
    say("# >#< starts a comment but comments are not saved across edits --------")


def show_one(state: State, name: str) -> None:
    say(shown(dict(zip(COLUMNS, find(state, name), strict=True)), 12))


def find(state: State, name: str) -> list[str]:
    for entry in state.all["complex"]:
        if entry[0] == name:
            found: list[str] = entry
            return found
    raise Refusal(f'denied: complex "{name}" does not exist')


def write_table(state: State, path: str) -> None:
    """-Mc: what the file leaves out is deleted, but for what is built in, and that is a success."""
    state.changing()
    before: dict[str, list[str]] = {entry[0]: entry for entry in state.all["complex"]}
    table: dict[str, list[str]] = {}
    said: list[str] = []
    complained = False
    for line in Path(path).read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        entry = read_entry(line.split(), f'Complex attribute file "{path}" is not correct')
        wrong = faults(entry)
        said += wrong
        if wrong and not (entry[2] == "RSMAP" and entry[5] != "NO"):
            raise Refusal("\n".join(said))
        # An RSMAP with another relop is complained of, and added all the same.
        complained = complained or bool(wrong)
        others = {text for other in (*before.values(), *table.values()) if other[0] != entry[0] for text in other[:2]}
        if others & set(entry[:2]):
            raise Refusal(f"complex with name {entry[0]} or shortcut {entry[1]} already exists")
        table[entry[0]] = entry
    kept = [name for name in state.all["built_in"] if name not in table]
    gone = [name for name in before if name not in table and name not in kept]
    refuse_referenced(state, gone)
    if kept:
        some = ", ".join(kept[:12])
        said.append(
            f"kept built-in complex attribute(s) {some}, that the file does not define - built-ins cannot be deleted"
        )
    said += [f'{state.who} removed "{name}" from complex list' for name in gone]
    changed = [name for name, entry in table.items() if name in before and before[name] != entry]
    said += [state.done("complex", name, "modified") for name in changed]
    said += [state.done("complex", name, "added") for name in table if name not in before]
    state.all["complex"] = sorted({**{name: before[name] for name in kept}, **table}.values())
    tell("\n".join(said or ["Complex attribute configuration has not been changed"]))
    if complained:
        state.save()
        raise Refusal("")


def write_one(state: State, path: str) -> None:
    """-Ace and -Mce are the same: insert or update."""
    state.changing()
    settings = read_settings(path)
    reading = f'error: error reading file: "{path}"'
    unknown = [name for name in settings if name not in COLUMNS]
    if unknown:
        raise Refusal(f'error: unknown attribute name "{unknown[0]}"\n{reading}')
    entry = read_entry([settings[name] for name in COLUMNS], reading)
    if wrong := faults(entry):
        raise Refusal("\n".join(wrong))
    others = [other for other in state.all["complex"] if other[0] != entry[0]]
    there = len(others) < len(state.all["complex"])
    state.all["complex"] = sorted([*others, entry])
    tell(state.done("complex", entry[0], "modified" if there else "added"))


def delete(state: State, names: str) -> None:
    state.changing()
    for name in names.split(","):
        entry = find(state, name)
        refuse_referenced(state, [name])
        state.all["complex"].remove(entry)
        tell(f'{state.who} removed "{name}" from complex list')


def read_entry(columns: list[str], place: str) -> list[str]:
    if len(columns) < len(COLUMNS):
        raise Refusal("Complex urgency definition is missing")
    name, shortcut, kind, relop, requestable, consumable, default, urgency, *more = columns
    if kind.upper() not in TYPES:
        raise Refusal(f'error: unknown complex attribute type "{kind}"\n{place}')
    if more or requestable.upper() not in REQUESTABLE or consumable.upper() not in CONSUMABLE:
        newline = 'error: each value in the attribute value list in line 61 should end with "<NEWLINE>"'
        raise Refusal(f"{newline}\n{place}")
    may, how = REQUESTABLE[requestable.upper()], CONSUMABLE[consumable.upper()]
    return [name, shortcut, kind.upper(), relop, may, how, default, urgency]


def faults(entry: list[str]) -> list[str]:
    name, _, kind, relop, _, consumable, default, _ = entry
    found = []
    if consumable == "NO":
        if kind == "RSMAP" and default == "NONE":
            found.append(f'Complex "{name}"\'s default value should be of type "memory value"')
        if default not in NOTHING[kind == "RSMAP"]:
            found.append(f'Complex "{name}" cannot have a default value')
        if kind == "RSMAP":
            found.append(f'RSMAP complex "{name}" needs to be a consumable')
        return found
    if kind in TEXTS:
        found.append(f'Complex "{name}" of type "{kind}" cannot be a consumable')
    if relop != "<=" and (kind, relop) != ("BOOL", "EXCL"):
        found += [f'Consumable "{name}" can have only <= as an relational operator'] * (2 if kind == "RSMAP" else 1)
    return found


def refuse_referenced(state: State, names: list[str]) -> None:
    for kind, word in (("exechost", "host"), ("queue", "queue")):
        for place, settings in state.objects(kind).items():
            for attribute in ("complex_values", "load_values", "load_thresholds"):
                parts = re.split(r"[,\[\]=]", settings.get(attribute, ""))
                for name in names:
                    if name in parts:
                        raise Refusal(f'denied: Complex attribute "{name}" is still referenced in {word} "{place}".')


def check_values(state: State, kind: str, attribute: str, value: str) -> None:
    """Check a list of values for a host or a queue, as -mattr and the like do."""
    known = {entry[0]: entry for entry in state.all["complex"]}
    plain, some = layers(value) if kind == "queue" else (value, {})
    reading = f'error reading file: "/tmp/pid-{os.getpid()}-XXXXXX"'
    invalid = f'The attribute name ("{attribute}") and/or value ("{value}") is invalid'
    for part in [part for text in (plain or "NONE", *some.values()) for part in items(text)]:
        name, _, given = part.partition("=")
        if name not in known:
            raise Refusal(f'denied: attribute "{name}" is no complex attribute')
        if known[name][2] == "RSMAP" and kind == "queue":
            error = f'error parsing value "{name}"\nError during parsing of attribute value "{name}"'
            raise Refusal(f"{error}\n{reading}")
        if known[name][2] == "RSMAP" and given:
            check_map(name, given, invalid, reading)
        elif known[name][2] == "INT" and given:
            if not re.fullmatch(r"-?\d+(\.\d+)?", given):
                raise Refusal(f'attribute "{name}" is not a integer value')
            if given.startswith("-") and known[name][5] != "NO":
                raise Refusal(f'attribute "{name}" is consumable but has a negative value')


def check_map(name: str, given: str, invalid: str, reading: str) -> None:
    found = re.fullmatch(r"(\d+)(?:\((.*)\))?", given)
    if not found:
        raise Refusal(f'attribute "{name}" is not a memory value')
    ids = found[2]
    if ids is None:
        return
    if "[" in ids:
        first = ids.partition("[")[0]
        raise Refusal(f'RSMAP "{name}" id "{first}": per-instance characteristics are not available in OCS\n{reading}')
    if "," in ids:
        raise Refusal(f"{invalid}\n{invalid}\n{reading}")
    if int(found[1]) != sum(map(instances, ids.split())):
        raise Refusal(f"{invalid}\n{reading}")


def instances(identifier: str) -> int:
    span = re.fullmatch(r"(\d+)-(\d+)", identifier)
    return int(span[2]) - int(span[1]) + 1 if span else 1
