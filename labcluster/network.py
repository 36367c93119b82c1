"""The wire between the hosts: a bridge on the master, and a cable from it to every node.

Each cable is made between two hosts' network namespaces directly, so the machine's own never holds an end of it.
"""

import subprocess

from labcluster import linux
from labcluster.errors import StepError
from labcluster.layout import MASTER, Layout, address


def connect(layout: Layout) -> None:
    pids = {host: _pid(layout, host) for host in layout.hosts}
    nodes = [host for host in layout.hosts if host != MASTER]
    _ip(
        pids[MASTER],
        "link set lo up",
        "link add eth0 type bridge",
        f"address add {address(MASTER)}/24 dev eth0",
        "link set eth0 up",
        *(f"link add {node} type veth peer name eth0 netns {pids[node]}" for node in nodes),
        *(f"link set {node} master eth0 up" for node in nodes),
    )
    for node in nodes:
        _ip(pids[node], "link set lo up", f"address add {address(node)}/24 dev eth0", "link set eth0 up")


def _pid(layout: Layout, host: str) -> int:
    found = linux.holder(layout.init_lock(host))
    if found is None:
        raise StepError(f"host {host} ended while it was being set up")
    return found


def _ip(pid: int, *lines: str) -> None:
    done = subprocess.run(
        ["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-batch", "-"],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise StepError(f"could not lay the cluster's network: {done.stderr.strip()}")
