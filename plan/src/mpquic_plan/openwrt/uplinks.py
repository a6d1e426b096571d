"""What the OpenWrt router of a site sends its traffic to: the client's LANs and VLANs, seen from the other end."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface
from typing import TYPE_CHECKING, Any, Final

from mpquic_plan import addressing, tables
from mpquic_plan.assignments import assignments
from mpquic_plan.client import router_of
from mpquic_plan.client_instances import tunnel_sizes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mpquic_plan.assignments import Assignment
    from mpquic_plan.model import Lan, Router, Site, TrafficClass, Tunnel, Vps

FAMILIES: Final = (4, 6)


@dataclass(frozen=True, slots=True)
class Uplink:
    """A LAN or VLAN of the client as its router has it; `mtu` in bytes of an IP packet.

    `classes` are the slots of those that it carries; `rank` says for whom it is there: 0 for one class alone, 1 where
    the client's rules find the class, 2 for everything, None for nothing but what a policy names it for.
    """

    lan: Lan
    port: str
    mtu: int
    track: tuple[str, ...]
    classes: frozenset[int]
    rank: int | None

    @property
    def place(self) -> str:
        """Short name in those of sections: `l1` for lan1, `l1v11` for its VLAN 11."""
        number = f"l{self.lan.number}"
        return number if self.lan.vlan_id is None else f"{number}v{self.lan.vlan_id}"

    @property
    def device(self) -> str:
        """Interface of the router."""
        return self.port if self.lan.vlan_id is None else f"{self.port}.{self.lan.vlan_id}"

    def interface(self, family: int) -> str:
        """Return the name of its interface section; mwan3 tracks each family by an interface of its own."""
        return f"mpq_{self.place}" if family == FAMILIES[0] else f"mpq6_{self.place}"

    @property
    def families(self) -> list[int]:
        """IP versions in which the router has an address on it."""
        return [family for family in FAMILIES if router_of(self.lan, family) is not None]

    @property
    def metric(self) -> int:
        """Metric of its default routes: the number of the client's table, which no other LAN has."""
        return tables.lan_table(self.lan)

    def address(self, family: int) -> IPv4Interface | IPv6Interface:
        """Return the router's address with the prefix length of the subnet."""
        if family == FAMILIES[0]:
            return IPv4Interface(f"{router_of(self.lan, 4)}/{self.lan.address.network.prefixlen}")
        length = self.lan.address6.network.prefixlen if self.lan.address6 else IPv6Address.max_prefixlen
        return IPv6Interface(f"{router_of(self.lan, 6)}/{length}")

    def gateway(self, family: int) -> str | None:
        """Return the client's address."""
        if family == FAMILIES[0]:
            return str(self.lan.address.ip)
        return None if self.lan.address6 is None else str(self.lan.address6.ip)

    def tracked(self, family: int) -> list[str]:
        """Return the addresses that are pinged to see whether it leads out."""
        return [address for address in self.track if (":" in address) == (family == FAMILIES[1])]


def ports(router: Router) -> dict[str, str]:
    """Return the device of each LAN that is plugged into the router."""
    if router.ports is None:
        return {f"lan{number}": f"eth{number}" for number in range(1, 7)}
    return {port.lan: port.device for port in router.ports}


def uplinks(site: Site, router: Router, vps: Vps | None) -> list[Uplink]:
    """Return all uplinks of a site's router, in the order of LANs and VLANs.

    A LAN that is out of service, leads nowhere, or has hosts without a router on it (`dhcp_server`) is none. Without a
    `vps` nothing is tracked: that serves to check what is stated of them.
    """
    devices = ports(router)
    names = {lan.number: lan.name for lan in site.lans if lan.vlan_id is None}
    lans = sorted(site.lans, key=lambda lan: (lan.number, lan.vlan_id or 0))
    return [
        _uplink(site, lan, devices[names[lan.number]], router, vps)
        for lan in lans
        if names.get(lan.number) in devices and _leads_out(site, lan)
    ]


