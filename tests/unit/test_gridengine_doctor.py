"""What `qpu-admin doctor` sees, and what it says to do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from warden_site import NOBODY

from gridengine import doctor
from gridengine.doctor import Verdict, clocks, examine, in_error
from warden.model import SECOND

if TYPE_CHECKING:
    from pathlib import Path

    from warden_site import Site

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="what belongs to root is what is looked at")

QSTAT = """\
queuename                      qtype resv/used/tot. load_avg arch          states
---------------------------------------------------------------------------------
all.q@node1                    BP    0/1/4          0.35     lx-amd64
      7 0.55500 afm        alice        r     03/02/2026 09:14:07     1
---------------------------------------------------------------------------------
all.q@node2                    BP    0/0/4          -NA-     -NA-          auE
---------------------------------------------------------------------------------
long.q@node2                   BP    0/0/4          0.20     lx-amd64      d

############################################################################
 - PENDING JOBS - PENDING JOBS - PENDING JOBS - PENDING JOBS - PENDING JOBS
############################################################################
      8 0.55500 a@b        E            qw    03/02/2026 09:14:08     1
"""


def test_queue_instances_in_error_are_found() -> None:
    assert in_error(QSTAT) == ["all.q@node2"]
    assert in_error("") == []


@pytest.mark.parametrize(
    ("ahead", "unsure", "verdict"),
    [
        (0, 0, Verdict.OK),
        (-SECOND, 0, Verdict.OK),
        (3 * SECOND, 0, Verdict.WARNING),
        (-3 * SECOND, 0, Verdict.WARNING),
        (3 * SECOND, 2 * SECOND, Verdict.OK),
        (300 * SECOND, 0, Verdict.BAD),
    ],
)
def test_clocks_are_compared(ahead: int, unsure: int, verdict: Verdict) -> None:
    found = clocks(ahead, unsure)
    assert found.verdict is verdict
    assert bool(found.fix) is (verdict is not Verdict.OK)


@pytest.fixture
def room(site: Site) -> Path:
    """A folder that root alone may write, with all above it."""
    made = site.room / "kit"
    made.mkdir(mode=0o755)
    return made


def trusted(path: Path) -> doctor.Finding:
    [found] = doctor._trusted("kit", path)
    return found


def test_what_root_runs_has_to_be_root_s_on_all_of_its_way(room: Path) -> None:
    program, linked = room / "bin" / "python", room / "link"
    program.parent.mkdir()
    program.write_text("")
    linked.symlink_to(program)
    for path in (program, linked):
        assert trusted(path).verdict is Verdict.OK
    program.chmod(0o775)
    for path in (program, linked):
        assert (trusted(path).verdict, trusted(path).fix) == (Verdict.BAD, f"chmod go-w {program}")
    program.chmod(0o755)
    program.parent.chmod(0o777)
    assert trusted(linked).fix == f"chmod go-w {program.parent}"
    program.parent.chmod(0o755)
    os.chown(room, NOBODY, 0)
    assert trusted(program).fix == f"chown root {room}"
    assert "nobody, and root believes it" in trusted(program).seen


def test_secret_keys_are_secret(site: Site) -> None:
    keys = site.room / "keys"
    [found] = doctor._secrets(keys)
    assert found.verdict is Verdict.OK
    (keys / "worker.key_secret").chmod(0o640)
    [found] = doctor._secrets(keys)
    assert (found.verdict, "mode 640" in found.seen) == (Verdict.BAD, True)
    [found] = doctor._secrets(site.room / "nothing")
    assert "none on this host" in found.seen


def verdicts(site: Site) -> dict[str, tuple[str, str]]:
    return {found.what: (found.verdict, found.seen) for found in examine(site.file)}


def test_a_host_is_looked_at_as_a_whole_and_each_trouble_is_its_own(site: Site) -> None:
    site.start_broker()
    site.start_worker()
    found = verdicts(site)
    assert {
        what: verdict for what, (verdict, _) in found.items() if what in {"broker", "MUNGE", "clocks"}
    } == dict.fromkeys(("broker", "MUNGE", "clocks"), "ok")
    assert found["configuration"][0] == found["broker's key"][0] == "ok"
    # There is no Grid Engine here.
    assert found["cluster"][0] == "bad"
    site.kill(site.worker)
    site.kill(site.broker)
    found = verdicts(site)
    assert found["broker"] == ("bad", found["broker"][1])
    assert "does not answer" in found["broker"][1]
    assert found["MUNGE"][0] == "ok"


def test_a_munged_that_calls_its_host_a_loopback_is_named_where_hosts_count(site: Site) -> None:
    site.configure(access={"hosts": ["127.0.0.0/8"]})
    [found] = doctor._munge(site.config)
    if "127." in found.seen:
        assert (found.verdict, "--origin" in found.fix) == (Verdict.BAD, True)
    else:
        assert found.verdict is Verdict.OK


def test_a_configuration_that_is_broken_is_all_that_is_told(site: Site) -> None:
    site.file.write_text("[nonsense]\n")
    found = list(examine(site.file))
    assert [one.what for one in found] == ["configuration", "configuration"]
    assert "unknown key 'nonsense'" in found[1].seen
    site.file.unlink()
    assert [one.verdict for one in examine(site.file)][-1] is Verdict.BAD
