"""What a task costs through the HTTP edge, with QRMI's own client: beside a store with many tasks, and beside the floor.

Three edges run side by side: one for a broker with an empty store, one for a broker with many finished tasks, and one
that does nothing: the same framework and server with a credential checked, and constant answers. QRMI's client asks each in
turn, so that whatever else the machine does hits all. As root, for it looks for munged at the usual place alone, and gets
a mount of its own for that. Exits with 1 when a bound is broken.

    python benchmarks/edge.py --python ENVIRONMENT/bin/python [--tasks 50000] [--rounds 300]

ENVIRONMENT has the package `qrmi`; this one needs what the unit tests need.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "unit"))

from fastapi import FastAPI
from growth import QUBITS, SEQUENCE, fill, percentile
from warden_site import SESSION, Site, free_port, wait_until

from warden import config as configuration
from warden.qrmi_http import routes, server

CLIENT = Path(__file__).with_name("qrmi_client.py")
# Turns that each edge gets, one after the other.
TURNS = 5


class Bound(NamedTuple):
    """A figure that is promised: of the broker with an empty store, and by how much the full one's may be worse."""

    what: str
    unit: str
    most: float | None = None
    least: float | None = None


BOUNDS = (
    Bound("round trip, median", "ms", most=8),
    Bound("round trip, p99", "ms", most=30),
    Bound("submission, median", "ms"),
    Bound("tasks, 16 clients", "/s", least=300),
    Bound("submission, 16 clients, p99", "ms", most=100),
    Bound("acquire and release, median", "ms", most=6),
    Bound("GET /accessible, 16 clients", "/s", least=1500),
    Bound("most memory of the edge", "MB", most=80),
)
# A full store is to cost no more than what one run differs from the next.
WORSE = 1.25


