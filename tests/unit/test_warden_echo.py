"""The emulator without physics, and what every emulator's module is."""

from __future__ import annotations

import importlib
import subprocess
import sys
import typing

import pytest
from warden_site import AFM, Site, wait_until

from warden.model import TaskStatus
from warden.qpu import echo
from warden.qpu.process import EMULATORS, Emulator, Order
from warden.sections import QpuSection


def test_the_configuration_names_the_emulators_that_there_are() -> None:
    assert set(typing.get_args(typing.get_type_hints(QpuSection)["emulator"])) == set(EMULATORS)
    assert QpuSection().emulator == "qutip"


@pytest.mark.parametrize("emulator", EMULATORS)
def test_an_emulator_s_module_describes_and_samples(emulator: str) -> None:
    if emulator == "qutip":
        pytest.importorskip("pulser_simulation")
    module = importlib.import_module(EMULATORS[emulator])
    assert module.describe("MockDevice").name == "MockDevice"
    order = Order(device="AnalogDevice", sequence=AFM, first_shot=2, shots=3, seed=0, task=1)
    shots = module.sample(order)
    assert [len(shot) for shot in shots] == [4, 4, 4]
    assert set("".join(shots)) <= {"0", "1"}


def test_an_echo_is_all_zeros_on_a_device_of_any_name() -> None:
    machine = Emulator("Anything", 0, "echo")
    assert (machine.specs.name, machine.specs.json) == ("Anything", '{"name":"Anything"}')
    emulation = machine.start(task=1, sequence=AFM, first_shot=0, shots=5)
    wait_until(emulation.done, "the echo is there")
    assert emulation.outcome().shots == ["0000"] * 5
    emulation.end()


def test_a_sequence_that_is_none_is_an_error_of_its_run_alone() -> None:
    machine = Emulator("Anything", 0, "echo")
    emulation = machine.start(task=1, sequence="nonsense", first_shot=0, shots=5)
    wait_until(emulation.done, "the emulation is done")
    outcome = emulation.outcome()
    emulation.end()
    assert outcome.shots == []
    assert "not JSON" in outcome.error


def test_an_echo_needs_no_process() -> None:
    machine = Emulator("Anything", 0, "echo")
    outcome = machine.at_once(task=1, sequence=AFM, first_shot=0, shots=5)
    assert outcome is not None
    assert outcome.shots == ["0000"] * 5
    failed = machine.at_once(task=1, sequence="nonsense", first_shot=0, shots=5)
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
