"""The state of the stand-in cell, as it lies in a file, and how its commands refuse."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from pathlib import Path

KINDS = {
    "exechost": "exechost list",
    "queue": "cluster queue list",
    "pe": "parallel environment list",
    "configuration": "configuration list",
    "complex": "complex entry list",
    "hostgroup": "host group entry list",
    "resource_quota": "resource quota set list",
}
UNSEEN = 99


class Refusal(Exception):  # noqa: N818 - it is what a command answers
    """What a command says, with its status, and does no more."""

    def __init__(self, text: str, status: int = 1, *, plain: bool = False) -> None:
        super().__init__(text)
        self.text, self.status, self.plain = text, status, plain


class State:
    """What the qmaster knows. A command reads it, and writes it back if it succeeds."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.all: dict[str, Any] = json.loads(self.file.read_text())
        self.user: str = self.all["user"]
        self.who = f"{self.user}@{self.all['host']}"

    def save(self) -> None:
        self.file.write_text(json.dumps(self.all))

    def objects(self, kind: str) -> dict[str, dict[str, str]]:
        found: dict[str, dict[str, str]] = self.all[kind]
        return found

    def changing(self, target: str = "for this operation") -> None:
        """All that changes anything comes by here: who may, and whether the test lets it fail."""
        if self.user not in self.all["managers"]:
            raise Refusal(f'denied: "{self.user}" must be manager {target}')
        self.all["changes"] += 1
        if self.all["changes"] == self.all["fails_at"]:
            raise Refusal("error: the test lets this command fail")

    def done(self, kind: str, name: str, how: str) -> str:
        return f'{self.who} {how} "{name}" {"to" if how == "added" else "in"} {KINDS[kind]}'


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


def tell(text: str) -> None:
    sys.stderr.write(text + "\n" if text else "")


def unseen(command: str, arguments: list[str]) -> NoReturn:
    raise Refusal(f"no sample shows what OCS says to: {command} {' '.join(arguments)}", UNSEEN)
