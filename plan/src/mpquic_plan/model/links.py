"""The links of a host as its variables say: management interfaces, WANs, LANs, and the cards that they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface

    from mpquic_plan.model.addresses import Network


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
