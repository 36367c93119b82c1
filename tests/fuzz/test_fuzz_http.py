"""The HTTP edge under requests that nobody means; `python tests/fuzz/fuzz_http.py` throws as many as one likes."""

from __future__ import annotations

import itertools
import os

import pytest
from fuzz_http import GROWTH, edge
from spoilt_requests import lots

REQUESTS = 20_000


@pytest.mark.long
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("seed", [1])
def test_no_request_breaks_the_edge_or_hinders_those_who_mean_what_they_say(seed: int) -> None:
    with edge() as made:
        sizes = [made.megabytes() for _ in made.throw(REQUESTS, seed)]
    assert made.told["thrown"] >= REQUESTS
    assert made.told["unanswered"] < made.told["lots"] / 100
    assert made.served > 10
    for before, after in zip(sizes[len(sizes) // 10], sizes[-1], strict=True):
        assert after - before < GROWTH


def test_a_seed_throws_the_same_requests() -> None:
    def some(seed: int) -> list[list[bytes]]:
        return list(itertools.islice(lots(seed), 50))

    assert some(5) == some(5)
    assert some(5) != some(6)
