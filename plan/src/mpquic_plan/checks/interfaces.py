"""Names of items and of interfaces."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from mpquic_plan.matching import MAX_INTERFACE_NAME
from mpquic_plan.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mpquic_plan.model import Fleet, Match, Site, Vps

Named = tuple[str, str]
"""Path and name."""

Item = tuple[str, str, str]
"""Path, name of the item that has the interface, name of the interface."""


def _repeated(host: str, kind: str, items: Iterable[Named]) -> Iterator[Problem]:
    first: dict[str, str] = {}
    for path, name in items:
        if name in first:
            yield Problem(host, path, f"{kind} '{name}' is already used by {first[name]}")
        else:
            first[name] = path


def names_are_unique(fleet: Fleet) -> Iterator[Problem]:
    """Names in each list are unique, and VLAN ids on each trunk."""
    for site in fleet.sites.values():
        yield from _repeated(site.host, "the name", [(f"{item.path}.name", item.name) for item in site.management])
        yield from _repeated(site.host, "the name", [(f"{wan.path}.name", wan.name) for wan in site.wans])
        lans = [lan for lan in site.lans if lan.vlan_id is None]
        yield from _repeated(site.host, "the name", [(f"{lan.path}.name", lan.name) for lan in lans])
        vlans = [lan for lan in site.lans if lan.vlan_id is not None]
        yield from _repeated(site.host, "the VLAN", [(f"{lan.path}.id", lan.name) for lan in vlans])
        # Of two class tunnels with one name either their prefixes or their numbers are the same, which is told of.
        tunnels = [(tunnel.place("name"), tunnel.name) for tunnel in site.tunnels if not tunnel.of_class]
        yield from _repeated(site.host, "the name", tunnels)
    for vps in fleet.vpses.values():
        yield from _repeated(vps.host, "the name", [(f"{item.path}.name", item.name) for item in vps.listeners])


def _site_devices(site: Site) -> list[Item]:
    return [
        *((f"{item.path}.device", item.name, site.named(item.device)) for item in site.management),
        *((f"{wan.path}.device", wan.name, site.named(wan.device)) for wan in site.wans),
        *((f"{lan.path}.device", lan.name, site.named(lan.device)) for lan in site.lans),
        *((tunnel.place("name"), f"tunnel {tunnel.name}", tunnel.name) for tunnel in site.tunnels),
    ]


def _vps_devices(vps: Vps) -> list[Item]:
    public = [("vps.device", "the VPS", vps.device)] if vps.device is not None else []
    return public + [(f"{listener.path}.tun", listener.name, listener.tun) for listener in vps.listeners]


def trunks_carry_vlans(fleet: Fleet) -> Iterator[Problem]:
    """The parent of a VLAN is a card that may have VLANs, and carries each id once."""
    for site in fleet.sites.values():
        others = {wan.device: f"the device of {wan.name}, and carries no VLANs" for wan in site.wans}
        others |= {tunnel.name: "a tunnel" for tunnel in site.tunnels}
        others |= {vlan.device: "a VLAN itself" for vlan in site.vlans}
        taken: dict[tuple[str | None, int | None], str] = {
            (lan.parent, lan.vlan_id): lan.path for lan in site.lans if lan.vlan_id is not None
        }
        for item in site.tagged:
            if item.parent in others:
                message = f"'{item.parent}' is {others[item.parent]}; name another card"
                yield Problem(site.host, f"{item.path}.vlan.parent", message)
            first = taken.setdefault((item.parent, item.vlan_id), item.path)
            if first != item.path:
                message = f"VLAN {item.vlan_id} on {item.parent} is already used by {first}"
                yield Problem(site.host, f"{item.path}.vlan.id", message)


_RESERVED: Final = {
    "lo": "is the loopback interface",
    "all": "is the kernel's name for settings of all interfaces",
    "default": "is the kernel's name for settings of interfaces to come",
}
_WORDS: Final = {
    "none": "says that a LAN has no tunnel",
    "management": "means all management interfaces in the firewall",
    "lan": "means all LANs in the firewall",
    "tunnel": "means all tunnels in the firewall",
}
_NO_CARD: Final = "name a network card instead (`ip -brief link` lists them)"
_MODEM: Final = (
    "PPPoE and dial-up are not supported: let the modem or a router dial, and name the card that leads to it"
)
_DIALLED: Final = re.compile(r"(ppp|pppoe-?)[0-9a-z_.-]*")
_VIRTUAL: Final = re.compile(
    r"(wg|tun|tap|docker|veth|virbr|vnet|lxcbr|lxdbr|podman|cni|flannel\.|cali|tailscale|zt|dummy|ifb|sit|gre|gretap|"
    r"erspan|ip6tnl|ip6gre|ipip|tunl|ip_vti|vti|vxlan|geneve)[0-9][0-9a-z]*|(br|veth|cali|zt)-?[0-9a-f]{6,}"
)
"""Interfaces that another program makes and takes away, by the names that it gives them."""
_TAGGED: Final = {
    "management": "state vlan: {{id: {vlan}, parent: {parent}}} instead of device",
    "wan": "state vlan: {{id: {vlan}, parent: {parent}}} instead of device",
    "trunk": "a VLAN inside of a VLAN is not supported; name the card",
    "lan": (
        "state device: {parent} and in it vlans: [{{id: {vlan}, tunnel: ...}}], or class and wan instead of tunnel"
    ),
}


def device_problem(kind: str, device: str) -> str | None:
    """Return why a device can't be a `management`, `wan` or `lan` link, with the remedy; None if it can."""
    if device in _RESERVED:
        return f"'{device}' {_RESERVED[device]}; {_NO_CARD}"
    parent, _, vlan = device.rpartition(".")
    if parent and vlan.isdecimal():
        return f"'{device}' is a VLAN on {parent}; {_TAGGED[kind].format(parent=parent, vlan=int(vlan))}"
    if _DIALLED.fullmatch(device):
        return f"'{device}' is a dialled connection; {_MODEM}"
    if _VIRTUAL.fullmatch(device):
        return f"'{device}' is made by another program, and comes and goes with it; {_NO_CARD}"
    return None


