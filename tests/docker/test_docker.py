"""The cluster in containers: built, brought up, used, restarted, spoilt, and taken down without a trace.

Needs a Docker daemon, one of the two composes, and a way to the registries (docker/README.md). Whatever a compose is given
in the environment reaches it: BUILD_NETWORK, PIP_CERT. COMPOSE says which compose is meant, if both are there.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "docker" / "README.md").read_text(encoding="utf-8")
SERVICES = ("munge", "warden", "worker", "qmaster", "node1", "node2")
LIBRARY = "/usr/local/lib/cluster"
# What docker gives a container between SIGTERM and SIGKILL; then its exit status is 137.
GRACE = "10"


def compose_command() -> list[str]:
    """Which compose there is; the reason why not, as a skip."""
    try:
        info = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False, timeout=30)
    except FileNotFoundError:
        pytest.skip("there is no docker command here")
    if info.returncode:
        pytest.skip(f"no Docker daemon answers here: {(info.stderr.strip() or info.stdout).splitlines()[-1]}")
    wanted = os.environ.get("COMPOSE")
    for command in [shlex.split(wanted)] if wanted else [["docker", "compose"], ["docker-compose"]]:
        try:
            subprocess.run([*command, "version"], capture_output=True, check=True, timeout=30)
        except (OSError, subprocess.CalledProcessError):
            continue
        return command
    pytest.skip("there is neither docker compose nor docker-compose here")


class Cluster:
    def __init__(self, command: list[str], folder: Path) -> None:
        self.project = f"gridengine-qpu-test-{os.getpid()}"
        self._command = [*command, "-p", self.project, "-f", str(ROOT / "docker" / "compose.yaml")]
        self._override = folder / "override.json"
        self._volumes = 0
        # Beside the cluster that its user may have up.
        self._environment = {**os.environ, "CLUSTER_NET": f"172.30.{100 + os.getpid() % 100}"}

    def compose(self, *arguments: str, override: bool = False, check: bool = True, limit: float = 600) -> str:
        files = ["-f", str(self._override)] if override else []
        done = subprocess.run(
            [*self._command, *files, *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=limit,
            env=self._environment,
            stdin=subprocess.DEVNULL,
        )
        assert not check or done.returncode == 0, f"{arguments}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def run(self, service: str, *command: str, user: str | None = None, check: bool = True) -> str:
        return self.compose("exec", "-T", *(["--user", user] if user else []), service, *command, check=check)

    def shell(self, text: str) -> str:
        """What alice types on an execution host."""
        return self.run("node2", "bash", "-c", f"cd; {text}", user="alice")

    def up(self) -> None:
        self.compose("up", "-d")
        self.until(lambda: all(self.state(one)["Health"] == "healthy" for one in SERVICES), "all are healthy", 120)

    def state(self, service: str) -> dict[str, Any]:
        ids = (
            self.compose("ps", "-a", "-q", service).split()
            if self._plugin
            else self.compose("ps", "-q", service).split()
        )
        told = json.loads(docker("inspect", "-f", "{{json .State}}", ids[0]))
        return {**told, "Health": told.get("Health", {}).get("Status")}

    @property
    def _plugin(self) -> bool:
        return self._command[0] == "docker"

    def log(self, service: str) -> list[str]:
        """As `logs` shows it, without the service's name in front."""
        return [
            line.partition("| ")[2] for line in self.compose("logs", "--no-color", service).splitlines() if "| " in line
        ]

    def spoilt(self, service: str, **changes: Any) -> list[str]:
        """Start a service with something wrong; what it said before it ended. FRESH is a volume in which nothing is."""
        self._volumes += 1
        spoilt = {"services": {service: {"restart": "no", **changes}}, "volumes": {"foreign": {}, "FRESH": {}}}
        self._override.write_text(json.dumps(spoilt).replace("FRESH", f"fresh{self._volumes}"))
        self.compose("up", "-d", "--no-deps", service, override=True)
        self.until(lambda: self.state(service)["Status"] == "exited", f"{service} ends", 60)
        assert self.state(service)["ExitCode"] == 1
        return self.log(service)

    def until(self, holds: Callable[[], bool], what: str, limit: float = 60) -> None:
        end = time.monotonic() + limit
        while not holds():
            if time.monotonic() > end:
                log = self.compose("logs", "--no-color", "--tail", "20", check=False)
                pytest.fail(f"waited {limit:g} s in vain until {what}\n{self.compose('ps', check=False)}\n{log}")
            time.sleep(0.5)

    # what is on the cluster

    def jobs(self) -> dict[str, str]:
        """Name and state of each job."""
        lines = [line.split() for line in self.run("qmaster", "qstat", "-u", "*").splitlines()[2:]]
        return {fields[2]: fields[4] for fields in lines}

    def sessions(self, *options: str) -> list[str]:
        told = self.run("warden", "warden", "sessions", "--json", *options)
        return [session["id"] for session in json.loads(told)]

    def remove_spare_volumes(self) -> None:
        """Those of which only the overrides knew."""
        for volume in self._labelled("volume", "ls"):
            if re.fullmatch(rf"{self.project}_(foreign|fresh\d+)", volume):
                docker("volume", "rm", volume)

    def left(self) -> list[str]:
        return [*self._labelled("ps", "-a"), *self._labelled("volume", "ls"), *self._labelled("network", "ls")]

    def _labelled(self, *listing: str) -> list[str]:
        return docker(*listing, "-q", "--filter", f"label=com.docker.compose.project={self.project}").split()


