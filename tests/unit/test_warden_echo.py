"""The emulator without physics, and what every emulator's module is."""

from __future__ import annotations

import importlib
import subprocess
import sys
import typing
from typing import TYPE_CHECKING

import pytest
from warden_site import AFM, Site, wait_until

from warden.model import TaskStatus
from warden.qpu import echo, shots
from warden.qpu.device import read
from warden.qpu.noise import Noise
from warden.qpu.physics import EMULATORS, Order
from warden.qpu.process import Emulator
from warden.sections import QpuSection

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_the_configuration_names_the_emulators_that_there_are() -> None:
    assert set(typing.get_args(typing.get_type_hints(QpuSection)["emulator"])) == set(EMULATORS)
    assert QpuSection().emulator == "qutip"


@pytest.mark.parametrize("emulator", EMULATORS)
def test_an_emulator_s_module_describes_checks_and_emulates(emulator: str) -> None:
    if emulator != "echo":
        pytest.importorskip("pulser_simulation" if emulator == "qutip" else "emu_mps")
    module = importlib.import_module(EMULATORS[emulator])
    assert module.describe("MockDevice").name == "MockDevice"
    assert module.check("AnalogDevice", AFM, Noise()) >= 0
    assert module.emulate(Order(device="AnalogDevice", sequence=AFM)).qubits == 4


@pytest.fixture
def machine() -> Iterator[Emulator]:
    machine = Emulator("Anything", 0, "echo")
    yield machine
    machine.close()


def test_an_echo_is_all_zeros_on_a_device_of_any_name(machine: Emulator) -> None:
    assert (machine.specs.name, machine.specs.json) == ("Anything", '{"name":"Anything"}')
    emulation = machine.start(machine.order(AFM))
    wait_until(emulation.done, "the echo is there")
    found = emulation.outcome().distribution
    emulation.end()
    assert found is not None
    assert shots.probabilities(found) == {"0000": 1.0}


def test_an_echo_has_the_specs_that_are_shipped() -> None:
    specs = echo.describe(read("FresnelLike"))
    assert (specs.name, specs.qubits) == ("FresnelLike", 100)
    assert "pre_calibrated_layouts" in specs.json


def test_a_sequence_that_is_none_is_an_error_of_its_run_alone(machine: Emulator) -> None:
    emulation = machine.start(machine.order("nonsense"))
    wait_until(emulation.done, "the emulation is done")
    outcome = emulation.outcome()
    emulation.end()
    assert outcome.distribution is None
    assert "not JSON" in outcome.error


def test_an_echo_needs_no_process(machine: Emulator) -> None:
    outcome = machine.at_once(machine.order(AFM))
    assert outcome is not None
    assert outcome.distribution is not None
    assert machine.draw(outcome.distribution, Noise(), task=1, first_shot=0, shots=5) == ["0000"] * 5
    for failed in map(machine.at_once, (machine.order("nonsense"), machine.check("nonsense"))):
        assert failed is not None
        assert "not JSON" in failed.error
        assert failed.fault == "task"


def test_an_echo_loads_nothing_heavy() -> None:
    code = f"import sys, {echo.__name__}; print(' '.join(m for m in sys.modules if '.' not in m))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pulser", "numpy", "scipy", "qutip", "torch"} & set(loaded)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_site_with_an_echo_for_a_qpu(site: Site, at_once: bool) -> None:
    site.configure(qpu={"emulator": "echo", "overhead": 0.01})
    site.start_broker()
    site.start_worker(at_once=at_once)
    with site.resource() as resource:
        task = resource.task_start(AFM, 20)
        assert resource.wait(task, 30) == {"0000": 20}
        assert resource.task_status(task) is TaskStatus.COMPLETED
