"""The pool of addresses that a LAN's DHCP server gives out."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mpquic_plan.model import Lan

SMALLEST_POOL: Final = 2
"""For a single host a fixed address is the shorter way, and on a /30 that one is the site's router by default."""


@dataclass(frozen=True, slots=True)
class Pool:
    """A range of addresses, both ends included; empty where `last` comes before `first`."""

    first: int
    last: int

    @property
    def size(self) -> int:
        """How many addresses it has."""
        return max(0, self.last - self.first + 1)


def taken(lan: Lan, router: str | None) -> list[IPv4Address]:
    """Return the addresses that nobody may get: the client's, and the router's where there is one for sure.

    `router` is the site's router on the LAN as derived; it's there if it is stated or has prefixes behind it.
    """
    has_router = lan.router is not None or any(prefix.version == 4 for prefix in lan.behind)
    return sorted({lan.address.ip, *([IPv4Address(router)] if router is not None and has_router else [])})


def pool(lan: Lan, router: str | None) -> Pool:
    """Return the pool of a LAN: the stated range, or the longest one without addresses that are taken."""
    network = lan.address.network
    low, high = int(network.network_address) + 1, int(network.broadcast_address) - 1
    server = lan.dhcp_server
    if server is not None and server.first is not None and server.last is not None:
        return Pool(int(server.first), int(server.last))
    if server is not None:
        low = low if server.first is None else int(server.first)
        high = high if server.last is None else int(server.last)
    borders = [low - 1, *(int(address) for address in taken(lan, router) if low <= int(address) <= high), high + 1]
    runs = [Pool(before + 1, after - 1) for before, after in pairwise(borders)]
    return max(runs, key=lambda run: run.size)


def server_slice(lan: Lan, router: str | None) -> dict[str, Any] | None:
    """Return what systemd-networkd serves on a LAN; addresses count from that of the subnet."""
    if lan.dhcp_server is None:
        return None
    chosen = pool(lan, router)
    return {
        "pool_offset": chosen.first - int(lan.address.network.network_address),
        "pool_size": chosen.size,
        "dns": list(lan.dhcp_server.dns),
        "lease_s": lan.dhcp_server.lease_s,
    }
