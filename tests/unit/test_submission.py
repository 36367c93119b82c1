"""The protocol between a session and its agent, with a `drmaa` of our own in the agent; the real one: tests/cluster."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from drmaa_fake import FAKE, QACCT, QSTAT

from gridengine import drmaa_agent, drmaa_process, waiting
from gridengine.submission import (
    GridUnavailableError,
    JobInfo,
    JobLostError,
    JobStatus,
    JobTemplate,
    Session,
    SubmissionError,
    WaitTimeoutError,
)
from warden.model import WardenError

# Nothing here takes so long, on the busiest machine.
LIMIT = 60.0


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The fake in place of drmaa; the file that it writes into."""
    package = tmp_path / "site" / "drmaa"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(textwrap.dedent(FAKE))
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setenv("SGE_ROOT", str(tmp_path))
    monkeypatch.setenv("DRMAA_LIBRARY_PATH", "/nowhere/libdrmaa.so")
    monkeypatch.setenv("FAKE_LOG", str(tmp_path / "log"))
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    commands = tmp_path / "bin" / {"x86_64": "lx-amd64", "aarch64": "lx-arm64"}[os.uname().machine]
    commands.mkdir(parents=True)
    for name, program in (("qstat", QSTAT), ("qacct", QACCT)):
        (commands / name).write_text(program)
        (commands / name).chmod(0o755)
    monkeypatch.setattr(waiting, "ACCOUNTING_LAG", 0.0)
    return tmp_path / "log"


def submitted(grid: Session, command: str, **more: Any) -> str:
    return grid.submit(JobTemplate(command=command, **more)).id


def agent_of(grid: Session) -> int:
    assert grid._agent is not None
    return grid._agent._process.pid


def gone(process: int, within: float = LIMIT) -> bool:
    until = time.monotonic() + within
    while time.monotonic() < until:
        with contextlib.suppress(FileNotFoundError):
            if Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z":
                time.sleep(0.02)
                continue
        return True
    return False


def test_job_is_submitted_and_waited_for(log: Path) -> None:
    with Session() as grid:
        assert grid.contact == "session=here.1"
        job = grid.submit(JobTemplate(command="job"))
        assert job.id == "job"
        assert job.status() is JobStatus.HELD
        info = job.wait()
        assert (info.exit_status, info.signal, info.aborted, info.wallclock) == (7, "", False, 1.5)
        assert info.resource_usage["ru_wallclock"] == "1.0000"
        assert not info.succeeded
    assert log.read_text() == "exit\n"


@pytest.mark.usefixtures("log")
def test_end_of_a_job_is_told_again_although_drmaa_tells_it_once() -> None:
    with Session() as grid:
        job = grid.submit(JobTemplate(command="job"))
        assert job.wait() == job.wait() == grid.job("job").wait()
        assert job.status() is JobStatus.DONE


@pytest.mark.usefixtures("log")
def test_killed_and_deleted_jobs_have_no_exit_status() -> None:
    with Session() as grid:
        killed = grid.job("killed").wait()
        assert (killed.exit_status, killed.signal, killed.aborted, killed.wallclock) == (None, "SIGKILL", False, 2.0)
        deleted = grid.job("deleted").wait()
        assert deleted == JobInfo(
            id="deleted", exit_status=None, signal="", aborted=True, wallclock=0.0, resource_usage={}
        )
        assert grid.job("deleted").status() is JobStatus.FAILED


@pytest.mark.usefixtures("log")
def test_wait_ends_at_its_timeout() -> None:
    with Session() as grid:
        start = time.monotonic()
        with pytest.raises(WaitTimeoutError, match=r"job endless has not ended within 0\.3 s") as caught:
            grid.job("endless").wait(timeout=0.3)
        assert 0.3 <= time.monotonic() - start < LIMIT
        assert isinstance(caught.value, TimeoutError)
        assert isinstance(caught.value, WardenError)
        with pytest.raises(WaitTimeoutError):
            grid.job("endless").wait(timeout=0)


def test_other_calls_get_through_while_one_waits(log: Path) -> None:
    with Session() as grid:
        waiting = threading.Thread(target=lambda: grid.job("endless").wait(LIMIT), daemon=True)
        waiting.start()
        # It has begun to wait by then, or these have nothing to get past.
        time.sleep(0.2)
        for _ in range(20):
            grid.job("x").status()
        assert waiting.is_alive()
        log.with_name("log.end").touch()
        waiting.join(LIMIT)
        assert not waiting.is_alive()


