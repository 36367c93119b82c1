"""What is another user's, or another job's, is of no use: session, task, number of the job, and proof of who it is."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from grid import MASTER, NODES, WAITS, Grid

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
QPU = ("-l", "qpu=1")
BOB = 2002
RATE = 3
# Tasks that have ended, and one that outlives all that is tried during the job: no device takes more than 2000 shots of one.
WITH_TASKS = f"""cd
qpu run afm_ring.json --shots 5 >/dev/null
qpu run afm_ring.json --shots {600 * RATE} >/dev/null &
{WAITS}"""
QMASTER = "/var/spool/gridengine/qmaster"

# Tries everything with what it was told of; each attempt with what came of it: the code of a refusal, or what was
# given. Of lists only what it was told of counts: a thief has things of his own.
THIEF = """
import json, sys
from pathlib import Path
from warden.client import Client, QuantumResource
from warden.model import WardenError
session, job, *tasks = sys.argv[1:]
sequence = Path("/home/alice/afm_ring.json").read_text()
client = Client(timeout=60)
qpu = QuantumResource(client=client, environment={"QRMI_JOB_ID": job, "WARDEN_SESSION": session})
def known(listed):
    return [one.id for one in listed if str(one.id) in (session, *tasks)]
tries = {
    "start a task": lambda: client.task_start(session, sequence, 1).id,
    "start a task through QRMI": lambda: qpu.task_start(sequence, 1),
    "find the session": lambda: client.acquire(job=job, uid=2001).id,
    "find it as bob": lambda: client.acquire(job=job, uid=2002).id,
    "find it as root": lambda: client.acquire(job=job, uid=0).id,
    "make one": lambda: client.acquire(job="999999", uid=2002, host="node1", start="x").id,
    "renew it": lambda: client.renew(host="node1", jobs=(job,)),
    "list tasks": lambda: known(client.tasks()),
    "list its tasks": lambda: known(client.tasks(session=session)),
    "list everybody's tasks": lambda: known(client.tasks(everybody=True)),
    "list sessions": lambda: known(client.sessions(ended=True)),
    "list the job's sessions": lambda: known(client.sessions(job=job, ended=True)),
    "list everybody's sessions": lambda: known(client.sessions(everybody=True, ended=True)),
}
for n, task in enumerate(tasks):
    tries |= {
        f"status {n}": lambda task=task: qpu.task_status(task),
        f"result {n}": lambda task=task: qpu.task_result(task),
        f"log {n}": lambda task=task: qpu.task_logs(task),
        f"stop {n}": lambda task=task: qpu.task_stop(task) or "stopped",
    }
tries["acquire it through QRMI"] = qpu.acquire
tries["release it"] = lambda: client.release(session).id
said = {}
for name, attempt in tries.items():
    try:
        said[name] = attempt()
    except WardenError as error:
        said[name] = error.code
print(json.dumps(said))
"""

# The same over HTTP, with a credential of his own for each request; without one the edge would not read them.
HTTP_THIEF = """
import json, subprocess, sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen
session, job, *tasks = sys.argv[1:]
sequence = Path("/home/alice/afm_ring.json").read_text()
def ask(method, path, body=None):
    shown = subprocess.run(["munge", "-n"], capture_output=True, check=True, text=True).stdout.strip()
    headers = {"X-Munge-Cred": shown, "X-Warden-Session": session, "Content-Type": "application/json"}
    data = None if body is None else json.dumps(body).encode()
    return json.load(urlopen(Request("http://master:7680" + path, data, headers, method=method), timeout=60))
def acquire(uid, number=job):
    return ask("POST", "/sessions", {"user_id": str(uid), "slurm_job_id": number})["id"]
