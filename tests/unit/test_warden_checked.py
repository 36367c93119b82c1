"""What the QPU cannot run is refused when it is submitted, in one line of Pulser's: real broker, real worker, both doors."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from test_warden_processes import children, gone
from warden_killer import tasks_in
from warden_site import AFM, SESSION, Site, free_port, wait_until

from warden.model import BadRequestError, State, TaskStatus, WardenError
from warden.qpu.process import Emulator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from warden.client import QuantumResource

pytest.importorskip("pulser_simulation")
pytestmark = pytest.mark.long

LINE = 500
TOO_LONG = "Pulser did not finish checking it within 4 s: make it shorter"
# Hundredths of a second.
BUSY = 50


@pytest.fixture
def qpu(standing_site: Site) -> Iterator[QuantumResource]:
    with standing_site.resource() as resource:
        yield resource


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    document = json.loads(AFM)
    change(document)
    return json.dumps(document)


def too_close(document: dict[str, Any]) -> None:
    """On a copy of the device that allows it."""
    document["device"]["min_atom_distance"] = 0
    del document["layout"]
    document["register"][1] |= {"x": -3.0, "y": -2.0}


def too_many(document: dict[str, Any]) -> None:
    document["register"] = [{"name": f"q{n}", "x": 6.0 * n, "y": 0.0} for n in range(9)]


def too_strong(document: dict[str, Any]) -> None:
    document["device"]["channels"][0]["max_amp"] = 100
    document["operations"][0]["amplitude"]["values"][1] = 30.0


BAD = {
    "layout": (changed(lambda d: d.pop("layout")), 10, "requires the sequence's register to be defined from a `Reg"),
    "channel": (changed(lambda d: d.update(channels={"rydberg": "rydberg_local"})), 10, "rydberg_local"),
    "atoms": (changed(too_many), 10, "the sequence has 9 atoms, this QPU takes at most 8"),
    "distance": (changed(too_close), 10, "The minimal distance between atoms in this device (5 µm)"),
    "runs": (AFM, 2001, "2001 shots are more than the maximum allowed by the device (2000 runs)"),
    "amplitude": (changed(too_strong), 10, "amplitude goes over the maximum value allowed"),
    "duration": (
        changed(lambda d: d["operations"].extend(d["operations"] * 2)),
        10,
        "exceeded the maximum duration allowed by the device",
    ),
    "schema": (changed(lambda d: d.update(operations=[{"op": "explode"}])), 10, "Sequence.to_abstract_repr()"),
}


@pytest.mark.parametrize("kind", BAD)
def test_each_kind_of_bad_sequence_is_refused_at_once_in_one_line(
    standing_site: Site, qpu: QuantumResource, kind: str
) -> None:
    text, shots, why = BAD[kind]
    with standing_site.client() as client:
        before = len(client.tasks(limit=1000))
        with pytest.raises(BadRequestError) as caught:
            qpu.task_start(text, shots)
        said = caught.value.text
        assert why in said
        assert said.isprintable()
        assert len(said) <= LINE
        assert len(client.tasks(limit=1000)) == before
    assert sum(qpu.wait(qpu.task_start(AFM, 5), 30).values()) == 5


def test_it_is_refused_at_the_other_door_as_well(site: Site) -> None:
    pytest.importorskip("fastapi")
    site.configure(http={"listen": f"127.0.0.1:{free_port()}"})
    site.start_broker()
    wait_until(lambda: "serving QRMI's clients" in site.log_of(site.broker), "the edge serves")
    site.start_worker()
    with site.http() as http:
        answer = http.post(
            "/jobs", json={"sequence": BAD["layout"][0], "shots": 10}, headers={"X-Warden-Session": SESSION}
        )
        assert (answer.status_code, BAD["layout"][2] in answer.json()["detail"]) == (422, True)
        answer = http.post("/jobs", json={"sequence": AFM, "shots": 10}, headers={"X-Warden-Session": SESSION})
        assert (answer.status_code, answer.json()["status"]) in {(200, "PENDING"), (200, "RUNNING")}


def test_a_large_sequence_is_checked_like_any_other(qpu: QuantumResource) -> None:
    large = 200 * 1024
    assert sum(qpu.wait(qpu.task_start(AFM + " " * large, 5), 30).values()) == 5
    with pytest.raises(BadRequestError, match="requires the sequence's register"):
        qpu.task_start(BAD["layout"][0] + " " * large, 5)


# --- what takes long, and what dies ---


def endless(number: int = 0) -> str:
    """A sequence that Pulser looks at for many seconds."""

    def lengthen(document: dict[str, Any]) -> None:
        document["name"] = f"long {number}"
        document["operations"] *= 10_000

    return changed(lengthen)


class Submission(threading.Thread):
    """Somebody who submits, and what he hears."""

    def __init__(self, site: Site, text: str) -> None:
        super().__init__(daemon=True)
        self._site, self._text = site, text
        self.heard: Any = None
        self.took = 0.0
        self.start()

    def run(self) -> None:
        begun = time.monotonic()
        with self._site.resource() as resource:
            try:
                self.heard = resource.task_start(self._text, 5)
            except WardenError as error:
                self.heard = error
        self.took = time.monotonic() - begun


@pytest.fixture
def started(site: Site) -> Site:
    site.configure(qpu={"overhead": 0.01})
    site.start_broker()
    site.start_worker()
    return site


def looking(site: Site, before: dict[int, int], submission: Submission) -> int:
    """The process that looks at a sequence, when it is well at it; it may have waited for one before."""

    def busy() -> list[int]:
        return [pid for pid, done in working(site).items() if done > before.get(pid, 0) + BUSY]

    assert wait_until(lambda: busy() or submission.heard, "the sequence is looked at") == busy(), submission.heard
    return busy()[0]


def working(site: Site) -> dict[int, int]:
    """The worker's processes, and how long each has worked."""
    return {pid: ticks(pid) for pid in children(site.worker)}


