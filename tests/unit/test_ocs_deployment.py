"""qpu-admin on a cell of OCS: the real commands, each with processes of its own, against the stand-in."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from ocs_cell import Cell, captured_job

from gridengine import deployment, qconf_text
from gridengine.admin_cli import main

if TYPE_CHECKING:
    from click.testing import Result

ROOT = Path(__file__).parents[2]
# As on a host where the kit is installed under /opt.
ADMIN = (
    "from gridengine import deployment; deployment.check_programs = lambda _: None\n"
    "from gridengine.admin_cli import main; main(prog_name='qpu-admin')"
)

ONE = """
[qpu]
name = "fresnel"
qubits = 20
[gridengine]
queues = ["all.q"]
bin = "/opt/gridengine-qpu/bin"
record = "{folder}/record"
"""
ALL = (
    ONE
    + """usage = true
rsmap = "qpu_id"
jsv = true
hosts = ["@quantum"]
"""
)


class Admin:
    """The cluster's admin, who runs qpu-admin as a program."""

    def __init__(self, cell: Cell, folder: Path) -> None:
        self.cell, self.folder = cell, folder
        self.file = folder / "warden.toml"
        self.write(ONE)

    def write(self, text: str) -> None:
        self.file.write_text(text.format(folder=self.folder))

    def record(self, files: dict[str, bytes] | None = None) -> dict[str, bytes]:
        """What qpu-admin has written down; or have it written down this."""
        folder = self.folder / "record"
        if files is not None:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name, data in files.items():
                (folder / name).write_bytes(data)
        return {path.name: path.read_bytes() for path in folder.iterdir()} if folder.exists() else {}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **self.cell.environment,
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "HOME": str(self.folder),
        }
        return subprocess.run(
            [sys.executable, "-c", ADMIN, arguments[0], "--config", str(self.file), *arguments[1:]],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def quickly(self, *arguments: str) -> Result:
        """The same without a process."""
        return CliRunner().invoke(main, [arguments[0], "--config", str(self.file), *arguments[1:]])

    def does(self, *arguments: str, status: int = 0) -> str:
        done = self.run(*arguments)
        assert done.returncode == status, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    def did(self, *arguments: str) -> None:
        done = self.quickly(*arguments)
        assert done.exit_code == 0, done.output


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return Cell(tmp_path)


@pytest.fixture
def admin(cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Admin:
    monkeypatch.setattr(deployment, "check_programs", lambda _: None)
    return Admin(cell, tmp_path)


def shown(cell: Cell, *command: str) -> str:
    return qconf_text.unwrapped(cell.call("qconf", *command).stdout)


def unordered(snapshot: dict[str, str]) -> dict[str, object]:
    """What a value is given anew goes to the end of its list; the order says nothing."""
    read = {name: qconf_text.settings(text) for name, text in snapshot.items() if name.startswith("-se ")}
    values = {name: qconf_text.pairs(settings["complex_values"]) for name, settings in read.items()}
    return {**snapshot, **{name: {**settings, "complex_values": values[name]} for name, settings in read.items()}}


def test_plan_apply_plan_remove(admin: Admin) -> None:
    cell = admin.cell
    before = cell.snapshot()
    assert re.search(r"qpu_name +(qpu_name +)?STRING ==", admin.does("plan", status=3))
    assert cell.snapshot() == before
    admin.does("apply")
    assert "qpu=1" in shown(cell, "-se", "global")
    assert "/opt/gridengine-qpu/bin/qpu-load-sensor" in shown(cell, "-sconf")
    assert "root@/opt/gridengine-qpu/bin/qpu-prolog" in shown(cell, "-sq", "all.q")
    changes = cell.changes()
    admin.does("plan")
    admin.does("apply")
    assert cell.changes() == changes
    admin.does("remove")
    assert cell.snapshot() == before
    admin.does("remove")


def test_what_else_is_in_a_configuration_survives_its_line_ends(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    """OCS complains of, and takes, a list that it showed itself in two lines: `binding_params`."""
    admin.cell.without_processes(monkeypatch)
    before = shown(admin.cell, "-sconf")
    admin.did("apply")
    after = shown(admin.cell, "-sconf")
    ours = {"load_sensor", "reporting_params"}
    assert [line for line in after.splitlines() if line.split(" ")[0] not in ours] == [
        line for line in before.splitlines() if line.split(" ")[0] not in ours
    ]


@pytest.mark.parametrize("direction", ["apply", "remove"])
def test_what_fails_in_the_middle_is_undone(admin: Admin, direction: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = admin.cell
    cell.widen()
    admin.write(ALL)
    cell.without_processes(monkeypatch)
    if direction == "remove":
        admin.did("apply")
    before, state, record = cell.snapshot(), cell.state, admin.record()
    admin.did(direction)
    steps = cell.changes() - state["changes"]
    assert steps > 5
    for step in range(1, steps + 1):
        cell.change(**state | {"fails_at": state["changes"] + step})
        admin.record(record)
        done = admin.quickly(direction)
        assert done.exit_code == 1, done.output
        assert done.output.splitlines()[-1].endswith("qconf: the test lets this command fail; nothing was changed")
        assert unordered(cell.snapshot()) == unordered(before), f"after a failure at step {step} of {steps}"


def test_what_the_admin_has_besides_and_changes_meanwhile_stays(
    admin: Admin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = admin.cell
    cell.without_processes(monkeypatch)
    entry = tmp_path / "gpu.ce"
    entry.write_text(
        "name gpu\nshortcut gpu\ntype RSMAP\nrelop <=\nrequestable YES\nconsumable HOST\ndefault NONE\nurgency 0\n"
    )
    cell.call("qconf", "-Ace", str(entry))
    cell.call("qconf", "-mattr", "exechost", "complex_values", "gpu=4(GPU0 GPU1 GPU2 GPU3)", "ocsvm")
    conf = tmp_path / "global"
    conf.write_text(re.sub(r"(load_sensor +)NONE", r"\1/site/sensor", shown(cell, "-sconf")))
    cell.call("qconf", "-Mconf", str(conf))
    admin.did("apply")
    assert "/site/sensor,/opt/gridengine-qpu/bin/qpu-load-sensor" in shown(cell, "-sconf")
    cell.call("qconf", "-mattr", "exechost", "complex_values", "slots=3", "ocsvm")
    cell.call("qconf", "-rattr", "queue", "rerun", "TRUE", "all.q")
    expected = Cell(tmp_path / "other")
    expected.call("qconf", "-Ace", str(entry))
    expected.call("qconf", "-mattr", "exechost", "complex_values", "gpu=4(GPU0 GPU1 GPU2 GPU3)", "ocsvm")
    expected.call("qconf", "-Mconf", str(conf))
    expected.call("qconf", "-mattr", "exechost", "complex_values", "slots=3", "ocsvm")
    expected.call("qconf", "-rattr", "queue", "rerun", "TRUE", "all.q")
    admin.did("remove")
    assert cell.snapshot() == expected.snapshot()


def test_jobs_that_ask_for_the_qpu_keep_it(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    admin.cell.without_processes(monkeypatch)
    admin.did("apply")
    before = admin.cell.snapshot()
    admin.cell.change(jobs={str(number): captured_job(number) for number in (87, 91)})
    done = admin.quickly("remove")
    assert (done.exit_code, "87" in done.output, "91" in done.output) == (1, True, False)
    assert admin.cell.snapshot() == before


def test_who_is_no_manager_is_told_so_and_nothing_is_changed(admin: Admin) -> None:
    before = admin.cell.snapshot()
    admin.cell.change(user="alice")
    done = admin.run("apply")
    assert (done.returncode, "must be manager" in done.stderr, len(done.stderr.splitlines())) == (1, True, 1)
    assert admin.cell.snapshot() == before


def parameters(cell: Cell, name: str = "reporting_params") -> list[str]:
    return qconf_text.settings(shown(cell, "-sconf"))[name].split()


def test_usage_patterns_are_merged_and_taken_out_again(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = admin.cell
    cell.without_processes(monkeypatch)
    bare = parameters(cell)
    for theirs in ([], ["usage_patterns=gpu:nvidia.*;power:power-*"]):
        conf = {**cell.state["configuration"]["global"], "reporting_params": " ".join([*bare, *theirs])}
        cell.change(configuration={**cell.state["configuration"], "global": conf})
        before = cell.snapshot()
        admin.did("apply")
        merged = [f"{theirs[0]};qrmi:qrmi_*"] if theirs else ["usage_patterns=qrmi:qrmi_*"]
        assert parameters(cell) == [*bare, *merged]
        admin.did("plan")
        admin.did("remove")
        assert cell.snapshot() == before
    admin.write(ONE + "usage = false\n")
    admin.did("apply")
    assert parameters(cell) == [*bare, *theirs]


def test_what_others_add_to_the_usage_patterns_meanwhile_stays(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = admin.cell
    cell.without_processes(monkeypatch)
    before = parameters(cell)
    admin.did("apply")
    words = (
        " ".join(parameters(cell))
        .replace("qrmi:qrmi_*", "gpu:nvidia.*;qrmi:qrmi_*")
        .replace("joblog=false", "joblog=true")
    )
    conf = {**cell.state["configuration"]["global"], "reporting_params": words}
    cell.change(configuration={**cell.state["configuration"], "global": conf})
    admin.did("remove")
    expected = [word.replace("joblog=false", "joblog=true") for word in before]
    assert parameters(cell) == [*expected, "usage_patterns=gpu:nvidia.*"]


def test_the_scheduler_names_the_qpu(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = admin.cell
    cell.without_processes(monkeypatch)
    before = cell.snapshot()
    admin.write(ONE.replace("qubits = 20", "qubits = 20\nplaces = 2") + 'rsmap = "qpu_id"\n')
    admin.did("apply")
    assert "qpu_id=2(fresnel fresnel)" in shown(cell, "-se", "global")
    assert qconf_text.settings(shown(cell, "-sce", "qpu_id"))["type"] == "RSMAP"
    admin.did("plan")
    admin.did("remove")
    assert cell.snapshot() == before


def test_some_hosts_alone_offer_it(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = admin.cell
    cell.widen()
    cell.without_processes(monkeypatch)
    before = cell.snapshot()
    admin.write(ONE + 'hosts = ["@quantum"]\n')
    admin.did("apply")
    queue = qconf_text.settings(shown(cell, "-sq", "all.q"))
    prolog = qconf_text.Layered.parse(queue["prolog"])
    assert (prolog.default, list(prolog.overrides)) == ("NONE", ["@quantum"])
    assert "qpu-prolog" in prolog.overrides["@quantum"]
    assert "qpu=0" in queue["complex_values"]
    admin.did("plan")
    admin.did("remove")
    assert cell.snapshot() == before


SEVERAL = """
[qpu]
name = "fresnel"
[gridengine]
bin = "/opt/gridengine-qpu/bin"
record = "{folder}/record"
[[gridengine.qpu]]
queues = ["all.q"]
[[gridengine.qpu]]
config = "{folder}/other.toml"
queues = ["long.q"]
"""


def test_several_qpus_come_and_go(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = admin.cell
    cell.widen()
    cell.without_processes(monkeypatch)
    before = cell.snapshot()
    admin.write(SEVERAL)
    (admin.folder / "other.toml").write_text('[qpu]\nname = "emu"\nqubits = 12\n')
    admin.did("apply")
    admin.did("plan")
    assert "qpu=1" not in qconf_text.settings(shown(cell, "-se", "global"))["complex_values"].split(",")
    for queue, name in (("all.q", "fresnel"), ("long.q", "emu")):
        settings = qconf_text.settings(shown(cell, "-sq", queue))
        assert f"qpu_name={name}" in settings["complex_values"]
        assert f"qpu_{name}=0" in settings["load_thresholds"]
        assert "qpu-prolog" in settings["prolog"]
    admin.did("remove")
    assert cell.snapshot() == before


NEW = (
    lambda command: command[0] == "qconf" and command[1] in {"-Ace", "-Mce", "-sce", "-dce", "-fmt", "-dry", "-strict"},
    lambda command: command[0] == "qconf" and re.match("-[SD]", command[1]) is not None,
    lambda command: "-fmt" in command or "json" in command,
)


def test_on_9_0_nothing_is_used_that_came_later(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor its single complexes, which SGE has not: one way does for both (docs/ocs.md)."""
    cell = admin.cell
    cell.widen()
    cell.change(captured={"qconf -help": ["OCS 9.0.8\nusage: qconf [options]\n", "", 0]})
    cell.without_processes(monkeypatch)
    for text in (ALL, SEVERAL):
        admin.write(text)
        (admin.folder / "other.toml").write_text('[qpu]\nname = "emu"\n')
        for command in ("plan", "apply", "plan", "remove"):
            assert admin.quickly(command).exit_code in {0, 3}
    log = cell.state["log"]
    assert len(log) > 100
    assert [command for command in log if any(new(command) for new in NEW)] == []
    # Since 9.2 adding and modifying are the same; before, each refuses what the other is for.
    assert {command[1] for command in log if command[1].startswith(("-A", "-M"))} <= {
        "-Mc", "-Mconf", "-Aconf", "-Ap", "-Arqs", "-Mrqs"
    }  # fmt: skip
