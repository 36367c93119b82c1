"""Makes changes in Grid Engine, one after the other, and takes them back when one fails."""

from __future__ import annotations

import contextlib
import re
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from gridengine import commands, jobs, qconf_text
from gridengine.deployment import cell
from gridengine.deployment.order import batches
from gridengine.deployment.state import OF_QUEUES, QUOTA, QUOTA_MARK, WINDOW, Change, Item, Kind
from gridengine.qconf_text import Layered
from gridengine.resources import Complex, Flavour, render_table
from warden.model import ConflictError, WardenError, few

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from types import FrameType

    Say = Callable[[str], None]

# An execd drops the values of a sensor that was taken from it with its next load report, each 40 s by default.
_SILENCE_LIMIT = 120.0
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# What SGE 8.1.9 and OCS want to be told of a parallel environment; each refuses what it does not know.
_ENVIRONMENT = {
    "pe_name": WINDOW,
    "slots": "999999",
    "user_lists": "NONE",
    "xuser_lists": "NONE",
    "start_proc_args": "NONE",
    "stop_proc_args": "NONE",
    "allocation_rule": "$fill_up",
    "control_slaves": "FALSE",
    "job_is_first_task": "FALSE",
    "urgency_slots": "min",
    "accounting_summary": "FALSE",
}
_ENVIRONMENT_MORE = {
    Flavour.SGE: {"qsort_args": "NONE"},
    Flavour.OCS: {"ign_sreq_on_mhost": "FALSE", "master_forks_slaves": "FALSE", "daemon_forks_slaves": "FALSE"},
}


def apply(changes: Sequence[Change], silenced: Collection[str] = (), say: Say = lambda _: None) -> None:
    """Make the changes; when one fails, or somebody stops us, undo those before it and say so.

    Hooks are not taken away before the complexes in `silenced` are not reported any more: a load value alone lets jobs
    start.

    Raises:
        ConflictError: Jobs still ask for a complex that would go, or somebody else changes things at the same time.
        GridEngineError: Grid Engine refuses.
    """
    _refuse_while_asked_for(changes)
    begun: list[list[Change]] = []
    with _stoppable() as go_on:
        try:
            for batch in batches(changes):
                if batch[0].item.kind is Kind.HOOK and silenced:
                    _await_silence(silenced, say)
                begun.append(batch)
                _execute(batch, say)
        except (WardenError, KeyboardInterrupt) as error:
            go_on()
            text = error.text if isinstance(error, WardenError) else "interrupted"
            if len(begun) > 1:
                say(f"{text}; taking back what was changed")
            left = _undo(begun, say)
            if left:
                what = "; ".join(left)
                raise commands.GridEngineError(
                    f"{text}; and not all could be undone, see `qpu-admin plan`: {what}"
                ) from error
            if isinstance(error, WardenError):
                raise type(error)(f"{text}; nothing was changed") from error
            say("interrupted; nothing was changed")
            raise


def asked_for(changes: Sequence[Change]) -> list[int]:
    """The jobs that ask for a complex that would go."""
    going = {change.item.name for change in changes if change.item.kind is Kind.COMPLEX and change.after is None}
    return jobs.live_requests(going) if going else []


def _refuse_while_asked_for(changes: Sequence[Change]) -> None:
    # SGE 8.1.9 takes a complex away from under the jobs that ask for it, and they wait for ever.
    asking = asked_for(changes)
    if asking:
        raise ConflictError(
            f"{len(asking)} job(s) still ask for the QPU ({few(asking, 5)}): let them end or delete them (qdel), then try "
            "again"
        )


