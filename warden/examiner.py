"""The one sequence that a worker's emulator looks at, beside whatever run is on: `checks` is the broker's side. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from warden import orders
from warden.actions import Check, Dismiss, Failure, Send
from warden.model import SECOND

if TYPE_CHECKING:
    from warden.actions import Action
    from warden.model import Micros

# So long a check may take, however busy the machine is; the broker waits a little longer.
CHECK = 6 * SECOND


class Examiner:
    """Says of each sequence what the emulator says, or that it was not done in time."""

    def __init__(self, instance: str) -> None:
        self._instance = instance
        # What is being checked, and until when.
        self._check: tuple[str, Micros] | None = None

    def times(self) -> list[Micros]:
        return [] if self._check is None else [self._check[1]]

    def begin(self, check: orders.CheckSequence, now: Micros) -> list[Action]:
        """The broker asks about a sequence."""
        if self._check is not None and self._check[0] == check.token:
            return []
        # It has given up the one that we have.
        given_up = self._dismissed()
        self._check = (check.token, now + CHECK)
        return [*given_up, Check(check)]

    def stop(self, token: str) -> list[Action]:
        """Whatever has this token is not wanted any more."""
        return self._dismissed() if self._check is not None and self._check[0] == token else []

    def checked(self, token: str, outcome: Micros | Failure) -> list[Action]:
        """The emulator is done."""
        if self._check is None or self._check[0] != token:
            return []
        self._check = None
        return [self._verdict(token, outcome)]

    def tick(self, now: Micros) -> list[Action]:
        """What takes too long keeps no other sequence from being looked at; whether it is at fault is not known here."""
        if self._check is None or now < self._check[1]:
            return []
        token, why = self._check[0], f"it could not be checked within {CHECK // SECOND} s"
        return [*self._dismissed(), self._verdict(token, Failure(why, "device"))]

    def _dismissed(self) -> list[Action]:
        given_up: list[Action] = [] if self._check is None else [Dismiss()]
        self._check = None
        return given_up

    def _verdict(self, token: str, outcome: Micros | Failure) -> Send:
        said = orders.SequenceChecked(instance=self._instance, token=token)
        if isinstance(outcome, Failure):
            return Send(replace(said, error=outcome.text, fault=outcome.fault))
        return Send(replace(said, preparation=outcome))
