"""The few system calls that Python's standard library lacks, and a process id that cannot be mistaken."""

import contextlib
import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

NEW_MOUNT = 0x00020000
NEW_UTS = 0x04000000
NEW_IPC = 0x08000000
NEW_PID = 0x20000000
NEW_NET = 0x40000000
EVERY_NAMESPACE = NEW_MOUNT | NEW_UTS | NEW_IPC | NEW_PID | NEW_NET

MOUNT_BIND = 0x1000
MOUNT_RECURSIVE = 0x4000
MOUNT_PRIVATE = 0x40000
MOUNT_NOSUID = 0x2
MOUNT_NODEV = 0x4

_PR_SET_PDEATHSIG = 1
# struct flock of 64-bit Linux: type, whence, start, length, process id.
_FLOCK = "hhqqi4x"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "making namespaces")


def setns(descriptor: int, flags: int) -> None:
    _check(_libc.setns(descriptor, flags), "entering the host's namespaces")


def set_hostname(name: str) -> None:
    raw = name.encode()
    _check(_libc.sethostname(raw, len(raw)), f"setting the host name {name}")


def end_with_parent(signal_number: int) -> None:
    """Have the kernel send this process a signal when its parent ends, however that ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "tying a process to its parent")


def mount(source: str | None, target: str, kind: str | None = None, flags: int = 0, options: str | None = None) -> None:
    """Put a file system, or with MOUNT_BIND a part of one, at `target`."""

    def raw(text: str | None) -> bytes | None:
        return text.encode() if text is not None else None

    result = _libc.mount(raw(source), raw(target), raw(kind), ctypes.c_ulong(flags), raw(options))
    _check(result, f"mounting {source} on {target}")


def hold(path: Path) -> int:
    """Take the record lock on a file for as long as this process lives, also through an exec.

    A process id in a file goes stale and may come to mean another process. The kernel knows who holds a lock, and
    lets go of it when that process ends.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.set_inheritable(descriptor, True)
    return descriptor


def holder(path: Path) -> int | None:
    """The id of the process that holds the lock on a file, or None."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
        return None if kind == fcntl.F_UNLCK else int(pid)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def holding(path: Path) -> Iterator[tuple[int, int] | None]:
    """The process that holds the lock on a file, its id and a pidfd that stays with it, or None."""
    pid = holder(path)
    while pid is not None:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            pid = holder(path)
            continue
        # It still holds the lock after the pidfd was opened, so the two are the same process.
        if (now := holder(path)) == pid:
            break
        os.close(pidfd)
        pid = now
    if pid is None:
        yield None
        return
    try:
        yield pid, pidfd
    finally:
        os.close(pidfd)
