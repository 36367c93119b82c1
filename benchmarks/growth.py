"""What a large store costs: two brokers side by side, one with an empty store, one with a million finished tasks.

Both are real: processes, sockets, credentials, a worker with the echo device. Their round trips are measured in turns of
a few tasks each, so that whatever else the machine does hits both. Exits with 1 when a bound is broken.

    python benchmarks/growth.py [--tasks 1000000] [--rounds 600]
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import random
import statistics
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "unit"))

from warden_machine import sequence
from warden_site import SESSION, Site, wait_until

from warden.client import QuantumResource
from warden.events import Keep, Prune
from warden.model import SECOND, NotFoundError, Session, Task, TaskStatus, WardenError, clock
from warden.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from warden.client import Client

# The bounds that are promised.
SLOWER = 1.2
MEGABYTES = 150.0

QUBITS = 8
BITSTRINGS = 50
SESSIONS = 1000
USERS = 40
# Of all tasks, so many are of one session that is still open ...
OPEN_SHARE = 0.1
# ... and all of them were finished in so many days; a broker keeps them for 90.
DAYS = 80
DAY = 86400 * SECOND
# Round trips in a row at one broker, before it is the other's turn.
BLOCK = 10
PAGE = 1000


class Row(NamedTuple):
    what: str
    empty: str
    full: str
    ratio: str = ""
    bound: str = ""
    broken: bool = False


# --- a store with a past ---


def fill(path: Path, tasks: int, now: int) -> None:
    """Finished tasks as brokers leave them, spread over users, sessions and days."""
    draw = random.Random(7)
    store = Store(path)
    db = store._db  # noqa: SLF001 - the store itself knows no haste
    # Whoever fills a store for a benchmark can begin again.
    db.execute("PRAGMA synchronous = OFF")
    db.execute("PRAGMA cache_size = -1000000")
    step = DAYS * DAY // tasks
    begun = now - DAYS * DAY
    results = [_counts(draw) for _ in range(200)]
    sessions = [f"{uuid.UUID(int=draw.getrandbits(128))}" for _ in range(SESSIONS)]
    store.begin()
    for number, session in enumerate(sessions):
        acquired = begun + number * DAYS * DAY // SESSIONS
        uid = _uid(number)
        ended = Session(
            id=session,
            uid=uid,
            job=str(number),
            host=f"node{number % 16}",
            acquired=acquired,
            expires=acquired + DAY,
            seen=acquired,
            ended=acquired + 2 * DAY * DAYS // SESSIONS,
            end_reason="released",
            tasks=tasks // SESSIONS,
        )
        store.apply([Keep(ended)])
    store.commit()

    def records() -> Iterator[tuple[int, str, int, int, str, int, str]]:
        for number in range(1, tasks + 1):
            finished = begun + number * step
            is_open = draw.random() < OPEN_SHARE
            which = (number - 1) * SESSIONS // tasks
            session = SESSION if is_open else sessions[which]
            uid = os.getuid() if is_open else _uid(which)
            key = str(uuid.UUID(int=draw.getrandbits(128), version=4))
            task = Task(
                id=number,
                session=session,
                uid=uid,
                shots=200,
                qubits=QUBITS,
                key=key,
                submitted=finished - 9 * SECOND,
                since=finished - 9 * SECOND,
                status=TaskStatus.COMPLETED,
                started=finished - 5 * SECOND,
                finished=finished,
                shots_done=200,
                runs=1,
                qpu_time=5 * SECOND,
                counts=draw.choice(results),
                log=(
                    f"{clock(finished - 9 * SECOND)} queued: 200 shots on {QUBITS} qubits",
                    f"{clock(finished - 5 * SECOND)} run 1 started: 200 shots from shot 0",
                    f"{clock(finished)} run 1: 200 of 200 shots in 5.000 s",
                    f"{clock(finished)} completed in 1 run",
                ),
            )
            yield number, session, uid, 0, key, finished, msgspec.json.encode(task).decode()

    db.execute("BEGIN")
    db.executemany(
        "INSERT INTO tasks (id, session, uid, live, key, finished, record) VALUES (?, ?, ?, ?, ?, ?, ?)", records()
    )
    db.execute("COMMIT")
    (left,) = db.execute("SELECT count(*) FROM tasks").fetchone()
    assert left == tasks
    # What is written later is not to wait for what was written now.
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _uid(session: int) -> int:
    return 1000 + session % USERS


def _counts(draw: random.Random) -> dict[str, int]:
    states = draw.sample(range(2**QUBITS), BITSTRINGS)
    counts = {f"{state:0{QUBITS}b}": 1 for state in states}
    for _ in range(200 - BITSTRINGS):
        counts[f"{draw.choice(states):0{QUBITS}b}"] += 1
    return counts


# --- measuring ---


class Bench:
    """A site with a broker that is measured."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.submissions: list[float] = []
        self.trips: list[float] = []
        self.starts: list[float] = []
        self.filled = 0
        self.clients = contextlib.ExitStack()
        self.site.configure(
            qpu={"emulator": "echo", "overhead": 0, "shot_rate": 0, "qubits": QUBITS}, broker={"heartbeat": 2}
        )

    @property
    def path(self) -> Path:
        return self.site.room / "state" / "warden.db"

    def start(self) -> None:
        begun = time.perf_counter()
        self.site.start_broker()
        self.starts.append(time.perf_counter() - begun)

    def stop(self) -> None:
        self.clients.close()
        self.site.broker.terminate()
        self.site.broker.wait()

    def connect(self) -> None:
        self.client: Client = self.clients.enter_context(self.site.client())
        self.resource = QuantumResource(client=self.client, session=SESSION)

    def trip(self) -> float:
        """A task, from its submission to its result, in seconds."""
        begun = time.perf_counter()
        task = self.resource.task_start(SEQUENCE, 100)
        self.submissions.append(time.perf_counter() - begun)
        counts = self.resource.wait(task)
        taken = time.perf_counter() - begun
        assert counts == {"0" * QUBITS: 100}
        return taken

    def memory(self, what: str) -> float:
        """MB, of the broker: VmHWM is the most that it had, VmRSS what it has."""
        status = Path(f"/proc/{self.site.broker.pid}/status").read_text(encoding="ascii")
        (line,) = (line for line in status.splitlines() if line.startswith(what))
        return int(line.split()[1]) / 1024


