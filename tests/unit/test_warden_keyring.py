"""Keys are changed while everybody goes on, and a worker's key counts from when it is there until it is taken away."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from warden_site import AFM, NOBODY, Site, wait_until

from warden import keyring
from warden.model import ConfigurationError, ConflictError, State

if TYPE_CHECKING:
    from pathlib import Path


def test_the_next_pair_becomes_the_broker_s(tmp_path: Path) -> None:
    keyring.make_keys(tmp_path)
    before = keyring.public_key(tmp_path / "broker.key")
    made = keyring.make_next(tmp_path)
    assert {path.name: path.stat().st_mode & 0o777 for path in made} == {
        "broker.next.key": 0o644,
        "broker.next.key_secret": 0o600,
    }
    assert keyring.make_next(tmp_path) == []
    following = keyring.public_key(tmp_path / "broker.next.key")
    assert keyring.broker_keys(tmp_path / "broker.key") == (before, following)
    keyring.switch(tmp_path)
    assert keyring.broker_keys(tmp_path / "broker.key") == (following,)
    assert keyring.key_pair(tmp_path / "broker.key_secret")[0] == following
    assert not list(tmp_path.glob("*next*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for others")
def test_keys_that_root_makes_belong_to_whose_the_folder_is(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    made = [*keyring.make_keys(tmp_path), *keyring.make_next(tmp_path)]
    assert len(made) == 8
    made += [tmp_path / "workers", tmp_path / "edges"]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(NOBODY, NOBODY)}


def test_a_switch_that_a_crash_left_half_done_is_finished(tmp_path: Path) -> None:
    keyring.make_keys(tmp_path)
    keyring.make_next(tmp_path)
    following = keyring.public_key(tmp_path / "broker.next.key")
    (tmp_path / "broker.next.key").rename(tmp_path / "broker.key")
    keyring.switch(tmp_path)
    assert keyring.key_pair(tmp_path / "broker.key_secret")[0] == following


def test_without_a_next_pair_there_is_nothing_to_switch_to(tmp_path: Path) -> None:
    keyring.make_keys(tmp_path)
    with pytest.raises(ConflictError, match="`warden keys --next` makes one"):
        keyring.switch(tmp_path)


def test_a_worker_s_key_counts_from_when_it_is_there_until_it_is_taken_away(tmp_path: Path) -> None:
    keyring.make_keys(tmp_path)
    file = tmp_path / "workers" / "worker.key"
    key, known = keyring.public_key(file), keyring.PublicKeys(tmp_path / "workers")
    assert key in known
    aside = file.rename(tmp_path / "aside")
    assert key not in known
    aside.rename(file)
    assert key in known
    # A file that is none takes nothing away from the others, and keeps none that goes.
    (tmp_path / "workers" / "note.key").write_text("no key")
    assert key in known
    content = file.read_bytes()
    file.unlink()
    assert key not in known
    file.write_bytes(content)
    assert key in known
    keyring.make_keys(tmp_path / "other")
    file.write_bytes((tmp_path / "other" / "workers" / "worker.key").read_bytes())
    assert key not in known
    assert keyring.public_key(file) in known
    with pytest.raises(ConfigurationError, match="is no key"):
        keyring.PublicKeys(tmp_path / "workers")


@pytest.mark.long
def test_the_broker_s_key_is_changed_under_clients_and_workers_that_go_on(site: Site) -> None:
    # Another host, with files of its own.
    away = site.room / "away"
    away.mkdir()
    site.configure(client={"broker_key": str(away / "broker.key")}, broker={"heartbeat": 0.1})
    shutil.copy(site.room / "keys" / "broker.key", away / "broker.key")
    site.start_broker()
    site.start_worker()
    with site.resource() as resource:
        task = resource.task_start(AFM, 20)
        assert "broker.next.key" in site.warden("keys", "--next").stdout
        shutil.copy(site.room / "keys" / "broker.next.key", away / "broker.next.key")
        assert "start the broker again" in site.warden("keys", "--switch").stdout
        site.kill(site.broker)
        site.start_broker()
    # A client that knows the old key and the next one, and the worker, which looks again by itself.
    with site.resource() as resource:
        assert sum(resource.wait(task, 40).values()) == 20
    site.wait_for(State.READY)
    shutil.copy(site.room / "keys" / "broker.key", away / "broker.key")
    (away / "broker.next.key").unlink()
    # A client of its own each time.
    site.wait_for(State.READY)


@pytest.mark.long
def test_a_worker_whose_key_is_taken_away_is_heard_no_more(site: Site) -> None:
    site.start_broker()
    site.start_worker()
    (site.room / "keys" / "workers" / "worker.key").rename(site.room / "aside")
    site.wait_for(State.OFFLINE)
    (site.room / "aside").rename(site.room / "keys" / "workers" / "worker.key")
    site.wait_for(State.READY)
    wait_until(lambda: site.worker.poll() is None, "the worker lives")
