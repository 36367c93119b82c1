"""qpu-admin on the real thing: what it sets, what it leaves alone, and that nothing stays behind."""

import json
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from labcluster.cluster import Cluster

pytestmark = pytest.mark.site

MASTER = "master"
NODES = ("node1", "node2", "node3")
CONFIG = "/etc/warden/warden.toml"
# Nothing here takes so long, on the busiest machine.
LIMIT = 120.0


def call(lab: Cluster, *argv: str, user: str = "root", timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return lab.run(MASTER, argv, user=user, check=False, timeout=timeout)


def shell(lab: Cluster, script: str) -> str:
    return lab.run(MASTER, ["sh", "-ec", script]).stdout


def admin(lab: Cluster, *argv: str) -> subprocess.CompletedProcess[str]:
    # Taking complexes away waits for load reports.
    return call(lab, "qpu-admin", *argv, timeout=300)


def everything(lab: Cluster) -> str:
    """All that the kit might touch."""
    shown = "qconf -sc; for queue in $(qconf -sql); do qconf -sq $queue; done; qconf -srqs || true; qconf -spl || true"
    configurations = "qconf -sconf; for host in $(qconf -sconfl); do qconf -sconf $host; done"
    hosts = "for host in global node1 node2 node3; do qconf -se $host | sed '/^load_values/,/^processors/d'; done"
    return shell(lab, f"{shown}; {configurations}; {hosts}")


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
            limit=LIMIT,
        )


def test_nothing_to_do_on_a_cluster_that_is_as_configured(lab: Cluster) -> None:
    planned, applied = admin(lab, "plan"), admin(lab, "apply")
    assert (planned.returncode, applied.returncode) == (0, 0)
    assert planned.stdout == applied.stdout == "nothing to do: the cluster is as the configuration says\n"
    assert json.loads(admin(lab, "plan", "--json").stdout) == {
        "changed": False,
        "changes": [],
        "restart": [],
        "warnings": [],
    }


