"""`qpu-jsv`: Grid Engine asks it about each job before it takes it, in the qmaster (`jsv_url`) or in `qsub -jsv`.

A job that asks for no QPU is answered at once: nothing is read and nobody is asked for it. For the others the
configuration suffices; Warden is not asked, so that no state of it delays a submission. Whatever cannot be judged is
accepted: the prolog is the last gate. Nothing is ever written to stderr, which Grid Engine takes for a failure.
"""

from __future__ import annotations

import os
import pwd
import select
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gridengine import jsv_policy, jsv_protocol
from gridengine.jsv_protocol import Answer, Job, Listener, Said
from warden.model import ConfigurationError, WardenError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gridengine.jsv_policy import Qpu
    from warden.sections import AccessSection

# Not from the environment, which is the user's in `qsub -jsv`.
CONFIG = Path("/etc/warden/warden.toml")

# For so many milliseconds we listen whether somebody goes on where Grid Engine would be silent; it looks for answers
# every 10 ms. A false BEGIN may be the last that is there for now; one has to get past that to write a START.
_GRACE_MS = {b"BEGIN": 1, b"START": 0, b"QUIT": 0}
_CHUNK = 65536
# Of a line that is longer, the rest is not kept.
_LONGEST_LINE = 65536

_LOOK_AGAIN = 1.0
_MEMBERS_AGAIN = 60.0
# So long jobs wait for the first look at users and groups, which may come from a directory on the network.
_FIRST_LOOK = 1.0
_QCONF_LIMIT = 2.0


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        check()
    try:
        serve(0, 1, Known(CONFIG))
    except BrokenPipeError:
        # Who asked is gone. The shell around us makes sure that nothing else ends in silence.
        os._exit(0)


def check() -> None:
    """`--check`: that the interpreter and everything that is ever imported are there."""
    import warden.roster  # noqa: F401, PLC0415

    print("ok")  # noqa: T201
    sys.exit(0)


def serve(source: int, sink: int, known: Known) -> None:
    """Answer for job after job, until we are told to go."""
    listener = Listener()
    for line, more in _lines(source):
        match listener.hear(line, more=more):
            case Said.START:
                _write(sink, jsv_protocol.STARTED)
            case Said.BEGIN:
                _write(sink, jsv_protocol.render(answer(listener.job(), known)))
            case Said.QUIT:
                return
            case Said.NOTHING:
                pass


def answer(job: Job, known: Known) -> Answer:
    """What becomes of a job. Whatever fails here, a job is refused for its own faults alone."""
    general = jsv_policy.for_all(job)
    if general.refused:
        return general
    try:
        asked = jsv_policy.request(job)
        if asked is None:
            return general
        interactive = jsv_policy.is_interactive(job) and known.interactive_jobs_get_none()
        if why := jsv_policy.impossible(asked, interactive=interactive):
            return Answer(refused=why)
        qpus = known.qpus()
        uid = _uid(job.get("USER")) if jsv_policy.names_users(qpus) else None
        verdict = jsv_policy.decide(replace(asked, uid=uid), qpus)
        return replace(verdict, removed=general.removed)
    except WardenError as error:
        return replace(general, warning=f"a job that asks for a QPU was not checked: {error.text}")
    except Exception as error:  # noqa: BLE001 - the submitter cannot help it
        return replace(general, warning=f"this should not happen: {type(error).__name__}: {error}")


