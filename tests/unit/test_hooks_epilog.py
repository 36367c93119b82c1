"""What the epilog tells OCS of a job, and whom it asks: numbers that Grid Engine can read, and no Warden too few."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from gridengine_samples import SAMPLES, stdout
from hook_spool import LIMIT, OWNER, Spool, in_qmaster

from gridengine import commands
from gridengine.hooks import epilog, guard, prolog
from gridengine.hooks.job import HookError
from gridengine.site import load
from warden.model import SECOND, Session, UnavailableError

if TYPE_CHECKING:
    from pathlib import Path

    from gridengine.hooks.job import HookJob
    from warden.config import Config

USAGE = (SAMPLES / "ocs/epilog_spool_usage.txt").read_text()


def session(name: str = "s", *, tasks: int = 0, qpu_time: int = 0, ended: int | None = None) -> Session:
    return Session(
        id=name,
        uid=OWNER.pw_uid,
        job="7",
        host="node1",
        acquired=0,
        expires=0,
        ended=ended,
        tasks=tasks,
        shots=100 * tasks,
        qpu_time=qpu_time,
        wait_time=qpu_time // 2,
    )


def test_usage_is_what_the_job_had() -> None:
    assert epilog.usage([(session(tasks=3, qpu_time=5 * SECOND), True)], unreachable=False) == {
        "qrmi_tasks": "3",
        "qrmi_shots": "300",
        "qrmi_qpu_seconds": "5.000000",
        "qrmi_wait_seconds": "2.500000",
        "qrmi_release_status": "released",
    }


def test_session_that_was_ended_before_counts_as_well() -> None:
    both = [(session(tasks=1, ended=1), False), (session(tasks=2), True)]
    assert epilog.usage(both, unreachable=False)["qrmi_tasks"] == "3"
    assert epilog.usage(both, unreachable=False)["qrmi_release_status"] == "released"
    assert epilog.usage(both[:1], unreachable=False)["qrmi_release_status"] == "already_ended"
    assert epilog.usage([], unreachable=False)["qrmi_tasks"] == "0"


def test_what_nobody_knows_is_left_out() -> None:
    assert epilog.usage([], unreachable=True) == {"qrmi_release_status": "unreachable"}


@pytest.mark.parametrize("microseconds", [0, 1, 10**18, 123456])
def test_numbers_are_such_that_grid_engine_reads_them(microseconds: int) -> None:
    told = epilog.usage([(session(qpu_time=microseconds), True)], unreachable=False)
    for name, value in told.items():
        assert re.fullmatch(r"[0-9]+(\.[0-9]+)?|[a-z_]+", value), name
        assert name.startswith("qrmi_")


class Host:
    """A job of OCS (or of SGE) that has ended, with Wardens that say what they are told to say."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.spool = folder, Spool(folder)
        self.usage = self.spool.folder / "usage"
        self.usage.write_text(USAGE)
        self.asked: list[str] = []
        self.silent: set[str] = set()
        self.configure()
        monkeypatch.setattr(epilog, "CONFIG", folder / "a.toml")
        monkeypatch.setattr(epilog, "release", self._release)
        monkeypatch.setattr(
            commands, "run", lambda *_, **__: commands.Output(stdout(f"{self.flavour}/version.txt"), "")
        )
        self.flavour = "ocs"

    def configure(self, more: str = "") -> None:
        for name in "ab":
            (self.folder / f"{name}.toml").write_text(
                f'[qpu]\nname = "{name}"\n[client]\nendpoint = "tcp://{name}:1"\n'
                f'[gridengine]\n{more}\n[[gridengine.qpu]]\nqueues = ["a.q"]\n'
                f'[[gridengine.qpu]]\nconfig = "{self.folder}/b.toml"\nqueues = ["b.q"]\n'
            )

    def _release(self, _job: HookJob, warden: Config, _end: float) -> list[tuple[Session, bool]]:
        self.asked.append(warden.qpu.name)
        if warden.qpu.name in self.silent:
            raise UnavailableError("the broker does not answer")
        return [(session(tasks=2, qpu_time=SECOND), True)]

    def finish(self, mark: str) -> None:
        running = guard.Guard("qpu-epilog", on_expiry=guard.GO_ON)
        running.limit = lambda _: None  # type: ignore[method-assign]
        epilog.finish(self.spool.job(), mark, running)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("mark", "asked"),
    [("tcp://a:1", ["a"]), ("tcp://b:1", ["b"]), ("tcp://evil:1", ["a", "b"]), ("", ["a", "b"])],
)
def test_epilog_asks_the_warden_that_the_prolog_has_noted_and_all_where_it_is_none(
    host: Host, mark: str, asked: list[str]
) -> None:
    host.finish(mark)
    assert host.asked == asked


def test_one_warden_that_is_silent_keeps_no_session_at_another(host: Host) -> None:
    host.silent = {"a"}
    with pytest.raises(UnavailableError):
        host.finish("")
    assert host.asked == ["a", "b"]
    assert host.usage.read_text() == USAGE + "qrmi_release_status=unreachable\n"


def test_ocs_gets_its_lines_behind_its_own(host: Host) -> None:
    host.finish("tcp://a:1")
    added = host.usage.read_text().removeprefix(USAGE)
    assert added.splitlines()[0] == "qrmi_tasks=2"
    assert added.splitlines()[-1] == "qrmi_release_status=released"
    assert added.endswith("\n")


def test_where_ocs_keeps_no_account_none_is_begun(host: Host) -> None:
    host.usage.unlink()
    host.finish("tcp://a:1")
    assert not host.usage.exists()


def test_account_that_is_a_link_is_not_followed(host: Host, tmp_path: Path) -> None:
    (tmp_path / "shadow").write_text("root\n")
    host.usage.unlink()
    host.usage.symlink_to(tmp_path / "shadow")
    with pytest.raises(HookError):
        host.finish("tcp://a:1")
    assert (tmp_path / "shadow").read_text() == "root\n"


@pytest.mark.parametrize(("flavour", "settings"), [("sge", ""), ("ocs", "usage = false")])
def test_account_is_left_alone_on_sge_and_where_the_site_wants_it_so(host: Host, flavour: str, settings: str) -> None:
    host.flavour = flavour
    host.configure(settings)
    host.finish("tcp://a:1")
    assert (host.asked, host.usage.read_text()) == (["a"], USAGE)


def test_prolog_and_epilog_mean_the_same_warden(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prolog, "CONFIG", host.folder / "a.toml")
    monkeypatch.setattr(prolog, "acquire", lambda *_: session())
    job = host.spool.job()
    for queue, name in (("a.q", "a"), ("b.q", "b")):
        host.spool.environment.write_text("WARDEN_ENDPOINT=tcp://evil:1\n")
        there = type(job)(**{field: getattr(job, field) for field in job.__struct_fields__} | {"queue": queue})
        prolog.grant(there, in_qmaster(), _idle())
        mark = there.exported(prolog.MARK)
        assert mark is not None
        assert [warden.qpu.name for warden in epilog.asked(load(host.folder / "a.toml"), mark)] == [name]


def _idle() -> guard.Guard:
    running = guard.Guard("qpu-prolog", on_expiry=guard.AGAIN)
    running.limit = lambda _: None  # type: ignore[method-assign]
    running._end_at += LIMIT
    return running
