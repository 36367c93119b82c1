"""What ./lab promises, tried on the real thing; without the kit, which is none of these tests' business."""

import contextlib
import os
import random
import resource
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labcluster import linux
from labcluster.cluster import Cluster
from labcluster.errors import LabError

LAB = Path(__file__).resolve().parents[2] / "lab"
# Nothing here takes so long, on the busiest machine.
LIMIT = 180.0
# What a cluster must not change on the machine.
OUTSIDE = [
    Path("/etc/hosts"),
    Path("/etc/passwd"),
    Path("/etc/group"),
    Path("/etc/shadow"),
    Path("/etc/munge/munge.key"),
]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can set a cluster up")


def lab_command(*arguments: str, text: str | None = None, **more: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LAB), *arguments],
        input=text,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
        **more,  # type: ignore[call-overload]
    )


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.02)


def namespaces_of(process: str) -> set[str]:
    kinds = ("net", "mnt", "uts", "pid", "ipc")
    # One that ended before it could be read, and one that only waits to be reaped, holds none.
    with contextlib.suppress(OSError):
        return {os.readlink(f"/proc/{process}/ns/{kind}") for kind in kinds}  # noqa: PTH115 - "net:[1]" is no path
    return set()


@contextlib.contextmanager
def kept_apart(processes: set[int]) -> Iterator[set[str]]:
    """The namespaces of these processes. As long as they are held open, no other cluster's get their numbers."""
    with contextlib.ExitStack() as stack:
        for pid in processes:
            for path in Path(f"/proc/{pid}/ns").glob("*"):
                with contextlib.suppress(OSError):
                    stack.callback(os.close, os.open(path, os.O_RDONLY))
        yield set().union(*(namespaces_of(str(pid)) for pid in processes))


def namespaces_in_use() -> set[str]:
    return set().union(*(namespaces_of(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()))


def first_processes(cluster: Cluster) -> set[int]:
    """Of its hosts."""
    return {pid for host in cluster.hosts if (pid := linux.holder(cluster.init_lock(host)))}


def traces(cluster: Cluster) -> list[str]:
    """Processes and mounts that show that the cluster was there."""
    words = (f"lab:{cluster.name}:", f" {cluster.name} ", str(cluster.folder))
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if any(word in line for word in words):
            found.append(line)
    return found + [
        line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(cluster.folder) in line
    ]


@pytest.fixture(scope="module")
def bare() -> Iterator[Cluster]:
    cluster = Cluster(f"bare-{os.getpid()}")
    try:
        cluster.up(1, with_kit=False)
        yield cluster
    finally:
        cluster.down()


@pytest.fixture
def unborn() -> Iterator[Cluster]:
    """A name for a cluster that the test itself sets up, or tries to."""
    cluster = Cluster(f"unborn-{os.getpid()}")
    try:
        yield cluster
    finally:
        cluster.down()


def test_exec_passes_on_status_output_and_input(bare: Cluster) -> None:
    script = "cat; echo trouble >&2; exit 7"
    done = lab_command("exec", "--name", bare.name, "node1", "sh", "-c", script, text="some\ninput")

    assert (done.returncode, done.stdout, done.stderr) == (7, "some\ninput", "trouble\n")


def test_exec_takes_options_on_both_sides_of_the_host_and_none_of_the_commands(bare: Cluster) -> None:
    before = lab_command("exec", "--name", bare.name, "--user", "bob", "node1", "id", "-un")
    after = lab_command("exec", "node1", f"--name={bare.name}", "--user=bob", "--", "echo", "--user", "alice")

    assert (before.stdout, after.stdout) == ("bob\n", "--user alice\n")


def test_exec_is_a_login_of_the_user(bare: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "of the caller")
    done = bare.run("node1", ["sh", "-c", "id; pwd; hostname; env"], user="alice")
    who, where, host, *environment = done.stdout.splitlines()

    assert who == "uid=2001(alice) gid=2001(alice) groups=2001(alice)"
    assert (where, host) == ("/home/alice", "node1")
    assert not [line for line in environment if line.startswith(("SECRET", "LAB_HOME"))]
    assert "SGE_ROOT=/var/lib/gridengine" in environment


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["node1", "nonesuch"], 127, "nonesuch: command not found"),
        (["node1", "/etc/hosts"], 126, "Permission denied"),
        (["node1", "sh", "-c", "kill -9 $$"], 137, ""),
        (["node7", "true"], 125, "no host node7: it has master, node1"),
        (["--user", "zoe", "node1", "true"], 125, "no user zoe"),
    ],
)
def test_exec_says_what_went_wrong(bare: Cluster, arguments: list[str], status: int, said: str) -> None:
    done = lab_command("exec", "--name", bare.name, *arguments)

    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_exec_passes_signals_on_and_takes_its_command_along(bare: Cluster) -> None:
    polite = bare.popen(
        "node1", ["sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.1; done"], stdout=-1
    )
    assert polite.stdout is not None
    assert polite.stdout.readline() == "up\n"
    polite.terminate()
    assert polite.communicate(timeout=LIMIT)[0] == "bye\n"
    assert polite.returncode == 3

    with bare.popen("node1", ["sleep", "987654"]) as doomed:
        until(lambda: bare.run("node1", ["pgrep", "-f", "sleep 987654"], check=False).stdout, "it runs")
        doomed.kill()
    until(lambda: not bare.run("node1", ["pgrep", "-f", "sleep 987654"], check=False).stdout, "it is gone")