def devices_are_cards(fleet: Fleet) -> Iterator[Problem]:
    """A link is a network card: what other programs make, tag or dial isn't there at boot, or needs more than we do."""
    for site in fleet.sites.values():
        links = [("management", f"{item.path}.device", item.device) for item in site.management if item.parent is None]
        links += [("trunk", f"{item.path}.vlan.parent", item.parent) for item in site.tagged if item.parent]
        links += [("wan", f"{wan.path}.device", wan.device) for wan in site.wans if wan.parent is None]
        links += [("lan", f"{lan.path}.device", lan.device) for lan in site.lans if lan.vlan_id is None]
        for kind, path, device in links:
            message = device_problem(kind, site.named(device))
            if message is not None:
                yield Problem(site.host, path, message)
        for vlan in site.vlans:
            if vlan.device in _RESERVED:
                message = f"'{vlan.device}' {_RESERVED[vlan.device]}; name another"
                yield Problem(site.host, f"{vlan.path}.device", message)
        for tunnel in site.tunnels:
            if tunnel.name in _RESERVED:
                yield Problem(
                    site.host, tunnel.place("name"), f"'{tunnel.name}' {_RESERVED[tunnel.name]}; name another"
                )
            elif tunnel.name in _WORDS:
                yield Problem(site.host, tunnel.place("name"), f"'{tunnel.name}' {_WORDS[tunnel.name]}; name another")
    for vps in fleet.vpses.values():
        if vps.device in _RESERVED:
            message = f"'{vps.device}' {_RESERVED[vps.device]}; {_NO_CARD}, or auto"
            yield Problem(vps.host, "vps.device", message)
        for listener in vps.listeners:
            if listener.tun in _RESERVED:
                yield Problem(
                    vps.host, f"{listener.path}.tun", f"'{listener.tun}' {_RESERVED[listener.tun]}; name another"
                )


def _devices(fleet: Fleet) -> Iterator[tuple[str, list[Item]]]:
    for site in fleet.sites.values():
        yield site.host, _site_devices(site)
    for vps in fleet.vpses.values():
        yield vps.host, _vps_devices(vps)


def devices_are_unique(fleet: Fleet) -> Iterator[Problem]:
    """No two items of a host have the same interface."""
    for host, devices in _devices(fleet):
        # Two links with one card are told of by its MAC address (cards_are_unique).
        devices = [item for item in devices if item[0] not in _same_card(fleet.sites.get(host))]
        # Items of one name are told of by their name; that they share its default interface is no second error.
        order = [path for path, _, _ in devices]
        first = {owner: (path, device) for path, owner, device in reversed(devices)}
        yield from _repeated(host, "the interface", sorted(first.values(), key=lambda item: order.index(item[0])))


def _same_card(site: Site | None) -> set[str]:
    """Return the paths of devices whose card another link has already."""
    return {f"{match.path.rpartition('.')[0]}.device" for match, _ in _repeated_cards(site)} if site else set()


def _repeated_cards(site: Site) -> list[tuple[Match, Match]]:
    first: dict[str, Match] = {}
    untagged = [match for match in site.matches if not match.carries_vlan]
    pairs = [(match, first.setdefault(match.mac, match)) for match in untagged]
    return [pair for pair in pairs if pair[0] is not pair[1]]


def cards_are_unique(fleet: Fleet) -> Iterator[Problem]:
    """No card is two links, but for the VLANs on it."""
    for site in fleet.sites.values():
        for match, first in _repeated_cards(site):
            yield Problem(
                site.host, f"{match.path}.mac", f"{match.mac} is already the card of {first.name} ({first.path})"
            )


def interface_names_are_short(fleet: Fleet) -> Iterator[Problem]:
    """No interface has a name that the kernel refuses."""
    for host, devices in _devices(fleet):
        for path, _, name in devices:
            if len(name) > MAX_INTERFACE_NAME:
                yield Problem(
                    host,
                    path,
                    f"'{name}' has {len(name)} characters; an interface name has at most {MAX_INTERFACE_NAME}",
                )