@pytest.mark.usefixtures("log")
def test_threads_get_their_own_answers() -> None:
    with Session() as grid:
        ids: list[str] = []
        threads = [
            threading.Thread(target=lambda n=number: ids.append(submitted(grid, f"job{n}"))) for number in range(20)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(ids) == sorted(f"job{number}" for number in range(20))


@pytest.mark.usefixtures("log")
def test_template_arrives_as_attributes_of_drmaa(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Session() as grid:
        told = submitted(
            grid,
            "echo",
            args=("a b", "", "ünï"),
            resources={"qpu": 1, "qpu_name": "fresnel*|emu", "h_rt": "0:10:00"},
            name="afm",
            output="out/$JOB_ID.txt",
            error="$HOME/err",
            queue="all.q",
            native="-r y",
        )
    assert dict(eval(told)) == {
        "remoteCommand": "echo",
        "args": ["a b", "", "ünï"],
        "workingDirectory": str(tmp_path),
        "nativeSpecification": "-l qpu=1,qpu_name=fresnel*|emu,h_rt=0:10:00 -q all.q -r y",
        "jobName": "afm",
        "outputPath": f":{tmp_path}/out/$JOB_ID.txt",
        "errorPath": ":$HOME/err",
    }


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        ("denied", SubmissionError, r'refuses the job \(unknown resource "nosuch"; no suitable queues\): ask for'),
        ("unreachable", GridUnavailableError, r"does not answer \(unable to contact qmaster\)"),
    ],
)
@pytest.mark.usefixtures("log")
def test_refusal_is_one_clear_line(call: str, kind: type[SubmissionError], text: str) -> None:
    with Session() as grid:
        with pytest.raises(kind, match=text) as caught:
            submitted(grid, call)
        assert type(caught.value) is kind
        assert "\n" not in caught.value.text
        assert submitted(grid, "job") == "job"


@pytest.mark.usefixtures("log")
def test_unknown_job_and_impossible_control() -> None:
    with Session() as grid:
        for ask in (grid.job("unknown").status, grid.job("unknown").wait, grid.job("14").wait):
            with pytest.raises(JobLostError, match=r"qacct -j (unknown|14)"):
                ask()
        with pytest.raises(SubmissionError, match="cannot hold job job: hold is impossible"):
            grid.job("job").hold()


@pytest.mark.usefixtures("log")
def test_what_drmaa_has_forgotten_grid_engine_still_tells() -> None:
    with Session() as grid:
        assert grid.job("12").status() is JobStatus.RUNNING
        with pytest.raises(WaitTimeoutError):
            grid.job("12").wait(timeout=0)
        assert grid.job("13").status() is JobStatus.DONE
        info = grid.job("13").wait()
        assert (info.exit_status, info.wallclock) == (5, 3.0)
        assert info == grid.job("13").wait()


def test_without_the_commands_drmaa_has_the_last_word(log: Path) -> None:
    for command in (log.parent / "bin").glob("*/q*"):
        command.write_text("#!/bin/sh\necho 'error: cell directory x doesn'\"'\"'t exist' >&2; exit 1\n")
    with Session() as grid:
        for ask in (grid.job("13").status, grid.job("13").wait):
            with pytest.raises(JobLostError, match="qacct -j 13"):
                ask()


@pytest.mark.usefixtures("log")
def test_array_is_submitted_as_a_whole_and_its_tasks_are_jobs() -> None:
    with Session() as grid:
        jobs = grid.submit_array(JobTemplate(command="job"), 1, 7, 3)
        assert [job.id for job in jobs] == ["7.1", "7.4", "7.7"]
        assert sorted(info.id for info in grid.completed(jobs)) == ["7.1", "7.4", "7.7"]
        for tasks in ((0, 3, 1), (3, 1, 1), (1, 3, 0)):
            with pytest.raises(SubmissionError, match="there is no array from"):
                grid.submit_array(JobTemplate(command="job"), *tasks)


@pytest.mark.usefixtures("log")
def test_many_jobs_are_collected_with_one_call_and_told_again() -> None:
    with Session() as grid:
        jobs = [grid.submit(JobTemplate(command=f"job{number}")) for number in range(100)]
        agent = grid._agent
        assert agent is not None
        before = next(agent._numbers)
        assert len(list(grid.completed(jobs))) == 100
        assert next(agent._numbers) - before == 2
        assert len({info.id for info in grid.completed(jobs)}) == 100
        assert next(agent._numbers) - before == 3
        os.kill(agent_of(grid), 9)
        assert jobs[5].wait().exit_status == 7


