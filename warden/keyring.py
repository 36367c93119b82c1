"""Keys in files: the pairs of the broker, its workers and its edges, and the next pair of a broker whose key is being changed.

In the folder of the broker's keys:

    broker.key, broker.key_secret              the broker's
    broker.next.key, broker.next.key_secret    the one that it will have next (`warden keys --next`, `--switch`)
    worker.key_secret, workers/*.key           a worker's, and the public halves of all workers that the broker takes
    edge.key_secret, edges/*.key               the same of the edges
"""

from __future__ import annotations

import contextlib
import logging
import os
from typing import TYPE_CHECKING

import zmq.auth

from warden.model import ConfigurationError, ConflictError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

log = logging.getLogger("warden.broker")

BROKER, NEXT, WORKER, EDGE = "broker", "broker.next", "worker", "edge"
WORKERS, EDGES = "workers", "edges"


def make_keys(folder: Path) -> list[Path]:
    """Make what is missing of the broker's, the worker's and the edge's key pairs, and say what was made."""
    places = {BROKER: folder, WORKER: folder / WORKERS, EDGE: folder / EDGES}
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        owner = folder.stat()
        for public in places.values():
            public.mkdir(exist_ok=True)
            public.chmod(0o755)
            # Root may make them; the folder's owner registers keys in them.
            os.chown(public, owner.st_uid, owner.st_gid)
        return [path for name, public in places.items() for path in _make(folder, name, public)]


def make_edge(folder: Path) -> list[Path]:
    """Make an edge's pair alone, on a host without a broker, where it is missing, and say what was made."""
    with _writing(folder):
        return _make(folder, EDGE, folder)


def make_next(folder: Path) -> list[Path]:
    """Make the pair that the broker shall have next, where there is none yet, and say what was made."""
    with _writing(folder):
        return _make(folder, NEXT, folder)


def switch(folder: Path) -> None:
    """Make the next pair of the broker its pair. What a crash leaves half done, another call finishes.

    Raises:
        ConflictError: There is no next pair.
    """
    if not (folder / f"{NEXT}.key_secret").exists():
        raise ConflictError(f"there is no next key in {folder}: `warden keys --next` makes one")
    with _writing(folder):
        if (folder / f"{NEXT}.key").exists():
            (folder / f"{NEXT}.key").rename(folder / f"{BROKER}.key")
        (folder / f"{NEXT}.key_secret").rename(folder / f"{BROKER}.key_secret")


def broker_keys(path: Path) -> tuple[bytes, ...]:
    """The broker's public key in `path`, and the one that it will have next, if it lies beside."""
    following = path.with_name(f"{path.stem}.next{path.suffix}")
    return (public_key(path), public_key(following)) if following.exists() else (public_key(path),)


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    # zmq writes the secret half with the mode that it is left; nobody else may read it at any time.
    umask = os.umask(0o077)
    try:
        yield
    except OSError as error:
        raise ConfigurationError(f"cannot make keys in {folder}: {error.strerror}") from None
    finally:
        os.umask(umask)


def _make(folder: Path, name: str, public: Path) -> list[Path]:
    secret = folder / f"{name}.key_secret"
    if secret.exists():
        return []
    zmq.auth.create_certificates(folder, name)
    (folder / f"{name}.key").chmod(0o644)
    owner = folder.stat()
    for path in (secret, folder / f"{name}.key"):
        # Root may make them; the folder's owner is who reads them.
        os.chown(path, owner.st_uid, owner.st_gid)
    (folder / f"{name}.key").rename(public / f"{name}.key")
    return [secret, public / f"{name}.key"]


def public_key(path: Path) -> bytes:
    return _load(path)[0]


def key_pair(path: Path) -> tuple[bytes, bytes]:
    public, secret = _load(path)
    if secret is None:
        raise ConfigurationError(f"{path} holds no secret key: run `warden keys`")
    return public, secret


class PublicKeys:
    """The public keys of those that the broker takes, as they are in the folder at each moment."""

    def __init__(self, folder: Path) -> None:
        """Read them.

        Raises:
            ConfigurationError: One of the files is no key.
        """
        self._folder = folder
        self._files: object = None
        self._keys: frozenset[bytes] = frozenset()
        for path in self._folder.glob("*.key"):
            public_key(path)

    def now(self) -> frozenset[bytes]:
        """Those that are there at this moment."""
        files = sorted((path, _identity(path)) for path in self._folder.glob("*.key"))
        if files != self._files:
            self._files, self._keys = files, frozenset(self._readable(path for path, _ in files))
        return self._keys

    def __contains__(self, key: bytes) -> bool:
        return key in self.now()

    @staticmethod
    def _readable(paths: Iterable[Path]) -> Iterator[bytes]:
        for path in paths:
            try:
                yield public_key(path)
            except ConfigurationError as error:
                log.warning("nobody is known by it: %s", error)


def _identity(path: Path) -> tuple[int, ...]:
    """What changes with a file, whether it was replaced or written in place."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        return zmq.auth.load_certificate(path)
    except PermissionError:
        raise ConfigurationError(f"cannot read the key {path}: it is another user's, run this as him") from None
    except OSError as error:
        why = error.strerror or "it is not there"
        hint = "copy it from the broker's host, or make it there with `warden keys`"
        raise ConfigurationError(f"cannot read the key {path}: {why}; {hint}") from None
    except ValueError:
        raise ConfigurationError(f"{path} is no key: `warden keys` makes keys") from None
