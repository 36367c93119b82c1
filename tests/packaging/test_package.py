"""The wheel and the sdist, outside of the repository: what somebody has who installed them, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
COMMANDS = ("warden", "qpu", "qpu-admin")
HOOKS = ("qpu-prolog", "qpu-epilog", "qpu-chain")
# What other people's programs import.
PUBLIC = ("warden.client", "warden.config", "warden.model", "warden.munge", "warden.report", "gridengine.submission")
# Nothing of the caller's: neither his paths nor his settings.
CLEAN = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
LIMIT = 240.0


def run(*command: object, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    words = list(map(str, command))
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=LIMIT, cwd="/", **options)
    assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="session")
def room() -> Iterator[Path]:
    # Where root's hooks may lie: no folder above it is anybody else's.
    with tempfile.TemporaryDirectory(prefix="package-") as made:
        Path(made).chmod(0o755)
        yield Path(made)


@pytest.fixture(scope="session")
def sdist(room: Path) -> Path:
    run(sys.executable, "-m", "build", "--no-isolation", "--sdist", "--outdir", room / "sdist", ROOT)
    return room / "sdist" / f"gridengine_qpu-{VERSION}.tar.gz"


@pytest.fixture(scope="session")
def wheel(room: Path, sdist: Path) -> Path:
    """Made from the sdist, not from the tree: whatever that lacks would be missing here."""
    (room / "unpacked").mkdir()
    run("tar", "-xf", sdist, "-C", room / "unpacked")
    unpacked = room / "unpacked" / f"gridengine_qpu-{VERSION}"
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", room / "wheel", unpacked)
    return room / "wheel" / f"gridengine_qpu-{VERSION}-py3-none-any.whl"


@pytest.fixture(scope="session")
def prefix(room: Path, wheel: Path) -> Path:
    """An environment that has the wheel and what it needs, and nothing else."""
    run(sys.executable, "-m", "venv", room / "prefix")
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    pip = [room / "prefix/bin/python", "-I", "-m", "pip", "--disable-pip-version-check", "-q"]
    run(*pip, "install", wheel, env=settings)
    return room / "prefix"


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_of_the_sdist_is_the_wheel_of_the_tree(wheel: Path, room: Path) -> None:
    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", room / "direct", ROOT)
    assert contents(room / "direct" / wheel.name) == contents(wheel)


def test_all_that_is_no_program_is_inside_too(wheel: Path) -> None:
    found = contents(wheel)
    data = f"gridengine_qpu-{VERSION}.data"
    tracked = run("git", "-C", ROOT, "ls-files", "warden", "gridengine", "load_sensors").stdout.split()
    assert set(tracked) <= found
    assert {f"warden/systemd/{path.name}" for path in (ROOT / "warden/systemd").iterdir()} <= found
    shared = {str(path.relative_to(ROOT)) for path in (ROOT / "share").rglob("*") if path.is_file()}
    shared = {path for path in shared if path.count("/") > 1 and not path.endswith(".pyc")}
    assert shared
    assert {f"{data}/data/{path}" for path in shared} <= found
    # Tests, the lab and our own tools stay at home.
    assert {name.split("/")[0] for name in found} == {
        "warden",
        "gridengine",
        "load_sensors",
        data,
        f"gridengine_qpu-{VERSION}.dist-info",
    }


def every(prefix: Path) -> list[list[str]]:
    """All commands and the commands in them, as the installed ones themselves tell."""
    program = """
import click
from warden.cli import main as warden
from gridengine.cli import qpu
from gridengine.admin_cli import main as admin
def walk(words, command):
    print(*words)
    for name, inner in getattr(command, "commands", {}).items():
        walk([*words, name], inner)
walk(["warden"], warden); walk(["qpu"], qpu); walk(["qpu-admin"], admin)
"""
    told = run(prefix / "bin/python", "-I", "-c", program, env=CLEAN).stdout
    return [line.split() for line in told.splitlines()]


def test_every_command_helps_and_knows_its_version(prefix: Path) -> None:
    found = every(prefix)
    assert len(found) > 25
    for program, *words in found:
        done = run(prefix / "bin" / program, *words, "--help", env=CLEAN)
        assert done.stdout.startswith(f"Usage: {' '.join([program, *words])} ")
        assert done.stderr == ""
    for program in COMMANDS:
        assert run(prefix / "bin" / program, "--version", env=CLEAN).stdout == f"{program}, version {VERSION}\n"


@pytest.mark.parametrize("module", PUBLIC)
def test_what_others_import_can_be_imported(prefix: Path, module: str) -> None:
    program = f"import {module}; print({module}.__file__)"
    assert run(prefix / "bin/python", "-I", "-c", program, env=CLEAN).stdout.startswith(f"{prefix}/lib/")


def test_types_come_along(prefix: Path) -> None:
    for package in ("warden", "gridengine", "load_sensors"):
        assert list(prefix.glob(f"lib/python3*/site-packages/{package}/py.typed"))


@pytest.mark.parametrize("hook", HOOKS)
def test_hooks_start_and_say_what_they_lack(prefix: Path, hook: str) -> None:
    """Whatever the configuration of this host is: the interpreter, the kit and its rights are looked at before it."""
    done = run(prefix / "bin" / hook, "--check", check=False, env={**CLEAN, "PYTHONPATH": "/nonexistent"})
    if done.returncode == 0:
        assert done.stdout == "ok\n"
        return
    assert (hook in {"qpu-prolog", "qpu-epilog"}, done.returncode, done.stdout) == (True, 99, "")
    assert done.stderr.startswith(f"{hook}: ")
    assert "configuration" in done.stderr or os.geteuid() != 0
    assert done.stderr.count("\n") == 1


def test_verifier_and_sensor_start(prefix: Path) -> None:
    assert run(prefix / "bin/qpu-jsv", "--check", env=CLEAN).stdout == "ok\n"
    done = run(prefix / "bin/qpu-load-sensor", env=CLEAN, input="quit\n")
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(
    ("command", "text", "complaint"),
    [
        (["worker"], "", "install gridengine-qpu[worker]"),
        (["serve", "--edge-only"], "[http]\nlisten = '127.0.0.1:7680'\n", "install gridengine-qpu[http]"),
    ],
)
def test_what_an_extra_would_bring_is_named(
    prefix: Path, tmp_path: Path, command: list[str], text: str, complaint: str
) -> None:
    config = tmp_path / "warden.toml"
    config.write_text(f"[broker]\nkeys = '{tmp_path}/keys'\nstate = '{tmp_path}/state'\n{text}")
    run(prefix / "bin/warden", "keys", "--config", config, env=CLEAN)
    done = run(prefix / "bin/warden", *command, "--config", config, check=False, env=CLEAN)
    assert (done.returncode, done.stdout) == (1, "")
    assert complaint in done.stderr
    assert "Traceback" not in done.stderr


def test_units_are_made_of_what_is_installed(prefix: Path, tmp_path: Path) -> None:
    config = tmp_path / "warden.toml"
    config.write_text("")
    # Units see nothing of /tmp, and the command says so.
    done = run(prefix / "bin/warden", "install-units", "--print", "--config", config, check=False, env=CLEAN)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    program = (
        "from warden import installation as i; i._HIDDEN = (); from warden.cli import main; main(prog_name='warden')"
    )
    command = [prefix / "bin/python", "-I", "-c", program, "install-units", "--root", tmp_path / "root"]
    run(*command, "--config", config, env=CLEAN)
    unit = (tmp_path / "root/etc/systemd/system/warden.service").read_text()
    assert f"ExecStart={prefix}/bin/warden serve" in unit
