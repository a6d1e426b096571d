"""Names that refer to something else resolve, to something that can do what is asked of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mpquic_plan.assignments import assignments, fallback_name
from mpquic_plan.client import egress_name
from mpquic_plan.firewall import ZONES, families, zone_devices
from mpquic_plan.problem import Problem, unknown
from mpquic_plan.reference import BLOCK

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic_plan.model import Fleet, Site, TunnelPath, Vps


def _names(holder: Site | Vps, collection: str) -> set[str]:
    return {item.name for item in getattr(holder, collection)}


def _resolves(holder: Site | Vps, collection: str, name: str) -> bool:
    """Whether a name is one of a list, or may be: an item with an error elsewhere in it is no missing item."""
    broken = holder.broken.get(collection, frozenset())
    return name in _names(holder, collection) or name in broken or "*" in broken


def vps_exists(fleet: Fleet) -> Iterator[Problem]:
    """Each site has a VPS."""
    for site in fleet.sites.values():
        if site.vps is not None:
            if site.vps not in fleet.vpses and site.vps not in fleet.unreadable:
                yield Problem(site.host, "site.vps", unknown("host with 'vps'", site.vps, fleet.vpses))
        elif len(fleet.vpses) > 1:
            names = ", ".join(sorted(fleet.vpses))
            yield Problem(site.host, "site.vps", f"is missing; with several VPSes it must be stated: {names}")
        elif not fleet.vpses and not fleet.unreadable:
            yield Problem(site.host, "site.vps", "no host of the inventory has 'vps'")


def tunnels_use_known_wans(fleet: Fleet) -> Iterator[Problem]:
    """Each tunnel uses WANs of its site."""
    for site in fleet.sites.values():
        for path in (path for tunnel in site.tunnels for path in tunnel.paths):
            if not _resolves(site, "wans", path.wan):
                yield Problem(site.host, path.place("wan"), unknown("WAN", path.wan, _names(site, "wans")))


def paths_use_different_wans(fleet: Fleet) -> Iterator[Problem]:
    """No two paths of a tunnel use the same WAN: they would fail together."""
    for site in fleet.sites.values():
        for tunnel in site.tunnels:
            # In the order in which they are stated, which isn't that of the model.
            first: dict[str, TunnelPath] = {}
            for path in sorted(tunnel.paths, key=lambda path: path.path):
                other = first.setdefault(path.wan, path)
                if other is not path:
                    message = f"{path.wan} carries {tunnel.name} already ({other.path}); name another WAN"
                    yield Problem(site.host, path.place("wan"), message)


def tunnels_use_known_listeners(fleet: Fleet) -> Iterator[Problem]:
    """Each tunnel connects to a listener of its VPS."""
    for site in fleet.sites.values():
        vps = fleet.vps_of(site)
        for tunnel in site.tunnels if vps else ():
            if vps and not _resolves(vps, "listeners", tunnel.listener):
                message = unknown(f"listener of {vps.host}", tunnel.listener, _names(vps, "listeners"))
                if tunnel.of_class and "listener" in tunnel.places:
                    message = (
                        f"its class tunnels need the listener {tunnel.listener}, which {vps.host} doesn't have; add "
                        f"{{name: {tunnel.listener}}} to its vps.listeners"
                    )
                yield Problem(site.host, tunnel.place("listener"), message)


def outer_ipv6_exists(fleet: Fleet) -> Iterator[Problem]:
    """A tunnel over IPv6 has IPv6 at both ends, and a WAN with fixed addresses has one to take it from."""
    for site in fleet.sites.values():
        vps = fleet.vps_of(site)
        wans = {wan.name: wan for wan in site.wans}
        for path in (path for tunnel in site.tunnels for path in tunnel.paths):
            if path.outer != "ipv6":
                continue
            wan = wans.get(path.wan)
            if wan is not None and not (wan.ipv6 or (wan.static and wan.static.address6)):
                yield Problem(
                    site.host,
                    path.place("outer"),
                    f"{wan.name} has no IPv6; set ipv6: true in {wan.path}, or outer: ipv4",
                )
            if vps is not None and vps.address6 is None:
                yield Problem(
                    site.host,
                    path.place("outer"),
                    f"{vps.host} has no address6; state one in its vps, or outer: ipv4",
                )


def lans_use_known_tunnels(fleet: Fleet) -> Iterator[Problem]:
    """Each LAN and VLAN uses a tunnel of its site, or none."""
    for site in fleet.sites.values():
        for lan in site.lans:
            if lan.tunnel is not None and not _resolves(site, "tunnels", lan.tunnel):
                message = unknown("tunnel", lan.tunnel, {*_names(site, "tunnels"), "none"})
                yield Problem(site.host, f"{lan.path}.tunnel", message)


def fallbacks_are_known(fleet: Fleet) -> Iterator[Problem]:
    """Each fallback is another tunnel or a WAN of the site, or lets nothing out."""
    for site in fleet.sites.values():
        valid = {*_names(site, "tunnels"), *_names(site, "wans"), BLOCK}
        stated = [(lan.path, lan.fallback) for lan in site.lans] + [(each.path, each.fallback) for each in site.classes]
        for path, name in stated:
            if name is None or name == BLOCK or _resolves(site, "wans", name) or _resolves(site, "tunnels", name):
                continue
            yield Problem(site.host, f"{path}.fallback", unknown("tunnel or WAN", name, valid))
        for lan in site.lans:
            for assigned in assignments(site, lan):
                name = fallback_name(lan, assigned.traffic_class)
                if assigned.tunnel is not None and assigned.tunnel.name == name:
                    path = lan.path if lan.fallback or assigned.traffic_class is None else assigned.traffic_class.path
                    message = f"{name} carries {lan.name} itself; name another tunnel, a WAN, or block"
                    yield Problem(site.host, f"{path}.fallback", message)


def egress_leads_out(fleet: Fleet) -> Iterator[Problem]:
    """The client's own traffic leaves by an interface that has a way out."""
    for site in fleet.sites.values():
        if site.egress is None:
            continue
        if not _resolves(site, "wans", site.egress) and not _resolves(site, "management", site.egress):
            names = _names(site, "wans") | _names(site, "management")
            yield Problem(site.host, "site.egress", unknown("management interface or WAN", site.egress, names))
        for wan in site.wans:
            if wan.name == site.egress and not wan.enabled:
                yield Problem(
                    site.host,
                    "site.egress",
                    f"{wan.name} is out of service (enabled: false in {wan.path}), so the client's own traffic would "
                    "have no way out; name another interface for as long, or leave site.egress out where management "
                    "has a gateway",
                )
        for item in site.management:
            if item.name == site.egress and item.address is not None and item.gateway is None:
                yield Problem(site.host, "site.egress", f"{item.name} leads nowhere; state a gateway in {item.path}")


