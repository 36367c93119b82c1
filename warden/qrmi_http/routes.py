"""The routes of the contract: each request of QRMI's client as one of ours, and the answer back."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from fastapi import Depends, FastAPI, Header, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import APIKeyHeader
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel, Field, StrictBool, StrictInt, StrictStr

from warden import bitstrings, wire
from warden.authority import OPEN_ROUTES
from warden.client import check_sequence
from warden.model import (
    Availability,
    ConflictError,
    EndedSessionError,
    ForbiddenError,
    ForeignSessionError,
    NotFoundError,
    RestrictedError,
    Session,
    State,
    Task,
    TaskStatus,
    UnavailableError,
    UnknownSessionError,
    WardenError,
    Window,
    clock,
)
from warden.qrmi_http.guard import status_of
from warden.trust import Bearing  # noqa: TC001 - FastAPI reads annotations when the program runs
from warden.version import version
from warden.wire import Bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from warden.qrmi_http.link import Link

# A client that asks again and again is answered when something happens, or so much later.
_POLL = 100_000
# Whoever asks whether the QPU is there does not wait long to hear that it is not.
_SOON = 3.0
# Tasks that are listed before somebody else has his turn.
_PAGE = 200

STATUSES = {
    TaskStatus.QUEUED: "PENDING",
    TaskStatus.RUNNING: "RUNNING",
    TaskStatus.COMPLETED: "DONE",
    TaskStatus.CANCELLED: "CANCELED",
    TaskStatus.FAILED: "ERROR",
}
# How the contract says these; what it does not know is said in the broker's words.
_DETAILS: dict[type[WardenError], str] = {
    RestrictedError: "Endpoint restricted to root user.",
    UnknownSessionError: "Invalid session.",
    ForeignSessionError: "Session belongs to another user.",
    EndedSessionError: "Session has been revoked.",
}
# For the page that describes it; the guard has looked at it before.
_SCHEME = APIKeyHeader(name="X-Munge-Cred", description="a MUNGE credential: `munge -n`; once", auto_error=False)
_DESCRIPTIONS = {"/docs", "/openapi.json"}
_ASSETS = "/assets"


def is_open(method: str, path: str) -> bool:
    """Whether a request needs no credential."""
    described = method in {"GET", "HEAD"} and (path in _DESCRIPTIONS or path.startswith(f"{_ASSETS}/"))
    return described or f"{method} {path}" in OPEN_ROUTES


# --- what travels ---


class Accessible(BaseModel):
    """Whether the QPU takes tasks; the state, its reason and its expected end in `message`.

    During a calibration it takes them, and runs them afterwards, but no place on it is given to a job.
    """

    is_accessible: bool
    message: str
    qpu_slots_total: int = 0
    qpu_slots_used: int = 0
    qpu_slots_available: int = 0


class AccessibleRequest(BaseModel):
    """Take the QPU out of service, or back into it."""

    is_accessible: StrictBool
    message: Annotated[StrictStr, Field(max_length=500)] = ""


class SessionRequest(BaseModel):
    """A session for a job of this user; the job's number is the scheduler's, whichever it is."""

    user_id: Annotated[StrictStr, Field(pattern="^[0-9]{1,10}$")]
    slurm_job_id: Annotated[StrictStr, Field(min_length=1, max_length=64)]


class SessionAnswer(BaseModel):
    id: str


class JobRequest(BaseModel):
    """A sequence in Pulser's abstract representation, a JSON string, and how often to run it.

    `bitstrings`: have the shots in their order among the results, too. QRMI's clients do not know of it.
    """

    sequence: StrictStr
    shots: StrictInt
    bitstrings: StrictBool = False


class Job(BaseModel):
    """A task. Once it is DONE, `results` is a JSON string.

    In it are `counter`, bitstrings and how often each came up; `metadata`, what the QPU tells of them; and, where they
    were asked for, `bitstrings`, the shots in their order (of a task that is asked for by its number).
    """

    id: int
    user_id: str
    status: str
    results: str | None = None
    error: str = ""
    shots: int
    shots_done: int


class Logs(BaseModel):
    logs: str


class Specs(BaseModel):
    """The device, as Pulser writes it: a JSON string."""

    specs: str


class Service(BaseModel):
    service: str
    qpu: str


# Not plain functions: FastAPI would run each in a thread.
async def bearing(request: Request, _: Annotated[str | None, Depends(_SCHEME)]) -> Bearing:
    """Whose request it is: the guard has seen to that."""
    found: Bearing = request.scope["bearing"]
    return found


async def bearer(whose: Annotated[Bearing, Depends(bearing)]) -> Bearer:
    return Bearer(uid=whose.uid, proof=whose.proof)


Whose = Annotated[Bearer, Depends(bearer)]
JobId = Annotated[int, Path(description="of a task")]


def application(link: Link, *, name: str, largest: int) -> FastAPI:  # noqa: C901 - the table of all routes
    """The application; `name`: of the QPU, `largest`: bytes of a sequence at most."""
    app = FastAPIOffline(
        title="Warden",
        version=version() or "unknown",
        summary=f"The QPU {name}, for QRMI's pasqal-local clients.",
        redoc_url=None,
        static_url=_ASSETS,
        # Whoever is sent to another address shows the same credential there, and it works only once.
        redirect_slashes=False,
    )
    app.add_exception_handler(WardenError, _refused)
    app.add_exception_handler(400, _unreadable)
    app.add_exception_handler(Exception, _bug)
    app.add_exception_handler(RequestValidationError, _invalid)

    @app.get("/")
    async def service() -> Service:
        """What this is."""
        return Service(service="Warden", qpu=name)

    @app.get("/accessible")
    async def accessible() -> Accessible:
        """Whether the QPU takes tasks, and why not; no credential is needed."""
        try:
            return _accessible(await link.ask(wire.GetAvailability(), Availability, limit=_SOON))
        except UnavailableError as error:
            return Accessible(is_accessible=False, message=f"{State.OFFLINE}: {error.text}")

    @app.post("/accessible")
    async def set_accessible(wanted: AccessibleRequest, whose: Whose) -> Accessible:
        """Drain the QPU, or resume; for operators."""
        if wanted.is_accessible:
            try:
                return _accessible(await link.ask(wire.Resume(), Availability, whose))
            except ConflictError:
                # It is not drained: that is what was wanted.
                now = await link.ask(wire.GetAvailability(), Availability)
                if not now.accessible:
                    raise
                return _accessible(now)
        reason = wanted.message or "maintenance"
        await link.ask(wire.AddWindow(kind=State.MAINTENANCE.value, reason=reason), Window, whose)
        return _accessible(await link.ask(wire.GetAvailability(), Availability))

    @app.post("/sessions")
    async def acquire(wanted: SessionRequest, whose: Annotated[Bearing, Depends(bearing)]) -> SessionAnswer:
        """A session for a job: a new one for the scheduler, as root; the job's own for its user."""
        body = wire.Acquire(job=wanted.slurm_job_id, uid=int(wanted.user_id), host=whose.host)
        return SessionAnswer(id=(await link.ask(body, Session, await bearer(whose))).id)

    @app.delete("/sessions/{session}")
    async def release(session: str, whose: Whose) -> SessionAnswer:
        """End a session: its tasks are stopped."""
        body = wire.Release(session=session)
        return SessionAnswer(id=(await link.ask(body, Session, whose)).id)

    @app.post("/jobs")
    async def start(
        wanted: JobRequest, whose: Whose, session: Annotated[str | None, Header(alias="X-Warden-Session")] = None
    ) -> Job:
        """Queue a task in one's session; when this is answered, the task is on the broker's disk."""
        if not session:
            raise ForbiddenError("Missing 'X-Warden-Session' header.")
        check_sequence(wanted.sequence, largest)
        body = wire.TaskStart(
            session=session,
            sequence=wanted.sequence,
            shots=wanted.shots,
            key=str(uuid.uuid4()),
            bitstrings=wanted.bitstrings,
        )
        return _job(await link.ask(body, Task, whose))

    @app.get("/jobs")
    async def jobs(
        whose: Whose,
        limit: Annotated[int | None, Query(ge=1)] = None,
        offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
    ) -> list[Job]:
        """One's own tasks, newest first, without results; all of them, or `limit` after `offset`."""
        pages = _pages(link, whose, offset, limit)
        # So that a refusal is one, and not the end of an answer that has begun.
        first = await anext(pages)
        return StreamingResponse(_as_list(first, pages), media_type="application/json")  # type: ignore[return-value]

    @app.get("/jobs/{number}")
    async def job(number: JobId, whose: Whose) -> Job:
        """A task as it is."""
        task = await link.ask(_get(wire.GetTask, number, wait=_POLL), Task, whose)
        if not task.bitstrings or task.status is not TaskStatus.COMPLETED:
            return _job(task)
        return _job(task, await _in_order(link, task, msgspec.structs.replace(whose, again=True)))

    @app.post("/jobs/{number}/cancel")
    async def cancel(number: JobId, whose: Whose) -> Job:
        """Stop a task, whether it waits or runs; one that has ended stays as it is."""
        return _job(await link.ask(_get(wire.TaskStop, number), Task, whose))

    @app.get("/jobs/{number}/logs")
    async def logs(number: JobId, whose: Whose) -> Logs:
        """What happened to a task, line by line."""
        return Logs(logs="\n".join((await link.ask(_get(wire.GetTask, number), Task, whose)).log))

    @app.get("/qpu/specs")
    async def specs(whose: Whose) -> Specs:
        """The device that sequences have to be for."""
        return Specs(specs=await link.ask(wire.GetTarget(), str, whose))

    return app