def docker(*arguments: str) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster(compose_command(), tmp_path_factory.mktemp("compose"))
    try:
        cluster.compose("build", limit=1800)
        cluster.up()
        yield cluster
    finally:
        cluster.compose("down", "--volumes", "--remove-orphans", check=False)
        cluster.remove_spare_volumes()
    assert cluster.left() == []


def documented(*command: str) -> str:
    """One of the commands that the README tells its reader to type."""
    text = shlex.join(command)
    assert f"docker-compose -f docker/compose.yaml exec {text}" in README
    return text


# --- what it is for ---


def test_a_job_of_alices_prints_its_counts(cluster: Cluster) -> None:
    documented("--user", "alice", "node1", "demo-job")
    told = cluster.run("node1", "demo-job", user="alice")
    assert "200 shots" in told
    assert re.search(r"^(01010101|10101010) +\d+ ", told, re.MULTILINE)


def test_grid_engine_shows_the_qpu(cluster: Cluster) -> None:
    command = ("qhost", "-F", "qpu,qpu_state")
    documented("qmaster", *command)
    told = cluster.run("qmaster", *command)
    assert "qpu=1.000000" in told
    assert "qpu_state=ready" in told


def test_a_job_builds_its_sequence_with_pulser(cluster: Cluster) -> None:
    job = cluster.shell("qsub -terse -sync y -N python -l qpu=1 -cwd -j y -b y qpu-python afm_job.py").split()[0]
    assert "of 200 shots" in cluster.shell(f"cat python.o{job}")


def test_the_doctor_finds_nothing_bad(cluster: Cluster) -> None:
    findings = json.loads(cluster.run("qmaster", "qpu-admin", "doctor", "--json"))
    assert [finding for finding in findings if finding["verdict"] == "bad"] == []
    # Among them: the edge answers.
    assert any(finding["what"] == "edge" and finding["verdict"] == "ok" for finding in findings)


# --- what it must not be ---


@pytest.mark.parametrize("service", ["warden", "worker", "munge"])
def test_wardens_processes_can_do_nothing(cluster: Cluster, service: str) -> None:
    assert cluster.run(service, "id", "-u").strip() != "0"
    status = cluster.run(service, "cat", "/proc/1/status")
    assert re.search(r"^CapEff:\s0+$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s1$", status, re.MULTILINE)
    mounts = [line.split() for line in cluster.run(service, "cat", "/proc/1/mounts").splitlines()]
    assert next(fields[3] for fields in mounts if fields[1] == "/").startswith("ro")


