"""A site and a VPS as their variables say, defaults filled in, addresses parsed; nothing derived yet.

`path` of each item is its place in the variables, for messages.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import TYPE_CHECKING, Any

from mpquic_plan.matching import substitute

if TYPE_CHECKING:
    from collections.abc import Mapping

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Match:
    """A card that the variables know by its MAC address; `device` is its name where it isn't present."""

    path: str
    kind: str
    name: str
    mac: str
    device: str
    carries_vlan: bool = False


@dataclass(frozen=True, slots=True)
class Management:
    """A management interface, or a VLAN (`parent` and `vlan_id` are set); `address` is None where DHCP gives it."""

    path: str
    name: str
    number: int
    device: str
    address: IPv4Interface | None
    address6: IPv6Interface | None
    gateway: IPv4Address | None
    dns: tuple[str, ...]
    parent: str | None = None
    vlan_id: int | None = None


@dataclass(frozen=True, slots=True)
class StaticAddress:
    """Fixed addressing of a WAN."""

    address: IPv4Interface
    gateway: IPv4Address
    address6: IPv6Interface | None
    gateway6: IPv6Address | None
    gateway_on_link: bool

    @property
    def gateway_is_on_link(self) -> bool:
        """Whether the IPv4 gateway is outside of the subnet, and reached on the link all the same."""
        return self.gateway not in self.address.network

    @property
    def gateway6_is_on_link(self) -> bool:
        """Whether the IPv6 gateway is outside of the subnet; a link-local one needs no mention."""
        if self.gateway6 is None or self.gateway6.is_link_local:
            return False
        return self.address6 is None or self.gateway6 not in self.address6.network


@dataclass(frozen=True, slots=True)
class DhcpClient:
    """What a WAN tells a DHCP server; `client_id` is `mac`, `duid` or hexadecimal digits."""

    client_id: str
    vendor_class: str | None
    hostname: str | None


@dataclass(frozen=True, slots=True)
class MatchRule:
    """A rule of a class; an empty tuple selects all. Port ranges include both ends.

    `protocols` are numbers of the IP header; of a rule with ports alone, those that have ports.
    """

    path: str
    protocols: tuple[int, ...]
    source_ports: tuple[tuple[int, int], ...]
    ports: tuple[tuple[int, int], ...]
    sources: tuple[Network, ...]
    destinations: tuple[Network, ...]
    dscps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TrafficClass:
    """A traffic class; `slot` is its number, `max_rate` in bit/s. `settings` are keys that its tunnels have from it."""

    path: str
    name: str
    slot: int
    prefix: str
    catch_all: bool
    rules: tuple[MatchRule, ...]
    dscp: int
    low_latency: bool
    max_rate: int | None
    wan_weight: int
    wan_priority: int
    fallback: str | None
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wan:
    """A WAN link, or a VLAN (`parent` and `vlan_id` are set); `mtu` in bytes of an IP packet.

    Not `enabled`: out of service on purpose. `classes` are the names of those that have tunnels on it, None for all.
    """

    path: str
    name: str
    enabled: bool
    number: int
    device: str
    mtu: int
    ipv6: bool
    static: StaticAddress | None
    dhcp: DhcpClient | None
    mac: str | None
    modem_prefixes: tuple[IPv4Network, ...]
    modem_by_gateway: bool
    udp_gso: str
    classes: tuple[str, ...] | None
    class_number: int | None
    parent: str | None = None
    vlan_id: int | None = None


@dataclass(frozen=True, slots=True)
class DhcpServer:
    """What the hosts of a LAN get by DHCP; without `first` or `last` the pool follows from the subnet."""

    dns: tuple[str, ...]
    first: IPv4Address | None
    last: IPv4Address | None
    lease_s: int


@dataclass(frozen=True, slots=True)
class Lan:
    """A LAN interface, or a VLAN on one (`parent` and `vlan_id` are set).

    Not `enabled`: out of service on purpose, itself or with the LAN that carries the VLAN. Its traffic goes by
    `tunnel`; or by the tunnel of `traffic_class` on `wan`; or, with a `wan` alone, by that of each connection's class.
    `fallback`: None where it isn't stated. `states_way`: not a VLAN without any of the three.
    """

    path: str
    name: str
    enabled: bool
    number: int
    device: str
    address: IPv4Interface
    address6: IPv6Interface | None
    tunnel: str | None
    wan: str | None
    traffic_class: str | None
    states_way: bool
    trust_dscp: bool
    router: IPv4Address | None
    router6: IPv6Address | None
    behind: tuple[Network, ...]
    fallback: str | None
    dhcp_server: DhcpServer | None
    parent: str | None = None
    vlan_id: int | None = None
    pcp: int | None = None

    @property
    def classified(self) -> bool:
        """Whether the rules of the classes decide by which tunnel a connection goes."""
        return self.wan is not None and self.traffic_class is None

    @property
    def networks(self) -> tuple[Network, ...]:
        """The connected subnets."""
        return (self.address.network, *((self.address6.network,) if self.address6 else ()))


