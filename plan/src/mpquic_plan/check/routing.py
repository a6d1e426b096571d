"""Rules and floors as planned, and still so some seconds later."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Any, Final

from mpquic_plan.check.finding import Finding, problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from mpquic_plan.check.finding import Fleet, Host

CHECK = "routing"
FAMILIES: Final = ("ipv4", "ipv6")
MAIN: Final = 254
_TYPES: Final = {"1": "unicast", "6": "blackhole", "7": "unreachable", "8": "prohibit"}
"""Types of routes by their numbers (include/uapi/linux/rtnetlink.h), which `ip -N` shows."""
Rule = tuple[int, str, str, str, str, str]
Route = tuple[str, str, str, str]


def rules_are_as_planned(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield rules that are missing, or lie in our range of priorities and aren't planned, in either look."""
    remedy = "run site.yml; whoever deletes them again is told by ip monitor rule"
    for family in FAMILIES:
        states = []
        for look in host.looks:
            present = [_rule(rule) for rule in look["rules"][family] if _is_ours(host, int(rule["priority"]))]
            planned = set(_rules(family, _links(host)))
            wanted = set(_rules(family, _configured(host, look["links"])))
            states.append(
                {
                    **{f"the {family} rule {_say(rule)} is missing": remedy for rule in wanted - set(present)},
                    **{f"the {family} rule {_say(rule)} isn't planned": remedy for rule in set(present) - planned},
                }
            )
        yield from both_looks(CHECK, states[0], states[1])


def routes_are_as_planned(host: Host, _fleet: Fleet) -> Iterator[Finding]:
    """Yield planned routes that are missing: each table's floor, the tunnels' defaults, in either look."""
    remedy = "networkctl reload, or run site.yml"
    for family in FAMILIES:
        states = []
        for look in host.looks:
            present = {_route(route) for route in look["routes"][family]}
            missing = _routes(family, _configured(host, look["links"])) - present
            states.append(
                {f"the {family} route {' '.join(filter(None, route))} is missing": remedy for route in missing}
            )
        yield from both_looks(CHECK, states[0], states[1])


def both_looks(check: str, first: Mapping[str, str], second: Mapping[str, str]) -> Iterator[Finding]:
    """Yield problems of two looks, given each with its remedy, and say of those that weren't there in both."""
    for text in sorted({**first, **second}):
        when = (
            ""
            if text in first and text in second
            else " at first, later no more"
            if text in first
            else " later, not at first"
        )
        yield problem(check, f"{text}{when}", second.get(text, first.get(text, "")))


def _is_ours(host: Host, priority: int) -> bool:
    return any(first <= priority <= last for first, last in host.plan["ranges"]["rule_priorities"])


def _links(host: Host) -> list[Mapping[str, Any]]:
    return [link for kind in ("management", "wans", "lans", "tuns") for link in host.plan.get(kind, [])]


def _configured(host: Host, carriers: Mapping[str, bool]) -> list[Mapping[str, Any]]:
    """Links that systemd-networkd must have configured: LANs and TUNs that are there, others when they have carrier."""
    early = [*host.plan.get("lans", []), *host.plan["tuns"]]
    late = [*host.plan.get("management", []), *host.plan.get("wans", [])]
    return [link for link in early if _device(link) in carriers] + [
        link for link in late if carriers.get(_device(link))
    ]


def _device(link: Mapping[str, Any]) -> str:
    return str(link.get("device", link["name"]))


def _rules(family: str, links: list[Mapping[str, Any]]) -> list[Rule]:
    return [
        (
            int(rule["priority"]),
            str(rule["table"]),
            _prefix(rule["from"]),
            rule["incoming_interface"] or "",
            rule["outgoing_interface"] or "",
            "" if rule["mark"] is None else f"{rule['mark']:#x}/{rule['mask']:#x}",
        )
        for link in links
        for rule in link.get("rules", [])
        if rule["family"] in ("both", family)
    ]


def _rule(rule: Mapping[str, Any]) -> Rule:
    source = str(rule.get("src", "all"))
    if source != "all" and "srclen" in rule:
        source = f"{source}/{rule['srclen']}"
    table = str(rule.get("table", ""))
    return (
        int(rule["priority"]),
        table,
        "" if source == "all" else _prefix(source),
        rule.get("iif", ""),
        rule.get("oif", ""),
        _mark(rule),
    )


def _mark(rule: Mapping[str, Any]) -> str:
    """Mark and mask of a rule as `ip -json` has them, which leaves out a mask of all bits; '' without."""
    if "fwmark" not in rule:
        return ""
    return f"{int(str(rule['fwmark']), 0):#x}/{int(str(rule.get('fwmask', 0xFFFFFFFF)), 0):#x}"


def _say(rule: Rule) -> str:
    priority, table, source, incoming, outgoing, mark = rule
    words = [str(priority) + ":", *(["from", source] if source else []), *(["iif", incoming] if incoming else [])]
    words += [*(["oif", outgoing] if outgoing else []), *(["fwmark", mark] if mark else [])]
    return " ".join([*words, "lookup", table])


def _routes(family: str, links: list[Mapping[str, Any]]) -> set[Route]:
    """Static routes of links: type, destination, device, table."""
    return {
        (
            str(route["type"]),
            _prefix(route["destination"]),
            f"dev {_device(link)}" if route["type"] == "unicast" else "",
            f"table {route['table'] or MAIN}",
        )
        for link in links
        for route in link["routes"]
        if (":" in route["destination"]) == (family == "ipv6")
    }


def _route(route: Mapping[str, Any]) -> Route:
    kind = str(route.get("type", "unicast"))
    kind = _TYPES.get(kind, kind)
    destination = str(route["dst"])
    device = f"dev {route.get('dev', '')}" if kind == "unicast" else ""
    return (
        kind,
        "default" if destination == "default" else _prefix(destination),
        device,
        f"table {route.get('table', MAIN)}",
    )


def _prefix(text: str | None) -> str:
    if not text:
        return ""
    network = ip_network(text, strict=False)
    return str(network) if network.prefixlen else "default"
