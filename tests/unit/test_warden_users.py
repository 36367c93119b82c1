"""A standing broker with a real worker: what users, other users and strangers with bad manners get."""

from __future__ import annotations

import json
import os
import random
import sys
from typing import TYPE_CHECKING, Any

import pytest
import zmq
from msgspec.structs import replace
from warden_site import AFM, NOBODY, SESSION, as_user, wait_until

from warden import frames, keyring, trust, wire
from warden.client import Client, QuantumResource
from warden.model import (
    SECOND,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    LimitError,
    NotFoundError,
    State,
    TaskCancelledError,
    TaskStatus,
    WaitTimeoutError,
    WardenError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from warden_site import Site

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")


@pytest.fixture
def qpu(standing_site: Site) -> Iterator[QuantumResource]:
    with standing_site.resource() as resource:
        yield resource


def runs(site: Site) -> int:
    return site.log_of(site.worker).count("INFO run") // 2


# --- QRMI's names ---


def test_the_afm_sequence_ends_in_the_ordered_states_and_the_names_are_qrmi_s(qpu: QuantumResource) -> None:
    assert qpu.is_accessible()
    assert qpu.status() is State.READY
    task = qpu.task_start(AFM, 400)
    counts = qpu.wait(task, 30)
    assert sum(counts.values()) == 400
    assert counts.get("0101", 0) + counts.get("1010", 0) > 300
    assert qpu.task_status(task) is TaskStatus.COMPLETED
    assert qpu.task_result(task) == counts
    assert "queued: 400 shots on 4 qubits" in qpu.task_logs(task)
    qpu.task_stop(task)
    assert qpu.task_status(task) is TaskStatus.COMPLETED


def test_the_target_is_a_device_that_pulser_reads(qpu: QuantumResource) -> None:
    abstract_repr = pytest.importorskip("pulser.json.abstract_repr.deserializer")
    assert abstract_repr.deserialize_device(qpu.target()).name == "AnalogDevice"
    assert qpu.metadata() == {"name": "fresnel", "type": "pasqal-local", "max_qubits": "8"}


def test_a_pulser_sequence_is_taken_as_it_is(qpu: QuantumResource) -> None:
    pulser = pytest.importorskip("pulser")
    sequence = pulser.Sequence.from_abstract_repr(AFM)
    assert sum(qpu.wait(qpu.task_start(sequence, 10), 30).values()) == 10


def test_a_result_before_its_time_is_a_conflict_and_waiting_has_an_end(
    standing_site: Site, qpu: QuantumResource
) -> None:
    with blocked(standing_site):
        task = qpu.task_start(AFM, 10)
        with pytest.raises(ConflictError, match="is queued: it has no result yet"):
            qpu.task_result(task)
        with pytest.raises(WaitTimeoutError, match=r"is still queued after 0\.2 s"):
            qpu.wait(task, 0.2)
        qpu.task_stop(task)
        with pytest.raises(TaskCancelledError, match="stopped by its user"):
            qpu.wait(task, 30)


def test_in_a_job_nothing_needs_to_be_said(standing_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDEN_CONFIG", str(standing_site.file))
    monkeypatch.setenv("WARDEN_SESSION", SESSION)
    monkeypatch.setenv("QRMI_JOB_ID", "1")
    with QuantumResource() as resource:
        assert resource.acquire() == SESSION
        assert sum(resource.wait(resource.task_start(AFM, 5), 30).values()) == 5


def test_outside_a_job_one_is_told_how_to_get_one(standing_site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WARDEN_CONFIG", str(standing_site.file))
    for name in ("WARDEN_SESSION", "QRMI_JOB_ID"):
        monkeypatch.delenv(name, raising=False)
    with QuantumResource() as resource:
        for attempt in (resource.acquire, resource.release, lambda: resource.task_start(AFM, 5)):
            with pytest.raises(ForbiddenError, match="qsub -l qpu=1"):
                attempt()


@needs_root
def test_a_session_is_acquired_by_the_scheduler_and_ends_with_its_release(standing_site: Site) -> None:
    with standing_site.client() as root:
        session = root.acquire(job="77", uid=os.getuid(), host="node1")
        many = ("77", *(f"1.{n}" for n in range(1, 2500)))
        renewed = root.renew(host="node1", jobs=many, suspended={"77"}, candidate=True, version="1", trouble=("none",))
        assert renewed.sessions == 1
        assert next(one for one in root.sessions(everybody=True) if one.job == "77").suspended == "node1"
        [host] = [one for one in root.hosts() if one.host == "node1"]
        assert (host.host, host.version, host.trouble, host.reporter) == ("node1", "1", ("none",), True)
        assert abs(host.ahead) < 60 * SECOND
        with standing_site.resource(session.id) as resource:
            resource.release()
            with pytest.raises(ForbiddenError, match="the session has ended: released"):
                resource.task_start(AFM, 5)
        assert session.id in {s.id for s in root.sessions(everybody=True, ended=True)}


# --- bad input ---


def sequence(**changes: Any) -> str:
    return json.dumps({**json.loads(AFM), **changes})


BAD = {
    "missing text": ("", "not JSON"),
    "not JSON": ("{]", "not JSON"),
    "not a sequence": ('{"a": 1}', "no Pulser sequence"),
    "another device": (sequence(device={"name": "DigitalAnalogDevice"}), "this QPU is 'AnalogDevice'"),
    "no unicode": ("\ud800", "cannot be sent"),
    "too many atoms": (sequence(register=[{"name": f"q{i}", "x": 6.0 * i, "y": 0.0} for i in range(9)]), "at most 8"),
    "too large": (AFM + " " * 9 * 2**20, "larger than 8388608 bytes"),
}


@pytest.mark.parametrize("text", BAD)
def test_a_bad_sequence_is_one_line_and_reaches_no_qpu(standing_site: Site, qpu: QuantumResource, text: str) -> None:
    before = runs(standing_site)
    with pytest.raises((BadRequestError, LimitError)) as caught:
        qpu.task_start(BAD[text][0], 10)
    assert_line(caught.value, BAD[text][1])
    assert_untouched(standing_site, qpu, before)


@pytest.mark.parametrize("shots", [0, -1, 1.5, 10**9, 10**30, True, None, "10", float("nan"), [1]])
def test_bad_shots_are_one_line_and_reach_no_qpu(standing_site: Site, qpu: QuantumResource, shots: Any) -> None:
    before = runs(standing_site)
    with pytest.raises(BadRequestError) as caught:
        qpu.task_start(AFM, shots)
    assert_line(caught.value, "shots must be")
    assert_untouched(standing_site, qpu, before)


@pytest.mark.parametrize("changes", [{"operations": [{"op": "explode"}]}, {"channels": {}}, {"version": "99"}])
def test_what_only_pulser_can_refuse_is_refused_alone(
    standing_site: Site, qpu: QuantumResource, changes: dict[str, Any]
) -> None:
    before = runs(standing_site)
    good = qpu.task_start(AFM, 10)
    with pytest.raises(BadRequestError) as caught:
        qpu.task_start(sequence(**changes), 10)
    assert_line(caught.value, "Pulser refuses the sequence: ")
    assert sum(qpu.wait(good, 30).values()) == 10
    assert runs(standing_site) == before + 1


@pytest.mark.parametrize("number", ["", "x", "-1", "1.5", "0x1", "\uff19", "1" * 40, "1\n"])
def test_a_task_that_is_no_number_is_one_line(qpu: QuantumResource, number: str) -> None:
    with pytest.raises(WardenError) as caught:
        qpu.task_status(number)
    assert_line(caught.value, "is no task")


def test_whole_numbers_of_numpy_are_shots(qpu: QuantumResource) -> None:
    numpy = pytest.importorskip("numpy")
    assert sum(qpu.wait(qpu.task_start(AFM, numpy.int64(5)), 30).values()) == 5


# --- others ---


@needs_root
def test_another_user_finds_and_changes_nothing(standing_site: Site, qpu: QuantumResource) -> None:
    task = qpu.task_start(AFM, 10)
    qpu.wait(task, 30)
    answers = as_user(
        NOBODY,
        f"""
        ask(lambda: c.task({task}))
        ask(lambda: c.task_stop({task}))
        ask(lambda: c.release({SESSION!r}))
        ask(lambda: c.task_start({SESSION!r}, "{{}}", 5))
        ask(lambda: c.acquire(job="1", uid=0))
        ask(lambda: c.acquire(job="1", uid={NOBODY}))
        ask(lambda: c.renew(host="x", jobs=("1",)))
        ask(lambda: c.hosts())
        ask(lambda: c.add_window(State.MAINTENANCE))
        ask(lambda: c.cancel_window(5))
        ask(lambda: c.resume())
        ask(lambda: c.tasks(everybody=True))
        ask(lambda: c.sessions(everybody=True))
        ask(lambda: c.tasks())
        ask(lambda: [one for one in c.sessions(ended=True) if one.uid != {NOBODY}])
        ask(lambda: c.availability().name)
        """,
        standing_site,
    )
    assert answers == [
        *["not_found"] * 3,
        "unknown_session",
        *["restricted"] * 7,
        *["forbidden"] * 2,
        "[]",
        "[]",
        "fresnel",
    ]
    assert qpu.task_status(task) is TaskStatus.COMPLETED


@needs_root
def test_another_user_cannot_read_the_store_or_the_secret_keys(standing_site: Site) -> None:
    answers = as_user(
        NOBODY,
        """
        for name in ("state/warden.db", "state/warden.db-wal", "keys/broker.key_secret", "keys/worker.key_secret"):
            ask(lambda: open(f"{room}/{name}", "rb").read())
        """,
        standing_site,
    )
    assert answers == ["PermissionError"] * 4


# --- strangers ---


def test_garbage_disturbs_nobody(standing_site: Site, qpu: QuantumResource) -> None:
    noise = random.Random(7)
    context = zmq.Context()
    stranger = connected(context, standing_site)
    start = frames.pack_request(5, wire.TaskStart(session=SESSION, sequence=AFM, shots=1, key="stranger"))
    try:
        for _ in range(300):
            stranger.send(noise.randbytes(noise.randrange(200)))
            frame = bytearray(start)
            frame[noise.randrange(80)] = noise.randrange(256)
            stranger.send(bytes(frame))
        stranger.send_multipart([b"", b"", start])
        stranger.send(b"\x91" * 100_000)
        assert sum(qpu.wait(qpu.task_start(AFM, 7), 30).values()) == 7
        for number, body in ((2**63, wire.TaskStop(task=1)), (6, frames.unpack_request(start))):
            stranger.send(frames.pack_request(number, body))
            correlation = -1
            while correlation != number:
                assert stranger.poll(10_000)
                correlation, answer = frames.unpack_answer(stranger.recv())
            assert answer.code == "unauthenticated"
    finally:
        context.destroy(linger=0)
    assert standing_site.broker.poll() is None


def test_a_message_that_is_too_large_ends_the_connection_and_nothing_else(
    standing_site: Site, qpu: QuantumResource
) -> None:
    context = zmq.Context()
    stranger = connected(context, standing_site)
    monitor = stranger.get_monitor_socket()
    try:
        stranger.send(b"x" * 20 * 2**20)
        heard: list[int] = []

        def dropped() -> bool:
            while monitor.poll(0):
                heard.append(int.from_bytes(monitor.recv_multipart()[0][:2], sys.byteorder))
            return zmq.EVENT_DISCONNECTED in heard

        wait_until(dropped, "the broker drops the connection")
        assert qpu.is_accessible()
    finally:
        stranger.disable_monitor()
        context.destroy(linger=0)


def test_a_sequence_that_is_too_large_for_the_broker_is_refused_in_words(standing_site: Site) -> None:
    config = standing_site.config
    lax = replace(config, limits=replace(config.limits, sequence_bytes=2**30))
    with Client(config=lax, timeout=20) as client:
        for size in (config.limits.sequence_bytes + 1, 2 * config.limits.sequence_bytes):
            with pytest.raises(LimitError, match=f"the sequence is larger than {config.limits.sequence_bytes} bytes"):
                client.task_start(SESSION, "x" * size, 1)


@pytest.mark.parametrize("size", [wire.PART, wire.PART + 1, 3 * wire.PART, 8 * 2**20])
def test_a_sequence_may_be_as_large_as_the_broker_says(qpu: QuantumResource, size: int) -> None:
    text = AFM + " " * (size - len(AFM))
    assert sum(qpu.wait(qpu.task_start(text, 5), 30).values()) == 5


def test_a_request_that_is_too_large_is_refused_before_it_is_sent(standing_site: Site) -> None:
    with standing_site.client() as client, pytest.raises(LimitError, match=f"the broker takes {wire.LARGEST}"):
        client.acquire(job="1", uid=0, queue="q" * 2 * wire.LARGEST)


def test_a_credential_works_for_its_own_connection_only(standing_site: Site) -> None:
    context = zmq.Context()
    try:
        stranger = connected(context, standing_site)
        broker_key = keyring.public_key(standing_site.config.broker_key)
        mine, _ = zmq.curve_keypair()
        credential = trust.prove(mine, broker_key, standing_site.munge_socket)
        for _ in range(2):
            stranger.send(frames.pack_request(1, wire.Hello(credential=credential)))
            assert stranger.poll(10_000)
            assert frames.unpack_answer(stranger.recv())[1].code == "unauthenticated"
    finally:
        context.destroy(linger=0)


def test_without_encryption_nobody_is_heard(standing_site: Site) -> None:
    context = zmq.Context()
    try:
        plain = context.socket(zmq.DEALER)
        plain.connect(standing_site.config.client_endpoint)
        plain.send(frames.pack_request(1, wire.GetAvailability()))
        with standing_site.client() as client:
            for _ in range(20):
                client.availability()
        assert not plain.poll(0)
    finally:
        context.destroy(linger=0)


def connected(context: zmq.Context[Any], site: Site) -> zmq.Socket[bytes]:
    stranger = context.socket(zmq.DEALER)
    stranger.curve_publickey, stranger.curve_secretkey = zmq.curve_keypair()
    stranger.curve_serverkey = keyring.public_key(site.config.broker_key)
    stranger.connect(site.config.client_endpoint)
    return stranger


class blocked:  # noqa: N801 - reads as a word
    """The QPU is in maintenance."""

    def __init__(self, site: Site) -> None:
        self.site = site

    def __enter__(self) -> None:
        with self.site.client() as operator:
            operator.add_window(State.MAINTENANCE)

    def __exit__(self, *_: object) -> None:
        with self.site.client() as operator:
            operator.resume()


def assert_untouched(site: Site, qpu: QuantumResource, before: int) -> None:
    """A task that is fine passes, and is the only one that the worker has seen."""
    task = qpu.task_start(AFM, 1)
    qpu.wait(task, 30)
    wait_until(lambda: runs(site) == before + 1, "the worker has run the good task, and only that")


def assert_line(error: WardenError, complaint: str) -> None:
    assert complaint in error.text
    assert "\n" not in error.text
    assert len(error.text) < 1200


def test_nobody_knows_a_task_that_never_was(qpu: QuantumResource) -> None:
    with pytest.raises(NotFoundError):
        qpu.task_status("4000000000")
