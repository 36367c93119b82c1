"""What the worker adds to an emulator, what the cache spares, and which emulator is the faster one.

    python benchmarks/emulators.py [--emulator qutip] [--largest 14]

A real worker process gets orders as from a broker, over CURVE. In turns with it the same emulator is called bare, in this
process: as Pulser's users call it, with a sequence that is there, for as many shots. It exits with 1 when a bound is broken.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib
import logging
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import zmq

from warden import frames, keyring, orders, wire
from warden.qpu import shots
from warden.qpu.noise import Noise
from warden.qpu.physics import EMULATORS, Order

if TYPE_CHECKING:
    from types import ModuleType

OVERHEAD, OVERHEAD_SECONDS = 0.05, 0.005
SAME_SEQUENCE = 1.2
BACKENDS = {
    "qutip": ("pulser_simulation", "QutipBackendV2", "QutipConfig"),
    "emu-sv": ("emu_sv", "SVBackend", "SVConfig"),
    "emu-mps": ("emu_mps", "MPSBackend", "MPSConfig"),
}
TASKS = 100
SHOTS = 500
TURNS = 15


def ring(qubits: int, detuning: float = 20.0) -> str:
    """An adiabatic sweep of 1552 ns on a ring."""
    import pulser  # noqa: PLC0415 - --help does not wait for it

    radius = 6.0 / (2 * math.sin(math.pi / qubits)) if qubits > 1 else 0.0
    angles = [2 * math.pi * atom / qubits for atom in range(qubits)]
    register = pulser.Register({f"q{i}": (radius * math.cos(a), radius * math.sin(a)) for i, a in enumerate(angles)})
    sequence = pulser.Sequence(register, pulser.MockDevice)
    sequence.declare_channel("global", "rydberg_global")
    rabi = 2 * math.pi
    sequence.add(pulser.Pulse.ConstantDetuning(pulser.RampWaveform(252, 0.0, rabi), -detuning, 0.0), "global")
    sweep = pulser.RampWaveform(1048, -detuning, detuning)
    sequence.add(pulser.Pulse.ConstantAmplitude(rabi, sweep, 0.0), "global")
    sequence.add(pulser.Pulse.ConstantDetuning(pulser.RampWaveform(252, rabi, 0.0), detuning, 0.0), "global")
    return str(sequence.to_abstract_repr())


class Bench:
    """A worker, and the broker's side of its connection."""

    def __init__(self, emulator: str) -> None:
        self._room = tempfile.TemporaryDirectory(prefix="w", dir="/tmp")
        room = Path(self._room.name)
        keys = room / "keys"
        file = room / "warden.toml"
        file.write_text(
            f'[qpu]\ndevice = "MockDevice"\nemulator = "{emulator}"\nqubits = 20\n'
            "overhead = 0\nloading = 0\nshot_rate = 0\n"
            f'[broker]\nworkers = ["ipc://{room}/w"]\nclients = ["ipc://{room}/c"]\nstate = "{room}/state"\n'
            f'keys = "{keys}"\nheartbeat = 1\n',
            encoding="utf-8",
        )
        warden = [sys.executable, "-c", "from warden.cli import main; main()"]
        subprocess.run([*warden, "keys", "--config", str(file)], check=True, stdout=subprocess.DEVNULL)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.curve_server = True
        public, secret = keyring.key_pair(keys / f"{keyring.BROKER}.key_secret")
        self._socket.curve_publickey, self._socket.curve_secretkey = public, secret
        self._socket.bind(f"ipc://{room}/w")
        self._process = subprocess.Popen([*warden, "worker", "--config", str(file)], stderr=subprocess.DEVNULL)
        self._peer = b""
        self._clock = 0
        self._hear(orders.WorkerHello)
        self._say(orders.Welcome(interval=1_000_000))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._context.destroy(linger=0)
        self._room.cleanup()

    def run(self, task: int, sequence: str) -> float:
        """Seconds from the order to its result."""
        token = str(uuid.uuid4())
        begun = time.perf_counter()
        self._say(
            orders.StartRun(
                token=token, task=task, sequence=sequence, first_shot=0, shots=SHOTS, issued=self._clock, limit=None
            )
        )
        while (finished := self._hear(orders.RunFinished)).token != token:
            pass
        took = time.perf_counter() - begun
        assert sum(finished.counts.values()) == SHOTS, finished.error
        self._say(orders.ForgetRun(token=token))
        return took

    def _say(self, body: wire.Message) -> None:
        self._socket.send_multipart([self._peer, frames.pack(body)])

    def _hear(self, kind: type[Any]) -> Any:
        while True:
            assert self._socket.poll(300_000), "the worker is silent"
            self._peer, said = self._socket.recv_multipart()
            body: Any = frames.unpack(said, orders.FromWorker)
            if isinstance(body, orders.WorkerHello | orders.WorkerBeat):
                self._clock = body.clock
            if isinstance(body, kind):
                return body


