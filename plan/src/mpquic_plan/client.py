"""The slice of a site's client: interfaces, routes, rules, instances."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any

from mpquic_plan import addressing, classes, dhcp, firewall, hosts, netdevs, tables
from mpquic_plan.assignments import all_assignments, assignments
from mpquic_plan.client_instances import client_config, tunnel_sizes
from mpquic_plan.link_files import link_file
from mpquic_plan.routes import DEFAULT_ROUTES, last_routes, route, rule
from mpquic_plan.wans import wan_slice

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mpquic_plan.assignments import Assignment
    from mpquic_plan.model import Lan, Listener, Management, Network, Site, Tunnel, Vps, Wan


def client_slice(site: Site, vps: Vps) -> dict[str, Any]:
    """Return everything that the roles render on the client of a site whose variables are sound."""
    wans = {wan.name: wan for wan in site.wans}
    listeners = {listener.name: listener for listener in vps.listeners}
    tunnels = sorted(site.tunnels, key=lambda tunnel: tunnel.name)
    lans = sorted(site.lans, key=lambda lan: (lan.number, lan.vlan_id or 0))
    egress = egress_name(site)
    return {
        "role": "client",
        "vps": vps.host,
        "management": [
            _management(item, site, egress) for item in sorted(site.management, key=lambda item: item.number)
        ],
        "trunks": _trunks(site),
        "matches": _matches(site),
        "resolvers": _resolvers(site, egress),
        "wans": [wan_slice(wan, site, egress) for wan in sorted(site.wans, key=lambda wan: wan.number)],
        "lans": [_lan(lan, site) for lan in lans],
        "tuns": [_tun(tunnel, site, wans, listeners[tunnel.listener]) for tunnel in tunnels],
        "instances": [
            {
                "name": tunnel.name,
                "enabled": site.serves(tunnel),
                "config": client_config(tunnel, site, vps, wans, listeners[tunnel.listener]),
            }
            for tunnel in tunnels
        ],
        "firewall": firewall.client(site, {tunnel.name: tunnel_sizes(tunnel, wans) for tunnel in tunnels}),
        "routing_tables": _table_names(site),
        "ntp": list(site.ntp),
        "sysctl": hosts.sysctl(),
        "sysctl_minimums": hosts.sysctl_minimums(),
        "forwarding": hosts.forwarding(),
        "ranges": hosts.ranges(),
        "pki": hosts.client_pki(site, vps),
    }


def egress_name(site: Site) -> str | None:
    """Return the name of the interface by which the client's own traffic leaves, or None if there is no way out."""
    if site.egress is not None:
        return site.egress
    ways = [item for item in site.management if item.address is None or item.gateway is not None]
    return min(ways, key=lambda item: item.number).name if ways else None


def _resolvers(site: Site, egress: str | None) -> list[str]:
    """Return the DNS servers of the management interfaces, those of the egress first, each once."""
    items = sorted(site.management, key=lambda item: (item.name != egress, item.number))
    return list(dict.fromkeys(server for item in items for server in item.dns))


def vlans_on(site: Site, device: str) -> list[str]:
    """Return the VLAN interfaces on a device, by their ids."""
    vlans = [(item.vlan_id, item.device) for item in site.vlans if item.parent == device]
    return [name for _, name in sorted(vlans, key=lambda vlan: (vlan[0] or 0, vlan[1]))]


def _trunks(site: Site) -> list[dict[str, Any]]:
    """Devices that only carry VLANs: parents of management interfaces and WANs that are nothing else."""
    links = {item.device for item in (*site.local_links, *site.wans)}
    parents = {item.parent for item in site.tagged if item.parent is not None}
    return [
        {
            "name": device,
            "device": device,
            "file": link_file("management", device),
            "vlan_devices": vlans_on(site, device),
        }
        for device in sorted(parents - links)
    ]


def _matches(site: Site) -> list[dict[str, Any]]:
    """Cards that are known by their MAC addresses: what `matching.resolve` needs, and the file that pins the name."""
    return [
        {
            "mac": match.mac,
            "kind": match.kind,
            "name": match.name,
            "device": match.device,
            "file": link_file(match.kind, match.name),
            "host": site.host,
            "path": match.path,
        }
        for match in site.cards
    ]