def spent() -> float:
    """Seconds that processors have spent on the processes that we have started."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_exec_adds_little_to_the_command(bare: Cluster) -> None:
    times = []
    for _ in range(10):
        start = spent()
        assert lab_command("exec", "--name", bare.name, "node1", "true").returncode == 0
        times.append(spent() - start)

    # 60 ms is the aim on a quiet machine; on one that is busy it is more, also by this clock.
    assert min(times) < 0.15


def test_jobs_run_as_their_user_with_the_commands_on_their_path(bare: Cluster) -> None:
    job = "id -un; hostname; echo $PATH; qstat -u '*'"
    bare.run("master", ["qsub", "-sync", "y", "-j", "y", "-o", "/home/alice/out"], user="alice", input=job)
    who, host, path, *listed = bare.run("node1", ["cat", "out"], user="alice").stdout.splitlines()

    assert (who, host) == ("alice", "node1")
    assert path.endswith(":/usr/local/bin:/bin:/usr/bin")
    assert any("alice" in line for line in listed)
    # The record comes a moment after the job's end.
    until(lambda: "owner        alice" in bare.run("node1", ["qacct", "-j", "1"], check=False).stdout, "it is recorded")


def test_every_host_trusts_the_clusters_own_munge(bare: Cluster) -> None:
    credential = bare.run("node1", ["munge", "-n"], user="bob").stdout
    told = bare.run("master", ["unmunge"], input=credential).stdout

    assert "bob (2002)" in told
    machine = Path("/etc/munge/munge.key")
    assert not machine.exists() or machine.read_bytes() != (bare.etc / "munge" / "munge.key").read_bytes()


def test_an_orphan_on_a_host_is_reaped(bare: Cluster) -> None:
    bare.run("node1", ["sh", "-c", "setsid -f sleep 0.1; setsid -f sleep 0.1"])

    until(
        lambda: "sleep" not in bare.run("node1", ["ps", "-eo", "comm", "--ppid", "1"]).stdout.splitlines()[2:], "gone"
    )
    # Others have parents, who are not always as quick.
    until(lambda: "defunct" not in bare.run("node1", ["ps", "-e"]).stdout, "nobody is left unreaped")


def test_daemons_can_be_ended_and_started_again(bare: Cluster) -> None:
    bare.restart_execd("node1")
    bare.start("node1", "napper", ["sleep", "1000"], user="bob")
    assert bare.lives("node1", "napper")
    bare.stop("node1", "napper")
    assert not bare.lives("node1", "napper")


def contents(path: Path) -> tuple[int, ...]:
    """By which a change would be seen; not when it was read last, as anybody may do."""
    found = path.stat()
    return found.st_ino, found.st_mode, found.st_uid, found.st_gid, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def test_a_second_cluster_stands_beside_the_first_and_leaves_nothing(bare: Cluster, unborn: Cluster) -> None:
    outside = {path: contents(path) for path in OUTSIDE if path.exists()}
    interfaces = sorted(Path("/sys/class/net").iterdir())
    assert unborn.up(2, with_kit=False)
    assert unborn.hosts == ("master", "node1", "node2")
    leave = (
        "setsid -f sleep 876543 >/dev/null 2>&1; echo x >/tmp/x; echo x >/var/tmp/x; echo x >/run/x; echo x >/home/x"
    )
    unborn.run("node2", ["sh", "-c", leave])

    listed = {cluster.name: cluster.run("master", ["qconf", "-sel"]).stdout.split() for cluster in (bare, unborn)}
    assert listed == {bare.name: ["node1"], unborn.name: ["node1", "node2"]}
    assert sorted(Path("/sys/class/net").iterdir()) == interfaces
    assert not unborn.up(2, with_kit=False)
    with pytest.raises(LabError, match=r"run \./lab down --name"):
        unborn.up(1, with_kit=False)

    with kept_apart(first_processes(unborn)) as theirs:
        assert unborn.down()
        assert not unborn.down()
        assert traces(unborn) == []
        assert len(theirs) == 15
        until(lambda: not theirs & namespaces_in_use(), "nobody is in its namespaces")
    assert not unborn.folder.exists()
    assert {path: contents(path) for path in OUTSIDE if path.exists()} == outside
    with pytest.raises(LabError, match="there is no cluster"):
        unborn.check_host("master")
    assert bare.run("node1", ["qconf", "-sel"]).stdout == "node1\n"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_up_may_be_interrupted_anywhere(unborn: Cluster, number: signal.Signals, seed: int) -> None:
    up = subprocess.Popen(
        [str(LAB), "up", "1", "--bare", "--name", unborn.name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    pidfd = os.pidfd_open(up.pid)
    # Anywhere from before the first line of Python to after the end.
    moment = random.Random(seed).uniform(0, 1.0) ** 2 * 5
    if not select.select([pidfd], [], [], moment)[0]:
        os.killpg(up.pid, number) if number == signal.SIGINT else up.send_signal(number)
    os.close(pidfd)
    said = up.communicate(timeout=LIMIT)[0]
    # An interpreter that is interrupted before it has come to our code says so in its own way.
    assert "Traceback" not in said or "/labcluster/" not in said

    with kept_apart(first_processes(unborn)) as theirs:
        done = lab_command("down", "--name", unborn.name)

        assert done.returncode == 0, done.stderr
        until(lambda: traces(unborn) == [], "the commands that were under way have ended")
        until(lambda: not theirs & namespaces_in_use(), "nobody is in its namespaces")
    assert not unborn.folder.exists()


@pytest.mark.site
def test_the_demo_shows_what_it_says(unborn: Cluster) -> None:
    # It checks each of its steps itself, and says what did not happen.
    command = [str(LAB), "demo", "--name", unborn.name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    assert "All of this happened" in done.stdout
