"""The shell around the hooks, and the hooks of others that it runs: what reaches whom, and which status comes back."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hook_spool import LIMIT, OWNER, Spool

import gridengine.hooks
from gridengine import commands

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


BIN = Path(gridengine.hooks.__file__).parent / "bin"
IN_QMASTER = (
    "<detailed_job_info><djob_info><element>"
    f"<JB_job_number>7</JB_job_number><JB_owner>{OWNER.pw_name}</JB_owner>"
    "</element></djob_info></detailed_job_info>"
)


# --- the shell around it ---

OUTCOMES: dict[str, tuple[str | None, int]] = {
    "0": ("exit 0", 0),
    "99": ("exit 99", 99),
    "100": ("exit 100", 100),
    "1": ("exit 1", 99),
    "2": ("exit 2", 99),
    "255": ("exit 255", 99),
    "killed": ("kill -9 $$", 99),
    "alarm": ("kill -14 $$", 99),
    "crash": ("kill -11 $$", 99),
    "missing": (None, 99),
}


@pytest.fixture
def programs(tmp_path: Path) -> Callable[[str | None], Path]:
    """The programs that Grid Engine starts, beside an interpreter that does as it is told, or none."""

    def make(interpreter: str | None) -> Path:
        for name in ("qpu-prolog", "qpu-epilog"):
            text = (BIN / name).read_text()
            # Nobody here has to be kept from spinning.
            (tmp_path / name).write_text(text.replace("/bin/sleep 5", "/bin/sleep 0.1"))
            (tmp_path / name).chmod(0o755)
        if interpreter is not None:
            (tmp_path / "python").write_text(f'#!/bin/sh\necho "$@"\n{interpreter}\n')
            (tmp_path / "python").chmod(0o755)
        return tmp_path

    return make


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_no_interpreter_makes_another_status(programs: Callable[[str | None], Path], outcome: str) -> None:
    interpreter, status = OUTCOMES[outcome]
    folder = programs(interpreter)
    for name, expected in (("qpu-prolog", status), ("qpu-epilog", 0)):
        done = subprocess.run([folder / name, "7", "0", "alice", "h"], capture_output=True, check=False, timeout=LIMIT)
        assert (name, done.returncode) == (name, expected)


def test_interpreter_is_isolated_and_gets_the_arguments_as_they_are(programs: Callable[[str | None], Path]) -> None:
    folder = programs("exit 0")
    for hook in ("prolog", "epilog"):
        done = subprocess.run(
            [folder / f"qpu-{hook}", "7", "a b", "*", "$HOME"],
            capture_output=True,
            text=True,
            check=True,
            timeout=LIMIT,
        )
        assert done.stdout == f"-I -m gridengine.hooks.{hook} 7 a b * $HOME\n"


def test_neither_path_nor_environment_leads_the_shell_astray(
    programs: Callable[[str | None], Path], tmp_path: Path
) -> None:
    folder = programs("exit 0")
    trap = tmp_path / "trap"
    trap.mkdir()
    for name in ("python", "case", "exit", "echo", "[", "test", "sh"):
        (trap / name).write_text("#!/bin/sh\ntouch /tmp/sprung-$PPID\nexit 1\n")
        (trap / name).chmod(0o755)
    environment = {"PATH": str(trap), "ENV": str(trap / "sh"), "BASH_ENV": str(trap / "sh"), "IFS": "/p"}
    environment |= {f"BASH_FUNC_{name}%%": "() { touch sprung; }" for name in ("exit", "case", "echo")}
    done = subprocess.run(
        [folder / "qpu-prolog", "7"], env=environment, cwd=tmp_path, capture_output=True, check=False, timeout=LIMIT
    )
    assert done.returncode == 0
    assert not (tmp_path / "sprung").exists()


def test_only_what_grid_engine_sets_reaches_the_interpreter(programs: Callable[[str | None], Path]) -> None:
    # PYZMQ_BACKEND=antigravity and BROWSER had root run a user's program, TZ had it read a FIFO of his, for ever.
    names = ("TZ", "PYZMQ_BACKEND", "BROWSER", "OPENSSL_CONF", "LC_ALL", "HOME", "PATH", "JOB_ID")
    forged = dict.fromkeys(names, "trap")
    genuine = {"SGE_JOB_SPOOL_DIR": "/spool/7.1", "QUEUE": "*", "SGE_ROOT": "/a b", "SGE_CELL": "$(id)"}
    ports = {"SGE_QMASTER_PORT": "6444", "SGE_EXECD_PORT": "6445"}
    folder = programs("/usr/bin/env")
    for hook in ("prolog", "epilog"):
        for said in (genuine, genuine | ports, {}):
            done = subprocess.run(
                [folder / f"qpu-{hook}"], env=forged | said, capture_output=True, text=True, check=True, timeout=LIMIT
            )
            found = dict(line.split("=", 1) for line in done.stdout.splitlines()[1:])
            # The shell that stands for the interpreter makes one itself.
            found.pop("PWD", None)
            assert found == said


@pytest.mark.parametrize("hook", ["prolog", "epilog"])
def test_hook_without_its_arguments_sends_the_job_back(hook: str) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", f"gridengine.hooks.{hook}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT,
    )
    assert done.returncode == 99
    assert done.stderr.startswith(f"qpu-{hook}: wants four arguments")
    assert done.stderr.count("\n") == 1


def check(hook: str, config: Path) -> tuple[int, str, str]:
    """What `--check` says, on a host with this configuration."""
    program = f"from pathlib import Path; from gridengine.hooks import {hook}; {hook}.CONFIG = Path({str(config)!r}); {hook}.main()"
    command = [sys.executable, "-I", "-c", program, "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LIMIT)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="what belongs to root is what is looked at")
@pytest.mark.parametrize("hook", ["prolog", "epilog"])
def test_check_tells_that_a_hook_can_start_and_what_is_wrong_else(hook: str, tmp_path: Path) -> None:
    config = tmp_path / "warden.toml"
    name = f"qpu-{hook}"
    missing = f"{name}: cannot read the configuration {config}: No such file or directory\n"
    assert check(hook, config) == (99, "", missing)
    config.write_text("[qpu]\nnonsense = 1\n")
    assert check(hook, config) == (99, "", f"{name}: {config}: unknown key 'qpu.nonsense'\n")
    config.write_text("")
    assert check(hook, config) == (0, "ok\n", "")
    config.chmod(0o666)
    seen = f"{config} may be written by others than its owner, and root believes it"
    assert check(hook, config) == (99, "", f"{name}: {seen}: chmod go-w {config}\n")
    config.chmod(0o644)
    os.chown(config, OWNER.pw_uid, 0)
    seen = f"{config} belongs to {OWNER.pw_name}, and root believes it"
    assert check(hook, config) == (99, "", f"{name}: {seen}: chown root {config}\n")


@pytest.mark.parametrize("hook", ["prolog", "epilog"])
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_check_has_no_status_that_would_stop_a_queue(
    programs: Callable[[str | None], Path], outcome: str, hook: str
) -> None:
    command = [programs(OUTCOMES[outcome][0]) / f"qpu-{hook}", "--check"]
    done = subprocess.run(command, capture_output=True, check=False, timeout=LIMIT)
    assert done.returncode in {0, 99, 100}
    assert (done.returncode == 0) is (outcome == "0")


@pytest.mark.skipif(os.geteuid() != 0, reason="what belongs to root is what is looked at")
def test_check_tells_that_the_chain_can_start(tmp_path: Path) -> None:
    (tmp_path / "qpu-chain").write_text((BIN / "qpu-chain").read_text())
    (tmp_path / "qpu-chain").chmod(0o755)
    (tmp_path / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (tmp_path / "python").chmod(0o755)
    done = subprocess.run(
        [tmp_path / "qpu-chain", "--check"], capture_output=True, text=True, check=False, timeout=LIMIT
    )
    assert (done.returncode, done.stdout) == (0, "ok\n")


# --- hooks that were there before ours ---

OURS = ("7", "undefined", OWNER.pw_name, "node1")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own are root's alone."""
    with tempfile.TemporaryDirectory(prefix="hooks", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def chained(room: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a hook of theirs and ours; the interpreter says what it was given for ours, and ends well."""
    for name in ("qpu-prolog", "qpu-epilog", "qpu-chain"):
        text = (BIN / name).read_text().replace("/bin/sleep 5", "/bin/sleep 0.1")
        (room / name).write_text(text)
        (room / name).chmod(0o755)
    real = f'exec {sys.executable} "$@"'
    (room / "python").write_text(
        f'#!/bin/sh\ncase $3 in\n*.chain) {real} ;;\n*) echo "ours: $*"; exec /usr/bin/env ;;\nesac\n'
    )
    (room / "python").chmod(0o755)
    spool = Spool(room)
    qstat = room / "bin" / commands._ARCHITECTURES[os.uname().machine] / "qstat"
    qstat.parent.mkdir(parents=True)
    qstat.write_text(f"#!/bin/sh\necho '{IN_QMASTER}'\n")
    qstat.chmod(0o755)

    def run(
        hook: str,
        theirs: str,
        *words: str,
        script: str = "",
        number: int | str | None = None,
        ours: tuple[str, ...] = OURS,
        **environment: str,
    ) -> subprocess.CompletedProcess[str]:
        program = room / "theirs"
        program.write_text(script)
        program.chmod(0o755)
        count = str(1 + len(words) if number is None else number)
        command = [str(room / "qpu-chain"), hook, count, theirs.replace("PROGRAM", str(program)), *words, *ours]
        return subprocess.run(
            command,
            env={
                "PYTHONPATH": "/trap",
                "SGE_JOB_SPOOL_DIR": str(spool.folder),
                "SGE_ROOT": str(room),
                "FOO": "b a r",
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            cwd="/tmp",
            timeout=LIMIT,
        )

    return run


@needs_root
@pytest.mark.parametrize("status", [0, 1, 2, 99, 100, 126, 127, 255])
def test_status_of_theirs_is_what_it_was(chained: Callable[..., subprocess.CompletedProcess[str]], status: int) -> None:
    script = f'#!/bin/sh\necho "theirs: $*"\necho error >&2\nexit {status}\n'
    prolog = chained("prolog", "root@PROGRAM", "a", "$b", "'c", script=script)
    epilog = chained("epilog", "root@PROGRAM", script=script)
    assert (prolog.returncode, epilog.returncode) == (status, status)
    assert prolog.stdout.startswith("theirs: a $b 'c\n")
    # Ours come only if theirs let the job go on, and never see their words; the session is given back in any case.
    assert ("ours: -I -m gridengine.hooks.prolog 7 undefined nobody node1\n" in prolog.stdout) == (status == 0)
    assert epilog.stdout.startswith("ours: -I -m gridengine.hooks.epilog 7 undefined nobody node1\n")
    assert epilog.stdout.endswith("theirs: \n")
    assert prolog.stderr == epilog.stderr == "error\n"


@needs_root
def test_theirs_that_is_killed_has_failed_and_theirs_that_is_missing_too(
    chained: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    assert chained("prolog", "root@PROGRAM", script="#!/bin/sh\nkill -9 $$\n").returncode == 137
    # As it was before: Grid Engine stops a queue whose prolog is not there.
    done = chained("prolog", "root@/nonexistent")
    assert (done.returncode, done.stderr) == (127, "cannot run /nonexistent: No such file or directory\n")


@needs_root
def test_theirs_need_no_first_line(chained: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    assert chained("prolog", "root@PROGRAM", script="exit 5\n").returncode == 5


@needs_root
@pytest.mark.parametrize(
    ("who", "account"), [("root@", "root"), ("daemon@", "daemon"), ("", OWNER.pw_name)], ids=["root", "user", "owner"]
)
def test_theirs_run_as_grid_engine_would_have_run_them(
    chained: Callable[..., subprocess.CompletedProcess[str]], room: Path, who: str, account: str
) -> None:
    (room / "7.1" / "environment").write_text("FOO=other\nLD_PRELOAD=\nTWO=a\\nb\nTMPDIR=/tmp/7\nTMPDIR=/tmp/8\n")
    shown = ("id -un", "id -G", "pwd", "grep SigBlk /proc/self/status", "grep SigIgn /proc/self/status")
    script = "\n".join(("#!/bin/sh", *shown, "ls -m /proc/$$/fd", "cat /proc/$$/environ"))
    expected = subprocess.run(["id", "-G", account], capture_output=True, text=True, check=True).stdout.split()
    done = chained("prolog", f"{who}PROGRAM", script=script)
    name, groups, folder, blocked, ignored, opened, environment = done.stdout.partition("ours: ")[0].split("\n", 6)
    assert (name, folder) == (account, "/tmp")
    assert sorted(groups.split()) == sorted(expected)
    assert (blocked, ignored) == ("SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000")
    assert not {"3", "4", "5"} & set(opened.split(", "))
    found = dict(line.split("=", 1) for line in environment.split("\0") if line)
    assert found["FOO"] == "b a r"
    assert found["PYTHONPATH"] == "/trap"
    # Root gets what Grid Engine gave to root, which is less.
    more = {"TWO": "a\nb", "TMPDIR": "/tmp/8", "LD_PRELOAD": ""}
    assert {name: found[name] for name in more if name in found} == ({} if account == "root" else more)


@needs_root
@pytest.mark.parametrize("who", ["daemon@", "", "root@"])
def test_nothing_of_the_jobs_environment_reaches_a_process_of_root(
    chained: Callable[..., subprocess.CompletedProcess[str]], room: Path, who: str
) -> None:
    trap = room / "trap"
    trap.mkdir(mode=0o777)
    trap.chmod(0o777)
    (trap / "sitecustomize.py").write_text("import os; open('/tmp/sprung-by-%d' % os.getuid(), 'w')\n")
    done = chained(
        "prolog",
        f"{who}PROGRAM",
        script="#!/bin/sh\nexit 0\n",
        PYTHONPATH=str(trap),
        PYTHONSTARTUP=str(trap / "sitecustomize.py"),
        LOCPATH=str(trap),
        BASH_ENV=str(trap / "x"),
        TZ=str(trap / "fifo"),
    )
    assert done.returncode == 0
    assert not Path("/tmp/sprung-by-0").exists()
    ours = done.stdout.partition("ours: ")[2]
    assert {line.partition("=")[0] for line in ours.splitlines()[1:]} <= {
        "SGE_JOB_SPOOL_DIR",
        "SGE_ROOT",
        "PWD",
        "QUEUE",
        "_",
    }


@needs_root
@pytest.mark.parametrize(
    "ours",
    [
        # What a job's owner can make of $job_owner or $host on SGE 8.1.9: blanks, and words of his own behind them.
        ("7", "undefined", "alice", "--", "root@EVIL", "node1"),
        ("7", "undefined", "alice", "prolog", "1", "root@EVIL", "7", "undefined", "alice", "node1"),
        ("prolog", "1", "root@EVIL", "7", "undefined", "alice", "node1"),
        ("7", "undefined", "alice"),
        (),
    ],
)
def test_words_that_a_job_smuggles_in_are_never_run(
    chained: Callable[..., subprocess.CompletedProcess[str]], room: Path, ours: tuple[str, ...]
) -> None:
    evil = room / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {room}/sprung\n")
    evil.chmod(0o755)
    ours = tuple(word.replace("EVIL", str(evil)) for word in ours)
    prolog = chained("prolog", "root@PROGRAM", "a", script="#!/bin/sh\n", ours=ours)
    epilog = chained("epilog", "root@PROGRAM", "a", script="#!/bin/sh\n", ours=ours)
    assert (prolog.returncode, epilog.returncode) == (99, 0)
    assert not (room / "sprung").exists()
    assert "ours" not in prolog.stdout
    # Nor have our own hooks any word that makes them run something.
    for name in ("qpu-prolog", "qpu-epilog"):
        subprocess.run([room / name, *ours], capture_output=True, check=False, timeout=LIMIT)
    assert not (room / "sprung").exists()


@needs_root
@pytest.mark.parametrize("number", ["0", "01", "2", "-1", "x", "100", "", "1 ", "1+0"])
def test_number_that_does_not_fit_runs_nothing(
    chained: Callable[..., subprocess.CompletedProcess[str]], room: Path, number: str
) -> None:
    script = f"#!/bin/sh\ntouch {room}/sprung\n"
    assert chained("prolog", "root@PROGRAM", script=script, number=number).returncode == 99
    assert chained("epilog", "root@PROGRAM", script=script, number=number).returncode == 0
    assert chained("other", "root@PROGRAM", script=script).returncode == 99
    assert not (room / "sprung").exists()


@needs_root
@pytest.mark.parametrize("theirs", ["nobody-at-all@PROGRAM", "theirs", "root@theirs", "@PROGRAM"])
def test_theirs_that_nobody_can_run_send_the_job_back(
    chained: Callable[..., subprocess.CompletedProcess[str]], theirs: str
) -> None:
    assert chained("prolog", theirs, script="#!/bin/sh\nexit 0\n").returncode == 99
    assert chained("epilog", theirs, script="#!/bin/sh\nexit 0\n").returncode == 0


@needs_root
def test_theirs_do_not_run_as_another_user_than_the_jobs_owner(
    chained: Callable[..., subprocess.CompletedProcess[str]], room: Path
) -> None:
    # SGE 8.1.9 believes the last line, which an argument of the job may have written.
    with (room / "7.1" / "config").open("a") as config:
        config.write("job_owner=daemon\n")
    forged = ("7", "undefined", "daemon", "node1")
    prolog = chained("prolog", "PROGRAM", script="#!/bin/sh\nid\n", ours=forged)
    assert (prolog.returncode, prolog.stdout) == (100, "")
    assert "job 7 is nobody's and was about to run as daemon" in (room / "7.1" / "error").read_text()
    # Where nobody knows whose it is, it is nobody's turn.
    next(room.glob("bin/*/qstat")).write_text("#!/bin/sh\nexit 1\n")
    assert chained("prolog", "PROGRAM", script="#!/bin/sh\nid\n").returncode == 99
    # A job that has run has had its owner looked at, and its epilog does not wait for the qmaster.
    assert "uid=" in chained("epilog", "PROGRAM", script="#!/bin/sh\nid\n").stdout


@needs_root
def test_root_is_no_owner_of_jobs(chained: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = chained("prolog", "PROGRAM", script="#!/bin/sh\nid\n", ours=("7", "undefined", "root", "node1"))
    assert (done.returncode, "uid=0" in done.stdout) == (99, False)


@needs_root
@pytest.mark.parametrize("interpreter", ["exit 0", "exit 1", "exit 127", "kill -9 $$"])
def test_interpreter_that_cannot_run_theirs_is_not_taken_for_theirs(
    chained: Callable[..., subprocess.CompletedProcess[str]], room: Path, interpreter: str
) -> None:
    (room / "python").write_text(f"#!/bin/sh\n{interpreter}\n")
    assert chained("prolog", "root@PROGRAM", script="#!/bin/sh\nexit 1\n").returncode == 99
    assert chained("epilog", "root@PROGRAM", script="#!/bin/sh\nexit 1\n").returncode == 0
