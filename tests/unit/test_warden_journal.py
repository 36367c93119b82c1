"""The log: one line an event, whatever is in it; no token; an audit trail; and no disk filled by who is refused."""

from __future__ import annotations

import json
import logging
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warden_machine import ALICE, BOB, OPERATOR, ROOT, ready
from warden_site import AFM, Site, wait_until

from warden import journal, wire
from warden.authority import Members
from warden.client import Client
from warden.events import REFUSED, Note
from warden.model import ConfigurationError, ForbiddenError, NotFoundError, UnauthenticatedError, brief

if TYPE_CHECKING:
    from collections.abc import Iterator

    from warden_machine import Machine

    from warden.events import Effect, Event

T0 = 1_700_000_000.0


def record(event: str = "window added", time: float = T0, **facts: Any) -> logging.LogRecord:
    made = logging.LogRecord("warden.audit", logging.INFO, "", 0, "%s", (event,), None)
    made.created, made.msecs, made.facts = time, time % 1 * 1000, facts
    return made


@pytest.fixture
def loggers() -> Iterator[None]:
    """Logging as it was."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, journal.AUDIT.filters[:]
    yield
    for handler in root.handlers:
        if handler not in before[0]:
            handler.close()
    root.handlers, root.level, journal.AUDIT.filters = before[0], before[1], before[2]


def test_a_line_has_the_time_the_event_and_its_facts() -> None:
    line = journal.Text().format(record(by=0, reason="new lasers", kind="calibrating"))
    assert line == '2023-11-14T22:13:20.000Z INFO window added by=0 reason="new lasers" kind=calibrating'


@given(st.dictionaries(st.sampled_from(["reason", "host", "job"]), st.text() | st.integers() | st.none()))
def test_an_event_is_one_line_whatever_users_have_put_in(facts: dict[str, Any]) -> None:
    for formatter in (journal.Text(), journal.Json()):
        line = formatter.format(record(**facts))
        assert line.isprintable()
        assert line.isascii()


@given(st.text())
def test_no_value_can_pass_for_another_fact(text: str) -> None:
    line = journal.Text().format(record(reason=text, by=7))
    # Without what is quoted, there is one of each.
    bare = re.sub(r'"(\\.|[^"\\])*"', "", line)
    assert re.findall(r"(\w+)=", bare) == ["reason", "by"]


@given(st.dictionaries(st.sampled_from(["reason", "host"]), st.text() | st.integers() | st.none()))
def test_programs_read_the_facts_as_they_are(facts: dict[str, Any]) -> None:
    told = json.loads(journal.Json().format(record(**facts)))
    assert told == {"time": "2023-11-14T22:13:20.000Z", "level": "INFO", "event": "window added", **facts}


def test_who_is_refused_again_and_again_fills_no_disk_and_hides_nobody() -> None:
    damper = journal.Damper()
    shown = [damper.filter(record(REFUSED, T0 + n / 1000, by=BOB)) for n in range(1000)]
    assert sum(shown) == 10
    assert damper.filter(record(REFUSED, T0 + 2, by=ALICE))
    assert damper.filter(record("session ended", T0 + 2, by=BOB))
    later = record(REFUSED, T0 + 100, by=BOB)
    assert damper.filter(later)
    assert journal.Text().format(later).endswith("by=1002 also=990")


def test_each_process_of_an_offender_is_he() -> None:
    damper = journal.Damper()
    shown = [damper.filter(record(REFUSED, T0, address=f"localhost:1002:100:{pid}")) for pid in range(1000)]
    assert sum(shown) == 10
    assert damper.filter(record(REFUSED, T0, address="localhost:1001:100:7"))
    assert damper.filter(record(REFUSED, T0, address="192.0.2.7"))


def test_a_thousand_offenders_cost_no_more_memory_than_a_thousand() -> None:
    damper = journal.Damper()
    for n in range(5000):
        damper.filter(record(REFUSED, T0, by=n))
    assert len(damper._seen) <= 1000


@pytest.mark.usefixtures("loggers")
def test_the_audit_trail_is_a_file_of_its_own_that_may_be_moved_away(tmp_path: Path) -> None:
    trail = tmp_path / "audit.jsonl"
    journal.begin(audit=trail)
    journal.write(journal.AUDIT, "session acquired", {"job": "7"})
    journal.write(logging.getLogger("warden.broker"), "task queued", {"task": 1})
    trail.rename(tmp_path / "audit.1")
    journal.write(journal.AUDIT, "session ended", {"job": "7"})
    assert trail.stat().st_mode & 0o027 == 0
    events = [json.loads(file.read_text())["event"] for file in (tmp_path / "audit.1", trail)]
    assert events == ["session acquired", "session ended"]


@pytest.mark.usefixtures("loggers")
def test_an_audit_trail_whose_folder_is_gone_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    journal.begin(audit=folder / "audit.jsonl")
    journal.write(journal.AUDIT, "session acquired", {"job": "7"})
    folder.rename(tmp_path / "aside")
    journal.write(journal.AUDIT, "session ended", {"job": "7"})
    folder.mkdir()
    journal.write(journal.AUDIT, "resumed", {"by": 0})
    assert "resumed" in (folder / "audit.jsonl").read_text()
    assert "session ended job=7" in capsys.readouterr().err


@pytest.mark.usefixtures("loggers")
def test_an_audit_trail_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot write the audit trail"):
        journal.begin(audit=tmp_path / "nowhere" / "audit.jsonl")


# --- what is written down ---


def watched(machine: Machine) -> list[tuple[str, dict[str, Any]]]:
    """The audit trail of a machine from now on."""
    trail: list[tuple[str, dict[str, Any]]] = []
    handle = machine.core.handle

    def kept(event: Event, now: int) -> list[Effect]:
        effects = handle(event, now)
        trail.extend((note.event, note.facts) for note in effects if isinstance(note, Note) and note.audit)
        return effects

    machine.core.handle = kept  # type: ignore[method-assign]
    return trail


def test_each_run_is_a_line_at_its_start_and_at_its_end() -> None:
    machine, qpu = ready()
    notes: list[tuple[str, dict[str, Any]]] = []
    handle = machine.core.handle

    def kept(event: Event, now: int) -> list[Effect]:
        effects = handle(event, now)
        notes.extend((n.event, n.facts) for n in effects if isinstance(n, Note) and n.event.startswith("run"))
        return effects

    machine.core.handle = kept  # type: ignore[method-assign]
    who = {"task": machine.start(machine.session(ALICE, "7"), 100).id, "job": "7", "uid": ALICE}
    for shots, result, outcome in (
        (40, {}, "cut"),
        (0, {"counts": {"01": 61}}, "failed"),
        (60, {}, "whole"),
    ):
        run = who | {"run": qpu.take().token[:8]}
        left = qpu.runs[-1].shots
        machine.later(2)
        notes_before = len(notes)
        qpu.finish(shots, **result)
        assert notes[notes_before - 1] == ("run started", run | {"shots": left})
        assert notes[notes_before] == ("run ended", run | {"shots": shots, "seconds": 1.0, "outcome": outcome})
    machine.start(machine.session(ALICE, "8"), 5)
    qpu.take()
    machine.later(2)
    qpu.finish(0, error="no", fault="task")
    assert (notes[-1][1]["job"], notes[-1][1]["outcome"]) == ("8", "refused")


def test_a_maintenance_that_is_replaced_is_in_the_trail_with_who_did_it() -> None:
    machine, _ = ready()
    first = machine.block()
    trail = watched(machine)
    machine.block(None)
    assert [event for event, _ in trail] == ["window replaced", "window added"]
    assert trail[0][1] == {"by": OPERATOR, "window": first.id}


def test_sessions_and_what_operators_do_are_in_the_trail() -> None:
    machine, _ = ready()
    trail = watched(machine)
    session = machine.session(ALICE, "7")
    task = machine.start(session)
    window = machine.block(60, 60)
    machine.ask(wire.MoveWindow(window=window.id, start=machine.now + 9), OPERATOR)
    machine.ask(wire.CancelWindow(window=window.id), OPERATOR)
    machine.ask(wire.TaskStop(task=task.id), OPERATOR)
    machine.ask(wire.Release(session=session.id), ROOT)
    assert [(event, facts.get("by")) for event, facts in trail] == [
        ("session acquired", None),
        ("window added", OPERATOR),
        ("window moved", OPERATOR),
        ("window taken back", OPERATOR),
        ("task stopped", OPERATOR),
        ("session ended", ROOT),
    ]
    assert (trail[0][1]["job"], trail[0][1]["uid"], trail[0][1]["host"]) == ("7", ALICE, "node1")


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (wire.Acquire(job="8", uid=BOB), "acquire"),
        (wire.GetTask(task=1), "task 1"),
        (wire.TaskStop(task=1), "task 1"),
        (wire.Release(session="id-1"), "release of the session of job 7"),
        (wire.TaskStart(session="id-1", sequence="{}", shots=1, key="k"), "task_start"),
        (wire.Resume(), "resume"),
        (wire.ListTasks(everybody=True), "list_tasks"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_who_reaches_for_what_is_not_his_is_in_the_trail(body: wire.Message, what: str) -> None:
    machine, _ = ready()
    machine.start(machine.session(ALICE, "7"))
    trail = watched(machine)
    with pytest.raises((ForbiddenError, NotFoundError)):
        machine.ask(body, BOB)
    [(event, facts)] = trail
    assert (event, facts["by"], facts["what"]) == (REFUSED, BOB, what)


def test_who_is_refused_through_the_scheduler_s_hook_is_named_and_counted_himself() -> None:
    machine, _ = ready(members=Members(frozenset(), frozenset({ALICE})))
    trail = watched(machine)
    with pytest.raises(ForbiddenError):
        machine.session(BOB, "8")
    [(_, facts)] = trail
    assert (facts["by"], facts["uid"], facts["job"]) == (ROOT, BOB, "8")
    damper = journal.Damper()
    assert sum(damper.filter(record(REFUSED, T0, by=ROOT, uid=BOB)) for _ in range(99)) == 10
    assert damper.filter(record(REFUSED, T0, by=ROOT, uid=ALICE))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root acquires sessions, and becomes another user")
def test_no_log_error_or_process_list_has_a_token_a_key_or_a_credential(site: Site) -> None:
    trail = site.room / "audit.jsonl"
    site.configure(log={"audit": str(trail)})
    site.start_broker()
    site.start_worker()
    with site.client() as root:
        session = root.acquire(job="7", uid=0, host="node1")
        hello = root._connection._hello()
        task = root.task_start(session.id, AFM, 20)
        wait_until(lambda: root.task(task.id).status.final, "the task is done")
        tokens = set(re.findall(r"run (\w{8}): task", site.log_of(site.worker)))
        refused = site.warden("sessions", "--end", "nonesuch").stderr
    with Client(config=site.config) as client:
        client._connection._hello = lambda: hello  # type: ignore[method-assign]
        with pytest.raises(UnauthenticatedError, match="made for another connection") as replayed:
            client.tasks()
    with site.client() as root:
        root.release(session.id)
    keys = [path.read_text() for path in (site.room / "keys").rglob("*.key_secret")]
    secrets = {session.id, hello.credential, *re.findall(r'secret-key = "(.*)"', "".join(keys))}
    assert len(secrets) == 5
    assert tokens
    shown = [site.log_of(site.broker), site.log_of(site.worker), trail.read_text(), refused, str(replayed.value)]
    shown += [Path(f"/proc/{process.pid}/cmdline").read_text() for process in (site.broker, site.worker)]
    for text in shown:
        assert not [secret for secret in secrets if secret in text]
        # Nothing looks like a whole token either.
        assert not re.search(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}", text)
    assert brief(session.id) in shown[0]
    assert '"event": "session acquired"' in trail.read_text()
    assert '"event": "refused"' in trail.read_text()
