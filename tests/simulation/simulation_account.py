"""An account of the broker's promises, kept from what is committed: what may follow what, whatever the core thinks.

It sees the effects of each event when they are applied, and the turn's commit or its failure.
"""

from __future__ import annotations

import collections
import dataclasses
from typing import TYPE_CHECKING, Any

import msgspec
from simulation_judge import Judge
from simulation_windows import next_opening
from simulation_world import ViolationError, bits_of, in_order

from warden import bitstrings, wire
from warden.events import Answer, Calibrating, Commission, Keep, Refuse, Usage
from warden.ledger import STARTS
from warden.model import SECOND, Calibration, Session, Task, TaskStatus

if TYPE_CHECKING:
    from simulation_qpu import Qpu
    from simulation_scenario import Scenario
    from simulation_world import World

    from warden.events import Effect
    from warden.model import Micros, Run, Window

_NEXT = {
    TaskStatus.QUEUED: {TaskStatus.QUEUED, *TaskStatus} - {TaskStatus.COMPLETED},
    TaskStatus.RUNNING: set(TaskStatus),
}


@dataclasses.dataclass
class Books:
    """What is kept, as the effects tell it."""

    tasks: dict[int, Task] = dataclasses.field(default_factory=dict)
    sessions: dict[str, Session] = dataclasses.field(default_factory=dict)
    live: dict[int, Task] = dataclasses.field(default_factory=dict)
    open: dict[str, Session] = dataclasses.field(default_factory=dict)
    keys: dict[tuple[str, str], int] = dataclasses.field(default_factory=dict)
    usage: dict[tuple[str, int], Any] = dataclasses.field(default_factory=dict)
    windows: tuple[Window, ...] = ()
    tokens: dict[str, int] = dataclasses.field(default_factory=dict)
    shots: dict[int, int] = dataclasses.field(default_factory=dict)
    """Of each task, how many are kept in their order."""
    commission: Commission | None = None
    calibrations: dict[int, Calibration] = dataclasses.field(default_factory=dict)
    calibrated: dict[Window, int] = dataclasses.field(default_factory=dict)
    """Windows and the calibrations that were kept for them."""
    pruned_before: Micros = 0

    def copy(self) -> Books:
        copies = {
            field.name: value.copy() if isinstance(value := getattr(self, field.name), dict) else value
            for field in dataclasses.fields(self)
        }
        return Books(**copies)