SEQUENCE = sequence(QUBITS)


def round_trips(benches: list[Bench], rounds: int) -> None:
    for bench in benches:
        for _ in range(BLOCK):
            bench.trip()
        bench.submissions.clear()
    for turn in range(-(-rounds // BLOCK)):
        # A B, B A, A B, ...: neither is always the first after the other.
        for bench in benches if turn % 2 == 0 else reversed(benches):
            bench.trips += [bench.trip() for _ in range(BLOCK)]


def reading(bench: Bench, tasks: int) -> dict[str, float]:
    """Seconds for what people look at, as a client sees it: the slowest of some."""
    draw = random.Random(11)
    client = bench.client

    def numbers() -> list[Callable[[], object]]:
        return [functools.partial(client.task, draw.randint(1, tasks)) for _ in range(500)]

    def pages(**whose: object) -> list[Callable[[], object]]:
        starts = [None, *(draw.randint(1, tasks) for _ in range(19))]
        return [functools.partial(client.tasks, before=before, limit=PAGE, **whose) for before in starts]

    def look(calls: list[Callable[[], object]]) -> float:
        slowest = 0.0
        for call in calls:
            begun = time.perf_counter()
            with contextlib.suppress(NotFoundError):
                call()
            slowest = max(slowest, time.perf_counter() - begun)
        return slowest

    return {
        "look-up of a task": look(numbers()),
        f"page of {PAGE} tasks, everybody's": look(pages(everybody=True)),
        f"page of {PAGE} tasks, one user's": look(pages()),
        f"page of {PAGE} tasks, one session's": look(pages(session=SESSION)),
        "page of a session without tasks": look([lambda: client.tasks(session="none")] * 10),
        f"page of {PAGE} sessions": look([lambda: client.sessions(everybody=True, ended=True, limit=PAGE)] * 10),
        "list of open sessions": look([lambda: client.sessions(everybody=True)] * 10),
    }


def prune(bench: Bench, tasks: int) -> list[float]:
    """Have the broker forget for some time, with tasks coming in meanwhile; their round trips."""
    # So that two bites of 500 and a half are too old.
    keep = DAYS * DAY * (1 - 1250 / tasks) + time.time() * SECOND - bench.filled
    bench.site.configure(limits={"keep": f"{int(keep / SECOND)}s"})
    # A broker forgets nothing in its first hour; this one cannot wait.
    hasty = "from warden import cli, core; core._SETTLED = 0; cli.main()"
    bench.site.broker = bench.site.start([sys.executable, "-c", hasty, "serve", "--config", str(bench.site.file)])
    bench.connect()
    trips: list[float] = []
    wait_until(lambda: trips.append(bench.trip()) or gone(bench.client, 1), "the first bite is pruned")
    wait_until(lambda: trips.append(bench.trip()) or gone(bench.client, 1000), "the second bite is pruned")
    return trips


def gone(client: Client, task: int) -> bool:
    try:
        client.task(task)
    except NotFoundError:
        return True
    return False


def bites(path: Path, tasks: int) -> tuple[float, float]:
    """Seconds for a bite of pruning with its commit, median and longest, at the store itself."""
    store = Store(path)
    oldest = store._db.execute("SELECT min(finished) FROM tasks").fetchone()[0]  # noqa: SLF001
    taken = []
    for _ in range(min(20, tasks // 1000)):
        begun = time.perf_counter()
        store.begin()
        store.apply([Prune(oldest + DAYS * DAY // 2)])
        store.commit()
        taken.append(time.perf_counter() - begun)
    store.close()
    return statistics.median(taken), max(taken)


def measure(tasks: int, rounds: int) -> list[Row]:
    with Site() as one, Site() as other:
        empty, full = Bench(one), Bench(other)
        now = time.time_ns() // 1000
        begun = time.perf_counter()
        fill(full.path, tasks, now)
        full.filled = now
        size = full.path.stat().st_size / 2**20
        print(f"{tasks} tasks, {size:.0f} MB, written in {time.perf_counter() - begun:.0f} s", flush=True)
        benches = [empty, full]
        for _ in range(4):
            for bench in benches:
                bench.start()
                bench.stop()
        for bench in benches:
            bench.start()
            bench.site.start_worker(at_once=True)
            bench.connect()
        round_trips(benches, rounds)
        rows = [
            times("start", [b.starts for b in benches], statistics.median),
            times("submission, median", [b.submissions for b in benches], statistics.median),
            times("submission, p99", [b.submissions for b in benches], percentile),
            times("round trip, median", [b.trips for b in benches], statistics.median, bound=SLOWER),
            times("round trip, p99", [b.trips for b in benches], percentile),
        ]
        memory = [("after the round trips", [b.memory("VmRSS") for b in benches], [b.memory("VmHWM") for b in benches])]
        looks = [reading(bench, tasks) for bench in benches]
        rows += [times(f"{what}, slowest", [[look[what]] for look in looks], max) for what in looks[0]]
        memory += [("after reading", [b.memory("VmRSS") for b in benches], [b.memory("VmHWM") for b in benches])]
        for bench in benches:
            bench.stop()
        trips = prune(full, tasks)
        rows.append(Row("round trip while it forgets, p99", "", f"{1000 * percentile(trips):.2f} ms"))
        memory.append(("after a restart and pruning", [full.memory("VmRSS")], [full.memory("VmHWM")]))
        for when, resident, most in memory:
            rows += [megabytes(f"memory {when}", resident), megabytes(f"most memory {when}", most)]
        full.stop()
        typical, longest = bites(full.path, tasks)
        rows.append(Row("a bite of pruning, median", "", f"{1000 * typical:.2f} ms"))
        rows.append(Row("a bite of pruning, slowest", "", f"{1000 * longest:.2f} ms"))
    return rows


# --- the table ---


def percentile(values: list[float], part: float = 0.99) -> float:
    return sorted(values)[int(part * (len(values) - 1))]


def times(
    what: str, values: list[list[float]], kind: Callable[[list[float]], float], bound: float | None = None
) -> Row:
    empty, full = map(kind, values)
    ratio = full / empty
    return Row(
        what,
        f"{1000 * empty:.2f} ms",
        f"{1000 * full:.2f} ms",
        f"{ratio:.2f}",
        "" if bound is None else f"<= {bound}",
        bound is not None and ratio > bound,
    )


def megabytes(what: str, values: list[float]) -> Row:
    empty, full = values if len(values) == 2 else (None, values[0])
    return Row(
        what,
        "" if empty is None else f"{empty:.1f} MB",
        f"{full:.1f} MB",
        "" if empty is None else f"{full / empty:.2f}",
        f"< {MEGABYTES:g} MB",
        full >= MEGABYTES,
    )


def show(rows: list[Row], tasks: int) -> None:
    lines = [("", "empty store", f"{tasks} tasks", "ratio", "bound", "")]
    lines += [(*row[:5], "BROKEN" if row.broken else "") for row in rows]
    widths = [max(len(line[column]) for line in lines) for column in range(6)]
    for number, line in enumerate(lines):
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        print("  ".join(cells).rstrip())
        if number == 0:
            print("-" * (sum(widths[:5]) + 8))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=1_000_000, help="finished tasks in the large store")
    parser.add_argument("--rounds", type=int, default=600, help="round trips that are measured at each broker")
    options = parser.parse_args()
    if options.tasks < 5 * PAGE:
        parser.error(f"fewer than {5 * PAGE} tasks are no large store")
    try:
        rows = measure(options.tasks, options.rounds)
    except WardenError as error:
        print(f"growth: {error.text}", file=sys.stderr)
        return 1
    show(rows, options.tasks)
    return int(any(row.broken for row in rows))


if __name__ == "__main__":
    sys.exit(main())
