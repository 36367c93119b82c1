"""Reads what `qstat -xml` says of jobs: what they asked for, their states, and why they wait. Pure."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, ClassVar
from xml.parsers import expat

import msgspec

from gridengine import commands
from warden.model import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

# An array of 75000 tasks makes some ten megabytes. More than this is nothing that we understand.
MAX_XML = 64 * 2**20

_ELEMENT = "detailed_job_info/djob_info/element/"
# SGE 8.1.9, and OCS, which keeps a set of requests for each scope (global, master, slaves).
_REQUESTS = (
    _ELEMENT + "JB_hard_resource_list/qstat_l_requests/",
    _ELEMENT + "JB_request_set_list/ulong_sublist/JRS_hard_resource_list/qstat_l_requests/",
)
_ID = _ELEMENT + "JB_job_number"
_OWNER = _ELEMENT + "JB_owner"
_NAME = _ELEMENT + "JB_job_name"
_PROJECT = _ELEMENT + "JB_project"
_NOT_BEFORE = _ELEMENT + "JB_execution_time"
_CONTEXT = _ELEMENT + "JB_context/context_list/"
_VARIABLE = _ELEMENT + "JB_env_list/job_sublist/VA_variable"
# Grid Engine sets SGE_X to what a job has as __SGE_PREFIX__X, over its own word. Its commands say so where a job was submitted.
_OVER, _SUBMITTED = "__SGE_PREFIX__", "O_"
# OCS says of an RSMAP which of its ids were granted. How the lists' elements are called differs from version to version.
_GRANTED = tuple(
    f"{_ELEMENT}JB_ja_tasks/{task}/JAT_granted_resources_list/{grant}/"
    for task in ("element", "ulong_sublist")
    for grant in ("element", "grl")
)
_GRANTED_IDS = tuple(f"GRU_resource_map_list/{id_}/RESL_value" for id_ in ("element", "resl"))
_SCHEDULING = "detailed_job_info/messages/element/SME_message_list/element/MES_message"
# What it says of queues to all jobs alike.
_QUEUES = "detailed_job_info/messages/element/SME_global_message_list/element/MES_message"
_PREDECESSOR = _ELEMENT + "JB_jid_predecessor_list/job_predecessors/JRE_job_number"
# What put it into the error state: a prolog that exited 100, for instance.
_ERROR = _ELEMENT + "JB_ja_tasks/ulong_sublist/JAT_message_list/ulong_sublist/QIM_message"
_LISTS = ("job_info/queue_info/job_list/", "job_info/job_info/job_list/")


class NoSuchJobError(NotFoundError):
    """The job never was, or is over."""

    code: ClassVar[str] = "no_such_job"


class UnreadableError(commands.GridEngineError):
    """Grid Engine's answer is not what we know; nothing may be concluded from it."""

    code: ClassVar[str] = "gridengine_unreadable"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job as people ask about it. `reasons` says why it waits, or what put it into the error state."""

    id: int
    owner: str
    name: str
    state: str
    """qstat's letters: r, qw, hqw, Eqw ...; of an array all that its tasks have, separated by commas."""
    requests: dict[str, str]
    reasons: tuple[str, ...]
    project: str = ""
    context: dict[str, str] = {}
    """What was said with `-ac`, by whomever."""
    not_before: int = 0
    """When it may start, if not at once (`-a`): seconds since 1970."""
    overrides: tuple[str, ...] = ()
    """Grid Engine's own variables that the job sets to what it likes."""
    granted: dict[str, tuple[str, ...]] = {}
    """On OCS: the ids of RSMAPs that its tasks were given."""
    queue_reasons: tuple[str, ...] = ()
    """What Grid Engine says of queues, to all jobs that wait."""
    predecessors: tuple[str, ...] = ()
    """Jobs that it waits for (`-hold_jid`)."""


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `qstat -u * -r`: a job, or those tasks of an array that are in the same state."""

    id: int
    state: str
    tasks: int = 1
    queue: str = ""
    requests: dict[str, str] = {}


def read_job(xml_text: str, state: str) -> Job:
    """Read `qstat -j ID -xml`, which does not tell the state.

    Raises:
        NoSuchJobError: Grid Engine does not know the job.
        UnreadableError: It is not the XML that we know.
    """
    leaves = _job_leaves(xml_text)
    first = {path: text for path, text, _ in reversed(leaves)}
    reasons = [text for path, text, _ in leaves if path == _ERROR]
    reasons += [text for path, text, _ in leaves if path == _SCHEDULING]
    return Job(
        id=int(first[_ID]),
        owner=first.get(_OWNER, ""),
        name=first.get(_NAME, ""),
        state=state,
        requests=_requests(leaves),
        reasons=tuple(dict.fromkeys(reasons)),
        project=first.get(_PROJECT, ""),
        context=_pairs(leaves, _CONTEXT + "VA_variable", _CONTEXT + "VA_value"),
        not_before=_moment(first.get(_NOT_BEFORE, "")),
        overrides=_overrides(leaves),
        granted=_granted(leaves),
        queue_reasons=tuple(text for path, text, _ in leaves if path == _QUEUES),
        predecessors=tuple(text for path, text, _ in leaves if path == _PREDECESSOR),
    )


def rows(xml_text: str) -> list[Row]:
    """Read `qstat -u * -r -xml`: jobs that run, then those that wait in the order in which they are considered.

    Raises:
        UnreadableError: It is not the XML that we know.
    """
    found: list[Row] = []
    fields = ("JAT_prio", "state", "tasks", "queue_name", "hard_request")
    for job, tag, text, attributes in _listed(xml_text, fields):
        # The first of what follows a number, on both flavours.
        if tag == "JAT_prio" or not found or found[-1].id != job:
            found.append(Row(id=job, state=""))
        row = found[-1]
        if tag == "state":
            found[-1] = msgspec.structs.replace(row, state=text)
        elif tag == "tasks":
            found[-1] = msgspec.structs.replace(row, tasks=_count(text))
        elif tag == "queue_name":
            found[-1] = msgspec.structs.replace(row, queue=text)
        elif tag == "hard_request":
            found[-1] = msgspec.structs.replace(row, requests={**row.requests, attributes.get("name", ""): text})
    return found


def live(xml_text: str) -> dict[str, str]:
    """Read the states out of `qstat -u USER -xml`, by job or, of an array, by task: `{"12": "r", "13.1": "qw"}`.

    Raises:
        UnreadableError: It is not the XML that we know.
    """
    found: dict[str, str] = {}
    for job, tag, text, _ in _listed(xml_text, ("state", "tasks")):
        if tag == "state":
            found[str(job)] = text
        else:
            # It follows the state of the same element.
            letters = found.pop(str(job), "")
            found.update((f"{job}.{task}", letters) for task in _tasks(text))
    return found


def requesting(xml_text: str, names: Collection[str]) -> list[int]:
    """Find the jobs that ask for any of these complexes, hard or soft, in `qstat -u * -r -xml`.

    Raises:
        UnreadableError: It is not the XML that we know.
    """
    asking = _listed(xml_text, ("hard_request", "soft_request"))
    return sorted({job for job, _, _, attributes in asking if attributes.get("name") in names})


def fields(xml_text: str, prefix: str, tags: Collection[str]) -> list[tuple[str, str]]:
    """Read (tag, text) for each element with one of the tags under the path `prefix`.

    Raises:
        UnreadableError: It is not the XML that we know.
    """
    leaves = _leaves(xml_text, {prefix + tag for tag in tags})
    return [(path.removeprefix(prefix), text) for path, text, _ in leaves]


def _tasks(text: str) -> Iterator[int]:
    """Read `1,3,5-9:2`."""
    for part in text.split(","):
        told = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10})(?::(\d{1,10}))?)?", part)
        if told is None:
            raise UnreadableError(f"qstat -xml names tasks {text!r}")
        first, last, step = (int(number or 0) for number in told.groups())
        yield from range(first, max(first, last) + 1, step or 1)


# An element without children: its path, its text, its attributes.
_Leaf = tuple[str, str, dict[str, str]]


def _job_leaves(xml_text: str) -> list[_Leaf]:
    wanted = {_ID, _OWNER, _NAME, _PROJECT, _NOT_BEFORE, _VARIABLE, _SCHEDULING, _ERROR, "unknown_jobs/ST_name"}
    wanted |= {_QUEUES, _PREDECESSOR}
    wanted.update(path + leaf for path in _REQUESTS for leaf in ("CE_name", "CE_stringval"))
    wanted.update(_CONTEXT + leaf for leaf in ("VA_variable", "VA_value"))
    wanted.update(path + leaf for path in _GRANTED for leaf in ("GRU_name", *_GRANTED_IDS))
    leaves = _leaves(xml_text, wanted)
    for path, text, _ in leaves:
        if path == "unknown_jobs/ST_name":
            raise NoSuchJobError(f"Grid Engine knows no job {text}: it never was, or is over (qacct -j {text})")
    ids = [text for path, text, _ in leaves if path == _ID]
    if len(ids) != 1 or not ids[0].isdecimal():
        raise UnreadableError("qstat -j -xml did not answer with one job")
    return leaves


def _requests(leaves: list[_Leaf]) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for path, text, _ in leaves:
        if path.endswith("/CE_name"):
            name = text
            found.setdefault(name, "")
        elif path.endswith("/CE_stringval"):
            found[name] = found[name] or text
    return found


def _pairs(leaves: list[_Leaf], name_path: str, value_path: str) -> dict[str, str]:
    found: dict[str, str] = {}
    name = ""
    for path, text, _ in leaves:
        if path == name_path:
            name = text
            found[name] = ""
        elif path == value_path:
            found[name] = text
    return found


def _overrides(leaves: list[_Leaf]) -> tuple[str, ...]:
    names = [text.removeprefix(_OVER) for path, text, _ in leaves if path == _VARIABLE and text.startswith(_OVER)]
    return tuple(f"SGE_{name}" for name in names if not name.startswith(_SUBMITTED))


def _granted(leaves: list[_Leaf]) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    name = ""
    for path, text, _ in leaves:
        if path.endswith("/GRU_name"):
            name = text
        elif path.endswith("/RESL_value"):
            found[name] = (*found.get(name, ()), text)
    return found


def _moment(text: str) -> int:
    """Seconds since 1970 on SGE 8.1.9; OCS writes other times as ISO 8601, by its host's clock."""
    try:
        if text.isdecimal():
            return int(text)
        return int(dt.datetime.fromisoformat(text).astimezone().timestamp())
    except (ValueError, OverflowError, OSError):
        return 0


