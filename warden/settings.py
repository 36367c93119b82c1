"""The configuration as the core takes it: plain numbers, user names as uids. The one place where the two meet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from warden import roster
from warden.events import Class, Settings

if TYPE_CHECKING:
    from warden.config import Config
    from warden.sections import ClassSection


def settings(config: Config) -> Settings:
    """What the core needs of the configuration.

    Raises:
        ConfigurationError: It names a user that is not there.
    """
    return Settings(
        name=config.qpu.name,
        places=config.qpu.places,
        qubits=config.qpu.qubits,
        timing=config.timing,
        heartbeat=int(config.broker.heartbeat),
        members=roster.members(config.access),
        longest_run=int(config.qpu.longest_run),
        failures=config.qpu.failures,
        retry=int(config.qpu.retry),
        lease=int(config.session.lease),
        unseen=max(int(config.session.unseen), int(config.session.lease)),
        fair=config.policy.order == "fair",
        half_life=int(config.policy.half_life),
        longest_wait=int(config.policy.longest_wait),
        classes=tuple(_class(section, config) for section in config.classes),
        max_shots=config.limits.shots,
        max_sequence=config.limits.sequence_bytes,
        max_queued=config.limits.queued,
        max_queued_per_user=config.limits.queued_per_user,
        max_sessions_per_user=config.limits.sessions_per_user,
        keep=int(config.limits.keep),
    )


def _class(section: ClassSection, config: Config) -> Class:
    qpu_time = config.session.max_qpu_time if section.max_qpu_time is None else section.max_qpu_time
    return Class(
        name=section.name,
        uids=roster.uids(section.users, f"class {section.name}"),
        queues=frozenset(section.queues),
        projects=frozenset(section.projects),
        max_shots=config.session.max_shots if section.max_shots is None else section.max_shots,
        max_qpu_time=None if qpu_time is None else int(qpu_time),
    )