class Edge:
    """An edge that is measured, and what came of it."""

    def __init__(self, site: Site, python: str, *, floor: bool = False) -> None:
        self.site, self._python, self._floor = site, python, floor
        self.found: dict[str, list[float]] = {}

    def start(self) -> None:
        if self._floor:
            self.process = self.site.start([sys.executable, __file__, "--floor", str(self.site.file)])
            log = self.process
        else:
            self.site.start_broker()
            self.site.start_worker(at_once=True)
            log = self.site.broker
            self.process = None
        wait_until(lambda: "serving QRMI's clients" in self.site.log_of(log), "the edge serves")

    def ask(self, what: str, *, clients: int = 1, count: int) -> dict[str, Any]:
        wanted = {
            "what": what,
            "clients": clients,
            "count": count,
            "url": self.site.config.http.reachable,
            "session": SESSION,
            # The session of the tasks is to stay.
            "job": "2" if what == "sessions" else "1",
            "sequence": SEQUENCE,
        }
        inside = (
            'mkdir -p /run/munge && mount -t tmpfs none /run/munge && ln -s "$0" /run/munge/munge.socket.2 && exec "$@"'
        )
        command = ["unshare", "-m", "sh", "-c", inside, str(self.site.munge_socket)]
        done = subprocess.run(
            [*command, self._python, str(CLIENT), json.dumps(wanted)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"edge: the client failed: {done.stderr.strip()}")
        return dict(json.loads(done.stdout))

    def keep(self, what: str, values: list[float]) -> None:
        self.found.setdefault(what, []).extend(values)

    def memory(self) -> float:
        """MB: the most that it had."""
        if self.process is not None:
            pids = [self.process.pid]
        else:
            threads = Path(f"/proc/{self.site.broker.pid}/task").glob("*/children")
            pids = [int(pid) for thread in threads for pid in thread.read_text(encoding="ascii").split()]
        status = "".join(Path(f"/proc/{pid}/status").read_text(encoding="ascii") for pid in pids)
        return max(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024


def measure(edges: list[Edge], rounds: int) -> None:
    for edge in edges:
        edge.ask("tasks", count=20)
    for turn in range(TURNS):
        for edge in edges if turn % 2 == 0 else reversed(edges):
            alone = edge.ask("tasks", count=rounds // TURNS)
            edge.keep("round trips", alone["trips"])
            edge.keep("submissions", alone["submissions"])
            crowd = edge.ask("tasks", clients=16, count=max(1, rounds // TURNS // 2))
            edge.keep("rate", [crowd["rate"]])
            edge.keep("crowded submissions", crowd["submissions"])
            edge.keep("sessions", edge.ask("sessions", count=rounds // TURNS)["trips"])
            edge.keep("accessible", [edge.ask("accessible", clients=16, count=2 * rounds // TURNS)["rate"]])


def figures(edge: Edge) -> list[float]:
    found = edge.found
    return [
        1000 * statistics.median(found["round trips"]),
        1000 * percentile(found["round trips"]),
        1000 * statistics.median(found["submissions"]),
        statistics.median(found["rate"]),
        1000 * percentile(found["crowded submissions"]),
        1000 * statistics.median(found["sessions"]),
        statistics.median(found["accessible"]),
        edge.memory(),
    ]


def show(edges: list[Edge], tasks: int) -> bool:
    """Print the table; whether all bounds hold."""
    lines = [("", "do-nothing", "empty store", f"{tasks} tasks", "bound", "")]
    good = True
    for bound, floor, empty, full in zip(BOUNDS, *map(figures, edges), strict=True):
        text, broken = "", False
        if bound.most is not None:
            text, broken = f"<= {bound.most:g} {bound.unit}", empty > bound.most or full > WORSE * bound.most
        if bound.least is not None:
            text, broken = f">= {bound.least:g} {bound.unit}", empty < bound.least or full < bound.least / WORSE
        good = good and not broken
        cells = [f"{value:.{0 if bound.unit == '/s' else 2}f} {bound.unit}" for value in (floor, empty, full)]
        lines.append((bound.what, *cells, text, "BROKEN" if broken else ""))
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    for number, line in enumerate(lines):
        cells = [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        print("  ".join(cells).rstrip())
        if number == 0:
            print("-" * (sum(widths[:5]) + 8))
    return good


def serve_floor(path: Path) -> None:
    """The framework and the server of the edge, with constant answers."""

    def constant(*_: object, **__: object) -> FastAPI:
        app = FastAPI()
        job = {"id": 1, "user_id": "0", "status": "DONE", "results": '{"counter": {"0": 1}}'}
        answers = {"/accessible": {"is_accessible": True, "message": "ready"}}
        for method, route in (("POST", "/jobs"), ("GET", "/jobs/1"), ("GET", "/accessible")):
            app.add_api_route(route, _answering(answers.get(route, job)), methods=[method])
        for method, route in (("POST", "/sessions"), ("DELETE", "/sessions/1")):
            app.add_api_route(route, _answering({"id": "1"}), methods=[method])
        return app

    routes.application = constant
    print("serving QRMI's clients", flush=True)
    server.serve(configuration.load(path))


def _answering(answer: dict[str, Any]) -> Any:
    async def route() -> dict[str, Any]:
        await asyncio.sleep(0)
        return answer

    return route


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", help="of an environment with the package qrmi")
    parser.add_argument("--tasks", type=int, default=50_000, help="finished tasks in the large store")
    parser.add_argument("--rounds", type=int, default=300, help="round trips that are measured at each edge")
    parser.add_argument("--floor", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.floor:
        serve_floor(options.floor)
        return 0
    if not options.python:
        parser.error("say --python: an interpreter that can import qrmi")
    with Site() as nothing, Site() as empty, Site() as full:
        edges = [Edge(nothing, options.python, floor=True), Edge(empty, options.python), Edge(full, options.python)]
        fill(full.room / "state" / "warden.db", options.tasks, time.time_ns() // 1000)
        for edge in edges:
            edge.site.configure(
                qpu={"emulator": "echo", "overhead": 0, "shot_rate": 0, "qubits": QUBITS},
                broker={"heartbeat": 2},
                http={"listen": f"127.0.0.1:{free_port()}"},
            )
            edge.start()
        measure(edges, options.rounds)
        return 0 if show(edges, options.tasks) else 1


if __name__ == "__main__":
    sys.exit(main())
