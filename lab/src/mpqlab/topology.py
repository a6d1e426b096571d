"""The reference site as data: every name and address of the lab is written here and nowhere else.

Addresses of the public side come from the documentation ranges (RFC 5737, RFC 3849), so nothing in the lab can be
mistaken for a real host.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from enum import Enum
from ipaddress import IPv4Interface, IPv6Network
from pathlib import Path

from mpqlab import nics

LAB_NAME = os.environ.get("MPQLAB_NAME", "mpqlab")
"""Another name makes another lab beside the first: own namespaces, processes and machines, on the same addresses."""
NAMESPACE_PREFIX = f"{LAB_NAME}-"
RUN = Path("/run") / LAB_NAME

NICS_SCHEME = nics.chosen(os.environ, RUN / "lab.json")
# A wrong scheme is refused by the command line, in a sentence; until then the reference's names stand.
NICS = nics.named(NICS_SCHEME if NICS_SCHEME in nics.SCHEMES else nics.REFERENCE)

CLIENT = "client"
VPS = "vps"
MACHINES = (CLIENT, VPS)
HOSTNAMES = {CLIENT: "site1-client", VPS: "vps1"}

OPENWRT = "openwrt"
MGMT = "mgmt"
INTERNET = "internet"
BARE = "bare"
"""A Debian host without a running systemd and without a network: what no site can be provisioned on."""

INTERNET_ADDRESS = "192.0.2.80"
INTERNET_ADDRESS6 = "2001:db8:80::80"
INTERNET_NAME = "internet.example.net"
IPERF_BASE_PORT = 5200

VPS_DEVICE = NICS.vps
VPS_NAME = "vps1.example.net"
VPS_ADDRESS = IPv4Interface("203.0.113.10/24")
VPS_GATEWAY = IPv4Interface("203.0.113.1/24")
VPS_ADDRESS6 = "2001:db8:113::10/64"
VPS_GATEWAY6 = "2001:db8:113::1/64"

CONTROLLER_DEVICE = "uplink"
CONTROLLER_ADDRESS = IPv4Interface("192.0.2.2/30")
CONTROLLER_GATEWAY = IPv4Interface("192.0.2.1/30")
REFUSING_ADDRESS = "10.10.11.254"
"""An address that the controller reaches and that refuses every connection: a site that is switched off."""

SUITES = ("bookworm", "trixie")


def namespace(node: str) -> str:
    """Return the name of the network namespace of a node."""
    return NAMESPACE_PREFIX + node


def mac(group: int, number: int, side: int) -> str:
    """Return a stable locally administered MAC address: a device that is plugged again is the same device."""
    return f"02:4c:{group:02x}:{number:02x}:00:{side:02x}"


@dataclass(frozen=True, slots=True)
class Management:
    """A management NIC of the client VM and the controller's side of it."""

    number: int
    device: str
    client: IPv4Interface
    controller: IPv4Interface

    @property
    def peer(self) -> str:
        """Name of the device in the namespace `mgmt`."""
        return f"mgmt{self.number}"

    @property
    def mac(self) -> str:
        """MAC address of the client's device."""
        return mac(1, self.number, 1)


@dataclass(frozen=True, slots=True)
class Lan:
    """A LAN NIC of the client VM, OpenWrt's side of the transit subnet, and the network and host behind OpenWrt."""

    number: int
    device: str

    @property
    def openwrt_device(self) -> str:
        """OpenWrt's interface."""
        return f"lan{self.number}"

    @property
    def mac(self) -> str:
        """MAC address of the client's device."""
        return mac(2, self.number, 1)

    @property
    def transit_client(self) -> str:
        """Address of the client VM in the transit subnet; the suite under test configures it."""
        return f"172.16.{self.number}.1/30"

    @property
    def transit_openwrt(self) -> str:
        """OpenWrt's address in the transit subnet."""
        return f"172.16.{self.number}.2/30"

    @property
    def transit_client6(self) -> str:
        """ULA of the client VM in the transit subnet."""
        return f"fd00:16:{self.number}::1/64"

    @property
    def transit_openwrt6(self) -> str:
        """OpenWrt's ULA in the transit subnet."""
        return f"fd00:16:{self.number}::2/64"

    @property
    def router(self) -> str:
        """OpenWrt's address towards the host."""
        return f"192.168.{100 + self.number}.1/24"

    @property
    def router6(self) -> str:
        """OpenWrt's ULA towards the host."""
        return f"fd00:100:{self.number}::1/64"

    @property
    def host_address(self) -> str:
        """Address of the host behind this LAN."""
        return f"192.168.{100 + self.number}.2/24"

    @property
    def host_address6(self) -> str:
        """ULA of the host behind this LAN."""
        return f"fd00:100:{self.number}::2/64"

    @property
    def host(self) -> str:
        """Node name of the host behind this LAN."""
        return f"host{self.number}"

    @property
    def table(self) -> int:
        """OpenWrt's routing table that sends this host's traffic to this LAN."""
        return 100 + self.number


