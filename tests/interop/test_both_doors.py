"""Our client, and QRMI's own over HTTP: whoever comes in by either is told the same.

Each test is run through both. Where the contract or the package has no word for what the other door says, the name of
the test tells so, and `by_door` what each says.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from visited import ALICE, COUNTS, LARGEST, SHORT, WAITING, served
from visitors import QRMI, WARDEN, Done, Refused, Visitor
from warden_site import AFM, Site, wait_until

from warden.model import SECOND, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")

BOB = 2002
LONG = 100_000
NEVER = "2000000000"
JOBS = itertools.count(100)


# --- the site, and who comes ---


@pytest.fixture(scope="module")
def standing() -> Iterator[tuple[Site, str]]:
    with served() as found:
        yield found


@pytest.fixture(scope="module", params=[WARDEN, QRMI])
def people(request: pytest.FixtureRequest, standing: tuple[Site, str], python: Path) -> Iterator[dict[int, Visitor]]:
    """All by the same door."""
    site, url = standing
    with contextlib.ExitStack() as stack:
        yield {
            uid: stack.enter_context(Visitor(request.param, site, uid, python=python, url=url))
            for uid in (0, ALICE, BOB)
        }


@pytest.fixture
def site(standing: tuple[Site, str]) -> Site:
    return standing[0]


@pytest.fixture
def scheduler(people: dict[int, Visitor]) -> Visitor:
    return people[0]


@pytest.fixture
def alice(people: dict[int, Visitor]) -> Visitor:
    return people[ALICE]


@pytest.fixture
def bob(people: dict[int, Visitor]) -> Visitor:
    return people[BOB]


@pytest.fixture
def job() -> str:
    return str(next(JOBS))


@pytest.fixture
def session(site: Site, job: str) -> Iterator[str]:
    """Of alice's job; what it leaves running ends with it."""
    with site.client() as root:
        found = root.acquire(job=job, uid=ALICE).id
        yield found
        root.release(found)


@pytest.fixture
def running(site: Site, alice: Visitor, session: str) -> str:
    """A task of alice's that runs, and for long."""
    del site
    task: str = alice.get("start", session, AFM, LONG)
    wait_until(lambda: alice.get("status", task) == "running", "the task runs")
    return task


@pytest.fixture
def waiting(alice: Visitor, session: str, running: str) -> str:
    """One that waits behind it."""
    del running
    task: str = alice.get("start", session, AFM, SHORT)
    assert alice.get("status", task) == "queued"
    return task


def by_door(visitor: Visitor, *, warden: T, qrmi: T) -> T:
    """What the two doors do not have in common."""
    return {WARDEN: warden, QRMI: qrmi}[visitor.door]


def no_result(visitor: Visitor, kind: str) -> Refused:
    """QRMI's package asks for no result of a task that has not completed: to it none of them is ready."""
    return Refused(by_door(visitor, warden=kind, qrmi="not_ready"))


# --- sessions ---


def test_scheduler_gets_one_session_for_a_job_however_often_it_asks(scheduler: Visitor, job: str) -> None:
    session = scheduler.get("grant", job, ALICE)
    assert scheduler.ask("grant", job, ALICE) == Done(session)
    assert scheduler.ask("release", session) == Done()
    assert scheduler.ask("release", session) == Done()
    assert scheduler.get("grant", job, ALICE) != session


def test_job_finds_its_session_however_often_it_asks(alice: Visitor, job: str, session: str) -> None:
    assert alice.ask("acquire", job) == Done(session)
    assert alice.ask("acquire", job) == Done(session)


def test_session_is_for_the_scheduler_to_give(alice: Visitor, bob: Visitor, job: str, session: str) -> None:
    del session
    assert alice.ask("acquire", "4711") == Refused("restricted")
    assert alice.ask("grant", "4711", BOB) == Refused("restricted")
    assert bob.ask("acquire", job) == Refused("restricted")
    assert bob.ask("grant", job, ALICE) == Refused("restricted")


