"""What is around a message on its way: msgpack, versioned, what comes in checked before anything is built of it.

A request is {"v": VERSION, "id": N, "body": {"op": NAME, ...}}; its answer carries the same id and "ok" with the result, or
"error" with a code and a text. Workers and the broker send each other bodies of the same shape, without answers.
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgpack
import msgspec

from warden.model import ERRORS, BadRequestError, UnavailableError, WardenError, learn
from warden.wire import Bearer, Message, Request

VERSION = 4

M = TypeVar("M")


def pack(body: Message) -> bytes:
    return _packb({"v": VERSION, "body": msgspec.to_builtins(body, builtin_types=(bytes,))})


def unpack(frame: bytes, kind: Any) -> Any:
    """Decode a worker's or the broker's message.

    Raises:
        BadRequestError: It is no message of this kind.
        UnavailableError: It is one of another version.
    """
    return _body(_envelope(frame), kind)


def pack_request(correlation: int, body: Message, bearer: Bearer | None = None) -> bytes:
    borne = {} if bearer is None else {"for": msgspec.to_builtins(bearer, builtin_types=(bytes,))}
    said = msgspec.to_builtins(body, builtin_types=(bytes,))
    return _packb({"v": VERSION, "id": correlation, **borne, "body": said})


def correlation_of(frame: bytes) -> int:
    """The id of a request, so that even one that cannot be understood gets an answer; 0 if there is none."""
    try:
        return _envelope(frame).id
    except BadRequestError:
        return 0


def bearer_of(frame: bytes) -> Bearer | None:
    """For whom a request is made, as whoever sends it says: only edges are believed."""
    return _envelope(frame).bearer


def unpack_request(frame: bytes) -> Message:
    request: Message = _body(_envelope(frame), Request)
    return request


def pack_answer(correlation: int, result: Any) -> bytes:
    return _packb({"v": VERSION, "id": correlation, "ok": msgspec.to_builtins(result, builtin_types=(bytes,))})


def pack_refusal(correlation: int, error: WardenError) -> bytes:
    return _packb({"v": VERSION, "id": correlation, "error": {"code": error.code, "text": error.text}})


class _Refusal(msgspec.Struct):
    code: str
    text: str


class _Answer(msgspec.Struct):
    v: int
    id: int
    ok: Any = msgspec.UNSET
    error: _Refusal | msgspec.UnsetType = msgspec.UNSET


learn(_Answer)


def unpack_answer(frame: bytes) -> tuple[int, Any]:
    """Decode an answer: its correlation and result, or its correlation and the error to raise.

    Raises:
        UnavailableError: Garbage: whoever answers is no broker that we understand.
    """
    try:
        answer = msgspec.convert(_unpackb(frame), _Answer)
    except (BadRequestError, msgspec.ValidationError):
        raise UnavailableError("Warden's answer cannot be understood: is it another version?") from None
    if answer.v != VERSION:
        raise UnavailableError(f"Warden speaks version {answer.v} of the protocol, this client {VERSION}: update it")
    if isinstance(answer.error, _Refusal):
        return answer.id, ERRORS.get(answer.error.code, WardenError)(answer.error.text)
    if answer.ok is msgspec.UNSET:
        raise UnavailableError("Warden's answer cannot be understood: is it another version?")
    return answer.id, answer.ok


def convert(value: Any, kind: type[M]) -> M:
    """Read a result as `kind`.

    Raises:
        UnavailableError: It has another shape.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise UnavailableError(f"Warden's answer cannot be understood ({error}): is it another version?") from None


def _packb(value: Any) -> bytes:
    try:
        packed: bytes = msgpack.packb(value)
    except (ValueError, OverflowError, UnicodeEncodeError) as error:
        raise BadRequestError(f"the request cannot be sent: {error}") from None
    return packed


def _unpackb(frame: bytes) -> dict[str, Any]:
    try:
        # What it says of its own lengths is believed as far as the frame reaches; a result may have very many parts.
        value = msgpack.unpackb(frame)
    except (ValueError, msgpack.UnpackException, RecursionError) as error:
        raise BadRequestError(f"not a message ({type(error).__name__})") from None
    if not isinstance(value, dict):
        raise BadRequestError("not a message (no map)")
    return value


class _Envelope(msgspec.Struct):
    """What is around a message. Its body stays bytes until it is known what it has to be."""

    v: int
    id: int = 0
    bearer: Bearer | None = msgspec.field(name="for", default=None)
    body: msgspec.Raw = msgspec.Raw(b"\xc0")


learn(_Envelope)


def _envelope(frame: bytes) -> _Envelope:
    # By its type: of what does not belong there nothing is built, and eight megabytes can stand for a gigabyte of objects.
    try:
        return msgspec.msgpack.decode(frame, type=_Envelope)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadRequestError(f"not a message ({error})") from None


def _body(envelope: _Envelope, kind: Any) -> Any:
    if envelope.v != VERSION:
        # Transient: while a cluster is updated, the old and the new meet, and no job shall fail by it.
        raise UnavailableError(
            f"version {envelope.v} of the protocol is not spoken here: this Warden speaks {VERSION}, update the older"
        )
    try:
        return msgspec.msgpack.decode(envelope.body, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadRequestError(f"malformed message: {error}") from None
