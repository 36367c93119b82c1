"""Reservations on a cell of OCS, whose qmaster stands in another zone than UTC."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from ocs_cell import Cell

from gridengine import reservations, site
from gridengine.reservations import Did
from warden.model import SECOND, State, Window

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def cell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cell:
    found = Cell(tmp_path)
    found.without_processes(monkeypatch)
    return found


@pytest.mark.parametrize(("number", "zone"), [("9.2.0prealpha", 0), ("9.2.0prealpha", 2), ("9.2.1", -7), ("9.0.8", 0)])
def test_windows_are_reserved_kept_and_taken_back_whatever_the_zone(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: str, zone: int
) -> None:
    cell.change(zone=zone, captured={"qconf -help": [f"OCS {number}\nusage: qconf [options]\n", "", 0]})
    start = (time.time_ns() // 1000 // SECOND + 600) * SECOND
    window = Window(start, start + 60 * SECOND, State.CALIBRATING)
    monkeypatch.setattr(reservations, "_windows", lambda _: (window,))
    (tmp_path / "warden.toml").write_text('[qpu]\nname = "fresnel"\n')
    offered = site.load(tmp_path / "warden.toml")
    monkeypatch.setattr(reservations.os, "geteuid", lambda: 0)
    assert [step.did for step in reservations.reserve(offered)] == [Did.RESERVED]
    assert [step.did for step in reservations.reserve(offered)] == [Did.KEPT]
    assert len(cell.state["reservations"]) == 1
    assert [step.did for step in reservations.withdraw()] == [Did.WITHDRAWN]
    assert cell.state["reservations"] == {}
    asked = {command[-1] for command in cell.state["log"] if command[0] == "qrstat"}
    assert asked == {"json" if number.startswith("9.2") else "-xml"}


def test_who_may_not_reserve_is_told_so(cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell.change(user="alice")
    start = (time.time_ns() // 1000 // SECOND + 600) * SECOND
    monkeypatch.setattr(reservations, "_windows", lambda _: (Window(start, start + SECOND, State.CALIBRATING),))
    (tmp_path / "warden.toml").write_text('[qpu]\nname = "fresnel"\n')
    with pytest.raises(reservations.commands.DeniedError, match="arusers"):
        list(reservations.reserve(site.load(tmp_path / "warden.toml")))
