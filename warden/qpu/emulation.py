"""What all emulators of Pulser's sequences share: the device, the check, the noise. It costs a second to import."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
from typing import TYPE_CHECKING, NamedTuple

import jsonschema
import numpy as np
import pulser
from pulser._hamiltonian_data import HamiltonianData
from pulser.backend.abc import Backend
from pulser.json.abstract_repr.deserializer import deserialize_device
from pulser.math import AbstractArray
from pulser.sampler import sample

from warden.model import one_line
from warden.qpu import allowance
from warden.qpu.costs import LARGEST_MATRIX, TRAJECTORIES, Size, human
from warden.qpu.physics import Specs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pulser._hamiltonian_data import NoiseTrajectory
    from pulser.sampler import SequenceSamples

    from warden.orders import Fact
    from warden.qpu.noise import Noise
    from warden.qpu.physics import Order

# Characters of an atom's name and of all together that are told with a result.
_NAME, _NAMES = 64, 16_384
# Light is rough whose fourth differences, from one ns to the next, are so large, rad/us: a solver's steps, which follow curves
# of a high order, are short there. Whatever it does for so many ns counts as one jump.
_ROUGH, _STRETCH = 0.1, 12
# What is spread is in few trajectories farther out than so many standard deviations.
_OUTERMOST = 3
_MEASURED_AS_ONE = {"ground-rydberg": "r", "digital": "h", "XY": "d"}


class Trajectory(NamedTuple):
    """The samples of a sequence with the noise of some shots, what else that noise is, and their share of all shots.

    `noise` has the atoms that are not there: the samples show that nothing drives them, and not that nothing feels them.
    """

    samples: SequenceSamples
    noise: NoiseTrajectory
    weight: float


def describe(text: str) -> Specs:
    """What the device is."""
    found = device(text)
    # A virtual device may have no largest register; the configuration's `qpu.qubits` bounds it then.
    return Specs(found.name, found.max_atom_num or 100_000, found.to_abstract_repr())


@functools.cache
def device(text: str) -> pulser.devices.Device:
    """The device of this name of Pulser's, or of this JSON.

    Raises:
        ValueError: There is none.
    """
    if text.startswith("{"):
        try:
            return deserialize_device(text)
        except Exception as error:
            raise ValueError(f"Pulser cannot read the file of qpu.device: {_flaw(error)[:300]}") from error
    found = getattr(pulser.devices, text, None)
    if not isinstance(found, pulser.devices._device_datacls.BaseDevice):  # noqa: SLF001 - Pulser has no public base
        raise ValueError(  # noqa: TRY004 - it is a value of the configuration
            f"there is no device {text!r}: set qpu.device to FresnelLike, to one of pulser.devices, or to the absolute "
            "path of a file with a device's JSON"
        )
    return found


def _flaw(error: BaseException) -> str:
    """What is wrong with a device, to the point: what is behind it all, and of a schema what comes nearest."""
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, jsonschema.ValidationError):
        # Devices and virtual ones have schemas of their own, which tell each other by a constant.
        of_its_kind = [flaw for flaw in error.context or [] if flaw.validator != "const"]
        nearest = jsonschema.exceptions.best_match(of_its_kind or [error])
        return f"{one_line(nearest.message)} ({nearest.json_path})"
    return one_line(str(error)) or type(error).__name__


def facts(order: Order) -> dict[str, Fact]:
    """The fields of Pulser's Results. Names that nobody could want to read are left out: a user chose them."""
    sequence = read(order.device, order.sequence)
    duration: dict[str, Fact] = {"total_duration": int(sequence.get_duration())}
    names = tuple(map(str, sequence.register.qubit_ids))
    legible = all(name.isprintable() and len(name) <= _NAME for name in names)
    return {"atom_order": names, **duration} if legible and len("".join(names)) <= _NAMES else duration


@functools.lru_cache(maxsize=1)
def read(device_: str, text: str) -> pulser.Sequence:
    """The sequence, as this device runs it.

    Raises:
        ValueError: The device cannot run it; the text is Pulser's.
    """
    ours = device(device_)
    try:
        sequence = pulser.Sequence.from_abstract_repr(text)
        if sequence.device != ours:
            # Whatever limits the user's copy of the device has, ours count.
            sequence = sequence.with_new_device(ours, strict=True)
        sequence.register  # noqa: B018 - it raises where the sequence has none yet
        # Virtual devices have no layouts: Pulser sends nothing to them.
        Backend.validate_sequence(sequence, mimic_qpu=isinstance(ours, pulser.devices.Device))
        samples_of(sequence)
    except MemoryError:
        # Not a word of Pulser's.
        raise
    except Exception as error:
        # Pulser's kinds of errors differ from version to version, and a user's sequence may hit any of them.
        raise ValueError(f"Pulser refuses the sequence: {_reason(error)}") from error
    return sequence


