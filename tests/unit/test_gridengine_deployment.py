"""The plan, and the texts that it is made from; what happens to a real cluster is in tests/cluster."""

import sys
from pathlib import Path

import pytest
from gridengine_samples import SAMPLES, calls, stdout

from gridengine import configuration, deployment, qconf_text
from gridengine.commands import GridEngineError, Output
from gridengine.configuration import GridEngineSection
from gridengine.deployment import Change, Item, Kind, State, plan
from gridengine.resources import NAMES, Flavour, complexes, parse_table, render_table, values
from warden.model import ConfigurationError, ConflictError
from warden.sections import QpuSection

SETTINGS = GridEngineSection(bin=Path("/opt/w/bin"), sensor_hosts=("global", "node1"))
DESIRED = deployment.desired(SETTINGS, QpuSection(name="fresnel", qubits=20), Flavour.SGE)
PROLOG = Item(Kind.HOOK, "all.q", "prolog")
QPU = Item(Kind.COMPLEX, "", "qpu")


def kinds(changes: list[Change]) -> list[Kind]:
    return list(dict.fromkeys(change.item.kind for change in changes))


def test_the_table_is_the_one_of_the_design() -> None:
    assert [entry.line() for entry in complexes(Flavour.SGE)] == [
        "qpu qpu INT <= YES JOB 0 0",
        "qpu_name qpu_name RESTRING == YES NO NONE 0",
        "qpu_state qpu_state STRING == NO NO NONE 0",
        "qpu_window qpu_window INT <= YES NO 0 0",
        "qpu_qubits qpu_qubits INT <= YES NO 0 0",
    ]
    assert [entry.type for entry in complexes(Flavour.OCS) if entry.name == "qpu_name"] == ["STRING"]


def test_a_reported_string_has_no_fixed_value() -> None:
    assert values(QpuSection(places=3)).keys() == NAMES - {"qpu_state"}


@pytest.mark.parametrize("text", [stdout("sge/qconf_sc.txt"), (SAMPLES / "ocs/qconf_sc.txt").read_text()])
def test_the_table_survives_reading_and_writing(text: str) -> None:
    table = parse_table(text)
    assert len(table) == len([line for line in text.splitlines() if line and line[0] != "#"]) > 50
    assert parse_table(render_table(table)) == table


def test_what_is_no_table_is_not_read() -> None:
    with pytest.raises(ValueError, match="too few"):
        parse_table("too few\n")


def test_everything_comes_in_an_order_that_is_safe_and_goes_in_reverse() -> None:
    assert kinds(plan(DESIRED, {})) == list(Kind)
    assert kinds(plan({}, DESIRED)) == list(reversed(Kind))
    assert plan(DESIRED, DESIRED) == []


def test_a_plan_leads_from_actual_to_desired_and_back() -> None:
    actual: State = {QPU: DESIRED[QPU], Item(Kind.SENSOR, "old", "load_sensor"): "/opt/old/qpu-load-sensor"}
    state = dict(actual)
    changes = plan(DESIRED, actual)
    for change in changes:
        assert state.pop(change.item, None) == change.before
        if change.after is not None:
            state[change.item] = change.after
    assert state == DESIRED
    for change in reversed(changes):
        undone = change.undone()
        assert state.pop(undone.item, None) == undone.before
        if undone.after is not None:
            state[undone.item] = undone.after
    assert state == actual


def test_our_hook_from_another_place_is_ours_still() -> None:
    moved = DESIRED | {PROLOG: "root@/old/bin/qpu-prolog $job_id"}
    assert plan(DESIRED, moved) == [Change(PROLOG, moved[PROLOG], DESIRED[PROLOG])]
    assert PROLOG in {change.item for change in plan({}, moved)}


@pytest.mark.parametrize("text", ["/bin/true", "root@/x/qpu-prolog,[node1=/bin/true]", "/opt/w/bin/qpu-prolog; true"])
def test_another_hook_is_a_conflict_and_is_never_removed(text: str) -> None:
    foreign = DESIRED | {PROLOG: text}
    with pytest.raises(ConflictError, match=r"queue all\.q has another prolog already"):
        plan(DESIRED, foreign)
    assert PROLOG not in {change.item for change in plan({}, foreign)}


def test_a_complex_of_somebody_else_stays_with_its_values() -> None:
    foreign = {QPU: "qpu qpu INT <= YES YES 0 100", Item(Kind.VALUE, "global", "qpu"): "7"}
    with pytest.raises(ConflictError, match="another complex qpu"):
        plan(DESIRED, foreign)
    assert plan({}, foreign) == []


