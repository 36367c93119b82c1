"""The ports of the qmaster come from the shepherd, whatever a job makes of its hook's environment."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from gridengine_samples import stdout
from hook_spool import LIMIT

from gridengine import qstat_xml
from gridengine.hooks import shepherd

SHOW = (
    "import json, os; from gridengine.hooks import shepherd; "
    "print(json.dumps({n: v for n, v in shepherd.with_its_ports(os.environ).items() if n.startswith('SGE')}))"
)


def seen_below(parent: Path, ports: dict[str, str]) -> dict[str, str]:
    """What a hook goes by that `parent` has started, through a shell, in a job's environment."""
    hook = f'{sys.executable} -c "{SHOW}"; exit $?'
    job = "SGE_ROOT=/sge SGE_QMASTER_PORT=1234 SGE_EXECD_PORT=99"
    done = subprocess.run(
        [parent, "-c", f"{job} /bin/sh -c '{hook.replace(chr(39), chr(39) + chr(92) + chr(39) + chr(39))}'; exit $?"],
        env={**ports, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
        timeout=LIMIT,
    )
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """A shell that goes by the shepherd's name."""
    found = tmp_path / "sge_shepherd"
    shutil.copy(Path("/bin/sh").resolve(), found)
    return found


@pytest.mark.parametrize(
    "ports", [{"SGE_QMASTER_PORT": "6444", "SGE_EXECD_PORT": "6445"}, {"SGE_QMASTER_PORT": "6444"}, {}]
)
def test_ports_are_the_shepherds_or_none(parent: Path, ports: dict[str, str]) -> None:
    assert seen_below(parent, ports) == {"SGE_ROOT": "/sge", **ports}


def test_without_a_shepherd_the_environment_is_as_it_is() -> None:
    found = seen_below(Path("/bin/sh"), {"SGE_QMASTER_PORT": "6444"})
    assert found == {"SGE_ROOT": "/sge", "SGE_QMASTER_PORT": "1234", "SGE_EXECD_PORT": "99"}


def test_ports_in_an_environment() -> None:
    assert shepherd.ports(b"A=1\0SGE_QMASTER_PORT=7\0SGE_EXECD_PORT=\0XSGE_QMASTER_PORT=8\0\xff=\0") == {
        "SGE_QMASTER_PORT": "7"
    }
    assert shepherd.ports(b"") == {}


@pytest.mark.parametrize(
    ("variable", "found"),
    [
        ("__SGE_PREFIX__HGR_qpu_id", ("SGE_HGR_qpu_id",)),
        ("__SGE_PREFIX__QMASTER_PORT", ("SGE_QMASTER_PORT",)),
        ("__SGE_PREFIX__O_HOME", ()),
        ("SGE_HGR_qpu_id", ()),
    ],
)
def test_what_a_job_sets_over_grid_engines_word_is_seen(variable: str, found: tuple[str, ...]) -> None:
    text = stdout("ocs/qstat_j_pending.xml.txt")
    assert qstat_xml.read_job(text, "").overrides == ()
    forged = f"<job_sublist><VA_variable>{variable}</VA_variable></job_sublist></JB_env_list>"
    assert qstat_xml.read_job(text.replace("</JB_env_list>", forged), "").overrides == found
