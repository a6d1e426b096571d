"""The report of `way` for people."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mpquic.trace.way import NOT_UNICAST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

INDENT = 12
_SET = re.compile(r"\{ ([^{}]*) \}")


def render(found: Mapping[str, Any], *, every_rule: bool = False) -> str:
    """Return the report as lines with a heading each. Rules that don't match are shown with `every_rule` only."""
    lines = [f"{head:<{INDENT}}{line}" for head, line in _lines(found, every_rule=every_rule)]
    return "\n".join(line.rstrip() for line in lines)


def _lines(found: Mapping[str, Any], *, every_rule: bool) -> Iterator[tuple[str, str]]:
    lan, packet, route, kernel = found["lan"], found["packet"], found["route"], found["kernel"]
    port = f" port {packet['port']}" if packet["port"] is not None else ""
    port += f", DSCP {packet['dscp']}" if packet["dscp"] else ""
    yield (
        "packet",
        f"{packet['source']} ({packet['source_from']}) to {packet['destination']}, {packet['protocol']}{port}",
    )
    yield "comes in", f"{lan['device']} ({lan['name']}){_lan_state(lan)}"
    yield "mark", _mark(packet)
    for number, step in enumerate(step for step in found["rules"] if step["matches"] or every_rule):
        arrow = "->" if step["matches"] else "no:"
        yield "rules" if number == 0 else "", f"{step['rule']} {arrow} {step['result']}"
        for skipped in step["skipped"]:
            yield "", f"    not {skipped['route']}: {skipped['why']}"
    yield "route", _route(route)
    yield "kernel", _kernel(kernel)
    yield "firewall", _firewall(found["firewall"])
    for place in found["firewall"]["unknown"]:
        yield "", f"can't be told for this rule, and it counts as not matching: {_short(place)}"
    if found["translation"] is not None:
        translation = found["translation"]
        yield "NAT", f"{translation['kind']} {translation['address'] or ''} ({_short(translation['rule'])})"
    if found["mtu"] is not None:
        yield "size", f"MTU {found['mtu']}" + (f", MSS of TCP at most {found['mss']}" if found["mss"] else "")
    if found["tunnel"] is not None:
        yield from _tunnel(found["tunnel"])
    for number, note in enumerate(found["notes"]):
        yield "note" if number == 0 else "", note
    yield "outcome", found["summary"]
    if found["sent"] is not None:
        yield from _sent(found["sent"])


def _lan_state(lan: Mapping[str, Any]) -> str:
    if not lan["present"]:
        return ", which isn't there: nothing comes in"
    return "" if lan["carrier"] else ", which has no carrier: nothing comes in now"


def _mark(packet: Mapping[str, Any]) -> str:
    if not packet["mark_rules"]:
        return "none: no rule gives one"
    mark = "not to be told" if packet["mark"] is None else f"{packet['mark']:#x}"
    return f"{mark}, by {_short('; '.join(packet['mark_rules']))}"


def _route(route: Mapping[str, Any]) -> str:
    if route["route"] is None:
        return NOT_UNICAST.get(route["kind"], str(route["kind"]))
    gateway = f" by gateway {route['gateway']}" if route["gateway"] else ""
    place = f"table {route['table']} (rule {route['priority']}): {route['route']}"
    return f"{place}; {NOT_UNICAST[route['kind']]}" if route["kind"] in NOT_UNICAST else f"{place}{gateway}"


def _kernel(kernel: Mapping[str, Any]) -> str:
    word = (
        f"dev {kernel['device']} table {kernel['table']}"
        if kernel["kind"] == "unicast"
        else kernel["error"] or kernel["kind"]
    )
    if kernel["agrees"]:
        return f"says the same: {word} ({kernel['command']})"
    return f"DISAGREES: {word} ({kernel['command']}); the kernel is right, the lines above aren't the whole truth"


def _firewall(firewall: Mapping[str, Any]) -> str:
    if not firewall["forwarding"]:
        return "forwarding is off for this device (sysctl): nothing passes"
    if firewall["accepted"] is None:
        return "not reached"
    verdict = "accepted" if firewall["accepted"] else "DROPPED"
    return f"{verdict} by {_short(firewall['by'] or 'nobody: there is no chain')}"


def _tunnel(tunnel: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    why = why_not(tunnel)
    yield "tunnel", why if why is not None else f"{tunnel['name']} is up"
    for path in tunnel["paths"]:
        if path["local"] is None:
            yield "path", f"{path['wan']} ({path['device']}): no connection to {path['peer']}"
            continue
        rtt = f", RTT {path['rtt_seconds'] * 1000:.1f} ms" if path["rtt_seconds"] is not None else ""
        yield "path", f"{path['wan']} ({path['device']}): {path['local']} to {path['peer']}, {path['data_plane']}{rtt}"


def _sent(sent: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if sent["refusal"] is not None:
        yield "sent", sent["refusal"]
        return
    mark = f", mark {sent['mark']:#x}" if sent["mark"] else ""
    where = f"from this host's own {sent['source']} by {sent['device']}{mark}"
    yield "sent", f"{where}: through the output hook, not the forward hook"
    yield "", f"seen leaving by {', '.join(sent['left_by']) or 'no device'}"
    if sent["returned_by"]:
        yield (
            "",
            (
                f"reply: {sent['reply']} after {sent['rtt_seconds'] * 1000:.1f} ms, "
                f"seen coming in by {', '.join(sent['returned_by'])}"
            ),
        )
    for counter in sent["counters"]:
        sides = [
            f"{word} {counter[f'{side}_packets_before']} -> {counter[f'{side}_packets_after']}"
            for side, word in (("tx", "sent"), ("rx", "received"))
            if counter[f"{side}_packets_before"] is not None
        ]
        yield "", f"{counter['name']}: packets {', '.join(sides) or 'not known'}"
    if sent["connection"] is not None:
        yield "", f"connection: {sent['connection']}"
    if sent["proven"]:
        yield "proven", f"out and back by {sent['device']}, and by no other device"
    for number, problem in enumerate(sent["problems"]):
        yield "NOT PROVEN" if number == 0 else "", problem


def _short(rule: object) -> str:
    """Return a rule with the number of elements in place of a long set; `--json` has them."""

    def count(found: re.Match[str]) -> str:
        elements = found[1].count(",") + 1
        return found[0] if elements <= 2 else f"{{ {elements} elements }}"

    return _SET.sub(count, str(rule))


def why_not(facts: Mapping[str, Any]) -> str | None:
    """Return why a tunnel carries nothing, in words; None while it is up."""
    if not facts["enabled"]:
        return f"{facts['name']} is disabled in the site's variables (enabled: false)"
    if facts["state"] == "held" and facts["error"]:
        return f"{facts['name']} is {facts['error']}"
    if facts["hold"] is not None and facts["state"] != "up":
        return f"{facts['name']} is held by {facts['hold']['by']}: {facts['hold']['reason']}"
    if facts["state"] == "up":
        return None
    return f"{facts['name']} is {facts['state'] or 'not known'}" + (f": {facts['error']}" if facts["error"] else "")
