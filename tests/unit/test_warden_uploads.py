"""Large sequences in parts: put together, bounded, and each user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from warden_site import AFM, Site

from warden import wire
from warden.model import BadRequestError, LimitError, NotFoundError
from warden.uploads import Uploads

if TYPE_CHECKING:
    from warden.client import Client

ALICE, BOB = 1001, 1002


def send(uploads: Uploads, uid: int, name: str, data: bytes, size: int = 4) -> None:
    for offset in range(0, len(data), size):
        assert uploads.add(uid, wire.Part(upload=name, offset=offset, data=data[offset : offset + size])) == min(
            offset + size, len(data)
        )


@given(st.text(min_size=1), st.integers(1, 20), st.lists(st.integers(0, 30)))
def test_parts_come_together_however_often_each_is_said(text: str, size: int, again: list[int]) -> None:
    uploads, data = Uploads(10_000), text.encode()
    parts = [wire.Part(upload="u", offset=n, data=data[n : n + size]) for n in range(0, len(data), size)]
    for number, part in enumerate(parts):
        uploads.add(ALICE, part)
        for earlier in again:
            # From the first on it would begin anew.
            if 0 < earlier <= number:
                uploads.add(ALICE, parts[earlier])
    assert uploads.text(ALICE, "u") == text


def test_an_upload_is_its_user_s_alone_and_is_taken_once() -> None:
    uploads = Uploads(100)
    send(uploads, ALICE, "u", b"hers")
    with pytest.raises(NotFoundError):
        uploads.text(BOB, "u")
    with pytest.raises(NotFoundError):
        uploads.add(BOB, wire.Part(upload="u", offset=4, data=b"his"))
    assert uploads.text(ALICE, "u") == "hers"
    with pytest.raises(NotFoundError, match="send all its parts again"):
        uploads.text(ALICE, "u")


def test_a_gap_is_no_upload_and_a_beginning_begins_anew() -> None:
    uploads = Uploads(100)
    send(uploads, ALICE, "u", b"first and more")
    with pytest.raises(NotFoundError, match="20 bytes before this part are not here"):
        uploads.add(ALICE, wire.Part(upload="u", offset=20, data=b"x"))
    send(uploads, ALICE, "u", b"other")
    assert uploads.text(ALICE, "u") == "other"


def test_what_is_too_large_or_no_text_is_refused_and_forgotten() -> None:
    uploads = Uploads(10)
    send(uploads, ALICE, "u", b"0123456789")
    with pytest.raises(LimitError, match="larger than 10 bytes"):
        uploads.add(ALICE, wire.Part(upload="u", offset=10, data=b"x"))
    send(uploads, ALICE, "v", b"\xff")
    with pytest.raises(BadRequestError, match="no text"):
        uploads.text(ALICE, "v")
    assert uploads._uploads == {}


def test_a_user_has_room_for_two_and_takes_nobody_else_s() -> None:
    uploads = Uploads(100)
    send(uploads, BOB, "his", b"his")
    for number in range(50):
        send(uploads, ALICE, f"u{number}", b"hers")
    assert uploads.text(BOB, "his") == "his"
    assert list(uploads._uploads) == [(ALICE, "u48"), (ALICE, "u49")]


def test_all_together_have_room_for_so_many() -> None:
    uploads = Uploads(100)
    for uid in range(100):
        send(uploads, uid, "u", b"data")
    assert len(uploads._uploads) == 16


def test_an_upload_that_a_broker_lost_is_sent_again(site: Site) -> None:
    site.start_broker()
    site.start_worker()
    text = AFM + " " * 3 * wire.PART
    with site.client() as client:
        restart_before_the_last_part(site, client)
        task = client.task_start("the-session", text, 5)
        assert client.task(task.id, wait=5).shots == 5


def restart_before_the_last_part(site: Site, client: Client) -> None:
    """Kill the broker once, in the middle of an upload."""
    ask, parts = client._connection.ask, []

    def asked(body: wire.Message, *rest: object, **more: object) -> object:
        if isinstance(body, wire.Part):
            parts.append(body)
            if len(parts) == 3:
                site.kill(site.broker)
                site.start_broker()
        return ask(body, *rest, **more)  # type: ignore[arg-type]

    client._connection.ask = asked  # type: ignore[method-assign, assignment]
