"""The instances of a site's client: what a tunnel process needs to know, and the sizes of its tunnel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mpquic_plan import addressing, hosts, sizes
from mpquic_plan.assignments import all_assignments

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mpquic_plan.model import Listener, Network, Site, Tunnel, TunnelPath, Vps, Wan


def tunnel_sizes(tunnel: Tunnel, wans: Mapping[str, Wan]) -> sizes.Sizes:
    """Return the sizes of a tunnel: what every one of its paths carries. `wans` has its WANs by name."""
    striped = tunnel.striped_paths
    found = [
        sizes.sizes(
            wans[path.wan].mtu,
            path.outer,
            "stripe" if path in striped else "quic",
            tunnel.transport_mode,
            tunnel.tun_mtu,
        )
        for path in tunnel.paths
    ]
    return sizes.Sizes(
        max_datagram_size=min(each.max_datagram_size for each in found),
        tun_mtu=min(each.tun_mtu for each in found),
        mss4=min(each.mss4 for each in found),
        mss6=min(each.mss6 for each in found),
    )


def routed_prefixes(site: Site, tunnel: Tunnel, *, as_fallback: bool = False) -> list[Network]:
    """Return the prefixes of LANs that a tunnel carries, those that it carries `as_fallback` only if that is asked.

    There are none where the site masquerades. A LAN keeps its way back while it is out of service.
    """
    if site.lan_mode != "routed":
        return []
    prefixes = {
        prefix
        for assigned in all_assignments(site, idle=True)
        if tunnel is assigned.tunnel or (as_fallback and tunnel is assigned.fallback_tunnel)
        for prefix in (*assigned.lan.networks, *assigned.lan.behind)
    }
    return sorted(prefixes, key=lambda prefix: (prefix.version, int(prefix.network_address), prefix.prefixlen))


def inner_prefixes(site: Site, tunnel: Tunnel, listener: Listener) -> list[str]:
    """Return every prefix that a tunnel may carry as source: its own addresses and what is routed into it."""
    own = addressing.client_address(listener, site.site_id, tunnel.slot).host_routes
    return own + [str(prefix) for prefix in routed_prefixes(site, tunnel, as_fallback=True)]


def client_config(tunnel: Tunnel, site: Site, vps: Vps, wans: Mapping[str, Wan], listener: Listener) -> dict[str, Any]:
    """Return the configuration of the instance of a tunnel; `wans` are those of the site by name."""
    derived = tunnel_sizes(tunnel, wans)
    striped = any(path.transport == "stripe" for path in tunnel.paths)
    return {
        "name": tunnel.name,
        "role": "client",
        "tunnel": tunnel.name,
        # What is in service has no such line: its file is the same as before.
        **({} if site.serves(tunnel) else {"enabled": False}),
        "tun_name": tunnel.name,
        "tun_mtu": derived.tun_mtu,
        "inner_addresses": inner_prefixes(site, tunnel, listener),
        **_wans(tunnel, vps, wans, listener),
        **class_config(site, tunnel),
        "transport": tunnel.transport,
        **(_striping(tunnel, listener) if striped else {}),
        "transport_mode": tunnel.transport_mode,
        "congestion_algorithm": tunnel.congestion_algorithm,
        "max_datagram_size": derived.max_datagram_size,
        "udp_gso": _udp_gso(tunnel, wans),
        "tls": hosts.client_tls(site, vps),
        "probe_interval_ms": tunnel.probe_interval_ms,
        "down_after_ms": tunnel.down_after_ms,
        "reconnect_max_s": tunnel.reconnect_max_s,
        "log_level": site.log_level,
    }


def _wans(tunnel: Tunnel, vps: Vps, wans: Mapping[str, Wan], listener: Listener) -> dict[str, Any]:
    """By which WAN a tunnel goes, or by which ones: each path is named by its WAN, at both ends."""
    if tunnel.multipath_policy is None:
        (only,) = tunnel.paths
        return {**_ends(only, vps, wans, listener), "wan": only.wan}
    return {
        "multipath_enabled": True,
        "multipath_policy": tunnel.multipath_policy,
        "multipath_paths": [
            {
                "name": path.wan,
                **_ends(path, vps, wans, listener),
                # Always stated: without it the daemon takes the tunnel's, which is about classes that share a WAN.
                "priority": path.priority,
                "weight": path.weight,
                **({} if path.pipes is None else {"pipes": path.pipes}),
                **({"transport": path.transport} if path.own_transport else {}),
            }
            for path in tunnel.paths
        ],
    }


def _ends(path: TunnelPath, vps: Vps, wans: Mapping[str, Wan], listener: Listener) -> dict[str, Any]:
    return {
        "bind_ip": f"iface:{wans[path.wan].device}",
        "remote_addr": str(vps.address6 if path.outer == "ipv6" else vps.address),
        "remote_port": listener.port,
    }


def _udp_gso(tunnel: Tunnel, wans: Mapping[str, Wan]) -> str:
    """Return what holds for all cards of a tunnel: where one corrupts offloads, none is asked for them."""
    stated = {wans[path.wan].udp_gso for path in tunnel.paths}
    return next(word for word in ("off", "auto", "on") if word in stated)


def class_config(site: Site, tunnel: Tunnel) -> dict[str, Any]:
    """Return what both ends of a tunnel need to know of its class, by number."""
    entry = site.class_named(tunnel.traffic_class)
    if entry is None:
        return {"traffic_class": 0}
    config: dict[str, Any] = {
        "traffic_class": entry.slot,
        "class_name": entry.name,
        "weight": entry.wan_weight,
        "priority": entry.wan_priority,
        "dscp": entry.dscp,
        "low_latency": entry.low_latency,
    }
    return config if entry.max_rate is None else {**config, "max_rate": entry.max_rate}


def _striping(tunnel: Tunnel, listener: Listener) -> dict[str, Any]:
    striping = tunnel.striping
    return {
        "stripe_enabled": striping.enabled,
        "stripe_port": listener.stripe_port,
        "pipes": striping.pipes,
        "stripe_data_shards": striping.data_shards,
        "stripe_parity_shards": striping.parity_shards,
        "stripe_fec": striping.fec,
        "stripe_fec_max_overhead": striping.fec_max_overhead,
    }