def ticks(pid: int) -> int:
    """How long it has worked."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])
    return 0


def test_what_pulser_is_not_done_with_in_time_is_refused() -> None:
    machine = Emulator("AnalogDevice", 0)
    check = machine.start(machine.check(endless()))
    assert check.wait(120)
    outcome = check.outcome(fault="device")
    check.end()
    machine.close()
    assert outcome.error == TOO_LONG
    assert outcome.fault == "task"


def test_what_takes_pulser_long_keeps_nobody_away(started: Site) -> None:
    before = working(started)
    slow = Submission(started, endless())
    process = looking(started, before, slow)
    # Whoever comes meanwhile is looked at after it.
    good = Submission(started, AFM)
    slow.join(60)
    good.join(60)
    wait_until(lambda: gone(process), "it is ended")
    with started.resource() as resource:
        # On a machine that is too busy to look at anything for so long it is taken as it is.
        if isinstance(slow.heard, str):
            resource.task_stop(slow.heard)
        else:
            assert slow.heard.text == TOO_LONG
        assert sum(resource.wait(good.heard, 30).values()) == 5


def test_a_worker_that_is_killed_while_it_looks_at_a_sequence_holds_up_nobody(started: Site) -> None:
    before = working(started)
    slow = Submission(started, endless())
    process = looking(started, before, slow)
    os.kill(process, signal.SIGSTOP)
    started.kill(started.worker)
    slow.join(60)
    # It was queued as it is: its run will find out.
    wait_until(lambda: gone(process), "no process of the dead worker is left")
    with started.resource() as resource:
        assert resource.task_status(slow.heard) is TaskStatus.QUEUED
        resource.task_stop(slow.heard)
        good = resource.task_start(AFM, 5)
        started.start_worker()
        assert sum(resource.wait(good, 30).values()) == 5
    started.wait_for(State.READY)


def test_a_check_that_gets_no_time_says_nothing_of_its_sequence(started: Site) -> None:
    before = working(started)
    slow = Submission(started, endless())
    process = looking(started, before, slow)
    os.kill(process, signal.SIGSTOP)
    slow.join(60)
    with started.resource() as resource:
        resource.task_stop(slow.heard)
    wait_until(lambda: gone(process), "it is ended")


def test_a_check_that_dies_says_nothing_of_its_sequence(started: Site) -> None:
    before = working(started)
    slow = Submission(started, endless())
    os.kill(looking(started, before, slow), signal.SIGKILL)
    slow.join(60)
    with started.resource() as resource:
        resource.task_stop(slow.heard)
        assert sum(resource.wait(resource.task_start(AFM, 5), 30).values()) == 5


def test_a_broker_that_is_killed_while_a_sequence_is_looked_at_has_accepted_nothing(started: Site) -> None:
    before = working(started)
    slow = Submission(started, endless())
    process = looking(started, before, slow)
    os.kill(process, signal.SIGSTOP)
    started.kill(started.broker)
    # In the store: the next broker may be asked again before we can ask it.
    assert tasks_in(started.room / "state" / "warden.db") == {}
    started.start_broker()
    with started.client() as client:
        # The client asks again, and the new broker has the worker look again, or finds it not there yet.
        slow.join(60)
        assert slow.heard is not None
        assert len(client.tasks()) == isinstance(slow.heard, str)
    started.wait_for(State.READY)
    with started.resource() as resource:
        if isinstance(slow.heard, str):
            resource.task_stop(slow.heard)
        assert sum(resource.wait(resource.task_start(AFM, 5), 30).values()) == 5
