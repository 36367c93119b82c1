"""The handle on a cluster: set it up, run things on its hosts, take it down."""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from labcluster import cell, files, kit, linux, network, qrmi
from labcluster.errors import BusyError, LabError, StepError
from labcluster.hosts import Hosts
from labcluster.layout import MASTER, MOST_NODES, host_names, locked, state_home

# Seconds for which `down` waits for an `up` that is just being ended.
_PATIENCE = 30.0

Say = Callable[[str], None]


def _silent(_line: str) -> None:
    pass


@dataclass(frozen=True)
class Record:
    """What a cluster was set up as."""

    nodes: int
    kit: bool
    qrmi: bool = False

    def __str__(self) -> str:
        parts = [f"{self.nodes} execution hosts, {'with' if self.kit else 'without'} the kit"]
        return " and ".join([*parts, "QRMI's clients"] if self.qrmi else parts)


@dataclass(frozen=True)
class Cluster(Hosts):
    """One cluster by its name, whether it is up or not."""

    @classmethod
    def all(cls) -> "list[Cluster]":
        """Every cluster that has a folder, by name."""
        folders = state_home() / "clusters"
        return [cls(path.name) for path in sorted(folders.iterdir())] if folders.exists() else []

    def up(
        self,
        nodes: int = 2,
        *,
        with_kit: bool = True,
        with_qrmi: bool = False,
        shot_rate: float = 0,
        say: Say = _silent,
    ) -> bool:
        """Set the cluster up; False if it is up already, as asked for.

        The emulated QPU delivers `shot_rate` shots a second; 0: as fast as it can. `with_qrmi` adds QRMI's own clients.

        What fails is taken down again, except for the logs.
        """
        if not 1 <= nodes <= MOST_NODES:
            raise LabError(f"a cluster has 1 to {MOST_NODES} execution hosts, not {nodes}")
        wanted = Record(nodes, with_kit, with_qrmi)
        os.umask(0o022)
        with self._locked(0) as lock:
            if self.is_up():
                self._check_same(wanted)
                return False
            self._remove()
            try:
                self._build(wanted, lock, shot_rate, say)
            except BaseException:
                self._stop_hosts()
                raise
            return True

    def down(self) -> bool:
        """End everything on the hosts and remove the cluster's folder; False if there was nothing."""
        with self._locked(_PATIENCE):
            there = self.folder.exists()
            self._remove()
            return there

    def is_up(self) -> bool:
        return self.record.exists() and all(self.is_running(host) for host in self.hosts)

    def _check_same(self, wanted: "Record") -> None:
        record = Record(**json.loads(self.record.read_text()))
        if record != wanted:
            raise BusyError(f"cluster {self.name} is up with {record}: run ./lab down{self.option} first")

    def _build(self, wanted: "Record", lock: int, shot_rate: float, say: Say) -> None:
        if wanted.kit:
            kit.install(self, say)
        if wanted.qrmi:
            qrmi.install(self, say)
        say(f"setting up {MASTER} and {wanted.nodes} execution host{'s' if wanted.nodes > 1 else ''}")
        self.folder.mkdir(parents=True)
        self.folder.parent.chmod(0o700)
        self.logs.mkdir()
        for host in host_names(wanted.nodes):
            self.host_folder(host).mkdir(parents=True)
        files.write_files(self, lock)
        if wanted.qrmi:
            qrmi.link_commands(self)
        self._start_hosts(lock)
        network.connect(self)
        say("starting Grid Engine")
        cell.start_cell(self)
        if wanted.kit:
            kit.start(self, shot_rate, say)
        self.record.write_text(json.dumps(asdict(wanted)) + "\n")

    def _start_hosts(self, lock: int) -> None:
        # They inherit the lock until they hold their own, so no `down` can come too early to see them. And what the
        # terminal sends to end this process does not reach them: they are ended from here, or by `down`.
        program = str(Path(__file__).with_name("host.py"))
        starts = {
            host: subprocess.Popen(
                [sys.executable, "-IS", program, self.name, str(self.home), host, str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                pass_fds=[lock],
                start_new_session=True,
            )
            for host in self.hosts
        }
        told = {host: start.communicate()[0].strip() for host, start in starts.items()}
        for host, line in told.items():
            if line != "ready":
                raise StepError(f"could not make host {host}: {line}")

    def _stop_hosts(self) -> None:
        with contextlib.ExitStack() as stack:
            held = [stack.enter_context(linux.holding(self.init_lock(host))) for host in self.hosts]
            running = [found[1] for found in held if found]
            for pidfd in running:
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            # A host's first process ends only when the last of its processes has.
            for pidfd in running:
                if not select.select([pidfd], [], [], 30)[0]:
                    raise StepError(f"a host of cluster {self.name} does not end: try ./lab down{self.option} again")

    def _remove(self) -> None:
        self._stop_hosts()
        if self.folder.exists():
            self.record.unlink(missing_ok=True)
            shutil.rmtree(self.folder)

    def _locked(self, limit: float) -> contextlib.AbstractContextManager[int]:
        return locked(
            self.lock, limit, f"another lab command is at work on cluster {self.name}: wait for it, or end it"
        )

    # Grid Engine's and Warden's daemons

    def start_execd(self, host: str) -> None:
        cell.start_execd(self, host)

    def stop_execd(self, host: str, number: signal.Signals = signal.SIGTERM) -> None:
        """End the execution daemon with a signal; its jobs go on."""
        cell.stop_execd(self, host, number)

    def restart_execd(self, host: str) -> None:
        """A load sensor that is newly configured runs only after this."""
        self.stop_execd(host)
        self.start_execd(host)

    def start_broker(self) -> None:
        kit.start_broker(self)

    def stop_broker(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Send the broker a signal and wait until it has ended."""
        kit.stop_broker(self, number)

    def start_worker(self) -> None:
        kit.start_worker(self)

    def stop_worker(self, number: signal.Signals = signal.SIGTERM) -> None:
        kit.stop_worker(self, number)
