"""The part of libmunge that we need, through ctypes: no kept Python binding exists.

Source: munge.h and munge_encode(3), munge_decode(3) of MUNGE 0.5.15; the numbers are of its C enums, which never change.
"""

from __future__ import annotations

import ctypes
import functools
from typing import TYPE_CHECKING, NamedTuple

from warden.model import UnauthenticatedError, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

_SUCCESS = 0
_NO_DAEMON = 6  # EMUNGE_SOCKET
_OPT_ADDR4, _OPT_SOCKET = 5, 8
_EXPIRED, _REWOUND, _REPLAYED = 15, 16, 17


class Credential(NamedTuple):
    """What a decoded credential proves: this user of this security realm made it over this payload.

    `host`: the IPv4 address of the host where it was made, as the munged there says.
    """

    uid: int
    gid: int
    payload: bytes
    host: str


def encode(payload: bytes, socket: Path | None = None) -> str:
    """Make a credential of the process's user over `payload`; `socket` is munged's, where it is not the usual one.

    Raises:
        UnavailableError: munged is not running on this host, or refuses.
    """
    library = _library()
    credential = ctypes.c_char_p()
    context = _context(socket)
    status = library.munge_encode(ctypes.byref(credential), context, payload, len(payload))
    try:
        if status != _SUCCESS:
            raise UnavailableError(_problem("make", status))
        return (credential.value or b"").decode("ascii")
    finally:
        _libc().free(credential)
        library.munge_ctx_destroy(context)


def decode(credential: str, socket: Path | None = None) -> Credential:
    """Check a credential; munged takes each one only once.

    Raises:
        UnauthenticatedError: It is forged, expired, or was used before.
        UnavailableError: munged is not running on this host.
    """
    library = _library()
    payload, length = ctypes.c_void_p(), ctypes.c_int()
    uid, gid = ctypes.c_uint32(), ctypes.c_uint32()
    context = _context(socket)
    status = library.munge_decode(
        credential.encode("ascii", "replace"),
        context,
        ctypes.byref(payload),
        ctypes.byref(length),
        ctypes.byref(uid),
        ctypes.byref(gid),
    )
    try:
        if status == _NO_DAEMON:
            raise UnavailableError(_problem("check", status))
        if status != _SUCCESS:
            raise UnauthenticatedError(_problem("check", status))
        data = ctypes.string_at(payload, length.value) if payload.value else b""
        return Credential(uid.value, gid.value, data, _host(context))
    finally:
        _libc().free(payload)
        library.munge_ctx_destroy(context)


def _host(context: ctypes.c_void_p) -> str:
    address = (ctypes.c_ubyte * 4)()
    _library().munge_ctx_get(context, _OPT_ADDR4, ctypes.byref(address))
    return ".".join(str(part) for part in address)


def _context(socket: Path | None) -> ctypes.c_void_p:
    library = _library()
    context = ctypes.c_void_p(library.munge_ctx_create())
    if socket is not None:
        library.munge_ctx_set(context, _OPT_SOCKET, ctypes.c_char_p(str(socket).encode()))
    return context


def _problem(what: str, status: int) -> str:
    hints = {
        _NO_DAEMON: "start munged on this host",
        _EXPIRED: "compare the clocks of the hosts",
        _REWOUND: "compare the clocks of the hosts",
        _REPLAYED: "a credential works only once",
    }
    text = _library().munge_strerror(status).decode("ascii", "replace")
    return f"MUNGE cannot {what} a credential: {text} ({hints.get(status, 'all hosts need the same munge.key')})"


@functools.cache
def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libmunge.so.2")
    except OSError:
        raise UnavailableError("libmunge.so.2 is missing on this host: install the package libmunge2") from None
    library.munge_strerror.restype = ctypes.c_char_p
    library.munge_ctx_create.restype = ctypes.c_void_p
    return library


@functools.cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None)
    libc.free.argtypes = [ctypes.c_void_p]
    return libc
