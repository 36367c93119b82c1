"""Who may do what: the one table. Pure; `trust` finds out who speaks, this decides what that allows."""

from __future__ import annotations

import enum

import msgspec

from warden import orders, wire
from warden.model import ForbiddenError, RestrictedError, UnauthenticatedError

ROOT = 0


class Members(msgspec.Struct, frozen=True):
    """Uids of the operators (root is one in any case), and of those who may use the QPU; None: everybody."""

    operators: frozenset[int] = frozenset()
    users: frozenset[int] | None = None


class Who(enum.Enum):
    """Those that the table tells apart."""

    ANYBODY = "anybody"
    USER = "any user"
    OWNER = "its owner"
    OWNER_OR_OPERATOR = "its owner, or an operator"
    SCHEDULER = "the scheduler's hooks: root on an execution host"
    OPERATOR = "an operator"
    WORKER = "a worker with a registered key"


class Rule(msgspec.Struct, frozen=True):
    """Who may say a message, and what it does for whom."""

    who: Who
    remark: str


TABLE: dict[type[wire.Message], Rule] = {
    wire.Hello: Rule(Who.ANYBODY, "proves which user speaks on this connection"),
    wire.GetAvailability: Rule(Who.ANYBODY, "state, reason, places, how many tasks wait"),
    wire.GetPlan: Rule(Who.ANYBODY, "the windows to come"),
    wire.GetHistory: Rule(Who.ANYBODY, "the windows that were"),
    wire.GetCalibrations: Rule(Who.ANYBODY, "what calibrations found"),
    wire.GetQuality: Rule(Who.ANYBODY, "how good the QPU was"),
    wire.GetTarget: Rule(Who.ANYBODY, "the device"),
    wire.Acquire: Rule(
        Who.USER, "finds the session of one's own job; a new one comes from the scheduler's hooks alone"
    ),
    wire.Release: Rule(Who.OWNER_OR_OPERATOR, "ends the session and cancels its tasks"),
    wire.Renew: Rule(Who.SCHEDULER, "the execution host still sees these jobs"),
    wire.ListHosts: Rule(Who.OPERATOR, "load sensors: when they were heard, their clocks, versions and trouble"),
    wire.Part: Rule(Who.USER, "of a large sequence, for one's own next task"),
    wire.TaskStart: Rule(Who.OWNER, "in a session of one's own; operators too, in their own alone"),
    wire.GetTask: Rule(Who.OWNER_OR_OPERATOR, "status, log, and counts"),
    wire.GetBitstrings: Rule(Who.OWNER_OR_OPERATOR, "the shots in their order, once the task is completed"),
    wire.TaskStop: Rule(Who.OWNER_OR_OPERATOR, ""),
    wire.ListTasks: Rule(Who.USER, "one's own; everybody's: operators"),
    wire.ListSessions: Rule(Who.USER, "one's own; everybody's: operators"),
    wire.AddWindow: Rule(Who.OPERATOR, "drain, and calibrations"),
    wire.MoveWindow: Rule(Who.OPERATOR, ""),
    wire.CancelWindow: Rule(Who.OPERATOR, ""),
    wire.Resume: Rule(Who.OPERATOR, "after a drain, or after failures"),
    orders.WorkerHello: Rule(Who.WORKER, ""),
    orders.WorkerBeat: Rule(Who.WORKER, ""),
    orders.RunFinished: Rule(Who.WORKER, "of a run that was given to it, under its token"),
    orders.SequenceChecked: Rule(Who.WORKER, "of a sequence that it was asked about"),
    orders.CalibrationFinished: Rule(Who.WORKER, "of a calibration that it was told to carry out, under its token"),
}


ROUTES: dict[str, tuple[type[wire.Message], ...]] = {
    "GET /": (),
    "GET /accessible": (wire.GetAvailability,),
    "POST /accessible": (wire.AddWindow, wire.Resume),
    "POST /sessions": (wire.Acquire,),
    "DELETE /sessions/{session}": (wire.Release,),
    "POST /jobs": (wire.TaskStart,),
    "GET /jobs": (wire.ListTasks,),
    "GET /jobs/{number}": (wire.GetTask,),
    "POST /jobs/{number}/cancel": (wire.TaskStop,),
    "GET /jobs/{number}/logs": (wire.GetTask,),
    "GET /qpu/specs": (wire.GetTarget,),
}
"""What each route of the HTTP edge says to the broker, for the user of its credential: the rules above hold for it."""
OPEN_ROUTES = frozenset({"GET /", "GET /accessible"})
"""Those that need no credential, as QRMI's clients show none."""


def check(body: wire.Message, uid: int | None, members: Members) -> None:
    """Let the message pass, or say why not. Ownership is checked where the owner is known.

    Raises:
        UnauthenticatedError: It needs a user, and nobody has said who speaks.
        ForbiddenError: This user may not.
    """
    who = TABLE[type(body)].who
    if who is Who.WORKER:
        raise ForbiddenError("only a QPU's worker may say this, and at another address")
    if who is Who.ANYBODY:
        return
    if uid is None:
        raise UnauthenticatedError("say who you are first: this needs a MUNGE credential")
    if who is Who.SCHEDULER and uid != ROOT:
        raise RestrictedError("only the scheduler's hooks, as root, may do this")
    if who is Who.OPERATOR and not is_operator(uid, members):
        raise RestrictedError(
            "only operators may do this: access.operators and access.operator_groups of the configuration name them"
        )


def is_operator(uid: int | None, members: Members) -> bool:
    return uid is not None and (uid == ROOT or uid in members.operators)


def check_user(uid: int, members: Members, name: str) -> None:
    """Whether jobs and tasks of this user may use the QPU.

    Raises:
        ForbiddenError: They may not.
    """
    if members.users is not None and uid not in members.users:
        raise ForbiddenError(
            f"user {uid} may not use the QPU {name}: its operator knows who may (access.users and access.groups)"
        )
