"""Every message that its declaration allows survives the wire, and one step beyond a bound is refused."""

from __future__ import annotations

from typing import Any, get_args

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from warden import frames, orders, wire
from warden.model import BadRequestError

REQUESTS, FROM_WORKER, TO_WORKER = (get_args(kind) for kind in (wire.Request, orders.FromWorker, orders.ToWorker))
EVERY = [
    *((message, wire.Request) for message in REQUESTS),
    *((message, orders.FromWorker) for message in FROM_WORKER),
    *((message, orders.ToWorker) for message in TO_WORKER),
]
# What msgpack can carry.
LEAST, MOST = -(2**63), 2**64 - 1


def values(kind: Any) -> st.SearchStrategy[Any]:  # noqa: C901, PLR0911 - a table of types
    """All values that a field's declaration allows."""
    match kind:
        case msgspec.inspect.IntType(ge=ge, gt=gt, le=le, lt=lt):
            least = ge if ge is not None else LEAST if gt is None else gt + 1
            most = le if le is not None else MOST if lt is None else lt - 1
            return st.integers(least, most)
        case msgspec.inspect.StrType(pattern=str(pattern), min_length=least, max_length=most):
            made = st.from_regex(pattern)
            return made.filter(lambda text: (least or 0) <= len(text) <= (most or len(text)))
        case msgspec.inspect.StrType(min_length=least, max_length=most):
            return st.text(st.characters(exclude_categories=["Cs"]), min_size=least or 0, max_size=min(most or 40, 40))
        case msgspec.inspect.FloatType(ge=ge, le=le):
            return st.floats(ge, le, allow_nan=False, allow_infinity=False)
        case msgspec.inspect.StructType(cls=cls, fields=declared):
            return st.builds(cls, **{field.name: values(field.type) for field in declared})
        case msgspec.inspect.BytesType():
            return st.binary(max_size=40)
        case msgspec.inspect.BoolType():
            return st.booleans()
        case msgspec.inspect.NoneType():
            return st.none()
        case msgspec.inspect.UnionType(types=types):
            return st.one_of([values(one) for one in types])
        case msgspec.inspect.LiteralType(values=allowed):
            return st.sampled_from(allowed)
        case msgspec.inspect.VarTupleType(item_type=item):
            return st.lists(values(item), max_size=4).map(tuple)
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return st.dictionaries(values(key), values(value), max_size=4)
    raise NotImplementedError(kind)


def fields(message: type[wire.Message]) -> list[Any]:
    declared = msgspec.inspect.type_info(message)
    assert isinstance(declared, msgspec.inspect.StructType)
    return list(declared.fields)


def instances(message: type[wire.Message]) -> st.SearchStrategy[wire.Message]:
    return st.builds(message, **{field.name: values(field.type) for field in fields(message)})


@pytest.mark.parametrize(("message", "kind"), EVERY, ids=lambda value: getattr(value, "__name__", ""))
@settings(max_examples=40)
@given(data=st.data(), correlation=st.integers(0, MOST))
def test_every_message_that_may_be_said_arrives_as_it_was_said(
    message: type[wire.Message], kind: Any, data: st.DataObject, correlation: int
) -> None:
    said = data.draw(instances(message))
    assert frames.unpack(frames.pack(said), kind) == said
    if message in REQUESTS:
        frame = frames.pack_request(correlation, said)
        assert (frames.correlation_of(frame), frames.unpack_request(frame)) == (correlation, said)


def beyond(kind: Any) -> list[Any]:  # noqa: PLR0911 - a table of types
    """Values that are just not allowed."""
    match kind:
        case msgspec.inspect.IntType(ge=ge, gt=gt, le=le, lt=lt):
            found = [ge - 1 if ge is not None else gt, le + 1 if le is not None else lt]
            return [value for value in found if value is not None and LEAST <= value <= MOST]
        case msgspec.inspect.FloatType(ge=ge, le=le):
            return [
                value for value in (None if ge is None else ge - 1, None if le is None else le + 1) if value is not None
            ]
        case msgspec.inspect.StrType(min_length=least, max_length=most):
            return ["0" * length for length in ((least or 0) - 1, (most or -2) + 1) if length >= 0]
        case msgspec.inspect.BytesType(max_length=int(most)):
            return [b"0" * (most + 1)]
        case msgspec.inspect.VarTupleType(item_type=item):
            return [[value] for value in beyond(item)]
        case msgspec.inspect.DictType(key_type=key, value_type=value):
            return [*({one: 1} for one in beyond(key)), *({"0": one} for one in beyond(value))]
        case msgspec.inspect.UnionType(types=types):
            return [value for one in types for value in beyond(one)]
    return []


EDGES = [
    pytest.param(message, kind, field.name, value, id=f"{message.__name__}.{field.name}-{number}")
    for message, kind in EVERY
    for field in fields(message)
    for number, value in enumerate(beyond(field.type))
]


@pytest.mark.parametrize(("message", "kind", "name", "value"), EDGES)
@settings(max_examples=3)
@given(data=st.data())
def test_one_step_beyond_a_bound_is_refused(
    message: type[wire.Message], kind: Any, name: str, value: Any, data: st.DataObject
) -> None:
    body = {**msgspec.to_builtins(data.draw(instances(message)), builtin_types=(bytes,)), name: value}
    with pytest.raises(BadRequestError, match="malformed message"):
        frames.unpack(msgpack.packb({"v": frames.VERSION, "body": body}), kind)
