"""The one place that decides how a hook ends. Whatever happens inside, it ends in time and with 0, 99 or 100.

    0    go on
    99   back to the queue: it is nobody's fault that waiting would not cure, or nobody knows whose it is
    100  the job is in error, with a reason in `qstat -j`: this job can never have what it asks for

Any other status would put the queue instance into the error state, on host after host (gridengine/hooks/bin has the
outer guard, for interpreters that cannot even start).
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Never

from warden.model import BadRequestError, ForbiddenError, LimitError, WardenError, one_line

if TYPE_CHECKING:
    from collections.abc import Callable

GO_ON, AGAIN, JOB_ERROR = 0, 99, 100

# Before the configuration is read, and if it cannot be.
DEFAULT_LIMIT = 60.0
# After its limit a hook has so long to say so and to end; then the kernel ends it.
_GRACE = 2.0


def exit_status(error: BaseException | None) -> int:
    """Pure: what became of the hook, as the status that Grid Engine is told."""
    match error:
        case None:
            return GO_ON
        case BadRequestError() | ForbiddenError() | LimitError():
            return JOB_ERROR
        case _:
            return AGAIN


def explain(error: BaseException) -> str:
    """Pure: one line for the job's own log."""
    if isinstance(error, WardenError):
        return one_line(error.text)
    return one_line(f"this should not happen: {type(error).__name__}: {error}")


class Guard:
    """Runs a hook to its end, and in the time that it has from its beginning on."""

    def __init__(self, name: str, *, on_expiry: int) -> None:
        self._name = name
        self._on_expiry = on_expiry
        self._timer: threading.Timer | None = None
        self._end_at = time.monotonic()
        self._begun = self._end_at
        self._said = ""

    def left(self) -> float:
        """Seconds until the hook is ended."""
        return self._end_at - time.monotonic()

    def limit(self, seconds: float) -> None:
        """End the hook so many seconds after its beginning."""
        if self._timer is not None:
            self._timer.cancel()
        self._end_at = self._begun + seconds
        left = max(0.1, self.left())
        # A thread, and no signal: it fires even while the main thread is stuck in a library.
        self._timer = threading.Timer(left, self._expire, (seconds,))
        self._timer.daemon = True
        self._timer.start()
        # No thread runs while a library keeps the interpreter's lock, and one that writes what nobody reads stays
        # there. The shell around us makes 99 of this end, and 0 in an epilog.
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
        signal.setitimer(signal.ITIMER_REAL, left + _GRACE)

    def run(self, hook: Callable[[Guard], None], *, report: Callable[[str], None]) -> Never:
        """Run the hook and end the process. `report` tells Grid Engine why the job is in error."""
        error: BaseException | None = None
        try:
            self.limit(DEFAULT_LIMIT)
            hook(self)
        except BaseException as caught:  # noqa: BLE001 - an unforeseen status would stop a queue
            error = caught
        status = exit_status(error)
        with contextlib.suppress(BaseException):
            if error is not None:
                self.say(explain(error))
            if error is not None and status == JOB_ERROR:
                report(explain(error))
        self._end(status)

    def say(self, text: str) -> None:
        """A line in the job's error file, not twice the same; its disk may be full, and that is no reason to fail."""
        if text == self._said:
            return
        self._said = text
        with contextlib.suppress(OSError, ValueError):
            os.write(2, f"{self._name}: {text}\n".encode(errors="replace"))

    def _expire(self, seconds: float) -> None:
        self.say(f"not done within {seconds:g} s")
        self._end(self._on_expiry)

    @staticmethod
    def _end(status: int) -> Never:
        # No interpreter shutdown: what it might find wrong would change the status.
        os._exit(status)
