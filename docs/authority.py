"""Write docs/authority.md from the table of authority, warden/authority.py: `python docs/authority.py`."""  # noqa: INP001

from __future__ import annotations

from pathlib import Path

from warden.authority import OPEN_ROUTES, ROUTES, TABLE, Who
from warden.wire import name_of

PAGE = Path(__file__).with_name("authority.md")

_HEAD = """\
# Who may do what

<!-- Written by docs/authority.py from warden/authority.py: change the table there. -->

Everything that can be said to the broker, and who may say it. Nobody learns whether a session or a task exists that is
none of his: it is "not found", as one that never was. Root on an execution host is the scheduler, and an operator.

"""
_ROUTES = """
## Over HTTP

What QRMI's clients ask becomes one of the messages above, for the user whose credential comes with the request, and
the same is allowed and refused. Two routes need no credential; neither do the pages that describe the routes (`/docs`,
`/openapi.json`, `/assets`). An edge itself is known by a registered key, and is believed whom it speaks for.
The contract has it that whoever sends another user's token is told that it is another user's.

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
    routes = [["route", "is", "credential"], ["---"] * 3]
    for route, kinds in ROUTES.items():
        said = ", ".join(f"`{name_of(kind)}`" for kind in kinds)
        routes.append([f"`{route}`", said, "none" if route in OPEN_ROUTES else "MUNGE, once"])
    return _HEAD + _table(rows) + _ROUTES + _table(routes)


def _table(rows: list[list[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
