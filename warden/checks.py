"""What the worker is asked about sequences before their tasks are queued, and what it has said of them. Pure.

The worker has Pulser, and the broker's host need not have it. A request that passes all other checks is *held* until the
worker has said what it thinks of the sequence, is gone, or has had some seconds. Then it is decided as if it had just
come: without a verdict its task is queued unchecked, and its run finds out. Nothing of this is kept, for nothing that is
held has been accepted.

One sequence is asked about at a time, the users' in turn, so that nobody waits for all that another one has sent.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from warden import orders, wire
from warden.events import Asked, Device, Settings, Tell
from warden.model import SECOND, BadRequestError, LimitError, Micros, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from warden.dispatch import Worker
    from warden.ledger import Ledger

# So long a request is held at most; a worker answers sooner (`examiner.CHECK`).
PATIENCE = 8 * SECOND
# Verdicts that are remembered, and the characters of all of them.
_VERDICTS, _CHARACTERS = 4096, 2**20
# What is held of a user's, and of all users' together, in sequences of the largest size; and how often one request.
_OF_A_USER, _OF_ALL = 2, 8
_REPEATS = 8
# Of what a worker says of a sequence, so much is told.
_QUOTED = 1000


class Verdict(msgspec.Struct, frozen=True):
    """Why the QPU cannot run a sequence, or what it needs before its first shot; if anybody has looked at it."""

    error: str = ""
    preparation: Micros = 0
    checked: bool = True


UNCHECKED = Verdict(checked=False)

# A task to be: its session and its key. The same key in the same session is the same task, also before there is one.
_Key = tuple[str, str]


class Held(msgspec.Struct):
    """The request for one task; it may have been sent more than once, and each time wants its answer."""

    asked: list[Asked]
    body: wire.TaskStart
    uid: int
    digest: bytes
    until: Micros
    size: int


class _Question(msgspec.Struct, frozen=True):
    """What the worker is at."""

    token: str
    digest: bytes
    peer: bytes
    until: Micros


class Checks:
    """The requests that are held, and the verdicts that are known."""

    def __init__(self, settings: Settings, ledger: Ledger, new_id: Callable[[], str]) -> None:
        self._settings = settings
        self._ledger = ledger
        self._new_id = new_id
        # In the order in which their time is up.
        self._held: dict[_Key, Held] = {}
        # The same by sequence, and by user: whose turn is next is first.
        self._wanted: dict[bytes, dict[_Key, None]] = {}
        self._lines: dict[int, dict[_Key, None]] = {}
        self._sizes: dict[int, int] = {}
        self._served = -1
        self._settled: dict[_Key, Verdict] = {}
        self._question: _Question | None = None
        # Of the worker that is there now; another one may know another device, or have other limits.
        self._source: tuple[str, Device | None] | None = None
        self._verdicts: dict[bytes, Verdict] = {}
        self._characters = 0

    def __len__(self) -> int:
        return len(self._held)

    def times(self) -> list[Micros]:
        """When a request was held for long enough, or the worker has had its time."""
        ends = [held.until for held in self._held.values()][:1]
        return [*ends, *([self._question.until] if ends and self._question is not None else [])]

    def shift(self, by: Micros) -> None:
        """The clock was set."""
        for held in self._held.values():
            held.until += by
        if self._question is not None:
            self._question = msgspec.structs.replace(self._question, until=self._question.until + by)

    # --- requests ---

    def verdict(self, sequence: str) -> Verdict | None:
        """What is known of a sequence."""
        digest = _digest(sequence)
        found = self._verdicts.pop(digest, None)
        if found is not None:
            # Who was of use last is forgotten last.
            self._verdicts[digest] = found
        return found

    def joins(self, asked: Asked, body: wire.TaskStart) -> bool:
        """Whether this request is held already: then it is answered with what comes of the first one."""
        held = self._held.get((body.session, body.key))
        if held is None:
            return False
        held.asked.append(asked)
        held.size += len(body.sequence)
        self._sizes[held.uid] += len(body.sequence)
        if len(held.asked) >= _REPEATS or self._is_full(held.uid, 0):
            self._settled.setdefault((body.session, body.key), UNCHECKED)
        return True

    def hold(self, asked: Asked, body: wire.TaskStart, uid: int, now: Micros) -> bool:
        """Have the worker asked about a sequence; False: there is no room for it, and its task has to do without.

        Raises:
            LimitError: With those that are held, too many tasks wait.
        """
        line, queue, size = self._lines.get(uid, {}), self._ledger.queue, len(body.sequence)
        if len(self) + len(queue) >= self._settings.max_queued:
            raise LimitError(f"{len(self) + len(queue)} tasks wait for the QPU already: try again later")
        if len(line) + queue.of(uid) >= self._settings.max_queued_per_user:
            most = self._settings.max_queued_per_user
            raise LimitError(f"{most} of your tasks wait for the QPU already: wait for some")
        if self._is_full(uid, size):
            return False
        key, digest = (body.session, body.key), _digest(body.sequence)
        self._held[key] = Held([asked], body, uid, digest, now + PATIENCE, size)
        self._wanted.setdefault(digest, {})[key] = None
        self._lines.setdefault(uid, line)[key] = None
        self._sizes[uid] = self._sizes.get(uid, 0) + size
        return True

    def _is_full(self, uid: int, more: int) -> bool:
        most = self._settings.max_sequence
        of_all = sum(self._sizes.values())
        return self._sizes.get(uid, 0) + more > _OF_A_USER * most or of_all + more > _OF_ALL * most

    # --- the worker ---

    def heard(self, said: orders.SequenceChecked) -> None:
        """Take in what the worker says of the sequence that it was asked about last; whatever else it says is of no use."""
        question = self._question
        if question is None or said.token != question.token:
            return
        self._question, verdict = None, UNCHECKED
        if said.fault != "device":
            error = said.error and (one_line(said.error)[:_QUOTED] or "the QPU cannot run it, and does not say why")
            verdict = Verdict(error, 0 if error else said.preparation)
            self._remember(question.digest, verdict)
        for key in self._wanted.get(question.digest, {}):
            self._settled[key] = verdict

    def settled(self, worker: Worker | None, device: Device | None, now: Micros) -> list[tuple[Held, Verdict]]:
        """What is held no longer, and the verdict on each."""
        self._meet(worker, device)
        if worker is None:
            self._settled = {key: self._settled.get(key, UNCHECKED) for key in self._held}
        for key, held in self._held.items():
            if held.until > now:
                break
            self._settled.setdefault(key, UNCHECKED)
        settled, self._settled = self._settled, {}
        return [(self._let_go(key), verdict) for key, verdict in settled.items()]

    def ask(self, worker: Worker | None, now: Micros) -> None:
        """Ask about the next sequence, if there is one, and the worker has answered for the last."""
        if worker is None:
            return
        if self._question is not None and now >= self._question.until:
            self._ledger.add(Tell(worker.peer, orders.StopRun(token=self._question.token)))
            self._question = None
        if self._question is not None or not self._lines:
            return
        if self._served in self._lines:
            # It has its next turn after all others.
            self._lines[self._served] = self._lines.pop(self._served)
        self._served, line = next(iter(self._lines.items()))
        held = self._held[next(iter(line))]
        self._question = _Question(self._new_id(), held.digest, worker.peer, now + PATIENCE)
        self._ledger.add(
            Tell(worker.peer, orders.CheckSequence(token=self._question.token, sequence=held.body.sequence))
        )

    def _meet(self, worker: Worker | None, device: Device | None) -> None:
        if worker is None:
            self._question = None
            return
        if self._source != (worker.instance, device):
            self._source = (worker.instance, device)
            self._question, self._verdicts, self._characters = None, {}, 0
        elif self._question is not None and self._question.peer != worker.peer:
            # It has made another connection, and what was under way on the last one is lost.
            self._question = None

    # --- the books ---

    def _let_go(self, key: _Key) -> Held:
        held = self._held.pop(key)
        wanted, line = self._wanted[held.digest], self._lines[held.uid]
        del wanted[key], line[key]
        self._sizes[held.uid] -= held.size
        if not wanted:
            del self._wanted[held.digest]
        if not line:
            del self._lines[held.uid], self._sizes[held.uid]
        return held

    def _remember(self, digest: bytes, verdict: Verdict) -> None:
        self._verdicts[digest] = verdict
        self._characters += len(verdict.error)
        while len(self._verdicts) > _VERDICTS or self._characters > _CHARACTERS:
            oldest = next(iter(self._verdicts))
            self._characters -= len(self._verdicts.pop(oldest).error)


def _digest(sequence: str) -> bytes:
    return hashlib.sha256(sequence.encode()).digest()


class _Limits(msgspec.Struct):
    max_runs: int | None = None


def check_runs(device: Device | None, shots: int) -> None:
    """Whether the device takes so many shots of a sequence: Pulser says so of a device, and not of a sequence.

    Raises:
        BadRequestError: It does not.
    """
    try:
        most = None if device is None else msgspec.json.decode(device.specs, type=_Limits).max_runs
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        # Whatever a worker says of its device, tasks do not fail by it.
        most = None
    if most is not None and shots > most:
        raise BadRequestError(
            f"{shots} shots are more than the maximum allowed by the device ({most} runs): send them as several tasks"
        )