class Account:
    def __init__(self, world: World, scenario: Scenario) -> None:
        self._world, self.settings, self._rules = world, scenario.settings, scenario.calendar.rules
        # A clock that is set back shows some windows twice.
        self._once = not scenario.chaos.clock
        self.books = Books()
        self.judge = Judge(scenario.settings, scenario.calendar.shot_rules)
        self.qpu: Qpu | None = None
        self.steps = 0
        """How often the clock was stepped, as far as the broker was told."""
        self.lied: set[int] = set()
        """Tasks that count what no QPU measured, because a lie that is no contradiction cannot be seen."""
        self.vouched: dict[str, Micros] = {}
        """For each session, the true time at which the scheduler's side last vouched for it and was answered."""
        self.acknowledged: set[int] = set()
        self.starts = self.credited = self.commits = 0
        self._before: Books | None = None
        self._judged: Any = None
        self._new: list[tuple[str, Any]] = []

    # --- the turn ---

    def begin(self) -> None:
        self._before, self._judged = self.books.copy(), self.judge.save()

    def rollback(self) -> None:
        if self._before is not None:
            self.books, self._before = self._before, None
            self.judge.restore(self._judged)

    def commit(self) -> None:
        self._before = None
        self.commits += 1
        books, settings = self.books, self.settings
        if sum(task.run is not None for task in books.tasks.values() if task.run is not None) > 1:
            raise ViolationError("1: two tasks have a run at the same time")
        if len(books.open) > settings.places:
            raise ViolationError(f"5: {len(books.open)} sessions are open, the QPU has {settings.places} places")
        for task in books.live.values():
            if task.session not in books.open:
                raise ViolationError(f"5: task {task.id} is {task.status} and its session has ended")

    def apply(self, effects: list[Effect], now: Micros) -> None:
        self._new = []
        for effect in effects:
            match effect:
                case Keep(what=Task() as task):
                    self._in_order(task, effect.bitstrings)
                    self._task(task, effect.sequence, now)
                case Keep(what=Session() as session):
                    self._session(session, now)
                case Keep(what=Usage() as usage):
                    self.books.usage[usage.name, usage.uid] = usage
                case Keep(what=Calibrating() as calibrating):
                    self._commissioned(calibrating.commission)
                case Keep(what=Calibration() as calibration):
                    self._calibrated(calibration)
                case Refuse():
                    self._refused(effect)
                case Answer(to=asked) if isinstance(asked.body, wire.Resume):
                    self.judge.eased()
                case Answer():
                    pass
                case _:
                    self._other(effect)

    def _other(self, effect: Any) -> None:
        match type(effect).__name__:
            case "KeepAlmanac":
                self.judge.almanac(effect.almanac)
                self.books.windows = effect.almanac.windows
            case "Prune":
                self.books.pruned_before = max(self.books.pruned_before, effect.before)

    def _refused(self, refusal: Refuse) -> None:
        """8: a refused request changed nothing. Others may be decided in the same breath, so only what is its own counts."""
        body = refusal.to.body
        own = ("task", (body.session, body.key)) if isinstance(body, wire.TaskStart) else None
        if own in self._new or any(kind == "session" for kind, _ in self._new):
            raise ViolationError(f"8: {body!r} was refused ({refusal.error.text}) and made {self._new}")

    # --- calibrations ---

    def _commissioned(self, new: Commission | None) -> None:
        """1: none is begun while a run is on, or another one."""
        books, old = self.books, self.books.commission
        if new is not None and (old is None or old.token != new.token):
            if old is not None or any(task.run is not None for task in books.tasks.values()):
                raise ViolationError(f"1: {new} is begun, and the QPU is at {old} or a run")
            if new.token in books.tokens or new.number in books.calibrations or not new.windows:
                raise ViolationError(f"4: {new} has a token or a number that was given before, or no window")
            books.tokens[new.token] = 0
        elif new is None and old is not None and self.qpu is not None:
            self.qpu.blocked(old.token)
        books.commission = new

    def _calibrated(self, calibration: Calibration) -> None:
        """4: what is kept was found by the QPU under this token, once for each window."""
        books, qpu, at = self.books, self.qpu, self.books.commission
        known = books.calibrations.get(calibration.id)
        if known is not None:
            # It may become as old as it was by another clock.
            if msgspec.structs.replace(known, time=calibration.time) != calibration:
                raise ViolationError(f"4: a calibration became another one: {known} {calibration}")
        else:
            assert qpu is not None
            if at is None or at.number != calibration.id or calibration.id <= max(books.calibrations, default=0):
                raise ViolationError(f"4: {calibration} is kept, and the QPU was told {at}")
            claims: list[Any] = [one for one in qpu.claims.get(at.token, []) if not one.error]
            told = [(one.measured, one.left, one.before, one.after) for one in claims]
            if (calibration.measured, calibration.left, calibration.before, calibration.after) not in told:
                raise ViolationError(f"4: {calibration} is kept, and the worker said {claims}")
            if at.token not in qpu.worked:
                raise ViolationError(f"4: the QPU was never at calibration {at}")
            for window in at.windows:
                if self._once and window in books.calibrated:
                    raise ViolationError(
                        f"2: {window} has calibrations {books.calibrated[window]} and {calibration.id}"
                    )
                books.calibrated[window] = calibration.id
        books.calibrations[calibration.id] = calibration

    # --- tasks ---

    def _in_order(self, task: Task, kept: wire.Bitstrings | None) -> None:
        """4: kept in their order are the shots that are counted, each once."""
        if kept is None:
            return
        assert self.qpu is not None
        old, have = self.books.tasks.get(task.id), self.books.shots.get(task.id, 0)
        run = None if old is None else old.run
        if old is None or run is None or not task.bitstrings:
            raise ViolationError(f"4: shots of task {task.id} are kept without a run, or nobody wants them: {kept}")
        if (kept.first, kept.shots) != (have, task.shots_done - old.shots_done) or kept.first != old.shots_done:
            raise ViolationError(f"4: task {task.id} has {have} shots in their order, and gets {kept} by {task}")
        self.books.shots[task.id] = have + kept.shots
        taken = bitstrings.unpack(kept.data, kept.qubits)
        gained = {bits: n for bits in task.counts if (n := task.counts[bits] - old.counts.get(bits, 0))}
        if collections.Counter(taken) != gained:
            raise ViolationError(f"4: task {task.id} counts {gained}, and keeps other shots: {taken}")
        if taken != in_order(run.first_shot, kept.shots, task.qubits):
            if run.token not in self.qpu.lies:
                raise ViolationError(f"4: the order of shots of task {task.id} is not that of {run}: {kept}")
            self.lied.add(task.id)

    def _task(self, task: Task, sequence: str | None, now: Micros) -> None:
        books = self.books
        old = books.tasks.get(task.id)
        if old is None:
            self._new_task(task, sequence)
        else:
            self._changed(old, task)
            if old.status is TaskStatus.QUEUED and task.status is TaskStatus.RUNNING:
                self._started(task, now)
            elif old.run is not None and task.run is None:
                self._ended(old, old.run, task, now)
            elif old.shots_done != task.shots_done:
                raise ViolationError(f"4: task {task.id} has {task.shots_done} shots without the end of a run")
        books.tasks[task.id] = task
        if task.status.final:
            books.live.pop(task.id, None)
            self._final(task)
        else:
            books.live[task.id] = task

    def _new_task(self, task: Task, sequence: str | None) -> None:
        books = self.books
        session = books.open.get(task.session)
        if session is None or session.uid != task.uid:
            raise ViolationError(f"8: task {task.id} of {task.uid} is in no open session of this user")
        if (task.session, task.key) in books.keys:
            raise ViolationError(f"6: task {task.id} has the key of task {books.keys[task.session, task.key]}")
        if task.status is not TaskStatus.QUEUED or task.shots_done or task.run is not None or not sequence:
            raise ViolationError(f"3: task {task.id} begins as {task}")
        if task.id <= max(books.tasks, default=0):
            raise ViolationError(f"3: task {task.id} has a number that was given before")
        books.keys[task.session, task.key] = task.id
        self._new.append(("task", (task.session, task.key)))
        limit = getattr(session, "max_qpu_time", None)
        if limit is not None and session.qpu_time >= limit:
            raise ViolationError(f"8: task {task.id} was taken by a session that has used its QPU time")

    def _changed(self, old: Task, task: Task) -> None:
        fixed = ("session", "uid", "shots", "qubits", "key")
        if any(getattr(old, name) != getattr(task, name) for name in fixed):
            raise ViolationError(f"3: task {task.id} became another one: {old} {task}")
        if old.status.final:
            kept = ("status", "counts", "shots_done", "error")
            if any(getattr(old, name) != getattr(task, name) for name in kept):
                raise ViolationError(f"3: task {task.id} was final and changed: {old} {task}")
        elif task.status not in _NEXT[old.status]:
            raise ViolationError(f"3: task {task.id} went from {old.status} to {task.status}")
        if old.at and (old.at, old.calibration) != (task.at, task.calibration):
            raise ViolationError(f"4: task {task.id} began at {old.at}, and goes on as at another time: {task}")
        # Of a very long log the middle may be left out.
        kept = len(old.log) if len(task.log) > len(old.log) else 20
        if task.log != old.log and task.log[:kept] != old.log[:kept]:
            raise ViolationError(f"3: task {task.id}'s log was rewritten")
        if task.repeats != old.repeats and (task.repeats != old.repeats + 1 or task.log == old.log):
            raise ViolationError(f"4: task {task.id} was repeated and its log does not say so")
        if task.run is not None and old.run is not None and task.run.token != old.run.token:
            raise ViolationError(f"1: task {task.id} got another run before its first had ended")

    def _started(self, task: Task, now: Micros) -> None:
        books, run, settings = self.books, task.run, self.settings
        if run is None or run.token in books.tokens:
            raise ViolationError(f"4: task {task.id} runs without a token of its own: {run}")
        books.tokens[run.token] = task.id
        self.starts += 1
        if run.first_shot != task.shots_done or not 1 <= run.shots <= task.shots_left:
            raise ViolationError(f"4: task {task.id} has {task.shots_left} shots left, and runs {run}")
        if any(other.run is not None for other in books.tasks.values()):
            raise ViolationError(f"1: task {task.id} was started while another run was on")
        if books.commission is not None:
            raise ViolationError(f"1: task {task.id} was started, and the QPU is at {books.commission}")
        newest = max(books.calibrations, default=0)
        if not books.tasks[task.id].at and newest != (0 if task.calibration is None else task.calibration.id):
            raise ViolationError(f"4: task {task.id} begins with {task.calibration}, and {newest} is in force")
        opening = next_opening(self._rules, books.windows, now)
        end = now + settings.timing.pace_of(task).estimate(run.shots)
        longest = getattr(settings, "longest_run", None)
        if opening is not None and (opening <= now or end > opening):
            raise ViolationError(f"2: {run} would end at {end}, and a window opens at {opening}")
        bounds = [bound for bound in (opening, longest and now + longest) if bound is not None]
        if bounds and (run.deadline is None or run.deadline > min(bounds)):
            raise ViolationError(f"2: {run} should be over at {min(bounds)}")
        if longest is not None and end > now + longest:
            raise ViolationError(f"2: {run} is longer than {longest}")
        if books.sessions[task.session].suspended:
            raise ViolationError(f"7: task {task.id} was started, and its job is suspended")
        waiting = [
            t for t in books.live.values() if t.status is TaskStatus.QUEUED and not books.sessions[t.session].suspended
        ]
        self.judge.started(task, waiting, books, now)

    def _ended(self, old: Task, run: Run, task: Task, now: Micros) -> None:
        """4: what is counted was measured under this token, and was said by the worker."""
        assert self.qpu is not None
        claims: list[Any] = self.qpu.claims.get(run.token, [])
        gained = task.shots_done - old.shots_done
        difference = {bits: n for bits in task.counts if (n := task.counts[bits] - old.counts.get(bits, 0))}
        self.judge.ended(old, task, now)
        if task.runs > old.runs + 1:
            raise ViolationError(f"4: task {task.id} counts one run twice")
        if gained == 0:
            if difference:
                raise ViolationError(f"4: task {task.id} gained counts without shots")
            return
        if old.status.final:
            raise ViolationError(f"4: task {task.id} gained shots after its end")
        said = [
            claim for claim in claims if not claim.error and {b: n for b, n in claim.counts.items() if n} == difference
        ]
        if not said or gained > run.shots or sum(difference.values()) != gained:
            raise ViolationError(f"4: task {task.id} gained {gained} shots, {difference}; the worker said {claims}")
        if run.token not in self.qpu.worked:
            raise ViolationError(f"4: the QPU was never at run {run.token}")
        self.credited += gained
        if difference != bits_of(run.first_shot, gained, task.qubits):
            if run.token not in self.qpu.lies:
                raise ViolationError(f"4: task {task.id} was given other shots than those of {run}: {difference}")
            self.lied.add(task.id)

    def _final(self, task: Task) -> None:
        if task.status is TaskStatus.FAILED and "QPU failed" in task.error and task.repeats <= 5:
            raise ViolationError(f"9: task {task.id} has to suffer for the QPU: {task}")
        if task.status is not TaskStatus.COMPLETED:
            return
        if task.bitstrings and self.books.shots.get(task.id, 0) != task.shots:
            raise ViolationError(f"4: task {task.id} is completed, and its shots are not all kept: {self.books.shots}")
        if task.shots_done != task.shots or sum(task.counts.values()) != task.shots:
            raise ViolationError(f"4: task {task.id} is completed: {task.shots_done} shots, {task.counts}")
        if task.id not in self.lied and dict(sorted(task.counts.items())) != bits_of(0, task.shots, task.qubits):
            raise ViolationError(f"4: task {task.id} lost a shot or counted one twice: {task.counts}")

    # --- sessions ---

    def _session(self, session: Session, now: Micros) -> None:
        books = self.books
        old = books.sessions.get(session.id)
        if old is None:
            self._new.append(("session", session.id))
        elif (old.uid, old.job) != (session.uid, session.job):
            raise ViolationError(f"8: session {session.id} changed hands")
        elif old.ended is not None and (session.ended != old.ended or session.end_reason != old.end_reason):
            raise ViolationError(f"5: session {session.id} had ended, and changed: {old} {session}")
        elif old.ended is None and session.ended is not None and "lease ran out" in session.end_reason:
            self._expired(old, now)
        if any(o.job == session.job and o.id != session.id for o in books.open.values()) and session.ended is None:
            raise ViolationError(f"8: job {session.job} has two sessions")
        books.sessions[session.id] = session
        if session.ended is None:
            books.open[session.id] = session
        else:
            books.open.pop(session.id, None)

    def _expired(self, session: Session, now: Micros) -> None:
        """5: a lease that was renewed lasts, by true time, whatever the clock shows."""
        if session.expires > now:
            raise ViolationError(f"5: the lease of {session} ended before its end")
        if session.starts >= STARTS:
            # Too many starts of the broker since anybody vouched: it takes no more of them for a reason to wait.
            return
        vouched = self.vouched.get(session.id)
        # What renews again and again is not kept each time: up to an eighth of the lease may be missing.
        if vouched is not None and self._world.now < vouched + self.settings.lease * 7 // 8 - SECOND:
            seen = self._world.now - vouched
            raise ViolationError(f"5: the lease of {session.id} ran out {seen / SECOND:.3f} s after it was renewed")

    def balance(self) -> None:
        """4: at the end, sessions account for what their tasks used."""
        books = self.books
        for session in books.sessions.values():
            tasks = [task for task in books.tasks.values() if task.session == session.id]
            if session.tasks != len(tasks) or session.shots < sum(task.shots_done for task in tasks):
                raise ViolationError(f"4: {session} does not account for its tasks")
            if session.qpu_time != sum(task.qpu_time for task in tasks):
                raise ViolationError(f"4: {session} has used {sum(task.qpu_time for task in tasks)}")
            limit = getattr(session, "max_shots", None)
            if limit is not None and session.shots > limit:
                raise ViolationError(f"8: {session} has used more shots than it may")

    # --- the disk ---

    def compare(self, tasks: list[Task], sessions: list[Session]) -> None:
        """3: what was committed is on the disk, and nothing else. What is old enough may be forgotten."""
        books = self.books
        for kind, kept, found in (("task", books.tasks, tasks), ("session", books.sessions, sessions)):
            there = {one.id: one for one in found}
            for identifier, one in kept.items():
                if identifier not in there and not self._prunable(one):
                    raise ViolationError(f"3: {kind} {identifier} was committed and is not in the store")
                if there.get(identifier, one) != one:
                    raise ViolationError(f"3: {kind} {identifier} is {there[identifier]} in the store, not {one}")
            if extra := set(there) - set(kept):
                raise ViolationError(f"3: the store has {kind}s that were never committed: {extra}")

    def _prunable(self, one: Any) -> bool:
        end = one.finished if isinstance(one, Task) else one.ended
        return end is not None and end < self.books.pruned_before
