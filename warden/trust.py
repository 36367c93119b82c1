"""Who speaks: CURVE keys for connections, MUNGE credentials for users.

All transport is encrypted with CURVE. Clients make a key pair for each connection and know the broker by its public
key. To say who they are, they send a MUNGE credential over both public keys, which no other connection and no other
broker can use. Workers are known by key pairs of their own, whose public halves the broker has in `keys/workers`.
"""

from __future__ import annotations

import os
import pwd
from typing import TYPE_CHECKING

import zmq
import zmq.auth

from warden import munge
from warden.model import ConfigurationError, UnauthenticatedError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BROKER, WORKER, WORKERS = "broker", "worker", "workers"


def payload(client_key: bytes, broker_key: bytes) -> bytes:
    """What a client's credential is made over: this connection, to this broker."""
    return b"warden-hello-1:" + client_key + b":" + broker_key


def prove(client_key: bytes, broker_key: bytes, munge_socket: Path | None = None) -> str:
    return munge.encode(payload(client_key, broker_key), munge_socket)


def verify(credential: str, client_key: bytes, broker_key: bytes, munge_socket: Path | None = None) -> int:
    """The uid that a credential proves for this connection.

    Raises:
        UnauthenticatedError: It proves nothing, or was made for another connection.
    """
    proven = munge.decode(credential, munge_socket)
    if proven.payload != payload(client_key, broker_key):
        raise UnauthenticatedError("this credential was made for another connection")
    return proven.uid


def make_keys(folder: Path) -> list[Path]:
    """Make what is missing of the broker's and the worker's key pairs, and say what was made."""
    made = []
    # zmq writes the secret half with the mode that it is left; nobody else may read it at any time.
    umask = os.umask(0o077)
    try:
        for public in (folder, folder / WORKERS):
            public.mkdir(parents=True, exist_ok=True)
            public.chmod(0o755)
        for name, public in ((BROKER, folder), (WORKER, folder / WORKERS)):
            secret = folder / f"{name}.key_secret"
            if not secret.exists():
                zmq.auth.create_certificates(folder, name)
                (folder / f"{name}.key").chmod(0o644)
                (folder / f"{name}.key").rename(public / f"{name}.key")
                made += [secret, public / f"{name}.key"]
    except OSError as error:
        raise ConfigurationError(f"cannot make keys in {folder}: {error.strerror}") from None
    finally:
        os.umask(umask)
    return made


def public_key(path: Path) -> bytes:
    return _load(path)[0]


def key_pair(path: Path) -> tuple[bytes, bytes]:
    public, secret = _load(path)
    if secret is None:
        raise ConfigurationError(f"{path} holds no secret key: run `warden keys`")
    return public, secret


def worker_keys(folder: Path) -> frozenset[bytes]:
    """The public keys of the workers that the broker takes."""
    return frozenset(public_key(path) for path in sorted((folder / WORKERS).glob("*.key")))


def uids(users: Iterable[str | int], where: str) -> frozenset[int]:
    """Turn user names and numbers into uids; `where` in the configuration they stand."""
    found = set()
    for user in users:
        try:
            found.add(user if isinstance(user, int) else pwd.getpwnam(user).pw_uid)
        except KeyError:
            raise ConfigurationError(f"{where} names {user!r}, and there is no such user here") from None
    return frozenset(found)


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        return zmq.auth.load_certificate(path)
    except OSError as error:
        why = error.strerror or "it is not there"
        raise ConfigurationError(f"cannot read the key {path}: {why}; `warden keys` makes keys") from None
    except ValueError:
        raise ConfigurationError(f"{path} is no key: `warden keys` makes keys") from None
