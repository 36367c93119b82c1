"""Requests that nobody means, made by chance from a seed: lots of them, without end.

Each is made of one that is meant: another method, path, version, header, framing or body, bits turned, parts cut out,
doubled, or put together with those of others. `fuzz_http` throws them.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

from warden_site import AFM, SESSION

if TYPE_CHECKING:
    from collections.abc import Iterator

# Requests of a lot at most.
LOT = 12
# Where a credential shall be; one is made when the request is sent.
MARK = b"@CREDENTIAL@"

_TASK = json.dumps({"sequence": AFM, "shots": 5}).encode()

METHODS = [
    *(b"GET", b"POST", b"DELETE", b"HEAD", b"OPTIONS", b"PUT", b"PATCH", b"TRACE", b"CONNECT", b"PROPFIND", b"QUERY"),
    *(b"PRI", b"get", b"GE", b"", b"G\x00T", b"GET ", b"SOURCE", b"M-SEARCH", b"X" * 5000),
]
PATHS = [
    *(b"/", b"/accessible", b"/sessions", b"/sessions/" + SESSION.encode(), b"/jobs", b"/jobs/1", b"/jobs/1/logs"),
    *(b"/jobs/1/cancel", b"/qpu/specs", b"/docs", b"/openapi.json", b"/assets/favicon.png", b"/jobs?limit=2&offset=1"),
    *(
        b"//accessible",
        b"/accessible/",
        b"/accessible//",
        b"/accessible;x",
        b"/accessible?x=/jobs",
        b"/accessible#/jobs",
    ),
    *(b"/accessible/../jobs", b"/assets/../jobs", b"/assets/%2e%2e/jobs", b"/assets/..%2fjobs/1", b"/assets//jobs/1"),
    *(
        b"/assets/../../../../../../etc/passwd",
        b"/assets/%2e%2e%2f%2e%2e%2fetc/passwd",
        b"/assets/%00",
        b"/assets/\\..\\x",
    ),
    *(
        b"/assets//etc/passwd",
        b"/assets/" + b"a" * 300,
        b"/assets/" + b"a/" * 3000,
        b"/docs/../jobs",
        b"/docs/oauth2-redirect",
    ),
    *(
        b"/./jobs",
        b"/%6aobs",
        b"/jobs%2f1",
        b"/jobs/1%00",
        b"/jobs/%31",
        b"/jobs/1;x",
        b"/jobs/+1",
        b"/jobs/1e3",
        b"/jobs/1_0",
    ),
    *(
        b"/jobs/-1",
        b"/jobs/0",
        b"/jobs/2147483648",
        b"/jobs/9223372036854775808",
        b"/jobs/" + b"9" * 5000,
        b"/jobs/\xd9\xa1",
    ),
    *(
        b"/jobs/%d9%a1",
        b"/jobs/%ed%a0%80",
        b"/jobs/%ff",
        b"/jobs/%",
        b"/jobs/%zz",
        b"/%u0061ccessible",
        b"/accessible%0d%0aX:y",
    ),
    *(
        b"/jobs?limit=0",
        b"/jobs?limit=99999999999999999999999",
        b"/jobs?offset=-1",
        b"/jobs?limit=1&limit=2",
        b"/jobs?" + b"&" * 9000,
    ),
    *(
        b"/jobs?limit=%00",
        b"*",
        b"",
        b"http://x/jobs",
        b"http://x/accessible",
        b"http://x/accessible/../jobs",
        b"http://",
        b"x:1",
    ),
    *(
        b"http://u:p@x:99999/jobs",
        b"//x/jobs",
        b"/\x80",
        b"/" + b"a" * 40_000,
        b"/jobs/1 HTTP/1.1 x",
        b"?",
        b"#",
        b"/sessions/%2e",
    ),
]
VERSIONS = [
    b"HTTP/1.1",
    b"HTTP/1.1",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HTTP/0.9",
    b"HTTP/2.0",
    b"HTTP/1.9",
    b"HTTP/11",
    b"",
    b"http/1.1",
]
HEADERS = [
    *(
        b"X-Warden-Session: " + SESSION.encode(),
        b"X-Warden-Session:",
        b"X-Warden-Session: \xff",
        b"X-Munge-Cred: MUNGE:AAAA:",
    ),
    *(
        b"X-Munge-Cred: " + MARK,
        b"X-Munge-Cred:",
        b"x-munge-cred: " + MARK,
        b"X_Munge_Cred: " + MARK,
        b"X-Munge-Cred : " + MARK,
    ),
    *(
        b"Host: y",
        b"Host:",
        b"Connection: close",
        b"Connection: keep-alive, upgrade",
        b"Upgrade: websocket",
        b"Upgrade: h2c",
    ),
    *(
        b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\nSec-WebSocket-Version: 13",
        b"Expect: 100-continue",
    ),
    *(b"Expect: x", b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: xchunked"),
    *(
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding:\tchunked",
        b"Content-Encoding: gzip",
        b"Content-Type: text/plain",
    ),
    *(
        b"Content-Length: 0",
        b"Content-Length: -1",
        b"Content-Length: +5",
        b"Content-Length: 5, 5",
        b"Content-Length: 0x5",
    ),
    *(
        b"Content-Length: 99999999999999999999",
        b"Content-Length: 9000000000",
        b"Content-Length: " + b"0" * 5000,
        b"Content-Length: 40000",
    ),
    *(
        b"Content-Type: application/json; charset=utf-16",
        b"Content-Type: multipart/form-data",
        b"Range: bytes=0-1,5-,-9",
        b"Range: x",
    ),
    *(
        b"Range: bytes=" + b"0-1," * 2000,
        b"If-Modified-Since: x",
        b'If-None-Match: "x"',
        b"X-Forwarded-For: 127.0.0.1",
        b"X: \x00",
    ),
    *(
        b" folded: x",
        b"X: y\r\n z",
        b": x",
        b"X",
        b"X\x00: y",
        b"Cookie: " + b"a" * 9000,
        b"X-HTTP-Method-Override: DELETE",
        b"X: y\nZ: w",
    ),
]
NUMBERS = [
    *(
        b"0",
        b"-1",
        b"1",
        b"5",
        b"2147483647",
        b"2147483648",
        b"9223372036854775808",
        b"1e400",
        b"-0",
        b"1.0",
        b"NaN",
        b"Infinity",
    ),
    *(
        b"9" * 5000,
        b"1e-9",
        b"0x1",
        b"01",
        b"true",
        b"null",
        b'"5"',
        b"[]",
        b"{}",
        b"18446744073709551616",
        b"-9223372036854775809",
    ),
]
STRINGS = [
    *(
        b'""',
        b'"x"',
        b'"\\ud800"',
        b'"\\udfff\\ud800"',
        b'"\\u0000"',
        b'"\x00"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"null",
        b"1",
        b"[]",
    ),
    *(
        b'"' + b"a" * 30_000 + b'"',
        b'"1000"',
        b'"4294967295"',
        b'"4294967296"',
        b'"\xd9\xa1"',
        b'"0"',
        b'"\\"',
        b"{",
        b'"{}"',
    ),
    json.dumps(AFM).encode(),
    json.dumps(AFM.replace("1", "1e999")).encode(),
    json.dumps("[" * 20_000).encode(),
    json.dumps(AFM[:-1]).encode(),
]
BODIES = [
    *(
        _TASK,
        b"",
        b"{}",
        b"null",
        b"[" * 30_000,
        b'{"a":' * 10_000,
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"{" * 9,
        b"a" * 1000,
    ),
    *(
        b'{"user_id": "0", "slurm_job_id": "1"}',
        b'{"is_accessible": false, "message": "x"}',
        b'{"is_accessible": true}',
    ),
]
STRANGE = [
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    bytes.fromhex("16030100c8010000c40303") + bytes(190),
    b"GET /\r\n",
    b"\x05\x01\x00",
    b"\r\n\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\x00" * 100,
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 4000 + b"\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 40_000 + b"\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
]


def spoilt(chance: random.Random, *, hard: bool) -> bytes:
    """One request that is like one that is meant; `hard`: maybe none at all, which ends its connection."""
    if hard and chance.random() < 0.1:
        return chance.choice(STRANGE)
    method, path, version = b"GET", PATHS[chance.randrange(13)], b"HTTP/1.1"
    headers, body = [b"Host: x", b"Content-Type: application/json"], b""
    if chance.random() < 0.4:
        method, path = b"POST", chance.choice((b"/jobs", b"/sessions", b"/accessible", b"/jobs/1/cancel"))
        body = _body(chance)
        headers.append(b"X-Warden-Session: " + SESSION.encode())
    if chance.random() < 0.25:
        headers.append(b"X-Munge-Cred: " + MARK)
    for _ in range(chance.choice((1, 1, 2, 4) if hard else (0, 0, 0, 1))):
        match chance.randrange(6 if hard else 4):
            case 0 | 1:
                path = chance.choice(PATHS)
            case 2:
                method = chance.choice(METHODS if hard else METHODS[:8])
            case 3 | 4:
                headers.insert(chance.randrange(len(headers) + 1), chance.choice(HEADERS))
            case 5:
                version = chance.choice(VERSIONS)
    if body:
        framing, body = _framed(body, chance, lies=hard)
        headers.append(framing)
    request = b"\r\n".join((b" ".join((method, path, version)), *headers, b"", body))
    return _garbled(request, chance) if hard and chance.random() < 0.5 else request


def _body(chance: random.Random) -> bytes:
    if chance.random() < 0.4:
        return chance.choice(BODIES)
    fields = [
        *(
            (b"sequence", chance.choice(STRINGS)),
            (b"shots", chance.choice(NUMBERS)),
            (b"user_id", chance.choice(STRINGS)),
        ),
        *(
            (b"slurm_job_id", chance.choice(STRINGS)),
            (b"is_accessible", chance.choice(NUMBERS)),
            (b"message", chance.choice(STRINGS)),
        ),
    ]
    chosen = chance.choices(fields, k=chance.randrange(4)) + chance.choice((fields[:2], fields[2:4], fields[4:]))
    return b"{" + b",".join(b'"' + name + b'":' + value for name, value in chosen) + b"}"


def _framed(body: bytes, chance: random.Random, *, lies: bool) -> tuple[bytes, bytes]:
    """A header that says where the body ends, and the body; now and then a lie."""
    lie = chance.choice((0, 0, 1, -1, 1000, -1000)) if lies else 0
    if chance.random() < 0.75:
        return b"Content-Length: %d" % max(0, len(body) + lie), body
    parts = []
    while body:
        size = chance.choice((1, 7, 500, 100_000))
        extension = chance.choice((b"", b"", b";x=y", b";" + b"z" * 3000))
        parts.append(
            b"%x%s\r\n%s\r\n" % (len(body[:size]) + (lie if chance.random() < 0.1 else 0), extension, body[:size])
        )
        body = body[size:] if len(parts) < 40 else b""
    trailers = chance.choice((b"", b"", b"", b"X-Munge-Cred: x\r\n", b"X: y\r\n" * 3000))
    return b"Transfer-Encoding: chunked", b"".join((*parts, b"0\r\n", trailers, b"\r\n"))


def _garbled(request: bytes, chance: random.Random) -> bytes:
    text = bytearray(request)
    for _ in range(chance.choice((1, 1, 2))):
        # The head is where most of it is decided.
        at = chance.randrange(min(len(text), chance.choice((40, 300, 10**6))) + 1)
        match chance.randrange(5):
            case 0 if at < len(text):
                text[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(text):
                text[at] = chance.choice(b"\x00\r\n \t:;,/%\x7f\x80\xff")
            case 2:
                del text[at : at + chance.randrange(1, 20)]
            case 3:
                text[at:at] = chance.choice((b"\r\n", b"\r\n\r\n", b"\n", b"\r", b" ", b"%00", chance.randbytes(8)))
            case 4:
                text[at:at] = text[at : at + chance.randrange(1, 60)] * chance.choice((1, 2, 50))
    return bytes(text)


def lots(seed: int) -> Iterator[list[bytes]]:
    """Without end; each is sent on a connection of its own."""
    chance = random.Random(seed)
    while True:
        yield [spoilt(chance, hard=not left) for left in reversed(range(chance.randrange(1, LOT + 1)))]
