"""What the prolog asks Grid Engine, and what it tells it: who may have which QPU, and when a job comes again."""

from __future__ import annotations

import calendar
import time
from typing import TYPE_CHECKING

import pytest
from gridengine_samples import SAMPLES, stdout
from hook_spool import LIMIT, OWNER, Spool, hook_job, in_qmaster

from gridengine import commands, jobs, qstat_xml
from gridengine.hooks import guard, prolog, retry
from gridengine.site import load
from warden import model
from warden.model import SECOND, BadRequestError, BusyError, ConfigurationError, LimitError

if TYPE_CHECKING:
    from pathlib import Path

    from gridengine.hooks.job import HookJob
    from gridengine.site import Site

BUSY = BusyError("all places on the QPU fresnel are taken (1 of 1)")


class Qmaster:
    """A qmaster that knows one job, notes what it is told of it, and refuses what it does not allow."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.job = in_qmaster()
        self.told: list[tuple[str, ...]] = []
        self.refuses: set[str] = set()
        self.looks = 0
        self.flavour = "sge"
        monkeypatch.setattr(jobs, "detail", self._detail)
        monkeypatch.setattr(commands, "run", self._run)

    def _detail(self, _number: str, **_: object) -> qstat_xml.Job:
        self.looks += 1
        return self.job

    def _run(self, *words: str, **options: object) -> commands.Output:
        if words[0] == "qconf":
            return commands.Output(stdout(f"{self.flavour}/version.txt"), "")
        assert words[0] == "qalter"
        assert words[-1] == "7"
        assert options.get("utc", False) == (words[1] == "-a")
        if words[1] in self.refuses:
            raise commands.DeniedError("rejected due to jsv_allowed_mod configuration which does not allow: a")
        self.told.append(words[1:-1])
        return commands.Output("", "")

    def pause(self) -> float:
        """For how long the job is left alone."""
        (moment,) = [words[1] for words in self.told if words[0] == "-a"]
        return calendar.timegm(time.strptime(moment, "%Y%m%d%H%M.%S")) - time.time()


class Running(guard.Guard):
    """A hook that has not much time left."""

    def __init__(self, seconds: float) -> None:
        super().__init__("qpu-prolog", on_expiry=guard.AGAIN)
        self._end_at = time.monotonic() + seconds

    def limit(self, seconds: float) -> None:
        """Nobody ends the tests."""


@pytest.fixture
def qmaster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Qmaster:
    monkeypatch.setattr(prolog, "CONFIG", tmp_path / "warden.toml")
    monkeypatch.setattr(prolog, "_PAUSE_HERE", 0.1)
    configure(tmp_path)
    return Qmaster(monkeypatch)


def configure(folder: Path, gridengine: str = "") -> None:
    (folder / "warden.toml").write_text(f'[qpu]\nname = "fresnel"\n[gridengine]\n{gridengine}\n')


# --- when it comes again ---


def send_back(job: HookJob, error: Exception) -> None:
    """As the prolog does, which then says once more why."""
    with pytest.raises(type(error)):
        prolog.come_again(job, error, Running(LIMIT))


def test_first_time_the_job_is_left_alone_for_the_first_pause_and_it_is_noted_why(qmaster: Qmaster) -> None:
    send_back(hook_job(), BUSY)
    assert qmaster.told[0] == ("-ac", "qpu_attempts=1,qpu_reason=busy")
    assert 20 < qmaster.pause() < 40
    assert qmaster.looks == 1


def test_each_time_longer(qmaster: Qmaster) -> None:
    qmaster.job = in_qmaster(context={"qpu_attempts": "3", "qpu_reason": "busy", "mine": "1"})
    send_back(hook_job(), model.UnavailableError("x"))
    # What the user has put into the context himself is not touched.
    assert qmaster.told[0] == ("-ac", "qpu_attempts=4,qpu_reason=unreachable")
    assert 170 < qmaster.pause() < 310


def test_until_the_end_of_the_block_where_warden_says_it(qmaster: Qmaster) -> None:
    send_back(hook_job(), retry.NotNowError("calibrating", "calibrating", 200 * SECOND))
    assert qmaster.told[0] == ("-ac", "qpu_attempts=1,qpu_reason=calibrating")
    assert 195 < qmaster.pause() < 235


def test_later_time_of_the_user_stays(qmaster: Qmaster) -> None:
    qmaster.job = in_qmaster(not_before=int(time.time()) + 3600)
    send_back(hook_job(), BUSY)
    assert [words[0] for words in qmaster.told] == ["-ac"]


@pytest.mark.parametrize("broken", ["nonsense = 1", "[["])
def test_configuration_that_cannot_be_read_makes_it_the_usual_pause(
    qmaster: Qmaster, tmp_path: Path, broken: str
) -> None:
    configure(tmp_path, broken)
    send_back(hook_job(), ConfigurationError("x"))
    assert qmaster.told[0] == ("-ac", "qpu_attempts=1,qpu_reason=configuration")
    assert 20 < qmaster.pause() < 40


def test_after_its_attempts_the_job_is_in_error_with_the_reason_and_begins_anew(
    qmaster: Qmaster, tmp_path: Path
) -> None:
    configure(tmp_path, "attempts = 5")
    qmaster.job = in_qmaster(context={"qpu_attempts": "4"})
    with pytest.raises(LimitError, match=r"held after 5 attempts .*: all places .* taken .* \(qmod -cj 7 ") as caught:
        prolog.come_again(hook_job(), BUSY, Running(LIMIT))
    assert guard.exit_status(caught.value) == guard.JOB_ERROR
    assert qmaster.told == [("-dc", "qpu_attempts,qpu_reason")]


def test_deleted_job_needs_no_pause(qmaster: Qmaster, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise qstat_xml.NoSuchJobError("x")

    monkeypatch.setattr(jobs, "detail", gone)
    send_back(hook_job(), BUSY)
    assert qmaster.told == []


@pytest.mark.parametrize("refused", [{"-a"}, {"-a", "-ac"}])
def test_where_grid_engine_refuses_the_pause_the_job_waits_in_its_prolog(
    qmaster: Qmaster, monkeypatch: pytest.MonkeyPatch, refused: set[str]
) -> None:
    qmaster.refuses = refused
    tried: list[HookJob] = []

    def serve(job: HookJob, _: guard.Guard) -> None:
        tried.append(job)
        raise BUSY

    monkeypatch.setattr(prolog, "serve", serve)
    with pytest.raises(BusyError):
        prolog.come_again(hook_job(), BUSY, Running(1.0))
    assert len(tried) >= 3
    # And is granted what it finds there.
    monkeypatch.setattr(prolog, "serve", lambda *_: None)
    prolog.come_again(hook_job(), BUSY, Running(5.0))


# --- which QPU, if any ---


@pytest.fixture
def several(qmaster: Qmaster, tmp_path: Path) -> Site:
    assert qmaster.told == []
    (tmp_path / "b.toml").write_text('[qpu]\nname = "emu"\n')
    configure(
        tmp_path,
        f"""rsmap = "qpu_id"
