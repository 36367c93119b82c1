"""The wire: whatever bytes come in, out comes a checked message or a refusal."""

from __future__ import annotations

import tracemalloc
from typing import Any, get_args

import msgpack
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warden import frames, orders, wire
from warden.model import (
    ERRORS,
    BadRequestError,
    BusyError,
    Calibration,
    Task,
    TaskStatus,
    UnavailableError,
    WardenError,
)

CALIBRATION = Calibration(id=1, time=2, measured={"rabi_error": 0.1}, log=("a scan",))
REQUESTS = [
    wire.Hello(credential="MUNGE:x:"),
    wire.GetAvailability(),
    wire.Acquire(job="7.1", uid=1001, host="node1"),
    wire.Release(session="s"),
    wire.Renew(
        host="node1", jobs=("1", "2"), suspended=("2",), candidate=True, interval=5, time=7, trouble=("no key",)
    ),
    wire.ListHosts(),
    wire.Part(upload="u", offset=5, data=b"\xff"),
    wire.TaskStart(session="s", sequence="{}", shots=100, key="k"),
    wire.GetTask(task=1, wait=5),
    wire.TaskStop(task=1),
    wire.GetBitstrings(task=1, first=2),
    wire.GetCalibrations(limit=3),
    wire.GetQuality(since=4, limit=5),
    wire.GetTarget(),
    wire.ListTasks(everybody=True, session="s", limit=3),
    wire.ListSessions(everybody=True, ended=True, job="7", limit=3),
    wire.GetPlan(count=3),
    wire.AddWindow(kind="maintenance", start=5, duration=6, reason="repair"),
    wire.MoveWindow(window=5, start=7, duration=8),
    wire.CancelWindow(window=5),
    wire.GetHistory(limit=7),
    wire.Resume(),
]
OTHERS = [
    (orders.WorkerHello(instance="i", device="{}", device_name="d", qubits=2, clock=0, token="t"), orders.FromWorker),
    (orders.WorkerBeat(instance="i", clock=1), orders.FromWorker),
    (orders.RunFinished(instance="i", token="t", shots=2, counts={"01": 2}, time=5), orders.FromWorker),
    (orders.SequenceChecked(instance="i", token="t", error="no"), orders.FromWorker),
    (
        orders.CalibrationFinished(instance="i", token="t", time=5, measured={"rabi_error": 0.1}, before=0.5),
        orders.FromWorker,
    ),
    (orders.Welcome(interval=5, calibration=CALIBRATION), orders.ToWorker),
    (orders.Unwelcome(text="no"), orders.ToWorker),
    (orders.BrokerBeat(), orders.ToWorker),
    (orders.StartRun(token="t", task=1, sequence="{}", first_shot=0, shots=1, issued=1, limit=None), orders.ToWorker),
    (orders.StopRun(token="t"), orders.ToWorker),
    (orders.ForgetRun(token="t"), orders.ToWorker),
    (orders.CheckSequence(token="t", sequence="{}"), orders.ToWorker),
    (
        orders.StartCalibration(token="t", number=2, at=1, calibration=CALIBRATION, issued=1, limit=5),
        orders.ToWorker,
    ),
]

anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def envelope(body: Any, **fields: Any) -> bytes:
    packed: bytes = msgpack.packb({"v": frames.VERSION, "id": 1, "body": body, **fields})
    return packed


def test_the_samples_are_all_requests_that_there_are() -> None:
    assert {type(request) for request in REQUESTS} == set(get_args(wire.Request))
    assert {type(body) for body, _ in OTHERS} == {*get_args(orders.FromWorker), *get_args(orders.ToWorker)}


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda r: type(r).__name__)
def test_a_request_survives_the_wire(request_: wire.Message) -> None:
    frame = frames.pack_request(42, request_)
    assert frames.unpack_request(frame) == request_
    assert frames.correlation_of(frame) == 42


@pytest.mark.parametrize(("body", "kind"), OTHERS, ids=lambda value: type(value).__name__)
def test_a_worker_s_message_survives_the_wire(body: wire.Message, kind: Any) -> None:
    assert frames.unpack(frames.pack(body), kind) == body


@given(st.binary())
def test_any_bytes_are_a_message_or_refused(frame: bytes) -> None:
    assert_checked(frame)


@given(anything)
def test_any_value_is_a_message_or_refused(value: Any) -> None:
    assert_checked(msgpack.packb(value))
    assert_checked(envelope(value))