def _management(item: Management, site: Site, egress: str | None) -> dict[str, Any]:
    """A management interface; replies from its address take its gateway whatever the main table says."""
    routes: list[dict[str, Any]] = []
    rules: list[dict[str, Any]] = []
    if item.address is not None and item.gateway is not None:
        table = tables.management_table(item)
        gateway = str(item.gateway)
        subnet = str(item.address.network)
        routes += [
            route(subnet, table=table),
            route(DEFAULT_ROUTES[0], gateway=gateway, table=table),
        ]
        if egress == item.name:
            routes.append(route(DEFAULT_ROUTES[0], gateway=gateway, metric=tables.DEFAULT_METRIC))
        rules.append(
            rule(tables.management_priority(item), table, source=f"{item.address.ip}/32", family="ipv4"),
        )
    return {
        "name": item.name,
        "device": item.device,
        "file": link_file("management" if item.vlan_id is None else "vlan", item.device),
        "netdev": netdevs.vlan(item.vlan_id, item.parent),
        "vlan_devices": vlans_on(site, item.device),
        "dhcp": item.address is None,
        "addresses": [str(address) for address in (item.address, item.address6) if address is not None],
        "dns": list(item.dns),
        "egress": egress == item.name,
        "routes": routes,
        "rules": rules,
    }


def router_of(lan: Lan, version: int) -> str | None:
    """Return the site's router on a LAN: the stated one, or the first address of the subnet that isn't the client's."""
    if version == 4:
        if lan.router is not None:
            return str(lan.router)
        others = (address for address in lan.address.network.hosts() if address != lan.address.ip)
        first = next(others, None)
        return None if first is None else str(first)
    if lan.router6 is not None:
        return str(lan.router6)
    if lan.address6 is None:
        return None
    network = lan.address6.network
    # ::0 is the anycast address of routers (RFC 4291, section 2.6.1).
    others6 = (network.network_address + place for place in (1, 2) if place < network.num_addresses)
    return next((str(address) for address in others6 if address != lan.address6.ip), None)


def _lan_rules(lan: Lan, site: Site) -> list[dict[str, Any]]:
    """The rules by which what comes from a LAN finds its tunnel, then its fallback, then the end of its own table."""
    table = tables.lan_table(lan)
    rules: list[dict[str, Any]] = []
    for assigned in assignments(site, lan):
        entry = assigned.traffic_class
        mark = classes.mark(entry) if entry is not None and assigned.marked else None
        if entry is None or assigned.tunnel is None:
            rules.append(rule(tables.lan_priority(lan), table, incoming=lan.device))
        else:
            priority = tables.CLASS_PRIORITY if assigned.marked else tables.lan_priority(lan)
            rules.append(rule(priority, tunnel_table(site, assigned.tunnel), incoming=lan.device, mark=mark))
            if assigned.fallback_tunnel is not None or not assigned.marked:
                fallback = _fallback_table(assigned)
                rules.append(rule(tables.TUNNEL_FALLBACK_PRIORITY, fallback, incoming=lan.device, mark=mark))
        if assigned.fallback_wan is not None:
            # Without an end of its own the LAN's table falls through to the WAN's, which ends in a blackhole.
            wan_table = tables.wan_table(assigned.fallback_wan)
            rules.append(rule(tables.WAN_FALLBACK_PRIORITY, wan_table, incoming=lan.device, mark=mark))
    if not lan.enabled:
        rules.append(rule(tables.lan_priority(lan), table, incoming=lan.device))
    elif lan.classified:
        rules.append(rule(tables.FLOOR_PRIORITY, table, incoming=lan.device))
    return rules


def tunnel_table(site: Site, tunnel: Tunnel) -> int:
    """Return the table of a class tunnel, which all that its class carries on its WAN is looked up in."""
    wan = next(wan for wan in site.wans if wan.name in tunnel.wans)
    entry = site.class_named(tunnel.traffic_class)
    if entry is None:
        raise ValueError(f"{tunnel.name} is no class tunnel")
    return tables.class_table(wan, entry)


def _modem_ends(site: Site, table: int) -> list[dict[str, Any]]:
    """Routes by which a modem's page isn't asked for by a tunnel while no WAN leads to it."""
    modems = sorted({prefix for wan in site.wans for prefix in wan.modem_prefixes})
    return [route(str(prefix), kind="unreachable", table=table, metric=tables.LAST_METRIC) for prefix in modems]


