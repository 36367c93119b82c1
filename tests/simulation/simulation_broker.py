"""The broker's host: its process, which may be killed at any step of a turn, its disk, and its clock.

What the process does with its engine is what `warden.broker` does, without sockets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from simulation_answers import Answers
from simulation_store import Disk, KilledError, WatchedStore
from simulation_windows import closing, next_opening
from simulation_world import EPOCH, ViolationError

from warden import engine, events, frames, orders, wire
from warden.engine import Engine, Outgoing
from warden.events import Asked, Door, Garbled, Tick
from warden.model import SECOND, Session, Task, TaskStatus, UnauthenticatedError, WardenError
from warden.store import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from simulation_account import Account
    from simulation_network import Network
    from simulation_scenario import Scenario
    from simulation_world import World

    from warden.model import Micros

MILLISECOND = 1000
_STEPS = ("begin", "apply", "applied", "commit", "committed", "sent")
# Turns without any time between them; a broker that wants more turns in circles.
_TURNS = 50


class BrokerHost:
    def __init__(
        self, world: World, scenario: Scenario, network: Network, account: Account, folder: Path, template: Path
    ) -> None:
        self.world, self._scenario, self._network, self._account = world, scenario, network, account
        self._chance = world.chance("broker")
        self._disk = Disk(folder, template)
        self.offset: Micros = EPOCH
        self._shown: Micros = EPOCH
        self.store: WatchedStore | None = None
        self.engine: Engine | None = None
        self._users: dict[str, int] = {}
        self._inbox: list[tuple[str, bytes, str, bytes]] = []
        self._due = False
        self._woken = 0
        self._turns_now = (0, 0)
        self._started = False
        self._garbled = False
        self.answers = Answers(account)
        self.calm = False
        self.outage = ""
        self.events = self.kills = self.failed = self.starts = 0
        self._dying: str | None = None

    @property
    def clock(self) -> Micros:
        return self.world.now + self.offset

    # --- its life ---

    def start(self) -> None:
        """The service manager starts it; while the disk fails it cannot come up, and is started again later."""
        if self.engine is not None:
            return
        account = self._account
        self.store = WatchedStore(self._disk.path, account, lambda: self.clock)
        self.check()
        self.store.fail = self._fail
        try:
            self.engine = Engine(self._scenario.settings, self._scenario.calendar, self.store, self.world.new_id)
        except StoreError:
            self.store.close()
            self.world.after(5 * SECOND, self.start)
            return
        self.starts += 1
        if self.outage == "full":
            self.store.fill(full=True)
        account.judge.forgotten()
        self._shown, self._started, self._inbox = self.offset, True, []
        self.world.log("broker", "starts")
        self._soon()

    def kill(self) -> None:
        """Between two turns, or in the middle of one."""
        if self.engine is None or self.store is None:
            return
        self.kills += 1
        self.world.log("broker", "is killed")
        self._account.rollback()
        self._disk.crash()
        self.store.fail = lambda _: None
        self.store.close()
        self._disk.forget_old()
        self.engine, self.store, self._users, self._inbox = None, None, {}, []
        self.answers.forget()
        self._network.cut_all()
        wait = self._chance.choice((1, 3, 10, 60)) * SECOND
        self.world.after(self._chance.randint(MILLISECOND, wait), self.start)

    def close(self) -> None:
        if self.store is not None:
            self.store.close()

    def step_clock(self, by: Micros) -> None:
        self.world.log("broker", "clock", f"{by / SECOND:+.6f}")
        self.offset += by

    def set_outage(self, kind: str) -> None:
        """`full`, `failing`, or nothing: the disk is well again."""
        self.outage = kind
        if self.store is not None:
            self.store.fill(full=kind == "full")

    def check(self) -> None:
        """Compare what is on disk with the account."""
        assert self.store is not None
        tasks, sessions = (
            self.store._read(kind, f"SELECT record FROM {table}")
            for kind, table in ((Task, "tasks"), (Session, "sessions"))
        )
        self._account.compare(tasks, sessions)

    # --- faults ---

    def _fail(self, step: str) -> None:
        if self._dying == step:
            raise KilledError
        if self.calm or step in {"committed", "sent"}:
            return
        chance = self._scenario.chaos.disk
        if self.outage == "failing":
            chance = 0.5
        if chance and step != "applied" and self._chance.random() < chance / 3:
            raise StoreError(f"disk I/O error at {step}")

    # --- its turns ---

    def arrive(self, door: str, peer: bytes, key: str, frame: bytes) -> None:
        if self.engine is not None:
            self._inbox.append((door, peer, key, frame))
            self._soon()

    def _soon(self) -> None:
        """Poll returns; a busy host lets some more come in until then."""
        if not self._due:
            self._due = True
            self.world.after(self._chance.choice((0, 0, 1, 5)) * MILLISECOND, self._turn)

    def _wake(self, number: int) -> None:
        if number == self._woken and self.engine is not None:
            self._turn()

    def _turn(self) -> None:
        self._due = False
        if self.engine is None:
            return
        chaos = self._scenario.chaos
        self._dying = None
        if not self.calm and chaos.kill and self._chance.random() < chaos.kill:
            self._dying = self._chance.choice(_STEPS)
        self._circles()
        try:
            self._work(self.engine)
        except KilledError:
            self.kill()
            return
        except StoreError as error:
            # What cannot even be read ends the process; it is started again.
            self.world.log("broker", "gives up", str(error))
            self.kill()
            return
        self._sleep()

    def _work(self, broker: Engine) -> None:
        turn = self._read_all()
        now = self.clock
        self._garbled = any(isinstance(event, Garbled) for event in turn)
        for event in turn:
            self.world.log("broker", "<", event)
        self.answers.take(turn, now)
        self.events += len(turn)
        sent = broker.turn(turn, now)
        if broker.failing:
            self.failed += 1
            self._account.judge.forgotten()
            self.world.log("broker", "cannot keep this turn")
        elif not broker.troubled:
            self._passed(now)
        self.answers.given(sent, now, self.world.now, kept=not broker.failing)
        cut = self._chance.randrange(len(sent) + 1) if self._dying == "sent" else len(sent)
        for outgoing in sent[:cut]:
            self._send(outgoing)
        if self._dying == "sent":
            raise KilledError

    def _send(self, outgoing: Outgoing) -> None:
        door = "clients" if outgoing.door is Door.CLIENTS else "workers"
        if door == "workers":
            body = frames.unpack(outgoing.frame, orders.ToWorker)
            self.world.log("broker", ">", outgoing.peer, body)
            if isinstance(body, orders.StartRun):
                self._ordered(body)
            elif isinstance(body, orders.StartCalibration):
                self._calibrating(body)
        elif self.world.lines is not None:
            self.world.log("broker", ">", outgoing.peer, frames.unpack_answer(outgoing.frame))
        self._network.down(door, outgoing.peer, outgoing.frame)

    def _ordered(self, body: orders.StartRun) -> None:
        """4: what is sent to the QPU was committed before, with this token."""
        books, qpu = self._account.books, self._account.qpu
        task = books.tasks.get(books.tokens.get(body.token, 0))
        if task is None:
            raise ViolationError(f"4: {body} is ordered, and the store knows no such run")
        if (task.run is None or task.run.token != body.token) and not self._garbled:
            raise ViolationError(
                f"9: run {body.token} was given up in the turn in which it was ordered: {task.log[-3:]}"
            )
        if not body.sequence and task.status is not TaskStatus.CANCELLED:
            raise ViolationError(f"3: {body} is ordered without its sequence")
        if (body.at, body.calibration) != (task.at, task.calibration):
            raise ViolationError(f"4: {body} is not as task {task.id} began: {task}")
        assert qpu is not None
        opening = next_opening(self._scenario.calendar.rules, books.windows, self.clock)
        qpu.ordered(body, None if opening is None else opening - self.clock)

    def _calibrating(self, body: orders.StartCalibration) -> None:
        """2: a calibration is ordered in a window for it, for no longer than that, and was committed before."""
        books, qpu = self._account.books, self._account.qpu
        if books.commission is None or books.commission.token != body.token:
            raise ViolationError(f"4: {body} is ordered, and the store has {books.commission}")
        end = closing(self._scenario.calendar.rules, books.windows, self.clock)
        if end is None:
            raise ViolationError(f"2: {body} is ordered, and no window is open for it")
        assert qpu is not None
        qpu.ordered(body, end - self.clock)

    def _passed(self, now: Micros) -> None:
        """What must not be left over when a turn has been kept."""
        books = self._account.books
        for session in books.open.values():
            if session.expires <= now:
                raise ViolationError(f"5: {session} is open at {now}")
        opening = next_opening(self._scenario.calendar.rules, books.windows, now)
        for task in books.live.values():
            if task.run is not None and opening is not None and opening <= now and self._account.qpu is not None:
                self._account.qpu.blocked(task.run.token)
            deadline = getattr(task, "deadline", None)
            if deadline is not None and deadline <= now:
                raise ViolationError(f"9: task {task.id} is {task.status} at {now}, and its deadline was {deadline}")

    def _read_all(self) -> list[Any]:
        inbox, self._inbox = self._inbox, []
        turn: list[Any] = []
        if self._started:
            turn.append(events.Started())
        if self.offset != self._shown:
            turn.append(events.Stepped(self.offset - self._shown))
            self._account.steps += 1
            self._account.judge.shifted(self.offset - self._shown)
        self._started, self._shown = False, self.offset
        for door, peer, key, frame in inbox:
            if door == "workers":
                turn.append(engine.read_report(peer, frame))
            else:
                turn += self._read_request(peer, key, frame)
        return [*turn, Tick()]

    def _read_request(self, peer: bytes, key: str, frame: bytes) -> list[Asked]:
        try:
            asked = engine.read_request(peer, self._users.get(key), frame)
            if not isinstance(asked.body, wire.Hello):
                return [asked]
            self._network.down("clients", peer, frames.pack_answer(asked.correlation, self._hello(key, asked.body)))
        except WardenError as error:
            self._network.down("clients", peer, engine.refusal(frame, error))
        return []

    def _hello(self, key: str, hello: wire.Hello) -> wire.Greeting:
        uid, of, end = hello.credential.partition(":")
        if not of or end != key:
            raise UnauthenticatedError("this credential is not for this connection")
        self._users[key] = int(uid)
        return wire.Greeting(int(uid), self._scenario.settings.name)

    # --- its sleep ---

    def _sleep(self) -> None:
        assert self.engine is not None
        heartbeat = self._scenario.settings.heartbeat
        wakeup = self.engine.next_wakeup(self.clock)
        patience = heartbeat if wakeup is None else max(0, min(wakeup - self.clock, heartbeat))
        self._woken += 1
        # As poll does: whole milliseconds, and never too early.
        self.world.after((patience // MILLISECOND + 1) * MILLISECOND, self._wake, self._woken)

    def _circles(self) -> None:
        time, turns = self._turns_now
        self._turns_now = (self.world.now, turns + 1) if time == self.world.now else (self.world.now, 1)
        if turns > _TURNS and time == self.world.now:
            raise ViolationError("9: the broker turns in circles")
