"""As much of a cell as deployment needs, to be interrupted at every step; it does what SGE 8.1.9 was seen to do."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import TYPE_CHECKING

from gridengine_samples import stdout

from gridengine.commands import GridEngineError, Output, UnknownObjectError
from gridengine.qconf_text import Layered, pairs, unwrapped
from gridengine.resources import parse_table

if TYPE_CHECKING:
    from collections.abc import Callable

QUEUE = {"prolog": "NONE", "epilog": "NONE", "complex_values": "NONE", "load_thresholds": "NONE", "pe_list": "NONE"}


class FakeCell:
    def __init__(self) -> None:
        self.table = stdout("sge/qconf_sc.txt")
        self.values: dict[str, str] = {"licence": "3"}
        self.reported: dict[str, str] = {}
        self.queues = {name: {**QUEUE, "qtype": "BATCH"} for name in ("all.q", "a.q", "b.q")}
        self.configurations = {
            "global": "#global:\nmailer m\nload_sensor                  /site\nprolog none\nepilog none\n"
            "reporting_params             accounting=true joblog=false\njsv_url                      none\n"
            "jsv_allowed_mod              a,ac,h\n"
        }
        self.groups = {"@quantum": "node1 node2"}
        self.sets: dict[str, str] = {}
        self.environments: dict[str, str] = {}
        self.hosts = ("node1", "node2", "node3")
        self.writes = 0
        self.break_at: int | None = None
        self.breaks: Callable[[], None] = self._refuse

    def snapshot(self) -> object:
        """All of it, but for the order of lists that have none."""
        table = {entry.line() for entry in parse_table(self.table)}
        return table, copy.deepcopy((self.values, self.queues, self.configurations, self.sets, self.environments))

    def run(self, command: str, *arguments: str, **_: object) -> Output:
        out = self._show(command, *arguments)
        if out is None:
            out = ""
            self.writes += 1
            if self.writes == self.break_at:
                self.breaks()
            self._write(*arguments)
            if self.writes == -(self.break_at or 0):
                self.breaks()
        return Output(out, "")

    def _refuse(self) -> None:
        raise GridEngineError("qconf: no")

    def _show(self, command: str, *arguments: str) -> str | None:  # noqa: C901, PLR0911, PLR0912 - a line for each question
        match (command, *arguments):
            case ("qconf", "-sc"):
                return self.table
            case ("qconf", "-help"):
                return "SGE 8.1.9\n"
            case ("qconf", "-sconfl"):
                return "\n".join(name for name in self.configurations if name != "global")
            case ("qconf", "-sconf", names):
                if names not in self.configurations and "," not in names and names not in self.hosts:
                    raise UnknownObjectError(f'can\'t resolve hostname "{names}"')
                if missing := [name for name in names.split(",") if name not in self.configurations]:
                    raise UnknownObjectError(f"configuration {missing[0]} not defined")
                return "\n\n".join(self.configurations[name] for name in names.split(","))
            case ("qconf", "-sql"):
                return "\n".join(self.queues)
            case ("qconf", "-sq", queue):
                return "".join(f"{name}  {text}\n" for name, text in self.queues[queue].items())
            case ("qconf", "-se", _name):
                return f"complex_values {_listed(self.values)}\nload_values {_listed(self.reported)}\n"
            case ("qconf", "-srqs", name):
                return self._known(self.sets, name)
            case ("qconf", "-sp", name):
                return self._known(self.environments, name)
            case ("qconf", "-shgrp_resolved", name):
                return self._known(self.groups, name)
            case ("qselect", "-q", queue):
                return "".join(f"{queue}@{host}\n" for host in self.hosts)
            case ("qstat", *_rest):
                return "<job_info/>"
        return None

    def _known(self, objects: dict[str, str], name: str) -> str:
        if name not in objects:
            raise UnknownObjectError(f"no {name}")
        return objects[name]

    def _write(self, option: str, *arguments: str) -> None:  # noqa: C901, PLR0912 - a line for each order
        match (option, *arguments):
            case ("-Mc", path):
                self._table(Path(path).read_text())
            case ("-Mconf" | "-Aconf", path):
                text = Path(path).read_text()
                name = Path(path).name
                self.configurations[name] = text if text.startswith("#") else f"#{name}:\n{text}"
            case ("-dconf", name):
                del self.configurations[name]
            case ("-mattr", "exechost", "complex_values", value, "global"):
                self._defined(value.partition("=")[0])
                self.values.update([value.split("=", 1)])
            case ("-dattr", "exechost", "complex_values", name, "global"):
                del self.values[name]
            case ("-rattr", "queue", name, value, queue):
                now, new = Layered.parse(self.queues[queue][name]), Layered.parse(value)
                for text in new.texts:
                    self._referred(name, text)
                self.queues[queue][name] = str(Layered(new.default, {**now.overrides, **new.overrides}))
            case ("-purge", "queue", name, instance):
                queue, _, key = instance.partition("@")
                now = Layered.parse(self.queues[queue][name])
                self.queues[queue][name] = str(
                    Layered(now.default, {k: v for k, v in now.overrides.items() if k != key})
                )
            case ("-Arqs" | "-Mrqs", path):
                self.sets["qpu"] = Path(path).read_text()
            case ("-drqs", name):
                del self.sets[name]
            case ("-Ap", path):
                self.environments["qpu_window"] = Path(path).read_text()
            case ("-dp", name):
                assert name not in str(self.queues), "it is still referenced"
                del self.environments[name]
            case _:
                raise AssertionError(option)

    def _table(self, text: str) -> None:
        """Fixed values keep a complex; thresholds, as was seen, do not: then their queues are in alarm."""
        gone = {entry.name for entry in parse_table(self.table)} - {entry.name for entry in parse_table(text)}
        used = set(self.values).union(
            *(
                pairs(each)
                for queue in self.queues.values()
                for name in ("complex_values", "load_thresholds")
                for each in Layered.parse(queue[name]).texts
            )
        )
        assert not gone & used, f"{gone & used} still referenced"
        self.table = text

    def _referred(self, name: str, text: str) -> None:
        if name in {"complex_values", "load_thresholds"}:
            for entry in pairs(text):
                self._defined(entry)
        elif name == "pe_list" and "qpu_window" in text:
            assert "qpu_window" in self.environments

    def _defined(self, name: str) -> None:
        known = {entry.name for entry in parse_table(self.table)} | {"licence"}
        assert name in known, f"{name} is not a complex"


def _listed(entries: dict[str, str]) -> str:
    return ",".join(f"{name}={value}" for name, value in entries.items()) or "NONE"


def setting(text: str, name: str) -> str:
    """One line of a configuration."""
    found = re.search(rf"^{name}\s+(.*)$", unwrapped(text), re.MULTILINE)
    return found[1].strip() if found else ""