@contextlib.contextmanager
def _stoppable() -> Iterator[Callable[[], None]]:
    """Have SIGTERM and a lost terminal end us as Ctrl-C does, until what this gives is called: undoing is not stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def go_on() -> None:
        for number in heeded:
            signal.signal(number, signal.SIG_IGN)

    # What we were started to ignore (nohup), we do not mind now.
    heeded = [number for number in _STOPS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield go_on
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _undo(begun: Sequence[Sequence[Change]], say: Say) -> list[str]:
    """Take back what was begun, the last first; return what went wrong."""
    left = []
    for batch in reversed(begun):
        try:
            _execute([change.undone() for change in reversed(batch)], say)
        except ConflictError:
            pass  # somebody else has set it meanwhile, so it is theirs
        except WardenError as error:
            left.append(error.text)
    return left


def _execute(batch: Sequence[Change], say: Say) -> None:
    """Make changes of one kind. What is so already is not written: undoing must work where doing was refused."""
    change = batch[0]
    kind = change.item.kind
    if kind is Kind.COMPLEX:
        _write_table(batch, say)
    elif kind is Kind.VALUE:
        _write_value(change)
    elif kind is Kind.SENSOR:
        _write_sensor(change)
    elif kind is Kind.SETTING:
        _write_setting(change)
    elif kind is Kind.QUOTA:
        _write_quota(change)
    elif kind is Kind.PE:
        _write_environment(change)
    else:
        _write_attribute(change)


def _write_table(changes: Sequence[Change], say: Say) -> None:
    """Send the whole table, the only way that both flavours know: what is left out of it gets deleted.

    So it is fetched fresh, and afterwards nothing but ours may differ.
    """
    ours = {change.item.name: change.after for change in changes}
    before = cell.read_table()
    table = [entry for entry in before if entry.name not in ours]
    if not {"slots", "hostname", "qname"} <= {entry.name for entry in table}:
        raise commands.GridEngineError(
            "qconf -sc shows a table without Grid Engine's own complexes; nothing was written"
        )
    table += [Complex.parse(line) for line in ours.values() if line is not None]
    if set(before) == set(table):
        return
    _await_silence({name for name, line in ours.items() if line is None}, say)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "complexes"
        path.write_text(render_table(table), encoding="utf-8")
        said = commands.run("qconf", "-Mc", str(path)).all
    lost = set(re.findall(r'removed "(.+?)" from complex', said)) - set(ours)
    if lost:
        raise ConflictError(
            f"somebody added complexes at the same moment, and they were lost: add {sorted(lost)} again"
        )
    if set(cell.read_table()) != set(table):
        raise ConflictError("the complexes are not what was written: somebody changes them too, see qconf -sc")


def _await_silence(names: Collection[str], say: Say) -> None:
    """Wait until no load value refers to these complexes any more; Grid Engine does not delete them before."""
    end = time.monotonic() + _SILENCE_LIMIT
    told = False
    while reported := sorted(set(names) & cell.read_values("global", "load_values").keys()):
        if not told:
            say("waiting for the hosts' next load reports, which leave the QPU out (by default 40 s)")
            told = True
        if time.monotonic() > end:
            raise commands.GridEngineError(
                f"Grid Engine still holds load values of {', '.join(reported)}: a host that ran our load sensor is down; "
                "start its sge_execd and try again"
            )
        time.sleep(1)


def _write_value(change: Change) -> None:
    name, place = change.item.name, change.item.place
    now = cell.read_values(place).get(name)
    if now == change.after:
        return
    if change.after is None:
        commands.run("qconf", "-dattr", "exechost", "complex_values", name, place)
    else:
        commands.run("qconf", "-mattr", "exechost", "complex_values", f"{name}={change.after}", place)
    _expect(change.item, cell.read_values(place).get(name), change.after)


def _write_attribute(change: Change) -> None:
    """Set an attribute of a queue. qconf merges entries for hosts into those that are there, so the others go after it."""
    assert change.item.kind in OF_QUEUES  # noqa: S101 - there is no other kind
    queue, name = change.item.place, change.item.name
    before, after = (Layered.parse(text or qconf_text.NONE) for text in (change.before, change.after))
    now = cell.read_attribute(change.item)
    if now == str(after):
        return
    if not _between(Layered.parse(now), before, after):
        # Of all that can be overwritten, another's prolog would be missed most.
        _expect(change.item, now, str(before))
    commands.run("qconf", "-rattr", "queue", name, str(after), queue)
    for key in before.overrides.keys() - after.overrides.keys():
        commands.run("qconf", "-purge", "queue", name, f"{queue}@{key}")
    _expect(change.item, cell.read_attribute(change.item), str(after))


def _between(now: Layered, before: Layered, after: Layered) -> bool:
    """Whether a change from one to the other was stopped on the way."""
    entries = before.overrides.items() | after.overrides.items()
    both = before.overrides.keys() & after.overrides.keys()
    return (
        now.default in {before.default, after.default}
        and now.overrides.items() <= entries
        and both <= now.overrides.keys()
    )


def _write_sensor(change: Change) -> None:
    """Add ours to, or take it from, the sensors that a configuration has or inherits."""
    place = change.item.place
    before = cell.read_configuration(place)
    inherited = [] if place == "global" else _foreign_sensors(cell.read_configuration("global"))
    own = qconf_text.settings(before).get("load_sensor")
    others = inherited if own is None else _foreign_sensors(before)
    wanted = [*others, change.after] if change.after else others
    if change.after is None and place != "global" and others == inherited:
        after = qconf_text.without(before, "load_sensor")
    else:
        after = qconf_text.with_setting(before, "load_sensor", ",".join(wanted) or qconf_text.none_as_in(before))
    _write_configuration(place, before, after)


def _write_setting(change: Change) -> None:
    place, name = change.item.place, change.item.name
    before = cell.read_configuration(place)
    now = qconf_text.settings(before).get(name)
    if now == change.after:
        return
    _expect(change.item, now, change.before)
    after = (
        qconf_text.without(before, name)
        if change.after is None
        else qconf_text.with_setting(before, name, change.after)
    )
    _write_configuration(place, before, after)


def _write_configuration(place: str, before: str, after: str) -> None:
    expected = qconf_text.settings(after)
    if expected == qconf_text.settings(before):
        return
    if not expected:
        commands.run("qconf", "-dconf", place)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / place  # qconf takes the file's name for the configuration's
            path.write_text(qconf_text.unwrapped(after), encoding="utf-8")
            commands.run("qconf", "-Mconf" if before else "-Aconf", str(path))
    if qconf_text.settings(cell.read_configuration(place)) != expected:
        raise ConflictError(f"configuration {place} is not what was written: somebody changes it too (qconf -sconf)")


def _write_quota(change: Change) -> None:
    now = cell.read_quota()
    if now == change.after:
        return
    _expect(change.item, now, change.before)
    if change.after is None:
        commands.run("qconf", "-drqs", QUOTA)
    else:
        limits = change.after.removeprefix(f"{QUOTA_MARK}; ").split("; ")
        lines = [f"name {QUOTA}", f'description "{QUOTA_MARK}"', "enabled TRUE", *(f"limit {each}" for each in limits)]
        _send("{\n" + "".join(f"   {line}\n" for line in lines) + "}\n", "-Arqs" if now is None else "-Mrqs")
    _expect(change.item, cell.read_quota(), change.after)


def _write_environment(change: Change) -> None:
    now = cell.read_environment()
    if now == change.after:
        return
    _expect(change.item, now, change.before)
    if change.after is None:
        commands.run("qconf", "-dp", WINDOW)
    else:
        more = _ENVIRONMENT_MORE[commands.version().flavour]
        _send("".join(f"{name:<19} {value}\n" for name, value in {**_ENVIRONMENT, **more}.items()), "-Ap")
    _expect(change.item, cell.read_environment(), change.after)


def _send(text: str, option: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "object"
        path.write_text(text, encoding="utf-8")
        commands.run("qconf", option, str(path))


def _foreign_sensors(text: str) -> list[str]:
    listed = qconf_text.names(qconf_text.settings(text).get("load_sensor", "none"))
    return [path for path in listed if not cell.is_sensor(path)]


def _expect(item: Item, now: str | None, expected: str | None) -> None:
    if now != expected:
        raise ConflictError(
            f"{item} is {now or 'NONE'} where {expected or 'NONE'} was expected: somebody changes it too; try again"
        )
