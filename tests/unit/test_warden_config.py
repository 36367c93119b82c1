"""The configuration: a mistake is named in one line, and nothing that cannot work is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from warden import config, frames, orders, sections, wire
from warden.model import SECOND, ConfigurationError, State
from warden.qpu.drift import Drift
from warden.qpu.noise import Noise


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "warden.toml"


def load(path: Path, text: str) -> config.Config:
    path.write_text(text, encoding="utf-8")
    return config.load(path)


def test_an_empty_file_is_a_configuration(path: Path) -> None:
    settings = load(path, "")
    assert settings.qpu.name == "qpu"
    assert settings.client_endpoint == settings.broker.clients[0]
    assert settings.broker_key == Path("/etc/warden/keys/broker.key")


def test_a_calendar_comes_from_the_rules(path: Path) -> None:
    text = "[[calibration]]\nevery = '1h'\nduration = '3min'\noffset = 90\nkind = 'maintenance'\nreason = 'helium'\n"
    (rule,) = load(path, text).calendar.rules
    assert (rule.every, rule.duration, rule.offset) == (3600 * SECOND, 180 * SECOND, 90 * SECOND)
    assert (rule.kind, rule.reason) == (State.MAINTENANCE, "helium")


def test_the_time_scale_divides_what_the_device_takes_and_its_rules(path: Path) -> None:
    rules = "[[calibration]]\nevery = '1h'\nduration = '3min'\noffset = 90\n"
    rules += "[[calibration]]\nafter_shots = 5\nduration = '3min'\n"
    figures = "overhead = 3\nloading = '9s'\nshot_rate = 0.25\nrearrangement = '10ms'\nlongest_run = '1min'\n"
    scaled = load(path, f"[qpu]\n{figures}time_scale = 60\n{rules}")
    (rule,), (by_shots,) = scaled.calendar.rules, scaled.calendar.shot_rules
    assert (rule.every, rule.duration, rule.offset) == (60 * SECOND, 3 * SECOND, 1_500_000)
    assert by_shots.duration == 3 * SECOND
    assert scaled.timing.pace(20).estimate(10) == (3 + 9 + 10 * (4 + 0.2)) * SECOND / 60
    # Not what is of the people's side.
    assert (scaled.qpu.longest_run, scaled.qpu.retry) == (60 * SECOND, 300 * SECOND)


def test_a_scale_that_leaves_a_rule_no_time_is_refused_in_words(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="longer than 'duration'"):
        load(path, "[qpu]\ntime_scale = 1e6\n[[calibration]]\nevery = '3s'\nduration = '2.5s'\n")


def test_without_noise_and_drift_there_is_none(path: Path) -> None:
    assert load(path, "").drifting.off


def test_noise_and_drift_are_what_the_file_says(path: Path) -> None:
    text = (
        "[qpu]\nseed = 5\ntime_scale = 60\n[noise]\np_false_neg = 0.05\nrabi_error = -0.1\n[drift]\nrabi_error = 0.02\n"
    )
    assert load(path, text).drifting == Drift(
        base=Noise(p_false_neg=0.05, rabi_error=-0.1), per_day=Noise(rabi_error=0.02), seed=5, time_scale=60.0
    )


def test_the_sections_have_every_figure_of_the_noise() -> None:
    names = Noise.__struct_fields__
    assert (sections.NoiseSection.__struct_fields__, sections.DriftSection.__struct_fields__) == (names, names)


@pytest.mark.parametrize("url", ["http://gateway:80/qpu", "http://gateway:80/qpu/"])
def test_paths_can_follow_the_url_of_the_edge(path: Path, url: str) -> None:
    assert load(path, f"[http]\nlisten = '0.0.0.0:7680'\nurl = '{url}'\n").http.reachable == "http://gateway:80/qpu"
    assert load(path, "[http]\nlisten = 'localhost:7680'\n").http.reachable == "http://localhost:7680"
    assert load(path, "").http.reachable == ""


def test_sections_of_others_are_left_to_them(path: Path) -> None:
    load(path, "[gridengine]\nanything = 1\n")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[qpu]\nshots = 1", "unknown key 'qpu.shots'"),
        ("qpus = 1", "unknown key 'qpus'"),
        ("[[calibration]]\nevery = 10\nduration = 1\nfor = 2", "unknown key 'calibration[0].for'"),
        ('[qpu]\n"a\\nb" = 1', "unknown key 'qpu.a b'"),
        ("[[calibration]]\nevery = 10", "missing key 'calibration[0].duration'"),
        ("[[calibration]]\nevery = 10\nduration = '2 parsecs'", "calibration[0].duration: '2 parsecs' is no duration"),
        ("[[calibration]]\nevery = '1h'\nduration = '2h'", "longer than 'duration'"),
        ("[[calibration]]\nevery = '1h'\nduration = 0", "duration above 0"),
        ("[[calibration]]\nevery = '1h'\nduration = 1\nkind = 'offline'", "calibration[0].kind"),
        ("[[calibration]]\nevery = '99999999999d'\nduration = 1", "no duration"),
        ("[calibration]\nevery = 1", "calibration: there may be several: write [[calibration]]"),
        ("[qpu]\nname = 'my-qpu'", "qpu.name"),
        ('[qpu]\nname = "qpu\\n"', "qpu.name"),
        ("[qpu]\nplaces = 0", "qpu.places"),
        ("[qpu]\nplaces = true", "qpu.places"),
        ("[qpu]\nshot_rate = -1", "qpu.shot_rate"),
        ("[qpu]\nshot_rate = nan", "qpu.shot_rate"),
        ("[qpu]\nshot_rate = inf", "shot_rate must be 0"),
        ("[qpu]\nshot_rate = 1e-300", "shot_rate must be 0"),
        ("[broker]\nheartbeat = 0", "heartbeat must be at least"),
        ("[noise]\nspam = 1", "unknown key 'noise.spam'"),
        ("[noise]\np_false_pos = 1.5", "noise.p_false_pos"),
        ("[noise]\np_false_pos = 0.5\np_false_neg = 0.5", "noise: with such errors of preparation and detection"),
        ("[noise]\nstate_prep_error = 1", "noise: with such errors of preparation and detection"),
        ("[noise]\ntemperature = -1", "noise.temperature"),
        ("[noise]\nrabi_error = 0.6", "noise.rabi_error"),
        ("[noise]\ndetuning_error = -5", "noise.detuning_error"),
        ("[noise]\ndephasing_rate = nan", "noise.dephasing_rate"),
        ("[drift]\nrabi_error = -0.1", "drift.rabi_error"),
        ("[drift]\namp_sigma = inf", "drift.amp_sigma"),
        ("[drift]\nrabi = 1", "unknown key 'drift.rabi'"),
        ("[qpu]\nlongest_run = '2d'", "longest_run must be at most 1d"),
        ("[qpu]\nlongest_run = '1s'", "longest_run must be long enough for one shot of the largest register: 13 s"),
        ("[qpu]\nqubits = 100\nrearrangement = '1min'", "longest_run must be long enough for one shot"),
        ("[qpu]\ntime_scale = 0.5", "qpu.time_scale"),
        ("[qpu]\ntime_scale = nan", "qpu.time_scale"),
        ("[qpu]\ntime_scale = 1e7", "qpu.time_scale"),
        ("[limits]\nkeep = '5min'", "keep must be at least 1h"),
        ("[[class]]\nname = 'a'\n[[class]]\nname = 'a'", "two classes have the same name"),
        ("[[calibration]]\nduration = 1", "say one of them"),
        ("[[calibration]]\nduration = 1\nevery = 5\nafter_shots = 5", "say one of them"),
        ("[[calibration]]\nduration = 1\nafter_shots = 5\nmake_up = true", "neither offset nor make_up"),
        ("[[calibration]]\nduration = 1\nafter_shots = 5\n" * 2, "say it once"),
        ("[[calibration]]\nduration = 1\nevery = 5\nbelow_quality = 0.9", "say one of them"),
        ("[[calibration]]\nduration = 1\nbelow_quality = 1.5", "below_quality"),
        ("[[calibration]]\nduration = 1\nbelow_quality = 0.9\noffset = 5", "neither offset nor make_up"),
        ("[[calibration]]\nduration = 1\nbelow_quality = 0.9\n" * 2, "say it once"),
        ("[[calibration]]\nduration = 1\nbelow_quality = 0.9\nat_least = 0", "at_least must be as long as duration"),
        ('[[calibration]]\nduration = "20min"\nbelow_quality = 0.9\nat_least = "19min"', "at_least must be as long as"),
        ('[qpu]\nemulator = "emu_sv"', "qpu.emulator: 'emu_sv' is none of qutip, emu-sv, emu-mps, echo"),
        ('[[calibration]]\nduration = 1\nevery = 5\nkind = "drain"', "'drain' is none of calibrating, maintenance"),
        ("[[noise]]\ntemperature = 1", "noise: there is one: write [noise]"),
        ("[[calibration]]\nduration = 1\nevery = 5\nat_least = 5", "at_least belongs to below_quality"),
        ("[session]\nlease = '0s'", "lease must be at least"),
        ("[broker]\nclients = []", "broker.clients"),
        ("[broker]\nworkers = []", "broker.workers"),
        ("[broker]\nstate = 'here'", "broker.state: 'here' is no absolute path"),
        ("[access]\noperators = [1.5]", "access.operators[0]"),
        ("[limits]\nshots = 0", "limits.shots"),
        ("[limits]\nshots = 2000000\n[qpu]\nqubits = 200", "lower limits.shots or qpu.qubits"),
        ("[limits]\nqueued = 4611686018427387904", "limits.queued"),
        (f"[limits]\nsessions_per_user = {10**20}", "limits.sessions_per_user"),
        (f"[session]\nmax_shots = {10**20}", "session.max_shots"),
        (f"[[class]]\nname = 'a'\nmax_shots = {10**20}", "class[0].max_shots"),
        (f"[qpu]\nqubits = {10**20}", "qpu.qubits"),
        (f"[qpu]\nfailures = {10**20}", "qpu.failures"),
        ("[qpu]\nretry = '366d'", "retry must be at most 365d"),
        ("[qpu]\nshot_rate = 0.001\n[limits]\nshots = 2000000000", "limits.shots at qpu.shot_rate"),
        ("qpu = 3", "qpu: Expected"),
        ("=", "is no TOML"),
        ("[qpu]\n[qpu]", "is no TOML"),
    ],
)
def test_a_mistake_is_named_in_one_line_with_the_file(path: Path, text: str, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(path, text)
    assert complaint in caught.value.text
    assert str(path) in caught.value.text
    assert "\n" not in caught.value.text


@pytest.mark.parametrize(("shots", "qubits"), [(1, 1), (300, 5), (1000, 31), (1000, 32), (1000, 255), (1000, 256)])
def test_no_result_of_a_task_is_larger_than_the_configuration_reckons_with(path: Path, shots: int, qubits: int) -> None:
    settings = load(path, f"[limits]\nshots = {shots}\n[qpu]\nqubits = {qubits}\n")
    counts = {f"{number:0{qubits}b}": 2**31 - 1 for number in range(min(shots, 2**qubits))}
    in_order = bytes(min(wire.LARGEST_BITSTRINGS, shots * -(-qubits // 8)))
    result = orders.RunFinished(instance="i", token="t", shots=shots, counts=counts, time=1, bitstrings=in_order)
    words = len(frames.pack(replace(result, counts={}, bitstrings=b"")))
    assert 0 < len(frames.pack(result)) - words <= settings.largest_result + 4


def test_a_file_that_is_missing_a_folder_or_not_text_is_named(path: Path) -> None:
    for make in (lambda: None, path.mkdir):
        make()
        with pytest.raises(ConfigurationError, match=f"cannot read the configuration {path}: "):
            config.load(path)
    path.rmdir()
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="is no TOML"):
        config.load(path)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (0, 0),
        (1.5, 1.5),
        ("90s", 90),
        ("3min", 180),
        ("1h30min", 5400),
        ("1h 30min", 5400),
        ("2d", 172_800),
        ("250ms", 0.25),
        ("0.5h", 1800),
    ],
)
def test_durations_as_people_write_them(written: object, seconds: float) -> None:
    assert config.duration(written) == round(seconds * SECOND)


@pytest.mark.parametrize(
    "written",
    ["", "5", "-5s", "5 s x", "s", "1.h", "1e3s", -1, True, None, [], float("nan"), float("inf"), 1e300, 10**10],
)
def test_what_is_no_duration_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        config.duration(written)


@given(st.one_of(st.text(), st.integers(), st.floats()))
def test_a_duration_is_read_or_refused_and_nothing_else(written: object) -> None:
    try:
        length = config.duration(written)
    except ValueError:
        return
    assert 0 <= length <= 10**16


def test_the_file_of_ordinary_users_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WARDEN_CONFIG", raising=False)
    assert config.default_path() == Path("/etc/warden/warden.toml")
    monkeypatch.setenv("WARDEN_CONFIG", "/somewhere/else.toml")
    assert config.default_path() == Path("/somewhere/else.toml")


@pytest.mark.parametrize(
    ("http", "words"),
    [
        ("listen = '0.0.0.0:7680'", "http.listen is all addresses"),
        ("listen = '[::]:7680'", "http.listen is all addresses"),
        ("listen = '[::0]:7680'", "http.listen is all addresses"),
        ("listen = '0:7680'", "http.listen is all addresses"),
        ("listen = '127.0.0.1:0'", "0 is no port"),
        ("listen = '127.0.0.1:99999'", "99999 is no port"),
        ("listen = '127.0.0.1'", "http.listen: "),
        ("listen = 'node1:80'\nurl = 'http://node1:99999'", "http.url: "),
        ("listen = 'node1:80'\nurl = 'http://:80'", "http.url: "),
        ("listen = 'node1:80'\nurl = 'ftp://node1'", "http.url: "),
        ("listen = 'node1:80'\nurl = \"http://node1\\nX=y\"", "http.url: "),
        ("listen = 'node1:80'\ncertificate = '/x'", "TLS needs both"),
        ("listen = 'node1:80'\n[access]\nidentity = 'kernel'", "access.identity"),
    ],
)
def test_an_edge_that_nobody_could_use_is_refused(path: Path, http: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(path, f"[http]\n{http}\n")
    assert words in caught.value.text
    assert "\n" not in caught.value.text
