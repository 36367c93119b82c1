"""What a worker says and does, without its socket, its clock and its emulator. Pure.

The broker's messages, what the emulator computed, and times go in; what is to be done comes out. A run is emulated
while the QPU prepares for it and loads the register, and its shots are then delivered at the QPU's shot rate. A finished
result is kept and offered with each beat until the broker says that it has it, through any number of broker restarts.

All times are of one clock that nobody sets: deadlines come as durations.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Literal

import msgspec

from warden import bitstrings, wire
from warden.model import SECOND, Micros, brief
from warden.qpu.timing import Pace, Timing

# After so many beats without a word from the broker, and each time again, we look whether it is to be had otherwise.
_SILENT_BEATS = 5


class Send(msgspec.Struct, frozen=True):
    """Say this to the broker; it may be lost."""

    body: wire.Message


class Begin(msgspec.Struct, frozen=True):
    """Emulate this run, and tell `Runner.computed` what came of it."""

    run: wire.StartRun


class Abandon(msgspec.Struct, frozen=True):
    """End the emulation that was begun: nobody wants to know any more what it computes."""


class Reconnect(msgspec.Struct, frozen=True):
    """Make another connection: the broker may have another key, or be elsewhere."""


class Note(msgspec.Struct, frozen=True):
    """Something that an operator may want to read later."""

    text: str


Action = Send | Begin | Abandon | Reconnect | Note


class Failure(msgspec.Struct, frozen=True):
    """Why an emulation has no shots, and whether the task or the device is to blame."""

    text: str
    fault: Literal["task", "device"]


class _Work(msgspec.Struct):
    """The run at hand: first it is emulated (`shots` None), then its shots are delivered one after the other.

    They begin when the emulation and the QPU's own preparation are both over.
    """

    run: wire.StartRun
    started: Micros
    emulated: bool = False
    shots: list[str] | None = None
    pace: Pace | None = None
    shooting_since: Micros = 0
    facts: Mapping[str, wire.Fact] = {}

    @property
    def deadline(self) -> Micros | None:
        """Counted from when the order was made: it may have been under way, or we stopped, for longer than it has."""
        return None if self.run.limit is None else self.run.issued + self.run.limit


class Runner:
    """A worker's half of the protocol: `start` once, then `hear`, `computed` and `tick` in the order of their times.

    Each returns what is to be done, in order, before the next one is called. `tick` is due when `next_wakeup` has come,
    which each of the others may change.
    """

    def __init__(
        self,
        *,
        instance: str,
        device_json: str,
        device_name: str,
        qubits: int,
        timing: Timing,
        heartbeat: Micros,
        facts: Mapping[str, wire.Fact] = {},
    ) -> None:
        """`heartbeat` holds until the broker has said how often it wants to hear from us.

        `facts`: what is told of the device with each result.
        """
        self._instance = instance
        self._facts = facts
        self._device_json, self._device_name, self._qubits = device_json, device_name, qubits
        self._timing = timing
        self._interval = heartbeat
        self._next_beat: Micros = 0
        self._welcome = False
        self._said = ""
        self._unheard = 0
        self._work: _Work | None = None
        self._result: wire.RunFinished | None = None

    @property
    def token(self) -> str:
        """The run that is at work, or whose result is kept; empty without one."""
        if self._result is not None:
            return self._result.token
        return "" if self._work is None else self._work.run.token

    def next_wakeup(self, now: Micros) -> Micros:
        """When `tick` is due, `now` if it is overdue."""
        times = [self._next_beat]
        if self._work is not None:
            times += [time for time in (self._work.deadline, self._ready_at(self._work)) if time is not None]
        return max(now, min(times))

    def start(self, now: Micros) -> list[Action]:
        """Say hello."""
        self._next_beat = now
        return self.tick(now)

    def tick(self, now: Micros) -> list[Action]:
        """Keep the run's times, and show that we live."""
        return [*self._deliver(now), *self._show_life(now)]

    def hear(self, message: wire.Message, now: Micros) -> list[Action]:
        """Take in what the broker says."""
        self._unheard = 0
        match message:
            case wire.Welcome(interval=interval):
                self._interval, self._welcome, self._said = interval, True, ""
                return [Note("the broker takes this worker"), *self._offer()]
            case wire.Unwelcome(text=text):
                news: list[Action] = [] if text == self._said else [Note(f"the broker says: {text}")]
                if self._welcome:
                    # It has forgotten us: a hello need not wait for the next beat.
                    self._next_beat = now
                self._welcome, self._said = False, text
                return news
            case wire.StartRun(token=token) as run if token != self.token and not self._is_old(run):
                return self._begin(run, now)
            case wire.StopRun(token=token) if self._work is not None and self._work.run.token == token:
                return self._finish(self._work, now)
            case wire.ForgetRun(token=token) if self._result is not None and self._result.token == token:
                self._result = None
        return []

    def computed(
        self, token: str, outcome: list[str] | Failure, now: Micros, facts: Mapping[str, wire.Fact] = {}
    ) -> list[Action]:
        """Take in what the emulation of this run has come to: all its shots in order, or why there are none.

        `facts`: what is told of its sequence with the result.
        """
        work = self._work
        if work is None or work.run.token != token or work.emulated:
            return []
        work.emulated = True
        if work.deadline is not None and now >= work.deadline:
            return self._finish(work, now)
        if isinstance(outcome, Failure):
            return self._finish(work, now, outcome)
        work.shots, work.pace, work.facts = outcome, self._timing.pace(len(outcome[0]) if outcome else 0), facts
        work.shooting_since = max(now, work.started + work.pace.setup)
        return self._deliver(now)

    # --- the broker ---

    def _show_life(self, now: Micros) -> list[Action]:
        if now < self._next_beat:
            return []
        self._next_beat = now + self._interval
        self._unheard += 1
        again: list[Action] = [] if self._unheard % _SILENT_BEATS else [Reconnect()]
        if self._welcome:
            beat = wire.WorkerBeat(instance=self._instance, clock=now, token=self.token)
            return [*again, Send(beat), *self._offer()]
        hello = wire.WorkerHello(
            instance=self._instance,
            device=self._device_json,
            device_name=self._device_name,
            qubits=self._qubits,
            clock=now,
            token=self.token,
        )
        if not again:
            return [Send(hello)]
        return [
            *again,
            Send(hello),
            Note(
                "the broker does not take this worker: is it running, is its address right, does it know this worker's "
                "key (keys/workers/), and are both of one version?"
            ),
        ]

    def _offer(self) -> list[Action]:
        return [] if self._result is None else [Send(self._result)]

    # --- the run ---

    def _is_old(self, run: wire.StartRun) -> bool:
        """Whether it was ordered before the one that is at work, and came late or twice."""
        return self._work is not None and run.issued < self._work.run.issued

    def _begin(self, run: wire.StartRun, now: Micros) -> list[Action]:
        # A broker that starts another run has given up the one that we have.
        given_up = self._abandoned(self._work)
        work = _Work(run, now)
        self._work, self._result = work, None
        news: list[Action] = [*given_up, Note(f"run {brief(run.token)}: task {run.task}, {run.shots} shots")]
        if work.deadline is not None and now >= work.deadline:
            work.emulated = True
            return [*news, *self._finish(work, now)]
        return [*news, Begin(run)]

    def _ready_at(self, work: _Work) -> Micros | None:
        if work.pace is None:
            return None
        return work.shooting_since + work.pace.shooting(work.run.shots)

    def _deliver(self, now: Micros) -> list[Action]:
        """End the run when its shots are done, or its time is up."""
        work = self._work
        if work is None:
            return []
        ends = [time for time in (work.deadline, self._ready_at(work)) if time is not None]
        return self._finish(work, now) if ends and now >= min(ends) else []

    def _finish(self, work: _Work, now: Micros, failure: Failure | None = None) -> list[Action]:
        """End the run with the shots that are done by now, and offer the result."""
        done = [] if work.pace is None else (work.shots or [])[: work.pace.shots_done(now - work.shooting_since)]
        run = work.run
        self._work = None
        self._result = wire.RunFinished(
            instance=self._instance,
            token=run.token,
            shots=len(done),
            counts=dict(collections.Counter(done)),
            time=now - work.started,
            error="" if failure is None else failure.text,
            fault="" if failure is None else failure.fault,
            bitstrings=bitstrings.pack(done) if run.bitstrings else b"",
            metadata={**self._facts, **work.facts} if done else {},
            log=() if failure is not None else (_told(work, len(done), now),),
        )
        # What Pulser says of a sequence may quote it: that is for its owner.
        outcome = f"{len(done)} of {run.shots} shots done{' (failed)' if failure is not None else ''}"
        return [*self._abandoned(work), Note(f"run {brief(run.token)}: {outcome}"), *self._offer()]

    @staticmethod
    def _abandoned(work: _Work | None) -> list[Action]:
        return [] if work is None or work.emulated else [Abandon()]


def _told(work: _Work, done: int, now: Micros) -> str:
    """How the run went, for the log of its task."""
    ready = "it was not ready to shoot"
    if work.shots is not None:
        ready = f"ready after {(work.shooting_since - work.started) / SECOND:.3f} s"
        ready += f", shooting for {(now - work.shooting_since) / SECOND:.3f} s"
    if done == work.run.shots:
        return ready
    met = work.deadline is not None and now >= work.deadline
    return f"{ready}, {'ended at its limit' if met else 'stopped'}"
