"""Prolog and epilog with a real broker: whose session is acquired, and whose ended."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import msgspec
import pytest
from hook_spool import LIMIT, OWNER, hook_job, in_qmaster
from warden_site import AFM

from gridengine.configuration import GridEngineSection
from gridengine.hooks import epilog, guard, prolog, retry
from warden import frames, model
from warden.model import SECOND
from warden.sections import Duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from warden_site import Site

    from gridengine.hooks.job import HookJob

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root's hooks can acquire sessions")


def acquire(site: Site, job: HookJob, project: str = "", **requests: str) -> model.Session:
    found = in_qmaster(project=project, requests=requests)
    return prolog.acquire(job, found, site.config, GridEngineSection(prolog_wait=Duration(0)))


@pytest.fixture
def epilog_of(standing_site: Site, monkeypatch: pytest.MonkeyPatch) -> Callable[[HookJob], None]:
    monkeypatch.setattr(epilog, "CONFIG", standing_site.file)
    running = guard.Guard("qpu-epilog", on_expiry=guard.GO_ON)
    monkeypatch.setattr(running, "limit", lambda _: None)
    return lambda job: epilog.finish(job, standing_site.config.client_endpoint, running)


def open_sessions(site: Site, number: str) -> list[str]:
    with site.client() as client:
        return [session.id for session in client.sessions(everybody=True, job=number)]


@needs_root
def test_prolog_that_is_repeated_finds_the_session_of_its_start(standing_site: Site) -> None:
    session = acquire(standing_site, hook_job("71"), "physics")
    assert acquire(standing_site, hook_job("71"), "physics").id == session.id
    assert (session.host, session.start, session.queue, session.project) == ("node1", "first", "all.q", "physics")


@needs_root
def test_epilog_of_an_earlier_start_leaves_the_later_one_alone(
    standing_site: Site, epilog_of: Callable[[HookJob], None]
) -> None:
    first, second = hook_job("72"), hook_job("72", "second", "node2")
    old = acquire(standing_site, first)
    new = acquire(standing_site, second)
    assert old.id != new.id
    assert open_sessions(standing_site, "72") == [new.id]
    epilog_of(first)
    assert open_sessions(standing_site, "72") == [new.id]
    epilog_of(second)
    assert open_sessions(standing_site, "72") == []


@needs_root
def test_epilog_ends_a_session_that_knows_of_no_start_and_none_of_another_user_or_job(
    standing_site: Site, epilog_of: Callable[[HookJob], None]
) -> None:
    acquire(standing_site, hook_job("73", start=""))
    other = acquire(standing_site, hook_job("74"))
    epilog_of(hook_job("73"))
    assert open_sessions(standing_site, "73") == []
    epilog_of(msgspec.structs.replace(hook_job("74"), uid=OWNER.pw_uid - 1))
    assert open_sessions(standing_site, "74") == [other.id]
    epilog_of(hook_job("74"))
    assert open_sessions(standing_site, "74") == []


@needs_root
def test_job_beyond_what_its_user_may_have_at_the_same_time_waits(site: Site) -> None:
    site.configure(limits={"sessions_per_user": 1})
    site.start_broker()
    site.start_worker()
    session = acquire(site, hook_job("75"))
    with pytest.raises(model.BusyError, match="1 of your jobs are on the QPU") as caught:
        acquire(site, hook_job("76"))
    assert guard.exit_status(caught.value) == guard.AGAIN
    with site.client() as client:
        client.release(session.id)
    assert acquire(site, hook_job("76")).job == "76"


@needs_root
def test_job_whose_class_has_a_budget_starts_and_meets_it_at_its_task(site: Site) -> None:
    site.configure(session={"max_shots": 10})
    site.start_broker()
    site.start_worker()
    session = acquire(site, msgspec.structs.replace(hook_job("77"), uid=os.getuid()))
    with site.client() as client, pytest.raises(model.LimitError, match="this job may take 10 shots"):
        client.task_start(session.id, AFM, 11)


@needs_root
@pytest.mark.parametrize(
    ("requests", "refusal", "status"),
    [
        ({"qpu_qubits": "8"}, None, guard.GO_ON),
        ({"qpu_qubits": "9"}, "8 qubits at most", guard.JOB_ERROR),
        ({"qpu_window": "3600"}, None, guard.GO_ON),
        ({"qpu_window": "1m30"}, "no whole number", guard.JOB_ERROR),
    ],
)
def test_job_that_no_window_is_in_the_way_of_gets_what_the_qpu_can_do(
    standing_site: Site, requests: dict[str, str], refusal: str | None, status: int
) -> None:
    if refusal is None:
        session = acquire(standing_site, hook_job("80"), **requests)
        with standing_site.client() as client:
            client.release(session.id)
        return
    with pytest.raises(model.BadRequestError, match=refusal) as caught:
        acquire(standing_site, hook_job("80"), **requests)
    assert guard.exit_status(caught.value) == status
    assert open_sessions(standing_site, "80") == []


@needs_root
def test_job_that_does_not_fit_before_the_next_window_waits_for_its_end(site: Site) -> None:
    site.start_broker()
    site.start_worker()
    with site.client() as client:
        now = client.availability().time
        client.add_window(model.State.MAINTENANCE, start=now + 100 * SECOND, duration=50 * SECOND)
    with pytest.raises(
        retry.NotNowError, match=r"closes for maintenance in [0-9]+ s, and the job wants 120 s"
    ) as caught:
        acquire(site, hook_job("81"), qpu_window="120")
    assert caught.value.reason == "window"
    assert caught.value.blocked is not None
    assert 100 * SECOND < caught.value.blocked <= 150 * SECOND
    assert open_sessions(site, "81") == []
    assert acquire(site, hook_job("81"), qpu_window="10").job == "81"


@needs_root
def test_job_that_meets_a_window_learns_until_when_the_qpu_is_blocked(site: Site) -> None:
    site.start_broker()
    site.start_worker()
    with site.client() as client:
        client.add_window(model.State.MAINTENANCE, duration=100 * SECOND)
    with pytest.raises(retry.NotNowError, match="is maintenance until") as caught:
        acquire(site, hook_job("82"))
    assert caught.value.reason == "maintenance"
    assert caught.value.blocked is not None
    assert 0 < caught.value.blocked <= 100 * SECOND
    with site.client() as client:
        client.resume()
    assert acquire(site, hook_job("82")).job == "82"


@needs_root
def test_what_a_job_used_is_told_and_who_ended_its_session(standing_site: Site) -> None:
    ours, own = hook_job("83"), hook_job("84")
    acquire(standing_site, ours)
    session = acquire(standing_site, own)
    with standing_site.client() as client:
        client.release(session.id)
    later = time.monotonic() + LIMIT
    for job, status in ((ours, "released"), (own, "already_ended")):
        told = epilog.usage(epilog.release(job, standing_site.config, later), unreachable=False)
        assert told["qrmi_release_status"] == status
        assert (told["qrmi_tasks"], told["qrmi_qpu_seconds"]) == ("0", "0.000000")
    # A later start of the same job, and another job under its number, are not its own.
    others = (hook_job("83", "second"), msgspec.structs.replace(ours, uid=OWNER.pw_uid - 1))
    assert [epilog.release(job, standing_site.config, later) for job in others] == [[], []]


def test_hook_of_another_version_than_the_broker_sends_the_job_back(
    standing_site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "VERSION", frames.VERSION + 1)
    with pytest.raises(model.UnavailableError, match="version") as caught:
        acquire(standing_site, hook_job("78"))
    assert guard.exit_status(caught.value) == guard.AGAIN
