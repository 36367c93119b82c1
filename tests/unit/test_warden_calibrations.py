"""Broker and worker as real processes: a QPU that wanders is calibrated, and says so to everybody."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from warden_machine import sequence
from warden_site import wait_until

from warden.model import State

if TYPE_CHECKING:
    from warden_site import Site

NOISE = {"p_false_pos": 0.01, "p_false_neg": 0.05, "temperature": 30.0}
DRIFT = {"rabi_error": 0.03, "detuning_error": 0.3}


EARLY = """
[[calibration]]
below_quality = 0.9999
duration = "5s"
at_least = "1h"
"""


def start(site: Site, rule: str = "") -> None:
    """A QPU that was never calibrated: it is as far from what it should be as it will ever be."""
    site.configure(qpu={"emulator": "echo", "seed": 5}, noise=NOISE, drift=DRIFT)
    with site.file.open("a", encoding="utf-8") as file:
        file.write(rule)
    site.start_broker()
    site.start_worker(at_once=bool(rule))


def test_an_operator_s_window_has_a_calibration_that_everybody_sees(site: Site) -> None:
    start(site)
    with site.client() as client:
        wait_until(lambda: client.availability().quality is not None, "the worker says how good the QPU is")
        before = client.availability()
        assert before.calibration == 0
        site.warden("calibrate", "add", "--for", "1h", "--reason", "at hand", check=True)
        (found,) = wait_until(client.calibrations, "the calibration is kept")
        assert (found.id, found.reason) == (1, "at hand")
        assert found.before < found.after
        assert found.measured
        wait_until(lambda: client.availability().quality != before.quality, "the worker knows that it is in force")
        assert client.availability().calibration == 1
        assert client.history()[0].remark == "number 1"
        # The broker is killed, and what it knows is on the disk.
        site.kill(site.broker)
        site.start_broker()
        wait_until(lambda: client.availability().state is State.CALIBRATING, "the worker is back")
        assert client.availability().calibration == 1
    status = site.warden("status", check=True).stdout
    assert "calibration:      number 1, " in status
    assert "lowest of the day" in status
    assert json.loads(site.warden("status", "--json", check=True).stdout)["quality_of_the_day"]
    assert "at hand" in site.warden("calibrate", "results", check=True).stdout
    assert found.log[0] in site.warden("calibrate", "results", "1", check=True).stdout
    assert json.loads(site.warden("calibrate", "results", "--json", check=True).stdout)[0]["id"] == 1


def test_a_qpu_whose_quality_is_low_is_calibrated_and_tasks_say_with_what(site: Site) -> None:
    start(site, EARLY)
    with site.client() as client:
        wait_until(client.calibrations, "the quality has asked for a calibration")
        wait_until(lambda: client.availability().state is State.READY, "its window is over")
        assert client.history()[0].window.reason == "quality below 0.9999"
    with site.resource() as qpu:
        number = qpu.task_start(sequence(device="AnalogDevice"), 10)
        qpu.wait(number, timeout=30)
    with site.client() as client:
        task = client.task(int(number))
        assert task.calibration is not None
        assert task.calibration.id == 1
        assert task.at >= task.calibration.time
