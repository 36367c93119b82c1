"""The prolog or epilog that a queue had before ours: run as Grid Engine itself would have run it.

`chain prolog|epilog N [USER@]PROGRAM ARGUMENTS JOB TASK OWNER HOST`, N words being theirs, started by `qpu-chain` as root without any
environment. The one that Grid Engine gave to `qpu-chain` comes in by descriptor 3, as the kernel keeps it; the status of the
program goes out by descriptor 5. No status: it was not run.

Grid Engine runs a hook as USER or, without one, as the job's owner. So the job's environment reaches a process of root
where the site has said `root@` of its own hook, and nowhere else: not even the interpreter here. And since a job on SGE
8.1.9 can have the shepherd name another owner, the qmaster is asked whose it is before a prolog becomes him.
"""

from __future__ import annotations

import errno
import os
import pwd
import signal
import sys
from typing import TYPE_CHECKING, Never

from gridengine.hooks import shepherd

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ENVIRON, _STATUS = 3, 5
# What the shell around us ignores; for a hook of Grid Engine nothing is ignored.
_TRAPPED = ("HUP", "INT", "QUIT", "PIPE", "TERM", "USR1", "USR2", "XCPU", "XFSZ")
_NOT_FOUND, _KILLED = 127, 128
# What Grid Engine sets over whatever the user says; and its ports, where no shepherd has others.
_TRUSTED = ("SGE_JOB_SPOOL_DIR", "SGE_ROOT", "SGE_CELL", *shepherd.PORTS)
_QSTAT_LIMIT = 15.0


def main() -> None:
    if sys.argv[1:] == ["--check"]:
        from gridengine.hooks import check  # noqa: PLC0415 - no job comes here

        check.check("qpu-chain")
    hook, number, *words = sys.argv[1:]
    theirs, ours = words[: int(number)], words[int(number) :]
    _, _, owner, _ = ours
    with open(_ENVIRON, "rb") as file:
        environ = environment(file.read())
    if not environ:
        raise ValueError("the environment that Grid Engine gave is gone")
    account, program = user(theirs[0], owner)
    # A job whose prolog went well is its owner's.
    if hook == "prolog" and theirs[0] == program and not is_his(ours, environ):
        os.write(_STATUS, b"100")
        return
    groups = {*os.getgrouplist(account.pw_name, account.pw_gid), *_granted_groups()}
    child = os.fork()
    if child == 0:
        _become(account, groups, [program, *theirs[1:]], environ)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.write(_STATUS, str(status if status >= 0 else _KILLED - status).encode())


def is_his(arguments: Sequence[str], environ: Mapping[bytes, bytes]) -> bool:
    """Whether the qmaster says, too, that the job is this owner's; else the job is told why it is not run.

    Raises:
        WardenError: Nobody knows.
    """
    from gridengine.hooks.job import HookJob  # noqa: PLC0415 - where theirs are root's, they need it not
    from warden.model import BadRequestError  # noqa: PLC0415

    trusted = {name: os.fsdecode(environ[os.fsencode(name)]) for name in _TRUSTED if os.fsencode(name) in environ}
    job = HookJob.read(arguments, shepherd.with_its_ports(trusted))
    try:
        job.look_up(limit=_QSTAT_LIMIT)
    except BadRequestError as error:
        job.explain(error.text)
        return False
    return True


def user(word: str, owner: str) -> tuple[pwd.struct_passwd, str]:
    """Who runs the program, and its path, from the first word of a hook: `[USER@]PATH`.

    Raises:
        ValueError, KeyError: It is none that can be run.
    """
    name, mark, path = word.partition("@") if "@" in word.partition("/")[0] else ("", "", word)
    account = pwd.getpwnam(name if mark else owner)
    if not path.startswith("/"):
        raise ValueError(f"{path!r} is no path")
    if account.pw_uid == 0 and not mark:
        raise ValueError("root owns no jobs")
    return account, path


def environment(data: bytes) -> dict[bytes, bytes]:
    """Pure: an environment as the kernel keeps it; of a name that stands there twice the first counts, as for getenv."""
    found: dict[bytes, bytes] = {}
    for line in data.split(b"\0"):
        name, mark, value = line.partition(b"=")
        if mark and name:
            found.setdefault(name, value)
    return found


def spooled(text: bytes) -> dict[bytes, bytes]:
    """Pure: a spool's `environment`; Grid Engine writes a line break as a backslash and an n, and the last line counts."""
    pairs = (line.partition(b"=") for line in text.split(b"\n"))
    return {name: value.replace(b"\\n", b"\n") for name, mark, value in pairs if mark and name}


def _granted_groups() -> set[int]:
    """What Grid Engine adds to a hook's groups, to know its processes by; not those that root has anyway."""
    return set(os.getgroups()) - set(os.getgrouplist("root", 0))


def _become(account: pwd.struct_passwd, groups: set[int], words: list[str], environ: Mapping[bytes, bytes]) -> Never:
    try:
        os.setgroups(sorted(groups))
        os.setgid(account.pw_gid)
        os.setuid(account.pw_uid)
        if account.pw_uid != 0:
            # To root Grid Engine gives less of what the job's owner has set than to others: they get all of it.
            environ = {**_rest(environ), **environ}
        for name in _TRAPPED:
            signal.signal(getattr(signal, f"SIG{name}"), signal.SIG_DFL)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        try:
            os.execve(words[0], words, environ)  # noqa: S606 - no shell is wanted
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            os.execve("/bin/sh", ["/bin/sh", *words], environ)  # noqa: S606 - a script without #!
    except OSError as error:
        os.write(2, f"cannot run {words[0]}: {error.strerror}\n".encode(errors="replace"))
    finally:
        os._exit(_NOT_FOUND)


def _rest(environ: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    try:
        with open(environ[b"SGE_JOB_SPOOL_DIR"] + b"/environment", "rb") as file:  # noqa: PTH123 - its path is bytes
            return spooled(file.read())
    except (KeyError, OSError):
        return {}


if __name__ == "__main__":
    main()
