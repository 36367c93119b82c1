"""Users who try to steer what root runs: by their job's environment, by what they lay in its way, by names."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import traps
from grid import MASTER, WAITS, Grid
from traps import BOB, ROOT, Listener, Traps

if TYPE_CHECKING:
    from collections.abc import Iterator

QPU = ("-l", "qpu=1")
# A shell that reads nothing, in a folder full of Python packages, on the host that looks for them.
PLAIN = ("-S", "/bin/dash", "-wd", f"{traps.FOLDER}/cwd", "-l", "hostname=node1")


@pytest.fixture(scope="module")
def laid(lab_grid: Grid) -> Iterator[Traps]:
    found = Traps(lab_grid)
    found.lay()
    yield found
    found.take_away()


def environment(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def end_of(grid: Grid, laid: Traps, job: str) -> dict[str, str]:
    """The record of a job whose hooks run and open nothing of its owner's."""

    def steps_on() -> set[str]:
        return laid.sprung(ROOT) | set(laid.held())

    grid.until("the job's end, or a hook on a trap", lambda: bool(steps_on()) or not grid.state(job))
    assert steps_on() == set()
    return grid.finish(job)


@pytest.fixture
def listener(grid: Grid) -> Iterator[Listener]:
    found = Listener(grid, "node1")
    yield found
    found.close()


def test_traps_spring_where_somebody_is_careless(grid: Grid, laid: Traps, listener: Listener) -> None:
    """Without this, the tests below could not fail."""
    forged = [f"{name}={value}" for name, value in traps.VARIABLES.items()]
    done = grid.lab.run(
        "node1", ["/usr/bin/env", *forged, "/bin/bash", "-c", laid.careless()], user="bob", check=False, timeout=300
    )
    assert laid.sprung(BOB) >= traps.ALL, done.stderr
    laid.forget()
    with traps.careless_prolog(grid, laid):
        job = grid.submit("exit 3\n", *PLAIN, "-v", traps.FORGED, user="bob")
        assert grid.finish(job)["exit_status"] == "3"
    assert laid.sprung(ROOT) >= traps.ALL - traps.KEPT_AWAY
    assert listener.heard() == [BOB, ROOT, BOB]


def test_environment_of_a_job_leads_no_hook_astray(grid: Grid, laid: Traps, listener: Listener) -> None:
    laid.lay()
    job = grid.submit("/usr/bin/env; exit 3\n", *PLAIN, *QPU, "-v", traps.FORGED, user="bob")
    other = grid.submit("exit 3\n", *PLAIN, "-v", traps.FORGED, user="bob")
    assert end_of(grid, laid, job)["exit_status"] == "3"
    assert end_of(grid, laid, other)["exit_status"] == "3"
    assert laid.of_root() == []
    assert listener.heard() == [BOB]
    # ld.so complains once for each program that it starts: the job's shell and its env, and none of ours.
    assert grid.output(job, "bob").count("from LD_PRELOAD cannot be preloaded") == 2

    found = environment(grid.output(job, "bob"))
    [session] = [session for session in grid.sessions(ended=True) if session["job"] == job]
    assert (session["uid"], session["queue"], session["host"]) == (BOB, "all.q", "node1")
    assert session["end_reason"] == "released"
    assert found["WARDEN_SESSION"] == found["fresnel_QRMI_JOB_ACQUISITION_TOKEN"] == session["id"]
    assert (found["QRMI_JOB_ID"], found["QRMI_JOB_UID"]) == (job, str(BOB))
    assert (found["QRMI_JOB_QPU_RESOURCES"], found["QRMI_JOB_QPU_TYPES"]) == ("fresnel", "pasqal-local")
    assert (found["fresnel_QRMI_WARDEN_URL"], found["WARDEN_ENDPOINT"]) == ("http://master:7680", "tcp://master:7610")
    assert other not in [session["job"] for session in grid.sessions(ended=True)]


def test_folder_that_waits_for_a_job_is_not_searched(grid: Grid, laid: Traps) -> None:
    """The job's TMPDIR comes first in its PATH, and its name can be known before."""
    laid.forget()
    job = grid.submit("ls $TMPDIR; exit 3\n", *PLAIN, *QPU, "-h", user="bob")
    copied = ["cp", "-r", f"{traps.FOLDER}/bin", f"/tmp/{job}.1.all.q"]
    grid.lab.run("node1", copied, user="bob")
    grid.lab.run(MASTER, ["qrls", job])
    assert end_of(grid, laid, job)["exit_status"] == "3"
    assert set(grid.output(job, "bob").split()) == set(traps.PROGRAMS)