tries = {
    "start a task": lambda: ask("POST", "/jobs", {"sequence": sequence, "shots": 1})["id"],
    "find the session": lambda: acquire(2001),
    "find it as bob": lambda: acquire(2002),
    "find it as root": lambda: acquire(0),
    "make one": lambda: acquire(2002, "999999"),
    "list tasks": lambda: [one["id"] for one in ask("GET", "/jobs") if str(one["id"]) in tasks],
    "drain": lambda: ask("POST", "/accessible", {"is_accessible": False}),
    "resume": lambda: ask("POST", "/accessible", {"is_accessible": True}),
}
for n, task in enumerate(tasks):
    tries |= {
        f"task {n}": lambda task=task: ask("GET", f"/jobs/{task}"),
        f"log {n}": lambda task=task: ask("GET", f"/jobs/{task}/logs"),
        f"stop {n}": lambda task=task: ask("POST", f"/jobs/{task}/cancel"),
    }
tries["release it"] = lambda: ask("DELETE", f"/sessions/{session}")["id"]
said = {}
for name, attempt in tries.items():
    try:
        said[name] = attempt()
    except HTTPError as error:
        said[name] = json.load(error)["detail"]
print(json.dumps(said))
"""
THIEVES = {"our client": THIEF, "HTTP": HTTP_THIEF}
REFUSALS = (
    *("forbidden", "restricted", "unknown_session", "not_found"),
    *("Endpoint restricted to root user.", "Session belongs to another user.", "Invalid session."),
    *("Job not found", "Session not found"),
)
# What the owner does not get either.
ROOTS_ALONE = {
    "our client": {
        "find it as bob",
        "find it as root",
        "make one",
        "renew it",
        "list everybody's tasks",
        "list everybody's sessions",
    },
    "HTTP": {"find it as bob", "find it as root", "make one", "drain", "resume"},
}
# QRMI's contract has it that whoever sends another user's token is told that it is another user's.
LEARNED = {"our client": set(), "HTTP": {"start a task"}}

# Her credential, made by the munge command on a node; her connection's keys too, for the proof that it is a good one.
MADE = """
import json, subprocess, zmq
from pathlib import Path
from warden import keyring, trust
public, secret = zmq.curve_keypair()
told = trust.payload(public, keyring.public_key(Path("/etc/warden/keys/broker.key")))
made = [subprocess.run(["munge"], input=told, capture_output=True, check=True).stdout.decode() for _ in range(2)]
print(json.dumps([public.decode(), secret.decode(), *made]))
"""

# Sends a credential; on a connection with these keys, or with new ones; then asks for her task, and for a list.
REPLAY = """
import json, sys, zmq
from pathlib import Path
from warden import frames, keyring, wire
from warden.model import WardenError
task, credential, *keys = sys.argv[1:]
public, secret = [key.encode() for key in keys] or zmq.curve_keypair()
connection = zmq.Context().socket(zmq.DEALER)
connection.curve_publickey, connection.curve_secretkey = public, secret
connection.curve_serverkey = keyring.public_key(Path("/etc/warden/keys/broker.key"))
connection.linger = 0
connection.connect("tcp://master:7610")
said = []
for number, body in enumerate((wire.Hello(credential=credential), wire.GetTask(task=int(task)), wire.ListTasks())):
    connection.send(frames.pack_request(number, body))
    assert connection.poll(60000), "no answer"
    _, answer = frames.unpack_answer(connection.recv())
    said.append(answer.code if isinstance(answer, WardenError) else "granted")
print(json.dumps(said))
"""


# Asks for her task, and for one more in her session, with each of the credentials.
SHOW = """
import json, sys
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen
task, session, *credentials = sys.argv[1:]
sequence = Path("/home/alice/afm_ring.json").read_text()
def status(path, credential, body=None):
    headers = {"X-Munge-Cred": credential.strip(), "X-Warden-Session": session, "Content-Type": "application/json"}
    try:
        return urlopen(Request("http://master:7680" + path, body, headers), timeout=60).status
    except HTTPError as error:
        return error.status
