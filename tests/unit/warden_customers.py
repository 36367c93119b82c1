"""Customers of a site who never stop: each knows what it was told, and that must stay so."""

from __future__ import annotations

import dataclasses
import random
import threading
import time
import traceback
import uuid

from warden_site import AFM, LIMIT, Site

from warden.client import Client
from warden.model import Task, UnavailableError, WaitTimeoutError

# Runs take 0.05 to 0.25 s: long enough to be hit in the middle, short enough that most of them end.
SHOT_RATE = 200.0
SHOTS = (10, 50)
HEARTBEAT = 0.1


@dataclasses.dataclass
class Told:
    """What a customer knows of a task: what was acknowledged must stay so."""

    session: str
    number: int
    shots: int
    key: str = ""
    counts: dict[str, int] | None = None


class Customer(threading.Thread):
    """Submits tasks and waits for them, over and over, as long as the gate is open."""

    # Tasks that it has at the broker at the same time.
    ahead = 2

    def __init__(self, site: Site, session: str, seed: str, gate: threading.Event) -> None:
        super().__init__(name=session, daemon=True)
        self.told: list[Told] = []
        self.error = ""
        self.submitting = False
        self.idle = False
        self._site, self._session, self._gate = site, session, gate
        self._random = random.Random(seed)
        self._ended = threading.Event()

    def stop(self) -> None:
        self._ended.set()

    def run(self) -> None:
        try:
            while not self._ended.is_set():
                self.idle = not self._gate.is_set()
                if self._gate.wait(0.05):
                    self.idle = False
                    # It may have been closed again by somebody who still saw us idle.
                    if self._gate.is_set():
                        self._round()
        except Exception:  # noqa: BLE001 - the test tells of it; a thread's own report nobody reads
            self.error = f"the customer of {self.name}: {traceback.format_exc()}"
        self.idle = True

    def _round(self) -> None:
        new: list[Told] = []
        for _ in range(self.ahead):
            self.submitting = True
            told = self._submit(self._random.randint(*SHOTS))
            self.submitting = False
            self.told.append(told)
            new.append(told)
        for told in new:
            self._wait(told)

    def _submit(self, shots: int) -> Told:
        raise NotImplementedError

    def _wait(self, told: Told) -> None:
        """As users do it, but with an eye on the end of the test."""
        end = time.monotonic() + LIMIT
        with self._site.resource(self._session) as resource:
            while not self._ended.is_set():
                try:
                    told.counts = resource.wait(str(told.number), 1.0)
                except WaitTimeoutError as error:
                    if time.monotonic() > end:
                        raise TimeoutError(f"task {told.number} did not end in {LIMIT} s: {error}") from None
                    continue
                return


class PatientCustomer(Customer):
    """Uses the library and nothing else: `task_start` itself asks again until it is answered."""

    def _submit(self, shots: int) -> Told:
        with self._site.resource(self._session) as resource:
            return Told(self._session, int(resource.task_start(AFM, shots)), shots)


class ImpatientCustomer(Customer):
    """Gives up after a moment, and asks again on a new connection with the same key; also when it has its answer."""

    def _submit(self, shots: int) -> Told:
        key = str(uuid.UUID(int=self._random.getrandbits(128)))
        task = self._insist(key, shots)
        if self._random.random() < 0.5:
            again = self._insist(key, shots)
            assert again.id == task.id, f"key {key} is task {task.id}, and task {again.id} when it is asked again"
        return Told(self._session, task.id, shots, key)

    def _insist(self, key: str, shots: int) -> Task:
        end = time.monotonic() + LIMIT
        while True:
            with Client(config=self._site.config, timeout=self._random.uniform(0.2, 0.8)) as client:
                try:
                    return ask_with_key(client, self._session, key, shots)
                except UnavailableError:
                    if time.monotonic() > end or self._ended.is_set():
                        raise


def ask_with_key(client: Client, session: str, key: str, shots: int) -> Task:
    """`Client.task_start` makes a key of its own; the wire has it as a field."""
    return client.task_start(session, AFM, shots, key=key)
