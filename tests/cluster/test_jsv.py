"""`qpu-jsv` in a real qmaster: what qsub and DRMAA are told, what jobs are given, and that nobody else notices."""

from collections.abc import Iterator

import pytest
from grid import MASTER, WAITS, Grid

pytestmark = pytest.mark.site

QPU = ("-l", "qpu=1")
HELD = ("-h",)
LINE_BREAKS = "line breaks in arguments, paths, names, mail addresses or variables are not allowed here"


def set_url(grid: Grid, url: str) -> None:
    lab = grid.lab
    lines = lab.run(MASTER, ["qconf", "-sconf", "global"]).stdout.splitlines()[1:]
    text = "".join(f"{'jsv_url ' + url if line.startswith('jsv_url ') else line}\n" for line in lines)
    lab.run(MASTER, ["sh", "-c", "mkdir -p /tmp/given && cat >/tmp/given/global"], input=text)
    lab.run(MASTER, ["qconf", "-Mconf", "/tmp/given/global"])


@pytest.fixture(scope="module")
def executable(lab_grid: Grid) -> str:
    return lab_grid.lab.run(MASTER, ["readlink", "-f", "/usr/local/bin/qpu-jsv"]).stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def verifier(lab_grid: Grid, executable: str) -> Iterator[None]:
    """The qmaster asks qpu-jsv."""
    set_url(lab_grid, f"script:{executable}")
    try:
        yield
    finally:
        set_url(lab_grid, "none")


def refusal(grid: Grid, *options: str, script: str = "true\n", user: str = "alice") -> str:
    done = grid.try_submit(script, *options, user=user)
    return done.stderr if done.returncode else ""


def told_by_all(grid: Grid, text: str, *options: str) -> bool:
    """Whether a submission is refused in these words, or taken if there are none, by whichever verifier has its turn."""
    answers = [refusal(grid, *HELD, *options) for _ in range(3)]
    return all(text in answer if text else not answer for answer in answers)


def test_what_can_never_be_is_refused_in_words(grid: Grid) -> None:
    assert "-l qpu=0 asks for no whole place on a QPU" in refusal(grid, "-l", "qpu=0")
    assert "qpu=2 is more than the QPU fresnel has: ask for qpu=1" in refusal(grid, "-l", "qpu=2")
    assert "there is no QPU emu*: qpu_name can be fresnel" in refusal(grid, *QPU, "-l", "qpu_name=emu*")
    assert "ask for at most qpu_qubits=14" in refusal(grid, *QPU, "-l", "qpu_qubits=15")
    done = grid.lab.run("node1", ["timeout", "20", "qrsh", *QPU, "true"], user="alice", check=False)
    assert "qrsh and qlogin jobs get no QPU on SGE 8.1.9" in done.stdout + done.stderr
    assert grid.states() == {}


def test_who_may_not_is_told_by_qsub_and_by_drmaa(grid: Grid) -> None:
    with grid.configured(operators='["root"]\nusers = ["bob"]'):
        grid.until("the new configuration", lambda: told_by_all(grid, "alice may not use the QPU fresnel", *QPU))
        done = grid.lab.run("node1", ["qpu", "submit", "--", "true"], user="alice", check=False)
        assert done.returncode == 1
        assert "alice may not use the QPU fresnel" in done.stderr
        assert refusal(grid, *HELD, *QPU, user="bob") == ""
        assert refusal(grid, *HELD) == ""
    grid.until("the old configuration", lambda: told_by_all(grid, "", *QPU))


@pytest.mark.parametrize("way", ["qsub", "DRMAA"])
def test_a_job_gets_what_it_lacks_and_runs(grid: Grid, way: str) -> None:
    limit = ("-l", "h_rt=0:1:30")
    if way == "qsub":
        job = grid.submit(WAITS, *QPU, *limit, "-ac", "mine=1")
    else:
        (grid.home() / "waits.sh").write_text(WAITS)
        said = grid.lab.run("node1", ["qpu", "submit", *limit, "--", "sh", "waits.sh"], user="alice").stdout
        job = said.split()[1]
    told = grid.why(job)
    assert "qpu_window=90" in told
    assert "hard_queue_list:            all.q" in told
    context = next(line for line in told.splitlines() if line.startswith("context:"))
    assert "qpu_class=everybody" in context
    assert ("mine=1" in context) == (way == "qsub")
    grid.until("the job to run", lambda: grid.runs(job))
    grid.let_go(job)
    assert grid.finish(job)["exit_status"] == "3"


def test_other_jobs_stay_as_they_are_but_for_what_stops_every_program(grid: Grid) -> None:
    job = grid.submit("env\n", "-l", "h_rt=60", "-v", "GLIBC_TUNABLES=nonsense,KEPT=1")
    told = grid.why(job)
    assert "qpu" not in told
    assert grid.finish(job)["exit_status"] == "0"
    assert "KEPT=1" in grid.output(job)
    assert "GLIBC_TUNABLES" not in grid.output(job)


@pytest.mark.parametrize(
    "options",
    [
        ("-M", "a@b\nQUIT"),
        ("-o", "/tmp/x\nBEGIN"),
        ("-wd", "/tmp/x\nBEGIN\nSTART"),
        ("-l", "h_rt=60", "-ac", "a=b\nPARAM l_hard h_rt=1"),
        ("-v", "A\nBEGIN\nB=1"),
        ("-e", "/tmp/x\njob_owner=alice"),
    ],
    ids=["quit", "begin", "start", "parameter", "variable", "owner"],
)
def test_line_breaks_are_refused_and_the_next_job_gets_its_own_answer(grid: Grid, options: tuple[str, ...]) -> None:
    # Both of the qmaster's verifiers have their turn.
    for _ in range(2):
        assert LINE_BREAKS in refusal(grid, *HELD, *options, user="bob")
        assert refusal(grid, *HELD) == ""
        assert "qpu=0 asks for no whole place" in refusal(grid, *HELD, "-l", "qpu=0")


def test_neither_a_broken_configuration_nor_its_end_stops_a_submission(grid: Grid) -> None:
    lab = grid.lab
    with grid.configured(prolog_wait="[broken"):
        grid.until("the broken configuration", lambda: told_by_all(grid, "", "-l", "qpu=1,qpu_qubits=15"))
        assert refusal(grid, *HELD) == ""
    messages = lab.run(MASTER, ["cat", "/var/spool/gridengine/qmaster/messages"]).stdout
    assert "qpu-jsv: a job that asks for a QPU was not checked: /etc/warden/warden.toml is no TOML" in messages
    lab.run(MASTER, ["sh", "-c", "kill -9 $(ps -eo pid,args | awk '/-m gridengine[.]jsv/ {print $1}')"])
    for _ in range(2):
        assert refusal(grid, *HELD) == ""
    grid.until("it to work again", lambda: told_by_all(grid, "ask for at most", "-l", "qpu=1,qpu_qubits=15"))


def test_users_can_have_their_jobs_checked_where_the_qmaster_does_not(grid: Grid, executable: str) -> None:
    set_url(grid, "none")
    try:
        assert "qpu=2 is more than" in refusal(grid, *HELD, "-jsv", executable, "-l", "qpu=2")
        assert refusal(grid, *HELD, "-jsv", executable, *QPU) == ""
    finally:
        set_url(grid, f"script:{executable}")
