"""Warden as it runs: real processes, real sockets, real credentials, and kill -9 where a promise is about crashes."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from warden_site import AFM, SESSION, WARDEN, Site, free_port, wait_until

from warden.model import NotFoundError, State, TaskCancelledError, TaskStatus, UnavailableError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator

pytestmark = pytest.mark.long

# Slow enough that a run is seen and is still on while something is killed, also where we are stopped for a second or two:
# 4 qubits take no time, 30 shots at 10/s take 3 s.
SLOW = {"shot_rate": 10.0, "overhead": 0.1}


def running(site: Site, task: str) -> bool:
    with site.resource() as resource:
        return resource.task_status(task) is TaskStatus.RUNNING


def children(process: subprocess.Popen[bytes]) -> set[int]:
    """All processes below this one."""
    below: set[int] = set()
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) in {process.pid, *below}:
            below.add(int(status.parent.name))
    return below


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def start(site: Site, shots: int, session: str = SESSION) -> str:
    with site.resource(session) as resource:
        return resource.task_start(AFM, shots)


def test_an_acknowledged_task_survives_kill_9_of_the_broker(site: Site) -> None:
    site.start_broker()
    tasks = [start(site, 10 + n) for n in range(3)]
    site.kill(site.broker)
    site.start_broker()
    site.start_worker()
    with site.resource() as resource:
        for n, task in enumerate(tasks):
            assert sum(resource.wait(task, 30).values()) == 10 + n


def test_a_broker_that_is_killed_during_a_run_takes_its_result_afterwards(site: Site) -> None:
    site.configure(qpu=SLOW)
    site.start_broker()
    site.start_worker()
    task = start(site, 40)
    wait_until(lambda: running(site, task), "the task runs")
    site.kill(site.broker)
    site.start_broker()
    with site.resource() as resource:
        assert sum(resource.wait(task, 30).values()) == 40
        log = resource.task_logs(task)
    assert "run 1: 40 of 40 shots" in log
    assert "lost" not in log
    assert site.log_of(site.worker).count(f"task {task}, 40 shots") == 1


def test_a_result_that_is_ready_while_the_broker_is_down_is_not_lost(site: Site) -> None:
    site.configure(qpu=SLOW)
    site.start_broker()
    site.start_worker()
    task = start(site, 30)
    wait_until(lambda: running(site, task), "the task runs")
    site.kill(site.broker)
    wait_until(lambda: "30 of 30 shots done" in site.log_of(site.worker), "the worker is done")
    site.start_broker()
    with site.resource() as resource:
        assert sum(resource.wait(task, 30).values()) == 30
    assert site.log_of(site.worker).count(f"task {task}, 30 shots") == 1


def test_a_run_is_repeated_when_its_worker_is_killed_and_its_log_says_so(site: Site) -> None:
    site.configure(qpu=SLOW)
    site.start_broker()
    site.start_worker()
    # Long enough for all that comes before its worker dies.
    task = start(site, 1000)
    wait_until(lambda: running(site, task), "the task runs")
    emulators = children(site.worker)
    assert emulators
    site.kill(site.worker)
    wait_until(lambda: all(map(gone, emulators)), "no process of the dead worker is left")
    site.wait_for(State.OFFLINE)
    status = site.warden("status")
    assert status.returncode == 0
    assert "offline (its worker is not connected)" in status.stdout
    # A faster one.
    site.configure()
    site.start_worker()
    with site.resource() as resource:
        assert sum(resource.wait(task, 30).values()) == 1000
        log = resource.task_logs(task)
    assert "was lost with its worker and will be repeated" in log


def test_sigterm_ends_both_cleanly_and_leaves_no_process(site: Site) -> None:
    site.configure(qpu=SLOW)
    site.start_broker()
    site.start_worker()
    task = start(site, 500)
    wait_until(lambda: running(site, task), "the task runs")
    emulators = children(site.worker)
    for process in (site.worker, site.broker):
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        assert "Traceback" not in site.log_of(process)
    wait_until(lambda: all(map(gone, emulators)), "the emulator and its fork server are gone")


def test_ctrl_c_while_the_worker_imports_its_emulator_ends_it_quietly(site: Site) -> None:
    (site.room / "pulser.py").write_text(
        "import os, time\nprint('importing', flush=True)\nparent = os.getppid()\n"
        "while os.getppid() == parent:\n    time.sleep(0.01)\n"
    )
    command = [WARDEN, "worker", "--config", str(site.file)]
    worker = site.start(command, env={**os.environ, "PYTHONPATH": str(site.room)}, start_new_session=True)
    wait_until(lambda: "importing" in site.log_of(worker), "the emulator is imported")
    emulators = children(worker)
    os.killpg(worker.pid, signal.SIGINT)
    assert worker.wait(20) == 130
    wait_until(lambda: all(map(gone, emulators)), "the fork server is gone")
    assert site.log_of(worker).split() == ["importing"]


def test_a_client_that_waits_does_not_notice_a_broker_that_is_restarted(site: Site) -> None:
    site.configure(qpu=SLOW)
    site.start_broker()
    site.start_worker()
    # It asks once a second: a run that is shorter than two questions might not be seen.
    task = start(site, 50)
    heard: list[TaskStatus] = []
    counts: dict[str, int] = {}

    def wait() -> None:
        with site.resource() as resource:
            counts.update(resource.wait(task, 100, watch=lambda task: heard.append(task.status)))

    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    wait_until(lambda: TaskStatus.RUNNING in heard, "the client has heard of the run")
    site.broker.send_signal(signal.SIGTERM)
    site.broker.wait()
    site.start_broker()
    waiter.join()
    assert sum(counts.values()) == 50


def test_over_tcp_too(site: Site) -> None:
    clients, workers = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    site.configure(broker={"clients": [clients], "workers": [workers]})
    site.start_broker()
    site.start_worker()
    with site.resource() as resource:
        assert sum(resource.wait(resource.task_start(AFM, 50), 30).values()) == 50


def test_a_running_task_that_is_stopped_ends_soon_and_the_next_one_runs(site: Site) -> None:
    site.configure(qpu={"shot_rate": 1.0, "overhead": 0.1})
    site.start_broker()
    site.start_worker()
    long, short = start(site, 2_000), start(site, 1)
    wait_until(lambda: running(site, long), "the task runs")
    with site.resource() as resource:
        resource.task_stop(long)
        assert resource.task_status(long) is TaskStatus.CANCELLED
        assert sum(resource.wait(short, 30).values()) == 1
        with pytest.raises(TaskCancelledError, match="stopped by its user"):
            resource.task_result(long)


def test_a_second_broker_on_the_same_store_is_refused_and_harms_nothing(site: Site) -> None:
    site.start_broker()
    second = site.warden("serve")
    assert second.returncode == 1
    who = rf"pid {site.broker.pid} on {re.escape(socket.gethostname())}, since [-\dT:]+Z"
    assert re.fullmatch(
        rf"warden: .*warden\.db is in use by another broker \({who}\): stop that one first\n", one_error(second)
    )
    with site.client() as client:
        assert client.availability().name == "fresnel"


@contextlib.contextmanager
def store_on_a_disk_of_its_own(site: Site, size: str) -> Iterator[Path]:
    """A small disk that can be filled and be made read-only; only root can mount one."""
    disk = site.room / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size={size} tmpfs {disk} 2>/dev/null"):
        pytest.skip("nobody but root can mount a disk, and not every root")
    try:
        shutil.move(site.room / "state" / "warden.db", disk)
        site.configure(broker={"state": str(disk)})
        yield disk
    finally:
        os.system(f"umount --lazy {disk}")


def test_a_full_disk_is_unavailable_and_passes(site: Site) -> None:
    with store_on_a_disk_of_its_own(site, "2m") as disk:
        site.start_broker()
        filler = disk / "filler"
        with site.resource() as resource, site.client() as client:
            first = resource.task_start(AFM, 10)
            fill(filler)
            large = AFM + " " * 500_000
            with pytest.raises(UnavailableError, match="cannot write its store"):
                resource.task_start(large, 10)
            assert client.availability().queued == 1
            assert site.broker.poll() is None
            filler.unlink()
            second = resource.task_start(AFM, 20)
            site.start_worker()
            assert [sum(resource.wait(task, 30).values()) for task in (first, second)] == [10, 20]


def test_a_broker_refuses_a_read_only_disk_by_name_and_goes_on_when_it_is_not(site: Site) -> None:
    with store_on_a_disk_of_its_own(site, "8m") as disk:
        site.start_broker()
        with site.resource() as resource:
            task = resource.task_start(AFM, 10)
        site.kill(site.broker)
        os.system(f"mount -o remount,ro {disk}")
        refused = site.warden("serve")
        assert refused.returncode == 1
        assert f"cannot use the store {disk}/warden.db: " in one_error(refused)
        os.system(f"mount -o remount,rw {disk}")
        site.start_broker()
        site.start_worker()
        with site.resource() as resource:
            assert sum(resource.wait(task, 30).values()) == 10


def test_a_corrupt_store_is_named_by_the_broker_and_left_alone(site: Site) -> None:
    store = site.room / "state" / "warden.db"
    store.write_bytes(store.read_bytes()[:5000] + b"\xff" * 30_000)
    before = store.read_bytes()
    refused = site.warden("serve")
    assert refused.returncode == 1
    assert f"cannot use the store {store}: " in one_error(refused)
    assert store.read_bytes()[4096:] == before[4096:]


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as output:
        try:
            while True:
                output.write(b"x" * 4096)
        except OSError:
            return


def test_a_client_with_the_key_of_another_broker_gets_no_further(site: Site) -> None:
    site.start_broker()
    with Site() as other:
        site.configure(client={"broker_key": str(other.room / "keys" / "broker.key")})
        with site.client(timeout=1) as client, pytest.raises(UnavailableError, match=r"is .* its key"):
            client.availability()


def test_a_credential_of_another_realm_is_refused_in_words(site: Site) -> None:
    site.start_broker()
    with Site() as other:
        site.configure(access={"munge_socket": str(other.munge_socket)})
        status = site.warden("tasks")
    assert status.returncode == 1
    assert "MUNGE cannot check a credential" in one_error(status)


def test_without_munged_commands_that_need_a_user_say_so_and_status_still_works(site: Site) -> None:
    site.start_broker()
    site.configure(access={"munge_socket": str(site.room / "nothing")})
    assert "start munged" in one_error(site.warden("tasks"))
    assert site.warden("status").returncode == 0


def test_a_worker_with_an_unknown_key_is_not_taken(site: Site) -> None:
    site.start_broker()
    (site.room / "keys" / "worker.key_secret").unlink()
    site.warden("keys", check=True)
    (site.room / "keys" / "workers" / "worker.key").unlink()
    worker = site.start_worker(wait=False)
    wait_until(lambda: 'what="connection to workers"' in site.log_of(site.broker), "the broker refuses it")
    assert site.state() is State.OFFLINE
    assert worker.poll() is None


def test_nothing_of_a_user_is_found_by_its_number_alone(site: Site) -> None:
    site.start_broker()
    with site.resource() as resource, pytest.raises(NotFoundError, match="no such task of yours"):
        resource.task_status("999")


def one_error(finished: subprocess.CompletedProcess[str]) -> str:
    assert finished.returncode != 0
    assert finished.stdout == ""
    assert finished.stderr.count("\n") == 1, finished.stderr
    return finished.stderr
