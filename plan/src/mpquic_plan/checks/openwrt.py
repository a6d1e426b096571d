"""A site's OpenWrt router: it is there once, and what its policies name leads to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mpquic_plan.matching import MAX_INTERFACE_NAME
from mpquic_plan.openwrt.uplinks import policy_uplinks, ports, uplinks
from mpquic_plan.problem import Problem, unknown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mpquic_plan.model import Fleet, Router, Site

MAX_INTERFACES: Final = 60
"""Interfaces that mwan3 tells apart by the bits of its mark, with its default mask 0x3F00."""


def _routers(fleet: Fleet) -> Iterator[tuple[Site, Router]]:
    """Give each site that has a router, unless errors elsewhere hide what leads to it."""
    for site in fleet.sites.values():
        hidden = any(site.broken.get(key) for key in ("classes", "lans", "tunnels", "wans", "ports", "policies"))
        tunnels = {None, *(tunnel.name for tunnel in site.tunnels)}
        hidden = hidden or any(lan.tunnel not in tunnels for lan in site.lans)
        if site.router is not None and not hidden:
            yield site, site.router


def routers_are_distinct(fleet: Fleet) -> Iterator[Problem]:
    """Each router belongs to one site, and is neither client nor VPS."""
    owners: dict[str, str] = {}
    for site in fleet.sites.values():
        if site.router is None:
            continue
        name = site.router.host
        if name in fleet.sites or name in fleet.vpses or name in fleet.unreadable:
            message = f"{name} has 'site' or 'vps' itself; name the router's own host of the group openwrt"
            yield Problem(site.host, f"{site.router.path}.host", message)
        owner = owners.setdefault(name, site.host)
        if owner != site.host:
            message = f"{name} is already the router of {owner}; each site has its own"
            yield Problem(site.host, f"{site.router.path}.host", message)


def router_ports_are_of_lans(fleet: Fleet) -> Iterator[Problem]:
    """Each port is that of one LAN of the site, and devices have names that the kernel takes."""
    for site, router in _routers(fleet):
        names = {lan.name for lan in site.lans if lan.vlan_id is None}
        lans: dict[str, str] = {}
        devices: dict[str, str] = {}
        for port in router.ports or ():
            if port.lan not in names:
                yield Problem(site.host, f"{port.path}.lan", unknown("LAN", port.lan, names))
            if lans.setdefault(port.lan, port.path) != port.path:
                message = f"{port.lan} has a port already ({lans[port.lan]}); a LAN is plugged in once"
                yield Problem(site.host, f"{port.path}.lan", message)
            if devices.setdefault(port.device, port.path) != port.path:
                message = f"{port.device} is already the port of another LAN ({devices[port.device]}.lan)"
                yield Problem(site.host, f"{port.path}.device", message)
        paths = {port.lan: port.path for port in router.ports or ()}
        for uplink in uplinks(site, router, None):
            if len(uplink.device) > MAX_INTERFACE_NAME:
                message = (
                    f"the router's interface for {uplink.lan.name} would be called '{uplink.device}', which has "
                    f"{len(uplink.device)} characters; an interface name has at most {MAX_INTERFACE_NAME}"
                )
                yield Problem(site.host, f"{paths[f'lan{uplink.lan.number}']}.device", message)


def router_policies_lead_out(fleet: Fleet) -> Iterator[Problem]:
    """Each policy is of one class and names LANs and VLANs that the router has; each class has one that leads out."""
    for site, router in _routers(fleet):
        known = uplinks(site, router, None)
        names = {uplink.lan.name for uplink in known}
        seen: dict[str, str] = {}
        for policy in router.policies:
            if site.class_named(policy.traffic_class) is None:
                message = unknown("class", policy.traffic_class, {entry.name for entry in site.classes})
                yield Problem(site.host, f"{policy.path}.class", message)
            if seen.setdefault(policy.traffic_class, policy.path) != policy.path:
                message = f"{policy.traffic_class} has a policy already ({seen[policy.traffic_class]}); join the two"
                yield Problem(site.host, f"{policy.path}.class", message)
            for place, name in enumerate(policy.lans):
                path = f"{policy.path}.lans[{place}]"
                if name not in names:
                    yield Problem(site.host, path, _no_uplink(site, router, name, names))
                elif name in policy.lans[:place]:
                    yield Problem(site.host, path, f"{name} is there twice; take one away")
        if not known:
            message = (
                "no LAN of the site leads from the router to a tunnel; state ports, a tunnel or a wan in site.lans, or "
                "take site.openwrt away"
            )
            yield Problem(site.host, router.path, message)
            continue
        for entry in site.classes:
            stated = entry.name in seen
            if not stated and not policy_uplinks(site, router, known, entry):
                message = f"nothing carries the class {entry.name}; add {{class: {entry.name}, lans: [...]}}"
                yield Problem(site.host, f"{router.path}.policies", message)


def _no_uplink(site: Site, router: Router, name: str, names: set[str]) -> str:
    """Say why a name is none of an uplink."""
    lan = next((lan for lan in site.lans if lan.name == name), None)
    if lan is None:
        return unknown("LAN or VLAN", name, names)
    if not lan.enabled:
        return f"{name} is out of service (enabled: false in {lan.path}); leave it out for as long"
    if f"lan{lan.number}" not in ports(router):
        return f"{name} is on no port of the router; add lan{lan.number} to {router.path}.ports"
    if lan.dhcp_server is not None:
        return f"{name} has hosts without a router on it (dhcp_server in {lan.path})"
    return f"{name} leads nowhere; state a tunnel, a wan or a fallback in {lan.path}"


def routers_have_room(fleet: Fleet) -> Iterator[Problem]:
    """No router has more interfaces than mwan3 can tell apart."""
    for site, router in _routers(fleet):
        count = sum(len(uplink.families) for uplink in uplinks(site, router, None))
        if count > MAX_INTERFACES:
            message = (
                f"its LANs and VLANs make {count} interfaces, one for each family, and mwan3 has room for "
                f"{MAX_INTERFACES}; state ports with fewer LANs, or take VLANs away"
            )
            yield Problem(site.host, router.path, message)
