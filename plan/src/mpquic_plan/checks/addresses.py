"""Addresses that people state on a site: inside their subnets, and subnets apart from each other."""

from __future__ import annotations

from ipaddress import IPv4Network
from itertools import combinations
from typing import TYPE_CHECKING

from mpquic_plan import dhcp
from mpquic_plan.client import router_of
from mpquic_plan.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

    from mpquic_plan.model import Fleet, Lan, Network, Site

Block = tuple[str, str, "Network"]
"""Path, name of the owner, subnet."""


def overlap(one: Network, other: Network) -> bool:
    """Return whether two subnets of any families share an address."""
    if one.version == 4 and other.version == 4:
        return one.overlaps(other)
    return one.version == other.version and one.overlaps(other)


def _neighbour(
    host: str,
    path: str,
    address: IPv4Address | IPv6Address | None,
    own: IPv4Interface | IPv6Interface | None,
) -> Iterator[Problem]:
    """Check that an address is another one in the subnet of an interface."""
    if address is None:
        return
    if own is None:
        yield Problem(host, path, f"{address} has no subnet to lie in; the interface has no such address of its own")
    elif address not in own.network:
        yield Problem(host, path, f"{address} is outside of {own.network}")
    elif address == own.ip:
        yield Problem(host, path, f"{address} is the interface's own address")


def gateways_are_in_their_subnets(fleet: Fleet) -> Iterator[Problem]:
    """A gateway lies in the subnet of its interface and is another address."""
    for site in fleet.sites.values():
        for item in site.management:
            if item.address is None and item.gateway is not None:
                yield Problem(site.host, f"{item.path}.gateway", "DHCP gives the gateway; take this key away")
            else:
                yield from _neighbour(site.host, f"{item.path}.gateway", item.gateway, item.address)
        for wan in site.wans:
            if wan.static is None:
                continue
            path, static = f"{wan.path}.static", wan.static
            yield from _gateway(site.host, f"{path}.gateway", static.gateway, static.address, static.gateway_on_link)
            # The gateway of IPv6 is a link-local address as often as not.
            if static.gateway6 is not None and not static.gateway6.is_link_local:
                yield from _gateway(
                    site.host, f"{path}.gateway6", static.gateway6, static.address6, static.gateway_on_link
                )


def dhcp_says_what_it_can(fleet: Fleet) -> Iterator[Problem]:
    """Only a WAN that asks for a lease tells who it is, and an identifier with a MAC address has the link's."""
    for site in fleet.sites.values():
        for wan in site.wans:
            if wan.dhcp is None:
                continue
            path = f"{wan.path}.dhcp"
            kind, _, mac = wan.dhcp.client_id.partition(":")
            if wan.static is not None:
                yield Problem(
                    site.host, path, f"{wan.name} has fixed addresses and asks nobody; take dhcp or static away"
                )
            elif kind == "01" and mac != wan.mac:
                message = f'an identifier with a MAC address has that of the link; state mac: "{mac}" in {wan.path}'
                yield Problem(site.host, f"{path}.client_id", message)


def dhcp_servers_have_addresses(fleet: Fleet) -> Iterator[Problem]:
    """A LAN's DHCP server has addresses to give, that are the LAN's and nobody's else."""
    for site in fleet.sites.values():
        for lan in site.lans:
            server = lan.dhcp_server
            if server is None:
                continue
            path, network, router = f"{lan.path}.dhcp_server", lan.address.network, router_of(lan, 4)
            outside = [
                (key, ip) for key, ip in (("first", server.first), ("last", server.last)) if ip and ip not in network
            ]
            for key, ip in outside:
                yield Problem(site.host, f"{path}.{key}", f"{ip} is outside of {network}")
            if outside:
                continue
            chosen = dhcp.pool(lan, router)
            for address in dhcp.taken(lan, router):
                if chosen.first <= int(address) <= chosen.last:
                    whose = "the client's own" if address == lan.address.ip else "the router's"
                    message = f"{address} in {server.first} to {server.last} is {whose}; state a range beside it"
                    yield Problem(site.host, f"{path}.first", message)
            if server.first is None and server.last is None and chosen.size < dhcp.SMALLEST_POOL:
                message = (
                    f"{network} has {chosen.size} addresses for hosts and at least {dhcp.SMALLEST_POOL} are needed; "
                    f"give {lan.name} a larger subnet, such as address: {lan.address.ip}/24"
                )
                yield Problem(site.host, path, message)
            elif chosen.size < 1:
                yield Problem(site.host, f"{path}.first", f"there is no address from {server.first} to {server.last}")


def _gateway(
    host: str,
    path: str,
    gateway: IPv4Address | IPv6Address,
    own: IPv4Interface | IPv6Interface | None,
    on_link: bool,
) -> Iterator[Problem]:
    """Check the gateway of a WAN. An address without neighbours needs one outside; elsewhere it may be an error."""
    if own is not None and gateway not in own.network and own.network.num_addresses > 1 and not on_link:
        message = (
            f"{gateway} is outside of {own.network}; correct it, or set gateway_on_link: true if the provider's "
            "gateway is on the link all the same"
        )
        yield Problem(host, path, message)
    elif own is None or gateway == own.ip:
        yield from _neighbour(host, path, gateway, own)


