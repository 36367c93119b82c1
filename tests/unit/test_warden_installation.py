"""`warden install-units`: units for this installation, nothing of an admin's lost, and systemd content with them."""

from __future__ import annotations

import logging
import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from warden import config, installation, journal
from warden.cli import main
from warden.model import ConfigurationError

BIN = Path("/opt/gridengine-qpu/bin")
CELL = {"SGE_ROOT": "/opt/sge", "SGE_CELL": "default", "PATH": "/bin"}
EDGE = "[http]\nlisten = '127.0.0.1:768'\n"
AUDIT = "[log]\naudit = '/var/log/warden/audit.jsonl'\n"
EVERYWHERE = {
    "etc/systemd/system/warden.service",
    "etc/systemd/system/warden-worker.service",
    "etc/systemd/system/qpu-reserve.service",
    "etc/sysusers.d/warden.conf",
    "etc/tmpfiles.d/warden.conf",
}
WITH_EDGE = {"etc/systemd/system/warden-edge.service", "etc/systemd/system/warden-edge.socket"}
ROTATION = "etc/logrotate.d/warden"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "warden.toml"
    path.write_text("")
    return path


def made(file: Path, text: str = "", *parts: str, where: str = "/etc/warden/warden.toml") -> dict[str, str]:
    file.write_text(text)
    found = installation.files(
        config.load(file), Path(where), parts or tuple(installation.PARTS), programs=BIN, cell=CELL
    )
    return {str(one.path): one.text for one in found}


def run(*arguments: str) -> tuple[int, str]:
    """The command in this process, as if it were installed under /opt."""
    done = CliRunner().invoke(main, ["install-units", *arguments], catch_exceptions=False)
    return done.exit_code, done.output


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[list[str], Path]:
    """What to say to the command, and the folder that stands for /."""
    monkeypatch.setattr(installation, "programs", lambda: BIN)
    monkeypatch.setattr(config, "DEFAULT_PATH", Path("/etc/warden/warden.toml"))
    monkeypatch.setattr(installation, "_HIDDEN", ())
    file, root = tmp_path / "warden.toml", tmp_path / "root"
    file.write_text(EDGE + AUDIT)
    return ["--config", str(file), "--root", str(root)], root


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def test_units_have_the_paths_of_the_installation_and_of_its_configuration(file: Path) -> None:
    found = made(file, EDGE + AUDIT + "[broker]\nstate = '/srv/warden'\nkeys = '/srv/keys'\n")
    assert set(found) == EVERYWHERE | WITH_EDGE | {ROTATION}
    commands = {
        "warden": f"{BIN}/warden serve --no-edge --config /etc/warden/warden.toml",
        "warden-edge": f"{BIN}/warden serve --edge-only --config /etc/warden/warden.toml",
        "warden-worker": f"{BIN}/warden worker --config /etc/warden/warden.toml",
        "qpu-reserve": f"{BIN}/qpu-admin reserve --follow --config /etc/warden/warden.toml",
    }
    for name, command in commands.items():
        assert f"\nExecStart={command}\n" in found[f"etc/systemd/system/{name}.service"]
    assert "\nListenStream=127.0.0.1:768\n" in found["etc/systemd/system/warden-edge.socket"]
    broker = found["etc/systemd/system/warden.service"]
    assert "\nReadWritePaths=-/srv/warden\nRuntimeDirectory=warden\n" in broker
    # Both write to the audit trail.
    assert "\nLogsDirectory=warden\n" in broker
    assert "\nLogsDirectory=warden\n" in found["etc/systemd/system/warden-edge.service"]
    assert (
        "\nEnvironment=SGE_ROOT=/opt/sge\nEnvironment=SGE_CELL=default\n"
        in found["etc/systemd/system/qpu-reserve.service"]
    )
    assert (
        "d /srv/keys 0755 warden warden -\nd /srv/warden 0700 warden warden -\n" in found["etc/tmpfiles.d/warden.conf"]
    )
    assert "\n/var/log/warden/audit.jsonl {\n" in found[ROTATION]
    for text in found.values():
        assert not re.search("@[A-Z_]+@", text)


def test_usual_folders_are_made_by_systemd(file: Path) -> None:
    broker = made(file)["etc/systemd/system/warden.service"]
    assert (
        "\nStateDirectory=warden\nStateDirectoryMode=0700\nRuntimeDirectory=warden\nRuntimeDirectoryMode=0755\n"
        in broker
    )
    assert "ReadWritePaths" not in broker
    # Nothing is written there, so the unit may not.
    assert "LogsDirectory" not in broker


