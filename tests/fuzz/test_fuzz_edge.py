"""The broker's edge under frames that nobody means; `python tests/fuzz/fuzz_edge.py` throws as many as one likes."""

from __future__ import annotations

import pytest
from fuzz_edge import GROWTH, edge, memory

pytestmark = pytest.mark.long

FRAMES = 100_000


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_frame_breaks_the_edge_or_hinders_those_who_mean_what_they_say(seed: int) -> None:
    with edge(seed) as broker:
        sizes = [memory() for _ in broker.throw(FRAMES)]
    assert sizes[-1] - sizes[len(sizes) // 10] < GROWTH


def test_a_seed_throws_the_same_frames() -> None:
    def frames(seed: int) -> list[object]:
        with edge(seed) as broker:
            return [broker._frames() for _ in range(20)]

    assert frames(5) == frames(5)
    assert frames(5) != frames(6)
