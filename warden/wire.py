"""The wire: what clients may say to the broker, and it to them. Pure.

Messages are frozen structures that declare what their fields may hold: nothing unchecked reaches the core. `orders` has
those between broker and worker, `frames` what is around them all.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from warden.model import learn

# Bytes of a part, and of the largest message that a client may send.
PART, LARGEST = 64 * 1024, 128 * 1024
# Bytes of the shots of a task in their order, at most.
LARGEST_BITSTRINGS = 4 * 2**20

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Uid = Annotated[int, msgspec.Meta(ge=0, lt=2**32)]
TaskId = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Job = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9._:-]+\Z")]
Host = Annotated[str, msgspec.Meta(max_length=255)]
Line = Annotated[str, msgspec.Meta(max_length=500)]
Time = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Span = Annotated[int, msgspec.Meta(gt=0, lt=2**60)]
Token = Annotated[str, msgspec.Meta(max_length=64)]
Label = Annotated[str, msgspec.Meta(max_length=255)]
Limit = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class Message(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="op",
    tag=lambda name: "".join("_" + c.lower() if c.isupper() else c for c in name).lstrip("_"),
):
    """Base of all messages: the class's name in snake case travels as `op`."""


class Hello(Message, frozen=True, kw_only=True):
    """Who speaks on this connection: a MUNGE credential over the connection's own key."""

    credential: Annotated[str, msgspec.Meta(max_length=4096)]


class Greeting(msgspec.Struct, frozen=True):
    """The answer to Hello. `largest`: bytes of the largest message that this broker takes of a client, if it says so."""

    uid: int
    name: str
    largest: int = LARGEST


class GetAvailability(Message, frozen=True, kw_only=True):
    pass


class Acquire(Message, frozen=True, kw_only=True):
    """A session for a job of `uid`. `start` names one start of the job: the same start gets the same session."""

    job: Job
    uid: Uid
    host: Host = ""
    start: Token = ""
    queue: Label = ""
    project: Label = ""


class Release(Message, frozen=True, kw_only=True):
    """`reason`: what an operator wants its user to read."""

    session: Id
    reason: Line = ""


class Renew(Message, frozen=True, kw_only=True):
    """The execution host still sees these jobs: their leases go on. Those `suspended` among them have no new runs.

    The rest is of its load sensor: whether it is a `candidate` for the one that reports the QPU to the scheduler, the
    `interval` between the scheduler's last requests (0: not known yet), the `version` of the kit, what its clock shows,
    and its `trouble`.
    """

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    jobs: Annotated[tuple[Job, ...], msgspec.Meta(max_length=10_000)]
    suspended: Annotated[tuple[Job, ...], msgspec.Meta(max_length=10_000)] = ()
    candidate: bool = False
    interval: Time = 0
    version: Token = ""
    time: Time = 0
    trouble: Annotated[tuple[Line, ...], msgspec.Meta(max_length=8)] = ()


class Renewed(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to Renew: how many sessions it renewed, and the host that reports the QPU ("": none does)."""

    sessions: int
    reporter: str


class ListHosts(Message, frozen=True, kw_only=True):
    """The hosts whose load sensors were heard since the broker came up."""


class Part(Message, frozen=True, kw_only=True):
    """Bytes of a sequence that is too large for one message, from `offset` on; the answer is how many there are now."""

    upload: Id
    offset: Count
    data: Annotated[bytes, msgspec.Meta(max_length=PART)]


class TaskStart(Message, frozen=True, kw_only=True):
    """`key` makes the request repeatable: the same key in the same session is the same task.

    `upload`: the parts of this upload are the sequence, instead of `sequence`. `within`: fail the task if it is not done so
    long after its submission. `bitstrings`: keep the shots in their order, too.
    """

    session: Id
    sequence: str
    upload: Id | None = None
    shots: int
    key: Id
    within: Span | None = None
    bitstrings: bool = False


class GetTask(Message, frozen=True, kw_only=True):
    """The task as it is; when `wait` is above 0, at the latest after so long, and at once when it is final."""

    task: TaskId
    wait: Annotated[int, msgspec.Meta(ge=0, le=60_000_000)] = 0


class TaskStop(Message, frozen=True, kw_only=True):
    task: TaskId


class GetBitstrings(Message, frozen=True, kw_only=True):
    """The shots of a task in their order, from `first` on; as many as an answer holds."""

    task: TaskId
    first: Count = 0


class Bitstrings(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to GetBitstrings: `data` has `shots` times `qubits` bits, each shot from a byte of its own on.

    The first atom of the register is the highest bit of a shot's first byte.
    """

    qubits: int
    first: int
    shots: int
    data: bytes
    total: int = 0
    """Shots of the task."""


class GetCalibrations(Message, frozen=True, kw_only=True):
    """Calibrations that were carried out, newest first."""

    limit: Limit = 50


class GetQuality(Message, frozen=True, kw_only=True):
    """How good the QPU was since a time, oldest first."""

    since: Time = 0
    limit: Limit = 1000


class GetTarget(Message, frozen=True, kw_only=True):
    pass


class ListTasks(Message, frozen=True, kw_only=True):
    """One's own, newest first, without counts and logs; everybody's, for operators, with `everybody`.

    `before`: the last one of another page.
    """

    everybody: bool = False
    session: Id | None = None
    before: TaskId | None = None
    limit: Limit = 50


class ListSessions(Message, frozen=True, kw_only=True):
    """Newest first; `before`: the last one of another page."""

    everybody: bool = False
    ended: bool = False
    job: Job | None = None
    before: Id | None = None
    limit: Limit = 50


class GetPlan(Message, frozen=True, kw_only=True):
    """The next `count` windows."""

    count: Limit = 10


class GetHistory(Message, frozen=True, kw_only=True):
    """Windows that were held or missed, newest first."""

    limit: Limit = 50


class AddWindow(Message, frozen=True, kw_only=True):
    """An operator's window: calibrating or maintenance, from `start` (default now), for `duration` (default open)."""

    kind: Annotated[str, msgspec.Meta(pattern=r"^(calibrating|maintenance)\Z")]
    start: Time | None = None
    duration: Span | None = None
    reason: Line = ""


class MoveWindow(Message, frozen=True, kw_only=True):
    """The operator's window `window` begins at `start` instead, and lasts as long as before or `duration`."""

    window: Time
    start: Time
    duration: Span | None = None


class CancelWindow(Message, frozen=True, kw_only=True):
    """Takes back the operator's window `window`."""

    window: Time


class Resume(Message, frozen=True, kw_only=True):
    """Ends the maintenance that is on now, and the pause after failures of the QPU."""


class Bearer(msgspec.Struct, frozen=True, kw_only=True):
    """For whom an edge speaks: a user who has proven to it who he is.

    `proof`: stands for his credential, which is good for one request. `again`: this request was sent before, perhaps in vain.
    """

    uid: Uid
    proof: Annotated[bytes, msgspec.Meta(min_length=1, max_length=32)]
    again: bool = False


Request = (
    Hello
    | GetAvailability
    | Acquire
    | Release
    | Renew
    | ListHosts
    | Part
    | TaskStart
    | GetTask
    | TaskStop
    | GetBitstrings
    | GetCalibrations
    | GetQuality
    | GetTarget
    | ListTasks
    | ListSessions
    | GetPlan
    | GetHistory
    | AddWindow
    | MoveWindow
    | CancelWindow
    | Resume
)

learn(Greeting, Renewed, Bitstrings)


def name_of(kind: type[Message]) -> str:
    """What a kind of message is called on the wire."""
    return str(kind.__struct_config__.tag)
