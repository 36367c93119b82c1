"""The emulated QPU: the physics is right, and what is refused is refused in Pulser's words before it runs."""

from __future__ import annotations

import collections
import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
from warden_site import AFM

from warden.model import ConfigurationError
from warden.qpu import child, device, shots, speed
from warden.qpu.noise import Noise
from warden.qpu.physics import Order
from warden.qpu.process import Emulator

pytest.importorskip("pulser_simulation")

import emulation
import numpy as np
import pulser
from pulser.backend import StateResult
from pulser.json.abstract_repr.deserializer import deserialize_device
from pulser_simulation import QutipBackendV2, QutipConfig
from pulser_simulation.hamiltonian import Hamiltonian

from warden.qpu import emulator
from warden.qpu.emulation import device as pulsers

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


def emulate(**fields: Any) -> dict[str, float]:
    order = Order(**{"device": "AnalogDevice", "sequence": AFM, **fields})
    return shots.probabilities(emulator.emulate(order))


def pulser_s_own(sequence: pulser.Sequence) -> dict[str, float]:
    config = QutipConfig(observables=[StateResult(evaluation_times=[1.0])])
    found = QutipBackendV2(sequence, config=config).run().final_state.probabilities(cutoff=0.0)
    return {bits.replace("r", "1").replace("g", "0"): p for bits, p in found.items()}


# --- closed forms ---


@pytest.mark.parametrize("detuning", [0.0, 3.0])
@pytest.mark.parametrize("duration", [100, 250, 500, 800])
def test_an_atom_oscillates(duration: int, detuning: float) -> None:
    found = emulation.excited(emulator, emulation.sequence((duration, emulation.RABI, detuning)))
    assert found == pytest.approx(emulation.rabi(emulation.RABI, detuning, duration / 1000), abs=2e-3)


@pytest.mark.parametrize("atoms", [2, 3])
def test_atoms_that_block_each_other_oscillate_faster_by_the_root_of_their_number(atoms: int) -> None:
    places = [(0.0, 0.0), (4.0, 0.0), (2.0, 3.4641)][:atoms]
    duration = 4 * round(1000 / math.sqrt(atoms) / 2 / 4)
    found = emulation.probabilities(emulator, emulation.sequence((duration, emulation.RABI, 0.0), places=places))
    one = sum(p for bits, p in found.items() if bits.count("1") == 1)
    assert one > 0.995
    assert sum(p for bits, p in found.items() if bits.count("1") > 1) < 1e-3


def test_atoms_far_apart_know_nothing_of_each_other() -> None:
    text = emulation.sequence((250, emulation.RABI, 0.0), places=[(0.0, 0.0), (60.0, 0.0)])
    assert emulation.probabilities(emulator, text) == pytest.approx(
        dict.fromkeys(["00", "01", "10", "11"], 0.25), abs=3e-3
    )


# --- Pulser's own ---


@pytest.mark.parametrize("text", [AFM, emulation.ring(6).to_abstract_repr()], ids=["square", "ring"])
def test_without_noise_the_distribution_is_pulser_s_own(text: str) -> None:
    assert emulate(sequence=text) == pytest.approx(pulser_s_own(pulser.Sequence.from_abstract_repr(text)), abs=1e-12)


def test_shots_are_pulser_s_within_what_their_number_allows() -> None:
    """Error rate: one in a million, were the seed not fixed."""
    sequence = emulation.ring(6)
    distribution = emulator.emulate(Order(device="AnalogDevice", sequence=sequence.to_abstract_repr()))
    drawn = shots.draw(distribution, Noise(), seed=1, task=1, first=0, shots=20_000)
    assert emulation.distance(emulation.frequencies(drawn), pulser_s_own(sequence)) < emulation.bound(64, 20_000)


def test_the_square_is_found_in_its_two_ordered_states() -> None:
    found = emulate()
    assert found["0101"] == pytest.approx(found["1010"], abs=1e-6)
    assert found["0101"] + found["1010"] > 0.8


def test_atoms_are_in_the_order_of_the_register() -> None:
    sequence = pulser.Sequence(pulser.Register({"far": (0.0, 0.0), "near": (30.0, 0.0)}), pulser.MockDevice)
    sequence.declare_channel("ryd", "rydberg_local", initial_target="near")
    sequence.add(pulser.Pulse.ConstantPulse(500, emulation.RABI, 0.0, 0.0), "ryd")
    assert emulate(sequence=sequence.to_abstract_repr(), device="MockDevice")["01"] > 0.99