@given(st.sampled_from(REQUESTS), st.data())
def test_a_damaged_request_is_a_message_or_refused(request_: wire.Message, data: st.DataObject) -> None:
    frame = bytearray(frames.pack_request(1, request_))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    assert_checked(bytes(frame[: data.draw(st.integers(0, len(frame)))]))
    assert_checked(bytes(frame))


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"\xdf\xff\xff\xff\xff",
        b"\xdd\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\x91" * 100_000,
        b"\x81\xa1v" * 10_000,
        b"\x81\x80\x01",
        b"\xc7\x0c\xff" + b"\xff" * 12,
        b"\x81\xa1v\xd6\xff\x00\x00\x00\x00",
    ],
)
def test_known_poison_is_refused(frame: bytes) -> None:
    with pytest.raises(BadRequestError):
        frames.unpack_request(frame)
    assert frames.correlation_of(frame) == 0


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        {"op": "no_such_thing"},
        {"op": "Acquire", "job": "1", "uid": 1},
        {"op": "task_stop"},
        {"op": "task_stop", "task": 1, "force": True},
        {"op": "task_stop", "task": "1"},
        {"op": "task_stop", "task": 1.5},
        {"op": "task_stop", "task": -1},
        {"op": "task_stop", "task": 2**63},
        {"op": "task_start", "session": "s", "sequence": "{}", "shots": 1.5, "key": "k"},
        {"op": "task_start", "session": "s", "sequence": "{}", "shots": True, "key": "k"},
        {"op": "task_start", "session": "s", "sequence": b"{}", "shots": 1, "key": "k"},
        {"op": "task_start", "session": "", "sequence": "{}", "shots": 1, "key": "k"},
        {"op": "task_start", "session": "s" * 65, "sequence": "{}", "shots": 1, "key": "k"},
        {"op": "acquire", "job": "1; rm -rf /", "uid": 1},
        {"op": "acquire", "job": "1\n", "uid": 1},
        {"op": "acquire", "job": "1", "uid": 2**32},
        {"op": "acquire", "job": "1", "uid": -1},
        {"op": "get_plan", "count": 0},
        {"op": "get_plan", "count": 10**6},
        {"op": "get_task", "task": 1, "wait": 10**9},
        {"op": "add_window", "kind": "offline"},
        {"op": "add_window", "kind": "maintenance", "duration": 0},
        {"op": "run_finished", "instance": "i", "token": "t", "shots": 0, "counts": {}, "time": 0},
    ],
)
def test_unknown_and_wrong_fields_are_refused(body: Any) -> None:
    with pytest.raises(BadRequestError, match="malformed message"):
        frames.unpack_request(envelope(body))


@pytest.mark.parametrize(
    "counts", [{"": 1}, {"02": 1}, {"01 ": 1}, {"01": -1}, {"01": 0.5}, {"0" * 100_001: 1}, {"01\n": 1}]
)
def test_counts_of_something_else_than_bitstrings_are_refused(counts: dict[str, Any]) -> None:
    body = {"op": "run_finished", "instance": "i", "token": "t", "shots": 1, "counts": counts, "time": 0}
    with pytest.raises(BadRequestError):
        frames.unpack(envelope(body), orders.FromWorker)


@pytest.mark.parametrize("version", [0, frames.VERSION + 1, 2**63])
def test_another_version_is_refused_by_name_and_may_be_asked_again_after_an_update(version: int) -> None:
    with pytest.raises(UnavailableError, match=f"version {version} .* speaks {frames.VERSION}") as caught:
        frames.unpack_request(envelope({"op": "resume"}, v=version))
    assert caught.value.transient


@pytest.mark.parametrize("version", [False, "1", None, 1.5, "x" * 1_000_000])
def test_what_has_no_version_is_no_message(version: Any) -> None:
    with pytest.raises(BadRequestError, match="not a message"):
        frames.unpack_request(envelope({"op": "resume"}, v=version))


@pytest.mark.parametrize("correlation", ["1", None, 1.5, True, [1]])
def test_an_id_that_is_no_number_counts_as_none(correlation: Any) -> None:
    assert frames.correlation_of(envelope({"op": "resume"}, id=correlation)) == 0


@pytest.mark.parametrize("kind", ERRORS.values(), ids=lambda k: k.code)
def test_a_refusal_arrives_as_the_error_that_it_was(kind: type[WardenError]) -> None:
    correlation, error = frames.unpack_answer(frames.pack_refusal(7, kind("this is why")))
    assert (correlation, type(error), error.text) == (7, kind, "this is why")


