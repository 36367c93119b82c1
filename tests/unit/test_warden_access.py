"""Who may use the QPU, by account, by group and by host, and a site without MUNGE."""

from __future__ import annotations

import grp
import os
import pwd
from typing import Any

import pytest
from warden_machine import ALICE, BOB, OPERATOR, ready
from warden_site import NOBODY, SESSION, Site, as_user, wait_until

from warden import munge, roster, trust, wire
from warden.authority import Members
from warden.events import Enrolled, Tick
from warden.model import ConfigurationError, ForbiddenError, UnauthenticatedError
from warden.roster import Roster
from warden.sections import AccessSection

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become other users")

ONLY_ALICE = Members(frozenset({OPERATOR}), frozenset({ALICE}))


# --- who may use the QPU ---


def test_jobs_of_users_who_may_not_use_the_qpu_get_no_session() -> None:
    machine, _ = ready(members=ONLY_ALICE)
    assert machine.session(ALICE, "7").uid == ALICE
    with pytest.raises(ForbiddenError, match="user 1002 may not use the QPU fresnel: its operator knows who may"):
        machine.session(BOB, "8")


def test_without_a_list_everybody_may_use_it() -> None:
    machine, _ = ready(members=Members())
    assert machine.session(BOB, "8").uid == BOB


def test_who_has_left_the_group_keeps_his_results_and_gets_nothing_new() -> None:
    machine, qpu = ready()
    session = machine.session(BOB, "8")
    task = machine.start(session)
    machine.send(Enrolled(ONLY_ALICE))
    qpu.take()
    qpu.finish()
    assert machine.task(task.id, BOB).counts
    with pytest.raises(ForbiddenError, match="may not use the QPU"):
        machine.start(session)
    machine.ask(wire.Release(session=session.id))
    with pytest.raises(ForbiddenError, match="may not use the QPU"):
        machine.session(BOB, "8")


def test_operators_come_and_go() -> None:
    machine, _ = ready()
    machine.send(Enrolled(Members(frozenset({BOB}))))
    machine.send(Tick())
    assert machine.ask(wire.ListTasks(everybody=True), BOB) == []
    with pytest.raises(ForbiddenError):
        machine.ask(wire.ListTasks(everybody=True), OPERATOR)


# --- accounts and groups ---


class Accounts:
    """A directory of accounts and groups, in place of the machine's."""

    def __init__(self) -> None:
        self.users = {"root": (0, 0), "alice": (1001, 100), "bob": (1002, 100), "carol": (1003, 200)}
        self.groups: dict[str, tuple[int, list[str]]] = {"qpu": (300, ["alice", "gone"]), "staff": (200, [])}
        self.fails = False

    def _account(self, name: str) -> Any:
        uid, gid = self.users[name]
        return pwd.struct_passwd((name, "x", uid, gid, "", "/", "/bin/sh"))

    def getpwnam(self, name: str) -> Any:
        return self._account(name)

    def getpwall(self) -> list[Any]:
        return [self._account(name) for name in self.users]

    def getgrnam(self, name: str) -> Any:
        if self.fails:
            raise OSError("the directory is away")
        gid, members = self.groups[name]
        return grp.struct_group((name, "x", gid, members))


@pytest.fixture
def accounts(monkeypatch: pytest.MonkeyPatch) -> Accounts:
    made = Accounts()
    monkeypatch.setattr(roster, "pwd", made)
    monkeypatch.setattr(roster, "grp", made)
    return made


@pytest.mark.usefixtures("accounts")
@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (AccessSection(), Members(frozenset({0}))),
        (AccessSection(users=("bob", 77)), Members(frozenset({0}), frozenset({1002, 77}))),
        (AccessSection(groups=("qpu",)), Members(frozenset({0}), frozenset({1001}))),
        (AccessSection(groups=("staff",), users=("bob",)), Members(frozenset({0}), frozenset({1002, 1003}))),
        (AccessSection(operators=(), operator_groups=("qpu",)), Members(frozenset({1001}))),
    ],
)
def test_names_and_groups_are_looked_up(section: AccessSection, expected: Members) -> None:
    assert roster.members(section) == expected


@pytest.mark.usefixtures("accounts")
def test_a_name_that_is_not_there_is_named() -> None:
    for section, said in {
        AccessSection(users=("dora",)): "access.users names 'dora', and there is no such user",
        AccessSection(groups=("nobodies",)): "access.groups names 'nobodies', and there is no such group",
        AccessSection(operator_groups=("x",)): "access.operator_groups names 'x'",
    }.items():
        with pytest.raises(ConfigurationError, match=said):
            roster.members(section)


def test_who_joins_a_group_is_noticed_and_a_directory_that_is_away_changes_nothing(
    accounts: Accounts, caplog: pytest.LogCaptureFixture
) -> None:
    section = AccessSection(groups=("qpu",))
    watched = Roster(section, roster.members(section), every=0.01)
    try:
        assert watched.members.users == {1001}
        accounts.groups["qpu"] = (300, ["alice", "bob"])
        wait_until(lambda: watched.members.users == {1001, 1002}, "the new member is noticed")
        accounts.fails = True
        accounts.groups["qpu"] = (300, [])
        wait_until(lambda: "stay as they are: the directory is away" in caplog.text, "it is said")
        assert watched.members.users == {1001, 1002}
        accounts.fails = False
        wait_until(lambda: watched.members.users == frozenset(), "it is back")
    finally:
        watched.close()


