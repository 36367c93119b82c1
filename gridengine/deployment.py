"""What the kit sets in Grid Engine: desired, actual, the difference, and how it gets there and away again.

State is flat: an item (a complex, a value, a sensor, a hook) has a text or is not there. Reading and planning leave
everything out that is not ours, so nothing else can end up in a change.
"""

from __future__ import annotations

import enum
import re
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from gridengine import commands, jobs, qconf_text
from gridengine.resources import NAMES, Complex, Flavour, complexes, parse_table, render_table, values
from warden.model import ConfigurationError, ConflictError, WardenError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gridengine.configuration import GridEngineSection
    from warden.sections import QpuSection

SENSOR = "qpu-load-sensor"
HOOKS = {"prolog": "qpu-prolog", "epilog": "qpu-epilog"}
# Grid Engine fills these in itself, so a hook can trust them.
_ARGUMENTS = "$job_id $ja_task_id $job_owner $host"
# An execd drops the values of a sensor that was taken from it with its next load report, each 40 s by default.
_SILENCE_LIMIT = 120.0


class Kind(enum.StrEnum):
    """In the order in which they are applied: each needs those before it, and hooks touch jobs, so they come last."""

    COMPLEX = "complex"
    VALUE = "value"
    SENSOR = "load_sensor"
    HOOK = "hook"


class Item(msgspec.Struct, frozen=True):
    """One thing of ours: `name` at `place` (a host, a configuration, a queue; complexes have none)."""

    kind: Kind
    place: str
    name: str

    def __str__(self) -> str:
        where = {Kind.VALUE: " of host", Kind.SENSOR: " of configuration", Kind.HOOK: " of queue"}.get(self.kind)
        what = f"{self.kind} {self.name}" if self.kind in {Kind.COMPLEX, Kind.VALUE} else self.name
        return f"{what}{where} {self.place}" if where else what


class Change(msgspec.Struct, frozen=True):
    """An item's text before and after; None where it is not there."""

    item: Item
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.item}: {self.after}"
        if self.after is None:
            return f"- {self.item}: {self.before}"
        return f"~ {self.item}: {self.before} -> {self.after}"

    def undone(self) -> Change:
        return Change(self.item, self.after, self.before)


State = dict[Item, str]


def desired(settings: GridEngineSection, qpu: QpuSection, flavour: Flavour) -> State:
    """Say what the configuration asks for."""
    state = {Item(Kind.COMPLEX, "", entry.name): entry.line() for entry in complexes(flavour)}
    state |= {Item(Kind.VALUE, "global", name): value for name, value in values(qpu).items()}
    state |= {Item(Kind.SENSOR, place, "load_sensor"): f"{settings.bin}/{SENSOR}" for place in settings.sensor_hosts}
    state |= {
        Item(Kind.HOOK, queue, hook): f"root@{settings.bin}/{program} {_ARGUMENTS}"
        for queue in settings.queues
        for hook, program in HOOKS.items()
    }
    return state


def plan(desired: Mapping[Item, str], actual: Mapping[Item, str]) -> list[Change]:
    """Work out the changes, in an order that is safe under load; with nothing desired, all of ours goes.

    Raises:
        ConflictError: Something that is not ours stands where ours should.
    """
    for item in desired:
        if item in actual and not _ours(item, actual):
            raise ConflictError(_conflict(item, actual[item]))
    order = list(Kind)
    gone = [Change(item, text, None) for item, text in actual.items() if item not in desired and _ours(item, actual)]
    come = [Change(item, actual.get(item), text) for item, text in desired.items() if actual.get(item) != text]
    gone.sort(key=lambda change: order.index(change.item.kind), reverse=True)
    come.sort(key=lambda change: order.index(change.item.kind))
    return gone + come


def hosts_to_restart(changes: Iterable[Change]) -> list[str]:
    """Tell the hosts whose execd does not see its new sensor; one in the global configuration starts by itself."""
    new = [change.item for change in changes if change.item.kind is Kind.SENSOR and change.before is None]
    return [item.place for item in new if item.place != "global"]


def interactive_queues(settings: GridEngineSection) -> list[str]:
    """Those of the queues that take interactive jobs, whose hooks SGE 8.1.9 kills: no hook can prevent the error state."""
    texts = {queue: commands.run("qconf", "-sq", queue).stdout for queue in settings.queues}
    return [queue for queue, text in texts.items() if "INTERACTIVE" in qconf_text.settings(text).get("qtype", "")]


def _ours(item: Item, actual: Mapping[Item, str]) -> bool:
    text = actual[item]
    if item.kind is Kind.COMPLEX:
        return any(text == entry.line() for flavour in Flavour for entry in complexes(flavour))
    if item.kind is Kind.VALUE:
        # The value of a complex that somebody else defined is somebody else's.
        definition = Item(Kind.COMPLEX, "", item.name)
        return definition not in actual or _ours(definition, actual)
    if item.kind is Kind.HOOK:
        return re.fullmatch(rf"root@/(\S+/)?{HOOKS[item.name]}( \$\w+)*", text) is not None
    return True