def _lan(lan: Lan, site: Site) -> dict[str, Any]:
    """A LAN. What is out of service keeps its address and the way back to who is behind it, and leads nowhere else."""
    table = tables.lan_table(lan)
    routes = [route(str(prefix), gateway=router_of(lan, prefix.version)) for prefix in lan.behind]
    used = assignments(site, lan)
    if lan.enabled and not lan.classified:
        routes += _modem_ends(site, table)
    if lan.classified or all(assigned.fallback_wan is None for assigned in used):
        routes += last_routes("unreachable", table)
    return {
        "name": lan.name,
        "device": lan.device,
        "enabled": lan.enabled,
        "file": link_file("lan" if lan.vlan_id is None else "vlan", lan.device),
        "netdev": netdevs.vlan(lan.vlan_id, lan.parent, lan.pcp),
        "vlan_devices": vlans_on(site, lan.device),
        "addresses": [str(address) for address in (lan.address, lan.address6) if address is not None],
        "dhcp_server": dhcp.server_slice(lan, router_of(lan, 4)),
        "table": table,
        "rules": _lan_rules(lan, site),
        "routes": routes,
    }


def _fallback_table(assigned: Assignment) -> int:
    """The table that is looked up when the tunnel of what is assigned is down: of the LAN, or of one of its classes."""
    if assigned.marked and assigned.traffic_class is not None:
        return tables.fallback_table(assigned.lan, assigned.traffic_class)
    return tables.lan_table(assigned.lan)


def _tun(tunnel: Tunnel, site: Site, wans: Mapping[str, Wan], listener: Listener) -> dict[str, Any]:
    """A TUN: the far end is reached by the main table, so that the client answers what comes from it."""
    own = addressing.client_address(listener, site.site_id, tunnel.slot)
    far = addressing.server_address(listener)
    # Class tunnels of a WAN have the same far end: each its own metric, so that each has its own route there.
    metric = tables.DEFAULT_METRIC + tunnel.slot if tunnel.of_class else None
    routes = [route(destination, metric=metric) for destination in far.host_routes]
    rules: list[dict[str, Any]] = []
    # A tunnel that is out of service leaves its routes as one that is down does: without carrier they don't count.
    places: list[tuple[int, int]] = []
    if tunnel.of_class:
        table = tunnel_table(site, tunnel)
        places.append((table, tables.DEFAULT_METRIC))
        # What the client itself sends from the inner address goes by this tunnel: the VPS takes it from no other.
        rules += [
            rule(tables.INNER_PRIORITY, table, source=address, family=family)
            for address, family in zip(own.host_routes, ("ipv4", "ipv6"), strict=True)
        ]
        routes += _modem_ends(site, table)
    for assigned in all_assignments(site):
        if assigned.traffic_class is None and assigned.tunnel is tunnel:
            places.append((tables.lan_table(assigned.lan), tables.DEFAULT_METRIC))
        if assigned.fallback_tunnel is tunnel:
            places.append((_fallback_table(assigned), tables.FALLBACK_METRIC))
    routes += [
        route(destination, table=number, metric=metric) for number, metric in places for destination in DEFAULT_ROUTES
    ]
    return {
        "name": tunnel.name,
        "file": link_file("tun", tunnel.name),
        "netdev": netdevs.tun(),
        "mtu": tunnel_sizes(tunnel, wans).tun_mtu,
        "addresses": own.host_routes,
        "rules": rules,
        "routes": routes,
    }


def _table_names(site: Site) -> list[dict[str, Any]]:
    """Names of the routing tables for /etc/iproute2/rt_tables.d."""
    named = [(tables.wan_table(wan), wan.name) for wan in site.wans]
    named += [
        (tables.management_table(item), item.name)
        for item in site.management
        if item.address is not None and item.gateway is not None
    ]
    named += [(tables.lan_table(lan), lan.name) for lan in site.lans]
    named += [(tunnel_table(site, tunnel), tunnel.name) for tunnel in site.tunnels if tunnel.of_class]
    named += [
        (tables.fallback_table(each.lan, each.traffic_class), f"{each.lan.name}-{each.traffic_class.name}")
        for each in all_assignments(site)
        if each.marked and each.traffic_class is not None and each.fallback_tunnel is not None
    ]
    return [{"id": number, "name": name} for number, name in sorted(named)]


def is_private(prefix: Network) -> bool:
    """Return whether the Internet doesn't route a prefix, so that the VPS must masquerade it (RFC 1918, 6598, 4193)."""
    if isinstance(prefix, IPv4Network):
        return any(prefix.subnet_of(IPv4Network(text)) for text in PRIVATE4)
    return int(prefix.network_address) >> 121 == 0xFC >> 1


PRIVATE4 = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")