def test_release_twice_is_release(alice: Visitor, session: str) -> None:
    assert alice.ask("release", session) == Done()
    assert alice.ask("release", session) == Done()
    assert alice.ask("start", session, AFM, SHORT) == Refused("ended_session")


def test_release_ends_what_waits_and_what_runs(alice: Visitor, session: str, running: str, waiting: str) -> None:
    assert alice.ask("release", session) == Done()
    for task in (running, waiting):
        assert alice.ask("status", task) == Done("cancelled")
        assert alice.ask("stop", task) == Done()
        assert "cancelled: its session ended: released" in alice.get("logs", task)


def test_result_outlives_its_session(alice: Visitor, session: str) -> None:
    task = alice.get("start", session, AFM, SHORT)
    assert alice.ask("wait", task) == Done(COUNTS)
    alice.get("release", session)
    assert alice.ask("status", task) == Done("completed")
    assert alice.ask("result", task) == Done(COUNTS)


@pytest.mark.parametrize("token", ["11111111-2222-4333-8444-555555555555", "x"])
def test_session_that_nobody_has_opens_nothing(alice: Visitor, token: str) -> None:
    assert alice.ask("start", token, AFM, SHORT) == Refused("unknown_session")
    assert alice.ask("release", token) == Refused("not_found")


def test_session_of_somebody_else_opens_nothing_and_the_contract_alone_says_whose_it_is(
    alice: Visitor, bob: Visitor, session: str
) -> None:
    kind = by_door(bob, warden="unknown_session", qrmi="foreign_session")
    assert bob.ask("start", session, AFM, SHORT) == Refused(kind)
    assert bob.ask("release", session) == Refused("not_found")
    assert alice.ask("start", session, AFM, SHORT).__class__ is Done


def test_without_a_session_there_is_no_task(alice: Visitor) -> None:
    assert alice.ask("start", "", AFM, SHORT) == Refused("forbidden")


def test_where_no_place_is_left_the_words_are_the_same_and_http_has_one_status_for_busy_and_away(
    site: Site, scheduler: Visitor, job: str
) -> None:
    with drained(site):
        words = scheduler.words(by_door(scheduler, warden="busy", qrmi="unavailable"), "grant", job, ALICE)
    assert words == "the QPU fresnel is maintenance: new laser"


# --- tasks ---


def test_task_from_its_sequence_to_its_result(alice: Visitor, session: str) -> None:
    task = alice.get("start", session, AFM, SHORT)
    assert alice.ask("wait", task) == Done(COUNTS)
    assert alice.ask("status", task) == Done("completed")
    assert alice.ask("result", task) == Done(COUNTS)
    logs = alice.get("logs", task).splitlines()
    assert [line.partition(" ")[2].partition(":")[0] for line in logs[:2]] == ["queued", "run 1 started"]
    assert logs[-1].endswith("completed in 1 run")


def test_what_went_in_by_one_door_comes_out_at_the_other(
    site: Site, standing: tuple[Site, str], python: Path, session: str
) -> None:
    with contextlib.ExitStack() as stack:
        doors = [
            stack.enter_context(Visitor(door, site, ALICE, python=python, url=standing[1])) for door in (WARDEN, QRMI)
        ]
        for one, other in (doors, doors[::-1]):
            task = one.get("start", session, AFM, SHORT)
            assert other.ask("wait", task) == Done(COUNTS)
            for call in ("status", "result", "logs"):
                assert one.ask(call, task) == other.ask(call, task)


def test_stop_of_what_has_ended_changes_nothing(alice: Visitor, session: str) -> None:
    task = alice.get("start", session, AFM, SHORT)
    alice.get("wait", task)
    logs = alice.get("logs", task)
    assert alice.ask("stop", task) == Done()
    assert alice.ask("status", task) == Done("completed")
    assert alice.ask("result", task) == Done(COUNTS)
    assert alice.ask("logs", task) == Done(logs)


