"""Frames that nobody means, thrown at the broker's edge by the million: `python tests/fuzz/fuzz_edge.py 1000000 --seed 7`.

Each frame is made of one that is meant, by chance from a seed: bits are turned, parts cut out, doubled, or put together with
those of others. The real decoder, core and store take them in as those of strangers, of a user and of a worker that was not
taken, in turns, as a broker does. Beside them two who mean it, a user with a task and the QPU's worker, are served all the
time, every frame has one answer, and the process does not grow.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import random
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

# As a program it has but its own folder.
sys.path.append(str(Path(__file__).parents[1] / "unit"))

from warden_machine import ALICE, BOB, DEVICE, ROOT, T0, sequence
from warden_machine import SETTINGS as USUAL

from warden import engine, frames, orders, wire
from warden.authority import Members
from warden.calibration import Calendar
from warden.engine import Engine
from warden.events import Asked, Door, Started, Tick
from warden.model import SECOND, State, TaskStatus, WardenError
from warden.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from warden.events import Event

# Frames of a turn, and turns between two looks at those who mean it.
TURN, LOOK = 50, 20
# More than that, in megabytes, is no noise of the allocator's.
GROWTH = 10

# Of everybody's tests, but for a lease that outlives them all.
SETTINGS = msgspec.structs.replace(
    USUAL,
    places=4,
    lease=10**6 * SECOND,
    max_sessions_per_user=4,
    keep=3600 * SECOND,
    members=Members(),
)


class BrokenError(AssertionError):
    """The edge has broken a promise; the text has the frame."""


def meant(session: str) -> tuple[list[bytes], list[bytes]]:
    """Frames that make sense, of clients and of workers."""
    requests: list[wire.Message] = [
        wire.Hello(credential="MUNGE:AwQDAAC:"),
        wire.GetAvailability(),
        wire.GetPlan(count=5),
        wire.GetHistory(),
        wire.GetTarget(),
        wire.Acquire(job="7", uid=BOB, host="node1", start="s", queue="all.q", project="p"),
        wire.Release(session=session),
        wire.Renew(host="node1", jobs=("7", "8.1"), suspended=("7",), candidate=True, time=T0, trouble=("none",)),
        wire.ListHosts(),
        wire.TaskStart(session=session, sequence=sequence(), shots=5, key="k", within=SECOND),
        wire.Part(upload="u", offset=0, data=sequence().encode()),
        wire.GetTask(task=1, wait=SECOND),
        wire.TaskStop(task=1),
        wire.ListTasks(everybody=True, session=session, before=5, limit=3),
        wire.ListSessions(everybody=True, ended=True, job="7"),
        wire.AddWindow(kind="maintenance", start=T0, duration=SECOND, reason="r"),
        wire.MoveWindow(window=1, start=T0),
        wire.CancelWindow(window=1),
        wire.Resume(),
    ]
    reports: list[wire.Message] = [
        orders.WorkerHello(instance="w2", device="{}", device_name=DEVICE, qubits=8, clock=5, token="t"),
        orders.WorkerBeat(instance="w2", clock=5, token="t"),
        orders.RunFinished(instance="w2", token="t", shots=2, counts={"01": 2}, time=SECOND, error="e", fault="task"),
        orders.SequenceChecked(instance="w2", token="id-9", error="e", fault="device", preparation=5),
    ]
    return [frames.pack_request(n, body) for n, body in enumerate(requests)], [frames.pack(body) for body in reports]


def spoilt(frames: list[bytes], chance: random.Random) -> bytes:
    """A frame that is like one of these."""
    frame = bytearray(chance.choice(frames))
    for _ in range(chance.choice((0, 1, 1, 2, 5))):
        at = chance.randrange(len(frame) + 1)
        match chance.randrange(7):
            case 0 if at < len(frame):
                frame[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(frame):
                frame[at] = chance.choice((0x00, 0x7F, 0x80, 0xC0, 0xC1, 0xC6, 0xCF, 0xD3, 0xDB, 0xDD, 0xDF, 0xFF))
            case 2:
                del frame[at : at + chance.randrange(1, 20)]
            case 3:
                frame[at:at] = chance.randbytes(chance.randrange(1, 12))
            case 4:
                frame[at:at] = frame[at : at + chance.randrange(1, 40)] * chance.choice((1, 2, 50))
            case 5:
                other = chance.choice(frames)
                frame[at:] = other[chance.randrange(len(other)) :]
            case 6:
                frame[at:at] = b"\x91" * chance.choice((1, 10, 2000))
    return bytes(frame)


class Edge:
    """A broker's engine with one user and one worker who mean what they say."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)
        self._now = T0
        self._ids = itertools.count(1)
        self._store = Store(":memory:")
        self._engine = Engine(SETTINGS, Calendar(), self._store, lambda: f"id-{next(self._ids)}")
        self._numbers = itertools.count(1)
        self._run = ""
        self._turn([Started(), Tick()])
        self._work()
        session = self._ask(wire.Acquire(job="1", uid=ALICE, host="node1", start="s"), ROOT)["id"]
        self._mine = str(session)
        foreign = self._ask(wire.Acquire(job="2", uid=BOB, host="node1", start="s"), ROOT)["id"]
        self._requests, self._reports = meant(str(foreign))

    def close(self) -> None:
        self._store.close()

    def throw(self, frames: int) -> Iterator[int]:
        """So many frames, in turns; yields how many there were after each look at those who mean it."""
        thrown = 0
        while thrown < frames:
            for _ in range(LOOK):
                self._now += SECOND // 100
                self._turn([*self._frames(), Tick()])
                thrown += TURN
            self._look()
            yield thrown

    def _frames(self) -> list[Event]:
        events: list[Event] = []
        for number in range(TURN):
            if self._chance.random() < 0.2:
                events.append(engine.read_report(b"stranger", spoilt(self._reports, self._chance)))
                continue
            frame = spoilt(self._requests, self._chance)
            try:
                asked = engine.read_request(f"p{number}".encode(), self._chance.choice((None, BOB)), frame)
            except WardenError as error:
                frames.unpack_answer(engine.refusal(frame, error))
                continue
            except Exception as error:
                raise BrokenError(f"{error!r} by the frame {frame!r}") from error
            if not isinstance(asked.body, wire.Hello):
                events.append(asked)
        return events

    def _turn(self, events: list[Event]) -> list[engine.Outgoing]:
        sent = self._engine.turn(events, self._now)
        if self._engine.failing:
            raise BrokenError(f"the turn failed: {events!r}")
        checks = []
        for outgoing in sent:
            if outgoing.door is Door.CLIENTS:
                frames.unpack_answer(outgoing.frame)
                continue
            told = frames.unpack(outgoing.frame, orders.ToWorker)
            if outgoing.peer == b"w1" and isinstance(told, orders.StartRun):
                self._run = told.token
            elif outgoing.peer == b"w1" and isinstance(told, orders.CheckSequence):
                checks.append(frames.pack(orders.SequenceChecked(instance="w1", token=told.token)))
        # It says at once that it can run them, and may be asked about the next one for it.
        return sent + [more for check in checks for more in self._turn([engine.read_report(b"w1", check), Tick()])]

    def _ask(self, body: wire.Message, uid: int) -> dict[str, object]:
        asked = Asked(b"good", next(self._numbers), uid, body)
        answers = [frames.unpack_answer(one.frame) for one in self._turn([asked, Tick()]) if one.peer == b"good"]
        if len(answers) != 1 or answers[0][0] != asked.correlation or isinstance(answers[0][1], Exception):
            raise BrokenError(f"{body} was answered with {answers}")
        found: dict[str, object] = answers[0][1]
        return found

    def _work(self) -> None:
        clock = self._now - T0
        hello = orders.WorkerHello(
            instance="w1", device="{}", device_name=DEVICE, qubits=8, clock=clock, token=self._run
        )
        self._turn([engine.read_report(b"w1", frames.pack(hello)), Tick()])

    def _look(self) -> None:
        """Alice has a task done, whatever the others throw."""
        self._work()
        task = self._ask(wire.TaskStart(session=self._mine, sequence=sequence(), shots=4, key=str(self._now)), ALICE)
        for _ in range(100):
            self._now += SECOND
            beat = orders.WorkerBeat(instance="w1", clock=self._now - T0, token=self._run)
            done = orders.RunFinished(instance="w1", token=self._run, shots=4, counts={"01": 4}, time=SECOND)
            self._turn([engine.read_report(b"w1", frames.pack(body)) for body in (beat, done)] + [Tick()])
            found = self._ask(wire.GetTask(task=int(str(task["id"]))), ALICE)
            if found["status"] == TaskStatus.COMPLETED:
                break
        else:
            raise BrokenError(f"her task does not come to an end: {found}")
        state = self._ask(wire.GetAvailability(), ALICE)["state"]
        if state != State.READY:
            raise BrokenError(f"the QPU is {state}")


