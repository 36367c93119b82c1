"""`qpu-load-sensor`: tells Grid Engine what the QPU offers, and Warden which jobs live on this host.

execd keeps the last values of a sensor that is late, silently and for ever. So this one always answers within a
second, whatever Warden does, and when it knows nothing it says that there is nothing: 0 places, offline. It never
subtracts what Grid Engine has booked: the scheduler does that itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from load_sensors.protocol import Value, serve
from warden.model import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from warden.client import Client
    from warden.model import Availability

# Not from the environment: execd's own may be anybody's who started it.
CONFIG = Path("/etc/warden/warden.toml")

# Between a question by execd and our answer, at most.
_PATIENCE = 0.8
# Longer than that, an answer that is not there will not be of use.
_TIMEOUT = 2.0

T = TypeVar("T")


def main() -> None:
    # Two, so that what hinders renewals (a host without MUNGE, for instance) does not hide the QPU from the cluster.
    availability = Inquirer(lambda client: client.availability())
    renewal = Inquirer(lambda client: client.renew(host=socket.gethostname(), jobs=tuple(live_jobs(Path.cwd()))))

    def measure() -> Iterable[Value]:
        renewal.ask(0)
        return values(availability.ask(_PATIENCE))

    serve(sys.stdin, sys.stdout, measure)
    # An inquirer may be waiting for Warden; nobody needs its answer.
    os._exit(0)


def values(answer: Availability | None) -> list[Value]:
    """Pure: the load values for what Warden answered, all of them in any case; None: it did not."""
    if answer is None:
        facts: dict[str, str | int] = {"qpu": 0, "qpu_state": State.OFFLINE, "qpu_window": 0, "qpu_qubits": 0}
    else:
        facts = {
            "qpu": answer.open_places,
            "qpu_state": answer.state,
            "qpu_window": answer.seconds_to_window(),
            "qpu_qubits": answer.qubits,
        }
    return [Value("global", name, value) for name, value in facts.items()]


class Inquirer(Generic[T]):
    """Speaks to Warden beside the loop that must answer in time; one question at a time."""

    def __init__(self, inquire: Callable[[Client], T]) -> None:
        self._inquire = inquire
        self._question = threading.Event()
        self._answered = threading.Event()
        self._answer: T | None = None
        threading.Thread(target=self._run, daemon=True).start()

    def ask(self, patience: float) -> T | None:
        """The answer to this question, or None if it does not come within `patience` seconds."""
        self._answered.clear()
        self._question.set()
        return self._answer if self._answered.wait(patience) else None

    def _run(self) -> None:
        client: Client | None = None
        while True:
            self._question.wait()
            self._question.clear()
            try:
                client = client or _client()
                self._answer = self._inquire(client)
            except Exception:  # noqa: BLE001 - nothing may end this thread; without an answer the sensor says offline
                self._answer = None
                # A new one reads the configuration and the keys again: they may have been the trouble.
                with contextlib.suppress(Exception):
                    if client is not None:
                        client.close()
                client = None
            self._answered.set()


def live_jobs(spool: Path) -> Iterable[str]:
    """The jobs that this host's execd runs, by the names of their folders in its spool, where it starts its sensors.

    A folder may stay long after its job, while its owner keeps the shepherd from going on; its exit status tells.
    """
    try:
        entries = os.listdir(spool / "active_jobs")  # noqa: PTH208 - names are all that is needed
    except OSError:
        return
    for entry in entries:
        # The folder of a job that is no array ends in .1, as that of an array's first task.
        if re.fullmatch(r"[0-9]{1,10}\.[0-9]{1,10}", entry) and not _has_ended(spool / "active_jobs" / entry):
            yield entry
            if entry.endswith(".1"):
                yield entry.removesuffix(".1")


def _has_ended(folder: Path) -> bool:
    """Whether the shepherd has written the job's exit status; it makes the file empty when the job starts."""
    try:
        return (folder / "exit_status").lstat().st_size > 0
    except OSError:
        return False


def _client() -> Client:
    from warden.client import Client  # noqa: PLC0415 - the first report must not wait for it
    from warden.config import load  # noqa: PLC0415

    return Client(config=load(CONFIG), timeout=_TIMEOUT)


if __name__ == "__main__":
    main()