def _conflict(item: Item, text: str) -> str:
    if item.kind is Kind.HOOK:
        return (
            f"queue {item.place} has another {item.name} already ({text}): call that one from your own script together "
            f"with ours, or take {item.place} out of gridengine.queues"
        )
    return f"there is another complex {item.name} already ({text}): remove or rename it first (qconf -mc)"


# The edge: from here on Grid Engine is asked and told.


def read_actual(settings: GridEngineSection) -> State:
    """Ask Grid Engine what is there of ours, or in our place.

    Raises:
        GridEngineError: It does not answer, or knows no such queue or host.
    """
    found = {Item(Kind.COMPLEX, "", entry.name): entry.line() for entry in _read_table() if entry.name in NAMES}
    fixed = _read_values("global")
    found |= {Item(Kind.VALUE, "global", name): value for name, value in fixed.items() if name in NAMES}
    for place in settings.sensor_hosts:
        own = qconf_text.names(qconf_text.settings(_read_configuration(place)).get("load_sensor", "none"))
        found |= {Item(Kind.SENSOR, place, "load_sensor"): path for path in own if _is_sensor(path)}
    for queue in settings.queues:
        hooks = {Item(Kind.HOOK, queue, hook): _read_hook(queue, hook) for hook in HOOKS}
        found |= {item: text for item, text in hooks.items() if text is not None}
    return found


def apply(changes: Sequence[Change]) -> None:
    """Make the changes; when one fails, undo those before it and say so.

    Raises:
        ConflictError: Jobs still ask for a complex that would go, or somebody else changes things at the same time.
        GridEngineError: Grid Engine refuses.
    """
    _refuse_while_asked_for(changes)
    begun: list[list[Change]] = []
    try:
        for batch in _batches(changes):
            begun.append(batch)
            _execute(batch)
    except (WardenError, KeyboardInterrupt) as error:
        text = error.text if isinstance(error, WardenError) else "interrupted"
        left = _undo(begun)
        if left:
            what = "; ".join(left)
            raise commands.GridEngineError(
                f"{text}; and not all could be undone, see `qpu-admin plan`: {what}"
            ) from error
        if isinstance(error, WardenError):
            raise type(error)(f"{text}; nothing was changed") from error
        raise


def _undo(begun: Sequence[Sequence[Change]]) -> list[str]:
    """Take back what was begun, the last first; return what went wrong."""
    left = []
    for batch in reversed(begun):
        try:
            _execute([change.undone() for change in reversed(batch)])
        except ConflictError:
            pass  # somebody else has set it meanwhile, so it is theirs
        except WardenError as error:
            left.append(error.text)
    return left


def _refuse_while_asked_for(changes: Sequence[Change]) -> None:
    # SGE 8.1.9 takes a complex away from under the jobs that ask for it, and they wait for ever.
    going = {change.item.name for change in changes if change.item.kind is Kind.COMPLEX and change.after is None}
    asking = jobs.live_requests(going) if going else []
    if asking:
        some = ", ".join(map(str, asking[:5])) + (" ..." if len(asking) > 5 else "")  # noqa: PLR2004
        raise ConflictError(
            f"{len(asking)} job(s) still ask for the QPU ({some}): let them end or delete them (qdel), then try again"
        )


def _batches(changes: Sequence[Change]) -> list[list[Change]]:
    """Complexes go together, in one writing of the table; everything else one by one."""
    batches: list[list[Change]] = []
    for change in changes:
        if change.item.kind is Kind.COMPLEX and batches and batches[-1][0].item.kind is Kind.COMPLEX:
            batches[-1].append(change)
        else:
            batches.append([change])
    return batches


def _execute(batch: Sequence[Change]) -> None:
    """Make changes of one kind. What is so already is not written: undoing must work where doing was refused."""
    change = batch[0]
    kind = change.item.kind
    if kind is Kind.COMPLEX:
        _write_table(batch)
    elif kind is Kind.VALUE:
        _write_value(change)
    elif kind is Kind.SENSOR:
        _write_sensor(change)
    else:
        _write_hook(change)


def _write_table(changes: Sequence[Change]) -> None:
    """Send the whole table, the only way that both flavours know: what is left out of it gets deleted.

    So it is fetched fresh, and afterwards nothing but ours may differ.
    """
    ours = {change.item.name: change.after for change in changes}
    before = _read_table()
    table = [entry for entry in before if entry.name not in ours]
    if not {"slots", "hostname", "qname"} <= {entry.name for entry in table}:
        raise commands.GridEngineError(
            "qconf -sc shows a table without Grid Engine's own complexes; nothing was written"
        )
    table += [Complex.parse(line) for line in ours.values() if line is not None]
    if set(before) == set(table):
        return
    _await_silence({name for name, line in ours.items() if line is None})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "complexes"
        path.write_text(render_table(table), encoding="utf-8")
        said = commands.run("qconf", "-Mc", str(path)).all
    lost = set(re.findall(r'removed "(.+?)" from complex', said)) - set(ours)
    if lost:
        raise ConflictError(
            f"somebody added complexes at the same moment, and they were lost: add {sorted(lost)} again"
        )
    if set(_read_table()) != set(table):
        raise ConflictError("the complexes are not what was written: somebody changes them too, see qconf -sc")


