"""The process in which libdrmaa lives, started by `gridengine.submission` and by nobody else.

It is run by its path, isolated, so it imports the standard library alone, and `drmaa` from the folder in its argument.
File descriptor 0 is a socket: a line of JSON per call, a line of JSON per answer. What libdrmaa prints goes elsewhere.

    {"id": 7, "call": "status", "arguments": {"job": "12"}}   ->   {"id": 7, "result": "running"}
    {"id": 8, "call": "status", "arguments": {"job": "99"}}   ->   {"id": 8, "code": 18, "error": "... does not exist."}

`code` is DRMAA's number of the error, 0 for an error that is not DRMAA's.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import socket
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# Debian's libdrmaa needs libjemalloc, which wants more static TLS than glibc keeps for libraries that come late.
TUNABLE = "glibc.rtld.optional_static_tls=20000"
# Seconds that libdrmaa may take to sign off once the parent is gone.
GRACE = 3.0

_NO_WAIT = 0
_UNKNOWN = 18
_NOT_ENDED = 23
_ENDED_WITHOUT_USAGE = 24


def main() -> None:
    hide_from_jobs()
    sys.path.append(sys.argv[1])
    connection = socket.socket(fileno=0)
    calls: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    # libdrmaa may hang in its thread; this one still notices that the parent is gone.
    worker = threading.Thread(target=serve, args=(calls, connection), daemon=True)
    worker.start()
    try:
        for line in connection.makefile("rb"):
            calls.put(line)
    except OSError:
        pass  # as good as the end
    calls.put(b"")
    worker.join(GRACE)
    os._exit(0)


def hide_from_jobs() -> None:
    """Undo what was set for this process alone: with `-V`, libdrmaa hands this environment to the job."""
    tunables = os.environ.pop("GLIBC_TUNABLES", "").removesuffix(TUNABLE).removesuffix(":")
    if tunables:
        os.environ["GLIBC_TUNABLES"] = tunables


def serve(calls: queue.SimpleQueue[bytes], connection: socket.socket) -> None:
    grid = Grid()
    while line := calls.get():
        request = json.loads(line)
        answer: dict[str, Any] = {"id": request["id"]}
        try:
            answer["result"] = getattr(grid, request["call"])(**request["arguments"])
        except Exception as error:  # noqa: BLE001 - whatever it is, the parent tells the user
            answer["code"], answer["error"] = explain(error)
        connection.sendall(json.dumps(answer).encode() + b"\n")
    grid.close()


def explain(error: Exception) -> tuple[int, str]:
    """Take DRMAA's number out of the text: it is nowhere else, and two of the numbers come as plain exceptions."""
    told = re.fullmatch(r"code (\d+): (.*)", str(error), re.DOTALL)
    if told is None:
        return 0, f"{type(error).__name__}: {error}"
    return int(told[1]), told[2]


class Grid:
    """The calls, by name."""

    def __init__(self) -> None:
        self._session: Any = None
        # DRMAA tells once how a job ended. Whoever asks again, after an interrupted call say, is answered from here.
        self._ended: dict[str, dict[str, Any]] = {}

    def open(self, contact: str) -> str:
        import drmaa  # noqa: PLC0415 - loads libdrmaa, whose failure is an answer like any other

        session = drmaa.Session()
        session.initialize(contact or None)
        self._session = session
        return str(session.contact)

    def close(self) -> None:
        if self._session is not None:
            self._session.exit()

    def submit(self, attributes: dict[str, Any]) -> str:
        with self._template(attributes) as template:
            return str(self._session.runJob(template))

    def submit_array(self, attributes: dict[str, Any], first: int, last: int, step: int) -> list[str]:
        with self._template(attributes) as template:
            return [str(task) for task in self._session.runBulkJobs(template, first, last, step)]

    def status(self, job: str) -> str:
        # Without usage it may be something else than it seems: the parent asks others.
        if job in self._ended and self._ended[job]["usage"]:
            return "done" if self._ended[job]["exited"] else "failed"
        return str(self._session.jobStatus(job))

    def control(self, job: str, action: str) -> None:
        self._session.control(job, action)

    def collect(self, jobs: list[str]) -> dict[str, Any]:
        """Say how jobs have ended, those that have, and which the session does not know. Never waits."""
        unknown = [job for job in jobs if job not in self._ended and not self._look(job)]
        return {"ended": {job: self._ended[job] for job in jobs if job in self._ended}, "unknown": unknown}

    def _look(self, job: str) -> bool:
        """Take down a job's end if it has ended. Whether the session knows the job."""
        try:
            info = self._session.wait(job, _NO_WAIT)
        except Exception as error:
            code, _ = explain(error)
            if code == _ENDED_WITHOUT_USAGE:
                # Deleted while it was queued; or it ended while the qmaster was away.
                self._ended[job] = {"exited": False, "exit_status": 0, "signal": "", "aborted": True, "usage": {}}
            elif code not in {_NOT_ENDED, _UNKNOWN}:
                raise
            return code != _UNKNOWN
        self._ended[job] = {
            "exited": info.hasExited,
            "exit_status": info.exitStatus,
            "signal": info.terminatedSignal if info.hasSignal else "",
            "aborted": info.wasAborted,
            "usage": info.resourceUsage,
        }
        return True

    @contextlib.contextmanager
    def _template(self, attributes: dict[str, Any]) -> Iterator[Any]:
        template = self._session.createJobTemplate()
        try:
            for name, value in attributes.items():
                setattr(template, name, value)
            yield template
        finally:
            template.delete()


if __name__ == "__main__":
    main()