@pytest.fixture
def precious(grid: Grid) -> Iterator[str]:
    """A file of root's that everybody can see."""
    path = grid.lab.users / "precious"
    path.write_text("precious\n")
    yield "/home/precious"
    assert path.read_text() == "precious\n"
    assert (path.stat().st_uid, path.stat().st_mode & 0o777, path.stat().st_nlink) == (ROOT, 0o644, 1)
    path.unlink()


@pytest.mark.parametrize("options", [("-j", "y", "-o"), ("-j", "n", "-e")], ids=["output", "errors"])
def test_nothing_is_written_through_a_link_in_place_of_a_jobs_output(
    grid: Grid, precious: str, options: tuple[str, ...]
) -> None:
    grid.lab.run(MASTER, ["ln", "-sfn", precious, "/home/bob/link"], user="bob")
    job = grid.submit("exit 3\n", *QPU, *options, "/home/bob/link", user="bob")
    grid.until("the job to be in error", lambda: grid.state(job) == "Eqw")
    assert 'can\'t open output file "/home/bob/link": Permission denied' in grid.why(job)
    assert grid.sessions() == []


# What the job tries with each file of its spool, and with the spool; says what it could do.
PLANTS = """cd $SGE_JOB_SPOOL_DIR
for file in $(ls); do
  for way in "rm -f $file" "mv $file $file.old" "ln -sfn PRECIOUS $file" "ln -f PRECIOUS $file"; do
    $way 2>/dev/null && echo "could: $way"
  done
done
for file in config environment job_pid; do (echo job_owner=root >> $file) 2>/dev/null && echo "could: write $file"; done
mv $SGE_JOB_SPOOL_DIR /tmp/mine 2>/dev/null && echo "could: move it"
ls
exit 3
"""


def test_job_can_replace_nothing_that_its_epilog_reads(grid: Grid, precious: str) -> None:
    job = grid.submit(PLANTS.replace("PRECIOUS", precious), *QPU, user="bob")
    assert grid.finish(job)["exit_status"] == "3"
    said = grid.output(job, "bob").splitlines()
    assert {"config", "environment", "error"} <= set(said)
    assert [line for line in said if "could" in line] == []
    [session] = [session for session in grid.sessions(ended=True) if session["job"] == job]
    assert session["end_reason"] == "released"


# In the way of its own epilog. Grid Engine then starts none, and the lease ends the session.
OBSTACLES = {
    "a link for its output": ("cd; ln -sfn /home/nothing $JOB_ID.out; exit 3\n", "can't open output file"),
    "no folder": ("cd; rmdir gone; exit 3\n", "can't chdir to /home/bob/gone"),
}


@pytest.mark.parametrize("obstacle", OBSTACLES)
def test_job_that_is_in_the_way_of_its_epilog_is_in_error_itself(grid: Grid, obstacle: str) -> None:
    script, reason = OBSTACLES[obstacle]
    grid.lab.run(MASTER, ["mkdir", "-p", "/home/bob/gone"], user="bob")
    job = grid.submit(script, *QPU, "-wd", "/home/bob/gone", user="bob")
    grid.until("the job to be in error", lambda: grid.state(job) == "Eqw")
    assert reason in grid.why(job)
    assert {(session["job"], session["uid"]) for session in grid.sessions()} <= {(job, BOB)}
    assert not (grid.lab.users / "nothing").exists()


NAMES = (
    'it\'s"quoted"',
    "%s%n%d{0}{job}",
    "$(id>here)`id>here`;id>here;",
    "-x",
    "--check",
    "$job_owner",
    "<JB_owner>root",
)


def test_names_of_jobs_change_nothing(grid: Grid) -> None:
    jobs = {name: grid.submit("exit 3\n", *QPU, "-N", name, "-wd", "/home/bob", user="bob") for name in NAMES}
    for name, job in jobs.items():
        assert grid.finish(job)["exit_status"] == "3", name
        assert grid.output(job, "bob") == "", name
    sessions = {session["job"]: session for session in grid.sessions(ended=True)}
    for job in jobs.values():
        assert (sessions[job]["uid"], sessions[job]["end_reason"]) == (BOB, "released")
    assert not list(grid.lab.users.rglob("here"))