def _await_silence(names: set[str]) -> None:
    """Wait until no load value refers to these complexes any more; Grid Engine does not delete them before."""
    end = time.monotonic() + _SILENCE_LIMIT
    while reported := sorted(names & _read_values("global", "load_values").keys()):
        if time.monotonic() > end:
            raise commands.GridEngineError(
                f"Grid Engine still holds load values of {', '.join(reported)}: a host that ran our load sensor is down; "
                "start its sge_execd and try again"
            )
        time.sleep(1)


def _write_value(change: Change) -> None:
    name, place = change.item.name, change.item.place
    now = _read_values(place).get(name)
    if now == change.after:
        return
    if change.after is None:
        commands.run("qconf", "-dattr", "exechost", "complex_values", name, place)
    else:
        commands.run("qconf", "-mattr", "exechost", "complex_values", f"{name}={change.after}", place)
    _expect(change.item, _read_values(place).get(name), change.after)


def _write_sensor(change: Change) -> None:
    """Add ours to, or take it from, the sensors that a configuration has or inherits."""
    place = change.item.place
    before = _read_configuration(place)
    inherited = [] if place == "global" else _foreign_sensors(_read_configuration("global"))
    own = qconf_text.settings(before).get("load_sensor")
    others = inherited if own is None else _foreign_sensors(before)
    wanted = [*others, change.after] if change.after else others
    if change.after is None and place != "global" and others == inherited:
        after = qconf_text.without(before, "load_sensor")
    else:
        after = qconf_text.with_setting(before, "load_sensor", ",".join(wanted) or qconf_text.none_as_in(before))
    _write_configuration(place, before, after)


def _write_hook(change: Change) -> None:
    queue, hook = change.item.place, change.item.name
    now = _read_hook(queue, hook)
    if now == change.after:
        return
    # Of all that can be overwritten, another's prolog would be missed most.
    _expect(change.item, now, change.before)
    commands.run("qconf", "-rattr", "queue", hook, change.after or "NONE", queue)
    _expect(change.item, _read_hook(queue, hook), change.after)


def _read_table() -> list[Complex]:
    try:
        return parse_table(commands.run("qconf", "-sc").stdout)
    except ValueError as error:
        raise commands.GridEngineError(f"qconf -sc shows a line that is not understood: {error}") from None


def _read_configuration(place: str) -> str:
    """Read a configuration; empty where a host has none of its own."""
    try:
        return commands.run("qconf", "-sconf", place).stdout
    except commands.UnknownObjectError as error:
        if "not defined" in error.text:
            return ""
        raise ConfigurationError(f"correct gridengine.sensor_hosts: {error.text}") from None


def _write_configuration(place: str, before: str, after: str) -> None:
    expected = qconf_text.settings(after)
    if expected == qconf_text.settings(before):
        return
    if not expected:
        commands.run("qconf", "-dconf", place)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / place  # qconf takes the file's name for the configuration's
            path.write_text(after, encoding="utf-8")
            commands.run("qconf", "-Mconf" if before else "-Aconf", str(path))
    if qconf_text.settings(_read_configuration(place)) != expected:
        raise ConflictError(f"configuration {place} is not what was written: somebody changes it too (qconf -sconf)")


def _read_values(host: str, kind: str = "complex_values") -> dict[str, str]:
    shown = qconf_text.settings(commands.run("qconf", "-se", host).stdout)
    return qconf_text.pairs(shown.get(kind, "NONE"))


def _read_hook(queue: str, hook: str) -> str | None:
    try:
        text = qconf_text.settings(commands.run("qconf", "-sq", queue).stdout).get(hook, "NONE")
    except commands.UnknownObjectError:
        raise ConfigurationError(f"Grid Engine has no queue {queue}: correct gridengine.queues") from None
    return None if text.upper() == "NONE" else text


def _foreign_sensors(text: str) -> list[str]:
    listed = qconf_text.names(qconf_text.settings(text).get("load_sensor", "none"))
    return [path for path in listed if not _is_sensor(path)]


def _is_sensor(path: str) -> bool:
    return path.rpartition("/")[2] == SENSOR


def _expect(item: Item, now: str | None, expected: str | None) -> None:
    if now != expected:
        raise ConflictError(
            f"{item} is {now or 'NONE'} where {expected or 'NONE'} was expected: somebody changes it too; try again"
        )
