"""Questions to Warden, beside the loop that has to answer in time."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from warden.client import Client

# Longer than that, an answer that is not there will not be of use.
_TIMEOUT = 2.0

T = TypeVar("T")


class Inquirer(Generic[T]):
    """Puts one question to the Warden that a file names, one at a time, in a thread of its own."""

    def __init__(self, config: Path, inquire: Callable[[Client], T]) -> None:
        self._config, self._inquire = config, inquire
        self._question = threading.Event()
        self._answered = threading.Event()
        self._answer: T | None = None
        self._dismissed = False
        threading.Thread(target=self._run, daemon=True).start()

    def ask(self) -> None:
        self._answered.clear()
        self._question.set()

    def answer(self, patience: float) -> T | None:
        """What came of it, or None if nothing does within `patience` seconds."""
        return self._answer if self._answered.wait(max(0.0, patience)) else None

    def dismiss(self) -> None:
        """No more questions."""
        self._dismissed = True
        self._question.set()

    def _run(self) -> None:
        client: Client | None = None
        while True:
            self._question.wait()
            self._question.clear()
            try:
                if self._dismissed:
                    if client is not None:
                        client.close()
                    return
                client = client or self._client()
                self._answer = self._inquire(client)
            except Exception:  # noqa: BLE001 - nothing may end this thread; without an answer the sensor knows what to say
                self._answer = None
                # A new one reads the configuration and the keys again: they may have been the trouble.
                with contextlib.suppress(Exception):
                    if client is not None:
                        client.close()
                client = None
            self._answered.set()

    def _client(self) -> Client:
        from warden.client import Client  # noqa: PLC0415 - the first report must not wait for it
        from warden.config import load  # noqa: PLC0415

        return Client(config=load(self._config), timeout=_TIMEOUT)
