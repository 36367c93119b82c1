"""Whose turn it is, against a rule that looks at everything; and what fair shares come to in the long run."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from warden_machine import SETTINGS, Machine, Qpu

from warden import policy
from warden.events import Class, Usage
from warden.model import SECOND, Session, Task
from warden.policy import Candidate
from warden.qpu.timing import Timing

if TYPE_CHECKING:
    from warden.model import Micros

DAY = 86400 * SECOND


def a_task(number: int, uid: int = 1001, submitted: int = 0, since: int = 0) -> Task:
    return Task(id=number, session="s", uid=uid, shots=1, qubits=1, key="", submitted=submitted, since=since)


candidates = st.lists(
    st.builds(
        lambda number, uid, submitted, rank, used: Candidate(a_task(number, uid, submitted), rank, used),
        st.integers(1, 50),
        st.integers(1, 5),
        st.integers(0, 5),
        st.integers(0, 2),
        st.integers(0, 3),
    ),
    max_size=8,
    unique_by=lambda one: one.task.id,
)
times = st.integers(0, 10**6 * SECOND)
spans = st.integers(SECOND, 10**4 * SECOND)


def before(one: Candidate, other: Candidate, *, fair: bool) -> bool:
    """Whether one goes before the other, in words."""
    if fair and one.rank != other.rank:
        return one.rank < other.rank
    if fair and one.used != other.used:
        return one.used < other.used
    return one.task.id < other.task.id


@given(candidates, st.booleans())
def test_the_next_task_is_the_one_that_goes_before_all_others(all_: list[Candidate], fair: bool) -> None:
    chosen = policy.next_task(all_, fair=fair)
    firsts = [one.task for one in all_ if all(one is other or before(one, other, fair=fair) for other in all_)]
    assert [chosen] == (firsts or [None])


@given(candidates, st.booleans(), st.randoms(use_true_random=False))
def test_the_order_in_which_candidates_come_makes_no_difference(
    all_: list[Candidate], fair: bool, chance: random.Random
) -> None:
    shuffled = chance.sample(all_, len(all_))
    assert policy.next_task(shuffled, fair=fair) == policy.next_task(all_, fair=fair)


@given(times, times, spans)
def test_a_task_is_owed_a_run_when_it_has_waited_for_longer_than_that(since: int, now: int, longest: int) -> None:
    assert policy.owed(a_task(1, since=since), now, longest) == (since + longest < now)
    assert not policy.owed(None, now, longest)


# --- what was used ---


@given(st.integers(0, 10**15), times, st.integers(0, 60), spans)
def test_what_was_used_is_worth_half_after_each_half_life(used: int, time: int, lives: int, half_life: int) -> None:
    usage = Usage(name="all", uid=1, used=used, time=time)
    assert abs(policy.used_at(usage, time + lives * half_life, half_life) - used / 2**lives) <= 0.5


@given(st.integers(0, 10**15), times, times, times, spans)
def test_what_was_used_is_never_worth_more_later(used: int, time: int, now: int, later: int, half_life: int) -> None:
    usage = Usage(name="all", uid=1, used=used, time=time)
    first, second = (policy.used_at(usage, moment, half_life) for moment in sorted((now, later)))
    assert 0 <= second <= first <= used


@given(st.integers(0, 10**12), st.integers(0, 10**5 * SECOND), st.integers(0, 10**5 * SECOND), spans)
def test_it_makes_no_difference_how_often_it_is_looked_at(used: int, one: int, two: int, half_life: int) -> None:
    at_once = policy.used_at(Usage(name="all", uid=1, used=used, time=0), one + two, half_life)
    between = policy.used_at(Usage(name="all", uid=1, used=used, time=0), one, half_life)
    in_steps = policy.used_at(Usage(name="all", uid=1, used=between, time=one), one + two, half_life)
    assert abs(at_once - in_steps) <= 1


def test_who_has_used_nothing_has_used_nothing() -> None:
    assert policy.used_at(None, 10**15, SECOND) == 0


@given(st.integers(0, 10**12), times, st.integers(1, 10**9 * SECOND))
def test_a_clock_that_was_set_back_makes_nothing_worth_more(used: int, time: int, back: int) -> None:
    assert policy.used_at(Usage(name="all", uid=1, used=used, time=time + back), time, DAY) == used


# --- classes ---

names = st.sampled_from(["", "a", "b", "c"])
groups = st.frozensets(st.sampled_from(["a", "b", "c"]), max_size=2)
classes = st.lists(
    st.builds(
        Class, name=st.just("x"), uids=st.frozensets(st.integers(1, 4), max_size=2), queues=groups, projects=groups
    ),
    min_size=1,
    max_size=5,
).map(tuple)


@given(st.integers(1, 4), names, names, classes)
def test_the_first_class_that_names_one_is_one_s_and_the_last_takes_all_others(
    uid: int, queue: str, project: str, kinds: tuple[Class, ...]
) -> None:
    session = Session(id="s", uid=uid, job="1", host="", queue=queue, project=project, acquired=0, expires=1)
    number = policy.rank(session, kinds)

    def names_it(kind: Class) -> bool:
        return uid in kind.uids or queue in kind.queues or project in kind.projects

    assert 0 <= number < len(kinds)
    assert not any(map(names_it, kinds[:number]))
    assert names_it(kinds[number]) or number == len(kinds) - 1


# --- how much fits ---


@given(
    st.integers(1, 10**4),
    st.integers(0, 10 * SECOND),
    st.sampled_from([0.0, 0.25, 0.7, 10.0, 33.3, 1e4]),
    st.integers(0, 10**4 * SECOND),
)
def test_as_many_shots_are_taken_as_end_in_time_and_not_one_fewer(
    shots: int, overhead: int, rate: float, gap: int
) -> None:
    timing = Timing(overhead=overhead, shot_rate=rate)
    task = Task(id=1, session="s", uid=1, shots=shots, qubits=1, key="", submitted=0)
    pace = timing.pace_of(task)
    fitting = policy.shots_that_fit(task, timing, gap)
    assert 0 <= fitting <= shots
    assert fitting == 0 or pace.estimate(fitting) <= gap
    assert fitting == shots or pace.estimate(fitting + 1) > gap


@given(times, st.lists(st.none() | times, max_size=3))
def test_a_gap_ends_with_the_first_of_all_ends(now: int, ends: list[int | None]) -> None:
    gap = policy.gap_before(SETTINGS, now, *ends)
    assert gap <= SETTINGS.longest_run
    assert all(end is None or now + gap <= end for end in ends)
    assert gap == SETTINGS.longest_run or now + gap in ends


# --- in the long run ---


@settings(max_examples=25)
@given(
    st.lists(st.integers(1, 300), min_size=2, max_size=6),
    st.sampled_from([3600 * SECOND, DAY, 10**5 * DAY]),
    st.randoms(use_true_random=False),
)
def test_users_who_always_have_a_task_get_equal_shares_to_within_the_longest_run(
    lengths: list[int], half_life: Micros, chance: random.Random
) -> None:
    # Each user has his own length of run, from one second to five minutes: it is time that is shared, not runs.
    now, used = 0, {uid: Usage(name="all", uid=uid, used=0, time=0) for uid in range(len(lengths))}

    def worth(uid: int) -> Micros:
        return policy.used_at(used[uid], now, half_life)

    for number in range(150):
        waiting = [Candidate(a_task(1000 * number + uid, uid), 0, worth(uid)) for uid in used]
        chosen = policy.next_task(chance.sample(waiting, len(waiting)), fair=True)
        assert chosen is not None
        now += lengths[chosen.uid] * SECOND
        used[chosen.uid] = Usage(
            name="all", uid=chosen.uid, used=worth(chosen.uid) + lengths[chosen.uid] * SECOND, time=now
        )
        shares = [worth(uid) for uid in used]
        # A microsecond for each rounding.
        assert max(shares) - min(shares) <= max(lengths) * SECOND + number


@pytest.mark.parametrize("half_life", [600 * SECOND, 10**6 * SECOND])
def test_at_the_machine_too(half_life: Micros) -> None:
    chance = random.Random(5)
    lengths = {1001: 3, 1002: 11, 1003: 40}
    machine = Machine(
        places=3, lease=10**9 * SECOND, half_life=half_life, longest_wait=10**9 * SECOND, heartbeat=10**6 * SECOND
    )
    qpu = Qpu(machine)
    sessions = {uid: machine.session(uid, str(uid)) for uid in lengths}
    owner: dict[int, int] = {}

    def submit(uid: int) -> None:
        owner[machine.start(sessions[uid], 10).id] = uid

    for uid in lengths:
        submit(uid)
        submit(uid)
    used = dict.fromkeys(lengths, 0.0)
    for _ in range(300):
        uid = owner[qpu.take().task]
        seconds = lengths[uid] * chance.choice([1, 1, 2])
        machine.later(seconds)
        decay = 2.0 ** (-seconds * SECOND / half_life)
        used = {other: value * decay for other, value in used.items()}
        used[uid] += seconds
        submit(uid)
        qpu.finish(time=seconds * SECOND)
        assert max(used.values()) - min(used.values()) <= 2 * max(lengths.values()) + 0.1
