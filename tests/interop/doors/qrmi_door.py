"""The PyPI package `qrmi` as it is, at an edge whose URL is the second argument; nothing of the kit is here."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from door import RefusedError, serve
from qrmi import Payload, QuantumResource, ResourceType, TaskNotReadyError, TaskStatus

if TYPE_CHECKING:
    from collections.abc import Iterator

QPU = "fresnel"
FINAL = (TaskStatus.Completed, TaskStatus.Failed, TaskStatus.Cancelled)
# The answers of the contract. Two for what can never be taken: too large to be read, or no good.
STATUSES = {
    401: "unauthenticated",
    403: "forbidden",
    404: "not_found",
    409: "conflict",
    413: "bad_request",
    422: "bad_request",
    429: "limit",
    503: "unavailable",
}
DETAILS = {
    "Endpoint restricted to root user.": "restricted",
    "Invalid session.": "unknown_session",
    "Session belongs to another user.": "foreign_session",
    "Session has been revoked.": "ended_session",
}


class QrmiDoor:
    def __init__(self, url: str) -> None:
        self._url = url

    def grant(self, job: str, uid: int) -> str:
        with _refusals():
            return str(self._qpu(QRMI_JOB_ID=job, QRMI_JOB_UID=str(uid)).acquire())

    def acquire(self, job: str) -> str:
        return self.grant(job, os.getuid())

    def release(self, session: str) -> None:
        with _refusals():
            self._qpu(session).release(session)

    def start(self, session: str, sequence: str, shots: int) -> str:
        with _refusals():
            payload = Payload.PasqalCloud(sequence=sequence, job_runs=shots)
            return str(self._qpu(session).task_start(payload))

    def status(self, task: str) -> str:
        with _refusals():
            return str(self._qpu().task_status(task)).rpartition(".")[2].lower()

    def result(self, task: str) -> dict[str, int]:
        with _refusals():
            found: dict[str, int] = json.loads(self._qpu().task_result(task).value)["counter"]
            return found

    def wait(self, task: str) -> dict[str, int]:
        with _refusals():
            qpu = self._qpu()
            while qpu.task_status(task) not in FINAL:
                time.sleep(0.1)
        return self.result(task)

    def logs(self, task: str) -> str:
        with _refusals():
            return str(self._qpu().task_logs(task))

    def stop(self, task: str) -> None:
        with _refusals():
            self._qpu().task_stop(task)

    def accessible(self) -> bool:
        with _refusals():
            return bool(self._qpu().is_accessible())

    def state(self) -> str:
        with _refusals():
            return str(self._qpu().status().to_dict()["status"])

    def target(self) -> str:
        with _refusals():
            # The package knows of more than one device, and gives a list.
            (device,) = json.loads(self._qpu().target().value)
            return str(device["specs"])

    def _qpu(self, session: str = "", **variables: str) -> Any:
        """As a program that has just been started in a job."""
        settings = {
            "QRMI_JOB_UID": str(os.getuid()),
            "QRMI_JOB_ID": "1",
            f"{QPU}_QRMI_WARDEN_URL": self._url,
            f"{QPU}_QRMI_JOB_ACQUISITION_TOKEN": session,
            **variables,
        }
        os.environ.update(settings)
        return QuantumResource(QPU, ResourceType.PasqalLocal)


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except TaskNotReadyError as error:
        raise RefusedError("not_ready", str(error)) from None
    except OverflowError as error:
        # The package refuses what its own payload cannot hold.
        raise RefusedError("bad_request", str(error)) from None
    except Exception as error:
        told = re.search(r"Status: (\d+)[^{]*(\{.*\})", str(error), re.DOTALL)
        if told is None:
            raise
        detail = json.loads(told[2])["detail"]
        words = detail if isinstance(detail, str) else json.dumps(detail)
        raise RefusedError(DETAILS.get(words, STATUSES[int(told[1])]), words) from None


if __name__ == "__main__":
    serve(QrmiDoor(sys.argv[2]))
