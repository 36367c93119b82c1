"""Grid Engine on a cluster's hosts: the qmaster on the master, an execution daemon on each node."""

from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from labcluster.enter import CELL_ENVIRONMENT
from labcluster.errors import StepError
from labcluster.layout import MASTER

if TYPE_CHECKING:
    from labcluster.hosts import Hosts

_SLOTS = 2
_SPOOL = "/var/spool/gridengine"
_QMASTER = "/usr/lib/gridengine/sge_qmaster"
_EXECD = "/usr/lib/gridengine/sge_execd"

# A lab is watched by people and tests: it schedules at once and reports often, and pays for it with some load.
_SCHEDULER = {
    "schedule_interval": "0:0:1",
    "flush_submit_sec": "1",
    "flush_finish_sec": "1",
    "job_load_adjustments": "NONE",
    "load_adjustment_decay_time": "0:0:0",
    "schedd_job_info": "true",
}
_CONFIGURATION = {
    "load_report_time": "00:00:02",
    # The hosts' clocks are one: a report is late after seconds already.
    "max_unheard": "00:00:30",
    "reporting_params": "accounting=true reporting=true flush_time=00:00:01 accounting_flush_time=00:00:00 "
    "joblog=true sharelog=00:00:00",
    "shell_start_mode": "unix_behavior",
}
# A queue file must name processors, whatever its manual says.
_QUEUE = f"""\
qname all.q
hostlist @allhosts
seq_no 0
load_thresholds NONE
suspend_thresholds NONE
nsuspend 1
suspend_interval 00:05:00
priority 0
min_cpu_interval 00:05:00
processors UNDEFINED
qtype BATCH
ckpt_list NONE
pe_list NONE
rerun FALSE
slots {_SLOTS}
tmpdir /tmp
shell /bin/bash
prolog NONE
epilog NONE
shell_start_mode unix_behavior
starter_method NONE
suspend_method NONE
resume_method NONE
terminate_method NONE
notify 00:00:60
owner_list NONE
user_lists NONE
xuser_lists NONE
subordinate_list NONE
complex_values NONE
projects NONE
xprojects NONE
calendar NONE
initial_state default
s_rt INFINITY
h_rt INFINITY
s_cpu INFINITY
h_cpu INFINITY
s_fsize INFINITY
h_fsize INFINITY
s_data INFINITY
h_data INFINITY
s_stack INFINITY
h_stack INFINITY
s_core INFINITY
h_core INFINITY
s_rss INFINITY
h_rss INFINITY
s_vmem INFINITY
h_vmem INFINITY
"""


def start_cell(cluster: Hosts) -> None:
    """Set up and start Grid Engine, MUNGE first, until every node takes jobs."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda host: _start_munge(cluster, host), cluster.hosts))
    _start_qmaster(cluster)
    nodes = [host for host in cluster.hosts if host != MASTER]
    _configure(cluster, nodes)
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda node: start_execd(cluster, node), nodes))
    cluster.wait_until("the execution hosts to report", lambda: _all_report(cluster, nodes), limit=180)


def start_execd(cluster: Hosts, node: str) -> None:
    """Start the execution daemon, again if it does not come up.

    SGE 8.1.9's execd sometimes turns in circles over its load sensor instead: in the one that was traced the sensor was
    gone, and execd polled its pipe for ever.
    """
    for again in (True, False):
        cluster.run(node, [_EXECD], log="execd")
        try:
            cluster.wait_until(
                f"the execution daemon on {node}",
                lambda: cluster.is_process(node, _execd_pid(node)),
                limit=15 if again else 90,
                log=cluster.log(node, "execd"),
            )
        except StepError:
            if not again:
                raise
            # The only one in this host's own process namespace.
            cluster.run(node, ["pkill", "-KILL", "-x", "sge_execd"], check=False)
        else:
            return


def stop_execd(cluster: Hosts, node: str, number: signal.Signals = signal.SIGTERM) -> None:
    """End the execution daemon and wait until it has; its jobs go on."""
    cluster.end_process(node, _execd_pid(node), number)


def _execd_pid(node: str) -> str:
    return f"{_SPOOL}/execd/{node}/execd.pid"


def _start_munge(cluster: Hosts, host: str) -> None:
    cluster.run(host, ["install", "-d", "-o", "munge", "-g", "munge", "/run/munge"])
    cluster.run(host, ["/usr/sbin/munged"], user="munge", log="munge")
    # It goes into the background when its socket is there.
    cluster.run(host, ["munge", "-n"])


def _start_qmaster(cluster: Hosts) -> None:
    root, cell = CELL_ENVIRONMENT["SGE_ROOT"], CELL_ENVIRONMENT["SGE_CELL"]
    initialize = ["/usr/share/gridengine/scripts/init_cluster", root, cell, f"{_SPOOL}/spooldb", "sgeadmin"]
    cluster.run(MASTER, initialize, user="sgeadmin", log="qmaster")
    cluster.run(MASTER, [_QMASTER], log="qmaster")
    cluster.wait_until(
        "the qmaster",
        lambda: cluster.run(MASTER, ["qconf", "-sh"], check=False).returncode == 0,
        limit=180,
        log=cluster.log(MASTER, "qmaster"),
    )


def _configure(cluster: Hosts, nodes: list[str]) -> None:
    # The prolog of the kit asks Grid Engine about its job, so execution hosts may submit and administer too.
    for option in ("-ah", "-as"):
        cluster.run(MASTER, ["qconf", option, ",".join(cluster.hosts)])
    _change(cluster, ["-ssconf"], "-Msconf", _SCHEDULER)
    _change(cluster, ["-sconf", "global"], "-Mconf", _CONFIGURATION)
    _load(cluster, "-Ahgrp", f"group_name @allhosts\nhostlist {' '.join(nodes)}\n")
    _load(cluster, "-Aq", _QUEUE)


def _change(cluster: Hosts, show: list[str], load: str, values: dict[str, str]) -> None:
    """Replace some lines of one of Grid Engine's configurations."""
    lines = cluster.run(MASTER, ["qconf", *show]).stdout.replace("\\\n", " ").splitlines()
    kept = [line for line in lines if line.split()[:1] and line.split()[0] not in values and not line.startswith("#")]
    changed = [*kept, *(f"{key} {value}" for key, value in values.items())]
    _load(cluster, load, "".join(f"{line}\n" for line in changed))


def _load(cluster: Hosts, option: str, text: str) -> None:
    # qconf names the configuration after the file, so "global" is its name for every one of them.
    cluster.run(MASTER, ["sh", "-c", 'cat >/run/global && qconf "$1" /run/global', "sh", option], input=text)


def _all_report(cluster: Hosts, nodes: list[str]) -> bool:
    """Whether every node has sent its load: until then the scheduler gives it nothing."""
    # name, architecture, four counts, load
    lines = [line.split() for line in cluster.run(MASTER, ["qhost"]).stdout.splitlines()]
    reporting = {name for name, *fields in filter(None, lines) if fields[5:6] not in ([], ["-"])}
    return reporting.issuperset(nodes)
