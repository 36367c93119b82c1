"""Who speaks: CURVE keys for connections, MUNGE credentials for users.

All transport is encrypted with CURVE. Clients make a key pair for each connection and know the broker by its public
key. To say who they are, they send a MUNGE credential over both public keys, which no other connection and no other
broker can use. Workers are known by key pairs of their own, whose public halves the broker has in `keys/workers`.
"""

from __future__ import annotations

import ipaddress
import os
import re
from typing import TYPE_CHECKING

import zmq
import zmq.auth

from warden import munge
from warden.authority import ROOT
from warden.config import networks
from warden.model import ConfigurationError, UnauthenticatedError

if TYPE_CHECKING:
    from pathlib import Path

    from warden.config import AccessSection

BROKER, WORKER, WORKERS = "broker", "worker", "workers"


def payload(client_key: bytes, broker_key: bytes) -> bytes:
    """What a client's credential is made over: this connection, to this broker."""
    return b"warden-hello-1:" + client_key + b":" + broker_key


def prove(client_key: bytes, broker_key: bytes, munge_socket: Path | None = None) -> str:
    return munge.encode(payload(client_key, broker_key), munge_socket)


def verify(credential: str, client_key: bytes, broker_key: bytes, access: AccessSection) -> int:
    """The uid that a credential proves for this connection.

    Raises:
        UnauthenticatedError: It proves nothing, was made for another connection, or on a host that is not trusted so far.
    """
    proven = munge.decode(credential, access.munge_socket)
    if proven.payload != payload(client_key, broker_key):
        raise UnauthenticatedError("this credential was made for another connection")
    check_host(proven.uid, proven.host, access)
    return proven.uid


def check_host(uid: int, host: str, access: AccessSection) -> None:
    """Whether a credential of this user may come from the host with this address.

    Raises:
        UnauthenticatedError: It may not.
    """
    for name, concerned in (("hosts", True), ("root_hosts", uid == ROOT)):
        allowed = networks(getattr(access, name), name)
        if concerned and allowed and not any(ipaddress.IPv4Address(host) in network for network in allowed):
            whom = "root" if name == "root_hosts" else "anybody"
            raise UnauthenticatedError(f"no credential of {whom} is taken from {host}: access.{name} does not name it")


def peer_uid(address: str) -> int | None:
    """The uid that the kernel knows the process at the other end of an ipc:// socket by; None at any other end.

    `address`: of libzmq, localhost:UID:GID:PID.
    """
    found = re.fullmatch(r"localhost:(\d{1,10}):\d{1,10}:\d{1,10}", address, re.ASCII)
    return int(found[1]) if found else None


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


def _load(path: Path) -> tuple[bytes, bytes | None]:
    try:
        return zmq.auth.load_certificate(path)
    except OSError as error:
        why = error.strerror or "it is not there"
        raise ConfigurationError(f"cannot read the key {path}: {why}; `warden keys` makes keys") from None
    except ValueError:
        raise ConfigurationError(f"{path} is no key: `warden keys` makes keys") from None
