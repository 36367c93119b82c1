"""Whatever happens, in whatever order: each request for a task has one answer, in time, and the worker one question."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st
from warden_machine import ALICE, BOB, CAROL, OPERATOR, Machine, Qpu
from warden_submissions import LIMIT, submit

from warden import orders, wire
from warden.checks import PATIENCE
from warden.events import Answer, Asked, Refuse, Tell
from warden.model import SECOND

if TYPE_CHECKING:
    from warden.events import Event


class Watched(Machine):
    """Counts the answers, and sees that the worker is asked one thing at a time."""

    def __init__(self, **settings: Any) -> None:
        self.open: dict[int, int] = {}
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.asking: dict[bytes, orders.CheckSequence] = {}
        self.known: dict[bytes, set[str]] = collections.defaultdict(set)
        super().__init__(**settings)

    def send(self, event: Event) -> list[Any]:
        if isinstance(event, Asked) and isinstance(event.body, wire.TaskStart):
            self.open[event.correlation] = self.now + PATIENCE
        effects = super().send(event)
        for effect in effects:
            match effect:
                case Answer(to=asked) | Refuse(to=asked) if isinstance(asked.body, wire.TaskStart):
                    assert asked.correlation in self.open, "it has had its answer"
                    assert self.now <= self.open.pop(asked.correlation), "its answer came late"
                    self.outcomes[type(effect).__name__] += 1
                case Tell(peer=peer, body=orders.CheckSequence() as check):
                    assert peer not in self.asking, "the worker is at another sequence"
                    assert check.sequence not in self.known[peer], "it has said what it thinks of this sequence"
                    self.asking[peer] = check
                case Tell(peer=peer, body=orders.StopRun(token=token)) if peer in self.asking:
                    if self.asking[peer].token == token:
                        del self.asking[peer]
        return effects

    def step_clock(self, seconds: float) -> None:
        by = round(seconds * SECOND)
        self.open = {correlation: until + by for correlation, until in self.open.items()}
        super().step_clock(seconds)


MOVES = st.one_of(
    st.tuples(st.just("submit"), st.integers(0, 2), st.integers(0, 7), st.integers(0, 3)),
    st.tuples(st.sampled_from(["good", "bad", "could not", "stale"]), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.sampled_from(["die", "connect", "reconnect", "other"]), st.just(0), st.just(0), st.just(0)),
    st.tuples(st.just("wait"), st.integers(1, 100), st.just(0), st.just(0)),
    st.tuples(st.just("step"), st.integers(-500, 500), st.just(0), st.just(0)),
    st.tuples(st.just("release"), st.integers(0, 2), st.just(0), st.just(0)),
)


@settings(max_examples=200)
@given(st.lists(MOVES, min_size=5, max_size=60))
def test_each_request_has_one_answer_in_time_whatever_the_worker_does(  # noqa: C901, PLR0912 - the table of all that may happen
    moves: list[tuple[str, int, int, int]],
) -> None:
    machine = Watched(places=50, max_queued_per_user=7)
    qpu = Qpu(machine)
    qpu.prompt = False
    lives = 1
    sessions = [machine.session(uid, str(uid)) for uid in (ALICE, BOB, CAROL)]
    for move, one, two, three in moves:
        asking = machine.asking.get(qpu.peer)
        alive = qpu in machine.qpus
        match move:
            case "submit":
                submit(machine, sessions[one], f"{three}", two)
            case "good" | "bad" | "could not" if asking is not None and alive:
                del machine.asking[qpu.peer]
                if move != "could not":
                    machine.known[qpu.peer].add(asking.sequence)
                fault = {"bad": "task", "could not": "device"}.get(move, "")
                qpu.check(asking.token, error=move if fault else "", fault=fault)
            case "stale" if alive:
                qpu.check("id-0", error="no")
            case "die" if alive:
                qpu.die()
            case "connect" if not alive:
                machine.qpus.append(qpu)
                qpu.hello()
            case "reconnect" if alive:
                known = machine.known.pop(qpu.peer, set())
                lives += 1
                qpu.peer = f"again{lives}".encode()
                machine.known[qpu.peer] = known
                qpu.hello()
            case "other" if not alive:
                machine.later(7)
                lives += 1
                qpu = Qpu(machine, f"w{lives}")
                qpu.prompt = False
            case "wait":
                machine.later(one / 10)
            case "step":
                machine.step_clock(one)
            case "release":
                machine.ask(wire.Release(session=sessions[one].id), OPERATOR)
                if machine.status() == "ready":
                    sessions[one] = machine.session(sessions[one].uid, f"{sessions[one].uid}.{len(machine.answers)}")
            case _:
                pass
        if qpu not in machine.qpus and machine.core._dispatcher.worker is None:
            machine.asking.pop(qpu.peer, None)
    machine.later(LIMIT)
    assert machine.open == {}
    checks_ = machine.core._checks
    assert (len(checks_), checks_._sizes, checks_._lines, checks_._wanted) == (0, {}, {}, {})
