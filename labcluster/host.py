"""Becoming a host: new namespaces, the host's own view of the file system, and a first process that waits.

Run as a program when a cluster is set up: `python -IS host.py CLUSTER HOME HOST LOCK`.
"""

import os
import signal
import sys
from pathlib import Path
from typing import NoReturn

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from labcluster import linux
from labcluster.layout import Layout

# What is the host's own and need not outlive it.
_FRESH = {
    "/tmp": "mode=1777",  # noqa: S108 - the host's own /tmp, not a file in the machine's
    "/run": "mode=0755",
    "/dev/shm": "mode=1777",  # noqa: S108 - as above
}


def main() -> int:  # noqa: RET503 - the last call does not return
    """Fork the host's first process, which reports on standard output and then only waits."""
    cluster, home, host, lock = sys.argv[1:]
    layout = Layout(cluster, Path(home))
    try:
        linux.unshare(linux.EVERY_NAMESPACE)
    except PermissionError as error:
        print(f"{error}; a lab needs a machine, or a container with every privilege, where root may make namespaces")
        return 1
    if os.fork():
        return 0
    try:
        _become(layout, host, inherited_lock=int(lock))
    except OSError as error:
        print(f"{host}: {error}", flush=True)
        return 1
    print("ready", flush=True)
    _wait_for_ever(layout, host)


def _become(layout: Layout, host: str, inherited_lock: int) -> None:
    os.setsid()
    os.chdir("/")
    linux.hold(layout.init_lock(host))
    # From here on the host's own lock shows that it exists. Until here the cluster's lock did: a `down` that comes
    # while this process is being born waits for it.
    os.close(inherited_lock)
    linux.set_hostname(host)
    _mount(layout, host)


def _mount(layout: Layout, host: str) -> None:
    linux.mount(None, "/", flags=linux.MOUNT_RECURSIVE | linux.MOUNT_PRIVATE)
    folders = {
        layout.users: "/home",
        layout.var(host): "/var",
        layout.etc: "/etc",
        layout.commands: "/usr/local/bin",
    }
    # Opened before anything is mounted over them: the state folder may itself lie under /var, /home or /tmp.
    opened = {target: _open(source) for source, target in folders.items()}
    opened |= {"/var/lib/gridengine": _open(layout.cell), "/etc/hostname": _open(layout.host_folder(host) / "hostname")}
    opened |= {str(path): _open(path) for path in (layout.kit, layout.qrmi) if path.exists()}
    for target, options in _FRESH.items():
        linux.mount("tmpfs", target, "tmpfs", linux.MOUNT_NOSUID | linux.MOUNT_NODEV, options)
    for target, descriptor in opened.items():
        # Only below what was mounted afresh just now; everything else is there on every Debian.
        if not Path(target).exists():
            Path(target).mkdir(parents=True)
        linux.mount(f"/proc/self/fd/{descriptor}", target, flags=linux.MOUNT_BIND)
        os.close(descriptor)
    # Last, for the paths above are those of the machine's process ids.
    linux.mount("proc", "/proc", "proc", linux.MOUNT_NOSUID | linux.MOUNT_NODEV)


def _open(path: Path) -> int:
    return os.open(path, os.O_PATH)


def _wait_for_ever(layout: Layout, host: str) -> NoReturn:
    # The kernel reaps the children of a process that ignores SIGCHLD, and every orphan of the host becomes one of
    # this process. So it need not be a program of ours: the smallest that waits will do.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.execv("/bin/sleep", [f"lab:{layout.name}:{host}", "infinity"])  # noqa: S606 - there is no shell to want


if __name__ == "__main__":
    sys.exit(main())
