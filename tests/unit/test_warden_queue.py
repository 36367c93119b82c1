"""The queue against one that is a plain list: the same answers, whatever comes and goes in whatever order."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from warden.model import Task
from warden.queue import Queue

RANKS, UIDS = 3, (1001, 1002, 1003)


class Plain:
    """What the queue promises, looked up by looking at everything."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, Task]] = []
        self.held: list[Task] = []

    def add(self, task: Task, rank: int) -> None:
        self.remove(task)
        self.waiting.append((rank, task))

    def remove(self, task: Task) -> None:
        self.waiting = [(rank, one) for rank, one in self.waiting if one.id != task.id]
        self.held = [one for one in self.held if one.id != task.id]

    def replace(self, task: Task) -> None:
        self.waiting = [(rank, task if one.id == task.id else one) for rank, one in self.waiting]

    def hold(self, task: Task) -> None:
        self.remove(task)
        self.held.append(task)

    def of(self, uid: int) -> int:
        return len([task for task in [*(task for _, task in self.waiting), *self.held] if task.uid == uid])

    def heads(self) -> set[tuple[int, int]]:
        lines = {(rank, task.uid) for rank, task in self.waiting}
        return {
            (rank, min(task.id for other, task in self.waiting if (other, task.uid) == (rank, uid)))
            for rank, uid in lines
        }

    def longest(self) -> Task | None:
        return self.waiting[0][1] if self.waiting else None


def a_task(number: int, shots: int = 1) -> Task:
    uid = UIDS[number % len(UIDS)]
    return Task(id=number, session="s", uid=uid, shots=shots, qubits=1, key=str(number), submitted=number)


moves = st.lists(
    st.tuples(
        st.sampled_from(["add", "add", "add", "hold", "remove", "replace"]),
        st.integers(1, 12),
        st.integers(0, RANKS - 1),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(moves)
def test_the_queue_is_the_plain_one_after_every_move(script: list[tuple[str, int, int]]) -> None:
    queue, plain = Queue(), Plain()
    for step, (move, number, rank) in enumerate(script):
        task = a_task(number, shots=1 + step)
        match move:
            case "add":
                queue.add(task, rank)
                plain.add(task, rank)
            case "hold":
                queue.hold(task)
                plain.hold(task)
            case "remove":
                queue.remove(task)
                plain.remove(task)
            case _:
                queue.replace(task)
                plain.replace(task)
        heads = list(queue.heads())
        assert {(rank, task.id) for rank, task in heads} == plain.heads()
        assert len(heads) == len(plain.heads())
        assert all((rank, task) in plain.waiting for rank, task in heads), "an old record of a task"
        assert queue.longest() == plain.longest()
        assert len(queue) == len(plain.waiting) + len(plain.held)
        assert [queue.of(uid) for uid in UIDS] == [plain.of(uid) for uid in UIDS]


def test_a_task_that_was_cut_is_its_user_s_next_and_the_last_that_has_waited_long() -> None:
    queue = Queue()
    first, second, third = (a_task(number) for number in (3, 6, 9))
    for task in (first, second, third):
        queue.add(task, 0)
    queue.remove(first)
    queue.add(msgspec.structs.replace(first, shots_done=1), 0)
    assert [task.id for _, task in queue.heads()] == [first.id]
    assert queue.longest() == second


def test_nobody_waits_in_an_empty_queue() -> None:
    queue = Queue()
    queue.remove(a_task(1))
    queue.replace(a_task(1))
    assert (len(queue), queue.of(UIDS[0]), list(queue.heads()), queue.longest()) == (0, 0, [], None)
