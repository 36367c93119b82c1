"""What becomes of the cluster, and of the record, when something fails on the way."""

import os
import signal
from pathlib import Path

import pytest
from gridengine_cell import FakeCell
from gridengine_deployed import HOSTS, ONE, SITES, TWO, LoadSite, apply, remove

from gridengine import commands, deployment
from gridengine.deployment import record
from warden.model import ConfigurationError, ConflictError, WardenError


def stop(how: str) -> None:
    """What may happen when we call qconf."""
    if how == "refused":
        raise commands.GridEngineError("qconf: no")
    if how == "SIGTERM":
        os.kill(os.getpid(), signal.SIGTERM)
    raise KeyboardInterrupt


@pytest.mark.parametrize("section", SITES.values(), ids=SITES)
@pytest.mark.parametrize("direction", ["apply", "remove", "to the other"])
@pytest.mark.parametrize("how", ["refused", "stopped", "stopped after", "SIGTERM"])
def test_a_failure_at_any_step_is_undone(
    cell: FakeCell, load_site: LoadSite, section: str, direction: str, how: str
) -> None:
    cell.queues["all.q"]["prolog"] = "/site,[node1=/other]"
    if direction != "apply":
        apply(load_site(section))
    file = record.path(load_site(section).settings.record)
    before, remembered = cell.snapshot(), record.load(file)
    to = load_site({"apply": section, "remove": section, "to the other": HOSTS if section == TWO else TWO}[direction])
    cell.breaks = lambda: stop(how)
    steps = 0
    while True:
        steps += 1
        cell.writes, cell.break_at = 0, -steps if how == "stopped after" else steps
        try:
            (remove if direction == "remove" else apply)(to)
        except KeyboardInterrupt:
            pass
        except WardenError as error:
            said = error.text
            assert said == "qconf: no; nothing was changed"
        else:
            break
        assert cell.snapshot() == before, f"after failing at step {steps}"
        assert record.load(file) == remembered
    assert steps > 8, "and then it works"


def test_what_we_were_told_to_ignore_does_not_stop_us(cell: FakeCell, load_site: LoadSite) -> None:
    cell.break_at, cell.breaks = 3, lambda: os.kill(os.getpid(), signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert apply(load_site(ONE))
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_a_killed_removal_left_is_found_by_its_name(cell: FakeCell, load_site: LoadSite) -> None:
    before = cell.snapshot()
    for name in ("qpu_emu", "qpu_other"):
        cell.table += f"\n{name} {name} INT <= NO NO 0 0"
    deployment.removal(load_site(ONE).settings, ["emu"])[0].carry_out("remove")
    assert "qpu_emu" not in cell.table
    assert "qpu_other" in cell.table
    assert cell.snapshot() != before


def test_what_cannot_be_undone_is_said(cell: FakeCell, load_site: LoadSite) -> None:
    def refuse_for_ever() -> None:
        cell.break_at = cell.writes + 1
        raise commands.GridEngineError("qconf: no")

    cell.break_at, cell.breaks = 4, refuse_for_ever
    with pytest.raises(WardenError, match=r"not all could be undone, see `qpu-admin plan`: qconf: no"):
        apply(load_site(ONE))


def test_a_hook_that_somebody_sets_meanwhile_stays(cell: FakeCell, load_site: LoadSite) -> None:
    planned = deployment.difference(load_site(ONE))
    cell.queues["all.q"]["epilog"] = "/bin/true"
    before = cell.snapshot()
    with pytest.raises(ConflictError, match=r"epilog of queue all\.q is /bin/true where NONE was expected"):
        planned.carry_out("apply")
    assert cell.snapshot() == before


def test_a_record_that_cannot_be_written_stops_everything(cell: FakeCell, load_site: LoadSite, tmp_path: Path) -> None:
    (tmp_path / "record").write_text("in the way")
    before = cell.snapshot()
    with pytest.raises(
        ConfigurationError, match=r"cannot write the record of what was there before, .*gridengine\.record"
    ):
        apply(load_site(ONE))
    assert cell.snapshot() == before


@pytest.mark.usefixtures("cell")
def test_the_record_tells_what_was_done(load_site: LoadSite) -> None:
    apply(load_site(ONE))
    file = record.path(load_site(ONE).settings.record)
    assert file.stat().st_mode & 0o077 == file.parent.stat().st_mode & 0o077 == 0
    remove(load_site(ONE))
    found = record.load(file)
    assert found.originals == ()
    assert [event.command for event in found.history] == ["apply", "remove"]
    assert set(found.history[0].changes) == {each.undone() for each in found.history[1].changes}
    file.write_text("{")
    with pytest.raises(ConfigurationError, match="move it away"):
        deployment.difference(load_site(ONE))


def test_cells_have_records_of_their_own() -> None:
    folder = Path("/r")
    assert record.path(folder, {"SGE_ROOT": "/opt/sge"}) == folder / "opt_sge_default.json"
    assert record.path(folder, {"SGE_ROOT": "/opt/sge", "SGE_CELL": "../x"}) == folder / "opt_sge_.._x.json"