@dataclass(frozen=True, slots=True)
class Vlan:
    """A VLAN on a LAN's trunk between client VM and OpenWrt, and a network behind OpenWrt that uses it.

    The host of the LAN has an address in that network: what it sends from there goes by the VLAN.
    """

    lan: Lan
    id: int

    @property
    def device(self) -> str:
        """The client VM's interface."""
        return f"{self.lan.device}.{self.id}"

    @property
    def openwrt_device(self) -> str:
        """OpenWrt's interface."""
        return f"{self.lan.openwrt_device}.{self.id}"

    @property
    def transit_client(self) -> str:
        """Address of the client VM in the VLAN; the suite under test configures it."""
        return f"172.16.{self.id}.1/30"

    @property
    def transit_openwrt(self) -> str:
        """OpenWrt's address in the VLAN."""
        return f"172.16.{self.id}.2/30"

    @property
    def transit_client6(self) -> str:
        """ULA of the client VM in the VLAN."""
        return f"fd00:16:{self.id}::1/64"

    @property
    def transit_openwrt6(self) -> str:
        """OpenWrt's ULA in the VLAN."""
        return f"fd00:16:{self.id}::2/64"

    @property
    def router(self) -> str:
        """OpenWrt's address in the network that uses the VLAN."""
        return f"192.168.{self.id}.1/24"

    @property
    def router6(self) -> str:
        """OpenWrt's ULA in the network that uses the VLAN."""
        return f"fd00:100:{self.id}::1/64"

    @property
    def host_address(self) -> str:
        """The host's address in that network."""
        return f"192.168.{self.id}.2/24"

    @property
    def host_address6(self) -> str:
        """The host's ULA in that network."""
        return f"fd00:100:{self.id}::2/64"

    @property
    def table(self) -> int:
        """OpenWrt's routing table that sends that network's traffic to the VLAN."""
        return 1000 + self.id


@dataclass(frozen=True, slots=True)
class Subnet:
    """What an ISP gives its customers: a gateway, a pool, and the public address behind which they appear."""

    gateway: IPv4Interface
    lease: str
    public: str
    prefix6: IPv6Network | None = None

    @property
    def last_lease(self) -> str:
        """End of the pool, which starts at `lease`."""
        return str(self.gateway.network.broadcast_address - 1)

    @property
    def gateway6(self) -> str | None:
        """The ISP's address in its IPv6 prefix."""
        return f"{self.prefix6[1]}/64" if self.prefix6 else None

    def with_lease(self, lease: IPv4Interface) -> Subnet:
        """Return it with another address for the client; the gateway is the first other one of that subnet."""
        gateway = next(host for host in lease.network.hosts() if host != lease.ip)
        return replace(self, gateway=IPv4Interface(f"{gateway}/{lease.network.prefixlen}"), lease=str(lease.ip))


class Attachment(Enum):
    """What is at the far end of a WAN device."""

    NO_DEVICE = "no device"
    NO_CARRIER = "no carrier"
    NO_DHCP = "carrier, no DHCP"
    ISP = "isp"


@dataclass(frozen=True, slots=True)
class Wan:
    """A WAN NIC of the client VM, the ISP behind it, and the defaults of the emulated link beyond the ISP.

    `up` and `down` are the rates towards and from the Internet in Mbit/s, `rtt_ms` the round trip of the link alone.
    """

    number: int
    device: str
    attachment: Attachment
    subnets: tuple[Subnet, ...] = ()
    rtt_ms: float = 0.0
    up: float = 0.0
    down: float = 0.0

    @property
    def name(self) -> str:
        """Name by which commands address the WAN."""
        return f"wan{self.number}"

    @property
    def isp(self) -> str:
        """Node name of the ISP."""
        return f"isp{self.number}"

    @property
    def mac(self) -> str:
        """MAC address of the client's device."""
        return mac(3, self.number, 1)