def test_users_and_scheduler_see_the_values(lab: Cluster) -> None:
    lab.wait_until(
        "the sensor's values",
        lambda: "gl:qpu_state=ready" in call(lab, "qhost", "-h", "node1", "-F", "qpu_state").stdout,
        limit=LIMIT,
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


def test_hooks_of_the_site_are_chained_and_given_back(bare: Cluster) -> None:
    """The queue's own, one of a host in it, and one that the queue inherits; also when the record is lost."""
    site = "/usr/local/bin/site-hook"  # all hosts have that folder
    shell(bare, f"printf '#!/bin/sh\\necho \"$*\"; id -un\\n' > {site}; chmod 755 {site}")
    shell(bare, f"qconf -rattr queue prolog '{site} before $host,[node1=sgeadmin@/site/other  x]' all.q")
    shell(bare, f"mkdir -p /tmp/edit; echo 'epilog {site} after' > /tmp/edit/node2; qconf -Aconf /tmp/edit/node2")
    before = everything(bare)
    try:
        applied = admin(bare, "apply")
        assert applied.returncode == 0, applied.stderr
        during = shell(bare, "SGE_SINGLE_LINE=1 qconf -sq all.q")
        for chained in (
            f"qpu-chain prolog 3 {site} before $host $job_id $ja_task_id $job_owner $host,[node1=root@",
            "qpu-chain prolog 2 sgeadmin@/site/other x $job_id $ja_task_id $job_owner $host]",
            "qpu-epilog $job_id $ja_task_id $job_owner $host,[node2=root@",
            f"qpu-chain epilog 2 {site} after $job_id $ja_task_id $job_owner $host]",
        ):
            assert chained in during
        submit = "qsub -terse -sync y -l qpu=1 -q all.q@node2 -o /home/alice/chained.out -j y -S /bin/sh"
        bare.run(MASTER, shlex.split(submit), user="alice", input='test -n "$WARDEN_SESSION" && echo a session')
        ran = (bare.users / "alice" / "chained.out").read_text().splitlines()
        assert ran == ["before node2", "alice", "a session", "after", "alice"]
        assert admin(bare, "plan").returncode == 0
        shell(bare, "qconf -mattr queue seq_no 7 all.q")
        shell(bare, "rm /var/lib/gridengine-qpu/*.json")
        removed = admin(bare, "remove")
        assert removed.returncode == 0, removed.stderr
        assert "seq_no                7" in shell(bare, "qconf -sq all.q"), "what an admin did meanwhile"
        shell(bare, "qconf -mattr queue seq_no 0 all.q")
        assert everything(bare) == before
    finally:
        shell(bare, "qconf -rattr queue prolog NONE all.q; qconf -purge queue prolog all.q@node1; qconf -dconf node2")
        shell(bare, f"rm {site}")


TWO = """
[[gridengine.qpu]]
queues = ["fresnel.q"]
[[gridengine.qpu]]
config = "/etc/warden/emu.toml"
queues = ["emu.q"]
hosts = ["node2"]
"""


def test_two_qpus_come_and_go_without_a_trace(bare: Cluster) -> None:
    add = "qconf -sq all.q | sed 's/^qname.*/qname {0}/' > /tmp/{0}; qconf -Aq /tmp/{0}"
    shell(bare, "; ".join(add.format(queue) for queue in ("fresnel.q", "emu.q")))
    shell(bare, "qconf -rattr queue complex_values 'slots=9,[node1=slots=3]' emu.q")
    shell(bare, f"sed 's/^name = .*/name = \"emu\"\\nplaces = 2/' {CONFIG} > /etc/warden/emu.toml")
    shell(bare, f"{{ cat {CONFIG}; echo '{TWO}'; }} > /etc/warden/two.toml")
    two = ("--config", "/etc/warden/two.toml")
    before = everything(bare)
    try:
        applied = admin(bare, "apply", *two)
        assert applied.returncode == 0, applied.stderr
        assert admin(bare, "plan", *two).returncode == 0
        for queue, offered in {
            "emu.q": "slots=9,qpu=0,[node1=slots=3,qpu=0],[node2=slots=9,qpu=2,qpu_name=emu,qpu_qubits=14]",
            "fresnel.q": "qpu=1,qpu_name=fresnel,qpu_qubits=14",
        }.items():
            assert f"{offered}\n" in shell(bare, f"SGE_SINGLE_LINE=1 qconf -sq {queue}")
        # Grid Engine finds the one that is asked for.
        for name, found in {"em*": ["emu.q@node2"], "fresnel": [f"fresnel.q@{node}" for node in NODES]}.items():
            assert call(bare, "qselect", "-l", f"qpu=1,qpu_name={name}").stdout.split() == found
        # The cluster goes back to one QPU, in one go, and then to none.
        assert admin(bare, "apply").returncode == 0
        assert "qpu_emu" not in everything(bare)
        removed = admin(bare, "remove")
        assert removed.returncode == 0, removed.stderr
        assert everything(bare) == before
    finally:
        admin(bare, "remove", *two)
        shell(bare, "qconf -dq emu.q; qconf -dq fresnel.q; rm /etc/warden/emu.toml /etc/warden/two.toml")


def reports(lab: Cluster) -> bool:
    return "gl:qpu_state=ready" in call(lab, "qhost", "-F", "qpu_state").stdout


def test_remove_refuses_while_jobs_ask_for_the_qpu(bare: Cluster) -> None:
    without = everything(bare)
    assert admin(bare, "apply").returncode == 0
    bare.wait_until("the sensor's values", lambda: reports(bare), limit=LIMIT)
    before = everything(bare)
    submit = shlex.split("qsub -terse -h -l qpu_qubits=3 -o /dev/null -j y -b y true")
    job = bare.run(MASTER, submit, user="alice").stdout.strip()
    try:
        done = admin(bare, "remove")
        assert done.returncode == 1
        assert done.stderr.startswith(f"qpu-admin: 1 job(s) still ask for the QPU ({job})")
        assert everything(bare) == before
        forced = admin(bare, "remove", "--force")
        assert forced.returncode == 0, forced.stderr
        assert "the complexes stay, since 1 job(s) ask for them" in forced.stderr
        assert "prolog                NONE" in shell(bare, "qconf -sq all.q")
        # The job is not let loose without a hook, and Grid Engine knows still what it asked for.
        call(bare, "qrls", job)
        bare.wait_until(
            "why the job waits",
            lambda: "job requests unknown resource (qpu_qubits)" in call(bare, "qstat", "-j", job).stdout,
            limit=LIMIT,
        )
    finally:
        call(bare, "qdel", job)
        bare.wait_until("the job to be gone", lambda: call(bare, "qstat", "-j", job).returncode != 0, limit=LIMIT)
    assert admin(bare, "remove").returncode == 0
    assert everything(bare) == without


def test_what_is_stopped_in_the_middle_is_undone(lab: Cluster) -> None:
    before = everything(lab)
    lab.wait_until("the sensor's values", lambda: reports(lab), limit=LIMIT)
    # While it waits for the hosts' load reports: values and sensor are gone by then.
    stop = "while kill -0 $! && ! grep -q waiting /tmp/said; do sleep 0.1; done; kill $!; wait $!"
    done = call(lab, "sh", "-c", f"qpu-admin remove > /tmp/said 2>&1 & {stop}; cat /tmp/said", timeout=LIMIT)
    assert "interrupted; nothing was changed" in done.stdout
    assert everything(lab) == before
    lab.wait_until("the sensor's values", lambda: reports(lab), limit=LIMIT)


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
    assert done.stderr.startswith("qpu-admin: cannot write the record of what was there before, ")
    shell(bare, f"sed '$a record = \"/home/alice/record\"' {CONFIG} > /etc/warden/alice.toml")
    done = call(bare, "qpu-admin", "apply", "--config", "/etc/warden/alice.toml", user="alice")
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
    lab.wait_until("the record", lambda: account("root")[0]["exit_status"] is not None, limit=LIMIT)
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
    # Hosts that a test before has started anew are not heard of at once.
    lab.wait_until("all hosts to be heard of", lambda: examined(lab, host)[0] == 0, limit=LIMIT)
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
