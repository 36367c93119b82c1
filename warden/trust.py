"""Who speaks: CURVE keys for connections, MUNGE credentials for users.

All transport is encrypted with CURVE. Clients make a key pair for each connection and know the broker by its public
key. To say who they are, they send a MUNGE credential over both public keys, which no other connection and no other
broker can use. Workers are known by key pairs of their own, whose public halves the broker has in `keys/workers`.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

from warden import munge
from warden.authority import ROOT
from warden.config import networks
from warden.model import UnauthenticatedError

if TYPE_CHECKING:
    from pathlib import Path

    from warden.config import AccessSection


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