def _reason(error: Exception) -> str:
    """Pulser's own words; not a schema's, which begin with the whole sequence and seldom come to the point."""
    if isinstance(error, jsonschema.ValidationError):
        return "it does not follow Pulser's schema: write it with Sequence.to_abstract_repr()"
    # What "incompatible with the new device" comes from is told by the error behind it.
    said = str(error) if error.__cause__ is None else f"{str(error).rstrip('.')}: {error.__cause__}"
    return one_line(said) or type(error).__name__


def samples_of(sequence: pulser.Sequence) -> SequenceSamples:
    samples = sample(sequence)
    if samples.max_duration == 0:
        raise ValueError("it has no pulse and no delay")
    return samples


def afford(bytes_: int) -> None:
    """Refuse what takes more memory than there is, before it runs.

    Raises:
        ValueError: It does.
    """
    if bytes_ > allowance.memory():
        raise ValueError(
            f"the emulation would take {human(bytes_)} of memory, and {allowance.reason()}: use fewer atoms"
        )


def size(sequence: pulser.Sequence, noise: Noise, largest_matrix: int = LARGEST_MATRIX) -> Size:
    """What the costs of its emulation follow from."""
    samples = samples_of(sequence)
    qubits = len(sequence.register.qubit_ids)
    fluctuates = noise.state_prep_error > 0 or _shot_noise(sequence, noise)
    jumps = noise.dephasing_rate > 0 and qubits > largest_matrix
    levels = max(2, len(samples.eigenbasis))
    off = abs(noise.detuning_error) + _OUTERMOST * noise.detuning_sigma
    return Size(
        qubits=qubits,
        levels=levels,
        duration=samples.max_duration,
        energy=_energy(sequence, samples) + qubits * off,
        edges=_edges(samples),
        exchange=_in_xy(sequence),
        trajectories=TRAJECTORIES if fluctuates or jumps else 1,
        matrix=noise.dephasing_rate > 0 and not jumps,
        jumps=noise.dephasing_rate * qubits * (levels - 1) * samples.max_duration / 1000 if jumps else 0.0,
    )