def routers_are_in_their_subnets(fleet: Fleet) -> Iterator[Problem]:
    """The site's router lies in the subnet of its LAN, and prefixes behind it have such a router."""
    for site in fleet.sites.values():
        for lan in site.lans:
            yield from _neighbour(site.host, f"{lan.path}.router", lan.router, lan.address)
            if lan.router6 is not None and not lan.router6.is_link_local:
                yield from _neighbour(site.host, f"{lan.path}.router6", lan.router6, lan.address6)
            yield from _unreachable_behind(site, lan)


def _unreachable_behind(site: Site, lan: Lan) -> Iterator[Problem]:
    for prefix in lan.behind:
        if router_of(lan, prefix.version) is None:
            key = "router" if prefix.version == 4 else "address6 or router6"
            yield Problem(site.host, f"{lan.path}.behind", f"{prefix} has no next hop on {lan.name}; state {key}")


def _blocks(site: Site) -> list[Block]:
    blocks: list[Block] = []
    for item in site.management:
        blocks += [(f"{item.path}.address", item.name, item.address.network)] if item.address else []
        blocks += [(f"{item.path}.address6", item.name, item.address6.network)] if item.address6 else []
    # Of a LAN and a VLAN that clash, the VLAN is told of: its address is a default more often.
    for lan in sorted(site.lans, key=lambda lan: lan.vlan_id is not None):
        blocks.append((f"{lan.path}.address", lan.name, lan.address.network))
        blocks += [(f"{lan.path}.address6", lan.name, lan.address6.network)] if lan.address6 else []
        blocks += [(f"{lan.path}.behind", lan.name, prefix) for prefix in lan.behind]
    return blocks


def subnets_of_a_site_are_disjoint(fleet: Fleet) -> Iterator[Problem]:
    """Management, LANs, what is behind them, and the tunnels of the VPS have subnets of their own.

    WANs are left out: each has a device and a table of its own, as DHCP may give two of them the same address.
    """
    for site in fleet.sites.values():
        blocks = _blocks(site)
        # Of items with the same name only the first counts, or each clash of names would be told twice.
        named: dict[tuple[str, str], str] = {}
        for path, name, _ in blocks:
            named.setdefault((name, path.rpartition(".")[2]), path)
        blocks = [block for block in blocks if named[block[1], block[0].rpartition(".")[2]] == block[0]]
        for (path1, name1, net1), (path2, name2, net2) in combinations(blocks, 2):
            if overlap(net1, net2):
                yield Problem(site.host, path2, f"{net2} of {name2} overlaps {net1} of {name1} ({path1})")
        vps = fleet.vps_of(site)
        for listener in vps.listeners if vps else ():
            for path, name, net in blocks:
                for inner in (listener.subnet, listener.subnet6):
                    if vps and overlap(net, inner):
                        message = f"{net} of {name} overlaps {inner} of listener {listener.name} on {vps.host}"
                        yield Problem(site.host, path, message)


def modem_prefixes_are_of_modems(fleet: Fleet) -> Iterator[Problem]:
    """What goes to a modem past all tunnels is neither ours nor the VPS's."""
    for site in fleet.sites.values():
        vps = fleet.vps_of(site)
        blocks = _blocks(site)
        if vps is not None:
            blocks += [(f"vps.address of {vps.host}", vps.host, IPv4Network(vps.address))]
            blocks += [(f"{item.path} of {vps.host}", item.name, item.subnet) for item in vps.listeners]
        for wan in site.wans:
            for prefix in wan.modem_prefixes:
                for path, name, network in blocks:
                    if overlap(prefix, network):
                        message = (
                            f"{prefix} overlaps {network} of {name} ({path}); it holds the modem's own addresses alone"
                        )
                        yield Problem(site.host, f"{wan.path}.modem_prefixes", message)


def wans_do_not_hold_the_vps(fleet: Fleet) -> Iterator[Problem]:
    """The subnet of a WAN with fixed addresses doesn't hold the VPS, which would be looked for on the link itself."""
    for site in fleet.sites.values():
        vps = fleet.vps_of(site)
        for wan in site.wans if vps else ():
            if vps is None or wan.static is None:
                continue
            own4, own6 = wan.static.address, wan.static.address6
            pairs: list[tuple[str, Network, IPv4Address | IPv6Address]] = [("address", own4.network, vps.address)]
            if own6 is not None and vps.address6 is not None:
                pairs.append(("address6", own6.network, vps.address6))
            for key, network, public in pairs:
                if public in network:
                    yield Problem(
                        site.host,
                        f"{wan.path}.static.{key}",
                        f"{network} holds {public}, the public address of {vps.host}, which would be looked for on the "
                        "link itself and not by the gateway; correct the address or its prefix length",
                    )
