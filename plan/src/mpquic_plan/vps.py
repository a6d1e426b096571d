"""The slice of a VPS: listeners with the peers of all its sites."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpquic_plan import addressing, classes, firewall, hosts, netdevs, sizes, tables
from mpquic_plan.client import is_private
from mpquic_plan.client_instances import class_config, inner_prefixes, routed_prefixes, tunnel_sizes
from mpquic_plan.link_files import link_file
from mpquic_plan.routes import route, rule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mpquic_plan.model import Listener, Network, Site, Tunnel, Vps

ETHERNET_MTU = 1500

Pair = tuple["Site", "Tunnel"]


def vps_slice(vps: Vps, sites: Sequence[Site]) -> dict[str, Any]:
    """Return everything that the roles render on a VPS; `sites` are all that use it."""
    listeners = sorted(vps.listeners, key=lambda listener: listener.name)
    pairs = {listener.name: tunnels_on(listener, sites) for listener in listeners}
    back = _ways_back(pairs)
    prefixes: list[Network] = []
    for listener in listeners:
        prefixes += [listener.subnet, listener.subnet6, *_routed(pairs[listener.name])]
    masquerade = [prefix for prefix in prefixes if is_private(prefix)]
    return {
        "role": "vps",
        "public": {"device": vps.device or "auto"},
        "tuns": [_tun(listener, pairs[listener.name], back.get(listener.name, [])) for listener in listeners],
        "instances": [
            {"name": listener.name, "enabled": True, "config": _config(listener, vps, pairs[listener.name])}
            for listener in listeners
        ],
        "firewall": firewall.server(
            vps,
            [
                {
                    "device": listener.tun,
                    "ipv4": listener.tun_mtu - sizes.TCP_IPV4_HEADERS,
                    "ipv6": listener.tun_mtu - sizes.TCP_IPV6_HEADERS,
                }
                for listener in listeners
            ],
            [str(prefix) for prefix in masquerade if prefix.version == 4],
            [str(prefix) for prefix in masquerade if prefix.version == 6],
            [str(prefix) for prefix in prefixes if not is_private(prefix)],
            [
                {"device": listener.tun, "port": listener.port, "mark": classes.listener_mark(listener)}
                for listener in listeners
                if listener.name in back
            ],
        ),
        "matches": [],
        "ntp": list(vps.ntp),
        "sysctl": hosts.sysctl(),
        "sysctl_minimums": hosts.sysctl_minimums(),
        "forwarding": hosts.forwarding(),
        "ranges": hosts.ranges(),
        "pki": hosts.server_pki(vps),
    }


def tunnels_on(listener: Listener, sites: Sequence[Site]) -> list[Pair]:
    """Return the tunnels that use a listener, by site number and slot."""
    pairs = [(site, tunnel) for site in sites for tunnel in site.tunnels if tunnel.listener == listener.name]
    return sorted(pairs, key=lambda pair: (pair[0].site_id, pair[1].slot))


def _routed(pairs: Sequence[Pair]) -> list[Network]:
    return [prefix for site, tunnel in pairs for prefix in routed_prefixes(site, tunnel)]


def _ways_back(pairs: Mapping[str, Sequence[Pair]]) -> dict[str, list[Network]]:
    """Return, by listener, the prefixes that may come by several: tunnels of a fallback are on another one.

    By the prefix alone the preferred tunnel would be found, whether it is up or not.
    """
    listeners: dict[Network, list[str]] = {}
    for name, tunnels in pairs.items():
        for prefix in dict.fromkeys(
            prefix for site, tunnel in tunnels for prefix in routed_prefixes(site, tunnel, as_fallback=True)
        ):
            listeners.setdefault(prefix, []).append(name)
    found: dict[str, list[Network]] = {}
    for prefix, names in listeners.items():
        for name in names if len(names) > 1 else ():
            found.setdefault(name, []).append(prefix)
    return found


def _tun(listener: Listener, pairs: Sequence[Pair], back: Sequence[Network]) -> dict[str, Any]:
    own, table = addressing.server_address(listener), tables.way_back_table(listener)
    destinations = [str(listener.subnet), str(listener.subnet6), *(str(prefix) for prefix in _routed(pairs))]
    return {
        "name": listener.tun,
        "file": link_file("tun", listener.tun),
        "netdev": netdevs.tun(),
        "mtu": listener.tun_mtu,
        "addresses": own.host_routes,
        "rules": [rule(tables.CLASS_PRIORITY, table, mark=classes.listener_mark(listener), mask=classes.LISTENER_MASK)]
        if back
        else [],
        "routes": [
            *(route(destination) for destination in destinations),
            *(route(str(prefix), table=table) for prefix in back),
        ],
    }


def _config(listener: Listener, vps: Vps, pairs: Sequence[Pair]) -> dict[str, Any]:
    """The instance of a listener. What both ends must agree on comes from the tunnels, which agree with each other."""
    first = pairs[0][1] if pairs else None
    largest = max(
        (tunnel_sizes(tunnel, {wan.name: wan for wan in site.wans}).max_datagram_size for site, tunnel in pairs),
        default=sizes.sizes(ETHERNET_MTU, "ipv4", "quic", "datagram").max_datagram_size,
    )
    return {
        "name": listener.name,
        "role": "server",
        "bind_ip": "0.0.0.0" if vps.address6 is None else "::",
        "bind_port": listener.port,
        "stripe_enabled": listener.stripe_port is not None,
        "stripe_port": listener.stripe_port,
        "tun_name": listener.tun,
        "tun_mtu": listener.tun_mtu,
        "congestion_algorithm": first.congestion_algorithm if first else "auto",
        "max_datagram_size": largest,
        "udp_gso": "auto",
        "tls": hosts.server_tls(vps),
        "peers": [
            {
                "identity": hosts.identity(site.name),
                "tunnel": tunnel.name,
                **({} if site.serves(tunnel) else {"enabled": False}),
                "allowed": inner_prefixes(site, tunnel, listener),
                **class_config(site, tunnel),
            }
            for site, tunnel in pairs
        ],
        "log_level": vps.log_level,
    }
