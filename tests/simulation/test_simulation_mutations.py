"""The simulation can fail: a broker that breaks one of its promises is caught within a few seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from simulation_site import simulate

from warden import admission, bitstrings, checks, policy, results, runner
from warden.calibrator import Calibrator
from warden.checks import Checks
from warden.core import Core
from warden.dispatch import Dispatcher
from warden.events import Keep, Tell
from warden.health import Health
from warden.ledger import Ledger
from warden.model import Session, Task, TaskStatus
from warden.planner import Planner
from warden.queue import Queue
from warden.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

pytestmark = pytest.mark.long

# Most are caught within three; runs that are not stopped show only where nothing else goes wrong.
SEEDS = 200


def nothing(*_: object, **__: object) -> None:
    return None


def never(*_: object, **__: object) -> bool:
    return False


def always(*_: object, **__: object) -> bool:
    return True


def ignores_windows(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Planner, "block", nothing)
    patch.setattr(Planner, "next", nothing)


def forgets_operators_windows(patch: pytest.MonkeyPatch) -> None:
    look = Planner._look
    patch.setattr(Planner, "_look", lambda planner, now: (_drop(planner), look(planner, now))[1])


def _drop(planner: Any) -> None:
    planner._calendar = msgspec.structs.replace(planner._calendar, single=())


def does_not_stop_runs(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Dispatcher, "_stop", nothing)


def accepts_stale_tokens(patch: pytest.MonkeyPatch) -> None:
    finished = Dispatcher._finished

    def lenient(self: Dispatcher, peer: bytes, body: Any, now: int) -> None:
        if self._active is not None:
            body = msgspec.structs.replace(body, token=self._active.run.token)
        finished(self, peer, body, now)

    patch.setattr(Dispatcher, "_finished", lenient)


def believes_every_result(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(results, "problem", lambda *_, **__: "")


def believes_every_order(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(bitstrings, "agree", always)


def forgets_the_order_of_a_run_that_was_cut(patch: pytest.MonkeyPatch) -> None:
    keep = Ledger.keep_task
    patch.setattr(Ledger, "keep_task", lambda self, task, sequence=None, **_: keep(self, task, sequence))


def counts_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(results, "merged", lambda counts, more: {b: counts.get(b, 0) + 2 * n for b, n in more.items()})


def begins_again_at_the_first_shot(patch: pytest.MonkeyPatch) -> None:
    add = Ledger.add

    def forgetful(self: Ledger, effect: Any) -> None:
        if isinstance(effect, Tell) and type(effect.body).__name__ == "StartRun":
            effect = Tell(effect.peer, msgspec.structs.replace(effect.body, first_shot=0))
        add(self, effect)

    patch.setattr(Ledger, "add", forgetful)


def starts_a_second_run(patch: pytest.MonkeyPatch) -> None:
    start = Dispatcher.start

    def eager(self: Dispatcher, now: int) -> None:
        self._active = None
        start(self, now)

    patch.setattr(Dispatcher, "start", eager)


def forgets_new_tasks(patch: pytest.MonkeyPatch) -> None:
    add = Ledger.add

    def forgetful(self: Ledger, effect: Any) -> None:
        if not (isinstance(effect, Keep) and effect.sequence is not None):
            add(self, effect)

    patch.setattr(Ledger, "add", forgetful)


def loses_what_is_kept(patch: pytest.MonkeyPatch) -> None:
    keep = Store._keep_task

    def careless(self: Store, task: Task, *more: Any) -> None:
        if task.status is not TaskStatus.FAILED and task.status is not TaskStatus.CANCELLED:
            keep(self, task, *more)

    patch.setattr(Store, "_keep_task", careless)


def answers_before_it_commits(patch: pytest.MonkeyPatch) -> None:
    def commit(self: Store) -> None:
        self._run("ROLLBACK")

    patch.setattr(Store, "commit", commit)


def ignores_classes(patch: pytest.MonkeyPatch) -> None:
    choose = policy.next_task

    def equal(candidates: Iterable[policy.Candidate], *, fair: bool) -> Task | None:
        return choose((msgspec.structs.replace(one, rank=0) for one in candidates), fair=fair)

    patch.setattr(policy, "next_task", equal)


def ignores_shares(patch: pytest.MonkeyPatch) -> None:
    choose = policy.next_task

    def equal(candidates: Iterable[policy.Candidate], *, fair: bool) -> Task | None:
        return choose((msgspec.structs.replace(one, used=0) for one in candidates), fair=fair)

    patch.setattr(policy, "next_task", equal)


def lets_people_starve(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(policy, "owed", never)


def gives_all_turns_to_those_who_waited(patch: pytest.MonkeyPatch) -> None:
    choose = Ledger.next_task
    patch.setattr(Ledger, "next_task", lambda self, now, **_: choose(self, now, may_owe=True))


def keeps_sessions_for_ever(patch: pytest.MonkeyPatch) -> None:
    prolong: Callable[..., Session] = Ledger._prolong
    patch.setattr(Ledger, "_prolong", lambda self, s, until, now, **more: prolong(self, s, until + 10**12, now, **more))


def does_not_hear_that_the_clock_was_set(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "shift", nothing)


def leaves_the_tasks_of_ended_sessions(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "tasks_of", lambda *_: [])


def shows_everything_to_everybody(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Core, "_owns", always)


def answers_nobody_in_time(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "answer_overdue", nothing)


def trusts_a_broken_device(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Health, "offline", never)


def never_gives_up_places(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(admission, "check_place", nothing)


def takes_whichever_worker_comes_first(patch: pytest.MonkeyPatch) -> None:
    handle = Dispatcher.handle

    def hasty(self: Any, event: Any, now: int) -> None:
        self._awaited = 0
        handle(self, event, now)

    patch.setattr(Dispatcher, "handle", hasty)


def counts_a_run_s_time_from_when_it_is_read(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(runner._Work, "deadline", property(lambda work: work.started + work.run.limit))


def lets_suspended_jobs_run(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Queue, "hold", lambda self, task: self.add(task, 0))


def does_not_hear_that_jobs_are_suspended(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Ledger, "suspend", nothing)


def calibrates_beside_a_run(patch: pytest.MonkeyPatch) -> None:
    start = Dispatcher.start

    def eager(self: Dispatcher, now: int) -> None:
        start(self, now)
        if self.worker is not None:
            self.calibrator.start(self.worker, now)

    patch.setattr(Dispatcher, "start", eager)


def runs_beside_a_calibration(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Calibrator, "_may_go_on", always)
    patch.setattr(Calibrator, "token", "")


def calibrates_outside_of_windows(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Planner, "holds", always)
    patch.setattr(Calibrator, "_may_go_on", lambda _, windows, __: bool(windows))


def believes_every_calibration(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(results, "flaw", lambda _: "")


def calibrates_again_in_the_same_window(patch: pytest.MonkeyPatch) -> None:
    keep = Calibrator._keep

    def insatiable(self: Calibrator, calibrating: Any) -> None:
        before = self._now.commission
        if calibrating.commission is None and before is not None:
            calibrating = msgspec.structs.replace(calibrating, waiting=before.windows)
        keep(self, calibrating)

    patch.setattr(Calibrator, "_keep", insatiable)


def takes_each_run_as_the_qpu_is_then(patch: pytest.MonkeyPatch) -> None:
    start = Dispatcher._start
    patch.setattr(
        Dispatcher, "_start", lambda self, task, now: start(self, msgspec.structs.replace(task, started=None), now)
    )


def waits_for_ever_for_a_word_of_a_sequence(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checks, "PATIENCE", 10**12)


def believes_whatever_is_said_of_a_sequence(patch: pytest.MonkeyPatch) -> None:
    heard = Checks.heard

    def lenient(self: Any, said: Any) -> None:
        if self._question is not None:
            said = msgspec.structs.replace(said, token=self._question.token)
        heard(self, said)

    patch.setattr(Checks, "heard", lenient)


def answers_who_asked_first_alone(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Checks, "joins", lambda self, _, body: (body.session, body.key) in self._held)


MUTATIONS: dict[Callable[[pytest.MonkeyPatch], None], str] = {
    ignores_windows: "2",
    forgets_operators_windows: "2",
    does_not_stop_runs: "29",
    accepts_stale_tokens: "49",
    believes_every_result: "4",
    believes_every_order: "4",
    forgets_the_order_of_a_run_that_was_cut: "4",
    counts_twice: "4",
    begins_again_at_the_first_shot: "4",
    starts_a_second_run: "134",
    forgets_new_tasks: "36",
    loses_what_is_kept: "38",
    answers_before_it_commits: "34",
    ignores_classes: "7",
    ignores_shares: "7",
    lets_people_starve: "7",
    gives_all_turns_to_those_who_waited: "7",
    keeps_sessions_for_ever: "5",
    does_not_hear_that_the_clock_was_set: "58",
    leaves_the_tasks_of_ended_sessions: "57",
    shows_everything_to_everybody: "8",
    answers_nobody_in_time: "8",
    trusts_a_broken_device: "9",
    never_gives_up_places: "5",
    takes_whichever_worker_comes_first: "1",
    counts_a_run_s_time_from_when_it_is_read: "2",
    lets_suspended_jobs_run: "7",
    does_not_hear_that_jobs_are_suspended: "7",
    calibrates_beside_a_run: "1",
    runs_beside_a_calibration: "12",
    calibrates_outside_of_windows: "2",
    believes_every_calibration: "4",
    calibrates_again_in_the_same_window: "2",
    takes_each_run_as_the_qpu_is_then: "4",
    waits_for_ever_for_a_word_of_a_sequence: "8",
    believes_whatever_is_said_of_a_sequence: "8",
    answers_who_asked_first_alone: "8",
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.__name__)
def test_a_broken_broker_is_caught(mutation: Callable[[pytest.MonkeyPatch], None]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        mutation(patch)
        for seed in range(1, SEEDS):
            result = simulate(seed)
            if result.violation:
                assert result.violation[0] in MUTATIONS[mutation], result.violation
                return
    pytest.fail(f"nobody noticed in {SEEDS} seeds")