def _count(tasks: str) -> int:
    """How many tasks `1-9:2,12` are; an array of millions is not counted one by one."""
    total = 0
    for part in tasks.split(","):
        found = re.fullmatch(r"(\d{1,10})(?:-(\d{1,10}):(\d{1,10}))?", part.strip())
        if found is None:
            raise UnreadableError(f"qstat -xml names tasks {tasks[:40]!r}")
        first, last, step = (int(group or 0) for group in found.groups())
        total += (last - first) // step + 1 if step else 1
    return total


def _listed(xml_text: str, tags: Collection[str]) -> list[tuple[int, str, str, dict[str, str]]]:
    """Read job lists: (job, tag, text, attributes) for each element with one of the tags."""
    wanted = {prefix + tag for prefix in _LISTS for tag in (*tags, "JB_job_number")}
    rows = []
    number = 0
    for path, text, attributes in _leaves(xml_text, wanted):
        tag = path.rpartition("/")[2]
        if tag == "JB_job_number":
            if not text.isdecimal():
                raise UnreadableError(f"qstat -xml names a job {text!r}")
            number = int(text)
        else:
            rows.append((number, tag, text, attributes))
    return rows


# A qmaster that was started again (SGE 8.1.9) names what it has read of a job that runs by its key in the spool. Users
# cannot: what they write has no brackets here.
_SPOOLED = re.compile(r"<(/?)JATASK:[ .0-9]*>")
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _leaves(xml_text: str, wanted: Collection[str]) -> list[_Leaf]:
    """Read the elements at the wanted paths, in their order, and keep nothing else.

    The document holds names, arguments and environments that users chose, and root reads it. So: no document type and
    no entities, nothing endless; paths from the root, so that nothing deeper can pose as a request. Grid Engine writes
    control characters and broken UTF-8 of users as they are; they are no reason to fail.
    """
    if len(xml_text) > MAX_XML:
        raise UnreadableError(f"qstat -xml answered with more than {MAX_XML >> 20} MiB")
    found: list[_Leaf] = []
    path: list[str] = []
    text: list[str] = []
    attributes: list[dict[str, str]] = []

    def start(tag: str, given: dict[str, str]) -> None:
        path.append(tag)
        attributes.append(given)
        text.clear()

    def end(_tag: str) -> None:
        here = "/".join(path)
        if here in wanted:
            found.append((here, "".join(text).strip(), attributes[-1]))
        path.pop()
        attributes.pop()
        text.clear()

    def refuse(*_: object) -> None:
        raise UnreadableError("qstat -xml answered with a document type, which Grid Engine never writes")

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = text.append
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(_NO_XML.sub("\ufffd", _SPOOLED.sub(r"<\1ulong_sublist>", xml_text)).encode(), True)
    except expat.ExpatError as error:
        raise UnreadableError(f"qstat -xml answered with what is no XML: {error}") from None
    return found