def bare(emulator: str, text: str) -> float:
    """Seconds of Pulser's call alone, in this process."""
    import pulser  # noqa: PLC0415 - --help does not wait for it
    from pulser.backend import BitStrings  # noqa: PLC0415

    where, backend, config = BACKENDS[emulator]
    module = importlib.import_module(where)
    shots_ = BitStrings(evaluation_times=[1.0], num_shots=SHOTS)
    options = {} if emulator == "qutip" else {"log_level": logging.ERROR, "gpu": False}
    sequence = pulser.Sequence.from_abstract_repr(text)
    begun = time.perf_counter()
    found = getattr(module, backend)(sequence, config=getattr(module, config)(observables=[shots_], **options)).run()
    took = time.perf_counter() - begun
    assert sum(found.get_result(shots_, 1.0).values()) == SHOTS
    return took


def ours(module: ModuleType, sequence: str) -> float:
    """Seconds of what the worker makes of that call, in this process."""
    begun = time.perf_counter()
    module.emulate(Order(device="MockDevice", sequence=sequence, noise=Noise()))
    return time.perf_counter() - begun


def overhead(emulator: str, qubits: int) -> bool:
    bare(emulator, ring(qubits))
    alone, whole = [], []
    with Bench(emulator) as bench:
        bench.run(1, ring(qubits))
        for turn in range(TURNS):
            # Another sequence each time, for the worker keeps what it has emulated.
            sequence = ring(qubits, 20.0 + turn / 1000)
            alone.append(bare(emulator, sequence))
            whole.append(bench.run(2 + turn, sequence))
        same, many, first = [], [], []
        for turn in range(TURNS):
            sequence = ring(qubits, 19.0 + turn / 1000)
            same.append(bare(emulator, sequence))
            begun = time.perf_counter()
            first.append(bench.run(100 + turn * TASKS, sequence))
            for task in range(1, TASKS):
                bench.run(100 + turn * TASKS + task, sequence)
            many.append(time.perf_counter() - begun)
    usual, added = statistics.median(alone), statistics.median(w - a for w, a in zip(whole, alone, strict=True))
    print(
        f"{emulator}, {qubits} qubits: bare {usual * 1000:.1f} ms, the worker {statistics.median(whole) * 1000:.1f} ms, "
        f"{added * 1000:+.1f} ms ({added / usual:+.1%})"
    )
    # What is ours is loaded only now: it changes Pulser's emulator, to make it faster.
    sampling = drawing(importlib.import_module(EMULATORS[emulator]), sequence)
    each = statistics.median(m - f for m, f in zip(many, first, strict=True)) / (TASKS - 1)
    ratio = statistics.median(m / (s + (TASKS - 1) * sampling) for m, s in zip(many, same, strict=True))
    print(
        f"{TASKS} tasks of one sequence: {statistics.median(first) * 1000:.1f} ms the first, {each * 1000:.2f} ms each other, "
        f"of which {sampling * 1000:.2f} ms are its sampling: {ratio:.2f} times a bare call and the sampling"
    )
    return added <= max(OVERHEAD * usual, OVERHEAD_SECONDS) and ratio <= SAME_SEQUENCE


def drawing(module: ModuleType, sequence: str) -> float:
    """Seconds of drawing and counting a task's shots alone."""
    found = module.emulate(Order(device="MockDevice", sequence=sequence, noise=Noise()))
    times = []
    for task in range(TURNS):
        begun = time.perf_counter()
        collections.Counter(shots.draw(found, Noise(), seed=0, task=task, first=0, shots=SHOTS))
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


def table(largest: int) -> None:
    modules = {}
    for name in ("qutip", "emu-sv"):
        with contextlib.suppress(ImportError):
            modules[name] = importlib.import_module(EMULATORS[name])
    print(f"\n| qubits | {' | '.join(modules)} |\n|---|{'---|' * len(modules)}")
    for qubits in range(4, largest + 1, 2):
        best = dict.fromkeys(modules, math.inf)
        for _ in range(3):
            for name, module in modules.items():
                best[name] = min(best[name], ours(module, ring(qubits)))
        print(f"| {qubits} | {' | '.join(f'{best[name]:.2f} s' for name in modules)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emulator", default="qutip", choices=list(BACKENDS))
    parser.add_argument("--qubits", type=int, default=10)
    parser.add_argument("--largest", type=int, default=14)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    kept = overhead(arguments.emulator, arguments.qubits)
    table(arguments.largest)
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).parent.parent))
    main()
