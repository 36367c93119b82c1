"""qconf of the stand-in cell. What no sample of OCS has is as SGE 8.1.9 has it, and marked so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import ocs_complexes as complexes
from ocs_state import KINDS, Refusal, State, say, tell, unseen
from ocs_text import items, layers, merged, read_settings, shown

if TYPE_CHECKING:
    from collections.abc import Callable

LISTS = {"exechost": "EH_LIST", "queue": "CQ_LIST", "pe": "PE_LIST", "hostgroup": "HGRP_LIST"}
WORDS = ("pe_list", "ckpt_list", "hostlist")
# SGE's words; no sample of OCS asks for what is not there.
ABSENT = {
    "configuration": "configuration {name} not defined",
    "exechost": 'Host "{name}" is not in exechost list.',
    "queue": 'No cluster queue or queue instance matches the phrase "{name}"',
    "pe": 'parallel environment "{name}" does not exist',
    "hostgroup": 'Host group "{name}" does not exist',
    "resource_quota": 'resource quota set "{name}" does not exist',
}
WIDTHS = {"configuration": 29, "exechost": 22, "queue": 22, "pe": 20, "hostgroup": 11}
# All of them, and no others: sge_pe(5) of OCS.
ENVIRONMENT = (
    *("pe_name", "slots", "user_lists", "xuser_lists", "start_proc_args", "stop_proc_args", "allocation_rule"),
    *("control_slaves", "job_is_first_task", "urgency_slots", "accounting_summary", "ign_sreq_on_mhost"),
    *("master_forks_slaves", "daemon_forks_slaves"),
)


def run(state: State, arguments: list[str]) -> None:
    option, *rest = arguments
    if option in {"-aattr", "-mattr", "-dattr", "-rattr"}:
        change_attribute(state, option, *rest)
    elif option in OPTIONS:
        OPTIONS[option](state, *rest)
    else:
        unseen("qconf", arguments)


# Lists in hosts, queues and parallel environments.


def change_attribute(state: State, how: str, kind: str, attribute: str, value: str, places: str) -> None:
    state.changing(f"to initiate operation for target {LISTS.get(kind, '')}")
    for place in places.split(","):
        name, _, domain = place.partition("@") if kind == "queue" else (place, "", "")
        settings = state.objects(kind).get(name)
        if settings is None:
            hosts = kind == "exechost"
            raise Refusal(
                f'can\'t resolve hostname "{name}"' if hosts else f'denied: cluster queue "{name}" does not exist'
            )
        before = settings[attribute]
        if attribute in {"complex_values", "load_thresholds"}:
            complexes.check_values(state, kind, attribute, value)
        if kind == "queue":
            settings[attribute] = in_queue(how, attribute, settings[attribute], value, domain)
        else:
            settings[attribute] = in_list(how, kind, attribute, settings[attribute], value)
        if settings[attribute] != before or how != "-aattr":
            say(state.done(kind, name, "modified"))


def in_queue(how: str, attribute: str, now: str, value: str, domain: str) -> str:
    """Change what all hosts of a queue have, or some; -rattr leaves the hosts alone that it does not name (as SGE)."""
    plain, some = layers(now)
    new, new_some = (None, {domain: value}) if domain else layers(value)
    if new is not None:
        plain = in_list(how, "queue", attribute, plain or "NONE", new)
    for place, text in new_some.items():
        if how == "-dattr":
            some.pop(place, None)
        else:
            some[place] = in_list(how, "queue", attribute, some.get(place, "NONE"), text)
    return merged(plain, some)


def in_list(how: str, kind: str, attribute: str, now: str, value: str) -> str:
    if how == "-rattr":
        return value
    words = attribute in WORDS
    old = now.split() if words and now.upper() != "NONE" else items(now)
    for part in value.replace(",", " ").split() if words else items(value):
        key = part.partition("=")[0]
        there = [entry for entry in old if entry.partition("=")[0] == key]
        if how == "-aattr" and there:
            say(f'No modification because "{key}" already exists in "{attribute}" of "{kind}"')
            continue
        if how == "-mattr" and not old:
            say(f'"{attribute}" of "{kind}" is empty - Adding new element(s).')
        elif how == "-mattr" and not there:
            say(f'Unable to find "{key}" in "{attribute}" of "{kind}" - Adding new element.')
        # What is changed goes to the end.
        old = [entry for entry in old if entry not in there] + ([] if how == "-dattr" else [part])
    return (" " if words else ",").join(old) or "NONE"


# Whole objects.


def show(kind: str) -> Callable[..., None]:
    def shows(state: State, wanted: str = "global") -> None:
        for name in wanted.split(","):
            settings = state.objects(kind).get(name)
            if settings is None:
                raise Refusal(ABSENT[kind].format(name=name))
            title, end = (f"#{name}:\n", "\n") if kind == "configuration" else ("", "")
            say(title + shown(settings, WIDTHS[kind]) + end)

    return shows


def names(kind: str) -> Callable[[State], None]:
    def lists(state: State) -> None:
        found = [name for name in state.objects(kind) if name != "global"]
        if not found:
            raise Refusal(f"no {KINDS[kind]} defined")
        say("\n".join(found))

    return lists


def write(kind: str) -> Callable[[State, str], None]:
    """-A and -M of an object are the same since 9.2."""

    def writes(state: State, path: str) -> None:
        state.changing()
        settings = read_settings(path)
        name = Path(path).name if kind == "configuration" else next(iter(settings.values()))
        unknown = [attribute for attribute in settings if kind == "pe" and attribute not in ENVIRONMENT]
        missing = [attribute for attribute in ENVIRONMENT if kind == "pe" and attribute not in settings]
        if unknown or missing:
            fault = (
                f'unknown attribute name "{unknown[0]}"' if unknown else f'required attribute "{missing[0]}" is missing'
            )
            raise Refusal(f'error: {fault}\nerror: error reading file: "{path}"')
        binding = settings.get("binding_params", "")
        if len(binding.split()) > 1:
            # Complained of, with status 0 (usage_patterns.txt). That the rest is lost nobody has seen: it is the worst case.
            tell('only a single value is allowed for configuration attribute "binding_params"')
            settings["binding_params"] = binding.split()[0]
        there = name in state.objects(kind)
        state.objects(kind)[name] = settings
        tell(state.done(kind, name, "modified" if there else "added"))

    return writes


def delete(kind: str) -> Callable[[State, str], None]:
    def deletes(state: State, name: str) -> None:
        state.changing()
        for queue, settings in state.objects("queue").items() if kind == "pe" else ():
            if name in re.split(r"[ ,=\]]", settings["pe_list"]):
                raise Refusal(f'denied: PE "{name}" is still referenced in queue "{queue}".')
        if state.objects(kind).pop(name, None) is None:
            raise Refusal(ABSENT[kind].format(name=name))
        tell(f'{state.who} removed "{name}" from {KINDS[kind]}')

    return deletes


def show_quotas(state: State, wanted: str = "") -> None:
    quotas = state.all["resource_quota"]
    for name in wanted.split(",") if wanted else []:
        if name not in quotas:
            raise Refusal(ABSENT["resource_quota"].format(name=name))
    found = [text for name, text in quotas.items() if not wanted or name in wanted.split(",")]
    if not found:
        raise Refusal("no resource quota set list defined")
    say("\n".join(found))


def purge(state: State, kind: str, attribute: str, place: str) -> None:
    """Take away what some hosts of a queue have of their own. As SGE does it."""
    state.changing()
    name, _, domain = place.partition("@")
    settings = state.objects(kind).get(name)
    if settings is None:
        raise Refusal(f'denied: cluster queue "{name}" does not exist')
    plain, some = layers(settings[attribute])
    if some.pop(domain, None) is None:
        raise Refusal(f'denied: "{domain}" has no {attribute} of its own in "{name}"')
    settings[attribute] = merged(plain, some)
    say(state.done(kind, name, "modified"))


def resolve(state: State, group: str) -> None:
    settings = state.objects("hostgroup").get(group)
    if settings is None:
        raise Refusal(ABSENT["hostgroup"].format(name=group))
    say(settings["hostlist"])


def write_quotas(state: State, path: str, _wanted: str = "") -> None:
    state.changing()
    for text in re.findall(r"^\{.*?^\}", Path(path).read_text(), re.MULTILINE | re.DOTALL):
        named = re.search(r"^\s*name\s+(\S+)", text, re.MULTILINE)
        if named is None:
            raise Refusal(f'error: error reading file: "{path}"')
        there = named[1] in state.all["resource_quota"]
        state.all["resource_quota"][named[1]] = text
        tell(state.done("resource_quota", named[1], "modified" if there else "added"))


def managers(state: State) -> None:
    say("\n".join(state.all["managers"]))


OPTIONS: dict[str, Callable[..., None]] = {
    "-sc": complexes.show_table,
    "-sce": complexes.show_one,
    "-Mc": complexes.write_table,
    "-Ace": complexes.write_one,
    "-Mce": complexes.write_one,
    "-dce": complexes.delete,
    "-sconf": show("configuration"),
    "-sconfl": names("configuration"),
    "-Mconf": write("configuration"),
    "-Aconf": write("configuration"),
    "-dconf": delete("configuration"),
    "-se": show("exechost"),
    "-sel": names("exechost"),
    "-sm": managers,
    "-sq": show("queue"),
    "-sql": names("queue"),
    "-Mq": write("queue"),
    "-sp": show("pe"),
    "-spl": names("pe"),
    "-Ap": write("pe"),
    "-Mp": write("pe"),
    "-dp": delete("pe"),
    "-shgrp": show("hostgroup"),
    "-shgrpl": names("hostgroup"),
    "-shgrp_resolved": resolve,
    "-purge": purge,
    "-srqs": show_quotas,
    "-srqsl": names("resource_quota"),
    "-Arqs": write_quotas,
    "-Mrqs": write_quotas,
    "-drqs": delete("resource_quota"),
}
