"""The house is as docs/architecture.md and CONTRIBUTING.md say: what lives where, and who knows whom."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ROOMS = ["warden", "gridengine", "load_sensors"]


def house() -> set[str]:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    return set(re.findall(r"\b\w+\.py\b", text[text.index("## The house") : text.index("## The life of a task")]))


@pytest.mark.parametrize("room", [*ROOMS, "warden/qpu"])
def test_the_house_shows_every_module(room: str) -> None:
    assert {module.name for module in (ROOT / room).glob("*.py")} - {"__init__.py"} <= house()


def test_the_house_shows_no_module_that_is_not_there() -> None:
    assert house() <= {module.name for room in ROOMS for module in (ROOT / room).rglob("*.py")}


# What the scheduler's side may know of Warden: none of the broker's and the worker's own.
PUBLIC = {
    "client",
    "config",
    "console",
    "keyring",
    "model",
    "munge",
    "report",
    "roster",
    "sections",
    "start",
    "version",
    "wire",
}
# Of the standard library; no socket, file, clock, process or randomness hides in these.
HARMLESS = {
    *("__future__", "collections", "datetime", "enum", "fnmatch", "hashlib", "itertools", "math", "msgspec", "re"),
    *("textwrap", "typing", "xml"),
}
OURS = sorted(module for room in ("gridengine", "load_sensors") for module in (ROOT / room).rglob("*.py"))


class WithoutTypes(ast.NodeTransformer):
    def visit_If(self, node: ast.If) -> ast.If | None:
        return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node


def imported(module: Path, *, types: bool = True) -> set[str]:
    found: set[str] = set()
    tree = ast.parse(module.read_text(encoding="utf-8"))
    for node in ast.walk(tree if types else WithoutTypes().visit(tree)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module in {"warden", "gridengine"}:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def is_pure(module: Path) -> bool:
    title, *_ = (ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or "").split("\n\n")
    return title.endswith("Pure.")


@pytest.mark.parametrize("module", OURS, ids=lambda module: str(module.relative_to(ROOT)))
def test_imports_go_one_way(module: Path) -> None:
    names = imported(module)
    assert {name.split(".")[1] for name in names if name.startswith("warden.")} <= PUBLIC
    if module.is_relative_to(ROOT / "load_sensors"):
        assert not {name for name in names if name.startswith("gridengine")}


@pytest.mark.parametrize(
    "module", [one for one in OURS if is_pure(one)], ids=lambda module: str(module.relative_to(ROOT))
)
def test_modules_that_say_that_they_are_pure_are_so(module: Path) -> None:
    foreign = {name.split(".")[0] for name in imported(module, types=False)} - {"warden", "gridengine", "load_sensors"}
    assert foreign <= HARMLESS
