"""The broker's loop, where it meets what nobody foresaw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from warden import wire
from warden.broker import Broker
from warden.core import Core
from warden.events import Asked

if TYPE_CHECKING:
    import pytest
    from warden_site import Site

    from warden.events import Effect, Event


def test_a_request_that_hits_a_bug_is_refused_and_those_of_the_same_turn_are_not(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = Core.handle

    def buggy(core: Core, event: Event, now: int) -> list[Effect]:
        if isinstance(event, Asked) and isinstance(event.body, wire.GetTarget):
            raise ZeroDivisionError
        return handle(core, event, now)

    monkeypatch.setattr(Core, "handle", buggy)
    answers: dict[bytes, dict[str, Any]] = {}
    with Broker(site.configure()) as broker:
        monkeypatch.setattr(
            broker, "_send", lambda _, peer, frame: answers.update({peer: wire._unpackb(frame)}), raising=True
        )
        sessions = wire.ListSessions()
        broker._turn(
            [Asked(b"a", 1, 0, wire.GetPlan()), Asked(b"b", 1, 0, wire.GetTarget()), Asked(b"c", 1, 0, sessions)]
        )
    assert answers[b"a"]["ok"] == []
    assert "bug" in answers[b"b"]["error"]["text"]
    assert "ok" in answers[b"c"]