@dataclass(frozen=True, slots=True)
class Striping:
    """How a tunnel with `transport: stripe` is striped; not `enabled`: it uses QUIC all the same."""

    enabled: bool
    pipes: int
    data_shards: int
    parity_shards: int
    fec: str
    fec_max_overhead: float


@dataclass(frozen=True, slots=True)
class TunnelPath:
    """A WAN as a tunnel uses it; `outer` is the address family between client and VPS.

    Of a lower `priority` it is preferred. `pipes` is None where it has those of the tunnel, `own_transport` tells that
    it states its transport itself. `places` are the paths of keys that its entry, if it has one, doesn't state.
    """

    path: str
    wan: str
    outer: str
    transport: str
    pipes: int | None
    priority: int
    weight: int
    places: Mapping[str, str]
    own_transport: bool = False

    def place(self, key: str) -> str:
        """Return the path in the variables where a key of this path is stated, or may be."""
        return self.places.get(key, f"{self.path}.{key}")


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel of a site; times as their names say. Whether it is in service its WANs say, too (`Site.serves`).

    `paths` has at least one, the preferred one first; `multipath_policy` says how several are used, and is None of a
    tunnel that states a single WAN. `of_class`: it is there because its WAN carries `traffic_class`. `places` are the
    paths of keys that its entry, if it has one, doesn't state.
    """

    path: str
    name: str
    enabled: bool
    multipath_policy: str | None
    paths: tuple[TunnelPath, ...]
    listener: str
    slot: int
    transport: str
    striping: Striping
    transport_mode: str
    congestion_algorithm: str
    traffic_class: str | None
    of_class: bool
    places: Mapping[str, str]
    tun_mtu: int | None
    probe_interval_ms: int
    down_after_ms: int
    reconnect_max_s: int

    def place(self, key: str) -> str:
        """Return the path in the variables where a key of this tunnel is stated, or may be."""
        return self.places.get(key, f"{self.path}.{key}")

    @property
    def wans(self) -> tuple[str, ...]:
        """Names of the WANs that carry it, the preferred one first."""
        return tuple(path.wan for path in self.paths)

    @property
    def striped_paths(self) -> list[TunnelPath]:
        """The paths that are striped in fact."""
        return [path for path in self.paths if path.transport == "stripe" and self.striping.enabled]


@dataclass(frozen=True, slots=True)
class Opening:
    """A service that may be reached; `sources` are zones on a client, prefixes on a VPS."""

    path: str
    protocol: str
    ports: tuple[int, ...]
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForwardOpening:
    """What is forwarded besides the tunnels; `source` and `target` are devices or words, empty tuples mean all."""

    path: str
    source: str
    target: str
    sources: tuple[Network, ...]
    destinations: tuple[Network, ...]
    protocol: str | None
    ports: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class RouterPort:
    """The device of a site's OpenWrt router that a LAN of the client is plugged into."""

    path: str
    lan: str
    device: str


@dataclass(frozen=True, slots=True)
class RouterPolicy:
    """LANs and VLANs by which OpenWrt sends a class: in their order, or with `balance` shared among them."""

    path: str
    traffic_class: str
    lans: tuple[str, ...]
    balance: bool


@dataclass(frozen=True, slots=True)
class Router:
    """A site's OpenWrt router. `ports` is None where each LAN has the device of its number.

    `zones` are the router's own firewall zones that may use the tunnels, `track` the addresses that mwan3 pings.
    """

    path: str
    host: str
    ports: tuple[RouterPort, ...] | None
    zones: tuple[str, ...]
    policies: tuple[RouterPolicy, ...]
    track: tuple[IPv4Address | IPv6Address, ...]
    last_resort: str