def digital(duration: int, channel: str = "raman_local", measured: str | None = None) -> str:
    sequence = pulser.Sequence(pulser.Register({"q0": (0.0, 0.0), "q1": (30.0, 0.0)}), pulser.MockDevice)
    sequence.declare_channel("ch", channel, **({"initial_target": "q1"} if "local" in channel else {}))
    sequence.add(pulser.Pulse.ConstantPulse(duration, emulation.RABI, 0.0, 0.0), "ch")
    if measured:
        sequence.measure(measured)
    return str(sequence.to_abstract_repr())


def test_hyperfine_states_are_measured() -> None:
    assert emulate(sequence=digital(500), device="MockDevice")["01"] > 0.99


def test_spins_are_measured() -> None:
    # Thirty micrometres apart they still exchange a little.
    assert emulate(sequence=digital(500, "mw_global"), device="MockDevice")["11"] > 0.95


def test_what_is_driven_in_both_bases_is_measured_in_the_digital_one() -> None:
    sequence = pulser.Sequence(pulser.Register({"q0": (0.0, 0.0), "q1": (60.0, 0.0)}), pulser.MockDevice)
    sequence.declare_channel("raman", "raman_local", initial_target="q1")
    sequence.declare_channel("rydberg", "rydberg_local", initial_target="q0")
    for channel in ("raman", "rydberg"):
        sequence.add(pulser.Pulse.ConstantPulse(500, emulation.RABI, 0.0, 0.0), channel)
    assert emulate(sequence=sequence.to_abstract_repr(), device="MockDevice")["01"] > 0.99
    sequence.measure("ground-rydberg")
    assert emulate(sequence=sequence.to_abstract_repr(), device="MockDevice")["10"] > 0.99


def test_in_a_basis_that_nothing_drives_nothing_is_found() -> None:
    sequence = pulser.Sequence(pulser.Register({"q0": (0.0, 0.0)}), pulser.MockDevice)
    for channel in ("rydberg_global", "raman_global"):
        sequence.declare_channel(channel, channel)
    sequence.add(pulser.Pulse.ConstantPulse(500, emulation.RABI, 0.0, 0.0), "rydberg_global")
    sequence.measure("digital")
    assert emulate(sequence=sequence.to_abstract_repr(), device="MockDevice") == {"0": 1.0}


@pytest.mark.parametrize("levels", [["r", "g"], ["u", "d"], ["r", "g", "h"]], ids="".join)
def test_the_matrices_that_emulations_share_stay_pulser_s_own(levels: list[str]) -> None:
    emulation.excited(emulator, emulation.sequence((100, emulation.RABI, 0.0)), dephasing_rate=0.1, temperature=30.0)
    shared = Hamiltonian._get_basis_op_matrices(levels)
    shared[0].clear()
    states, operators = Hamiltonian._get_basis_op_matrices(levels)
    own_states, own_operators = emulator._make_levels(levels)
    assert states == own_states
    assert operators == own_operators
    assert {one.dtype for one in operators.values()} == {one.dtype for one in own_operators.values()}


# --- what is refused ---


def test_the_qpu_s_device_counts_and_not_the_user_s_copy_of_it() -> None:
    document = json.loads(AFM)
    document["device"]["min_atom_distance"] = 0
    document["register"][1]["x"] = document["register"][0]["x"] + 1.0
    with pytest.raises(ValueError, match="Pulser refuses the sequence"):
        emulate(sequence=json.dumps(document))


