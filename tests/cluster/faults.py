"""Every way that Warden, its hosts and our own code can fail under a hook; each can be cured."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grid import MASTER, NODES, Grid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONFIG = "/etc/warden/warden.toml"
# Looks at qhost, each of which takes more than 0.1 s; a report is at most 4 s late.
STEADY = 30
QSTAT = "/var/lib/gridengine/bin/lx-amd64/qstat"
HOOKS = ("prolog", "epilog")
# Seconds that a hook may take: none gets there but for what hangs, on the busiest machine.
HOOK_LIMIT = 6
KEY = "/etc/warden/keys/broker.key"

# A stranger on the broker's port. It notes each connection, and writes what is no protocol at all.
STRANGER = """
import os, socket, threading
server = socket.create_server(("0.0.0.0", 7610))
def talk(connection):
    print("connected", flush=True)
    try:
        while connection.recv(100):
            connection.sendall(os.urandom(1000))
    except OSError:
        pass
while True:
    threading.Thread(target=talk, args=(server.accept()[0],), daemon=True).start()
"""

# One that has the broker's own key, and answers each request with another piece of nonsense, or as it was told.
IMPOSTOR = """
import sys, zmq
from pathlib import Path
from warden import frames, keyring, model, wire
server = zmq.Context().socket(zmq.ROUTER)
server.curve_server = True
server.curve_secretkey = keyring.key_pair(Path("/etc/warden/keys/broker.key_secret"))[1]
server.bind("tcp://0.0.0.0:7610")
turn = 0
while True:
    peer, frame = server.recv_multipart()
    number = frames.correlation_of(frame)
    nonsense = [b"", b"garbage", b"\\xc1", frames.pack_answer(number, 7), frames.pack_answer(number, {"id": []}),
                frames.pack_answer(number, {}) * 2, b"\\x91" * 5000, frames.pack_answer(number, {}).replace(b"\\x01", b"\\x09")]
    answer = nonsense[turn % len(nonsense)]
    turn += 1
    if sys.argv[1:] == ["forbids"]:
        hello = isinstance(frames.unpack_request(frame), wire.Hello)
        answer = frames.pack_answer(number, wire.Greeting(0, "")) if hello else frames.pack_refusal(
            number, model.ForbiddenError("this user may not use this QPU: ask its operator"))
    server.send_multipart([peer, answer])
"""


@dataclass(frozen=True)
class Fault:
    """`breaks` makes it, and cures it at its end; `says` is what the job's own output tells of it."""

    name: str
    breaks: Callable[[Grid], contextlib.AbstractContextManager[None]]
    says: str
    in_epilog: bool = False
    """Whether it is tried there too: one of each kind is."""


@contextlib.contextmanager
def stale_values(grid: Grid) -> Iterator[None]:
    """The sensors hang, so Grid Engine believes for ever what they said last: that the QPU is ready."""
    seen: list[bool] = []

    def steady() -> bool:
        # The sensors of all hosts report, and each of them late.
        seen.append(grid.load_values().get("qpu_state") == "ready")
        return len(seen) > STEADY and all(seen[-STEADY:])

    grid.until("all sensors to say that the QPU is ready", steady)
    _signal_sensors(grid, "STOP")
    try:
        yield
    finally:
        _signal_sensors(grid, "CONT")


@contextlib.contextmanager
def broker_down(grid: Grid) -> Iterator[None]:
    grid.lab.stop_broker()
    try:
        yield
    finally:
        grid.lab.start_broker()
        grid.until("Warden and the QPU", grid.ready)


@contextlib.contextmanager
def broker_hangs(grid: Grid) -> Iterator[None]:
    _signal(grid, MASTER, "/run/lab/broker.pid", "STOP")
    try:
        yield
    finally:
        _signal(grid, MASTER, "/run/lab/broker.pid", "CONT")
        grid.until("Warden and the QPU", grid.ready)


@contextlib.contextmanager
def cut_off(grid: Grid, host: str) -> Iterator[None]:
    """The host cannot reach Warden, but everything else."""
    rule = ["pref", "5", "ipproto", "tcp", "dport", "7610", "blackhole"]
    grid.lab.run(host, ["ip", "rule", "add", *rule])
    try:
        yield
    finally:
        grid.lab.run(host, ["ip", "rule", "del", *rule])


@contextlib.contextmanager
def execd_hangs(grid: Grid, host: str) -> Iterator[None]:
    grid.lab.run(host, ["pkill", "-STOP", "-x", "sge_execd"])
    try:
        yield
    finally:
        grid.lab.run(host, ["pkill", "-CONT", "-x", "sge_execd"])