@dataclass(frozen=True, slots=True)
class Site:
    """A site, seen from its client. `broken`: names whose items hold errors, by collection; '*' is an unknown name."""

    host: str
    name: str
    site_id: int
    vps: str | None
    lan_mode: str
    egress: str | None
    log_level: str
    ntp: tuple[str, ...]
    classes: tuple[TrafficClass, ...]
    management: tuple[Management, ...]
    wans: tuple[Wan, ...]
    lans: tuple[Lan, ...]
    tunnels: tuple[Tunnel, ...]
    ssh_ports: tuple[int, ...] | None
    ssh_from: tuple[str, ...]
    openings: tuple[Opening, ...]
    forward_openings: tuple[ForwardOpening, ...]
    broken: Mapping[str, frozenset[str]] = field(default_factory=dict)
    matches: tuple[Match, ...] = ()
    router: Router | None = None

    @property
    def cards(self) -> list[Match]:
        """Each card that is known by its MAC address, once: as the link that has it untagged, if there is one."""
        by_mac: dict[str, Match] = {}
        for match in sorted(self.matches, key=lambda match: match.carries_vlan):
            by_mac.setdefault(match.mac, match)
        return sorted(by_mac.values(), key=lambda match: (match.kind, match.name))

    def named(self, device: str) -> str:
        """Return the name of a device as it is where no matched card is present."""
        return substitute(device, {match.mac: match.device for match in self.cards})

    def serves(self, tunnel: Tunnel) -> bool:
        """Whether a tunnel is in service: neither it nor all of its WANs are out of service on purpose."""
        idle = {wan.name for wan in self.wans if not wan.enabled}
        return tunnel.enabled and not idle.issuperset(tunnel.wans)

    def class_named(self, name: str | None) -> TrafficClass | None:
        """Return a class by its name; None without a name, or where there is no such class."""
        return next((entry for entry in self.classes if entry.name == name), None)

    @property
    def catch_all(self) -> TrafficClass | None:
        """The class of what no rule matches."""
        return next((entry for entry in self.classes if entry.catch_all), None)

    def class_tunnel(self, wan: str | None, traffic_class: str | None) -> Tunnel | None:
        """Return the tunnel of a class on a WAN, if that carries it."""
        return next(
            (
                tunnel
                for tunnel in self.tunnels
                if tunnel.of_class and wan in tunnel.wans and tunnel.traffic_class == traffic_class
            ),
            None,
        )

    @property
    def local_links(self) -> tuple[Management | Lan, ...]:
        """All links but WANs and tunnels: those that may carry VLANs."""
        return (*self.management, *self.lans)

    @property
    def tagged(self) -> tuple[Management | Wan, ...]:
        """Management interfaces and WANs that are VLANs."""
        links: tuple[Management | Wan, ...] = (*self.management, *self.wans)
        return tuple(item for item in links if item.parent is not None)

    @property
    def vlans(self) -> list[Management | Lan | Wan]:
        """All links that are VLANs on another one."""
        links: tuple[Management | Lan | Wan, ...] = (*self.management, *self.lans, *self.wans)
        return [item for item in links if item.vlan_id is not None]


@dataclass(frozen=True, slots=True)
class Listener:
    """A UDP port of a VPS with its TUN and inner subnets; `stripe_port` is None where it serves no striped tunnels."""

    path: str
    name: str
    port: int
    stripe_port: int | None
    tun: str
    subnet: IPv4Network
    subnet6: IPv6Network
    tunnels_per_site: int
    tun_mtu: int


@dataclass(frozen=True, slots=True)
class Vps:
    """A VPS; `device` is None where the default route tells it, `ssh_ports` where the ssh server does."""

    host: str
    address: IPv4Address
    address6: IPv6Address | None
    device: str | None
    hostnames: tuple[str, ...]
    ssh_ports: tuple[int, ...] | None
    listeners: tuple[Listener, ...]
    site_to_site: bool
    tunnel_services: tuple[Opening, ...]
    openings: tuple[Opening, ...]
    forward_openings: tuple[ForwardOpening, ...]
    revoked_certificates: tuple[str, ...]
    log_level: str
    ntp: tuple[str, ...]
    broken: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fleet:
    """All sites and VPSes of an inventory, by inventory host. `unreadable`: hosts whose variables can't be judged."""

    sites: Mapping[str, Site]
    vpses: Mapping[str, Vps]
    unreadable: frozenset[str]

    def vps_of(self, site: Site) -> Vps | None:
        """Return the VPS of a site: the named one, or the only one."""
        if site.vps is not None:
            return self.vpses.get(site.vps)
        return next(iter(self.vpses.values())) if len(self.vpses) == 1 else None

    def sites_of(self, vps: Vps) -> list[Site]:
        """Return the sites of a VPS in the order of their numbers."""
        chosen = [site for site in self.sites.values() if self.vps_of(site) is vps]
        return sorted(chosen, key=lambda site: (site.site_id, site.host))
