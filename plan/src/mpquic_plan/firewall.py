"""What the packet filters of both hosts need to know, free of any rule syntax."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from mpquic_plan import classes, classification
from mpquic_plan.assignments import all_assignments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from mpquic_plan.model import ForwardOpening, Site, Vps
    from mpquic_plan.sizes import Sizes

ZONES = ("management", "lan", "tunnel")


def zone_devices(site: Site, zone: str) -> list[str]:
    """Return the interfaces of a zone, or those of the interface with that name; none if the name doesn't resolve."""
    by_zone = {
        "management": [item.device for item in site.management],
        "lan": [lan.device for lan in site.lans],
        "tunnel": [tunnel.name for tunnel in site.tunnels],
    }
    if zone in by_zone:
        return sorted(by_zone[zone])
    by_name = {item.name: item.device for item in site.management}
    by_name |= {lan.name: lan.device for lan in site.lans}
    by_name |= {tunnel.name: tunnel.name for tunnel in site.tunnels}
    return [by_name[zone]] if zone in by_name else []


def forward_devices(site: Site, word: str) -> list[str]:
    """Return the interfaces that an end of a forward opening means: a zone, an item of the site, or a device.

    Nothing is forwarded from or to a LAN that is out of service.
    """
    wans = {wan.name: wan.device for wan in site.wans}
    if word in wans:
        return [wans[word]]
    closed = {lan.device for lan in site.lans if not lan.enabled}
    devices = zone_devices(site, word) or ([] if word in ZONES else [word])
    return [device for device in devices if device not in closed]


def _vps_forward_devices(vps: Vps, word: str) -> list[str]:
    # `public` stays a word: where vps.device is auto, only the host knows which one it is.
    return sorted(listener.tun for listener in vps.listeners) if word == "tunnel" else [word]


def families(opening: ForwardOpening) -> list[tuple[str | None, list[str], list[str]]]:
    """Return (family, sources, destinations) of each rule that an opening needs; the family is None for both."""
    if not opening.sources and not opening.destinations:
        return [(None, [], [])]
    rules: list[tuple[str | None, list[str], list[str]]] = []
    for version, family in ((4, "ip"), (6, "ip6")):
        sources, destinations = (
            sorted(str(net) for net in prefixes if net.version == version)
            for prefixes in (opening.sources, opening.destinations)
        )
        if bool(opening.sources) == bool(sources) and bool(opening.destinations) == bool(destinations):
            rules.append((family, sources, destinations))
    return rules


def _forward_openings(openings: Iterable[ForwardOpening], devices: Callable[[str], list[str]]) -> list[dict[str, Any]]:
    return [
        {
            "from": source,
            "to": target,
            "family": family,
            "sources": sources,
            "destinations": destinations,
            "protocol": opening.protocol,
            "ports": sorted(opening.ports),
        }
        for opening in openings
        for source in devices(opening.source)
        for target in devices(opening.target)
        for family, sources, destinations in families(opening)
    ]


def _devices(site: Site, zones: Iterable[str]) -> list[str]:
    return sorted({device for zone in zones for device in zone_devices(site, zone)})


def client(site: Site, sizes_of: Mapping[str, Sizes]) -> dict[str, Any]:
    """Return the client's firewall: who may forward whither, what is masqueraded, clamped, opened."""
    tuns = sorted(sizes_of)
    used = list(all_assignments(site))
    carried = sorted({(each.lan.device, tunnel.name) for each in used for tunnel in each.tunnels})
    fallbacks = sorted({(each.lan.device, each.fallback_wan.device) for each in used if each.fallback_wan is not None})
    routed = site.lan_mode == "routed"
    served_lans = sorted(lan.device for lan in site.lans if lan.enabled)
    return {
        "wan_devices": sorted(wan.device for wan in site.wans),
        "ipv6_wan_devices": sorted(wan.device for wan in site.wans if wan.ipv6),
        "lan_devices": zone_devices(site, "lan"),
        "dhcp_server_devices": sorted(lan.device for lan in site.lans if lan.dhcp_server is not None),
        "tun_devices": tuns,
        "management_devices": zone_devices(site, "management"),
        # Whoever may open a connection through the client; answers come back by themselves.
        "forward": [{"from": source, "to": target} for source, target in carried + fallbacks]
        + ([{"from": target, "to": source} for source, target in carried] if routed else []),
        # Whoever may look at the modems' pages, and nothing else there.
        "modems": [
            {
                "device": wan.device,
                "prefixes": [str(prefix) for prefix in wan.modem_prefixes],
                "viewers": zone_devices(site, "management") + served_lans,
            }
            for wan in sorted(site.wans, key=lambda wan: wan.number)
            if wan.modem_prefixes and wan.enabled
        ],
        "classification": classification.slice_of(site),
        "accounts": classification.accounts(site),
        "masquerade_devices": sorted({*([] if routed else tuns), *(device for _, device in fallbacks)}),
        "mss": [{"device": name, "ipv4": sizes_of[name].mss4, "ipv6": sizes_of[name].mss6} for name in tuns],
        "ssh": {
            "ports": "auto" if site.ssh_ports is None else sorted(site.ssh_ports),
            "devices": _devices(site, site.ssh_from),
        },
        "openings": [
            {"devices": _devices(site, item.sources), "protocol": item.protocol, "ports": sorted(item.ports)}
            for item in site.openings
        ],
        "forward_openings": _forward_openings(site.forward_openings, partial(forward_devices, site)),
    }


def server(
    vps: Vps,
    mss: list[dict[str, Any]],
    masquerade4: list[str],
    masquerade6: list[str],
    routed: list[str],
    ways_back: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return the firewall of a VPS.

    `masquerade4` and `masquerade6` are the inner prefixes that need its address, `routed` those that the Internet
    routes to it, of either family. `ways_back` are listeners whose connections are marked, so that replies go back by
    the one by which they came.
    """
    return {
        "udp_ports": sorted(
            port for listener in vps.listeners for port in (listener.port, listener.stripe_port) if port is not None
        ),
        "tun_devices": sorted(listener.tun for listener in vps.listeners),
        "ways_back": {"mask": classes.LISTENER_MASK, "listeners": ways_back} if ways_back else None,
        "masquerade4": masquerade4,
        "masquerade6": masquerade6,
        "routed": routed,
        "mss": mss,
        "site_to_site": vps.site_to_site,
        "ssh": {"ports": "auto" if vps.ssh_ports is None else sorted(vps.ssh_ports)},
        "openings": [
            {"protocol": item.protocol, "ports": sorted(item.ports), "sources": sorted(item.sources)}
            for item in vps.openings
        ],
        "forward_openings": _forward_openings(vps.forward_openings, partial(_vps_forward_devices, vps)),
        "tunnel_services": [{"protocol": item.protocol, "ports": sorted(item.ports)} for item in vps.tunnel_services],
    }
