"""Our own door: `warden.client`, configured by the file that is the second argument."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from door import RefusedError, serve

from warden import config, munge
from warden.client import Client, QuantumResource
from warden.model import ConflictError, WardenError

if TYPE_CHECKING:
    from collections.abc import Iterator


class WardenDoor:
    def __init__(self, file: Path) -> None:
        # While the libraries' files can be read.
        munge._library()
        munge._libc()
        self._client = Client(config=config.load(file))

    def grant(self, job: str, uid: int) -> str:
        with _refusals():
            return self._client.acquire(job=job, uid=uid).id

    def acquire(self, job: str) -> str:
        with _refusals():
            return self._qpu(job=job).acquire()

    def release(self, session: str) -> None:
        with _refusals():
            self._qpu(session).release()

    def start(self, session: str, sequence: str, shots: int) -> str:
        with _refusals():
            return self._qpu(session).task_start(sequence, shots)

    def start_within(self, session: str, sequence: str, shots: int, seconds: float) -> str:
        """The contract knows no such thing."""
        with _refusals():
            return self._qpu(session).task_start(sequence, shots, within=seconds)

    def status(self, task: str) -> str:
        with _refusals():
            return str(self._qpu().task_status(task))

    def result(self, task: str) -> dict[str, int]:
        with _refusals():
            return self._qpu().task_result(task)

    def wait(self, task: str) -> dict[str, int]:
        with _refusals():
            return self._qpu().wait(task)

    def logs(self, task: str) -> str:
        with _refusals():
            return self._qpu().task_logs(task)

    def stop(self, task: str) -> None:
        with _refusals():
            self._qpu().task_stop(task)

    def accessible(self) -> bool:
        with _refusals():
            return self._qpu().is_accessible()

    def state(self) -> str:
        with _refusals():
            return str(self._qpu().status())

    def target(self) -> str:
        with _refusals():
            return self._qpu().target()

    def _qpu(self, session: str = "", job: str = "") -> QuantumResource:
        return QuantumResource(client=self._client, environment={"WARDEN_SESSION": session, "QRMI_JOB_ID": job})


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except ConflictError as error:
        raise RefusedError("not_ready", error.text) from None
    except WardenError as error:
        raise RefusedError(error.code, error.text) from None


if __name__ == "__main__":
    serve(WardenDoor(Path(sys.argv[2])))