@pytest.mark.parametrize("state", ["running", "waiting"])
def test_stop_cancels_what_runs_and_what_waits(
    alice: Visitor, state: str, session: str, running: str, waiting: str
) -> None:
    task, other = (running, waiting) if state == "running" else (waiting, running)
    assert alice.ask("stop", task) == Done()
    assert alice.ask("stop", task) == Done()
    assert alice.ask("status", task) == Done("cancelled")
    assert alice.get("logs", task).count("cancelled: stopped by its user") == 1
    # The QPU is free for the one that waited; the one that runs goes on.
    if state == "running":
        assert alice.ask("wait", other) == Done(COUNTS)
    else:
        assert alice.ask("status", other) == Done("running")
        assert alice.ask("start", session, AFM, SHORT).__class__ is Done


def test_result_before_its_time_is_not_ready(alice: Visitor, running: str, waiting: str) -> None:
    assert alice.ask("result", running) == Refused("not_ready")
    assert alice.ask("result", waiting) == Refused("not_ready")


def test_of_a_cancelled_task_qrmi_says_that_it_is_not_ready_as_it_has_no_other_word(
    alice: Visitor, running: str
) -> None:
    alice.get("stop", running)
    assert alice.ask("wait", running) == no_result(alice, "task_cancelled")
    assert alice.ask("result", running) == no_result(alice, "task_cancelled")


def test_of_a_failed_task_qrmi_says_that_it_is_not_ready_as_it_has_no_other_word(
    site: Site, standing: tuple[Site, str], python: Path, alice: Visitor, session: str, running: str
) -> None:
    with Visitor(WARDEN, site, ALICE, python=python, url=standing[1]) as ours:
        task = ours.get("start_within", session, AFM, SHORT, 0.2)
    assert alice.ask("wait", task) == no_result(alice, "task_failed")
    assert alice.ask("status", task) == Done("failed")
    assert alice.ask("result", task) == no_result(alice, "task_failed")
    assert "failed: " in alice.get("logs", task).splitlines()[-1]
    assert alice.ask("stop", task) == Done()
    assert alice.ask("status", task) == Done("failed")
    assert alice.ask("status", running) == Done("running")


def test_task_of_somebody_else_is_as_one_that_never_was(alice: Visitor, bob: Visitor, running: str) -> None:
    for call in ("status", "result", "logs", "stop"):
        refused = bob.ask(call, running)
        assert refused == Refused("not_found")
        assert tuple(refused) == tuple(bob.ask(call, NEVER))
        assert alice.ask(call, NEVER) == Refused("not_found")
    assert alice.ask("status", running) == Done("running")


@pytest.mark.parametrize("call", ["status", "result", "logs", "stop"])
def test_what_is_no_number_is_no_task(alice: Visitor, call: str) -> None:
    for task in ("mine", "1.5", "0x1", "-", "1e3"):
        assert alice.ask(call, task) == Refused("bad_request")


@pytest.mark.parametrize("call", ["status", "result", "logs", "stop"])
def test_number_that_no_task_has_is_not_found_over_http_and_no_task_s_to_our_client(alice: Visitor, call: str) -> None:
    for task in ("-1", "99999999999", str(10**30)):
        assert alice.ask(call, task) == Refused(by_door(alice, warden="bad_request", qrmi="not_found"))


def test_empty_id_is_no_task_and_no_session(alice: Visitor) -> None:
    """QRMI's package asks for "/jobs/" and "/sessions/" then."""
    assert isinstance(alice.ask("status", ""), Refused)
    assert alice.ask("release", "") == Refused(by_door(alice, warden="forbidden", qrmi="not_found"))


# --- what is refused before it is queued ---


def sequence(**changes: Any) -> str:
    return json.dumps(json.loads(AFM) | changes)