def test_no_host_has_another_ones_secrets(cluster: Cluster) -> None:
    found = {
        one: cluster.run(one, "sh", "-c", "find /etc/munge /etc/warden -name '*.key*' 2>/dev/null || true").split()
        for one in SERVICES
    }
    for host in ("qmaster", "node1", "node2"):
        assert sorted(found[host]) == ["/etc/munge/munge.key", "/etc/warden/keys/broker.key"]
    for service in ("warden", "worker"):
        assert "/etc/munge/munge.key" not in found[service]
    # Each reads its own key alone.
    for service, other in (("warden", "worker"), ("worker", "broker")):
        assert cluster.run(service, "cat", f"/etc/warden/keys/{other}.key_secret", check=False) == ""


@pytest.mark.parametrize("target", ["qmaster", "execd", "warden"])
def test_no_image_has_a_compiler_or_a_key(cluster: Cluster, target: str) -> None:
    assert cluster
    names = " -o ".join(
        f"-name '{name}'" for name in ("cc1*", "gcc*", "cc", "c++", "g++*", "tcc", "clang*", "as", "ld", "rustc")
    )
    find = f"find /usr/bin /usr/lib /usr/libexec /usr/local /opt -type f \\( {names} \\) -perm -u+x"
    image = ("run", "--rm", "--user", "root", f"gridengine-qpu-{target}", "sh", "-c")
    assert docker(*image, find) == ""
    # Nor a key, which would be the same for all who have the image.
    assert docker(*image, "find /etc/munge /etc/warden -name '*key*' -type f") == ""


# --- what it survives ---


@pytest.fixture
def busy(cluster: Cluster) -> Iterator[str]:
    """A job that holds the QPU until there is a file `go`, and one behind it; the session of the first."""
    job = "qpu run afm_ring.json --shots 20 && touch begun && until [ -e go ]; do sleep 0.2; done && qpu run afm_ring.json --shots 40"
    cluster.shell(
        f"rm -f begun go; qsub -terse -N holds -l qpu=1,h=node1 -cwd -j y -b y -shell n bash -c {shlex.quote(job)}"
    )
    cluster.until(lambda: bool(cluster.shell("ls begun 2>/dev/null || true")), "the first job has its counts")
    cluster.shell("qsub -terse -N behind afm_job.sh")
    (session,) = cluster.sessions()
    yield session
    cluster.shell("touch go; qdel -u alice >/dev/null 2>&1; true")
    cluster.until(lambda: not cluster.jobs() and not cluster.sessions(), "the cluster is free")


def finishes(cluster: Cluster) -> None:
    cluster.shell("touch go")
    cluster.until(lambda: not cluster.jobs(), "both jobs have ended", 120)
    assert "40 shots" in cluster.shell("cat holds.o*")
    assert "200 shots" in cluster.shell("cat behind.o*")


def test_each_restarts_while_jobs_run_and_wait(cluster: Cluster, busy: str) -> None:
    # Not node1: on it is the job.
    for service in ("munge", "worker", "warden", "qmaster", "node2"):
        cluster.compose("restart", "-t", GRACE, service)
        cluster.until(lambda one=service: cluster.state(one)["Health"] == "healthy", f"{service} is healthy again")
        assert cluster.jobs() == {"holds": "r", "behind": "qw"}, service
        assert cluster.sessions() == [busy], service
    finishes(cluster)


def test_a_job_whose_host_restarts_begins_again(cluster: Cluster, busy: str) -> None:
    cluster.shell("rm begun")
    cluster.compose("restart", "-t", GRACE, "node1")
    cluster.until(lambda: bool(cluster.shell("ls begun 2>/dev/null || true")), "the job has begun again")
    assert cluster.jobs()["holds"] == "Rr"
    assert busy not in cluster.sessions()
    finishes(cluster)


