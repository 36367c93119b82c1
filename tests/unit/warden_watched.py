"""The core's machine under watch: what its states were, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warden_machine import Machine, Qpu

from warden.events import Keep, Tick
from warden.model import Session, Task
from warden.states import LIVES, QPU, SESSION, TASK, session_status

if TYPE_CHECKING:
    import enum

    from warden.events import Event
    from warden.states import Lives

Step = tuple["enum.StrEnum | None", "enum.StrEnum"]


class Watched(Machine):
    """A machine that writes down each change of a state, of what is kept and of what the QPU is said to be."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self.steps: dict[str, list[Step]] = {lives.name: [] for lives in LIVES}
        self._states: dict[tuple[str, object], enum.StrEnum] = {}
        super().__init__(*args, **settings)

    def send(self, event: Event) -> list[Any]:
        effects = super().send(event)
        for effect in effects:
            match effect:
                case Keep(what=Task() as task):
                    self._see(TASK, task.id, task.status)
                case Keep(what=Session() as session):
                    self._see(SESSION, session.id, session_status(session))
                case _:
                    pass
        self._see(QPU, "", self.core.availability(self.now).state)
        return effects

    def restart(self) -> None:
        self._states.pop((QPU.name, ""), None)
        super().restart()

    def _see(self, lives: Lives, which: object, now: enum.StrEnum) -> None:
        before = self._states.get((lives.name, which))
        if before is not now:
            self.steps[lives.name].append((before, now))
        self._states[lives.name, which] = now


def ready(*args: Any, **settings: Any) -> tuple[Watched, Qpu]:
    machine = Watched(*args, **settings)
    machine.send(Tick())
    return machine, Qpu(machine)