ISP_LAN_DEVICE = "lan"
ISP_PORT_DEVICE = "modem"
ISP_UPLINK_DEVICE = "uplink"

MANAGEMENT = (
    Management(1, NICS.management[0], IPv4Interface("10.10.11.100/24"), IPv4Interface("10.10.11.1/24")),
    Management(2, NICS.management[1], IPv4Interface("10.10.10.100/24"), IPv4Interface("10.10.10.1/24")),
)

LANS = tuple(Lan(number, device) for number, device in enumerate(NICS.lans, start=1))

CLASS_VLANS = {
    f"{prefix}{lan.number}": Vlan(lan, 10 * lan.number + place)
    for lan in LANS[:3]
    for place, prefix in enumerate(("cr", "br", "df"), start=1)
}
"""VLANs 11 to 13 on LAN1, 21 to 23 on LAN2, 31 to 33 on LAN3, by the class tunnel that carries each."""
MULTIPATH_VLAN = Vlan(LANS[0], 17)
"""The VLAN of `mp1`, the tunnel over several WANs."""
TUNNEL_VLANS = {**CLASS_VLANS, "mp1": MULTIPATH_VLAN}
"""All VLANs that have a tunnel of their own, by its name."""
CLASSIFIED_VLAN = Vlan(LANS[1], 24)
"""A VLAN whose connections go by the class whose rule they match."""
VLANS = (*TUNNEL_VLANS.values(), CLASSIFIED_VLAN)

WANS = (
    Wan(1, NICS.wans[0], Attachment.NO_DEVICE),
    Wan(2, NICS.wans[1], Attachment.NO_CARRIER),
    Wan(3, NICS.wans[2], Attachment.NO_DHCP),
    Wan(
        4,
        NICS.wans[3],
        Attachment.ISP,
        (
            Subnet(IPv4Interface("192.168.1.1/24"), "192.168.1.100", "198.51.100.4"),
            Subnet(IPv4Interface("192.168.8.1/24"), "192.168.8.100", "198.51.100.104"),
        ),
        rtt_ms=108.0,
        up=50.0,
        down=100.0,
    ),
    Wan(
        5,
        NICS.wans[4],
        Attachment.ISP,
        (
            Subnet(IPv4Interface("10.150.19.1/24"), "10.150.19.95", "198.51.100.5", IPv6Network("2001:db8:5::/64")),
            Subnet(IPv4Interface("10.150.20.1/24"), "10.150.20.95", "198.51.100.105", IPv6Network("2001:db8:5:1::/64")),
        ),
        rtt_ms=13.0,
        up=50.0,
        down=200.0,
    ),
    Wan(
        6,
        NICS.wans[5],
        Attachment.ISP,
        (
            Subnet(IPv4Interface("100.64.0.1/24"), "100.64.0.100", "198.51.100.6"),
            Subnet(IPv4Interface("100.65.0.1/24"), "100.65.0.100", "198.51.100.106"),
        ),
        rtt_ms=34.0,
        up=40.0,
        down=150.0,
    ),
)

EMULATED_WANS = tuple(wan for wan in WANS if wan.attachment is Attachment.ISP)
ATTACHED_WANS = tuple(wan for wan in WANS if wan.attachment is not Attachment.NO_DEVICE)

NODES = (
    CLIENT,
    VPS,
    OPENWRT,
    *(lan.host for lan in LANS),
    MGMT,
    *(wan.isp for wan in ATTACHED_WANS),
    INTERNET,
    BARE,
)


def find_wan(text: str) -> Wan:
    """Return the WAN that `wan5`, `WAN5`, `5` or its device name means.

    Raises:
        ValueError: no WAN is called so.
    """
    wanted = text.lower()
    for wan in WANS:
        if wanted in {wan.name, str(wan.number), wan.device}:
            return wan
    raise ValueError(f"no WAN is called {text!r}: choose one of {', '.join(wan.name for wan in WANS)}")


def find_lan(number: int) -> Lan:
    """Return LAN `number`.

    Raises:
        ValueError: no LAN has this number.
    """
    for lan in LANS:
        if lan.number == number:
            return lan
    raise ValueError(f"there is no LAN {number}: choose one of {', '.join(str(lan.number) for lan in LANS)}")
