"""The broker's loop: its sockets meet its engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warden import wire
from warden.broker import Broker
from warden.events import Asked

if TYPE_CHECKING:
    import pytest
    from warden_site import Site

    from warden.engine import Outgoing


def test_a_turn_s_answers_go_to_the_clients_that_asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: dict[bytes, dict[str, Any]] = {}

    def send(outgoing: Outgoing) -> None:
        answers[outgoing.peer] = wire._unpackb(outgoing.frame)

    with Broker(site.configure()) as broker:
        monkeypatch.setattr(broker, "_send", send)
        broker._turn([Asked(b"a", 1, 0, wire.GetPlan()), Asked(b"b", 2, 0, wire.ListSessions())])
    assert answers[b"a"]["ok"] == []
    assert answers[b"b"]["id"] == 2
