"""Running one command on a host, as one of its users: what `lab exec` and every step of setting up go through.

It has to be quick, so it imports little.
"""

import os
import pwd
import signal
import sys
from typing import NoReturn

from labcluster import linux
from labcluster.errors import LabError, NotUpError
from labcluster.layout import Layout

CELL_ENVIRONMENT = {
    "SGE_ROOT": "/var/lib/gridengine",
    "SGE_CELL": "default",
    "SGE_QMASTER_PORT": "6444",
    "SGE_EXECD_PORT": "6445",
}
_PATH = "/usr/local/bin:/usr/bin:/bin"
_ROOT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PASSED_ON = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
# What shells answer for a command that cannot be started.
_NOT_EXECUTABLE = 126
_NOT_FOUND = 127


def enter(layout: Layout, host: str, user: str, command: list[str]) -> int:
    """Run the command on the host and return its exit status, 128 + N if signal N ended it.

    An empty command is the user's login shell.
    """
    layout.check_host(host)
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_PASSED_ON, signal.SIGCHLD})
    with linux.holding(layout.init_lock(host)) as found:
        if found is None:
            raise NotUpError(f"host {host} of cluster {layout.name} does not run: run ./lab up{layout.option}")
        pid, pidfd = found
        # A mount namespace's own root is not where the host's first process stands if the machine is a chroot.
        root = os.open(f"/proc/{pid}/root", os.O_PATH)
        linux.setns(pidfd, linux.EVERY_NAMESPACE)
    os.fchdir(root)
    os.chroot(".")
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        raise LabError(f"cluster {layout.name} has no user {user}: it has root, alice, bob and warden") from None
    child = os.fork()
    if child == 0:
        _start(account, host, command)
    return _wait(child)


def _start(account: pwd.struct_passwd, host: str, command: list[str]) -> NoReturn:
    status = _NOT_EXECUTABLE
    try:
        os.initgroups(account.pw_name, account.pw_gid)
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        linux.end_with_parent(signal.SIGKILL)
        os.chdir(account.pw_dir if os.path.isdir(account.pw_dir) else "/")  # noqa: PTH112 - quicker than a Path
        # Python ignores these two, and what is ignored stays so in the program that is started.
        for ignored in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(ignored, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        program = command or [account.pw_shell, "-l"]
        os.execvpe(program[0], program, environment(account))  # noqa: S606 - the command is the caller's
    except FileNotFoundError:
        status = _NOT_FOUND
        print(f"lab: {host}: {command[0]}: command not found", file=sys.stderr)
    except OSError as error:
        print(f"lab: {host}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)


def environment(account: pwd.struct_passwd) -> dict[str, str]:
    """A clean environment, as after logging in: nothing of the caller's but the kind of terminal."""
    return {
        "PATH": _PATH if account.pw_uid else _ROOT_PATH,
        "HOME": account.pw_dir,
        "USER": account.pw_name,
        "LOGNAME": account.pw_name,
        "SHELL": account.pw_shell,
        "LANG": "C.UTF-8",
        "TERM": os.environ.get("TERM", "dumb"),
        **CELL_ENVIRONMENT,
    }


def _wait(child: int) -> int:
    while True:
        came = signal.sigwaitinfo({*_PASSED_ON, signal.SIGCHLD})
        if came.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                code = os.waitstatus_to_exitcode(status)
                return code if code >= 0 else 128 - code
        elif came.si_code <= 0:
            # Sent by a process, to this one. A key of the terminal reaches the command without help.
            os.kill(child, came.si_signo)
