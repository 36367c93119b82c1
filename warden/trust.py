"""Who speaks: CURVE keys for connections, MUNGE credentials for users.

All transport is encrypted with CURVE. Clients make a key pair for each connection and know the broker by its public
key. To say who they are, they send a MUNGE credential over both public keys, which no other connection and no other
broker can use. Workers are known by key pairs of their own, whose public halves the broker has in `keys/workers`.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from typing import TYPE_CHECKING, NamedTuple

from warden import munge
from warden.authority import ROOT
from warden.model import SECOND, UnauthenticatedError
from warden.sections import networks

if TYPE_CHECKING:
    from pathlib import Path

    from warden.model import Micros
    from warden.sections import AccessSection


# Bytes by which a credential is remembered.
_PROOF = 16
# No credential lives longer (MUNGE_MAXIMUM_TTL).
_LIFETIME = 3600 * SECOND
# Half of the credentials that are remembered at most, in case somebody makes very many: about 20 MB.
_REMEMBERED = 100_000


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


class Bearing(NamedTuple):
    """What a credential of an HTTP request proves: who sends it, and from where; `proof` stands for the credential."""

    uid: int
    host: str
    proof: bytes


def own_host(access: AccessSection) -> str:
    """The address that munged gives credentials of this host.

    Raises:
        UnavailableError: munged is not running on this host.
    """
    return munge.decode(munge.encode(b"", access.munge_socket), access.munge_socket).host


def verify_bearer(credential: str, access: AccessSection, only_from: str = "") -> Bearing:
    """Whose request it is that comes with a credential over nothing, as QRMI's clients make them.

    `only_from`: the host where it has to be made.

    Raises:
        UnauthenticatedError: It proves nothing, was made for something else, or on a host that is not trusted so far.
    """
    # Munged bears white space and a tail, so that one credential could be written in many ways.
    found = re.fullmatch(r"MUNGE:([A-Za-z0-9+/]+={0,2}):", credential, re.ASCII)
    try:
        told = base64.b64decode(found[1] if found else "?", validate=True)
    except ValueError:
        raise UnauthenticatedError("this is no MUNGE credential") from None
    proven = munge.decode(credential, access.munge_socket)
    if proven.payload:
        raise UnauthenticatedError("this credential was made for something else than a request")
    check_host(proven.uid, proven.host, access)
    if only_from and proven.host != only_from:
        raise UnauthenticatedError(f"this credential was made at {proven.host}: this edge serves its own host alone")
    return Bearing(proven.uid, proven.host, hashlib.sha256(told).digest()[:_PROOF])


class Proofs:
    """Which credentials were shown already; munged knows that too, but only those that its own host was shown."""

    def __init__(self) -> None:
        self._young: set[bytes] = set()
        self._old: set[bytes] = set()
        self._since: Micros = 0

    def take(self, proof: bytes, now: Micros) -> bool:
        """Whether it is shown for the first time."""
        if proof in self._young or proof in self._old:
            return False
        if len(self._young) >= _REMEMBERED or not 0 <= now - self._since < _LIFETIME:
            self._old, self._young, self._since = self._young, set(), now
        self._young.add(proof)
        return True


def peer_uid(address: str) -> int | None:
    """The uid that the kernel knows the process at the other end of an ipc:// socket by; None at any other end.

    `address`: of libzmq, localhost:UID:GID:PID.
    """
    found = re.fullmatch(r"localhost:(\d{1,10}):\d{1,10}:\d{1,10}", address, re.ASCII)
    return int(found[1]) if found else None
