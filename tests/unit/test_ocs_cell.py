"""The stand-in for OCS says what the real one said: the captured sessions, replayed against it."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest
from gridengine_samples import SAMPLES, Call, calls, stdout
from ocs_cell import Cell, captured_job

from gridengine import qstat_xml

if TYPE_CHECKING:
    from pathlib import Path

NAMED = ("qpu qpu INT <= YES JOB 0 0", "qpu_q qpu_q DOUBLE <= YES NO 0 0", "qpu_type qpu_type STRING == YES NO NONE 0",
         "qpu_mon qpu_mon DOUBLE <= YES YES 0 0", "qpu_id qpu_id RSMAP <= YES JOB NONE 0", "qpu_slot qpu_slot RSMAP <= YES YES NONE 0",
         "qpu_hid qpu_hid RSMAP <= YES HOST NONE 0", "qpu_host qpu_host INT <= YES HOST 0 0", "qpu_ready qpu_ready INT <= YES NO 0 0",
         "qpu_dbl qpu_dbl DOUBLE <= YES NO 0 0")  # fmt: skip


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Cell(tmp_path)


@pytest.fixture
def busy(cell: Cell) -> Cell:
    """The cell with the complexes that it had when the sessions were captured."""
    cell.change(complex=sorted([*cell.state["complex"], *(line.split() for line in NAMED)]))
    return cell


def said(call: Call) -> tuple[str, str, int]:
    """What a command said, but for what is by chance: process ids, numbers of lines, and how wide columns are."""

    def plain(text: str) -> str:
        text = re.sub(r"/tmp/pid-\d+-\w+", "/tmp/pid", text)
        text = re.sub(r"/\S+/(\w+\.(?:ce|txt))", r"\1", text)
        return re.sub(r"(in line )\d+", r"\1N", text).strip("\n")

    return plain(call.stdout), plain(call.stderr), call.status


def arguments(command: str) -> list[str]:
    """Split a command of a sample, where a value with a blank or brackets stands without quotes."""
    return shlex.split(re.sub(r"(\S*\([^)]*\))", r"'\1'", command))


def test_complex_values_session(busy: Cell) -> None:
    first, *session = calls("ocs/qconf_complex_values_session.txt")
    assert "-Mc" in first.command
    for expected in session:
        busy.change(user=expected.user)
        assert said(busy.run(*arguments(expected.command))) == said(expected), expected.command


TRIES = re.findall(
    r"^## try line: ([^\n]*)\n(\$ .*?)(?=\n\n##|\Z)",
    (SAMPLES / "ocs/qconf_Mc_session.txt").read_text(),
    re.MULTILINE | re.DOTALL,
)


@pytest.mark.parametrize(("line", "session"), TRIES, ids=[line for line, _ in TRIES])
def test_complexes_are_taken_and_refused_as_ocs_does(busy: Cell, tmp_path: Path, line: str, session: str) -> None:
    file = tmp_path / "mc_try.txt"
    file.write_text(busy.run("qconf", "-sc").stdout + line + "\n")
    call = busy.run("qconf", "-Mc", str(file))
    errors = re.findall(r"^\[stderr\] (.*)$", session, re.MULTILINE)
    assert said(call) == said(Call("", "", "\n".join(errors), int(re.findall(r"\[exit (\d)\]", session)[0])))
    shown = [
        one.split()
        for one in busy.run("qconf", "-sc").stdout.splitlines()
        if one.split()[0] == line.split(maxsplit=1)[0]
    ]
    captured = re.findall(rf"^({re.escape(line.split(maxsplit=1)[0])} .*)$", session.partition("grep")[2], re.MULTILINE)
    assert shown == [one.split() for one in captured]


def test_what_a_table_leaves_out_is_deleted_with_status_0(busy: Cell, tmp_path: Path) -> None:
    busy.change(
        complex=[
            row
            for row in busy.state["complex"]
            if row[0] not in {"qpu_slot", "qpu_hid", "qpu_mon", "qpu_type", "qpu_host"}
        ]
    )
    only = tmp_path / "mc_only.txt"
    only.write_text("only1 only1 INT <= YES JOB 0 0\n")
    expected = next(call for call in calls("ocs/qconf_Mc_session.txt") if "mc_only" in call.command)
    assert said(busy.run("qconf", "-Mc", str(only))) == said(expected)
    table = [line for line in busy.run("qconf", "-sc").stdout.splitlines() if line[0] != "#"]
    assert len(table) == 53
    assert [line.split() for line in table if "qpu" in line or "only1" in line] == [only.read_text().split()]


def test_one_bad_line_and_none_is_taken(busy: Cell, tmp_path: Path) -> None:
    file = tmp_path / "mc_try.txt"
    file.write_text(busy.run("qconf", "-sc").stdout + "good good INT <= YES NO 0 0\nbad1 bad1 INT == YES YES 0 0\n")
    before = busy.snapshot()
    call = busy.run("qconf", "-Mc", str(file))
    assert (call.stderr, call.status) == ('Consumable "bad1" can have only <= as an relational operator\n', 1)
    assert busy.snapshot() == before


def test_single_complexes_session(cell: Cell, tmp_path: Path) -> None:
    entry = "name {0}\nshortcut {0}\ntype INT\nrelop <=\nrequestable YES\nconsumable JOB\ndefault 0\nurgency {1}\n"
    files = {
        "qpu.ce": entry.format("qpu", 0),
        "qpu100.ce": entry.format("qpu", 100),
        "newone.ce": entry.format("newone", 0),
    }
    files["tab.ce"] = "qpux qpux INT <= YES JOB 0 0\n"
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    replayed = 0
    for expected in calls("ocs/qconf_Ace_Mce_session.txt"):
        command = expected.command.replace("/root/in", str(tmp_path)).split()
        # JSON is new in 9.2 and nothing of ours; an editor is nobody's; the complexes of the last one are not here.
        if command[0] == "qconf" and not {"-fmt", "qpu_ready"} & set(command) and "rs_yes" not in command[-1]:
            assert said(cell.run(*command)) == said(expected), expected.command
            replayed += 1
    assert replayed == 11


@pytest.mark.parametrize(
    ("sample", "command"),
    [
        ("qconf_sc", ("-sc",)),
        ("qconf_sconf", ("-sconf",)),
        ("qconf_sconf_host", ("-sconf", "ocsvm")),
        ("qconf_sq_all.q", ("-sq", "all.q")),
    ],
)
def test_what_it_shows_is_what_was_captured_to_the_last_blank(
    cell: Cell, sample: str, command: tuple[str, ...]
) -> None:
    name = f"ocs/{sample}.txt"
    expected = stdout(name) if calls(name) else (SAMPLES / name).read_text()
    assert cell.run("qconf", *command).stdout.rstrip("\n") == expected.rstrip("\n")


def test_a_configuration_that_is_sent_back_as_it_was_shown_is_complained_of(cell: Cell, tmp_path: Path) -> None:
    file = tmp_path / "global"
    file.write_text(
        cell.run("qconf", "-sconf").stdout.replace("sharelog=00:00:00", "sharelog=00:00:00 usage_patterns=qrmi:qrmi_.*")
    )
    expected = calls("ocs/usage_patterns.txt")[0]
    call = cell.run("qconf", "-Mconf", str(file))
    text = (SAMPLES / "ocs/usage_patterns.txt").read_text()
    assert call.status == expected.status == 0
    assert all(f"[stderr] {line}" in text for line in call.stderr.splitlines())
    # Three lines, as they were captured.
    assert calls("ocs/usage_patterns.txt")[1].stdout.rstrip() in cell.run("qconf", "-sconf").stdout


def test_in_one_line_nothing_is_broken(cell: Cell) -> None:
    shown = cell.run("qconf", "-sconf", single_line=True).stdout
    assert "\\" not in shown
    assert "mode=default,default_unit=C," in shown


def test_jobs_are_the_captured_ones(cell: Cell) -> None:
    for number in (87, 88, 89, 90, 91):
        cell.change(jobs={**cell.state["jobs"], str(number): captured_job(number)})
    assert cell.run("qstat", "-u", "*", "-r", "-xml").stdout.strip() == stdout("ocs/qstat_u_all_r.xml.txt").strip()
    assert cell.run("qstat", "-u", "*", "-xml").stdout.strip() == stdout("ocs/qstat_u_all.xml.txt").strip()
    assert qstat_xml.live(cell.run("qstat", "-u", "bob", "-xml").stdout) == {}
    call = cell.run("qstat", "-j", "999999", "-xml")
    assert said(call) == said(calls("ocs/qstat_j_unknown.xml.txt")[0])


def test_what_no_sample_shows_is_refused(cell: Cell) -> None:
    for command in (("qconf", "-mc"), ("qhost", "-F", "nonsense"), ("qstat", "-ext"), ("qdel", "1")):
        assert cell.run(*command).status == 99