def test_changes_read_like_a_diff() -> None:
    lines = [str(change) for change in plan(DESIRED, {})]
    assert lines[0] == "+ complex qpu: qpu qpu INT <= YES JOB 0 0"
    assert lines[5] == "+ value qpu of host global: 1"
    assert lines[-3:] == [
        "+ load_sensor of configuration node1: /opt/w/bin/qpu-load-sensor",
        "+ prolog of queue all.q: root@/opt/w/bin/qpu-prolog $job_id $ja_task_id $job_owner $host",
        "+ epilog of queue all.q: root@/opt/w/bin/qpu-epilog $job_id $ja_task_id $job_owner $host",
    ]
    assert str(Change(QPU, "a", "b")) == "~ complex qpu: a -> b"
    assert str(Change(QPU, "a", None)) == "- complex qpu: a"


def test_only_execds_of_hosts_have_to_be_restarted() -> None:
    assert deployment.hosts_to_restart(plan(DESIRED, {})) == ["node1"]
    assert deployment.hosts_to_restart(plan({}, DESIRED)) == []


def test_settings_are_read_whole() -> None:
    sge, ocs = (qconf_text.settings(stdout(f"{flavour}/qconf_sconf.txt")) for flavour in ("sge", "ocs"))
    assert sge["load_sensor"] == "none"
    assert ocs["load_sensor"] == "NONE"
    for shown in (sge, ocs):
        assert shown["reporting_params"].split()[0] == "accounting=true"
        assert shown["reporting_params"].split()[-1] == "sharelog=00:00:00"
    hooks = qconf_text.settings(stdout("sge/qconf_sq_hooks.txt"))
    assert hooks["prolog"] == "root@/opt/warden/bin/qpu-prolog $job_id $ja_task_id $job_owner $host"


def test_values_are_read_over_line_ends() -> None:
    shown = next(call for call in calls("ocs/qconf_complex_values_session.txt") if "qpu_mon=1.5, \\" in call.stdout)
    assert qconf_text.pairs(qconf_text.settings(shown.stdout)["complex_values"]) == {
        "qpu": "1",
        "qpu_q": "0.5",
        "qpu_type": "fresnel",
        "qpu_mon": "1.5",
        "qpu_id": "2(fresnel_a fresnel_b)",
    }
    assert qconf_text.pairs("NONE") == {}


WRAPPED = "#global:\nmailer  /bin/mail\nload_sensor                  /a/b,/c/d, \\\n                             /e/f\nxterm x\n"


def test_one_line_is_changed_and_no_other() -> None:
    changed = qconf_text.with_setting(WRAPPED, "load_sensor", "/a\\1")
    assert changed == "#global:\nmailer  /bin/mail\nload_sensor                  /a\\1\nxterm x\n"
    assert qconf_text.names(qconf_text.settings(WRAPPED)["load_sensor"]) == ["/a/b", "/c/d", "/e/f"]
    assert qconf_text.without(WRAPPED, "load_sensor") == "#global:\nmailer  /bin/mail\nxterm x\n"
    assert qconf_text.with_setting("", "load_sensor", "/a") == "load_sensor                  /a\n"
    assert qconf_text.none_as_in(stdout("sge/qconf_sconf.txt")) == "none"
    assert qconf_text.none_as_in(stdout("ocs/qconf_sconf.txt")) == "NONE"