def _edges(samples: SequenceSamples) -> int:
    """In how many stretches of the sequence the light is rough: amplitude, detuning or phase, of whatever channel."""
    jumps: set[int] = set()
    for channel in samples.samples_list:
        light = _array(channel.amp) * np.exp(1j * _array(channel.phase))
        for values in (light, _array(channel.det)):
            # It is not there before it begins, nor after its end.
            bends = np.abs(np.diff(np.pad(values, 2), 4))
            jumps.update(np.flatnonzero(bends > _ROUGH) // _STRETCH)
        # Each atom sees the light of a channel that goes from one to the next come and go.
        hops = [slot.ti for last, slot in itertools.pairwise(channel.slots) if slot.targets != last.targets]
        jumps.update(hop // _STRETCH for hop in hops)
    return len(jumps)


def _energy(sequence: pulser.Sequence, samples: SequenceSamples) -> float:
    """How far apart the levels of all atoms may be, rad/us."""
    places = np.array([_array(place) for place in sequence.register.qubits.values()])
    squares = ((places[:, None] - places[None]) ** 2).sum(axis=2)[np.triu_indices(len(places), 1)]
    # Atoms feel each other in Rydberg states only.
    pairs = 0.0 if samples.used_bases == {"digital"} else float((sequence.device.interaction_coeff / squares**3).sum())
    if _in_xy(sequence):
        # By twice its strength an exchange of two atoms' states moves their levels apart, and along the field it is twice as strong.
        pairs += 4 * float(((sequence.device.interaction_coeff_xy or 0.0) / squares**1.5).sum())
    pulses = sum(
        np.abs(_array(channel.amp)).max(initial=0) + np.abs(_array(channel.det)).max(initial=0)
        for channel in samples.samples_list
    )
    return pairs + len(places) * float(pulses)


def noise_model(sequence: pulser.Sequence, noise: Noise) -> pulser.NoiseModel:
    """Pulser's words for what differs from shot to shot; detection errors are left to the shots.

    In XY, where Pulser lets neither amplitude nor detuning nor atoms fluctuate, they do not.
    """
    names = ("state_prep_error",) if _in_xy(sequence) else ("state_prep_error", *_SHOT_NOISE)
    return pulser.NoiseModel(**{name: getattr(noise, name) for name in names if getattr(noise, name)})


def dephasing(sequence: pulser.Sequence, noise: Noise) -> pulser.NoiseModel:
    """Pulser's words for what is left: it is in the equation that is solved, and in no trajectory's samples."""
    if not noise.dephasing_rate:
        return pulser.NoiseModel()
    digital = any(channel.basis == "digital" for channel in sequence.declared_channels.values())
    rates = {"hyperfine_dephasing_rate": noise.dephasing_rate} if digital else {}
    return pulser.NoiseModel(dephasing_rate=noise.dephasing_rate, **rates)


_SHOT_NOISE = ("amp_sigma", "detuning_sigma", "temperature")


def _in_xy(sequence: pulser.Sequence) -> bool:
    return any(channel.basis == "XY" for channel in sequence.declared_channels.values())


def _shot_noise(sequence: pulser.Sequence, noise: Noise) -> bool:
    return not _in_xy(sequence) and any(getattr(noise, name) for name in _SHOT_NOISE)


def trajectories(sequence: pulser.Sequence, noise: Noise, wanted: Size) -> Iterator[Trajectory]:
    """The sequence as some shots have it; once, where all have the same. Dephasing comes with the solver."""
    data = HamiltonianData(
        samples_of(sequence), sequence.register, sequence.device, noise_model(sequence, noise), wanted.trajectories
    )
    systematic = bool(noise.rabi_error or noise.detuning_error)
    # Pulser then writes down each atom's samples, for the whole sequence: delays, too, have an error of the detuning.
    data.local_noises = data.local_noises or systematic
    for lot, samples, times in data.noisy_samples:
        shifted = _shifted(samples, noise, data.samples.used_bases) if data.local_noises else samples
        # The same samples have other quantum jumps each time.
        repeats = times if wanted.jumps else 1
        for _ in range(repeats):
            yield Trajectory(shifted, lot, times / repeats / wanted.trajectories)


def _shifted(samples: SequenceSamples, noise: Noise, used: set[str]) -> SequenceSamples:
    """With the errors that all shots share: amplitudes scaled, detunings moved.

    Lasers of the Raman transition differ by a radio frequency, which does not drift. Pulser counts all energies from its
    lower level, so an error there would move the Rydberg transition too.
    """
    moved = {"ground-rydberg", "XY"} & used
    return dataclasses.replace(
        samples,
        samples_list=[
            dataclasses.replace(
                channel,
                amp=AbstractArray(_array(channel.amp) * (1 + noise.rabi_error)),
                det=AbstractArray(_array(channel.det) + noise.detuning_error * (driver.basis in moved)),
                phase=AbstractArray(_array(channel.phase)),
            )
            for driver, channel in zip(samples._ch_objs.values(), samples.samples_list, strict=True)  # noqa: SLF001
        ],
    )


def _array(samples: AbstractArray | np.ndarray) -> np.ndarray:
    """Pulser's noisy samples are arrays, and those without noise have a type of their own."""
    array: np.ndarray = samples.as_array(detach=True) if isinstance(samples, AbstractArray) else np.asarray(samples)
    return array


def seed(digest: bytes) -> int:
    """Let everything random in this process follow from the order; returns 32 bits for what else there is."""
    number = int.from_bytes(digest[:4], "little")
    random.seed(digest)
    np.random.seed(number)  # noqa: NPY002 - it is what Pulser's noise is drawn with
    return number


def measured(sequence: pulser.Sequence, eigenstates: tuple[str, ...], probabilities: np.ndarray) -> np.ndarray:
    """Of the probabilities of all states, first level first, those of all bitstrings."""
    one = _measured_as_one(sequence, eigenstates)
    levels, qubits = len(eigenstates), len(sequence.register.qubit_ids)
    found = probabilities.reshape((levels,) * qubits)
    for atom in range(qubits):
        other = [level for level in range(levels) if eigenstates[level] != one]
        zero: np.ndarray = found.take(other, axis=atom).sum(axis=atom, keepdims=True)
        rest = found.take([eigenstates.index(one)], axis=atom) if one in eigenstates else np.zeros_like(zero)
        found = np.concatenate([zero, rest], axis=atom)
    flat: np.ndarray = found.ravel()
    return flat


def _measured_as_one(sequence: pulser.Sequence, eigenstates: tuple[str, ...]) -> str:
    if sequence.is_measured():
        return _MEASURED_AS_ONE[sequence.get_measurement_basis()]
    # As Pulser has it: what is driven in both bases is measured in the digital one.
    return next(one for one in ("h", "r", "d") if one in eigenstates)
