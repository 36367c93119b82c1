"""Processes that come in at one of the two doors, as one user each; see `doors/door.py`."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from types import TracebackType

    from warden_site import Site

DOORS = Path(__file__).parent / "doors"
WARDEN, QRMI = "warden", "qrmi"
# QRMI's client finds munged at the usual place alone: the process gets a /run of its own, with the site's munged in it.
_RUN = 'mount -t tmpfs none /run && mkdir /run/munge && ln -s "$0" /run/munge/munge.socket.2 && exec "$@"'


class Done(NamedTuple):
    value: Any = None


class Refused(NamedTuple):
    """Equal if the kinds are: the contract has words of its own for some."""

    kind: str
    words: str = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Refused) and self.kind == other.kind

    def __hash__(self) -> int:
        return hash(self.kind)


class Visitor:
    """`with Visitor(...) as alice: alice.ask("start", ...)`."""

    def __init__(self, door: str, site: Site, uid: int, *, python: Path, url: str) -> None:
        self.door, self.uid = door, uid
        if door == WARDEN:
            command = [sys.executable, str(DOORS / "warden_door.py"), str(uid), str(site.file)]
        else:
            inside = ["unshare", "-m", "sh", "-c", _RUN, str(site.munge_socket)]
            command = [*inside, str(python), "-W", "ignore", str(DOORS / "qrmi_door.py"), str(uid), url]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        with contextlib.suppress(BrokenPipeError):
            self._process.communicate()

    def ask(self, call: str, *arguments: Any) -> Done | Refused:
        self.begin(call, *arguments)
        return self.outcome()

    def get(self, call: str, *arguments: Any) -> Any:
        """What cannot be refused here."""
        outcome = self.ask(call, *arguments)
        assert isinstance(outcome, Done), outcome
        return outcome.value

    def words(self, kind: str, call: str, *arguments: Any) -> str:
        """How it is refused, as one of this kind."""
        outcome = self.ask(call, *arguments)
        assert outcome == Refused(kind)
        assert isinstance(outcome, Refused)
        return outcome.words

    def begin(self, call: str, *arguments: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([call, *arguments]) + "\n")
        self._process.stdin.flush()

    def outcome(self) -> Done | Refused:
        """Of what was begun."""
        assert self._process.stdout is not None
        what, *told = json.loads(self._process.stdout.readline())
        assert what != "broken", told
        return Done(*told) if what == "done" else Refused(*told)
