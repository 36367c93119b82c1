"""Who may do what: the one table. Pure; `trust` finds out who speaks, this decides what that allows."""

from __future__ import annotations

import enum

from warden import wire
from warden.model import ForbiddenError, UnauthenticatedError

ROOT = 0


class Who(enum.Enum):
    """Those that the table tells apart."""

    ANYBODY = "anybody"
    USER = "a user that we know"
    OWNER = "the owner or an operator"
    SCHEDULER = "the scheduler's hooks (root)"
    OPERATOR = "an operator"


TABLE: dict[type[wire.Message], Who] = {
    wire.GetAvailability: Who.ANYBODY,
    wire.GetPlan: Who.ANYBODY,
    wire.GetHistory: Who.ANYBODY,
    wire.GetTarget: Who.ANYBODY,
    wire.Acquire: Who.USER,  # a new session: SCHEDULER only; the owner finds the one that the job has
    wire.Release: Who.OWNER,
    wire.Renew: Who.SCHEDULER,
    wire.TaskStart: Who.OWNER,  # and no operator: the core looks at it
    wire.GetTask: Who.OWNER,
    wire.TaskStop: Who.OWNER,
    wire.ListTasks: Who.USER,  # one's own; everybody's: OPERATOR
    wire.ListSessions: Who.USER,
    wire.AddWindow: Who.OPERATOR,
    wire.MoveWindow: Who.OPERATOR,
    wire.CancelWindow: Who.OPERATOR,
    wire.Resume: Who.OPERATOR,
}


def check(body: wire.Message, uid: int | None, operators: frozenset[int]) -> None:
    """Let the message pass, or say why not. Ownership is checked where the owner is known.

    Raises:
        UnauthenticatedError: It needs a user, and nobody has said who speaks.
        ForbiddenError: This user may not.
    """
    who = TABLE[type(body)]
    if who is Who.ANYBODY:
        return
    if uid is None:
        raise UnauthenticatedError("say who you are first: this needs a MUNGE credential")
    if who is Who.SCHEDULER and uid != ROOT:
        raise ForbiddenError("only the scheduler's hooks, as root, may do this")
    if who is Who.OPERATOR and not is_operator(uid, operators):
        raise ForbiddenError("only operators may do this: ask those whom access.operators of the configuration names")


def is_operator(uid: int | None, operators: frozenset[int]) -> bool:
    return uid is not None and (uid == ROOT or uid in operators)