class FakeCell:
    """As much of qconf and qstat as apply needs to be interrupted at every step."""

    def __init__(self) -> None:
        self.table = stdout("sge/qconf_sc.txt")
        self.values: dict[str, str] = {}
        self.queue = {"prolog": "NONE", "epilog": "NONE"}
        self.configurations = {"global": "#global:\nmailer m\nload_sensor                  /site\n"}
        self.calls_left = 10**6
        self.writes = 0

    def snapshot(self) -> object:
        table = {entry.line() for entry in parse_table(self.table)}
        return table, dict(self.values), dict(self.queue), dict(self.configurations)

    def run(self, command: str, *arguments: str, **_: object) -> Output:
        out = ""
        match (command, *arguments):
            case ("qconf", "-sc"):
                out = self.table
            case ("qconf", "-sconf", name):
                if name not in self.configurations:
                    raise deployment.commands.UnknownObjectError(f"configuration {name} not defined")
                out = self.configurations[name]
            case ("qconf", "-sq", _name):
                out = "".join(f"{hook}  {text}\n" for hook, text in self.queue.items())
            case ("qconf", "-se", _name):
                out = "complex_values " + (",".join(f"{k}={v}" for k, v in self.values.items()) or "NONE")
            case ("qstat", *_rest):
                out = "<job_info/>"
            case _:
                self.writes += 1
                if self.calls_left <= 0:
                    self.calls_left = 10**6
                    raise GridEngineError("qconf: no")
                self.calls_left -= 1
                self.write(*arguments)
        return Output(out, "")

    def write(self, option: str, *arguments: str) -> None:
        match (option, *arguments):
            case ("-Mc", path):
                self.table = Path(path).read_text()
            case ("-Mconf" | "-Aconf", path):
                self.configurations[Path(path).name] = Path(path).read_text()
            case ("-dconf", name):
                del self.configurations[name]
            case ("-mattr", _object, _attribute, value, _host):
                self.values.update([value.split("=")])
            case ("-dattr", _object, _attribute, name, _host):
                del self.values[name]
            case ("-rattr", _object, hook, value, _queue):
                self.queue[hook] = value
            case _:
                raise AssertionError(option)


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> FakeCell:
    fake = FakeCell()
    monkeypatch.setattr(deployment.commands, "run", fake.run)
    return fake


def test_apply_and_remove(cell: FakeCell) -> None:
    before = cell.snapshot()
    deployment.apply(plan(DESIRED, deployment.read_actual(SETTINGS)))
    assert plan(DESIRED, deployment.read_actual(SETTINGS)) == []
    # What a host does not say itself it has from `global`; a line of its own must not hide the site's sensor.
    assert "/site,/opt/w/bin/qpu-load-sensor" in cell.configurations["node1"]
    deployment.apply(plan({}, deployment.read_actual(SETTINGS)))
    assert cell.snapshot() == before


@pytest.mark.parametrize("direction", ["apply", "remove"])
def test_a_failure_at_any_step_is_undone(cell: FakeCell, direction: str) -> None:
    if direction == "remove":
        deployment.apply(plan(DESIRED, {}))
    before = cell.snapshot()
    changes = plan(DESIRED if direction == "apply" else {}, deployment.read_actual(SETTINGS))
    for step in range(9):
        cell.calls_left = step
        with pytest.raises(GridEngineError, match="qconf: no; nothing was changed"):
            deployment.apply(changes)
        assert cell.snapshot() == before, f"after failing at step {step}"
    cell.calls_left = 9
    deployment.apply(changes)


def test_a_hook_that_somebody_sets_meanwhile_stays(cell: FakeCell) -> None:
    changes = plan(DESIRED, deployment.read_actual(SETTINGS))
    cell.queue["epilog"] = "/bin/true"
    before = cell.snapshot()
    with pytest.raises(ConflictError, match=r"epilog of queue all\.q is /bin/true where NONE was expected"):
        deployment.apply(changes)
    assert cell.snapshot() == before


def test_complexes_that_jobs_ask_for_stay(cell: FakeCell, monkeypatch: pytest.MonkeyPatch) -> None:
    deployment.apply(plan(DESIRED, {}))
    before = cell.snapshot()
    monkeypatch.setattr(deployment.jobs, "live_requests", lambda names: [7, 8] if "qpu" in names else [])
    with pytest.raises(ConflictError, match=r"2 job\(s\) still ask for the QPU \(7, 8\)"):
        deployment.apply(plan({}, deployment.read_actual(SETTINGS)))
    assert cell.snapshot() == before


def test_the_section_has_defaults_and_limits(tmp_path: Path) -> None:
    path = tmp_path / "warden.toml"
    path.write_text("")
    assert configuration.load(path).bin == Path(sys.executable).parent
    path.write_text('[gridengine]\nqueues = ["a.q", "b.q"]\nprolog_wait = "5s"\nbin = "/opt/x"\n')
    assert configuration.load(path).queues == ("a.q", "b.q")
    for line, said in {
        'quues = ["a"]': "unknown key 'gridengine.quues'",
        'bin = "/a b"': "without blanks",
        'bin = "a"': "absolute path",
        'queues = ["-dq"]': "gridengine.queues",
        'queues = ["all.q\\n"]': "gridengine.queues",
        'sensor_hosts = ["../x"]': "gridengine.sensor_hosts",
        "hook_limit = 0": "hook_limit",
        "prolog_wait = 60": "shorter than hook_limit",
    }.items():
        path.write_text(f"[gridengine]\n{line}\n")
        with pytest.raises(ConfigurationError, match=said):
            configuration.load(path)