start = json.dumps({"sequence": sequence, "shots": 1}).encode()
print(json.dumps([[status(f"/jobs/{task}", one), status("/jobs", one, start)] for one in credentials]))
"""


class Loot(NamedTuple):
    """All that bob knows of alice's job."""

    job: str
    session: str
    tasks: tuple[str, ...]


@pytest.fixture(scope="module", autouse=True)
def slow_qpu(lab_grid: Grid) -> Iterator[None]:
    """A QPU slow enough for a task to be caught running, and the sequence in everybody's reach."""
    (lab_grid.home() / "afm_ring.json").write_text((EXAMPLES / "afm_ring.json").read_text())
    with lab_grid.configured(shot_rate=str(RATE)):
        lab_grid.restart_warden()
        yield
    lab_grid.restart_warden()


def python(grid: Grid, program: str, *arguments: str, user: str) -> Any:
    return json.loads(grid.lab.run("node1", ["qpu-python", "-c", program, *arguments], user=user).stdout)


def thief(grid: Grid, loot: Loot, way: str, user: str = "bob") -> dict[str, Any]:
    """What each attempt gave that was not refused."""
    return {name: given for name, given in _tried(grid, loot, way, user).items() if given not in (*REFUSALS, [])}


def learned(grid: Grid, loot: Loot, way: str) -> set[str]:
    """The attempts of which bob is told something else than about things that there never were."""
    invented = Loot("777777", "11111111-2222-4333-8444-555555555555", ("7777777", "7777778"))
    told, otherwise = _tried(grid, loot, way, "bob"), _tried(grid, invented, way, "bob")
    return {name for name in told if told[name] != otherwise[name]}


def _tried(grid: Grid, loot: Loot, way: str, user: str) -> dict[str, Any]:
    found: dict[str, Any] = python(grid, THIEVES[way], loot.session, loot.job, *loot.tasks, user=user)
    return found


def statuses(grid: Grid, loot: Loot) -> list[str]:
    return [task["status"] for task in grid.tasks() if str(task["id"]) in loot.tasks]


@pytest.fixture
def running(grid: Grid) -> Loot:
    """A job of alice's with a task that has its counts and one that runs."""
    job = grid.submit(WITH_TASKS, *QPU)
    grid.until("its session", lambda: bool(grid.sessions()))
    [session] = grid.sessions()

    def tasks() -> dict[str, str]:
        return {str(task["id"]): task["status"] for task in grid.tasks() if task["session"] == session["id"]}

    grid.until("its second task to run", lambda: list(tasks().values()) == ["running", "completed"])
    return Loot(job, session["id"], tuple(tasks()))


@pytest.fixture
def over(grid: Grid, running: Loot) -> Loot:
    """The same, after it has ended."""
    grid.let_go(running.job)
    assert grid.finish(running.job)["exit_status"] == "3"
    assert statuses(grid, running) == ["cancelled", "completed"]
    return running


@pytest.mark.parametrize("way", THIEVES)
def test_of_a_running_job_nobody_else_gets_anything(grid: Grid, running: Loot, way: str) -> None:
    assert thief(grid, running, way) == {}
    assert learned(grid, running, way) == LEARNED[way]
    assert statuses(grid, running) == ["running", "completed"]
    assert [session["id"] for session in grid.sessions()] == [running.session]
    # She herself gets all of it, by the same means.
    got = _tried(grid, running, way, "alice")
    assert {name for name, given in got.items() if given in (*REFUSALS, [])} == ROOTS_ALONE[way]
    assert grid.sessions() == []


def test_of_a_job_that_is_over_nobody_else_gets_anything(grid: Grid, over: Loot) -> None:
    for way in THIEVES:
        assert thief(grid, over, way) == {}
        assert learned(grid, over, way) == LEARNED[way]
    assert statuses(grid, over) == ["cancelled", "completed"]


