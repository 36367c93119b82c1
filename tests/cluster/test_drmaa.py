"""Jobs from Python on real Grid Engine: the real libdrmaa, loaded without anybody preparing anything."""

import json
import signal
import subprocess
import textwrap
from typing import Any

from grid import MASTER, NODES, Grid

from labcluster.cluster import Cluster

PREAMBLE = """
import json, os, subprocess, sys, threading, time
from pathlib import Path
from gridengine.submission import *
def tell(**facts): print(json.dumps(facts))
def until(job, status):
    for _ in range(1200):
        if job.status() is status: return
        time.sleep(0.05)
    raise SystemExit(f"{job} is {job.status()}, not {status}")
def sh(script, **more): return JobTemplate(command="/bin/sh", args=("-c", script), **more)
"""


def command(program: str, *arguments: str, unset: tuple[str, ...] = ()) -> list[str]:
    without = [word for name in unset for word in ("-u", name)]
    return ["env", *without, "qpu-python", "-c", PREAMBLE + textwrap.dedent(program), *arguments]


def python(lab: Cluster, program: str, *arguments: str, unset: tuple[str, ...] = ()) -> dict[str, Any]:
    """Run a program as alice on an execution host; what it told."""
    done = lab.run("node1", command(program, *arguments, unset=unset), user="alice", timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_job_runs_with_its_arguments_untouched_and_its_status_comes_back(lab: Cluster) -> None:
    told = python(
        lab,
        r"""
        arguments = ["a b", "$HOME", "it's", '"q"', "", ";id", "*", "back\\slash", "ünï", "-x"]
        script = "import json, os, sys; print(json.dumps([sys.argv[1:], os.getcwd()])); sys.exit(7)"
        os.makedirs("work", exist_ok=True)
        os.chdir("work")
        with Session() as grid:
            job = grid.submit(JobTemplate(command="/usr/bin/python3", args=("-c", script, *arguments), name="args",
                                          output="out.txt", error="err.txt"))
            info = job.wait(120)
            again = job.wait()
        got, directory = json.loads(Path("out.txt").read_text())
        tell(right=got == arguments, got=got, directory=directory, again=again == info, status=info.exit_status,
             flags=[info.aborted, info.signal, info.succeeded], usage="ru_utime" in info.resource_usage)
        """,
    )
    assert told["right"], told["got"]
    assert told["directory"] == "/home/alice/work"
    assert told["status"] == 7
    assert told["flags"] == [False, "", False]
    assert told["again"]
    assert told["usage"]


def test_environment_of_jobs_is_the_users(lab: Cluster) -> None:
    told = python(
        lab,
        """
        os.environ["GLIBC_TUNABLES"] = "glibc.malloc.check=0"
        os.environ["MINE"] = "yes"
        with Session() as grid:
            jobs = [grid.submit(JobTemplate(command="/usr/bin/env", native=native, output=f"env{native}", error="/dev/null"))
                    for native in ("", "-V")]
            for job in jobs: job.wait(120)
        tell(plain=Path("env").read_text(), all=Path("env-V").read_text(), here="drmaa" in sys.modules)
        """,
    )
    assert "GLIBC_TUNABLES" not in told["plain"]
    assert "GLIBC_TUNABLES=glibc.malloc.check=0\n" in told["all"]
    assert "MINE=yes\n" in told["all"]
    assert not told["here"]


def test_cell_of_a_packaged_grid_engine_needs_no_environment(lab: Cluster) -> None:
    told = python(
        lab,
        """
        with Session() as grid:
            tell(status=grid.submit(sh("exit 3", output="/dev/null")).wait(120).exit_status)
        """,
        unset=("SGE_ROOT", "SGE_CELL"),
    )
    assert told["status"] == 3


def test_hold_release_suspend_resume_and_terminate(lab: Cluster) -> None:
    told = python(
        lab,
        """
        with Session() as grid:
            job = grid.submit(sh("sleep 60", native="-h", output="/dev/null"))
            until(job, JobStatus.HELD)
            job.release()
            until(job, JobStatus.RUNNING)
            job.suspend()
            until(job, JobStatus.SUSPENDED)
            job.resume()
            until(job, JobStatus.RUNNING)
            job.terminate()
            running = job.wait(120)

            job = grid.submit(sh("sleep 60", native="-h", output="/dev/null"))
            job.terminate()
            queued = job.wait(120)
            killed = grid.submit(sh("kill -9 $$", output="/dev/null")).wait(120)
        tell(running=[running.aborted, running.exit_status], queued=[queued.aborted, queued.exit_status],
             killed=[killed.aborted, killed.exit_status, killed.signal])
        """,
    )
    assert told == {"running": [True, None], "queued": [True, None], "killed": [False, None, "SIGKILL"]}


def test_job_that_cannot_start_has_ended(lab: Cluster) -> None:
    told = python(
        lab,
        """
        with Session() as grid:
            info = grid.submit(sh("true", working_directory="/nonexistent")).wait(120)
        tell(aborted=info.aborted, status=info.exit_status)
        """,
    )
    assert told == {"aborted": True, "status": None}


def test_what_is_impossible_is_refused_in_one_line(lab: Cluster) -> None:
    told = python(
        lab,
        """
        from gridengine import waiting
        waiting.ACCOUNTING_LAG = 0
        refusals = {}
        with Session() as grid:
            for name, fields in {
                "resource": {"resources": {"nosuch": 1}},
                "slots": {"resources": {"slots": "9999"}},
                "queue": {"queue": "nosuch.q"},
                "option": {"native": "-bogus"},
            }.items():
                try:
                    grid.submit(sh("true", **fields))
                except SubmissionError as error:
                    refusals[name] = error.text
            for name, ask in {"job": grid.job("999999").status, "wait": grid.job("999999").wait}.items():
                try:
                    ask()
                except JobLostError as error:
                    refusals[name] = error.text
            try:
                grid.submit(sh("true", output="/dev/null")).resume()
            except SubmissionError as error:
                refusals["control"] = error.text
        try:
            Session(contact="garbage")
        except SubmissionError as error:
            refusals["contact"] = error.text
        tell(**refusals)
        """,
    )
    assert 'unknown resource "nosuch"' in told["resource"]
    assert "nosuch.q" in told["queue"]
    assert "-bogus" in told["option"]
    assert "qacct -j 999999" in told["job"]
    assert "qacct -j 999999" in told["wait"]
    assert "cannot resume job" in told["control"]
    assert "garbage" in told["contact"]
    assert set(told) >= {"slots"}
    assert not [text for text in told.values() if "\n" in text or "code " in text]


def test_request_for_more_than_the_qpu_has_is_refused(lab: Cluster) -> None:
    told = python(
        lab,
        """
        with Session() as grid:
            try:
                grid.submit(sh("true", resources={"qpu": 99}))
            except SubmissionError as error:
                tell(text=error.text)
        """,
    )
    assert "no suitable queues" in told["text"]


def test_job_on_the_qpu(lab: Cluster) -> None:
    told = python(
        lab,
        """
        with Session() as grid:
            job = grid.submit(sh('test -n "$WARDEN_SESSION" && echo "$QRMI_JOB_QPU_RESOURCES"',
                                 resources={"qpu": 1}, output="qpu.out", error="qpu.err"))
            info = job.wait(120)
        tell(status=info.exit_status, qpu=Path("qpu.out").read_text(), error=Path("qpu.err").read_text())
        """,
    )
    assert told == {"status": 0, "qpu": "fresnel\n", "error": ""}


def test_later_process_takes_up_the_session(lab: Cluster) -> None:
    left = python(
        lab,
        """
        with Session() as grid:
            short, long = (grid.submit(sh(f"sleep {n}; exit {n}", output="/dev/null")) for n in (1, 8))
            short.wait(120)
            tell(contact=grid.contact, short=short.id, long=long.id)
        """,
    )
    told = python(
        lab,
        """
        with Session(contact=sys.argv[1]) as grid:
            info = grid.job(sys.argv[3]).wait(120)
            forgotten = grid.job(sys.argv[2]).wait(120)
            tell(contact=grid.contact, forgotten=[forgotten.exit_status, forgotten.resource_usage["owner"]],
                 status=info.exit_status)
        """,
        left["contact"],
        left["short"],
        left["long"],
    )
    assert told["contact"] == left["contact"]
    # DRMAA tells once how a job has ended; the accounting tells it again.
    assert told["forgotten"] == [1, "alice"]
    assert told["status"] == 8


def test_session_goes_on_when_its_libdrmaa_was_lost(lab: Cluster) -> None:
    told = python(
        lab,
        """
        with Session() as grid:
            job = grid.submit(sh("sleep 4; exit 4", output="/dev/null"))
            contact = grid.contact
            os.kill(grid._agent._process.pid, 9)
            try:
                lost = ""
                job.status()
            except GridUnavailableError as error:
                lost = error.text
            info = job.wait(120)
            tell(status=info.exit_status, same=grid.contact == contact, lost=lost)
        """,
    )
    assert told["status"] == 4
    assert told["same"]


def test_many_jobs_from_many_threads(lab: Cluster) -> None:
    told = python(
        lab,
        """
        results = {}
        with Session() as grid:
            def one(n):
                results[n] = grid.submit(sh(f"exit {n}", output="/dev/null", error="/dev/null")).wait(240).exit_status
            threads = [threading.Thread(target=one, args=(n,)) for n in range(12)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
        tell(right=results == {n: n for n in range(12)}, results=results)
        """,
    )
    assert told["right"], told["results"]


def test_qmaster_that_hangs_is_an_error_in_time_and_the_job_is_not_lost(lab: Cluster) -> None:
    program = """
        with Session(time_limit=2) as grid:
            job = grid.submit(sh("sleep 12; exit 12", output="/dev/null"))
            until(job, JobStatus.RUNNING)
            print("running", flush=True)
            sys.stdin.readline()
            start = time.monotonic()
            try:
                while True: job.status()
            except GridUnavailableError as error:
                print(json.dumps([error.text, time.monotonic() - start]), flush=True)
            sys.stdin.readline()
            print(job.wait(120).exit_status)
    """
    with lab.popen("node1", command(program), user="alice", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        try:
            assert process.stdout.readline() == "running\n"
            lab.run("master", ["pkill", "-STOP", "-x", "sge_qmaster"])
            print(file=process.stdin, flush=True)
            text, seconds = json.loads(process.stdout.readline())
        finally:
            lab.run("master", ["pkill", "-CONT", "-x", "sge_qmaster"])
        assert "did not answer within 2 s" in text
        # Not as long as the qmaster hangs.
        assert seconds < 30
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == "12\n"


SCRIPT = """\
#!/bin/sh
#$ -N scan -j y
#$ -o $HOME/scan.$JOB_ID.$TASK_ID
echo "$@" "$SGE_TASK_ID"
exit $SGE_TASK_ID
"""


def qpu(lab: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return lab.run("node1", ["qpu", *arguments], user="alice", check=False, timeout=300)


def test_job_script_is_submitted_as_an_array_and_waited_for(grid: Grid) -> None:
    (grid.home() / "scan.sh").write_text(SCRIPT)
    done = qpu(grid.lab, "submit", "--wait", "--json", "--array", "1-5:2", "scan.sh", "a  b", "c")
    ended = {info["id"]: info["exit_status"] for info in json.loads(done.stdout)}
    number = next(iter(ended)).partition(".")[0]
    assert ended == {f"{number}.{task}": task for task in (1, 3, 5)}
    assert done.returncode == 5
    assert (grid.home() / f"scan.{number}.3").read_text() == "a  b c 3\n"
    assert f"job {number} is submitted, an array of 3 tasks" in done.stderr
    assert "of 3 ended" in done.stderr

    # The same from the accounting, for somebody who comes back; and by a -t in the script.
    grid.until("the records", lambda: len(grid.records(number)) == 3)
    again = qpu(grid.lab, "wait", number)
    assert again.stdout.startswith("3 jobs ended: 0 succeeded, 3 failed\n")
    assert again.returncode == 5
    (grid.home() / "scan.sh").write_text(SCRIPT + "#$ -t 2-3\n")
    assert json.loads(qpu(grid.lab, "submit", "--json", "scan.sh").stdout)["tasks"][1].endswith(".3")


def test_interrupted_wait_leaves_the_job_running_and_qpu_wait_comes_back_to_it(grid: Grid) -> None:
    script = "until test -e $HOME/go.$JOB_ID; do sleep 0.1; done; kill -9 $$"
    command = ["qpu", "submit", "--wait", "--output", "/dev/null", "--", "/bin/sh", "-c", script]
    with grid.lab.popen("node1", command, user="alice", stderr=subprocess.PIPE) as process:
        assert process.stderr
        job = process.stderr.readline().split()[1]
        grid.until("the job to run", lambda: grid.state(job) == "r")
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode == 130
    assert f"`qpu wait {job}` comes back to it" in told
    late = qpu(grid.lab, "wait", job, "--within", "1")
    assert (late.returncode, late.stdout) == (1, "")
    assert late.stderr.splitlines()[-1] == f"qpu: job {job} has not ended within 1 s: it goes on, wait again"
    grid.let_go(job)
    ended = qpu(grid.lab, "wait", job)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == f"qpu: job {job} did not end by itself: SIGKILL"


def test_qmaster_that_is_restarted_makes_nobody_wait_for_ever_or_tells_anything_wrong(grid: Grid) -> None:
    lab = grid.lab
    program = """
        with Session() as grid:
            first = grid.submit(sh("touch first; sleep 2; touch ended; exit 3", output="/dev/null"))
            after = grid.submit(sh("exit 4", output="/dev/null", native=f"-hold_jid {first.id}"))
            tasks = grid.submit_array(sh("exit $SGE_TASK_ID", output="/dev/null", native=f"-hold_jid {first.id}"), 5, 6)
            print("submitted", flush=True)
            for info in grid.completed([first, after, *tasks], timeout=400):
                print(info.exit_status, flush=True)
    """
    with lab.popen("node1", command(program), user="alice", stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == "submitted\n"
        grid.until("the first job to run", (grid.home() / "first").exists)
        try:
            lab.run(MASTER, ["pkill", "-TERM", "-x", "sge_qmaster"])
            # An execd that finds its qmaster again keeps the ends of jobs to itself for minutes; a new one does not.
            for node in NODES:
                lab.stop_execd(node)
            grid.until("the first job to end", (grid.home() / "ended").exists)
            gone = ["sh", "-c", "! pgrep -x sge_qmaster"]
            grid.until("the qmaster to be gone", lambda: lab.run(MASTER, gone, check=False).returncode == 0)
        finally:
            lab.run(MASTER, ["/usr/lib/gridengine/sge_qmaster"])
            grid.until("the qmaster", lambda: lab.run(MASTER, ["qstat"], check=False).returncode == 0)
            for node in NODES:
                lab.start_execd(node)
        told = process.stdout.read().split()
    assert sorted(told) == ["3", "4", "5", "6"]
    assert process.returncode == 0
    grid.until("the QPU to be offered", lambda: grid.load_values().get("qpu_state") == "ready")
