"""Which QPUs a cluster offers, and where."""

from pathlib import Path

import pytest

from gridengine import site
from warden.model import ConfigurationError

ONE = '[qpu]\nname = "fresnel"\n'


def test_a_file_that_says_nothing_of_it_offers_its_own_qpu_in_all_q(tmp_path: Path) -> None:
    path = tmp_path / "warden.toml"
    path.write_text(ONE)
    found = site.load(path)
    assert [(offer.name, offer.config, offer.queues, offer.hosts) for offer in found.offers] == [
        ("fresnel", path, ("all.q",), ())
    ]
    assert not found.several
    assert found.of_queue("whatever.q") is found.offers[0]


def test_several_qpus_are_told_apart_by_the_queue(tmp_path: Path) -> None:
    path, other = tmp_path / "warden.toml", tmp_path / "emu.toml"
    other.write_text('[qpu]\nname = "emu"\nplaces = 2\n')
    path.write_text(
        f"{ONE}[[gridengine.qpu]]\nqueues = ['fresnel.q', 'prod.q']\nhosts = ['@quantum', 'node9']\n"
        f"[[gridengine.qpu]]\nconfig = '{other}'\nqueues = ['emu.q']\n"
    )
    found = site.load(path)
    assert found.several
    assert found.queues == ("fresnel.q", "prod.q", "emu.q")
    assert [found.of_queue(queue) for queue in ("prod.q", "emu.q", "all.q")] == [*found.offers, None]
    emu = found.named("emu")
    assert emu is not None
    assert (emu.config, emu.warden.qpu.places) == (other, 2)
    assert found.offers[0].hosts == ("@quantum", "node9")
    assert found.named("nobody") is None


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ("[[gridengine.qpu]]\nqueues = []\n", "gridengine.qpu"),
        ("[[gridengine.qpu]]\nqueues = ['a.q']\n[[gridengine.qpu]]\nqueues = ['a.q']\n", "name it once"),
        ("[[gridengine.qpu]]\nqueues = ['a.q']\n[[gridengine.qpu]]\nqueues = ['b.q']\n", "the same name"),
        ("[[gridengine.qpu]]\nqueues = ['a.q']\nconfig = '/no/such.toml'\n", "/no/such.toml"),
        ("[[gridengine.qpu]]\nqueues = ['a.q']\nhosts = ['@a b']\n", "gridengine.qpu"),
        ("[gridengine]\nretry_pause = '1h'\n", "retry_pause"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, entries: str, said: str) -> None:
    path = tmp_path / "warden.toml"
    path.write_text(ONE + entries)
    with pytest.raises(ConfigurationError, match=said):
        site.load(path)
