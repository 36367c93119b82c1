"""The section of Grid Engine in the configuration."""

import sys
from pathlib import Path

import pytest

from gridengine import configuration
from warden.model import ConfigurationError


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
        'queues = ["a.q", "b.q", "a.q"]': "name each queue once",
        "queues = []": "name at least one",
        'sensor_hosts = ["../x"]': "gridengine.sensor_hosts",
        "hook_limit = 0": "hook_limit",
        "prolog_wait = 60": "shorter than hook_limit",
    }.items():
        path.write_text(f"[gridengine]\n{line}\n")
        with pytest.raises(ConfigurationError, match=said):
            configuration.load(path)