class _Bugs(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info is not None and record.exc_info[1] is not None:
            raise BrokenError(f"{record.getMessage()}: {record.exc_info[1]!r}") from record.exc_info[1]


@contextlib.contextmanager
def edge(seed: int) -> Iterator[Edge]:
    """Whose log is silent, but for what is a bug of the broker's."""
    logger, bugs = logging.getLogger("warden"), _Bugs(logging.ERROR)
    before = logger.propagate
    logger.propagate = False
    logger.addHandler(bugs)
    made = Edge(seed)
    try:
        yield made
    finally:
        made.close()
        logger.removeHandler(bugs)
        logger.propagate = before


def memory() -> int:
    """Megabytes that the process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("frames", type=int)
    parser.add_argument("--seed", type=int, default=1)
    wanted = parser.parse_args()
    begun, before = time.monotonic(), 0
    with edge(wanted.seed) as made:
        for thrown in made.throw(wanted.frames):
            before = before or memory()
            if sys.stdout.isatty():
                sys.stdout.write(f"\r{thrown} frames, {time.monotonic() - begun:.0f} s, {memory()} MB ")
                sys.stdout.flush()
    grown = memory() - before
    sys.stdout.write(
        f"\r{thrown} frames in {time.monotonic() - begun:.0f} s: nothing broke, the process grew by {grown} MB\n"
    )


if __name__ == "__main__":
    main()