@pytest.mark.parametrize(
    ("option", "name"),
    [("-N", "two words"), ("-N", "x\njob_owner=root"), ("-A", "x\njob_owner=root"), ("-P", "x\njob_owner=root")],
)
def test_names_with_blanks_and_line_breaks_are_refused_at_submission(grid: Grid, option: str, name: str) -> None:
    done = grid.try_submit("exit 3\n", *QPU, option, name, user="bob")
    assert done.returncode != 0
    assert grid.states() == {}


# Their uids. The second is the name of a variable that Grid Engine fills in, the third alice's uid.
USERS = {"eve.x-1$": 2101, "$host": 2102, "2001": 2103, "eve x": 2104}


@pytest.fixture
def users(grid: Grid) -> Iterator[None]:
    files = [grid.lab.etc / name for name in ("passwd", "group")]
    before = [path.read_text() for path in files]
    passwd = [f"{name}:x:{uid}:{uid}::/tmp:/bin/sh\n" for name, uid in USERS.items()]
    group = [f"{name}:x:{uid}:\n" for name, uid in USERS.items()]
    for path, text, lines in zip(files, before, (passwd, group), strict=True):
        path.write_text(text + "".join(lines))
    yield
    for path, text in zip(files, before, strict=True):
        path.write_text(text)


@pytest.mark.usefixtures("users")
def test_names_of_users_change_nothing(grid: Grid) -> None:
    *plain, spaced = USERS
    jobs = {user: grid.submit("exit 3\n", *QPU, "-o", "/dev/null", user=user) for user in USERS}
    for user in plain:
        record = grid.finish(jobs[user])
        assert (record["owner"], record["exit_status"]) == (user, "3")
    sessions = {session["job"]: session for session in grid.sessions(ended=True)}
    for user in plain:
        session = sessions[jobs[user]]
        assert (session["uid"], session["end_reason"]) == (USERS[user], "released")
    # Grid Engine itself takes a blank for the end of the name.
    grid.until("the job to be in error", lambda: grid.state(jobs[spaced]) == "Eqw")
    assert jobs[spaced] not in sessions


def test_job_without_a_request_gets_no_session_whatever_it_says(grid: Grid) -> None:
    holder = grid.submit(WAITS, *QPU)
    grid.until("the job to run", lambda: grid.runs(holder))
    [session] = grid.sessions()
    forged = {
        "SGE_HGR_qpu": "1.000000",
        "SGE_HGR_qpu_id": "fresnel",
        "QRMI_JOB_QPU_RESOURCES": "fresnel",
        "QRMI_JOB_QPU_TYPES": "pasqal-local",
        "QRMI_JOB_UID": "2001",
        "QRMI_JOB_ID": holder,
        "fresnel_QRMI_JOB_ACQUISITION_TOKEN": session["id"],
        "WARDEN_ENDPOINT": "tcp://master:7610",
    }
    (grid.home() / "any.json").write_text("{}")
    script = "qpu run /home/alice/any.json; echo $?; WARDEN_SESSION= qpu run /home/alice/any.json; echo $?\n"
    options = ",".join(f"{name}={value}" for name, value in forged.items())
    job = grid.submit(script, "-v", f"{options},WARDEN_SESSION={session['id']}", user="bob")
    assert grid.finish(job)["exit_status"] == "0"
    assert grid.output(job, "bob").splitlines() == [
        "qpu: there is no such session of yours: submit the job with `qsub -l qpu=1`",
        "1",
        "qpu: this is no job that was granted a QPU: submit it with `qsub -l qpu=1`",
        "1",
    ]
    assert [one["job"] for one in grid.sessions()] == [holder]
    grid.let_go(holder)
    grid.finish(holder)
    other = grid.submit(script, "-v", f"{options},WARDEN_SESSION={session['id']}", user="bob")
    assert grid.finish(other)["exit_status"] == "0"
    assert {job, other} & {one["job"] for one in grid.sessions(ended=True)} == set()
    assert grid.sessions() == []
