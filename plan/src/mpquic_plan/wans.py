"""The WANs of a site's client: all that such a link brings goes into a table of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from mpquic_plan import netdevs, tables
from mpquic_plan.assignments import assignments
from mpquic_plan.formats import DUID_TYPES
from mpquic_plan.link_files import link_file
from mpquic_plan.routes import DEFAULT_ROUTES, last_routes, route, rule

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from mpquic_plan.model import DhcpClient, Site, Wan

DHCP_GATEWAY: Final = "_dhcp4"
"""What systemd-networkd takes for the gateway that comes with a lease (systemd.network(5), Gateway=)."""


def wan_slice(wan: Wan, site: Site, egress: str | None) -> dict[str, Any]:
    """Return a WAN; `egress` is the name of the interface by which the client's own traffic leaves.

    The interface of one that is out of service is down: nobody has routes by it, and no lease is asked for.
    """
    table = tables.wan_table(wan)
    rules = [rule(tables.wan_priority(wan), table, outgoing=wan.device)]
    if egress == wan.name:
        # What the main table knows better than by a default route (management, LANs, tunnels' ends) keeps its way.
        rules += [
            rule(tables.EGRESS_MAIN_PRIORITY, tables.MAIN_TABLE, suppress_prefix_length=0),
            rule(tables.egress_priority(wan), table, incoming="lo"),
        ]
    return {
        "name": wan.name,
        "device": wan.device,
        "enabled": wan.enabled,
        "file": link_file("wan", wan.device),
        "netdev": netdevs.vlan(wan.vlan_id, wan.parent),
        "table": table,
        "ipv6": wan.ipv6 and wan.enabled,
        "dhcp": wan.static is None and wan.enabled,
        "mac": wan.mac,
        "dhcp_client": _dhcp_client(wan.dhcp),
        "addresses": _static_addresses(wan),
        "egress": egress == wan.name,
        "rules": rules,
        "routes": [*_static_routes(wan, table), *_modem_routes(wan, site), *last_routes("blackhole", table)],
    }


def _dhcp_client(dhcp: DhcpClient | None) -> dict[str, Any]:
    """What the link says of itself; a stated identifier is taken apart as systemd-networkd wants it (RFC 4361)."""
    client_id = dhcp.client_id if dhcp else "mac"
    parts = client_id.split(":")
    rfc4361 = parts[0] == "ff"
    return {
        "identifier": "duid" if rfc4361 or client_id == "duid" else "mac",
        "iaid": int("".join(parts[1:5]), 16) if rfc4361 else None,
        "duid_type": DUID_TYPES["".join(parts[5:7])] if rfc4361 else None,
        "duid_data": ":".join(parts[7:]) if rfc4361 else None,
        "vendor_class": dhcp.vendor_class if dhcp else None,
        "hostname": dhcp.hostname if dhcp else None,
    }


def _modem_routes(wan: Wan, site: Site) -> list[dict[str, Any]]:
    """Routes to the pages of a WAN's modem, in every table that somebody looks into who may see them.

    The LAN whose tunnel uses this WAN prefers its modem to another WAN's of the same address, and of several that its
    tunnel uses the one of the preferred path.
    """
    if not wan.enabled:
        return []
    gateway, on_link = None, False
    if wan.modem_by_gateway:
        gateway = DHCP_GATEWAY if wan.static is None else str(wan.static.gateway)
        on_link = wan.static is not None and wan.static.gateway_is_on_link
    # The main table is named, since a route by the gateway of DHCP would stand in the table of DHCP otherwise.
    places = [(tables.MAIN_TABLE, tables.modem_metric(wan)), (tables.wan_table(wan), tables.DEFAULT_METRIC)]
    for lan in sorted((lan for lan in site.lans if lan.enabled and not lan.classified), key=tables.lan_table):
        ranks = [
            assigned.tunnel.wans.index(wan.name)
            for assigned in assignments(site, lan)
            if assigned.tunnel is not None and wan.name in assigned.tunnel.wans
        ]
        metric = tables.DEFAULT_METRIC + min(ranks) if ranks else tables.modem_metric(wan)
        places.append((tables.lan_table(lan), metric))
    for carrier in site.wans:
        metric = tables.DEFAULT_METRIC if carrier is wan else tables.modem_metric(wan)
        places += [
            (tables.class_table(carrier, entry), metric)
            for entry in site.classes
            if site.class_tunnel(carrier.name, entry.name) is not None
        ]
    return [
        route(str(prefix), gateway=gateway, on_link=on_link, table=table, metric=metric)
        for prefix in wan.modem_prefixes
        for table, metric in places
    ]


def _static_addresses(wan: Wan) -> list[str]:
    if wan.static is None or not wan.enabled:
        return []
    return [str(address) for address in (wan.static.address, wan.static.address6) if address is not None]


def _static_routes(wan: Wan, table: int) -> list[dict[str, Any]]:
    """The routes of a WAN with fixed addresses; DHCP and router advertisements bring their own."""
    static = wan.static
    if static is None or not wan.enabled:
        return []
    metric = tables.DEFAULT_METRIC
    subnets = [address.network for address in (static.address, static.address6) if address is not None]
    # A subnet of one address has nobody else in it.
    routes = [route(str(net), table=table, metric=metric) for net in subnets if net.num_addresses > 1]
    gateways: list[tuple[str, IPv4Address | IPv6Address, bool]] = [
        (DEFAULT_ROUTES[0], static.gateway, static.gateway_is_on_link)
    ]
    if static.gateway6 is not None:
        gateways.append((DEFAULT_ROUTES[1], static.gateway6, static.gateway6_is_on_link))
    return routes + [
        route(destination, gateway=str(gateway), on_link=on_link, table=table, metric=metric)
        for destination, gateway, on_link in gateways
    ]
