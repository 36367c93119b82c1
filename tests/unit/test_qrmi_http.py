"""The HTTP edge as QRMI's clients find it: the contract's routes and refusals, states of the QPU, credentials."""

from __future__ import annotations

import contextlib
import http.client
import importlib.metadata
import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from qrmi_edge import HEADER, TASK, prepare, result_of
from warden_site import NOBODY, SESSION, Site, free_port, wait_until

from warden import munge
from warden.model import State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import httpx

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")


@pytest.fixture
def site(site: Site) -> Site:
    prepare(site)
    return site


@pytest.fixture(scope="module")
def standing() -> Iterator[Site]:
    with Site() as site:
        prepare(site)
        site.start_worker()
        yield site


@pytest.fixture
def qpu(standing: Site) -> Iterator[httpx.Client]:
    with standing.http() as client:
        yield client


@pytest.fixture
def nobody(standing: Site) -> Iterator[httpx.Client]:
    with standing.http(anonymous=True) as client:
        yield client


def refusal(answer: httpx.Response) -> tuple[int, Any]:
    return answer.status_code, answer.json()["detail"]


# --- the contract ---


def test_a_task_from_its_sequence_to_its_result(qpu: httpx.Client) -> None:
    task = qpu.post("/jobs", json=TASK, headers=HEADER).json()
    assert task["status"] in {"PENDING", "RUNNING", "DONE"}
    assert task["user_id"] == str(os.getuid())
    done = result_of(qpu, task["id"])
    results = json.loads(done["results"])
    assert (done["status"], results.pop("counter")) == ("DONE", {"0000": 5})
    metadata = results.pop("metadata")
    assert (metadata["device"], metadata["qubits"], metadata["shots"], results) == ("AnalogDevice", 4, 5, {})
    assert "completed in 1 run" in qpu.get(f"/jobs/{task['id']}/logs").json()["logs"]
    # QRMI's task_runner stops a task that has ended.
    assert qpu.post(f"/jobs/{task['id']}/cancel").json() == done


def test_shots_are_there_in_their_order_where_they_are_asked_for(qpu: httpx.Client) -> None:
    for wanted, found in (({"bitstrings": True}, ["0000"] * 5), ({"bitstrings": False}, None), ({"other": 1}, None)):
        task = qpu.post("/jobs", json={**TASK, **wanted}, headers=HEADER).json()
        assert json.loads(result_of(qpu, task["id"])["results"]).get("bitstrings") == found
    assert qpu.post("/jobs", json={**TASK, "bitstrings": "yes"}, headers=HEADER).status_code == 422


def test_what_is_known_without_a_credential(nobody: httpx.Client) -> None:
    assert nobody.get("/").json() == {"service": "Warden", "qpu": "fresnel"}
    told = nobody.get("/accessible").json()
    assert told.pop("message") == "ready"
    slots = ("qpu_slots_total", "qpu_slots_used", "qpu_slots_available")
    assert told.pop("is_accessible")
    assert sorted(told) == sorted(slots)
    assert told["qpu_slots_total"] == told["qpu_slots_used"] + told["qpu_slots_available"] == 4


def test_the_device_is_a_json_string_with_a_name(qpu: httpx.Client) -> None:
    assert qpu.get("/qpu/specs").json() == {"specs": '{"name":"AnalogDevice"}'}


@needs_root
def test_a_job_has_one_session_until_it_is_released(qpu: httpx.Client) -> None:
    wanted = {"user_id": "1000", "slurm_job_id": "4711"}
    session = qpu.post("/sessions", json=wanted).json()["id"]
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", session)
    assert qpu.post("/sessions", json=wanted).json() == {"id": session}
    assert refusal(qpu.post("/jobs", json=TASK, headers={"X-Warden-Session": session})) == (
        403,
        "Session belongs to another user.",
    )
    for _ in range(2):
        assert qpu.delete(f"/sessions/{session}").json() == {"id": session}