ATOM = json.loads(AFM)["register"][0]
BAD = {
    "empty": ("", "this is not JSON (it is empty)"),
    "no JSON": ("nonsense", "this is not JSON ("),
    "half": (AFM[: len(AFM) // 2], "this is not JSON ("),
    "too deep": ("[" * 50_000, "this is JSON, but no Pulser sequence"),
    "another thing": ("{}", "this is JSON, but no Pulser sequence"),
    "another device": (sequence(device={"name": "MockDevice"}), "the sequence is for the device 'MockDevice'"),
    "too many atoms": (
        sequence(register=[ATOM | {"name": str(n)} for n in range(9)]),
        "the sequence has 9 atoms, this QPU takes at most 8",
    ),
    "no atoms": (sequence(register=[]), "the sequence has no atoms"),
    "variables": (sequence(variables={"omega": {"type": "float"}}), "variables without values (omega)"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_sequence_is_refused_in_the_same_words(alice: Visitor, session: str, what: str) -> None:
    text, words = BAD[what]
    assert words in alice.words("bad_request", "start", session, text, SHORT)


@pytest.mark.parametrize("size", [LARGEST + 1, 2 * LARGEST + 1, 10 * LARGEST])
def test_oversize_sequence_is_refused_with_the_size_that_is_taken(alice: Visitor, session: str, size: int) -> None:
    words = alice.words("bad_request", "start", session, AFM + " " * (size - len(AFM)), SHORT)
    assert re.fullmatch(r"the (sequence|request) is larger than \d+ bytes, the most that this QPU takes", words)


def test_sequence_of_just_the_size_is_taken(alice: Visitor, session: str) -> None:
    task = alice.get("start", session, AFM + " " * (LARGEST - len(AFM)), SHORT)
    assert alice.ask("wait", task) == Done(COUNTS)


@pytest.mark.parametrize("shots", [0, -1, LONG + 1, 2**31 - 1, 2**31, 2**63, 10**30])
def test_shots_are_at_least_one_and_not_too_many(alice: Visitor, session: str, shots: int) -> None:
    assert alice.ask("start", session, AFM, shots) == Refused("bad_request")


def test_too_many_tasks_that_wait_are_a_limit_in_the_same_words(alice: Visitor, session: str, waiting: str) -> None:
    del waiting
    for _ in range(WAITING - 1):
        alice.get("start", session, AFM, SHORT)
    words = alice.words("limit", "start", session, AFM, SHORT)
    assert words == f"{WAITING} of your tasks wait for the QPU already: wait for some"


# --- the QPU ---


@contextlib.contextmanager
def drained(site: Site) -> Iterator[None]:
    with site.client() as root:
        root.add_window(State.MAINTENANCE, reason="new laser")
        try:
            yield
        finally:
            root.resume()


@contextlib.contextmanager
def calibrating(site: Site) -> Iterator[None]:
    with site.client() as root:
        window = root.add_window(State.CALIBRATING, duration=60 * SECOND)
        try:
            yield
        finally:
            root.cancel_window(window.id)


@pytest.mark.parametrize(
    ("during", "state", "accessible"),
    [
        (lambda _: contextlib.nullcontext(), "ready", True),
        (calibrating, "calibrating", True),
        (drained, "maintenance", False),
    ],
)
def test_qpu_is_accessible_and_in_a_state_of_which_qrmi_knows_two(
    site: Site,
    alice: Visitor,
    during: Callable[[Site], contextlib.AbstractContextManager[None]],
    state: str,
    accessible: bool,
) -> None:
    with during(site):
        assert alice.ask("accessible") == Done(accessible)
        assert alice.ask("state") == Done(by_door(alice, warden=state, qrmi="online" if accessible else "offline"))


def test_task_that_is_sent_while_the_qpu_is_away_waits_for_it(site: Site, alice: Visitor, session: str) -> None:
    with calibrating(site):
        task = alice.get("start", session, AFM, SHORT)
        assert alice.ask("status", task) == Done("queued")
        assert alice.ask("result", task) == Refused("not_ready")
    assert alice.ask("wait", task) == Done(COUNTS)


def test_target_is_the_device(alice: Visitor) -> None:
    assert json.loads(alice.get("target")) == {"name": "AnalogDevice"}
