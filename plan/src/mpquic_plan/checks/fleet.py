"""What several hosts share: numbers, names, ports, prefixes."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from mpquic_plan import reference
from mpquic_plan.assignments import assignments
from mpquic_plan.checks.addresses import overlap
from mpquic_plan.problem import Problem
from mpquic_plan.vps import tunnels_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic_plan.model import Fleet, Lan, Network, Site

Routed = tuple["Site", "Lan", "Network"]


def sites_are_distinct(fleet: Fleet) -> Iterator[Problem]:
    """Site names are unique in the fleet, site numbers on a VPS, and no site has the name of a VPS's certificate."""
    names: dict[str, str] = {}
    for host, site in sorted(fleet.sites.items()):
        if site.name in names:
            yield Problem(host, "site.name", f"'{site.name}' is already the name of the site of {names[site.name]}")
        names.setdefault(site.name, host)
        if site.name in fleet.vpses:
            yield Problem(host, "site.name", f"'{site.name}' is already the name of a VPS; certificates go by it")
    for vps in fleet.vpses.values():
        numbers: dict[int, str] = {}
        for site in fleet.sites_of(vps):
            if site.site_id in numbers:
                message = f"{site.site_id} is already the number of the site of {numbers[site.site_id]} on {vps.host}"
                yield Problem(site.host, "site.site_id", message)
            numbers.setdefault(site.site_id, site.host)


def vpses_are_distinct(fleet: Fleet) -> Iterator[Problem]:
    """No two VPSes have the same public address."""
    for one, other in combinations(sorted(fleet.vpses.values(), key=lambda vps: vps.host), 2):
        if one.address == other.address:
            yield Problem(other.host, "vps.address", f"{other.address} is already the address of {one.host}")
        if one.address6 is not None and one.address6 == other.address6:
            yield Problem(other.host, "vps.address6", f"{other.address6} is already the address of {one.host}")


def udp_ports_are_unique(fleet: Fleet) -> Iterator[Problem]:
    """No port of a VPS serves two things: a listener, the striped tunnels of one, another UDP service that is open."""
    for vps in fleet.vpses.values():
        ports: dict[int, tuple[str, str]] = {}
        shared: set[str] = set()
        for listener in vps.listeners:
            path, name = ports.setdefault(listener.port, (listener.path, listener.name))
            if name != listener.name:
                shared.add(listener.path)
                yield Problem(
                    vps.host, f"{listener.path}.port", f"port {listener.port} is already used by {name} ({path})"
                )
        for listener in vps.listeners:
            port = listener.stripe_port
            # The default that follows from a port which was told of is no second error.
            if port is None or (listener.path in shared and port == reference.stripe_port(listener.port)):
                continue
            own = f"striped tunnels of {listener.name}"
            path, name = ports.setdefault(port, (listener.path, own))
            if name != own:
                yield Problem(
                    vps.host,
                    f"{listener.path}.stripe_port",
                    f"port {port} is already used by {name} ({path}); state another one",
                )
        for opening in vps.openings:
            for port in opening.ports if opening.protocol == "udp" else ():
                if port in ports:
                    path, name = ports[port]
                    yield Problem(vps.host, f"{opening.path}.ports", f"port {port} is already used by {name} ({path})")


def routed_prefixes_are_disjoint(fleet: Fleet) -> Iterator[Problem]:
    """Prefixes that a VPS routes back belong to one site."""
    for vps in fleet.vpses.values():
        routed = [
            (site, lan, prefix)
            for site in fleet.sites_of(vps)
            if site.lan_mode == "routed"
            for lan in site.lans
            if any(assigned.tunnels for assigned in assignments(site, lan, idle=True))
            for prefix in (*lan.networks, *lan.behind)
        ]
        # By address, larger ones first: what overlaps a prefix lies between it and its end. A fleet has thousands.
        routed.sort(key=lambda item: (item[2].version, int(item[2].network_address), item[2].prefixlen))
        for place, one in enumerate(routed):
            for index in range(place + 1, len(routed)):
                other = routed[index]
                if not overlap(one[2], other[2]):
                    break
                if one[0] is not other[0]:
                    yield _routed_twice(vps.host, *sorted((one, other), key=lambda item: item[0].site_id))


def _routed_twice(vps: str, first: Routed, second: Routed) -> Problem:
    site1, lan1, prefix1 = first
    site2, lan2, prefix2 = second
    return Problem(
        site2.host,
        lan2.path,
        f"{prefix2} overlaps {prefix1} of {lan1.name} of {site1.host}; "
        f"both are routed on {vps} (lan_mode: nat hides them)",
    )


def tunnels_of_a_listener_agree(fleet: Fleet) -> Iterator[Problem]:
    """What both ends must know alike is the same for all tunnels of a listener."""
    for vps in fleet.vpses.values():
        sites = fleet.sites_of(vps)
        for listener in vps.listeners:
            pairs = tunnels_on(listener, sites)
            for site, tunnel in pairs[1:]:
                first_site, first = pairs[0]
                if tunnel.congestion_algorithm != first.congestion_algorithm:
                    yield Problem(
                        site.host,
                        tunnel.place("congestion_algorithm"),
                        f"{tunnel.congestion_algorithm} differs from {first.congestion_algorithm} of {first.name} of "
                        f"{first_site.host}; tunnels of listener {listener.name} must agree",
                    )
