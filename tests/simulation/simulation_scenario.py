"""What a seed makes of a site: its settings, its calendar, its people and how much goes wrong there."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from simulation_world import EPOCH

from warden.authority import Members
from warden.calibration import Calendar, QualityRule, Rule, ShotRule
from warden.events import Class, Settings
from warden.model import SECOND
from warden.qpu.timing import Timing

if TYPE_CHECKING:
    import random

    from simulation_world import World

    from warden.model import Micros

ROOT, OPERATOR = 0, 900
USERS = (1001, 1002, 1003, 1004)
STRANGER = 1666
DEVICE = "AnalogDevice"
QUBITS = 4


@dataclasses.dataclass(frozen=True)
class Chaos:
    """How likely things go wrong; 0 is never. Per message, per turn, or as a mean time between two, in microseconds."""

    lost: float = 0.0
    late: float = 0.0
    latest: Micros = 0
    doubled: float = 0.0
    """Beyond what ZeroMQ does: single messages come twice, and overtake each other."""
    cut: Micros = 0
    kill: float = 0.0
    disk: float = 0.0
    outage: Micros = 0
    """Mean time between two stretches in which the disk is full or failing."""
    worker: Micros = 0
    client: float = 0.0
    host: float = 0.0
    clock: Micros = 0
    device: float = 0.0
    """A run on which the device misbehaves."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    settings: Settings
    calendar: Calendar
    chaos: Chaos
    users: tuple[int, ...]
    jobs: int
    busy: Micros
    """How long things go wrong and jobs arrive."""
    operators: Micros
    """Mean time between two deeds of an operator."""
    hosts: int
    standby: bool
    """Whether a second worker waits for the place of the first."""
    lasting: Micros
    """So long after a calibration the quality has fallen to nothing; 0: the QPU says nothing of it."""


def _seconds(chance: random.Random, least: float, most: float) -> Micros:
    return round(chance.uniform(least, most) * SECOND)


def scenario(world: World) -> Scenario:
    chance = world.chance("scenario")
    heartbeat = chance.choice((3, 5, 10, 10)) * SECOND
    # A site where everything fails at once hides what fails alone: some seeds have one kind of fault, some have all.
    kinds = ("messages", "crashes", "disk", "worker", "clients", "clock", "device", "doubles")
    style = chance.random()
    on = set(kinds) if style < 0.3 else set() if style < 0.4 else {k for k in kinds if chance.random() < 0.4}
    if style < 0.3 and chance.random() < 0.6:
        on.discard("doubles")
    chaos = Chaos(
        lost=chance.choice((0.01, 0.05, 0.15)) if "messages" in on else 0.0,
        late=chance.choice((0.01, 0.1)) if "messages" in on else 0.0,
        latest=_seconds(chance, 1, 20),
        cut=_seconds(chance, 30, 300) if "messages" in on else 0,
        doubled=chance.choice((0.02, 0.1)) if "doubles" in on else 0.0,
        kill=chance.choice((0.005, 0.02, 0.05)) if "crashes" in on else 0.0,
        disk=chance.choice((0.01, 0.05)) if "disk" in on else 0.0,
        outage=_seconds(chance, 100, 400) if "disk" in on else 0,
        worker=_seconds(chance, 60, 400) if "worker" in on else 0,
        client=chance.choice((0.02, 0.1)) if "clients" in on else 0.0,
        host=chance.choice((0.1, 0.4)) if "clients" in on else 0.0,
        clock=_seconds(chance, 60, 400) if "clock" in on else 0,
        device=chance.choice((0.1, 0.3, 0.8)) if "device" in on else 0.0,
    )
    rate = chance.choice((0.0, 1.0, 2.5, 10.0, 33.3))
    more = world.chance("timing")
    timing = Timing(
        overhead=_seconds(chance, 0, 3),
        loading=_seconds(more, 0, 1),
        shot_rate=rate,
        rearrangement=_seconds(more, 0, 0.02),
        time_scale=more.choice((1.0, 1.0, 1.5)),
    )
    return Scenario(
        settings=_settings(chance, heartbeat, timing),
        calendar=_calendar(chance, world.chance("quality")),
        chaos=chaos,
        users=USERS[: chance.randint(2, len(USERS))],
        jobs=chance.randint(5, 14),
        busy=_seconds(chance, 200, 500),
        operators=_seconds(chance, 60, 300) if chance.random() < 0.6 else 0,
        hosts=chance.randint(1, 3),
        # A worker that lives and is not heard of for so long that its run is given to another may be at it still.
        lasting=world.chance("lasting").choice((0, 200, 2000)) * SECOND,
        standby=not ({"messages", "worker", "device"} & on) and chance.random() < 0.5,
    )


def _settings(chance: random.Random, heartbeat: Micros, timing: Timing) -> Settings:
    lease = _seconds(chance, 40, 200)
    classes = (
        Class(name="urgent", uids=frozenset({1001}), queues=frozenset({"urgent.q"})),
        Class(
            name="production",
            projects=frozenset({"chem"}),
            queues=frozenset({"prod.q"}),
            max_shots=chance.choice((None, 300)),
            max_qpu_time=chance.choice((None, 60 * SECOND)),
        ),
        Class(name="rest"),
    )[chance.choice((0, 0, 1, 2)) :]
    return Settings(
        name="fresnel",
        places=chance.randint(1, 5),
        qubits=QUBITS,
        timing=timing,
        heartbeat=heartbeat,
        members=Members(operators=frozenset({OPERATOR})),
        longest_run=_seconds(chance, 10, 90),
        failures=chance.randint(2, 4),
        retry=_seconds(chance, 10, 60),
        lease=lease,
        unseen=lease * chance.randint(1, 4),
        fair=chance.random() < 0.75,
        half_life=_seconds(chance, 30, 2000),
        longest_wait=_seconds(chance, 20, 300),
        classes=classes,
        max_shots=chance.choice((100, 250)),
        max_sequence=4000,
        max_queued=chance.randint(4, 30),
        max_queued_per_user=chance.randint(2, 10),
        max_sessions_per_user=chance.randint(1, 4),
        keep=chance.choice((300, 86_400, 86_400)) * SECOND,
    )


def _calendar(chance: random.Random, more: random.Random) -> Calendar:
    rules = []
    for number in range(chance.choice((0, 1, 1, 2, 3))):
        # Numbers with a small common multiple: the core looks at all of a calendar's period when it starts.
        every = chance.choice((80, 120, 160, 200, 240, 400))
        rules.append(
            Rule(
                every=every * SECOND,
                duration=chance.randint(1, every // 3) * SECOND,
                offset=EPOCH + chance.randint(0, 400) * SECOND,
                reason=f"rule {number}",
                make_up=chance.random() < 0.5,
            )
        )
    shots = ()
    if chance.random() < 0.4:
        shots = (ShotRule(after_shots=chance.randint(100, 600), duration=_seconds(chance, 2, 20)),)
    quality = ()
    if more.random() < 0.4:
        at_least = _seconds(more, 10, 200)
        quality = (QualityRule(below=more.uniform(0.5, 0.95), duration=_seconds(more, 2, 40), at_least=at_least),)
    return Calendar(rules=tuple(rules), shot_rules=shots, quality_rules=quality)
