"""The real store on a disk that fills up, fails and dies, with an account-keeper that sees each effect."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

from warden.store import Store, StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from simulation_account import Account

    from warden.events import Effect
    from warden.model import Micros


class KilledError(BaseException):
    """kill -9: no `except Exception` holds it up."""


class Disk:
    """The folder of one broker's store, over all its lives."""

    def __init__(self, folder: Path, template: Path) -> None:
        self._folder, self._life = folder, 0
        shutil.copyfile(template, self.path)

    @property
    def path(self) -> Path:
        return self._folder / f"{self._life}.db"

    def crash(self) -> None:
        """Keep what is on the disk now, not what a clean end of the process would make of it."""
        old = self.path
        self._life += 1
        for suffix in ("", "-wal"):
            if (was := Path(f"{old}{suffix}")).exists():
                shutil.copyfile(was, f"{self.path}{suffix}")

    def forget_old(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{self._folder / str(self._life - 1)}.db{suffix}").unlink(missing_ok=True)


def template(path: Path) -> None:
    """An empty store: copying it is much cheaper than making one."""
    store = Store(path)
    store._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.close()


class WatchedStore(Store):
    """Raises where it is told to, and tells the account what is kept: of each event, and of each commit."""

    def __init__(self, path: Path, account: Account, clock: Callable[[], Micros]) -> None:
        super().__init__(path)
        self._account, self._clock = account, clock
        self.fail: Callable[[str], None] = lambda _: None
        """Called with each step of a turn before it is taken: may raise StoreError or KilledError."""

    def begin(self) -> None:
        self.fail("begin")
        super().begin()
        self._account.begin()

    def apply(self, effects: Iterable[Effect]) -> None:
        effects = list(effects)
        self.fail("apply")
        super().apply(effects)
        self._account.apply(effects, self._clock())
        self.fail("applied")

    def commit(self) -> None:
        self.fail("commit")
        super().commit()
        self._account.commit()
        self.fail("committed")

    def rollback(self) -> None:
        super().rollback()
        self._account.rollback()

    def fill(self, *, full: bool) -> None:
        """No page more than there is, or as many as it takes."""
        pages = self._db.execute("PRAGMA page_count").fetchone()[0] if full else 2**30
        self._db.execute(f"PRAGMA max_page_count = {pages}")

    def look(self, query: str) -> list[Any]:
        try:
            return self._db.execute(query).fetchall()
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error
