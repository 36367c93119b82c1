"""Whole sites under faults, from many seeds. A failure prints the seed and the command that shows all that happened."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from simulation_site import simulate

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
SEEDS = 500
CHUNK = 20


@pytest.mark.timeout(600)
@pytest.mark.parametrize("first", range(1, SEEDS + 1, CHUNK))
def test_what_is_promised_holds_whatever_fails(first: int) -> None:
    results = [simulate(seed) for seed in range(first, first + CHUNK)]
    failed = [result for result in results if result.violation]
    told = [f"{result.violation}\n    python -m tests.simulation {result.seed} --log" for result in failed]
    assert not failed, "\n".join(told)
    # A site on which nothing happens keeps all its promises.
    assert sum(result.events for result in results) >= 400 * CHUNK
    assert sum(result.starts for result in results) >= 10 * CHUNK


def digest(seed: int) -> str:
    lines = simulate(seed, log=True).log
    assert len(lines) > 100
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("seed", [3, 7, 12, 19, 27])
def test_a_seed_is_one_life(seed: int) -> None:
    assert digest(seed) == digest(seed)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_a_seed_is_one_life_in_every_process(hash_seed: str) -> None:
    """The order of sets differs from process to process, and nothing may hang on it."""
    seeds = [3, 7, 12]
    script = f"from test_simulation import digest; print(*(digest(seed) for seed in {seeds}))"
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests/simulation"), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == [digest(seed) for seed in seeds], done.stderr


def test_a_seed_can_be_run_by_hand() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-m", "tests.simulation", "3", "--log"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "everybody falls silent" in done.stdout