# --- one thing as the other ---


def _accessible(found: Availability) -> Accessible:
    ready = found.state is State.READY
    until = "" if found.until is None else f" until {clock(found.until)}"
    return Accessible(
        is_accessible=found.accessible,
        message=f"{found.state}{until}" + (f": {found.reason}" if found.reason else ""),
        qpu_slots_total=found.places,
        qpu_slots_used=found.used,
        qpu_slots_available=max(0, found.places - found.used) if ready else 0,
    )


def _job(task: Task, in_order: list[str] | None = None) -> Job:
    return Job(**_facts(task, in_order))


def _facts(task: Task, in_order: list[str] | None = None) -> dict[str, Any]:
    # A list has no counts.
    done = task.status is TaskStatus.COMPLETED and task.counts
    results: dict[str, Any] = {"counter": task.counts, "metadata": task.metadata}
    if in_order is not None:
        results["bitstrings"] = in_order
    return {
        "id": task.id,
        "user_id": str(task.uid),
        "status": STATUSES[task.status],
        "results": json.dumps(results) if done else None,
        "error": task.error,
        "shots": task.shots,
        "shots_done": task.shots_done,
    }


def _get(kind: type[wire.GetTask | wire.TaskStop], number: int, **fields: Any) -> wire.Message:
    if not 0 <= number < 2**63:
        raise NotFoundError("Job not found")
    return kind(task=number, **fields)