@pytest.mark.parametrize(
    "damage",
    [
        {"operations": [{"op": "explode"}]},
        {"operations": "none"},
        {"operations": []},
        {"channels": {}},
        {"channels": {"rydberg": "no_such_channel"}},
        {"register": [{"name": "q0", "x": "left", "y": 0}]},
        {"register": [{"name": "q0"}]},
        {"version": "99"},
        {"measurement": "mood"},
    ],
)
def test_what_pulser_cannot_read_is_refused_in_pulser_s_words(damage: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\APulser refuses the sequence: .+\Z"):
        emulator.check("AnalogDevice", json.dumps({**json.loads(AFM), **damage}), Noise())


def test_more_runs_than_a_machine_has_memory_for_are_refused_before_they_run() -> None:
    places = [(7.0 * (i % 7), 7.0 * (i // 7)) for i in range(45)]
    text = emulation.sequence((100, 1.0, 0.0), places=places)
    for refused in (
        lambda: emulator.check("MockDevice", text, Noise()),
        lambda: emulate(device="MockDevice", sequence=text),
    ):
        with pytest.raises(
            ValueError, match=r"would take [\d.]+ PiB of memory, and this machine has [\d.]+ GiB: use fewer"
        ):
            refused()


def test_a_check_says_how_long_an_emulation_takes_with_all_its_trajectories() -> None:
    once = emulator.check("AnalogDevice", AFM, Noise())
    assert once > 0
    assert emulator.check("AnalogDevice", AFM, Noise(p_false_pos=0.1)) == once
    assert emulator.check("AnalogDevice", AFM, Noise(amp_sigma=0.1)) > 10 * once
    assert emulator.check("AnalogDevice", emulation.ring(12).to_abstract_repr(), Noise()) > 5 * once


def test_noise_of_one_atom_is_estimated_at_seconds_and_not_at_half_a_minute() -> None:
    text = emulation.sequence((1500, emulation.RABI, 0.0))
    assert emulator.check("MockDevice", text, Noise(amp_sigma=0.05, temperature=50.0)) < 5_000_000


def test_what_makes_the_steps_of_an_emulation_shorter_is_in_its_estimate() -> None:
    """Each is compared with the same without it."""
    far, near = ([(0.0, 0.0), (distance, 0.0)] for distance in (5.0, 3.0))
    still = emulation.sequence((4800, emulation.RABI, 100.0), places=far)
    closer = emulation.sequence((4800, emulation.RABI, 100.0), places=near)
    jumping = emulation.sequence(*((16, emulation.RABI, 100.0 * (-1) ** i) for i in range(300)), places=far)
    base = emulator.check("MockDevice", still, Noise())
    for nasty in (closer, jumping):
        assert emulator.check("MockDevice", nasty, Noise()) > 1.5 * base


def test_light_that_is_not_smooth_is_in_an_estimate_however_little_it_varies() -> None:
    """As it is measured, or as an optimiser has made it."""
    smooth = np.array(pulser.BlackmanWaveform(1200, 2.0).samples.as_array())
    rough = smooth + np.random.default_rng(1).normal(0.0, 0.05, 1200)

    def check(samples: np.ndarray) -> int:
        made = pulser.Sequence(emulation.ring(10).register, pulser.MockDevice)
        made.declare_channel("global", "rydberg_global")
        light = pulser.CustomWaveform(samples)
        made.add(pulser.Pulse(pulser.ConstantWaveform(1200, emulation.RABI), light, 0.0), "global")
        return emulator.check("MockDevice", made.to_abstract_repr(), Noise())

    assert check(rough) > 1.5 * check(smooth)


def test_each_atom_that_light_goes_to_is_in_an_estimate() -> None:
    def check(hops: int) -> int:
        made = pulser.Sequence(emulation.ring(8).register, pulser.MockDevice)
        made.declare_channel("local", "rydberg_local", initial_target="q0")
        for pulse in range(64):
            if hops:
                made.target(f"q{pulse % 8}", "local")
            made.add(pulser.Pulse.ConstantPulse(16, emulation.RABI, 0.0, 0.0), "local")
        return emulator.check("MockDevice", made.to_abstract_repr(), Noise())

    assert check(hops=1) > 1.5 * check(hops=0)


def test_a_check_counts_the_time_that_it_takes_to_read_the_sequence() -> None:
    asked = child.Check(device="AnalogDevice", sequence=AFM, noise=Noise())
    assert child.check("qutip", asked).preparation > emulator.check("AnalogDevice", AFM, Noise())


def test_on_a_slower_machine_an_emulation_is_estimated_to_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = child.Check(device="AnalogDevice", sequence=AFM, noise=Noise())
    monkeypatch.setattr(speed, "slowness", lambda: 2.5)
    assert child.check("qutip", asked).preparation > 2.5 * emulator.check("AnalogDevice", AFM, Noise())


def test_no_machine_is_so_fast_that_bounds_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for took, times in {speed.REFERENCE / 3: 1.0, speed.REFERENCE: 1.0, speed.REFERENCE * 3: 3.0}.items():
        monkeypatch.setattr(speed, "_piece", lambda took=took: took)
        assert speed.slowness.__wrapped__() == times


def test_how_slow_the_machine_is_is_known_before_the_first_check() -> None:
    """To the process that all others are forked from: they do not look anew."""
    speed.slowness.cache_clear()
    emulator.warm_up()
    assert speed.slowness.cache_info().currsize == 1


def test_atoms_that_feel_nothing_of_each_other_are_not_estimated_as_if_they_did() -> None:
    """Between hyperfine states, however close the atoms are."""

    def check(channel: str) -> int:
        register = pulser.Register({f"q{i}": (5.0 * (i % 4), 5.0 * (i // 4)) for i in range(10)})
        made = pulser.Sequence(register, pulser.MockDevice)
        made.declare_channel("global", channel)
        made.add(pulser.Pulse.ConstantPulse(1000, emulation.RABI, 0.0, 0.0), "global")
        return emulator.check("MockDevice", made.to_abstract_repr(), Noise())

    assert 5 * check("raman_global") < check("rydberg_global")


def test_a_long_delay_between_spins_is_emulated_with_as_many_steps_as_it_takes() -> None:
    """Pulser's own limit of QuTiP's steps follows from the samples alone, and is too low for what these spins do."""
    register = pulser.Register({f"q{i}": (10.0 * (i % 2), 10.0 * (i // 2)) for i in range(4)})
    made = pulser.Sequence(register, pulser.MockDevice)
    made.declare_channel("microwaves", "mw_global")
    made.add(pulser.Pulse.ConstantPulse(2500, emulation.RABI, 0.0, 0.0), "microwaves")
    made.delay(2500, "microwaves")
    assert sum(emulation.probabilities(emulator, made.to_abstract_repr()).values()) == pytest.approx(1.0)


# --- devices ---


def test_the_device_that_is_shipped_takes_sequences() -> None:
    machine = Emulator("FresnelLike", 0)
    try:
        device = pulser.devices.Device.from_abstract_repr(machine.specs.json)
        assert (device.name, device.max_atom_num) == (machine.specs.name, machine.specs.qubits) == ("FresnelLike", 100)
        assert device.requires_layout
        assert device.accepts_new_layouts
        assert device.max_runs
        layout = device.calibrated_register_layouts
        register = next(iter(layout.values())).define_register(0, 60, qubit_ids=["a", "b"])
        sequence = pulser.Sequence(register, device)
        sequence.declare_channel("global", "rydberg_global")
        sequence.add(pulser.Pulse.ConstantPulse(500, emulation.RABI, 0.0, 0.0), "global")
        order = machine.order(sequence.to_abstract_repr())
        assert shots.probabilities(emulator.emulate(order))["11"] > 0.99
    finally:
        machine.close()


def test_the_first_example_is_for_whatever_device_the_qpu_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    afm_ring = importlib.import_module("afm_ring")
    shipped = device.read("FresnelLike")
    sequence = afm_ring.sequence(deserialize_device(shipped))
    assert emulator.check(shipped, sequence.to_abstract_repr(), Noise()) > 0
    written = (EXAMPLES / "afm_ring.json").read_text(encoding="utf-8")
    assert afm_ring.sequence().to_abstract_repr() == written.strip()


def test_a_device_may_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "device.json"
    document = json.loads(pulser.AnalogDevice.to_abstract_repr())
    file.write_text(json.dumps({**document, "name": "Ours", "max_sequence_duration": 1000}), encoding="utf-8")
    machine = Emulator(str(file), 0)
    machine.close()
    assert machine.specs.name == "Ours"
    with pytest.raises(ValueError, match=r"refuses the sequence: .*1000"):
        emulator.emulate(machine.order(AFM))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "cannot read the device .*No such file"),
        ("{", "is no JSON"),
        ("[]", "is JSON, but no device"),
        ('{"name": 7}', "is JSON, but no device"),
        ('{"name": "\\u001b[31mOurs"}', "is JSON, but no device"),
        ('{"name": "Ours", "max_atom_num": 100001}', "is JSON, but no device .*100000"),
        ('{"name": "Ours"}', "Pulser cannot read the file of qpu.device: "),
    ],
)
def test_a_broken_file_of_a_device_is_a_line(tmp_path: Path, content: str | None, said: str) -> None:
    file = tmp_path / "device.json"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=said) as refused:
        Emulator(str(file), 0)
    assert "\n" not in refused.value.text


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"max_runs": 0}, "'max_runs' must be greater than zero"), ({"colour": 1}, "'colour' was unexpected")],
)
def test_what_is_wrong_with_a_device_is_told_to_the_point(changes: dict[str, Any], said: str) -> None:
    specs = {**json.loads(pulser.AnalogDevice.to_abstract_repr()), **changes}
    with pytest.raises(ValueError, match=f"Pulser cannot read the file of qpu.device: .*{said}") as refused:
        pulsers(json.dumps(specs))
    assert len(str(refused.value)) < 200


def test_a_device_s_file_may_begin_with_blank_lines(tmp_path: Path) -> None:
    file = tmp_path / "device.json"
    file.write_text(f"\ufeff\n {pulser.AnalogDevice.to_abstract_repr()}\n", encoding="utf-8")
    assert pulsers(device.read(str(file))) == pulser.AnalogDevice


def test_a_device_that_pulser_does_not_have_is_named() -> None:
    with pytest.raises(ConfigurationError, match=r"no device 'NoSuchDevice': set qpu.device"):
        Emulator("NoSuchDevice", 0)


def test_counts_of_the_sequence_of_the_examples() -> None:
    """Written down once: they are to be the same on each NumPy and each Python."""
    drawn = shots.draw(
        emulator.emulate(Order(device="AnalogDevice", sequence=AFM)), Noise(), seed=3, task=7, first=0, shots=1000
    )
    assert dict(collections.Counter(drawn).most_common(2)) == {"0101": 438, "1010": 433}
