"""Traffic classes, their rules and tunnels, and the LANs that use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from mpquic_plan import classes
from mpquic_plan.assignments import all_assignments
from mpquic_plan.problem import Problem, unknown

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mpquic_plan.model import Fleet, Lan, MatchRule, Network, Site, TrafficClass, Wan

Item = TypeVar("Item", "TrafficClass", "Wan")


def _repeats(entries: Iterable[Item], key: str) -> Iterator[tuple[Item, Item]]:
    """Give each entry whose value of a key an earlier one has, with the first of these; None is no value."""
    first: dict[object, Item] = {}
    for entry in entries:
        value = getattr(entry, key)
        other = first.setdefault(value, entry)
        if other is not entry and value is not None:
            yield entry, other


def classes_are_distinct(fleet: Fleet) -> Iterator[Problem]:
    """No two classes of a site have the same name, slot or prefix, and prefixes don't end in a digit."""
    for site in fleet.sites.values():
        for key in ("name", "slot", "prefix"):
            for entry, other in _repeats(site.classes, key):
                message = f"the {key} '{getattr(entry, key)}' is already used by {other.name} ({other.path})"
                yield Problem(site.host, f"{entry.path}.{key}", message)
        for entry in site.classes:
            if entry.prefix[-1].isdigit():
                message = (
                    f"'{entry.prefix}' ends in a digit, so its tunnels' names could be those of other numbers; "
                    "end it in a letter"
                )
                yield Problem(site.host, f"{entry.path}.prefix", message)


def one_class_catches_all(fleet: Fleet) -> Iterator[Problem]:
    """Exactly one class of a site takes what no rule matches."""
    for site in fleet.sites.values():
        if site.broken.get("classes"):
            continue
        catching = [entry for entry in site.classes if entry.catch_all]
        for entry in catching[1:]:
            message = f"{catching[0].name} ({catching[0].path}) catches all already; leave catch_all to one class"
            yield Problem(site.host, f"{entry.path}.catch_all", message)
        if not catching:
            names = ", ".join(entry.name for entry in site.classes)
            message = f"no class takes what no rule matches; set catch_all: true in one of {names}"
            yield Problem(site.host, "site.classes", message)


def rules_can_match(fleet: Fleet) -> Iterator[Problem]:
    """Each rule has something left to match, and asks for ports and prefixes that go together."""
    for site in fleet.sites.values():
        told = set()
        for rule in (rule for entry in site.classes for rule in entry.rules):
            for problem in _impossible(site, rule):
                told.add(rule.path)
                yield problem
        for rule, cause in classes.shadowed(site.classes):
            if rule.path not in told:
                message = (
                    f"can never match: {cause.path} and the rules before it take all that it asks for; put it in front "
                    "of them, or take it away"
                )
                yield Problem(site.host, rule.path, message)


def _impossible(site: Site, rule: MatchRule) -> Iterator[Problem]:
    if (rule.ports or rule.source_ports) and any(number not in classes.WITH_PORTS for number in rule.protocols):
        key = "ports" if rule.ports else "source_ports"
        message = "its protocol has no ports; state protocol: tcp or udp, or take the ports away"
        yield Problem(site.host, f"{rule.path}.{key}", message)
    families = [{prefix.version for prefix in prefixes} for prefixes in (rule.sources, rule.destinations) if prefixes]
    if len(families) == 2 and not families[0] & families[1]:
        message = "sources and destinations are of different families, so that nothing would match"
        yield Problem(site.host, f"{rule.path}.destinations", message)


def wans_carry_known_classes(fleet: Fleet) -> Iterator[Problem]:
    """A WAN carries classes of the site, each once, and has a number for their tunnels."""
    for site in fleet.sites.values():
        names = [entry.name for entry in site.classes]
        for wan in site.wans:
            if wan.classes != () and wan.class_number is None:
                message = (
                    "is missing; it is the number in the names of this WAN's class tunnels (prefix and number), so "
                    "state one that no other WAN of the site has"
                )
                yield Problem(site.host, f"{wan.path}.class_number", message)
            for place, name in enumerate(wan.classes or ()):
                path = f"{wan.path}.classes"
                if name not in names and not site.broken.get("classes"):
                    yield Problem(site.host, path, unknown("class", name, names))
                elif name in (wan.classes or ())[:place]:
                    yield Problem(site.host, path, f"'{name}' is there twice; take one away")


def class_numbers_are_unique(fleet: Fleet) -> Iterator[Problem]:
    """No two WANs of a site have the same class number."""
    for site in fleet.sites.values():
        for wan, other in _repeats(site.wans, "class_number"):
            if other.name != wan.name:
                message = f"{wan.class_number} is already the class number of {other.name} ({other.path})"
                yield Problem(site.host, f"{wan.path}.class_number", message)


