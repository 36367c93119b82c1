"""Write docs/authority.md from the table of authority, warden/authority.py: `python docs/authority.py`."""  # noqa: INP001

from __future__ import annotations

from pathlib import Path

from warden.authority import TABLE, Who
from warden.wire import name_of

PAGE = Path(__file__).with_name("authority.md")

_HEAD = """\
# Who may do what

<!-- Written by docs/authority.py from warden/authority.py: change the table there. -->

Everything that can be said to the broker, and who may say it. Nobody learns whether a session or a task exists that is
none of his: it is "not found", as one that never was. Root on an execution host is the scheduler, and an operator.

"""
_COLUMNS = {
    "anonymous": {Who.ANYBODY},
    "any user": {Who.ANYBODY, Who.USER},
    "owner": {Who.ANYBODY, Who.USER, Who.OWNER, Who.OWNER_OR_OPERATOR},
    "operator": {Who.ANYBODY, Who.USER, Who.OWNER_OR_OPERATOR, Who.OPERATOR},
    "root hook": {Who.ANYBODY, Who.USER, Who.OWNER_OR_OPERATOR, Who.OPERATOR, Who.SCHEDULER},
    "worker": {Who.WORKER},
}


def page() -> str:
    """The whole of docs/authority.md."""
    rows = [["message", *_COLUMNS, ""], ["---"] + [":-:"] * len(_COLUMNS) + ["---"]]
    for kind, rule in TABLE.items():
        rows.append(
            [f"`{name_of(kind)}`", *("yes" if rule.who in may else "" for may in _COLUMNS.values()), rule.remark]
        )
    return _HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
