"""A broker's turns without their sockets and their clock: events in, one commit, and then what is to be sent.

A turn takes in what has come, lets the core decide, and writes everything with one commit before anything is sent. So
an answer never tells of anything that a crash could undo, however many clients share the commit.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from warden import frames, journal, orders
from warden.core import Core
from warden.events import Answer, Asked, Door, Enrolled, Garbled, Note, Refuse, Reported, Started, Stepped, Tell
from warden.model import UnavailableError, WardenError
from warden.store import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from warden.calibration import Calendar
    from warden.events import Effect, Event, Settings
    from warden.model import Micros
    from warden.store import Store

log = logging.getLogger("warden.broker")

# Of what a worker says that nobody understands, so much is told.
_QUOTED = 500


class Outgoing(msgspec.Struct, frozen=True):
    """A message to be sent."""

    door: Door
    peer: bytes
    frame: bytes


class Engine:
    """The core and its store."""

    def __init__(self, settings: Settings, calendar: Calendar, store: Store, new_id: Callable[[], str]) -> None:
        """Go on with what the store remembers.

        Raises:
            StoreError: It cannot be read.
        """
        self._settings, self._calendar, self._store, self._new_id = settings, calendar, store, new_id
        self._failing = False
        self._owed: list[Event] = []
        # Requests whose answer waits for something, by identity: a repeated one is another one.
        self._waiting: dict[int, Asked] = {}
        self._trouble = ""
        self._troubled_since: Micros = 0
        self._core = self._remembered()

    @property
    def failing(self) -> bool:
        """Whether nothing of the last turn could be kept."""
        return self._failing

    @property
    def troubled(self) -> bool:
        """Whether the disk was failing when it was last asked."""
        return bool(self._trouble)

    def next_wakeup(self, now: Micros) -> Micros | None:
        """When a turn is due even if nothing comes in; None while failing, when what is due stays due for ever."""
        return None if self._failing else self._core.next_wakeup(now)

    def turn(self, events: Sequence[Event], now: Micros) -> list[Outgoing]:
        """Take in events of one moment, and return what is to be sent now that their effects are on disk.

        Raises:
            StoreError: The store can be neither written nor read.
        """
        if self._trouble:
            self._troubled_since += sum(event.by for event in events if isinstance(event, Stepped))
            self._probe(now)
        # What was set of the clock comes first: all others are told the time that it shows since.
        events = sorted([*self._owed, *events], key=lambda event: not isinstance(event, Stepped))
        self._owed = []
        effects: list[Effect] = []
        try:
            self._store.begin()
            for event in events:
                produced = self._core.handle(event, now)
                self._store.apply(produced)
                effects += produced
            self._store.commit()
        except StoreError as error:
            if not self._trouble:
                log.error("the store cannot be written: %s", error)  # noqa: TRY400 - the disk is at fault, no code
                self._troubled_since = now
            self._trouble = f"its store cannot be written: {error}"
            # Nobody says these again, as clients and workers do.
            self._owed = [event for event in events if isinstance(event, Started | Stepped | Enrolled)]
            return self._forget(events, f"the broker cannot write its store ({error})")
        except Exception:
            log.exception("a bug of the broker: %s", ", ".join(type(event).__name__ for event in events))
            # Only the event that hits it shall suffer: the others get turns of their own.
            alone = len(events) == 1
            sent = self._forget(events if alone else [], "this request hits a bug of the broker, see its log")
            return sent + [outgoing for event in events if not alone for outgoing in self.turn([event], now)]
        self._failing = False
        for event in events:
            if isinstance(event, Enrolled):
                # A core that has to be made anew begins with them.
                self._settings = msgspec.structs.replace(self._settings, members=event.members)
        self._waiting |= {id(event): event for event in events if isinstance(event, Asked)}
        for effect in effects:
            if isinstance(effect, Answer | Refuse):
                self._waiting.pop(id(effect.to), None)
        # The worker first: it begins while the clients are told.
        effects.sort(key=lambda effect: not isinstance(effect, Tell))
        return [outgoing for effect in effects for outgoing in self._carried_out(effect)]

    def _probe(self, now: Micros) -> None:
        """Turns without anything to write succeed on a full disk, too: ask it, until it is well again."""
        try:
            self._store.probe()
            self._trouble = self._core.trouble = ""
            log.warning("the store can be written again")
            # Renewals were refused meanwhile.
            self._owed.append(Started(away=max(0, now - self._troubled_since)))
        except StoreError:
            self._store.rollback()

    def _forget(self, events: Sequence[Event], why: str) -> list[Outgoing]:
        """Nothing of this turn is on disk, so nothing of it has happened: go on from what is on disk."""
        self._failing = True
        self._store.rollback()
        self._core = self._remembered()
        sorry = UnavailableError(f"{why}: nothing was accepted, try again later")
        # Nobody remembers those either who asked before and wait.
        asked = [*self._waiting.values(), *(event for event in events if isinstance(event, Asked))]
        self._waiting = {}
        return [outgoing for event in asked for outgoing in self._carried_out(Refuse(event, sorry))]

    def _carried_out(self, effect: Effect) -> list[Outgoing]:
        match effect:
            case Answer(to=asked) | Refuse(to=asked):
                return [Outgoing(asked.door, asked.peer, _packed(effect))]
            case Tell(peer=peer, body=orders.StartRun() as run):
                try:
                    run = msgspec.structs.replace(run, sequence=self._store.sequence(run.task))
                except StoreError as error:
                    # The worker will show that it has no run, and the run will be repeated.
                    log.error("task %s: the store cannot be read: %s", run.task, error)  # noqa: TRY400
                    return []
                return [Outgoing(Door.WORKERS, peer, frames.pack(run))]
            case Tell(peer=peer, body=body):
                return [Outgoing(Door.WORKERS, peer, frames.pack(body))]
            case Note(event=event, facts=facts, audit=audit):
                journal.write(journal.AUDIT if audit else log, event, facts)
        return []

    def _remembered(self) -> Core:
        core = Core(self._settings, self._calendar, self._store, self._new_id, self._store.remember())
        core.trouble = self._trouble
        return core


def _packed(effect: Answer | Refuse) -> bytes:
    """The answer as it travels. It has been decided and is on disk: that it cannot travel is told to who asked alone."""
    correlation = effect.to.correlation
    try:
        if isinstance(effect, Answer):
            return frames.pack_answer(correlation, effect.result)
        return frames.pack_refusal(correlation, effect.error)
    except Exception:
        log.exception("a bug of the broker: its answer to %s cannot be sent", type(effect.to.body).__name__)
        return frames.pack_refusal(
            correlation, WardenError("this request hits a bug of the broker, see its log: its answer cannot be sent")
        )


def read_request(peer: bytes, uid: int | None, frame: bytes, door: Door = Door.CLIENTS) -> Asked:
    """What a client asks; `refusal` is for what this raises.

    Raises:
        WardenError: It cannot be understood.
    """
    return Asked(peer, frames.correlation_of(frame), uid, frames.unpack_request(frame), door)


def refusal(frame: bytes, error: WardenError) -> bytes:
    """The answer to a request that gets no further, even if nobody understands it."""
    return frames.pack_refusal(frames.correlation_of(frame), error)


def read_report(peer: bytes, frame: bytes) -> Reported | Garbled:
    """What a worker says."""
    try:
        return Reported(peer, frames.unpack(frame, orders.FromWorker))
    except WardenError as error:
        log.warning("a worker sent what cannot be understood: %s", error)
        return Garbled(peer, " ".join(error.text[:_QUOTED].split()))
