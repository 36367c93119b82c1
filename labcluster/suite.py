"""./lab test: run tox, in an environment of its own, and say in one line what came of it."""

import json
import os
import shutil
import signal
import subprocess
import tomllib
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from labcluster.kit import logged
from labcluster.layout import locked, state_home

_TREE = Path(__file__).resolve().parent.parent
_TOX = "tox>=4.41"
_FAILED = Counter(failures=1, errors=1)


def run(arguments: Sequence[str]) -> int:
    """Run tox on some environments, or on all; its exit status.

    `arguments` are the names of environments, and whatever else tox takes.
    """
    tox = _install_tox()
    results = _TREE / ".tox" / "results"
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    command = [str(tox), *_tox_arguments(arguments, results / "tox.json")]
    tests = subprocess.Popen(command, cwd=_TREE, stdin=subprocess.DEVNULL, env=_environment())
    try:
        status = tests.wait()
    except KeyboardInterrupt:
        # What came may have been meant for this process alone. tox lets the tests take their clusters down first.
        tests.send_signal(signal.SIGINT)
        status = tests.wait()
    print(_summary(results), flush=True)
    return status


def _install_tox() -> Path:
    folder = state_home() / "tox"
    tox = folder / "bin" / "tox"
    with locked(state_home() / "locks" / ".tox"):
        if not tox.exists():
            print("lab: installing tox", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            log = state_home() / "tox.log"
            log.unlink(missing_ok=True)
            logged(["/usr/bin/python3", "-m", "venv", str(folder)], log, "tox")
            logged([str(folder / "bin" / "pip"), "--disable-pip-version-check", "-q", "install", _TOX], log, "tox")
    return tox


def _tox_arguments(arguments: Sequence[str], results: Path) -> list[str]:
    """Names of environments made into the option that tox wants; everything from the first option on as it is.

    One is shown while it runs. Of several, three run side by side, and each is shown when it is done.
    """
    first = next((n for n, argument in enumerate(arguments) if argument.startswith("-")), len(arguments))
    names, options = list(arguments[:first]), arguments[first:]
    if not names and os.environ.get("LAB_DOCKER"):
        names = [*_usual(), "docker"]
    way = ["run"] if len(names) == 1 else ["run-parallel", "--parallel", "3"]
    return [*way, "--result-json", str(results), *(["-e", ",".join(names)] if names else []), *options]


def _usual() -> list[str]:
    """The environments that run when none is named."""
    settings = tomllib.loads((_TREE / "pyproject.toml").read_text(encoding="utf-8"))
    return list(settings["tool"]["tox"]["env_list"])


def _environment() -> dict[str, str]:
    # An environment that the caller stands in must not lend tox its Python.
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV", "TOX_"))}
    # pyenv's Pythons are there even where its commands for them, which stand first, are switched off.
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    pythons = [str(path) for path in sorted(pyenv.glob("versions/*/bin"))]
    return {**kept, "PATH": os.pathsep.join([kept.get("PATH", os.defpath), *pythons])}


def _summary(results: Path) -> str:
    counts = {report.stem: _count(report) for report in results.glob("*.xml")}
    total = sum(counts.values(), Counter())
    failed = total["failures"] + total["errors"]
    parts = [f"{total['tests'] - failed - total['skipped']} passed", f"{failed} failed"]
    if total["skipped"]:
        parts.append(f"{total['skipped']} skipped")
    # What failed without a failed test: a check, or pytest itself.
    others = [name for name in _failed_environments(results) if not counts.get(name, Counter()) & _FAILED]
    return ", ".join(parts) + "".join(f"; {name} failed" for name in others)


def _count(report: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    for suite in ET.parse(report).getroot().iter("testsuite"):  # noqa: S314 - pytest wrote it just now
        counts.update({name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")})
    return counts


def _failed_environments(results: Path) -> list[str]:
    try:
        environments = json.loads((results / "tox.json").read_text())["testenvs"]
    except (FileNotFoundError, ValueError, KeyError):
        return []
    return [name for name, told in environments.items() if told.get("result", {}).get("success") is False]