@pytest.mark.usefixtures("log")
def test_job_script_is_handed_over_to_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "job.sh"
    script.write_text("#!/bin/sh\n#$ -N x\n")
    attributes = JobTemplate(command="job.sh", script=True, args=("a",), resources={"qpu": 1}).attributes()
    assert attributes == {
        "remoteCommand": str(script),
        "args": ["a"],
        "nativeSpecification": "-b n -l qpu=1",
        "workingDirectory": str(tmp_path),
    }
    script.write_text("#$ -wd /elsewhere\n")
    assert "workingDirectory" not in JobTemplate(command="job.sh", script=True).attributes()
    own = JobTemplate(command="job.sh", script=True, working_directory="/here").attributes()
    assert own["workingDirectory"] == "/here"
    with Session() as grid:
        script.write_text("#$ -t 1-3\n")
        with pytest.raises(SubmissionError, match="use submit_array"):
            grid.submit(JobTemplate(command="job.sh", script=True))
        assert len(grid.submit_array(JobTemplate(command="job.sh", script=True), 1, 3)) == 3
        with pytest.raises(SubmissionError, match="cannot read the job script"):
            grid.submit(JobTemplate(command="nosuch.sh", script=True))


@pytest.mark.usefixtures("log")
def test_wrong_contact() -> None:
    with pytest.raises(SubmissionError, match="no DRMAA session 'bad'"):
        Session(contact="bad")


def test_library_that_does_not_load_is_an_answer(log: Path) -> None:
    module = log.parent / "site" / "drmaa" / "__init__.py"
    module.write_text("raise OSError('libfoo.so: cannot open shared object file')")
    with pytest.raises(SubmissionError, match=r"DRMAA library fails: OSError: libfoo\.so"):
        Session()


@pytest.mark.usefixtures("log")
def test_hung_library_is_given_up_and_the_session_goes_on() -> None:
    # Each call may take so long, also the first one of an agent, which is a Python that starts.
    with Session(time_limit=2.0) as grid:
        hung = agent_of(grid)
        start = time.monotonic()
        with pytest.raises(GridUnavailableError, match=r"within 2 s; whether the job was submitted is not known"):
            submitted(grid, "hang")
        assert time.monotonic() - start < LIMIT
        assert gone(hung)
        grid.contact = "session=there.2"
        assert submitted(grid, "job") == "job"
        assert grid.contact == "session=there.2"
        assert agent_of(grid) != hung


@pytest.mark.usefixtures("log")
def test_stopped_agent_that_does_not_even_read_is_given_up() -> None:
    with Session(time_limit=2.0) as grid:
        os.kill(agent_of(grid), 19)
        with pytest.raises(GridUnavailableError, match="within 2 s"):
            submitted(grid, "job", args=("x" * 10_000_000,))


@pytest.mark.usefixtures("log")
def test_death_of_the_agent_is_told_with_its_last_words() -> None:
    with Session() as grid:
        with pytest.raises(GridUnavailableError, match=r"ended \(terrible things\); whether"):
            submitted(grid, "die")
        assert submitted(grid, "job") == "job"
        assert grid._agent is not None
        os.kill(agent_of(grid), 9)
        grid._agent._process.wait(LIMIT)
        assert submitted(grid, "job") == "job"