@pytest.mark.parametrize(
    ("ask", "status", "detail"),
    [
        (lambda c: c.post("/jobs", json=TASK), 403, "Missing 'X-Warden-Session' header."),
        (lambda c: c.post("/jobs", json=TASK, headers={"X-Warden-Session": "x"}), 403, "Invalid session."),
        (lambda c: c.post("/jobs", json=TASK, headers={"X-Warden-Session": "x" * 99}), 422, "malformed message"),
        (lambda c: c.get("/jobs/999999"), 404, "Job not found"),
        (lambda c: c.get(f"/jobs/{10**30}"), 404, "Job not found"),
        (lambda c: c.get("/jobs/-1/logs"), 404, "Job not found"),
        (lambda c: c.post("/jobs/999999/cancel"), 404, "Job not found"),
        (lambda c: c.delete("/sessions/none"), 404, "Session not found"),
        (lambda c: c.get("/nothing"), 404, "Not Found"),
        # As clients do with an empty id; a redirection would have them show their credential twice.
        (lambda c: c.get("/jobs/"), 404, "Not Found"),
        (lambda c: c.delete("/sessions/"), 404, "Not Found"),
        (lambda c: c.put("/jobs"), 405, "Method Not Allowed"),
        (lambda c: c.post("/jobs", json=TASK | {"shots": 0}, headers=HEADER), 422, "shots must be between 1 and"),
        (lambda c: c.post("/jobs", json=TASK | {"shots": 2**63}, headers=HEADER), 422, "shots must be between 1 and"),
        (lambda c: c.post("/jobs", json=TASK | {"shots": 10**30}, headers=HEADER), 422, "cannot be sent"),
        (lambda c: c.post("/jobs", json=TASK | {"sequence": ""}, headers=HEADER), 422, "this is not JSON"),
        (lambda c: c.post("/jobs", json=TASK | {"sequence": "{}"}, headers=HEADER), 422, "no Pulser sequence"),
        (lambda c: c.post("/jobs", json=TASK | {"sequence": " " * 150_000}, headers=HEADER), 422, "larger than 100000"),
        (lambda c: c.post("/jobs", content=b" " * 300_000), 413, "larger than 204096 bytes"),
        (lambda c: c.post("/jobs", content=(b" " * 50_000 for _ in range(9))), 413, "larger than 204096 bytes"),
    ],
)
def test_what_is_refused_says_why(
    qpu: httpx.Client, ask: Callable[[httpx.Client], httpx.Response], status: int, detail: str
) -> None:
    told = refusal(ask(qpu))
    assert told[0] == status
    assert detail in told[1]
    assert "\n" not in told[1]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"sequence": 1, "shots": 1}',
        b'{"sequence": "x", "shots": "1"}',
        b'{"sequence": "x", "shots": 1.0}',
        b'{"sequence": "x", "shots": true}',
        b'{"sequence": "x"}',
        b'{"sequence": "\\ud800", "shots": 1}',
    ],
)
def test_a_body_that_is_none_is_refused_in_a_few_words(qpu: httpx.Client, body: bytes) -> None:
    answer = qpu.post("/jobs", content=body, headers={**HEADER, "Content-Type": "application/json"})
    assert answer.status_code == 422
    assert len(answer.content) < 1000
    assert answer.json()["detail"]


def test_tasks_are_listed_in_pages_and_all_at_once(qpu: httpx.Client) -> None:
    numbers = [qpu.post("/jobs", json=TASK, headers=HEADER).json()["id"] for _ in range(5)]
    result_of(qpu, numbers[-1])
    every = [job["id"] for job in qpu.get("/jobs").json()]
    assert every[:5] == numbers[::-1]
    assert every[-1] == 1
    for params in ({"limit": 2}, {"limit": 2, "offset": 3}, {"offset": 4}, {"limit": 3, "offset": len(every) - 1}):
        first = params.get("offset", 0)
        wanted = every[first:][: params.get("limit")]
        assert [job["id"] for job in qpu.get("/jobs", params=params).json()] == wanted
    assert qpu.get("/jobs", params={"offset": len(every) + 5}).json() == []
    assert {name: value for name, value in qpu.get("/jobs").json()[0].items() if name in {"results", "status"}} == {
        "results": None,
        "status": "DONE",
    }
    assert qpu.get("/jobs", params={"limit": 0}).status_code == 422