def lans_state_one_way(fleet: Fleet) -> Iterator[Problem]:
    """A LAN states a tunnel or a WAN, a VLAN a tunnel, a WAN, or a class with its WAN."""
    for site in fleet.sites.values():
        for lan in site.lans:
            if lan.traffic_class is not None and lan.tunnel is not None:
                message = (
                    f"class: {lan.traffic_class} and tunnel: {lan.tunnel} exclude each other; keep class (with wan) "
                    "for the class's tunnel on that WAN, or tunnel"
                )
                yield Problem(site.host, f"{lan.path}.class", message)
            elif lan.wan is not None and lan.tunnel is not None:
                message = (
                    f"wan: {lan.wan} and tunnel: {lan.tunnel} exclude each other; keep wan for the tunnels of the "
                    "classes on that WAN, or tunnel"
                )
                yield Problem(site.host, f"{lan.path}.wan", message)
            elif lan.traffic_class is not None and lan.wan is None:
                message = f"is missing; state the WAN over whose {lan.traffic_class} tunnel it goes"
                yield Problem(site.host, f"{lan.path}.wan", message)
            elif lan.vlan_id is not None and not lan.states_way:
                message = (
                    "is missing; state class and wan, or tunnel (none with a fallback leads out by a WAN), or a wan "
                    "alone to have the classes' rules decide"
                )
                yield Problem(site.host, f"{lan.path}.tunnel", message)


def lans_use_carried_classes(fleet: Fleet) -> Iterator[Problem]:
    """What a LAN asks for is a class that its WAN carries; where rules decide, the WAN carries the catch-all."""
    for site in fleet.sites.values():
        if site.broken.get("classes"):
            continue
        wans = {wan.name: wan for wan in site.wans}
        for lan in site.lans:
            if lan.wan is None or lan.tunnel is not None:
                continue
            wan = wans.get(lan.wan)
            if wan is None:
                if not {lan.wan, "*"} & site.broken.get("wans", frozenset()):
                    yield Problem(site.host, f"{lan.path}.wan", unknown("WAN", lan.wan, wans))
            elif lan.traffic_class is not None and site.class_named(lan.traffic_class) is None:
                names = [entry.name for entry in site.classes]
                yield Problem(site.host, f"{lan.path}.class", unknown("class", lan.traffic_class, names))
            else:
                yield from _carried(site, lan, wan)


def _carried(site: Site, lan: Lan, wan: Wan) -> Iterator[Problem]:
    entry = site.class_named(lan.traffic_class) if lan.traffic_class is not None else site.catch_all
    if entry is None or wan.classes is None or entry.name in wan.classes:
        return
    why = "" if lan.traffic_class is not None else ", the class of what no rule matches"
    message = f"{wan.name} doesn't carry {entry.name}{why}; add it to {wan.path}.classes, or name another WAN"
    yield Problem(site.host, f"{lan.path}.wan", message)


def class_tunnels_keep_their_place(fleet: Fleet) -> Iterator[Problem]:
    """The class of a tunnel is known, and an entry for a class tunnel doesn't give it another class or WAN."""
    for site in fleet.sites.values():
        if site.broken.get("classes"):
            continue
        wans = {wan.name: wan for wan in site.wans}
        names = [entry.name for entry in site.classes]
        for tunnel in site.tunnels:
            entry, wan = site.class_named(tunnel.traffic_class), wans.get(tunnel.wans[0])
            if tunnel.traffic_class is not None and entry is None:
                message = unknown("class", tunnel.traffic_class, names)
                yield Problem(site.host, tunnel.place("class"), message)
            elif tunnel.of_class and wan and entry and f"{entry.prefix}{wan.class_number}" != tunnel.name:
                message = (
                    f"by its name {tunnel.name} is a class tunnel, whose class and WAN follow from the name; take "
                    "class and wan away, or give the tunnel another name"
                )
                yield Problem(site.host, tunnel.path, message)


def routed_prefixes_have_one_tunnel_of_a_listener(fleet: Fleet) -> Iterator[Problem]:
    """With `lan_mode: routed` the VPS finds the tunnel of a prefix by the prefix, so on a listener it has one only."""
    for site in fleet.sites.values():
        if site.lan_mode != "routed":
            continue
        used: dict[tuple[str, Network], tuple[Lan, list[str]]] = {}
        for assigned in all_assignments(site, idle=True):
            for tunnel in assigned.tunnels:
                for prefix in (*assigned.lan.networks, *assigned.lan.behind):
                    _, names = used.setdefault((tunnel.listener, prefix), (assigned.lan, []))
                    if tunnel.name not in names:
                        names.append(tunnel.name)
        for (listener, prefix), (lan, names) in sorted(used.items(), key=lambda item: (item[1][0].path, item[0][0])):
            if len(names) > 1:
                message = (
                    f"{prefix} would go by {', '.join(names)}, which share the listener {listener}, and with lan_mode: "
                    "routed the VPS couldn't tell which of them it comes back by; give each class a VLAN of its own, "
                    "or set lan_mode: nat"
                )
                yield Problem(site.host, lan.path, message)
                break
