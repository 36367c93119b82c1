"""What broker and worker write down: one line an event, for people or for programs, and the audit trail.

An event has a name and facts. Who makes one may pass facts that others chose: here they become one line whatever is
in them. Tokens, keys and credentials are no facts; where one has to be told from another, `model.brief` does.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import logging.handlers
import os
import re
from typing import TYPE_CHECKING, Any

from warden.events import REFUSED
from warden.model import ConfigurationError

if TYPE_CHECKING:
    import io
    from collections.abc import Mapping
    from pathlib import Path

AUDIT = logging.getLogger("warden.audit")
"""Sessions, what operators do, and who was refused: who, what, which job, and what came of it."""

# A value that needs no quotes.
_PLAIN = re.compile(r"[\w.:/@+-]+", re.ASCII)
# Who is refused so often within so many seconds fills no disk: the rest is counted.
_OFTEN, _WHILE = 10, 60.0
# Whom we count apart; a thousand others count as one.
_COUNTED = 1000


def write(log: logging.Logger, event: str, facts: Mapping[str, Any], level: int = logging.INFO) -> None:
    log.log(level, "%s", event, extra={"facts": dict(facts)})


def begin(*, as_json: bool = False, audit: Path | None = None) -> None:
    """Send everything to stderr, and the audit trail to a file as well.

    Raises:
        ConfigurationError: The file cannot be written.
    """
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(Json() if as_json else Text())
    handlers = [handler]
    if audit is not None:
        try:
            # It looks whether somebody has moved the file away (logrotate).
            handler = _Trail(audit, encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(f"cannot write the audit trail {audit}: {error.strerror}") from None
        handler.setFormatter(Json())
        handler.addFilter(lambda record: record.name == AUDIT.name)
        handlers.append(handler)
    logging.basicConfig(level=logging.INFO, handlers=handlers, force=True)
    AUDIT.filters = [Damper()]


class _Trail(logging.handlers.WatchedFileHandler):
    """A trail that cannot be written at the moment (a full disk, a folder that is away) ends no broker."""

    def _open(self) -> io.TextIOWrapper:
        def opener(path: str, flags: int) -> int:
            return os.open(path, flags, 0o640)

        return open(self.baseFilename, "a", encoding="utf-8", opener=opener)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)


class Text(logging.Formatter):
    """One line: the time, the level, the event, and each fact as `name=value`."""

    def format(self, record: logging.LogRecord) -> str:
        facts = (f"{name}={_quoted(value)}" for name, value in _facts(record).items())
        line = " ".join([_time(record), record.levelname, record.getMessage(), *facts])
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class Json(logging.Formatter):
    """One object a line, with `time` (UTC), `level`, `event` and the facts."""

    def format(self, record: logging.LogRecord) -> str:
        told = {"time": _time(record), "level": record.levelname, "event": record.getMessage(), **_facts(record)}
        if record.exc_info:
            told["trace"] = self.formatException(record.exc_info)
        return json.dumps(told, default=str)


class Damper(logging.Filter):
    """Lets a few refusals of each offender pass in a while, and counts the rest."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[Any, tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if record.getMessage() != REFUSED:
            return True
        facts = _facts(record)
        # Of an address on this host (localhost:UID:GID:PID) the user: each process of his has another one.
        # Hooks ask as root, for a user.
        who = facts.get("uid", facts.get("by")) if "by" in facts else ":".join(str(facts.get("address")).split(":")[:2])
        since, count = self._seen.get(who, (record.created, 0))
        if record.created - since >= _WHILE:
            if count > _OFTEN:
                record.facts = {**facts, "also": count - _OFTEN}
            since, count = record.created, 0
        self._seen.pop(who, None)
        if len(self._seen) >= _COUNTED:
            del self._seen[next(iter(self._seen))]
        self._seen[who] = since, count + 1
        return count < _OFTEN


def _time(record: logging.LogRecord) -> str:
    """UTC, to the millisecond."""
    return (
        dt.datetime.fromtimestamp(record.created, tz=dt.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    facts: dict[str, Any] = getattr(record, "facts", {})
    return facts


def _quoted(value: Any) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=True)
