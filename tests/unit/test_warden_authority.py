"""The table of who may do what, and the rule of what may import what."""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from test_warden_wire import REQUESTS

import warden
from warden import authority, orders, wire
from warden.authority import TABLE, Members, Who
from warden.model import ForbiddenError, UnauthenticatedError

USER, OPERATOR, ROOT = 1001, 900, 0
MEMBERS = Members(operators=frozenset({OPERATOR}))
ROOM = Path(warden.__file__).parent
DOCS = Path(__file__).parent.parent.parent / "docs"

PURE = [
    "model",
    "calibration",
    "calibrator",
    "policy",
    "core",
    "admission",
    "results",
    "bitstrings",
    "uploads",
    "ledger",
    "checks",
    "queue",
    "planner",
    "dispatch",
    "aftermath",
    "condition",
    "health",
    "hosts",
    "events",
    "authority",
    "sequence",
    "wire",
    "orders",
    "frames",
    "gauge",
    "runner",
    "actions",
    "examiner",
    "states",
    "qpu/timing",
    "qpu/noise",
    "qpu/drift",
    "qpu/quality",
    "qpu/physics",
    "qpu/costs",
    "qpu/cache",
]
# Everything that a pure module may know; no socket, file, clock, randomness or process hides in these.
HARMLESS = {
    "__future__",
    "datetime",
    "enum",
    "fractions",
    "functools",
    "hashlib",
    "bisect",
    "heapq",
    "itertools",
    "math",
    "typing",
    "collections",
    "msgspec",
    "msgpack",
    "re",
}


def test_everything_that_can_be_said_to_the_broker_has_a_row() -> None:
    assert set(TABLE) == {*get_args(wire.Request), *get_args(orders.FromWorker)}


def test_the_page_shows_the_table() -> None:
    page = runpy.run_path(str(DOCS / "authority.py"))["page"]()
    assert (DOCS / "authority.md").read_text(encoding="utf-8") == page, "run `python docs/authority.py`"


@pytest.mark.parametrize("kind", get_args(wire.Request), ids=lambda kind: kind.__name__)
def test_the_table_lets_pass_exactly_whom_it_names(kind: type[wire.Message]) -> None:
    allowed = {
        Who.ANYBODY: {None, USER, OPERATOR, ROOT},
        Who.USER: {USER, OPERATOR, ROOT},
        Who.OWNER: {USER, OPERATOR, ROOT},  # whose it is, is looked at where that is known
        Who.OWNER_OR_OPERATOR: {USER, OPERATOR, ROOT},
        Who.SCHEDULER: {ROOT},
        Who.OPERATOR: {OPERATOR, ROOT},
    }[TABLE[kind].who]
    body = next(request for request in REQUESTS if type(request) is kind)
    for uid in (None, USER, OPERATOR, ROOT):
        if uid in allowed:
            authority.check(body, uid, MEMBERS)
        else:
            with pytest.raises(UnauthenticatedError if uid is None else ForbiddenError):
                authority.check(body, uid, MEMBERS)


def test_nobody_is_no_operator() -> None:
    assert not authority.is_operator(None, MEMBERS)
    assert not authority.is_operator(USER, MEMBERS)


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_import_no_socket_file_clock_or_randomness(module: str) -> None:
    tree = ast.parse((ROOM / f"{module}.py").read_text(encoding="utf-8"))
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            imported.update(names if node.module in {"warden", "warden.qpu"} else [node.module or ""])
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in {"open", "__import__", "eval", "exec"}
        elif isinstance(node, ast.Attribute):
            assert node.attr not in {"now", "utcnow", "today"} or module == "core"
    ours = {name.removeprefix("warden.").replace(".", "/") for name in imported if name.startswith("warden")}
    assert ours <= set(PURE)
    assert {name.split(".")[0] for name in imported if not name.startswith("warden")} <= HARMLESS


@pytest.mark.parametrize("room", ["gridengine", "load_sensors", "labcluster"])
def test_warden_knows_nothing_of_the_schedulers_in_front_of_it(room: str) -> None:
    for file in ROOM.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.split(".")[0] == room], file


def test_the_client_loads_nothing_heavy() -> None:
    code = "import sys, warden.client; print(' '.join(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "zmq" in loaded
    assert not {"pulser", "numpy", "fastapi", "scipy", "qutip", "torch", "asyncio"} & set(loaded)
