"""QRMI's own clients on a cluster: in an environment of their own, which has nothing of the kit."""

import tomllib
from collections.abc import Callable

from labcluster.kit import PYTHON, TREE, link_python, logged
from labcluster.layout import Layout, locked


def install(layout: Layout, say: Callable[[str], None]) -> None:
    """Bring the environment up to date with the dependency group `interop`; nothing to do if it is."""
    with locked(layout.home / "locks" / ".qrmi"):
        packages: list[str] = tomllib.loads((TREE / "pyproject.toml").read_text())["dependency-groups"]["interop"]
        wanted = "\n".join(packages)
        stamp = layout.qrmi / "installed"
        if stamp.exists() and stamp.read_text() == wanted:
            return
        say("installing QRMI's clients into an environment of their own (a minute, the first time)")
        stamp.unlink(missing_ok=True)
        log = layout.home / "qrmi.log"
        log.write_text("")
        layout.qrmi.mkdir(parents=True, exist_ok=True)
        logged([PYTHON, "-m", "venv", str(layout.qrmi)], log, "QRMI")
        pip = [str(layout.qrmi / "bin" / "pip"), "--disable-pip-version-check", "-q"]
        logged([*pip, "install", *packages], log, "QRMI")
        stamp.write_text(wanted)


def link_commands(layout: Layout) -> None:
    """Put its Python and QRMI's command where every login and every job finds them."""
    link_python(layout.qrmi, layout.commands / "qrmi-python")
    (layout.commands / "task_runner").symlink_to(layout.qrmi / "bin" / "task_runner")