class Known:
    """What is known of the site: read when a job first needs it, and again when a file has changed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: tuple[Path, ...] = (path,)
        self._looked = -_LOOK_AGAIN
        self._state: object = None
        self._qpus: tuple[Qpu, ...] = ()
        self._members: Members | None = None
        self._error: ConfigurationError | None = None
        self._without: bool | None = None

    def qpus(self) -> tuple[Qpu, ...]:
        """The QPUs that there are.

        Raises:
            ConfigurationError: The configuration does not say.
        """
        now = time.monotonic()
        if now - self._looked >= _LOOK_AGAIN:
            self._looked = now
            state = [_state(path) for path in self._files]
            if state != self._state or self._error is not None:
                self._read()
                self._state = [_state(path) for path in self._files]
        if self._error is not None:
            raise self._error
        if self._members is None:
            return self._qpus
        return tuple(replace(qpu, users=users) for qpu, users in zip(self._qpus, self._members.users(), strict=True))

    def interactive_jobs_get_none(self) -> bool:
        """On SGE 8.1.9 they cannot have hooks; where nobody knows which Grid Engine this is, it is that one."""
        from gridengine import commands  # noqa: PLC0415 - most jobs never need it
        from gridengine.resources import Flavour  # noqa: PLC0415

        if self._without is None:
            try:
                help_text = commands.run("qconf", "-help", limit=_QCONF_LIMIT).stdout
                self._without = commands.parse_version(help_text).flavour is not Flavour.OCS
            except commands.GridEngineError:
                return True
        return self._without

    def _read(self) -> None:
        from gridengine import site  # noqa: PLC0415 - most jobs never need it

        self._error = None
        try:
            found = site.load(self._path)
            self._qpus = tuple(jsv_policy.offered(offer, None) for offer in found.offers)
        except ConfigurationError as error:
            self._error = error
            return
        self._files = (self._path, *dict.fromkeys(offer.config for offer in found.offers if offer.config != self._path))
        if self._members is not None:
            self._members.close()
        access = [offer.warden.access for offer in found.offers]
        restricted = any(one.users or one.groups for one in access)
        self._members = Members(access) if restricted else None


class Members:
    """Who may use each of the QPUs; looked up in a thread, since nobody shall wait for a directory."""

    def __init__(self, access: Sequence[AccessSection]) -> None:
        # Who operates them is nothing to us, and such accounts need not be known here.
        self._access = [replace(one, operators=(), operator_groups=()) for one in access]
        self._users: tuple[frozenset[int] | None, ...] = (None,) * len(access)
        self._known: list[dict[str, int]] = [{} for _ in access]
        self._first, self._closed = threading.Event(), threading.Event()
        self._patience = time.monotonic() + _FIRST_LOOK
        threading.Thread(target=self._look, daemon=True).start()

    def users(self) -> tuple[frozenset[int] | None, ...]:
        """Uids by QPU; None: everybody, or nobody knows."""
        self._first.wait(max(0.0, self._patience - time.monotonic()))
        return self._users

    def close(self) -> None:
        self._closed.set()

    def _look(self) -> None:
        from warden import roster  # noqa: PLC0415

        while not self._closed.is_set():
            users = list(self._users)
            for number, (access, known) in enumerate(zip(self._access, self._known, strict=True)):
                try:
                    users[number] = roster.members(access, known).users
                except (ConfigurationError, OSError):
                    continue
            self._users = tuple(users)
            self._first.set()
            self._closed.wait(_MEMBERS_AGAIN)


def _lines(source: int) -> Iterator[tuple[bytes, bool]]:
    """Lines without their ends; for those that await an answer, whether more follows all the same."""
    poll = select.poll()
    poll.register(source, select.POLLIN)
    rest = b""
    while data := os.read(source, _CHUNK):
        *lines, rest = (rest + data).split(b"\n")
        rest = rest[:_LONGEST_LINE]
        for number, line in enumerate(lines, 1):
            read = number < len(lines) or bool(rest)
            yield line, line in _GRACE_MS and (read or _goes_on(poll, _GRACE_MS[line]))


def _goes_on(poll: select.poll, limit: int) -> bool:
    # That somebody has hung up is an event as well.
    return any(event & select.POLLIN for _, event in poll.poll(limit))


def _write(sink: int, data: bytes) -> None:
    """In one piece as far as there is room: Grid Engine takes what it has read for a line."""
    while data:
        data = data[os.write(sink, data) :]


def _state(path: Path) -> object:
    try:
        found = path.stat()
    except OSError as error:
        return error.errno
    return found.st_mtime_ns, found.st_ino, found.st_size


def _uid(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


if __name__ == "__main__":
    main()
