"""QRMI's own client, timed: started by edge.py in an environment that has the package `qrmi`. Prints JSON.

python qrmi_client.py {"what": "tasks", "clients": 16, "count": 100, "url": ..., "session": ..., "sequence": ...}
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

QPU = "fresnel"


def main() -> None:
    wanted = json.loads(sys.argv[1])
    os.environ.update(
        {
            "QRMI_JOB_UID": str(os.getuid()),
            "QRMI_JOB_ID": wanted["job"],
            f"{QPU}_QRMI_WARDEN_URL": wanted["url"],
            f"{QPU}_QRMI_JOB_ACQUISITION_TOKEN": wanted["session"],
        }
    )
    measure: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
        "tasks": tasks,
        "sessions": sessions,
        "accessible": accessible,
    }
    print(json.dumps(measure[wanted["what"]](wanted)))


def resource() -> Any:
    from qrmi import QuantumResource, ResourceType  # noqa: PLC0415

    return QuantumResource(QPU, ResourceType.PasqalLocal)


def tasks(wanted: dict[str, Any]) -> dict[str, Any]:
    """Submit, ask until it has ended, fetch; each client one after the other, without a pause."""
    from qrmi import Payload, TaskStatus  # noqa: PLC0415

    payload = Payload.PasqalCloud(sequence=wanted["sequence"], job_runs=100)
    submissions: list[float] = []
    trips: list[float] = []

    def work(qpu: Any) -> None:
        for _ in range(wanted["count"]):
            begun = time.perf_counter()
            number = qpu.task_start(payload)
            submissions.append(time.perf_counter() - begun)
            while qpu.task_status(number) in (TaskStatus.Queued, TaskStatus.Running):
                pass
            assert qpu.task_result(number).value
            trips.append(time.perf_counter() - begun)

    # To make one takes some ten milliseconds, and is no part of a task.
    resources = [resource() for _ in range(wanted["clients"])]
    with concurrent.futures.ThreadPoolExecutor(wanted["clients"]) as crowd:
        begun = time.perf_counter()
        for client in [crowd.submit(work, qpu) for qpu in resources]:
            client.result()
    return {"submissions": submissions, "trips": trips, "rate": len(trips) / (time.perf_counter() - begun)}


def sessions(wanted: dict[str, Any]) -> dict[str, Any]:
    """Acquire and release."""
    qpu = resource()
    trips = []
    for _ in range(wanted["count"]):
        begun = time.perf_counter()
        qpu.release(qpu.acquire())
        trips.append(time.perf_counter() - begun)
    return {"trips": trips}


def accessible(wanted: dict[str, Any]) -> dict[str, Any]:
    """GET /accessible on connections that stay, without a credential: no client of QRMI's asks as fast as that."""
    address = urlsplit(wanted["url"])

    async def ask() -> None:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        for _ in range(wanted["count"]):
            writer.write(b"GET /accessible HTTP/1.1\r\nHost: edge\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            (length,) = (line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
        writer.close()

    async def crowd() -> float:
        begun = time.perf_counter()
        await asyncio.gather(*(ask() for _ in range(wanted["clients"])))
        return time.perf_counter() - begun

    return {"rate": wanted["clients"] * wanted["count"] / asyncio.run(crowd())}


if __name__ == "__main__":
    main()
