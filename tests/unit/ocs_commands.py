"""Stands in for the commands of Open Cluster Scheduler 9.2, which cannot be had where these tests run.

Run under a command's name by the programs that ocs_cell.py makes. It keeps in a file what qconf sets, and says what real
commands said in tests/samples/ocs: test_ocs_cell.py replays those sessions against it. What no sample shows it refuses with
a status of its own, so that no test rests on what nobody has seen.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import ocs_qconf
from ocs_state import Refusal, State, say, tell, unseen

if TYPE_CHECKING:
    from collections.abc import Callable


def qstat(state: State, arguments: list[str]) -> None:
    """Jobs are captured ones, word for word; which of them are there is the test's."""
    jobs: dict[str, dict[str, str]] = state.all["jobs"]
    match arguments:
        case ["-j", number, "-xml"]:
            if number not in jobs or not jobs[number]["detail"]:
                raise Refusal(f"error: Following jobs do not exist: {number}")
            sys.stdout.write(jobs[number]["detail"])
        case ["-u", user, *details, "-xml"] if details in ([], ["-r"]):
            listed = [job for job in jobs.values() if user in {"*", job["owner"]}]
            running, pending = (
                "".join(job["requests" if details else "listed"] for job in listed if (job["state"] == "r") is runs)
                for runs in (True, False)
            )
            sys.stdout.write(state.all["job_list"].replace("RUNNING", running).replace("PENDING", pending))
        case ["-f", *_]:
            say("queuename                      qtype resv/used/tot. np_load_ arch          states ")
            for instance, letters in state.all["instances"].items():
                say("-" * 81)
                say(f"{instance:<30} BIP   0/0/2          0.65     lx-amd64      {letters} ")
        case _:
            unseen("qstat", arguments)


def qselect(state: State, arguments: list[str]) -> None:
    option, queue = arguments
    found = [instance for instance in state.all["instances"] if instance.partition("@")[0] == queue]
    if option != "-q":
        unseen("qselect", arguments)
    if not found:
        raise Refusal("no matching queues found")  # as SGE says it
    say("\n".join(found))


def qrsub(state: State, arguments: list[str]) -> None:
    """Grant whatever is asked for, with times in UTC."""
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    if state.user not in {*state.all["managers"], *state.all["arusers"]}:
        raise Refusal(f'denied: "{state.user}" must be manager or in userset "arusers"', plain=True)
    state.all["granted"] += 1
    times = [dt.datetime.strptime(given[option] + "Z", "%Y%m%d%H%M.%S%z").timestamp() for option in ("-a", "-e")]
    state.all["reservations"][str(state.all["granted"])] = [given["-N"], state.user, *times]
    say(f"Your advance reservation {state.all['granted']} has been granted")


def qrstat(state: State, arguments: list[str]) -> None:
    """Since 9.2 the qmaster writes what is shown: in the zone of its own host, but for JSON."""
    match arguments:
        case ["-u", users, *form] if form in (["-xml"], ["-fmt", "json"]):
            found = {number: one for number, one in state.all["reservations"].items() if one[1] in users.split(",")}
        case _:
            unseen("qrstat", arguments)
    zone = dt.timezone(dt.timedelta(hours=state.all["zone"] if form == ["-xml"] else 0))
    listed = []
    for number, (name, owner, *times) in found.items():
        start, end = (f"{dt.datetime.fromtimestamp(time, zone):%Y-%m-%dT%H:%M:%S}.000" for time in times)
        listed.append((int(number), name, owner, start, end))
    if form == ["-xml"]:
        keys = ("id", "name", "owner", "state", "start_time", "end_time")
        rows = [(number, name, owner, "w", f"{start}000", f"{end}000") for number, name, owner, start, end in listed]
        elements = ["".join(f"      <{k}>{v}</{k}>\n" for k, v in zip(keys, row, strict=True)) for row in rows]
        say("<?xml version='1.0'?>\n<qrstat>")
        sys.stdout.write("".join(f"   <ar_summary>\n{element}   </ar_summary>\n" for element in elements))
        say("</qrstat>")
        return
    names = ("id", "name", "owner", "start_time", "end_time")
    ars = [dict(zip(names, (*row[:3], f"{row[3]}Z", f"{row[4]}Z"), strict=True)) for row in listed]
    say(json.dumps({"ars": ars}, indent=3))


def qrdel(state: State, arguments: list[str]) -> None:
    [number] = arguments
    if state.all["reservations"].pop(number, None) is None:
        raise Refusal(f'denied: advance_reservation "{number}" does not exist')  # as SGE says it
    say(f"{state.user} has deleted advance reservation {number}")


COMMANDS: dict[str, Callable[[State, list[str]], None]] = {
    "qconf": ocs_qconf.run,
    "qstat": qstat,
    "qselect": qselect,
    "qrsub": qrsub,
    "qrstat": qrstat,
    "qrdel": qrdel,
}


def main(command: str, arguments: list[str], file: Path | None = None) -> int:
    file = file or Path(os.environ["SGE_ROOT"], os.environ["SGE_CELL"], "state.json")
    state = State(file)
    state.all["log"].append([command, *arguments])
    captured = state.all["captured"].get(" ".join([command, *arguments]))
    try:
        if captured is not None:
            sys.stdout.write(captured[0])
            sys.stderr.write(captured[1])
        elif command in COMMANDS:
            COMMANDS[command](state, arguments)
        else:
            unseen(command, arguments)
    except Refusal as refusal:
        # Of what was refused nothing is kept but that it was asked.
        before = State(file)
        before.all["log"], before.all["changes"] = state.all["log"], state.all["changes"]
        before.save()
        (say if refusal.plain else tell)(refusal.text)
        return refusal.status
    state.save()
    return int(captured[2]) if captured else 0
