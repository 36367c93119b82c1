"""What a check says of an emulation, beside what the emulation takes: time, and memory.

    python benchmarks/estimates.py [--emulator qutip] [--kind sweep] [--noise none] [--largest 14] [--longest 3] [--each]

Each emulation has a new process, forked from one that has imported the emulator and warmed it up, as the worker's have.
The truth is the wall time, or the processor's time where that is less: others may be at work on the machine. What would
take longer than --longest is left out; everything, that is `--longest inf`, takes hours. It exits with 1 if an estimate is
shorter than the truth, or a bound of memory lower.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import math
import multiprocessing
import resource
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from warden.qpu import child, emulation
from warden.qpu.noise import Noise
from warden.qpu.physics import EMULATORS, Order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    import pulser

RABI = 2 * math.pi
ATOMS = {
    "qutip": (1, 2, 4, 6, 8, 10, 12, 14),
    "emu-sv": (1, 2, 4, 6, 8, 10, 12, 14),
    "emu-mps": (2, 4, 6, 8, 12, 16, 20),
}
DURATIONS = (200, 1500, 5000)
# From here on a ratio says something; what is shorter has the constant that all have.
WORTH_A_RATIO = 0.3
# What is estimated to take less is measured three times.
AGAIN = 2.0

NOISES = {
    "none": Noise(),
    "errors": Noise(rabi_error=0.03, detuning_error=0.5),
    "spreads": Noise(amp_sigma=0.03, detuning_sigma=0.3, temperature=50.0, state_prep_error=0.01),
    "dephasing": Noise(dephasing_rate=0.2),
    "all": Noise(
        amp_sigma=0.03,
        detuning_sigma=0.3,
        temperature=50.0,
        state_prep_error=0.01,
        dephasing_rate=0.2,
        rabi_error=0.03,
        detuning_error=0.5,
    ),
}


def ring(atoms: int, spacing: float) -> list[tuple[float, float]]:
    radius = spacing / (2 * math.sin(math.pi / atoms)) if atoms > 1 else 0.0
    return [
        (radius * math.cos(2 * math.pi * i / atoms), radius * math.sin(2 * math.pi * i / atoms)) for i in range(atoms)
    ]


def square(atoms: int, spacing: float) -> list[tuple[float, float]]:
    side = math.ceil(math.sqrt(atoms))
    return [(spacing * (i % side), spacing * (i // side)) for i in range(atoms)]


def _on(places: list[tuple[float, float]], **channels: str) -> pulser.Sequence:
    import pulser  # noqa: PLC0415 - --help does not wait for it

    made = pulser.Sequence(pulser.Register({f"q{i}": place for i, place in enumerate(places)}), pulser.MockDevice)
    for name, channel in channels.items():
        local = {"initial_target": "q0"} if channel.endswith("local") else {}
        made.declare_channel(name, channel, **local)
    return made


def _sweep(made: pulser.Sequence, duration: int, width: float = 20.0) -> pulser.Sequence:
    import pulser  # noqa: PLC0415

    rise = duration // 6
    made.add(pulser.Pulse.ConstantDetuning(pulser.RampWaveform(rise, 0.0, RABI), -width, 0.0), "a")
    sweep = pulser.RampWaveform(duration - 2 * rise, -width, width)
    made.add(pulser.Pulse.ConstantAmplitude(RABI, sweep, 0.0), "a")
    made.add(pulser.Pulse.ConstantDetuning(pulser.RampWaveform(rise, RABI, 0.0), width, 0.0), "a")
    return made


def sweep(atoms: int, duration: int) -> pulser.Sequence:
    """An adiabatic sweep on a ring."""
    return _sweep(_on(ring(atoms, 6.0), a="rydberg_global"), duration)


def close(atoms: int, duration: int) -> pulser.Sequence:
    """The same on a square lattice, 5 um apart at Rydberg level 70: as close as devices have it, and as strong."""
    return _sweep(_on(square(atoms, 5.0), a="rydberg_global"), duration)


def quench(atoms: int, duration: int) -> pulser.Sequence:
    """Resonant light on a ring of atoms that just feel each other: what entangles most."""
    import pulser  # noqa: PLC0415

    made = _on(ring(atoms, 7.5), a="rydberg_global")
    made.add(pulser.Pulse.ConstantPulse(duration, RABI, 0.0, 0.0), "a")
    return made


def xy(atoms: int, duration: int) -> pulser.Sequence:
    import pulser  # noqa: PLC0415

    made = _on(square(atoms, 10.0), a="mw_global")
    made.add(pulser.Pulse.ConstantPulse(duration // 2, RABI, 0.0, 0.0), "a")
    made.delay(duration - duration // 2, "a")
    return made


def digital(atoms: int, duration: int) -> pulser.Sequence:
    """Raman and Rydberg pulses, one after the other, atom by atom: three levels."""
    import pulser  # noqa: PLC0415

    made = _on(square(atoms, 5.0), a="raman_local", b="rydberg_local")
    pulse = max(16, duration // (2 * atoms))
    for atom in range(atoms):
        made.target(f"q{atom}", "a")
        made.add(pulser.Pulse.ConstantPulse(pulse, RABI, 0.0, atom / 2), "a")
        made.target(f"q{atom}", "b")
        made.add(pulser.Pulse.ConstantPulse(pulse, RABI, 0.0, 0.0), "b")
    return made


def raman(atoms: int, duration: int) -> pulser.Sequence:
    return _sweep(_on(square(atoms, 5.0), a="raman_global"), duration)


def delay(atoms: int, duration: int) -> pulser.Sequence:
    """A short pulse, and twenty times as long nothing."""
    import pulser  # noqa: PLC0415

    made = _on(ring(atoms, 6.0), a="rydberg_global")
    made.add(pulser.Pulse.ConstantPulse(100, RABI, 0.0, 0.0), "a")
    made.delay(20 * duration, "a")
    return made


def alternating(atoms: int, duration: int) -> pulser.Sequence:
    """Pulses of 16 ns whose detuning goes back and forth between ends that are far apart, with another phase each."""
    import pulser  # noqa: PLC0415

    made = _on(ring(atoms, 6.0), a="rydberg_global")
    for i in range(max(1, duration // 16)):
        made.add(pulser.Pulse.ConstantPulse(16, 2 * RABI, 500.0 * (-1) ** i, float(i)), "a")
    return made


def rough(atoms: int, duration: int) -> pulser.Sequence:
    """Detuning as it is measured, or as an optimiser has made it: smooth but for a little that is another one each ns."""
    import numpy as np  # noqa: PLC0415
    import pulser  # noqa: PLC0415

    made = _on(ring(atoms, 6.0), a="rydberg_global")
    noise = np.random.default_rng(1).normal(0.0, 0.1, duration)
    detuning = pulser.CustomWaveform(np.linspace(-20.0, 20.0, duration) + noise)
    made.add(pulser.Pulse.ConstantAmplitude(RABI, detuning, 0.0), "a")
    return made


def hopping(atoms: int, duration: int) -> pulser.Sequence:
    """The same light on one atom after the other."""
    import pulser  # noqa: PLC0415

    made = _on(ring(atoms, 6.0), a="rydberg_local")
    for i in range(max(1, duration // 16)):
        made.target(f"q{i % atoms}", "a")
        made.add(pulser.Pulse.ConstantPulse(16, RABI, 0.0, 0.0), "a")
    return made


def masked(atoms: int, duration: int) -> pulser.Sequence:
    """A detuning map, a mask, and a channel of each atom's own beside the global one."""
    import pulser  # noqa: PLC0415

    made = _on(square(atoms, 5.0), a="rydberg_global", b="rydberg_local")
    weights = {f"q{i}": 1.0 / (1 + i) for i in range(atoms)}
    made.config_detuning_map(made.register.define_detuning_map(weights), "dmm_0")
    if atoms > 1:
        made.config_slm_mask(["q0"], "dmm_0")
    made.add(pulser.Pulse.ConstantPulse(16, RABI, 0.0, 0.0), "b", protocol="no-delay")
    _sweep(made, duration)
    made.add_dmm_detuning(pulser.RampWaveform(duration, -50.0, 0.0), "dmm_0")
    return made