@contextlib.contextmanager
def stranger(grid: Grid) -> Iterator[None]:
    with broker_down(grid), _in_its_place(grid, STRANGER):
        yield


@contextlib.contextmanager
def impostor(grid: Grid, *arguments: str) -> Iterator[None]:
    with broker_down(grid), _in_its_place(grid, IMPOSTOR, *arguments):
        yield


@contextlib.contextmanager
def munge_down(grid: Grid, *hosts: str) -> Iterator[None]:
    for host in hosts:
        grid.lab.end_process(host, "/run/munge/munged.pid", signal.SIGTERM)
    try:
        yield
    finally:
        for host in hosts:
            grid.lab.run(host, ["/usr/sbin/munged"], user="munge", log="munge")


@contextlib.contextmanager
def munge_hangs(grid: Grid) -> Iterator[None]:
    for node in NODES:
        _signal(grid, node, "/run/munge/munged.pid", "STOP")
    try:
        yield
    finally:
        for node in NODES:
            _signal(grid, node, "/run/munge/munged.pid", "CONT")


@contextlib.contextmanager
def replaced(grid: Grid, path: str, content: str, *, executable: bool = False) -> Iterator[None]:
    """On the execution hosts, another file in the place of this one."""
    mode = "755" if executable else "644"
    script = 'path=$(readlink -f "$1") && cat > /tmp/other && chmod "$2" /tmp/other && mount --bind /tmp/other "$path"'
    for node in NODES:
        grid.lab.run(node, ["sh", "-ec", script, "sh", path, mode], input=content)
    try:
        yield
    finally:
        for node in NODES:
            # The programs that still run from it may go on.
            grid.lab.run(node, ["sh", "-ec", 'umount -l "$(readlink -f "$1")"', "sh", path])


@contextlib.contextmanager
def hidden(grid: Grid, folder: str, options: str = "mode=755") -> Iterator[None]:
    """On the execution hosts, an empty folder in the place of this one; NODE in its path is the host's name."""
    for node in NODES:
        grid.lab.run(node, ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder.replace("NODE", node)])
    try:
        yield
    finally:
        for node in NODES:
            grid.lab.run(node, ["umount", "-l", folder.replace("NODE", node)])


@contextlib.contextmanager
def disk_full(grid: Grid) -> Iterator[None]:
    """While a hook runs there is no room for one more byte in the spool of its job.

    Hooks fill the disk, run ours and make room again: with no room at any time Grid Engine itself would fail.
    """
    shown = grid.lab.run(MASTER, ["qconf", "-sq", "all.q"]).stdout.replace("\\\n", " ")
    ours = {hook: line.split()[1:] for line in shown.splitlines() if (hook := line.partition(" ")[0]) in HOOKS}
    with hidden(grid, "/var/spool/gridengine/execd/NODE/active_jobs", "size=1m,mode=755,uid=sgeadmin,gid=sgeadmin"):
        try:
            for hook, (program, *arguments) in ours.items():
                path = grid.home("root") / f"full-{hook}"
                path.write_text(_FULL.format(program=program.removeprefix("root@")))
                path.chmod(0o755)
                _set_hook(grid, hook, [f"root@/home/root/full-{hook}", *arguments])
            yield
        finally:
            for hook, line in ours.items():
                _set_hook(grid, hook, line)
            # With room again the job runs, and its folder is there as long as it does.
            grid.until("the job to end", lambda: not grid.states())


# The last page of `environment` is filled too: what is left of it needs no room.
_FULL = """#!/bin/sh
cd "$SGE_JOB_SPOOL_DIR" || exit 99
size=$(stat -c %s environment)
head -c $(( 8192 - size % 4096 - 5 )) /dev/zero | tr '\\0' x | sed 's/^/PAD=/' >> environment
echo >> environment
dd if=/dev/zero of=filler bs=4k 2>/dev/null
{program} "$@"
status=$?
rm -f filler
exit $status
"""


@contextlib.contextmanager
def busy(grid: Grid) -> Iterator[None]:
    """Somebody whom Grid Engine does not know has the QPU."""
    acquire = "import warden.client as c; print(c.Client().acquire(job='999999', uid=2002).id)"
    release = "import sys, warden.client as c; c.Client().release(sys.argv[1])"
    session = grid.lab.run(MASTER, ["qpu-python", "-c", acquire]).stdout.strip()
    try:
        yield
    finally:
        grid.lab.run(MASTER, ["qpu-python", "-c", release, session])


@contextlib.contextmanager
def drained(grid: Grid) -> Iterator[None]:
    grid.lab.run(MASTER, ["warden", "drain", "--reason", "a new laser"])
    try:
        yield
    finally:
        grid.lab.run(MASTER, ["warden", "resume"])