def test_session_of_an_own_job_that_is_over_takes_no_more_tasks(grid: Grid, over: Loot) -> None:
    run = "qpu run afm_ring.json --shots 1"
    script = f"cd; WARDEN_SESSION={over.session} {run}; echo $?; {run} >/dev/null; echo $?\n"
    job = grid.submit(script, *QPU)
    assert grid.finish(job)["exit_status"] == "0"
    assert grid.output(job).splitlines() == ["qpu: the session has ended: released", "1", "0"]
    assert statuses(grid, over) == ["cancelled", "completed"]


def test_credential_that_was_made_for_another_connection_proves_nothing(grid: Grid, running: Loot) -> None:
    public, secret, *credentials = python(grid, MADE, user="alice")
    nobody, her = ["unauthenticated"] * 3, ["granted"] * 3
    task = running.tasks[0]
    assert python(grid, REPLAY, task, credentials[0], user="bob") == nobody
    # On her connection such a one is good. Without the secret of that connection it is not, used or unused.
    assert python(grid, REPLAY, task, credentials[1], public, secret, user="alice") == her
    assert python(grid, REPLAY, task, credentials[1], user="bob") == nobody


def test_credential_for_http_is_good_once_and_for_nothing_else(grid: Grid, running: Loot) -> None:
    """One that nobody has shown yet is its bearer's: the first one to show it is her, so says QRMI's contract.

    That is why HTTP without TLS belongs on loopback (docs/operator.md).
    """
    made = [grid.lab.run("node1", ["munge", "-n"], user="alice").stdout for _ in range(2)]
    _, _, bound, _ = python(grid, MADE, user="alice")
    task, loot = running.tasks[0], (running.tasks[0], running.session)
    # The second request of each pair is with a credential that the first one has used; and is no request of hers.
    assert python(grid, SHOW, *loot, made[0], user="alice") == [[200, 401]]
    assert python(grid, SHOW, *loot, made[0], bound, user="bob") == [[401, 401]] * 2
    # Nor does it open our own door, to which a credential has to be made for one connection.
    assert python(grid, REPLAY, task, made[1], user="bob") == ["unauthenticated"] * 3
    assert statuses(grid, running) == ["running", "completed"]
    assert {str(one["id"]) for one in grid.tasks() if one["session"] == running.session} == set(running.tasks)


def test_of_a_job_whose_number_came_again_its_new_owner_gets_nothing(grid: Grid, over: Loot) -> None:
    count_on_after(grid, int(over.job) - 1)
    job = grid.submit(WAITS, *QPU, user="bob")
    assert job == over.job
    grid.until("the job to run", lambda: grid.runs(job))
    [session] = grid.sessions()
    assert (session["uid"], session["job"]) == (BOB, job)
    # What he finds under the number is his own.
    found = dict.fromkeys(("find it as bob", "acquire it through QRMI"), session["id"])
    assert thief(grid, over, "our client") == found
    assert thief(grid, over, "HTTP") == {"find it as bob": session["id"]}
    assert statuses(grid, over) == ["cancelled", "completed"]
    # And she finds nothing of his, though the number was hers.
    for way in THIEVES:
        assert thief(grid, Loot(job, session["id"], ()), way, "alice") == {}
    assert [one["id"] for one in grid.sessions()] == [session["id"]]
    grid.let_go(job, "bob")
    grid.until("the job to end", lambda: not grid.states())


def count_on_after(grid: Grid, number: int) -> None:
    """Restart Grid Engine with another number for the last job; execds would take half a minute to find it again."""
    with ThreadPoolExecutor() as pool:
        list(pool.map(grid.lab.stop_execd, NODES))
        grid.lab.end_process(MASTER, f"{QMASTER}/qmaster.pid")
        grid.lab.run(MASTER, ["sh", "-c", f"echo {number} > {QMASTER}/jobseqnum"], user="sgeadmin")
        grid.lab.run(MASTER, ["/usr/lib/gridengine/sge_qmaster"], log="qmaster")
        grid.until("the qmaster", lambda: grid.lab.run(MASTER, ["qconf", "-sh"], check=False).returncode == 0)
        list(pool.map(grid.lab.start_execd, NODES))