def test_the_pages_that_describe_it_need_no_internet(nobody: httpx.Client) -> None:
    page = nobody.get("/docs").text
    assets = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert assets
    for asset in assets:
        assert asset.startswith("/")
        assert nobody.get(asset).status_code == 200
    assert "http://" not in page
    assert "https://" not in page
    assert nobody.get("/openapi.json").json()["info"]["version"] == importlib.metadata.version("gridengine-qpu")
    assert set(nobody.get("/openapi.json").json()["paths"]) >= {"/accessible", "/jobs", "/sessions", "/qpu/specs"}


# --- states of the QPU ---


def test_accessible_tells_the_state_its_reason_and_its_end(site: Site) -> None:
    with site.http() as qpu, site.client() as operator:
        told = qpu.get("/accessible").json()
        assert (told["is_accessible"], told["qpu_slots_available"]) == (False, 0)
        assert told["message"].startswith("offline: ")
        site.start_worker()
        window = operator.add_window(State.CALIBRATING, duration=60_000_000, reason="lasers")
        told = qpu.get("/accessible").json()
        # Tasks are taken, and no job is begun.
        assert (told["is_accessible"], told["qpu_slots_available"]) == (True, 0)
        assert re.fullmatch(r"calibrating until \S+Z: lasers", told["message"])
        assert qpu.post("/accessible", json={"is_accessible": True}).json() == told
        operator.cancel_window(window.id)
        drained = qpu.post("/accessible", json={"is_accessible": False, "message": "new laser"}).json()
        assert (drained["is_accessible"], drained["message"]) == (False, "maintenance: new laser")
        for _ in range(2):
            assert qpu.post("/accessible", json={"is_accessible": True}).json()["message"] == "ready"


# --- credentials ---


def test_all_but_two_routes_want_a_credential(standing: Site, nobody: httpx.Client) -> None:
    for method, path in [("GET", "/jobs"), ("POST", "/jobs"), ("GET", "/qpu/specs"), ("GET", "/nothing"), ("PUT", "/")]:
        status, detail = refusal(nobody.request(method, path))
        assert status == 401
        assert "MUNGE credential" in detail
    assert "POST /jobs" in standing.log_of(standing.broker)


SPELLINGS = [
    *(
        "//accessible",
        "/accessible/",
        "/accessible;x",
        "/accessible/../jobs",
        "/accessible%2f..%2fjobs",
        "/./jobs",
        "/%6aobs",
    ),
    *(
        "/assets/../jobs",
        "/assets/%2e%2e/jobs",
        "/assets/..%2fjobs/1",
        "/assets//jobs",
        "/assets/%00",
        "/assets/..%5cjobs",
    ),
    *(
        "/assets/../../../../../../../../etc/passwd",
        "/assets/%2fetc%2fpasswd",
        "/assets",
        "/assets/",
        "/docs/",
        "/docs/../jobs",
    ),
    *(
        "http://x/jobs",
        "http://x/assets/../jobs",
        "//x/accessible",
        "*",
        "/jobs?x=/accessible",
        "/jobs#/assets/x",
        "/jobs/1%3bx",
    ),
]


@pytest.mark.parametrize("path", SPELLINGS)
def test_no_spelling_of_a_path_reaches_more_without_a_credential(standing: Site, path: str) -> None:
    for method in ("GET", "HEAD", "POST", "DELETE", "OPTIONS"):
        with contextlib.closing(http.client.HTTPConnection(*standing.config.http.address, timeout=20)) as connection:
            connection.request(method, path)
            answer = connection.getresponse()
            assert answer.status in {400, 401, 404, 405}
            assert len(answer.read()) < 100


@pytest.mark.parametrize("shown", ["", "x", "MUNGE:AwQFAAAA:", "MUNGE:" + "A" * 20_000 + ":", "\xff", "%s"])
def test_what_is_no_credential_is_nobody(nobody: httpx.Client, shown: str) -> None:
    answer = nobody.get("/jobs", headers={b"X-Munge-Cred": shown.encode("latin-1")})
    assert answer.status_code == 401
    assert shown[:50] not in answer.text or not shown


