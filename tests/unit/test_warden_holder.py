"""Who holds the store: told while it lives, and by nobody who was killed."""

from __future__ import annotations

import os
import re
import signal
import socket
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from warden.holder import Holder
from warden.model import SECOND, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOW = 1_800_000_000 * SECOND
HOLD = f"""
import pathlib, sys
from warden.holder import Holder
holder = Holder(pathlib.Path(sys.argv[1]), {NOW})
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "warden.db"


@pytest.fixture
def other(store: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the store: locks do not part one's own."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_one_is_told_who_the_first_is(store: Path, other: subprocess.Popen[str]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Holder(store, NOW)
    who = f"pid {other.pid} on {socket.gethostname()}, since 2027-01-15T08:00:00Z"
    assert refused.value.text == f"{store} is in use by another broker ({who}): stop that one first"


def test_one_that_was_killed_holds_nothing(store: Path, other: subprocess.Popen[str]) -> None:
    other.send_signal(signal.SIGKILL)
    other.wait()
    with Holder(store, NOW):
        assert re.match(rf"pid {os.getpid()} on ", store.with_name("holder").read_text())


@pytest.mark.usefixtures("other")
@pytest.mark.parametrize("text", [b"", b"\xff\xfe", b"pid 1 on a\x1b[31m, since now", b"x" * 10_000])
def test_what_makes_no_sense_is_not_told(store: Path, text: bytes) -> None:
    store.with_name("holder").write_bytes(text)
    with pytest.raises(ConfigurationError) as refused:
        Holder(store, NOW)
    assert refused.value.text == f"{store} is in use by another broker: stop that one first"


def test_a_longer_text_of_an_earlier_one_leaves_nothing_behind_and_nobody_else_may_read(store: Path) -> None:
    file = store.with_name("holder")
    file.write_text("x" * 1_000)
    file.chmod(0o644)
    with Holder(store, NOW):
        assert file.read_text() == f"pid {os.getpid()} on {socket.gethostname()}, since 2027-01-15T08:00:00Z\n"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_where_there_can_be_no_such_file_the_store_has_the_word(store: Path) -> None:
    store.with_name("holder").mkdir()
    with Holder(store, NOW):
        pass