def test_an_error_of_a_newer_broker_is_an_error_still() -> None:
    frame = msgpack.packb({"v": frames.VERSION, "id": 7, "error": {"code": "of_tomorrow", "text": "why"}})
    _, error = frames.unpack_answer(frame)
    assert type(error) is WardenError
    assert error.text == "why"


@given(anything)
def test_any_answer_is_understood_or_unavailable(value: Any) -> None:
    for frame in (msgpack.packb(value), msgpack.packb({"v": frames.VERSION, "id": 1, "ok": value})):
        try:
            frames.unpack_answer(frame)
        except UnavailableError as error:
            assert "\n" not in error.text  # noqa: PT017


def test_a_result_arrives_however_many_bitstrings_it_has() -> None:
    counts = {f"{number:018b}": 1 for number in range(250_000)}
    task = Task(
        id=1,
        session="s",
        uid=1,
        shots=250_000,
        qubits=18,
        key="k",
        submitted=0,
        status=TaskStatus.COMPLETED,
        counts=counts,
    )
    _, answer = frames.unpack_answer(frames.pack_answer(1, task))
    assert frames.convert(answer, Task).counts == counts


@pytest.mark.parametrize(
    "lie", [b"\xdf\xff\xff\xff\xff", b"\xdd\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff", b"\xdd\x00\x10\x00\x00"]
)
def test_an_answer_that_says_to_be_larger_than_it_is_is_refused_before_room_is_made_for_it(lie: bytes) -> None:
    frame = b"\x83\xa1v" + msgpack.packb(frames.VERSION) + b"\xa2id\x01\xa2ok" + lie
    tracemalloc.start()
    try:
        with pytest.raises(UnavailableError, match="cannot be understood"):
            frames.unpack_answer(frame)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@given(st.binary())
def test_any_bytes_for_an_answer_are_understood_or_unavailable(frame: bytes) -> None:
    try:
        frames.unpack_answer(frame)
    except UnavailableError:
        return


@pytest.mark.parametrize("stuff", [b"\x80", b"\x90", b"\xc0", b"\xa0"])
def test_a_message_that_stands_for_a_million_objects_is_refused_before_they_are_made(stuff: bytes) -> None:
    block = b"\xdc\xff\xff" + 65_535 * stuff
    bodies = [b"\xdc\x00\x20" + 32 * block, b"\x82\xa2op\xa5renew\xa4jobs" + block]
    for body in bodies:
        frame = b"\x83\xa1v" + msgpack.packb(frames.VERSION) + b"\xa2id\x07\xa4body" + body
        tracemalloc.start()
        try:
            with pytest.raises(BadRequestError):
                frames.unpack_request(frame)
            assert frames.correlation_of(frame) == 7
            assert tracemalloc.get_traced_memory()[1] < len(frame) + 2**20
        finally:
            tracemalloc.stop()


def test_a_text_that_is_no_unicode_cannot_be_sent() -> None:
    with pytest.raises(BadRequestError, match="cannot be sent"):
        frames.pack_request(1, wire.TaskStart(session="s", sequence="\ud800", shots=1, key="k"))


def test_errors_say_whether_to_try_again() -> None:
    assert BusyError.transient
    assert not BadRequestError.transient


def assert_checked(frame: bytes) -> None:
    assert type(frames.correlation_of(frame)) is int
    for unpack in (frames.unpack_request, lambda f: frames.unpack(f, orders.FromWorker)):
        try:
            message = unpack(frame)
        except (BadRequestError, UnavailableError) as refusal:
            assert len(refusal.text) < 1000 + len(frame)  # noqa: PT017
        else:
            assert isinstance(message, wire.Message)


@pytest.mark.parametrize(
    "metadata", [{str(n): n for n in range(51)}, {"atom_order": ("q",) * 20_001}], ids=["facts", "atoms"]
)
def test_a_worker_tells_no_more_of_a_result_than_a_task_may_keep(metadata: dict[str, orders.Fact]) -> None:
    finished = orders.RunFinished(instance="i", token="t", shots=2, counts={"01": 2}, time=5)
    assert frames.unpack(frames.pack(finished), orders.FromWorker) == finished
    with pytest.raises(BadRequestError):
        frames.unpack(frames.pack(msgspec.structs.replace(finished, metadata=metadata)), orders.FromWorker)
