"""What a broker sees of a sequence at the door."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from warden.model import BadRequestError
from warden.sequence import inspect

SAMPLE = (Path(__file__).parent.parent / "samples" / "sequences" / "afm_square.json").read_text(encoding="utf-8")


def changed(**fields: Any) -> str:
    return json.dumps({**json.loads(SAMPLE), **fields})


def test_a_real_sequence_shows_its_atoms() -> None:
    assert inspect(SAMPLE, device="AnalogDevice", qubits=4) == 4
    assert inspect(SAMPLE, device=None, qubits=None) == 4


def test_what_pulser_writes_today_is_understood() -> None:
    pulser = pytest.importorskip("pulser")
    register = pulser.Register({f"atom{i}": (6.0 * i, 0.0) for i in range(3)})
    sequence = pulser.Sequence(register, pulser.AnalogDevice)
    sequence.declare_channel("ryd", "rydberg_global")
    sequence.add(pulser.Pulse.ConstantPulse(400, 1.0, 0.0, 0.0), "ryd")
    assert inspect(sequence.to_abstract_repr(), device="AnalogDevice", qubits=3) == 3


def test_a_sequence_with_open_variables_has_to_be_built_first() -> None:
    pulser = pytest.importorskip("pulser")
    sequence = pulser.Sequence(pulser.Register({"q0": (0.0, 0.0)}), pulser.AnalogDevice)
    sequence.declare_channel("ryd", "rydberg_global")
    amplitude = sequence.declare_variable("amplitude")
    sequence.add(pulser.Pulse.ConstantPulse(400, amplitude, 0.0, 0.0), "ryd")
    with pytest.raises(BadRequestError, match=r"\(amplitude\): call Sequence.build\(\)"):
        inspect(sequence.to_abstract_repr(), device=None, qubits=None)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not JSON"),
        ("hello", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "no Pulser sequence"),
        ('{"operations": ' + "[" * 100_000, "not JSON"),
        ("null", "no Pulser sequence"),
        ("[]", "no Pulser sequence"),
        ("{}", "no Pulser sequence"),
        ('{"register": 3, "operations": [], "device": {"name": "x"}}', "no Pulser sequence"),
        (changed(register=[]), "no atoms"),
        (changed(device="AnalogDevice"), "no Pulser sequence"),
        (changed(device={"name": "MockDevice"}), "for the device 'MockDevice', this QPU is 'AnalogDevice'"),
        (changed(register=[{"name": f"q{i}"} for i in range(15)]), "15 atoms, this QPU takes at most 14"),
        (changed(device={"name": "x" * 10**6}), "for the device"),
        (changed(variables={"y\n" * 10**5: {}, "z": {}}), "variables"),
    ],
)
def test_what_is_no_sequence_for_this_qpu_is_refused_in_one_short_line(text: str, complaint: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        inspect(text, device="AnalogDevice", qubits=14)
    assert complaint in caught.value.text
    assert len(caught.value.text) < 500
    assert "\n" not in caught.value.text


@given(st.text())
def test_any_text_is_a_sequence_or_refused(text: str) -> None:
    with pytest.raises(BadRequestError):
        inspect(text, device=None, qubits=None)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(["register", "operations", "device", "variables"]), json_values)
def test_a_damaged_sequence_is_understood_or_refused(field: str, value: Any) -> None:
    try:
        assert inspect(changed(**{field: value}), device=None, qubits=None) > 0
    except BadRequestError as refusal:
        assert refusal.text  # noqa: PT017
