"""What a worker says and does, without its socket, its clock and its emulator. Pure.

The broker's messages, what the emulator computed, and times go in; what is to be done comes out. A run is emulated
while the QPU prepares for it and loads the register, and its shots are then delivered at the QPU's shot rate. A calibration
is a run without shots, which ends with what it found. A finished result is kept and offered with each beat until the broker
says that it has it, through any number of broker restarts.

All times are of one clock that nobody sets: deadlines come as durations.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping

import msgspec

from warden import bitstrings, orders, wire
from warden.actions import Abandon, Action, Begin, Calibrate, Failure, Note, Reconnect, Send
from warden.examiner import Examiner
from warden.model import SECOND, Calibration, Micros, brief
from warden.qpu.drift import Drift, Findings
from warden.qpu.timing import Pace, Timing

# After so many beats without a word from the broker, and each time again, we look whether it is to be had otherwise.
_SILENT_BEATS = 5
_STEADY = Drift()
_LATE = "it did not end in time: its window is too short, or the worker's machine too busy"


class _Work(msgspec.Struct):
    """The run at hand: first it is emulated (`shots` None), then its shots are delivered one after the other.

    They begin when the emulation and the QPU's own preparation are both over.
    """

    run: orders.StartRun
    started: Micros
    emulated: bool = False
    shots: list[str] | None = None
    pace: Pace | None = None
    shooting_since: Micros = 0
    facts: Mapping[str, orders.Fact] = {}

    @property
    def deadline(self) -> Micros | None:
        return _deadline(self.run)


class _Scans(msgspec.Struct, frozen=True):
    """The calibration at hand."""

    order: orders.StartCalibration
    started: Micros

    @property
    def deadline(self) -> Micros | None:
        return _deadline(self.order)


class Runner:
    """A worker's half of the protocol: `start` once, then `hear`, `computed`, `calibrated`, `checked` and `tick` in time's order.

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
        facts: Mapping[str, orders.Fact] = {},
        drift: Drift = _STEADY,
    ) -> None:
        """`heartbeat` holds until the broker has said how often it wants to hear from us.

        `facts`: what is told of the device with each result.
        """
        self._instance = instance
        self._facts = facts
        self._device_json, self._device_name, self._qubits = device_json, device_name, qubits
        self._timing, self._drift = timing, drift
        self._interval = heartbeat
        self._next_beat: Micros = 0
        self._welcome = False
        self._said = ""
        self._unheard = 0
        self._work: _Work | None = None
        self._scans: _Scans | None = None
        self._result: orders.RunFinished | orders.CalibrationFinished | None = None
        # What the broker's clock shows is ahead of ours by so much, and the calibration that is in force.
        self._ahead: Micros | None = None
        self._calibration: Calibration | None = None
        self._measured: Calibration | None = None
        self._examiner = Examiner(instance)

    @property
    def token(self) -> str:
        """The run or calibration that is at work, or whose result is kept; empty without one."""
        if self._result is not None:
            return self._result.token
        if self._scans is not None:
            return self._scans.order.token
        return "" if self._work is None else self._work.run.token

    def next_wakeup(self, now: Micros) -> Micros:
        """When `tick` is due, `now` if it is overdue."""
        times = [self._next_beat, *self._examiner.times()]
        if self._work is not None:
            times += [time for time in (self._work.deadline, self._ready_at(self._work)) if time is not None]
        if self._scans is not None and self._scans.deadline is not None:
            times.append(self._scans.deadline)
        return max(now, min(times))

    def start(self, now: Micros) -> list[Action]:
        """Say hello."""
        self._next_beat = now
        return self.tick(now)

    def tick(self, now: Micros) -> list[Action]:
        """Keep the run's times, and show that we live."""
        return [*self._deliver(now), *self._out_of_time(now), *self._examiner.tick(now), *self._show_life(now)]

    def hear(self, message: wire.Message, now: Micros) -> list[Action]:
        """Take in what the broker says."""
        self._unheard = 0
        match message:
            case orders.StartRun() | orders.StartCalibration() as order:
                return self._ordered(order, now)
            case orders.StopRun(token=token):
                return [*self._stop(token, now), *self._examiner.stop(token)]
            case orders.CheckSequence() as check:
                return self._examiner.begin(check, now)
            case orders.Welcome(interval=interval, calibration=calibration):
                # It says so again when another calibration is in force.
                news: list[Action] = [] if self._welcome else [Note("the broker takes this worker")]
                self._interval, self._welcome, self._said = interval, True, ""
                self._calibration = calibration
                return [*news, *self._offer()]
            case orders.Unwelcome(text=text):
                news = [] if text == self._said else [Note(f"the broker says: {text}")]
                if self._welcome:
                    # It has forgotten us: a hello need not wait for the next beat.
                    self._next_beat = now
                self._welcome, self._said = False, text
                return news
            case orders.BrokerBeat(time=time) if time:
                self._ahead = time - now
            case orders.ForgetRun(token=token) if self._result is not None and self._result.token == token:
                self._result = None
                # The broker has it now, so it is in force.
                self._calibration, self._measured = self._measured or self._calibration, None
        return []

    def computed(
        self, token: str, outcome: list[str] | Failure, now: Micros, facts: Mapping[str, orders.Fact] = {}
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

    def calibrated(self, token: str, findings: Findings, now: Micros) -> list[Action]:
        """Take in what this calibration has found, or why nothing."""
        scans = self._scans
        if scans is None or scans.order.token != token:
            return []
        if scans.deadline is not None and now >= scans.deadline:
            findings = Findings(error=_LATE)
        return self._calibrated(scans, findings, now)

    def checked(self, token: str, outcome: Micros | Failure) -> list[Action]:
        """Take in what the emulator says of this sequence: what it needs before its first shot, or what is wrong with it."""
        return self._examiner.checked(token, outcome)

    # --- the broker ---

    def _show_life(self, now: Micros) -> list[Action]:
        if now < self._next_beat:
            return []
        self._next_beat = now + self._interval
        self._unheard += 1
        again: list[Action] = [] if self._unheard % _SILENT_BEATS else [Reconnect()]
        if self._welcome:
            beat = orders.WorkerBeat(instance=self._instance, clock=now, token=self.token, quality=self._quality(now))
            return [*again, Send(beat), *self._offer()]
        hello = orders.WorkerHello(
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

    def _quality(self, now: Micros) -> float | None:
        """Unknown while we do not know the broker's time, by which the QPU drifts; and of no interest without noise."""
        if self._drift.off or self._ahead is None:
            return None
        return self._drift.quality(now + self._ahead, self._calibration)

    def _offer(self) -> list[Action]:
        return [] if self._result is None else [Send(self._result)]

    # --- the run ---

    def _ordered(self, order: orders.StartRun | orders.StartCalibration, now: Micros) -> list[Action]:
        if order.token == self.token or self._is_old(order):
            return []
        return self._begin(order, now) if isinstance(order, orders.StartRun) else self._calibrate(order, now)

    def _is_old(self, order: orders.StartRun | orders.StartCalibration) -> bool:
        """Whether it was ordered before the one that is at work, and came late or twice."""
        newest = self._work.run if self._work is not None else self._scans.order if self._scans is not None else None
        return newest is not None and order.issued < newest.issued

    def _stop(self, token: str, now: Micros) -> list[Action]:
        if self._work is not None and self._work.run.token == token:
            return self._finish(self._work, now)
        if self._scans is not None and self._scans.order.token == token:
            return self._calibrated(self._scans, Findings(error="it was stopped"), now, abandon=True)
        return []

    def _give_up(self) -> list[Action]:
        """A broker that orders something new has given up what we have."""
        given_up = [*self._abandoned(self._work), *([] if self._scans is None else [Abandon()])]
        self._work = self._scans = self._result = self._measured = None
        return given_up

    def _begin(self, run: orders.StartRun, now: Micros) -> list[Action]:
        given_up = self._give_up()
        work = self._work = _Work(run, now)
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
        self._result = orders.RunFinished(
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

    # --- the calibration ---

    def _calibrate(self, order: orders.StartCalibration, now: Micros) -> list[Action]:
        given_up = self._give_up()
        scans = self._scans = _Scans(order, now)
        news: list[Action] = [*given_up, Note(f"calibration {order.number}")]
        if scans.deadline is not None and now >= scans.deadline:
            return [*news, *self._calibrated(scans, Findings(error=_LATE), now)]
        return [*news, Calibrate(order)]

    def _out_of_time(self, now: Micros) -> list[Action]:
        scans = self._scans
        if scans is None or scans.deadline is None or now < scans.deadline:
            return []
        return self._calibrated(scans, Findings(error=_LATE), now, abandon=True)

    def _calibrated(self, scans: _Scans, found: Findings, now: Micros, *, abandon: bool = False) -> list[Action]:
        """End the calibration with what was found, and offer it."""
        order, took = scans.order, now - scans.started
        self._scans = None
        self._result = orders.CalibrationFinished(
            instance=self._instance,
            token=order.token,
            time=took,
            measured=found.measured,
            left=found.left,
            before=found.before,
            after=found.after,
            log=found.log,
            error=found.error,
        )
        self._measured = None if found.error else Calibration(id=order.number, time=order.at + took, left=found.left)
        lines = found.log if not found.error else (*found.log, found.error)
        return [
            *([Abandon()] if abandon else []),
            *(Note(f"calibration {order.number}: {line}") for line in lines),
            *self._offer(),
        ]


def _deadline(order: orders.StartRun | orders.StartCalibration) -> Micros | None:
    """Counted from when the order was made: it may have been under way, or we stopped, for longer than it has."""
    return None if order.limit is None else order.issued + order.limit


def _told(work: _Work, done: int, now: Micros) -> str:
    """How the run went, for the log of its task."""
    ready = "it was not ready to shoot"
    if work.shots is not None and now >= work.shooting_since:
        ready = f"ready after {(work.shooting_since - work.started) / SECOND:.3f} s"
        ready += f", shooting for {(now - work.shooting_since) / SECOND:.3f} s"
    if done == work.run.shots:
        return ready
    met = work.deadline is not None and now >= work.deadline
    return f"{ready}, {'ended at its limit' if met else 'stopped'}"