def _leads_out(site: Site, lan: Lan) -> bool:
    carried = any(each.tunnels or each.fallback_wan is not None for each in assignments(site, lan))
    return carried and lan.dhcp_server is None and router_of(lan, 4) is not None


def _uplink(site: Site, lan: Lan, port: str, router: Router, vps: Vps | None) -> Uplink:
    used = assignments(site, lan)
    wans = {wan.name: wan for wan in site.wans}
    sizes = [
        tunnel_sizes(tunnel, wans).tun_mtu
        for each in used
        for tunnel in each.tunnels
        if wans.keys() >= set(tunnel.wans)
    ]
    sizes += [each.fallback_wan.mtu for each in used if each.fallback_wan is not None]
    track = _stated(router, used, vps) if vps is not None else []
    return Uplink(lan, port, min(sizes, default=1280), tuple(track), *_purpose(site, lan, used))


def _purpose(site: Site, lan: Lan, used: Sequence[Assignment]) -> tuple[frozenset[int], int | None]:
    """Return the slots of the classes that an uplink carries, and its rank."""
    everything = frozenset(entry.slot for entry in site.classes)
    carriers = [each.tunnel for each in used if each.tunnel is not None]
    if lan.classified:
        return everything, 1
    if not carriers:
        return frozenset(), None
    name = lan.traffic_class if lan.traffic_class is not None else carriers[0].traffic_class
    entry = site.class_named(name)
    return (everything, 2) if entry is None else (frozenset({entry.slot}), 0)


def _stated(router: Router, used: Sequence[Assignment], vps: Vps) -> list[str]:
    """Return what is pinged: what is stated, and of a family in which nothing is, the far ends of what carries."""
    stated = [str(address) for address in router.track]
    far = list(dict.fromkeys(address for each in used for address in _far_end(each, vps)))
    missing = [version for version in FAMILIES if not any((":" in text) == (version == FAMILIES[1]) for text in stated)]
    return stated + [text for text in far if (FAMILIES[1] if ":" in text else FAMILIES[0]) in missing]


def _far_end(assigned: Assignment, vps: Vps) -> Iterator[str]:
    tunnel: Tunnel | None = next(iter(assigned.tunnels), None)
    listener = next((each for each in vps.listeners if tunnel is not None and each.name == tunnel.listener), None)
    if listener is not None:
        server = addressing.server_address(listener)
        yield from (str(server.ipv4), str(server.ipv6))
    else:
        yield from (str(address) for address in (vps.address, vps.address6) if address is not None)


def policy_uplinks(site: Site, router: Router, known: Sequence[Uplink], entry: TrafficClass) -> list[Uplink]:
    """Return by which uplinks a class goes, the first one preferred: as is stated, or by their ranks."""
    stated = next((policy for policy in router.policies if policy.traffic_class == entry.name), None)
    if stated is not None:
        by_name = {uplink.lan.name: uplink for uplink in known}
        return [by_name[name] for name in stated.lans if name in by_name]
    own = _by_rank(known, entry)
    # As on the client: a class that nothing carries goes with the catch-all.
    if not own and site.catch_all is not None and entry is not site.catch_all:
        return policy_uplinks(site, router, known, site.catch_all)
    return own


def _by_rank(known: Sequence[Uplink], entry: TrafficClass) -> list[Uplink]:
    carrying = [(uplink.rank, place) for place, uplink in enumerate(known) if entry.slot in uplink.classes]
    ranked = sorted((rank, place) for rank, place in carrying if rank is not None)
    return [known[place] for _, place in ranked]


def balanced(router: Router, entry: TrafficClass) -> bool:
    """Whether a class is shared among its uplinks."""
    return any(policy.balance for policy in router.policies if policy.traffic_class == entry.name)


def plain(uplink: Uplink) -> dict[str, Any]:
    """Return what a person wants to know of an uplink."""
    return {"lan": uplink.lan.name, "device": uplink.device, "interface": uplink.interface(FAMILIES[0])}
