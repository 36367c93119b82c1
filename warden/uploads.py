"""Sequences that are too large for one message, put together from parts. Pure.

Messages are small, so that a stranger's connection can never fill the broker's memory: before it is known whose they are,
libzmq has taken in a few of each. What is large comes in parts, of users that are known, and each has room for two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from warden.model import BadRequestError, LimitError, NotFoundError

if TYPE_CHECKING:
    from warden import wire

# Uploads of a user; one more drops his oldest, as does one more than all have room for.
_OF_A_USER = 2
_OF_ALL = 16


class Uploads:
    """What has been sent so far. It is kept until it is wanted, or others need its place."""

    def __init__(self, largest: int) -> None:
        self._largest = largest
        # By user and name, oldest first.
        self._uploads: dict[tuple[int, str], bytearray] = {}

    def add(self, uid: int, part: wire.Part) -> int:
        """Take in a part, and return how many bytes there are. One that came before changes nothing.

        Raises:
            LimitError: It is more than a sequence may have.
            NotFoundError: What came before is not here any more.
        """
        if part.offset + len(part.data) > self._largest:
            self._uploads.pop((uid, part.upload), None)
            raise LimitError(f"the sequence is larger than {self._largest} bytes")
        if part.offset == 0:
            self._make_room(uid, part.upload)
            self._uploads[uid, part.upload] = bytearray()
        data = self._find(uid, part.upload)
        if part.offset > len(data):
            raise NotFoundError(f"the {part.offset} bytes before this part are not here: send all parts again")
        if part.offset + len(part.data) > len(data):
            data[part.offset :] = part.data
        return len(data)

    def text(self, uid: int, name: str) -> str:
        """All of it, which is then forgotten.

        Raises:
            BadRequestError: It is no text.
            NotFoundError: It is not here any more.
        """
        try:
            return self._find(uid, name).decode()
        except UnicodeDecodeError:
            raise BadRequestError("the sequence is no text") from None
        finally:
            self._uploads.pop((uid, name), None)

    def _find(self, uid: int, name: str) -> bytearray:
        data = self._uploads.get((uid, name))
        if data is None:
            raise NotFoundError("this upload is not here any more: send all its parts again")
        return data

    def _make_room(self, uid: int, name: str) -> None:
        self._uploads.pop((uid, name), None)
        own = [key for key in self._uploads if key[0] == uid]
        while len(own) >= _OF_A_USER:
            del self._uploads[own.pop(0)]
        while len(self._uploads) >= _OF_ALL:
            del self._uploads[next(iter(self._uploads))]