def test_a_credential_works_once_and_for_nothing_else(standing: Site, nobody: httpx.Client) -> None:
    good, bound = (munge.encode(what, standing.munge_socket) for what in (b"", b"something else"))
    assert nobody.get("/jobs", headers={"X-Munge-Cred": good}).status_code == 200
    assert nobody.get("/jobs", headers={"X-Munge-Cred": good}).status_code == 401
    assert nobody.get("/jobs", headers={"X-Munge-Cred": bound}).status_code == 401
    two = [(b"X-Munge-Cred", munge.encode(b"", standing.munge_socket).encode())] * 2
    assert nobody.get("/jobs", headers=two).status_code == 401
    assert good not in standing.log_of(standing.broker)


def test_a_used_credential_stays_used_when_munged_has_forgotten_it(site: Site) -> None:
    other = free_port()
    site.start_edge(other)
    with site.http(anonymous=True) as here, site.http(other, anonymous=True) as there:
        used = {"X-Munge-Cred": munge.encode(b"", site.munge_socket)}
        assert here.get("/jobs", headers=used).status_code == 200
        for edge in (here, there):
            site.kill(site.munged)
            site.munge_socket.unlink()
            site.start_munged()
            assert refusal(edge.get("/jobs", headers=used)) == (
                401,
                "this credential was used before: each works only once",
            )


def test_without_munged_the_edge_asks_to_try_again(site: Site) -> None:
    credential = munge.encode(b"", site.munge_socket)
    site.kill(site.munged)
    with site.http(anonymous=True) as client:
        status, detail = refusal(client.get("/jobs", headers={"X-Munge-Cred": credential}))
    assert status == 503
    assert "munged" in detail


def test_credentials_of_other_hosts_are_refused_where_the_site_says_so() -> None:
    with Site() as site:
        site.configure(http={"listen": f"127.0.0.1:{free_port()}"}, access={"hosts": ["192.0.2.0/24"]})
        site.start_broker()
        wait_until(lambda: "serving QRMI's clients" in site.log_of(site.broker), "the edge serves")
        with site.http() as client:
            assert client.get("/jobs").status_code == 401


@needs_root
def test_users_are_no_operators_and_see_no_one_elses_tasks(standing: Site, qpu: httpx.Client) -> None:
    number = qpu.post("/jobs", json=TASK, headers=HEADER).json()["id"]
    result_of(qpu, number)
    tries: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/accessible", {"json": {"is_accessible": False}}),
        ("POST", "/accessible", {"json": {"is_accessible": True}}),
        ("POST", "/sessions", {"json": {"user_id": str(NOBODY), "slurm_job_id": "1"}}),
        ("POST", "/sessions", {"json": {"user_id": "0", "slurm_job_id": "1"}}),
        ("POST", "/jobs", {"json": TASK, "headers": HEADER}),
        ("GET", f"/jobs/{number}", {}),
        ("GET", f"/jobs/{number}/logs", {}),
        ("POST", f"/jobs/{number}/cancel", {}),
        ("DELETE", f"/sessions/{SESSION}", {}),
        ("GET", "/jobs", {}),
    ]
    restricted = (403, "Endpoint restricted to root user.")
    wanted = [
        *[restricted] * 4,
        (403, "Session belongs to another user."),
        *[(404, "Job not found")] * 3,
        (404, "Session not found"),
        (200, []),
    ]
    credentials = made_by(NOBODY, len(tries), standing)
    with standing.http(anonymous=True) as client:
        for (method, path, sent), expected, credential in zip(tries, wanted, credentials, strict=True):
            headers = {**sent.pop("headers", {}), "X-Munge-Cred": credential}
            answer = client.request(method, path, headers=headers, **sent)
            told = answer.json()
            assert (answer.status_code, told if isinstance(told, list) else told["detail"]) == expected


def made_by(uid: int, count: int, site: Site) -> list[str]:
    """Credentials of another user, for whom this process becomes him for a moment."""
    made, ours = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgid(uid)
        os.setuid(uid)
        os.write(ours, "\n".join(munge.encode(b"", site.munge_socket) for _ in range(count)).encode())
        os._exit(0)
    os.close(ours)
    os.waitpid(child, 0)
    with os.fdopen(made, encoding="ascii") as file:
        return file.read().splitlines()
