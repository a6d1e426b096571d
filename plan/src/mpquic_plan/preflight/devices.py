"""The devices that the variables name exist."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import TYPE_CHECKING, Final

from mpquic_plan import netdevs
from mpquic_plan.preflight.finding import Finding
from mpquic_plan.problem import nearest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from typing import Any

    from mpquic_plan.preflight.finding import Host


_CARDS: Final = ("", "veth")
"""Kinds of links that have a MAC address of their own; a VLAN or a bridge has that of a card below it."""


def cards(links: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the names of network cards by their MAC addresses, those that they were made with before others."""
    found: dict[str, str] = {}
    for key in ("mac", "permanent_mac"):
        found |= {link[key].lower(): name for name, link in links.items() if link["kind"] in _CARDS and link[key]}
    return found


def devices_exist(host: Host) -> Iterator[Finding]:
    """Management and LAN interfaces and the public one are there; a WAN may be absent, and a VLAN is made.

    So may a LAN that is out of service: perhaps its card is the reason.
    """
    present = host.survey["links"]
    stated = [(f"site.management[] {item['name']}", item) for item in host.plan.get("management", [])]
    stated += [(f"site.lans[] {item['name']}", item) for item in host.plan.get("lans", []) if item["enabled"]]
    device = host.public_device
    if not host.is_client and device:
        stated.append(("vps.device", {"device": device}))
    for path, item in stated:
        below = netdevs.parent(item)
        name = below or item["device"]
        if name and name not in present:
            addresses = [] if below else item.get("addresses", [])
            yield Finding("missing-device", f"{path}: {_absent(host, name, addresses)}")


def _absent(host: Host, name: str, addresses: Sequence[str]) -> str:
    ours = {"lo", *host.tuns}
    links = {each: link for each, link in host.survey["links"].items() if each not in ours and link["kind"] != "tun"}
    close = _probably(name, addresses, links, host.devices)
    hint = f"did you mean {close}? " if close else ""
    listed = ", ".join(f"{each} ({link['mac']})" for each, link in sorted(links.items())) or "none"
    by_address = {match["device"]: match["mac"] for match in host.plan.get("matches", [])}
    if name in by_address:
        return (
            f"no card of the host has the MAC address {by_address[name]}; it has {listed}; state the right one in match"
        )
    return f"there is no interface {name} on the host; {hint}it has {listed}; state the right one in device"


def _probably(
    name: str, addresses: Sequence[str], links: Mapping[str, Mapping[str, Any]], used: Collection[str]
) -> str | None:
    """Return the link that is meant by a name: one that has it as a second one, or the address, or a similar name."""
    wanted = {ip_interface(entry).ip for entry in addresses}
    for each, link in links.items():
        if name in link.get("altnames", []) or wanted & {ip_interface(entry).ip for entry in link["addresses"]}:
            return each
    # Cards beside it have similar names, but are known by them already.
    return nearest(name, [each for each in links if each not in used], cutoff=0.75)