[[gridengine.qpu]]
queues = ["a.q"]
[[gridengine.qpu]]
config = "{tmp_path}/b.toml"
queues = ["b.q", "c.q"]
""",
    )
    return load(tmp_path / "warden.toml")


def test_the_queue_says_which_qpu_a_job_has(several: Site) -> None:
    found = {queue: prolog.granted(several, hook_job(queue=queue), in_qmaster()).name for queue in several.queues}
    assert found == {"a.q": "fresnel", "b.q": "emu", "c.q": "emu"}
    with pytest.raises(BadRequestError, match=r"queue all.q offers no QPU: ask for one of a.q, b.q, c.q"):
        prolog.granted(several, hook_job(queue="all.q"), in_qmaster())


@pytest.mark.parametrize(
    ("environment", "granted", "name"),
    [
        ("SGE_HGR_qpu_id=emu", None, "emu"),
        ("SGE_HGR_qpu_id=fresnel\nSGE_HGR_qpu_id=emu", ("emu",), "emu"),
        # Two of the same are one QPU.
        ("SGE_HGR_qpu_id=emu emu", ("emu",), "emu"),
        # An array: its tasks were given several.
        ("SGE_HGR_qpu_id=fresnel", ("emu", "fresnel"), "fresnel"),
        ("SGE_HGR_qpu_id=fresnel", ("emu",), BadRequestError),
        ("SGE_HGR_qpu_id=fresnel emu", None, BadRequestError),
        ("SGE_HGR_qpu_id=", None, BadRequestError),
        ("OTHER=1", None, BadRequestError),
        ("SGE_HGR_qpu_id=other", None, ConfigurationError),
    ],
)
def test_on_ocs_the_scheduler_names_the_qpu(
    several: Site, tmp_path: Path, environment: str, granted: tuple[str, ...] | None, name: str | type[Exception]
) -> None:
    spool = Spool(tmp_path)
    spool.environment.write_text(environment + "\n")
    job = hook_job(queue="a.q", spool=spool.folder)
    found = in_qmaster(requests={"qpu": "1", "qpu_id": "1"}, granted={} if granted is None else {"qpu_id": granted})
    if isinstance(name, str):
        assert prolog.granted(several, job, found).name == name
    else:
        with pytest.raises(name):
            prolog.granted(several, job, found)


def test_name_of_a_qpu_that_the_job_says_itself_is_not_believed(several: Site, tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.environment.write_text("SGE_HGR_qpu_id=emu\n")
    job = hook_job(queue="a.q", spool=spool.folder)
    assert prolog.granted(several, job, in_qmaster(requests={"qpu": "1"})).name == "fresnel"


def test_job_on_another_qpu_than_the_sites_first_finds_its_warden(several: Site) -> None:
    session = model.Session(id="s", uid=OWNER.pw_uid, job="7", host="node1", acquired=0, expires=0)
    first, second = (prolog.environment(offer, session) for offer in several.offers)
    assert "WARDEN_CONFIG" not in first
    assert second["WARDEN_CONFIG"] == str(several.offers[1].config)
    assert second["QRMI_JOB_QPU_RESOURCES"] == "emu"


# --- whether the qmaster is asked at all ---


@pytest.mark.parametrize(
    ("flavour", "sample", "asked"),
    [
        ("ocs", "requested", True),
        ("ocs", "none", False),
        # Anybody can say so; the qmaster then says that he did not ask for it.
        ("ocs", "spoofed", True),
        ("sge", "none", True),
        # What it says of consumables there is not known.
        ("OCS 9.1.2", "none", True),
        ("nothing that we know", "none", True),
    ],
)
def test_on_ocs_a_job_without_the_qpu_costs_no_question(
    qmaster: Qmaster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flavour: str, sample: str, *, asked: bool
) -> None:
    environments = {
        "requested": (SAMPLES / "ocs/prolog_spool_environment.txt").read_text(),
        "spoofed": (SAMPLES / "ocs/prolog_env_spoofed_by_user.txt").read_text().partition("# environment file\n")[2],
        "none": "SGE_TASK_ID=undefined\n",
    }
    qmaster.flavour = flavour
    qmaster.job = in_qmaster(requests={"qpu": "1"} if sample == "requested" else {})
    spool = Spool(tmp_path)
    spool.environment.write_text(environments[sample])
    granted: list[HookJob] = []
    monkeypatch.setattr(prolog, "grant", lambda job, *_: granted.append(job))
    if flavour not in {"ocs", "sge"}:
        said = flavour if flavour.startswith("OCS") else "XGE 1"
        monkeypatch.setattr(commands, "version", lambda _: commands.parse_version(f"{said}\n"))
    prolog.serve(spool.job(), Running(LIMIT))
    assert bool(qmaster.looks) == asked
    assert bool(granted) == (sample == "requested")