async def _in_order(link: Link, task: Task, whose: Bearer) -> list[str]:
    found: list[str] = []
    while len(found) < task.shots:
        page = await link.ask(wire.GetBitstrings(task=task.id, first=len(found)), wire.Bitstrings, whose)
        found += bitstrings.unpack(page.data, page.qubits)
    return found


async def _pages(link: Link, whose: Bearer, offset: int, limit: int | None) -> AsyncIterator[list[Task]]:
    """Pages of the tasks after the first `offset`, together at most `limit`; the last one may be empty."""
    before: int | None = None
    left = limit
    while left is None or left > 0:
        most = min(_PAGE, offset or _PAGE, _PAGE if left is None or offset else left)
        tasks = await link.ask(wire.ListTasks(before=before, limit=most), list[Task], whose)
        whose = msgspec.structs.replace(whose, again=True)
        if offset:
            offset -= len(tasks)
        else:
            left = None if left is None else left - len(tasks)
            yield tasks
        if len(tasks) < most:
            break
        before = tasks[-1].id
    yield []


async def _as_list(first: list[Task], pages: AsyncIterator[list[Task]]) -> AsyncIterator[bytes]:
    yield b"[" + _entries(first)
    empty = not first
    async for page in pages:
        if page:
            yield (b"" if empty else b",") + _entries(page)
        empty = empty and not page
    yield b"]"


def _entries(tasks: list[Task]) -> bytes:
    return msgspec.json.encode([_facts(task) for task in tasks])[1:-1]


# --- refusals ---


async def _refused(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, WardenError)  # noqa: S101 - what it is registered for
    detail = _DETAILS.get(type(error), error.text)
    if isinstance(error, NotFoundError):
        detail = "Job not found" if request.url.path.startswith("/jobs") else "Session not found"
    return JSONResponse({"detail": detail}, status_of(error))


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Where and what is wrong, without what was sent: it may be megabytes."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - as above
    told = [{"loc": one["loc"], "msg": one["msg"], "type": one["type"]} for one in error.errors()]
    return JSONResponse({"detail": told}, 422)


async def _unreadable(*_: object) -> JSONResponse:
    return JSONResponse({"detail": "the body is no JSON"}, 422)


async def _bug(*_: object) -> JSONResponse:
    return JSONResponse({"detail": "this request hits a bug of the edge, see its log"}, 500)