def management_by_dhcp_is_the_egress(fleet: Fleet) -> Iterator[Problem]:
    """No management interface has a gateway that nothing uses.

    The gateway of DHCP is only used by the egress; replies to whoever is beyond it would leave by another interface.
    """
    for site in fleet.sites.values():
        egress = egress_name(site)
        if egress not in _names(site, "wans") | _names(site, "management"):
            continue
        for item in site.management:
            if item.address is None and item.name != egress:
                yield Problem(
                    site.host,
                    f"{item.path}.address",
                    f"the egress is {egress}, so the gateway that DHCP gives {item.name} would not be used and nobody "
                    f"beyond it could log in; state address and gateway, or egress: {item.name}",
                )


def zones_are_known(fleet: Fleet) -> Iterator[Problem]:
    """Firewall openings name zones or interfaces of the site."""
    for site in fleet.sites.values():
        if any(site.broken.get(collection) for collection in ("management", "lans", "tunnels")):
            continue
        names = set(ZONES) | _names(site, "management") | _names(site, "lans") | _names(site, "tunnels")
        asked = [("site.firewall.ssh_from", site.ssh_from)]
        asked += [(f"{opening.path}.from", opening.sources) for opening in site.openings]
        for path, zones in asked:
            for zone in zones:
                if zone not in ZONES and not zone_devices(site, zone):
                    yield Problem(site.host, path, unknown("zone or interface", zone, names))


def somebody_may_log_in(fleet: Fleet) -> Iterator[Problem]:
    """Each client accepts ssh from somewhere, or nobody could ever come in again."""
    for site in fleet.sites.values():
        if any(site.broken.get(collection) for collection in ("management", "lans", "tunnels")):
            continue
        # A name that doesn't resolve is told of by `zones_are_known`.
        if all(zone in ZONES and not zone_devices(site, zone) for zone in site.ssh_from):
            asked = f"{', '.join(site.ssh_from)} has no interface here" if site.ssh_from else "it is empty"
            yield Problem(
                site.host,
                "site.firewall.ssh_from",
                f"{asked}, so nobody could log in after the run; state a management interface (site.management), or "
                "name a LAN or tunnel that ssh comes in by",
            )
            continue
        idle = {tunnel.name for tunnel in site.tunnels if not site.serves(tunnel)}
        devices = {device for zone in site.ssh_from for device in zone_devices(site, zone)}
        if devices and devices <= idle:
            yield Problem(
                site.host,
                "site.firewall.ssh_from",
                f"only by {', '.join(sorted(devices))}, which is out of service (enabled: false), so nobody could log "
                "in after the run; state a management interface, or name a LAN or another tunnel that ssh comes in by",
            )


def forward_openings_let_something_pass(fleet: Fleet) -> Iterator[Problem]:
    """What is forwarded besides the tunnels has two ends, ports of a protocol, and prefixes of one family."""
    owned = [(site.host, site.forward_openings) for site in fleet.sites.values()]
    owned += [(vps.host, vps.forward_openings) for vps in fleet.vpses.values()]
    for host, openings in owned:
        for opening in openings:
            if opening.ports and opening.protocol is None:
                yield Problem(host, f"{opening.path}.ports", "ports are of a protocol; state protocol: tcp or udp, too")
            if not families(opening):
                message = "sources and destinations are of different families, so that nothing would pass"
                yield Problem(host, f"{opening.path}.destinations", message)
    for site in fleet.sites.values():
        for opening in site.forward_openings:
            for key, word in (("from", opening.source), ("to", opening.target)):
                if word == "public":
                    message = "'public' is a word for a VPS; name an interface, a WAN, management, lan or tunnel"
                    yield Problem(site.host, f"{opening.path}.{key}", message)
    for vps in fleet.vpses.values():
        for opening in vps.forward_openings:
            for key, word in (("from", opening.source), ("to", opening.target)):
                if word in ("management", "lan"):
                    message = f"'{word}' is a word for a site; name an interface, public or tunnel"
                    yield Problem(vps.host, f"{opening.path}.{key}", message)


def liveness_has_room(fleet: Fleet) -> Iterator[Problem]:
    """One lost probe takes no tunnel down."""
    for site in fleet.sites.values():
        for tunnel in site.tunnels:
            if tunnel.down_after_ms < 2 * tunnel.probe_interval_ms:
                yield Problem(
                    site.host,
                    tunnel.place("down_after_ms"),
                    f"{tunnel.down_after_ms} is less than two probe intervals of {tunnel.probe_interval_ms} ms",
                )
