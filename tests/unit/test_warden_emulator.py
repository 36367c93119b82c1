"""The emulated QPU: the physics is right, and cutting a task changes nothing."""

from __future__ import annotations

import collections
import itertools
import json
import os
import signal
from typing import Any

import pytest
from warden_site import AFM, wait_until

from warden.model import ConfigurationError
from warden.qpu.process import Emulator, Order

pytest.importorskip("pulser_simulation")

from warden.qpu import emulator


def order(first: int, shots: int, **other: Any) -> Order:
    fields = {"device": "AnalogDevice", "sequence": AFM, "seed": 3, "task": 7, **other}
    return Order(first_shot=first, shots=shots, **fields)


def test_the_square_is_found_in_its_two_ordered_states() -> None:
    counts = collections.Counter(emulator.sample(order(0, 1000)))
    assert {bits for bits, _ in counts.most_common(2)} == {"0101", "1010"}
    assert counts["0101"] + counts["1010"] > 800
    assert abs(counts["0101"] - counts["1010"]) < 150
    assert {len(bits) for bits in counts} == {4}


@pytest.mark.parametrize("cuts", [[1], [50], [10, 60, 61], [99]])
def test_a_task_cut_in_pieces_gives_the_same_shots_as_in_one_go(cuts: list[int]) -> None:
    whole = emulator.sample(order(0, 100))
    edges = [0, *cuts, 100]
    pieces = [emulator.sample(order(start, end - start)) for start, end in itertools.pairwise(edges)]
    assert [shot for piece in pieces for shot in piece] == whole


def test_other_tasks_and_other_seeds_draw_other_shots() -> None:
    shots = {tuple(emulator.sample(order(0, 100, **other))) for other in ({}, {"task": 8}, {"seed": 4})}
    assert len(shots) == 3


def test_atoms_are_in_the_order_of_the_register() -> None:
    pulser = pytest.importorskip("pulser")
    sequence = pulser.Sequence(pulser.Register({"far": (0.0, 0.0), "near": (30.0, 0.0)}), pulser.MockDevice)
    sequence.declare_channel("ryd", "rydberg_local", initial_target="near")
    sequence.add(pulser.Pulse.ConstantPulse(1000, 3.14159265, 0.0, 0.0), "ryd")
    counts = collections.Counter(
        emulator.sample(order(0, 200, sequence=sequence.to_abstract_repr(), device="MockDevice"))
    )
    assert counts.most_common(1)[0][0] == "01"


def test_the_qpu_s_device_counts_and_not_the_user_s_copy_of_it() -> None:
    document = json.loads(AFM)
    document["device"]["min_atom_distance"] = 0
    document["register"][1]["x"] = document["register"][0]["x"] + 1.0
    with pytest.raises(ValueError, match="Pulser refuses the sequence"):
        emulator.sample(order(0, 10, sequence=json.dumps(document)))


@pytest.mark.parametrize(
    "damage",
    [
        {"operations": [{"op": "explode"}]},
        {"operations": "none"},
        {"channels": {}},
        {"channels": {"rydberg": "no_such_channel"}},
        {"register": [{"name": "q0", "x": "left", "y": 0}]},
        {"register": [{"name": "q0"}]},
        {"version": "99"},
        {"measurement": "mood"},
    ],
)
def test_what_pulser_cannot_read_is_refused_in_pulser_s_words(damage: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"Pulser refuses the sequence: ."):
        emulator.sample(order(0, 10, sequence=json.dumps({**json.loads(AFM), **damage})))


def test_a_device_that_pulser_does_not_have_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"no device 'NoSuchDevice': set qpu.device"):
        Emulator("NoSuchDevice", 0)


def test_an_emulation_that_dies_is_an_error_of_its_run_alone() -> None:
    machine = Emulator("AnalogDevice", 0)
    assert machine.specs.name == "AnalogDevice"
    dying = machine.start(task=1, sequence=AFM, first_shot=0, shots=10)
    os.kill(dying._process.pid or 0, signal.SIGKILL)
    wait_until(dying.done, "its death is noticed")
    assert "emulator died" in dying.outcome().error or dying.outcome().shots
    dying.end()
    fine = machine.start(task=2, sequence=AFM, first_shot=0, shots=10)
    wait_until(fine.done, "the emulation is done")
    assert len(fine.outcome().shots) == 10
    fine.end()
