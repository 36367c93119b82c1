"""Pulser's own emulator behind two functions. Imported only where sequences are emulated: it costs seconds."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jsonschema
import numpy as np
import pulser
from pulser.backend import StateResult
from pulser.backend.abc import Backend
from pulser_simulation import QutipBackendV2, QutipConfig

from warden.qpu.process import Order, Specs

if TYPE_CHECKING:
    from warden.model import Micros
    from warden.wire import Fact

# Characters of an atom's name and of all together that are told with a result.
_NAME, _NAMES = 64, 16_384


def describe(name: str) -> Specs:
    """What Pulser knows of the device of this name."""
    device = _device(name)
    # A virtual device may have no largest register; the configuration's `qpu.qubits` bounds it then.
    return Specs(device.name, device.max_atom_num or 100_000, device.to_abstract_repr())


def check(device: str, sequence: str) -> Micros:
    """Have Pulser look at the sequence as it does before one is sent to a QPU.

    Raises:
        ValueError: Pulser finds that the device cannot run it; the text is Pulser's.
    """
    _sequence(device, sequence)
    return 0


def sample(order: Order) -> list[str]:
    """Draw the ordered shots: one bitstring each, 1 for the measured state, atoms in the register's order.

    Raises:
        ValueError: Pulser finds that the device cannot run the sequence; the text is Pulser's.
    """
    states, cumulated = _distribution(_sequence(order.device, order.sequence))
    draws: np.ndarray = np.random.default_rng([order.seed, order.task]).random(order.first_shot + order.shots)
    drawn: list[str] = np.array(states)[np.searchsorted(cumulated, draws[order.first_shot :], side="right")].tolist()
    return drawn


def facts(order: Order) -> dict[str, Fact]:
    """The fields of Pulser's Results. Names that nobody could want to read are left out: a user chose them."""
    sequence = _sequence(order.device, order.sequence)
    duration: dict[str, Fact] = {"total_duration": int(sequence.get_duration())}
    names = tuple(map(str, sequence.register.qubit_ids))
    legible = all(name.isprintable() and len(name) <= _NAME for name in names)
    return {"atom_order": names, **duration} if legible and len("".join(names)) <= _NAMES else duration


@functools.lru_cache(maxsize=1)
def _sequence(name: str, text: str) -> pulser.Sequence:
    """The sequence, for our device of this name."""
    device = _device(name)
    try:
        sequence = pulser.Sequence.from_abstract_repr(text)
        if sequence.device != device:
            # Whatever limits the user's copy of the device has, ours count.
            sequence = sequence.with_new_device(device, strict=True)
        # Virtual devices have no layouts: Pulser sends nothing to them.
        Backend.validate_sequence(sequence, mimic_qpu=isinstance(device, pulser.devices.Device))
    except Exception as error:
        # Pulser's kinds of errors differ from version to version, and a user's sequence may hit any of them.
        raise ValueError(f"Pulser refuses the sequence: {_reason(error)}") from error
    return sequence


def _reason(error: Exception) -> str:
    """Pulser's own words; not a schema's, which begin with the whole sequence and seldom come to the point."""
    if isinstance(error, jsonschema.ValidationError):
        return "it does not follow Pulser's schema: write it with Sequence.to_abstract_repr()"
    # What "incompatible with the new device" comes from is told by the error behind it.
    return str(error) if error.__cause__ is None else f"{str(error).rstrip('.')}: {error.__cause__}"


def _distribution(sequence: pulser.Sequence) -> tuple[list[str], np.ndarray]:
    """Bitstrings that occur in the final state, and their cumulated probabilities."""
    config = QutipConfig(observables=[StateResult(evaluation_times=[1.0])])
    state = QutipBackendV2(sequence, config=config).run().final_state
    one = state.infer_one_state()
    probabilities = state.probabilities(cutoff=0.0)
    bitstrings = sorted(probabilities)
    cumulated: np.ndarray = np.cumsum([probabilities[bits] for bits in bitstrings])
    states = ["".join("1" if level == one else "0" for level in bits) for bits in bitstrings]
    # Rounding must not leave a draw above the last step.
    return states, cumulated[:-1] / cumulated[-1]


def _device(name: str) -> pulser.devices.Device:
    device = getattr(pulser.devices, name, None)
    if not isinstance(device, pulser.devices._device_datacls.BaseDevice):  # noqa: SLF001 - Pulser has no public base
        raise ValueError(f"Pulser has no device {name!r}: set qpu.device to one of pulser.devices")  # noqa: TRY004
    return device
