"""A private Grid Engine cluster on one machine.

Each host of the cluster is a set of Linux namespaces (network, host name, mounts, processes, IPC) whose first process
does nothing but hold them open: when it ends, the kernel ends everything on that host. Nothing of a cluster exists in
the machine's own namespaces, and all its files are in one folder.

    host.py     becomes a host                      enter.py    runs a command in one
    files.py    what the hosts see of the machine   network.py  the wire between them
    cell.py     Grid Engine on them                 kit.py      the kit, Warden and the QPU on them
    qrmi.py     QRMI's own clients on them          suite.py    ./lab test
    cluster.py  the handle on all of this

It uses the standard library alone, for a bare Debian has nothing else.
"""
