"""qpu-admin on the real thing: what it sets, what it leaves alone, and that nothing stays behind."""

import json
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from labcluster.cluster import Cluster

MASTER = "master"
NODES = ("node1", "node2", "node3")
CONFIG = "/etc/warden/warden.toml"


def call(lab: Cluster, *argv: str, user: str = "root", timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return lab.run(MASTER, argv, user=user, check=False, timeout=timeout)


def shell(lab: Cluster, script: str) -> str:
    return lab.run(MASTER, ["sh", "-ec", script]).stdout


def admin(lab: Cluster, *argv: str) -> subprocess.CompletedProcess[str]:
    # Taking complexes away waits for load reports.
    return call(lab, "qpu-admin", *argv, timeout=150)


def everything(lab: Cluster) -> str:
    """All that the kit might touch."""
    shown = "qconf -sc; qconf -sq all.q; qconf -sconf; for host in $(qconf -sconfl); do qconf -sconf $host; done"
    hosts = "for host in global node1 node2 node3; do qconf -se $host | sed '/^load_values/,/^processors/d'; done"
    return shell(lab, f"{shown}; {hosts}")


def set_sensor(lab: Cluster, value: str) -> None:
    """Change the load_sensor of the global configuration as another admin would."""
    edit = f"qconf -sconf | sed ':a;/\\\\$/{{N;s/,* *\\\\\\n */,/;ba}};s|^load_sensor .*|load_sensor {value}|'"
    shell(lab, f"mkdir -p /tmp/edit; {edit} > /tmp/edit/global; qconf -Mconf /tmp/edit/global")


def restart(lab: Cluster) -> None:
    for node in NODES:
        lab.restart_execd(node)


@pytest.fixture
def bare(lab: Cluster) -> Iterator[Cluster]:
    """The lab without what qpu-admin made; afterwards as before."""
    done = admin(lab, "remove")
    assert done.returncode == 0, done.stderr
    try:
        yield lab
    finally:
        admin(lab, "apply")
        restart(lab)
        lab.wait_until(
            "Grid Engine to see the QPU again",
            lambda: "qpu_state=ready" in call(lab, "qhost", "-F", "qpu_state").stdout,
            limit=60,
        )


def test_nothing_to_do_on_a_cluster_that_is_as_configured(lab: Cluster) -> None:
    planned, applied = admin(lab, "plan"), admin(lab, "apply")
    assert (planned.returncode, applied.returncode) == (0, 0)
    assert planned.stdout == applied.stdout == "nothing to do: the cluster is as the configuration says\n"
    assert json.loads(admin(lab, "plan", "--json").stdout) == []


def test_users_and_scheduler_see_the_values(lab: Cluster) -> None:
    lab.wait_until(
        "the sensor's values",
        lambda: "gl:qpu_state=ready" in call(lab, "qhost", "-h", "node1", "-F", "qpu_state").stdout,
        limit=30,
    )
    shown = call(lab, "qhost", "-h", "node1", "-F", "qpu,qpu_name,qpu_window,qpu_qubits").stdout
    for value in ("gc:qpu=1.0", "qpu_name=fresnel", "qpu_window=604800", "qpu_qubits=14"):
        assert value in shown


@pytest.mark.parametrize(
    ("request_", "accepted"),
    [
        ("qpu=1", True),
        ("qpu=2", False),
        ("qpu=1,qpu_window=604800", True),
        ("qpu=1,qpu_window=604801", False),
        ("qpu=1,qpu_qubits=15", False),
        ("qpu=1,qpu_name=fres*", True),
        ("qpu=1,qpu_name=other", False),
    ],
)
def test_what_can_never_run_is_refused_at_submission(lab: Cluster, request_: str, accepted: bool) -> None:
    checked = call(lab, "qsub", "-w", "v", "-l", request_, "-b", "y", "true", user="alice")
    assert ("found suitable queue(s)" in checked.stdout + checked.stderr) is accepted
    if not accepted:
        done = call(lab, "qsub", "-w", "e", "-l", request_, "-b", "y", "true", user="alice")
        assert done.returncode != 0


def test_apply_and_remove_leave_all_else_as_it_was(bare: Cluster) -> None:
    shell(bare, "qconf -sc > /tmp/complexes; echo 'licence lic INT <= YES YES 0 0' >> /tmp/complexes")
    shell(bare, "qconf -Mc /tmp/complexes; qconf -mattr exechost complex_values licence=3 global")
    set_sensor(bare, "/opt/site/sensor-a,/opt/site/sensor-b")
    before = everything(bare)
    try:
        assert admin(bare, "plan").returncode == 3
        assert everything(bare) == before
        assert admin(bare, "apply").returncode == 0
        during = everything(bare)
        for kept in ("licence=3", "/opt/site/sensor-a,/opt/site/sensor-b", "licence             lic"):
            assert kept in during
        assert admin(bare, "plan").returncode == 0
        removed = admin(bare, "remove")
        assert removed.returncode == 0, removed.stderr
        assert everything(bare) == before
        assert admin(bare, "remove").stdout == "nothing to do: there is nothing of ours in the cluster\n"
    finally:
        set_sensor(bare, "none")
        shell(bare, "qconf -dattr exechost complex_values licence global")
        shell(bare, "qconf -sc | grep -v ^licence > /tmp/complexes; qconf -Mc /tmp/complexes")


def test_a_host_of_its_own_gets_and_loses_the_sensor(bare: Cluster) -> None:
    before = everything(bare)
    shell(bare, f"sed 's/^queues = .*/&\\nsensor_hosts = [\"node1\"]/' {CONFIG} > /tmp/one-host.toml")
    applied = admin(bare, "apply", "--config", "/tmp/one-host.toml")
    assert applied.returncode == 0, applied.stderr
    assert "restart sge_execd on node1" in applied.stderr
    assert "qpu-load-sensor" in shell(bare, "qconf -sconf node1")
    removed = admin(bare, "remove", "--config", "/tmp/one-host.toml")
    assert removed.returncode == 0, removed.stderr
    assert everything(bare) == before


def test_another_prolog_is_never_replaced(bare: Cluster) -> None:
    shell(bare, "qconf -rattr queue prolog /bin/true all.q")
    before = everything(bare)
    try:
        for command in ("plan", "apply"):
            done = admin(bare, command)
            assert done.returncode == 1
            assert done.stderr.startswith("qpu-admin: queue all.q has another prolog already (/bin/true)")
        assert admin(bare, "remove").returncode == 0
        assert everything(bare) == before
    finally:
        shell(bare, "qconf -rattr queue prolog NONE all.q")


def test_remove_refuses_while_jobs_ask_for_the_qpu(lab: Cluster) -> None:
    before = everything(lab)
    submit = shlex.split("qsub -terse -h -l qpu_qubits=3 -o /dev/null -j y -b y true")
    job = lab.run(MASTER, submit, user="alice").stdout.strip()
    try:
        done = admin(lab, "remove")
        assert done.returncode == 1
        assert done.stderr.startswith(f"qpu-admin: 1 job(s) still ask for the QPU ({job})")
        assert everything(lab) == before
    finally:
        call(lab, "qdel", job)
        lab.wait_until("the job to be gone", lambda: call(lab, "qstat", "-j", job).returncode != 0, limit=30)


def test_what_cannot_be_finished_is_undone(bare: Cluster) -> None:
    assert admin(bare, "apply").returncode == 0
    shell(bare, "qconf -mattr exechost complex_values qpu=1 node1")
    try:
        done = admin(bare, "remove")
        assert done.returncode == 1
        assert 'Complex attribute "qpu" is still referenced in host "node1"' in done.stderr
        assert "nothing was changed" in done.stderr
        assert admin(bare, "plan").returncode == 0
    finally:
        shell(bare, "qconf -dattr exechost complex_values qpu node1")


def test_who_may_not_is_told_so(bare: Cluster) -> None:
    before = everything(bare)
    done = call(bare, "qpu-admin", "apply", user="alice")
    assert done.returncode == 1
    assert '"alice" must be manager' in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert everything(bare) == before


def test_a_qmaster_that_is_away_is_one_line(lab: Cluster) -> None:
    done = call(lab, "env", "SGE_QMASTER_PORT=1", "qpu-admin", "plan")
    assert done.returncode == 1
    assert "check that the qmaster runs" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_each_job_is_accounted(lab: Cluster) -> None:
    submit = shlex.split("qsub -terse -sync y -l qpu=1 -N counted -o /dev/null -j y -b y true")
    job = lab.run(MASTER, submit, user="alice").stdout.split()[0]

    def account(user: str) -> list[dict[str, object]]:
        shown = call(lab, "qpu-admin", "acct", "--json", user=user)
        return [use for use in json.loads(shown.stdout) if use["job"] == job]

    # qacct's record comes a moment after the job's end.
    lab.wait_until("the record", lambda: account("root")[0]["exit_status"] is not None, limit=30)
    use = account("root")[0]
    assert (use["user"], use["name"], use["tasks"], use["exit_status"]) == ("alice", "counted", 0, 0)
    assert account("alice") == [use]
    assert account("bob") == []
    assert job in call(lab, "qpu-admin", "acct").stdout


def test_queue_that_takes_interactive_jobs_is_warned_of(lab: Cluster) -> None:
    shell(lab, "qconf -mattr queue qtype 'BATCH INTERACTIVE' all.q")
    try:
        told = admin(lab, "plan")
    finally:
        shell(lab, "qconf -mattr queue qtype BATCH all.q")
    assert told.returncode == 0
    assert "all.q also takes interactive jobs" in told.stderr
    assert admin(lab, "plan").stderr == ""


def examined(lab: Cluster, host: str) -> tuple[int, dict[str, str]]:
    done = lab.run(host, ["qpu-admin", "doctor", "--json"], check=False)
    return done.returncode, {found["what"]: found["verdict"] for found in json.loads(done.stdout)}


@pytest.mark.parametrize("host", [MASTER, *NODES])
def test_the_doctor_finds_nothing_bad_on_a_host_that_is_well(lab: Cluster, host: str) -> None:
    status, found = examined(lab, host)
    # Whether links are protected is the machine's own matter.
    assert found.pop("links") in {"ok", "warning"}
    assert (status, set(found.values())) == (0, {"ok"}), found


def test_the_doctor_says_what_is_bad_and_what_to_do(bare: Cluster) -> None:
    shell(bare, f"chmod o+w {CONFIG}")
    try:
        done = admin(bare, "doctor")
        assert done.returncode == 1
        assert f"-> chmod go-w {CONFIG}" in done.stdout
        assert "qpu-admin apply" in done.stdout
    finally:
        shell(bare, f"chmod o-w {CONFIG}")
