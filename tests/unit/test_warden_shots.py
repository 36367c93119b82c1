"""Shots: the same for the same task however it is cut, on each NumPy, and as probable as they should be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from warden.qpu import shots
from warden.qpu.cache import Cache
from warden.qpu.noise import Noise
from warden.qpu.physics import Distribution, Order

IDEAL = Noise()
THREE = shots.distribution(np.array([0.1, 0.2, 0.3, 0.0, 0.25, 0.05, 0.05, 0.05]))


def draw(first: int, count: int, noise: Noise = IDEAL, seed: int = 1, task: int = 2) -> list[str]:
    return shots.draw(THREE, noise, seed=seed, task=task, first=first, shots=count)


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=10),
    st.floats(0, 1),
    st.floats(0, 1),
    st.integers(0, 2**63 - 1),
    st.integers(1, 2**62),
)
def test_a_task_cut_in_pieces_gives_the_same_shots_as_in_one_go(
    pieces: list[int], false_pos: float, false_neg: float, seed: int, task: int
) -> None:
    noise = Noise(p_false_pos=false_pos, p_false_neg=false_neg)
    whole = draw(0, sum(pieces), noise, seed, task)
    cut: list[str] = []
    for piece in pieces:
        cut += draw(len(cut), piece, noise, seed, task)
    assert cut == whole


def test_other_tasks_and_other_seeds_draw_other_shots() -> None:
    assert (
        len({tuple(draw(0, 100, seed=seed, task=task)) for seed, task in ((1, 2), (1, 3), (2, 2), (12, 2), (1, 22))})
        == 5
    )


def test_the_shots_are_these_on_each_numpy() -> None:
    assert " ".join(draw(0, 12)) == "101 000 100 100 010 001 001 010 010 100 100 010"
    assert " ".join(draw(1_000_000_000, 3)) == "010 010 000"


def test_shots_are_as_frequent_as_they_are_probable() -> None:
    """Each of eight frequencies within five standard deviations: it fails once in 200,000 times, were the seed not fixed."""
    count = 100_000
    drawn = draw(0, count)
    for bits, p in shots.probabilities(THREE).items():
        assert abs(drawn.count(bits) - p * count) < 5 * math.sqrt(count * p * (1 - p))
    assert "011" not in drawn


def test_detection_errors_turn_bits_as_often_as_they_say() -> None:
    """Six frequencies within five standard deviations, as above."""
    count = 100_000
    noise = Noise(p_false_pos=0.03, p_false_neg=0.08)
    for clean, read in zip(zip(*draw(0, count), strict=True), zip(*draw(0, count, noise), strict=True), strict=True):
        for bit, wrong in (("0", 0.03), ("1", 0.08)):
            there = clean.count(bit)
            turned = sum(a != b for a, b in zip(clean, read, strict=True) if a == bit)
            assert abs(turned - wrong * there) < 5 * math.sqrt(there * wrong * (1 - wrong))


def test_a_pool_of_samples_is_a_distribution() -> None:
    pool = shots.pool([("1" * 70, 3), ("0" * 70, 1), ("01" * 35, 4)])
    assert shots.probabilities(pool) == pytest.approx({"0" * 70: 0.125, "01" * 35: 0.5, "1" * 70: 0.375})
    assert set(shots.draw(pool, IDEAL, seed=0, task=1, first=0, shots=100)) == {"1" * 70, "0" * 70, "01" * 35}


def test_what_is_certain_is_read_with_errors_all_the_same() -> None:
    assert shots.draw(Distribution(3), IDEAL, seed=0, task=1, first=0, shots=2) == ["000", "000"]
    assert shots.draw(Distribution(3), Noise(p_false_pos=1.0), seed=0, task=1, first=0, shots=2) == ["111", "111"]


# --- the cache ---


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 3000)), max_size=60))
def test_a_cache_never_has_more_than_its_bytes_and_forgets_what_was_used_least_recently(
    puts: list[tuple[int, int]],
) -> None:
    limit = 6000
    cache = Cache(limit)
    for name, size in puts:
        distribution = Distribution(1, bytes(size))
        cache.put(bytes([name]), distribution)
        assert cache.size <= limit
        assert cache.get(bytes([name])) is distribution
    kept = [bytes([name]) for name in range(9) if cache.get(bytes([name])) is not None]
    recent = list(dict.fromkeys(bytes([name]) for name, _ in reversed(puts)))
    assert set(kept) == set(recent[: len(kept)])


def test_what_is_larger_than_the_cache_is_not_kept() -> None:
    cache = Cache(2000)
    cache.put(b"small", Distribution(1, bytes(100)))
    cache.put(b"large", Distribution(1, bytes(3000)))
    assert cache.get(b"small") is not None
    assert cache.get(b"large") is None
    assert Cache(0).get(b"small") is None


def test_a_digest_is_of_all_that_the_distribution_follows_from() -> None:
    order = Order(device="d", sequence="s", noise=Noise(), seed=1)
    others = [
        Order(device="e", sequence="s", noise=Noise(), seed=1),
        Order(device="d", sequence="t", noise=Noise(), seed=1),
        Order(device="d", sequence="s", noise=Noise(), seed=2),
        Order(device="d", sequence="s", noise=Noise(rabi_error=1e-9), seed=1),
    ]
    assert len({order.digest, *(other.digest for other in others)}) == 5
    assert Order(device="d", sequence="s", noise=Noise(p_false_pos=0.1), seed=1).digest == order.digest