@contextlib.contextmanager
def qmaster_hangs(grid: Grid) -> Iterator[None]:
    grid.lab.run(MASTER, ["pkill", "-STOP", "-x", "sge_qmaster"])
    try:
        yield
    finally:
        grid.lab.run(MASTER, ["pkill", "-CONT", "-x", "sge_qmaster"])


def _packages(grid: Grid) -> str:
    return str(next(grid.lab.kit.glob("lib/python3*/site-packages")))


def _code(path: str, text: str) -> Callable[[Grid], contextlib.AbstractContextManager[None]]:
    return lambda grid: replaced(grid, f"{_packages(grid)}/{path}", text)


def _python(text: str, *, executable: bool = True) -> Callable[[Grid], contextlib.AbstractContextManager[None]]:
    return lambda grid: replaced(grid, f"{grid.lab.kit}/bin/python", text, executable=executable)


def _file(
    path: str, text: str, *, executable: bool = False
) -> Callable[[Grid], contextlib.AbstractContextManager[None]]:
    return lambda grid: replaced(grid, path, text, executable=executable)


_OTHER_KEY = 'curve\n    public-key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"\n'

FAULTS = [
    Fault("broker down", broker_down, "does not answer", in_epilog=True),
    Fault("broker hangs", broker_hangs, "does not answer"),
    Fault("a stranger on its port", stranger, "does not answer"),
    Fault("garbage from the broker", impostor, "cannot be understood", in_epilog=True),
    Fault("another broker's key", _file(KEY, _OTHER_KEY), "does not answer"),
    Fault("key that is none", _file(KEY, "no key"), "is no key"),
    Fault("configuration missing", lambda grid: hidden(grid, "/etc/warden"), "cannot read the configuration"),
    Fault("configuration broken", _file(CONFIG, "[qpu\n"), "is no TOML", in_epilog=True),
    Fault("configuration unknown", _file(CONFIG, "[gridengine]\nqueue = 'all.q'\n"), "unknown key 'gridengine.queue'"),
    Fault("munged down here", lambda grid: munge_down(grid, *NODES), "MUNGE cannot make a credential"),
    Fault("munged hangs here", munge_hangs, f"not done within {HOOK_LIMIT} s", in_epilog=True),
    Fault("munged down there", lambda grid: munge_down(grid, MASTER), "MUNGE cannot check a credential"),
    Fault("disk full", disk_full, "No space left on device"),
    Fault("qstat fails", _file(QSTAT, "#!/bin/sh\necho cannot >&2; exit 1\n", executable=True), "cannot"),
    Fault("module does not load", _code("gridengine/hooks/job.py", "raise RuntimeError('broken')"), "broken"),
    Fault(
        "error in our code", _code("warden/config.py", "import sys; sys.exit(1)"), "should not happen", in_epilog=True
    ),
    Fault("Python cannot start", _python("", executable=False), "ermission denied"),
    Fault("Python is killed", _python("#!/bin/sh\necho killed; kill -9 $$\n"), "killed", in_epilog=True),
    Fault("Python ends as it likes", _python("#!/bin/sh\necho ended; exit 1\n"), "ended"),
]


# What is no fault: the QPU is not to be had now.
PASSING = [
    Fault("busy", busy, "all places on the QPU fresnel are taken"),
    Fault("drained", drained, "a new laser"),
]


@contextlib.contextmanager
def _in_its_place(grid: Grid, program: str, *arguments: str) -> Iterator[None]:
    grid.lab.log(MASTER, "impostor").write_text("")
    grid.lab.start(MASTER, "impostor", ["qpu-python", "-c", program, *arguments])
    listens = ["sh", "-c", "ss -ltn | grep -q :7610"]
    grid.until("the impostor", lambda: grid.lab.run(MASTER, listens, check=False).returncode == 0)
    try:
        yield
    finally:
        grid.lab.stop(MASTER, "impostor", signal.SIGKILL)


def _set_hook(grid: Grid, hook: str, words: list[str]) -> None:
    grid.lab.run(MASTER, ["qconf", "-rattr", "queue", hook, " ".join(words), "all.q"])


def _signal(grid: Grid, host: str, pid_file: str, name: str) -> None:
    grid.lab.run(host, ["sh", "-c", 'kill -s "$1" "$(cat "$2")"', "sh", name, pid_file])


def _signal_sensors(grid: Grid, name: str) -> None:
    for node in NODES:
        grid.lab.run(node, ["pkill", f"-{name}", "-f", "load_sensors.qpu"])
