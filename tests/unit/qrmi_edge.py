"""A site with an edge for QRMI's clients, and what they send there."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

import trustme
from warden_site import AFM, SESSION, free_port, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    import httpx
    from warden_site import Site

HEADER = {"X-Warden-Session": SESSION}
TASK = {"sequence": AFM, "shots": 5}


def prepare(site: Site, **http: Any) -> None:
    site.configure(
        http={"listen": f"127.0.0.1:{free_port()}", **http},
        qpu={"emulator": "echo", "overhead": 0},
        limits={"sequence_bytes": 100_000},
        # A worker that gets no time for a while is none that is lost.
        broker={"heartbeat": 2},
    )
    site.start_broker()
    wait_until(lambda: "serving QRMI's clients" in site.log_of(site.broker), "the edge serves")


def with_tls(folder: Path) -> tuple[ssl.SSLContext, dict[str, str]]:
    """What trusts a certificate that is made in this folder, and the settings by which an edge has it."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    issued.private_key_pem.write_to_path(folder / "key")
    issued.cert_chain_pems[0].write_to_path(folder / "certificate")
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    return trusted, {"certificate": str(folder / "certificate"), "private_key": str(folder / "key")}


def result_of(client: httpx.Client, number: int) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        answer = client.get(f"/jobs/{number}").json()
        return answer if answer["status"] in {"DONE", "ERROR", "CANCELED"} else None

    return dict(wait_until(ended, f"task {number} ends"))
