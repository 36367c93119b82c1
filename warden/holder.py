"""Who holds the store: a file beside it that says so, for the words of a refusal. The guard is the store's own lock."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
from typing import TYPE_CHECKING, Self

from warden.model import ConfigurationError, clock

if TYPE_CHECKING:
    from pathlib import Path

    from warden.model import Micros

_TEXT = re.compile(r"pid \d{1,10} on [\w.-]{1,255}, since [\dTZ:-]{1,30}", re.ASCII)


class Holder:
    """Says who holds a store, as long as this process lives: the kernel drops the lock, and the text means nothing."""

    def __init__(self, store: Path, now: Micros) -> None:
        """Lock the file, and write into it who we are.

        Raises:
            ConfigurationError: Another broker holds the store.
        """
        # Where a file cannot be opened, locked or written, the store has the word: it fails too, or it need not.
        self._file: int | None = None
        with contextlib.suppress(OSError):
            self._file = os.open(store.with_name("holder"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        if self._file is None:
            return
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            who = _who(self._file)
            self.close()
            if error.errno in {errno.EAGAIN, errno.EACCES}:
                raise ConfigurationError(f"{store} is in use by another broker{who}: stop that one first") from None
            return
        text = f"pid {os.getpid()} on {socket.gethostname()}, since {clock(now)}\n"
        with contextlib.suppress(OSError):
            os.fchmod(self._file, 0o600)
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, text.encode(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _who(file: int) -> str:
    """Who the file says, in parentheses; nothing where that makes no sense."""
    try:
        text = os.pread(file, 400, 0).decode().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return f" ({text})" if _TEXT.fullmatch(text) else ""