def test_all_stop_in_time_and_start_again_with_what_they_knew(cluster: Cluster, busy: str) -> None:
    cluster.shell("rm begun")
    cluster.compose("stop", "-t", GRACE)
    # Whatever had to be killed has 137.
    assert {service: cluster.state(service)["ExitCode"] for service in SERVICES} == dict.fromkeys(SERVICES, 0)
    cluster.up()
    assert set(cluster.jobs()) == {"holds", "behind"}
    assert busy in cluster.sessions("--all")
    cluster.until(lambda: bool(cluster.shell("ls begun 2>/dev/null || true")), "the job has begun again")
    finishes(cluster)


def test_all_restart_at_once(cluster: Cluster, busy: str) -> None:
    cluster.shell("rm begun")
    cluster.compose("restart", "-t", GRACE)
    cluster.until(lambda: all(cluster.state(one)["Health"] == "healthy" for one in SERVICES), "all are healthy", 120)
    assert set(cluster.jobs()) == {"holds", "behind"}
    assert busy in cluster.sessions("--all")
    cluster.until(lambda: bool(cluster.shell("ls begun 2>/dev/null || true")), "the job has begun again")
    finishes(cluster)


# --- what it refuses ---


@pytest.fixture(scope="module")
def well(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, and afterwards it is well again."""
    yield cluster
    cluster.up()
    assert "200 shots" in cluster.run("node1", "demo-job", user="alice")


@pytest.fixture(scope="module")
def foreign(well: Cluster) -> str:
    """A volume with keys of another cluster's, and the right ones with a worker that nobody knows."""
    script = """
        mkdir -p munge warden unknown && head -c 128 /dev/urandom >munge/munge.key && chmod 400 munge/munge.key
        chown -R munge:munge munge
        sed 's|^workers = .*|&\\nkeys = "/foreign/warden"|' /etc/warden/warden.toml >warden.toml
        warden keys --config /foreign/warden.toml
        cp -a /keys/. unknown && cp warden/worker.key_secret unknown && chown worker warden/*_secret unknown/worker.key_secret
    """
    volume = f"{well.project}_foreign"
    label = ("--label", f"com.docker.compose.project={well.project}", "--label", "com.docker.compose.volume=foreign")
    docker("volume", "create", *label, volume)
    mounts = ("-v", f"{volume}:/foreign", "-v", f"{well.project}_keys:/keys:ro", "--workdir", "/foreign")
    docker("run", "--rm", "--user", "root", *mounts, "gridengine-qpu-warden", "sh", "-ec", script)
    return "foreign:/foreign:ro"


def taking(folder: str, place: str, command: str) -> list[str]:
    """A container's command with another folder of keys in the place of its own."""
    return ["bash", "-c", f"cp -a {folder}/. {place}; exec {command}"]


def taken(port: int, command: str) -> list[str]:
    """A container's command with somebody else at a port already."""
    listens = f"python3 -m http.server {port} >/dev/null 2>&1 & until (exec 3<>/dev/tcp/127.0.0.1/{port}); do :; done 2>/dev/null"
    return ["bash", "-c", f"{listens}; exec {command}"]


def test_a_missing_munge_key(well: Cluster) -> None:
    for host in ("node2", "qmaster"):
        said = well.spoilt(host, volumes=["FRESH:/etc/munge"])
        assert said == [
            f"{host}: there is no MUNGE key in /etc/munge: mount the volume for which the service setup has made it"
        ]
    well.up()


def test_a_munge_key_of_another_cluster(well: Cluster, foreign: str) -> None:
    command = taking("/foreign/munge", "/etc/munge", f"{LIBRARY}/execd")
    said = well.spoilt("node2", volumes=[foreign, "FRESH:/etc/munge"], command=command)
    assert said[-1] == "node2: MUNGE cannot check a credential: Invalid credential (all hosts need the same munge.key)"


def test_a_key_that_is_not_the_brokers(well: Cluster, foreign: str) -> None:
    config = "/etc/warden/keys/broker.key"
    command = taking("/foreign/warden", "/etc/warden/keys", f"{LIBRARY}/execd")
    said = well.spoilt("node2", volumes=[foreign, "FRESH:/etc/warden/keys"], command=command)
    assert said[-1].endswith(f"something listens there: is {config} its key?")


def test_a_worker_that_nobody_knows(well: Cluster, foreign: str) -> None:
    changed = {"WARDEN_CONFIG": "/tmp/worker.toml", "MPLCONFIGDIR": "/tmp"}
    place = "sed 's|^workers = .*|&\\nkeys = \"/foreign/unknown\"|' /etc/warden/worker.toml >/tmp/worker.toml"
    said = well.spoilt(
        "worker", volumes=[foreign], environment=changed, command=["sh", "-c", f"{place}; exec {LIBRARY}/worker"]
    )
    assert said[-1].startswith("worker: /foreign/unknown/worker.key_secret is no key that the broker takes: ")


def test_a_clock_that_is_off(well: Cluster, tmp_path: Path) -> None:
    image = "gridengine-qpu-execd-clock"
    # For root alone: the library's semaphores outlive a change of the user.
    wrapper = r"#!/bin/sh\nunset LD_PRELOAD\nexec /usr/bin/setpriv \"\$@\"\n"
    (tmp_path / "Dockerfile").write_text(
        "FROM gridengine-qpu-execd\nRUN install-packages libfaketime"
        f' && printf "{wrapper}" >/usr/local/bin/setpriv && chmod 755 /usr/local/bin/setpriv\n'
    )
    docker("build", "-q", "--network", os.environ.get("BUILD_NETWORK", "default"), "-t", image, str(tmp_path))
    fake = {"FAKETIME": "+1h", "LD_PRELOAD": "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"}
    try:
        said = well.spoilt("node2", image=image, environment=fake)
    finally:
        well.compose("rm", "-f", "-s", "node2")
        docker("rmi", "-f", image)
    assert re.fullmatch(r"node2: the clock is \+3(599|600|601) s ahead of Warden's: set both by NTP, .*", said[-1])


def test_a_missing_key_of_the_brokers(well: Cluster) -> None:
    for service, key in (("warden", "broker.key_secret"), ("worker", "worker.key_secret")):
        said = well.spoilt(service, volumes=["FRESH:/etc/warden/keys"])
        assert f"cannot read the key /etc/warden/keys/{key}: it is not there" in said[-1]
    well.up()


def test_a_port_that_is_taken(well: Cluster) -> None:
    said = well.spoilt("node2", command=taken(6445, f"{LIBRARY}/execd"))
    assert said[-1].startswith("node2: port 6445 is taken on this host")
    said = well.spoilt("qmaster", command=taken(6444, f"{LIBRARY}/qmaster"))
    assert said[-1].startswith("qmaster: port 6444 is taken on this host")
    said = well.spoilt("warden", command=taken(7610, "warden serve"))
    assert said[-1].startswith("warden: cannot listen at tcp://0.0.0.0:7610: Address already in use")
    well.up()


def test_a_volume_that_is_not_writable(well: Cluster) -> None:
    for host in ("node2", "qmaster"):
        said = well.spoilt(host, volumes=[f"{host}-spool:/var/spool/gridengine:ro"])
        assert said[-1].startswith(f"{host}: root cannot write /var/spool/gridengine: mount a volume there")
    said = well.spoilt("warden", volumes=["warden-state:/var/lib/warden:ro"])
    assert said[-1].startswith("warden: cannot use the store /var/lib/warden/warden.db: ")
    said = well.spoilt("warden", volumes=["FRESH:/var/lib/warden"])
    assert said[-1].startswith("warden: cannot use the store /var/lib/warden/warden.db: ")
    well.up()