def test_only_what_the_host_needs_is_made(file: Path) -> None:
    always = {"etc/sysusers.d/warden.conf", "etc/tmpfiles.d/warden.conf"}
    assert set(made(file, EDGE, "edge")) == WITH_EDGE | always
    assert set(made(file, AUDIT, "worker")) == {"etc/systemd/system/warden-worker.service"} | always
    for part in ("broker", "edge"):
        assert ROTATION in made(file, EDGE + AUDIT, part)
    assert ROTATION not in made(file, "", "broker")


@pytest.mark.parametrize(
    ("text", "where", "complaint"),
    [
        ("", "/home/alice/warden.toml", "do not see /home"),
        ("", "/etc/war den.toml", "cannot stand in a unit"),
        ("", "/etc/100%.toml", "cannot stand in a unit"),
        ("[broker]\nstate = '/root/state'\n", "/etc/w.toml", "do not see /root"),
        ("[broker]\nclients = ['ipc:///tmp/c']\n", "/etc/w.toml", "do not see /tmp"),
        ("[http]\nlisten = 'localhost:768'\n", "/etc/w.toml", "needs its address"),
    ],
)
def test_what_units_cannot_use_is_refused(file: Path, text: str, where: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        made(file, text, where=where)


def test_units_are_written_once_updated_and_taken_away(installed: tuple[list[str], Path]) -> None:
    options, root = installed
    status, said = run(*options)
    assert (status, said.count("wrote ")) == (0, 8)
    assert tree(root) == EVERYWHERE | WITH_EDGE | {ROTATION}
    assert {stat.S_IMODE((root / name).stat().st_mode) for name in tree(root)} == {0o644}
    assert run(*options) == (0, "nothing to do: all units are as they should be\n")
    # Another version, or another configuration.
    Path(options[1]).write_text((EDGE + AUDIT).replace("768", "769"))
    assert run(*options) == (0, f"wrote {root}/etc/systemd/system/warden-edge.socket\n")
    (root / "etc/systemd/system/other.service").write_text("")
    status, said = run("--remove", *options)
    assert (status, said.count("removed ")) == (0, 8)
    assert tree(root) == {"etc/systemd/system/other.service"}
    assert run("--remove", *options) == (0, "nothing to do: there is no file of ours\n")


def _by_hand(path: Path) -> None:
    path.write_text(path.read_text().replace("RestartSec=2", "RestartSec=9"))


def _masked(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/null")


def _another_s(path: Path) -> None:
    path.write_text("[Service]\nExecStart=/bin/true\n")


def _no_text(path: Path) -> None:
    path.write_bytes(b"\xff\xfe")


@pytest.mark.parametrize("changed", [_by_hand, _masked, _another_s, _no_text])
def test_what_an_admin_has_changed_stays_and_so_does_all_else(
    installed: tuple[list[str], Path], changed: object
) -> None:
    options, root = installed
    run(*options)
    unit = root / "etc/systemd/system/warden-worker.service"
    changed(unit)
    socket = root / "etc/systemd/system/warden-edge.socket"
    before = (unit.readlink() if unit.is_symlink() else unit.read_bytes(), socket.read_text(), tree(root))
    Path(options[1]).write_text((EDGE + AUDIT).replace("768", "769"))
    for what in ((), ("--remove",)):
        status, said = run(*what, *options)
        assert (status, said.count("\n")) == (1, 1)
        assert f"left alone: {unit} (move it away; changes belong into `systemctl edit`)" in said
    assert (unit.readlink() if unit.is_symlink() else unit.read_bytes(), socket.read_text(), tree(root)) == before


def test_print_writes_nothing(installed: tuple[list[str], Path]) -> None:
    options, root = installed
    status, said = run("worker", "--print", *options)
    assert status == 0
    assert "# /etc/systemd/system/warden-worker.service\n# Written by" in said
    assert not root.exists()


def test_an_edge_has_to_know_where_it_listens(installed: tuple[list[str], Path]) -> None:
    options, root = installed
    Path(options[1]).write_text("")
    assert run("edge", *options)[0] == 1
    assert run(*options)[0] == 0
    assert tree(root) == EVERYWHERE


def test_wrong_usage_is_told(installed: tuple[list[str], Path]) -> None:
    options, _ = installed
    for wrong in (["--remove", "worker"], ["--remove", "--print"], ["everything"]):
        assert run(*wrong, *options)[0] == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_named(installed: tuple[list[str], Path]) -> None:
    options, root = installed
    root.mkdir(mode=0o500)
    status, said = run(*options)
    assert (status, "Permission denied" in said) == (1, True)


# --- as systemd and logrotate read them ---


def _needs(program: str) -> pytest.MarkDecorator:
    path = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    return pytest.mark.skipif(shutil.which(program, path=path) is None, reason=f"{program} is not installed")


@pytest.fixture
def units(installed: tuple[list[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The units of an installation whose programs are there, of a user who is there."""
    options, root = installed
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("warden", "qpu-admin"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(installation, "programs", lambda: programs)
    run(*options)
    return sorted((root / "etc/systemd/system").iterdir())


@_needs("systemd-analyze")
def test_systemd_understands_the_units(units: list[Path]) -> None:
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, units)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=45)
    ours = [line for line in done.stderr.splitlines() if "warden" in line or "qpu" in line]
    assert (done.returncode, ours) == (0, [])


@_needs("systemd-analyze")
def test_the_units_are_shut_in(units: list[Path]) -> None:
    for unit in units:
        if unit.suffix == ".service":
            # Of 100: what most services of a distribution have is above 80. One that runs as root cannot have less.
            most = "30" if unit.name == "qpu-reserve.service" else "20"
            command = ["systemd-analyze", "security", "--offline=true", f"--threshold={most}", str(unit)]
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=45)
            assert done.returncode == 0, done.stdout[-300:]


def test_libzmq_s_threads_may_say_how_they_are_scheduled(units: list[Path]) -> None:
    """It ends the process otherwise, which no `verify` shows: they are among systemd's @resources."""
    for unit in units:
        if unit.suffix == ".service":
            denied, allowed = (
                {
                    word
                    for line in unit.read_text().splitlines()
                    if line.startswith(key)
                    for word in line[len(key) :].split()
                }
                for key in ("SystemCallFilter=~", "SystemCallFilter=")
            )
            assert "@resources" not in denied or "sched_setscheduler" in allowed


def test_a_unit_that_cannot_start_is_not_started_for_ever(units: list[Path]) -> None:
    for unit in units:
        if unit.suffix == ".service":
            said = dict(
                line.split("=", 1) for line in unit.read_text().splitlines() if line.startswith(("Start", "Restart"))
            )
            assert said["Restart"] == "always"
            assert said["RestartPreventExitStatus"] == "2"
            assert said["StartLimitIntervalSec"] == "2min"
            # The limit can be reached at all, by one that fails at once.
            assert int(said["StartLimitBurst"]) * (int(said["RestartSec"]) + 1) < 120


@_needs("logrotate")
@pytest.mark.skipif(os.geteuid() != 0, reason="logrotate becomes another user")
def test_the_audit_trail_is_rotated_and_goes_on(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_HIDDEN", ())
    trail = tmp_path / "log" / "audit.jsonl"
    trail.parent.mkdir(mode=0o750)
    file.write_text(f"[log]\naudit = '{trail}'\n")
    settings = config.load(file)
    [rule] = [
        one.text
        for one in installation.files(settings, Path("/etc/w.toml"), ["broker"], programs=BIN, cell={}, user="root")
        if str(one.path) == ROTATION
    ]
    (tmp_path / "rule").write_text(rule)
    program = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin")
    handler = journal._Trail(trail, encoding="utf-8")
    try:
        for number in range(3):
            handler.emit(logging.makeLogRecord({"msg": f"line {number}"}))
            state = str(tmp_path / "state")
            done = subprocess.run(
                [program, "--force", "--state", state, str(tmp_path / "rule")],
                capture_output=True,
                text=True,
                check=False,
                timeout=45,
            )
            assert (done.returncode, done.stderr) == (0, "")
        handler.emit(logging.makeLogRecord({"msg": "line 3"}))
    finally:
        handler.close()
    assert trail.read_text() == "line 3\n"
    assert trail.with_name("audit.jsonl.1").read_text() == "line 2\n"
    assert sorted(path.name for path in trail.parent.iterdir())[2:] == ["audit.jsonl.2.gz", "audit.jsonl.3.gz"]
