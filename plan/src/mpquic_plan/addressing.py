"""Inner addresses: every number of a site derives from its explicit `site_id`, never from the order of a list.

With n tunnels a site on a listener, slot k of site s has base + 4n(s-1) + 4(k-1) + 1. The server has the last usable
address, which all sites share; on a /30 that makes the client .1 and the server .2.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mpquic_plan.model import Listener

ADDRESSES_PER_TUNNEL: Final = 4
"""Each tunnel has the room of a /30, so that the numbers of a site with own /30s are the same."""


@dataclass(frozen=True, slots=True)
class InnerAddress:
    """The address of one end of a tunnel, in both families; IPv6 is ::1 of a /64."""

    ipv4: IPv4Address
    ipv6: IPv6Address

    @property
    def host_routes(self) -> list[str]:
        """Both addresses as /32 and /128."""
        return [f"{self.ipv4}/32", f"{self.ipv6}/128"]


def embedded(ula: IPv6Network, subnet: IPv4Network) -> IPv6Network:
    """Return the IPv6 prefix in which an IPv4 subnet follows a /32 (as RFC 6052, section 2.2): a /64 for an address."""
    base = int(ula.network_address) | int(subnet.network_address) << 64
    return IPv6Network((base, 32 + subnet.prefixlen))


def client_offset(listener: Listener, site_id: int, slot: int) -> int:
    """Return the place of a client's address in its listener's subnet."""
    return ADDRESSES_PER_TUNNEL * (listener.tunnels_per_site * (site_id - 1) + slot - 1) + 1


def server_offset(listener: Listener) -> int:
    """Return the place of the server's address: the last usable one."""
    return listener.subnet.num_addresses - 2


def longest_prefix(offset: int) -> int:
    """Return the prefix length of the smallest subnet that has room for a client at this place beside the server."""
    return 32 - (offset + 2).bit_length()


def client_address(listener: Listener, site_id: int, slot: int) -> InnerAddress:
    """Return the client's address, which is inside the subnet if `client_offset` is below `server_offset`."""
    return _at(listener, client_offset(listener, site_id, slot))


def server_address(listener: Listener) -> InnerAddress:
    """Return the server's address."""
    return _at(listener, server_offset(listener))


def _at(listener: Listener, offset: int) -> InnerAddress:
    ipv6 = IPv6Address(int(listener.subnet6.network_address) + (offset << 64) + 1)
    return InnerAddress(listener.subnet.network_address + offset, ipv6)