@pytest.mark.usefixtures("log")
def test_answer_to_an_interrupted_call_is_not_taken_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with Session() as grid:
        assert grid._agent is not None
        with monkeypatch.context() as patch:
            patch.setattr(grid._agent, "_receive", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                grid.job("job").wait()
        assert submitted(grid, "next") == "next"
        assert grid.job("job").wait().exit_status == 7


def test_agent_ends_with_its_parent(log: Path) -> None:
    program = "import os; from gridengine.submission import Session; s = Session(); print(s._agent._process.pid, flush=True); "
    path = os.pathsep.join(filter(None, sys.path))
    for end in ("os.kill(os.getpid(), 9)", "os._exit(0)"):
        done = subprocess.run(
            [sys.executable, "-c", program + end],
            env={**os.environ, "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        assert gone(int(done.stdout))
    assert log.read_text() == "exit\nexit\n"


@pytest.mark.usefixtures("log")
def test_hung_agent_ends_with_its_parent_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with Session(time_limit=2.0) as grid:
        agent = grid._agent
        assert agent is not None
        monkeypatch.setattr(agent, "kill", lambda: None)
        with pytest.raises(GridUnavailableError):
            submitted(grid, "hang")
        agent._connection.close()
        assert gone(agent._process.pid, within=drmaa_agent.GRACE + LIMIT)
        monkeypatch.undo()
        agent.kill()


@pytest.mark.usefixtures("log")
def test_closed_session_and_forked_process_are_told_so() -> None:
    with Session() as grid:
        job = grid.submit(JobTemplate(command="job"))
        grid._process = -1
        with pytest.raises(SubmissionError, match="belongs to the process that opened it"):
            job.status()
        grid.close()
        grid._process = os.getpid()
        assert job.status() is JobStatus.HELD
    with pytest.raises(SubmissionError, match=r"session is closed: Session\(contact='session=here.1'\)"):
        job.status()
    grid.close()


@pytest.mark.parametrize("users", [None, "glibc.malloc.check=1"])
@pytest.mark.usefixtures("log")
def test_jobs_do_not_inherit_our_tunables(users: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if users:
        monkeypatch.setenv("GLIBC_TUNABLES", users)
    environment = drmaa_process._environment(os.environ)
    assert environment["GLIBC_TUNABLES"].removeprefix(users or "").removeprefix(":") == drmaa_agent.TUNABLE
    with Session() as grid:
        assert submitted(grid, "environment") == (users or "none")


def test_cell_and_library_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drmaa_process, "_PACKAGED_DEFAULTS", tmp_path / "gridengine")
    monkeypatch.setattr(drmaa_process, "_PACKAGED_ROOT", tmp_path / "packaged")
    with pytest.raises(SubmissionError, match=r"SGE_ROOT is not set: source the settings\.sh"):
        drmaa_process._environment({})
    (tmp_path / "packaged" / "util").mkdir(parents=True)
    assert drmaa_process._packaged_cell() == {"SGE_ROOT": str(tmp_path / "packaged")}
    (tmp_path / "gridengine").write_text("# cell\nSGE_ROOT=/elsewhere\nSGE_CELL='default'\nSGE_ARCH=`util/arch`\n")
    assert drmaa_process._packaged_cell() == {"SGE_ROOT": "/elsewhere", "SGE_CELL": "default"}

    root = tmp_path / "root"
    (root / "util").mkdir(parents=True)
    (root / "util" / "arch").write_text("#!/bin/sh\necho lx-odd\n")
    (root / "util" / "arch").chmod(0o755)
    monkeypatch.setattr(drmaa_process, "_PACKAGED_LIBRARY", tmp_path / "packaged.so")
    with pytest.raises(SubmissionError, match=r"no libdrmaa\.so under .*root/lib"):
        drmaa_process._environment({"SGE_ROOT": str(root)})
    (tmp_path / "packaged.so").touch()
    assert drmaa_process._library(root) == tmp_path / "packaged.so"
    (root / "lib" / "lx-odd").mkdir(parents=True)
    (root / "lib" / "lx-odd" / "libdrmaa.so").touch()
    environment = drmaa_process._environment({"SGE_ROOT": str(root), "HOME": "/home/alice"})
    assert environment["DRMAA_LIBRARY_PATH"] == str(root / "lib" / "lx-odd" / "libdrmaa.so")
    assert environment["HOME"] == "/home/alice"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"command": ""}, "has no command"),
        ({"command": "a\nb"}, "line break"),
        ({"command": "a\0"}, "control character"),
        ({"args": "run"}, "args is one string"),
        ({"args": ("a\nb",)}, "line break"),
        ({"args": ("\udc80",)}, "control character"),
        ({"args": (3,)}, "3 in the job template is no string"),
        ({"native": "-r y\n-b n"}, "line break"),
        ({"native": "-r y -t 1-3"}, "submit_array"),
        ({"output": "a\0b"}, "control character"),
        ({"working_directory": "a\nb"}, "line break"),
        ({"resources": {"qpu": "1 -P other"}}, "no value for the resource qpu"),
        ({"resources": {"qpu": "1,other=2"}}, "no value for the resource qpu"),
        ({"resources": {"qpu": "1=2"}}, "no value for the resource qpu"),
        ({"resources": {"qpu": '"1"'}}, "no value for the resource qpu"),
        ({"resources": {"qpu": "1\\"}}, "no value for the resource qpu"),
        ({"resources": {"qpu": ""}}, "no value for the resource qpu"),
        ({"resources": {"-V qpu": 1}}, "no resource"),
        ({"resources": {"qpu\n": 1}}, "no resource"),
        ({"resources": {"": 1}}, "no resource"),
        ({"queue": "all.q -V"}, "no queue"),
        ({"queue": "-V"}, "no queue"),
        ({"queue": ""}, "no queue"),
        ({"name": "a b"}, "no job name"),
        ({"name": "a/b"}, "no job name"),
        ({"name": "ü"}, "no job name"),
    ],
)
def test_bad_templates_are_refused(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(SubmissionError, match=text) as caught:
        JobTemplate(**{"command": "true", **fields})
    assert "\n" not in caught.value.text


def test_gone_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SubmissionError, match="current directory is gone"):
        JobTemplate(command="true").attributes()
    assert JobTemplate(command="true", working_directory="/").attributes()["workingDirectory"] == "/"
