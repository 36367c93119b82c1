"""A broker that is killed while our client and QRMI's own wait, or ask: both have their answers from the next one."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest
from visited import ALICE, COUNTS, RATE, SHORT, served
from visitors import QRMI, WARDEN, Done, Visitor
from warden_site import AFM, wait_until

from warden.model import State

if TYPE_CHECKING:
    from pathlib import Path

    from warden_site import Site

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")


def unread(site: Site, door: str) -> bool:
    """Whether something lies at this socket of the broker's that it has not read."""
    listed = subprocess.run(["ss", "-xHn"], capture_output=True, text=True, check=True).stdout
    queues = [line.split()[2] for line in listed.splitlines() if f"{site.room}/{door} " in line]
    return any(queue != "0" for queue in queues)


def both_seen(site: Site, seen: set[str]) -> bool:
    seen.update(door for door in ("c", "e") if unread(site, door))
    return seen == {"c", "e"}


def test_broker_that_is_killed_loses_no_task_and_its_clients_wait_for_it(python: Path) -> None:
    with served() as (site, url), contextlib.ExitStack() as stack:
        visitors = [stack.enter_context(Visitor(door, site, ALICE, python=python, url=url)) for door in (WARDEN, QRMI)]
        with site.client() as root:
            session = root.acquire(job="1", uid=ALICE).id
        done = [visitor.get("start", session, AFM, SHORT) for visitor in visitors]
        fetched = [visitor.ask("wait", task) for visitor, task in zip(visitors, done, strict=True)]
        assert fetched == [Done(COUNTS)] * 2
        # For so long that it is seen to run, and still does when the broker dies.
        running = visitors[0].get("start", session, AFM, 4 * RATE)
        waiting = visitors[1].get("start", session, AFM, SHORT)
        wait_until(lambda: visitors[0].get("status", running) == "running", "the task runs")
        # Both wait, one for what runs and one for what waits, when the broker dies.
        visitors[0].begin("wait", running)
        visitors[1].begin("wait", waiting)
        site.kill(site.broker)
        site.start_broker()
        assert [visitor.outcome() for visitor in visitors] == [Done({"0000": 4 * RATE}), Done(COUNTS)]
        for visitor, task in itertools.product(visitors, done):
            assert visitor.ask("result", task) == Done(COUNTS)
        # What is asked while there is none, or was lost with one, is answered by the next one; and done once.
        for alive in (False, True):
            if alive:
                site.broker.send_signal(signal.SIGSTOP)
                # On a busy machine it goes on for a moment, and reads what is to be lost with it.
                os.waitid(os.P_PID, site.broker.pid, os.WSTOPPED | os.WNOWAIT)
            else:
                site.kill(site.broker)
            for visitor in visitors:
                visitor.begin("start", session, AFM, SHORT)
            if alive:
                # Not at the same time: who hears nothing connects anew, and that stands nowhere until it is accepted.
                seen: set[str] = set()
                wait_until(functools.partial(both_seen, site, seen), "both requests were with the broker")
                site.kill(site.broker)
            site.start_broker()
            started = [visitor.outcome()[0] for visitor in visitors]
            assert [visitor.ask("wait", task) for visitor, task in zip(visitors, started, strict=True)] == fetched
        with site.client() as root:
            assert len(root.tasks(everybody=True)) == 8
        # Without a worker the QPU is offline, and both say so.
        site.kill(site.worker)
        site.wait_for(State.OFFLINE)
        assert [visitor.ask("accessible") for visitor in visitors] == [Done(False)] * 2
        assert [visitor.ask("state") for visitor in visitors] == [Done("offline")] * 2