# What an emulator does not know it refuses.
KINDS: dict[str, Callable[[int, int], pulser.Sequence]] = {
    kind.__name__: kind
    for kind in (sweep, close, quench, xy, digital, raman, delay, alternating, rough, hopping, masked)
}


class Truth(NamedTuple):
    """Seconds, and bytes."""

    wall: float
    processor: float
    memory: int

    @property
    def time(self) -> float:
        return min(self.wall, self.processor)


def emulate(module: ModuleType, order: Order) -> Truth:
    """Measured in a process that does nothing else."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_emulate, args=(module, order, theirs), daemon=True)
    process.start()
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        found = RuntimeError("it died")
    process.join()
    if isinstance(found, Exception):
        raise found
    return Truth(*found)


def _emulate(module: ModuleType, order: Order, answer: Any) -> None:
    # What a fork shares counts as the process's own in its peak.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    held, used, begun = _peak(), time.process_time(), time.perf_counter()
    # A worker's process reads the sequence anew.
    emulation.read.cache_clear()
    try:
        module.emulate(order)
    except Exception as error:  # noqa: BLE001 - whatever it is
        answer.send(RuntimeError(f"{type(error).__name__}: {error}"))
        return
    answer.send((time.perf_counter() - begun, time.process_time() - used, _peak() - held))


def _peak() -> int:
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def grid(arguments: argparse.Namespace) -> Iterator[tuple[str, str, int, int]]:
    for kind in arguments.kind or KINDS:
        for noise in arguments.noise or NOISES:
            for duration in DURATIONS:
                for atoms in ATOMS[arguments.emulator]:
                    if atoms <= arguments.largest:
                        yield kind, noise, duration, atoms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emulator", default="qutip", choices=list(ATOMS))
    parser.add_argument("--kind", action="append", choices=list(KINDS), help="of sequences; as many as you like")
    parser.add_argument("--noise", action="append", choices=list(NOISES), help="as many as you like")
    parser.add_argument("--largest", type=int, default=14, help="number of atoms")
    parser.add_argument("--longest", type=float, default=3.0, help="estimate of an emulation, in seconds")
    parser.add_argument("--each", action="store_true", help="show each emulation")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    module = importlib.import_module(EMULATORS[arguments.emulator])
    module.warm_up()
    gc.collect()
    gc.freeze()
    bounds: list[int] = []
    afford = emulation.afford

    def noted(bound: int) -> None:
        bounds.append(bound)
        afford(bound)

    # All that check ask it, with their bound of memory.
    emulation.afford = noted
    ratios: dict[tuple[str, str], list[tuple[float, float]]] = {}
    kept = True
    for kind, noise, duration, atoms in grid(arguments):
        text = KINDS[kind](atoms, duration).to_abstract_repr()
        emulation.read.cache_clear()
        found = child.check(arguments.emulator, child.Check(device="MockDevice", sequence=text, noise=NOISES[noise]))
        if found.error:
            continue
        estimate = found.preparation / 1_000_000
        if estimate > arguments.longest:
            continue
        order = Order(device="MockDevice", sequence=text, noise=NOISES[noise])
        truth = min((emulate(module, order) for _ in range(1 if estimate > AGAIN else 3)), key=lambda one: one.time)
        ratio = estimate / truth.time
        ratios.setdefault((kind, noise), []).append((truth.time, ratio))
        broken = ratio < 1 or truth.memory > bounds[-1]
        kept = kept and not broken
        if arguments.each or broken:
            print(
                f"{kind:11} {noise:9} {atoms:2} x {duration:4} ns {estimate:7.2f} s /{truth.time:6.2f} s = {ratio:4.1f} "
                f"{bounds[-1] / 2**20:5.0f} MiB /{truth.memory / 2**20:4.0f}{' BROKEN' * broken}",
                flush=True,
            )
    print(f"Ratios of estimate and truth are of emulations that take longer than {WORTH_A_RATIO} s.")
    print(f"{'sequence':11} {'noise':9} {'number':>6} {'longest':>8} {'least':>6} {'most':>6}")
    for (kind, noise), all_ in ratios.items():
        worth = [ratio for time_, ratio in all_ if time_ > WORTH_A_RATIO]
        longest = max(time_ for time_, _ in all_)
        span = f"{min(worth):6.1f} {max(worth):6.1f}" if worth else f"{'-':>6} {'-':>6}"
        print(f"{kind:11} {noise:9} {len(all_):6} {longest:6.2f} s {span}")
    sys.exit(0 if kept else 1)


if __name__ == "__main__":
    main()
