"""What `qpu-admin doctor` sees, and what it says to do."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from warden_site import NOBODY, free_port, wait_until

from gridengine import doctor
from gridengine.configuration import GridEngineSection
from gridengine.doctor import Finding, Verdict, by_weight, examine, host, text
from gridengine.doctor.finding import clocks
from warden.model import SECOND

if TYPE_CHECKING:
    from pathlib import Path

    from warden_site import Site

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="what belongs to root is what is looked at")


@pytest.mark.parametrize(
    ("ahead", "unsure", "verdict"),
    [
        (0, 0, Verdict.OK),
        (-SECOND, 0, Verdict.OK),
        (3 * SECOND, 0, Verdict.WARNING),
        (-3 * SECOND, 0, Verdict.WARNING),
        (3 * SECOND, 2 * SECOND, Verdict.OK),
        (300 * SECOND, 0, Verdict.BAD),
    ],
)
def test_clocks_are_compared(ahead: int, unsure: int, verdict: Verdict) -> None:
    found = clocks(ahead, unsure)
    assert found.verdict is verdict
    assert bool(found.fix) is (verdict is not Verdict.OK)


def test_what_is_bad_comes_first_and_everything_else_stays_in_its_order() -> None:
    ok, warning, bad = (Finding(verdict, "a", verdict) for verdict in Verdict)
    other = Finding(Verdict.BAD, "b", "")
    assert by_weight([ok, bad, warning, other]) == [bad, other, warning, ok]


def test_what_is_well_is_only_named_and_what_is_not_is_told() -> None:
    well = [Finding(Verdict.OK, f"check {number % 20}", "all of\nit") for number in range(40)]
    bad = Finding(Verdict.BAD, "check 3", "no\nkey", "make one")
    lines = text([*well, bad]).splitlines()
    assert lines[:2] == ["bad      check 3        no key", "                        -> make one"]
    assert all(line.startswith("ok       check ") and len(line) < 80 for line in lines[2:])
    names = ", ".join(line.removeprefix("ok       ").rstrip(",") for line in lines[2:])
    assert names == ", ".join(f"check {number}" for number in range(20) if number != 3)
    assert len(lines) == 2 + 3
    seen = text([*well, bad], verbose=True).splitlines()[2:4]
    assert seen == [f"ok       check {number}        all of it" for number in (0, 1)]


@pytest.fixture
def room(site: Site) -> Path:
    """A folder that root alone may write, with all above it."""
    made = site.room / "kit"
    made.mkdir(mode=0o755)
    return made


def trusted(path: Path) -> Finding:
    [found] = host.trusted("kit", path)
    return found


def test_what_root_runs_has_to_be_root_s_on_all_of_its_way(room: Path) -> None:
    program, linked = room / "bin" / "python", room / "link"
    program.parent.mkdir()
    program.write_text("")
    linked.symlink_to(program)
    for path in (program, linked):
        assert trusted(path).verdict is Verdict.OK
    program.chmod(0o775)
    for path in (program, linked):
        assert (trusted(path).verdict, trusted(path).fix) == (Verdict.BAD, f"chmod go-w {program}")
    program.chmod(0o755)
    program.parent.chmod(0o777)
    assert trusted(linked).fix == f"chmod go-w {program.parent}"
    program.parent.chmod(0o755)
    os.chown(room, NOBODY, 0)
    assert trusted(program).fix == f"chown root {room}"
    assert "nobody, and root believes it" in trusted(program).seen


def test_secret_keys_are_secret(site: Site) -> None:
    keys = site.room / "keys"
    [found] = host._secrets(keys)
    assert found.verdict is Verdict.OK
    (keys / "worker.key_secret").chmod(0o640)
    [found] = host._secrets(keys)
    assert (found.verdict, "mode 640" in found.seen) == (Verdict.BAD, True)
    [found] = host._secrets(site.room / "nothing")
    assert "none on this host" in found.seen


def owned(folder: Path) -> Finding:
    [found] = host._owned(folder)
    return found


def test_keys_are_of_one_user_who_alone_may_write_them(site: Site) -> None:
    keys = site.room / "keys"
    assert owned(keys).verdict is Verdict.OK
    assert owned(site.room / "nothing").verdict is Verdict.OK
    for path in (keys / "worker.key_secret", keys / "broker.key", keys / "workers", keys):
        os.chown(path, NOBODY, 0)
        assert (owned(keys).verdict, f"chown root {path};" in owned(keys).fix) == (Verdict.BAD, True)
        os.chown(path, 0, 0)
    for path in (keys, keys / "workers", keys / "workers" / "worker.key"):
        mode = path.stat().st_mode
        path.chmod(mode | 0o002)
        assert (owned(keys).verdict, owned(keys).fix.split(",")[0]) == (Verdict.BAD, f"chmod go-w {path}")
        path.chmod(mode)
    for path in (keys, *keys.rglob("*")):
        os.chown(path, NOBODY, 0)
    assert owned(keys).verdict is Verdict.WARNING
    assert "nobody, who can pass for the broker" in owned(keys).seen


def test_what_users_programs_read_is_readable_on_all_of_its_way(site: Site) -> None:
    def readable() -> Finding:
        [found] = host._readable(site.file, site.config.broker_key)
        return found

    assert readable().verdict is Verdict.OK
    for path, right, wrong, fix in (
        (site.file, 0o644, 0o600, "o+r"),
        (site.config.broker_key, 0o644, 0o640, "o+r"),
        (site.config.broker_key.parent, 0o755, 0o700, "o+x"),
    ):
        path.chmod(wrong)
        assert (readable().verdict, readable().fix) == (Verdict.BAD, f"chmod {fix} {path}")
        path.chmod(right)


def test_all_that_root_s_interpreter_loads_is_looked_at(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = [room / name for name in ("python", "qpu-prolog", "qpu-epilog", "qpu-chain", "qpu-load-sensor")]
    package = room / "package"
    module = package / "inner" / "module.py"
    module.parent.mkdir(parents=True)
    for path in (*programs, module):
        path.write_text("")
        path.chmod(0o755)
    monkeypatch.setattr(host, "_places", lambda _: [str(package)])

    def kit() -> list[tuple[Verdict, str]]:
        return [(found.verdict, found.fix) for found in host._kit(GridEngineSection(bin=room))]

    assert kit() == [(Verdict.OK, "")]
    for path in (*programs[1:], module, module.parent, package, room):
        path.chmod(0o777)
        assert kit() == [(Verdict.BAD, f"chmod go-w {path}")]
        path.chmod(0o755)
    os.chown(module, NOBODY, 0)
    assert kit() == [(Verdict.BAD, f"chown root {module}")]


def test_a_kit_that_is_not_where_the_configuration_says(room: Path) -> None:
    [found] = host._kit(GridEngineSection(bin=room / "none"))
    assert (found.verdict, found.seen) == (Verdict.BAD, f"{room}/none/python is missing")
    assert found.fix.startswith("correct gridengine.bin")


def test_who_is_not_root_is_told_that_he_sees_little(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    first = next(examine(site.file))
    assert (first.verdict, first.fix) == (Verdict.WARNING, "run it as root")


def test_a_hook_that_hangs_is_a_finding(room: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (room / "qpu-prolog").write_text("#!/bin/sh\nexec /bin/sleep 999\n")
    (room / "qpu-prolog").chmod(0o755)
    monkeypatch.setattr(host, "_HOOK_LIMIT", 0.2)
    [found] = doctor.attempt("hooks here", lambda: host._hooks(GridEngineSection(bin=room)))
    assert (found.verdict, "timed out" in found.seen) == (Verdict.BAD, True)


def test_where_the_kit_s_packages_are_is_found() -> None:
    for name in host._LOADED:
        assert host._places(name), name
    assert host._places("there_is_no_such_package") == []


def test_a_hook_that_may_not_be_executed_is_told_in_words(room: Path) -> None:
    (room / "qpu-prolog").write_text("")
    [found] = host._hooks(GridEngineSection(bin=room))
    assert found.verdict is Verdict.BAD
    assert found.seen == f"{room}/qpu-prolog is missing, or may not be executed"


def test_what_runs_the_site_s_own_hooks_is_looked_at_too(room: Path) -> None:
    for name in ("qpu-prolog", "qpu-epilog"):
        (room / name).write_text("#!/bin/sh\necho ok\n")
        (room / name).chmod(0o755)
    [found] = host._hooks(GridEngineSection(bin=room))
    assert (found.verdict, found.seen) == (Verdict.BAD, f"{room}/qpu-chain is missing, or may not be executed")


def verdicts(site: Site) -> dict[str, tuple[str, str]]:
    return {found.what: (found.verdict, found.seen) for found in examine(site.file)}


@pytest.mark.long
def test_a_host_is_looked_at_as_a_whole_and_each_trouble_is_its_own(site: Site) -> None:
    site.start_broker()
    site.start_worker()
    found = verdicts(site)
    assert {
        what: verdict for what, (verdict, _) in found.items() if what in {"broker", "MUNGE", "clocks"}
    } == dict.fromkeys(("broker", "MUNGE", "clocks"), "ok")
    assert found["configuration"][0] == found["broker's key"][0] == "ok"
    # There is no Grid Engine here.
    assert found["cluster"][0] == "bad"
    assert {one.what for one in examine(site.file, here_only=True)}.isdisjoint({"cluster", "queues", "hosts", "jobs"})
    site.kill(site.worker)
    site.kill(site.broker)
    found = verdicts(site)
    assert found["broker"] == ("bad", found["broker"][1])
    assert "does not answer" in found["broker"][1]
    assert found["MUNGE"][0] == "ok"


def answer(stranger: socket.socket) -> None:
    with stranger.accept()[0] as client:
        client.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}")


@pytest.mark.long
def test_an_edge_that_jobs_would_not_find_or_should_not_trust_is_told(site: Site) -> None:
    port = free_port()
    site.configure(http={"listen": f"127.0.0.1:{port}"})
    verdict, seen = verdicts(site)["edge"]
    assert verdict == "bad"
    assert seen.startswith(f"no edge answers at http://127.0.0.1:{port}: ")
    with socket.create_server(("127.0.0.1", port)) as stranger:
        thief = threading.Thread(target=answer, args=(stranger,))
        thief.start()
        assert verdicts(site)["edge"] == (
            "bad",
            f"what answers at http://127.0.0.1:{port} is no edge of the QPU fresnel",
        )
        thief.join()
    site.start_broker()
    wait_until(lambda: "serving QRMI's clients" in site.log_of(site.broker), "the edge serves")
    verdict, seen = verdicts(site)["edge"]
    assert verdict == "warning"
    assert "any user of this host can take" in seen


def test_a_munged_that_calls_its_host_a_loopback_is_named_where_hosts_count(site: Site) -> None:
    site.configure(access={"hosts": ["127.0.0.0/8"]})
    [found] = host._munge(site.config)
    if "127." in found.seen:
        assert (found.verdict, "--origin" in found.fix) == (Verdict.BAD, True)
    else:
        assert found.verdict is Verdict.OK


def test_a_configuration_that_is_broken_is_all_that_is_told(site: Site) -> None:
    site.file.write_text("[nonsense]\n")
    found = list(examine(site.file))
    assert [one.what for one in found] == ["configuration", "configuration"]
    assert "unknown key 'nonsense'" in found[1].seen
    site.file.unlink()
    assert [one.verdict for one in examine(site.file)][-1] is Verdict.BAD
