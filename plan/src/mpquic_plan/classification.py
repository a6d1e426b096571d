"""How the packet filter of a client finds the class of what comes from its LANs, free of any rule syntax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mpquic_plan import classes
from mpquic_plan.assignments import all_assignments

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic_plan.model import MatchRule, Site, TrafficClass

_FAMILIES: Final = ((4, "ip"), (6, "ip6"))


def slice_of(site: Site) -> dict[str, Any] | None:
    """Return what marks connections and packets by class; None where no LAN asks for it.

    Each class has a `mark`, of which only the bits of `mask` are ours. `rules` are tried in their order, those with
    `dscps` on `trusting` devices alone.
    """
    lans = sorted((lan for lan in site.lans if lan.enabled and lan.classified), key=lambda lan: lan.device)
    if not lans or site.catch_all is None:
        return None
    entries = sorted(site.classes, key=lambda entry: entry.slot)
    return {
        "mask": classes.MARK_MASK,
        "devices": [lan.device for lan in lans],
        "trusting": [lan.device for lan in lans if lan.trust_dscp],
        "classes": [{"name": entry.name, "slot": entry.slot, "mark": classes.mark(entry)} for entry in entries],
        "rules": [*_rules(site), *_trusted(site)],
        "catch_all": site.catch_all.slot,
        "tuns": [
            {"device": tunnel.name, "slot": entry.slot}
            for tunnel in sorted(site.tunnels, key=lambda tunnel: tunnel.name)
            if tunnel.of_class and (entry := site.class_named(tunnel.traffic_class)) is not None
        ],
    }


def accounts(site: Site) -> list[dict[str, str]]:
    """Return the pairs of a LAN and what carries it, each with the name under which their packets are counted."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for each in all_assignments(site):
        carriers = [tunnel.name for tunnel in each.tunnels]
        carriers += [each.fallback_wan.device] if each.fallback_wan is not None else []
        for carrier in carriers:
            name = f"{each.lan.name}/{carrier}"
            found.setdefault((each.lan.device, carrier), {"name": name, "lan": each.lan.device, "carrier": carrier})
    return [found[key] for key in sorted(found)]


def _rules(site: Site) -> Iterator[dict[str, Any]]:
    for entry in site.classes:
        for rule in entry.rules:
            yield from _normal(rule, entry)


def _trusted(site: Site) -> Iterator[dict[str, Any]]:
    """What no rule takes and has the DSCP of a class belongs to it."""
    for entry in site.classes:
        for _, family in _FAMILIES if entry.dscp else ():
            yield _form(entry, family=family, dscps=[entry.dscp])


def _normal(rule: MatchRule, entry: TrafficClass) -> Iterator[dict[str, Any]]:
    """Give a rule once for both families, or once for each family that its prefixes or DSCPs are looked for in."""
    ports = {"ports": _texts(rule.ports), "source_ports": _texts(rule.source_ports)}
    protocols = list(rule.protocols)
    if not rule.sources and not rule.destinations and not rule.dscps:
        yield _form(entry, protocols=protocols, **ports)
        return
    for version, family in _FAMILIES:
        sources, destinations = (
            [str(prefix) for prefix in prefixes if prefix.version == version]
            for prefixes in (rule.sources, rule.destinations)
        )
        if bool(sources) == bool(rule.sources) and bool(destinations) == bool(rule.destinations):
            yield _form(
                entry,
                family=family,
                protocols=protocols,
                sources=sources,
                destinations=destinations,
                dscps=list(rule.dscps),
                **ports,
            )


def _form(entry: TrafficClass, **values: Any) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "family": None,
        "protocols": [],
        "ports": [],
        "source_ports": [],
        "sources": [],
        "destinations": [],
        "dscps": [],
    }
    return {"slot": entry.slot, **empty, **values}


def _texts(ranges: tuple[tuple[int, int], ...]) -> list[str]:
    return [str(low) if low == high else f"{low}-{high}" for low, high in ranges]
