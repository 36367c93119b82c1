"""Who asked what, and what was answered: one answer for each request that was taken in, and for nothing else."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, Any

from simulation_scenario import OPERATOR, ROOT
from simulation_worker import REFUSAL
from simulation_world import ViolationError

from warden import frames, wire
from warden.checks import PATIENCE
from warden.events import Asked, Door
from warden.model import Session, Task, WardenError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from simulation_account import Account

    from warden.engine import Outgoing
    from warden.model import Micros

_Request = tuple[bytes, int]
# So often in a row a suspended session may be seen otherwise.
_UNHEARD = 3


class Answers:
    def __init__(self, account: Account) -> None:
        self._account = account
        self._open: dict[_Request, list[tuple[Asked, Micros]]] = collections.defaultdict(list)
        self._unheard: collections.Counter[str] = collections.Counter()
        self.refused: collections.Counter[str] = collections.Counter()
        self.answered: collections.Counter[str] = collections.Counter()

    def forget(self) -> None:
        """The broker was killed: whoever waited asks again."""
        self._open.clear()

    def take(self, turn: Sequence[Any], now: Micros) -> None:
        step = next((event.by for event in turn if type(event).__name__ == "Stepped"), 0)
        if step:
            for waiting in self._open.values():
                waiting[:] = [(asked, until + step) for asked, until in waiting]
        for event in turn:
            if isinstance(event, Asked):
                until = now
                if isinstance(event.body, wire.GetTask):
                    until += event.body.wait
                elif isinstance(event.body, wire.TaskStart):
                    # The worker may be asked about its sequence first.
                    until += PATIENCE
                self._open[event.peer, event.correlation].append((event, until))

    def given(self, sent: Sequence[Outgoing], now: Micros, true_now: Micros, *, kept: bool) -> None:
        """Match the turn's answers with the requests; `kept`: whether the turn was committed."""
        for outgoing in sent:
            if outgoing.door is Door.CLIENTS:
                correlation, result = frames.unpack_answer(outgoing.frame)
                waiting = self._open.get((outgoing.peer, correlation))
                if not waiting:
                    raise ViolationError(f"8: {outgoing.peer!r} is answered and did not ask: {result}")
                asked, _ = waiting.pop(0)
                if not waiting:
                    del self._open[outgoing.peer, correlation]
                self._answered(asked, result, true_now, kept=kept)
        for waiting in self._open.values():
            for asked, until in waiting:
                if until <= now:
                    raise ViolationError(f"8: {asked} was not answered")

    def _answered(self, asked: Asked, result: Any, true_now: Micros, *, kept: bool) -> None:
        name = type(asked.body).__name__
        if isinstance(result, WardenError):
            self.refused[f"{name} {result.code}"] += 1
            if "bug" in result.text:
                raise ViolationError(f"8: {asked.body!r} hits a bug")
            if result.text.startswith(REFUSAL):
                self._refused(asked, result)
            return
        if not kept:
            raise ViolationError(f"3: {asked.body!r} is answered with {result}, and nothing was kept")
        self.answered[name] += 1
        self._private(asked, _shown(asked.body, result))
        account = self._account
        match asked.body:
            case wire.TaskStart(session=session, key=key):
                if account.books.keys.get((session, key)) != result["id"]:
                    raise ViolationError(f"6: {asked} was answered with {result}, which is not on disk under this key")
                account.acknowledged.add(result["id"])
            case wire.Acquire():
                if result["id"] not in account.books.open:
                    raise ViolationError(f"8: {asked} was answered with a session that is not on disk: {result}")
                account.vouched[result["id"]] = true_now
            case wire.Renew(jobs=jobs, suspended=suspended):
                renewed = [one for one in account.books.open.values() if one.job in jobs]
                account.vouched |= dict.fromkeys((one.id for one in renewed), true_now)
                self._suspended([one for one in renewed if one.job in suspended])
            case _:
                pass

    def _refused(self, asked: Asked, error: WardenError) -> None:
        """8: what is said to be the worker's word is."""
        qpu = self._account.qpu
        assert isinstance(asked.body, wire.TaskStart)
        assert qpu is not None
        if error.text not in qpu.verdicts.get(asked.body.sequence, set()):
            raise ViolationError(f"8: {asked.body!r} was refused ({error.text}), and no worker has said so")

    def _suspended(self, sessions: list[Session]) -> None:
        """7: what is said to be suspended is. Now and then the opposite is said in the same turn."""
        for one in sessions:
            self._unheard[one.id] = 0 if one.suspended else self._unheard[one.id] + 1
            if self._unheard[one.id] >= _UNHEARD:
                raise ViolationError(f"7: the broker was told that job {one.job} is suspended, and does not know it")

    @staticmethod
    def _private(asked: Asked, shown: Sequence[Task | Session]) -> None:
        if asked.uid in {ROOT, OPERATOR}:
            return
        for one in shown:
            if one.uid != asked.uid:
                raise ViolationError(f"8: {asked.uid} sees what is {one.uid}'s: {one}")


def _shown(body: wire.Message, result: Any) -> Sequence[Task | Session]:
    """The tasks and sessions in an answer, read as a client reads them."""
    match body:
        case wire.TaskStart() | wire.GetTask() | wire.TaskStop():
            return [frames.convert(result, Task)]
        case wire.Acquire() | wire.Release():
            return [frames.convert(result, Session)]
        case wire.ListTasks():
            return frames.convert(result, list[Task])
        case wire.ListSessions():
            return frames.convert(result, list[Session])
    return []