@pytest.mark.parametrize("away", ["of all", "of some"])
def test_members_whose_directory_is_away_are_no_strangers(accounts: Accounts, away: str) -> None:
    section, known = AccessSection(groups=("qpu",)), dict[str, int]()
    accounts.groups["qpu"] = (300, ["alice", "bob"])
    before = roster.members(section, known)
    del accounts.users["bob"]
    if away == "of all":
        del accounts.users["alice"]
    assert roster.members(section, known) == before


def test_a_group_of_which_nobody_is_known_is_named(accounts: Accounts) -> None:
    accounts.groups["qpu"] = (300, ["gone", "away"])
    with pytest.raises(ConfigurationError, match="no member of the group 'qpu' is known here: is their directory away"):
        roster.members(AccessSection(groups=("qpu",)))


# --- hosts ---


@pytest.mark.parametrize(
    ("uid", "host", "access", "allowed"),
    [
        (1001, "192.0.2.7", AccessSection(), True),
        (1001, "192.0.2.7", AccessSection(hosts=("192.0.2.0/24",)), True),
        (1001, "192.0.3.7", AccessSection(hosts=("192.0.2.0/24", "192.0.3.7")), True),
        (1001, "192.0.3.8", AccessSection(hosts=("192.0.2.0/24", "192.0.3.7")), False),
        (0, "192.0.2.7", AccessSection(hosts=("192.0.2.0/24",)), True),
        (0, "192.0.2.7", AccessSection(root_hosts=("192.0.2.8",)), False),
        (0, "192.0.2.8", AccessSection(root_hosts=("192.0.2.8",)), True),
        (1001, "192.0.2.7", AccessSection(root_hosts=("192.0.2.8",)), True),
        (0, "192.0.2.8", AccessSection(hosts=("192.0.3.0/24",), root_hosts=("192.0.2.8",)), False),
    ],
)
def test_credentials_are_taken_from_the_hosts_that_the_site_names(
    uid: int, host: str, access: AccessSection, allowed: bool
) -> None:
    if allowed:
        trust.check_host(uid, host, access)
    else:
        with pytest.raises(UnauthenticatedError, match=f"is taken from {host}: access"):
            trust.check_host(uid, host, access)


def test_a_real_credential_names_its_host_and_is_refused_elsewhere(site: Site) -> None:
    here = munge.decode(munge.encode(b"", site.munge_socket), site.munge_socket).host
    site.configure(access={"hosts": [here]})
    site.start_broker()
    with site.client() as client:
        assert client.sessions()
    site.kill(site.broker)
    site.configure(access={"hosts": ["203.0.113.0/24"]})
    site.start_broker()
    with site.client() as client, pytest.raises(UnauthenticatedError, match=f"taken from {here}: access.hosts"):
        client.sessions()


# --- without MUNGE ---


@needs_root
def test_on_one_host_the_kernel_says_who_is_there(site: Site) -> None:
    site.configure(access={"identity": "kernel", "munge_socket": str(site.room / "nothing")})
    site.start_broker()
    with site.client() as root:
        assert [session.id for session in root.sessions()] == [SESSION]
        # Without a worker the QPU takes no session: make it one that takes them.
        site.start_worker(wait=False)
        wait_until(lambda: root.availability().open_places, "the QPU is ready")
        root.acquire(job="7", uid=NOBODY)
    look = """
        ask(lambda: [session.job for session in c.sessions()])
        ask(lambda: c.acquire(job="7", uid=os.getuid()).job)
    """
    assert as_user(NOBODY, look, site) == ["['7']", "7"]
    assert as_user(1, look, site) == ["[]", "restricted"]


@pytest.mark.parametrize(
    ("address", "uid"),
    [
        ("localhost:1001:100:42", 1001),
        ("127.0.0.1", None),
        ("localhost", None),
        ("localhost:0:0", None),
        ("localhost:x:0:1", None),
        ("evil.localhost:0:0:1", None),
        ("localhost:0:0:1\n", None),
        ("", None),
    ],
)
def test_only_the_kernel_s_words_name_a_user(address: str, uid: int | None) -> None:
    assert trust.peer_uid(address) == uid


def test_the_kernel_s_word_is_for_one_host_alone(site: Site) -> None:
    with pytest.raises(ConfigurationError, match="the kernel knows only who is at an ipc:// address"):
        site.configure(access={"identity": "kernel"}, broker={"clients": ["tcp://127.0.0.1:7610"]})


@pytest.mark.parametrize("line", ['hosts = ["node1"]', 'root_hosts = ["192.0.2.1/24"]', 'hosts = ["::1"]'])
def test_what_is_no_network_is_named(tmp_path: Any, line: str) -> None:
    from warden import config  # noqa: PLC0415

    file = tmp_path / "warden.toml"
    file.write_text(f"[access]\n{line}\n")
    with pytest.raises(ConfigurationError, match="is no address and no network such as"):
        config.load(file)
