"""A first look at a Pulser sequence, without Pulser: enough to refuse what is none before it is queued. Pure.

Pulser itself takes seconds to import and much longer than a message to check a sequence, so the broker looks only at
the shape of Pulser's abstract representation; the worker lets Pulser check the rest before a shot is taken.
"""

from __future__ import annotations

from typing import Any

import msgspec

from warden.model import BadRequestError


class _Atom(msgspec.Struct):
    name: str | int


class _Device(msgspec.Struct):
    name: str


class _Named(msgspec.Struct):
    register: list[_Atom]
    # Left as text: Pulser looks at them, and they may be millions.
    operations: msgspec.Raw
    device: _Device
    variables: dict[str, Any] = {}


def inspect(text: str, *, device: str | None, qubits: int | None) -> int:
    """Return the number of atoms of a sequence in Pulser's abstract representation (a JSON string).

    `device` is the name of the QPU's device and `qubits` its largest register, None where they are not known yet.

    Raises:
        BadRequestError: It is no JSON, no sequence, parametrized, for another device, or too large for this one.
    """
    if not text.strip():
        raise BadRequestError("this is not JSON (it is empty): write it with Sequence.to_abstract_repr()")
    try:
        sequence = msgspec.json.decode(text, type=_Named)
    except msgspec.ValidationError as error:
        raise BadRequestError(
            f"this is JSON, but no Pulser sequence ({error}): write it with Sequence.to_abstract_repr()"
        ) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadRequestError(f"this is not JSON ({error}): write it with Sequence.to_abstract_repr()") from None
    if not bytes(sequence.operations).startswith(b"["):
        raise BadRequestError(
            "this is JSON, but no Pulser sequence (its operations are no list): write it with Sequence.to_abstract_repr()"
        )
    if sequence.variables:
        names = _short(", ".join(sorted(sequence.variables)[:5]))
        raise BadRequestError(f"the sequence has variables without values ({names}): call Sequence.build() first")
    atoms = len(sequence.register)
    if atoms == 0:
        raise BadRequestError("the sequence has no atoms: give it a Register")
    if device is not None and sequence.device.name != device:
        raise BadRequestError(
            f"the sequence is for the device {_short(sequence.device.name)!r}, this QPU is {device!r}: "
            "use Sequence.with_new_device(), or ask for another QPU"
        )
    if qubits is not None and atoms > qubits:
        raise BadRequestError(f"the sequence has {atoms} atoms, this QPU takes at most {qubits}")
    return atoms


def _short(text: str) -> str:
    """The beginning of a text that others chose, in one line: it goes into messages and logs."""
    return " ".join(text[:100].split())
